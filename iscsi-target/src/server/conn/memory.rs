//! The memory of a connection's commands: one aligned buffer for each that has data from the initiator, into which the
//! socket is read and from which the device writes. What all hold together is counted, also what was read and not yet
//! taken by the initiator.

use std::collections::HashMap;

use block::AlignedBuf;
use iscsi::ids::Itt;

use crate::core::unit::media::MAX_TRANSFER;
use crate::server::limits::MAX_BYTES;

#[derive(Default)]
pub(super) struct Memory {
    buffers: HashMap<Itt, AlignedBuf>,
    used: usize,
}

impl Memory {
    /// At least `needed` bytes for a command, rather `room`, which is what it will need in the end.
    pub(super) fn make(&mut self, itt: Itt, needed: usize, room: usize) {
        let there = self.buffers.get(&itt).map_or(0, |b| b.len());
        if there >= needed {
            return;
        }
        let room = room.min(MAX_TRANSFER as usize).max(needed);
        let len = if self.fits(room - there) { room } else { needed };
        let mut new = AlignedBuf::with_capacity(len);
        if let Some(old) = self.buffers.get(&itt) {
            new[..old.len()].copy_from_slice(old);
        }
        self.used += len - there;
        self.buffers.insert(itt, new);
    }

    /// A part of a command's buffer.
    pub(super) fn bytes(&mut self, itt: Itt, at: usize, len: usize) -> Option<&mut [u8]> {
        self.buffers.get_mut(&itt)?.get_mut(at..at.checked_add(len)?)
    }

    /// The buffer of a command whose data are there. What it holds is counted on: [`Memory::free`] is owed.
    pub(super) fn take(&mut self, itt: Itt) -> Option<AlignedBuf> {
        self.buffers.remove(&itt)
    }

    /// Whether so many bytes more are within the bound. One command always is.
    pub(super) fn fits(&self, more: usize) -> bool {
        self.used == 0 || self.used + more <= MAX_BYTES
    }

    pub(super) fn count(&mut self, bytes: usize) {
        self.used += bytes;
    }

    pub(super) fn free(&mut self, bytes: usize) {
        self.used -= bytes;
    }

    /// A command ended before its buffer was taken.
    pub(super) fn drop_buffer(&mut self, itt: Itt) {
        if let Some(buffer) = self.buffers.remove(&itt) {
            self.used -= buffer.len();
        }
    }
}
