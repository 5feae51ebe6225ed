//! Making room for the next process, which goes on under the same mount with the same incarnation.
//!
//! 1. The office goes to another node, if one can take it; none is taken here any more.
//! 2. No request is taken from the kernel any more: who asks waits there.
//! 3. What was taken is answered; everything is given back and made stable; the client leaves ([`crate::core::client::LEFT`]).
//! 4. What it knew is kept for the next process. An office that nobody could take is resigned, in favour of this very node.
//! 5. The mount is left to the next process.
//!
//! On a unit the next process has no LIVE lock that would tell it that this one has ended; this one tells it, by the record. So 4 is the
//! other way round there: the office is resigned and its reign ended; nothing is sent any more, and what was sent has ended; the
//! unit is left; and only then what the client knew is kept (rule `EndedBeforeHandedOn`). Of data and pages the multipath device proves that end;
//! of compare-and-writes, preemptions and resets it is the answer, which is waited for as well. One of those without an answer from before counts as
//! ended: a lease that lands late is given up by the next process ([`crate::core::office`]), and a slot is compared.
//!
//! - 1 before 3. Prevents: the client has nothing more to say, and the reign that ends with its office is followed by one that
//!   waits for it in grace.
//! - 2 is over when every worker says so. What is unanswered then still has somebody who answers it ([`super::start::Intake`]).
//! - 3 before 4. Prevents: the record is read by a process that does not know what this one still did.
//! - Whoever waits for a lock is not answered; his request is sent again to the next process.
//!
//! What does not come to rest within [`RESTS`] is left without a record: the next life is a new incarnation, as after a kill. The proof is only for
//! giving keys back then. Without the proof keys stay; with it they are given back also where the reign has not ended in time: whatever that still
//! wants to send finds every door shut, and there is no record.
//!
//! Each stage has its bound, and all of them one deadline ([`budget`]), with some seconds kept for the last ones. The mount is left on every way
//! out, also when nobody waits for this any more. Prevents: the stages add up to more than the daemon allows; it ends in the middle, and takes the
//! mount with it, under programs that wait on it.

mod budget;

use std::time::Duration;

use block::shared::NodeId;
use fuse::InheritError;
use tokio::time::Instant;

use super::known::Record;
use super::{STAGE, Volume};
use crate::core::client::Binding;
use crate::core::office::Timing;
use budget::Budget;

/// How long everything may take that programs asked for and that is to be made stable. A disk that stalls for longer ends what
/// is open, which a restart at a better time would not.
const RESTS: Duration = Duration::from_secs(12);
/// How long another node may take to take the office, and this node's client to bind there.
const MOVES: Duration = Duration::from_secs(5);
/// Kept for the proof of a unit, which takes as long where there is none.
const FOR_PROOF: Duration = Duration::from_secs(5);
/// Kept for a reign that ends, and the proof.
const FROM_REIGN: Duration = Duration::from_secs(6);
/// Kept for an office that stops, and all that comes behind it.
const FROM_STOP: Duration = Duration::from_secs(7);
/// Kept for what comes behind the client's rest.
const AFTER_REST: Duration = Duration::from_secs(9);
/// Kept for the client's rest, and all that comes behind it.
const FROM_REST: Duration = Duration::from_secs(15);
/// A unit bounds its own leave below that.
const LEAVES_UNIT: Duration = Duration::from_secs(10);
/// Between two looks at whether everything is at rest.
const LOOK: Duration = Duration::from_millis(2);

/// What the next process finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaves {
    /// Everything: files stay open.
    Resumable,
    /// The mount alone: files that are open fail.
    MountOnly,
}

impl Volume {
    /// Makes room for the next process, in stages, each with a bound.
    ///
    /// # Errors
    /// If nobody keeps the mount; it is taken away then.
    ///
    /// # Cancel safety
    /// Not safe: nothing is served any more.
    pub async fn leave(&self) -> Result<Leaves, InheritError> {
        let (budget, mount) = (Budget::begun(Instant::now()), LeavesMount(self));
        self.give_office_away(&budget).await;
        self.intake.open.send_replace(false);
        let known = async {
            self.host.no_more_lives().await;
            self.rests().await
        };
        let known = budget.run(RESTS, AFTER_REST, known).await.flatten();
        let leaves = match self.disk.nexuses() {
            None => {
                let leaves = self.keeps(known);
                self.office_ends(&budget).await;
                leaves
            }
            Some(nexuses) => {
                self.office_ends(&budget).await;
                // What a reign still does is not waited for longer than this; the unit is left all the same.
                let reign_is_over = budget.run(STAGE, FOR_PROOF, self.host.end_reign()).await.is_some();
                let proved = budget.run(LEAVES_UNIT, Duration::ZERO, nexuses.leave()).await.unwrap_or(false);
                self.keeps(known.filter(|_| proved && reign_is_over))
            }
        };
        mount.leave().map(|()| leaves)
    }

