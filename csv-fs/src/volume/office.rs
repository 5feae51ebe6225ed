//! The office of one node for one volume, run on a real disk and real peers: the shell around [`crate::core::office`].
//!
//! ```text
//!   peers, client, coordinator ──► OfficeHandle ──► actor: the core, one event at a time ──► OfficeState (watch)
//!                                                     │ ▲
//!         reads, compare-and-writes, questions: a task each, answered by an event
//! ```
//! The actor never waits for a disk, a peer or the rest of its node: each effect that takes time is a task of its own,
//! so a disk that hangs stops nothing else, and the core counts from the submission. How many there are at once is the
//! core's doing: one round of reading, one change per block (two if hedged), one question per fence.
//!
//! It takes no decision, and it keeps two things for the core: LIVE locks that were acquired (dropped on
//! [`Effect::ReleaseLiveLock`](crate::core::office::Effect::ReleaseLiveLock)), and the questions of peers and requests
//! for fences that are not answered yet (answered on stop too).
//!
//! Called by `volume`, which implements [`OwnNode`] (what an office does to its node) and [`PeerLink`].

mod actor;
mod convert;
mod identity;
mod links;
mod nexuses;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use block::shared::{BoxFuture, FenceGen, NodeId, SharedDisk};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

pub use links::{OwnNode, PeerLink};

use crate::coordinator::Fencer;
use crate::core::coord::FencePurpose;
use crate::core::office::{
    Event, FenceFailed, FenceProof, FencedEpoch, NodeSet, PeerLoss, Permission, Purpose, Resumes, SlotView, Timing,
};
use crate::core::rules::Rules;
use crate::proto::{CoordinatorHint, PeerAnswer, PeerAsk};
use crate::types::{ClientId, VolumeId};

/// What an office is told at its start.
#[derive(Clone, Debug)]
pub struct OfficeConfig {
    /// The volume.
    pub volume: VolumeId,
    /// This node.
    pub node: NodeId,
    /// All nodes of the cluster, this one included.
    pub nodes: NodeSet,
    /// Where this node answers; at most 64 bytes, for people.
    pub address: String,
    /// The volume's times.
    pub timing: Timing,
    /// Every rule, but in a simulation.
    pub rules: Rules,
    /// The life that goes on in this process.
    pub resumes: Option<Resumes>,
}

/// What an office shows to the rest of its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfficeState {
    /// This node's client and the generation it began under, once its slot is registered.
    pub client: Option<(ClientId, FenceGen)>,
    /// The coordinator as far as this node knows; `None` while nobody reigns.
    pub hint: Option<CoordinatorHint>,
    /// The right under which this node is coordinator now.
    pub in_office: Option<FencedEpoch>,
    /// In office, and the lease was not renewed in time.
    pub suspended: bool,
    /// Whether this node may be coordinator.
    pub permission: Permission,
    /// Whether the office's own requests come back in time. A hint for the route, not a verdict.
    pub own_path_ok: bool,
    /// Another incarnation has taken this node's slot: this office and its client are over.
    pub over: bool,
}

/// Why an office did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The host says nothing of its boot or of this process.
    #[error("this host does not say who it is ({what}): {source}")]
    Identity {
        /// What could not be read.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// These times cannot work together.
    #[error("the volume's times cannot work: {0}")]
    Timing(#[from] crate::core::office::TimingError),
    /// The address does not fit its field.
    #[error("the address {0:?} is longer than 64 bytes")]
    AddressTooLong(String),
}

/// Why something asked of an office was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfficeError {
    /// The office was stopped.
    #[error("the office of this volume was stopped")]
    Stopped,
    /// This node is not coordinator (any more).
    #[error("this node is not the coordinator")]
    NotInOffice,
    /// There is no such client: its slot was never used, or holds an earlier incarnation.
    #[error("no such client is known on the disk")]
    UnknownClient,
}

impl From<FenceFailed> for OfficeError {
    fn from(why: FenceFailed) -> OfficeError {
        match why {
            FenceFailed::NotInOffice => OfficeError::NotInOffice,
            FenceFailed::Unknown => OfficeError::UnknownClient,
        }
    }
}

/// What reaches the actor from outside. The queue has no bound of its own: what is in it is bounded by its sources,
/// which are the requests under way, the network's budget of questions, and the node's own few calls.
#[derive(Debug)]
enum Input {
    Event(Event),
    Asked { from: NodeId, ask: PeerAsk, answer: oneshot::Sender<PeerAnswer> },
    Fence { client: ClientId, purpose: Purpose, answered: bool, done: oneshot::Sender<Result<FenceProof, FenceFailed>> },
    Stop { done: oneshot::Sender<()> },
}

/// A running office. Cloning is cheap; all clones are the same office.
#[derive(Clone, Debug)]
pub struct OfficeHandle {
    input: mpsc::UnboundedSender<Input>,
    state: watch::Receiver<OfficeState>,
    slots: Arc<RwLock<BTreeMap<NodeId, SlotView>>>,
}

/// Starts offices.
#[derive(Debug)]
pub struct Office;

