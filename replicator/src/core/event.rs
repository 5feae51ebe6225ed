//! What a node is told, what it wants done, and what it says to others.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::config::OnNoQuorum;
use crate::compare::{Rule as CompareRule, Side, Verdict};
use crate::ids::{Ballot, Generation, Grant, NodeId, NodeSet, Seq, Span};
use crate::meta::MetaWrite;

/// A moment, in milliseconds from anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u64);

/// A connection to a peer. A new one has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A request of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReqId(pub u64);

/// A request to the local disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// What an application asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Sectors.
    Read(Span),
    /// Sectors and their bytes; with FUA they are stable when it completes.
    Write(Span, Bytes, bool),
    /// Every write completed before is stable when it completes.
    Flush,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppError {
    /// This node is not primary.
    NotPrimary,
    /// There is no quorum, and the policy says to fail.
    NoQuorum,
    /// Another node was granted the reign. A write may or may not be there.
    Deposed,
    /// No good data can be reached.
    NoData,
    /// More requests wait than there is room for.
    TooMany,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A connection to a peer or to the tie-breaker is up.
    Connected(NodeId, ConnId),
    /// It is gone.
    Lost(NodeId, ConnId),
    /// Something came on it. Messages of a connection come in order.
    Received(NodeId, ConnId, Message),
    /// A request of the local disk ended; bytes if it read.
    Done(IoId, Result<Bytes, DiskError>),
    /// An application asks.
    Submit(ReqId, Ask),
    /// Become primary; `force` also without being entitled to by the newest grant.
    Promote {
        /// What may be lost is told.
        force: bool,
    },
    /// Become secondary.
    Demote,
    /// At the next meeting what this node wrote apart is given up.
    DiscardMyData,
    /// Meetings from now on only tell what the two are to one another, and end; or they are in earnest again.
    Tentative(bool),
    /// What becomes of requests without quorum from now on, also of those that wait.
    OnNoQuorum(OnNoQuorum),
    /// Time has passed.
    Tick,
}

/// The local disk failed. Nothing is known about the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskError;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send it, after what was sent before.
    Send(NodeId, ConnId, Message),
    /// End the connection; with `again` a new one is made.
    Close(NodeId, ConnId, bool),
    /// Read from the local disk.
    Read(IoId, Span),
    /// Write to it.
    Write(IoId, Span, Bytes, bool),
    /// Make everything that completed there stable.
    Flush(IoId),
    /// Write metadata, in its two steps.
    Meta(IoId, MetaWrite),
    /// A request ended.
    Complete(ReqId, Result<Bytes, AppError>),
    /// Something the log tells.
    Told(Report),
}

/// What the log tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Two nodes met, and these rules said what they are to one another.
    Decided(NodeId, Verdict, Vec<CompareRule>),
    /// What a tentative meeting would have come to, and sectors that either side has marked for the other.
    Preview(NodeId, Verdict, Vec<CompareRule>, u64),
    /// This node is primary.
    Promoted(Ballot),
    /// It becomes so by force, over this grant: what its members acknowledged since is given up.
    Forced(Grant),
    /// It is not, and why.
    NotPromoted(Refusal),
    /// It is secondary again.
    Demoted,
    /// Another was granted the reign.
    Deposed,
    /// A grant is in force.
    Granted(Grant),
    /// A synchronisation ended: blocks that were sent, blocks that were equal.
    Synchronised(NodeId, u64, u64),
    /// The local disk failed and is left.
    Detached,
    /// Requests wait or fail: there is no quorum; or there is again.
    Quorum(bool),
    /// A peer is slow, and was left behind.
    LeftBehind(NodeId),
}

/// Why a node does not become primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its data are not good enough.
    Data,
    /// Another is.
    OtherPrimary,
    /// No majority answered.
    NoMajority,
    /// Others hold what was granted last.
    NotGranted,
    /// What was acknowledged and not flushed may be lost here, and others may have it.
    LostCache,
}

/// What a replica calls its own, adopted at the end of a synchronisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The generation.
    pub current: Generation,
    /// When it began.
    pub began: u64,
    /// Former ones.
    pub history: Vec<Generation>,
    /// Where other peers were left.
    pub bitmaps: Vec<(NodeId, Generation)>,
    /// Its data are the newest it knows of.
    pub up_to_date: bool,
}

/// What the first message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// About its data, to this peer.
    pub side: Side,
    /// Raised whenever what it says changes.
    pub version: u64,
    /// The resource.
    pub resource: [u8; 16],
    /// Sectors of the device.
    pub size: u64,
    /// What it promised.
    pub promised: Ballot,
    /// The ballot it reigns by, if it is primary.
    pub reigns: Option<Ballot>,
    /// Extents that its log holds.
    pub log_slots: u32,
    /// The primary it follows.
    pub follows: Option<NodeId>,
}

/// What nodes say to one another. All of a connection's messages come in order, or the connection is lost. Bytes of data are not
/// part of the encoding: they travel beside it (`runtime::wire`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// First of all.
    Hello(Box<Hello>),
    /// What the two are to one another, as the receiver sees it, and the versions it was calculated from (the
    /// receiver's, the sender's).
    Agree(Verdict, u64, u64),
    /// A write of the stream, with its epoch.
    Write {
        /// Its position.
        seq: Seq,
        /// Writes of one epoch may be executed in any order.
        epoch: u64,
        /// Where.
        span: Span,
        /// What.
        #[serde(skip)]
        data: Bytes,
        /// To stable storage.
        fua: bool,
        /// The receipt is to be acknowledged at once (B).
        receipt: bool,
    },
    /// It was received.
    RecvAck(Seq),
    /// It is written.
    WriteAck(Seq),
    /// Make everything up to here stable, before anything after it is written.
    Barrier(Seq),
    /// It is.
    BarrierAck(Seq),
    /// Everything up to here is stable at these nodes.
    Settled(Seq, NodeSet),
    /// A peer holds what the primary holds there.
    PeerInSync(NodeId, Span),
    /// The log here is full of what is not settled.
    NeedSettle,
    /// The primary says farewell: everything is settled.
    Farewell,
    /// The disk here failed; what was not acknowledged is not there.
    Detached,
    /// A read of a primary without a disk.
    RemoteRead(ReqId, Span),
    /// Its answer.
    RemoteData(ReqId, #[serde(skip)] Option<Bytes>),
    /// Bits of the sender for the receiver, as spans; the last part says so.
    Dirty(Vec<Span>, bool),
    /// The target asks for a span; it has this digest of it.
    Pull(Span, [u8; 32]),
    /// The answer: bytes, or none if the digests are equal; and who else is known to hold the same.
    Pulled(Span, #[serde(skip)] Option<Bytes>, NodeSet),
    /// The target has these stable.
    PullAck(Vec<Span>),
    /// The target has no bits left.
    PullEnd,
    /// The synchronisation is over; the target is this now.
    SyncDone(Box<Identity>),
    /// It is, durably.
    SyncDoneAck,
    /// Promise nothing lower, and say what was granted last.
    Prepare(Ballot),
    /// Promised; the newest grant accepted, and whether what was acknowledged and not flushed may be lost there.
    Promise(Ballot, Grant, bool),
    /// A change of a reign: the grant, who shares the generation from now on, who was left.
    Accept {
        /// The grant.
        grant: Grant,
        /// Who has the stream: members, and peers at A and B.
        present: NodeSet,
        /// When the generation began.
        began: u64,
    },
    /// Durable.
    Accepted(Ballot, u32),
    /// Not this ballot: this is promised, or a living primary is followed.
    Reject(Ballot, Ballot),
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
}
