//! The writers of the demo, seen from outside: one process a node, and what each has said so far.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::interrupt::Interrupt;
use super::task::{Spawner, Task};
use super::timeline::Timeline;
use super::writer::{Line, Manifest, Tick};
use crate::api::Node;
use crate::exit::Failure;

/// Slots of the shared image: 64 MiB.
pub(crate) const SLOTS: u64 = 4096;

/// A failed call as a writer saw it.
#[derive(Clone, Debug)]
pub(crate) struct SeenFailure {
    /// The writer's node.
    pub(crate) node: Node,
    /// In which phase.
    pub(crate) phase: String,
    /// The system call.
    pub(crate) call: String,
    /// Its error number.
    pub(crate) errno: i32,
    /// How many.
    pub(crate) count: u64,
}

/// What a writer has said.
#[derive(Default)]
pub(crate) struct Said {
    /// Verified operations by phase.
    pub(crate) ops: BTreeMap<String, u64>,
    /// Bytes it wrote or read and found right.
    pub(crate) bytes: u64,
    /// What it found wrong, in words.
    pub(crate) mismatches: Vec<String>,
    /// The longest call: milliseconds, when it was seen, in which phase.
    pub(crate) longest: (u64, u64, String),
    /// Its last word.
    pub(crate) manifest: Option<Manifest>,
}

struct Writer {
    node: Node,
    task: Task,
    said: Said,
}

/// All writers.
pub(crate) struct Load {
    writers: Vec<Writer>,
    failures: Vec<SeenFailure>,
    phase: String,
}

impl Load {
    /// Starts one writer for each mount.
    pub(crate) fn start<'a>(
        spawner: &Spawner,
        mounts: impl ExactSizeIterator<Item = (Node, &'a Path)>,
    ) -> Result<Load, Failure> {
        let nodes = mounts.len();
        let mut writers = Vec::new();
        for (node, mount) in mounts {
            let args = [
                ("--mount", mount.as_os_str().to_owned()),
                ("--node", node.number().to_string().into()),
                ("--nodes", nodes.to_string().into()),
                ("--slots", SLOTS.to_string().into()),
            ];
            let task = spawner.start("demo-writer", args.into_iter().flat_map(|(name, value)| [name.into(), value]))?;
            writers.push(Writer { node, task, said: Said::default() });
        }
        Ok(Load { writers, failures: Vec::new(), phase: String::new() })
    }

    /// A new phase begins.
    pub(crate) fn begin_phase(&mut self, name: &str) {
        self.phase = name.to_owned();
        for writer in &mut self.writers {
            writer.task.tell(&format!("phase {name}\n"));
        }
    }

    /// Lets a writer rest after its next failed call, or go on.
    pub(crate) fn pause(&mut self, node: Node, paused: bool) {
        for writer in self.writers.iter_mut().filter(|w| w.node == node) {
            writer.task.tell(if paused { "pause\n" } else { "resume\n" });
        }
    }

    /// Takes in what the writers said meanwhile; fails if one has ended.
    pub(crate) fn listen(&mut self, timeline: &Timeline) -> Result<(), Failure> {
        for writer in &mut self.writers {
            let Writer { node, task, said } = writer;
            let alive = task.poll(|line| hear(*node, line, said, &mut self.failures, timeline));
            if !alive && said.manifest.is_none() {
                return Err(Failure::failed(
                    format!("The writer on {node} ended by itself."),
                    "That is a defect; see children.log with --keep.",
                ));
            }
        }
        Ok(())
    }

    /// Verified operations of a node's writer in a phase.
    pub(crate) fn ops(&self, node: Node, phase: &str) -> u64 {
        self.said().find(|(n, _)| *n == node).and_then(|(_, said)| said.ops.get(phase)).copied().unwrap_or(0)
    }

    /// What each writer said.
    pub(crate) fn said(&self) -> impl Iterator<Item = (Node, &Said)> {
        self.writers.iter().map(|w| (w.node, &w.said))
    }

    /// Every failed call.
    pub(crate) fn failures(&self) -> &[SeenFailure] {
        &self.failures
    }

    /// Ends the writers and waits for their last words.
    pub(crate) fn stop(&mut self, limit: Duration, interrupt: &Interrupt, timeline: &Timeline) -> Result<(), Failure> {
        for writer in &mut self.writers {
            writer.task.tell("stop\n");
            writer.task.hush();
        }
        let deadline = Instant::now() + limit;
        for Writer { node, task, said } in &mut self.writers {
            let left = deadline.saturating_duration_since(Instant::now());
            task.finish(left, interrupt, |line| hear(*node, line, said, &mut self.failures, timeline))?;
        }
        Ok(())
    }
}

/// One line of a writer.
fn hear(node: Node, line: &str, said: &mut Said, failures: &mut Vec<SeenFailure>, timeline: &Timeline) {
    match serde_json::from_str(line) {
        Ok(Line::Tick(tick)) => hear_tick(node, tick, said, failures, timeline),
        Ok(Line::Manifest(manifest)) => said.manifest = Some(manifest),
        Err(e) => said.mismatches.push(format!("the writer said something that is no line of its: {e}")),
    }
}

fn hear_tick(node: Node, tick: Tick, said: &mut Said, failures: &mut Vec<SeenFailure>, timeline: &Timeline) {
    *said.ops.entry(tick.phase.clone()).or_default() += tick.verified_ops;
    said.bytes += tick.verified_bytes;
    if tick.longest_call_ms > said.longest.0 {
        said.longest = (tick.longest_call_ms, timeline.now_ms(), tick.phase.clone());
    }
    for wrong in tick.mismatches {
        timeline.say(&format!("{node}: WRONG: {wrong}"));
        said.mismatches.push(wrong);
    }
    for f in tick.failures {
        failures.push(SeenFailure { node, phase: tick.phase.clone(), call: f.call, errno: f.errno, count: f.count });
    }
}
