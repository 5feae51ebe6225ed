//! What is said about file locks. How it is meant is told in [`crate::core::locks`].

use block::shared::NodeId;
use serde::{Deserialize, Serialize};

use crate::types::{Bind, HandleId, InodeNo, SlotTable};

/// Which kind of lock: those of one space never meet those of the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum LockSpace {
    /// `fcntl`: byte ranges.
    Record,
    /// `flock`: the whole file.
    Whole,
}

/// What a lock allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum LockMode {
    /// With other readers (`F_RDLCK`, `LOCK_SH`).
    Read,
    /// Alone (`F_WRLCK`, `LOCK_EX`).
    Write,
}

/// Bytes `[start, end)`. `end` is past the last byte; a lock "to the end of the file, wherever that will be" ends at
/// [`ByteRange::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Behind the last byte; greater than `start`.
    pub end: u64,
}

impl ByteRange {
    /// Behind the last byte that a file can have (`OFFSET_MAX` + 1).
    pub const MAX: u64 = 1 << 63;
    /// The whole file and whatever it may grow to.
    pub const ALL: ByteRange = ByteRange { start: 0, end: ByteRange::MAX };

    /// From the first to the last byte, as the kernel gives them; `None` if that is no range.
    pub fn inclusive(first: u64, last: u64) -> Option<ByteRange> {
        (first <= last && last < ByteRange::MAX).then(|| ByteRange { start: first, end: last + 1 })
    }

    /// Whether it is one: what a peer sends may be anything.
    pub fn is_valid(self) -> bool {
        self.start < self.end && self.end <= ByteRange::MAX
    }

    /// Whether both share a byte.
    pub fn overlaps(self, other: ByteRange) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// What both share; not valid if that is nothing.
    pub fn intersect(self, other: ByteRange) -> ByteRange {
        ByteRange { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// The last byte, as the kernel wants it.
    pub fn last(self) -> u64 {
        self.end - 1
    }
}

/// A lock that an owner of the speaking client holds, or wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnLock {
    /// Whose: a process or an open file, as the node's kernel numbers them.
    pub owner: u64,
    /// The open file through which it was taken.
    pub handle: HandleId,
    /// For `F_GETLK` on the same node: the process. 0 if unknown.
    pub pid: u32,
    /// Where.
    pub range: ByteRange,
    /// For what.
    pub mode: LockMode,
}

/// The same with its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlacedLock {
    /// Of which file.
    pub ino: InodeNo,
    /// Which kind.
    pub space: LockSpace,
    /// The lock.
    pub lock: OwnLock,
}

/// Who is in the way (`F_GETLK`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LockHolder {
    /// Through which node.
    pub node: NodeId,
    /// The process there; 0 if unknown.
    pub pid: u32,
    /// Where.
    pub range: ByteRange,
    /// For what.
    pub mode: LockMode,
}

/// A client's name for one of its waiters; never used again within an incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WaitId(pub u64);

/// What is asked about locks. None of it is durable, and each may be executed twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockRequest {
    /// Take one, in place of what its owner has there. Never waits: without `wait` it is refused (EAGAIN) if it cannot be
    /// had; with it the answer is [`LockReply::Waits`], and a callback says when to ask again.
    Take {
        /// Of which file.
        ino: InodeNo,
        /// Which kind.
        space: LockSpace,
        /// What.
        lock: OwnLock,
        /// Under which name to queue for it.
        wait: Option<WaitId>,
        /// Whether what the owner has there may become weaker by it; if not, the stronger stays.
        weaken: bool,
    },
    /// Which lock would be in the way of this one.
    Test {
        /// Of which file.
        ino: InodeNo,
        /// Which kind.
        space: LockSpace,
        /// What.
        lock: OwnLock,
    },
    /// Return table. An owner gives up what it has in a range.
    Drop {
        /// Of which file.
        ino: InodeNo,
        /// Which kind.
        space: LockSpace,
        /// Whose.
        owner: u64,
        /// Where.
        range: ByteRange,
    },
    /// Return table. In this range an owner holds what is named here and nothing else: undoes a [`LockRequest::Take`] whose
    /// caller has gone. Answered [`LockReply::Refused`].
    Restore {
        /// Of which file.
        ino: InodeNo,
        /// Which kind.
        space: LockSpace,
        /// Whose.
        owner: u64,
        /// Where.
        range: ByteRange,
        /// What it holds, inside the range.
        held: Vec<OwnLock>,
    },
    /// Return table. A waiter has gone.
    Forget {
        /// Which.
        wait: WaitId,
    },
    /// Return table. Locks held, after a bind with [`Reassert::LocksFollow`](super::Reassert::LocksFollow). Counts only
    /// under that bind, until the last part has come. Answered [`LockReply::Refused`].
    Held {
        /// The bind that announced them.
        bind: Bind,
        /// Some of them; so many that the message stays well below a frame's bound.
        locks: Vec<PlacedLock>,
        /// Whether these are the last.
        last: bool,
    },
}

