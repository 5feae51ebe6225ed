//! A connection in the full feature phase, from the target's side (RFC 7143, 4.2 and 11). A session has one connection.
//!
//! ```text
//!   command ──► Command ─ shell asks the unit ─► expect(bytes) ──► R2T, Data-Out ... ──► Ready ─► finish ──► Data-In, response
//!                                          └──────────────────────────────────────────────────────► finish
//! ```
//! [`Session::place`] says where the data of a PDU belong before they are read; [`Session::take`] takes the PDU. What is
//! to be sent is in [`Fx::Send`], its numbers filled in: it must go out in that order.
//!
//! Rules of the target that hold here:
//! - a command whose CmdSN is outside of the window, or was there before, is passed over without a word (4.2.2.1); a gap
//!   in the numbers of one connection is the connection's end;
//! - the window is what is left of [`WINDOW`] beside the commands that are there, and never shrinks;
//! - a command with an error in its data ends with sense data when the data that are still owed have come, so that none of
//!   them is taken for another's;
//! - a Data-Out for a command that was aborted is passed over: the initiator answers R2Ts until it hears of the abort.

mod commands;
mod data;
mod other;
mod reply;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use iscsi::ids::{CmdSn, Itt, StatSn};
use iscsi::keys::params::Params;
use iscsi::pdu::raw::{LogoutRequest, Reject, TaskRequest};
use iscsi::pdu::{Bhs, Opcode};
use iscsi::text::Assembler;
use scsi::LunAddress;

use super::unit::Outcome;
use super::unit::tasks::Order;
pub(crate) use data::Place;

