//! `replica`: makes one, runs one, or tells the one that runs what to do.

use crate::cli::{Global, ReplicaCommand, ReplicaCreateArgs, ReplicaName};
use crate::exit::{Exit, Failure};
use crate::replica::force::may_lose;
use crate::replica::talk::{self, Ask};
use crate::replica::{check, life, make, swap};
use replicator::ids::{SECTOR, Volume};

use super::{print, print_json};

mod verify;

/// Runs a command.
pub(super) fn run(command: &ReplicaCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        ReplicaCommand::Create(args) => create(args, global),
        ReplicaCommand::Up(which) => life::run(which, global, |ready| {
            if global.json {
                return print_json("replica", ready);
            }
            if global.quiet { Ok(()) } else { print(&ready.line()) }
        }),
        ReplicaCommand::Down(which) => tell(which, Ask::Down, global),
        ReplicaCommand::Primary { replica, force } => primary(replica, *force, global),
        ReplicaCommand::Events { replica, follow } => {
            talk::events(&replica.dir, &replica.name, *follow, |line| print(&format!("{line}\n")))?;
            Ok(Exit::Ok)
        }
        ReplicaCommand::Check(which) => {
            let audit = check::check(which)?;
            if global.json {
                print_json("check", &check::as_json(&audit))?;
            } else {
                print(&check::shown(&audit))?;
            }
            Ok(if audit.findings.is_empty() { Exit::Ok } else { Exit::Problems })
        }
        ReplicaCommand::Adjust(which) => tell(which, Ask::Adjust, global),
        ReplicaCommand::Secondary(which) => tell(which, Ask::Secondary, global),
        ReplicaCommand::Connect { replica, tentative: true, .. } => preview(replica, global),
        ReplicaCommand::Connect { replica, discard_my_data, .. } => connect(replica, *discard_my_data, global),
        ReplicaCommand::Disconnect(which) => tell(which, Ask::Disconnect, global),
        ReplicaCommand::Verify { replica, repair_from } => verify::run(replica, *repair_from, global),
        ReplicaCommand::Resize { replica, volume, size, assume_clean } => {
            let ask = Ask::Resize { volume: *volume, size: size.map(|s| s.0), clean: *assume_clean };
            let status = talk::ask(&replica.dir, &replica.name, ask)?;
            said(global, &status, || {
                let bytes = status.volumes.iter().find(|v| v.volume == *volume).map_or(0, |v| v.size_bytes);
                let which = if *volume == 0 { status.name.clone() } else { format!("{}/{volume}", status.name) };
                format!("{which} has {bytes} bytes now.\n")
            })
        }
        ReplicaCommand::RemoveVolume { replica, volume, force } => {
            let status = talk::ask(&replica.dir, &replica.name, Ask::RemoveVolume { volume: *volume, force: *force })?;
            said(global, &status, || {
                format!(
                    "{0}/{volume} is taken away. Take [volumes.{volume}] out of {0}.toml on every node; what was written is on the disks yet.\n",
                    status.name
                )
            })
        }
        ReplicaCommand::ReplaceDisk { replica, volume, local, force, wipe } => {
            swap::replace_disk(replica, *volume, local, *force, wipe)?;
            said(global, &serde_json::json!({ "name": replica.name, "volume": volume }), || {
                format!(
                    "{0}/{volume} has an empty disk, and is synchronised in full when {0} runs and has met a peer: `shorefast replica up {0}`.\n",
                    replica.name
                )
            })
        }
        ReplicaCommand::Status(which) => {
            let status = talk::ask(&which.dir, &which.name, Ask::Status)?;
            if global.json {
                print_json("replica", &status)?;
            } else {
                print(&life::shown(&status))?;
            }
            Ok(Exit::Ok)
        }
    }
}

/// What was done, for programs or for people.
fn said(global: &Global, what: &impl serde::Serialize, text: impl FnOnce() -> String) -> Result<Exit, Failure> {
    if global.json {
        print_json("replica", what)?;
    } else if !global.quiet {
        print(&text())?;
    }
    Ok(Exit::Ok)
}

fn create(args: &ReplicaCreateArgs, global: &Global) -> Result<Exit, Failure> {
    let sizes = make::create(args)?;
    let name = &args.replica.name;
    let volume = |(v, s): (Volume, u64)| serde_json::json!({ "volume": v.get(), "bytes": s * SECTOR });
    let volumes: Vec<_> = sizes.iter().map(volume).collect();
    let bytes = sizes.of(Volume::FIRST) * SECTOR;
    said(global, &serde_json::json!({ "name": name, "bytes": bytes, "volumes": volumes }), || {
        let all: Vec<String> = sizes.iter().map(|(_, s)| (s * SECTOR).to_string()).collect();
        format!(
            "{name} is made: {} bytes. Make it on its peers, run `shorefast replica up {name}` on all of them, and \
             `primary {name} --force` once, where the data to begin with are.\n",
            all.join(" + ")
        )
    })
}

fn tell(which: &ReplicaName, ask: Ask, global: &Global) -> Result<Exit, Failure> {
    let status = talk::ask(&which.dir, &which.name, ask)?;
    if global.json {
        print_json("replica", &status)?;
    }
    Ok(Exit::Ok)
}

/// With force it is first tried without: then others have been asked what they hold, and what may be lost is said before it is.
fn primary(which: &ReplicaName, force: bool, global: &Global) -> Result<Exit, Failure> {
    if force {
        match talk::ask(&which.dir, &which.name, Ask::Primary { force: false }) {
            Err(refused) if refused.kind == Exit::Refused => {}
            // Nothing is forced without a majority.
            Err(failed) => return Err(failed),
            Ok(_) => return tell(which, Ask::Status, global),
        }
        let status = talk::ask(&which.dir, &which.name, Ask::Status)?;
        for sentence in may_lose(&status).into_iter().filter(|_| !global.json && !global.quiet) {
            print(&format!("{sentence}\n"))?;
        }
    }
    tell(which, Ask::Primary { force }, global)
}

/// What a connection would come to, for each peer.
fn preview(which: &ReplicaName, global: &Global) -> Result<Exit, Failure> {
    let status = talk::ask(&which.dir, &which.name, Ask::Tentative)?;
    if global.json {
        print_json("replica", &status)?;
        return Ok(Exit::Ok);
    }
    for peer in &status.peers {
        print(&life::previewed(peer))?;
    }
    Ok(Exit::Ok)
}

/// What is given up is said before it is.
fn connect(which: &ReplicaName, discard: bool, global: &Global) -> Result<Exit, Failure> {
    if discard && !global.json && !global.quiet {
        let status = talk::ask(&which.dir, &which.name, Ask::Status)?;
        for peer in &status.peers {
            print(&format!(
                "In a split brain with node-{} at most {} bytes that were written here are given up.\n",
                peer.node.get(),
                peer.out_of_sync_bytes
            ))?;
        }
    }
    tell(which, Ask::Connect { discard }, global)
}
