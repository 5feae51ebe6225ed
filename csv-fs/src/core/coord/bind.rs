//! Binds: a client comes over a new connection, brings what it holds, and everything of its older connections ends.
//!
//! Order: the new number counts at once (calls and redirected I/O of lower binds are stale from here on); redirected
//! requests of lower binds that are on their way to the disk end; the store confirms the session and compares
//! uncommitted mappings with the grant; layouts and opens are taken in; only then is the bind answered.

use std::collections::BTreeSet;

use super::event::{ConnId, Effect, EvictReason, OpId, StoreAsk, Tag};
use super::files::Layout;
use super::session::{Life, Path, Session};
use super::work::{BindWork, Work};
use super::{Coord, Phase};
use crate::core::rules::Rule;
use crate::proto::{Answer, BindAnswer, BindRequest, Reassert, Reply};
use crate::types::*;

/// How a bind is met.
enum Meeting {
    /// A session that is known.
    Known,
    /// A new incarnation.
    New,
    /// This answer and nothing else.
    Turned(BindAnswer),
}

impl Coord {
    pub(super) fn bind(&mut self, tag: Tag, conn: ConnId, request: BindRequest) {
        if self.phase != Phase::Serving {
            let answer = self.not_coordinator();
            return self.out.push(Effect::AnswerBind { tag, answer });
        }
        let client = request.client;
        let create = match self.meet(&request) {
            Meeting::Turned(answer) => return self.out.push(Effect::AnswerBind { tag, answer }),
            Meeting::Known => false,
            Meeting::New => {
                self.sessions.retain(|c, _| c.node != client.node || *c >= client);
                self.sessions.insert(client, Session::new(request.fence_gen, Vec::new()));
                true
            }
        };
        let bind = request.bind;
        let op = self.new_op(Work::Bind(Box::new(BindWork { tag, conn: Some(conn), request, create, waits: false })));
        let Some(session) = self.sessions.get_mut(&client) else { return };
        session.bind = bind;
        session.bound = false;
        session.conn = None;
        let older = session.binding.replace(op);
        let waits = session.has_guards_below(bind) && self.rules.has(Rule::BindCancelsOlder);
        if let Some(older) = older {
            self.turn_away(older, BindAnswer::Busy);
        }
        if let Some(Work::Bind(work)) = self.work.get_mut(&op) {
            work.waits = waits;
        }
        if !waits {
            self.store_bind(op);
        }
    }

    fn meet(&mut self, request: &BindRequest) -> Meeting {
        let client = request.client;
        let by_table = self.rules.has(Rule::ReassertBySessionTable);
        let reason = self.sessions.get(&client).map(|s| s.reason.clone()).unwrap_or_default();
        match self.sessions.get(&client).map(|s| (s.life, s.bind)) {
            Some((Life::Live, bind)) if request.bind <= bind => return Meeting::Turned(BindAnswer::Busy),
            Some((Life::Live, _)) => return Meeting::Known,
            Some((Life::Evicting(_), _)) => return Meeting::Turned(BindAnswer::Busy),
            Some((Life::Evicted, _)) if by_table || request.reassert.is_empty() => {
                return Meeting::Turned(BindAnswer::Evicted { reason });
            }
            Some((Life::Evicted, _)) => return Meeting::New,
            None => {}
        }
        let others: Vec<(ClientId, Life)> =
            self.sessions.iter().filter(|(c, _)| c.node == client.node).map(|(c, s)| (*c, s.life)).collect();
        if others.iter().any(|(c, _)| c.incarnation > client.incarnation) {
            return Meeting::Turned(unknown());
        }
        let lives = |l: &Life| *l != Life::Evicted;
        if others.iter().any(|(_, life)| lives(life)) {
            for (older, _) in others.iter().filter(|(_, life)| lives(life)) {
                self.evict(*older, EvictReason::Replaced);
            }
            return Meeting::Turned(BindAnswer::Busy);
        }
        match request.reassert.is_empty() || !by_table {
            true => Meeting::New,
            false => Meeting::Turned(unknown()),
        }
    }

    fn turn_away(&mut self, op: OpId, answer: BindAnswer) {
        if let Some(Work::Bind(work)) = self.work.remove(&op) {
            self.out.push(Effect::AnswerBind { tag: work.tag, answer });
        }
    }

    fn store_bind(&mut self, op: OpId) {
        let Some(Work::Bind(work)) = self.work.get_mut(&op) else { return };
        work.waits = false;
        let (client, create) = (work.request.client, work.create);
        let mapped = |r: &Reassert| match r {
            Reassert::Layout { ino, uncommitted, .. } if !uncommitted.is_empty() => Some((*ino, uncommitted.clone())),
            _ => None,
        };
        let verify = work.request.reassert.iter().filter_map(mapped).collect();
        let fence_gen = work.request.fence_gen;
        self.store(op, StoreAsk::Session { client, fence_gen, create, verify });
    }

