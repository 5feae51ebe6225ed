//! Ballots and grants: who is primary, and who holds what it acknowledged.
//!
//! With quorum a reign is Paxos over one record. *Prepare* makes a majority promise to accept nothing lower, and tells
//! what they accepted last; the candidate must be a member of the newest of that: it then holds everything that any reign
//! acknowledged, since a reign acknowledges only what all members of its grant hold. *Accept* makes the new reign, and each
//! change of it, durable at a majority and at every remaining member. A voter that follows a living primary promises
//! nothing to others.
//!
//! Without quorum the primary's own disk and the peers that are there take the place of the majority: `contest`. Then both sides of
//! a cut can reign; generations tell when they meet again.

use super::config::Protocol;
use super::connect::State;
use super::disk::Waiter;
use super::event::{AppError, Message, Now, Refusal, Report};
use super::rules::Rule;
use super::{Node, Role};
use crate::ids::{Ballot, Generation, Grant, NodeId, NodeSet, Seq};
use crate::meta::superblock::{DiskState, Superblock};

mod contest;

pub(super) use contest::Rival;

/// What this node's own disk was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    Promise,
    Accept,
}

/// A node that wants to reign, or to go on under a higher ballot.
#[derive(Debug)]
pub(super) struct Candidate {
    ballot: Ballot,
    since: Now,
    promised: NodeSet,
    /// Those of them that lost their cache.
    restarted: NodeSet,
    /// Without quorum: those that were waited for in vain.
    silent: NodeSet,
    newest: Grant,
    force: bool,
    /// It knows of no grant itself: either nobody does, or what it is told by others counts.
    first: bool,
    proposal: Option<Change>,
}

/// A grant that is asked for.
#[derive(Debug)]
pub(super) struct Change {
    grant: Grant,
    /// Who has the stream under it.
    pub(super) present: NodeSet,
    accepted: NodeSet,
    since: Now,
    asked_newcomers: bool,
    /// Who shared the generation when it was asked for.
    from: NodeSet,
}

/// A reign.
#[derive(Debug)]
pub(super) struct Reign {
    pub(super) ballot: Ballot,
    pub(super) grant: Grant,
    /// Who shares the generation.
    pub(super) present: NodeSet,
    /// Those of them that the last grant was made with.
    pub(super) granted: NodeSet,
    pub(super) seq: Seq,
    pub(super) epoch: u64,
    /// Something was written in this epoch.
    pub(super) open: bool,
    pub(super) change: Option<Change>,
    renew: Option<Candidate>,
    version: u32,
    pub(super) demoting: bool,
    /// It takes nothing any more, and who has everything is to be granted, whatever the protocol: one of them may reign next.
    pub(super) hands_over: bool,
}

impl Node {
    pub(super) fn reign(&self) -> Option<&Reign> {
        match &self.role {
            Role::Primary(reign) => Some(reign),
            _ => None,
        }
    }

    /// The ballot this node reigns by.
    pub(super) fn reigns(&self) -> Option<Ballot> {
        self.reign().map(|r| r.ballot)
    }

    /// Whether a majority of voters can be heard.
    pub(super) fn has_quorum(&self) -> bool {
        let heard = self.linked(|s| !matches!(s, State::Greeting));
        let own = if self.replica.is_some() { NodeSet::of(self.me()) } else { NodeSet::EMPTY };
        !self.config.quorum || self.config.is_majority(heard.minus(self.newcomers()).or(own))
    }

    /// Peers that may have forgotten what they promised, as far as this node is not one of them itself. They have a vote when
    /// a grant that names them is in force without it.
    fn newcomers(&self) -> NodeSet {
        let known = self.replica.as_ref().map_or(self.is_primary(), |r| !r.superblock().grant.members.is_empty());
        let first = matches!(&self.role, Role::Candidate(c) if c.first);
        if !known || first || !self.config.quorum || !self.has(Rule::NewcomerVotesLast) {
            return NodeSet::EMPTY;
        }
        self.links.iter().filter(|(_, l)| l.newcomer).map(|(n, _)| *n).collect()
    }

