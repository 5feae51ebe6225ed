//! What becomes of tasks when a nexus is lost, when the next stands, when it is proved, when the node was fenced.

use scsi::Status;

use super::event::{Answer, Cause, Class, Effect, FenceGen, Found, Outcome, TaskId};
use super::link::Link;
use super::rules::Rule;
use super::tasks::State;
use super::{MAX_ATTEMPTS, Now, Session};
use crate::ids::PortalGroup;

/// Fixed sense that says MISCOMPARE, MISCOMPARE DURING VERIFY OPERATION.
const MISCOMPARE: [u8; 18] = [0x70, 0, 0x0e, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0, 0];

impl Session {
    /// The nexus at this portal group is lost: nobody knows what became of writes that were with it.
    pub(super) fn tasks_lost(&mut self, group: Option<PortalGroup>, cause: &Cause, fx: &mut Vec<Effect>) {
        self.queue.clear();
        self.buried.clear();
        for task in self.ids() {
            let Some(t) = self.task(task) else { continue };
            let class = t.command.class;
            let sent = t.is_sent();
            if matches!(t.state, State::Lost(_) | State::Settling) {
                continue;
            }
            if class == Class::Control || (sent && class == Class::Read && t.attempts >= MAX_ATTEMPTS) {
                self.done(task, Outcome::Lost(cause.clone()), fx);
                continue;
            }
            let unwanted = t.unwanted;
            self.forget(task);
            if unwanted && class == Class::Read {
                self.done(task, Outcome::Aborted, fx);
            } else if let Some(t) = self.task_mut(task) {
                let landing = sent && class.generation().is_some();
                t.state = if landing { State::Lost(group) } else { State::Held };
            }
        }
    }

    /// A new nexus at this portal group: the older ones there are dead, and so are their tasks.
    pub(super) fn reinstated(&mut self, now: Now, group: Option<PortalGroup>, fx: &mut Vec<Effect>) {
        let any_group = !self.config.rules.has(Rule::SamePortalGroup);
        for task in self.ids() {
            match self.task(task).map(|t| &t.state) {
                Some(State::Lost(at)) if *at == group || any_group => self.died(now, task, fx),
                Some(State::Held) => self.release(now, task, fx),
                _ => {}
            }
        }
    }

    /// The older nexuses' keys were preempted and their tasks aborted.
    pub(super) fn preempted(&mut self, now: Now, fx: &mut Vec<Effect>) {
        for task in self.ids() {
            if matches!(self.task(task).map(|t| &t.state), Some(State::Lost(_))) {
                self.died(now, task, fx);
            }
        }
    }

    /// The nexus lost its registration. Writes that are with the target may have been sent after the preemption: they
    /// would be executed as soon as this nexus is registered again. The reinstatement of the next login kills them.
    pub(super) fn unregistered(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Link::Full(full) = &self.link else { return };
        if self.config.rules.has(Rule::RegisteredOnce) {
            return self.lost(now, Cause::Unregistered, fx);
        }
        self.proved = None;
        self.down_since.get_or_insert(now);
        fx.push(Effect::Up { nexus: self.nexus, group: full.group, params: full.params });
    }

    /// Nothing of a task can land any more, and it was not answered.
    pub(super) fn died(&mut self, now: Now, task: TaskId, fx: &mut Vec<Effect>) {
        self.unsend(task);
        let settle = self.config.rules.has(Rule::CawSettledByNonce);
        let Some(t) = self.task_mut(task) else { return };
        t.state = State::Held;
        let (class, attempts, unwanted) = (t.command.class, t.attempts, t.unwanted);
        match class {
            _ if unwanted => self.done(task, Outcome::Aborted, fx),
            Class::CompareAndWrite(_) if settle => {
                t.state = State::Settling;
                fx.push(Effect::Settle(task));
            }
            _ if self.is_void(class) => self.done(task, Outcome::Fenced, fx),
            Class::Control => self.done(task, Outcome::Lost(Cause::TimedOut), fx),
            _ if attempts >= MAX_ATTEMPTS => self.done(task, Outcome::Lost(Cause::TimedOut), fx),
            _ => self.release(now, task, fx),
        }
    }

