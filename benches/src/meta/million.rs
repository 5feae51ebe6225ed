//! A volume with a million files: what its coordinator takes in memory while it is walked through two nodes, and what checking
//! it takes, mounted and not.
//!
//! The files are made with the metadata store itself while nobody has the volume mounted, as a million calls would have made
//! them; making them through a mount takes an hour and is measured elsewhere (`names`).

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::device::BlockDevice;
use block::file::{FileDevice, OpenOptions};
use block::shared::{Incarnation, NodeId};
use block::worker::Workers;
use csv_fs::core::office::{FencedEpoch, LeaseView};
use csv_fs::meta::{Latch, MetaError, NewNode, Store, read_superblock};
use csv_fs::types::{ClientId, FS_BLOCK, InodeNo, Timestamp};
use serde::Serialize;

use crate::cluster::{Cluster, VOLUME};
use crate::{Failure, cpu, interrupt};

const DIRS: u64 = 1000;
pub(crate) const FILES_EACH: u64 = 1000;
/// Of the files one in so many is looked at by its name; all are listed.
const STAT_EVERY: usize = 20;
/// The volume, of which only the metadata is ever written.
const IMAGE: u64 = 12 << 30;
/// What a coordinator may take at most, in MiB.
const COORDINATOR_MIB: f64 = 400.0;
/// What a check may.
const CHECK_MIB: f64 = 500.0;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Scale {
    /// Files of the volume.
    pub files: u64,
    /// Resident memory of the coordinator's daemon before the files were made, in MiB.
    pub empty_mib: f64,
    /// Its peak while all files were listed and some looked at, through two nodes.
    pub walked_mib: f64,
    /// At most.
    pub reach_mib: f64,
    /// Seconds that one node took to list them all.
    pub walk_seconds: f64,
    /// The check while it is mounted: in the coordinator's daemon.
    pub mounted: Checked,
    /// The check while no node has it mounted: in a process of its own.
    pub unmounted: Checked,
}

/// One check.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Checked {
    /// How long.
    pub seconds: f64,
    /// Peak of the process that checks, in MiB, all that it has besides included.
    pub peak_mib: f64,
    /// At most.
    pub reach_mib: f64,
}

/// Bytes of disk for it: a store of a million files has grown by doubling.
pub(super) fn needs() -> u64 {
    3 << 30
}

/// Makes the volume and measures.
pub fn run(programs: &Path, dir: &Path) -> Result<Scale, Failure> {
    let cluster = Cluster::start_sparse(&programs.join("shorefast"), &dir.join("million"), 2, IMAGE)?;
    let resident = |at: usize| {
        let pid = cluster.members[at].pid().ok_or_else(|| Failure::new("a daemon has ended"))?;
        cpu::resident_mib(pid)
    };
    let (empty_mib, _) = resident(0)?;
    mounted_everywhere(&cluster, false)?;
    eprintln!("  making {} files", DIRS * FILES_EACH);
    fill(&cluster.disk(), DIRS).map_err(|e| Failure::at(&cluster.disk(), e))?;
    mounted_everywhere(&cluster, true)?;
    // Mounted is not served yet: somebody takes office first.
    cluster.wait_until(0, "a coordinator", |status| status["volumes"][0]["coordinator"].is_u64())?;
    let coordinator = cluster.coordinator(0).ok_or_else(|| Failure::new("nobody coordinates the volume"))?;
    let mut walk_seconds = 0.0;
    for at in [1 - coordinator, coordinator] {
        interrupt::check()?;
        eprintln!("  walking them through node {}", at + 1);
        let begin = Instant::now();
        walk(&cluster.members[at].mount())?;
        walk_seconds = begin.elapsed().as_secs_f64();
    }
    let (_, walked_mib) = resident(coordinator)?;
    interrupt::check()?;
    eprintln!("  checking them, mounted and not");
    let pid = cluster.members[coordinator].pid().ok_or_else(|| Failure::new("a daemon has ended"))?;
    cpu::forget_peak(pid)?;
    let begin = Instant::now();
    cluster.shorefast(1 - coordinator, &["volume", "check", VOLUME])?;
    let mounted = checked(begin, resident(coordinator)?.1);
    mounted_everywhere(&cluster, false)?;
    let unmounted = check_unmounted(&cluster)?;
    let (files, reach_mib) = (DIRS * FILES_EACH, COORDINATOR_MIB);
    Ok(Scale { files, empty_mib, walked_mib, reach_mib, walk_seconds, mounted, unmounted })
}

fn checked(begin: Instant, peak_mib: f64) -> Checked {
    Checked { seconds: begin.elapsed().as_secs_f64(), peak_mib, reach_mib: CHECK_MIB }
}

