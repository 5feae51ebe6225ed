//! What clients and coordinators say to one another. Bodies are postcard; data travels as a frame's payload.
//!
//! Three kinds of exchange, one opcode each where the direction differs:
//! - **session calls** ([`Opcode::Call`]): client to coordinator, each in a request slot. The slot's sequence number
//!   makes a resend harmless: a request that changed something durable left its answer beside the change.
//! - **redirected I/O** ([`Opcode::Redirect`]): client to coordinator, no slot: it is repeatable under its layout and
//!   is checked against `{epoch, incarnation, bind, layout, seq}` when it is submitted to the device.
//! - **callbacks** ([`Opcode::Callback`]): coordinator to client; answered at once, never after a wait.
//!
//! Every frame carries the sender's epoch in its header; a receiver that knows a higher one answers
//! [`Answer::StaleEpoch`]. Variants are appended, never reordered: postcard numbers them in this order.

mod clear;
#[cfg(test)]
pub(crate) mod fuzz;
mod hints;
mod locks;
mod peer;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
mod xattr;

use serde::{Deserialize, Serialize};

use block::shared::{Epoch, FenceGen, NodeId};

use crate::types::*;

pub use clear::{Clear, ClearInto};
pub use hints::{Hints, HintsCall};
pub use locks::{ByteRange, LockHolder, LockMode, LockReply, LockRequest, LockSpace, OwnLock, PlacedLock, WaitId};
pub use peer::{PeerAnswer, PeerAsk};
pub use xattr::{CAPABILITY, XattrCall, xattr_flags};

/// The version of these messages; a peer that lacks it is refused at HELLO.
/// 1: first. 2: file locks, holes, extended attributes, hints, files without a name, the umask in [`Request::Create`].
pub const PROTO_VERSION: u16 = 2;

/// The minor versions of these messages that this program speaks, oldest and newest: its own, and that of the release
/// before. Two nodes speak the newest that both know; a message that is newer is not sent to a node that does not know it.
/// Whoever appends a variant that is sent unasked raises the newest, and says here what it brought.
/// 0: what version 2 began with. 1: nodes tell whether they are drained, and take a new list of nodes; [`CallbackAsk::LockHeld`];
/// [`PeerAsk::Mark`] and [`PeerAsk::WrittenSince`].
pub const PROTO_MINORS: (u16, u16) = (0, 1);

/// The minor version that brought [`CallbackAsk::LockHeld`]. Whoever speaks less is not asked.
pub const MINOR_LOCK_HELD: u16 = 1;

/// The minor version that brought [`PeerAsk::Mark`] and [`PeerAsk::WrittenSince`]. Whoever speaks less is asked neither.
pub const MINOR_MARKS: u16 = 1;

/// The opcode of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Opcode {
    /// [`Bind`] → [`BindAnswer`].
    Bind = 1,
    /// [`Call`] → [`Answer`].
    Call = 2,
    /// [`Redirect`] (payload: data of a write) → [`RedirectAnswer`] (payload: data of a read).
    Redirect = 3,
    /// [`Callback`] → [`CallbackAnswer`].
    Callback = 4,
    /// [`PeerAsk`] → [`PeerAnswer`]: between any two nodes.
    Peer = 5,
}

impl Opcode {
    /// The opcode of a number off the wire.
    pub fn from_wire(n: u16) -> Option<Opcode> {
        Some(match n {
            1 => Opcode::Bind,
            2 => Opcode::Call,
            3 => Opcode::Redirect,
            4 => Opcode::Callback,
            5 => Opcode::Peer,
            _ => return None,
        })
    }
}

/// Binds a client to the coordinator over a new connection, and re-asserts what is not durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindRequest {
    /// The volume.
    pub volume: VolumeId,
    /// Who.
    pub client: ClientId,
    /// Higher than every bind this incarnation used before.
    pub bind: Bind,
    /// The fence generation under which the client does its I/O.
    pub fence_gen: FenceGen,
    /// The route its data takes now: a client without a path says so.
    pub has_path: bool,
    /// What it holds from an earlier epoch or connection. Empty at the first bind.
    pub reassert: Vec<Reassert>,
}

