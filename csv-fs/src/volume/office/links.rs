//! What an office needs of its node and of its peers.

use std::collections::BTreeMap;
use std::time::Duration;

use block::shared::{BoxFuture, Epoch, FenceGen, NodeId};

use crate::core::office::{FencedEpoch, LostWhy, Report};
use crate::proto::{PeerAnswer, PeerAsk};

/// A way to ask other nodes.
pub trait PeerLink: Send + Sync + 'static {
    /// Asks a node. `None`: no answer, for whatever reason. The office sets its own time limits.
    ///
    /// # Cancel safety
    /// A dropped future does not withdraw the question.
    fn ask(&self, node: NodeId, ask: PeerAsk) -> BoxFuture<'_, Option<PeerAnswer>>;
}

/// What an office does to its own node. Every method is called by the office's actor and must return at once; what
/// takes time is in the future that it returns, and what the doc calls *at once* has happened before it returns.
pub trait OwnNode: Send + Sync + 'static {
    /// In office: start a coordinator with this proof. `unheard`: the nodes that are not heard, and for how long they have said
    /// nothing.
    fn took_office(&self, proof: FencedEpoch, unheard: BTreeMap<NodeId, Duration>);

    /// The lease was not renewed in time (`true`): begin no commit; or it is again.
    fn suspended(&self, epoch: Epoch, suspended: bool);

    /// Trips the latch of this reign *at once*, and cancels redirected I/O. Done when no metadata or redirected request
    /// of the reign can land any more. Requests that hang end when the path heals or when they are aborted.
    fn trip(&self, epoch: Epoch) -> BoxFuture<'static, ()>;

    /// Finishes the reign in order: stop intake, commit, complete redirected I/O, trip the latch. Done when no metadata
    /// or redirected request of the reign can land any more.
    fn drain(&self, epoch: Epoch) -> BoxFuture<'static, ()>;

    /// The reign is over. Comes after `trip` or `drain` of it.
    fn lost_office(&self, epoch: Epoch, why: LostWhy);

    /// This node's client was fenced at this generation: *at once* no direct request may be submitted any more until a
    /// generation at least as high was granted. Done when none is about to be submitted: the office then aborts what is
    /// outstanding. The client should ask the coordinator whether it was its path or itself.
    fn stop_direct(&self, fence_gen: FenceGen) -> BoxFuture<'static, ()>;

    /// Another incarnation of this node is registered: client and office are over.
    fn self_evicted(&self);

    /// The lease block on the disk is another volume's. May come again and again.
    fn other_volume(&self);

    /// For people.
    fn report(&self, report: Report);
}
