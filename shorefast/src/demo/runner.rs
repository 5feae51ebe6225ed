//! The demo from beginning to end: what is done to the nodes, in which order, and what must hold meanwhile.
//!
//! Each phase begins with one thing done, waits for what it must bring about, and then for the load: every writer on
//! a living node must complete [`FLOOR`] verified operations. What does not come about within its limit is a failed
//! check; the demo goes on, so that the report shows the whole. Only what makes going on pointless ends it: a daemon or
//! a writer that died by itself, Ctrl-C.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, VOLUME};
use super::interrupt::Interrupt;
use super::load::Load;
use super::outcome::{Found, Moment};
use super::report::{Check, Phase, WriterPhase};
use super::task::Spawner;
use super::timeline::Timeline;
use super::watch::Watch;
use super::{tree_copy, verifying};
use crate::api::{CreateVolume, DiskFault, Metadata, Node, Request, Route, Timing, VolumeStatus};
use crate::exit::Failure;

/// Verified operations that each writer on a living node must complete in every phase.
pub(crate) const FLOOR: u64 = 100;
/// A phase lasts at least so long, so that the chart shows it.
const PHASE_MIN: Duration = Duration::from_millis(2500);
/// What a phase must bring about comes within this, also on a slow machine.
pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// How often a wait looks.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// A demo that runs. Its fields go in this order: who uses the nodes before the nodes.
pub(crate) struct Run {
    load: Load,
    watch: Watch,
    spawner: Spawner,
    killed: Option<Node>,
    /// The incarnation that was killed.
    killed_life: u64,
    interrupt: Interrupt,
    timeline: Arc<Timeline>,
    /// What was found.
    pub(crate) found: Found,
    /// The nodes.
    pub(crate) cluster: Cluster,
}

impl Run {
    /// Makes the volume, copies the tree, starts the writers.
    pub(crate) fn begin(cluster: Cluster, timeline: Arc<Timeline>, interrupt: Interrupt) -> Result<Run, Failure> {
        let spawner = Spawner::new(&cluster.dir);
        let daemons = cluster.members.iter().map(|m| (m.node, m.client())).collect();
        let watch = Watch::start(daemons, &timeline)?;
        create_volume(&cluster, vec![cluster.disk().to_string_lossy().into_owned()], Timing::Fast, &timeline)?;
        until_mounted(&cluster, &interrupt)?;
        settle_office(&cluster, &timeline, &interrupt)?;
        let mounts = mounts(&cluster);
        timeline.done(Some(mounts[0].0), "a tree from /usr/share is copied in; the others list and read it");
        let from_ms = timeline.now_ms();
        let copied = tree_copy::copy(&spawner, &mounts, &interrupt, &timeline)?;
        let (wrong, read) = tree_copy::compare(&spawner, &mounts, &copied.sums, &interrupt)?;
        let mut found = Found::of_tree(copied.sums, read);
        found.other_failed.extend(copied.failed.into_iter().map(|(node, said)| format!("{node}: {said}")));
        found.check("the tree is the same through every node", &wrong, format!("{} files", found.tree.len()));
        found.phases.push(Phase { name: "tree".to_owned(), from_ms, to_ms: timeline.now_ms(), writers: Vec::new() });
        verifying::fill(&spawner, &mounts[0].1, &interrupt)?;
        timeline.say("three writers begin: one shared image in place, growing files of their own");
        let load = Load::start(&spawner, mounts.iter().map(|(node, mount)| (*node, mount.as_path())))?;
        Ok(Run { cluster, timeline, found, interrupt, spawner, watch, load, killed: None, killed_life: 0 })
    }

    /// Every phase under load, then the verification.
    pub(crate) fn all(&mut self) -> Result<(), Failure> {
        let [one, two, three] = self.nodes()?;
        self.phase("steady", |_| Ok(()))?;
        self.phase("disk hangs", |run| run.hurt(two, DiskFault::Hang, Route::BlockRedirected))?;
        self.phase("disk heals", |run| run.hurt(two, DiskFault::Heal, Route::Direct))?;
        self.phase("disk fails", |run| run.hurt(two, DiskFault::Fail, Route::BlockRedirected))?;
        self.phase("disk works", |run| run.hurt(two, DiskFault::Heal, Route::Direct))?;
        self.phase("planned move", |run| run.planned_move(one, three))?;
        self.phase("SIGKILL", |run| run.kill(three, one))?;
        self.phase("node is back", |run| run.bring_back(three))?;
        self.end()
    }