/// One thing that a client still holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reassert {
    /// An open file.
    Open {
        /// Which inode.
        ino: InodeNo,
        /// The client's name for the open file.
        handle: HandleId,
        /// Flags.
        flags: u32,
    },
    /// A layout, with the mappings made under it that no commit has covered yet.
    Layout {
        /// Which layout.
        id: LayoutId,
        /// Which inode.
        ino: InodeNo,
        /// Over which blocks.
        range: BlockRange,
        /// Type and permission bits, or what is allowed.
        mode: LayoutMode,
        /// Mappings made under it that no commit has covered yet.
        uncommitted: Vec<Extent>,
        /// Size and mtime that this client made and has not committed.
        size: Option<u64>,
        /// Time of the last change of data.
        mtime: Option<Timestamp>,
    },
    /// A layout that a [`Request::Commit`] with something in its body has been sent to give back, unanswered so far.
    /// Never claimed as held: if the answer of that slot and sequence is stored, the release took place and nothing
    /// is held; if not, nobody else can have it, and the resent commit still finds its layout.
    Releasing {
        /// Which layout.
        id: LayoutId,
        /// Which inode.
        ino: InodeNo,
        /// Over which blocks.
        range: BlockRange,
        /// Type and permission bits, or what is allowed.
        mode: LayoutMode,
        /// The slot of the request that gives it back.
        slot: SlotRef,
        /// Its sequence number there.
        seq: u64,
    },
    /// A [`Request::Create`] that opens what it creates has been sent, unanswered so far. If the answer of that slot and
    /// sequence is stored, the file is open, though its client does not know of it yet.
    Creating {
        /// The client's name for the open file.
        handle: HandleId,
        /// The slot of the request.
        slot: SlotRef,
        /// Its sequence number there.
        seq: u64,
    },
    /// The client holds file locks and names them next, by [`LockRequest::Held`]; until then it has not come back.
    LocksFollow,
}

/// Answer to [`BindRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindAnswer {
    /// Bound. Every redirected request of lower binds has been cancelled or completed.
    Bound {
        /// The reign.
        epoch: Epoch,
        /// The coordinator still takes re-assertions; calls that need more than that will wait.
        grace: bool,
        /// Space recorded as granted to this client.
        grants: Vec<DiskRange>,
        /// Layouts that were re-asserted and not accepted; the client drops them.
        refused: Vec<LayoutId>,
        /// The generation under which the client may do direct I/O (raised by a path fence).
        fence_gen: FenceGen,
        /// Device boot id and generation: part of every stability verifier.
        verifier: Verifier,
    },
    /// This node is not the coordinator; the best it knows.
    NotCoordinator {
        /// The best that is known.
        hint: Option<CoordinatorHint>,
    },
    /// This incarnation was evicted; it must start a new one. Its handles are poisoned where data was lost.
    Evicted {
        /// Why.
        reason: String,
    },
    /// Not now (a fence of this very incarnation is under way); try again.
    Busy,
}

/// Where a coordinator may be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorHint {
    /// Its epoch.
    pub epoch: Epoch,
    /// The node.
    pub node: NodeId,
}

/// Two flushes under the same verifier are of one history: unflushed writes before them were not lost. A write or read is
/// answered with what was so when it was passed to the device, a flush with what is so when it has ended: a reset in between
/// must not count as covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verifier {
    /// The epoch that took the writes.
    pub epoch: Epoch,
    /// The boot of the node that passed them to the device.
    pub boot: u64,
    /// Raised at each reset of the device there.
    pub generation: u64,
}

/// A session call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The volume.
    pub volume: VolumeId,
    /// Who.
    pub client: ClientId,
    /// Under which bind.
    pub bind: Bind,
    /// In which slot.
    pub slot: SlotRef,
    /// One more than the slot's last request; the same for a resend.
    pub seq: u64,
    /// What.
    pub request: Request,
}

/// Bits of [`Request::Rename`]'s flags, as `renameat2(2)` has them.
pub mod rename_flags {
    /// Fail if the new name exists.
    pub const NOREPLACE: u32 = 1;
    /// Swap both.
    pub const EXCHANGE: u32 = 2;
}

