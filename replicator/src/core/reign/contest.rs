//! Promotions without quorum: everybody who is connected answers before anybody reigns.
//!
//! A candidate asks every peer that it has a connection to, whatever that is for, with *Prepare*, and reigns when all of them have
//! promised (`PeersAnswerFirst`). Who has promised is not promoted itself (`WhoPromisedWaits`) before it has met the other again, or was
//! told that the other gave up (a *Reject* of the sender's own ballot), or three times the time for a vote is over. It keeps that in
//! memory: a process that has ended has lost its connections, and counts no more. A peer counts no more either if it has not answered
//! within the time for a vote: the candidate goes on without it.
//!
//! What each of this prevents, and lets happen:
//! - *Both at once.* Each asks the other. Who has the lower ballot stands down when it hears of the higher one, and promises; the higher
//!   one rejects the lower one. So one of the two reigns, and never none because each waited for the other.
//! - *Three at once, the third promised the lowest first.* The higher one is answered when the lower one has given up, which it does
//!   when it hears of the higher one; or is rejected when the lower one reigns. Prevents: the third promises both, and both reign; or it
//!   rejects the higher one while that one rejects the lower, and none does. Of two that wait the higher one is answered first.
//! - *Asked after the other has won.* A new reign ends every connection, and begins them anew. Who promised waits until it has met the
//!   other: prevents that it takes the end of the connection for the death of a candidate, and reigns as well.
//! - *A candidate dies between promise and reign*, or is cut off: its peer cannot tell that from the end of a connection by a new
//!   reign, and waits three times as long as a candidate waits for a vote; a candidate has won or given up in two.
//! - *A connection that is being made.* It counts from the moment in which it is there, before any Hello: a candidate asks on it at
//!   once, and does not reign before the answer, also if all others had answered. Prevents: two that have just found one another are
//!   promoted, each having asked nobody. A connection that ends takes its promise with it: prevents that a process which started anew,
//!   and has forgotten what it promised, is counted.
//! - *A and C hear B, and not one another.* B promises one of the two at a time: the second one waits, or is rejected, and once the
//!   first one reigns, B follows it and rejects the second one. What B answers too late is taken for silence: then both reign, as over any cut.
//! - *Force* overrules what is said of the data, and nothing here: a primary that is heard is no question of data.
//! - *A peer that is a target, inconsistent, or has nothing yet* promises as any other: it could be forced. One without a disk is
//!   primary, and rejects, or has no connections.
//! - *Demotion.* Who is being demoted is primary until its last write is settled, and rejects; then it meets all anew.
//! - *A cut.* Who does not hear one another may both reign. Generations tell when they meet.
//! - *An older program* answers a Prepare as it does with quorum, durably: it promises what is higher than all that it knows, and
//!   rejects when it reigns or follows one who does. It asks nobody itself: so beside it two may reign as before.

use super::*;
use crate::core::event::ConnId;

/// Times for a vote in which a promotion of another that was heard of is over, or has been met.
const OVER: u64 = 3;

/// Another node is being promoted, and has asked.
#[derive(Debug)]
pub(in crate::core) struct Rival {
    ballot: Ballot,
    conn: ConnId,
    since: Now,
    promised: bool,
}

impl Node {
    /// Whom a candidate asks.
    pub(super) fn everybody_linked(&self) -> NodeSet {
        if self.config.quorum {
            return self.linked(|s| !matches!(s, State::Greeting)).and(self.config.voters());
        }
        let asks = matches!(self.role, Role::Candidate(_)) && self.has(Rule::PeersAnswerFirst);
        if asks { self.linked(|_| true).and(self.config.disks) } else { NodeSet::EMPTY }
    }

    /// Who has to answer yet before a candidate without quorum reigns.
    fn unanswered(&self) -> NodeSet {
        match &self.role {
            Role::Candidate(c) if !self.config.quorum => self.everybody_linked().minus(c.promised).minus(c.silent),
            _ => NodeSet::EMPTY,
        }
    }

    /// The other node that is being promoted, if this one is to wait for it.
    pub(super) fn rival(&self) -> Option<NodeId> {
        let first = self.rivals.iter().max_by_key(|(_, r)| (r.promised, r.ballot));
        first.map(|(n, _)| *n).filter(|_| self.has(Rule::WhoPromisedWaits))
    }

    /// A connection is there: it counts from now on.
    pub(in crate::core) fn ask_who_came(&mut self, node: NodeId) {
        let ballot = if let Role::Candidate(c) = &self.role { Some(c.ballot) } else { None };
        if let Some(ballot) = ballot.filter(|_| !self.config.quorum && self.everybody_linked().has(node)) {
            self.send(node, Message::Prepare(ballot));
        }
    }

    /// A connection is gone, and with it what was promised on it.
    pub(in crate::core) fn forgets(&mut self, node: NodeId) {
        if let Role::Candidate(candidate) = &mut self.role
            && !self.config.quorum
        {
            candidate.promised = candidate.promised.without(node);
        }
    }

