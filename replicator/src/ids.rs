//! The words of replication as types: sets of nodes, generations, positions in a stream, ballots, spans of sectors.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use block::shared::NodeId;

/// Bytes of a sector, the unit of spans and of what the core counts in.
pub const SECTOR: u64 = 512;

/// A set of nodes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeSet(pub u64);

impl NodeSet {
    /// Nobody.
    pub const EMPTY: NodeSet = NodeSet(0);

    /// One node.
    pub fn of(node: NodeId) -> NodeSet {
        NodeSet(1 << node.index())
    }

    /// Whether a node is in it.
    pub fn has(self, node: NodeId) -> bool {
        self.0 & NodeSet::of(node).0 != 0
    }

    /// With a node.
    #[must_use]
    pub fn with(self, node: NodeId) -> NodeSet {
        NodeSet(self.0 | NodeSet::of(node).0)
    }

    /// Without a node.
    #[must_use]
    pub fn without(self, node: NodeId) -> NodeSet {
        NodeSet(self.0 & !NodeSet::of(node).0)
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub fn or(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 | other.0)
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn minus(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & !other.0)
    }

    /// Whether all of it is in the other.
    pub fn is_within(self, other: NodeSet) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether nobody is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Its nodes, ascending.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        NodeId::all().filter(move |n| self.has(*n))
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> NodeSet {
        nodes.into_iter().fold(NodeSet::EMPTY, NodeSet::with)
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(NodeId::get)).finish()
    }
}

/// The identifier of a generation of data: drawn at random when a reign begins to write without somebody.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    /// No generation.
    pub const NONE: Generation = Generation(0);
    /// Metadata that was made and never had data.
    pub const JUST_CREATED: Generation = Generation(4);

    /// Whether it names one.
    pub fn is_some(self) -> bool {
        self != Generation::NONE
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A position in the stream of writes of a primary: the number of a write. 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The next.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// The number of an attempt to reign: rounds grow, the node breaks ties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Larger than every round that the voters had promised.
    pub round: u32,
    /// Who tries; 0 for none.
    pub node: u8,
}

/// What a reign was granted: who holds every acknowledged write. Each change has a higher number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The reign.
    pub ballot: Ballot,
    /// The change within the reign.
    pub version: u32,
    /// The generation that is written.
    pub generation: Generation,
    /// The nodes that hold every acknowledged write.
    pub members: NodeSet,
}

impl Grant {
    /// What orders grants.
    pub fn number(self) -> (Ballot, u32) {
        (self.ballot, self.version)
    }
}

/// A run of sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// First sector.
    pub at: u64,
    /// Sectors; never 0 in a request.
    pub len: u64,
}

impl Span {
    /// A run.
    pub fn new(at: u64, len: u64) -> Span {
        Span { at, len }
    }

    /// First sector after it; the largest number if there is none.
    pub fn end(self) -> u64 {
        self.at.saturating_add(self.len)
    }

    /// Whether both have a sector in common.
    pub fn overlaps(self, other: Span) -> bool {
        self.at < other.end() && other.at < self.end()
    }

    /// What both have in common.
    pub fn and(self, other: Span) -> Option<Span> {
        let (at, end) = (self.at.max(other.at), self.end().min(other.end()));
        (at < end).then(|| Span::new(at, end - at))
    }

    /// The units of `size` sectors that it touches.
    pub fn units(self, size: u64) -> std::ops::Range<u64> {
        if self.len == 0 { 0..0 } else { self.at / size..(self.end() - 1) / size + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_touch_whole_units_and_never_wrap() {
        assert_eq!(Span::new(7, 2).units(8), 0..2);
        assert_eq!(Span::new(8, 8).units(8), 1..2);
        assert_eq!(Span::new(8, 0).units(8), 0..0);
        assert_eq!(Span::new(u64::MAX, 9).end(), u64::MAX);
        assert!(Span::new(0, 8).overlaps(Span::new(7, 1)) && !Span::new(0, 8).overlaps(Span::new(8, 1)));
    }

    #[test]
    fn grants_are_ordered_by_reign_and_change() {
        let grant = |round, node, version| Grant { ballot: Ballot { round, node }, version, ..Grant::default() };
        assert!(grant(2, 1, 0).number() > grant(1, 3, 9).number());
        assert!(grant(1, 3, 0).number() > grant(1, 2, 7).number());
    }
}
