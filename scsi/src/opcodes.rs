//! REPORT SUPPORTED OPERATION CODES data (SPC-4 6.35): which commands a unit has, before one is tried.

use zerocopy::IntoBytes;

use crate::error::ParseError;
use crate::units::OpCode;
use crate::wire::{U16, U32, bit, entry, flag, head, len16, len32, split, take, wire};

wire!(
    /// SPC-4 table 291.
    WireCommand [8] { code: u8, r1: u8, action: U16, r2: u8, flags: u8, cdb_len: U16 }
);
wire!(
    /// SPC-4 table 293.
    WireOne [4] { reserved: u8, support: u8, cdb_len: U16 }
);
wire!(
    /// SPC-4 table 295: command timeouts descriptor.
    WireTimeouts [12] { len: U16, reserved: u8, specific: u8, nominal: U32, recommended: U32 }
);

/// Seconds that a command takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// NOMINAL COMMAND PROCESSING TIMEOUT: before that, asking makes no sense. `None` is not told.
    pub nominal_seconds: Option<u32>,
    /// RECOMMENDED COMMAND TIMEOUT: after that, something is wrong. `None` is not told.
    pub recommended_seconds: Option<u32>,
}

/// A command that a unit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportedCommand {
    /// Its operation code.
    pub code: OpCode,
    /// Its service action, where the operation code has several (SERVACTV).
    pub action: Option<u16>,
    /// Bytes of its command descriptor block.
    pub cdb_len: u16,
    /// Its timeouts, where they were asked for and are told (CTDP).
    pub timeouts: Option<Timeouts>,
}

/// Every command that a unit has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SupportedCommands {
    /// The commands, in the target's order.
    pub commands: Vec<SupportedCommand>,
}

/// Whether a unit has a command (SUPPORT, SPC-4 table 294).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// 000b: not known now; ask again.
    Unknown,
    /// 001b: it does not have it.
    No,
    /// 011b: as the standard says.
    Standard,
    /// 101b: in the vendor's own way.
    Vendor,
    /// A reserved value.
    Other(u8),
}

/// What a unit says about one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneCommand {
    /// Whether it has it.
    pub support: Support,
    /// CDB USAGE DATA: the operation code, then a set bit for each bit that is looked at; at most 260 bytes.
    pub usage: Vec<u8>,
    /// Its timeouts, where they were asked for and are told.
    pub timeouts: Option<Timeouts>,
}

const ALL: &str = "REPORT SUPPORTED OPERATION CODES data, all commands";
const ONE: &str = "REPORT SUPPORTED OPERATION CODES data, one command";

impl SupportedCommands {
    /// The most commands that are read: every operation code with eight service actions.
    pub const MAX: usize = 2048;

    /// Reads the whole list (REPORTING OPTIONS 000b), or says how many bytes it has.
    pub fn parse(bytes: &[u8]) -> Result<SupportedCommands, ParseError> {
        let (len, rest) = head::<U32>(ALL, bytes)?;
        let len = len32(*len);
        let cut = |_| ParseError::Truncated { what: ALL, need: len.saturating_add(4), have: bytes.len() };
        let (mut list, _) = split(ALL, rest, len).map_err(cut)?;
        let mut commands = Vec::new();
        while !list.is_empty() {
            if commands.len() == SupportedCommands::MAX {
                return Err(ParseError::TooMany { what: ALL, max: SupportedCommands::MAX });
            }
            let (wire, mut rest) = entry::<WireCommand>(ALL, list)?;
            let mut timeouts = None;
            if bit(wire.flags, 1) {
                (timeouts, rest) = Timeouts::parse(rest)?;
            }
            commands.push(SupportedCommand {
                code: OpCode(wire.code),
                action: bit(wire.flags, 0).then_some(wire.action.get()),
                cdb_len: wire.cdb_len.get(),
                timeouts,
            });
            list = rest;
        }
        Ok(SupportedCommands { commands })
    }

    /// The whole answer; a target cuts it to the allocation length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for command in &self.commands {
            let wire = WireCommand {
                code: command.code.0,
                r1: 0,
                action: U16::new(command.action.unwrap_or(0)),
                r2: 0,
                flags: flag(command.timeouts.is_some(), 1) | flag(command.action.is_some(), 0),
                cdb_len: U16::new(command.cdb_len),
            };
            list.extend_from_slice(wire.as_bytes());
            list.extend(command.timeouts.into_iter().flat_map(Timeouts::to_bytes));
        }
        let mut bytes = U32::new(u32::try_from(list.len()).unwrap_or(u32::MAX)).as_bytes().to_vec();
        bytes.append(&mut list);
        bytes
    }

    /// Whether the unit has this command.
    pub fn has(&self, code: OpCode, action: Option<u16>) -> bool {
        self.commands.iter().any(|command| command.code == code && command.action == action)
    }
}

