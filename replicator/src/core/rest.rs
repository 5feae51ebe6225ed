//! Rest: nothing is under way on the disk, nothing has to be remembered, everything that was acknowledged is stable.
//!
//! ```text
//!            idle for a while, or told to end                      something is to be written
//!   at work ─────────────────────────────────► log empty, at_rest ───────────────────────────► at work
//!      │                                             │
//!      │ power fails                                 │ power fails, the process ends
//!      ▼                                             ▼
//!   what was acknowledged may be lost here        nothing is lost here: it may reign alone
//! ```
//! A node that starts proves by what it finds that nothing of what it acknowledged is missing: its disk was at rest, or only its process
//! has ended and the machine with its disk has gone on living ([`Life`](crate::meta::superblock::Life)). Then it answers for itself, and need not wait for the others of
//! the newest grant. What it cannot prove it has lost, until it meets a primary or all others are there to say that they have lost it too.
//!
//! *At rest* is written down behind a flush, with the log empty, and taken back with the first extent that becomes hot, before
//! anything is written there. So it is never true of a disk that holds anything unstable. Who may have lost something does not
//! write it: its log is emptied all the same, so that a crash of an idle node leaves nothing to compare.
//!
//! *Told to end*: connections are closed first, and what their peers may lack becomes bits; then nothing new comes, and what is under way
//! lands. A primary has to become secondary before.

use super::connect::State;
use super::event::{Effect, Refusal, Report};
use super::ios::Purpose;
use super::rules::Rule;
use super::{Node, Role};
use crate::ids::NodeId;
use crate::meta::MetaWrite;

impl Node {
    /// Goes down in order: [`Report::AtRest`] tells when it has, or that it cannot. Nothing is accepted from then on.
    pub(super) fn rest(&mut self) {
        if self.is_primary() || self.replica.is_none() {
            return self.tell(Report::AtRest(false));
        }
        self.stand_down(Refusal::OtherPrimary);
        self.resting = true;
        let all: Vec<NodeId> = self.links.keys().copied().collect();
        for node in all {
            self.link_close(node, true);
        }
    }

    /// Nothing is under way and nothing is remembered.
    fn is_idle(&self) -> bool {
        let quiet = self.queue.is_empty() && self.requests.is_empty() && self.reads.is_empty();
        let settled = self.settle.is_none() && self.flushes.is_empty() && self.stream.is_empty();
        let pinned = self.replica.as_ref().is_none_or(|r| r.log().pinned() > 0);
        let settled = settled && !self.growing.is_under_way() && !self.leaving.is_under_way();
        let still = quiet && settled && self.writes.is_empty() && !pinned;
        let syncs = self.links.values().any(|l| matches!(l.state, State::Source(_) | State::Target(_)));
        let stands = matches!(self.role, Role::Candidate(_));
        (still || !self.has(Rule::StableBeforeRest)) && !syncs && !stands
    }

    /// Comes to rest: at once if it is told to end, else when it was idle for a while.
    pub(super) fn pump_rest(&mut self) {
        if !self.is_idle() {
            self.busy_at = self.now;
            return;
        }
        let due = self.now.0.saturating_sub(self.busy_at.0) >= self.config.timing.rest;
        if !(self.resting || due) || self.commit.is_some() {
            return;
        }
        let kept = !self.lost_cache();
        let Some(replica) = &mut self.replica else { return };
        if let Some(commit) = replica.plan_rest(kept) {
            self.begin_commit(commit);
        } else if self.resting && !self.rested && replica.is_at_rest(kept) {
            self.rested = true;
            self.tell(Report::AtRest(true));
        }
    }

    /// Nothing that was acknowledged is missing here: in this life a restart finds that.
    pub(super) fn cache_is_whole(&mut self) {
        self.restarted = false;
        let life = self.life;
        if let Some(replica) = self.replica.as_mut().filter(|r| r.superblock().life != life) {
            replica.change(|sb| sb.life = life);
        }
    }

    /// The disk has failed. If it works again after a restart it may lack what it acknowledged: that is written down, if it still can be;
    /// not beside a write of the other superblock, which a crash could tear as well.
    pub(super) fn disown(&mut self) {
        if self.commit.is_some() {
            return;
        }
        let Some(replica) = &mut self.replica else { return };
        let then = vec![replica.disowned()];
        let io = self.io(Purpose::Meta);
        self.fx.push(Effect::Meta(io, MetaWrite { first: Vec::new(), then }));
    }
}