    fn nodes(&self) -> Result<[Node; 3], Failure> {
        let nodes: Vec<Node> = self.cluster.members.iter().map(|m| m.node).collect();
        nodes.try_into().map_err(|_| Failure::failed("The demo wants three nodes.", "That is a defect."))
    }

    /// One phase: the thing done, then load until every living writer has done enough.
    fn phase(&mut self, name: &str, act: impl FnOnce(&mut Run) -> Result<(), Failure>) -> Result<(), Failure> {
        let begun = Instant::now();
        let from_ms = self.timeline.now_ms();
        self.load.begin_phase(name);
        act(self)?;
        let deadline = Instant::now() + LIMIT;
        loop {
            self.look()?;
            let enough = self.living().all(|node| self.load.ops(node, name) >= FLOOR);
            if (enough && begun.elapsed() >= PHASE_MIN) || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(LOOK);
        }
        let writer = |node: Node| WriterPhase {
            node,
            verified_ops: self.load.ops(node, name),
            floor: (self.killed != Some(node)).then_some(FLOOR),
        };
        let writers = self.cluster.members.iter().map(|m| writer(m.node)).collect();
        self.found.phases.push(Phase { name: name.to_owned(), from_ms, to_ms: self.timeline.now_ms(), writers });
        Ok(())
    }

    fn living(&self) -> impl Iterator<Item = Node> {
        self.cluster.members.iter().map(|m| m.node).filter(|n| self.killed != Some(*n))
    }

