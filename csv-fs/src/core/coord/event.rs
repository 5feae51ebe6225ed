//! What the coordinator is told and what it asks for: closed enums, so that a test can name every effect exactly.
//!
//! Events come from four places: clients (`Bind`, `Call`, `CallbackDone`, `ConnLost`), the store (`ReadDone`,
//! `StoreDone`, `StoreFailed`), the office (`FenceDone`, `ClientDead`, `Drain`, `Stop`) and time (`Tick`). Redirected
//! I/O is begun by a plain method (`Coord::redirect_begin`) and ended by an event, because it sits on the data path.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use block::shared::{FenceGen, Incarnation, NodeId};

use crate::proto::{Answer, BindAnswer, BindRequest, Call, CallbackAnswer, CallbackAsk, CoordinatorHint, Request};
use crate::types::*;

/// Names whoever waits for an answer; chosen by the shell, never looked into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag(pub u64);

/// A connection of a client, as the shell numbers them; callbacks go to the one the client last bound over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// One piece of work of the coordinator; comes back with the store's result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// A callback that was sent; comes back with its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallbackId(pub u64);

/// A redirected read, write or flush between submission and completion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GuardId(pub u64);

/// What the durable tables and the slots showed when office was taken.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inherited {
    /// The session table, evicted ones included.
    pub sessions: Vec<DurableSession>,
    /// Inodes without a name that wait to be freed.
    pub orphans: Vec<InodeNo>,
    /// Files whose cut-off tail is not freed yet.
    pub truncated: Vec<InodeNo>,
    /// The nodes that this one does not hear, and for how long they have said nothing.
    pub unheard: BTreeMap<NodeId, Duration>,
}

/// A row of the session table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DurableSession {
    /// Whose.
    pub client: ClientId,
    /// The fence generation committed for it.
    pub fence_gen: FenceGen,
    /// How far an eviction has come.
    pub state: DurableState,
    /// The stored answer of each slot that has one.
    pub answers: Vec<(SlotRef, u64, Answer)>,
    /// The node's slot on the disk, read after the old epoch was fenced; `None` if it holds nothing.
    pub slot: Option<SlotSeen>,
    /// What the takeover already knows about this client.
    pub fate: Fate,
    /// Why it was, or is being, evicted; else empty.
    pub reason: String,
}

/// State of a durable session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DurableState {
    /// A client may live.
    Live,
    /// An eviction began and may not have fenced yet.
    Evicting,
    /// Fenced; what it held was given away.
    Evicted,
}

/// A node's slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotSeen {
    /// The life that wrote it last.
    pub incarnation: Incarnation,
    /// Its generation.
    pub fence_gen: FenceGen,
}

/// What is known of a client when office is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Nothing: it may re-assert.
    Unknown,
    /// Fenced at takeover and not expected back (a killed coordinator's own client): evicted at once, unfenced no more.
    Dead {
        /// The generation that fence raised.
        fence_gen: FenceGen,
    },
    /// Fenced at takeover, and expected back: alive (a coordinator that lost its own path), or killed and followed by a process that
    /// goes on. Path-fenced, not evicted.
    PathFenced {
        /// The generation that fence raised.
        fence_gen: FenceGen,
    },
    /// Of the coordinator that resigned: on request, or since it gave way to those that do not hear it.
    Resigned,
}

/// Why a fence is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FencePurpose {
    /// The incarnation ends.
    Eviction,
    /// Its path ends, the incarnation lives.
    Path,
}

