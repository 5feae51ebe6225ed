//! Handshakes: Hello, Agree, and what becomes of the connection then; what its end means.
//!
//! Each side says what it is, calculates what the two are to one another, and says that with the versions of both Hellos.
//! Only if both came to the ends of one decision, and neither has changed since its Hello, the connection is up. Prevents: a
//! generation that changes between the two, and half a synchronisation.
//!
//! Who follows a primary takes nothing from another until the first is gone. Prevents: without quorum two reign after a cut, a
//! node is counted by one of them and becomes target of the other, and what the first had acknowledged there is overwritten.
//!
//! A connection that is of no use for data (*Waiting*) still carries votes.

use super::Node;
use super::config::Protocol;
use super::event::{ConnId, Effect, Hello, Identity, Message, Now, Report};
use super::resync::Target;
use super::rules::Rule;
use super::serve::Source;
use super::verify::Verify;
use crate::compare::{Decision, Side, Verdict, compare};
use crate::ids::{Generation, Lives, NodeId, NodeSet, Seq, Sizes, Volume};
use crate::meta::superblock::DiskState;

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) conn: ConnId,
    pub(super) heard: Now,
    pub(super) said: Now,
    since: Now,
    pub(super) state: State,
    pub(super) hello: Option<Box<Hello>>,
    /// Sectors of its volumes, as far as it has told.
    pub(super) sizes: Sizes,
    /// The lives of its volumes, if any was ever taken away.
    lives: Option<Lives>,
    /// What this side said, without what may change.
    sent: Side,
    version: u64,
    verdict: Option<Decision>,
    agreed: Option<(Verdict, u64, u64)>,
    /// Nothing is sent any more, blocks are marked: the peer is slow.
    pub(super) ahead: bool,
    /// The peer is to be counted when everything up to here is stable there.
    pub(super) join: Option<Seq>,
    /// It knows of no grant: made anew, it may have forgotten what it promised.
    pub(super) newcomer: bool,
    /// What is stable there.
    pub(super) stable: Seq,
    /// Barriers that it has answered.
    pub(super) barriers: u64,
    farewell: bool,
    pub(super) verify: Option<Verify>,
}

/// What a connection is for.
#[derive(Debug)]
pub(super) enum State {
    Greeting,
    Witness,
    Waiting,
    Equal,
    Source(Source),
    Target(Target),
}

impl Link {
    /// The lives of its volumes.
    pub(super) fn lives(&self) -> Lives {
        self.lives.unwrap_or_else(|| Lives::plain(&self.sizes))
    }
}

impl Node {
    pub(super) fn connected(&mut self, node: NodeId, conn: ConnId) {
        if self.links.contains_key(&node) {
            self.link_down(node);
        }
        if (self.replica.is_none() && !self.is_primary()) || self.resting {
            return self.fx.push(Effect::Close(node, conn, false));
        }
        let witness = self.config.tie_breaker == Some(node);
        let state = if witness { State::Witness } else { State::Greeting };
        let side = self.side(node);
        let version = self.number();
        let sent = said(&side);
        let now = self.now;
        let link = Link {
            conn,
            heard: now,
            said: now,
            since: now,
            state,
            hello: None,
            sizes: Sizes::default(),
            lives: None,
            sent,
            version,
            verdict: None,
            agreed: None,
            ahead: false,
            join: None,
            newcomer: false,
            stable: Seq(0),
            barriers: 0,
            farewell: false,
            verify: None,
        };
        self.links.insert(node, link);
        let hello = self.hello_of(node, side, version);
        let lives = self.replica.as_ref().map(|r| r.lives()).filter(|l| !l.are_plain() && !witness);
        if let Some(lives) = lives {
            self.send(node, Message::Lives(Volume::all().map(|v| lives.of(v)).collect()));
        }
        let sizes = self.replica.as_ref().map(|r| r.sizes()).filter(|s| s.are_several() && !witness);
        if let Some(sizes) = sizes {
            self.send(node, Message::Sizes(Volume::all().map(|v| sizes.of(v)).collect()));
        }
        self.send(node, Message::Hello(Box::new(hello)));
        if witness {
            self.ask_again(node);
        }
        self.ask_who_came(node);
    }

