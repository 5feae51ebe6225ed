//! The demo from beginning to end: what is done to the sites, in which order, and what must hold meanwhile.
//!
//! What does not come about within its limit is a failed check; the demo goes on, so that the report shows the whole. Only what
//! makes going on pointless ends it: a site that died by itself, Ctrl-C.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::interrupt::Interrupt;
use super::super::report::Check;
use super::super::timeline::Timeline;
use super::load::{Load, SLOT};
use super::nbd::Client;
use super::report::{PhaseFound, ReplicaReport, Resynced};
use super::sites::{DEVICE, NAME, Sites};
use super::watch::Watch;
use crate::exit::Failure;
use crate::render::bytes;
use crate::replica::talk::Ask;

/// Operations that the load must complete in a phase in which the device is served.
const FLOOR: u64 = 100;
/// A phase lasts at least so long, so that the chart shows it.
const PHASE_MIN: Duration = Duration::from_secs(3);
/// What a phase must bring about comes within this, also on a slow machine.
const LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
/// Writes whose answers never came when a site was killed: one for each thread of the load at most.
const IN_DOUBT: u64 = 4 * SLOT;

/// A demo that runs. Its fields go in this order: who uses the sites before the sites.
pub(super) struct Run {
    load: Arc<Load>,
    watch: Watch,
    interrupt: Interrupt,
    timeline: Arc<Timeline>,
    found: ReplicaReport,
    sites: Sites,
}

impl Run {
    /// Makes the first site primary and waits until both are equal.
    pub(super) fn begin(sites: Sites, timeline: Arc<Timeline>, interrupt: Interrupt) -> Result<Run, Failure> {
        let load = Arc::new(Load::start()?);
        let named = |n: usize| (sites.site(n).node, sites.site(n).dir.clone());
        let watch = Watch::start(&load, [named(0), named(1)], &timeline)?;
        let found = ReplicaReport { started: timeline.started(), device_bytes: DEVICE, ..ReplicaReport::default() };
        let mut run = Run { load, watch, interrupt, timeline, found, sites };
        run.sites.site(0).ask(Ask::Primary { force: true })?;
        run.done(0, "is primary; what its disk holds is what counts");
        let equal = run.until(|run| run.are_equal(0, 1))?;
        run.check("the two sites became equal at the beginning", equal.is_some(), String::new());
        Ok(run)
    }

    /// Every phase, and the report.
    pub(super) fn all(mut self) -> Result<ReplicaReport, Failure> {
        self.phase("both sites", true, |run| run.served_by(0))?;
        self.phase("SIGKILL", false, Run::kill_and_promote)?;
        self.phase("one site", true, |run| run.served_by(1))?;
        self.phase("it is back", true, Run::bring_back)?;
        self.phase("roles switch back", true, Run::switch_back)?;
        self.phase("verification", false, Run::verify_all)?;
        let tally = self.load.tally();
        self.check_load(&tally.failures, &tally.wrong);
        self.found.bytes_verified += tally.bytes;
        self.found.samples = self.watch.end();
        (self.found.took_ms, self.found.marks) = (self.timeline.now_ms(), self.timeline.read().1);
        Ok(std::mem::take(&mut self.found))
    }

    fn phase(
        &mut self,
        name: &'static str,
        served: bool,
        act: impl FnOnce(&mut Run) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (from_ms, begun, before) = (self.timeline.now_ms(), Instant::now(), self.load.tally().ops);
        act(self)?;
        let after = self.load.tally().ops;
        let deadline = Instant::now() + LIMIT;
        while served && Instant::now() < deadline {
            self.look()?;
            if self.load.tally().ops >= after + FLOOR && begun.elapsed() >= PHASE_MIN {
                break;
            }
            std::thread::sleep(LOOK);
        }
        let ops = self.load.tally().ops - before;
        let floor = served.then_some(FLOOR);
        if served {
            self.check(&format!("the device served at least {FLOOR} operations: {name}"), ops >= FLOOR, String::new());
        }
        self.found.phases.push(PhaseFound {
            name: name.to_owned(),
            from_ms,
            to_ms: self.timeline.now_ms(),
            ops,
            floor,
        });
        Ok(())
    }