    /// What every wait does: Ctrl-C, the writers' words, the daemons' lives.
    fn look(&mut self) -> Result<(), Failure> {
        self.interrupt.check()?;
        self.load.listen(&self.timeline)?;
        for member in &self.cluster.members {
            let died = member.process().is_some_and(|p| !p.lives());
            if died {
                return Err(Failure::failed(
                    format!("The daemon of {} died by itself.", member.node),
                    format!(
                        "Run the demo with --keep and look at {}/{}/daemon.log.",
                        self.cluster.dir.display(),
                        member.node
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Waits for something about the volume as a node tells it; the time it took, none if it did not come.
    fn until(&mut self, node: Node, holds: impl Fn(&VolumeStatus) -> bool) -> Result<Option<Duration>, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            self.look()?;
            if self.cluster.member(node).and_then(|m| m.volume()).is_some_and(|v| holds(&v)) {
                return Ok(Some(begun.elapsed()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(None)
    }

    /// A node's disk begins to misbehave, or to behave; its route must become `then`, with a reason unless direct.
    fn hurt(&mut self, node: Node, fault: DiskFault, then: Route) -> Result<(), Failure> {
        let happens = in_words(fault);
        self.timeline.done(Some(node), format!("its disk {happens}"));
        let Some(member) = self.cluster.member(node) else { return Ok(()) };
        member.client().call(Request::DebugDisk { fault }, |_| ())?;
        let took = self.until(node, |v| own_route(v, node) == Some(then))?;
        let reason = self.cluster.member(node).and_then(|m| m.volume()).and_then(|v| own_reason(&v, node));
        let reasoned = then == Route::Direct || reason.is_some();
        let detail = match (took, reason) {
            (Some(t), Some(reason)) => format!("within {} ms, with the reason {reason}", t.as_millis()),
            (Some(t), None) => format!("within {} ms", t.as_millis()),
            (None, _) => format!("not within {} s", LIMIT.as_secs()),
        };
        let name = format!("when its disk {happens}, {node} becomes {then}");
        self.found.checks.push(Check { name, ok: took.is_some() && reasoned, detail });
        Ok(())
    }

    fn planned_move(&mut self, through: Node, to: Node) -> Result<(), Failure> {
        self.timeline.done(None, format!("the coordinator is moved to {to}"));
        let Some(member) = self.cluster.member(through) else { return Ok(()) };
        let ask = Request::VolumeMove { name: VOLUME.to_owned(), to };
        let begun = Instant::now();
        let moved = member.client().call_within(ask, LIMIT, |_| ());
        let detail = match &moved {
            Ok(_) => format!("within {} ms", begun.elapsed().as_millis()),
            Err(failure) => failure.message.clone(),
        };
        let there = self.until(through, |v| v.coordinator == Some(to))?;
        let check =
            Check { name: format!("{to} is coordinator after the move"), ok: moved.is_ok() && there.is_some(), detail };
        self.found.checks.push(check);
        Ok(())
    }

    /// SIGKILL to a node; another must take over.
    fn kill(&mut self, node: Node, witness: Node) -> Result<(), Failure> {
        let coordinator = self.cluster.member(witness).and_then(|m| m.volume()).and_then(|v| v.coordinator);
        self.found.note_memory(&self.cluster);
        let Some(n) = self.cluster.members.iter().position(|m| m.node == node) else { return Ok(()) };
        self.killed_life = self.cluster.members[n].volume().map_or(0, |v| v.incarnation);
        let role = if coordinator == Some(node) { "the coordinator" } else { "NOT the coordinator, as it should be" };
        self.timeline.done(Some(node), format!("SIGKILL ({role})"));
        self.killed = Some(node);
        self.found.killed = Some(Moment { node, from_phase: "SIGKILL" });
        self.cluster.kill(n)?;
        let took = self.until(witness, |v| v.coordinator.is_some_and(|c| c != node) && v.metadata == Metadata::Ok)?;
        let detail = match took {
            Some(t) => format!("within {} ms", t.as_millis()),
            None => format!("not within {} s", LIMIT.as_secs()),
        };
        let ok = took.is_some() && coordinator == Some(node);
        self.found.checks.push(Check { name: format!("another node took over from the killed {node}"), ok, detail });
        Ok(())
    }

    /// The killed node is started again: its dead mount is cleaned, it comes with a new incarnation.
    fn bring_back(&mut self, node: Node) -> Result<(), Failure> {
        let Some(n) = self.cluster.members.iter().position(|m| m.node == node) else { return Ok(()) };
        self.load.pause(node, true);
        self.timeline.done(Some(node), "is started again");
        let begun = Instant::now();
        self.cluster.start_daemon(n)?;
        self.cluster.wait_for_daemon(&self.cluster.members[n], &self.interrupt)?;
        let before = self.killed_life;
        let back = |v: &VolumeStatus| v.mount.is_some() && own_route(v, node) == Some(Route::Direct);
        // It counts from the start of its daemon: a node that answers may be ready by then.
        let took = self.until(node, |v| back(v) && v.incarnation > before)?.map(|_| begun.elapsed());
        self.load.pause(node, false);
        let life = self.cluster.members[n].volume().map_or(0, |v| v.incarnation);
        let detail = match took {
            Some(t) => format!("{} ms after its start, in session {life}; session {before} was killed", t.as_millis()),
            None => format!("not within {} s: session {life}; session {before} was killed", LIMIT.as_secs()),
        };
        if took.is_some() {
            self.killed = None;
        }
        self.found.checks.push(Check {
            name: format!("{node} is back in a new session, mounted and direct"),
            ok: took.is_some(),
            detail,
        });
        Ok(())
    }

    /// Ends the load and verifies everything through every node.
    fn end(&mut self) -> Result<(), Failure> {
        self.timeline.done(None, "the writers end; everything is verified through every node");
        let from_ms = self.timeline.now_ms();
        self.load.stop(LIMIT, &self.interrupt, &self.timeline)?;
        self.found.take_load(&self.load);
        let mounts: Vec<(Node, PathBuf)> =
            mounts(&self.cluster).into_iter().filter(|(n, _)| self.killed != Some(*n)).collect();
        let killed: Vec<Node> = self.found.killed.iter().map(|m| m.node).collect();
        let manifests = self.load.said().filter_map(|(_, said)| said.manifest.clone()).collect();
        let verdict = verifying::verify(&self.spawner, &mounts, manifests, &killed, &self.interrupt)?;
        self.found.take_verdict(verdict, mounts.len());
        let (wrong, read) = tree_copy::compare(&self.spawner, &mounts, &self.found.tree, &self.interrupt)?;
        self.found.bytes_verified += read;
        self.found.check(
            "at the end the tree is still the same through every node",
            &wrong,
            format!("{} files", self.found.tree.len()),
        );
        self.watch.stop();
        self.found.bytes_by_route = self.watch.bytes_by_route();
        self.found.note_memory(&self.cluster);
        let to_ms = self.timeline.now_ms();
        self.found.phases.push(Phase { name: "verify".to_owned(), from_ms, to_ms, writers: Vec::new() });
        Ok(())
    }
}

/// What a disk does, behind "its disk".
fn in_words(fault: DiskFault) -> String {
    match fault {
        DiskFault::Hang => "hangs".to_owned(),
        DiskFault::Fail => "fails".to_owned(),
        DiskFault::Heal => "works again".to_owned(),
        other => format!("is told: {other}"),
    }
}

pub(super) fn create_volume(
    cluster: &Cluster,
    disks: Vec<String>,
    timing: Timing,
    timeline: &Timeline,
) -> Result<(), Failure> {
    let Some(first) = cluster.members.first() else { return Ok(()) };
    timeline.done(Some(first.node), "a volume is created on the shared disk");
    let ask = CreateVolume { name: VOLUME.to_owned(), disks, wipe: None, timing };
    first.client().call(Request::VolumeCreate(ask), |line| timeline.say(line)).map(|_| ())
}

/// Until every node has mounted it, with a way of its own to the disk.
pub(super) fn until_mounted(cluster: &Cluster, interrupt: &Interrupt) -> Result<(), Failure> {
    for member in &cluster.members {
        let mounted =
            || member.volume().is_some_and(|v| v.mount.is_some() && own_route(&v, member.node) == Some(Route::Direct));
        wait(LIMIT, interrupt, mounted)?.ok_or_else(|| not_mounted(member.node))?;
    }
    Ok(())
}

/// The first node shall be coordinator before anything is hurt: the disk that will hang is another's.
fn settle_office(cluster: &Cluster, timeline: &Timeline, interrupt: &Interrupt) -> Result<(), Failure> {
    let Some(first) = cluster.members.first() else { return Ok(()) };
    let coordinator = || first.volume().and_then(|v| v.coordinator);
    wait(LIMIT, interrupt, || coordinator().is_some())?;
    if coordinator() == Some(first.node) {
        return Ok(());
    }
    timeline
        .done(None, format!("the coordinator is moved to {}, away from the node whose disk will be hurt", first.node));
    let ask = Request::VolumeMove { name: VOLUME.to_owned(), to: first.node };
    // The phases go on whoever is coordinator; the planned move later is the one that is checked.
    if let Err(failure) = first.client().call_within(ask, LIMIT, |_| ()) {
        timeline.say(&format!("{failure}"));
    }
    Ok(())
}

pub(super) fn mounts(cluster: &Cluster) -> Vec<(Node, PathBuf)> {
    cluster.members.iter().map(|m| (m.node, m.mount())).collect()
}

/// How the data of a node travels, as it says itself.
pub(super) fn own_route(volume: &VolumeStatus, node: Node) -> Option<Route> {
    volume.nodes.iter().find(|n| n.node == node).map(|n| n.route)
}

pub(super) fn own_reason(volume: &VolumeStatus, node: Node) -> Option<String> {
    volume.nodes.iter().find(|n| n.node == node).and_then(|n| n.reason.clone())
}

pub(super) fn wait(limit: Duration, interrupt: &Interrupt, holds: impl Fn() -> bool) -> Result<Option<()>, Failure> {
    let deadline = Instant::now() + limit;
    while !holds() {
        interrupt.check()?;
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
    Ok(Some(()))
}

pub(super) fn not_mounted(node: Node) -> Failure {
    Failure::failed(
        format!("The volume was not mounted on {node} within {} s.", LIMIT.as_secs()),
        "Run the demo with --keep, and look at `shorefast status` and that node's daemon.log.",
    )
}
