//! What comes into a client's core and what goes out of it. Both lists are closed: a shell or a simulation that
//! feeds every event and applies every effect in order has the whole behaviour.
#![expect(missing_docs, reason = "the sentence of a variant names its fields")]

use block::shared::{Epoch, FenceGen, NodeId};

use crate::proto::{
    BindAnswer, BindRequest, Call, CallbackAnswer, CallbackAsk, CoordinatorHint, LayoutGrant, Redirect, RedirectAnswer,
    RedirectOp, Reply, Request,
};
use crate::types::*;

use super::hand_on::Known;
use super::ledger::{Note, Origin};
use super::locks::LockOp;
use super::route::{Reason, RouteInfo};

/// A caller waiting for a [`Request`]'s reply. The shell counts from 1; the core's own lie above [`Ticket::OWN`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The first ticket that the core uses for itself; no reply effect is sent for these.
    pub const OWN: u64 = 1 << 63;
}

/// A redirected read, write or flush. The shell counts from 1; the core's own lie above [`IoId::OWN`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IoId(pub u64);

impl IoId {
    /// The first number that the core uses for its own flushes.
    pub const OWN: u64 = 1 << 63;
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed; deadlines are looked at.
    Tick,
    /// Somebody said who coordinates: the lease block, an answer to WHO, NEW_EPOCH, a STALE_EPOCH.
    Hint(CoordinatorHint),
    /// A node can be reached again.
    Reachable { node: NodeId },

    /// The answer to [`Effect::SendBind`].
    BindAnswered { bind: Bind, answer: BindAnswer },
    /// That bind could not be delivered, or its connection ended before the answer.
    BindFailed { bind: Bind },
    /// The connection over which this bind was made has ended.
    LinkLost { bind: Bind },

    /// A new request.
    Submit { ticket: Ticket, request: Request },
    /// The same for a request of the kernel, which may have led to the same call in another process.
    SubmitFor { ticket: Ticket, request: Request, origin: Origin },
    /// The kernel has sent again all that it was going to: what was not asked for again never will be.
    NoneComesAgain,
    /// A program asks for a file lock, or gives one up. [`Effect::Reply`] follows.
    Lock { ticket: Ticket, op: LockOp },
    /// The caller was interrupted. Takes effect only while no coordinator is bound or the request was never sent; on
    /// whoever waits for a lock, at once.
    Cancel { ticket: Ticket },
    /// These callers, and those of these redirected requests, have waited for `io_timeout`. Said in each sweep while they wait;
    /// [`Effect::Reply`] or [`Effect::RedirectDone`] follows once what they asked for cannot be executed any more.
    Expired { calls: Vec<Ticket>, ios: Vec<IoId> },
    /// The answer to [`Effect::SendCall`].
    Answered { bind: Bind, slot: SlotRef, seq: u64, answer: crate::proto::Answer },

    /// The coordinator asks; answered by [`Effect::AnswerCallback`] in the same call. `dirty`: whether the file of a
    /// sync has anything uncommitted here; for granted space, whether a request for more is unanswered, or its answer not
    /// yet where [`Effect::ReturnGrant`] takes from.
    Asked { client: ClientId, ask: CallbackAsk, dirty: bool },
    /// The last guard of a withdrawn layout was let go.
    Drained { layout: LayoutId },
    /// Everything made under this layout is flushed and committed.
    Settled { layout: LayoutId },
    /// The shell wants to give a layout back of its own accord.
    GiveBack { layout: LayoutId },

    /// A new redirected read, write or flush. `layout` and `at` are ignored for a flush. A write that is to be executed `once` at most
    /// ends in doubt instead of being sent to a second coordinator.
    Redirect { io: IoId, layout: LayoutId, op: RedirectOp, at: u64, len: u32, once: bool },
    /// The answer to [`Effect::SendRedirect`].
    RedirectAnswered { io: IoId, bind: Bind, answer: RedirectAnswer },

    /// A direct request is overdue; said again and again while one is.
    Overdue,
    /// A direct request failed in a way that says the path is gone.
    PathSuspect { reason: Reason },
    /// A fencer says that this node's I/O is being fenced under this generation.
    FenceAsked { fence_gen: FenceGen },
    /// Proved: none of this node's own data requests can land any more. The answer to the [`Effect::Abort`] of that number.
    NothingInFlight { number: u64 },
    /// The proof that was asked for under that number could not be had now.
    AbortFailed { number: u64 },
    /// The own slot was read over the device; the generation it holds, or `None` if the read failed or timed out.
    Probed { fence_gen: Option<FenceGen> },
    /// The administrator's wish.
    Forced { redirect: bool },

