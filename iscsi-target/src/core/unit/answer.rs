//! Commands that the unit answers by itself.

use scsi::capacity::{Capacity, Capacity10};
use scsi::cdb::{Command, LogSense, OpCodeQuery, ReportOpCodes, SelectReport};
use scsi::log::ProvisioningResources;
use scsi::luns::Luns;
use scsi::opcodes::{OneCommand, Support, SupportedCommand, SupportedCommands, Timeouts};
use scsi::reservations::InAction;
use scsi::units::ByteCount;
use scsi::{Lba, LunAddress, Sense, SenseKey};

use super::{NexusId, Outcome, Unit, opcodes};

/// Task management that REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS tells: abort task, abort task set, clear task set,
/// logical unit reset (bits 7 to 0 of byte 0: ATS, ATSS, CACAS, CTSS, LURS, QTS, TRS, WAKES).
const TASK_MANAGEMENT: u8 = 0b1101_1000;
/// A threshold set is 2^11 blocks of 512 bytes: 1 MiB (THRESHOLD EXPONENT of page B2h).
pub(super) const THRESHOLD_EXPONENT: u8 = 11;

/// Cuts an answer to what the initiator takes.
fn cut(mut data: Vec<u8>, alloc: impl Into<ByteCount>) -> Outcome {
    data.truncate(alloc.into().as_usize());
    Outcome::data(data)
}

impl Unit {
    /// Answers a command; `luns` are the numbers of the target's units.
    pub(crate) fn answer(&mut self, nexus: NexusId, command: &Command, luns: &[u64]) -> Outcome {
        match command {
            Command::RequestSense(c) => {
                let sense = self.take_attention(nexus);
                let sense = sense.unwrap_or(Sense::new(SenseKey::NoSense, scsi::AdditionalCode::NONE));
                cut(if c.descriptor { sense.to_descriptor() } else { sense.to_fixed().to_vec() }, c.alloc)
            }
            Command::Inquiry(c) => match self.inquiry(nexus, c.page) {
                Some(data) => cut(data, c.alloc),
                None => Outcome::field(2, None),
            },
            Command::ModeSense(c) => match self.mode.sense(c, &self.shape) {
                Ok(data) => cut(data, c.alloc),
                Err(outcome) => outcome,
            },
            Command::StartStopUnit(c) => {
                // A unit that several hosts share is not stopped by one of them, and nothing can be ejected.
                match (c.load_eject, c.power_condition, c.start) {
                    (true, _, _) => Outcome::field(4, Some(1)),
                    (_, 0, false) => Outcome::field(4, Some(0)),
                    (_, 0, true) => Outcome::GOOD,
                    _ => Outcome::field(4, Some(7)),
                }
            }
            Command::Reserve6(_) => {
                self.reserved6 = Some(nexus);
                Outcome::GOOD
            }
            Command::Release6(_) => {
                if self.reserved6 == Some(nexus) {
                    self.reserved6 = None;
                }
                Outcome::GOOD
            }
            Command::ReadCapacity10(_) => Outcome::data(Capacity10::to_bytes(&self.capacity()).to_vec()),
            Command::ReadCapacity16(c) => cut(self.capacity().to_bytes().to_vec(), c.alloc),
            Command::LogSense(c) => self.log_sense(c),
            Command::PersistentReserveIn(c) => {
                let data = match c.action {
                    InAction::ReadKeys => self.reservations.keys().to_bytes(),
                    InAction::ReadReservation => self.reservations.held().to_bytes(),
                    InAction::ReportCapabilities => {
                        self.reservations.capabilities(self.shape.persists).to_bytes().to_vec()
                    }
                    InAction::ReadFullStatus => self.reservations.full_status().to_bytes(),
                };
                cut(data, c.alloc)
            }
            Command::ReportLuns(c) => {
                let luns = match c.select {
                    SelectReport::WellKnown => Vec::new(),
                    _ => luns.iter().filter_map(|lun| LunAddress::new(*lun)).collect(),
                };
                cut(Luns { luns }.to_bytes(), c.alloc)
            }
            Command::ReportTargetPortGroups(c) => cut(self.port_groups().to_bytes(c.extended), c.alloc),
            Command::ReportOpCodes(c) => report_opcodes(c, self.shape.thin),
            Command::ReportTaskManagement(c) => {
                let mut data = vec![TASK_MANAGEMENT, 0, 0, 0];
                if c.extended {
                    data[3] = 12;
                    data.resize(16, 0);
                }
                cut(data, c.alloc)
            }
            // TEST UNIT READY; what else is planned is not answered here.
            _ => Outcome::GOOD,
        }
    }

    pub(super) fn capacity(&self) -> Capacity {
        Capacity {
            physical_exponent: self.shape.physical_exponent,
            provisioning: self.shape.thin,
            reads_zeroes: self.shape.thin,
            ..Capacity::new(Lba(self.shape.blocks.saturating_sub(1)), self.shape.block)
        }
    }

    fn log_sense(&self, c: &LogSense) -> Outcome {
        if c.save {
            return Outcome::field(1, Some(0));
        }
        let data = match (c.page, c.subpage) {
            (0, 0) if self.shape.thin => vec![0, 0, 0, 2, 0, ProvisioningResources::PAGE],
            (0, 0) => vec![0, 0, 0, 1, 0],
            (ProvisioningResources::PAGE, 0) if self.shape.thin => {
                let sets = |blocks: u64| {
                    let bytes = blocks.saturating_mul(u64::from(self.shape.block.get()));
                    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
                };
                let available = self.space.map(|(left, _)| sets(left));
                ProvisioningResources { available, used: None }.to_bytes()
            }
            _ => return Outcome::field(2, Some(5)),
        };
        cut(data, c.alloc)
    }
}

fn report_opcodes(c: &ReportOpCodes, thin: bool) -> Outcome {
    let timeouts = c.timeouts.then(Timeouts::default);
    let one = |code, action| {
        let found = opcodes::TABLE.iter().find(|row| row.code == code && row.action == action && row.is_there(thin));
        let (support, usage) = match found {
            Some(row) => (Support::Standard, row.usage.to_vec()),
            None => (Support::No, Vec::new()),
        };
        OneCommand { support, timeouts: timeouts.filter(|_| !usage.is_empty()), usage }
    };
    let has_actions = |code| opcodes::TABLE.iter().any(|row| row.code == code && row.action.is_some());
    let data = match c.query {
        OpCodeQuery::All => {
            let rows = opcodes::TABLE.iter().filter(|row| row.is_there(thin));
            let commands = rows.map(|row| SupportedCommand {
                code: row.code,
                action: row.action,
                cdb_len: u16::try_from(row.usage.len()).unwrap_or(0),
                timeouts,
            });
            SupportedCommands { commands: commands.collect() }.to_bytes()
        }
        // A code with service actions must be asked for with one, one without must not (SPC-4 6.35.1).
        OpCodeQuery::One(code) if has_actions(code) => return Outcome::field(2, Some(2)),
        OpCodeQuery::One(code) => one(code, None).to_bytes(),
        OpCodeQuery::Action(code, action) if has_actions(code) => one(code, Some(action)).to_bytes(),
        OpCodeQuery::Action(..) => return Outcome::field(2, Some(2)),
        OpCodeQuery::Either(code, action) => one(code, has_actions(code).then_some(action)).to_bytes(),
    };
    cut(data, c.alloc)
}