    fn hello_of(&self, peer: NodeId, side: Side, version: u64) -> Hello {
        let sb = self.replica.as_ref().map(|r| r.superblock());
        Hello {
            side,
            version,
            resource: sb.map(|s| s.resource).unwrap_or_default(),
            size: sb.map_or(0, |s| s.size),
            promised: sb.map(|s| s.promised).unwrap_or_default(),
            reigns: self.reigns(),
            log_slots: self.replica.as_ref().map_or(0, |r| r.layout().shape.log_slots),
            follows: self.follows(),
            begun: sb.and_then(|s| s.peer(peer)).is_some_and(|p| p.full_sync),
        }
    }

    /// What this node says of itself to a peer.
    fn side(&self, peer: NodeId) -> Side {
        let sb = self.replica.as_ref().map(|r| r.superblock());
        let grant = self.reign().map(|r| r.grant).or(sb.map(|s| s.grant)).unwrap_or_default();
        let known = sb.and_then(|s| s.peer(peer));
        let others = sb.into_iter().flat_map(|s| &s.peers).filter(|p| p.node != peer && p.bitmap.is_some());
        let syncs = self.synchronising().without(peer);
        Side {
            node: self.me(),
            current: sb.map_or(grant.generation, |s| s.current),
            bitmap: known.map_or(Generation::NONE, |p| p.bitmap),
            bitmap_others: others.map(|p| p.bitmap).collect(),
            history: sb.map(|s| s.history.clone()).unwrap_or_default(),
            began: sb.map_or(0, |s| s.began),
            disk: self.disk,
            primary: self.is_primary(),
            crashed_primary: self.crashed,
            lost_quorum: self.lost_quorum && !self.is_primary(),
            restarted: self.lost_cache(),
            reconnect: known.is_some_and(|p| p.connected),
            stable: syncs.is_empty() || self.is_primary(),
            discard_my_data: self.discard,
            lost_primary: self.lost_primary,
            position: self.stream.last,
            dirty: self.dirty(peer),
            grant,
            changed: false,
        }
    }

    pub(super) fn hello(&mut self, node: NodeId, hello: Hello) {
        let mine = self.hello_of(node, self.side(node), 0);
        let diskless = hello.side.disk == DiskState::Diskless || self.disk == DiskState::Diskless;
        if !diskless && hello.resource != mine.resource {
            return self.link_close(node, false);
        }
        let Some(link) = self.links.get_mut(&node) else { return };
        link.sizes = link.sizes.with(Volume::FIRST, hello.size);
        let (sizes, lives) = (link.sizes, link.lives());
        if self.leaving.is_under_way() || (!diskless && self.met_other_lives(node, &lives)) {
            // When it is done the two meet anew.
            return;
        }
        if !diskless && sizes != self.sizes() {
            return self.met_other_size(node, &hello, &sizes);
        }
        if self.growing.is_under_way() {
            // When it is done the two meet anew.
            return;
        }
        self.heard_of(hello.side.grant);
        self.heard_ballot = self.heard_ballot.max(hello.promised);
        let newer = hello.side.grant.number() > mine.side.grant.number();
        if self.is_primary() && self.config.quorum && newer && hello.side.grant.ballot.node != self.me().get() {
            return self.deposed();
        }
        let decision = self.judge(node, &mine, &hello);
        if self.tentative {
            // Of the peer's bits only the number is known; a bit stands for no more than that of the volume with the coarsest.
            let unit = self.replica.as_ref().map_or(0, |r| r.coarsest_bit());
            let theirs = hello.side.dirty.saturating_mul(unit);
            let (all, marked) = (self.sizes().total(), self.dirty_sectors(node).saturating_add(theirs));
            let full = matches!(decision.verdict, Verdict::Source { full: true } | Verdict::Target { full: true });
            self.tell(Report::Preview(
                node,
                decision.verdict,
                decision.rules,
                if full { all } else { marked.min(all) },
            ));
            return self.link_close(node, false);
        }
        let Some(link) = self.links.get_mut(&node) else { return };
        let (theirs, ours) = (hello.version, link.version);
        let promised = hello.promised;
        link.newcomer = hello.side.grant.members.is_empty();
        let verdict = decision.verdict;
        link.hello = Some(Box::new(hello));
        link.verdict = Some(decision);
        self.send(node, Message::Agree(verdict.mirrored(), theirs, ours));
        if self.config.quorum && self.reigns().is_some_and(|b| promised > b) {
            self.renew(promised);
        }
        self.try_agree(node);
    }

