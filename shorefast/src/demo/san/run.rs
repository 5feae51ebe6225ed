//! The SAN demo from beginning to end. Each fault is a phase under load: something is done, what it must bring about is waited for and
//! noted, and in the end every writer must have got on. What does not come about within its limit is a fault that failed; the
//! demo goes on, so that the report shows the whole. Only what makes going on pointless ends it.
//!
//! The volume has the default times. At the fast ones a path is given up once it has not answered for 170 ms, which an array in a process
//! beside twenty others does now and then on a machine that is busy with something else; then routes change that nothing was done to. What
//! does not hold all the same is told with what the array was at meanwhile ([`Pulse`]).

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::cluster::Cluster;
use super::super::interrupt::Interrupt;
use super::super::load::Load;
use super::super::outcome::Found;
use super::super::report::{FaultSeen, Phase, WriterPhase};
use super::super::runner::{FLOOR, LOOK, create_volume, mounts, until_mounted};
use super::super::task::{Spawner, Task};
use super::super::timeline::Timeline;
use super::super::verifying;
use super::super::watch::Watch;
use super::array::Array;
use super::pulse::Pulse;
use crate::api::{Node, Timing, VolumeStatus};
use crate::clock::WallTime;
use crate::events::{Code, Event};
use crate::exit::Failure;

/// What must come about comes within this, also on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(20);
/// The same where the volume's times decide: at the default times a lost coordinator is succeeded after 12 s, and then there is grace.
pub(super) const LONG: Duration = Duration::from_secs(40);
/// The times of the demo's volume.
const TIMING: Timing = Timing::Default;
/// An array that is silent for so long loses its paths: a third of the default path timeout.
const PATIENCE: Duration = Duration::from_secs(1);

/// A demo that runs. Its fields go in this order: who uses the nodes before the nodes.
pub(super) struct Run {
    load: Load,
    watch: Watch,
    spawner: Spawner,
    interrupt: Interrupt,
    pub(super) array: Array,
    pulse: Pulse,
    pub(super) timeline: Arc<Timeline>,
    pub(super) found: Found,
    pub(super) cluster: Cluster,
}

/// What is seen of one fault.
#[derive(Debug)]
pub(super) struct Seen {
    lines: Vec<String>,
    ok: bool,
    /// When it began: what nodes have told since is about it.
    pub(super) since: WallTime,
}

/// How something was waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    /// None if it did not come.
    pub(super) took: Option<Duration>,
    limit: Duration,
}

impl Seen {
    fn nothing() -> Seen {
        Seen { lines: Vec::new(), ok: true, since: WallTime::now() }
    }

    /// Something came about after a while, or not.
    pub(super) fn came(&mut self, what: &str, waited: Waited) {
        match waited.took {
            Some(took) => self.lines.push(format!("{what} within {} ms", took.as_millis())),
            None => self.fails(&format!("NOT within {} s: {what}", waited.limit.as_secs())),
        }
    }

    /// Something was so, or not.
    pub(super) fn was(&mut self, what: &str, so: bool) {
        if so {
            self.lines.push(what.to_owned());
        } else {
            self.fails(&format!("NOT so: {what}"));
        }
    }

    fn fails(&mut self, what: &str) {
        self.ok = false;
        self.lines.push(what.to_owned());
    }
}

impl Run {
    /// Makes the volume and starts the writers.
    pub(super) fn begin(
        cluster: Cluster,
        array: Array,
        timeline: Arc<Timeline>,
        interrupt: Interrupt,
    ) -> Result<Run, Failure> {
        let spawner = Spawner::new(&cluster.dir);
        let daemons = cluster.members.iter().map(|m| (m.node, m.client())).collect();
        let watch = Watch::start(daemons, &timeline)?;
        create_volume(&cluster, Array::urls(), TIMING, &timeline)?;
        timeline.say("the volume has the default times: a path that does not answer is left after 1 s, and a node without any is redirected after 3 s");
        until_mounted(&cluster, &interrupt)?;
        let mounts = mounts(&cluster);
        verifying::fill(&spawner, &mounts[0].1, &interrupt)?;
        timeline.say("three writers begin: one shared image in place, growing files of their own");
        let load = Load::start(&spawner, mounts.iter().map(|(node, mount)| (*node, mount.as_path())))?;
        let pulse = Pulse::of(array.control());
        Ok(Run { load, watch, spawner, interrupt, array, pulse, timeline, found: Found::default(), cluster })
    }

    /// Every fault under load, then the verification.
    pub(super) fn all(&mut self) -> Result<(), Failure> {
        self.faults()?;
        self.end()
    }

    /// What is left when it is over.
    pub(super) fn ended(self) -> (Cluster, Found) {
        (self.cluster, self.found)
    }

    /// One fault: what is done and seen, then load until every writer has done enough.
    pub(super) fn fault(
        &mut self,
        name: &'static str,
        what: &str,
        act: impl FnOnce(&mut Run, &mut Seen) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let from_ms = self.timeline.now_ms();
        self.load.begin_phase(name);
        let mut seen = Seen::nothing();
        self.pulse.begin();
        act(self, &mut seen)?;
        let nodes: Vec<Node> = self.nodes().collect();
        // Well again means that every one of them gets on.
        self.get_on(&nodes, &mut seen, name)?;
        if !seen.ok
            && let Some(why) = self.pulse.excuse(PATIENCE)
        {
            seen.lines.push(why);
        }
        let writer = |node| WriterPhase { node, verified_ops: self.load.ops(node, name), floor: Some(FLOOR) };
        let writers = nodes.into_iter().map(writer).collect();
        self.found.phases.push(Phase { name: name.to_owned(), from_ms, to_ms: self.timeline.now_ms(), writers });
        self.found.faults.push(FaultSeen { fault: what.to_owned(), seen: seen.lines, ok: seen.ok });
        self.found.note_memory(&self.cluster);
        Ok(())
    }

