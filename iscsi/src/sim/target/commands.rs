//! Commands, their data, and how they end.

use super::*;

const GOOD: u8 = 0;
const CHECK_CONDITION: u8 = 2;
const BUSY: u8 = 8;
const CONFLICT: u8 = 0x18;
const TASK_SET_FULL: u8 = 0x28;

/// What a command is.
pub(in crate::sim) const READ: u8 = 0x88;
pub(in crate::sim) const SWAP: u8 = 0x89;
pub(in crate::sim) const WRITE: u8 = 0x8a;
pub(in crate::sim) const REGISTER: u8 = 0x5f;
pub(in crate::sim) const PREEMPT: u8 = 0x5e;
/// Block numbers that are no data blocks.
pub(in crate::sim) const CELL_AT: u64 = 100;
pub(in crate::sim) const SLOT_AT: u64 = 200;

/// A command block: what, where, and the generation for the oracle in the group number.
pub(in crate::sim) fn cdb(what: u8, at: u64, generation: u64) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = what;
    cdb[2..10].copy_from_slice(&at.to_be_bytes());
    cdb[14] = u8::try_from(generation & 0xff).unwrap_or(0);
    cdb
}

fn at_of(cdb: &[u8; 16]) -> u64 {
    cdb[2..10].try_into().map_or(u64::MAX, u64::from_be_bytes)
}

impl Target {
    pub(super) fn command(&mut self, id: ConnId, pdu: &Pdu, a: &mut Around<'_>) {
        let c = ScsiCommand::of(&pdu.bhs);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let cmd_sn = CmdSn(c.cmd_sn.get());
        if cmd_sn != conn.exp_cmd_sn {
            return a.disk.object("Wire", format!("command {cmd_sn} where {} comes next", conn.exp_cmd_sn));
        }
        if !cmd_sn.up_to(conn.max_cmd_sn) {
            return a.disk.object("WindowKept", format!("command {cmd_sn} beyond {}", conn.max_cmd_sn));
        }
        conn.exp_cmd_sn = cmd_sn.next();
        let (nexus, keys) = (conn.nexus, conn.keys);
        let write = c.flags & ScsiCommand::WRITE != 0;
        if self.tasks.values().any(|t| t.conn == id && t.itt == c.itt.get()) {
            return a.disk.object("Wire", format!("task tag {:#x} is used twice", c.itt.get()));
        }
        let immediate = pdu.data.len();
        let allowed = if keys.immediate { keys.first_burst as usize } else { 0 };
        let last = c.flags & FINAL != 0;
        if immediate > allowed || immediate > c.expected_len.get() as usize || (!last && keys.initial_r2t) {
            return a.disk.object("Wire", format!("{immediate} bytes of immediate data, final {last}: not agreed"));
        }
        self.last += 1;
        let number = self.last;
        self.tasks.insert(
            number,
            Task {
                nexus,
                conn: id,
                itt: c.itt.get(),
                cdb: c.cdb,
                write,
                len: c.expected_len.get(),
                data: pdu.data.clone(),
                unsolicited: !last,
                asked: None,
                next_data_sn: DataSn(0),
                r2t_sn: 0,
                queued: false,
            },
        );
        self.advance(number, a);
    }

    /// Asks for the next data, or queues the task when it has all.
    fn advance(&mut self, number: u64, a: &mut Around<'_>) {
        let Some(t) = self.tasks.get_mut(&number) else { return };
        if t.unsolicited || t.asked.is_some() || t.queued {
            return;
        }
        let have = u32::try_from(t.data.len()).unwrap_or(u32::MAX);
        if t.write && have < t.len {
            let (id, itt, max_burst) = (t.conn, t.itt, self.conns.get(&t.conn).map_or(512, |c| c.keys.max_burst));
            let mut len = (t.len - have).min(max_burst);
            let ttt = u32::try_from(a.rng.below(1 << 31)).unwrap_or(0);
            t.asked = Some((ttt, have + len));
            t.next_data_sn = DataSn(0);
            let r2t_sn = t.r2t_sn;
            t.r2t_sn += 1;
            let mut offset = have;
            if a.fault("R2T out of range", a.rates.bad_r2t) {
                (offset, len) =
                    a.rng.pick(&[(offset, len + 4096), (offset + 512, len), (0, len), (u32::MAX, len), (offset, 0)]);
            }
            let r2t = R2t {
                lun: LUN,
                itt: itt.into(),
                ttt: ttt.into(),
                r2t_sn: r2t_sn.into(),
                buffer_offset: offset.into(),
                desired_len: len.into(),
                ..R2t::default()
            };
            return self.send(id, r2t.bhs(), Vec::new(), false, a);
        }
        t.queued = true;
        let stuck = a.fault("task stuck", a.rates.stick);
        let delay = if stuck { a.rng.pick(&[300, 3_000, 8_000, 20_000]) } else { 1 + a.rng.below(5) };
        a.out.push((delay, Happening::Execute(number)));
    }

