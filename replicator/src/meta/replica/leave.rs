//! A volume leaves a replica: it is taken away, or begins another life.
//!
//! ```text
//!   before  table: volume 1, life 1      disk of volume 1: data | bitmaps | label
//!   step    table: volume 1, life 2      the same                                     the volume is not there any more
//!   next    the same                     data | bitmaps | label: taken away
//! ```
//! One write of the superblock decides, so a crash leaves the volume there or taken away. The row stays: *taken away is remembered*. Prevents: the
//! next meeting with a node that was away is taken for one where a volume was added, and brings it back. The label follows with the next change; if
//! that is lost, the number in the row tells whose disk it was.

use super::super::MetaError;
use super::super::further::Gone;
use super::{Commit, Put, Replica};
use crate::ids::Volume;
use crate::meta::MetaWrite;

impl Replica {
    /// A volume is not there any more, in this life of it, or it never was and is not to be; `remembers`: its row stays. The caller has nothing
    /// under way there. From now on it is so, on the disk when the plan is durable.
    ///
    /// # Errors
    /// The first volume, which has the metadata; a life in which it is there; a plan is under way.
    pub fn plan_leave(&mut self, volume: Volume, life: u32, remembers: bool) -> Result<Commit, MetaError> {
        if self.under_way || volume == Volume::FIRST || life % 2 == 1 || life <= self.lives().of(volume) {
            return Err(MetaError::Shape("a volume cannot be taken away now, or not in this life"));
        }
        let old = self.superblock.further(volume).copied();
        // Whoever finds the disk is told.
        let label = old.map(|old| old.put_label(&self.superblock, true));
        if remembers {
            self.superblock.set_gone(Gone { volume, number: old.map_or(0, |o| o.number), life });
        } else {
            self.superblock.forget(volume);
        }
        self.bitmaps.values_mut().for_each(|map| map.remove(volume));
        let commit = self.plan_at_once();
        self.left.extend(label);
        Ok(commit)
    }

    /// A volume is another one from now on, which was added where this node was not: what is here counts for nothing, and is marked for all.
    ///
    /// # Errors
    /// No such volume; a life in which it is not there; a plan is under way.
    pub fn plan_renewal(&mut self, volume: Volume, life: u32) -> Result<Commit, MetaError> {
        let old = self.superblock.further(volume).copied().filter(|old| life > old.life && life % 2 == 1);
        let Some(old) = old.filter(|_| !self.under_way) else {
            return Err(MetaError::Shape("a volume cannot begin this life now"));
        };
        let all = self.peers();
        self.mark(all, volume.span(old.data));
        self.superblock.set_further(old.of_life(life));
        Ok(self.plan_at_once())
    }

    /// A volume that is not there was in lives that this node has not seen: the next one that is added comes behind them.
    pub fn lived(&mut self, volume: Volume, life: u32) {
        if life.is_multiple_of(2) && life > self.lives().of(volume) && self.superblock.further(volume).is_none() {
            self.superblock.set_gone(Gone { volume, number: 0, life });
        }
    }

    fn plan_at_once(&mut self) -> Commit {
        let mut first = self.put_left();
        first.extend(self.save_pages(None));
        (self.changed, self.under_way) = (false, true);
        let then: Vec<Put> = vec![self.put_superblock()];
        Commit { write: MetaWrite { first, then }, transaction: None }
    }
}