    /// The process makes room for the next, which goes on with this incarnation. Answered by [`Effect::Left`].
    Leave,
    /// The volume is not there any more: the same as an eviction. No [`Event::Reborn`] follows.
    Over { reason: String },
    /// A new life after an eviction. `poisoned` handles are not opened again.
    Reborn { client: ClientId, fence_gen: FenceGen, poisoned: Vec<HandleId> },
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// To be kept outside this process before anything else is done; all of it, or nothing.
    Note(Vec<Note>),
    /// Ask every peer (WHO) and look at the lease; what is found comes back as [`Event::Hint`].
    AskWho,
    /// Bind over a new or existing connection to that node. The shell adds uncommitted mappings, sizes and times of
    /// the layouts named in it.
    SendBind { to: CoordinatorHint, request: Box<BindRequest> },
    /// Send over the connection of `call.bind`.
    SendCall { call: Box<Call> },
    /// Send over the connection of `redirect.bind`; a write's data is the shell's.
    SendRedirect { io: IoId, redirect: Redirect },
    /// A binding was made. `grants` is what the coordinator has on record; only the first binding of an
    /// incarnation takes it over.
    Bound { epoch: Epoch, first: bool, grants: Vec<DiskRange> },
    /// The binding is gone; what needs a coordinator waits.
    Unbound,

    /// A request has its answer.
    Reply { ticket: Ticket, result: Result<Reply, CallFailure> },
    /// A layout was given: publish it. A waiter, if still there, takes its guard before anything else happens.
    Granted { ticket: Ticket, grant: LayoutGrant },
    /// Let no new operation take this layout; report [`Event::Drained`] when the last guard is gone.
    Withdraw { layout: LayoutId, ino: InodeNo },
    /// Flush and commit what was made under this (withdrawn, drained) layout; then [`Event::Settled`].
    Settle { layout: LayoutId, ino: InodeNo },
    /// This layout is no longer held: returned, or refused at a re-assertion (`lost`: what was uncommitted under it
    /// is lost).
    Dropped { layout: LayoutId, ino: InodeNo, lost: bool },
    /// Commit size, times and mappings of this file now, naming `number`; keep its layouts.
    Sync { ino: InodeNo, number: u64 },
    /// Give back granted space that is not used, with one call, also if there is none.
    ReturnGrant,
    /// The answer to [`Event::Asked`].
    AnswerCallback(CallbackAnswer),

    /// Close the gate of direct I/O: after this no direct request may be submitted.
    CloseDirect,
    /// A coordinator elsewhere has fenced this node's path. Where nodes are fenced by reservations, that has ended whatever of this
    /// node was still on its way: it will come back now. (At home no key is preempted: the office's own proof has ended it.)
    PathFenced,
    /// Open it again.
    OpenDirect,
    /// Prove that nothing of this node's own is in flight; then [`Event::NothingInFlight`] or [`Event::AbortFailed`]. Where nodes are
    /// fenced by reservations it is enough that nothing is sent any more and that what was sent is taken back, so that it never goes
    /// again: what may still land is ended by the fence that follows, before it is answered.
    Abort { number: u64 },
    /// Direct reads that are outstanding may be issued again by redirection, each into a fresh buffer.
    ReissueReads,
    /// Read the own slot over the device; then [`Event::Probed`].
    Probe,
    /// What the office of this node is to know of its path: it failed a request, or it is there again.
    OwnPath { ok: bool },
    /// The published route changed.
    Route { from: RouteInfo, to: RouteInfo },

    /// A redirected request has its result.
    RedirectDone { io: IoId, result: RedirectResult },
    /// The data of this redirected write need not be kept any longer.
    Forget { io: IoId },
    /// Acknowledged redirected writes under this layout are lost: fail the next fsync of its file.
    WritesLost { layout: LayoutId },

    /// This incarnation was evicted: every layout is dropped, every waiter was answered. A new one may start. Through the
    /// `locked` handles file locks were held.
    Evicted { reason: String, locked: Vec<HandleId> },
    /// What the next process is to know: nothing is done here any more. `None`: something is not finished yet, and all goes on.
    Left { known: Option<Box<Known>> },
    /// File locks held through these handles are lost.
    LocksLost { handles: Vec<HandleId> },
    /// An open that survived an eviction could not be opened again.
    HandleLost { handle: HandleId, ino: InodeNo },
}

/// Why a request got no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallFailure {
    /// The coordinator's answer.
    Errno(i32),
    /// The caller was interrupted while there was no coordinator.
    Interrupted,
    /// It waited for `io_timeout`, and will not be executed.
    Expired,
    /// The incarnation was evicted.
    Evicted,
}

/// What became of a redirected request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedirectResult {
    /// Executed. A write's data is kept until [`Effect::Forget`].
    Done,
    /// The device failed it.
    Errno(i32),
    /// The layout is gone: get one and start over.
    NoLayout,
    /// The route is direct (again): start over there. Never said of a request that was sent.
    Direct,
    /// It waited for `io_timeout`, and will not be executed.
    Expired,
    /// It may have been executed or not, and will not be any more. Said only of what is to be executed once at most.
    InDoubt,
    /// The incarnation was evicted.
    Evicted,
}
