//! The oracles. They know every write that an application made, what it was told, what lies on every disk, and what was
//! ever written there.
//!
//! | name | holds |
//! |---|---|
//! | I1 AckedSurvives | a read by the newest primary never gives less than what was acknowledged before it, unless every holder lost its cache |
//! | I2 Prefix | a peer writes nothing before everything that was acknowledged when it was asked for, and, over a flush, stable; of all volumes together |
//! | I3 Equal | a primary and who is equal to it are so to the byte when nothing is under way; at the end everybody is, and a verification finds nothing |
//! | I4 Covered | of every pair, what a crash of both would leave: each difference has a bit |
//! | I5 OneReign | nobody acknowledges what the primary of a higher ballot does not have |
//! | I6 NothingSilent | no acknowledged write is overwritten by a source that was never told of it, without a split brain being told |
//! | I7 Heals | faults over, everything is answered, and everybody equal to the one primary |
//! | I8 FlushedIsStable | what a flush covers is stable on every member when it is answered, and on who joins later when that is granted; with quorum also what former reigns acknowledged |
//! | I9 GoneIsGone | a volume that was taken away somewhere is added nowhere, and who has taken it away answers nothing of it |
//! | I10 OneOfThoseConnected | without quorum, of two nodes that were connected until one of them reigned only one does, whenever the other was asked to |
//!
//! What each does not judge, and why: docs/semantics/replication.md, "What the oracles do not judge".

use std::collections::{BTreeMap, BTreeSet};

use super::disk::{Disk, MOST, VOLUMES, dense};
use crate::ids::{Ballot, Grant, NodeId, NodeSet, Span};

/// What an oracle found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Violation {
    pub(super) oracle: &'static str,
    pub(super) what: String,
}

/// A write of an application: to all sectors of a span.
#[derive(Clone, Debug)]
pub(super) struct Wrote {
    pub(super) node: NodeId,
    pub(super) ballot: Ballot,
    pub(super) sectors: std::ops::Range<u64>,
    /// It zeroed: what lies there then is 0, and not its value.
    pub(super) zero: bool,
    pub(super) start: u64,
    /// When it was acknowledged.
    pub(super) end: Option<u64>,
    /// Who was counted then, and did not crash since.
    holders: NodeSet,
    /// Who was counted then.
    counted: NodeSet,
    /// Who had the stream then.
    present: NodeSet,
    /// When a flush that began after its end was acknowledged.
    flushed: Option<u64>,
    /// Who was counted by that flush.
    flushed_on: NodeSet,
}

/// What is known of a run.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// By value; values are 1, 2, ...
    pub(super) writes: Vec<Wrote>,
    /// Those that zeroed.
    zeroed: Vec<u64>,
    /// Values that were ever on a node's disk, by sector.
    had: BTreeMap<NodeId, Vec<BTreeSet<u64>>>,
    /// Reigns are granted by a majority.
    pub(super) quorum: bool,
    /// Protocol C.
    pub(super) full: bool,
    /// The highest ballot that was enthroned.
    pub(super) highest: Option<(Ballot, NodeId)>,
    /// When a node last lost its cache or its disk.
    crashes: BTreeMap<NodeId, u64>,
    /// The last grant that each node reported.
    grants: BTreeMap<NodeId, Grant>,
    /// When a node last got a new disk.
    replaced: BTreeMap<NodeId, u64>,
    /// What came to a node on its connection to a primary.
    streams: BTreeMap<NodeId, Vec<u64>>,
    pub(super) violation: Option<Violation>,
    /// Reads that were compared.
    pub(super) reads: u64,
    /// Pairs and blocks whose coverage was looked at.
    pub(super) covered: u64,
    /// The sectors of a volume that was taken away, and where it was.
    gone: Option<(Span, NodeSet)>,
    /// Writes of one node that everybody was told are given up.
    pub(super) told: bool,
}

impl Oracle {
    pub(super) fn new(nodes: NodeSet, quorum: bool) -> Oracle {
        let had = nodes.iter().map(|n| (n, vec![BTreeSet::from([0]); VOLUMES * MOST as usize])).collect();
        Oracle { had, quorum, ..Oracle::default() }
    }

    pub(super) fn object(&mut self, oracle: &'static str, what: String) {
        self.violation.get_or_insert(Violation { oracle, what });
    }

    /// A new write; its value comes back.
    pub(super) fn begin(
        &mut self,
        node: NodeId,
        ballot: Ballot,
        sectors: std::ops::Range<u64>,
        zero: bool,
        now: u64,
    ) -> u64 {
        let none = NodeSet::EMPTY;
        self.writes.push(Wrote {
            node,
            ballot,
            sectors,
            zero,
            start: now,
            end: None,
            holders: none,
            counted: none,
            present: none,
            flushed: None,
            flushed_on: none,
        });
        if zero {
            self.zeroed.push(self.writes.len() as u64);
        }
        self.writes.len() as u64
    }

    /// A volume was taken away at a node.
    pub(super) fn gone(&mut self, node: NodeId, sectors: Span) {
        let before = self.gone.map_or(NodeSet::EMPTY, |(_, at)| at);
        self.gone = Some((sectors, before.with(node)));
    }