/// What a session call asks. "Durable": its answer is stored with its change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Name to inode.
    Lookup {
        /// The directory.
        parent: InodeNo,
        /// The name in it.
        name: Vec<u8>,
    },
    /// Attributes; exact, whoever holds the file exclusively.
    Getattr {
        /// Which inode.
        ino: InodeNo,
    },
    /// Target of a symbolic link.
    Readlink {
        /// Which inode.
        ino: InodeNo,
    },
    /// Entries with cookies greater than `after`, in cookie order, about `max_bytes` of them.
    Readdir {
        /// The directory.
        dir: InodeNo,
        /// The cookie of the last entry already seen.
        after: u64,
        /// About how much fits.
        max_bytes: u32,
        /// Whether attributes are wanted too.
        plus: bool,
    },
    /// Space.
    Statfs,
    /// Durable. Makes a file, directory, device or fifo (`mode` carries the type); opens it too if `open` is given.
    /// `exclusive`: EEXIST if the name is there; else an existing regular file is opened. With an empty name the file has
    /// none (O_TMPFILE), and `exclusive` says that it never gets one.
    Create {
        /// The directory.
        parent: InodeNo,
        /// The name in it.
        name: Vec<u8>,
        /// Type and permission bits; the umask is still to be applied.
        mode: u32,
        /// Applied unless the directory has a default access list.
        umask: u32,
        /// Device number.
        rdev: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Whether an existing name is an error.
        exclusive: bool,
        /// How to open it.
        open: Option<OpenRequest>,
    },
    /// Durable.
    Symlink {
        /// The directory.
        parent: InodeNo,
        /// The name in it.
        name: Vec<u8>,
        /// What it points to.
        target: Vec<u8>,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Durable.
    Link {
        /// Which inode.
        ino: InodeNo,
        /// The directory.
        parent: InodeNo,
        /// The name in it.
        name: Vec<u8>,
    },
    /// Durable. The inode is freed when no session has it open.
    Unlink {
        /// The directory.
        parent: InodeNo,
        /// The name in it.
        name: Vec<u8>,
    },
    /// Durable.
    Rmdir {
        /// The directory.
        parent: InodeNo,
        /// The name in it.
        name: Vec<u8>,
    },
    /// Durable. Flags of [`rename_flags`].
    Rename {
        /// The directory.
        parent: InodeNo,
        /// The name in it.
        name: Vec<u8>,
        /// The directory to move to.
        new_parent: InodeNo,
        /// The name there.
        new_name: Vec<u8>,
        /// Flags.
        flags: u32,
    },
    /// Durable. A change of size recalls the layouts beyond it first.
    Setattr {
        /// Which inode.
        ino: InodeNo,
        /// What to set.
        set: SetAttr,
    },
    /// Durable. Mode 0 of `fallocate(2)`: unwritten extents for every hole of the range; grows the file unless `keep_size`.
    Fallocate {
        /// Which inode.
        ino: InodeNo,
        /// From which byte.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Whether the length stays.
        keep_size: bool,
    },
    /// Not durable. `truncate` of an open goes first as its own [`Request::Setattr`].
    Open {
        /// Which inode.
        ino: InodeNo,
        /// How to open it.
        open: OpenRequest,
    },
    /// Return table, not durable. The last one frees an orphan.
    Release {
        /// Which inode.
        ino: InodeNo,
        /// The client's name for the open file.
        handle: HandleId,
    },
    /// Not durable. A right over `range` for `want`; answered with at least the range asked for.
    LayoutGet {
        /// Which inode.
        ino: InodeNo,
        /// Over which blocks.
        range: BlockRange,
        /// For what.
        want: Want,
    },
    /// Return table, durable. Maps what was written (and flushed before), then gives layouts back.
    Commit {
        /// Which inode.
        ino: InodeNo,
        /// What was made.
        commit: CommitBody,
        /// Layouts to give back with it.
        give_back: Vec<LayoutId>,
    },
    /// Return table, durable. Times of in-place writes, one message for many inodes.
    Times {
        /// Inodes and times.
        changes: Vec<(InodeNo, Timestamp)>,
    },
    /// Durable. More space to map from without asking.
    Grant {
        /// How many blocks.
        blocks: BlockCount,
    },
    /// Return table. This node's path is gone and nothing of its own is in flight any more: fence that path.
    PathLost {
        /// Whether the client proved that nothing of its own can land any more.
        nothing_in_flight: bool,
    },
    /// Return table. The path is good again and no redirected request of this client is outstanding.
    PathBack {
        /// The fence generation in the own slot. If it is higher than the one granted, the answer is a new path fence.
        fence_gen: FenceGen,
    },
    /// Return table. Everything was returned: end the session.
    Goodbye,
    /// Return table, durable. Granted space that is not needed goes back (after [`CallbackAsk::RecallGrant`], or unasked).
    GrantReturn {
        /// Space that is not needed any more.
        ranges: Vec<DiskRange>,
    },
    /// Not durable. About file locks.
    Locks(LockRequest),
    /// Durable. Recalls every layout on the range first. A step at a time: answered with how far it came.
    Clear(Clear),
    /// Durable where it changes something.
    Xattr(XattrCall),
    /// Durable where it changes something.
    Hints(HintsCall),
}

impl Request {
    /// Which table it belongs to.
    pub fn table(&self) -> SlotTable {
        match self {
            Request::Release { .. }
            | Request::Commit { .. }
            | Request::Times { .. }
            | Request::PathLost { .. }
            | Request::PathBack { .. }
            | Request::Goodbye
            | Request::GrantReturn { .. } => SlotTable::Return,
            Request::Locks(ask) => ask.table(),
            _ => SlotTable::Ordinary,
        }
    }

