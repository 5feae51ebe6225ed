//! A volume is taken away from a resource.
//!
//! ```text
//!   primary                              each peer that is equal
//!   takes nothing for it any more
//!   waits until what is under way there is settled everywhere
//!   Leave(volume, life) ────────────────► writes it down ── Left ──┐
//!   writes it down when all have ◄──────────────────────────────────┘
//! ```
//! **Until the peers are told nothing has changed** and it may be refused; from then on **it goes forward**: a volume has a *life*, a number
//! that only grows, and who meets a node where the volume was taken away since takes it away as well, whoever was lost or crashed in
//! between. So it does with those that were not there, if the primary was told to go on without them. One that was added again meanwhile
//! has a later life: who has the earlier one gives up what it holds there, and is synchronised.
//!
//! **Who uses it keeps it.** A primary takes nothing away because of a peer, nor does who follows one: the two are not connected, and that
//! is told, until the primary is asked to take it away as well. Prevents: a node that was cut off takes a volume from under its programs.
//!
//! **With quorum** nothing is decided without one: until the moment in which it goes forward it is refused when the quorum is lost. But what a
//! peer has done already is no decision any more, and a primary that is asked by force follows it without a quorum too (*behind*). Prevents:
//! 1. node 1 is asked by force while node 2 is away, waits for what is under way there, loses node 3, and takes the volume away alone;
//! 2. node 2 comes back, and is promoted by the vote of node 3, which meets node 1 at that moment and takes the volume away;
//! 3. both others have the later life, so that neither is connected with the primary: it has no quorum for as long as it has the volume, and
//!    may not take it away for as long as it has no quorum.
//!
//! Who is *behind* waits only for its own disk: what waits for peers or a quorum would wait for ever, and is told that there is no such volume.
//!
//! **Invariant.** A volume leaves a node's table only when nothing of it is under way on that node's disk, so that the disk can be let go.

use super::Node;
use super::connect::State;
use super::disk::Waiter;
use super::event::{AppError, Ask, ConnId, Message, Now, RemoveRefusal, Report, ReqId};
use super::rules::Rule;
use crate::ids::{Lives, NodeId, NodeSet, Volume};

/// What the primary has been asked for.
#[derive(Debug)]
struct Asked {
    volume: Volume,
    life: u32,
    force: bool,
    /// A peer has done so already.
    behind: bool,
    since: Now,
    /// The peers that were told, once they are.
    told: Option<NodeSet>,
    done: NodeSet,
}

/// What this node is about to write down.
#[derive(Clone, Copy, Debug)]
struct Going {
    volume: Volume,
    life: u32,
    /// It is a later life of a volume that stays.
    renews: bool,
    begun: bool,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    /// The primary that asked for it is told.
    Answer(NodeId, ConnId),
    /// It was asked for here, or a peer was met that has done so.
    Meet,
}

/// All that has to do with volumes that go.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    asked: Option<Asked>,
    going: Option<Going>,
}

impl Leaving {
    /// It is being written down.
    pub(super) fn is_under_way(&self) -> bool {
        self.going.is_some()
    }

    /// It was asked for, or is being written down.
    pub(super) fn is_busy(&self) -> bool {
        self.asked.is_some() || self.going.is_some()
    }

    pub(super) fn detached(&mut self) {
        self.going = None;
    }
}

impl Node {
    /// The lives of its volumes.
    pub fn lives(&self) -> Lives {
        self.replica.as_ref().map_or_else(|| Lives::plain(&self.sizes()), |r| r.lives())
    }

    /// Whether a volume is being taken away.
    pub fn leaves(&self) -> bool {
        self.leaving.is_busy()
    }

    pub(super) fn take_away(&mut self, volume: Volume, force: bool) {
        let equal = self.equal_peers();
        let ended = self.ended_at_a_peer(volume);
        let checks = self.links.values().any(|l| l.verify.is_some()) || self.repairs.left() > 0;
        let refusal = match self.peers().minus(equal).iter().next() {
            _ if volume == Volume::FIRST => Some(RemoveRefusal::First),
            _ if !self.is_primary() => Some(RemoveRefusal::NotPrimary),
            _ if self.replica.is_none() => Some(RemoveRefusal::NoDisk),
            _ if self.leaving.is_busy() || self.grows() || self.growing.is_asked() || checks => {
                Some(RemoveRefusal::Busy)
            }
            _ if self.sizes().of(volume) == 0 => Some(RemoveRefusal::NotThere),
            _ if self.without_quorum && ended.is_none() => Some(RemoveRefusal::NoQuorum),
            Some(node) if !force => Some(RemoveRefusal::Away(node)),
            _ => None,
        };
        if let Some(why) = refusal {
            return self.tell(Report::NotRemoved(why));
        }
        let (life, behind, since) = (ended.unwrap_or(self.lives().of(volume) + 1), ended.is_some(), self.now);
        self.leaving.asked = Some(Asked { volume, life, force, behind, since, told: None, done: NodeSet::EMPTY });
    }

