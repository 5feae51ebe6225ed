//! Descriptor format (SPC-4 4.5.2): a header of 8 bytes and descriptors of a type and a length. Called by [`Sense`]
//! only. Unknown descriptors are passed over; of two of one type the first counts.

use zerocopy::IntoBytes;

use super::{AdditionalCode, KeySpecific, Marks, Sense, SenseKey, WHAT};
use crate::error::ParseError;
use crate::wire::{U64, bit, flag, wire};

wire!(
    /// SPC-4 table 28, the header.
    WireHead [8] { response: u8, key: u8, asc: u8, ascq: u8, overflow: u8, reserved: [u8; 2], more: u8 }
);

wire!(
    /// SPC-4 4.5.2.2 and 4.5.2.3: information (type 0) and command-specific information (type 1).
    WireNumber [12] { kind: u8, more: u8, valid: u8, reserved: u8, number: U64 }
);

wire!(
    /// SPC-4 4.5.2.4: sense key specific (type 2).
    WireSpecific [8] { kind: u8, more: u8, reserved: [u8; 2], specific: [u8; 3], end: u8 }
);

wire!(
    /// SPC-4 4.5.2.5: field replaceable unit (type 3).
    WireUnit [4] { kind: u8, more: u8, reserved: u8, unit_code: u8 }
);

wire!(
    /// SBC-3 4.18.2: block commands (type 5), with the ILI bit.
    WireBlock [4] { kind: u8, more: u8, reserved: u8, flags: u8 }
);

const INFORMATION: u8 = 0;
const COMMAND_SPECIFIC: u8 = 1;
const SPECIFIC: u8 = 2;
const UNIT: u8 = 3;
const STREAM: u8 = 4;
const BLOCK: u8 = 5;

/// Reads what is there; a descriptor that was cut off is absent.
pub(super) fn parse(bytes: &[u8], deferred: bool) -> Result<Sense, ParseError> {
    let Some(key) = bytes.get(1) else {
        return Err(ParseError::Truncated { what: WHAT, need: 2, have: bytes.len() });
    };
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let mut sense = Sense::new(SenseKey::from_bits(*key), AdditionalCode::new(byte(2), byte(3)));
    sense.deferred = deferred;
    sense.overflow = bit(byte(4), 7);
    let end = bytes.len().min(8 + usize::from(byte(7)));
    let mut rest = bytes.get(8..end).unwrap_or_default();
    let mut seen = 0u8;
    while let [kind, more, ..] = *rest {
        let Some((one, next)) = rest.split_at_checked(2 + usize::from(more)) else { break };
        let first = kind > BLOCK || seen & 1 << kind == 0;
        if first {
            seen |= 1u8.checked_shl(u32::from(kind)).unwrap_or(0);
            read(&mut sense, kind, one);
        }
        rest = next;
    }
    Ok(sense)
}

/// Takes over one descriptor.
fn read(sense: &mut Sense, kind: u8, bytes: &[u8]) {
    match kind {
        // SPC-4 says that VALID is always one; a descriptor with zero tells nothing.
        INFORMATION if bit(*bytes.get(2).unwrap_or(&0), 7) => sense.information = number(bytes),
        COMMAND_SPECIFIC => sense.command_specific = number(bytes).filter(|n| *n != 0),
        SPECIFIC => {
            let three = bytes.get(4..7).and_then(|b| b.try_into().ok());
            sense.specific = three.and_then(|b| KeySpecific::parse(sense.key, b));
        }
        UNIT => sense.unit_code = bytes.get(3).copied().unwrap_or(0),
        STREAM | BLOCK => {
            let flags = bytes.get(3).copied().unwrap_or(0);
            sense.marks = Marks {
                filemark: kind == STREAM && bit(flags, 7),
                end_of_medium: kind == STREAM && bit(flags, 6),
                incorrect_length: bit(flags, 5),
            };
        }
        _ => {}
    }
}

/// The number of an information or command-specific descriptor.
fn number(bytes: &[u8]) -> Option<u64> {
    bytes.get(4..12)?.try_into().ok().map(u64::from_be_bytes)
}

/// Writes header and descriptors, those with nothing to say left out.
pub(super) fn write(sense: &Sense) -> Vec<u8> {
    let mut list = Vec::with_capacity(48);
    if let Some(information) = sense.information {
        let wire = WireNumber { kind: INFORMATION, more: 10, valid: 0x80, reserved: 0, number: U64::new(information) };
        list.extend_from_slice(wire.as_bytes());
    }
    if let Some(command_specific) = sense.command_specific {
        let number = U64::new(command_specific);
        let wire = WireNumber { kind: COMMAND_SPECIFIC, more: 10, valid: 0, reserved: 0, number };
        list.extend_from_slice(wire.as_bytes());
    }
    if let Some(specific) = sense.specific {
        let specific = specific.to_bytes();
        let wire = WireSpecific { kind: SPECIFIC, more: 6, reserved: [0; 2], specific, end: 0 };
        list.extend_from_slice(wire.as_bytes());
    }
    if sense.unit_code != 0 {
        let wire = WireUnit { kind: UNIT, more: 2, reserved: 0, unit_code: sense.unit_code };
        list.extend_from_slice(wire.as_bytes());
    }
    let marks = sense.marks;
    let ili = flag(marks.incorrect_length, 5);
    if marks.filemark || marks.end_of_medium {
        let flags = flag(marks.filemark, 7) | flag(marks.end_of_medium, 6) | ili;
        list.extend_from_slice(WireBlock { kind: STREAM, more: 2, reserved: 0, flags }.as_bytes());
    } else if marks.incorrect_length {
        list.extend_from_slice(WireBlock { kind: BLOCK, more: 2, reserved: 0, flags: ili }.as_bytes());
    }
    let head = WireHead {
        response: if sense.deferred { 0x73 } else { 0x72 },
        key: sense.key.bits(),
        asc: sense.code.asc,
        ascq: sense.code.ascq,
        overflow: flag(sense.overflow, 7),
        reserved: [0; 2],
        // At most 12 + 12 + 8 + 4 + 4 bytes were written above.
        more: u8::try_from(list.len()).unwrap_or(u8::MAX),
    };
    let mut bytes = head.as_bytes().to_vec();
    bytes.append(&mut list);
    bytes
}
