//! What the core tells of the volumes: they become larger, or more, or less.

use super::super::{NotRemoved, NotResized};
use super::{Actor, answer};
use crate::core::event::{RemoveRefusal, Report, ResizeRefusal};
use crate::ids::{SECTOR, Volume};

impl Actor {
    pub(super) fn told_of_size(&mut self, report: Report) {
        match report {
            Report::Grown(volume, sectors) => {
                self.disk.grown(volume, sectors);
                self.tell_sizes();
            }
            Report::Resized(_, sectors) => {
                let bytes = sectors * SECTOR;
                self.resizes.drain(..).for_each(|done| answer(done, Ok(bytes)));
            }
            // Of several who ask at once the second is told that it is being done.
            Report::NotResized(ResizeRefusal::Busy) => {
                self.resizes.pop().into_iter().for_each(|d| answer(d, Err(NotResized::Refused(ResizeRefusal::Busy))));
            }
            Report::NotResized(why) => {
                self.resizes.drain(..).for_each(|done| answer(done, Err(NotResized::Refused(why))));
            }
            Report::OtherSize(node, volume, sectors) => {
                let (theirs, own) = (sectors * SECTOR, self.disk.sizes().of(volume) * SECTOR);
                let which = if volume == Volume::FIRST { String::new() } else { format!("volume {}: ", volume.get()) };
                let said = format!(
                    "{which}it has {theirs} bytes, this one {own}: the disk of the smaller one has no room, or the larger one was just \
                     made and says nothing: make that anew with --size {}",
                    theirs.min(own)
                );
                tracing::error!("{node}: {said}");
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.said = Some(said);
                }
            }
            _ => {}
        }
    }

    fn tell_sizes(&self) {
        let sizes = *self.disk.sizes();
        self.gate.changed(sizes, self.core.replica().map(|r| r.superblock()));
        self.tells.sizes.send_replace(sizes);
    }

    pub(super) fn told_of_leaving(&mut self, report: Report) {
        match report {
            Report::TakenAway(volume) => {
                self.disk.gone(volume);
                self.tell_sizes();
            }
            Report::Removed(_) => self.removes.drain(..).for_each(|done| answer(done, Ok(()))),
            // Of several who ask at once the second is told that it is being done.
            Report::NotRemoved(why @ RemoveRefusal::Busy) => {
                self.removes.pop().into_iter().for_each(|done| answer(done, Err(NotRemoved::Refused(why))));
            }
            Report::NotRemoved(why) => {
                self.removes.drain(..).for_each(|done| answer(done, Err(NotRemoved::Refused(why))));
            }
            Report::OtherLife(node, volume) => {
                let (name, n) = (&self.gate.own.name, volume.get());
                let said = format!(
                    "the volume {name}/{n} was taken away there, and is used here: take it away on the primary, too: `shorefast replica \
                     remove-volume {name} {n} --force`"
                );
                tracing::error!("{node}: {said}");
                self.peers.get_mut(&node).into_iter().for_each(|peer| peer.said = Some(said.clone()));
            }
            _ => {}
        }
    }
}
