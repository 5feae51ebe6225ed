//! What the array in this process answers to commands.

use scsi::alua::{AccessState, Group, PortGroup, PortGroups, RelativePort, StatusCode, SupportedStates};
use scsi::capacity::Capacity;
use scsi::cdb::{Command, PersistentReserveOut};
use scsi::inquiry::StandardInquiry;
use scsi::mode::{Caching, ModeData, Page};
use scsi::reservations::{
    Access, Capabilities, Change, Generation, Held as HeldBy, InAction, Keys, Reservation, ReservationType, Role,
    TypeSet,
};
use scsi::vpd::{
    Association, BlockLimits, Designator, DeviceIdentification, Identifier, Naa, PageCode, SupportedPages,
};
use scsi::{BlockCount, BlockLen, Lba, ReservationKey};

use crate::array::{BLOCK, Held, Name, PORTS, State};

/// How a command ends.
pub(crate) enum Answer {
    Good(Vec<u8>),
    Check(u8, u8, u8),
    /// Of an earlier command.
    Deferred(u8, u8, u8),
    Conflict,
    /// It stays in the fabric.
    Silence,
}

const GOOD: Answer = Answer::Good(Vec::new());
const INVALID: Answer = Answer::Check(5, 0x24, 0);

impl State {
    /// Carries a command out.
    pub(crate) fn carry_out(&mut self, of: Name, itt: u32, cdb: &[u8], data: &[u8]) -> Answer {
        let Ok(command) = Command::parse(cdb) else { return Answer::Check(5, 0x20, 0) };
        let asks = matches!(command, Command::Inquiry(_) | Command::ReportTargetPortGroups(_));
        if !asks && let Some((asc, ascq)) = self.attentions.get_mut(&of).and_then(std::collections::VecDeque::pop_front)
        {
            return Answer::Check(6, asc, ascq);
        }
        if !asks && let Some(sense) = self.inaccessible(of.port) {
            return sense;
        }
        let access = match command {
            Command::Read(_) => Some(Access::Read),
            Command::Write(_) | Command::CompareAndWrite(_) => Some(Access::Write),
            _ => None,
        };
        let role = if self.keys.contains_key(&of) { Role::Holder } else { Role::Stranger };
        if access.is_some_and(|a| self.held.is_some_and(|kind| !kind.permits(a, role))) {
            return Answer::Conflict;
        }
        if access.is_some() && std::mem::take(&mut self.deferred) {
            return Answer::Deferred(3, 0x0c, 0);
        }
        if access.is_some() {
            self.asked[of.port] += 1;
            if let Some((key, asc, ascq)) = self.faults[of.port] {
                return Answer::Check(key, asc, ascq);
            }
        }
        match command {
            Command::Inquiry(inquiry) => self.inquiry(of, inquiry.page),
            Command::TestUnitReady(_) => GOOD,
            Command::SynchronizeCache(_) => {
                self.synced += 1;
                GOOD
            }
            Command::ReadCapacity16(_) => {
                Answer::Good(Capacity::new(Lba(self.blocks - 1), BlockLen::B512).to_bytes().to_vec())
            }
            Command::ModeSense(sense) => {
                let caching = Caching { write_cache: self.write_cache, read_cache_disabled: false };
                let pages = vec![Page::Caching(caching)];
                let data = ModeData { write_protected: self.write_protected, dpo_fua: self.fua, block: None, pages };
                Answer::Good(data.to_bytes(sense.form, false))
            }
            Command::ReportTargetPortGroups(ask) => Answer::Good(self.port_groups(ask.extended)),
            Command::Read(read) => self
                .range(read.range.lba, read.range.blocks)
                .map_or(Answer::Check(5, 0x21, 0), |(at, len)| Answer::Good(self.disk[at..at + len].to_vec())),
            Command::Write(write) => {
                self.forced += u32::from(write.caching.force_unit_access);
                self.write(of, itt, (write.range.lba, write.range.blocks), data)
            }
            Command::CompareAndWrite(caw) => {
                self.forced += u32::from(caw.caching.force_unit_access);
                self.compare_and_write(caw.lba, data)
            }
            Command::PersistentReserveIn(ask) => self.reserve_in(ask.action),
            Command::PersistentReserveOut(change) => self.reserve_out(of, &change, data),
            _ => Answer::Check(5, 0x20, 0),
        }
    }

    fn inaccessible(&self, port: usize) -> Option<Answer> {
        match self.groups[port] {
            AccessState::Standby => Some(Answer::Check(2, 4, 0x0b)),
            AccessState::Transitioning => Some(Answer::Check(2, 4, 0x0a)),
            _ => None,
        }
    }

    fn range(&self, lba: Lba, blocks: BlockCount) -> Option<(usize, usize)> {
        let end = lba.0.checked_add(blocks.0)?;
        (end <= self.blocks).then_some((lba.0 as usize * BLOCK, blocks.0 as usize * BLOCK))
    }

