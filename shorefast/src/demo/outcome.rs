//! What a demo found, gathered while it runs, and turned into the report: counts, excuses, checks.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::cluster::Cluster;
use super::load::{Load, SeenFailure};
use super::report::{Check, DemoReport, FailedCalls, FaultSeen, Phase, RouteBytes, Stall};
use super::runner::FLOOR;
use super::timeline::Timeline;
use super::tree_copy::Sums;
use super::verify::Verdict;
use crate::api::Node;

/// What a dead mount may give; anything else on a killed node is a failure like elsewhere.
const OF_A_DEAD_MOUNT: [Errno; 3] = [Errno::NOTCONN, Errno::CONNABORTED, Errno::IO];
/// Phases in which a killed node's mount is dead.
const WHILE_DEAD: [&str; 2] = ["SIGKILL", "node is back"];

/// When something happened to a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Which.
    pub(crate) node: Node,
    /// In which phase, or from which on.
    pub(crate) from_phase: &'static str,
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Found {
    /// The tree that was copied in.
    pub(crate) tree: Sums,
    /// Bytes read back and found right.
    pub(crate) bytes_verified: u64,
    /// The phases.
    pub(crate) phases: Vec<Phase>,
    /// What had to hold.
    pub(crate) checks: Vec<Check>,
    /// Bytes by node and route.
    pub(crate) bytes_by_route: Vec<RouteBytes>,
    /// The node that was killed.
    pub(crate) killed: Option<Moment>,
    /// What was done to the way to the disk.
    pub(crate) faults: Vec<FaultSeen>,
    /// Nodes that were evicted, each with the phase: what was open there and held something gets EIO.
    pub(crate) evicted: Vec<Moment>,
    /// Failed calls of others than the writers, in words.
    pub(crate) other_failed: Vec<String>,
    failed: Vec<FailedCalls>,
    stalls: Vec<Stall>,
    memory: BTreeMap<Node, u64>,
}

impl Found {
    /// At the beginning: a tree that was copied in and read back.
    pub(crate) fn of_tree(tree: Sums, bytes_verified: u64) -> Found {
        Found { tree, bytes_verified, ..Found::default() }
    }

    /// A check that holds if nothing is wrong; tells the first thing that is.
    pub(crate) fn check(&mut self, name: &str, wrong: &[String], detail: String) {
        let detail = match wrong.split_first() {
            None => detail,
            Some((first, [])) => first.clone(),
            Some((first, rest)) => format!("{first} (and {} more)", rest.len()),
        };
        self.checks.push(Check { name: name.to_owned(), ok: wrong.is_empty(), detail });
    }

    /// Remembers how much memory the daemons had at most.
    pub(crate) fn note_memory(&mut self, cluster: &Cluster) {
        for member in &cluster.members {
            let peak = member.process().and_then(super::process::Identity::peak_resident).unwrap_or(0);
            let most = self.memory.entry(member.node).or_default();
            *most = (*most).max(peak);
        }
    }

    /// Takes in what the writers said in the end.
    pub(crate) fn take_load(&mut self, load: &Load) {
        let mut wrong = Vec::new();
        for (node, said) in load.said() {
            self.bytes_verified += said.bytes;
            let (longest_ms, at_ms, phase) = said.longest.clone();
            self.stalls.push(Stall { node, longest_ms, at_ms, phase });
            wrong.extend(said.mismatches.iter().map(|m| format!("{node}: {m}")));
        }
        self.check("what the writers read was what had been written", &wrong, String::new());
        self.failed = self.sort_failures(load.failures());
    }

    /// Sums by node, call and error; expected is what a dead mount gives on the node that was killed.
    fn sort_failures(&self, failures: &[SeenFailure]) -> Vec<FailedCalls> {
        let mut sums: BTreeMap<(Node, String, String, i32, bool), u64> = BTreeMap::new();
        for f in failures {
            let dead_mount = self.killed.is_some_and(|m| m.node == f.node) && WHILE_DEAD.contains(&f.phase.as_str());
            let of_a_dead = dead_mount && OF_A_DEAD_MOUNT.iter().any(|e| e.raw_os_error() == f.errno);
            let evicted = self.evicted.iter().any(|m| m.node == f.node && m.from_phase == f.phase);
            let expected = of_a_dead || evicted && f.errno == Errno::IO.raw_os_error();
            *sums.entry((f.node, f.phase.clone(), f.call.clone(), f.errno, expected)).or_default() += f.count;
        }
        let row = |((node, phase, call, errno, expected), count)| {
            let error = name_of(errno);
            FailedCalls { node, phase, call, error, count, expected }
        };
        sums.into_iter().map(row).collect()
    }

    /// Takes in what the verification through every node found.
    pub(crate) fn take_verdict(&mut self, verdicts: Vec<(Node, Verdict)>, nodes: usize) {
        let mut wrong = Vec::new();
        let mut bytes = 0;
        for (node, verdict) in verdicts {
            bytes += verdict.bytes;
            if verdict.failed_calls > 0 {
                self.other_failed.push(format!("{node}: {} calls of the verification", verdict.failed_calls));
            }
            wrong.extend(verdict.wrong.into_iter().map(|w| format!("{node}: {w}")));
        }
        self.bytes_verified += bytes;
        let detail = format!("{} through {nodes} nodes", crate::render::bytes(bytes));
        self.check("what was acknowledged is there, through every node", &wrong, detail);
    }

