//! The task set of a unit: which commands are there, which may run together, which have been aborted, and who waits for
//! their end.
//!
//! ```text
//!   Gathering ── its data are there ──► Waiting ── nothing stands against it ──► Running ──► ended
//!       └───────────┴──── aborted: it never runs (again), and is there until its owner says that it has ended
//! ```
//! Every command is in the set from its arrival to its end, and the end of one that runs is told only when the device has
//! completed everything of it. That is what makes an answered abort, reset or PREEMPT AND ABORT a proof.
//!
//! A command covers a *span*. Two commands whose spans meet do not run together if one of them is *exclusive*: COMPARE
//! AND WRITE and all else that reads before it writes. Plain reads and writes run together, as SAM-5 lets simple tasks. A
//! waiting command holds up later ones that meet it, so that none waits for ever. ORDERED is exclusive over everything;
//! HEAD OF QUEUE waits for running ones only.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::name::NexusId;

/// A command in the set. Never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct TaskId(pub(crate) u64);

/// Somebody waits until commands have ended; numbered by whoever waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Wait {
    pub(crate) nexus: NexusId,
    pub(crate) number: u64,
}

/// What a command touches: blocks from `from` to before `to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) exclusive: bool,
}

impl Span {
    /// Nothing: it meets no span.
    pub(crate) const NOTHING: Span = Span { from: 0, to: 0, exclusive: false };
    /// The unit's own state (reservations, mode parameters, port groups): one change after the other.
    pub(crate) const STATE: Span = Span { from: u64::MAX - 1, to: u64::MAX, exclusive: true };
    /// The same state, to be told.
    pub(crate) const STATE_TOLD: Span = Span { exclusive: false, ..Span::STATE };
    /// Everything.
    pub(crate) const ALL: Span = Span { from: 0, to: u64::MAX, exclusive: true };

    fn clashes(self, other: Span) -> bool {
        (self.exclusive || other.exclusive) && self.from < other.to && other.from < self.to
    }
}

/// How a command stands to earlier and later ones (task attribute, SAM-5 8.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Order {
    #[default]
    Simple,
    Ordered,
    HeadOfQueue,
}

/// How an aborted command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Abort {
    /// Its initiator has asked for it, or is gone, or is told by a unit attention: no response.
    Silent,
    /// Another nexus has done it: TASK ABORTED (TAS is 1).
    Told,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Gathering,
    Waiting,
    Running,
}

#[derive(Debug)]
struct Task {
    nexus: NexusId,
    stage: Stage,
    span: Span,
    order: Order,
    aborted: Option<Abort>,
}

/// What others are to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// The command may run now.
    Run(NexusId, TaskId),
    /// The command is aborted: its owner stops it and says when it has ended.
    Abort(NexusId, TaskId),
    /// What was waited for has ended.
    Over(Wait),
}

