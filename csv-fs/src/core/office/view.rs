//! What a node sees of the blocks that all nodes share: slots and the lease, as plain values.
//!
//! The bytes of these blocks are `format`'s business; the shell converts. Two views are equal exactly if their blocks
//! are, so that a comparison of views stands for the comparison that the disk makes.

use std::fmt;

use block::shared::{Epoch, FenceGen, Incarnation, NodeId};

use crate::types::ClientId;

/// A set of nodes; one bit per id, as in a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeSet(pub u64);

impl NodeSet {
    /// No node.
    pub const EMPTY: NodeSet = NodeSet(0);

    /// One node.
    pub fn one(node: NodeId) -> NodeSet {
        let mut set = NodeSet::EMPTY;
        set.insert(node);
        set
    }

    /// Adds a node.
    pub fn insert(&mut self, node: NodeId) {
        self.0 |= bit(node);
    }

    /// Takes a node out.
    pub fn remove(&mut self, node: NodeId) {
        self.0 &= !bit(node);
    }

    /// Whether a node is in it.
    pub fn contains(self, node: NodeId) -> bool {
        self.0 & bit(node) != 0
    }

    /// How many.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What both hold.
    pub fn and(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & other.0)
    }

    /// What either holds.
    pub fn or(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 | other.0)
    }

    /// What only this one holds.
    pub fn minus(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & !other.0)
    }

    /// Whether it holds all of `other`.
    pub fn includes(self, other: NodeSet) -> bool {
        other.minus(self).is_empty()
    }

    /// Its nodes, lowest first.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        (0..64u8).filter(move |n| self.0 >> n & 1 == 1).filter_map(|n| NodeId::new(n + 1))
    }
}

fn bit(node: NodeId) -> u64 {
    1u64 << ((node.get() - 1) & 63)
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> NodeSet {
        let mut set = NodeSet::EMPTY;
        nodes.into_iter().for_each(|n| set.insert(n));
        set
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|n| n.get())).finish()
    }
}

/// A node's slot. Changed by that node; its `fence_gen` and `mark` by fencers; each change by compare-and-write with
/// `counter` raised, so that the block never returns to an earlier value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlotView {
    /// Which life of the node's client; 0: the slot was never used.
    pub incarnation: Incarnation,
    /// The kernel's boot id of the host.
    pub boot: u128,
    /// The daemon's process.
    pub pid: u32,
    /// When that process started, in the kernel's ticks; tells it from a later one with the same number.
    pub pid_start: u64,
    /// Raised by whoever fences the node. I/O under a lower generation is over.
    pub fence_gen: FenceGen,
    /// Raised by one at each change.
    pub counter: u64,
    /// Tells the writer of this value from every other writer.
    pub nonce: u64,
    /// The peers that the node hears.
    pub heard: NodeSet,
    /// A fencer asks for an answer.
    pub mark: Option<Mark>,
    /// The node has stopped everything older than this generation, and nothing of it is in flight; 0: none.
    pub answer: FenceGen,
}

/// A fencer's mark in its victim's slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Who fences.
    pub by: NodeId,
    /// Which life is meant.
    pub incarnation: Incarnation,
    /// The generation to be answered.
    pub fence_gen: FenceGen,
}

impl SlotView {
    /// The process that registered: boot, number and start.
    pub fn process(&self) -> (u128, u32, u64) {
        (self.boot, self.pid, self.pid_start)
    }

    /// The next value of the block: one more on the counter, and the writer's nonce.
    pub fn next(&self, nonce: u64) -> SlotView {
        SlotView { counter: self.counter + 1, nonce, ..*self }
    }
}

/// The lease block: who is coordinator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseView {
    /// The reign; 0 before the first. Only grows.
    pub epoch: Epoch,
    /// The holder's client; `None` before the first reign.
    pub holder: Option<ClientId>,
    /// Where it can be reached.
    pub address: String,
    /// Raised by one at each change.
    pub counter: u64,
    /// Tells the writer of this value from every other writer.
    pub nonce: u64,
    /// The holder gave the office back: everything of its reign has ended.
    pub resigned: Option<Resigned>,
}

/// A resignation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resigned {
    /// Who is to follow, if one was named.
    pub in_favour: Option<NodeId>,
}

impl LeaseView {
    /// The lease block of a volume that was never used.
    pub fn new_volume() -> LeaseView {
        LeaseView { epoch: Epoch(0), holder: None, address: String::new(), counter: 0, nonce: 0, resigned: None }
    }

    /// Whether nobody reigns: a new volume, or the holder resigned.
    pub fn is_vacant(&self) -> bool {
        self.holder.is_none() || self.resigned.is_some()
    }

    /// The value by which `client` takes office after this one.
    pub fn taken_by(&self, client: ClientId, address: &str, nonce: u64) -> LeaseView {
        LeaseView {
            epoch: Epoch(self.epoch.0 + 1),
            holder: Some(client),
            address: address.to_owned(),
            counter: self.counter + 1,
            nonce,
            resigned: None,
        }
    }

    /// The same reign, renewed.
    pub fn renewed(&self, nonce: u64) -> LeaseView {
        LeaseView { counter: self.counter + 1, nonce, ..self.clone() }
    }

    /// The same reign, given up.
    pub fn given_up(&self, in_favour: Option<NodeId>, nonce: u64) -> LeaseView {
        LeaseView { resigned: Some(Resigned { in_favour }), ..self.renewed(nonce) }
    }
}

/// Everything that one round of reading shows. Slots that were never used or cannot be read are absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sight {
    /// The lease block.
    pub lease: LeaseView,
    /// The slots, by node.
    pub slots: std::collections::BTreeMap<NodeId, SlotView>,
}

/// A reservation key: 16 bits volume tag (never 0), 12 bits node, 20 bits incarnation (its low ones), 16 bits nexus.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u64);

impl Key {
    /// The key of one nexus of one client.
    pub fn new(volume_tag: u16, client: ClientId, nexus: u16) -> Key {
        let node = u64::from(client.node.get()) & 0xfff;
        let incarnation = client.incarnation.0 & 0xf_ffff;
        Key(u64::from(volume_tag.max(1)) << 48 | node << 36 | incarnation << 16 | u64::from(nexus))
    }

    /// Whether it is one of this client's keys for this volume, whatever the nexus.
    pub fn belongs_to(self, volume_tag: u16, client: ClientId) -> bool {
        self.0 >> 16 == Key::new(volume_tag, client, 0).0 >> 16
    }
}