    /// What the two are to one another, and what this core does not do even if they could.
    fn judge(&self, node: NodeId, mine: &Hello, theirs: &Hello) -> Decision {
        let mut decision = compare(&mine.side, &theirs.side, &self.config.policy(node));
        let (me, peer) = (&mine.side, &theirs.side);
        if me.primary && peer.primary && decision.verdict.connects() {
            decision.verdict = Verdict::PrimaryWouldLose;
            return decision;
        }
        let source = match decision.verdict {
            Verdict::Source { .. } => Some(me),
            Verdict::Target { .. } => Some(peer),
            _ => None,
        };
        // A ballot that the other side may not follow carries no stream.
        let low = |a: &Hello, b: &Hello| self.config.quorum && a.reigns.is_some_and(|r| r < b.promised);
        let stale = low(mine, theirs) || low(theirs, mine);
        // Beside a living primary no secondary is a source; and nobody is both, or target of two.
        let led = mine.follows.is_some() || theirs.follows.is_some();
        let busy = !me.stable || !peer.stable;
        let beside = source.is_some_and(|s| !s.primary) && (led || busy);
        // Without quorum two can reign: who follows one is not led by the other as well.
        let second = |a: &Hello, b: &Hello| b.side.primary && a.follows.is_some_and(|n| n != b.side.node);
        let torn = second(mine, theirs) || second(theirs, mine);
        let broken = source.is_some_and(|s| s.disk < DiskState::Outdated)
            || (decision.verdict == Verdict::NoSync && me.disk.min(peer.disk) < DiskState::Outdated);
        let diskless = me.disk.min(peer.disk) == DiskState::Diskless;
        if decision.verdict.connects() && (stale || beside || torn || broken || diskless) {
            decision.verdict = Verdict::Wait;
        }
        decision
    }

    /// Before its Hello a peer with several volumes tells their sizes.
    pub(super) fn told_sizes(&mut self, node: NodeId, sectors: &[u64]) {
        if let Some(link) = self.links.get_mut(&node) {
            link.sizes = Volume::all().zip(sectors).fold(Sizes::default(), |all, (v, n)| all.with(v, *n));
        }
    }

    /// Before those a peer tells their lives where any was ever taken away.
    pub(super) fn told_lives(&mut self, node: NodeId, lives: &[u32]) {
        if let Some(link) = self.links.get_mut(&node) {
            let further = Volume::all().zip(lives).skip(1);
            let first = Lives::default().with(Volume::FIRST, 1);
            link.lives = Some(further.fold(first, |all, (v, life)| all.with(v, *life)));
        }
    }

    pub(super) fn agree(&mut self, node: NodeId, verdict: Verdict, mine: u64, theirs: u64) {
        if let Some(link) = self.links.get_mut(&node) {
            link.agreed = Some((verdict, mine, theirs));
        }
        self.try_agree(node);
    }

    fn try_agree(&mut self, node: NodeId) {
        let Some(link) = self.links.get(&node) else { return };
        let (Some(decision), Some(hello), Some(agreed)) = (link.verdict.clone(), &link.hello, link.agreed) else {
            return;
        };
        if !matches!(link.state, State::Greeting) {
            return;
        }
        let same = agreed == (decision.verdict, link.version, hello.version) && link.sent == said(&self.side(node));
        let reigns = hello.reigns.is_some();
        let stale = !same || self.has_other_volumes(node) || self.is_led_since(node, decision.verdict, reigns);
        if stale || decision.verdict == Verdict::Retry {
            return self.link_close(node, true);
        }
        self.tell(Report::Decided(node, decision.verdict, decision.rules.clone()));
        self.link_up(node, decision.verdict);
    }

    /// Since the two said which volumes they have, one was taken away here, or goes. Prevents: a node meets a primary that has taken a volume
    /// away, and does the same; meanwhile it becomes target of another one, which it met before, and asks for ever for what it has no place
    /// for; or it follows that one, which writes there.
    fn has_other_volumes(&self, node: NodeId) -> bool {
        let Some(link) = self.links.get(&node) else { return false };
        let (mine, theirs) = (self.lives(), link.lives());
        let has_disk = |s: &Sizes| s.of(Volume::FIRST) > 0;
        let judged = self.replica.is_some() && has_disk(&link.sizes);
        judged && (self.leaving.is_under_way() || Volume::all().any(|v| !mine.agree(&theirs, v)))
    }

