//! Tasks: taking them, sending them within window and depth, ending them.

use scsi::Status;

use super::config::MAX_BURIED;
use super::event::{Answer, Body, Cause, Class, Command, Effect, FenceGen, Outcome, Report, TaskId, Transfer};
use super::link::{Full, Link};
use super::rules::Rule;
use super::window::unasked;
use super::{MAX_TASKS, Now, Session, TAG_BITS};
use crate::ids::{CmdSn, DataSn, Itt, PortalGroup, Ttt};
use crate::pdu::raw::{DataOut, ScsiCommand};

/// Answers without a full queue after which the depth grows again by one.
const RAMP: u32 = 64;

/// A task that its owner has submitted and not got back.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) command: Command,
    pub(super) state: State,
    /// When its owner submitted it.
    pub(super) since: Now,
    /// How often it was sent, not counting those that the target had no room for.
    pub(super) attempts: u8,
    /// Its owner wants it back.
    pub(super) unwanted: bool,
}

/// Where a task is.
#[derive(Debug)]
pub(super) enum State {
    /// In the queue.
    Queued,
    /// Waits for a proved nexus; never sent, or dead.
    Held,
    /// The target was busy: into the queue at this time.
    Delayed(Now),
    /// With the target.
    Sent(Sent),
    /// Its nexus, at this portal group, was lost, and it may still land.
    Lost(Option<PortalGroup>),
    /// Dead; its block is being read.
    Settling,
}

/// What is known about a task that is with the target.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) itt: Itt,
    pub(super) cmd_sn: CmdSn,
    /// When it is overdue.
    pub(super) due: Now,
    /// Whether an abort is wanted (or under way: see `Full::tmf`).
    pub(super) abort: bool,
    /// Bytes received in order.
    pub(super) received: u32,
    /// Bytes sent or promised in order.
    pub(super) sent: u32,
    /// The next Data-In's number.
    pub(super) data_sn: DataSn,
    /// The next R2T's number.
    pub(super) r2t_sn: DataSn,
}

impl Task {
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.state, State::Sent(_))
    }
}

impl Session {
    pub(super) fn task(&self, task: TaskId) -> Option<&Task> {
        self.tasks.get(usize::from(task.0))?.as_ref()
    }

    pub(super) fn task_mut(&mut self, task: TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(usize::from(task.0))?.as_mut()
    }

    /// Every task there is.
    pub(super) fn ids(&self) -> Vec<TaskId> {
        let here = self.tasks.iter().flatten();
        here.map(|t| t.command.task).collect()
    }

    /// The task that the target has under this tag.
    pub(super) fn sent(&self, itt: Itt) -> Option<(TaskId, &Task)> {
        let task = TaskId(u16::try_from(itt.0 & ((1 << TAG_BITS) - 1)).ok()?);
        let t = self.task(task)?;
        matches!(&t.state, State::Sent(s) if s.itt == itt).then_some((task, t))
    }

    /// What is known about it, to be changed.
    pub(super) fn sent_mut(&mut self, itt: Itt) -> Option<(Command, &mut Sent)> {
        let (task, _) = self.sent(itt)?;
        let t = self.task_mut(task)?;
        match &mut t.state {
            State::Sent(s) => Some((t.command, s)),
            _ => None,
        }
    }

    /// A tag for something that is no command.
    pub(super) fn control_tag(&mut self) -> Itt {
        self.tag(MAX_TASKS)
    }

    fn tag(&mut self, low: u16) -> Itt {
        // The highest count is left out: with the highest low part it would be "no task".
        self.tags = (self.tags + 1) % ((1 << (32 - TAG_BITS)) - 1);
        Itt(self.tags << TAG_BITS | u32::from(low))
    }

    pub(super) fn submit(&mut self, now: Now, command: Command, fx: &mut Vec<Effect>) {
        let task = command.task;
        let place = usize::from(task.0);
        if task.0 >= MAX_TASKS || self.closing.is_some() || self.task(task).is_some() {
            let cause = if self.closing.is_some() { Cause::ClosedHere } else { Cause::Full };
            fx.push(Effect::Done(task, Outcome::Lost(cause)));
            return;
        }
        if self.is_void(command.class) {
            fx.push(Effect::Done(task, Outcome::Fenced));
            return;
        }
        if self.tasks.len() <= place {
            self.tasks.resize_with(place + 1, || None);
        }
        self.tasks[place] = Some(Task { command, state: State::Held, since: now, attempts: 0, unwanted: false });
        self.release(now, task, fx);
    }

    /// Of a generation that was fenced.
    pub(super) fn is_void(&self, class: Class) -> bool {
        self.config.rules.has(Rule::PurgeAtFence) && class.generation().is_some_and(|g| g < self.fenced)
    }

