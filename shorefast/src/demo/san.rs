//! `shorefast demo --san`: three nodes and a disk array (`shorefast target serve`), each in a network namespace of its own, with a
//! network between the nodes and two to the array; a volume on the array's unit at both portals. While every node writes and verifies,
//! networks are cut, the array is killed, and an outsider takes keys and reservations away.
//!
//! What cannot be set up here (no root, no `ip`, no `nft`) is said in a sentence before anything is started. Whatever happens, also Ctrl-C,
//! processes, mounts, namespaces and folder are taken away.
//!
//! - `networks`: the namespaces, and how they are cut. `array`: the disk array. `outsider`: who is no node. `want`: a program that wants another
//!   node's files.
//! - `pulse`: how long the array, or the whole machine, was silent.
//! - `run`: load and verification. `faults`: what is done, and what must come of it.

mod array;
mod faults;
pub(crate) mod networks;
pub(crate) mod outsider;
mod pulse;
mod run;
pub(crate) mod want;

use std::path::PathBuf;
use std::sync::Arc;

use super::cluster::{Cluster, NODES};
use super::interrupt::Interrupt;
use super::timeline::Timeline;
use crate::cli::{DemoArgs, Global};
use crate::exit::{Exit, Failure};
use array::Array;
use networks::{ARRAY, Networks};
use run::Run;

/// The demo; when it returns, what was started has ended and what was made is gone. `dir` becomes its folder.
pub(super) fn staged(
    args: &DemoArgs,
    global: &Global,
    interrupt: &Interrupt,
    timeline: &Arc<Timeline>,
    dir: &mut Option<PathBuf>,
) -> Result<Exit, Failure> {
    timeline.say("three networks, a disk array and three daemons start, each host in a namespace of its own");
    let networks = Networks::make(&format!("sfd{}", std::process::id()), usize::from(NODES)).map_err(|e| {
        Failure::failed(
            format!("The demo's networks cannot be made here: {e}."),
            "It needs root, `ip` and `nft` (Debian: iproute2, nftables), and a kernel with network namespaces: `./setup --for demo-san` looks.",
        )
    })?;
    let array_door = networks.door(ARRAY);
    let (mut cluster, identity) = Cluster::lay_out_apart(args.dir.as_deref(), interrupt, networks)?;
    *dir = Some(cluster.dir.clone());
    let array = Array::of(&cluster, array_door, identity);
    array.start(&mut cluster, interrupt)?;
    cluster.start_all()?;
    let mut run = Run::begin(cluster, array, Arc::clone(timeline), interrupt.clone())?;
    run.all()?;
    let (cluster, found) = run.ended();
    let report = found.report(&cluster, timeline);
    super::write_report(&args.report, &report)?;
    let told = timeline.end_live();
    super::tell(args, global, &cluster, &report, told)?;
    Ok(if report.ok() { Exit::Ok } else { Exit::Failed })
}