    /// Whether it changes the store, so that its answer is stored with the change.
    pub fn is_durable(&self) -> bool {
        if let Request::Xattr(call) = self {
            return call.is_durable();
        }
        if let Request::Hints(call) = self {
            return matches!(call, HintsCall::Set { .. });
        }
        matches!(
            self,
            Request::Create { .. }
                | Request::Symlink { .. }
                | Request::Link { .. }
                | Request::Unlink { .. }
                | Request::Rmdir { .. }
                | Request::Rename { .. }
                | Request::Setattr { .. }
                | Request::Fallocate { .. }
                | Request::Commit { .. }
                | Request::Times { .. }
                | Request::Grant { .. }
                | Request::GrantReturn { .. }
                | Request::Clear(_)
        )
    }

    /// Whether it asks and does nothing else, so that whoever comes after the asker may ask it again.
    pub fn only_asks(&self) -> bool {
        match self {
            Request::Xattr(_) | Request::Hints(_) => !self.is_durable(),
            Request::Locks(LockRequest::Test { .. })
            | Request::Lookup { .. }
            | Request::Getattr { .. }
            | Request::Readlink { .. }
            | Request::Readdir { .. }
            | Request::Statfs => true,
            _ => false,
        }
    }
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The client's name for it.
    pub handle: HandleId,
    /// `open(2)` flags.
    pub flags: u32,
}

/// What a layout is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Want {
    /// Reading: a shared layout, whatever is mapped there.
    Read,
    /// Writing in place if everything there is written and unshared (shared layout); else exclusive.
    Write,
    /// Allocating, growing, sub-block: exclusive.
    Exclusive,
}

/// Attributes to set; `None` leaves one alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SetAttr {
    /// Permission bits (the type is kept).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Timestamp>,
    /// Last change of data.
    pub mtime: Option<Timestamp>,
    /// Clear suid and sgid as a write or chown by an unprivileged user does.
    pub kill_suid_sgid: bool,
    /// Remove the file's capabilities, as every write does.
    pub kill_capability: bool,
}

/// What a commit records.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CommitBody {
    /// New mappings (from this client's grant) and unwritten extents that are now written.
    pub extents: Vec<Extent>,
    /// New length, if this client grew the file; never shrinks it.
    pub size: Option<u64>,
    /// Time of the last write.
    pub mtime: Option<Timestamp>,
    /// The highest [`CallbackAsk::Sync`] number received for this inode before this body was put together; 0 if none.
    /// A commit that was on its way when the sync was asked for does not carry what it asks for, and shows it here.
    pub sync: u64,
}

/// Answer to [`Call`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Ok(Reply),
    /// The operation failed with this errno.
    Errno(i32),
    /// The receiver knows a higher epoch than the sender, or is not the coordinator any more.
    StaleEpoch {
        /// The best that is known.
        hint: Option<CoordinatorHint>,
    },
    /// This bind is not the session's current one: bind again.
    StaleBind,
    /// This incarnation was evicted.
    Evicted {
        /// Why.
        reason: String,
    },
    /// A sequence number that fits neither the slot's last request nor its next: a defect of the client.
    BadSequence {
        /// What would have fitted.
        expected: u64,
    },
}

/// What a successful call returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing but success.
    Done,
    /// An entry or an inode.
    Attr(Attr),
    /// A created file; `opened` if it was opened too.
    Created {
        /// Attributes.
        attr: Attr,
        /// Whether it was opened too.
        opened: bool,
    },
    /// Target of a symbolic link.
    Target(Vec<u8>),
    /// Directory entries; `end` if none follow.
    Entries {
        /// The entries.
        entries: Vec<DirEntry>,
        /// Whether none follow.
        end: bool,
    },
    /// Space.
    Space(Space),
    /// A layout.
    Layout(LayoutGrant),
    /// Granted space.
    Granted(Vec<DiskRange>),
    /// A path fence took place; direct I/O may start again only under this generation.
    PathFenced {
        /// The fence generation.
        fence_gen: FenceGen,
    },
    /// About file locks.
    Locks(LockReply),
    /// Cleared up to this block; the rest is to be asked for again.
    Cleared(FileBlock),
    /// The value of an extended attribute, or all names.
    Bytes(Vec<u8>),
    /// Hints of an inode.
    Hints {
        /// What is kept.
        hints: Hints,
        /// Extents of the file.
        extents: u32,
    },
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Its inode.
    pub ino: InodeNo,
    /// File type bits of its mode (`S_IFMT`).
    pub kind: u32,
    /// Its place: stable, never reused within the directory. 1 is `.`, 2 is `..`.
    pub cookie: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// Attributes, with `plus`; absent where they are not exact without asking another node.
    pub attr: Option<Attr>,
}