    /// A held task goes into the queue, if the nexus is what it waits for. It was never sent, or is dead.
    pub(super) fn release(&mut self, now: Now, task: TaskId, fx: &mut Vec<Effect>) {
        let Some(t) = self.task(task) else { return };
        let class = t.command.class;
        if t.unwanted {
            return self.done(task, Outcome::Aborted, fx);
        }
        let Some(is) = self.may_go(class) else {
            if let Some(t) = self.task_mut(task) {
                t.state = State::Held;
            }
            // So that it does not wait for ever.
            return self.wake_at(now + self.config.timing.no_path);
        };
        if !is {
            return self.done(task, Outcome::Fenced, fx);
        }
        if let Some(t) = self.task_mut(task) {
            t.state = State::Queued;
        }
        self.queue.push_back(task);
    }

    /// Whether the present nexus is the right one for a task; none if it is not known yet.
    fn may_go(&self, class: Class) -> Option<bool> {
        if !matches!(self.link, Link::Full(_)) {
            return None;
        }
        match class {
            Class::Control => Some(true),
            Class::Read => self.proved.map(|_| true),
            Class::Write(g) | Class::CompareAndWrite(g) => {
                if !self.config.rules.has(Rule::WritesWaitForProof) {
                    return Some(true);
                }
                if !self.config.rules.has(Rule::PurgeAtFence) {
                    return self.proved.map(|_| true);
                }
                // Of a later generation than the proof: the proof is stale, a newer one is on its way.
                self.proved.filter(|p| *p >= g).map(|p| p == g)
            }
        }
    }

    /// Sends what may be sent.
    pub(super) fn pump(&mut self, now: Now, fx: &mut Vec<Effect>) {
        while let Some(task) = self.queue.front().copied() {
            let kept = self.config.rules.has(Rule::WindowKept);
            let Link::Full(full) = &mut self.link else { return };
            if full.out_by.is_none() && (full.window.is_open() || !kept) && self.in_flight < self.depth {
                full.closed_since = None;
                self.queue.pop_front();
                self.send_command(now, task, fx);
            } else {
                return self.ping_if_closed(now, fx);
            }
        }
        self.send_held_back(fx);
    }

    fn send_command(&mut self, now: Now, task: TaskId, fx: &mut Vec<Effect>) {
        let stays = self.config.rules.has(Rule::TagStaysTaken);
        let itt = if stays { self.tag(task.0) } else { Itt(u32::from(task.0)) };
        let due = now + self.config.timing.task;
        self.wake_at(due);
        let Link::Full(full) = &mut self.link else { return };
        let Some(t) = self.tasks.get_mut(usize::from(task.0)).and_then(Option::as_mut) else { return };
        let cmd_sn = full.window.take();
        self.next_cmd_sn = full.window.next;
        let mut sent =
            Sent { itt, cmd_sn, due, abort: false, received: 0, sent: 0, data_sn: DataSn(0), r2t_sn: DataSn(0) };
        send(full, &t.command, &mut sent, fx);
        t.attempts = t.attempts.saturating_add(1);
        t.state = State::Sent(sent);
        self.in_flight += 1;
    }

    /// The target has answered a task.
    pub(super) fn answered(&mut self, now: Now, itt: Itt, answer: Answer, fx: &mut Vec<Effect>) {
        let Some((task, t)) = self.sent(itt) else { return };
        let again = now.since(t.since) < self.config.timing.no_path && !t.unwanted;
        self.forget(task);
        match answer.status {
            // "Not executed, later" (SAM-5, 5.3.1).
            Status::Busy | Status::TaskSetFull if again => {
                if answer.status == Status::TaskSetFull {
                    self.depth = self.in_flight.max(1);
                    self.answered = 0;
                    fx.push(Effect::Report(Report::Depth(self.depth)));
                }
                self.delay(now, task);
            }
            _ => {
                self.answered += 1;
                if self.answered >= RAMP && self.depth < self.config.depth {
                    (self.answered, self.depth) = (0, self.depth + 1);
                }
                self.done(task, Outcome::Answered(answer), fx);
            }
        }
    }

    /// The target has not executed it and will not: once more, later.
    pub(super) fn delay(&mut self, now: Now, task: TaskId) {
        let at = now + self.config.timing.busy;
        if let Some(t) = self.task_mut(task) {
            t.state = State::Delayed(at);
            t.attempts = t.attempts.saturating_sub(1);
        }
        self.wake_at(at);
    }

    /// It is not with the target any more; where it is instead is the caller's to say.
    pub(super) fn forget(&mut self, task: TaskId) -> Option<Itt> {
        let t = self.task_mut(task)?;
        let State::Sent(sent) = &t.state else { return None };
        let itt = sent.itt;
        t.state = State::Held;
        self.in_flight -= 1;
        if let Link::Full(full) | Link::LoggingOut(full, _) = &mut self.link {
            full.held_back.retain(|o| o.itt != itt);
        }
        Some(itt)
    }

