//! One volume gets another disk, on which nothing is, while the replica does not run.
//!
//! What is on it is nobody's: every bit of the volume is set for all peers, and the replica is whole no more until it was synchronised
//! (*swapped is marked*). Prevents: the empty disk is taken for what this node held, read from, or given to others as the source. Bits and
//! label are durable before the superblock names the new disk, so a crash leaves the old disk or the new one, and the other is refused.
//!
//! The other volumes keep their bits: of them only what was marked is synchronised. What the node promised and was granted lies on the disk of the
//! first volume, which cannot be swapped for that reason.

use super::super::further::Further;
use super::super::superblock::{Life, Superblock};
use super::super::{MetaError, MetaWrite, Put, Reader};
use super::Replica;
use crate::ids::Volume;

/// A volume that is to have another disk.
#[derive(Clone, Copy, Debug)]
pub struct Swap {
    /// Which.
    pub volume: Volume,
    /// The number of the new disk, which no other has.
    pub number: u64,
    /// Bytes of it.
    pub len: u64,
    /// What is on it is marked, and the replica not whole.
    pub marks: bool,
}

impl Swap {
    /// The superblock speaks of the new disk, and claims nothing of what is on it.
    pub(super) fn begin(&self, superblock: &mut Superblock) -> Result<(), MetaError> {
        let Some(old) = superblock.further(self.volume).copied() else {
            return Err(MetaError::Shape("the replica has no such volume besides its first"));
        };
        let peers = superblock.layout.shape.peers;
        let new = Further::new(self.volume, self.number, self.len, peers, Some(old.data))?.of_life(old.life);
        superblock.set_further(new);
        let flags = &mut superblock.flags;
        (flags.primary, flags.lost_quorum) = (false, false);
        superblock.peers.iter_mut().for_each(|p| p.connected = false);
        if self.marks {
            (flags.consistent, flags.up_to_date) = (false, false);
        }
        Ok(())
    }
}

impl Replica {
    /// Reads what is on the disks, and gives a volume another one; the old one of that volume is not read. What is to be written makes it
    /// durable: [`super::super::store`] writes it on the disks as they are to be.
    ///
    /// # Errors
    /// As of [`Replica::recover_grown`]; no such volume; a disk that is too short.
    pub fn swap(reader: &dyn Reader, len: u64, known: &[u64], swap: Swap) -> Result<MetaWrite, MetaError> {
        Replica::recover_with(reader, len, known, Life::UNKNOWN, Some(swap)).map(|recovered| recovered.write)
    }

    /// Everything of the new disk, then the superblock that names it. The log stays as it is: what was hot is found hot by the next start, on the
    /// old disk as well if a crash leaves that.
    pub(super) fn put_swap(&mut self, swap: Swap) -> MetaWrite {
        let (volume, all) = (swap.volume, self.peers());
        if swap.marks {
            self.mark(all, volume.span(self.superblock.data(volume)));
        }
        let mut first = self.put_left();
        first.extend(self.save_pages(None));
        for (slot, peer) in self.superblock.peers.iter().enumerate() {
            let Some(map) = self.bitmaps.get_mut(&peer.node) else { continue };
            let pages = self.superblock.further(volume).map_or(0, |f| f.bitmap_pages());
            let put = |page| Put { at: self.superblock.bitmap_page(volume, slot, page), bytes: map.save(volume, page) };
            first.extend((0..pages).map(put));
        }
        first.extend(self.superblock.further(volume).map(|f| f.put_label(&self.superblock, false)));
        MetaWrite { first, then: vec![self.put_superblock()] }
    }
}