    /// What every wait does: Ctrl-C, the lives of the processes.
    fn look(&self) -> Result<(), Failure> {
        self.interrupt.check()?;
        let died = (0..2).find(|n| !self.sites.site(*n).runs() && Some(*n) != self.found.killed.map(|n| n as usize));
        match died {
            None => Ok(()),
            Some(n) => Err(Failure::failed(
                format!("The site of {} ended by itself.", self.sites.site(n).node),
                "That is a defect; its log was in the demo's folder.",
            )),
        }
    }

    /// Waits for something; the time it took, none if it did not come.
    fn until(&mut self, holds: impl Fn(&Run) -> bool) -> Result<Option<Duration>, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            self.look()?;
            if holds(self) {
                return Ok(Some(begun.elapsed()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(None)
    }

    fn are_equal(&self, primary: usize, other: usize) -> bool {
        let there = self.sites.site(primary).peer();
        let equal = there.is_some_and(|p| p.connection == "Established" && p.out_of_sync_bytes == 0);
        equal && self.sites.site(other).ask(Ask::Status).is_ok_and(|s| s.disk == "UpToDate")
    }

    fn done(&self, n: usize, text: &str) {
        self.timeline.done(Some(self.sites.site(n).node), text);
    }

    fn check(&mut self, name: &str, ok: bool, detail: String) {
        self.found.checks.push(Check { name: name.to_owned(), ok, detail });
    }

    fn check_wrong(&mut self, name: &str, wrong: &[String], detail: String) {
        let detail = match wrong {
            [] => detail,
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        };
        self.check(name, wrong.is_empty(), detail);
    }

    fn served_by(&mut self, n: usize) -> Result<(), Failure> {
        self.load.to(Some(self.sites.site(n).nbd()));
        self.done(n, "serves the load: four writers, each with a connection of its own");
        Ok(())
    }

    /// The site that is written dies; the other takes its place.
    fn kill_and_promote(&mut self) -> Result<(), Failure> {
        self.load.count_gap();
        self.done(0, "SIGKILL");
        self.found.killed = Some(0);
        self.sites.kill(0)?;
        self.load.to(None);
        self.load.forget_written();
        let promoted = self.until(|run| run.sites.site(1).ask(Ask::Primary { force: false }).is_ok())?;
        let detail = promoted.map_or_else(String::new, |t| format!("{} ms after the kill", t.as_millis()));
        self.check("the other site became primary without force", promoted.is_some(), detail);
        self.done(1, "is primary");
        self.verify("every acknowledged write is at the surviving site", 1)
    }

    /// Reads everything that was ever written through a site.
    fn verify(&mut self, name: &str, n: usize) -> Result<(), Failure> {
        let read = Client::connect(&self.sites.site(n).nbd(), NAME).and_then(|mut client| {
            client.flush()?;
            if client.size != DEVICE {
                return Ok((0, vec![format!("the device has {} bytes, not {DEVICE}", client.size)]));
            }
            self.load.verify(&mut client)
        });
        let (right, wrong) = read.unwrap_or_else(|e| (0, vec![format!("it cannot be read: {e}")]));
        self.found.bytes_verified += right;
        self.check_wrong(name, &wrong, bytes(right));
        Ok(())
    }

    /// The dead site starts again, and is synchronised while the load goes on.
    fn bring_back(&mut self) -> Result<(), Failure> {
        self.found.gap_ms = self.load.tally().gap_ms;
        let apart = self.sites.site(1).peer().map_or(0, |p| p.out_of_sync_bytes);
        self.done(1, &format!("has marked {} that the other lacks or may lack", bytes(apart)));
        let interrupt = self.interrupt.clone();
        self.sites.up(0, &interrupt)?;
        self.found.killed = None;
        self.done(0, "its process starts again");
        let equal = self.until(|run| run.are_equal(1, 0))?;
        let written = self.load.written_bytes();
        self.check("the site that was dead became equal again", equal.is_some(), String::new());
        let moved = self.sites.site(1).peer().and_then(|p| p.synchronised).unwrap_or_default();
        let block = 4096;
        let seen = Resynced {
            sent_bytes: moved.sent * block,
            zeroed_bytes: moved.zeroed * block,
            compared_bytes: moved.equal * block,
            written_bytes: written,
            took_ms: equal.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        };
        let differed = seen.sent_bytes > 0 && seen.sent_bytes + seen.zeroed_bytes <= written + IN_DOUBT;
        let detail = format!(
            "{} sent of {}, {} compared by digest and equal; {} were written without it or meanwhile",
            bytes(seen.sent_bytes),
            bytes(DEVICE),
            bytes(seen.compared_bytes),
            bytes(written)
        );
        self.check("only what differed was sent back", differed && seen.sent_bytes < DEVICE / 2, detail);
        self.done(0, &format!("is equal again: {} were sent", bytes(seen.sent_bytes)));
        self.found.resynced = Some(seen);
        Ok(())
    }

    fn switch_back(&mut self) -> Result<(), Failure> {
        self.load.to(None);
        self.sites.site(1).ask(Ask::Secondary)?;
        self.done(1, "is secondary");
        let promoted = self.until(|run| run.sites.site(0).ask(Ask::Primary { force: false }).is_ok())?;
        self.check("the first site is primary again", promoted.is_some(), String::new());
        self.verify("every acknowledged write is at the site that was dead", 0)?;
        self.served_by(0)
    }

    /// Everything at rest: what is there, and whether the two disks are the same.
    fn verify_all(&mut self) -> Result<(), Failure> {
        self.load.to(None);
        let equal = self.until(|run| run.are_equal(0, 1))?;
        self.check("the two sites are equal at the end", equal.is_some(), String::new());
        self.verify("every acknowledged write is there at the end", 0)?;
        self.load.stop();
        self.found.killed = Some(0);
        self.sites.down()?;
        let differ = differing(&self.sites);
        let detail = if differ.is_empty() { bytes(DEVICE) } else { String::new() };
        self.check_wrong("the two disks are the same, byte by byte", &differ, detail);
        Ok(())
    }

    fn check_load(&mut self, failures: &[String], wrong: &[String]) {
        self.check_wrong("what was read was what had been written", wrong, String::new());
        // The calls that were under way when the site was killed, one for each writer.
        let (ok, count) = (failures.len() as u64 * SLOT <= IN_DOUBT, failures.len());
        let detail = failures.first().filter(|_| !ok).cloned();
        let detail = detail.unwrap_or_else(|| format!("{count} were under way when the site was killed"));
        self.check("no call failed but those that the killed site had under way", ok, detail);
        self.found.failed_calls = count as u64;
    }
}

/// Where the data of the two disks differ.
fn differing(sites: &Sites) -> Vec<String> {
    const CHUNK: usize = 1 << 20;
    let open = |n: usize| File::open(sites.site(n).disk());
    let compare = || -> std::io::Result<Vec<String>> {
        let (one, two) = (open(0)?, open(1)?);
        let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut wrong = Vec::new();
        for at in (0..DEVICE).step_by(CHUNK) {
            one.read_exact_at(&mut a, at)?;
            two.read_exact_at(&mut b, at)?;
            // As a whole first: byte by byte only where it matters.
            if a != b
                && let Some(n) = a.iter().zip(&b).position(|(a, b)| a != b)
            {
                wrong.push(format!("they differ in byte {}", at + n as u64));
            }
        }
        Ok(wrong)
    };
    compare().unwrap_or_else(|e| vec![format!("they cannot be compared: {e}")])
}
