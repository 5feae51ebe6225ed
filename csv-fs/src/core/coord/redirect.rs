//! Redirected I/O: checked when it is submitted to the device, guarded until it has ended.
//!
//! The check and the guard are one step, so nothing can be given away between them; whoever gives something away
//! (recall, eviction, bind, path back, move) waits for the guards on it.

use super::event::GuardId;
use super::session::{Guard, Life, Path};
use super::work::{Stage, Work};
use super::{Coord, OpId, Phase};
use crate::proto::{Answer, Redirect, RedirectAnswer, RedirectOp};
use crate::types::*;

/// Reads are taken before the path fence too: a stuck write of the same client that may still land was never
/// acknowledged, so a read may come before or after it.
fn takes(path: Path, op: RedirectOp) -> bool {
    match path {
        Path::Redirected => true,
        Path::Direct | Path::Fencing(_) => op == RedirectOp::Read,
        Path::ComingBack(_) => false,
    }
}

impl Coord {
    /// Whether this request may go to the device now. Every `Ok` is followed by exactly one
    /// [`super::Event::RedirectEnded`], when nothing of it can reach the disk any more.
    pub fn redirect_begin(&mut self, request: &Redirect) -> Result<GuardId, RedirectAnswer> {
        if self.phase != Phase::Serving {
            return Err(RedirectAnswer::StaleEpoch { hint: self.hint() });
        }
        let session = self.sessions.get_mut(&request.client).ok_or(RedirectAnswer::StaleBind)?;
        match session.life {
            Life::Evicted => return Err(RedirectAnswer::Evicted { reason: session.reason.clone() }),
            Life::Evicting(_) => return Err(RedirectAnswer::StaleBind),
            Life::Live if !session.bound || session.bind != request.bind => return Err(RedirectAnswer::StaleBind),
            Life::Live if !takes(session.path, request.op) => return Err(RedirectAnswer::PathNotFenced),
            Life::Live => {}
        }
        let layout = match request.op {
            RedirectOp::Flush => None,
            RedirectOp::Read | RedirectOp::Write => Some(request.layout),
        };
        if layout.is_some_and(|l| !session.layouts.contains(&l)) {
            return Err(RedirectAnswer::NoLayout);
        }
        self.last_guard += 1;
        let guard = GuardId(self.last_guard);
        session.guards.insert(guard, Guard { bind: request.bind, layout });
        self.guards.insert(guard, request.client);
        Ok(guard)
    }

    /// A guard is given back: whoever waited for it goes on.
    pub(super) fn redirect_ended(&mut self, guard: GuardId) {
        let Some(client) = self.guards.remove(&guard) else { return };
        let Some(session) = self.sessions.get_mut(&client) else { return };
        session.guards.remove(&guard);
        let waited_for = session.is_waited_for();
        if !waited_for || !self.is_serving() {
            return;
        }
        self.return_what_is_idle(client);
        self.bind_may_go_on(client);
        self.path_back_if_drained(client);
        self.close_if_drained(client);
    }

    fn return_what_is_idle(&mut self, client: ClientId) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let waiting = std::mem::take(&mut session.returning);
        let (busy, idle): (Vec<OpId>, Vec<OpId>) = waiting.into_iter().partition(|op| match self.work.get(op) {
            Some(Work::Call(call)) => match &call.stage {
                Stage::Returning { layouts, .. } => session.has_guards_on(layouts),
                _ => false,
            },
            _ => false,
        });
        session.returning = busy;
        for op in idle {
            let Some(call) = self.call_work(op) else { continue };
            if let Stage::Returning { answer, layouts } = std::mem::replace(&mut call.stage, Stage::New) {
                self.returned(op, client, answer, &layouts);
            }
        }
    }

    fn returned(&mut self, op: OpId, client: ClientId, answer: Answer, layouts: &[LayoutId]) {
        self.drop_layouts(client, layouts);
        self.finish(op, answer);
    }
}
