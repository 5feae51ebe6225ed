//! What a node is told, what it wants done, and what it says to others.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::config::{DiskPolicy, OnNoQuorum};
use super::pace::Load;
use super::pieces::{Compared, Digest, Piece};
use crate::compare::{Rule as CompareRule, Side, Verdict};
use crate::ids::{Ballot, Generation, Grant, NodeId, NodeSet, Seq, Span, Volume};
use crate::meta::MetaWrite;
use crate::meta::layout::Devices;

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
    /// Sectors that are to be zero; if they may be free, nothing need be allocated for them any more.
    Zero(Span, bool),
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes.
    Data(Bytes),
    /// Zeroes; if they may be free, without anything allocated for them.
    Zeroes {
        /// They may be.
        free: bool,
    },
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
    /// The volume is not there any more.
    NoVolume,
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
    /// Digests were taken. A disk that fails is told as done.
    Digested(IoId, Vec<Digest>),
    /// Digests were compared.
    Compared(IoId, Compared),
    /// Requests of applications that ended in the last tenth of a second.
    Load(Load),
    /// An application asks.
    Submit(ReqId, Ask),
    /// Become primary; `force` also without being entitled to by the newest grant.
    Promote {
        /// What may be lost is told.
        force: bool,
    },
    /// Become secondary.
    Demote,
    /// Go down in order: take nothing any more, and come to rest.
    Rest,
    /// At the next meeting what this node wrote apart is given up.
    DiscardMyData,
    /// Compare this node's data with those of equal peers.
    Verify,
    /// What the last verification found is to be as this node has it.
    Repair(NodeId),
    /// Meetings from now on only tell what the two are to one another, and end; or they are in earnest again.
    Tentative(bool),
    /// What becomes of requests without quorum from now on, also of those that wait.
    OnNoQuorum(OnNoQuorum),
    /// How far the local disk is trusted from now on.
    DiskPolicy(DiskPolicy),
    /// A volume is to become as large as this many sectors, or as the disks of all have room for, or is to be added; with `clean` what is
    /// new is the same everywhere.
    Resize {
        /// Which.
        volume: Volume,
        /// Sectors; none: as many as possible.
        size: Option<u64>,
        /// It need not be synchronised.
        clean: bool,
    },
    /// A volume is to be taken away from the resource; `force` also while a peer is not there, which then does so when it comes.
    TakeAway {
        /// Which.
        volume: Volume,
        /// Also without some.
        force: bool,
    },
    /// The disks were looked at: how long they are, if that can be said.
    Measured(Option<Devices>),
    /// Time has passed.
    Tick,
}

impl Event {
    /// Of what comes by the thousand in a second, where the pumps run once for all that came together: requests, what ended on the
    /// disk, writes of the stream and their acknowledgements. Each only adds to what the pumps look at.
    pub fn is_one_of_many(&self) -> bool {
        use Message::{RecvAck, Write, WriteAck, Zero};
        match self {
            Event::Submit(..) | Event::Done(..) => true,
            Event::Received(_, _, message) => matches!(message, Write { .. } | Zero { .. } | WriteAck(_) | RecvAck(_)),
            _ => false,
        }
    }
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
    /// Zero it; if it may be free, with nothing left allocated.
    Zero(IoId, Span, bool),
    /// Read from it and take a digest of each unit.
    Digest(IoId, Span),
    /// Read from it, and say what somebody lacks who has these digests; without digests, all.
    Compare(IoId, Span, Vec<Digest>),
    /// Make everything that completed there stable.
    Flush(IoId),
    /// Write metadata, in its two steps.
    Meta(IoId, MetaWrite),
    /// Look how long the disks are; [`Event::Measured`] answers.
    Measure,
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
    /// A synchronisation ended.
    Synchronised(NodeId, Moved),
    /// The local disk failed and is left.
    Detached,
    /// A request to it was not answered in time: it is left as one that failed. What is under way there may land yet.
    DiskHangs,
    /// A volume has so many sectors here now.
    Grown(Volume, u64),
    /// So has it at all peers: what was asked for is done.
    Resized(Volume, u64),
    /// It is not done.
    NotResized(ResizeRefusal),
    /// A peer's volume is of another size, in sectors, and the smaller of the two does not become as large.
    OtherSize(NodeId, Volume, u64),
    /// A volume is not there any more on this node, durably: its disk is not used from now on.
    TakenAway(Volume),
    /// Nor on all the others that were there: what was asked for is done.
    Removed(Volume),
    /// It is not done.
    NotRemoved(RemoveRefusal),
    /// A peer has a volume that this one has not any more, or the other way round, and who has it uses it.
    OtherLife(NodeId, Volume),
    /// It failed, and is kept: an application, or a peer, got the error.
    PassedOn(Span),
    /// It was told to end, and has come to rest; or it cannot, being primary or without a disk.
    AtRest(bool),
    /// Requests wait or fail: there is no quorum; or there is again.
    Quorum(bool),
    /// A peer is slow, and was left behind.
    LeftBehind(NodeId),
    /// A verification with a peer ended: sectors that differ, and those that could not be compared.
    Verified(NodeId, u64, u64),
    /// So many bytes were repaired, as that node had them.
    Repaired(NodeId, u64),
    /// So many bytes were to be repaired, and are not: this node is not primary any more, or who had them is gone.
    NotRepaired(u64),
}

