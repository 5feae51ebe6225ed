//! What an office asks of its shell.

use std::collections::BTreeMap;
use std::time::Duration;

use block::shared::{Epoch, FenceGen, NodeId};

use super::event::{AskId, Purpose, ReadSeq, Tag, Ticket};
use super::proof::{FenceProof, FencedEpoch};
use super::reason::TakeoverWhy;
use super::view::{Key, LeaseView, NodeSet, SlotView};
use crate::proto::{CoordinatorHint, PeerAnswer};
use crate::types::ClientId;

/// Over which nexus a compare-and-write goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// Any good one.
    First,
    /// Another than the first attempt took: the same bytes once more.
    Second,
}

/// A SCSI step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "a field is what its type says; the variant's sentence names it")]
pub enum FenceStep {
    /// REGISTER this key for a nexus of this node.
    Register { nexus: u16, key: Key },
    /// READ KEYS, the whole list.
    ReadKeys,
    /// PREEMPT AND ABORT this key.
    PreemptAndAbort { victim: Key },
    /// RESERVE with the type for all registrants.
    Reserve,
    /// READ RESERVATION.
    ReadReservation,
    /// LOGICAL UNIT RESET: ends every command of every nexus before it is answered.
    ResetUnit,
}

/// What is told to peers; no answer is waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "a field is what its type says; the variant's sentence names it")]
pub enum Tell {
    /// This node has taken office. Repeated by the coordinator's shell until each has re-asserted.
    NewEpoch(CoordinatorHint),
    /// This node is coordinator and has no path any more.
    NoPath { epoch: Epoch },
    /// This node resigned in the receiver's favour.
    TakeOffice { epoch: Epoch },
}

/// Why a fence failed. Nothing was given away; it may be asked for again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FenceFailed {
    /// This node is not in office any more.
    NotInOffice,
    /// No such client: its slot was never used, or holds an earlier incarnation.
    Unknown,
}

/// Why an office ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LostWhy {
    /// Another holds the lease.
    Superseded,
    /// A higher epoch was heard of.
    HigherEpoch,
    /// This node has no path to the disk.
    NoPath,
    /// This node was fenced.
    Fenced,
    /// It was given up in order.
    Resigned,
}

/// What a person may want to know. Each has a stable code in the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "a field is what its type says; the variant's sentence names it")]
pub enum Report {
    /// This node was given permission to be coordinator, as member of this clique.
    Permitted { clique: NodeSet },
    /// Permission was withdrawn.
    NotPermitted,
    /// The holder is challenged.
    Challenging { holder: ClientId, epoch: Epoch },
    /// The holder lives and its disk is stalled: the challenge waits.
    ChallengeDeferred { holder: ClientId },
    /// A fence began; without a purpose it is for office.
    Fencing { client: ClientId, purpose: Option<Purpose> },
    /// The holder is being fenced so that this node may take its office.
    TakingOver { holder: ClientId, epoch: Epoch, why: TakeoverWhy },
    /// A fence had to use this step.
    FenceStep { client: ClientId, step: &'static str },
    /// A fence ended with proof.
    Fenced { proof: FenceProof },
    /// A fence was given up.
    FenceAbandoned { client: ClientId },
    /// This node's slot is not renewed in time.
    OwnPathLost,
    /// It is again.
    OwnPathBack,
}

/// Effects.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "a field is what its type says; the variant's sentence names it")]
pub enum Effect {
    /// Read the lease block and every node's slot, in requests that start now. At most one is outstanding.
    Read { seq: ReadSeq },
    /// Compare-and-write of a slot.
    CawSlot { tag: Tag, node: NodeId, expect: SlotView, new: SlotView, via: Via },
    /// Compare-and-write of the lease block.
    CawLease { tag: Tag, expect: LeaseView, new: LeaseView, via: Via },
    /// Try once to acquire a node's LIVE lock, without waiting; keep it if acquired.
    TryLiveLock { node: NodeId },
    /// Let go a LIVE lock acquired before.
    ReleaseLiveLock { node: NodeId },
    /// End a process, its start time compared after it was pinned. Only ever on this very host.
    Kill { node: NodeId, pid: u32, pid_start: u64 },
    /// Ask the holder whether it lives.
    AskAlive { node: NodeId, epoch: Epoch },
    /// Ask a victim to stop and to say when nothing is in flight.
    AskFence { client: ClientId, fence_gen: FenceGen },
    /// Answer a peer.
    Answer { id: AskId, answer: PeerAnswer },
    /// Tell one peer, or all.
    Tell { to: Option<NodeId>, what: Tell },
    /// This node's slot is its own: its client's name and the generation it begins under.
    Registered { client: ClientId, fence_gen: FenceGen },
    /// Another incarnation of this node is registered: this one is over, for good.
    SelfEvicted,
    /// This node's slot carries a higher generation than was granted: stop direct I/O under lower ones *first*, then
    /// abort what is outstanding; answer [`Event::NothingInFlight`](super::Event::NothingInFlight). The client asks the
    /// coordinator whether its path was fenced or itself evicted.
    StopDirect { fence_gen: FenceGen },
    /// In office: open the store. `unheard`: the nodes that this one does not hear, and for how long they have said nothing.
    TookOffice { proof: FencedEpoch, unheard: BTreeMap<NodeId, Duration> },
    /// Begin no metadata commit any more, for now: the lease was not renewed in time.
    Suspend { epoch: Epoch },
    /// Go on.
    Resume { epoch: Epoch },
    /// Trip the store's latch at once, cancel redirected I/O; answer [`Event::Drained`](super::Event::Drained) when all
    /// has ended.
    TripLatch { epoch: Epoch },
    /// Stop intake, finish, then trip the latch; answer [`Event::Drained`](super::Event::Drained) when all has ended.
    StartDrain { epoch: Epoch },
    /// The office is over. Comes with or after [`Effect::TripLatch`] or [`Effect::StartDrain`].
    LostOffice { epoch: Epoch, why: LostWhy },
    /// Answer to [`Event::RequestFence`](super::Event::RequestFence).
    FenceDone { ticket: Ticket, result: Result<FenceProof, FenceFailed> },
    /// A SCSI step.
    Scsi { tag: Tag, step: FenceStep },
    /// Read this node's slot over that very nexus.
    ReadOwnSlotVia { nexus: u16 },
    /// The nexus may carry I/O under this generation.
    NexusGood { nexus: u16, fence_gen: FenceGen },
    /// The nexus must not carry I/O: this client was fenced meanwhile, or what a lost office left has not ended. The office
    /// registers it anew once that may be over; its shell does nothing.
    NexusRefused { nexus: u16 },
    /// For people.
    Report(Report),
}
