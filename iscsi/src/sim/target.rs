//! The model target: honest where a target must be, strict about what the initiator sends, and wrong on purpose as
//! often as the plan says. It knows nothing of the session's code beyond PDUs and the table of keys.

use std::collections::BTreeMap;

use super::disk::{BLOCK, BLOCKS, CELL, Disk, cell, nonce_of};
use super::rng::Rng;
use super::wire::{Happening, Pdu};
use super::world::Rates;
use crate::framer::End;
use crate::ids::{CmdSn, DataSn};
use crate::keys::negotiate::Negotiation;
use crate::keys::params::Offer;
use crate::pdu::raw::*;
use crate::pdu::{Bhs, FINAL, Opcode};
use crate::session::ConnId;
use crate::text;
pub(super) use commands::{CELL_AT, PREEMPT, READ, REGISTER, SLOT_AT, SWAP, WRITE, cdb};

pub(super) mod commands;
mod login;

/// What happens around the target while it works.
pub(super) struct Around<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) disk: &'a mut Disk,
    /// Delay in milliseconds, and what.
    pub(super) out: &'a mut Vec<(u64, Happening)>,
    /// All zero when the faults are over.
    pub(super) rates: Rates,
    /// Faults that were done, by name.
    pub(super) done: &'a mut BTreeMap<&'static str, u64>,
}

