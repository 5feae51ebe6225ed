//! Who shares a disk, and which life of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node of the cluster, 1 to 64; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct NodeId(u8);

impl TryFrom<u8> for NodeId {
    type Error = &'static str;
    fn try_from(id: u8) -> Result<NodeId, &'static str> {
        NodeId::new(id).ok_or("a node is 1 to 64")
    }
}

impl From<NodeId> for u8 {
    fn from(id: NodeId) -> u8 {
        id.0
    }
}

impl NodeId {
    /// The highest node number: one slot per node lies on every volume.
    pub const MAX: u8 = 64;

    /// A node number, or `None` unless it is 1 to 64.
    pub fn new(id: u8) -> Option<NodeId> {
        (1..=NodeId::MAX).contains(&id).then_some(NodeId(id))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The number counted from 0, for tables.
    pub fn index(self) -> usize {
        usize::from(self.0 - 1)
    }

    /// All node numbers, ascending.
    pub fn all() -> impl Iterator<Item = NodeId> {
        (1..=NodeId::MAX).map(NodeId)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one, or `None` at the end of the numbers.
            pub fn next(self) -> Option<$name> {
                self.0.checked_add(1).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self.0)
            }
        }
    };
}

number!(
    /// One life of a client of a volume; ended by eviction, unmount, or a restart that cannot resume.
    Incarnation,
    "incarnation"
);
number!(
    /// The number of a coordinator's reign; only grows.
    Epoch,
    "epoch"
);
number!(
    /// How often a node's slot was fenced; what it was granted must equal what it reads.
    FenceGen,
    "fence generation"
);
