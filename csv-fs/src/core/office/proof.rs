//! Proofs that travel as arguments: a client was fenced; an epoch is over and the next may begin.
//!
//! Neither can be made up: [`FenceProof`] comes out of the fence machine alone, and [`FencedEpoch`] needs one of those
//! or the two lease blocks that show a resignation and its successor.

use block::shared::{Epoch, FenceGen};

use super::view::LeaseView;
use crate::types::ClientId;

/// How it is known that a client can write no more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HowFenced {
    /// Its LIVE lock was acquired: its process is gone and its last write has landed.
    Dead,
    /// It said so itself, after its own requests had ended.
    Answered,
    /// A later incarnation of the node is registered; that one began only after the earlier had ended.
    Superseded,
    /// Every reservation key of it was preempted and aborted, and the reservation is held.
    KeysGone,
    /// Nothing is known: a rule was taken out.
    #[cfg(any(test, feature = "simulation"))]
    Assumed,
}

/// A client's I/O under generations below `fence_gen` is over, and nothing of it is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FenceProof {
    client: ClientId,
    fence_gen: FenceGen,
    how: HowFenced,
}

impl FenceProof {
    pub(super) fn new(client: ClientId, fence_gen: FenceGen, how: HowFenced) -> FenceProof {
        FenceProof { client, fence_gen, how }
    }

    /// A proof of nothing, for tests of what comes after a fence.
    #[cfg(test)]
    pub(crate) fn assumed(client: ClientId, fence_gen: FenceGen, how: HowFenced) -> FenceProof {
        FenceProof { client, fence_gen, how }
    }

    /// Who was fenced.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// The generation in its slot now; what it may be granted next.
    pub fn fence_gen(&self) -> FenceGen {
        self.fence_gen
    }

    /// How it is known.
    pub fn how(&self) -> HowFenced {
        self.how
    }

    /// Whether that incarnation has ended, so that it need not be waited for. `comes_back`: a process of that node that is killed is
    /// followed by one that goes on with its incarnation. It is waited for as one that lives, and evicted if it does not come.
    pub fn is_dead(&self, comes_back: bool) -> bool {
        match self.how {
            HowFenced::Dead => !comes_back,
            HowFenced::Superseded => true,
            _ => false,
        }
    }
}

/// How the reign before ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// Its coordinator was fenced.
    Fenced(FenceProof),
    /// Its coordinator resigned; its client lives on, if it lived.
    Resigned(ClientId),
    /// There was none: the volume is new.
    New,
}

/// The right to open the metadata store under an epoch: the lease is taken, and the reign before is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FencedEpoch {
    epoch: Epoch,
    client: ClientId,
    before: Before,
}

impl FencedEpoch {
    /// After a fence: `proof` must be of the holder that `before` names, `taken` the block that replaced it.
    pub fn by_fence(before: &LeaseView, taken: &LeaseView, proof: FenceProof) -> Option<FencedEpoch> {
        if before.holder != Some(proof.client) {
            return None;
        }
        FencedEpoch::succeed(before, taken, Before::Fenced(proof))
    }

    /// After a resignation, or on a new volume: `before` must be vacant, `taken` the block that replaced it.
    pub fn by_resignation(before: &LeaseView, taken: &LeaseView) -> Option<FencedEpoch> {
        match before.holder {
            None => FencedEpoch::succeed(before, taken, Before::New),
            Some(holder) if before.resigned.is_some() => FencedEpoch::succeed(before, taken, Before::Resigned(holder)),
            Some(_) => None,
        }
    }

    fn succeed(before: &LeaseView, taken: &LeaseView, how: Before) -> Option<FencedEpoch> {
        let client = taken.holder?;
        let next = taken.epoch.0 == before.epoch.0 + 1 && taken.counter == before.counter + 1;
        (next && taken.resigned.is_none()).then_some(FencedEpoch { epoch: taken.epoch, client, before: how })
    }

    /// The reign.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The client of the node that reigns.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// How the reign before ended: a predecessor that is dead for good is evicted at once, any other was path-fenced.
    pub fn before(&self) -> Before {
        self.before
    }
}
