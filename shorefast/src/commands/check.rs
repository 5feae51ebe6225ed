//! `volume check`: of a mounted volume the daemon is asked; one that nobody has mounted is checked, and repaired, here.

use std::sync::Arc;

use block::shared::NodeId;
use csv_fs::meta::check::{Repair, Report};
use csv_fs::volume::{DiskSource, Unattended, UnattendedError};

use crate::api::{CheckAnswer, CheckReport, CheckedOn, Reply, Request};
use crate::cli::{CheckArgs, Global};
use crate::commands::{client, print, print_json, progress, wrong_reply};
use crate::disk_url::{self, Disk};
use crate::exit::{Exit, Failure};
use crate::pace::Pace;
use crate::render;
use crate::san::Caller;
use crate::san::local::{self, LocalUnit};
use crate::san::unit::Unit;

/// In the ISIDs of a check, which is no node's.
const UNATTENDED: &str = "check";

/// A round of repairs may uncover what others hid, so that as much is wrong after it as before; but not time and again.
const ROUNDS_WITHOUT_PROGRESS: usize = 16;

/// `volume check`
pub(super) fn run(args: &CheckArgs, global: &Global) -> Result<Exit, Failure> {
    match (&args.name, &args.disk) {
        (Some(name), _) => named(name, args, global),
        (None, Some(url)) => {
            let url = disk_url::made_absolute(url).map_err(|e| {
                Failure::usage(format!("--disk {url} is no usable path: {e}."), "Write the whole path.")
            })?;
            unmounted("the volume", &[url], args, global)
        }
        (None, None) => Err(Failure::usage("Neither a volume nor a disk was named.", "Write NAME or --disk URL.")),
    }
}

fn named(name: &str, args: &CheckArgs, global: &Global) -> Result<Exit, Failure> {
    let repair = args.repair && !args.dry_run;
    match client(global).call(Request::VolumeCheck { name: name.to_owned(), repair }, progress(global))? {
        Reply::Check(CheckAnswer::Checked(report)) => {
            show(name, &report, global)?;
            Ok(if report.clean { Exit::Ok } else { Exit::Problems })
        }
        Reply::Check(CheckAnswer::Unmounted { disks }) => unmounted(name, &disks, args, global),
        _ => Err(wrong_reply()),
    }
}

fn show(name: &str, report: &CheckReport, global: &Global) -> Result<(), Failure> {
    match global.json {
        true => print_json("check", report),
        // What went wrong is said, whatever else is not.
        false if global.quiet && report.clean => Ok(()),
        false => print(&render::check_report(name, report)),
    }
}

/// Checks the volume on a disk that no node has mounted.
fn unmounted(name: &str, urls: &[String], args: &CheckArgs, global: &Global) -> Result<Exit, Failure> {
    let urls = &local::resolved(urls)?;
    let disk = disk_url::disk(urls)?;
    let source = match &disk {
        Disk::File(_) => DiskSource::File(disk_url::shareable(&urls[0])?),
        Disk::Unit(portals) => DiskSource::Unit(Arc::new(Unit::new(portals.clone(), Caller::of_command(), UNATTENDED))),
        Disk::Scsi(unit) => DiskSource::Unit(Arc::new(LocalUnit::new(unit.clone(), Vec::new()))),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| no_threads(&e.to_string()))?;
    let workers = block::worker::Workers::start(1, "io").map_err(|e| no_threads(&e.to_string()))?;
    // A file needs no name of a node; a unit is checked under the first one's.
    let node = NodeId::new(1).unwrap_or_else(|| unreachable!("there is a first node"));
    let opened = runtime.block_on(Unattended::open(&source, node, workers.handle()));
    let done = opened.map_err(|e| failure(&e)).and_then(|volume| {
        let done = rounds(name, &disk.to_string(), &volume, args, global);
        runtime.block_on(volume.close());
        done
    });
    // Its last request has been answered; what is left of it is of no use to anybody.
    if let Err(e) = workers.shutdown() {
        tracing::debug!("{e}");
    }
    done
}

fn no_threads(why: &str) -> Failure {
    Failure::failed(
        format!("The threads for the disk cannot be started: {why}."),
        "See the limits of the system (threads, locked memory, io_uring).",
    )
}

fn failure(e: &UnattendedError) -> Failure {
    let kind = if e.is_refusal() { Exit::Refused } else { Exit::Failed };
    Failure::new(kind, format!("{e}."), e.next_step())
}

/// Checks; with `--repair` says what is done, does it, and checks again, until nothing that can be repaired is left.
fn rounds(name: &str, disk: &str, volume: &Unattended, args: &CheckArgs, global: &Global) -> Result<Exit, Failure> {
    let (mut round, mut left, mut in_vain) = (0, u64::MAX, 0);
    while in_vain < ROUNDS_WITHOUT_PROGRESS {
        let report = check(volume, global)?;
        in_vain = if report.count < left { 0 } else { in_vain + 1 };
        left = left.min(report.count);
        let repairs: Vec<Repair> = report.findings.iter().filter_map(|f| f.repair.clone()).collect();
        let last = repairs.is_empty() || !args.repair || args.dry_run;
        if last || round == 0 {
            let checked = CheckedOn::Disk { path: disk.to_owned() };
            show(name, &CheckReport::new(checked, &report), global)?;
        }
        if last {
            return Ok(if report.is_clean() { Exit::Ok } else { Exit::Problems });
        }
        for repair in &repairs {
            say_repair(repair, global)?;
        }
        volume.repair(&repairs).map_err(|e| failure(&e))?;
        round += 1;
    }
    Err(Failure::failed(
        format!("After {round} rounds of repairs there is still something to repair."),
        "What was repaired is kept. That is a defect: keep a copy of the disk.",
    ))
}

fn check(volume: &Unattended, global: &Global) -> Result<Report, Failure> {
    let (mut say, mut pace) = (progress(global), Pace::new());
    let heard = |step| {
        if let Some(line) = pace.line(step) {
            say(&line);
        }
    };
    volume.check(heard).map_err(|e| failure(&e))
}

/// Before it is done. With `--json` an object of its own line.
fn say_repair(repair: &Repair, global: &Global) -> Result<(), Failure> {
    match global.json {
        true => print_json("repair", &repair.to_string()),
        false => print(&format!("Repair: {repair}.\n")),
    }
}