    /// A candidate asks for a promise where there is no quorum.
    pub(super) fn asked(&mut self, node: NodeId, ballot: Ballot) {
        let Some(conn) = self.conn(node) else { return };
        self.heard_ballot = self.heard_ballot.max(ballot);
        let own = if let Role::Candidate(c) = &self.role { Some(c.ballot) } else { None };
        if let Some(own) = own.filter(|own| *own > ballot) {
            return self.send(node, Message::Reject(ballot, own));
        }
        self.stand_down(Refusal::Overtaken(node));
        self.rivals.insert(node, Rival { ballot, conn, since: self.now, promised: false });
    }

    /// Others that ask are answered, the highest first; not while one that is lower was promised something.
    pub(in crate::core) fn pump_rivals(&mut self) {
        if self.rivals.is_empty() {
            return;
        }
        let waits = self.rivals.iter().filter(|(n, r)| !r.promised && self.conn(**n) == Some(r.conn));
        let mut waits: Vec<(Ballot, NodeId)> = waits.map(|(n, r)| (r.ballot, *n)).collect();
        waits.sort_unstable();
        while let Some((ballot, node)) = waits.pop() {
            let held = self.rivals.values().filter(|r| r.promised).map(|r| r.ballot).max();
            if let Some(other) = self.reigns_beside(node).or(held.filter(|h| *h > ballot)) {
                self.rivals.remove(&node);
                self.send(node, Message::Reject(ballot, other));
            } else if held.is_none() {
                let grant = self.replica.as_ref().map(|r| r.superblock().grant).unwrap_or_default();
                let restarted = self.lost_cache();
                self.rivals.get_mut(&node).into_iter().for_each(|r| r.promised = true);
                self.send(node, Message::Promise(ballot, grant, restarted));
            }
        }
    }

    /// The ballot of this node's reign, or of the primary that it follows, if that is not the one that asks.
    fn reigns_beside(&self, node: NodeId) -> Option<Ballot> {
        let follows = self.follows().filter(|n| *n != node).and_then(|n| self.links.get(&n));
        self.reigns().or(follows.and_then(|l| l.hello.as_ref()).and_then(|h| h.reigns))
    }

    /// Another has given up.
    pub(super) fn withdrawn(&mut self, node: NodeId, ballot: Ballot) {
        if self.rivals.get(&node).is_some_and(|r| r.ballot == ballot) {
            self.rivals.remove(&node);
        }
    }

    /// This node has given up.
    pub(super) fn withdraw(&mut self, ballot: Ballot) {
        if self.config.quorum || !self.has(Rule::PeersAnswerFirst) {
            return;
        }
        for node in self.linked(|_| true).and(self.config.disks).iter() {
            self.send(node, Message::Reject(ballot, ballot));
        }
    }

    /// The two have met on a new connection: what the other is now is known.
    pub(in crate::core) fn rival_met(&mut self, node: NodeId) {
        let conn = self.conn(node);
        self.rivals.retain(|n, r| *n != node || Some(r.conn) == conn);
    }

    /// Others that were heard of long ago have won, given up, or died.
    pub(in crate::core) fn rivals_over(&mut self) {
        let (now, limit) = (self.now.0, self.config.timing.vote * OVER);
        self.rivals.retain(|_, r| now.saturating_sub(r.since.0) <= limit);
    }

    /// A candidate reigns when everybody has answered who has to, and its own disk has it.
    pub(super) fn pump_candidate(&mut self) {
        let (me, quorum, open) = (self.me(), self.config.quorum, self.unanswered());
        let Role::Candidate(candidate) = &self.role else { return };
        let Some(proposal) = &candidate.proposal else {
            if !quorum && candidate.promised.has(me) && open.is_empty() {
                let (ballot, newest, force) = (candidate.ballot, candidate.newest, candidate.force);
                self.promised(ballot, newest, force);
            }
            return;
        };
        let granted = proposal.accepted.has(me) && (!quorum || self.config.is_majority(proposal.accepted));
        if granted && open.is_empty() {
            self.enthroned();
        }
    }

    /// A candidate without quorum has waited long: for its own disk, or for peers, which count no more then.
    pub(super) fn candidate_is_late(&mut self) {
        let (me, open, now) = (self.me(), self.unanswered(), self.now);
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.silent.is_empty() && !open.is_empty() && candidate.promised.has(me) {
            (candidate.silent, candidate.since) = (open, now);
        } else {
            self.stand_down(Refusal::OwnDisk);
        }
    }
}

/// Who is in a candidate's way, by the ballot that it was told.
pub(super) fn overtaken(me: NodeId, asked: Ballot, told: Ballot) -> Refusal {
    let other = NodeId::new(told.node).filter(|n| *n != me && told > asked);
    other.map_or(Refusal::OtherPrimary, Refusal::Overtaken)
}
