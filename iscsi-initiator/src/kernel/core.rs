//! What becomes of the commands of a kernel's disk, and which nexus stands. Pure: `handle(event)` says what is to be done.
//!
//! ```text
//!  Probing ── the device answered ──► Up(n) ── a command was given up, its registration is gone, all is taken back ──► Draining
//!     ▲  └─ it did not: again, later                                                                              │
//!     └──────────────────────────────── the kernel has nothing left ◄─────────────────────────────────────────────┘
//! ```
//! - A command is sent only while a nexus stands: control at once, reads once that was proved, writes once it was proved to be of their generation.
//! - *In doubt* is what the kernel gave up. A change in doubt is answered only when it is dead: with the next nexus, or when its key was preempted
//!   over another path. A read in doubt is over at once, a question too; of a question that changes something nobody knows.
//! - Nothing is sent a second time here: whoever waits has other paths.

use std::collections::BTreeMap;

use iscsi::session::{Answer, Cause, Class, FenceGen, Outcome};
use scsi::Status;

/// The owner's name of a command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Number(pub(super) u64);

/// What the kernel says of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// The device answered.
    Answered(Answer),
    /// It was given up.
    GivenUp(Cause),
    /// It was never sent.
    NotSent(Cause),
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Open,
    Submit(Number, Class),
    Ended(Number, Told),
    /// The device has answered a question, or the kernel gave it up.
    Probed(bool),
    /// The time to ask again.
    Tick,
    Proved(u64, FenceGen),
    Fenced(FenceGen),
    Unregistered(u64),
    Preempted,
    GiveUp,
    Close,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Issue(Number),
    Done(Number, Outcome),
    /// Ask the device something.
    Probe,
    /// Ask again in a while.
    ProbeLater,
    Up(u64),
    Down(Cause),
    Ended(Cause),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Probing,
    Up,
    Draining,
    Ended,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum At {
    Held,
    Sent,
    /// Given up by the kernel, for this reason.
    Doubt(Cause),
}

#[derive(Clone, Debug)]
struct Task {
    class: Class,
    at: At,
    /// Its owner has taken it back.
    unwanted: bool,
    /// Its nexus was killed from another path: what comes of it is dead.
    killed: bool,
}

/// The core.
#[derive(Debug)]
pub(super) struct Core {
    state: State,
    nexus: u64,
    proved: Option<FenceGen>,
    fenced: FenceGen,
    closing: bool,
    tasks: BTreeMap<Number, Task>,
}