impl Office {
    /// Starts an office on the current tokio runtime: it registers its slot, watches, and takes office if need be.
    ///
    /// The caller holds this node's own LIVE lock for the life of the disk
    /// ([`hold_live`](block::shared::FileDisk::hold_live)), which proves that every earlier process of the node has
    /// ended, and keeps `peers` and `own`: the office ends with them, or with its last handle.
    pub fn start(
        config: OfficeConfig,
        disk: SharedDisk,
        peers: Arc<dyn PeerLink>,
        own: Arc<dyn OwnNode>,
    ) -> Result<OfficeHandle, StartError> {
        config.timing.validate()?;
        let core = crate::core::office::Office::new(identity::core_config(&config, &disk)?, config.rules);
        let (input, events) = mpsc::unbounded_channel();
        let slots = Arc::new(RwLock::new(BTreeMap::new()));
        let (peers, own) = (Arc::downgrade(&peers), Arc::downgrade(&own));
        let links = actor::Links { disk, peers, own, input: input.downgrade() };
        let (actor, state) = actor::Actor::new(core, config, links, Arc::clone(&slots));
        tokio::spawn(actor.run(events));
        Ok(OfficeHandle { input, state, slots })
    }
}

/// The kernel's boot id of this host.
pub(super) fn boot_id() -> Result<u128, StartError> {
    identity::boot_id().map_err(|source| StartError::Identity { what: "boot id", source })
}

impl OfficeHandle {
    /// The state, now and as it changes.
    pub fn state(&self) -> watch::Receiver<OfficeState> {
        self.state.clone()
    }

    /// A node's slot as last read: whom its generation fences.
    pub fn slot(&self, node: NodeId) -> Option<SlotView> {
        self.slots.read().get(&node).copied()
    }

    /// Fences a client, on behalf of the coordinator of this node. For [`Purpose::Path`] the client has said already
    /// that it stopped and that nothing of its own is in flight.
    ///
    /// # Cancel safety
    /// A dropped future does not stop the fence.
    pub async fn fence(&self, client: ClientId, purpose: Purpose) -> Result<FenceProof, OfficeError> {
        let (done, outcome) = oneshot::channel();
        self.send(Input::Fence { client, purpose, answered: purpose == Purpose::Path, done });
        Ok(outcome.await.map_err(|_| OfficeError::Stopped)??)
    }

    /// Gives office up, in favour of `to` if named: everything is finished, then resigned. Returns once the lease says
    /// so, or once office was lost in another way.
    ///
    /// # Cancel safety
    /// A dropped future does not take the resignation back.
    pub async fn resign_to(&self, to: Option<NodeId>) -> Result<(), OfficeError> {
        let mut state = self.state.clone();
        let epoch = state.borrow_and_update().in_office.ok_or(OfficeError::NotInOffice)?.epoch();
        self.send(Input::Event(Event::Resign { to }));
        let resigned = |s: &OfficeState| {
            s.in_office.is_none_or(|p| p.epoch() != epoch) && s.hint.as_ref().is_none_or(|h| h.epoch != epoch)
        };
        state.wait_for(resigned).await.map(drop).map_err(|_| OfficeError::Stopped)
    }

    /// A peer asks something about this volume. Only a fence takes time to answer.
    ///
    /// # Cancel safety
    /// A dropped future does not withdraw the question.
    pub async fn peer_asked(&self, from: NodeId, ask: PeerAsk) -> PeerAnswer {
        let (answer, answered) = oneshot::channel();
        self.send(Input::Asked { from, ask, answer });
        answered.await.unwrap_or(PeerAnswer::UnknownVolume)
    }

    /// A peer is connected and answers.
    pub fn peer_heard(&self, node: NodeId) {
        self.send(Input::Event(Event::PeerHeard { node }));
    }

    /// A peer is not heard any more. [`PeerLoss::Closed`] and [`PeerLoss::Refused`] start a takeover early.
    pub fn peer_lost(&self, node: NodeId, how: PeerLoss) {
        self.send(Input::Event(Event::PeerLost { node, how }));
    }

    /// What the client's route machine knows of this node's path.
    pub fn own_path(&self, ok: bool) {
        self.send(Input::Event(Event::OwnPath { ok }));
    }

    /// From now on no office is taken here, or it is again.
    pub fn bar(&self, barred: bool) {
        self.send(Input::Event(Event::Barred { barred }));
    }

    /// The coordinator granted this node's client a generation.
    pub fn granted(&self, fence_gen: FenceGen) {
        self.send(Input::Event(Event::Granted { fence_gen }));
    }

    /// Ends the office without resigning. What was asked of it and is not done yet is answered with an error.
    ///
    /// # Cancel safety
    /// A dropped future does not keep it alive.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        self.send(Input::Stop { done });
        // An office that is gone already drops the sender.
        let _ = stopped.await;
    }

    /// An office that was stopped hears nothing any more.
    fn send(&self, input: Input) {
        let _ = self.input.send(input);
    }
}

impl Fencer for OfficeHandle {
    fn fence(&self, client: ClientId, purpose: FencePurpose) -> BoxFuture<'_, Result<FenceProof, String>> {
        let purpose = match purpose {
            FencePurpose::Eviction => Purpose::Eviction,
            FencePurpose::Path => Purpose::Path,
        };
        Box::pin(async move { OfficeHandle::fence(self, client, purpose).await.map_err(|e| e.to_string()) })
    }
}