    /// The report, with the checks that look at the whole.
    pub(crate) fn report(mut self, cluster: &Cluster, timeline: &Timeline) -> DemoReport {
        self.check_floors();
        self.check_failures();
        let (samples, marks) = timeline.read();
        let memory: Vec<String> =
            self.memory.iter().map(|(n, b)| format!("{n} {}", crate::render::bytes(*b))).collect();
        let mut notes = vec![format!("Memory of the daemons, resident, at most: {}.", memory.join(", "))];
        if let Some(Moment { node, from_phase }) = self.killed {
            notes.push(format!(
                "A mount does not outlive its daemon yet: from {from_phase} until it was started again, calls on {node} failed with \
                 ENOTCONN, ECONNABORTED or EIO. They are counted apart; acknowledged means there in-place writes, and what was fsynced."
            ));
        }
        DemoReport {
            started: timeline.started(),
            took_ms: timeline.now_ms(),
            nodes: cluster.members.iter().map(|m| m.node).collect(),
            samples,
            marks,
            phases: self.phases,
            stalls: self.stalls,
            bytes_by_route: self.bytes_by_route,
            failed_calls: self.failed,
            bytes_verified: self.bytes_verified,
            faults: self.faults,
            checks: self.checks,
            notes,
        }
    }

    fn check_floors(&mut self) {
        let few = |p: &Phase| -> Vec<String> {
            let short = p.writers.iter().filter(|w| !w.enough());
            short.map(|w| format!("{}: {} did {} operations", p.name, w.node, w.verified_ops)).collect()
        };
        let wrong: Vec<String> = self.phases.iter().flat_map(few).collect();
        self.check(
            &format!("every writer on a living node did {FLOOR} verified operations in every phase"),
            &wrong,
            String::new(),
        );
    }

    fn check_failures(&mut self) {
        let unexpected = self.failed.iter().filter(|f| !f.expected);
        let said = unexpected.map(|f| format!("{}, {}: {} {} times {}", f.node, f.phase, f.call, f.count, f.error));
        let wrong: Vec<String> = self.other_failed.iter().cloned().chain(said).collect();
        let excused: u64 = self.failed.iter().filter(|f| f.expected).map(|f| f.count).sum();
        let detail = if excused > 0 && self.evicted.is_empty() {
            format!("and {excused} on the killed node, as a dead mount has it")
        } else if excused > 0 {
            format!("and {excused} of an evicted node, while it was: what it had open and could not keep")
        } else {
            String::new()
        };
        let name = if self.evicted.is_empty() {
            "no call failed on a living node"
        } else {
            "no call failed on a node that was not evicted"
        };
        self.check(name, &wrong, detail);
    }
}

/// An error by its name, for those that a file system gives.
fn name_of(errno: i32) -> String {
    let named = [
        (Errno::IO, "EIO"),
        (Errno::NOTCONN, "ENOTCONN"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::NOENT, "ENOENT"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::STALE, "ESTALE"),
        (Errno::BADF, "EBADF"),
        (Errno::INVAL, "EINVAL"),
        (Errno::INTR, "EINTR"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::ROFS, "EROFS"),
        (Errno::ACCESS, "EACCES"),
    ];
    let found = named.iter().find(|(e, _)| e.raw_os_error() == errno);
    found.map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> Node {
        Node::new(n).expect("a node")
    }

    fn seen(n: u8, phase: &str, errno: Errno) -> SeenFailure {
        SeenFailure {
            node: node(n),
            phase: phase.to_owned(),
            call: "pwrite".to_owned(),
            errno: errno.raw_os_error(),
            count: 2,
        }
    }

    #[test]
    fn only_a_dead_mounts_errors_on_the_killed_node_are_expected() {
        let found = Found { killed: Some(Moment { node: node(3), from_phase: "SIGKILL" }), ..Found::default() };
        for (failure, expected) in [
            (seen(3, "SIGKILL", Errno::NOTCONN), true),
            (seen(3, "node is back", Errno::IO), true),
            (seen(3, "SIGKILL", Errno::NOSPC), false),
            (seen(3, "steady", Errno::IO), false),
            (seen(1, "SIGKILL", Errno::NOTCONN), false),
        ] {
            assert_eq!(found.sort_failures(std::slice::from_ref(&failure))[0].expected, expected, "{failure:?}");
        }
    }

    #[test]
    fn an_evicted_nodes_eio_is_expected_in_the_phase_in_which_it_was_evicted_and_nothing_else_is() {
        let evicted = vec![Moment { node: node(2), from_phase: "heartbeat cut" }];
        let found = Found { evicted, ..Found::default() };
        for (failure, expected) in [
            (seen(2, "heartbeat cut", Errno::IO), true),
            (seen(2, "heartbeat cut", Errno::NOTCONN), false),
            (seen(2, "steady", Errno::IO), false),
            (seen(1, "heartbeat cut", Errno::IO), false),
        ] {
            assert_eq!(found.sort_failures(std::slice::from_ref(&failure))[0].expected, expected, "{failure:?}");
        }
    }

    #[test]
    fn an_unexpected_failure_fails_its_check_and_an_expected_one_does_not() {
        let mut found = Found { killed: Some(Moment { node: node(3), from_phase: "SIGKILL" }), ..Found::default() };
        found.failed = found.sort_failures(&[seen(3, "SIGKILL", Errno::CONNABORTED)]);
        found.check_failures();
        found.failed = found.sort_failures(&[seen(1, "SIGKILL", Errno::CONNABORTED)]);
        found.check_failures();
        assert_eq!(found.checks.iter().map(|c| c.ok).collect::<Vec<_>>(), [true, false]);
        assert!(found.checks[1].detail.contains("pwrite 2 times ECONNABORTED"));
    }
}