impl Core {
    pub(super) fn new() -> Core {
        let (proved, fenced) = (None, FenceGen(0));
        Core { state: State::Idle, nexus: 0, proved, fenced, closing: false, tasks: BTreeMap::new() }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Commands that have not ended.
    pub(super) fn under_way(&self) -> Vec<Number> {
        self.tasks.keys().copied().collect()
    }

    pub(super) fn handle(&mut self, event: Event, fx: &mut Vec<Effect>) {
        match event {
            Event::Open if self.state == State::Idle => self.probe(fx),
            Event::Open => {}
            Event::Submit(number, class) => self.submit(number, class, fx),
            Event::Ended(number, told) => self.ended(number, told, fx),
            Event::Probed(answered) => self.probed(answered, fx),
            Event::Tick if self.state == State::Probing => fx.push(Effect::Probe),
            Event::Tick => {}
            Event::Proved(nexus, generation) => self.prove(nexus, generation, fx),
            Event::Fenced(generation) => self.fence(generation, fx),
            Event::Unregistered(nexus) if nexus == self.nexus => self.lose(Cause::Unregistered, fx),
            Event::Unregistered(_) => {}
            Event::Preempted => self.preempted(fx),
            Event::GiveUp => self.give_up(fx),
            Event::Close => self.close(fx),
        }
        self.check();
    }

    fn submit(&mut self, number: Number, class: Class, fx: &mut Vec<Effect>) {
        if self.closing || self.state == State::Ended {
            return fx.push(Effect::Done(number, Outcome::Lost(Cause::ClosedHere)));
        }
        self.tasks.insert(number, Task { class, at: At::Held, unwanted: false, killed: false });
        self.release(number, fx);
    }

    /// Sends a held command, if the present nexus is what it waits for.
    fn release(&mut self, number: Number, fx: &mut Vec<Effect>) {
        let (is_up, proved, fenced) = (self.state == State::Up, self.proved, self.fenced);
        let Some(task) = self.tasks.get_mut(&number).filter(|task| task.at == At::Held) else { return };
        let void = task.class.generation().is_some_and(|g| g < fenced || proved.is_some_and(|p| g < p));
        let may = match task.class {
            Class::Control => is_up,
            Class::Read => is_up && proved.is_some(),
            Class::Write(g) | Class::CompareAndWrite(g) => is_up && proved == Some(g),
        };
        if void {
            self.done(number, Outcome::Fenced, fx);
        } else if may {
            task.at = At::Sent;
            fx.push(Effect::Issue(number));
        }
    }

    fn release_all(&mut self, fx: &mut Vec<Effect>) {
        self.under_way().into_iter().for_each(|number| self.release(number, fx));
    }

    fn ended(&mut self, number: Number, told: Told, fx: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(&number).filter(|task| task.at == At::Sent) else { return };
        match told {
            // Its own node has had its nexus killed: what the kernel has tried again since was refused, and what it had sent before is dead.
            Told::Answered(answer) if task.killed && answer.status == Status::ReservationConflict => {
                let outcome = task.dead(&Cause::Unregistered);
                self.done(number, outcome, fx);
            }
            Told::Answered(answer) => self.done(number, Outcome::Answered(answer), fx),
            Told::NotSent(cause) => {
                self.done(number, Outcome::Lost(cause.clone()), fx);
                self.lose(cause, fx);
            }
            Told::GivenUp(cause) => {
                let outcome = match task.class {
                    _ if task.killed => Some(task.dead(&cause)),
                    Class::Control => Some(Outcome::Unknown(cause.clone())),
                    Class::Read => Some(if task.unwanted { Outcome::Aborted } else { Outcome::Lost(cause.clone()) }),
                    Class::Write(_) | Class::CompareAndWrite(_) => None,
                };
                match outcome {
                    Some(outcome) => self.done(number, outcome, fx),
                    None => task.at = At::Doubt(cause.clone()),
                }
                self.lose(cause, fx);
            }
        }
        self.drained(fx);
    }

    /// The nexus is given up: nothing more is sent before the next one.
    fn lose(&mut self, cause: Cause, fx: &mut Vec<Effect>) {
        if self.state != State::Up {
            return;
        }
        self.proved = None;
        self.state = State::Draining;
        fx.push(Effect::Down(cause));
        self.drained(fx);
    }

    fn is_sent(&self) -> bool {
        self.tasks.values().any(|task| task.at == At::Sent)
    }

    fn drained(&mut self, fx: &mut Vec<Effect>) {
        if self.is_sent() {
            return;
        }
        if self.closing && self.state != State::Ended {
            self.end(fx);
        } else if self.state == State::Draining {
            self.probe(fx);
        }
    }

    fn probe(&mut self, fx: &mut Vec<Effect>) {
        self.state = State::Probing;
        fx.push(Effect::Probe);
    }

    fn probed(&mut self, answered: bool, fx: &mut Vec<Effect>) {
        if self.state != State::Probing {
            return;
        }
        if !answered {
            return fx.push(Effect::ProbeLater);
        }
        self.settle_doubts(fx);
        self.nexus += 1;
        self.state = State::Up;
        fx.push(Effect::Up(self.nexus));
        self.release_all(fx);
    }

    /// What was given up is dead.
    fn settle_doubts(&mut self, fx: &mut Vec<Effect>) {
        let fenced = self.fenced;
        for number in self.under_way() {
            let Some(task) = self.tasks.get(&number) else { continue };
            if let At::Doubt(cause) = &task.at {
                let void = task.class.generation().is_some_and(|g| g < fenced);
                let outcome = if void { Outcome::Fenced } else { task.dead(cause) };
                self.done(number, outcome, fx);
            }
        }
    }

    fn prove(&mut self, nexus: u64, generation: FenceGen, fx: &mut Vec<Effect>) {
        // A proof of an older nexus, or one that an unheard fence has overtaken, proves nothing.
        if self.state == State::Up && nexus == self.nexus && generation >= self.fenced {
            self.proved = Some(generation);
            self.release_all(fx);
        }
    }

    fn fence(&mut self, generation: FenceGen, fx: &mut Vec<Effect>) {
        self.fenced = self.fenced.max(generation);
        self.lose(Cause::Unregistered, fx);
        self.release_all(fx);
    }

    fn preempted(&mut self, fx: &mut Vec<Effect>) {
        self.tasks.values_mut().filter(|task| task.at == At::Sent).for_each(|task| task.killed = true);
        self.settle_doubts(fx);
    }

    fn give_up(&mut self, fx: &mut Vec<Effect>) {
        for number in self.under_way() {
            let Some(task) = self.tasks.get_mut(&number) else { continue };
            task.unwanted = true;
            if task.at == At::Held {
                self.done(number, Outcome::Aborted, fx);
            }
        }
        if !self.tasks.is_empty() {
            self.lose(Cause::GivenUp, fx);
        }
    }

    /// What is with the kernel is waited for; nobody can take it back.
    fn close(&mut self, fx: &mut Vec<Effect>) {
        if self.state == State::Ended {
            return;
        }
        self.closing = true;
        for number in self.under_way() {
            if self.tasks.get(&number).is_some_and(|task| task.at == At::Held) {
                self.done(number, Outcome::Lost(Cause::ClosedHere), fx);
            }
        }
        self.drained(fx);
    }

    fn end(&mut self, fx: &mut Vec<Effect>) {
        self.state = State::Ended;
        self.proved = None;
        for number in self.under_way() {
            self.done(number, Outcome::Unknown(Cause::ClosedHere), fx);
        }
        fx.push(Effect::Ended(Cause::ClosedHere));
    }

    fn done(&mut self, number: Number, outcome: Outcome, fx: &mut Vec<Effect>) {
        if self.tasks.remove(&number).is_some() {
            fx.push(Effect::Done(number, outcome));
        }
    }

    fn check(&self) {
        debug_assert!(
            self.state != State::Probing || !self.is_sent(),
            "the device is asked only when the kernel has nothing left"
        );
        debug_assert!(self.state != State::Ended || self.tasks.is_empty(), "every command has ended");
        debug_assert!(self.proved.is_none() || self.state == State::Up, "a proof is of the nexus that stands");
    }
}

impl Task {
    /// What its owner is told once it is dead.
    fn dead(&self, cause: &Cause) -> Outcome {
        if self.unwanted { Outcome::Aborted } else { Outcome::Lost(cause.clone()) }
    }
}
