//! READ KEYS (SPC-4 6.15.2): every registered key, once for each registration.

use zerocopy::IntoBytes;

use super::Generation;
use crate::error::ParseError;
use crate::units::ReservationKey;
use crate::wire::{U32, U64, head, len32, split, wire};

wire!(
    /// In front of READ KEYS, READ RESERVATION and READ FULL STATUS data.
    WireGeneration [8] { generation: U32, more: U32 }
);

/// The keys that are registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The generation at which these were the keys.
    pub generation: Generation,
    /// The keys; one that several I_T nexuses use is there several times.
    pub keys: Vec<ReservationKey>,
}

const WHAT: &str = "READ KEYS data";
/// Bytes of a key.
const KEY: usize = 8;

impl Keys {
    /// The most keys that an answer can carry: its allocation length has 16 bits.
    pub const MAX: usize = (65_535 - 8) / KEY;

    /// Reads the whole list, or says how many bytes it has.
    pub fn parse(bytes: &[u8]) -> Result<Keys, ParseError> {
        let (generation, list) = body(WHAT, bytes)?;
        if !list.len().is_multiple_of(KEY) {
            let value = u64::try_from(list.len()).unwrap_or(u64::MAX);
            return Err(ParseError::BadField { what: WHAT, field: "ADDITIONAL LENGTH", value });
        }
        if list.len() / KEY > Keys::MAX {
            return Err(ParseError::TooMany { what: WHAT, max: Keys::MAX });
        }
        let (keys, _) = list.as_chunks::<KEY>();
        let keys = keys.iter().map(|key| ReservationKey(u64::from_be_bytes(*key))).collect();
        Ok(Keys { generation, keys })
    }

    /// The whole answer; a target cuts it to the allocation length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = front(self.generation, self.keys.len() * KEY);
        for key in &self.keys {
            bytes.extend_from_slice(U64::new(key.0).as_bytes());
        }
        bytes
    }
}

/// The generation and all bytes that the additional length counts.
pub(super) fn body<'a>(what: &'static str, bytes: &'a [u8]) -> Result<(Generation, &'a [u8]), ParseError> {
    let (wire, rest) = head::<WireGeneration>(what, bytes)?;
    let more = len32(wire.more);
    let cut = |_| ParseError::Truncated { what, need: more.saturating_add(8), have: bytes.len() };
    let (list, _) = split(what, rest, more).map_err(cut)?;
    Ok((Generation(wire.generation.get()), list))
}

/// The front of an answer with `more` bytes to follow.
pub(super) fn front(generation: Generation, more: usize) -> Vec<u8> {
    let more = U32::new(u32::try_from(more).unwrap_or(u32::MAX));
    WireGeneration { generation: U32::new(generation.0), more }.as_bytes().to_vec()
}
