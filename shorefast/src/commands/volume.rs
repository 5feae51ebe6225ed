//! `volume ...`: each subcommand is one request.

use crate::api::{CreateVolume, Reply, Request, VolumeStatus};
use crate::cli::{Global, VolumeCommand};
use crate::commands::{check, client, print, print_json, progress, redirect, wrong_reply};
use crate::disk_url;
use crate::exit::{Exit, Failure};
use crate::render;
use crate::san;

/// A secret on the command line works, and is not kept in the volume's record.
const SEEN_BY_ALL: &str = "Warning: the secret in --disk is seen by everybody who can list processes, and stays in the shell's history: \
                           leave it out, and write `USER SECRET` into the file of the key `iscsi_secrets` on every node.";

/// `volume ...`
pub(super) fn run(command: &VolumeCommand, global: &Global) -> Result<Exit, Failure> {
    if let VolumeCommand::Info { name } = command {
        return info(name, global);
    }
    if let VolumeCommand::Check(args) = command {
        return check::run(args, global);
    }
    if let VolumeCommand::Redirect { name, state, node } = command {
        return redirect::run(name, *state, *node, global);
    }
    match client(global).call(request(command)?, progress(global))? {
        Reply::Volumes(volumes) if global.json => print_json("volumes", &volumes)?,
        Reply::Volumes(volumes) => print(&render::volumes(&volumes))?,
        Reply::Volume(volume) if global.json => print_json("volume", &volume)?,
        Reply::Volume(volume) if !global.quiet => print(&done(command, &volume))?,
        Reply::Done if global.json => print_json("done", &true)?,
        Reply::Done if !global.quiet => print(&did(command))?,
        Reply::Volume(_) | Reply::Done => (),
        Reply::Status(_) | Reply::Nodes(_) | Reply::Check(_) => return Err(wrong_reply()),
    }
    Ok(Exit::Ok)
}

fn request(command: &VolumeCommand) -> Result<Request, Failure> {
    Ok(match command.clone() {
        VolumeCommand::Create { name, disk, wipe, timing } => {
            Request::VolumeCreate(CreateVolume { name, disks: disks(&disk)?, wipe, timing })
        }
        // The last three never come here.
        VolumeCommand::List | VolumeCommand::Info { .. } | VolumeCommand::Check(_) | VolumeCommand::Redirect { .. } => {
            Request::Volumes
        }
        VolumeCommand::Mount { name } => Request::VolumeMount { name },
        VolumeCommand::Unmount { name, force } => Request::VolumeUnmount { name, force },
        VolumeCommand::Move { name, to } => Request::VolumeMove { name, to },
    })
}

/// The daemon stands in another folder than the command.
fn disks(given: &[String]) -> Result<Vec<String>, Failure> {
    if given.iter().any(|url| san::has_secret(url)) {
        eprintln!("{SEEN_BY_ALL}");
    }
    let absolute = |url: &String| {
        disk_url::made_absolute(url)
            .map_err(|e| Failure::usage(format!("--disk {url} is no usable path: {e}."), "Write the whole path."))
    };
    given.iter().map(absolute).collect()
}

fn info(name: &str, global: &Global) -> Result<Exit, Failure> {
    let Reply::Volumes(volumes) = client(global).call(Request::Volumes, |_| ())? else { return Err(wrong_reply()) };
    let volume = volumes.into_iter().find(|v| v.name == name).ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("There is no volume {name}."),
            "`shorefast volume list` shows those there are.",
        )
    })?;
    if global.json {
        print_json("volume", &volume)?
    } else {
        print(&render::volume(&volume))?
    }
    Ok(Exit::Ok)
}

/// What was done by a command whose answer is only that it was.
fn did(command: &VolumeCommand) -> String {
    match command {
        VolumeCommand::Unmount { name, .. } => {
            format!(
                "Volume {name} is unmounted on this node, and stays so over restarts, until `shorefast volume mount {name}`.\n"
            )
        }
        _ => String::new(),
    }
}

fn done(command: &VolumeCommand, volume: &VolumeStatus) -> String {
    let name = &volume.name;
    let mount = volume.mount.as_ref().map_or_else(|| "nowhere yet".to_owned(), |m| m.display().to_string());
    match (command, volume.coordinator) {
        (VolumeCommand::Create { .. }, _) => format!("Volume {name} is formatted and mounted on {mount}.\n"),
        (VolumeCommand::Move { .. }, Some(node)) => {
            format!("{node} is coordinator of {name}, epoch {}.\n", volume.epoch)
        }
        _ => format!("Volume {name} is mounted on {mount}.\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_disk_is_made_absolute_before_the_daemon_is_asked() {
        let here = std::env::current_dir().expect("a folder");
        let asked = disks(&["lab/disk.img".to_owned()]).expect("a path");
        assert_eq!(asked, [here.join("lab/disk.img").display().to_string()]);
    }
}
