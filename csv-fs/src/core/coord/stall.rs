//! Time in which the store answers nothing is not held against clients.
//!
//! Prevents: the disk stalls, and the office rides that out; a client has done what it was asked, or would do it next, and
//! its commit waits for the disk. The recall is overdue meanwhile, the client is evicted, and its programs get EIO over a
//! stall that would have been over a moment later.
//!
//! Nobody is late while the store has had something for long and answered nothing, and when it answers again everybody has
//! as long left as it stood still, a whole recall time at most. A store that stands still for good ends the reign.

use std::time::Duration;

use super::Coord;
use super::event::OpId;
use super::patience::Patience;

impl Coord {
    /// The store has it from now on.
    pub(super) fn give_to_store(&mut self, op: OpId) {
        if self.storing.is_empty() {
            self.stored_at = self.now;
        }
        self.storing.insert(op);
    }

    /// For how long the store has answered nothing, if that is long.
    fn stands_still(&self) -> Option<Duration> {
        let since = self.now.since(self.stored_at);
        (!self.storing.is_empty() && since >= self.config.limits.ask_again()).then_some(since)
    }

    /// It answered.
    pub(super) fn store_answered(&mut self, op: OpId) -> bool {
        let stood_still = self.stands_still();
        let known = self.storing.remove(&op);
        if known {
            self.stored_at = self.now;
            if let Some(time) = stood_still {
                self.have_left(time.min(self.config.limits.recall));
            }
        }
        known
    }

    /// Puts off what is overdue while the store stands still.
    pub(super) fn forgive_while_it_stands_still(&mut self) {
        if self.stands_still().is_some() {
            self.have_left(self.config.limits.ask_again());
        }
    }

    /// Everybody who was asked for something has so long left at least.
    fn have_left(&mut self, time: Duration) {
        let until = self.now + time;
        self.patiences().for_each(|patience| patience.not_before(until));
    }

    fn patiences(&mut self) -> impl Iterator<Item = &mut Patience> {
        self.recalls.values_mut().chain(self.syncs.values_mut().map(|s| &mut s.patience))
    }
}
