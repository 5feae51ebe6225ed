//! What can happen to an office. Each effect that asks for something is answered by exactly one event.

use block::shared::{Epoch, FenceGen, NodeId};

use super::view::{Key, LeaseView, Sight, SlotView};
use crate::proto::CoordinatorHint;
use crate::types::ClientId;

/// Names one compare-and-write or one SCSI step; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag(pub u64);

/// Names one round of reading; never reused, growing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadSeq(pub u64);

/// Names a question of a peer, so that its answer finds back. Chosen by the shell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AskId(pub u64);

/// Names a request for a fence. Chosen by whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// What became of a compare-and-write. `V` is the view of the block it was for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CawResult<V> {
    /// It compared equal and was written.
    Done,
    /// Something else was there.
    Miscompare(V),
    /// Nobody knows: the reply was lost, the request failed or was aborted on the way. It may still land.
    Lost,
}

/// Why a peer is not heard any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerLoss {
    /// The connection ended from its side: what a killed process leaves behind.
    Closed,
    /// Its port refuses: nobody listens there.
    Refused,
    /// Silence.
    Silent,
}

/// What a peer asks of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "a field is what its type says; the variant's sentence names it")]
pub enum Ask {
    /// Who is coordinator?
    Who,
    /// Are you alive as coordinator of this epoch?
    Alive { epoch: Epoch },
    /// You are being fenced under this generation.
    Fence { client: ClientId, fence_gen: FenceGen },
    /// A coordinator has taken office.
    NewEpoch(CoordinatorHint),
    /// The coordinator of this epoch has no path any more.
    NoPath { epoch: Epoch },
    /// The coordinator of this epoch has resigned in this node's favour.
    TakeOffice { epoch: Epoch },
}

/// What the holder answered when it was asked whether it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AliveAnswer {
    /// In office.
    InOffice {
        /// Its disk does not answer just now.
        disk_stalled: bool,
    },
    /// Not in office.
    NotInOffice,
    /// No answer in time.
    Silent,
}

/// Why a client is fenced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// Its incarnation ends.
    Eviction,
    /// Its path is gone; the incarnation lives on under the new generation.
    Path,
}

/// What became of an attempt to end a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KillOutcome {
    /// It got SIGKILL.
    Killed,
    /// No process of that number and start time.
    Gone,
    /// Not permitted, or not supported.
    Failed,
}

/// What a SCSI step brought.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "a field is what its type says; the variant's sentence names it")]
pub enum ScsiResult {
    /// Done.
    Done,
    /// The whole list of registered keys.
    Keys(Vec<Key>),
    /// Whether a reservation of the right type is held.
    Reservation { right_type: bool },
    /// RESERVATION CONFLICT.
    Conflict,
    /// No answer, or an error.
    Failed,
}

/// Events.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "a field is what its type says; the variant's sentence names it")]
pub enum Event {
    /// Time passed; also sent when [`next_deadline`](super::Office::next_deadline) is due.
    Tick,
    /// Answer to [`Effect::Read`](super::Effect::Read); `None` if it failed.
    Read { seq: ReadSeq, sight: Option<Sight> },
    /// Answer to [`Effect::CawSlot`](super::Effect::CawSlot).
    SlotCaw { tag: Tag, result: CawResult<SlotView> },
    /// Answer to [`Effect::CawLease`](super::Effect::CawLease).
    LeaseCaw { tag: Tag, result: CawResult<LeaseView> },
    /// Answer to [`Effect::TryLiveLock`](super::Effect::TryLiveLock). An acquired lock is kept until
    /// [`Effect::ReleaseLiveLock`](super::Effect::ReleaseLiveLock).
    LiveLock { node: NodeId, acquired: bool },
    /// Answer to [`Effect::Kill`](super::Effect::Kill).
    Killed { node: NodeId, outcome: KillOutcome },
    /// A peer is connected and answers.
    PeerHeard { node: NodeId },
    /// A peer is not heard any more.
    PeerLost { node: NodeId, how: PeerLoss },
    /// Answer to [`Effect::AskAlive`](super::Effect::AskAlive).
    Alive { node: NodeId, epoch: Epoch, answer: AliveAnswer },
    /// Answer to [`Effect::AskFence`](super::Effect::AskFence): whether the victim said that nothing is in flight.
    FenceAnswer { client: ClientId, fence_gen: FenceGen, fenced: bool },
    /// A peer asks; answered by [`Effect::Answer`](super::Effect::Answer), perhaps later.
    Asked { id: AskId, from: NodeId, ask: Ask },
    /// Answer to [`Effect::StopDirect`](super::Effect::StopDirect): all direct I/O under lower generations has stopped,
    /// and nothing of it is in flight.
    NothingInFlight { fence_gen: FenceGen },
    /// Answer to [`Effect::StartDrain`](super::Effect::StartDrain) and [`Effect::TripLatch`](super::Effect::TripLatch):
    /// the latch is tripped, and every metadata and redirected I/O of that reign has completed or is proved dead.
    Drained { epoch: Epoch },
    /// The office is to be given up, in favour of `to` if named.
    Resign { to: Option<NodeId> },
    /// The coordinator (or whoever holds office) wants a client fenced; answered by
    /// [`Effect::FenceDone`](super::Effect::FenceDone). `answered`: the client has said already that nothing of its own
    /// is in flight and that it stopped.
    RequestFence { ticket: Ticket, client: ClientId, purpose: Purpose, answered: bool },
    /// The coordinator granted this node's client a generation: direct I/O is allowed under it. One of another reign than the
    /// one held here ends that.
    Granted { fence_gen: FenceGen },
    /// What the client's route machine knows of this node's path.
    OwnPath { ok: bool },
    /// Somebody wants this node to take no office any more (it is drained), or to take it again. An office that it holds
    /// it keeps.
    Barred { barred: bool },
    /// Answer to [`Effect::Scsi`](super::Effect::Scsi).
    Scsi { tag: Tag, result: ScsiResult },
    /// A nexus to the disk is there no more (SCSI kind), or has another number from now on.
    NexusGone { nexus: u16 },
    /// A nexus to the disk came up (SCSI kind); it has no registration yet.
    NexusUp { nexus: u16 },
    /// Answer to [`Effect::ReadOwnSlotVia`](super::Effect::ReadOwnSlotVia); `None` if it failed.
    OwnSlotVia { nexus: u16, slot: Option<SlotView> },
}