impl OneCommand {
    /// Reads the answer about one command (REPORTING OPTIONS 001b to 011b).
    pub fn parse(bytes: &[u8]) -> Result<OneCommand, ParseError> {
        let (wire, rest) = head::<WireOne>(ONE, bytes)?;
        let support = match wire.support & 7 {
            0 => Support::Unknown,
            1 => Support::No,
            3 => Support::Standard,
            5 => Support::Vendor,
            other => Support::Other(other),
        };
        if !matches!(support, Support::Standard | Support::Vendor) {
            // Nothing behind it means anything then.
            return Ok(OneCommand { support, usage: Vec::new(), timeouts: None });
        }
        let len = len16(wire.cdb_len);
        if len > crate::cdb::MAX_CDB {
            return Err(ParseError::BadField { what: ONE, field: "CDB SIZE", value: u64::from(wire.cdb_len.get()) });
        }
        let cut = |_| ParseError::Truncated { what: ONE, need: len + 4, have: bytes.len() };
        let (usage, rest) = split(ONE, rest, len).map_err(cut)?;
        let timeouts = if bit(wire.support, 7) && !rest.is_empty() { Timeouts::parse(rest)?.0 } else { None };
        Ok(OneCommand { support, usage: usage.to_vec(), timeouts })
    }

    /// The whole answer; a target cuts it to the allocation length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let support = match self.support {
            Support::Unknown => 0,
            Support::No => 1,
            Support::Standard => 3,
            Support::Vendor => 5,
            Support::Other(other) => other & 7,
        };
        let wire = WireOne {
            reserved: 0,
            support: flag(self.timeouts.is_some(), 7) | support,
            cdb_len: U16::new(u16::try_from(self.usage.len()).unwrap_or(0)),
        };
        let mut bytes = wire.as_bytes().to_vec();
        bytes.extend_from_slice(&self.usage);
        bytes.extend(self.timeouts.into_iter().flat_map(Timeouts::to_bytes));
        bytes
    }
}

impl Timeouts {
    /// Reads a descriptor; one that is shorter than the standard's tells nothing.
    fn parse(bytes: &[u8]) -> Result<(Option<Timeouts>, &[u8]), ParseError> {
        let (len, _) = entry::<U16>("command timeouts", bytes)?;
        let (all, rest) = take("command timeouts", bytes, 2 + len16(*len))?;
        let told = |seconds: U32| Some(seconds.get()).filter(|seconds| *seconds != 0);
        let timeouts = entry::<WireTimeouts>("command timeouts", all).ok().map(|(wire, _)| Timeouts {
            nominal_seconds: told(wire.nominal),
            recommended_seconds: told(wire.recommended),
        });
        Ok((timeouts, rest))
    }

    fn to_bytes(self) -> Vec<u8> {
        let wire = WireTimeouts {
            len: U16::new(10),
            reserved: 0,
            specific: 0,
            nominal: U32::new(self.nominal_seconds.unwrap_or(0)),
            recommended: U32::new(self.recommended_seconds.unwrap_or(0)),
        };
        wire.as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdb::op;

    fn commands() -> SupportedCommands {
        let timeouts = Some(Timeouts { nominal_seconds: None, recommended_seconds: Some(30) });
        SupportedCommands {
            commands: vec![
                SupportedCommand { code: op::COMPARE_AND_WRITE, action: None, cdb_len: 16, timeouts: None },
                SupportedCommand { code: op::PERSISTENT_RESERVE_OUT, action: Some(5), cdb_len: 10, timeouts },
            ],
        }
    }

    /// SPC-4 tables 290, 291 and 295.
    const BYTES: [u8; 32] =
        [0, 0, 0, 28, 0x89, 0, 0, 0, 0, 0, 0, 16, 0x5f, 0, 0, 5, 0, 3, 0, 10, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 30];

    #[test]
    fn commands_are_read_and_written() {
        assert_eq!(SupportedCommands::parse(&BYTES), Ok(commands()));
        assert_eq!(commands().to_bytes(), BYTES);
        assert!(commands().has(op::COMPARE_AND_WRITE, None));
        assert!(!commands().has(op::PERSISTENT_RESERVE_OUT, Some(0)));
    }

    #[test]
    fn a_cut_list_says_how_long_it_is_and_a_wrong_one_is_refused() {
        let cut = SupportedCommands::parse(&BYTES[..20]);
        assert_eq!(cut.map_err(|e| e.wanted(4096)), Err(Some(32)));
        let mut bytes = BYTES;
        bytes[21] = 200;
        assert!(matches!(SupportedCommands::parse(&bytes), Err(ParseError::Overrun { .. })));
    }

    /// SPC-4 table 293: COMPARE AND WRITE looks at its flags, address, count and group.
    #[test]
    fn one_command_is_read_and_written() {
        let mut usage = vec![0x89, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x1f, 0];
        let one = OneCommand { support: Support::Standard, usage: usage.clone(), timeouts: None };
        let mut bytes = vec![0, 3, 0, 16];
        bytes.append(&mut usage);
        assert_eq!(OneCommand::parse(&bytes), Ok(one.clone()));
        assert_eq!(one.to_bytes(), bytes);
        assert_eq!(OneCommand::parse(&bytes[..10]).map_err(|e| e.wanted(512)), Err(Some(20)));
        let no = OneCommand { support: Support::No, usage: Vec::new(), timeouts: None };
        assert_eq!(OneCommand::parse(&[0, 1, 0, 0]), Ok(no));
    }
}
