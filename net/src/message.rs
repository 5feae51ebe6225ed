//! What travels: an opcode, an epoch, an opaque body, and a payload that goes from and into aligned memory.

use block::buf::AlignedBuf;
use bytes::Bytes;

use crate::budget::cost_kib;
use crate::error::CallError;
use crate::limits::{MAX_BODY, MAX_CALLS_KIB, MAX_PAYLOAD};

/// Bulk data of a message. A received message has `None` or `Aligned`.
#[derive(Default)]
pub enum Payload {
    /// No bulk data.
    #[default]
    None,
    /// Memory that a device can use as it is; given back to its pool once sent.
    Aligned(AlignedBuf),
    /// Shared memory, for data that must stay with the sender until it is known to be safe.
    Shared(Bytes),
}

impl Payload {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Aligned(b) => b,
            Self::Shared(b) => b,
        }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// No bytes?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As aligned memory: a received payload without a copy, shared memory with one; `None` if there is none.
    pub fn into_aligned(self) -> Option<AlignedBuf> {
        match self {
            Self::None => None,
            Self::Aligned(b) => Some(b),
            Self::Shared(b) => Some(AlignedBuf::from_slice(&b)),
        }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Aligned(b) => write!(f, "Aligned({})", b.len()),
            Self::Shared(b) => write!(f, "Shared({})", b.len()),
        }
    }
}

/// One message. What opcode, epoch and body mean is the application's.
#[derive(Debug, Default)]
pub struct Message {
    /// What is asked or answered.
    pub opcode: u16,
    /// The epoch the sender believes in; 0 where none applies.
    pub epoch: u64,
    /// Opaque bytes, at most [`MAX_BODY`].
    pub body: Bytes,
    /// Bulk data, at most [`MAX_PAYLOAD`].
    pub payload: Payload,
    /// Bytes of payload that the answer will carry. Not sent: the caller pays for them as for its own, so that the
    /// answers that a peer may have to hold for one connection are bounded too.
    pub expects: u32,
}

impl Message {
    /// A message without payload.
    pub fn new(opcode: u16, epoch: u64, body: impl Into<Bytes>) -> Self {
        Self { opcode, epoch, body: body.into(), payload: Payload::None, expects: 0 }
    }

    /// The same with a payload.
    pub fn with_payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// The same, saying how many bytes of payload its answer will carry.
    pub fn expecting(mut self, bytes: u32) -> Self {
        self.expects = bytes;
        self
    }

    /// What a call of it costs, in KiB; never more than there is.
    pub(crate) fn cost_kib(&self) -> u32 {
        let expected = usize::try_from(self.expects).unwrap_or(usize::MAX);
        cost_kib(self.body.len(), self.payload.len().saturating_add(expected)).min(MAX_CALLS_KIB)
    }

    /// Refuses what the protocol does not carry, before anything is queued.
    pub(crate) fn check(&self) -> Result<(), CallError> {
        let too = |what, len, max| Err(CallError::TooLarge { what, len, max });
        if self.body.len() > MAX_BODY {
            return too("body", self.body.len(), MAX_BODY);
        }
        if self.payload.len() > MAX_PAYLOAD {
            return too("payload", self.payload.len(), MAX_PAYLOAD);
        }
        Ok(())
    }
}
