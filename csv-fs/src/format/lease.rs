//! The lease block: who is coordinator, in which epoch.
//!
//! It changes by compare-and-write only, and every change raises `counter`, so that it never returns to an earlier
//! value. The office (`core::office`) decides; this file knows the bytes.

use block::shared::{Epoch, Incarnation, NodeId};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::raw::{LEASE_MAGIC, RawLease, open, seal};
use super::{CAW_BYTES, FormatError, VERSION};
use crate::types::VolumeId;

const WHAT: &str = "lease block";

/// The lease block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseBlock {
    /// Number of the reign; 0 before the first.
    pub epoch: Epoch,
    /// The holder; `None` only before the first reign.
    pub node: Option<NodeId>,
    /// The life of the holder's client on that node.
    pub incarnation: Incarnation,
    /// Where the holder answers, for people and for a node that knows it under no other address.
    pub address: String,
    /// Raised by each change.
    pub counter: u64,
    /// Chosen by whoever made the last change, so that it recognises its own.
    pub nonce: u64,
    /// Set when the holder has given up office.
    pub resigned: Option<Resigned>,
}

/// A resignation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resigned {
    /// The node that is to follow, if one was named.
    pub in_favour: Option<NodeId>,
}

impl LeaseBlock {
    /// The block as formatting leaves it: no reign yet.
    pub fn empty() -> LeaseBlock {
        LeaseBlock {
            epoch: Epoch(0),
            node: None,
            incarnation: Incarnation(0),
            address: String::new(),
            counter: 0,
            nonce: 0,
            resigned: None,
        }
    }

    /// The bytes. Fails only if the address does not fit.
    pub fn encode(&self, volume: VolumeId) -> Result<[u8; CAW_BYTES], FormatError> {
        let mut raw = RawLease {
            magic: LEASE_MAGIC,
            version: U32::new(VERSION),
            crc: U32::ZERO,
            uuid: volume.0.to_be_bytes(),
            counter: U64::new(self.counter),
            nonce: U64::new(self.nonce),
            epoch: U64::new(self.epoch.0),
            incarnation: U64::new(self.incarnation.0),
            node: byte_of(self.node),
            resigned: u8::from(self.resigned.is_some()),
            in_favour: byte_of(self.resigned.and_then(|r| r.in_favour)),
            address_len: 0,
            reserved: [0; 4],
            address: [0; 64],
            tail: [0; 376],
        };
        let address = self.address.as_bytes();
        raw.address.get_mut(..address.len()).ok_or(FormatError::AddressTooLong)?.copy_from_slice(address);
        raw.address_len = u8::try_from(address.len()).map_err(|_| FormatError::AddressTooLong)?;
        let mut bytes = [0; CAW_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        seal(&mut bytes);
        Ok(bytes)
    }

    /// From the bytes of its cell (512 or more).
    pub fn decode(bytes: &[u8], volume: VolumeId) -> Result<LeaseBlock, FormatError> {
        let raw: RawLease = open(bytes, LEASE_MAGIC, WHAT)?;
        if raw.uuid != volume.0.to_be_bytes() {
            return Err(FormatError::OtherVolume { what: WHAT });
        }
        let damaged = |why| FormatError::Damaged { what: WHAT, why };
        let address = raw.address.get(..usize::from(raw.address_len)).ok_or(damaged("its address is too long"))?;
        let address = String::from_utf8(address.to_vec()).map_err(|_| damaged("its address is no text"))?;
        let in_favour = node_of(raw.in_favour, WHAT)?;
        Ok(LeaseBlock {
            epoch: Epoch(raw.epoch.get()),
            node: node_of(raw.node, WHAT)?,
            incarnation: Incarnation(raw.incarnation.get()),
            address,
            counter: raw.counter.get(),
            nonce: raw.nonce.get(),
            resigned: (raw.resigned != 0).then_some(Resigned { in_favour }),
        })
    }
}

/// A node as one byte; 0 is nobody.
pub(super) fn byte_of(node: Option<NodeId>) -> u8 {
    node.map_or(0, NodeId::get)
}

/// A node from its byte.
pub(super) fn node_of(byte: u8, what: &'static str) -> Result<Option<NodeId>, FormatError> {
    match byte {
        0 => Ok(None),
        n => NodeId::new(n).map(Some).ok_or(FormatError::Damaged { what, why: "it names a node above 64" }),
    }
}