    /// A redirected request of this client ended: its bind may go on.
    pub(super) fn bind_may_go_on(&mut self, client: ClientId) {
        let Some(session) = self.sessions.get(&client) else { return };
        let (Some(op), false) = (session.binding, session.has_guards_below(session.bind)) else { return };
        if matches!(self.work.get(&op), Some(Work::Bind(work)) if work.waits) {
            self.store_bind(op);
        }
    }

    pub(super) fn bind_stored(&mut self, op: OpId, grants: Vec<DiskRange>, outside: Option<String>) {
        let Some(Work::Bind(work)) = self.work.remove(&op) else { return };
        let BindWork { tag, conn, request, .. } = *work;
        let client = request.client;
        let Some(session) = self.sessions.get_mut(&client) else { return };
        session.binding = None;
        if session.life != Life::Live {
            return self.out.push(Effect::AnswerBind { tag, answer: BindAnswer::Busy });
        }
        if let Some(reason) = outside {
            self.out.push(Effect::AnswerBind { tag, answer: BindAnswer::Evicted { reason } });
            return self.evict(client, EvictReason::OutsideGrant);
        }
        if self.phase != Phase::Serving {
            let answer = self.not_coordinator();
            return self.out.push(Effect::AnswerBind { tag, answer });
        }
        let refused = self.take_in(client, &request.reassert);
        let back = self.locks_at_bind(client, request.bind, &request.reassert);
        let Some(session) = self.sessions.get_mut(&client) else { return };
        session.bound = true;
        session.known = true;
        session.conn = conn;
        session.absent_since = conn.is_none().then_some(self.now);
        session.lock_wanted = false;
        session.may_keep_space = !grants.is_empty();
        let fence_gen = session.fence_gen;
        let may_come_back = session.path == Path::Direct;
        debug_assert!(
            may_come_back || !session.has_guards_below(session.bind) || !self.rules.has(Rule::BindCancelsOlder),
            "invariant 5"
        );
        if back {
            self.came_back(client);
        }
        let answer = BindAnswer::Bound {
            epoch: self.config.epoch,
            grace: self.in_grace(),
            grants,
            refused,
            fence_gen,
            verifier: self.config.verifier,
        };
        self.out.push(Effect::AnswerBind { tag, answer });
        self.ask_everything_again(client);
    }

    /// Takes in what a client says it holds; the layouts that are refused.
    ///
    /// In a reign that knows the session, the table is right about what was given and the client about what it got:
    /// what only one of them names is dropped. After a takeover the client's word counts, within the table.
    fn take_in(&mut self, client: ClientId, reassert: &[Reassert]) -> Vec<LayoutId> {
        let mut refused = Vec::new();
        let mut kept = BTreeSet::new();
        let known = self.sessions.get(&client).is_some_and(|s| s.known);
        for thing in reassert {
            match thing {
                Reassert::Open { ino, handle, .. } => self.opened(client, *handle, *ino),
                Reassert::LocksFollow => {}
                Reassert::Creating { handle, slot, seq } => self.created_unheard(client, *handle, *slot, *seq),
                Reassert::Layout { id, ino, range, mode, .. } => {
                    match self.take_in_layout(client, known, *ino, (*id, *range, *mode)) {
                        true => drop(kept.insert(*id)),
                        false => refused.push(*id),
                    }
                }
                Reassert::Releasing { id, ino, range, mode, slot, seq } => {
                    let done = self.sessions.get(&client).is_some_and(|s| s.stored(*slot, *seq).is_some());
                    if !done && self.take_in_layout(client, known, *ino, (*id, *range, *mode)) {
                        kept.insert(*id);
                    }
                }
            }
        }
        let Some(session) = self.sessions.get(&client) else { return refused };
        let lost: Vec<LayoutId> = session.layouts.difference(&kept).copied().collect();
        self.drop_layouts(client, &lost);
        refused
    }

    /// A creation whose answer its client has not had: if it took place, the file is open.
    fn created_unheard(&mut self, client: ClientId, handle: HandleId, slot: SlotRef, seq: u64) {
        let stored = self.sessions.get(&client).and_then(|s| s.stored(slot, seq));
        if let Some(Answer::Ok(Reply::Created { attr, opened: true })) = stored {
            let ino = attr.ino;
            self.opened(client, handle, ino);
        }
    }

    fn take_in_layout(
        &mut self,
        client: ClientId,
        known: bool,
        ino: InodeNo,
        (id, range, mode): (LayoutId, BlockRange, LayoutMode),
    ) -> bool {
        let taken = match known {
            true => self.files.told(id, client),
            false => self.files.reassert(ino, Layout { id, client, range, mode, told_in: None }),
        };
        if taken {
            self.files.check(ino);
            if let Some(session) = self.sessions.get_mut(&client) {
                session.layouts.insert(id);
            }
        }
        taken
    }

    /// The bind in progress of a client that is on its way out.
    pub(super) fn turn_bind_away(&mut self, client: ClientId) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let Some(op) = session.binding else { return };
        if !self.storing.contains(&op) {
            session.binding = None;
            self.turn_away(op, BindAnswer::Busy);
        }
    }
}

fn unknown() -> BindAnswer {
    BindAnswer::Evicted { reason: "the session table does not name this life of the node as living".into() }
}