/// What the coordinator is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Office was taken: what the last reign left. The first event; before it nothing is served.
    Start(Inherited),
    /// Time passed.
    Tick,
    /// A client binds.
    Bind {
        /// Who waits.
        tag: Tag,
        /// Over which connection.
        conn: ConnId,
        /// What it says.
        request: BindRequest,
    },
    /// A client calls.
    Call {
        /// Who waits.
        tag: Tag,
        /// What it asks.
        call: Call,
    },
    /// A connection is gone; callbacks over it are lost.
    ConnLost {
        /// Which.
        conn: ConnId,
    },
    /// A read of the store ended.
    ReadDone {
        /// Whose.
        op: OpId,
        /// What it found.
        done: ReadDone,
    },
    /// A change of the store was committed, or failed cleanly and changed nothing.
    StoreDone {
        /// Whose.
        op: OpId,
        /// What came of it.
        done: StoreDone,
    },
    /// The store failed: nothing may be acknowledged any more, and office is to be given up.
    StoreFailed,
    /// A callback was answered, or its connection broke (`None`).
    CallbackDone {
        /// Which.
        id: CallbackId,
        /// The answer.
        answer: Option<CallbackAnswer>,
    },
    /// A fence that was asked for ended.
    FenceDone {
        /// Of whom.
        client: ClientId,
        /// For what.
        purpose: FencePurpose,
        /// The raised generation, or why it failed.
        result: Result<FenceGen, String>,
    },
    /// A client is known to be dead (its port refuses after a reset); it is evicted without waiting for a deadline.
    ClientDead {
        /// Who.
        client: ClientId,
    },
    /// A redirected request ended, in whatever way.
    RedirectEnded {
        /// Which.
        guard: GuardId,
    },
    /// Whether this node may be coordinator, as it sees the others now; it may, at first.
    Permitted {
        /// Whether.
        may: bool,
    },
    /// Office will be resigned: take nothing in, and say [`Effect::Drained`] when nothing is left below.
    Drain {
        /// Where to send clients.
        hint: Option<CoordinatorHint>,
    },
    /// Office is lost: nothing may be acknowledged any more.
    Stop {
        /// Where to send clients.
        hint: Option<CoordinatorHint>,
    },
}

/// A question to the store that changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadAsk {
    /// `Lookup`, `Getattr`, `Readlink`, `Readdir` or `Statfs`, to be answered as such.
    Request(Request),
    /// The mapping of a regular file in a range, as far as one answer holds it.
    Layout {
        /// Of which file.
        ino: InodeNo,
        /// From where to where.
        range: BlockRange,
    },
}

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadDone {
    /// The answer of a request.
    Answer(Answer),
    /// A mapping.
    Layout(LayoutFacts),
}

/// What a layout is given out on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayoutFacts {
    /// Extents inside the range; what none covers is a hole.
    pub extents: Vec<Extent>,
    /// The mapping is told up to here; less than the end of the range if it has too many extents for one answer.
    pub told_to: FileBlock,
    /// The file's length.
    pub size: u64,
    /// Whether writes must clear suid, sgid or capabilities.
    pub kill_privilege: bool,
}

/// A change of the store; one transaction (with others in one commit).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreAsk {
    /// A durable request; its answer is stored with the change.
    Request {
        /// Whose.
        client: ClientId,
        /// Under which slot the answer is kept.
        slot: SlotRef,
        /// And sequence.
        seq: u64,
        /// What.
        request: Request,
    },
    /// Make sure that the session exists, tell its grants, and compare re-asserted mappings with them: each must lie
    /// in the client's recorded grants or be an unwritten extent of that very file.
    Session {
        /// Whose.
        client: ClientId,
        /// Recorded if it is new.
        fence_gen: FenceGen,
        /// Whether it is new.
        create: bool,
        /// Uncommitted mappings.
        verify: Vec<(InodeNo, Vec<Extent>)>,
    },
    /// An eviction begins.
    Evicting {
        /// Whose.
        client: ClientId,
        /// Why; kept, so that the client can be told.
        why: EvictReason,
    },
    /// An eviction is complete: its grants are free space again.
    Evicted {
        /// Whose.
        client: ClientId,
        /// The generation the fence raised.
        fence_gen: FenceGen,
        /// Why.
        why: EvictReason,
    },
    /// A path was fenced.
    PathFenced {
        /// Whose.
        client: ClientId,
        /// The generation the fence raised.
        fence_gen: FenceGen,
    },
    /// The client said goodbye: its session row, answers and grants go.
    EndSession {
        /// Whose.
        client: ClientId,
    },
    /// One bounded step of freeing an inode without a name.
    Reap {
        /// Which.
        ino: InodeNo,
    },
    /// One bounded step of freeing what a truncation cut off.
    ReapTail {
        /// Of which file.
        ino: InodeNo,
    },
}

