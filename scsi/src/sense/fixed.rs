//! Fixed format (SPC-4 4.5.3): one structure of at least 18 bytes. Called by [`Sense`] only.

use zerocopy::IntoBytes;

use super::{AdditionalCode, KeySpecific, Marks, Sense, SenseKey, WHAT};
use crate::error::ParseError;
use crate::wire::{U32, bit, flag, wire};

wire!(
    /// SPC-4 table 53.
    WireFixed [18] {
        response: u8, segment: u8, key: u8, information: U32, more: u8, command_specific: U32, asc: u8, ascq: u8,
        unit_code: u8, specific: [u8; 3],
    }
);

/// Bytes up to the ADDITIONAL SENSE LENGTH field.
const FRONT: usize = 8;
/// Bytes up to the sense key.
const KEY: usize = 3;

/// Reads what is there; bytes beyond the end, or beyond the length that the sender states, are absent.
pub(super) fn parse(bytes: &[u8], deferred: bool) -> Result<Sense, ParseError> {
    if bytes.len() < KEY {
        return Err(ParseError::Truncated { what: WHAT, need: KEY, have: bytes.len() });
    }
    let stated = bytes.get(FRONT - 1).map_or(bytes.len(), |more| FRONT + usize::from(*more));
    let bytes = &bytes[..bytes.len().min(stated.max(KEY))];
    let key = SenseKey::from_bits(bytes[2]);
    let asc = bytes.get(12).copied().unwrap_or(0);
    let ascq = bytes.get(13).copied().unwrap_or(0);
    let information = word(bytes, 3).filter(|_| bit(bytes[0], 7)).map(u64::from);
    Ok(Sense {
        deferred,
        key,
        code: AdditionalCode::new(asc, ascq),
        information,
        command_specific: word(bytes, 8).filter(|word| *word != 0).map(u64::from),
        specific: bytes.get(15..18).and_then(|b| b.try_into().ok()).and_then(|b| KeySpecific::parse(key, b)),
        unit_code: bytes.get(14).copied().unwrap_or(0),
        marks: Marks {
            filemark: bit(bytes[2], 7),
            end_of_medium: bit(bytes[2], 6),
            incorrect_length: bit(bytes[2], 5),
        },
        overflow: bit(bytes[2], 4),
    })
}

/// Writes the structure. The VALID bit is the only mark of an INFORMATION field, so one that does not fit is left out.
pub(super) fn write(sense: &Sense) -> [u8; 18] {
    let information = sense.information.and_then(|i| u32::try_from(i).ok());
    let command_specific = sense.command_specific.and_then(|c| u32::try_from(c).ok());
    let code = if sense.deferred { 0x71 } else { 0x70 };
    let wire = WireFixed {
        response: flag(information.is_some(), 7) | code,
        segment: 0,
        key: flag(sense.marks.filemark, 7)
            | flag(sense.marks.end_of_medium, 6)
            | flag(sense.marks.incorrect_length, 5)
            | flag(sense.overflow, 4)
            | sense.key.bits(),
        information: U32::new(information.unwrap_or(0)),
        more: 10,
        command_specific: U32::new(command_specific.unwrap_or(0)),
        asc: sense.code.asc,
        ascq: sense.code.ascq,
        unit_code: sense.unit_code,
        specific: sense.specific.map_or([0; 3], KeySpecific::to_bytes),
    };
    let mut bytes = [0; 18];
    bytes.copy_from_slice(wire.as_bytes());
    bytes
}

/// The four bytes at `at`, if all are there.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}