    /// Who shares the generation and does not have the stream now.
    pub(super) fn lost(&self) -> NodeSet {
        let Some(reign) = self.reign() else { return NodeSet::EMPTY };
        let equal = self.links.iter().filter(|(_, l)| matches!(l.state, State::Equal) && !l.ahead).map(|(n, _)| *n);
        let own = if self.replica.is_some() { NodeSet::of(self.me()) } else { NodeSet::EMPTY };
        reign.present.minus(equal.collect::<NodeSet>().or(own))
    }

    pub(super) fn promote(&mut self, force: bool) {
        let Role::Secondary = self.role else { return };
        if self.resting {
            return self.tell(Report::NotPromoted(Refusal::NoMajority));
        }
        let Some(sb) = self.replica.as_ref().map(|r| r.superblock().clone()) else {
            return self.tell(Report::NotPromoted(Refusal::Data));
        };
        let living = self.follows().is_some()
            || self.links.values().any(|l| l.hello.as_ref().is_some_and(|h| h.reigns.is_some()));
        if living {
            return self.tell(Report::NotPromoted(Refusal::OtherPrimary));
        }
        if let Some(other) = self.rival() {
            return self.tell(Report::NotPromoted(Refusal::Overtaken(other)));
        }
        let least = if self.config.quorum { DiskState::Outdated } else { DiskState::Consistent };
        let empty = sb.current == Generation::JUST_CREATED;
        let target = self.links.values().any(|l| matches!(l.state, State::Target(_)));
        if ((self.disk < least || empty) && !force) || target {
            return self.tell(Report::NotPromoted(Refusal::Data));
        }
        let heard = if self.config.quorum { 0 } else { self.heard_ballot.round };
        let round = sb.promised.round.max(sb.grant.ballot.round).max(heard) + 1;
        let ballot = Ballot { round, node: self.me().get() };
        let candidate = Candidate {
            ballot,
            since: self.now,
            promised: NodeSet::EMPTY,
            restarted: NodeSet::EMPTY,
            silent: NodeSet::EMPTY,
            newest: sb.grant,
            force,
            first: sb.grant.members.is_empty(),
            proposal: None,
        };
        self.role = Role::Candidate(candidate);
        self.ask_for_promises(ballot);
    }

    /// A candidate gives up.
    pub(super) fn stand_down(&mut self, why: Refusal) {
        let Role::Candidate(candidate) = &self.role else { return };
        let (proposed, ballot) = (candidate.proposal.is_some(), candidate.ballot);
        self.role = Role::Secondary;
        self.withdraw(ballot);
        if let Some(replica) = self.replica.as_mut().filter(|_| proposed) {
            replica.change(|sb| sb.flags.primary = false);
        }
        self.tell(Report::NotPromoted(why));
    }