    /// The nexus was registered and its slot read over it.
    pub(super) fn prove(&mut self, now: Now, nexus: u64, generation: FenceGen, fx: &mut Vec<Effect>) {
        // A proof of an older nexus, or one that an unheard fence has overtaken, proves nothing.
        if nexus != self.nexus || !matches!(self.link, Link::Full(_)) || generation < self.fenced {
            return;
        }
        self.proved = Some(generation);
        self.down_since = None;
        self.raise(generation);
        for task in self.ids() {
            if matches!(self.task(task).map(|t| &t.state), Some(State::Held)) {
                self.release(now, task, fx);
            }
        }
    }

    /// The node was fenced: what was submitted before is void.
    pub(super) fn fence(&mut self, now: Now, generation: FenceGen, fx: &mut Vec<Effect>) {
        self.raise(generation);
        if self.proved.is_none_or(|p| p < generation) {
            self.unregistered(now, fx);
        }
        for task in self.ids() {
            let Some(t) = self.task(task) else { continue };
            // A lost one may land as long as its nexus is not proved dead.
            let waits = !matches!(t.state, State::Sent(_) | State::Settling | State::Lost(_));
            if waits && self.is_void(t.command.class) {
                self.done(task, Outcome::Fenced, fx);
            } else if matches!(t.state, State::Queued) {
                self.queue.retain(|q| *q != task);
                self.release(now, task, fx);
            }
        }
    }

    /// What was found in the block of a dead compare-and-write.
    pub(super) fn settled(&mut self, now: Now, task: TaskId, found: Found, fx: &mut Vec<Effect>) {
        let Some(t) = self.task(task) else { return };
        if !matches!(t.state, State::Settling) {
            return;
        }
        let (class, attempts) = (t.command.class, t.attempts);
        let answer = |status, sense| Outcome::Answered(Answer { status, sense, moved: 0, overflow: 0 });
        match found {
            Found::Own => self.done(task, answer(Status::Good, Vec::new()), fx),
            Found::Other => self.done(task, answer(Status::CheckCondition, MISCOMPARE.to_vec()), fx),
            Found::Old if self.is_void(class) => self.done(task, Outcome::Fenced, fx),
            Found::Old if attempts >= MAX_ATTEMPTS => self.done(task, Outcome::Lost(Cause::TimedOut), fx),
            // It has not landed and cannot any more: once more.
            Found::Old => self.release(now, task, fx),
        }
    }

    /// The owner wants every task back. What was never sent, or is dead, comes at once; the rest when it is dead: with the
    /// next login at the same portal group, or a preemption. Its proof must not wait for a target that does not answer,
    /// so the nexus goes first.
    pub(super) fn give_up(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let ids = self.ids();
        for task in &ids {
            if let Some(t) = self.task_mut(*task) {
                t.unwanted = true;
            }
        }
        if matches!(self.link, Link::Full(_)) && self.in_flight > 0 {
            self.lost(now, Cause::GivenUp, fx);
        }
        for task in ids {
            let landing = matches!(self.task(task).map(|t| &t.state), Some(State::Lost(_)) | None);
            if !landing {
                self.done(task, Outcome::Aborted, fx);
            }
        }
    }

    /// The owner wants a task back.
    pub(super) fn abort_wanted(&mut self, now: Now, task: TaskId, fx: &mut Vec<Effect>) {
        let Some(t) = self.task_mut(task) else { return };
        t.unwanted = true;
        match &mut t.state {
            State::Held | State::Queued | State::Delayed(_) => self.done(task, Outcome::Aborted, fx),
            State::Sent(sent) => {
                sent.abort = true;
                self.manage(now, fx);
            }
            // Told when it is dead.
            State::Lost(_) | State::Settling => {}
        }
    }
}
