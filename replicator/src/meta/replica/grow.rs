//! A replica grows: more data, longer bitmaps, and internal metadata at the new end of their device.
//!
//! ```text
//!   before  data ........... | bitmaps log B A |                                   found by the end as it was
//!   step 1  data ........... | bitmaps log B A | ............... | bitmaps log     | not found by the new end: still the old one
//!   step 2  data ........... | bitmaps log B A | ............... | bitmaps log B A | found by the new end: the new one
//!   next    data ........... . . . . . . . . 0 0 . ............. | bitmaps log B A |
//! ```
//! Everything at the new place is written before its first superblock is, and nothing of the old one is written over, so a crash at any
//! moment finds one of the two whole. The old superblocks go with the first change that follows, or when a start finds them. Prevents:
//! both new copies are damaged years later, and what was true before the device has grown is taken for the truth.
//!
//! What is new on the device holds anything, and something else on each node: it is marked for every peer in the same step, so it is
//! never there without bits. With `clean` the caller says that it is the same everywhere; then only where this node's own metadata lay is
//! marked. External metadata stay in their place but for bitmaps that become longer, and their superblocks are changed as always.
//!
//! A further volume grows likewise: its bitmaps and its label are written at the new end of its disk in the first step, and the superblock,
//! which stays where it is, says so in the second. One that is added grows from nothing.

use super::super::bitmap::Bitmap;
use super::super::further::Further;
use super::super::layout::Devices;
use super::super::{MetaError, MetaWrite, PAGE, Put};
use super::{Commit, Replica};
use crate::ids::{SECTOR, Span, Volume};

impl Replica {
    /// The most sectors of a volume that there is room for on disks of these lengths; what there are now if they have not grown, and none
    /// of a volume that has no disk.
    pub fn room(&self, volume: Volume, devices: &Devices) -> u64 {
        self.superblock.room(volume, devices)
    }

    /// A volume grows to so many sectors of data, or is added. From now on the replica is so large, on its disk when the plan is durable.
    /// `marks`: what is new is marked for all peers.
    ///
    /// # Errors
    /// There is no room for it; a plan is under way.
    pub fn plan_growth(
        &mut self,
        volume: Volume,
        data: u64,
        devices: &Devices,
        clean: bool,
        marks: bool,
    ) -> Result<Commit, MetaError> {
        if self.under_way {
            return Err(MetaError::Shape("a change is on its way to the disk"));
        }
        if volume == Volume::FIRST {
            self.plan_growth_of_first(data, *devices, clean, marks)
        } else {
            self.plan_growth_of_further(volume, data, devices.of(volume), clean, marks)
        }
    }

    fn plan_growth_of_further(
        &mut self,
        volume: Volume,
        data: u64,
        len: u64,
        clean: bool,
        marks: bool,
    ) -> Result<Commit, MetaError> {
        let (peers, all) = (self.superblock.layout.shape.peers, self.peers());
        let old = self.superblock.further(volume).copied();
        let new = match &old {
            Some(old) => old.grown(data, len, peers)?,
            // No other disk of this replica has it: sequences only grow.
            None => {
                let life = self.superblock.lives().of(volume) + 1;
                Further::new(volume, self.superblock.sequence + 1, len, peers, Some(data))?.of_life(life)
            }
        };
        for map in self.bitmaps.values_mut() {
            let part = map.part_mut(volume).map(|part| part.grown(new.bits(), new.bit));
            map.replace(volume, part.unwrap_or_else(|| Bitmap::new(0, new.bit).grown(new.bits(), new.bit)));
        }
        let before = old.map_or(0, |o| o.data);
        let added = Span::new(volume.base() + before, data - before);
        let marked = if clean { old.and_then(|o| o.own().and(added)) } else { Some(added) };
        if let Some(span) = marked.filter(|_| marks) {
            self.mark(all, span);
        }
        self.superblock.set_further(new);
        let mut first = self.put_left();
        first.extend(self.save_pages(None));
        first.push(new.put_label(&self.superblock, false));
        (self.changed, self.under_way) = (false, true);
        Ok(Commit { write: MetaWrite { first, then: vec![self.put_superblock()] }, transaction: None })
    }

    fn plan_growth_of_first(
        &mut self,
        data: u64,
        devices: Devices,
        clean: bool,
        marks: bool,
    ) -> Result<Commit, MetaError> {
        let old = self.superblock.layout;
        let new = old.grown(data, devices)?;
        let (shape, all) = (new.shape, self.peers());
        for part in self.bitmaps.values_mut().filter_map(|map| map.part_mut(Volume::FIRST)) {
            *part = part.grown(shape.bits(), shape.bit);
        }
        self.superblock.layout = new;
        self.superblock.size = data;
        let added = Span::new(old.shape.data, data - old.shape.data);
        let own = Span::new(old.bitmaps / SECTOR, (old.end() - old.bitmaps) / SECTOR);
        let marked = if !clean { Some(added) } else { own.and(added).filter(|_| old.is_internal()) };
        if let Some(span) = marked.filter(|_| marks) {
            self.mark(all, span);
        }
        let moved = new.supers != old.supers;
        let mut first = self.put_left();
        first.extend(self.save_pages(None));
        let mut then = Vec::new();
        if moved {
            first.extend(self.put_ring());
            then.push(self.put_superblock());
            self.left.extend(old.supers.map(|at| Put { at, bytes: vec![0; PAGE as usize] }));
        }
        then.push(self.put_superblock());
        (self.changed, self.under_way) = (false, true);
        Ok(Commit { write: MetaWrite { first, then }, transaction: None })
    }

    /// Whether superblocks of a place that was left, or labels of volumes that were taken away, are there yet.
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// A ring at a new place: the table as it is, and nothing else that could be taken for a page of it.
    fn put_ring(&mut self) -> Vec<Put> {
        let (layout, pages) = (self.superblock.layout, self.superblock.layout.shape.log_pages);
        self.log.grow(layout.shape.log_slots);
        let empty = vec![0; (u64::from(pages) * PAGE) as usize];
        let mut ring = Put { at: layout.log, bytes: empty };
        for transaction in self.log.plan_copy() {
            let at = (layout.log_page(transaction.number) - layout.log) as usize;
            ring.bytes[at..at + PAGE as usize].copy_from_slice(&self.log.encode(&transaction));
            self.log.committed(&transaction);
        }
        vec![ring]
    }

    /// What was left is written over.
    pub(super) fn put_left(&mut self) -> Vec<Put> {
        std::mem::take(&mut self.left)
    }
}
