//! Rows about clients: sessions and stored answers, as one byte of version and postcard.

use block::shared::FenceGen;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{Result, damaged};
use crate::proto::Answer;
use crate::types::{ClientId, SlotRef};

/// Version of both rows.
/// 1: first.
const VERSION: u8 = 1;

/// A client as the store knows it. Who may re-assert after a takeover is decided by this row alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Who.
    pub client: ClientId,
    /// The fence generation under which it may do I/O.
    pub fence_gen: FenceGen,
    /// How it stands.
    pub state: SessionState,
    /// Whether it had a path of its own when this row was written.
    pub has_path: bool,
}

/// How a session stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// Bound, or bound once and not ended.
    Live,
    /// Its fence is to be finished before anything that it held is given away.
    Evicting {
        /// Why.
        reason: String,
    },
    /// Fenced for ever; kept so that it can be told.
    Evicted {
        /// Why.
        reason: String,
    },
}

/// The answer to the last request of a slot that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The slot.
    pub slot: SlotRef,
    /// The request's sequence number.
    pub seq: u64,
    /// What was answered.
    pub answer: Answer,
}

pub(super) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>> {
    postcard::to_extend(row, vec![VERSION]).map_err(|_| damaged("a session row does not encode"))
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| damaged("a session row does not decode")),
        _ => Err(damaged("a session row is of an unknown version")),
    }
}