    pub(super) fn data_out(&mut self, id: ConnId, pdu: &Pdu, a: &mut Around<'_>) {
        let d = DataOut::of(&pdu.bhs);
        let found = self.tasks.iter_mut().find(|(_, t)| t.conn == id && t.itt == d.itt.get() && t.write);
        // Of a task that was aborted meanwhile.
        let Some((number, t)) = found else { return };
        let number = *number;
        let end = d.buffer_offset.get().wrapping_add(d.data_segment());
        let in_order = d.buffer_offset.get() as usize == t.data.len() && d.data_sn.get() == t.next_data_sn.0;
        let last = d.flags & FINAL != 0;
        let keys = self.conns.get(&id).map(|c| c.keys).unwrap_or_default();
        let bound = match (d.ttt.get(), t.asked) {
            (u32::MAX, _) if t.unsolicited => keys.first_burst.min(t.len),
            (ttt, Some((asked, end))) if ttt == asked => end,
            _ => return a.disk.object("Wire", "data that nobody asked for".into()),
        };
        if !in_order || end > bound || last != (end == bound) || d.data_segment() as usize != pdu.data.len() {
            let what = format!("data {}..{end} number {} where {bound} ends", d.buffer_offset.get(), d.data_sn.get());
            return a.disk.object("R2tWithinTask", what);
        }
        t.data.extend_from_slice(&pdu.data);
        t.next_data_sn = t.next_data_sn.next();
        if last {
            (t.unsolicited, t.asked, t.next_data_sn) = (false, None, DataSn(0));
            self.advance(number, a);
        }
    }

    /// A task's time has come. Whether its connection lives does not matter; whether its nexus does.
    pub(in crate::sim) fn execute(&mut self, number: u64, a: &mut Around<'_>) {
        let Some(t) = self.tasks.remove(&number) else { return };
        let registered = self.nexuses.get(&t.nexus).is_some_and(|n| n.registered);
        let needs = matches!(t.cdb[0], READ | WRITE | SWAP) && at_of(&t.cdb) != SLOT_AT;
        if needs && !registered {
            return self.status(&t, CONFLICT, 0, a);
        }
        if needs && a.fault("busy", a.rates.busy) {
            let status = a.rng.pick(&[BUSY, TASK_SET_FULL]);
            return self.status(&t, status, t.len, a);
        }
        let generation = u64::from(t.cdb[14]);
        let at = u32::try_from(at_of(&t.cdb)).unwrap_or(u32::MAX);
        match t.cdb[0] {
            REGISTER => {
                if let Some(n) = self.nexuses.get_mut(&t.nexus) {
                    n.registered = true;
                }
                self.status(&t, GOOD, 0, a);
            }
            PREEMPT => {
                let own = t.nexus;
                self.nexuses.iter_mut().filter(|(no, _)| **no != own).for_each(|(_, n)| n.registered = false);
                self.tasks.retain(|_, other| other.nexus == own);
                self.status(&t, GOOD, 0, a);
            }
            READ if at_of(&t.cdb) == SLOT_AT => {
                let slot = a.disk.generation.to_be_bytes().to_vec();
                self.read_answer(&t, &slot, a);
            }
            READ if at_of(&t.cdb) == CELL_AT => self.read_answer(&t, &cell(a.disk.nonce), a),
            READ if at < BLOCKS => self.read_answer(&t, &a.disk.read(at), a),
            WRITE if at < BLOCKS && t.len == BLOCK => {
                a.disk.write(at, &t.data, generation);
                self.status(&t, GOOD, 0, a);
            }
            SWAP => {
                let (expected, new) = t.data.split_at(CELL as usize);
                let (expected, new) = (nonce_of(expected), nonce_of(new));
                let swapped = a.disk.compare_and_write(expected, new, Some(generation));
                self.status(&t, if swapped { GOOD } else { CHECK_CONDITION }, 0, a);
            }
            _ => a.disk.object("Wire", format!("an impossible command {:02x?}", t.cdb)),
        }
    }