    /// It met a primary after it had said that it follows none: what it said is true no more. Prevents: three nodes meet at the same
    /// moment, one of them primary, and a secondary that is equal to it becomes target of the other one, which it drops.
    fn is_led_since(&self, node: NodeId, verdict: Verdict, reigns: bool) -> bool {
        let moves = matches!(verdict, Verdict::Source { .. } | Verdict::Target { .. });
        let follows = reigns && verdict == Verdict::NoSync;
        (moves || follows) && self.follows().is_some_and(|n| n != node)
    }

    fn link_up(&mut self, node: NodeId, verdict: Verdict) {
        let reigns = self.links.get(&node).and_then(|l| l.hello.as_ref()).is_some_and(|h| h.reigns.is_some());
        self.rival_met(node);
        if reigns || matches!(verdict, Verdict::Target { .. }) {
            self.stand_down(super::event::Refusal::OtherPrimary);
            self.leave_other_checks(node);
        }
        match verdict {
            Verdict::NoSync => {
                if reigns {
                    self.leave_other_syncs(node);
                }
                self.enter(node, State::Equal);
            }
            Verdict::Wait => self.enter(node, State::Waiting),
            Verdict::Source { full } => {
                self.begin_sync(node, full);
                if !self.has(Rule::ClearOnProof) {
                    let all = self.sizes();
                    all.iter().for_each(|(v, sectors)| {
                        self.clear_bits(NodeSet::of(node), v.span(sectors.next_multiple_of(1 << 11)))
                    });
                }
                self.enter(node, State::Source(Source::default()));
                self.send_dirty(node);
            }
            Verdict::Target { full } => {
                self.leave_other_syncs(node);
                let goes_on = self.begin_sync(node, full);
                self.enter(node, State::Target(Target::new(goes_on)));
                self.send_dirty(node);
            }
            Verdict::Retry | Verdict::SplitBrain | Verdict::Unrelated | Verdict::PrimaryWouldLose => {
                return self.link_close(node, false);
            }
        }
        if matches!(verdict, Verdict::NoSync | Verdict::Source { .. }) {
            // It was for this meeting; a split brain of later is not settled by it.
            self.discard = false;
        }
        if verdict == Verdict::NoSync {
            self.joins(node);
            self.equal_to_primary(node);
        }
        self.ask_again(node);
    }

    /// A living primary says that the data here are its own: nothing is missing.
    fn equal_to_primary(&mut self, node: NodeId) {
        if self.follows() != Some(node) {
            return;
        }
        self.cache_is_whole();
        // With quorum who is a member is up to date; at A and B nobody is but the primary, and who is equal to it is as new as can be.
        let weak = self.config.quorum && self.config.protocol(node) != Protocol::C;
        let whole = self.disk >= DiskState::Outdated;
        let Some(replica) = &mut self.replica else { return };
        if weak && whole && !replica.superblock().flags.up_to_date {
            replica.change(|sb| sb.flags.up_to_date = true);
        }
        if replica.superblock().flags.up_to_date {
            self.disk = DiskState::UpToDate;
        }
    }

    fn enter(&mut self, node: NodeId, state: State) {
        if let Some(link) = self.links.get_mut(&node) {
            link.state = state;
        }
    }

    /// A peer is equal to this primary: if it does not share the generation, it is to.
    pub(super) fn joins(&mut self, node: NodeId) {
        let Some(reign) = self.reign() else { return };
        let seq = reign.seq;
        let (granted, quorum) = (reign.granted.has(node), self.config.quorum);
        if let Some(link) = self.links.get_mut(&node).filter(|l| !granted || (l.newcomer && quorum)) {
            link.join.get_or_insert(seq);
        }
    }

    /// A primary's data come before any other's; and beside it nobody else is a source. Else the acknowledgement of what was
    /// compared before a write of the stream clears the bit that its settlement sets for the target.
    fn leave_other_syncs(&mut self, node: NodeId) {
        for other in self.synchronising().without(node).iter() {
            self.link_close(other, true);
        }
    }

