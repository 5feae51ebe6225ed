//! What comes from the target. Each PDU is judged before anything of it is believed; an error ends the connection.

use scsi::{LunAddress, Status};

use super::event::{Answer, Body, Cause, Class, Effect, Outcome, Report, TaskId, Transfer};
use super::link::{Full, Link, nop};
use super::rules::Rule;
use super::tasks::{Out, State, Task};
use super::{Now, Session, TaskAnswer};
use crate::ids::{CmdSn, DataSn, Itt, StatSn, Ttt};
use crate::pdu::raw::{Async, DataIn, LogoutResponse, NopIn, R2t, Reject, ScsiResponse, TaskResponse, TextResponse};
use crate::pdu::{Bhs, FINAL, Opcode};

/// How long tasks may still be answered after the target asked for a logout: below every limit that targets set.
const DRAIN_FOR_LOGOUT: std::time::Duration = std::time::Duration::from_millis(500);

/// Reasons of a Reject (RFC 7143, 11.17.1).
const REJECT_DATA_DIGEST: u8 = 2;
const REJECT_IMMEDIATE: u8 = 6;
const REJECT_RESOURCES: u8 = 0x0a;
const REJECT_LOGOUT: u8 = 0x0c;

/// The end of a task as a response or the last Data-In tells it.
struct Ending {
    status: Status,
    sense: Vec<u8>,
    overflow: bool,
    underflow: bool,
    residual: u32,
}