    /// The same for a task that was not answered: a late word about it is to be expected.
    pub(super) fn unsend(&mut self, task: TaskId) {
        let Some(itt) = self.forget(task) else { return };
        if self.buried.len() == MAX_BURIED {
            self.buried.pop_front();
        }
        self.buried.push_back(itt);
    }

    /// A task's end.
    pub(super) fn done(&mut self, task: TaskId, outcome: Outcome, fx: &mut Vec<Effect>) {
        self.forget(task);
        let Some(t) = self.tasks.get_mut(usize::from(task.0)).and_then(Option::take) else { return };
        if matches!(t.state, State::Queued) {
            self.queue.retain(|q| *q != task);
        }
        fx.push(Effect::Done(task, outcome));
    }

    /// Sends what an R2T asked for. With its rule missing, behind the commands that wait.
    pub(super) fn send_data(&mut self, out: Out, fx: &mut Vec<Effect>) {
        let passes = self.config.rules.has(Rule::DataOutPassesWindow) || self.queue.is_empty();
        let Link::Full(full) = &mut self.link else { return };
        if passes {
            data_out(full, &out, fx);
        } else {
            full.held_back.push(out);
        }
    }

    fn send_held_back(&mut self, fx: &mut Vec<Effect>) {
        let Link::Full(full) = &mut self.link else { return };
        for out in std::mem::take(&mut full.held_back) {
            data_out(full, &out, fx);
        }
    }

    /// Every generation below is void.
    pub(super) fn raise(&mut self, generation: FenceGen) {
        self.fenced = self.fenced.max(generation);
    }
}

/// A run of Data-Outs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    pub(super) task: TaskId,
    pub(super) itt: Itt,
    pub(super) lun: [u8; 8],
    pub(super) ttt: Ttt,
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// The command, with what of its data travels unasked.
fn send(full: &Full, command: &Command, sent: &mut Sent, fx: &mut Vec<Effect>) {
    let mut bhs = ScsiCommand::default();
    let mut body = Body::Empty;
    let mut unsolicited = 0;
    bhs.flags = ScsiCommand::SIMPLE | ScsiCommand::FINAL;
    match command.transfer {
        Transfer::None => {}
        Transfer::In(_) => bhs.flags |= ScsiCommand::READ,
        Transfer::Out(len) => {
            bhs.flags |= ScsiCommand::WRITE;
            let unasked = unasked(&full.params, len);
            if unasked.immediate > 0 {
                body = Body::Task { task: command.task, offset: 0, len: unasked.immediate };
                bhs = bhs.with_data(unasked.immediate as usize);
            }
            unsolicited = unasked.unsolicited;
            if unsolicited > 0 {
                bhs.flags &= !ScsiCommand::FINAL;
            }
            sent.sent = unasked.immediate;
        }
    }
    bhs.lun = command.lun.to_bytes();
    bhs.itt = sent.itt.0.into();
    bhs.expected_len = command.transfer.len().into();
    bhs.cmd_sn = sent.cmd_sn.0.into();
    bhs.exp_stat_sn = full.exp_stat_sn.0.into();
    bhs.cdb = command.cdb;
    fx.push(Effect::Send { conn: full.conn, bhs: bhs.bhs(), body });
    if unsolicited > 0 {
        let offset = sent.sent;
        sent.sent += unsolicited;
        let out = Out {
            task: command.task,
            itt: sent.itt,
            lun: command.lun.to_bytes(),
            ttt: Ttt::NONE,
            offset,
            len: unsolicited,
        };
        data_out(full, &out, fx);
    }
}

/// Data-Outs of one sequence: segments as long as the target takes them, the last one final.
fn data_out(full: &Full, out: &Out, fx: &mut Vec<Effect>) {
    let end = out.offset + out.len;
    let mut offset = out.offset;
    let mut data_sn = DataSn(0);
    while offset < end {
        let len = (end - offset).min(full.params.max_send_segment);
        let mut bhs = DataOut::default().with_data(len as usize);
        bhs.flags = if offset + len == end { ScsiCommand::FINAL } else { 0 };
        bhs.lun = out.lun;
        bhs.itt = out.itt.0.into();
        bhs.ttt = out.ttt.0.into();
        bhs.exp_stat_sn = full.exp_stat_sn.0.into();
        bhs.data_sn = data_sn.0.into();
        bhs.buffer_offset = offset.into();
        let body = Body::Task { task: out.task, offset, len };
        fx.push(Effect::Send { conn: full.conn, bhs: bhs.bhs(), body });
        offset += len;
        data_sn = data_sn.next();
    }
}