    /// What the next process finds of this one's client; the last word of it.
    fn keeps(&self, known: Option<Record>) -> Leaves {
        let leaves = match (known, &self.keeper) {
            (Some(record), Some(keeper)) => match keeper.keep_known(&record) {
                Ok(()) => Leaves::Resumable,
                Err(e) => {
                    tracing::error!(volume = %self.name, "what is open is not kept for the next daemon: {e}");
                    Leaves::MountOnly
                }
            },
            _ => Leaves::MountOnly,
        };
        self.book.iter().for_each(|book| book.ends());
        leaves
    }

    /// An office that nobody else could take is resigned; none is taken any more.
    async fn office_ends(&self, budget: &Budget) {
        if self.host.office_state().in_office.is_some() {
            // Nobody else could take it: the next life of this node does not wait for them. This one does not take it again.
            self.host.bar(true);
            let office = self.host.office();
            let _ = budget.run(STAGE, FROM_STOP, office.resign_to(Some(self.node))).await;
        }
        // One that does not stop finds the unit left; of a file its LIVE lock says when it has ended.
        let _ = budget.run(STAGE, FROM_REIGN, self.host.office().stop()).await;
    }

    /// Another node takes this node's office, and this node's client binds there; or it stays here.
    ///
    /// One that has just begun, as in an upgrade of node after node, may not take it before it has seen the same nodes for a while.
    /// Meanwhile the office goes on here. Prevents: it is given up, and nobody coordinates for that while.
    async fn give_office_away(&self, budget: &Budget) {
        if let Some((_, since)) = self.host.somebody_else().filter(|_| self.host.office_state().in_office.is_some()) {
            let timing = Timing::from(self.superblock.timing);
            let ready = tokio::time::sleep_until((since + timing.settle() + timing.renew).into());
            let _ = budget.run(MOVES, FROM_REST, ready).await;
        }
        self.host.bar(true);
        if self.host.office_state().in_office.is_none() {
            return;
        }
        let moved = match self.host.somebody_else() {
            Some((to, _)) => budget.run(MOVES, FROM_REST, self.moves_office(to)).await.is_some(),
            None => false,
        };
        if !moved {
            self.host.bar(false);
        }
    }

    async fn moves_office(&self, to: NodeId) {
        let _ = self.host.office().resign_to(Some(to)).await;
        let elsewhere = |b: &Binding| matches!(b, Binding::Bound { to, .. } if to.node != self.node);
        let _ = self.session().binding().wait_for(elsewhere).await;
    }

    /// Until nothing is under way any more; what the next process is to know. `None`: this life has ended meanwhile.
    async fn rests(&self) -> Option<Record> {
        self.intake.open.closed().await;
        loop {
            // Whoever asks for a lock may wait for ever. Counted in this order, since both only become fewer.
            let asked = self.mount.lock().as_ref().map_or(0, |(mount, _)| mount.unanswered());
            if asked <= self.session().lock_callers() {
                if let Err(e) = self.path.come_to_rest().await {
                    tracing::warn!(volume = %self.name, "not everything is stable yet: {e}");
                } else if let Some(client) = self.session().leave().await {
                    return Some(Record { client: *client, files: self.path.known_files() });
                }
            }
            if matches!(*self.session().binding().borrow(), Binding::Evicted { .. }) {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The mount of a volume that is left, whatever becomes of the leave: whoever is dropped in the middle leaves it as well.
struct LeavesMount<'a>(&'a Volume);

impl LeavesMount<'_> {
    fn leave(&self) -> Result<(), InheritError> {
        match self.0.mount.lock().take() {
            Some((mount, _)) => mount.leave().map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for LeavesMount<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.leave() {
            tracing::error!(volume = %self.0.name, "its mount is not left to the next daemon: {e}");
        }
    }
}
