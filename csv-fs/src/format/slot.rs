//! A node's slot: which life of its client is on the disk, that it is alive, and whether it is fenced.
//!
//! Changed by its node, except `fence_gen` and `mark`, which a fencer changes; always by compare-and-write of the
//! block as it was read, with `counter` raised. So a fencer and its victim never undo each other's change: one of the
//! two sees a miscompare and starts over from what it finds.

use block::shared::{FenceGen, Incarnation, NodeId};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::lease::{byte_of, node_of};
use super::raw::{RawSlot, SLOT_MAGIC, open, seal};
use super::{CAW_BYTES, FormatError, VERSION};
use crate::types::VolumeId;

const WHAT: &str = "slot";

/// A node's slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Whose it is.
    pub node: NodeId,
    /// The present life of its client; 0 before the first.
    pub incarnation: Incarnation,
    /// The boot of the host it runs on (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: [u8; 16],
    /// Its process.
    pub pid: u32,
    /// Start time of that process, field 22 of `/proc/PID/stat`: a pid alone may be another's by now.
    pub pid_start: u64,
    /// Raised by each fence; the node does I/O only under the generation that it was granted.
    pub fence_gen: FenceGen,
    /// Raised by each change.
    pub counter: u64,
    /// Chosen by whoever made the last change.
    pub nonce: u64,
    /// Bit `n - 1` is set if the node hears node `n`.
    pub peers_heard: u64,
    /// A fencer asks this node to let go.
    pub mark: Option<FenceMark>,
    /// The highest fence generation for which this node has said "nothing of mine is in flight any more".
    pub answer: FenceGen,
}

/// A fencer's mark in its victim's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceMark {
    /// Who fences.
    pub by: NodeId,
    /// Which life is meant.
    pub incarnation: Incarnation,
    /// The generation that the fence raised the slot to.
    pub fence_gen: FenceGen,
}

impl Slot {
    /// A slot as formatting leaves it.
    pub fn empty(node: NodeId) -> Slot {
        Slot {
            node,
            incarnation: Incarnation(0),
            boot_id: [0; 16],
            pid: 0,
            pid_start: 0,
            fence_gen: FenceGen(0),
            counter: 0,
            nonce: 0,
            peers_heard: 0,
            mark: None,
            answer: FenceGen(0),
        }
    }

    /// The bytes.
    pub fn encode(&self, volume: VolumeId) -> [u8; CAW_BYTES] {
        let raw = RawSlot {
            magic: SLOT_MAGIC,
            version: U32::new(VERSION),
            crc: U32::ZERO,
            uuid: volume.0.to_be_bytes(),
            counter: U64::new(self.counter),
            nonce: U64::new(self.nonce),
            incarnation: U64::new(self.incarnation.0),
            fence_gen: U64::new(self.fence_gen.0),
            boot_id: self.boot_id,
            pid_start: U64::new(self.pid_start),
            pid: U32::new(self.pid),
            node: self.node.get(),
            mark_by: byte_of(self.mark.map(|m| m.by)),
            reserved: [0; 2],
            peers_heard: U64::new(self.peers_heard),
            mark_incarnation: U64::new(self.mark.map_or(0, |m| m.incarnation.0)),
            mark_gen: U64::new(self.mark.map_or(0, |m| m.fence_gen.0)),
            answer: U64::new(self.answer.0),
            tail: [0; 384],
        };
        let mut bytes = [0; CAW_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        seal(&mut bytes);
        bytes
    }

    /// From the bytes of its cell (512 or more). `node` is whose slot was read.
    pub fn decode(bytes: &[u8], volume: VolumeId, node: NodeId) -> Result<Slot, FormatError> {
        let raw: RawSlot = open(bytes, SLOT_MAGIC, WHAT)?;
        if raw.uuid != volume.0.to_be_bytes() {
            return Err(FormatError::OtherVolume { what: WHAT });
        }
        if raw.node != node.get() {
            return Err(FormatError::Damaged { what: WHAT, why: "it is another node's" });
        }
        let mark = node_of(raw.mark_by, WHAT)?.map(|by| FenceMark {
            by,
            incarnation: Incarnation(raw.mark_incarnation.get()),
            fence_gen: FenceGen(raw.mark_gen.get()),
        });
        Ok(Slot {
            node,
            incarnation: Incarnation(raw.incarnation.get()),
            boot_id: raw.boot_id,
            pid: raw.pid.get(),
            pid_start: raw.pid_start.get(),
            fence_gen: FenceGen(raw.fence_gen.get()),
            counter: raw.counter.get(),
            nonce: raw.nonce.get(),
            peers_heard: raw.peers_heard.get(),
            mark,
            answer: FenceGen(raw.answer.get()),
        })
    }

    /// Whether the node hears `peer`.
    pub fn hears(&self, peer: NodeId) -> bool {
        self.peers_heard & (1 << (peer.get() - 1)) != 0
    }
}
