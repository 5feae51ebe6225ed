//! What is stored of reservations (APTPL): lines of text, the last one a sum over all before it.
//!
//! ```text
//! shorefast-reservations 1
//! key 0x0123456789abcdef port 1 isid 400001370000 initiator iqn.2026-01.example:node-1
//! held 8
//! crc32c 5d2f8f2a
//! ```
//! `held` has the type's code and, for the types that one nexus holds, the place of its `key` line, from 0. Version 1 is
//! the only one. PRGENERATION is not stored: a power on sets it to 0 (SPC-4 5.13.2).

use std::fmt::Write;

use scsi::ReservationKey;
use scsi::reservations::{Isid, ReservationType};

use super::{Hold, MAX_REGISTRATIONS, Reservations};
use crate::core::name::NexusName;

const FIRST: &str = "shorefast-reservations 1\n";

/// Why what was stored cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("its first line is not `{}`: another version wrote it, or it is no such file", FIRST.trim())]
    Version,
    #[error("its sum is wrong: it is damaged")]
    Sum,
    #[error("line {0} cannot be")]
    Line(usize),
}

/// The bytes to be stored.
pub(crate) fn to_bytes(state: &Reservations) -> Vec<u8> {
    let mut text = FIRST.to_owned();
    for (name, key) in &state.registered {
        let NexusName { initiator, isid, port } = name;
        let _ = writeln!(text, "key {:#018x} port {port} isid {isid} initiator {initiator}", key.0);
    }
    if let Some(hold) = &state.hold {
        let _ = match &hold.by {
            Some(by) => {
                let place = state.registered.keys().position(|name| name == by).unwrap_or_default();
                writeln!(text, "held {} {place}", hold.kind.code())
            }
            None => writeln!(text, "held {}", hold.kind.code()),
        };
    }
    let _ = writeln!(text, "crc32c {:08x}", crc32c::crc32c(text.as_bytes()));
    text.into_bytes()
}

/// What was stored. It is in force, and is to be stored on.
pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Reservations, FileError> {
    let text = std::str::from_utf8(bytes).map_err(|_| FileError::Sum)?;
    let body = text.strip_prefix(FIRST).ok_or(FileError::Version)?;
    let end = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
    let sum = text[end..].trim_end().strip_prefix("crc32c ").and_then(|sum| u32::from_str_radix(sum, 16).ok());
    if sum != Some(crc32c::crc32c(&bytes[..end])) {
        return Err(FileError::Sum);
    }
    let mut state = Reservations { persist: true, ..Reservations::default() };
    let lines = body[..end - FIRST.len()].lines().enumerate();
    for (n, line) in lines {
        let wrong = FileError::Line(n + 2);
        let words: Vec<&str> = line.splitn(8, ' ').collect();
        match words[..] {
            ["key", key, "port", port, "isid", isid, "initiator", initiator] => {
                let key = key.strip_prefix("0x").and_then(|k| u64::from_str_radix(k, 16).ok()).filter(|k| *k != 0);
                let (Some(key), Ok(port), Some(isid)) = (key, port.parse(), Isid::from_hex(isid)) else {
                    return Err(wrong);
                };
                let name = NexusName { initiator: initiator.to_owned(), isid, port };
                state.registered.insert(name, ReservationKey(key));
            }
            ["held", kind] => state.hold = Some(held(&state, kind, None).ok_or(wrong)?),
            ["held", kind, by] => state.hold = Some(held(&state, kind, Some(by)).ok_or(wrong)?),
            _ => return Err(wrong),
        }
        if state.registered.len() > MAX_REGISTRATIONS {
            return Err(FileError::Line(n + 2));
        }
    }
    Ok(state)
}

fn held(state: &Reservations, kind: &str, by: Option<&str>) -> Option<Hold> {
    let kind = kind.parse().ok().and_then(ReservationType::from_code)?;
    let by = match by {
        Some(place) => Some(state.registered.keys().nth(place.parse().ok()?)?.clone()),
        None => None,
    };
    let fits = !state.registered.is_empty() && state.hold.is_none() && kind.all_registrants() == by.is_none();
    fits.then_some(Hold { kind, by })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> Reservations {
        let name = |n: u8| NexusName {
            initiator: format!("iqn.2026-01.test:node-{n}"),
            isid: Isid([0x80, 0, 0, 0, 0, n]),
            port: 1,
        };
        let registered = [(name(1), ReservationKey(0x11)), (name(2), ReservationKey(0x22))].into();
        let hold = Some(Hold { kind: ReservationType::WriteExclusive, by: Some(name(2)) });
        Reservations { generation: 0, registered, hold, persist: true }
    }

    /// The bytes of version 1. If this fails, a new version is needed, which still reads the old one.
    #[test]
    fn stored_reservations_have_these_bytes() {
        let text = String::from_utf8(to_bytes(&state())).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "shorefast-reservations 1",
                "key 0x0000000000000011 port 1 isid 800000000001 initiator iqn.2026-01.test:node-1",
                "key 0x0000000000000022 port 1 isid 800000000002 initiator iqn.2026-01.test:node-2",
                "held 1 1",
            ]
        );
    }

    #[test]
    fn what_was_stored_is_read_again() {
        for hold in [state().hold, None, Some(Hold { kind: ReservationType::ExclusiveAccessAllRegistrants, by: None })]
        {
            let stored = Reservations { hold, ..state() };
            assert_eq!(from_bytes(&to_bytes(&stored)), Ok(stored));
        }
    }

    #[test]
    fn a_damaged_file_is_refused_wherever_it_is_damaged() {
        let good = to_bytes(&state());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(from_bytes(&bad).is_err() || from_bytes(&bad) == from_bytes(&good), "byte {at}");
            assert!(from_bytes(&good[..at]).is_err() || at + 1 == good.len(), "cut at {at}");
        }
        assert_eq!(from_bytes(b"something else"), Err(FileError::Version));
    }
}