impl Session {
    /// A whole PDU of the present connection.
    pub(super) fn received(
        &mut self,
        now: Now,
        bhs: &Bhs,
        data: &[u8],
        intact: bool,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Cause> {
        let Some(opcode) = bhs.kind() else { return Err(Cause::Protocol("an unknown opcode")) };
        match &mut self.link {
            Link::Login { .. } if opcode == Opcode::LoginResponse => return self.login_answer(now, bhs, data, fx),
            Link::Login { .. } => return Err(Cause::Protocol("no login response during the login")),
            Link::Full(full) | Link::LoggingOut(full, _) => full.last_heard = now,
            _ => return Ok(()),
        }
        if !intact {
            return Err(Cause::DataDigest);
        }
        self.numbers(opcode, bhs)?;
        match opcode {
            Opcode::ScsiResponse => self.scsi_response(now, &ScsiResponse::of(bhs), data, fx),
            Opcode::DataIn => self.data_in(now, &DataIn::of(bhs), fx),
            Opcode::R2t => self.r2t(&R2t::of(bhs), fx),
            Opcode::NopIn => self.nop_in(&NopIn::of(bhs), data, fx),
            Opcode::TaskResponse => self.task_response(now, &TaskResponse::of(bhs), fx),
            Opcode::TextResponse => self.text_response(&TextResponse::of(bhs), data, fx),
            Opcode::LogoutResponse => self.logout_response(now, &LogoutResponse::of(bhs), fx),
            Opcode::Async => self.async_message(now, &Async::of(bhs), data, fx),
            Opcode::Reject => self.reject(now, &Reject::of(bhs), data, fx),
            _ => Err(Cause::Protocol("a PDU that may not come in the full feature phase")),
        }
    }

    /// StatSN, ExpCmdSN and MaxCmdSN lie at the same place in every PDU of a target.
    fn numbers(&mut self, opcode: Opcode, bhs: &Bhs) -> Result<(), Cause> {
        let strict = self.config.rules.has(Rule::StatSnWithoutGap);
        let (Link::Full(full) | Link::LoggingOut(full, _)) = &mut self.link else { return Ok(()) };
        let n = NopIn::of(bhs);
        let carries_status = match opcode {
            Opcode::R2t => false,
            Opcode::DataIn => bhs.flags & DataIn::STATUS != 0,
            Opcode::NopIn => bhs.task() != Itt::NONE,
            _ => true,
        };
        if carries_status {
            let stat_sn = StatSn(n.stat_sn.get());
            if strict && stat_sn != full.exp_stat_sn {
                return Err(Cause::Protocol("a StatSN out of sequence: a status is lost"));
            }
            full.exp_stat_sn = stat_sn.next();
        }
        full.window.update(CmdSn(n.exp_cmd_sn.get()), CmdSn(n.max_cmd_sn.get()));
        Ok(())
    }

    /// Whether a Data-In is the next of its task.
    pub(super) fn in_order(&self, t: &Task, d: &DataIn) -> bool {
        let State::Sent(sent) = &t.state else { return false };
        let next = d.data_sn.get() == sent.data_sn.0 && d.buffer_offset.get() == sent.received;
        next || !self.config.rules.has(Rule::DataInInOrder)
    }

    fn data_in(&mut self, now: Now, d: &DataIn, fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let itt = Itt(d.itt.get());
        let Some((_, t)) = self.sent(itt) else { return self.of_no_task(itt) };
        let Transfer::In(expected) = t.command.transfer else {
            return Err(Cause::Protocol("data for a command that reads nothing"));
        };
        let len = d.data_segment();
        if d.buffer_offset.get().checked_add(len).is_none_or(|end| end > expected) {
            return Err(Cause::Protocol("data beyond what was asked for"));
        }
        if !self.in_order(t, d) {
            return Err(Cause::Protocol("data out of order: some are lost"));
        }
        if d.flags & DataIn::STATUS != 0 && d.flags & FINAL == 0 {
            return Err(Cause::Protocol("a status before the last data"));
        }
        if let Some((_, sent)) = self.sent_mut(itt) {
            sent.received = sent.received.saturating_add(len);
            sent.data_sn = sent.data_sn.next();
        }
        if d.flags & DataIn::STATUS == 0 {
            return Ok(());
        }
        let ending = Ending {
            status: Status::from_byte(d.status),
            sense: Vec::new(),
            overflow: d.flags & DataIn::OVERFLOW != 0,
            underflow: d.flags & DataIn::UNDERFLOW != 0,
            residual: d.residual.get(),
        };
        self.ended(now, itt, ending, fx)
    }

    fn scsi_response(&mut self, now: Now, r: &ScsiResponse, data: &[u8], fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let itt = Itt(r.itt.get());
        let Some((task, t)) = self.sent(itt) else { return self.of_no_task(itt) };
        if r.response != 0 {
            self.done(task, Outcome::Lost(Cause::TargetFailure(r.response)), fx);
            return Ok(());
        }
        if let (State::Sent(sent), Transfer::In(_)) = (&t.state, t.command.transfer) {
            // Some targets leave it at 0.
            let told = r.exp_data_sn.get();
            if told != 0 && DataSn(told) != sent.data_sn && self.config.rules.has(Rule::ReadIsWhole) {
                return Err(Cause::Protocol("fewer data came than the target sent"));
            }
        }
        let ending = Ending {
            status: Status::from_byte(r.status),
            sense: sense(data),
            overflow: r.flags & ScsiResponse::OVERFLOW != 0,
            underflow: r.flags & ScsiResponse::UNDERFLOW != 0,
            residual: r.residual.get(),
        };
        self.ended(now, itt, ending, fx)
    }

    fn ended(&mut self, now: Now, itt: Itt, e: Ending, fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let Some((_, t)) = self.sent(itt) else { return Ok(()) };
        let State::Sent(sent) = &t.state else { return Ok(()) };
        let expected = t.command.transfer.len();
        let left = if e.underflow { e.residual } else { 0 };
        let Some(moved) = expected.checked_sub(left) else {
            return Err(Cause::Protocol("a residual larger than what was asked for"));
        };
        let whole = match t.command.transfer {
            Transfer::In(_) => sent.received == moved || !self.config.rules.has(Rule::ReadIsWhole),
            // Data that were never sent cannot have been written.
            Transfer::Out(_) => sent.sent >= moved,
            Transfer::None => true,
        };
        if e.status == Status::Good && !whole {
            return Err(Cause::Protocol("a command is said to be done, and not all of its data were moved"));
        }
        let overflow = if e.overflow { e.residual } else { 0 };
        self.answered(now, itt, Answer { status: e.status, sense: e.sense, moved, overflow }, fx);
        self.ask_next(now, fx);
        Ok(())
    }

    /// A late word about an aborted task does no harm; about one that never was, it does.
    fn of_no_task(&self, itt: Itt) -> Result<(), Cause> {
        if self.buried.contains(&itt) { Ok(()) } else { Err(Cause::Protocol("an answer to no task")) }
    }

    fn r2t(&mut self, r: &R2t, fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let (itt, ttt) = (Itt(r.itt.get()), Ttt(r.ttt.get()));
        let within = self.config.rules.has(Rule::R2tWithinTask);
        let max_burst = match &self.link {
            Link::Full(full) => full.params.max_burst,
            // After the logout request nothing more is sent; the task dies with the session.
            _ => return Ok(()),
        };
        let Some((command, sent)) = self.sent_mut(itt) else { return self.of_no_task(itt) };
        let Transfer::Out(expected) = command.transfer else {
            return Err(Cause::Protocol("an R2T for a command that writes nothing"));
        };
        let (offset, len) = (r.buffer_offset.get(), r.desired_len.get());
        let fits = offset.checked_add(len).is_some_and(|end| end <= expected);
        if within && (!fits || len == 0 || len > max_burst || offset != sent.sent || r.r2t_sn.get() != sent.r2t_sn.0) {
            return Err(Cause::Protocol("an R2T for other data than the next of its task"));
        }
        if ttt == Ttt::NONE {
            return Err(Cause::Protocol("an R2T without a tag"));
        }
        sent.r2t_sn = sent.r2t_sn.next();
        sent.sent = offset.saturating_add(len).max(sent.sent);
        let out = Out { task: command.task, itt, lun: r.lun, ttt, offset, len };
        self.send_data(out, fx);
        Ok(())
    }

    fn nop_in(&mut self, n: &NopIn, data: &[u8], fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let (itt, ttt) = (Itt(n.itt.get()), Ttt(n.ttt.get()));
        let silent = self.config.rules.has(Rule::SilentAfterLogout);
        let echoed = self.config.rules.has(Rule::PingEchoed);
        let leaving = matches!(self.link, Link::LoggingOut(..));
        let (Link::Full(full) | Link::LoggingOut(full, _)) = &mut self.link else { return Ok(()) };
        if itt != Itt::NONE {
            match &full.ping {
                Some(ping) if ping.tag == itt => full.ping = None,
                _ => return Err(Cause::Protocol("an answer to no ping")),
            }
        } else if ttt != Ttt::NONE && !(leaving && silent) {
            let mut bhs = nop(full).with_data(data.len());
            // The tag is meaningless without the unit that it was given for.
            bhs.lun = if echoed { n.lun } else { [0; 8] };
            bhs.ttt = ttt.0.into();
            let body = if data.is_empty() { Body::Empty } else { Body::Inline(data.to_vec()) };
            fx.push(Effect::Send { conn: full.conn, bhs: bhs.bhs(), body });
        }
        Ok(())
    }

    fn task_response(&mut self, now: Now, r: &TaskResponse, fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let (Link::Full(full) | Link::LoggingOut(full, _)) = &mut self.link else { return Ok(()) };
        match full.tmf.take() {
            Some(tmf) if tmf.tag == Itt(r.itt.get()) => self.managed(now, &tmf, TaskAnswer::of(r.response), fx),
            _ => Err(Cause::Protocol("an answer to no task management request")),
        }
    }

    fn text_response(&mut self, r: &TextResponse, data: &[u8], fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let tag = Itt(r.itt.get());
        let Some(text) = self.text.as_mut().filter(|t| t.tag == Some(tag)) else {
            return Err(Cause::Protocol("an answer to no text"));
        };
        let goes_on = r.flags & FINAL == 0;
        match text.assembler.take(data, goes_on)? {
            Some(pairs) => {
                self.text = None;
                fx.push(Effect::Text(Ok(pairs)));
            }
            None if r.ttt.get() == Ttt::NONE.0 => return Err(Cause::Protocol("a text that goes on without a tag")),
            None => self.ask_for_more(tag, r.lun, Ttt(r.ttt.get()), fx),
        }
        Ok(())
    }

    fn logout_response(&mut self, now: Now, r: &LogoutResponse, fx: &mut Vec<Effect>) -> Result<(), Cause> {
        match std::mem::replace(&mut self.link, Link::Waiting { until: now }) {
            Link::LoggingOut(mut full, leaving) if leaving.tag == Itt(r.itt.get()) => {
                full.params.time2wait = full.params.time2wait.max(u32::from(r.time2wait.get()));
                self.logged_out(now, &full, leaving.again, fx);
                Ok(())
            }
            other => {
                self.link = other;
                Err(Cause::Protocol("an answer to no logout"))
            }
        }
    }

    fn async_message(&mut self, now: Now, a: &Async, data: &[u8], fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let lun = LunAddress::from_bytes(a.lun);
        match a.event {
            0 => fx.push(Effect::Report(Report::Sense(lun, sense(data)))),
            1 => self.asked_out(now, fx),
            // It drops the connection: waiting for that gains nothing.
            2..=4 => {
                if let Link::Full(full) = &mut self.link {
                    full.params.time2wait = full.params.time2wait.max(u32::from(a.parameter2.get()));
                }
                return Err(Cause::AskedByTarget);
            }
            5 => {
                fx.push(Effect::Report(Report::TasksTerminated(lun)));
                // Those that the target had not received yet live.
                self.unit_dead(now, lun, CmdSn(a.exp_cmd_sn.get()), fx);
                if let Link::Full(full) = &self.link {
                    // Says by its ExpStatSN that the message was taken.
                    fx.push(Effect::Send { conn: full.conn, bhs: acknowledgement(full).bhs(), body: Body::Empty });
                }
            }
            other => fx.push(Effect::Report(Report::Unknown(other))),
        }
        Ok(())
    }

    /// The target wants this session out: what is with it may still be answered for a moment.
    fn asked_out(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let by = now + DRAIN_FOR_LOGOUT;
        let idle = self.in_flight == 0;
        if let Link::Full(full) = &mut self.link {
            full.out_by = Some(by);
            self.wake_at(by);
            if idle {
                self.log_out(now, true, fx);
            }
        }
    }

    /// After an answer: whether a logout that waited for it may go.
    fn ask_next(&mut self, now: Now, fx: &mut Vec<Effect>) {
        if self.in_flight > 0 {
            return;
        }
        match &self.link {
            Link::Full(full) if full.out_by.is_some() => self.log_out(now, true, fx),
            Link::Full(_) if self.closing.is_some() && self.queue.is_empty() => self.log_out(now, false, fx),
            _ => {}
        }
    }

    fn reject(&mut self, now: Now, r: &Reject, data: &[u8], fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let refused = data.first_chunk().map(|b| Bhs::from_bytes(*b));
        let Some(refused) = refused else { return Err(Cause::Rejected(r.reason)) };
        if r.reason == REJECT_LOGOUT {
            self.asked_out(now, fx);
            return Ok(());
        }
        let later = r.reason == REJECT_IMMEDIATE || r.reason == REJECT_RESOURCES;
        match refused.kind() {
            Some(Opcode::ScsiCommand) if later => self.command_refused(now, r, refused.task()),
            // The target ends the command itself, with a sense that says so (RFC 7143, 7.8).
            Some(Opcode::DataOut) if r.reason == REJECT_DATA_DIGEST => Ok(()),
            Some(Opcode::NopOut) if later => {
                let (Link::Full(full) | Link::LoggingOut(full, _)) = &mut self.link else { return Ok(()) };
                full.ping = None;
                Ok(())
            }
            Some(Opcode::TaskRequest) => {
                let (Link::Full(full) | Link::LoggingOut(full, _)) = &mut self.link else { return Ok(()) };
                match full.tmf.take() {
                    Some(tmf) if tmf.tag == refused.task() => {
                        self.managed(now, &tmf, TaskAnswer::Refused(r.reason), fx)
                    }
                    other => {
                        full.tmf = other;
                        Err(Cause::Rejected(r.reason))
                    }
                }
            }
            _ => Err(Cause::Rejected(r.reason)),
        }
    }

    /// The target had no room for a command: later, if it has counted its number; else the sequence has a hole.
    fn command_refused(&mut self, now: Now, r: &Reject, itt: Itt) -> Result<(), Cause> {
        let Some((task, t)) = self.sent(itt) else { return self.of_no_task(itt) };
        let State::Sent(sent) = &t.state else { return Ok(()) };
        let counted = sent.cmd_sn.before(CmdSn(r.exp_cmd_sn.get()));
        if !counted || t.attempts >= super::MAX_ATTEMPTS || t.command.class == Class::Control {
            return Err(Cause::Rejected(r.reason));
        }
        self.forget(task);
        self.delay(now, task);
        Ok(())
    }

    /// Every task of a unit that the target had received before command `before` is dead. A later one crossed the
    /// reset on its way and is executed.
    pub(super) fn unit_dead(&mut self, now: Now, lun: LunAddress, before: CmdSn, fx: &mut Vec<Effect>) {
        let any = !self.config.rules.has(Rule::ResetCoversOlder);
        let covered = |t: &Task| matches!(&t.state, State::Sent(s) if any || s.cmd_sn.before(before));
        let on_unit = |t: &&Task| covered(t) && t.command.lun == lun;
        let dead: Vec<TaskId> =
            self.ids().into_iter().filter(|id| self.task(*id).as_ref().is_some_and(on_unit)).collect();
        dead.into_iter().for_each(|task| self.died(now, task, fx));
    }
}

/// A NOP-Out that wants no answer.
fn acknowledgement(full: &Full) -> crate::pdu::raw::NopOut {
    let mut bhs = nop(full);
    bhs.ttt = Ttt::NONE.0.into();
    bhs
}

/// The sense in a response's data: two bytes of length before it. Cut short, it is what there is.
fn sense(data: &[u8]) -> Vec<u8> {
    let Some((len, rest)) = data.split_first_chunk() else { return Vec::new() };
    let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
    rest[..len].to_vec()
}
