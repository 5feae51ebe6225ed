//! `replica verify`: begins it, waits for its end, lists where the replicas differ, and repairs that if it was asked to.

use std::time::Duration;

use replicator::runtime::status::{Status, Verified};

use crate::api::Node;
use crate::cli::{Global, ReplicaName};
use crate::commands::{print, print_json};
use crate::exit::{Exit, Failure};
use crate::render::bytes;
use crate::replica::talk::{self, Ask};

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_millis(200);
/// Ranges that are listed for people; JSON has them all.
const LISTED: usize = 100;

/// Runs it.
pub(super) fn run(which: &ReplicaName, from: Option<Node>, global: &Global) -> Result<Exit, Failure> {
    if from.is_some() {
        let status = talk::ask(&which.dir, &which.name, Ask::Status)?;
        if status.role != "Primary" {
            return Err(Failure::new(
                Exit::Refused,
                format!("{} is not primary here: a repair is written by the primary.", which.name),
                "Run the command on the primary, or give no --repair-from.",
            ));
        }
    }
    talk::ask(&which.dir, &which.name, Ask::Verify)?;
    let status = wait(which, |s| s.peers.iter().all(|p| p.verified.as_ref().is_none_or(|v| v.over)))?;
    if global.json {
        print_json("replica", &status)?;
    } else if !global.quiet {
        print(&shown(&status))?;
    }
    let all = || status.peers.iter().filter_map(|p| p.verified.as_ref());
    if all().any(|v| v.broken) {
        return Err(Failure::failed(
            format!("The verification of {} ended before its time: the connection was lost.", which.name),
            "Run it again when the peer is Established.",
        ));
    }
    let differs = all().any(|v| v.differing_bytes > 0);
    let skipped = all().any(|v| v.skipped_bytes > 0);
    match from.filter(|_| differs) {
        Some(from) => repair(which, from, global)?,
        None if differs => return Ok(Exit::Problems),
        None => {}
    }
    Ok(if skipped { Exit::Problems } else { Exit::Ok })
}

fn wait(which: &ReplicaName, over: impl Fn(&Status) -> bool) -> Result<Status, Failure> {
    loop {
        let status = talk::ask(&which.dir, &which.name, Ask::Status)?;
        if over(&status) {
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
}

fn repair(which: &ReplicaName, from: Node, global: &Global) -> Result<(), Failure> {
    talk::ask(&which.dir, &which.name, Ask::Repair { from: from.number() })?;
    let status = wait(which, |s| s.repair_left_bytes == 0)?;
    if status.not_repaired_bytes > 0 {
        return Err(Failure::failed(
            format!("{} of {} are not repaired: {from} is gone.", bytes(status.not_repaired_bytes), which.name),
            "Run it again when the peer is Established.",
        ));
    }
    if !global.json && !global.quiet {
        print(&format!("Repaired, as {from} has it.\n"))?;
    }
    Ok(())
}

fn shown(status: &Status) -> String {
    let mut text = String::new();
    for peer in &status.peers {
        let Some(found) = &peer.verified else { continue };
        text += &format!("node-{}: {}\n", peer.node.get(), sentence(found));
        for (at, len) in found.ranges.iter().take(LISTED) {
            text += &format!("  bytes {at} to {}\n", at + len - 1);
        }
        for (volume, at, len) in found.ranges_of_others.iter().take(LISTED) {
            text += &format!("  volume {volume}: bytes {at} to {}\n", at + len - 1);
        }
        if found.ranges.len().max(found.ranges_of_others.len()) > LISTED {
            let more = found.ranges.len().saturating_sub(LISTED) + found.ranges_of_others.len().saturating_sub(LISTED);
            text += &format!("  and {more} more ranges; --json lists them all\n");
        }
    }
    text
}

fn sentence(found: &Verified) -> String {
    let skipped = match found.skipped_bytes {
        0 => String::new(),
        skipped => format!("; {} were written all the time and are not compared", bytes(skipped)),
    };
    match found.differing_bytes {
        0 => format!("{} compared, nothing differs{skipped}", bytes(found.done_bytes)),
        differing => format!(
            "{} compared, {differing} bytes differ in {} ranges{skipped}",
            bytes(found.done_bytes),
            found.ranges.len() + found.ranges_of_others.len()
        ),
    }
}