impl LockRequest {
    /// Which table of request slots it belongs to: what gives up never waits behind what wants.
    pub fn table(&self) -> SlotTable {
        match self {
            LockRequest::Take { .. } | LockRequest::Test { .. } => SlotTable::Ordinary,
            _ => SlotTable::Return,
        }
    }
}

/// What is answered, where it is more than "done".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockReply {
    /// Not to be had now; whoever asked is queued.
    Waits,
    /// The lock that is in the way, if any.
    InTheWay(Option<LockHolder>),
    /// Done, but for these, which somebody else holds.
    Refused(Vec<PlacedLock>),
}

#[cfg(test)]
mod tests {
    use block::shared::NodeId;

    use super::*;
    use crate::proto::{CallbackAsk, Reassert, Reply, Request};
    use crate::types::Bind;

    fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
        postcard::to_stdvec(value).expect("fits into memory")
    }

    fn lock() -> OwnLock {
        let range = ByteRange { start: 100, end: 101 };
        OwnLock { owner: 300, handle: HandleId(7), pid: 9, range, mode: LockMode::Write }
    }

    /// What version 2 brought. Whoever changes a byte here raises `PROTO_VERSION`.
    #[test]
    fn version_2_bytes_are_frozen() {
        let (ino, space, lock) = (InodeNo(5), LockSpace::Record, lock());
        let one = [172, 2, 7, 9, 100, 101, 1];
        let range = lock.range;
        let tagged = |tag: &[u8], rest: &[u8]| [tag, rest].concat();
        assert_eq!(bytes(&lock), one);
        let take = LockRequest::Take { ino, space, lock, wait: Some(WaitId(4)), weaken: true };
        assert_eq!(bytes(&Request::Locks(take)), tagged(&[23, 0, 5, 0], &tagged(&one, &[1, 4, 1])));
        assert_eq!(bytes(&LockRequest::Test { ino, space, lock }), tagged(&[1, 5, 0], &one));
        assert_eq!(bytes(&LockRequest::Drop { ino, space, owner: 300, range }), [2, 5, 0, 172, 2, 100, 101]);
        let restore = LockRequest::Restore { ino, space, owner: 300, range, held: vec![lock] };
        assert_eq!(bytes(&restore), tagged(&[3, 5, 0, 172, 2, 100, 101, 1], &one));
        assert_eq!(bytes(&LockRequest::Forget { wait: WaitId(4) }), [4, 4]);
        let placed = PlacedLock { ino, space: LockSpace::Whole, lock };
        let held = LockRequest::Held { bind: Bind(3), locks: vec![placed], last: true };
        assert_eq!(bytes(&held), tagged(&[5, 3, 1, 5, 1], &tagged(&one, &[1])));
        assert_eq!(bytes(&Reply::Locks(LockReply::Waits)), [9, 0]);
        let holder = LockHolder { node: NodeId::new(2).expect("a node"), pid: 9, range, mode: LockMode::Read };
        assert_eq!(bytes(&LockReply::InTheWay(Some(holder))), [1, 1, 2, 9, 100, 101, 0]);
        assert_eq!(bytes(&LockReply::Refused(vec![])), [2, 0]);
        assert_eq!(bytes(&Reassert::LocksFollow), [4]);
        assert_eq!(bytes(&CallbackAsk::LockReady { wait: WaitId(4) }), [4, 4]);
        assert_eq!(bytes(&CallbackAsk::LockHeld { ino, space, lock }), tagged(&[5, 5, 0], &one));
    }

    /// The kernel's "to the end" is the last byte that a file can have.
    #[test]
    fn ranges_are_as_the_kernel_gives_them() {
        assert_eq!(ByteRange::inclusive(0, i64::MAX as u64), Some(ByteRange::ALL));
        assert_eq!(ByteRange::ALL.last(), i64::MAX as u64);
        assert_eq!(ByteRange::inclusive(5, 4), None);
        assert_eq!(ByteRange::inclusive(0, u64::MAX), None);
        assert!(!ByteRange { start: 4, end: 4 }.is_valid() && !ByteRange { start: 0, end: u64::MAX }.is_valid());
    }
}