    fn ask_for_promises(&mut self, ballot: Ballot) {
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| sb.promised = ballot);
        }
        self.persist(Waiter::Voice(Voice::Promise, ballot, 0));
        for node in self.everybody_linked().iter() {
            self.send(node, Message::Prepare(ballot));
        }
    }

    /// A voter came, or came back: what is asked of all is asked of it.
    pub(super) fn ask_again(&mut self, node: NodeId) {
        let own = self.candidate().map(|c| c.ballot);
        if let Some(ballot) = own.filter(|_| self.config.quorum && self.config.voters().has(node)) {
            self.send(node, Message::Prepare(ballot));
        }
        if let Some(change) = self.change() {
            let (grant, present) = (change.grant, change.present);
            self.send_accept(node, grant, present);
        }
    }

    fn candidate(&mut self) -> Option<&mut Candidate> {
        match &mut self.role {
            Role::Candidate(candidate) => Some(candidate),
            Role::Primary(reign) => reign.renew.as_mut(),
            Role::Secondary => None,
        }
    }

    fn change(&mut self) -> Option<&mut Change> {
        match &mut self.role {
            Role::Candidate(candidate) => candidate.proposal.as_mut(),
            Role::Primary(reign) => reign.change.as_mut(),
            Role::Secondary => None,
        }
    }

    /// A candidate asks for a promise.
    pub(super) fn prepare(&mut self, node: NodeId, ballot: Ballot) {
        if !self.config.quorum {
            return self.asked(node, ballot);
        }
        let (Some(conn), Some(sb)) = (self.conn(node), self.replica.as_ref().map(|r| r.superblock())) else { return };
        let (promised, grant) = (sb.promised, sb.grant);
        let living = self.is_primary() || self.follows().is_some_and(|n| n != node);
        if living || (ballot <= promised && self.has(Rule::LowerBallotRefused)) {
            return self.send(node, Message::Reject(ballot, promised));
        }
        self.stand_down(Refusal::Overtaken(node));
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| sb.promised = ballot);
        }
        let restarted = self.lost_cache();
        self.vote(node, conn, Message::Promise(ballot, grant, restarted));
    }

    /// The answer goes out when it is durable.
    fn vote(&mut self, node: NodeId, conn: super::event::ConnId, answer: Message) {
        if self.has(Rule::VoteIsDurable) {
            self.persist(Waiter::Answer(node, conn, answer));
        } else {
            self.send(node, answer);
        }
    }

    pub(super) fn promise(&mut self, node: NodeId, ballot: Ballot, grant: Grant, restarted: bool) {
        self.heard_of(grant);
        let (me, quorum) = (self.me(), self.config.quorum);
        let keeps = self.has(Rule::CacheKeeperReigns);
        let newcomers = self.newcomers();
        if newcomers.has(node) {
            return;
        }
        let open = |c: &&mut Candidate| c.ballot == ballot && (c.proposal.is_none() || !quorum);
        let Some(candidate) = self.candidate().filter(open) else { return };
        candidate.promised = candidate.promised.with(node);
        // Without quorum others' grants say nothing of what is here.
        if quorum && grant.number() > candidate.newest.number() {
            candidate.newest = grant;
        }
        if restarted {
            candidate.restarted = candidate.restarted.with(node);
        }
        let (promised, newest, force) = (candidate.promised, candidate.newest, candidate.force);
        // Who lost its cache reigns only if no member can have kept one.
        let lost = candidate.restarted;
        let kept = newest.members.and(promised).minus(lost);
        if quorum && keeps && lost.has(me) && !force && matches!(self.role, Role::Candidate(_)) {
            if !kept.is_empty() {
                return self.stand_down(Refusal::LostCache);
            }
            // A member whose disk was replaced has kept nothing.
            if !newest.members.minus(newcomers).is_within(lost) {
                return;
            }
        }
        let renews = !quorum && self.is_primary();
        if renews || (quorum && self.config.is_majority(promised) && promised.has(me)) {
            self.promised(ballot, newest, force);
        }
    }

    /// A majority has promised.
    fn promised(&mut self, ballot: Ballot, newest: Grant, force: bool) {
        let me = self.me();
        if let Role::Primary(reign) = &mut self.role {
            let other = newest.number() > reign.grant.number() && newest.ballot.node != me.get();
            if other {
                return self.deposed();
            }
            reign.renew = None;
            reign.ballot = ballot;
            reign.version = 0;
            let present = reign.present.minus(self.lost());
            return self.begin_change(present);
        }
        let never = newest.members.is_empty();
        // Who knows of no grant itself is no member of this one, whatever its number: its disk is another one.
        let first = matches!(&self.role, Role::Candidate(c) if c.first) && self.has(Rule::NewcomerVotesLast);
        if self.config.quorum && (first || !newest.members.has(me)) && !never && !force {
            return self.stand_down(Refusal::NotGranted);
        }
        let Some(sb) = self.replica.as_ref().map(|r| r.superblock().clone()) else { return };
        let shared = sb.peers.iter().filter(|p| !p.bitmap.is_some() && sb.current != Generation::JUST_CREATED);
        let mut present: NodeSet = shared.map(|p| p.node).collect();
        if self.config.quorum {
            present = present.minus(self.full_peers()).or(newest.members);
        }
        if force && !never && !newest.members.is_within(NodeSet::of(me)) {
            self.tell(Report::Forced(newest));
        }
        let keep = !force && (!self.config.quorum || (newest.generation == sb.current && newest.members.has(me)));
        let present = if keep { present.with(me) } else { NodeSet::of(me) };
        let generation = if keep { sb.current } else { self.mint() };
        let grant = Grant { ballot, version: 0, generation, members: self.members(present) };
        if let Role::Candidate(candidate) = &mut self.role {
            let (accepted, since) = (NodeSet::EMPTY, self.now);
            candidate.proposal =
                Some(Change { grant, present, accepted, since, asked_newcomers: false, from: present });
        }
        let began = self.began();
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| {
                sb.remember(newest.generation);
                adopt(sb, me, grant, present, began);
                sb.flags.primary = true;
                if force {
                    (sb.flags.consistent, sb.flags.up_to_date) = (true, true);
                }
            });
        }
        self.persist(Waiter::Voice(Voice::Accept, ballot, 0));
        if self.config.quorum {
            self.send_accepts(grant, present);
        }
    }

    /// Peers at protocol C.
    fn full_peers(&self) -> NodeSet {
        self.peers().iter().filter(|n| self.protocol(*n) == Protocol::C).collect()
    }

    /// Those of a set that hold every acknowledged write.
    fn members(&self, present: NodeSet) -> NodeSet {
        let full = self.full_peers().with(self.me());
        present.and(if self.reign().is_some_and(|r| r.hands_over) { full.or(self.drained()) } else { full })
    }

    /// Peers that have everything of this reign, stable.
    fn drained(&self) -> NodeSet {
        let Some(seq) = self.reign().map(|r| r.seq) else { return NodeSet::EMPTY };
        let all =
            |l: &super::connect::Link| matches!(l.state, State::Equal) && !l.ahead && l.barriers > 0 && l.stable >= seq;
        self.links.iter().filter(|(_, l)| all(l)).map(|(n, _)| *n).collect()
    }

    /// Peers at A and B that share the generation and are no members: they get what a reign leaves when it ends in order.
    fn heirs(&self) -> NodeSet {
        let Some(reign) = self.reign().filter(|_| self.config.quorum) else { return NodeSet::EMPTY };
        let weak = self.peers().minus(self.full_peers());
        weak.and(reign.present).minus(self.lost()).minus(reign.grant.members)
    }

    /// Whether an heir owes a barrier: it tells what it has, also where nothing was written.
    pub(super) fn owes_heirs(&self) -> bool {
        self.reign().is_some_and(|r| r.hands_over) && !self.heirs().is_within(self.drained())
    }

    /// At A and B nobody but the primary is a member while it reigns. When it ends in order, those that have everything are granted
    /// before, and nothing is accepted from then on. Prevents: a switch of roles in good order takes force.
    ///
    /// True when that is done, or cannot be.
    fn has_handed_over(&mut self) -> bool {
        let heirs = self.heirs();
        if heirs.is_empty() || !self.has_quorum() {
            return true;
        }
        if let Role::Primary(reign) = &mut self.role {
            self.again |= !std::mem::replace(&mut reign.hands_over, true);
        }
        if !self.owes_heirs() {
            let present = self.reign().map_or(NodeSet::EMPTY, |r| r.present).minus(self.lost());
            self.begin_change(present);
        }
        false
    }

    /// Generations are told apart by age only in the eyes of policies: the virtual time does.
    fn began(&self) -> u64 {
        self.now.0
    }

    fn send_accepts(&mut self, grant: Grant, present: NodeSet) {
        let voters = if self.config.quorum { self.config.voters() } else { NodeSet::EMPTY };
        let to = self.linked(|s| !matches!(s, State::Greeting)).and(voters.or(present));
        for node in to.iter() {
            self.send_accept(node, grant, present);
        }
    }

    fn send_accept(&mut self, node: NodeId, grant: Grant, present: NodeSet) {
        if self.newcomers().has(node) {
            return;
        }
        self.send_accept_also(node, grant, present);
    }

    /// Newcomers are asked when all others agree: what they accept is in force already.
    fn ask_newcomers(&mut self) {
        let newcomers = self.newcomers();
        let Some(change) = self.reign().and_then(|r| r.change.as_ref()).filter(|c| !c.asked_newcomers) else { return };
        let (grant, present) = (change.grant, change.present);
        let others = present.minus(newcomers).without(self.me()).is_within(change.accepted);
        if others && self.config.is_majority(change.accepted) {
            for node in newcomers.and(present).iter() {
                self.send_accept_also(node, grant, present);
            }
            if let Some(change) = self.change() {
                change.asked_newcomers = true;
            }
        }
    }

    fn send_accept_also(&mut self, node: NodeId, grant: Grant, present: NodeSet) {
        let began = self.began();
        self.send(node, Message::Accept { grant, present, began });
    }

    /// Somebody reigns, or changes its reign.
    pub(super) fn accept(&mut self, node: NodeId, grant: Grant, present: NodeSet, began: u64) {
        let (Some(conn), Some(sb)) = (self.conn(node), self.replica.as_ref().map(|r| r.superblock())) else { return };
        let low = grant.ballot < sb.promised && self.has(Rule::LowerBallotRefused);
        if low && self.config.quorum {
            let promised = sb.promised;
            return self.send(node, Message::Reject(grant.ballot, promised));
        }
        if self.is_primary() {
            return self.deposed();
        }
        self.stand_down(Refusal::OtherPrimary);
        let me = self.me();
        let equal = self.links.get(&node).is_some_and(|l| matches!(l.state, State::Equal));
        let whole = self.disk >= DiskState::Outdated && self.disk != DiskState::Diskless;
        let joins = present.has(me) && equal && whole;
        // At A and B who has the stream is as new as one can be there, and is no member.
        let streams = present.has(me) && self.config.protocol(node) != Protocol::C;
        let member = grant.members.has(me) || !self.config.quorum || streams;
        let out = !member;
        let Some(replica) = &mut self.replica else { return };
        replica.change(|sb| {
            sb.promised = sb.promised.max(grant.ballot);
            if joins {
                adopt(sb, me, grant, present, began);
                sb.flags.up_to_date = member;
            } else if grant.number() > sb.grant.number() {
                sb.grant = grant;
            }
            sb.flags.up_to_date &= !out;
        });
        if joins && member {
            self.disk = DiskState::UpToDate;
        } else if out {
            self.disk = self.disk.min(DiskState::Outdated);
        }
        self.vote(node, conn, Message::Accepted(grant.ballot, grant.version));
    }

    pub(super) fn accepted(&mut self, node: NodeId, ballot: Ballot, version: u32) {
        if let Some(change) = self.change().filter(|c| c.grant.number() == (ballot, version)) {
            change.accepted = change.accepted.with(node);
        }
    }

    /// This node's own disk has it.
    pub(super) fn own_voice(&mut self, voice: Voice, ballot: Ballot, version: u32) {
        let me = self.me();
        match voice {
            Voice::Promise => {
                let grant = self.replica.as_ref().map(|r| r.superblock().grant).unwrap_or_default();
                let restarted = self.lost_cache();
                self.promise(me, ballot, grant, restarted);
            }
            Voice::Accept => self.accepted(me, ballot, version),
        }
    }

    pub(super) fn rejected(&mut self, node: NodeId, asked: Ballot, promised: Ballot) {
        let (me, quorum) = (self.me(), self.config.quorum);
        if !quorum && asked.node == node.get() {
            return self.withdrawn(node, asked);
        }
        self.heard_ballot = self.heard_ballot.max(promised);
        match &mut self.role {
            Role::Candidate(candidate) if candidate.ballot == asked => {
                let why = if quorum { Refusal::OtherPrimary } else { contest::overtaken(me, asked, promised) };
                self.stand_down(why);
            }
            Role::Primary(reign) if quorum && promised > reign.ballot && reign.renew.is_none() => self.renew(promised),
            _ => {}
        }
    }

    /// A voter promised somebody a higher ballot: a primary goes on only under one that is higher still.
    pub(super) fn renew(&mut self, promised: Ballot) {
        let ballot = Ballot { round: promised.round + 1, node: self.me().get() };
        let now = self.now;
        if let Role::Primary(reign) = &mut self.role {
            if reign.renew.as_ref().is_some_and(|r| r.ballot >= ballot) {
                return;
            }
            reign.change = None;
            let newest = reign.grant;
            reign.renew = Some(Candidate {
                ballot,
                since: now,
                promised: NodeSet::EMPTY,
                restarted: NodeSet::EMPTY,
                silent: NodeSet::EMPTY,
                newest,
                force: false,
                first: false,
                proposal: None,
            });
            self.ask_for_promises(ballot);
        }
    }

    /// Whatever the reign needs: a grant without who is lost, a grant with who has joined, its end.
    pub(super) fn pump_reign(&mut self) {
        if matches!(self.role, Role::Candidate(_)) {
            return self.pump_candidate();
        }
        if self.reign().is_none_or(|r| r.renew.is_some()) {
            return;
        }
        for node in self.streaming().and(self.linked(|s| matches!(s, State::Equal))).iter() {
            self.joins(node);
        }
        let lost = self.lost();
        let Some(reign) = self.reign() else { return };
        if let Some(change) = &reign.change {
            let linked = self.linked(|s| matches!(s, State::Equal)).with(self.me());
            let ahead: NodeSet = self.links.iter().filter(|(_, l)| l.ahead).map(|(n, _)| *n).collect();
            if !change.present.is_within(linked.minus(ahead)) {
                let present = change.present.and(linked).minus(ahead);
                return self.begin_change(present);
            }
            if self.is_granted(change) {
                self.granted();
            } else {
                self.ask_newcomers();
            }
            return self.pump_demote();
        }
        let pressed = !self.queue.is_empty()
            || self.requests.unanswered() > 0
            || !self.flushes.is_empty()
            || self.settle.as_ref().is_some_and(|s| !s.answers.is_empty())
            || !self.reads.is_empty()
            || reign.demoting;
        let joined = self.joined();
        // Who has caught up is counted also where nothing is asked for: if the primary is lost next, it may reign.
        if !lost.is_empty() && (pressed || !joined.is_empty()) && self.has_quorum() {
            let present = reign.present.minus(lost);
            self.begin_change(present);
        } else if lost.is_empty() && !joined.is_empty() && self.has_quorum() {
            let present = reign.present.or(joined);
            self.begin_change(present);
        }
        self.pump_demote();
    }

    fn is_granted(&self, change: &Change) -> bool {
        let own = if self.replica.is_some() { NodeSet::EMPTY } else { NodeSet::of(self.me()) };
        let everybody = change.present.minus(own).is_within(change.accepted);
        let accepted = change.accepted.minus(self.newcomers());
        everybody && (!self.config.quorum || self.config.is_majority(accepted))
    }

    /// Peers that have everything acknowledged, stable.
    fn joined(&self) -> NodeSet {
        let drained = |l: &super::connect::Link| match l.join {
            Some(join) => {
                matches!(l.state, State::Equal)
                    && !l.ahead
                    && ((l.stable >= join && l.barriers > 0) || !self.has(Rule::JoinAfterDrain))
            }
            None => false,
        };
        self.links.iter().filter(|(_, l)| drained(l)).map(|(n, _)| *n).collect()
    }

    /// Asks for a grant with these.
    fn begin_change(&mut self, present: NodeSet) {
        let members = self.members(present);
        let me = self.me();
        let fresh = self.mint();
        let (now, alone) = (self.now, self.has(Rule::NewGenerationAlone));
        let Role::Primary(reign) = &mut self.role else { return };
        if members.is_empty() {
            reign.change = None;
            return;
        }
        let asked = reign.change.as_ref().map_or(reign.grant.generation, |c| c.grant.generation);
        let drops = !reign.present.is_within(present) && alone;
        let generation = if drops { fresh } else { asked };
        reign.version += 1;
        let grant = Grant { ballot: reign.ballot, version: reign.version, generation, members };
        let accepted = NodeSet::EMPTY;
        let from = reign.present;
        reign.change = Some(Change { grant, present, accepted, since: now, asked_newcomers: false, from });
        let (version, ballot) = (reign.version, reign.ballot);
        let began = self.began();
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| adopt(sb, me, grant, present, began));
        }
        self.persist(Waiter::Voice(Voice::Accept, ballot, version));
        self.send_accepts(grant, present);
    }

    fn granted(&mut self) {
        let Role::Primary(reign) = &mut self.role else { return };
        let Some(change) = reign.change.take() else { return };
        reign.grant = change.grant;
        // Who was lost meanwhile, having been told the generation, shares it still.
        reign.present = change.present.or(reign.present.minus(change.from));
        reign.granted = change.present;
        for (_, link) in self.links.iter_mut().filter(|(n, _)| change.present.has(**n)) {
            (link.join, link.newcomer) = (None, false);
        }
        self.tell(Report::Granted(change.grant));
        self.reads_again();
        self.again = true;
    }

    fn enthroned(&mut self) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        let Some(proposal) = candidate.proposal.take() else { return };
        let ballot = candidate.ballot;
        let (grant, granted) = (proposal.grant, proposal.present);
        // It may have died just after it told the target of a synchronisation its generation, and not know that.
        let told = if self.crashed && !self.config.quorum { self.peers() } else { NodeSet::EMPTY };
        self.role = Role::Primary(Reign {
            ballot,
            grant,
            present: granted.or(told),
            granted,
            seq: self.stream.last,
            epoch: 0,
            open: false,
            change: None,
            renew: None,
            version: 0,
            demoting: false,
            hands_over: false,
        });
        self.disk = DiskState::UpToDate;
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| sb.flags.up_to_date = true);
        }
        (self.crashed, self.lost_primary, self.without_quorum) = (false, None, false);
        self.cache_is_whole();
        self.stream.clear();
        self.tell(Report::Promoted(ballot));
        self.tell(Report::Granted(grant));
        self.meet_again();
    }

    /// Another was granted the reign, or may be.
    pub(super) fn deposed(&mut self) {
        self.tell(Report::Deposed);
        self.fail_all(AppError::Deposed);
        self.forget_requests();
        self.role = Role::Secondary;
        self.disk = self.disk.min(DiskState::Outdated);
        if let Some(replica) = &mut self.replica {
            replica.change(|sb| {
                sb.flags.primary = false;
                sb.flags.up_to_date = false;
            });
        }
        self.meet_again();
    }

    /// Nobody knows who has what was not settled: its bits are set for all.
    fn forget_requests(&mut self) {
        let all = self.peers();
        self.settle = None;
        for request in self.requests.take() {
            if !request.settled {
                self.mark(all, request.span);
            }
            if request.local && !request.settled {
                self.release(request.span);
            }
        }
    }

    pub(super) fn demote(&mut self) {
        if let Role::Primary(reign) = &mut self.role {
            reign.demoting = true;
        }
    }

    /// Everything is answered and settled first.
    fn pump_demote(&mut self) {
        let Some(reign) = self.reign().filter(|r| r.demoting && r.change.is_none()) else { return };
        let seq = reign.seq;
        if !self.requests.is_empty() {
            self.settle_wanted = true;
        }
        let idle =
            self.queue.is_empty() && self.flushes.is_empty() && self.reads.is_empty() && self.requests.is_empty();
        if idle && self.settle.is_none() && self.replica.is_some() && self.has_handed_over() {
            if let Some(replica) = &mut self.replica {
                replica.change(|sb| {
                    sb.flags.primary = false;
                    sb.position = seq;
                });
            }
            self.save_all = true;
            self.persist(Waiter::Demoted);
            if let Role::Primary(reign) = &mut self.role {
                reign.demoting = false;
            }
        }
    }

    pub(super) fn demoted(&mut self) {
        if !self.is_primary() {
            return;
        }
        let quiet =
            self.requests.is_empty() && self.queue.is_empty() && self.flushes.is_empty() && self.reads.is_empty();
        if !quiet || self.settle.is_some() {
            // Something was asked for meanwhile: it is primary still, and says so on its disk.
            if let Some(replica) = &mut self.replica {
                replica.change(|sb| sb.flags.primary = true);
            }
            return;
        }
        let all: Vec<NodeId> = self.links.keys().copied().collect();
        for node in all {
            self.send(node, Message::Farewell);
        }
        self.role = Role::Secondary;
        self.tell(Report::Demoted);
        self.meet_again();
    }

    pub(super) fn vote_timeout(&mut self) {
        let (now, limit) = (self.now.0, self.config.timing.vote);
        let late = |since: Now| now.saturating_sub(since.0) > limit;
        match &self.role {
            Role::Candidate(candidate) if late(candidate.since) && !self.config.quorum => self.candidate_is_late(),
            Role::Candidate(candidate) if late(candidate.since) => {
                // With a majority it has waited for a member that may have kept what this node lost.
                let majority = self.config.is_majority(candidate.promised);
                let waits = candidate.proposal.is_none() && majority && candidate.promised.has(self.me());
                self.stand_down(if waits { Refusal::LostCache } else { Refusal::NoMajority });
            }
            Role::Primary(reign) => {
                let renewing = reign.renew.as_ref().filter(|r| late(r.since)).map(|r| r.ballot);
                let stuck = reign.change.as_ref().filter(|c| late(c.since)).map(|c| c.present);
                if let Some(ballot) = renewing {
                    self.renew(ballot);
                } else if let Some(present) = stuck.filter(|_| self.has_quorum()) {
                    self.begin_change(present);
                }
            }
            _ => {}
        }
    }
}

/// Takes a grant into a superblock: a new generation leaves behind whoever does not share it.
fn adopt(sb: &mut Superblock, me: NodeId, grant: Grant, present: NodeSet, began: u64) {
    sb.promised = sb.promised.max(grant.ballot);
    if grant.number() > sb.grant.number() {
        sb.grant = grant;
    }
    let (old, position) = (sb.current, sb.position);
    let new = old != grant.generation;
    let mut former = Vec::new();
    for peer in sb.peers.iter_mut().filter(|p| p.node != me) {
        if present.has(peer.node) {
            former.push(peer.bitmap);
            (peer.bitmap, peer.connected, peer.outdated) = (Generation::NONE, true, false);
        } else {
            (peer.connected, peer.outdated) = (false, true);
            if new && !peer.bitmap.is_some() && old != Generation::JUST_CREATED {
                (peer.bitmap, peer.position) = (old, position);
            }
        }
    }
    if new {
        former.push(old);
        (sb.current, sb.began) = (grant.generation, began);
    }
    former.into_iter().for_each(|g| sb.remember(g));
    sb.history.retain(|g| *g != grant.generation);
}
