//! The words of replication as types: sets of nodes, generations, positions in a stream, ballots, volumes, spans of sectors.

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

/// The number of a volume of a resource. An address of a sector has it in its upper bits, so that one stream, one log and one order
/// serve all volumes; those of volume 0 are the sectors of its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Volume(u8);

impl Volume {
    /// A resource has at most so many: what its superblock has a table for.
    pub const MOST: usize = 16;
    /// The one that every resource has.
    pub const FIRST: Volume = Volume(0);
    /// Addresses from the first sector of a volume to that of the next: twice the sectors of the largest volume (256 TiB), so that none
    /// adjoins another.
    const APART: u32 = 40;

    /// From its number.
    pub fn new(number: u8) -> Option<Volume> {
        (usize::from(number) < Volume::MOST).then_some(Volume(number))
    }

    /// Its number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The same, to index by.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// All that can be.
    pub fn all() -> impl Iterator<Item = Volume> {
        (0..).map_while(Volume::new)
    }

    /// The address of its first sector.
    pub fn base(self) -> u64 {
        u64::from(self.0) << Volume::APART
    }

    /// The volume that an address lies in, if any can.
    pub fn of(sector: u64) -> Option<Volume> {
        u8::try_from(sector >> Volume::APART).ok().and_then(Volume::new)
    }

    /// The sector of its volume's device that an address stands for.
    pub fn local(sector: u64) -> u64 {
        sector & ((1 << Volume::APART) - 1)
    }

    /// Its first sectors.
    pub fn span(self, sectors: u64) -> Span {
        Span::new(self.base(), sectors)
    }
}

/// Sectors of each volume of a resource; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sizes([u64; Volume::MOST]);

impl Sizes {
    /// One volume.
    pub fn one(sectors: u64) -> Sizes {
        Sizes::default().with(Volume::FIRST, sectors)
    }

    /// With another size of a volume.
    #[must_use]
    pub fn with(mut self, volume: Volume, sectors: u64) -> Sizes {
        self.0[volume.index()] = sectors;
        self
    }

    /// That of a volume.
    pub fn of(&self, volume: Volume) -> u64 {
        self.0[volume.index()]
    }

    /// The volumes that there are, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Volume, u64)> + '_ {
        Volume::all().map(|v| (v, self.of(v))).filter(|(_, sectors)| *sectors > 0)
    }

    /// Whether there are others than the first.
    pub fn are_several(&self) -> bool {
        self.iter().any(|(v, _)| v != Volume::FIRST)
    }

    /// Of all volumes.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, s| sum.saturating_add(*s))
    }

    /// The first address behind the volume that this one lies in.
    pub fn end_of(&self, sector: u64) -> u64 {
        Volume::of(sector).map_or(0, |v| v.base() + self.of(v))
    }

    /// What of a span lies in its volume.
    pub fn within(&self, span: Span) -> Span {
        Span::new(span.at, span.end().min(self.end_of(span.at)).saturating_sub(span.at))
    }

    /// The smaller of both, volume by volume.
    #[must_use]
    pub fn smaller(&self, other: &Sizes) -> Sizes {
        Volume::all().fold(*self, |least, v| least.with(v, self.of(v).min(other.of(v))))
    }
}

/// The life of each volume of a resource: a number that only grows, odd while the volume is there, even once it was taken away; 0: it never
/// was. Prevents: a node that was away brings a volume back that the others have taken away; one that was added again under the same number is
/// taken for the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lives([u32; Volume::MOST]);

impl Lives {
    /// Of volumes none of which was ever taken away.
    pub fn plain(sizes: &Sizes) -> Lives {
        sizes.iter().fold(Lives::default(), |lives, (v, _)| lives.with(v, 1))
    }

    /// With another life of a volume.
    #[must_use]
    pub fn with(mut self, volume: Volume, life: u32) -> Lives {
        self.0[volume.index()] = life;
        self
    }

    /// That of a volume.
    pub fn of(&self, volume: Volume) -> u32 {
        self.0[volume.index()]
    }