/// Commands of one session that are not immediate. As many as common initiators queue at most (open-iscsi's cmds_max).
pub(crate) const WINDOW: u32 = 128;
/// Immediate commands of one session; more are rejected (11.17.1, reason 6). One beside a task management request is the
/// least.
const MAX_IMMEDIATE: u32 = 16;
/// Tags of commands that were aborted while data were owed, for which Data-Outs may still come.
const MAX_ABANDONED: usize = 256;
/// Bytes of a text request that is put together.
const MAX_TEXT: usize = 16 << 10;

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Fx {
    /// Send this.
    Send(Bhs, Bytes),
    /// A command has come, with so many bytes of data announced: [`Session::expect`] or [`Session::finish`] is owed for it.
    Command { itt: Itt, lun: LunAddress, cdb: Vec<u8>, order: Order, announced: u32 },
    /// R2Ts are to be sent for a command when there is memory: [`Session::solicit`] is owed.
    Solicit(Itt),
    /// The data of a command are all there, so many bytes.
    Ready(Itt, u32),
    /// A command has failed by its data, before it ran: the unit is to forget it. Its response follows by itself.
    Failed(Itt),
    /// A task management request; the answer is owed.
    Manage(TaskRequest),
    /// SendTargets, with its value: the text is owed.
    SendTargets { itt: Itt, value: String },
    /// The initiator logs out: its tasks are to end, then [`Session::logged_out`].
    Logout(LogoutRequest),
    /// The connection is to be closed, because of this.
    Close(&'static str),
}

/// What has become of a command's data.
#[derive(Debug, Default)]
struct Task {
    read: bool,
    write: bool,
    immediate: bool,
    expected: u32,
    lun: [u8; 8],
    /// Bytes of data that came, without gaps.
    got: u32,
    /// Bytes that the command has, once that is known, and the bytes of them that are to come.
    command_len: Option<u64>,
    wanted: u32,
    /// Unsolicited Data-Outs are still to come.
    unsolicited: bool,
    next_data_sn: u32,
    /// Data that were asked for.
    asked: VecDeque<Asked>,
    /// Where the next R2T begins, and its number.
    next_ask: u32,
    r2t_sn: u32,
    /// Waiting for [`Session::solicit`].
    waits: bool,
    /// How it will end once the data that are owed have come.
    failed: Option<Outcome>,
}

/// An R2T that is not answered wholly.
#[derive(Clone, Copy, Debug)]
struct Asked {
    ttt: u32,
    at: u32,
    end: u32,
    data_sn: u32,
}

impl Task {
    /// Whether data are owed by the initiator.
    fn is_owed(&self) -> bool {
        self.unsolicited || !self.asked.is_empty()
    }
}

/// A text answer of which a part is still to be fetched.
#[derive(Debug)]
struct LongText {
    ttt: u32,
    rest: Bytes,
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Session {
    params: Params,
    cid: u16,
    discovery: bool,
    exp_cmd_sn: CmdSn,
    max_cmd_sn: CmdSn,
    stat_sn: StatSn,
    tasks: BTreeMap<Itt, Task>,
    counted: u32,
    immediate: u32,
    abandoned: VecDeque<Itt>,
    last_ttt: u32,
    text: Assembler,
    long: Option<LongText>,
    over: bool,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    pub(crate) params: Params,
    pub(crate) cid: u16,
    pub(crate) discovery: bool,
    /// The first command number.
    pub(crate) cmd_sn: CmdSn,
    /// The number of the first status after the login.
    pub(crate) stat_sn: StatSn,
}

impl Session {
    pub(crate) fn new(begin: Begin) -> Session {
        Session {
            params: begin.params,
            cid: begin.cid,
            discovery: begin.discovery,
            exp_cmd_sn: begin.cmd_sn,
            max_cmd_sn: begin.cmd_sn.plus(WINDOW - 1),
            stat_sn: begin.stat_sn,
            tasks: BTreeMap::new(),
            counted: 0,
            immediate: 0,
            abandoned: VecDeque::new(),
            last_ttt: 0,
            text: Assembler::new(MAX_TEXT),
            long: None,
            over: false,
        }
    }

    /// A PDU has come, whole. `inline` are its data if [`Session::place`] has asked for them; `intact` is false if their
    /// digest was wrong.
    pub(crate) fn take(&mut self, bhs: &Bhs, ahs: &[u8], inline: &[u8], intact: bool, fx: &mut Vec<Fx>) {
        if self.over {
            return;
        }
        match bhs.kind() {
            Some(Opcode::DataOut) => return self.data_out(bhs, intact, fx),
            Some(Opcode::ScsiCommand | Opcode::NopOut | Opcode::TaskRequest | Opcode::TextRequest)
            | Some(Opcode::LogoutRequest) => {}
            Some(Opcode::Snack) => return self.reject(bhs, 0x03, fx),
            // A login does not begin again here; other codes are not known.
            Some(_) => return self.reject(bhs, 0x04, fx),
            None => return self.reject(bhs, 0x05, fx),
        }
        if !bhs.is_immediate() && !self.admit(bhs, fx) {
            return;
        }
        if self.discovery && matches!(bhs.kind(), Some(Opcode::ScsiCommand | Opcode::TaskRequest)) {
            return self.reject(bhs, 0x04, fx);
        }
        match bhs.kind() {
            Some(Opcode::ScsiCommand) => self.command(bhs, ahs, intact, fx),
            _ if !intact => self.reject(bhs, 0x02, fx),
            Some(Opcode::NopOut) => self.nop_out(bhs, inline, fx),
            Some(Opcode::TaskRequest) => fx.push(Fx::Manage(TaskRequest::of(bhs))),
            Some(Opcode::TextRequest) => self.text_request(bhs, inline, fx),
            Some(Opcode::LogoutRequest) => self.logout(&LogoutRequest::of(bhs), fx),
            _ => {}
        }
    }

    /// The command number of a PDU that is not immediate (4.2.2.1). False if the PDU is to be passed over.
    fn admit(&mut self, bhs: &Bhs, fx: &mut Vec<Fx>) -> bool {
        let sn = CmdSn(iscsi::pdu::raw::ScsiCommand::of(bhs).cmd_sn.get());
        if sn == self.exp_cmd_sn && sn.up_to(self.max_cmd_sn) {
            self.exp_cmd_sn = sn.next();
            return true;
        }
        if sn.before(self.exp_cmd_sn) || !sn.up_to(self.max_cmd_sn) {
            return false;
        }
        // Numbers of one connection come in order (4.2.2.1): what lies between was lost, and at recovery level 0 that is
        // the session's end.
        self.close("a gap in the command numbers", fx);
        false
    }

    fn close(&mut self, why: &'static str, fx: &mut Vec<Fx>) {
        self.over = true;
        fx.push(Fx::Close(why));
    }

    /// Commands that are there.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Data segments that the initiator takes.
    pub(crate) fn params(&self) -> &Params {
        &self.params
    }

    fn reject(&mut self, bhs: &Bhs, reason: u8, fx: &mut Vec<Fx>) {
        let pdu = Reject { reason, itt: u32::MAX.into(), ..Reject::default() };
        let header = Bytes::copy_from_slice(bhs.bytes());
        self.send(pdu.with_data(header.len()).bhs(), header, true, fx);
    }
}
