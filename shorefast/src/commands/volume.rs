//! `volume ...`: each subcommand is one request.

use crate::api::{CreateVolume, Reply, Request, VolumeStatus};
use crate::cli::{Global, OnOff, VolumeCommand};
use crate::commands::{check, client, print, print_json, progress, wrong_reply};
use crate::disk_url;
use crate::exit::{Exit, Failure};
use crate::render;

/// `volume ...`
pub(super) fn run(command: &VolumeCommand, global: &Global) -> Result<Exit, Failure> {
    if let VolumeCommand::Info { name } = command {
        return info(name, global);
    }
    if let VolumeCommand::Check(args) = command {
        return check::run(args, global);
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
        VolumeCommand::List | VolumeCommand::Info { .. } | VolumeCommand::Check(_) => Request::Volumes,
        VolumeCommand::Mount { name } => Request::VolumeMount { name },
        VolumeCommand::Unmount { name, force } => Request::VolumeUnmount { name, force },
        VolumeCommand::Move { name, to } => Request::VolumeMove { name, to },
        VolumeCommand::Redirect { name, state, node } => Request::VolumeRedirect { name, on: state == OnOff::On, node },
    })
}

/// The daemon stands in another folder than the command.
fn disks(given: &[String]) -> Result<Vec<String>, Failure> {
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
            format!("Volume {name} is unmounted on this node; `shorefast volume mount {name}` mounts it again.\n")
        }
        VolumeCommand::Redirect { name, state, node } => {
            let whose = node.map_or_else(|| "this node".to_owned(), |n| n.to_string());
            let whom = node.map_or_else(String::new, |n| format!(" --node {}", n.number()));
            match state {
                OnOff::On => format!(
                    "The data of {whose} on {name} goes through the coordinator, until \
                     `shorefast volume redirect {name} off{whom}`.\n"
                ),
                OnOff::Off => {
                    format!("The data of {whose} on {name} goes straight to the disk, as far as it has a path.\n")
                }
            }
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
    fn redirecting_says_whose_data_goes_where_and_how_to_end_it() {
        let redirect = |state, node: Option<&str>| {
            did(&VolumeCommand::Redirect { name: "vm1".into(), state, node: node.map(|n| n.parse().expect("a node")) })
        };
        let on = redirect(OnOff::On, Some("2"));
        assert!(on.contains("node-2 on vm1") && on.contains("redirect vm1 off --node 2"), "{on}");
        let off = redirect(OnOff::Off, None);
        assert!(off.contains("this node on vm1") && off.contains("straight"), "{off}");
    }

    #[test]
    fn a_relative_disk_is_made_absolute_before_the_daemon_is_asked() {
        let here = std::env::current_dir().expect("a folder");
        let asked = disks(&["lab/disk.img".to_owned()]).expect("a path");
        assert_eq!(asked, [here.join("lab/disk.img").display().to_string()]);
    }
}
