//! An initiator's session over all its connections, sans-IO: `handle(now, Event, &mut Vec<Effect>)`.
//!
//! ```text
//! Idle ─ Open ─► Connecting ─► Login ─► Full ─ Close, drained ─► LoggingOut ─► Ended
//!                    ▲           │        │ lost: silent, broken, closed, asked
//!                    └─ Waiting ◄┴────────┘            (a login that makes no sense: Ended)
//! ```
//! One connection at a time, recovery level 0: a lost connection is a lost nexus. The next login is under the same
//! ISID with TSIH 0, in the security stage: the target then ends the older session and its tasks (RFC 7143, 6.3.5).
//!
//! # What becomes of tasks
//! ```text
//!            proved nexus, window            answer
//! Waiting ──────────────────────► Sent ──────────────► done
//!    ▲                             │ │ timed out: abort, reset of the unit, loss of the nexus
//!    │     dead and may be resent  │ └──────────┐
//!    └───────────────────────── Lost ◄──────────┘      compare-and-write: dead ─► Settling ─ found ─► done or Waiting
//! ```
//! A sent task without an answer is *dead* (nothing of it can land any more) when its abort or the reset of its unit
//! was answered, when the target said that it ended it, or when its session was reinstated at the same portal group.
//! Only a dead write is sent again, and only on a nexus that was proved to be of its fence generation. Whoever owns
//! the session makes that proof: [`Effect::Up`] asks for it, [`Event::Proved`] brings it.
//!
//! # Bounds
//! [`MAX_TASKS`] tasks; each sent at most [`MAX_ATTEMPTS`] times; every wait has a time in [`Timing`]. Whatever a target
//! sends leads to an answer, a typed [`Cause`] and a new login, or the end; never to a panic.

mod config;
mod event;
mod link;
mod receive;
mod replay;
pub mod rules;
mod tasks;
mod timeout;
mod window;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use config::{Config, MAX_ATTEMPTS, MAX_BURIED, MAX_HOPS, MAX_SHORT_LIVES, MAX_TASKS, Now, Timing};
pub use event::{
    Answer, Body, Cause, Class, Command, ConnId, Effect, Event, FenceGen, Found, Outcome, Place, Report, TaskId,
    Transfer,
};
use link::{Link, TextWork};
use tasks::Task;

use scsi::LunAddress;

use crate::discovery::Portal;
use crate::ids::{CmdSn, Itt, PortalGroup};
use crate::pdu::raw::DataIn;
use crate::pdu::{Bhs, Opcode};

/// An answer to a task management request (RFC 7143, 11.6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskAnswer {
    /// Done: the tasks are dead.
    Complete,
    /// The target knows no such task: it is dead.
    NoTask,
    /// Any other: nothing is known about the task.
    Refused(u8),
}

impl TaskAnswer {
    fn of(response: u8) -> TaskAnswer {
        match response {
            0 => TaskAnswer::Complete,
            1 => TaskAnswer::NoTask,
            other => TaskAnswer::Refused(other),
        }
    }
}

/// The part of a task tag that says which task; the rest counts.
const TAG_BITS: u32 = 10;
const _: () = assert!(MAX_TASKS as u32 == (1 << TAG_BITS) - 1);

/// The session.
#[derive(Debug)]
pub struct Session {
    config: Config,
    link: Link,
    /// The last connection's number.
    conn: u64,
    /// The last nexus' number.
    nexus: u64,
    /// The generation that the present nexus was proved to be of.
    proved: Option<FenceGen>,
    /// The highest generation that is void from below.
    fenced: FenceGen,
    tasks: Vec<Option<Task>>,
    /// What may be sent, in this order.
    queue: VecDeque<TaskId>,
    /// Commands that are sent and not answered.
    in_flight: u32,
    /// No more than so many of them.
    depth: u32,
    /// Since the depth was changed.
    answered: u32,
    /// Count of tags.
    tags: u32,
    buried: VecDeque<Itt>,
    text: Option<TextWork>,
    /// Units that the owner wants reset, in this order.
    resets: VecDeque<LunAddress>,
    /// The session's next command number, over all connections.
    next_cmd_sn: CmdSn,
    short_lives: u8,
    failures: u32,
    hops: u8,
    /// Where a temporary redirect led.
    elsewhere: Option<Portal>,
    /// The owner wants the end; by then.
    closing: Option<Now>,
    /// Since when there is no proved nexus.
    down_since: Option<Now>,
    /// Not later than this something is due.
    wake: Option<Now>,
}

