//! What is recorded of a run.

use core::fmt;

/// Nanoseconds of the host's clock since the run began.
pub type Nanos = i64;

/// Before everything.
pub const EVER: Nanos = i64::MIN;
/// After everything.
pub const NEVER: Nanos = i64::MAX;
/// What a handle that lost something answers.
pub const EIO: i32 = 5;

/// What was asked of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Op {
    /// A block of 4 KiB is written, all of it with one value that is written nowhere else.
    Write {
        /// Which block of the file.
        block: u64,
        /// The value.
        value: u64,
    },
    /// A block is read.
    Read {
        /// Which block of the file.
        block: u64,
    },
    /// What was written to the file is made stable.
    Fsync,
    /// A record is appended (O_APPEND), with a value that no other has.
    Append {
        /// The value.
        value: u64,
    },
    /// All records from one on are read.
    Scan {
        /// The first record that is read.
        from: u64,
    },
    /// A file is made that must not be there (O_CREAT and O_EXCL).
    Create {
        /// Its name.
        name: String,
    },
    /// A name is removed.
    Unlink {
        /// The name.
        name: String,
    },
    /// A name becomes another; what had that name is gone.
    Rename {
        /// The name.
        from: String,
        /// What it becomes.
        to: String,
    },
    /// What has a name is looked at.
    Stat {
        /// The name.
        name: String,
    },
    /// The file's one lock is tried.
    Lock,
    /// The lock is given back.
    Unlock,
    /// Files are opened: no object's state, but it may fail.
    Open,
}

/// What a call came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was done, and there is nothing more to say.
    Done,
    /// The value that a block holds.
    Value(u64),
    /// A block or record is not one whole value.
    Torn,
    /// The records that were found.
    Records(Vec<u64>),
    /// The identity of the file that was made or found.
    Inode(u64),
    /// It is not done, since something is there (EEXIST) or somebody has it (EAGAIN).
    Taken,
    /// It is not done, since nothing is there (ENOENT).
    Absent,
    /// It failed with an error number.
    Failed(i32),
    /// Nobody knows: its node died.
    Unknown,
}

impl Outcome {
    /// Whether it said what it came to.
    pub fn is_answer(&self) -> bool {
        !matches!(self, Outcome::Failed(_) | Outcome::Unknown)
    }
}

/// A call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its process; a number that no other process of the run has.
    pub process: u32,
    /// The node through whose mount it went.
    pub node: u8,
    /// The object: a path below the mount.
    pub object: String,
    /// What was asked.
    pub op: Op,
    /// Not later than it began.
    pub start: Nanos,
    /// The last moment at which it may have taken effect: its end; without an answer see the crate's document.
    pub end: Nanos,
    /// What it came to.
    pub outcome: Outcome,
}

impl Event {
    /// Whether it must have taken effect.
    pub fn must(&self) -> bool {
        self.outcome.is_answer()
    }

    /// Whether it was over before another began.
    pub fn is_before(&self, other: &Event) -> bool {
        self.end < other.start
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |t: Nanos| t as f64 / 1e6;
        write!(f, "{:>11.3} to ", ms(self.start))?;
        match self.end {
            NEVER => write!(f, "{:>11}", "?")?,
            end => write!(f, "{:>11.3}", ms(end))?,
        }
        write!(
            f,
            "  node {} process {:<3} {} {}",
            self.node,
            self.process,
            self.object,
            crate::raw::op_text(&self.op)
        )?;
        write!(f, " = {}", crate::raw::outcome_text(&self.outcome))
    }
}

/// What happened to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Its life may be over from here on: its calls may fail.
    Ending,
    /// Its daemon is dead: what it had not made stable may be gone.
    Ended,
    /// It was evicted, and lives on: what it had not made stable may be gone, and handles fail until they are closed.
    Evicted,
    /// Its next life has begun: nothing of the one before is executed any more.
    Begun,
}

/// Something that happened to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Happening {
    /// When it was noticed.
    pub at: Nanos,
    /// To which node.
    pub node: u8,
    /// What.
    pub turn: Turn,
}

/// A whole run, or a part of it between two moments without calls.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct History {
    /// Calls, by their start.
    pub events: Vec<Event>,
    /// What happened to nodes, by time.
    pub happenings: Vec<Happening>,
    /// What else was noted: what was done to the nodes. By time.
    pub notes: Vec<(Nanos, String)>,
}

impl History {
    /// The first end of a life of that node which a call that began then may have been part of.
    pub fn life_ended(&self, node: u8, start: Nanos) -> Option<Nanos> {
        let ends = |h: &&Happening| matches!(h.turn, Turn::Ended | Turn::Evicted) && h.node == node && h.at > start;
        self.happenings.iter().find(ends).map(|h| h.at)
    }

    /// The beginning of the node's next life after a moment; [`NEVER`] if it has not begun.
    pub fn next_life(&self, node: u8, after: Nanos) -> Nanos {
        let begun = self.happenings.iter().find(|h| h.turn == Turn::Begun && h.node == node && h.at > after);
        begun.map_or(NEVER, |h| h.at)
    }

    /// Why a call may have failed.
    pub fn excuse(&self, event: &Event) -> Excuse {
        let ending = |h: &&Happening| h.turn == Turn::Ending && h.node == event.node && h.at <= event.end;
        let mut found = Excuse::None;
        for ending in self.happenings.iter().filter(ending) {
            let closes = |h: &&Happening| {
                matches!(h.turn, Turn::Begun | Turn::Evicted) && h.node == event.node && h.at >= ending.at
            };
            let close = self.happenings.iter().find(closes);
            let evicted = close.is_some_and(|c| c.turn == Turn::Evicted);
            if evicted && event.outcome == Outcome::Failed(EIO) {
                return Excuse::Evicted;
            }
            if !evicted && close.is_none_or(|c| event.start <= c.at) {
                found = Excuse::Died;
            }
        }
        found
    }
}

/// Why a call may have failed, or not been answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Excuse {
    /// There is none: an error of the volume.
    None,
    /// Its node's daemon was killed.
    Died,
    /// Its node was evicted, and the handle failed until it was closed.
    Evicted,
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wrong {
    /// What was acknowledged was not there.
    Lost,
    /// What failed, or belonged to a life that was over, took effect afterwards.
    ExecutedAfterFailure,
    /// What nobody did was there, or there in another order or more than once.
    Invented,
    /// A block or a record was not whole.
    Torn,
}

/// Why no one volume could have answered like that.
#[derive(Clone, PartialEq, Debug)]
pub struct Violation {
    /// What is wrong.
    pub wrong: Wrong,
    /// The object.
    pub object: String,
    /// In a sentence.
    pub said: String,
    /// The calls that show it, in the order of their starts.
    pub shown: Vec<Event>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} ({:?})", self.object, self.said, self.wrong)?;
        self.shown.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}

/// A violation with its calls in order.
pub(crate) fn violation(wrong: Wrong, said: String, shown: &[&Event]) -> Violation {
    let mut shown: Vec<Event> = shown.iter().map(|e| (*e).clone()).collect();
    shown.sort_by_key(|e| (e.start, e.process));
    shown.dedup();
    let object = shown.first().map(|e| e.object.clone()).unwrap_or_default();
    Violation { wrong, object, said, shown }
}
