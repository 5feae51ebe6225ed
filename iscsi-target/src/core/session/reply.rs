//! What the target sends: numbers, responses, data in.

use bytes::Bytes;
use iscsi::ids::Itt;
use iscsi::pdu::raw::{Async, DataIn, LogoutResponse, NopIn, ScsiResponse, TaskRequest, TaskResponse};
use iscsi::pdu::{Bhs, FINAL};
use scsi::Status;

use super::{Fx, MAX_ABANDONED, Session, WINDOW};
use crate::core::unit::Outcome;

/// A residual: the flag of overflow or underflow, and its bytes.
fn residual(expected: u64, actual: u64) -> (u8, u32) {
    let bytes = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    match actual {
        more if more > expected => (ScsiResponse::OVERFLOW, bytes(more - expected)),
        less if less < expected => (ScsiResponse::UNDERFLOW, bytes(expected - less)),
        _ => (0, 0),
    }
}

impl Session {
    /// Fills in the numbers, which lie at the same place in every PDU of a target.
    pub(super) fn send(&mut self, bhs: Bhs, body: Bytes, status: bool, fx: &mut Vec<Fx>) {
        let mut numbers = NopIn::of(&bhs);
        numbers.stat_sn = self.stat_sn.0.into();
        self.window();
        numbers.exp_cmd_sn = self.exp_cmd_sn.0.into();
        numbers.max_cmd_sn = self.max_cmd_sn.0.into();
        if status {
            self.stat_sn = self.stat_sn.next();
        }
        fx.push(Fx::Send(numbers.bhs(), body));
    }

    /// The window follows the commands that are there, and never goes back.
    fn window(&mut self) {
        let max = self.exp_cmd_sn.plus(WINDOW.saturating_sub(self.counted)).previous();
        if self.max_cmd_sn.before(max) {
            self.max_cmd_sn = max;
        }
    }

    /// A command has ended: its data, if any, and its status. `data` is what was read, whole; sense data go out in
    /// descriptor format if the unit says so.
    pub(crate) fn finish(
        &mut self,
        itt: Itt,
        outcome: Outcome,
        data: Option<Bytes>,
        descriptor: bool,
        fx: &mut Vec<Fx>,
    ) {
        let Some(task) = self.tasks.get_mut(&itt) else { return };
        if task.is_owed() {
            // Nothing more is asked for; the response waits for what is under way.
            task.waits = false;
            task.failed = Some(outcome);
            return;
        }
        let (expected, write, read, moved) = (task.expected, task.write, task.read, task.command_len);
        self.forget(itt);
        let data = data.unwrap_or_else(|| Bytes::from(outcome.data));
        if outcome.status == Status::Good && !data.is_empty() {
            return self.data_in(itt, data, if read { expected } else { 0 }, fx);
        }
        let actual = match outcome.status {
            Status::Good if write => moved.unwrap_or(0),
            // The data of a command that was not carried out have not moved.
            _ => 0,
        };
        let (flags, bytes) = residual(u64::from(expected), actual);
        let sense = outcome.sense.map_or(Vec::new(), |sense| {
            let sense = if descriptor { sense.to_descriptor() } else { sense.to_fixed().to_vec() };
            let len = u16::try_from(sense.len()).unwrap_or(0).to_be_bytes();
            [&len[..], &sense].concat()
        });
        let response = ScsiResponse {
            flags: FINAL | flags,
            status: outcome.status.to_byte(),
            itt: itt.0.into(),
            residual: bytes.into(),
            ..ScsiResponse::default()
        };
        self.send(response.with_data(sense.len()).bhs(), Bytes::from(sense), true, fx);
    }

    /// Data in segments that the initiator takes, in sequences of a burst, the status in the last one.
    fn data_in(&mut self, itt: Itt, data: Bytes, expected: u32, fx: &mut Vec<Fx>) {
        let actual = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let (flags, bytes) = residual(u64::from(expected), actual);
        let len = data.len().min(expected as usize);
        let segment = self.params.max_send_segment as usize;
        let burst = self.params.max_burst as usize;
        let (mut at, mut data_sn, mut in_burst) = (0, 0_u32, 0);
        if len == 0 {
            let response = ScsiResponse {
                flags: FINAL | flags,
                itt: itt.0.into(),
                residual: bytes.into(),
                ..ScsiResponse::default()
            };
            return self.send(response.bhs(), Bytes::new(), true, fx);
        }
        while at < len {
            let n = segment.min(len - at).min(burst - in_burst);
            let last = at + n == len;
            in_burst += n;
            let full = in_burst == burst;
            let mut pdu = DataIn {
                flags: if last {
                    FINAL | DataIn::STATUS | flags
                } else if full {
                    FINAL
                } else {
                    0
                },
                itt: itt.0.into(),
                ttt: u32::MAX.into(),
                data_sn: data_sn.into(),
                buffer_offset: u32::try_from(at).unwrap_or(u32::MAX).into(),
                ..DataIn::default()
            }
            .with_data(n);
            if last {
                pdu.residual = bytes.into();
            }
            if full {
                in_burst = 0;
            }
            self.send(pdu.bhs(), data.slice(at..at + n), last, fx);
            at += n;
            data_sn += 1;
        }
    }

    /// A command was aborted and ends without a response.
    pub(crate) fn withdraw(&mut self, itt: Itt) {
        let Some(task) = self.tasks.get(&itt) else { return };
        if task.is_owed() {
            if self.abandoned.len() == MAX_ABANDONED {
                self.abandoned.pop_front();
            }
            self.abandoned.push_back(itt);
        }
        self.forget(itt);
    }

    /// Another nexus has aborted a command: its response, now, whatever data are owed.
    pub(crate) fn abort_told(&mut self, itt: Itt, fx: &mut Vec<Fx>) {
        let Some(expected) = self.tasks.get(&itt).map(|t| t.expected) else { return };
        self.withdraw(itt);
        let (flags, bytes) = residual(u64::from(expected), 0);
        let response = ScsiResponse {
            flags: FINAL | flags,
            status: Status::TaskAborted.to_byte(),
            itt: itt.0.into(),
            residual: bytes.into(),
            ..ScsiResponse::default()
        };
        self.send(response.bhs(), Bytes::new(), true, fx);
    }

    fn forget(&mut self, itt: Itt) {
        if let Some(task) = self.tasks.remove(&itt) {
            if task.immediate {
                self.immediate -= 1;
            } else {
                self.counted -= 1;
            }
        }
    }

    /// The answer to a task management request.
    pub(crate) fn managed(&mut self, request: &TaskRequest, response: u8, fx: &mut Vec<Fx>) {
        let answer = TaskResponse { response, itt: request.itt, ..TaskResponse::default() };
        self.send(answer.bhs(), Bytes::new(), true, fx);
    }

    /// The answer to a logout; nothing follows it.
    pub(crate) fn logged_out(&mut self, itt: u32, response: u8, fx: &mut Vec<Fx>) {
        let answer = LogoutResponse { response, itt: itt.into(), ..LogoutResponse::default() };
        self.send(answer.bhs(), Bytes::new(), true, fx);
    }

    /// The target asks for a logout within so many seconds (event 1), or announces that it drops the connection (2).
    pub(crate) fn announce(&mut self, event: u8, seconds: u16, fx: &mut Vec<Fx>) {
        let mut message = Async { itt: u32::MAX.into(), event, ..Async::default() };
        match event {
            1 => message.parameter3 = seconds.into(),
            _ => {
                message.parameter1 = self.cid.into();
                message.parameter2 = seconds.into();
            }
        }
        self.send(message.bhs(), Bytes::new(), true, fx);
    }
}
