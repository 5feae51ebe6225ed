//! The client's part of the route machine: what each stage of [`super::route`] asks of the shell and the coordinator.

use block::shared::FenceGen;

use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::proto::{Reply, Request};

use super::binding::Binding;
use super::event::Effect;
use super::route::{self, Reason, Stage};
use super::{Client, Own};

impl Client {
    /// Off the direct route. The gate closes first: nothing is submitted after the proof was asked for.
    pub(super) fn leave_direct(&mut self, now: Now, why: Reason, out: &mut Vec<Effect>) {
        if self.router.stage != Stage::Open || matches!(self.binder.state, Binding::Evicted { .. }) {
            return;
        }
        let bad = self.router.leaves(now, why);
        self.router.early_reads = true;
        self.gate_open = false;
        out.push(Effect::CloseDirect);
        if self.rules.has(Rule::AbortBeforeRedirect) {
            let number = self.router.asks_for_proof();
            out.push(Effect::Abort { number });
            out.push(Effect::ReissueReads);
        } else {
            out.push(Effect::ReissueReads);
            self.ask_fence(out);
        }
        if bad && self.rules.has(Rule::PathIsNotRoute) {
            out.push(Effect::OwnPath { ok: false });
        }
    }

    /// A request of the direct route is overdue.
    pub(super) fn overdue(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.at_home() || !self.router.rides_out(now, self.config.rides_out) {
            self.leave_direct(now, Reason::IoTimedOut, out);
        }
    }

    /// Bound to a coordinator on this very node.
    fn at_home(&self) -> bool {
        matches!(&self.binder.state, Binding::Bound { to, .. } if to.node == self.config.client.node)
    }

    pub(super) fn nothing_in_flight(&mut self, number: u64, out: &mut Vec<Effect>) {
        if self.router.awaits_proof(number) {
            self.ask_fence(out);
        }
    }

    fn ask_fence(&mut self, out: &mut Vec<Effect>) {
        self.router.stage = Stage::Asking { retry: None };
        self.submit_own(Own::PathLost, Request::PathLost { nothing_in_flight: true }, out);
    }

    /// This reign has not fenced the path: it is asked to. What was proved before still holds, as the gate of direct
    /// I/O has been closed ever since. A read that came too early waits like everything else.
    pub(super) fn fence_again(&mut self, out: &mut Vec<Effect>) {
        self.router.early_reads = false;
        if matches!(self.router.stage, Stage::Redirected { .. } | Stage::Returning { asked: false }) {
            self.ask_fence(out);
        }
    }

    pub(super) fn path_lost_answered(&mut self, now: Now, result: Result<Reply, i32>, out: &mut Vec<Effect>) {
        if !matches!(self.router.stage, Stage::Asking { .. }) {
            return;
        }
        match result {
            Ok(Reply::PathFenced { fence_gen }) => {
                self.router.fence_gen = self.router.fence_gen.max(fence_gen);
                self.router.redirect(now);
                // At home nobody has preempted anything: what was in flight had ended before the fence was answered.
                if !self.at_home() || !self.rules.has(Rule::EndedBeforeAdmitted) {
                    out.push(Effect::PathFenced);
                }
            }
            _ => self.router.stage = Stage::Asking { retry: Some(now + route::RETRY) },
        }
    }

    pub(super) fn path_back_answered(&mut self, now: Now, result: Result<Reply, i32>, out: &mut Vec<Effect>) {
        if !matches!(self.router.stage, Stage::Returning { .. }) {
            return;
        }
        match result {
            Ok(Reply::PathFenced { fence_gen }) => {
                self.router.fence_gen = self.router.fence_gen.max(fence_gen);
                return self.router.redirect(now);
            }
            Ok(_) if self.router.is_fenced() && self.rules.has(Rule::FenceOutlastsAnswers) => {
                return self.router.redirect(now);
            }
            Ok(_) => {}
            Err(_) => return self.router.redirect(now),
        }
        self.router.opens();
        self.gate_open = true;
        out.push(Effect::OpenDirect);
        self.redirects.go_direct(out);
        if self.router.forced {
            self.leave_direct(now, Reason::Administrator, out);
        }
    }

    /// The generation that the coordinator has on record for this session.
    pub(super) fn generation_told(&mut self, now: Now, fence_gen: FenceGen, out: &mut Vec<Effect>) {
        if fence_gen <= self.router.fence_gen {
            return;
        }
        match self.router.stage {
            Stage::Open => self.leave_direct(now, Reason::Fenced, out),
            // What is to be taken back may still go out under it. The fence that comes after the proof grants it, or a later one.
            Stage::Aborting { .. } if self.rules.has(Rule::EndedBeforeAdmitted) => {}
            _ => self.router.fence_gen = fence_gen,
        }
    }

    pub(super) fn probed(&mut self, now: Now, seen: Option<FenceGen>, out: &mut Vec<Effect>) {
        if self.router.slot_read(now, seen.is_some()) && self.rules.has(Rule::PathIsNotRoute) {
            out.push(Effect::OwnPath { ok: true });
        }
        let own = self.router.fence_gen;
        // A generation above the own is no good path, but a reason to ask: the coordinator fences anew.
        let ok = seen.is_some_and(|g| g >= own || !self.rules.has(Rule::RegisterThenReadSlot));
        if self.router.probed(ok) {
            self.router.seen = seen.unwrap_or(own);
            self.router.stage = Stage::Returning { asked: false };
        }
    }

    pub(super) fn forced(&mut self, now: Now, redirect: bool, out: &mut Vec<Effect>) {
        self.router.forced = redirect;
        match (redirect, self.router.stage) {
            (true, Stage::Open) => self.leave_direct(now, Reason::Administrator, out),
            (true, Stage::Returning { asked: false }) => self.router.redirect(now),
            (false, Stage::Redirected { .. }) => self.router.redirect(now),
            _ => {}
        }
    }

    /// On the way back: redirected I/O drained and flushed, then the question.
    pub(super) fn way_back(&mut self, out: &mut Vec<Effect>) {
        if self.router.stage != (Stage::Returning { asked: false }) {
            return;
        }
        if self.rules.has(Rule::DrainBeforePathBack) {
            if !self.redirects.nothing_began() {
                return;
            }
            if !self.redirects.is_drained() {
                return self.redirects.flush_kept();
            }
        }
        self.router.stage = Stage::Returning { asked: true };
        let fence_gen = match self.rules.has(Rule::RegisterThenReadSlot) {
            true => self.router.fence_gen.max(self.router.seen),
            false => self.router.fence_gen,
        };
        self.submit_own(Own::PathBack, Request::PathBack { fence_gen }, out);
    }

    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        let due = |at: Option<Now>| at.is_some_and(|at| now >= at);
        match self.router.stage {
            Stage::Aborting { retry, .. } if due(retry) => {
                let number = self.router.asks_for_proof();
                out.push(Effect::Abort { number });
            }
            Stage::Asking { retry } if due(retry) => self.ask_fence(out),
            _ => {}
        }
        if self.router.probe_due(now) {
            out.push(Effect::Probe);
        }
    }
}