    fn write(&mut self, of: Name, itt: u32, (lba, blocks): (Lba, BlockCount), data: &[u8]) -> Answer {
        let Some((at, len)) = self.range(lba, blocks) else { return Answer::Check(5, 0x21, 0) };
        assert_eq!(data.len(), len, "data of the tests are immediate");
        if self.write_protected {
            return Answer::Check(7, 0x27, 0);
        }
        if self.holds[of.port] {
            self.fabric.push(Held { of, itt, at, data: data.to_vec() });
            return Answer::Silence;
        }
        self.disk[at..at + len].copy_from_slice(data);
        GOOD
    }

    fn compare_and_write(&mut self, lba: Lba, data: &[u8]) -> Answer {
        let at = lba.0 as usize * BLOCK;
        let (old, new) = data.split_at(data.len() / 2);
        if self.disk[at..at + BLOCK] != *old {
            return Answer::Check(0xe, 0x1d, 0);
        }
        self.disk[at..at + BLOCK].copy_from_slice(new);
        GOOD
    }

    fn inquiry(&self, of: Name, page: Option<PageCode>) -> Answer {
        let Some(page) = page else {
            let bytes = [0, 0, 6, 2, 31, 0x10, 0, 2];
            let mut whole = StandardInquiry::parse(&[&bytes[..], b"TEST    AN ARRAY        0001"].concat());
            return whole.as_mut().map_or(INVALID, |inquiry| Answer::Good(inquiry.to_bytes()));
        };
        match page {
            PageCode::SUPPORTED => {
                let pages = vec![PageCode::SUPPORTED, PageCode::IDENTIFICATION, PageCode::BLOCK_LIMITS];
                Answer::Good(SupportedPages { pages }.to_bytes())
            }
            PageCode::IDENTIFICATION => {
                let port = |identifier| Designator { association: Association::Port, protocol: Some(5), identifier };
                let number = u16::try_from(of.port + 1).unwrap_or(0);
                let designators = vec![
                    Designator::unit(Identifier::Naa(Naa::Long([0x60 + self.unit; 16]))),
                    port(Identifier::Port(RelativePort(number))),
                    port(Identifier::PortGroup(PortGroup(number))),
                ];
                Answer::Good(DeviceIdentification { designators }.to_bytes())
            }
            PageCode::BLOCK_LIMITS => {
                Answer::Good(BlockLimits { max_compare_and_write: 1, ..BlockLimits::default() }.to_bytes())
            }
            _ => INVALID,
        }
    }

    fn port_groups(&self, extended: bool) -> Vec<u8> {
        let group = |n: usize| Group {
            group: PortGroup(u16::try_from(n + 1).unwrap_or(0)),
            preferred: false,
            state: self.groups[n],
            supported: SupportedStates::default(),
            status: StatusCode::Implicit,
            ports: vec![RelativePort(u16::try_from(n + 1).unwrap_or(0))],
        };
        let groups = PortGroups { transition_seconds: Some(30), groups: (0..PORTS).map(group).collect() };
        let mut bytes = groups.to_bytes(extended);
        if extended && self.miscounts {
            bytes.truncate(bytes.len() - 4);
            bytes[3] -= 4;
        }
        bytes
    }

    fn reserve_in(&self, action: InAction) -> Answer {
        let generation = Generation(1);
        Answer::Good(match action {
            InAction::ReadKeys => {
                Keys { generation, keys: self.keys.values().map(|k| ReservationKey(*k)).collect() }.to_bytes()
            }
            InAction::ReadReservation => {
                let reservation = self.held.map(|kind| Reservation { key: ReservationKey::NONE, kind });
                HeldBy { generation, reservation }.to_bytes()
            }
            InAction::ReportCapabilities => Capabilities {
                persist_through_power_loss: true,
                types: Some(TypeSet::of(&[ReservationType::ExclusiveAccessAllRegistrants])),
                ..Capabilities::default()
            }
            .to_bytes()
            .to_vec(),
            InAction::ReadFullStatus => return INVALID,
        })
    }

    fn reserve_out(&mut self, of: Name, command: &PersistentReserveOut, list: &[u8]) -> Answer {
        let Ok(change) = Change::parse(command, list) else { return INVALID };
        let own = self.keys.get(&of).copied();
        match change {
            Change::Register { from, to } if own.unwrap_or(0) == from.0 => {
                if to.key.is_none() {
                    self.keys.remove(&of)
                } else {
                    self.keys.insert(of, to.key.0)
                };
                GOOD
            }
            Change::Reserve { key, kind } if own == Some(key.0) && self.held.is_none_or(|h| h == kind) => {
                self.held = Some(kind);
                GOOD
            }
            Change::Preempt { key, victim, abort, .. } if own == Some(key.0) => {
                let gone: Vec<Name> = self.keys.iter().filter(|(_, k)| **k == victim.0).map(|(n, _)| *n).collect();
                if gone.is_empty() {
                    return Answer::Conflict;
                }
                for name in gone {
                    self.keys.remove(&name);
                    if abort {
                        self.fabric.retain(|held| held.of != name);
                    }
                    self.attentions.entry(name).or_default().push_back((0x2a, 0x05));
                }
                GOOD
            }
            Change::Register { .. } | Change::Reserve { .. } | Change::Preempt { .. } => Answer::Conflict,
            _ => INVALID,
        }
    }
}
