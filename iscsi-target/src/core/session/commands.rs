//! SCSI commands, up to where their data are there.

use bytes::Bytes;
use iscsi::ids::Itt;
use iscsi::pdu::ahs::{Ahs, segments};
use iscsi::pdu::raw::{R2t, ScsiCommand};
use iscsi::pdu::{Bhs, FINAL};
use scsi::{AdditionalCode, LunAddress, SenseKey};

use super::{Asked, Fx, MAX_IMMEDIATE, Session, Task};
use crate::core::unit::Outcome;
use crate::core::unit::tasks::Order;

/// Task attributes (RFC 7143, 11.3.1).
const ATTRIBUTE: u8 = 7;
const ORDERED: u8 = 2;
const HEAD_OF_QUEUE: u8 = 3;
const ACA: u8 = 4;

pub(super) fn aborted(code: AdditionalCode) -> Outcome {
    Outcome::check(SenseKey::AbortedCommand, code)
}

impl Session {
    pub(super) fn command(&mut self, bhs: &Bhs, ahs: &[u8], intact: bool, fx: &mut Vec<Fx>) {
        let c = ScsiCommand::of(bhs);
        let itt = bhs.task();
        if self.tasks.contains_key(&itt) || itt == Itt::NONE {
            return self.reject(bhs, 0x07, fx);
        }
        let immediate = bhs.is_immediate();
        if immediate && self.immediate >= MAX_IMMEDIATE {
            return self.reject(bhs, 0x06, fx);
        }
        if immediate {
            self.immediate += 1;
        } else {
            self.counted += 1;
        }
        let write = c.flags & ScsiCommand::WRITE != 0;
        let task = Task {
            read: c.flags & ScsiCommand::READ != 0,
            write,
            immediate,
            expected: c.expected_len.get(),
            lun: c.lun,
            got: c.data_segment(),
            unsolicited: write && c.flags & ScsiCommand::FINAL == 0,
            ..Task::default()
        };
        let wrong = self.wrong(&c, &task, intact);
        self.tasks.insert(itt, task);
        if let Some(outcome) = wrong {
            return self.finish(itt, outcome, None, false, fx);
        }
        let mut cdb = c.cdb.to_vec();
        for segment in segments(ahs) {
            match segment {
                Ahs::ExtendedCdb(rest) => cdb.extend_from_slice(rest),
                // No command here goes both ways.
                _ => {
                    let code = AdditionalCode::INVALID_FIELD_IN_CDB;
                    let outcome = Outcome::check(SenseKey::IllegalRequest, code);
                    return self.finish(itt, outcome, None, false, fx);
                }
            }
        }
        let order = match c.flags & ATTRIBUTE {
            ORDERED => Order::Ordered,
            HEAD_OF_QUEUE => Order::HeadOfQueue,
            _ => Order::Simple,
        };
        let announced = if write { c.expected_len.get() } else { 0 };
        fx.push(Fx::Command { itt, lun: LunAddress::from_bytes(c.lun), cdb, order, announced });
    }

    /// What of a command's header or immediate data is against what was agreed.
    fn wrong(&self, c: &ScsiCommand, task: &Task, intact: bool) -> Option<Outcome> {
        let unexpected = Some(aborted(AdditionalCode::UNEXPECTED_UNSOLICITED_DATA));
        if !intact {
            return Some(aborted(AdditionalCode::PROTOCOL_SERVICE_CRC_ERROR));
        }
        if c.flags & ATTRIBUTE == ACA {
            // NormACA is 0.
            return Some(Outcome::check(SenseKey::IllegalRequest, AdditionalCode::INVALID_FIELD_IN_CDB));
        }
        let most = self.params.first_burst.min(task.expected);
        match () {
            () if task.got > 0 && (!task.write || !self.params.immediate_data || task.got > most) => unexpected,
            () if c.flags & ScsiCommand::FINAL == 0 && (!task.write || self.params.initial_r2t) => unexpected,
            () => None,
        }
    }

    /// The command has so many bytes of data from the initiator.
    ///
    /// A read that the header calls a write moves nothing and ends with a residual of all that it read.
    ///
    /// # Errors
    /// It is a write that the header calls a read; the command has ended, with sense data.
    pub(crate) fn expect(&mut self, itt: Itt, data_out: u64, fx: &mut Vec<Fx>) -> Result<(), ()> {
        let Some(task) = self.tasks.get_mut(&itt) else { return Err(()) };
        if data_out > 0 && task.read && !task.write {
            let outcome = Outcome::check(SenseKey::IllegalRequest, AdditionalCode::INVALID_FIELD_IN_CDB);
            self.finish(itt, outcome, None, false, fx);
            return Err(());
        }
        let may = if task.write { task.expected } else { 0 };
        task.command_len = Some(data_out);
        task.wanted = u32::try_from(data_out).unwrap_or(u32::MAX).min(may);
        task.next_ask = task.got;
        self.go_on(itt, fx);
        Ok(())
    }

    /// After data have come, or may come: the next R2T, or the end of the data.
    pub(super) fn go_on(&mut self, itt: Itt, fx: &mut Vec<Fx>) {
        let Some(task) = self.tasks.get_mut(&itt) else { return };
        if task.failed.is_some() && !task.is_owed() {
            let outcome = task.failed.take().unwrap_or(Outcome::GOOD);
            return self.finish(itt, outcome, None, false, fx);
        }
        if task.command_len.is_none() || task.unsolicited || task.failed.is_some() {
            return;
        }
        if task.got >= task.wanted {
            if task.asked.is_empty() {
                fx.push(Fx::Ready(itt, task.wanted));
            }
            return;
        }
        if task.waits {
            return;
        }
        if task.r2t_sn == 0 {
            task.waits = true;
            // Unsolicited data end where R2Ts begin.
            task.next_ask = task.got;
            return fx.push(Fx::Solicit(itt));
        }
        self.ask(itt, fx);
    }

    /// There is memory for a command's data.
    pub(crate) fn solicit(&mut self, itt: Itt, fx: &mut Vec<Fx>) {
        if let Some(task) = self.tasks.get_mut(&itt)
            && std::mem::take(&mut task.waits)
        {
            self.ask(itt, fx);
        }
    }

    /// R2Ts, as many as were agreed.
    fn ask(&mut self, itt: Itt, fx: &mut Vec<Fx>) {
        let (burst, most) = (self.params.max_burst, self.params.max_outstanding_r2t as usize);
        loop {
            self.last_ttt = self.last_ttt.wrapping_add(1) & 0x7fff_ffff;
            let ttt = self.last_ttt;
            let Some(task) = self.tasks.get_mut(&itt) else { return };
            if task.asked.len() >= most || task.next_ask >= task.wanted {
                return;
            }
            let at = task.next_ask;
            let len = burst.min(task.wanted - at);
            task.next_ask = at + len;
            task.asked.push_back(Asked { ttt, at, end: at + len, data_sn: 0 });
            let pdu = R2t {
                flags: FINAL,
                lun: task.lun,
                itt: itt.0.into(),
                ttt: ttt.into(),
                r2t_sn: task.r2t_sn.into(),
                buffer_offset: at.into(),
                desired_len: len.into(),
                ..R2t::default()
            };
            task.r2t_sn += 1;
            self.send(pdu.bhs(), Bytes::new(), false, fx);
        }
    }
}