impl Session {
    /// A session that waits for [`Event::Open`].
    pub fn new(config: Config) -> Session {
        let depth = config.depth.clamp(1, u32::from(MAX_TASKS));
        Session {
            config,
            link: Link::Idle,
            conn: 0,
            nexus: 0,
            proved: None,
            fenced: FenceGen(0),
            tasks: Vec::new(),
            queue: VecDeque::new(),
            in_flight: 0,
            depth,
            answered: 0,
            tags: 0,
            buried: VecDeque::new(),
            text: None,
            resets: VecDeque::new(),
            next_cmd_sn: CmdSn(1),
            short_lives: 0,
            failures: 0,
            hops: 0,
            elsewhere: None,
            closing: None,
            down_since: None,
            wake: None,
        }
    }

    /// When [`Event::Tick`] is due at the latest; none if nothing waits for time.
    pub fn next_tick(&self) -> Option<Now> {
        self.wake
    }

    /// Commands that are sent and not answered.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.link, Link::Ended(_))
    }

    /// Whether something of an older nexus, at another portal group, may still land: it waits for [`Event::Preempted`] or
    /// for a login there.
    pub fn landing(&self) -> bool {
        self.tasks.iter().flatten().any(|t| matches!(t.state, tasks::State::Lost(_)))
    }

    /// The target port of the present nexus.
    pub fn group(&self) -> Option<PortalGroup> {
        match &self.link {
            Link::Full(full) | Link::LoggingOut(full, _) => full.group,
            _ => None,
        }
    }

    /// Where the data of this PDU belong. Never beyond a task's memory, whatever the header says.
    pub fn place(&self, bhs: &Bhs) -> Place {
        if bhs.kind() != Some(Opcode::DataIn) {
            return Place::Inline;
        }
        let data_in = DataIn::of(bhs);
        let (offset, len) = (data_in.buffer_offset.get(), data_in.data_segment());
        let fits =
            |t: &Task| matches!(t.command.transfer, Transfer::In(n) if offset.checked_add(len).is_some_and(|e| e <= n));
        match self.sent(bhs.task()) {
            Some((task, t)) if fits(t) && self.in_order(t, &data_in) => Place::Task { task, offset },
            _ => Place::Nowhere,
        }
    }

    /// Takes an event and says what is to be done, in this order.
    pub fn handle(&mut self, now: Now, event: Event<'_>, fx: &mut Vec<Effect>) {
        if let Link::Ended(cause) = &self.link {
            Session::after_the_end(cause.clone(), &event, fx);
            return;
        }
        match event {
            Event::Open => self.open(now, fx),
            Event::Connected { conn, entropy } => self.connected(now, conn, entropy, fx),
            Event::Lost { conn, cause } if self.is_current(conn) => self.lost(now, cause, fx),
            Event::Pdu { conn, bhs, data, intact } if self.is_current(conn) => {
                if let Err(cause) = self.received(now, &bhs, data, intact, fx) {
                    self.lost(now, cause, fx);
                }
            }
            Event::Lost { .. } | Event::Pdu { .. } => {}
            Event::Submit(command) => self.submit(now, command, fx),
            Event::Abort(task) => self.abort_wanted(now, task, fx),
            Event::Text(body) => self.text_wanted(now, body, fx),
            Event::Proved { nexus, generation } => self.prove(now, nexus, generation, fx),
            Event::Unregistered { nexus } if nexus == self.nexus => self.unregistered(now, fx),
            Event::Unregistered { .. } => {}
            Event::Preempted => self.preempted(now, fx),
            Event::ResetUnit(lun) => self.reset_wanted(now, lun, fx),
            Event::Fenced(generation) => self.fence(now, generation, fx),
            Event::Settled { task, found } => self.settled(now, task, found, fx),
            Event::GiveUp => self.give_up(now, fx),
            Event::Close => self.close(now, fx),
            Event::Tick => self.tick(now, fx),
        }
        self.pump(now, fx);
        self.check();
    }

    /// Every task that comes after the end is told so.
    fn after_the_end(cause: Cause, event: &Event<'_>, fx: &mut Vec<Effect>) {
        match event {
            Event::Submit(command) => fx.push(Effect::Done(command.task, Outcome::Lost(cause))),
            Event::Text(_) => fx.push(Effect::Text(Err(cause))),
            Event::ResetUnit(lun) => fx.push(Effect::UnitReset(*lun, false)),
            _ => {}
        }
    }

    /// Not later than `at`, [`Event::Tick`] has something to do.
    fn wake_at(&mut self, at: Now) {
        if self.wake.is_none_or(|w| at < w) {
            self.wake = Some(at);
        }
    }

    /// What always holds between two events.
    fn check(&self) {
        debug_assert_eq!(
            self.in_flight as usize,
            self.tasks.iter().flatten().filter(|t| t.is_sent()).count(),
            "the count of sent tasks is right"
        );
        debug_assert!(
            self.in_flight == 0 || matches!(self.link, Link::Full(_) | Link::LoggingOut(..)),
            "tasks are in flight only where there is a nexus"
        );
        debug_assert!(self.wake.is_some() || matches!(self.link, Link::Idle | Link::Ended(_)), "somebody will wake it");
    }
}
