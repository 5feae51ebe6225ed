//! What the core of a multipath device is told, and what it wants done.

use std::fmt;
use std::time::Duration;

use scsi::alua::AccessState;

use crate::error::IoErrorKind;

/// One path, by its place in the device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathId(pub u16);

/// A request's name: a small number that its owner uses again only after [`Effect::Complete`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IoId(pub u32);

/// One sending of a request. Grows over all paths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Attempt(pub u64);

/// Which standing of a path: it grows whenever the path's nexus is let in anew. A request is sent only in the standing that it
/// was given its path in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Standing(pub u64);

/// What becomes of a request without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It may be carried out twice, and late: a read, a flush.
    Free,
    /// It changes the disk: never again before its path is dead.
    Change,
}

/// How one sending of a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done.
    Good,
    /// An answer of the disk itself.
    Failed(IoErrorKind),
    /// The nexus of this path is not registered.
    Fenced,
    /// Not executed: not through this port now.
    NotAccessible,
    /// It has ended with a fault that another path may not have.
    Elsewhere(IoErrorKind),
    /// Not executed, and the path is gone.
    Refused,
    /// It can land no more; it may have been executed.
    Dead,
    /// No answer: it may still land.
    Doubt(IoErrorKind),
}

/// Why a path is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// It was not checked yet.
    New,
    /// A request was not answered in time.
    Silent,
    /// The connection is gone.
    Lost(String),
    /// A check failed.
    CheckFailed(String),
    /// It leads to another disk.
    OtherDisk,
    /// Its nexus lost its registration: this node may be fenced.
    Fenced,
    /// Its nexus is not let in: nobody has judged yet whether this node may use it, or it was refused.
    NotAdmitted,
    /// Everything was withdrawn from it.
    Withdrawn,
    /// It is being closed.
    Closed,
}

/// How a disk is reached through a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// The state of its group.
    pub state: AccessState,
    /// The target prefers this group.
    pub preferred: bool,
    /// How long a change of state may take, where the target tells.
    pub transition: Option<Duration>,
}

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The disk's names prove that it is the device's.
    pub same_disk: bool,
    /// How it is reached.
    pub access: Access,
    /// In which standing of the path that was found.
    pub standing: Standing,
}

/// Where a path is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathState {
    /// In use, as far as its port group allows.
    Up,
    /// Not used.
    Failed(Reason),
    /// Not used; what was sent over it is being proved dead.
    Proving(Reason),
}

/// What the core is told.
#[derive(Debug)]
pub enum Event {
    /// There is another path. It is checked before it is used.
    Add {
        /// The worker that it belongs to, if any: requests from there take it first.
        worker: Option<usize>,
    },
    /// A request.
    Submit {
        /// Its name.
        io: IoId,
        /// What it is.
        kind: Kind,
        /// Bytes that it moves.
        len: u64,
        /// The worker that it comes from.
        worker: Option<usize>,
    },
    /// A sending has ended.
    Ended {
        /// Which request.
        io: IoId,
        /// Which sending.
        attempt: Attempt,
        /// How.
        outcome: Outcome,
    },
    /// A path is gone.
    Lost {
        /// Which.
        path: PathId,
        /// Why.
        reason: Reason,
    },
    /// A check has ended.
    Checked {
        /// Of which path.
        path: PathId,
        /// What it found.
        result: Result<Found, Reason>,
    },
    /// The answer to [`Effect::Prove`].
    Proved {
        /// Of which path.
        path: PathId,
        /// Whether nothing that was sent before can land any more.
        dead: bool,
    },
    /// Take back everything that was submitted before; [`Effect::Withdrawn`] follows.
    Withdraw,
    /// Take back what no path has yet.
    TakeBack,
    /// Somebody else has ended whatever was on its way before the last [`Event::Withdraw`]: what was to be taken back comes back now.
    TasksEnded,
    /// There is a reason to look at a path now.
    Look {
        /// Which.
        path: PathId,
    },
    /// A request without an answer for so long means from now on that its path has failed.
    Patience(Duration),
    /// A better path that came back is to be used, where failback is manual.
    FailBack,
    /// No more requests come.
    Close,
    /// Time has passed.
    Tick,
}

/// What the core wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send a request over a path, then tell [`Event::Ended`].
    Issue {
        /// Which request.
        io: IoId,
        /// Over which path.
        path: PathId,
        /// As which sending.
        attempt: Attempt,
        /// In which standing of the path: in another one it must not be sent.
        standing: Standing,
    },
    /// A request has ended; its name is its owner's again.
    Complete(IoId, Result<(), IoErrorKind>),
    /// Look at a path, then tell [`Event::Checked`].
    Check(PathId),
    /// Make sure that nothing sent over this path so far can land any more, then tell [`Event::Proved`].
    Prove(PathId),
    /// Nothing that was sent over this path so far can land any more: it is to give back what it has, at once.
    GiveBack(PathId),
    /// A path changed its state.
    Changed(PathId, PathState),
    /// What was to be withdrawn is: nothing submitted before can land any more.
    Withdrawn,
}

impl Access {
    /// A disk without target port groups.
    pub const PLAIN: Access = Access { state: AccessState::ActiveOptimized, preferred: false, transition: None };

    /// Whether reads and writes go through a port of such a group.
    pub fn takes_requests(self) -> bool {
        self.rank().is_some()
    }

    /// The higher, the better; `None` if requests cannot go there now.
    pub(super) fn rank(self) -> Option<u8> {
        let rank = match self.state {
            AccessState::ActiveOptimized => 4,
            AccessState::ActiveNonOptimized => 2,
            AccessState::LogicalBlockDependent => 1,
            AccessState::Standby | AccessState::Unavailable | AccessState::Offline | AccessState::Transitioning => {
                return None;
            }
        };
        Some(rank + u8::from(self.preferred))
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {}", self.0)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::New => f.write_str("it was not checked yet"),
            Reason::Silent => f.write_str("a request was not answered in time"),
            Reason::Lost(why) => write!(f, "the connection is gone: {why}"),
            Reason::CheckFailed(why) => write!(f, "its check failed: {why}"),
            Reason::OtherDisk => f.write_str("it leads to another disk"),
            Reason::Fenced => f.write_str("its registration is gone"),
            Reason::NotAdmitted => f.write_str("its nexus is not let in"),
            Reason::Withdrawn => f.write_str("everything was withdrawn from it"),
            Reason::Closed => f.write_str("it is being closed"),
        }
    }
}

impl fmt::Display for PathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathState::Up => f.write_str("up"),
            PathState::Failed(reason) => write!(f, "failed: {reason}"),
            PathState::Proving(reason) => write!(f, "failed, what it carried is being proved dead: {reason}"),
        }
    }
}
