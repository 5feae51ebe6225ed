//! Data-Out: where it belongs, and whether it is what was asked for (RFC 7143, 11.7).

use iscsi::ids::{Itt, Ttt};
use iscsi::pdu::raw::{DataOut, ScsiCommand};
use iscsi::pdu::{Bhs, FINAL, Opcode};
use scsi::AdditionalCode;

use super::commands::aborted;
use super::{Fx, Session};

/// Where the data of a PDU belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In the memory of a command, from `offset` on. `room` is how much memory it needs for what comes unasked.
    Task { itt: Itt, offset: u32, room: u32 },
    /// With the PDU.
    Inline,
    /// Nowhere: they are passed over.
    Nowhere,
}

/// What a Data-Out is an answer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    /// The command itself.
    Unsolicited,
    /// An R2T: the place in the list.
    Asked(usize),
}

impl Session {
    /// To be asked with a PDU's header, before its data are read.
    pub(crate) fn place(&self, bhs: &Bhs) -> Place {
        let len = bhs.data_segment();
        if len == 0 || self.over {
            return Place::Nowhere;
        }
        match bhs.kind() {
            Some(Opcode::ScsiCommand) => {
                let c = ScsiCommand::of(bhs);
                let fits = self.params.immediate_data && len <= self.params.first_burst.min(c.expected_len.get());
                let known = self.tasks.contains_key(&bhs.task());
                let expected = bhs.is_immediate() || iscsi::ids::CmdSn(c.cmd_sn.get()) == self.exp_cmd_sn;
                if fits && !known && expected && !self.discovery {
                    let room = c.expected_len.get();
                    Place::Task { itt: bhs.task(), offset: 0, room }
                } else {
                    Place::Nowhere
                }
            }
            Some(Opcode::DataOut) => {
                let d = DataOut::of(bhs);
                match self.judge(&d) {
                    Ok(_) => {
                        let expected = self.tasks.get(&bhs.task()).map_or(0, |t| t.expected);
                        Place::Task { itt: bhs.task(), offset: d.buffer_offset.get(), room: expected }
                    }
                    Err(_) => Place::Nowhere,
                }
            }
            Some(Opcode::NopOut | Opcode::TextRequest) => Place::Inline,
            _ => Place::Nowhere,
        }
    }

    /// Whether a Data-Out is what is owed.
    fn judge(&self, d: &DataOut) -> Result<Of, AdditionalCode> {
        let task = self.tasks.get(&Itt(d.itt.get())).ok_or(AdditionalCode::DATA_PHASE_ERROR)?;
        let (at, len, data_sn) = (d.buffer_offset.get(), d.data_segment(), d.data_sn.get());
        let end = at.checked_add(len).ok_or(AdditionalCode::DATA_OFFSET_ERROR)?;
        if task.failed.is_some() {
            return Err(AdditionalCode::DATA_PHASE_ERROR);
        }
        if Ttt(d.ttt.get()) == Ttt::NONE {
            return match () {
                () if !task.unsolicited => Err(AdditionalCode::UNEXPECTED_UNSOLICITED_DATA),
                () if data_sn != task.next_data_sn => Err(AdditionalCode::DATA_PHASE_ERROR),
                () if at != task.got => Err(AdditionalCode::DATA_OFFSET_ERROR),
                () if end > self.params.first_burst.min(task.expected) => Err(AdditionalCode::TOO_MUCH_WRITE_DATA),
                () => Ok(Of::Unsolicited),
            };
        }
        let place = task.asked.iter().position(|asked| asked.ttt == d.ttt.get());
        let place = place.ok_or(AdditionalCode::INVALID_TARGET_PORT_TRANSFER_TAG)?;
        let asked = task.asked[place];
        match () {
            () if data_sn != asked.data_sn => Err(AdditionalCode::DATA_PHASE_ERROR),
            () if at != asked.at => Err(AdditionalCode::DATA_OFFSET_ERROR),
            () if end > asked.end => Err(AdditionalCode::TOO_MUCH_WRITE_DATA),
            // The last of a sequence is its end, and its end is the last.
            () if (end == asked.end) != (d.flags & FINAL != 0) => Err(AdditionalCode::DATA_PHASE_ERROR),
            () => Ok(Of::Asked(place)),
        }
    }

    pub(super) fn data_out(&mut self, bhs: &Bhs, intact: bool, fx: &mut Vec<Fx>) {
        let d = DataOut::of(bhs);
        let itt = bhs.task();
        if !self.tasks.contains_key(&itt) {
            if !self.abandoned.contains(&itt) {
                self.reject(bhs, 0x09, fx);
            }
            return;
        }
        let judged = if intact { self.judge(&d) } else { Err(AdditionalCode::PROTOCOL_SERVICE_CRC_ERROR) };
        let last = d.flags & FINAL != 0;
        if !intact {
            self.reject(bhs, 0x02, fx);
        }
        let Some(task) = self.tasks.get_mut(&itt) else { return };
        match judged {
            Ok(Of::Unsolicited) => {
                task.got += d.data_segment();
                task.next_data_sn += 1;
                task.unsolicited = !last;
            }
            Ok(Of::Asked(place)) => {
                task.got += d.data_segment();
                task.asked[place].at += d.data_segment();
                task.asked[place].data_sn += 1;
                if last {
                    task.asked.remove(place);
                }
            }
            Err(code) => {
                if task.failed.is_none() {
                    task.failed = Some(aborted(code));
                }
                // What is owed ends with F, whatever is wrong with it.
                match Ttt(d.ttt.get()) {
                    Ttt::NONE => task.unsolicited &= !last,
                    ttt if last => task.asked.retain(|asked| asked.ttt != ttt.0),
                    _ => {}
                }
                task.waits = false;
                fx.push(Fx::Failed(itt));
            }
        }
        self.go_on(itt, fx);
    }
}
