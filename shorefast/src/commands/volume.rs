//! `volume ...`: each subcommand is one request.

use crate::api::{CreateVolume, Reply, Request, VolumeStatus};
use crate::cli::{Global, OnOff, VolumeCommand};
use crate::commands::{client, print, print_json, progress, wrong_reply};
use crate::exit::{Exit, Failure};
use crate::render;

/// `volume ...`
pub(super) fn run(command: &VolumeCommand, global: &Global) -> Result<Exit, Failure> {
    if let VolumeCommand::Info { name } = command {
        return info(name, global);
    }
    match client(global).call(request(command), progress(global))? {
        Reply::Volumes(volumes) if global.json => print_json("volumes", &volumes)?,
        Reply::Volumes(volumes) => print(&render::volumes(&volumes))?,
        Reply::Volume(volume) if global.json => print_json("volume", &volume)?,
        Reply::Volume(volume) if !global.quiet => print(&done(command, &volume))?,
        Reply::Done if global.json => print_json("done", &true)?,
        Reply::Volume(_) | Reply::Done => (),
        Reply::Status(_) | Reply::Nodes(_) => return Err(wrong_reply()),
    }
    Ok(Exit::Ok)
}

fn request(command: &VolumeCommand) -> Request {
    match command.clone() {
        VolumeCommand::Create { name, disk, wipe, timing } => {
            Request::VolumeCreate(CreateVolume { name, disks: disk, wipe, timing })
        }
        VolumeCommand::List | VolumeCommand::Info { .. } => Request::Volumes,
        VolumeCommand::Mount { name } => Request::VolumeMount { name },
        VolumeCommand::Unmount { name, force } => Request::VolumeUnmount { name, force },
        VolumeCommand::Move { name, to } => Request::VolumeMove { name, to },
        VolumeCommand::Redirect { name, state, node } => Request::VolumeRedirect { name, on: state == OnOff::On, node },
    }
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
