//! What the coordinator needs from outside: a way to ask a client, and somebody who fences.

use block::shared::BoxFuture;

use crate::core::coord::FencePurpose;
use crate::core::office::FenceProof;
use crate::proto::{Callback, CallbackAnswer};
use crate::types::ClientId;

/// One connection to a client: over the network, or within this process.
pub trait ClientLink: Send + Sync + 'static {
    /// Tells one connection from every other of this process; see [`Coordinator::link_lost`](super::Coordinator::link_lost).
    fn id(&self) -> u64;

    /// Asks the client. `None`: the connection broke, or the client does not understand.
    ///
    /// # Cancel safety
    /// A dropped future does not withdraw the question.
    fn callback(&self, callback: Callback) -> BoxFuture<'_, Option<CallbackAnswer>>;
}

/// Whoever fences: the office.
pub trait Fencer: Send + Sync + 'static {
    /// Fences a client; returns when it is proved that nothing of it can reach the disk any more, or why not.
    ///
    /// For [`FencePurpose::Path`] the client itself has said that nothing of its own is in flight.
    ///
    /// # Cancel safety
    /// A dropped future does not stop the fence.
    fn fence(&self, client: ClientId, purpose: FencePurpose) -> BoxFuture<'_, Result<FenceProof, String>>;
}
