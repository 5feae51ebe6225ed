//! Path fences: a client that lost its path sends its data here, but only after it is proved that nothing of its own
//! can reach the disk any more; and back.
//!
//! Not durable: after a takeover a redirected client says `PathLost` again, and is fenced again. That costs one round;
//! the alternative is to believe a client whose stuck writes nobody has looked for.

use block::shared::FenceGen;
use rustix::io::Errno;

use super::Coord;
use super::calls::errno;
use super::event::{Effect, FencePurpose, OpId, Report, StoreAsk};
use super::session::{Life, Path};
use super::work::Stage;
use crate::core::rules::Rule;
use crate::proto::{Answer, Reply, Request};
use crate::types::*;

impl Coord {
    /// `PathLost`. Until the client's own requests have ended it is told to come again: a fence would have to kill it.
    pub(super) fn path_lost(&mut self, op: OpId, client: ClientId, nothing_in_flight: bool) {
        let proof_needed = self.rules.has(Rule::AbortBeforeRedirect);
        let Some(session) = self.sessions.get_mut(&client) else { return };
        match session.path {
            Path::Redirected => {
                let fence_gen = session.fence_gen;
                self.finish(op, Answer::Ok(Reply::PathFenced { fence_gen }));
            }
            Path::Direct if !proof_needed => {
                session.path = Path::Redirected;
                let fence_gen = session.fence_gen;
                self.finish(op, Answer::Ok(Reply::PathFenced { fence_gen }));
            }
            Path::Direct if nothing_in_flight => {
                session.path = Path::Fencing(op);
                self.set_stage(op, Stage::PathFencing);
                self.out.push(Effect::Fence { client, purpose: FencePurpose::Path });
            }
            Path::Direct | Path::Fencing(_) | Path::ComingBack(_) => self.finish(op, errno(Errno::AGAIN)),
        }
    }

    pub(super) fn path_fenced(&mut self, client: ClientId, result: Result<FenceGen, String>) {
        if !self.is_serving() {
            return;
        }
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let (Life::Live, Path::Fencing(op)) = (session.life, session.path) else { return };
        match result {
            Ok(fence_gen) => {
                session.fence_gen = fence_gen;
                self.set_stage(op, Stage::Storing);
                self.store(op, StoreAsk::PathFenced { client, fence_gen });
            }
            Err(why) => {
                session.path = Path::Direct;
                self.out.push(Effect::Report(Report::FenceFailed { client, why }));
                self.finish(op, errno(Errno::AGAIN));
            }
        }
    }

    /// The new generation is committed: redirected I/O is taken from now on.
    pub(super) fn path_fence_stored(&mut self, op: OpId, client: ClientId) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        session.path = Path::Redirected;
        let fence_gen = session.fence_gen;
        self.out.push(Effect::Report(Report::PathFenced { client }));
        self.finish(op, Answer::Ok(Reply::PathFenced { fence_gen }));
    }

    /// `PathBack`: no new redirected I/O; answered when what is outstanding has ended. If the client's slot shows a
    /// higher generation than the session, somebody who wanted this node's office raised it and gave up: the client is
    /// fenced anew and told the generation of that. Without this it would be redirected for ever. That holds also in a reign
    /// that has not fenced it before: who asks to come back has had its gate closed since it proved that nothing is in flight.
    ///
    /// Prevents: two takeovers in a row leave a client redirected whose slot the second one raised; its programs write nothing that
    /// would have to be redirected, so the new coordinator never hears of it but by this question, and refuses it again and again.
    pub(super) fn path_back(&mut self, op: OpId, client: ClientId, fence_gen: FenceGen) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let settled = matches!(session.path, Path::Redirected | Path::Direct) && session.guards.is_empty();
        if fence_gen > session.fence_gen && settled {
            session.path = Path::Fencing(op);
            self.set_stage(op, Stage::PathFencing);
            return self.out.push(Effect::Fence { client, purpose: FencePurpose::Path });
        }
        if fence_gen != session.fence_gen {
            return self.finish(op, errno(Errno::STALE));
        }
        match session.path {
            Path::Direct => self.finish(op, Answer::Ok(Reply::Done)),
            Path::Redirected => {
                session.path = Path::ComingBack(op);
                self.set_stage(op, Stage::Draining);
                self.path_back_if_drained(client);
            }
            Path::Fencing(_) | Path::ComingBack(_) => self.finish(op, errno(Errno::AGAIN)),
        }
    }

    /// After a redirected request of a client that comes back, or leaves.
    pub(super) fn path_back_if_drained(&mut self, client: ClientId) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let Path::ComingBack(op) = session.path else { return };
        if !session.guards.is_empty() || session.life != Life::Live {
            return;
        }
        session.path = Path::Direct;
        let leaves = self.call_work(op).is_some_and(|c| c.request == Request::Goodbye);
        match leaves {
            true => {
                self.set_stage(op, Stage::Storing);
                self.store(op, StoreAsk::EndSession { client });
            }
            false => {
                self.out.push(Effect::Report(Report::PathBack { client }));
                self.finish(op, Answer::Ok(Reply::Done));
            }
        }
    }
}
