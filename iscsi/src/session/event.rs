//! What a session is told, and what it wants done.

use scsi::{LunAddress, Status};

use crate::chap::Entropy;
use crate::digest::Digests;
use crate::discovery::Portal;
use crate::framer::FrameError;
use crate::ids::PortalGroup;
use crate::keys::params::Params;
use crate::login::LoginError;
use crate::pdu::Bhs;
use crate::text::{Pair, TextError};

/// The owner's name of a task: a small number that it uses again only after [`Effect::Done`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId(pub u16);

/// A connection attempt. Grows; what is told of an older one is passed over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// How often a node was fenced: a write belongs to the generation in which its right was granted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FenceGen(pub u64);

/// What may become of a task whose answer is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Needs no proof, goes on any nexus at once, is never sent again: what makes the proof, and what changes state that
    /// only its owner can judge (PERSISTENT RESERVE OUT).
    Control,
    /// Waits for a proved nexus; may be sent again.
    Read,
    /// Waits for a nexus proved to be of this generation; sent again only there, and only when its older task is dead.
    Write(FenceGen),
    /// As a write, but what became of it is found out by reading its block.
    CompareAndWrite(FenceGen),
}

impl Class {
    /// The generation that a nexus must be of.
    pub fn generation(self) -> Option<FenceGen> {
        match self {
            Class::Write(g) | Class::CompareAndWrite(g) => Some(g),
            Class::Control | Class::Read => None,
        }
    }
}

/// Which way data go, and how many bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transfer {
    /// None.
    None,
    /// To the initiator.
    In(u32),
    /// To the target.
    Out(u32),
}

impl Transfer {
    /// How many.
    pub fn len(self) -> u32 {
        match self {
            Transfer::None => 0,
            Transfer::In(n) | Transfer::Out(n) => n,
        }
    }

    /// Whether none go.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A SCSI command to be carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// Its name.
    pub task: TaskId,
    /// For which unit.
    pub lun: LunAddress,
    /// What to do.
    pub cdb: [u8; 16],
    /// Its data.
    pub transfer: Transfer,
    /// What may become of it.
    pub class: Class,
}

/// How a task ended. Each ends exactly once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The target answered.
    Answered(Answer),
    /// No answer that counts: it may or may not have been executed, and nothing of it can land any more.
    Lost(Cause),
    /// No answer, and nobody knows: it may still land.
    Unknown(Cause),
    /// It was withdrawn at its owner's wish; it can land no more, but may have landed.
    Aborted,
    /// The node was fenced since it was submitted; it can land no more, but may have landed before.
    Fenced,
}

/// What the target said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// SCSI status.
    pub status: Status,
    /// Sense data, if any.
    pub sense: Vec<u8>,
    /// Bytes that were moved.
    pub moved: u32,
    /// Bytes that would have been moved beyond what was expected.
    pub overflow: u32,
}

/// Why a connection, or a task without it, came to nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// Nobody answers at the portal.
    #[error("cannot connect to the portal")]
    Connect,
    /// The target, or somebody between, closed the connection.
    #[error("the target closed the connection")]
    Closed,
    /// The login failed.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The login took too long.
    #[error("no answer to the login in time")]
    LoginTimeout,
    /// Too many redirects in a row.
    #[error("the target redirects in a circle")]
    RedirectLoop,
    /// No answer to a ping.
    #[error("the target does not answer any more")]
    Silent,
    /// Neither an abort nor a reset was answered.
    #[error("the target answers neither the command nor its abort")]
    Stuck,
    /// A task took too long, again and again.
    #[error("no answer in time, again and again")]
    TimedOut,
    /// Bytes that are no PDUs.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A PDU that may not be.
    #[error("the target breaks the protocol: {0}")]
    Protocol(&'static str),
    /// A PDU was refused.
    #[error("the target refused a PDU of this end (reason {0:#04x})")]
    Rejected(u8),
    /// Data were damaged on the way.
    #[error("a data digest is wrong")]
    DataDigest,
    /// The iSCSI layer of the target failed.
    #[error("the target could not carry out the command (response {0:#04x})")]
    TargetFailure(u8),
    /// The target asked for it, or said that it would drop the connection.
    #[error("the target asked for a new login")]
    AskedByTarget,
    /// Another session of the same name and ISID takes this one's place again and again.
    #[error("another host uses this initiator name and ISID: each login ends the other's session")]
    Usurped,
    /// Text could not be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// No path for longer than tasks are kept.
    #[error("there was no path for too long")]
    NoPath,
    /// More tasks than a session takes.
    #[error("the session has as many tasks as it takes")]
    Full,
    /// The nexus lost its registration, or the node was fenced.
    #[error("the nexus is not registered any more; it is given up, with everything that was on it")]
    Unregistered,
    /// The owner has another path and wanted its tasks back.
    #[error("the path was given up for another")]
    GivenUp,
    /// The session was closed here.
    #[error("the session is closed")]
    ClosedHere,
    /// What a disk of the kernel's says, where no session is.
    #[error("{0}")]
    Disk(&'static str),
}

/// What was read in the block of a compare-and-write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The new value: its own nonce.
    Own,
    /// The value that it expected.
    Old,
    /// Another value.
    Other,
}

