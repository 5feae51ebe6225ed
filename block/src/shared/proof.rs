//! Proof types: what must have happened before is an argument.

use super::{BoxFuture, Incarnation, LiveLock, NodeId};
use crate::error::IoError;

/// Withdraws this node's own requests.
pub trait AbortOwn: Send + Sync {
    /// Ends every request that was submitted before the call, and answers once none of them can
    /// land any more. Withdrawn ones are answered `Aborted`. Waits as long as that takes, and says in the log
    /// what it waits for.
    ///
    /// Requests submitted while it runs are not covered: the caller stops submitting first.
    ///
    /// # Cancel safety
    /// A dropped future proves nothing; what it has already withdrawn stays withdrawn.
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>>;

    /// Sees to it that nothing submitted before is sent from now on, and takes it back. On a disk whose fences end what is on its way
    /// (PREEMPT AND ABORT) that is all: it answers although something may still land, which the fence that follows ends. On any
    /// other disk it is [`abort_outstanding`](AbortOwn::abort_outstanding).
    ///
    /// # Cancel safety
    /// As above.
    fn withdraw(&self) -> BoxFuture<'_, Result<(), IoError>> {
        Box::pin(async move { self.abort_outstanding().await.map(drop) })
    }

    /// Answers `Aborted` what waits for a way to the disk and was not sent. For a disk that keeps nothing waiting there is nothing
    /// to do.
    fn take_back(&self) {}

    /// Another node has fenced this one and so ended what was on its way before the last [`withdraw`](AbortOwn::withdraw):
    /// it is answered now. For a disk whose fences wait for the victim's own proof there is nothing to do.
    fn ended_by_fence(&self) {}
}

/// None of the requests that this node had submitted can land any more. Made only by an
/// [`AbortOwn`].
#[derive(Debug)]
pub struct NothingInFlight(());

impl NothingInFlight {
    /// From a transport that can prove it: call this only where each request that was submitted before has been answered,
    /// or its session was ended and the target has confirmed that its tasks went with it.
    pub fn by_transport() -> NothingInFlight {
        NothingInFlight(())
    }

    pub(crate) fn proved() -> NothingInFlight {
        NothingInFlight(())
    }
}

/// `(node, incarnation)` can write to the disk no more.
///
/// Made from a [`LiveLock`] that was acquired and is kept inside, so that no new life of the node
/// begins while the proof exists; from the preemption of its keys; or from the victim's own answer.
#[derive(Debug)]
#[must_use = "with a LIVE lock inside, the exclusion lasts as long as this value"]
pub struct Excluded {
    node: NodeId,
    incarnation: Incarnation,
    by: ExcludedBy,
}

/// How a node was excluded.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExcludedBy {
    /// Its LIVE lock was acquired: its file description is gone, and so its last write has landed. Kept.
    LiveLock(LiveLock),
    /// It said so itself, with its own [`NothingInFlight`] behind the answer.
    OwnAnswer,
    /// Its keys were preempted, what it had outstanding was aborted, and the disk is held against strangers.
    Preemption,
}

impl Excluded {
    /// From the node's LIVE lock. The caller has raised the slot's fence generation of this
    /// incarnation before it asked for the lock; the slot cannot change hands while the lock is kept.
    pub fn by_live_lock(lock: LiveLock, incarnation: Incarnation) -> Excluded {
        Excluded { node: lock.node(), incarnation, by: ExcludedBy::LiveLock(lock) }
    }

    /// From the victim's own word that it is fenced, read from the network or from its mark on the
    /// disk: call this only where such an answer of exactly this incarnation was decoded. The victim
    /// gives it only with its own [`NothingInFlight`] in hand, and does no I/O afterwards until it is granted
    /// the raised fence generation.
    pub fn by_own_answer(node: NodeId, incarnation: Incarnation) -> Excluded {
        Excluded { node, incarnation, by: ExcludedBy::OwnAnswer }
    }

    /// From the disk's reservations; only [`exclude`](super::exclude) sees them.
    pub(super) fn by_preemption(node: NodeId, incarnation: Incarnation) -> Excluded {
        Excluded { node, incarnation, by: ExcludedBy::Preemption }
    }

    /// The excluded node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The incarnation that can write no more.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How it was excluded.
    pub fn by(&self) -> &ExcludedBy {
        &self.by
    }
}
