//! What is overdue: pings, logins, tasks. A task's abort escalates: ABORT TASK, LOGICAL UNIT RESET, loss of the nexus.
//!
//! Each step is taken when the one before was refused or not answered in time. A target reset is not among them: it
//! would hurt every host of the target, and a reinstated session proves as much.

use scsi::LunAddress;

use super::event::{Body, Cause, Effect, Outcome, Report};
use super::link::{Full, Link, Tmf};
use super::rules::Rule;
use super::tasks::{State, Task};
use super::{Now, Session, TaskAnswer};
use crate::ids::{CmdSn, Itt};
use crate::pdu::FINAL;
use crate::pdu::raw::TaskRequest;

const ABORT_TASK: u8 = 1;
const LOGICAL_UNIT_RESET: u8 = 5;

impl Session {
    /// Time has passed: does what is due, and finds out when to look again.
    pub(super) fn tick(&mut self, now: Now, fx: &mut Vec<Effect>) {
        self.wake = None;
        self.tick_link(now, fx);
        self.tick_tasks(now, fx);
        self.tick_text(now, fx);
        self.look_ahead(now);
    }

    fn tick_link(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let t = self.config.timing;
        match &self.link {
            Link::Waiting { until } if *until <= now => self.connect(now, fx),
            Link::Connecting { due, .. } if *due <= now => self.lost(now, Cause::Connect, fx),
            Link::Login { due, .. } if *due <= now => self.lost(now, Cause::LoginTimeout, fx),
            Link::LoggingOut(_, leaving) if leaving.due <= now => self.lost(now, Cause::Silent, fx),
            Link::Full(full) => {
                let alive = full.ping.as_ref().map_or(full.last_heard, |p| p.sent.max(full.last_heard));
                if full.ping.is_some() && now.since(alive) >= t.ping_timeout {
                    return self.lost(now, Cause::Silent, fx);
                }
                // Pings are answered, and the window stays closed: the target has lost count of its tasks.
                if full.closed_since.is_some_and(|since| now.since(since) >= t.task) {
                    return self.lost(now, Cause::Stuck, fx);
                }
                if full.out_by.is_some_and(|by| by <= now) {
                    return self.log_out(now, true, fx);
                }
                if full.tmf.as_ref().is_some_and(|tmf| tmf.due <= now) {
                    return self.unmanaged(now, fx);
                }
                if full.ping.is_none() && now.since(full.last_heard) >= t.ping_after {
                    self.ping(now, fx);
                }
            }
            _ => {}
        }
    }

    fn tick_tasks(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let no_path = self.down_since.is_some_and(|s| now.since(s) >= self.config.timing.no_path);
        for task in self.ids() {
            let Some(t) = self.task_mut(task) else { continue };
            match &mut t.state {
                State::Delayed(at) if *at <= now => self.release(now, task, fx),
                State::Held if no_path => self.done(task, Outcome::Lost(Cause::NoPath), fx),
                State::Sent(sent) if sent.due <= now && !sent.abort => {
                    sent.abort = true;
                    fx.push(Effect::Report(Report::Aborting(task)));
                    if !self.config.rules.has(Rule::AbortBeforeReissue) {
                        self.died(now, task, fx);
                    }
                }
                _ => {}
            }
        }
        self.manage(now, fx);
        let drained = self.in_flight == 0 || self.closing.is_some_and(|by| by <= now);
        if self.closing.is_some() && drained && matches!(self.link, Link::Full(_)) {
            self.log_out(now, false, fx);
        }
    }

    fn tick_text(&mut self, now: Now, fx: &mut Vec<Effect>) {
        if self.text.as_ref().is_some_and(|t| t.due <= now) {
            self.text = None;
            fx.push(Effect::Text(Err(Cause::TimedOut)));
            // Its answer may still come and would be an answer to no text.
            if matches!(self.link, Link::Full(_)) {
                self.lost(now, Cause::Silent, fx);
            }
        }
    }

    /// When something is due next.
    fn look_ahead(&mut self, now: Now) {
        let t = self.config.timing;
        let mut next: Vec<Now> = Vec::new();
        match &self.link {
            Link::Idle | Link::Ended(_) => {}
            Link::Waiting { until } => next.push(*until),
            Link::Connecting { due, .. } | Link::Login { due, .. } => next.push(*due),
            Link::LoggingOut(_, leaving) => next.push(leaving.due),
            Link::Full(full) => {
                next.push(match &full.ping {
                    Some(ping) => ping.sent.max(full.last_heard) + t.ping_timeout,
                    None => full.last_heard + t.ping_after,
                });
                next.extend(full.tmf.as_ref().map(|tmf| tmf.due));
                next.extend(full.out_by);
                next.extend(full.closed_since.map(|since| since + t.task));
                next.extend(self.closing);
                if !self.queue.is_empty() && self.in_flight == 0 {
                    next.push(now + t.busy);
                }
            }
        }
        next.extend(self.text.as_ref().map(|t| t.due));
        let down = self.down_since;
        next.extend(self.tasks.iter().flatten().filter_map(|task| match &task.state {
            State::Delayed(at) => Some(*at),
            State::Sent(sent) if !sent.abort => Some(sent.due),
            State::Held => down.map(|d| d + t.no_path),
            _ => None,
        }));
        // A millisecond ahead at least: what is due and cannot be done yet must not spin.
        let soonest = now + std::time::Duration::from_millis(1);
        if let Some(at) = next.into_iter().min() {
            self.wake_at(at.max(soonest));
        }
    }