    fn status(&mut self, t: &Task, status: u8, residual: u32, a: &mut Around<'_>) {
        let mut data = Vec::new();
        if status == CHECK_CONDITION {
            data.extend([0, 18, 0x70, 0, 0x0e, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0, 0]);
        }
        let flags = FINAL | if residual > 0 { ScsiResponse::UNDERFLOW } else { 0 };
        let r = ScsiResponse { flags, itt: t.itt.into(), status, residual: residual.into(), ..ScsiResponse::default() };
        self.send(t.conn, r.with_data(data.len()).bhs(), data, true, a);
    }

    /// Data-In in segments, the status in the last or apart; sometimes some of it missing.
    fn read_answer(&mut self, t: &Task, bytes: &[u8], a: &mut Around<'_>) {
        let segment = self.conns.get(&t.conn).map_or(512, |c| c.keys.segment) as usize;
        let collapsed = a.rng.permille(500);
        let pieces: Vec<&[u8]> = bytes.chunks(segment).collect();
        let omit = if a.fault("data lost", a.rates.drop_data) {
            Some(usize::try_from(a.rng.below(pieces.len() as u64)).unwrap_or(0))
        } else {
            None
        };
        let swap_order = pieces.len() > 1 && a.fault("data out of order", a.rates.reorder);
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        if swap_order {
            // The second piece twice, the first never: as many bytes as were asked for, and a hole.
            order[0] = 1;
        }
        let mut sent = 0_u32;
        for (n, piece) in order.iter().enumerate() {
            if omit == Some(n) {
                continue;
            }
            let last = n + 1 == pieces.len();
            let with_status = last && collapsed && omit.is_none();
            let mut flags = if last { FINAL } else { 0 };
            if with_status {
                flags |= DataIn::STATUS;
            }
            let offset = u32::try_from(piece * segment).unwrap_or(u32::MAX);
            let data = pieces[*piece].to_vec();
            let d = DataIn {
                flags,
                itt: t.itt.into(),
                ttt: u32::MAX.into(),
                data_sn: sent.into(),
                buffer_offset: offset.into(),
                ..DataIn::default()
            };
            sent += 1;
            self.send(t.conn, d.with_data(data.len()).bhs(), data, with_status, a);
            if with_status {
                return;
            }
        }
        let r = ScsiResponse { itt: t.itt.into(), ..ScsiResponse::default() };
        self.send(t.conn, r.bhs(), Vec::new(), true, a);
    }

    /// The answer to a task that was aborted: its memory may be another's by now.
    pub(in crate::sim) fn late(&mut self, id: ConnId, itt: u32, len: u32, a: &mut Around<'_>) {
        if self.conns.get(&id).is_none_or(|c| c.keys.segment < len || c.stage != Stage::Full) {
            return;
        }
        let flags = FINAL | DataIn::STATUS;
        let d = DataIn { flags, itt: itt.into(), ttt: u32::MAX.into(), ..DataIn::default() };
        self.send(id, d.with_data(len as usize).bhs(), vec![0xdd; len as usize], true, a);
    }

    pub(super) fn manage(&mut self, id: ConnId, r: &TaskRequest, a: &mut Around<'_>) {
        if a.fault("abort unanswered", a.rates.abort_silence) {
            return;
        }
        let abort = r.flags & 0x7f == 1;
        if a.fault("abort refused", a.rates.abort_refused) {
            let answer = TaskResponse { response: 5, itt: r.itt, ..TaskResponse::default() };
            return self.send(id, answer.bhs(), Vec::new(), true, a);
        }
        let found: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, t)| if abort { t.conn == id && t.itt == r.ref_task.get() } else { true })
            .map(|(n, _)| *n)
            .collect();
        let response = if abort && found.is_empty() { 1 } else { 0 };
        let aborted: Vec<Task> = found.iter().filter_map(|n| self.tasks.remove(n)).collect();
        let answer = TaskResponse { response, itt: r.itt, ..TaskResponse::default() };
        self.send(id, answer.bhs(), Vec::new(), true, a);
        // As some targets do: the answer of the aborted task comes all the same.
        for t in aborted.iter().filter(|t| t.conn == id && t.cdb[0] == READ) {
            if a.fault("answer after abort", a.rates.late) {
                a.out.push((5 + a.rng.below(30), Happening::Late(id, t.itt, t.len)));
            }
        }
    }
}
