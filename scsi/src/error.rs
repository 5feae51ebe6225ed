//! Why bytes were not accepted, and why a command could not be built.
//!
//! Three readers, three errors. [`ParseError`]: an initiator reads what a target answered; nothing in it goes back
//! over the wire. [`CdbError`] and [`ListError`]: a target reads a command or its parameter list; each becomes the
//! sense data that SPC-4 asks for. [`BuildError`]: a caller asked for a command that its form cannot carry.

use crate::sense::{AdditionalCode, KeySpecific, Sense, SenseKey};
use crate::units::OpCode;

/// Why the data of a target is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Fewer bytes than the fixed part of the structure, or than the length that it states for itself. The same command
    /// with room for `need` bytes may succeed; see [`ParseError::wanted`].
    #[error("{what}: {have} bytes where at least {need} are needed")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Bytes that it needs.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// An entry of a list goes beyond the list's end. Asking for more bytes does not help.
    #[error("{what}: an entry of {need} bytes where the list has {have} left")]
    Overrun {
        /// The entry.
        what: &'static str,
        /// Bytes that it needs.
        need: usize,
        /// Bytes that the list has left.
        have: usize,
    },
    /// A field has a value that this structure cannot have.
    #[error("{what}: the field {field} is {value:#x}, which it cannot be here")]
    BadField {
        /// The structure.
        what: &'static str,
        /// The field, as the standard names it.
        field: &'static str,
        /// What is in it.
        value: u64,
    },
    /// More list entries than this crate reads.
    #[error("{what}: more than {max} entries")]
    TooMany {
        /// The list.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

impl ParseError {
    /// Bytes that the next try must allow, where more room can help and not more than `most` bytes are asked for: what a
    /// target states is no reason to give it that much memory.
    pub fn wanted(&self, most: usize) -> Option<usize> {
        match self {
            ParseError::Truncated { need, have, .. } if *need > *have && *need <= most => Some(*need),
            _ => None,
        }
    }
}

/// Why a command could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A value is larger than the field that carries it.
    #[error("{what}: {field} cannot be {value}; the largest value is {max}")]
    DoesNotFit {
        /// The command or parameter list.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// What was asked for.
        value: u64,
        /// The largest value of the field in this form.
        max: u64,
    },
    /// The form (6, 10, 12 or 16 bytes) of the command does not exist or cannot express an option.
    #[error("{what}: this form of the command does not have {option}")]
    NoSuchForm {
        /// The command.
        what: &'static str,
        /// What the form does not have.
        option: &'static str,
    },
}

/// Why a target refuses a command descriptor block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CdbError {
    /// The operation code, or the service action of one, is none that this crate knows.
    #[error("unknown operation code {0}")]
    UnknownOpCode(OpCode),
    /// A field of the block is wrong.
    #[error("invalid field in byte {byte} of the command descriptor block")]
    InvalidField {
        /// Byte of the block.
        byte: u16,
        /// The field's left-most bit, or `None` for whole bytes.
        bit: Option<u8>,
    },
    /// Fewer bytes than the operation code's group has.
    #[error("a command descriptor block of {have} bytes where {need} are needed")]
    Truncated {
        /// Bytes of the group.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
}

impl CdbError {
    /// The error about the whole of byte `byte`.
    pub const fn byte(byte: u16) -> CdbError {
        CdbError::InvalidField { byte, bit: None }
    }

    /// The error about the field that begins at `bit` of `byte`.
    pub const fn bit(byte: u16, bit: u8) -> CdbError {
        CdbError::InvalidField { byte, bit: Some(bit) }
    }

    /// The sense data that a target answers (SPC-4 4.5.2.4.2: field pointer; ASC 20h, 24h).
    pub fn sense(self) -> Sense {
        match self {
            CdbError::UnknownOpCode(_) => Sense::new(SenseKey::IllegalRequest, AdditionalCode::INVALID_OPERATION_CODE),
            CdbError::InvalidField { byte, bit } => Sense {
                specific: Some(KeySpecific::Field { in_cdb: true, byte, bit }),
                ..Sense::new(SenseKey::IllegalRequest, AdditionalCode::INVALID_FIELD_IN_CDB)
            },
            CdbError::Truncated { .. } => Sense::new(SenseKey::IllegalRequest, AdditionalCode::INVALID_FIELD_IN_CDB),
        }
    }
}

/// Why a target refuses a parameter list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The list is shorter than its fixed part, or a length inside it is wrong.
    #[error("the length of the parameter list is wrong")]
    Length,
    /// A field of the list is wrong.
    #[error("invalid field in byte {byte} of the parameter list")]
    InvalidField {
        /// Byte of the list.
        byte: u16,
        /// The field's left-most bit, or `None` for whole bytes.
        bit: Option<u8>,
    },
    /// More entries than the target takes.
    #[error("more than {max} entries in the parameter list")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

impl ListError {
    /// The error about the whole of the field that begins at byte `at`; a position past 65 535 names no byte.
    pub fn byte(at: usize) -> ListError {
        match u16::try_from(at) {
            Ok(byte) => ListError::InvalidField { byte, bit: None },
            Err(_) => ListError::Length,
        }
    }

    /// The sense data that a target answers (ASC 1Ah and 26h).
    pub fn sense(self) -> Sense {
        match self {
            ListError::Length => Sense::new(SenseKey::IllegalRequest, AdditionalCode::PARAMETER_LIST_LENGTH_ERROR),
            ListError::InvalidField { byte, bit } => Sense {
                specific: Some(KeySpecific::Field { in_cdb: false, byte, bit }),
                ..Sense::new(SenseKey::IllegalRequest, AdditionalCode::INVALID_FIELD_IN_PARAMETER_LIST)
            },
            ListError::TooMany { .. } => Sense::new(SenseKey::IllegalRequest, AdditionalCode::TOO_MANY_SEGMENTS),
        }
    }
}