/// What `statfs` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// All data blocks.
    pub blocks: u64,
    /// Free ones, grants included.
    pub free: u64,
    /// Files there are.
    pub files: u64,
    /// Files that could be made.
    pub files_free: u64,
}

/// A layout as given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutGrant {
    /// Its name.
    pub id: LayoutId,
    /// Of which file.
    pub ino: InodeNo,
    /// Over which blocks.
    pub range: BlockRange,
    /// For what.
    pub mode: LayoutMode,
    /// The mapping inside the range; what no extent covers is a hole.
    pub extents: Vec<Extent>,
    /// The file's length when it was given; authoritative while an exclusive layout to the end of file is held.
    pub size: u64,
    /// Whether writes must clear suid, sgid or capabilities first: then only exclusive layouts are given for writing.
    pub kill_privilege: bool,
    /// Exclusive layouts of the same client and file that were given out when the mapping was read. If one of them has
    /// been sent back since, the mapping may be older than what was committed with it.
    pub beside: Vec<LayoutId>,
}

/// A redirected read, write or flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// The volume.
    pub volume: VolumeId,
    /// Who.
    pub client: ClientId,
    /// Under which bind.
    pub bind: Bind,
    /// Under which layout; ignored by a flush.
    pub layout: LayoutId,
    /// What.
    pub op: RedirectOp,
    /// Byte offset on the disk.
    pub at: u64,
    /// Length in bytes.
    pub len: u32,
}

/// Kinds of redirected I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedirectOp {
    /// The answer's payload is the data.
    Read,
    /// The payload is the data.
    Write,
    /// All writes answered before under the same verifier become stable.
    Flush,
}

/// Answer to [`Redirect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedirectAnswer {
    /// Done, in this history.
    Done {
        /// The history it belongs to.
        verifier: Verifier,
    },
    /// The device failed it.
    Errno(i32),
    /// Not the coordinator, or of another epoch.
    StaleEpoch {
        /// The best that is known.
        hint: Option<CoordinatorHint>,
    },
    /// Not this session's bind.
    StaleBind,
    /// The layout is not held: get it again.
    NoLayout,
    /// Evicted.
    Evicted {
        /// Why.
        reason: String,
    },
    /// This client's own path was not fenced in this reign: [`Request::PathLost`] first.
    PathNotFenced,
}

/// What the coordinator asks of a client. Answered at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// The volume.
    pub volume: VolumeId,
    /// To which incarnation.
    pub client: ClientId,
    /// What.
    pub ask: CallbackAsk,
}

/// Kinds of callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallbackAsk {
    /// Commit what was made under this layout, and give it back.
    Recall {
        /// Which layout.
        layout: LayoutId,
        /// Which inode.
        ino: InodeNo,
    },
    /// Commit size, times and mappings of this file now, naming `number` in [`CommitBody::sync`]; keep the layouts.
    /// Answered [`CallbackAnswer::NotHeld`] if nothing is uncommitted.
    Sync {
        /// Which inode.
        ino: InodeNo,
        /// Which request for a sync.
        number: u64,
    },
    /// Give back granted space that is not used: one [`Request::GrantReturn`] follows, also if there is none.
    RecallGrant,
    /// Are you there? How far are the recalls asked for?
    Progress,
    /// What was in the way of this waiter for a file lock is gone: ask again. `NotHeld`: it waits no more.
    LockReady {
        /// Which.
        wait: WaitId,
    },
    /// Does this owner of yours hold this, by your record? `Accepted`: it does, all of it. `NotHeld`: it does not, or has not heard
    /// of it yet. Since [`MINOR_LOCK_HELD`].
    LockHeld {
        /// Of which file.
        ino: InodeNo,
        /// Which kind.
        space: LockSpace,
        /// What.
        lock: OwnLock,
    },
}

/// Answer to [`Callback`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallbackAnswer {
    /// Under way; a call will follow on the return table.
    Accepted,
    /// Under way, but this node's route is draining. To [`CallbackAsk::RecallGrant`]: what is here goes back, but a
    /// [`Request::Grant`] of this node is unanswered, so it is to be asked again.
    Draining,
    /// Nothing of that kind is held here (any more): counts as returned. Never said while a
    /// [`Request::LayoutGet`] of that file is unanswered (its answer may be on the way): that is [`Self::Accepted`].
    NotHeld,
    /// Another incarnation lives here.
    WrongIncarnation,
}