    /// The life that a volume has at a peer where it was taken away since; the last of them.
    fn ended_at_a_peer(&self, volume: Volume) -> Option<u32> {
        let own = self.lives().of(volume);
        let theirs = self.links.iter().filter(|(n, _)| self.config.disks.has(**n)).map(|(_, l)| l.lives().of(volume));
        theirs.filter(|life| *life > own && life.is_multiple_of(2)).max()
    }

    /// Peers that have everything, now.
    fn equal_peers(&self) -> NodeSet {
        let ahead: NodeSet = self.links.iter().filter(|(_, l)| l.ahead).map(|(n, _)| *n).collect();
        self.linked(|s| matches!(s, State::Equal)).and(self.peers()).minus(ahead)
    }

    /// Whether a request is for a volume that takes none.
    pub(super) fn is_refused(&self, ask: &Ask) -> bool {
        let (Ask::Read(span) | Ask::Write(span, ..) | Ask::Zero(span, _)) = ask else { return false };
        let Some(volume) = Volume::of(span.at) else { return true };
        let goes = self.leaving.asked.as_ref().is_some_and(|a| a.volume == volume);
        self.sizes().of(volume) == 0 || (goes && self.has(Rule::NothingNewWhereItGoes))
    }

    /// Whether anything of a volume is under way, at an application, a peer or the disk; `alone`: what was answered here and is not settled
    /// does not count.
    fn is_used(&self, volume: Volume, alone: bool) -> bool {
        let of_it = |at: u64| Volume::of(at) == Some(volume);
        let queued = self.queue.iter().any(|(_, ask)| match ask {
            Ask::Read(span) | Ask::Write(span, ..) | Ask::Zero(span, _) => of_it(span.at),
            Ask::Flush => false,
        });
        let all = volume.span(self.sizes().of(volume));
        queued
            || self.reads.values().any(|span| of_it(span.at))
            || (!alone && self.requests.iter().any(|r| of_it(r.span.at)))
            || self.writes.hits(all)
            || self.ios.touches(all)
            || self.links.values().any(|l| l.verify.is_some())
    }

    /// The primary: waits until nothing is under way there, tells the peers, and takes it away itself when all have.
    pub(super) fn pump_leave(&mut self) {
        let Some(asked) = &self.leaving.asked else { return };
        if !self.is_primary() || self.replica.is_none() {
            return self.leave_fails(RemoveRefusal::NotPrimary);
        }
        let (volume, life, equal) = (asked.volume, asked.life, self.equal_peers());
        // It follows what a peer has done, and nobody answers until it has.
        let alone = asked.behind && self.without_quorum;
        let Some(told) = asked.told else {
            let away = self.peers().minus(equal).iter().next().filter(|_| !asked.force);
            if let Some(node) = away {
                return self.leave_fails(RemoveRefusal::Away(node));
            }
            if self.without_quorum && !alone {
                return self.leave_fails(RemoveRefusal::NoQuorum);
            }
            if alone {
                self.refuse_waiting(volume);
            }
            if self.has(Rule::NothingNewWhereItGoes) && self.is_used(volume, alone) {
                // What is written and not settled is in the logs of all.
                if self.requests.has_open() {
                    self.again |= !std::mem::replace(&mut self.settle_wanted, true);
                }
                return;
            }
            self.leaving.asked.as_mut().into_iter().for_each(|a| a.told = Some(equal));
            // By force there may be nobody to wait for.
            self.again = true;
            return equal.iter().for_each(|n| self.send(n, Message::Leave(volume.get(), life)));
        };
        // Who was lost since does it when it comes.
        let owed = told.and(equal).minus(asked.done);
        if owed.is_empty() && self.leaving.going.is_none() {
            self.goes(volume, life, false, Then::Meet);
        }
    }

    fn leave_fails(&mut self, why: RemoveRefusal) {
        if self.leaving.asked.take().is_some() {
            self.tell(Report::NotRemoved(why));
        }
    }

    /// Time has passed: what is under way there does not end, or a peer does not answer.
    pub(super) fn leave_takes_long(&mut self) {
        let limit = self.config.timing.dead * 3;
        let Some(asked) = self.leaving.asked.as_mut().filter(|a| self.now.0.saturating_sub(a.since.0) > limit) else {
            return;
        };
        asked.since = self.now;
        match asked.told.map(|told| told.minus(asked.done)) {
            None => self.leave_fails(RemoveRefusal::InUse),
            Some(owed) => owed.iter().for_each(|n| self.link_close(n, true)),
        }
    }

    /// The primary says that a volume is to go.
    pub(super) fn leave_told(&mut self, node: NodeId, volume: u8, life: u32) {
        let conn = self.conn(node).filter(|_| self.follows() == Some(node));
        let (Some(conn), Some(volume)) = (conn, Volume::new(volume).filter(|v| *v != Volume::FIRST)) else { return };
        if self.lives().of(volume) >= life && self.leaving.going.is_none() {
            return self.send(node, Message::Left(volume.get(), life));
        }
        self.goes(volume, life, false, Then::Answer(node, conn));
    }