    /// The primary that this node follows.
    pub(super) fn follows(&self) -> Option<NodeId> {
        let reigns = |l: &Link| l.hello.as_ref().is_some_and(|h| h.reigns.is_some()) && !l.farewell;
        let follows = |l: &Link| matches!(l.state, State::Equal | State::Target(_)) && reigns(l);
        self.links.iter().find(|(_, l)| follows(l)).map(|(n, _)| *n)
    }

    pub(super) fn farewell(&mut self, node: NodeId) {
        if let Some(link) = self.links.get_mut(&node) {
            link.farewell = true;
        }
    }

    pub(super) fn link_close(&mut self, node: NodeId, again: bool) {
        if let Some(conn) = self.conn(node) {
            self.fx.push(Effect::Close(node, conn, again));
            self.link_down(node);
        }
    }

    /// A connection is gone.
    pub(super) fn link_down(&mut self, node: NodeId) {
        let followed = self.follows() == Some(node);
        let Some(link) = self.links.remove(&node) else { return };
        self.forgets(node);
        self.verify_lost(node);
        self.resize_lost(node);
        if self.is_primary() {
            self.shared_generation(node, &link);
            self.unsettled_at(node);
            self.requests.left(node);
            if let Some(settle) = &mut self.settle {
                settle.left(node);
            }
            self.reads_again();
        }
        self.stream_lost(node, link.farewell);
        let synced = matches!(link.state, State::Source(_) | State::Target(_));
        if let State::Target(target) = link.state {
            self.sync_lost(node, link.conn, &target);
        }
        if followed || synced {
            self.regroup();
        }
    }

    /// A peer that was told the generation shares it, also if it was not counted yet: who goes on without it begins a
    /// new one.
    fn shared_generation(&mut self, node: NodeId, link: &Link) {
        let told = match &link.state {
            State::Source(source) => source.told.is_some(),
            State::Equal => link.join.is_some(),
            _ => false,
        };
        if told && let super::Role::Primary(reign) = &mut self.role {
            reign.present = reign.present.with(node);
        }
    }

    /// Whether what was acknowledged may be missing here: the cache was lost, or a synchronisation is half done.
    pub(super) fn lost_cache(&self) -> bool {
        self.restarted || self.disk < DiskState::Outdated
    }

    /// What kept others waiting may be over; and who was equal may be so no more.
    pub(super) fn regroup(&mut self) {
        if self.is_primary() || self.follows().is_some() {
            return;
        }
        let waits: Vec<NodeId> = self.linked(|s| matches!(s, State::Waiting)).iter().collect();
        let unequal = self.linked(|s| matches!(s, State::Equal)).iter().filter(|n| self.dirty(*n) > 0);
        let unequal: Vec<NodeId> = unequal.collect();
        for node in waits.into_iter().chain(unequal) {
            self.link_close(node, true);
        }
    }

    /// Connections that have waited long: what kept them may have ended unnoticed.
    pub(super) fn waited_long(&mut self) {
        let limit = self.config.timing.dead * 2;
        let long = |l: &Link| {
            matches!(l.state, State::Waiting | State::Greeting) && self.now.0.saturating_sub(l.since.0) > limit
        };
        let nodes: Vec<NodeId> = self.links.iter().filter(|(_, l)| long(l)).map(|(n, _)| *n).collect();
        for node in nodes {
            self.link_close(node, true);
        }
    }

    /// The role has changed: everybody is told, and judged anew.
    pub(super) fn meet_again(&mut self) {
        let peers: Vec<NodeId> = self.links.keys().copied().collect();
        for node in peers {
            if self.config.tie_breaker == Some(node) {
                let hello = self.hello_of(node, self.side(node), 0);
                self.send(node, Message::Hello(Box::new(hello)));
            } else {
                self.link_close(node, true);
            }
        }
    }

    /// What a target of this node is to become.
    pub(super) fn identity(&self) -> Option<Identity> {
        let sb = self.replica.as_ref()?.superblock();
        Some(Identity {
            current: sb.current,
            began: sb.began,
            history: sb.history.clone(),
            bitmaps: sb.peers.iter().map(|p| (p.node, p.bitmap)).collect(),
            up_to_date: self.is_primary() || sb.flags.up_to_date,
        })
    }
}

/// What must not change between Hello and Agree.
fn said(side: &Side) -> Side {
    Side { dirty: side.dirty.min(1), position: Seq(0), ..side.clone() }
}