impl Around<'_> {
    /// Whether a fault happens now; counted.
    pub(super) fn fault(&mut self, name: &'static str, permille: u64) -> bool {
        let is = self.rng.permille(permille);
        if is {
            *self.done.entry(name).or_default() += 1;
        }
        is
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Stage {
    Login,
    Full,
    Out,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    portal: u16,
    stage: Stage,
    nexus: u64,
    stat_sn: u32,
    exp_cmd_sn: CmdSn,
    /// The last MaxCmdSN that was told.
    max_cmd_sn: CmdSn,
    /// Room in the queue; 0 closes the window.
    room: u32,
    pings: BTreeMap<u32, [u8; 8]>,
    /// StatSN of a status that was lost.
    lost: Option<u32>,
    negotiation: Negotiation,
    skipped: bool,
    keys: Keys,
}

/// What was agreed, as the target sees it.
#[derive(Debug, Clone, Copy, Default)]
struct Keys {
    initial_r2t: bool,
    immediate: bool,
    first_burst: u32,
    max_burst: u32,
    /// What the initiator takes.
    segment: u32,
}

/// An I_T nexus.
#[derive(Debug)]
struct Nexus {
    isid: [u8; 6],
    group: u16,
    conn: ConnId,
    registered: bool,
}

/// A task.
#[derive(Debug)]
pub(super) struct Task {
    nexus: u64,
    conn: ConnId,
    itt: u32,
    cdb: [u8; 16],
    write: bool,
    len: u32,
    data: Vec<u8>,
    /// Unsolicited Data-Out may still come.
    unsolicited: bool,
    /// Data that was asked for: tag and end; the next number.
    asked: Option<(u32, u32)>,
    next_data_sn: DataSn,
    r2t_sn: u32,
    queued: bool,
}

/// The target.
#[derive(Debug)]
pub(super) struct Target {
    conns: BTreeMap<ConnId, Conn>,
    nexuses: BTreeMap<u64, Nexus>,
    tasks: BTreeMap<u64, Task>,
    last: u64,
    offer: Offer,
}

impl Target {
    pub(super) fn new(rng: &mut Rng) -> Target {
        let offer = Offer {
            initial_r2t: rng.permille(500),
            immediate_data: rng.permille(500),
            first_burst: rng.pick(&[512, 1024, 2048, 8192]),
            max_burst: rng.pick(&[1024, 2048, 8192]),
            max_recv_segment: rng.pick(&[512, 1024, 4096]),
            ..Offer::default()
        };
        Target { conns: BTreeMap::new(), nexuses: BTreeMap::new(), tasks: BTreeMap::new(), last: 0, offer }
    }

    /// A connection came in at a portal.
    pub(super) fn accept(&mut self, conn: ConnId, portal: u16, rng: &mut Rng) {
        self.conns.insert(
            conn,
            Conn {
                portal,
                stage: Stage::Login,
                nexus: 0,
                stat_sn: u32::try_from(rng.below(1 << 32)).unwrap_or(0),
                exp_cmd_sn: CmdSn(0),
                max_cmd_sn: CmdSn(0),
                room: 1 + u32::try_from(rng.below(6)).unwrap_or(0),
                pings: BTreeMap::new(),
                lost: None,
                negotiation: Negotiation::new(End::Target, false),
                skipped: false,
                keys: Keys::default(),
            },
        );
    }

    /// Every registration of this node is gone, and its tasks with them: PREEMPT AND ABORT.
    pub(super) fn preempt(&mut self) {
        self.nexuses.values_mut().for_each(|n| n.registered = false);
        self.tasks.clear();
    }

    /// The newest connection that serves.
    pub(super) fn serving(&self) -> Option<ConnId> {
        self.conns.iter().rev().find(|(_, c)| c.stage == Stage::Full).map(|(id, _)| *id)
    }

    /// Closes from the target's side; its nexus and tasks live on.
    pub(super) fn forget_conn(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    /// A PDU of the initiator.
    pub(super) fn take(&mut self, id: ConnId, pdu: &Pdu, a: &mut Around<'_>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(opcode) = pdu.bhs.kind() else { return a.disk.object("Wire", "an unknown opcode".into()) };
        if conn.stage == Stage::Out {
            return a.disk.object("SilentAfterLogout", format!("a {opcode:?} after the logout request"));
        }
        if (opcode == Opcode::LoginRequest) != (conn.stage == Stage::Login) {
            return a.disk.object("Wire", format!("a {opcode:?} in the wrong phase"));
        }
        // ExpStatSN lies at the same place in every request but the Login of a new connection.
        if opcode != Opcode::LoginRequest {
            let acknowledged = NopOut::of(&pdu.bhs).exp_stat_sn.get();
            if conn
                .lost
                .is_some_and(|lost| acknowledged == lost.wrapping_add(1) || acknowledged == lost.wrapping_add(2))
            {
                return a
                    .disk
                    .object("NoLostStatusAcknowledged", format!("{opcode:?} acknowledges a status that never came"));
            }
        }
        match opcode {
            Opcode::LoginRequest => self.login(id, pdu, a),
            Opcode::ScsiCommand => self.command(id, pdu, a),
            Opcode::DataOut => self.data_out(id, pdu, a),
            Opcode::TaskRequest => self.manage(id, &TaskRequest::of(&pdu.bhs), a),
            Opcode::NopOut => self.nop_out(id, pdu, a),
            Opcode::LogoutRequest => self.logout(id, &LogoutRequest::of(&pdu.bhs), a),
            _ => a.disk.object("Wire", format!("an unexpected {opcode:?}")),
        }
    }

    /// Numbers for a PDU that carries a status (or does not), then sends it.
    fn send(&mut self, id: ConnId, mut bhs: Bhs, data: Vec<u8>, status: bool, a: &mut Around<'_>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let closed = a.fault("window closed", a.rates.close_window);
        // Room is what its tasks leave: a task that waits for data keeps the window closed.
        let taken = self.tasks.values().filter(|t| t.nexus == conn.nexus && t.conn == id).count();
        let room = conn.room.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
        let max = if closed { conn.exp_cmd_sn.previous() } else { conn.exp_cmd_sn.plus(room).previous() };
        if conn.max_cmd_sn.before(max) {
            conn.max_cmd_sn = max;
        }
        let mut n = NopIn::of(&bhs);
        n.stat_sn = conn.stat_sn.into();
        n.exp_cmd_sn = conn.exp_cmd_sn.0.into();
        n.max_cmd_sn = max.0.into();
        bhs = n.bhs();
        if status {
            let sn = conn.stat_sn;
            conn.stat_sn = sn.wrapping_add(1);
            if a.fault("status lost", a.rates.drop_status) {
                conn.lost = Some(sn);
                return;
            }
        }
        let delay = 1 + a.rng.below(3);
        a.out.push((delay, Happening::AtHost(id, Pdu { bhs, data })));
    }

    fn nop_out(&mut self, id: ConnId, pdu: &Pdu, a: &mut Around<'_>) {
        let nop = NopOut::of(&pdu.bhs);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if nop.ttt.get() != u32::MAX {
            match conn.pings.remove(&nop.ttt.get()) {
                Some(lun) if lun == nop.lun => {}
                found => a.disk.object("PingEchoed", format!("an answer for {:?}, not {found:?}", nop.lun)),
            }
        } else if nop.itt.get() != u32::MAX && !a.fault("ping unanswered", a.rates.silence) {
            let answer = NopIn { itt: nop.itt, ttt: u32::MAX.into(), ..NopIn::default() };
            self.send(id, answer.bhs(), Vec::new(), true, a);
        }
    }

    fn logout(&mut self, id: ConnId, r: &LogoutRequest, a: &mut Around<'_>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.stage = Stage::Out;
        let nexus = conn.nexus;
        self.tasks.retain(|_, t| t.nexus != nexus);
        self.nexuses.remove(&nexus);
        // A ping that crosses the request on its way: it must not be answered.
        if a.fault("ping after logout", a.rates.ping) {
            self.ping(id, a);
        }
        let answer = LogoutResponse { itt: r.itt, ..LogoutResponse::default() };
        self.send(id, answer.bhs(), Vec::new(), true, a);
    }

    fn ping(&mut self, id: ConnId, a: &mut Around<'_>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let ttt = u32::try_from(a.rng.below(1 << 31)).unwrap_or(0);
        let lun = [0, 7, 0, 0, 0, 0, 0, 0];
        conn.pings.insert(ttt, lun);
        let nop = NopIn { lun, itt: u32::MAX.into(), ttt: ttt.into(), ..NopIn::default() };
        self.send(id, nop.bhs(), Vec::new(), false, a);
    }

    /// Something of its own: a ping, a message, an update of the window, or nonsense.
    pub(super) fn whim(&mut self, a: &mut Around<'_>) {
        let Some(id) = self.serving() else { return };
        if a.fault("ping", a.rates.ping) {
            self.ping(id, a);
        }
        for (name, event) in
            [("logout asked", 1), ("drop announced", 2), ("tasks terminated", 5), ("unknown event", 255)]
        {
            let rate = if event == 5 { a.rates.terminate } else { a.rates.asynchronous };
            if a.fault(name, rate) {
                let nexus = self.conns.get(&id).map(|c| c.nexus);
                if event == 5 {
                    self.tasks.retain(|_, t| Some(t.nexus) != nexus);
                }
                let message = Async { itt: u32::MAX.into(), event, lun: LUN, parameter3: 2.into(), ..Async::default() };
                self.send(id, message.bhs(), Vec::new(), true, a);
            }
        }
        if a.fault("answer to nothing", a.rates.nonsense) {
            let r = ScsiResponse { itt: 0x0bad_0001.into(), ..ScsiResponse::default() };
            self.send(id, r.bhs(), Vec::new(), true, a);
        }
        if a.fault("reject", a.rates.nonsense) {
            let reason = a.rng.pick(&[2, 3, 4, 5, 6, 7, 8, 9, 0x0a, 0x0c]);
            let r = Reject { reason, itt: u32::MAX.into(), ..Reject::default() }.with_data(48);
            let about = a.rng.pick(&[NopOut::default().bhs(), ScsiCommand::default().bhs(), DataOut::default().bhs()]);
            self.send(id, r.bhs(), about.bytes().to_vec(), true, a);
        }
        // Opens the window again, whatever it was.
        let nop = NopIn { itt: u32::MAX.into(), ttt: u32::MAX.into(), ..NopIn::default() };
        self.send(id, nop.bhs(), Vec::new(), false, a);
    }
}

/// The one unit.
pub(super) const LUN: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