    /// It has gone at a peer.
    pub(super) fn left(&mut self, node: NodeId, volume: u8, life: u32) {
        let of_it = |a: &&mut Asked| a.volume.get() == volume && a.life == life && a.told.is_some();
        let Some(asked) = self.leaving.asked.as_mut().filter(of_it) else { return };
        asked.done = asked.done.with(node);
        let volume = asked.volume;
        if let Some(link) = self.links.get_mut(&node) {
            link.sizes = link.sizes.with(volume, 0);
        }
    }

    /// A peer knows of other lives of the volumes. True: one of the two has to do something before they are anything to one another.
    pub(super) fn met_other_lives(&mut self, node: NodeId, theirs: &Lives) -> bool {
        let mine = self.lives();
        let mut differ = Volume::all().filter(|v| !mine.agree(theirs, *v)).peekable();
        if differ.peek().is_none() {
            return false;
        }
        let Some(volume) = differ.find(|v| theirs.of(*v) > mine.of(*v)) else {
            // The peer has to.
            return true;
        };
        let uses = !matches!(self.role, super::Role::Secondary) || self.follows().is_some();
        if uses || self.tentative {
            self.tell(Report::OtherLife(node, volume));
            // Else the connection waits, and is tried again when that has taken long.
            if self.tentative {
                self.link_close(node, false);
            }
            return true;
        }
        let (own, life) = (mine.of(volume), theirs.of(volume));
        self.goes(volume, life, own % 2 == 1 && life % 2 == 1, Then::Meet);
        true
    }

    fn goes(&mut self, volume: Volume, life: u32, renews: bool, then: Then) {
        if self.leaving.going.is_none() && self.replica.is_some() {
            self.leaving.going = Some(Going { volume, life, renews, begun: false, then });
        }
    }

    /// Writes it down when nothing of the volume is under way here, and nothing else of the metadata.
    pub(super) fn pump_going(&mut self) {
        let Some(going) = self.leaving.going.filter(|g| !g.begun) else { return };
        // Whom it is not equal to is met again: a synchronisation of the volume would go on else.
        let others = self.linked(|s| matches!(s, State::Source(_) | State::Target(_)));
        others.iter().for_each(|n| self.link_close(n, true));
        let all = going.volume.span(self.sizes().of(going.volume));
        let used = self.writes.hits(all) || self.ios.touches(all);
        if used || self.commit.is_some() || self.growing.is_under_way() {
            return;
        }
        let remembers = self.has(Rule::TakenAwayIsRemembered);
        let Some(replica) = &mut self.replica else {
            self.leaving.going = None;
            return;
        };
        let planned = match going.renews {
            true => replica.plan_renewal(going.volume, going.life),
            false => replica.plan_leave(going.volume, going.life, remembers),
        };
        match planned {
            Ok(commit) => {
                self.leaving.going = Some(Going { begun: true, ..going });
                self.persist(Waiter::Left);
                self.begin_commit(commit);
            }
            // It has been done since.
            Err(_) => self.leaving.going = None,
        }
    }

    /// A change that belongs to it is durable: all of them are when the label of the disk says it too.
    pub(super) fn leave_durable(&mut self) {
        if self.replica.as_ref().is_some_and(|r| r.has_left()) {
            return self.persist(Waiter::Left);
        }
        let Some(going) = self.leaving.going.take() else { return };
        let volume = going.volume;
        if going.renews {
            self.tell(Report::Grown(volume, self.sizes().of(volume)));
        } else {
            self.growing.gone(volume);
            self.tell(Report::TakenAway(volume));
            self.refuse_queued(volume);
        }
        self.again = true;
        let asked = self.leaving.asked.take_if(|a| a.volume == volume && a.told.is_some());
        match going.then {
            Then::Answer(node, conn) => {
                if self.conn(node) == Some(conn) {
                    self.send(node, Message::Left(volume.get(), going.life));
                }
                self.growing.meets(self.peers().without(node));
            }
            // Those that have it still, or were not equal.
            Then::Meet => self.growing.meets(asked.as_ref().map_or(self.peers(), |a| self.peers().minus(a.done))),
        }
        if asked.is_some() {
            self.tell(Report::Removed(volume));
        }
    }

    /// Whoever asked for anything there.
    fn refuse_queued(&mut self, volume: Volume) {
        let of_it = |ask: &Ask| match ask {
            Ask::Read(span) | Ask::Write(span, ..) | Ask::Zero(span, _) => Volume::of(span.at) == Some(volume),
            Ask::Flush => false,
        };
        let gone: Vec<ReqId> = self.queue.iter().filter(|(_, ask)| of_it(ask)).map(|(req, _)| *req).collect();
        self.queue.retain(|(_, ask)| !of_it(ask));
        gone.into_iter().for_each(|req| self.complete(req, Err(AppError::NoVolume)));
    }

    /// The same, and whoever waits for a write there to be at peers.
    fn refuse_waiting(&mut self, volume: Volume) {
        self.refuse_queued(volume);
        let gone = self.requests.answer_within(volume.span(self.sizes().of(volume)));
        gone.into_iter().for_each(|req| self.complete(req, Err(AppError::NoVolume)));
    }
}