    /// The owner wants a unit reset. Without a nexus nothing is: a reset that is sent later says nothing more, but nobody would know when.
    pub(super) fn reset_wanted(&mut self, now: Now, lun: LunAddress, fx: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Full(_)) {
            return fx.push(Effect::UnitReset(lun, false));
        }
        self.resets.push_back(lun);
        self.manage(now, fx);
    }

    /// The nexus is lost, and with it the answers to resets that the owner wanted.
    pub(super) fn resets_lost(&mut self, tmf: Option<&Tmf>, fx: &mut Vec<Effect>) {
        let sent = tmf.filter(|tmf| tmf.wanted).map(|tmf| tmf.lun);
        fx.extend(sent.into_iter().chain(self.resets.drain(..)).map(|lun| Effect::UnitReset(lun, false)));
    }

    /// Sends the next abort, if none is under way: targets need take one at a time only.
    pub(super) fn manage(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let wanted = |t: &Task| match &t.state {
            State::Sent(s) if s.abort => Some((s.itt, s.cmd_sn, t.command.lun)),
            _ => None,
        };
        if !matches!(&self.link, Link::Full(full) if full.tmf.is_none()) {
            return;
        }
        if let Some(lun) = self.resets.pop_front() {
            return self.reset_unit(now, lun, true, fx);
        }
        let Some((itt, cmd_sn, lun)) = self.tasks.iter().flatten().find_map(wanted) else { return };
        let due = now + self.config.timing.abort;
        let tag = self.control_tag();
        let Link::Full(full) = &mut self.link else { return };
        fx.push(task_request(full, tag, ABORT_TASK, lun, itt, cmd_sn));
        full.tmf = Some(Tmf { tag, abort: Some(itt), wanted: false, lun, before: full.window.next, due });
        self.wake_at(due);
    }

    /// A task management request was answered.
    pub(super) fn managed(
        &mut self,
        now: Now,
        tmf: &Tmf,
        answer: TaskAnswer,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Cause> {
        match (tmf.abort, answer) {
            // "No such task": the target knows it no more, and answers come in order. It is dead.
            (Some(itt), TaskAnswer::Complete | TaskAnswer::NoTask) => {
                if let Some((task, _)) = self.sent(itt) {
                    self.died(now, task, fx);
                }
            }
            (None, TaskAnswer::Complete) => {
                self.unit_dead(now, tmf.lun, tmf.before, fx);
                if tmf.wanted {
                    fx.push(Effect::UnitReset(tmf.lun, true));
                }
            }
            (Some(_), TaskAnswer::Refused(_)) => self.reset_unit(now, tmf.lun, false, fx),
            (None, _) if tmf.wanted => fx.push(Effect::UnitReset(tmf.lun, false)),
            (None, _) => return Err(Cause::Stuck),
        }
        self.manage(now, fx);
        Ok(())
    }

    /// A task management request was not answered in time.
    fn unmanaged(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Link::Full(full) = &mut self.link else { return };
        match full.tmf.take() {
            // Its task may have been answered meanwhile: then nothing is stuck but the request.
            Some(Tmf { abort: Some(_), lun, .. }) => self.reset_unit(now, lun, false, fx),
            tmf => {
                self.resets_lost(tmf.as_ref(), fx);
                self.lost(now, Cause::Stuck, fx);
            }
        }
    }

    fn reset_unit(&mut self, now: Now, lun: LunAddress, wanted: bool, fx: &mut Vec<Effect>) {
        let due = now + self.config.timing.reset;
        let tag = self.control_tag();
        let Link::Full(full) = &mut self.link else { return };
        fx.push(Effect::Report(Report::ResetUnit(lun)));
        fx.push(task_request(full, tag, LOGICAL_UNIT_RESET, lun, Itt::NONE, CmdSn(0)));
        full.tmf = Some(Tmf { tag, abort: None, wanted, lun, before: full.window.next, due });
        self.wake_at(due);
    }
}

fn task_request(full: &Full, tag: Itt, function: u8, lun: LunAddress, of: Itt, ref_cmd_sn: CmdSn) -> Effect {
    let bhs = TaskRequest {
        flags: FINAL | function,
        lun: lun.to_bytes(),
        itt: tag.0.into(),
        ref_task: of.0.into(),
        cmd_sn: full.window.next.0.into(),
        exp_stat_sn: full.exp_stat_sn.0.into(),
        ref_cmd_sn: ref_cmd_sn.0.into(),
        ..TaskRequest::default()
    };
    Effect::Send { conn: full.conn, bhs: bhs.bhs(), body: Body::Empty }
}