    /// A volume is larger at a node, or was added.
    pub(super) fn there(&mut self, node: NodeId, sectors: Span) {
        if self.gone.is_some_and(|(gone, _)| gone.overlaps(sectors)) {
            self.object("I9 GoneIsGone", format!("{node} has the volume at {sectors:?} again, which was taken away"));
        }
    }

    /// A node answers a request.
    pub(super) fn answered(&mut self, node: NodeId, sectors: Span) {
        if self.gone.is_some_and(|(gone, at)| at.has(node) && gone.overlaps(sectors)) {
            let what = format!("{node} answers a request at {sectors:?}, where it has taken the volume away");
            self.object("I9 GoneIsGone", what);
        }
    }

    fn is_gone(&self, write: &Wrote) -> bool {
        self.gone.is_some_and(|(gone, _)| gone.overlaps(Span::new(write.sectors.start, 1)))
    }

    fn of(&self, value: u64) -> Option<&Wrote> {
        value.checked_sub(1).and_then(|i| self.writes.get(i as usize))
    }

    /// Whether what is seen in a sector was over before `newer` began, or is of an earlier reign: then it must not be seen after
    /// it. 0 is what lay there first, and what every zeroing left.
    fn is_older(&self, seen: u64, newer: u64, sector: u64) -> bool {
        let Some(new) = self.of(newer) else { return false };
        let older =
            |old: &Wrote| old.end.is_some_and(|e| e < new.start) || (old.ballot < new.ballot && old.start < new.start);
        if seen >= super::world::FOREIGN {
            return true;
        }
        if seen > 0 {
            return self.of(seen).is_some_and(older);
        }
        let mut zeroed = self.zeroed.iter().filter_map(|z| self.of(*z)).filter(|w| w.sectors.contains(&sector));
        !new.zero && zeroed.all(older)
    }

    /// A write is acknowledged.
    pub(super) fn acked(&mut self, value: u64, present: NodeSet, holders: NodeSet, now: u64) {
        let Some(write) = self.writes.get_mut(value as usize - 1) else { return };
        // An acknowledgement can outlive what it speaks of.
        let start = write.start;
        let kept = holders.iter().filter(|n| self.crashes.get(n).is_none_or(|at| *at < start)).collect();
        (write.end, write.holders, write.counted, write.present) = (Some(now), kept, holders, present);
        let (ballot, node, sector, zero) = (write.ballot, write.node, write.sectors.start, write.zero);
        if let Some((highest, by)) = self.highest.filter(|(b, by)| self.quorum && *b > ballot && *by != node) {
            let has = self.had.get(&by).is_some_and(|h| h[dense(sector)].contains(&value));
            if !has && !zero {
                self.object(
                    "I5 OneReign",
                    format!("{node} acknowledges {value} of {ballot:?}, which {by} of {highest:?} does not have"),
                );
            }
        }
    }

    /// A flush that began at `start` is acknowledged by a primary that counts these C peers (and itself).
    pub(super) fn flushed(&mut self, node: NodeId, ballot: Ballot, start: u64, now: u64, counted: &[(NodeId, &Disk)]) {
        let mut newest: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let gone = self.gone.map(|(sectors, _)| sectors);
        let is_gone = |w: &Wrote| gone.is_some_and(|gone| gone.overlaps(Span::new(w.sectors.start, 1)));
        for (n, write) in self.writes.iter_mut().enumerate().filter(|(_, w)| !is_gone(w)) {
            let own = write.ballot == ballot && write.node == node;
            let inherited = self.quorum && write.ballot < ballot && !write.holders.is_empty();
            if (own || inherited) && write.end.is_some_and(|e| e < start) {
                write.flushed.get_or_insert(now);
                write.flushed_on = write.flushed_on.or(counted.iter().map(|(n, _)| *n).collect());
                write.sectors.clone().for_each(|s| newest.entry(s).or_default().push(n as u64 + 1));
            }
        }
        // A disk that was taken away since had acknowledged what it held then.
        let there = |n: &NodeId| self.replaced.get(n).is_none_or(|at| *at < start);
        let counted: Vec<_> = counted.iter().filter(|(n, _)| there(n)).copied().collect();
        for (sector, values) in newest {
            for (member, disk) in &counted {
                let (_, stable) = disk.values(sector);
                if let Some(lost) = values.iter().find(|v| self.is_older(stable, **v, sector)) {
                    let what = format!(
                        "{node} answers a flush; sector {sector} of {member} is stable with {stable}, not {lost}"
                    );
                    return self.object("I8 FlushedIsStable", what);
                }
            }
        }
    }