/// The set.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    all: BTreeMap<TaskId, Task>,
    last: u64,
    /// Commands that others may have to wait for.
    strict: usize,
    waiting: usize,
    waits: BTreeMap<Wait, BTreeSet<TaskId>>,
}

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// A command arrives. A span of ORDERED is everything.
    pub(crate) fn arrive(&mut self, nexus: NexusId, span: Span, order: Order) -> TaskId {
        self.last += 1;
        let id = TaskId(self.last);
        let span = if order == Order::Ordered { Span::ALL } else { span };
        self.strict += usize::from(span.exclusive);
        self.all.insert(id, Task { nexus, stage: Stage::Gathering, span, order, aborted: None });
        id
    }

    /// Its data are there. True if it runs now; else [`Effect::Run`] follows, unless it is aborted.
    pub(crate) fn start(&mut self, id: TaskId) -> bool {
        let free = self.strict == 0 || !self.is_blocked(id);
        let Some(task) = self.all.get_mut(&id).filter(|t| t.aborted.is_none()) else { return false };
        if free {
            task.stage = Stage::Running;
        } else {
            task.stage = Stage::Waiting;
            self.waiting += 1;
        }
        free
    }

    fn is_blocked(&self, id: TaskId) -> bool {
        let Some(task) = self.all.get(&id) else { return true };
        self.all.iter().any(|(other_id, other)| {
            let earlier = *other_id < id && task.order != Order::HeadOfQueue;
            match other.stage {
                _ if *other_id == id => false,
                Stage::Running => task.span.clashes(other.span),
                // What is aborted does not run; nobody waits for it then.
                _ if other.aborted.is_some() => false,
                Stage::Waiting => earlier && task.span.clashes(other.span),
                Stage::Gathering => earlier && (task.order == Order::Ordered || other.order == Order::Ordered),
            }
        })
    }

    /// Whether, and how, a command was aborted; also one that is not there any more.
    pub(crate) fn aborted(&self, id: TaskId) -> Option<Abort> {
        self.all.get(&id).map_or(Some(Abort::Silent), |task| task.aborted)
    }

    /// A running command does not stand against others any more, and goes on.
    pub(crate) fn yield_span(&mut self, id: TaskId, fx: &mut Vec<Effect>) {
        if let Some(task) = self.all.get_mut(&id) {
            self.strict -= usize::from(task.span.exclusive);
            task.span = Span::NOTHING;
            self.wake(fx);
        }
    }

    /// Nothing of the command is left. How it was aborted, if it was.
    pub(crate) fn end(&mut self, id: TaskId, fx: &mut Vec<Effect>) -> Option<Abort> {
        let task = self.all.remove(&id)?;
        self.strict -= usize::from(task.span.exclusive);
        self.waiting -= usize::from(task.stage == Stage::Waiting);
        if !self.waits.is_empty() {
            self.waits.retain(|wait, left| {
                left.remove(&id);
                if left.is_empty() {
                    fx.push(Effect::Over(*wait));
                }
                !left.is_empty()
            });
        }
        self.wake(fx);
        task.aborted
    }

    /// Starts what nothing stands against any more.
    fn wake(&mut self, fx: &mut Vec<Effect>) {
        if self.waiting == 0 {
            return;
        }
        let waiting: Vec<TaskId> = self
            .all
            .iter()
            .filter(|(_, t)| t.stage == Stage::Waiting && t.aborted.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if !self.is_blocked(id)
                && let Some(task) = self.all.get_mut(&id)
            {
                task.stage = Stage::Running;
                self.waiting -= 1;
                fx.push(Effect::Run(task.nexus, id));
            }
        }
    }

    /// Aborts commands, and has `wait` told when they, and whichever of them were aborted before, have ended. True if
    /// there are none.
    pub(crate) fn abort(
        &mut self,
        wait: Wait,
        fx: &mut Vec<Effect>,
        how: impl Fn(TaskId, NexusId) -> Option<Abort>,
    ) -> bool {
        let mut left = BTreeSet::new();
        for (id, task) in &mut self.all {
            let Some(how) = how(*id, task.nexus) else { continue };
            left.insert(*id);
            if task.aborted.is_none() {
                task.aborted = Some(how);
                fx.push(Effect::Abort(task.nexus, *id));
            }
        }
        let none = left.is_empty();
        if !none {
            self.waits.insert(wait, left);
        }
        // What waited for one of them need not wait any more.
        self.wake(fx);
        none
    }

    /// Nobody waits any more.
    pub(crate) fn forget(&mut self, nexus: NexusId) {
        self.waits.retain(|wait, _| wait.nexus != nexus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NexusId = NexusId(1);
    const B: NexusId = NexusId(2);

    fn span(from: u64, to: u64, exclusive: bool) -> Span {
        Span { from, to, exclusive }
    }

    fn wait(number: u64) -> Wait {
        Wait { nexus: A, number }
    }

    fn run(tasks: &mut Tasks, s: Span, order: Order) -> (TaskId, bool) {
        let id = tasks.arrive(A, s, order);
        let runs = tasks.start(id);
        (id, runs)
    }

    #[test]
    fn plain_commands_run_together_and_an_exclusive_one_alone_on_its_blocks() {
        let mut tasks = Tasks::default();
        let mut fx = Vec::new();
        let (a, runs_a) = run(&mut tasks, span(0, 8, false), Order::Simple);
        let (b, runs_b) = run(&mut tasks, span(4, 8, false), Order::Simple);
        let (swap, runs) = run(&mut tasks, span(7, 8, true), Order::Simple);
        let (_, elsewhere) = run(&mut tasks, span(8, 9, true), Order::Simple);
        assert_eq!((runs_a, runs_b, runs, elsewhere), (true, true, false, true));
        // A later one that meets the waiting one waits behind it.
        let (later, runs) = run(&mut tasks, span(7, 8, false), Order::Simple);
        assert!(!runs);
        tasks.end(a, &mut fx);
        assert_eq!(fx, []);
        tasks.end(b, &mut fx);
        assert_eq!(fx, [Effect::Run(A, swap)]);
        tasks.end(swap, &mut fx);
        assert_eq!(fx[1..], [Effect::Run(A, later)]);
    }

    #[test]
    fn ordered_waits_for_earlier_commands_also_for_their_data_and_later_ones_wait_for_it() {
        let mut tasks = Tasks::default();
        let mut fx = Vec::new();
        let gathering = tasks.arrive(A, span(0, 1, false), Order::Simple);
        let (ordered, runs) = run(&mut tasks, Span::NOTHING, Order::Ordered);
        assert!(!runs);
        let (head, runs) = run(&mut tasks, span(5, 6, false), Order::HeadOfQueue);
        assert!(runs, "head of queue waits for running ones only");
        let (later, runs) = run(&mut tasks, span(9, 10, false), Order::Simple);
        assert!(!runs);
        assert!(tasks.start(gathering));
        tasks.end(head, &mut fx);
        assert_eq!(fx, []);
        tasks.end(gathering, &mut fx);
        assert_eq!(fx, [Effect::Run(A, ordered)]);
        tasks.end(ordered, &mut fx);
        assert_eq!(fx[1..], [Effect::Run(A, later)]);
    }

    #[test]
    fn an_abort_is_over_when_the_last_command_has_ended() {
        let mut tasks = Tasks::default();
        let mut fx = Vec::new();
        let (a, _) = run(&mut tasks, span(0, 1, false), Order::Simple);
        let b = tasks.arrive(B, span(0, 1, false), Order::Simple);
        assert!(!tasks.abort(wait(1), &mut fx, |_, n| (n == B).then_some(Abort::Told)));
        assert_eq!(fx, [Effect::Abort(B, b)]);
        fx.clear();
        // A second abort of the same command waits too, and does not tell its owner again.
        assert!(!tasks.abort(wait(2), &mut fx, |_, _| Some(Abort::Silent)));
        assert_eq!(fx, [Effect::Abort(A, a)]);
        fx.clear();
        assert!(!tasks.start(b), "an aborted command does not begin");
        assert_eq!(tasks.end(b, &mut fx), Some(Abort::Told));
        assert_eq!(fx, [Effect::Over(wait(1))]);
        assert_eq!(tasks.end(a, &mut fx), Some(Abort::Silent));
        assert_eq!(fx[1..], [Effect::Over(wait(2))]);
        assert!(tasks.abort(wait(3), &mut fx, |_, _| Some(Abort::Silent)), "there is nothing to wait for");
    }

    #[test]
    fn who_waits_for_an_aborted_command_that_never_ran_goes_on() {
        let mut tasks = Tasks::default();
        let mut fx = Vec::new();
        let (running, _) = run(&mut tasks, span(0, 1, false), Order::Simple);
        let (swap, _) = run(&mut tasks, span(0, 1, true), Order::Simple);
        let (read, runs) = run(&mut tasks, span(0, 1, false), Order::Simple);
        assert!(!runs);
        tasks.abort(wait(1), &mut fx, |id, _| (id == swap).then_some(Abort::Silent));
        assert_eq!(fx, [Effect::Abort(A, swap), Effect::Run(A, read)]);
        tasks.end(running, &mut fx);
        tasks.end(swap, &mut fx);
        assert_eq!(fx[2..], [Effect::Over(wait(1))]);
        assert_eq!((tasks.strict, tasks.waiting), (0, 0));
    }
}