/// What came of a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreDone {
    /// Of a request. `Errno` changed nothing.
    Request {
        /// Its answer.
        answer: Answer,
        /// Inodes that lost their last name by it.
        orphaned: Vec<InodeNo>,
        /// A file that was cut, and whose tail is too long to have been freed with it.
        truncated: Option<InodeNo>,
    },
    /// Of a request whose claim contradicts the store (a mapping outside the grant). It changed nothing.
    Contradiction {
        /// In a sentence.
        why: String,
    },
    /// Of a session look-up.
    Session {
        /// Recorded grants.
        grants: Vec<DiskRange>,
        /// A re-asserted mapping that is neither granted nor the file's own.
        outside: Option<String>,
    },
    /// Of what has no more to tell.
    Done,
    /// Of one step of freeing.
    Reaped {
        /// Whether another step is needed.
        more: bool,
    },
}

/// What the coordinator asks for. To be applied in order; each is applied without waiting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Answer a call.
    Answer {
        /// To whom.
        tag: Tag,
        /// What.
        answer: Answer,
    },
    /// Answer a bind.
    AnswerBind {
        /// To whom.
        tag: Tag,
        /// What.
        answer: BindAnswer,
    },
    /// Read the store, in a view opened after this effect was given out.
    Read {
        /// Comes back with [`Event::ReadDone`].
        op: OpId,
        /// What.
        ask: ReadAsk,
    },
    /// Change the store, after every change asked for before.
    Store {
        /// Comes back with [`Event::StoreDone`].
        op: OpId,
        /// What.
        ask: StoreAsk,
    },
    /// Ask a client over its connection.
    Callback {
        /// Comes back with [`Event::CallbackDone`].
        id: CallbackId,
        /// Over which.
        conn: ConnId,
        /// Whom.
        client: ClientId,
        /// What.
        ask: CallbackAsk,
    },
    /// Have a client fenced by the office.
    Fence {
        /// Comes back with [`Event::FenceDone`].
        client: ClientId,
        /// And this.
        purpose: FencePurpose,
    },
    /// Said once. After `Drain`: no redirected request and no change of the store is on its way to the disk any more,
    /// and none will be. After `Stop` or `StoreFailed`: no redirected request is; the store is the shell's to wait for.
    Drained,
    /// Something a user wants to know.
    Report(Report),
}

/// What a user wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// Grace began; so many clients may re-assert.
    GraceBegan {
        /// How many are waited for.
        waiting_for: usize,
    },
    /// Grace is over: everything is served again.
    GraceEnded,
    /// The store failed: this reign serves nobody any more. Whoever holds office should give it up.
    StoreFailed,
    /// A client is being evicted.
    Evicting {
        /// Who.
        client: ClientId,
        /// Why.
        why: EvictReason,
    },
    /// It is, and what it held was given away.
    Evicted {
        /// Who.
        client: ClientId,
    },
    /// A fence failed; it is tried again.
    FenceFailed {
        /// Of whom.
        client: ClientId,
        /// Why.
        why: String,
    },
    /// A client's path was fenced: its data I/O comes here from now on.
    PathFenced {
        /// Who.
        client: ClientId,
    },
    /// A client's path is good again.
    PathBack {
        /// Who.
        client: ClientId,
    },
}

/// Why a client is evicted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvictReason {
    /// It did not give a layout back, or commit, within the recall deadline.
    RecallOverdue,
    /// It did not re-assert within grace.
    NotReasserted,
    /// It ran beside the coordinator of the old epoch, and its node had said nothing for longer than grace lasts.
    Unheard,
    /// It was fenced with the old epoch, and is dead.
    DeadAtTakeover,
    /// Its slot shows another life, a generation lower than the committed one, or nothing valid.
    SlotDisagrees,
    /// An eviction begun by an earlier coordinator.
    Unfinished,
    /// It re-asserted a mapping outside its grant.
    OutsideGrant,
    /// A later incarnation of its node has come.
    Replaced,
    /// It is known to be dead.
    Dead,
}

impl fmt::Display for EvictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EvictReason::RecallOverdue => "it did not give back what was recalled in time",
            EvictReason::NotReasserted => "it did not come back within grace after a takeover",
            EvictReason::Unheard => "its node had not been heard for longer than grace lasts",
            EvictReason::DeadAtTakeover => "it was fenced with the coordinator it ran beside",
            EvictReason::SlotDisagrees => "its slot does not show the life and the generation on record",
            EvictReason::Unfinished => "an earlier coordinator had begun to evict it",
            EvictReason::OutsideGrant => "it claimed blocks that were not granted to it",
            EvictReason::Replaced => "a later life of its node has come",
            EvictReason::Dead => "it was declared dead",
        })
    }
}