    /// Who was granted by a reign to be with it now, its disk; who was so already is not asked.
    pub(super) fn granted(&mut self, node: NodeId, ballot: Ballot, grant: Grant, disks: &[(NodeId, &Disk)]) {
        let before = self.grants.insert(node, grant);
        let Some(before) = before.filter(|b| b.ballot == grant.ballot) else { return };
        let joined = grant.members.minus(before.members).without(node);
        for (n, write) in self.writes.iter().enumerate().filter(|(_, w)| !self.is_gone(w)) {
            let own = write.ballot == ballot && write.node == node;
            let inherited = self.quorum && write.ballot < ballot && !write.holders.is_empty();
            if write.flushed.is_none() || !(own || inherited) {
                continue;
            }
            for (member, disk) in disks.iter().filter(|(m, _)| joined.has(*m)) {
                let lost = write.sectors.clone().find(|s| self.is_older(disk.values(*s).1, n as u64 + 1, *s));
                if let Some(sector) = lost {
                    let (_, stable) = disk.values(sector);
                    let what = format!(
                        "{member} joins {node}; its sector {sector} is stable with {stable}, {} was flushed",
                        n + 1
                    );
                    return self.object("I8 FlushedIsStable", what);
                }
            }
        }
    }

    /// An application reads values, having asked at `start`.
    pub(super) fn read(&mut self, node: NodeId, ballot: Ballot, first: u64, values: &[u64], start: u64) {
        if self.highest.is_some_and(|(b, n)| b > ballot && n != node) {
            return;
        }
        self.reads += 1;
        for (sector, value) in (first..).zip(values) {
            let lost = self.writes.iter().enumerate().find(|(n, w)| {
                let acked = w.end.is_some_and(|e| e < start) && w.sectors.contains(&sector);
                let kept = (w.flushed.is_some() && (self.quorum || w.flushed_on.has(node)))
                    || w.holders.has(node)
                    || (self.quorum && !w.holders.is_empty());
                // Without quorum, or at A and B, only what the reader was counted for.
                let counts = self.quorum || (w.counted.has(node) && !self.told && (self.full || w.ballot == ballot));
                let safe = kept && counts;
                acked && safe && self.is_older(*value, *n as u64 + 1, sector)
            });
            if let Some((n, _)) = lost {
                let what = format!("{node} reads {value} in sector {sector}, after {} was acknowledged", n + 1);
                return self.object("I1 AckedSurvives", what);
            }
        }
    }

    /// A node got a new disk.
    pub(super) fn replaced(&mut self, node: NodeId, now: u64) {
        self.replaced.insert(node, now);
    }

    /// A node lost its cache, or its disk.
    pub(super) fn crashed(&mut self, node: NodeId, now: u64) {
        self.crashes.insert(node, now);
        for write in &mut self.writes {
            write.holders = write.holders.without(node);
        }
        self.streams.remove(&node);
    }

    /// A node became the target of a synchronisation: until that is over its data are of no state, and hold nothing.
    pub(super) fn half_done(&mut self, node: NodeId) {
        for write in &mut self.writes {
            write.holders = write.holders.without(node);
        }
    }

    /// A write of the stream came to a node.
    pub(super) fn streamed(&mut self, node: NodeId, value: u64) {
        self.streams.entry(node).or_default().push(value);
    }

    pub(super) fn stream_over(&mut self, node: NodeId) {
        self.streams.remove(&node);
    }

    /// A node begins to write a value that came in the stream.
    pub(super) fn starts(&mut self, node: NodeId, value: u64, disk: &Disk) {
        let (Some(write), Some(stream)) = (self.of(value), self.streams.get(&node)) else { return };
        if !stream.contains(&value) {
            return;
        }
        let had = &self.had[&node];
        let before = stream.iter().filter(|v| {
            self.of(**v).is_some_and(|w| w.ballot == write.ballot && w.end.is_some_and(|e| e < write.start))
        });
        let missing = before.filter(|v| {
            let Some(w) = self.of(**v) else { return false };
            let sector = w.sectors.start;
            let unwritten = !had[dense(sector)].contains(*v);
            let (_, stable) = disk.values(sector);
            unwritten || (w.flushed.is_some_and(|f| f < write.start) && self.is_older(stable, **v, sector))
        });
        if let Some(first) = missing.copied().next() {
            self.object(
                "I2 Prefix",
                format!("{node} writes {value} before {first}, which was acknowledged when it began"),
            );
        }
    }

    /// A value lies on a node's disk. From a synchronisation: who its source is.
    pub(super) fn landed(&mut self, node: NodeId, sector: u64, value: u64) {
        if let Some(had) = self.had.get_mut(&node) {
            had[dense(sector)].insert(value);
        }
    }

    /// A synchronisation overwrites a value with one that was over before it.
    pub(super) fn overwrites(&mut self, target: NodeId, source: NodeId, sector: u64, old: u64, new: u64) {
        let Some(write) = self.of(old) else { return };
        let apart =
            write.end.is_some() && write.present.has(target) && !write.present.has(source) && !write.holders.is_empty();
        // What a disk held before it was made a new replica was given up then.
        let there = self.replaced.get(&target).is_none_or(|at| *at < write.start);
        let known = self.had.get(&source).is_some_and(|h| h[dense(sector)].contains(&old));
        if apart && there && !known && self.is_older(new, old, sector) && !self.told {
            let what =
                format!("{source} overwrites acknowledged {old} in sector {sector} of {target}, and never had it");
            self.object("I6 NothingSilent", what);
        }
    }
}