/// What a session is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// Begin.
    Open,
    /// The connection stands. Comes with bytes from a random source.
    Connected {
        /// Which.
        conn: ConnId,
        /// For the login.
        entropy: Entropy,
    },
    /// It did not come about, or ended.
    Lost {
        /// Which.
        conn: ConnId,
        /// Why.
        cause: Cause,
    },
    /// A whole PDU.
    Pdu {
        /// From which.
        conn: ConnId,
        /// Its header.
        bhs: Bhs,
        /// Its data, unless [`super::Session::place`] put them elsewhere.
        data: &'a [u8],
        /// Whether its data digest was right.
        intact: bool,
    },
    /// Carry this out.
    Submit(Command),
    /// The owner wants this task back.
    Abort(TaskId),
    /// Ask this text (SendTargets).
    Text(Vec<u8>),
    /// The nexus number `nexus` was registered, then its slot read over it: it is of this generation.
    Proved {
        /// As told by [`Effect::Up`].
        nexus: u64,
        /// The generation.
        generation: FenceGen,
    },
    /// This node was fenced: everything of generations below is void, and the nexus is given up.
    Fenced(FenceGen),
    /// A command was answered RESERVATION CONFLICT: the nexus' registration is gone. A nexus is registered once in its
    /// life: what was sent meanwhile would land behind a second registration. So it is given up.
    Unregistered {
        /// Whose.
        nexus: u64,
    },
    /// The keys of this session's older nexuses were preempted and their tasks aborted from the present one
    /// (PREEMPT AND ABORT): nothing of [`super::Session::landing`] can land any more.
    Preempted,
    /// The owner wants the unit reset, whatever becomes of others' commands; told by [`Effect::UnitReset`], one for each.
    ResetUnit(LunAddress),
    /// What was found in the block of a compare-and-write.
    Settled {
        /// Which.
        task: TaskId,
        /// What.
        found: Found,
    },
    /// The owner has another path: it wants every task back, and to know when nothing of them can land any more. The nexus
    /// is given up, so that the next login proves it.
    GiveUp,
    /// Drain, log out, end.
    Close,
    /// Time has passed.
    Tick,
}

/// Where the data of an outgoing PDU come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// It has none.
    Empty,
    /// These bytes.
    Inline(Vec<u8>),
    /// This piece of a task's memory.
    Task {
        /// Whose.
        task: TaskId,
        /// From where.
        offset: u32,
        /// How much.
        len: u32,
    },
}

/// Where the data of an incoming PDU go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Into a task's memory.
    Task {
        /// Whose.
        task: TaskId,
        /// From where.
        offset: u32,
    },
    /// They come back with the event.
    Inline,
    /// Nowhere: they belong to nothing.
    Nowhere,
}

/// Something to tell people and layers above.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// Sense that came on its own (asynchronous event 0): as a unit attention.
    Sense(LunAddress, Vec<u8>),
    /// The target ended tasks of this unit on its own.
    TasksTerminated(LunAddress),
    /// A task took too long: an abort was sent.
    Aborting(TaskId),
    /// A unit was reset, because an abort did not help.
    ResetUnit(LunAddress),
    /// The target is elsewhere.
    Redirected(Portal),
    /// The target's queue is full: no more than so many tasks at once.
    Depth(u32),
    /// An asynchronous event that has no meaning here.
    Unknown(u8),
}

/// What a session wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Connect, then tell [`Event::Connected`] or [`Event::Lost`].
    Connect {
        /// Its name.
        conn: ConnId,
        /// Where.
        portal: Portal,
    },
    /// Send.
    Send {
        /// On which.
        conn: ConnId,
        /// The header; its length is the body's.
        bhs: Bhs,
        /// The data.
        body: Body,
    },
    /// The full feature phase: digests and segment length of the reader, digests of the writer.
    Opened {
        /// Of which.
        conn: ConnId,
        /// From the next PDU on.
        digests: Digests,
        /// The longest data segment that may come.
        longest: u32,
    },
    /// Close at once; nothing more is told of it.
    Disconnect(ConnId),
    /// A task has ended; its memory is its owner's again.
    Done(TaskId, Outcome),
    /// Read this task's block, then tell [`Event::Settled`]. The task itself is dead.
    Settle(TaskId),
    /// A nexus stands. Reads and writes wait until it is proved.
    Up {
        /// Its number.
        nexus: u64,
        /// The target port.
        group: Option<PortalGroup>,
        /// What was agreed.
        params: Params,
    },
    /// It stands no more.
    Down(Cause),
    /// The answer to [`Event::Text`].
    Text(Result<Vec<Pair>, Cause>),
    /// Whether a reset that the owner wanted was answered as done: then every command of every nexus with this unit has ended.
    UnitReset(LunAddress, bool),
    /// Tell people.
    Report(Report),
    /// The session has ended; every task is done.
    Ended(Cause),
}
