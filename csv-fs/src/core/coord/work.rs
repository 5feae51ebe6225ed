//! The pieces of work in progress, and what each needs before it may run.

use std::collections::BTreeSet;

use super::event::{ConnId, Tag};
use crate::core::rules::{Rule, Rules};
use crate::core::time::Now;
use crate::proto::{Answer, BindRequest, HintsCall, Request};
use crate::types::*;

/// A piece of work.
#[derive(Debug)]
pub(super) enum Work {
    /// A session call.
    Call(Box<CallWork>),
    /// A bind.
    Bind(Box<BindWork>),
    /// A step of an eviction in the store.
    Evict(ClientId),
    /// A path fence of the takeover on its way into the store.
    Inherit,
    /// The freeing of an orphan.
    Reap(InodeNo),
    /// The freeing of what a truncation cut off.
    ReapTail(InodeNo),
}

/// A session call in progress.
#[derive(Debug)]
pub(super) struct CallWork {
    pub(super) client: ClientId,
    pub(super) slot: SlotRef,
    pub(super) seq: u64,
    pub(super) request: Request,
    /// Everybody who waits for the answer: resends join.
    pub(super) tags: Vec<Tag>,
    pub(super) stage: Stage,
    /// The file whose range it holds or queues for.
    pub(super) file: Option<InodeNo>,
    /// What a `LayoutGet` asks for now; grows when the first look shows that it needs more.
    pub(super) layout: Option<(BlockRange, LayoutMode)>,
    /// Grants were recalled for it once.
    pub(super) asked_for_space: bool,
}

/// Where a call stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// Just arrived.
    New,
    /// Held back until grace is over.
    Parked,
    /// Others commit first.
    Syncing {
        /// Who has not yet.
        left: BTreeSet<ClientId>,
    },
    /// Queued for a range.
    Queued,
    /// A client is asked whether it has heard of the lock that is in the way.
    Doubtful,
    /// The store is read; `ends`: how many exclusive layouts had ended when the view was asked for.
    Reading {
        /// See above.
        ends: u64,
    },
    /// The store is changed.
    Storing,
    /// Answered but for attributes that another client may have made newer: it commits first.
    RefreshSync {
        /// What will be said.
        answer: Answer,
        /// Whose attributes.
        ino: InodeNo,
        /// Who has not committed yet.
        left: BTreeSet<ClientId>,
    },
    /// The attributes are read again.
    RefreshRead {
        /// What will be said.
        answer: Answer,
    },
    /// Layouts go back as soon as no redirected request uses them.
    Returning {
        /// What will be said.
        answer: Answer,
        /// Which.
        layouts: Vec<LayoutId>,
    },
    /// Granted space is called back before ENOSPC is said, or this waits behind those for whom it is.
    AwaitingSpace {
        /// Who has not answered yet.
        left: BTreeSet<ClientId>,
        /// At the latest.
        until: Now,
    },
    /// The client's path is fenced.
    PathFencing,
    /// Redirected requests of the client end.
    Draining,
}

/// A bind in progress.
#[derive(Debug)]
pub(super) struct BindWork {
    pub(super) tag: Tag,
    /// Over which connection it came; `None` if that has broken since.
    pub(super) conn: Option<ConnId>,
    pub(super) request: BindRequest,
    /// Whether this session is new to the durable table.
    pub(super) create: bool,
    /// Whether it waits for redirected requests of lower binds.
    pub(super) waits: bool,
}

/// Whether space is freed only when every layout on it was returned or its holder fenced: asked by whatever frees.
pub(super) fn returned_before_freed(rules: Rules) -> bool {
    rules.has(Rule::FreeAfterReturn)
}

/// What a request needs before it may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// Other clients' exclusive holders of a file commit; they keep their layouts.
    Sync(InodeNo),
    /// A range of a file for itself, against everybody's layouts.
    Exclusive(InodeNo, BlockRange),
    /// A range of a file, to be turned into a layout.
    Layout(InodeNo, BlockRange, LayoutMode),
}

/// Mode bits whose setting ends everybody's right to write without clearing them.
const SUID_SGID: u32 = 0o6000;

impl Need {
    /// What `request` needs.
    ///
    /// A change of size needs the whole file: a shared layout far below the end still tells its holder where the end
    /// is. Space that is given up (a truncate) is thereby freed only after every layout on it came back.
    pub(super) fn of(request: &Request, rules: Rules) -> Need {
        match request {
            Request::Getattr { ino } | Request::Hints(HintsCall::Get { ino }) => Need::Sync(*ino),
            // As with suid: it ends everybody's right to write without clearing it.
            Request::Xattr(call) if call.gives_privilege() => Need::Exclusive(call.ino(), BlockRange::ALL),
            Request::Setattr { ino, set } => {
                let privileged = set.mode.is_some_and(|m| m & SUID_SGID != 0);
                match set.size {
                    Some(_) if returned_before_freed(rules) => Need::Exclusive(*ino, BlockRange::ALL),
                    None if privileged => Need::Exclusive(*ino, BlockRange::ALL),
                    _ => Need::Sync(*ino),
                }
            }
            Request::Fallocate { ino, offset, len, keep_size } => match keep_size {
                true => Need::Exclusive(*ino, BlockRange::of_bytes(*offset, *len)),
                false => Need::Exclusive(*ino, BlockRange::ALL),
            },
            // Invariant 3: I/O under a layout may be on its way to the very blocks that become free, or that must read
            // as zeroes.
            Request::Clear(clear) if returned_before_freed(rules) => Need::Exclusive(clear.ino, clear.range),
            Request::LayoutGet { ino, range, want } => {
                let exclusive = *want == crate::proto::Want::Exclusive;
                Need::Layout(*ino, *range, if exclusive { LayoutMode::Exclusive } else { LayoutMode::Shared })
            }
            _ => Need::Nothing,
        }
    }
}