    /// Whether none was ever taken away.
    pub fn are_plain(&self) -> bool {
        self.0.iter().all(|life| *life <= 1)
    }

    /// Whether a volume is of one life on two nodes, or can be once it was added on one of them.
    pub fn agree(&self, other: &Lives, volume: Volume) -> bool {
        let (a, b) = (self.of(volume), other.of(volume));
        let (low, high) = (a.min(b), a.max(b));
        low == high || (high % 2 == 1 && low.is_multiple_of(2))
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

    /// What is left of it where another is taken out.
    pub fn without(self, other: Span) -> impl Iterator<Item = Span> {
        let before = Span::new(self.at, other.at.clamp(self.at, self.end()) - self.at);
        let from = other.end().clamp(self.at, self.end());
        let after = Span::new(from, self.end() - from);
        let parts = if self.overlaps(other) { [before, after] } else { [self, Span::new(self.at, 0)] };
        parts.into_iter().filter(|part| part.len > 0)
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
        let left = |other: Span| -> Vec<(u64, u64)> { Span::new(8, 8).without(other).map(|s| (s.at, s.len)).collect() };
        assert_eq!((left(Span::new(8, 8)), left(Span::new(0, 24))), (vec![], vec![]));
        assert_eq!((left(Span::new(10, 2)), left(Span::new(0, 9))), (vec![(8, 2), (12, 4)], vec![(9, 7)]));
        assert_eq!((left(Span::new(16, 8)), left(Span::new(0, 8))), (vec![(8, 8)], vec![(8, 8)]));
    }

    #[test]
    fn an_address_says_its_volume_and_none_adjoins_another() {
        let [one, last] = [1, 15].map(|n| Volume::new(n).expect("a volume"));
        assert_eq!((Volume::new(16), Volume::all().count(), Volume::FIRST.base()), (None, 16, 0));
        assert_eq!(
            (Volume::of(one.base()), Volume::of(one.base() - 1), Volume::local(one.base() + 7)),
            (Some(one), Some(Volume::FIRST), 7)
        );
        assert_eq!((Volume::of(last.base() + 5), Volume::of(u64::MAX)), (Some(last), None));
        let largest = 256 * (1_u64 << 40) / SECTOR;
        assert!(largest < one.base() && !Volume::FIRST.span(largest).overlaps(one.span(1)));
        let sizes = Sizes::one(100).with(one, 50);
        assert_eq!((sizes.total(), sizes.are_several(), sizes.iter().count()), (150, true, 2));
        assert_eq!(sizes.within(Span::new(one.base() + 48, 8)), Span::new(one.base() + 48, 2));
        assert_eq!((sizes.within(last.span(8)).len, sizes.within(Span::new(u64::MAX, 1)).len), (0, 0));
        assert_eq!(sizes.smaller(&Sizes::one(7)), Sizes::one(7));
    }

    #[test]
    fn lives_agree_where_they_are_the_same_or_one_side_only_has_to_add() {
        let one = Volume::new(1).expect("a volume");
        let agree = |a, b| Lives::default().with(one, a).agree(&Lives::default().with(one, b), one);
        for (a, b) in [(0, 0), (1, 1), (2, 2), (0, 1), (2, 3), (0, 3)] {
            assert!(agree(a, b) && agree(b, a), "{a} and {b}");
        }
        for (a, b) in [(1, 2), (0, 2), (1, 3), (1, 4), (3, 4), (2, 4)] {
            assert!(!agree(a, b) && !agree(b, a), "{a} and {b}");
        }
        let sizes = Sizes::one(100).with(one, 50);
        assert!(Lives::plain(&sizes).are_plain() && Lives::plain(&sizes).of(one) == 1);
        assert!(!Lives::plain(&sizes).with(one, 2).are_plain());
    }

    #[test]
    fn grants_are_ordered_by_reign_and_change() {
        let grant = |round, node, version| Grant { ballot: Ballot { round, node }, version, ..Grant::default() };
        assert!(grant(2, 1, 0).number() > grant(1, 3, 9).number());
        assert!(grant(1, 3, 0).number() > grant(1, 2, 7).number());
    }
}