/// Mounts on every node, or unmounts.
pub(crate) fn mounted_everywhere(cluster: &Cluster, mounted: bool) -> Result<(), Failure> {
    let what = if mounted { "mount" } else { "unmount" };
    for at in 0..cluster.members.len() {
        cluster.shorefast(at, &["volume", what, VOLUME])?;
    }
    for at in 0..cluster.members.len() {
        cluster.wait_until(at, what, |status| status["volumes"][0]["mount"].is_string() == mounted)?;
    }
    Ok(())
}

/// Files of one block each, a thousand in each folder. The epoch only opens the store: nobody else has the volume.
pub(crate) fn fill(image: &Path, dirs: u64) -> Result<(), Box<dyn std::error::Error>> {
    let workers = Workers::start(1, "fill")?;
    let dev: Arc<dyn BlockDevice> = Arc::new(FileDevice::open(image, OpenOptions::default(), workers.handle())?);
    let superblock = read_superblock(&dev)?.superblock;
    let before = LeaseView::new_volume();
    let client = ClientId { node: NodeId::new(1).ok_or("node 1")?, incarnation: Incarnation(1) };
    let epoch = FencedEpoch::by_resignation(&before, &before.taken_by(client, "bench", 1)).ok_or("no epoch")?;
    let store = Store::open(Arc::clone(&dev), &superblock, &epoch, Arc::new(Latch::new()))?;
    let now = Timestamp::from_epoch(std::time::SystemTime::UNIX_EPOCH.elapsed()?);
    for d in 0..dirs {
        let mut txn = store.write()?;
        txn.run(now, |ops| {
            let dir = ops.create(&node(InodeNo::ROOT, &format!("dir-{d}"), 0o040_755), true)?.attr.ino;
            for n in 0..FILES_EACH {
                let name = format!("a file with a name of some length {d}-{n}");
                let ino = ops.create(&node(dir, &name, 0o100_644), true)?.attr.ino;
                ops.fallocate(ino, 0, FS_BLOCK, false)?;
            }
            Ok::<(), MetaError>(())
        })??;
        txn.commit()?;
    }
    store.close()?;
    drop(dev);
    workers.shutdown()?;
    Ok(())
}

fn node(parent: InodeNo, name: &str, mode: u32) -> NewNode<'_> {
    NewNode { parent, name: name.as_bytes(), mode, umask: 0, rdev: 0, uid: 0, gid: 0 }
}

/// Lists every folder, looks at some files.
fn walk(mount: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::at(mount, e);
    let mut seen = 0;
    for dir in fs::read_dir(mount).map_err(failed)? {
        let dir = dir.map_err(failed)?;
        for file in fs::read_dir(dir.path()).map_err(failed)? {
            let file = file.map_err(failed)?;
            if seen % STAT_EVERY == 0 {
                file.metadata().map_err(failed)?;
            }
            seen += 1;
        }
    }
    if seen as u64 == DIRS * FILES_EACH { Ok(()) } else { Err(Failure::at(mount, format!("shows {seen} files"))) }
}

fn check_unmounted(cluster: &Cluster) -> Result<Checked, Failure> {
    let begin = Instant::now();
    let mut command = cluster.command(0, &["--json", "volume", "check", VOLUME]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Failure::new(format!("{command:?}: {e}")))?;
    let mut peak: f64 = 0.0;
    loop {
        // The kernel's own peak: what is between two looks is not missed, but for the last one.
        peak = peak.max(cpu::resident_mib(child.id()).map_or(0.0, |(_, peak)| peak));
        match child.try_wait().map_err(|e| Failure::new(format!("{command:?}: {e}")))? {
            Some(status) if status.success() => return Ok(checked(begin, peak)),
            Some(status) => return Err(Failure::new(format!("{command:?} ended with {status}"))),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// For people.
pub fn table(s: &Scale) -> String {
    let judged = |mib: f64, reach: f64| if mib <= reach { "ok" } else { "above" };
    let mut text = format!("\na volume with {} files\n", s.files);
    text += &format!(
        "coordinator's daemon: {:.0} MiB empty, at most {:.0} MiB while all were listed and one in {STAT_EVERY} looked at, \
         through two nodes (at most {:.0}: {}); {:.0} s to do that on the coordinator\n",
        s.empty_mib,
        s.walked_mib,
        s.reach_mib,
        judged(s.walked_mib, s.reach_mib),
        s.walk_seconds
    );
    for (how, c) in [("mounted, in the coordinator's daemon", s.mounted), ("not mounted", s.unmounted)] {
        let verdict = judged(c.peak_mib, c.reach_mib);
        let (took, peak, reach) = (c.seconds, c.peak_mib, c.reach_mib);
        text += &format!("volume check, {how}: {took:.1} s, peak {peak:.0} MiB (at most {reach:.0}: {verdict})\n");
    }
    text
}
