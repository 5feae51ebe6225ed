//! What a tie-breaker has on its disk for one resource: who it is, whom it votes for, what it promised and granted.
//!
//! One block of 512 bytes, a file of its own: written aside, flushed, and put in the place of the former one by whoever has
//! the file system (`runtime::witness`). A tie-breaker that forgets is worse than none: it would grant a reign to who was
//! dropped. So it has an identity, drawn when it is made, and replicas vote only with the one that they were told of.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::{Ballot, Generation, Grant, NodeId, NodeSet};

/// Version of the format. 1: first.
pub const VERSION: u32 = 1;
/// Bytes of it.
pub const LEN: usize = 512;
const MAGIC: [u8; 8] = *b"SHFVOTE\0";
const CRC_AT: usize = 12;

/// Why bytes are no vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoteError {
    /// Something else.
    #[error("it is no tie-breaker's vote")]
    NotThere,
    /// A newer program wrote it.
    #[error("it is of version {0}, this program knows {VERSION}")]
    Newer(u32),
    /// Its checksum or its length is wrong.
    #[error("it is damaged: what was granted is not known any more")]
    Damaged,
}

/// A tie-breaker's memory of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Drawn when it was made.
    pub identity: u64,
    /// The resource.
    pub resource: [u8; 16],
    /// The node that it is.
    pub node: NodeId,
    /// The nodes with disks.
    pub replicas: NodeSet,
    /// Nothing of a lower ballot is accepted.
    pub promised: Ballot,
    /// The newest grant.
    pub grant: Grant,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    identity: U64,
    resource: [u8; 16],
    node: u8,
    reserved: [u8; 7],
    replicas: U64,
    promised_round: U32,
    promised_node: U32,
    grant_round: U32,
    grant_node: U32,
    grant_version: U32,
    reserved2: U32,
    grant_generation: U64,
    grant_members: U64,
    tail: [u8; 416],
}

const _: () = assert!(size_of::<Raw>() == LEN);

impl Ledger {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let raw = Raw {
            magic: MAGIC,
            version: VERSION.into(),
            crc: 0.into(),
            identity: self.identity.into(),
            resource: self.resource,
            node: self.node.get(),
            reserved: [0; 7],
            replicas: self.replicas.0.into(),
            promised_round: self.promised.round.into(),
            promised_node: u32::from(self.promised.node).into(),
            grant_round: self.grant.ballot.round.into(),
            grant_node: u32::from(self.grant.ballot.node).into(),
            grant_version: self.grant.version.into(),
            reserved2: 0.into(),
            grant_generation: self.grant.generation.0.into(),
            grant_members: self.grant.members.0.into(),
            tail: [0; 416],
        };
        let mut bytes = raw.as_bytes().to_vec();
        let crc = crc32c::crc32c(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// Something else, a newer version, a damaged one.
    pub fn decode(bytes: &[u8]) -> Result<Ledger, VoteError> {
        let (raw, _) = Raw::read_from_prefix(bytes).map_err(|_| VoteError::Damaged)?;
        if raw.magic != MAGIC {
            return Err(VoteError::NotThere);
        }
        if raw.version.get() > VERSION {
            return Err(VoteError::Newer(raw.version.get()));
        }
        let mut zeroed = raw;
        zeroed.crc = 0.into();
        let node = NodeId::new(raw.node);
        let whole = crc32c::crc32c(zeroed.as_bytes()) == raw.crc.get() && bytes.len() == LEN;
        let Some(node) = node.filter(|_| whole) else { return Err(VoteError::Damaged) };
        let ballot = |round: U32, node: U32| Ballot { round: round.get(), node: u8::try_from(node.get()).unwrap_or(0) };
        Ok(Ledger {
            identity: raw.identity.get(),
            resource: raw.resource,
            node,
            replicas: NodeSet(raw.replicas.get()),
            promised: ballot(raw.promised_round, raw.promised_node),
            grant: Grant {
                ballot: ballot(raw.grant_round, raw.grant_node),
                version: raw.grant_version.get(),
                generation: Generation(raw.grant_generation.get()),
                members: NodeSet(raw.grant_members.get()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let node = |n| NodeId::new(n).expect("a node");
        Ledger {
            identity: 0x0102_0304_0506_0708,
            resource: *b"resource-of-test",
            node: node(3),
            replicas: NodeSet::of(node(1)).with(node(2)),
            promised: Ballot { round: 9, node: 2 },
            grant: Grant {
                ballot: Ballot { round: 8, node: 1 },
                version: 4,
                generation: Generation(0x1122_3344),
                members: NodeSet::of(node(1)),
            },
        }
    }

    #[test]
    fn a_vote_comes_back_and_a_changed_byte_of_it_is_told() {
        let bytes = ledger().encode();
        assert_eq!(Ledger::decode(&bytes), Ok(ledger()));
        for at in 0..LEN {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(Ledger::decode(&wrong).is_err(), "byte {at}");
        }
        for len in 0..LEN {
            assert!(Ledger::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn the_bytes_of_a_vote_of_version_1_are_frozen() {
        let bytes = ledger().encode();
        assert_eq!(&bytes[..12], b"SHFVOTE\0\x01\0\0\0");
        assert_eq!(&bytes[16..24], &[8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(&bytes[24..40], b"resource-of-test");
        assert_eq!(&bytes[40..56], &[3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[56..72], &[9, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(&bytes[72..88], &[4, 0, 0, 0, 0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0]);
        assert_eq!(&bytes[88..96], &[1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(bytes[96..].iter().all(|b| *b == 0));
    }
}