    /// Waits until the writers of these nodes have done enough from now on.
    pub(super) fn get_on(&mut self, nodes: &[Node], seen: &mut Seen, phase: &str) -> Result<(), Failure> {
        let before: Vec<u64> = nodes.iter().map(|node| self.load.ops(*node, phase)).collect();
        let done = |run: &Run| nodes.iter().zip(&before).all(|(n, before)| run.load.ops(*n, phase) >= before + FLOOR);
        let waited = self.until_long(done)?;
        if waited.took.is_none() {
            let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            seen.fails(&format!("NOT within {} s: the writers of {} get on", waited.limit.as_secs(), names.join(", ")));
        }
        Ok(())
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = Node> + use<'_> {
        self.cluster.members.iter().map(|m| m.node)
    }

    /// The volume as a node tells it.
    pub(super) fn volume(&self, node: Node) -> Option<VolumeStatus> {
        self.cluster.member(node).and_then(|m| m.volume())
    }

    /// What a node has told of a kind since a moment.
    pub(super) fn told(&self, node: Node, code: Code, since: WallTime) -> Vec<Event> {
        let mut found = Vec::new();
        if let Some(member) = self.cluster.member(node) {
            // A daemon that does not answer has told nothing.
            let _ = member.client().events(false, 0, |event| {
                if event.code == code && event.at >= since {
                    found.push(event);
                }
                true
            });
        }
        found
    }

    /// Waits for something.
    pub(super) fn until(&mut self, holds: impl Fn(&Run) -> bool) -> Result<Waited, Failure> {
        self.until_within(LIMIT, holds)
    }

    /// The same where the volume's times decide.
    pub(super) fn until_long(&mut self, holds: impl Fn(&Run) -> bool) -> Result<Waited, Failure> {
        self.until_within(LONG, holds)
    }

    fn until_within(&mut self, limit: Duration, holds: impl Fn(&Run) -> bool) -> Result<Waited, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            self.look()?;
            if holds(self) {
                return Ok(Waited { took: Some(begun.elapsed()), limit });
            }
            std::thread::sleep(LOOK);
        }
        Ok(Waited { took: None, limit })
    }

    /// Lets a while pass; whether something held at every look.
    pub(super) fn throughout(&mut self, time: Duration, holds: impl Fn(&Run) -> bool) -> Result<bool, Failure> {
        let begun = Instant::now();
        let mut held = true;
        while begun.elapsed() < time {
            self.look()?;
            held &= holds(self);
            std::thread::sleep(LOOK);
        }
        Ok(held)
    }

    /// What every wait does: Ctrl-C, the writers' words, the daemons' lives.
    fn look(&mut self) -> Result<(), Failure> {
        self.interrupt.check()?;
        self.load.listen(&self.timeline)?;
        match self.cluster.members.iter().find(|m| m.process().is_some_and(|p| !p.lives())) {
            None => Ok(()),
            Some(dead) => Err(Failure::failed(
                format!("The daemon of {} died by itself.", dead.node),
                "That is a defect; its log was in the demo's folder.",
            )),
        }
    }

    /// A program on one node begins to want the files of another's writer.
    pub(super) fn want(&self, on: Node, of: Node) -> Result<Task, Failure> {
        let mount = self.cluster.member(on).map(|m| m.mount()).unwrap_or_default();
        let args = [OsString::from("--mount"), mount.into(), "--node".into(), of.number().to_string().into()];
        self.spawner.start("demo-want", args)
    }

    /// Until it has got them; whether it has.
    pub(super) fn got(&self, mut want: Task) -> Result<bool, Failure> {
        let ended = want.finish(LONG, &self.interrupt, |_| ());
        self.interrupt.check()?;
        Ok(ended.is_ok())
    }

    /// The array comes back.
    pub(super) fn start_array(&mut self) -> Result<(), Failure> {
        let interrupt = self.interrupt.clone();
        self.array.clone().start(&mut self.cluster, &interrupt)
    }

    /// Ends the load and verifies everything through every node.
    fn end(&mut self) -> Result<(), Failure> {
        self.timeline.done(None, "the writers end; everything is verified through every node");
        let from_ms = self.timeline.now_ms();
        self.load.stop(LONG, &self.interrupt, &self.timeline)?;
        self.found.take_load(&self.load);
        let mounts: Vec<(Node, PathBuf)> = mounts(&self.cluster);
        let mut evicted: Vec<Node> = self.found.evicted.iter().map(|m| m.node).collect();
        evicted.dedup();
        let manifests = self.load.said().filter_map(|(_, said)| said.manifest.clone()).collect();
        let verdict = verifying::verify(&self.spawner, &mounts, manifests, &evicted, &self.interrupt)?;
        self.found.take_verdict(verdict, mounts.len());
        self.watch.stop();
        self.found.bytes_by_route = self.watch.bytes_by_route();
        self.found.note_memory(&self.cluster);
        let to_ms = self.timeline.now_ms();
        self.found.phases.push(Phase { name: "verify".to_owned(), from_ms, to_ms, writers: Vec::new() });
        Ok(())
    }
}