/// What a synchronisation moved, in units of 4 KiB, as its source counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Sent.
    pub sent: u64,
    /// Zero here, and told so.
    pub zeroed: u64,
    /// Compared and equal.
    pub equal: u64,
}

/// Why a node does not become primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its data are not good enough.
    Data,
    /// Another is.
    OtherPrimary,
    /// This other one is being promoted, or was just before.
    Overtaken(NodeId),
    /// The own disk does not answer.
    OwnDisk,
    /// No majority answered.
    NoMajority,
    /// Others hold what was granted last.
    NotGranted,
    /// What was acknowledged and not flushed may be lost here, and others may have it.
    LostCache,
}

/// Why the device does not become larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeRefusal {
    /// Only a primary does that.
    NotPrimary,
    /// This node has left its disk.
    NoDisk,
    /// It is being done already.
    Busy,
    /// This peer is not connected and equal.
    Away(NodeId),
    /// It never becomes smaller.
    Shrinks,
    /// It is so large.
    Same,
    /// This node's disk has room for so many sectors at most.
    NoRoom(NodeId, u64),
    /// This peer was lost, or did not answer. Others may have grown: then all do when they meet.
    Lost(NodeId),
}

/// Why a volume is not taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveRefusal {
    /// Only a primary does that.
    NotPrimary,
    /// This node has left its disk.
    NoDisk,
    /// The first volume has the metadata of all.
    First,
    /// There is none of this number.
    NotThere,
    /// There is no quorum.
    NoQuorum,
    /// Something is being done with the volumes already.
    Busy,
    /// This peer is not connected and equal.
    Away(NodeId),
    /// What is under way there does not end.
    InUse,
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
    /// Sectors of the first volume; of others [`Message::Sizes`] tells.
    pub size: u64,
    /// What it promised.
    pub promised: Ballot,
    /// The ballot it reigns by, if it is primary.
    pub reigns: Option<Ballot>,
    /// Extents that its log holds.
    pub log_slots: u32,
    /// The primary it follows.
    pub follows: Option<NodeId>,
    /// A full synchronisation with the receiver was begun and has not ended: what differs has bits since.
    pub begun: bool,
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
    /// The target asks for a run of blocks; it has these digests of it, or none, and wants all.
    Pull(Span, Vec<Digest>),
    /// The answer.
    Pulled {
        /// What was asked for.
        run: Span,
        /// All of it, in order.
        pieces: Vec<Piece>,
        /// The bytes of what travels.
        #[serde(skip)]
        data: Bytes,
        /// Who else is known to hold the same.
        holders: NodeSet,
        /// Bytes that may be asked for at once from now on.
        room: u64,
    },
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
    /// Not this ballot: this is promised, or a living primary is followed. Of the sender's own ballot: it has given up.
    Reject(Ballot, Ballot),
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// A write of the stream that only zeroes.
    Zero {
        /// Its position.
        seq: Seq,
        /// Writes of one epoch may be executed in any order.
        epoch: u64,
        /// Where.
        span: Span,
        /// Nothing need be allocated there any more.
        free: bool,
        /// The receipt is to be acknowledged at once (B).
        receipt: bool,
    },
    /// Compare yourself with the sender.
    Verify,
    /// The sender has these digests of a run: are yours the same?
    Check(Span, Vec<Digest>),
    /// Of a run, which units are the same and which are not; and how many bytes may be asked about at once.
    Checked(Span, Vec<Piece>, u64),
    /// The end of a verification: where the two differ, how many sectors do, how many could not be compared; whether it is the
    /// last part.
    Differs(Vec<Span>, u64, u64, bool),
    /// How many sectors have you room for?
    Room,
    /// So far, as the address behind the last: it says which volume.
    HasRoom(u64),
    /// Become so large, as the address behind the last sector; whether what is new is the same everywhere.
    Resize(u64, bool),
    /// The sender's volume ends there, durably.
    Resized(u64),
    /// How many sectors have you room for in this volume?
    RoomOf(u8),
    /// Before a Hello: the sectors of all volumes, by their numbers. Who has only the first says nothing.
    Sizes(Vec<u64>),
    /// Before those: the lives of all volumes. Who knows of none that was taken away says nothing.
    Lives(Vec<u32>),
    /// A volume is to be taken away, and to have this life then.
    Leave(u8, u32),
    /// That is so at the sender, durably.
    Left(u8, u32),
}
