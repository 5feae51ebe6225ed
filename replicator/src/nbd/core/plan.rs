//! Which requests of the device make up one of a client, and what their errors are called.
//!
//! ```text
//!   Write, Read, Flush     one request
//!   Trim                   discard (refused: nothing)              ─┐
//!   Zeroes, may free       discard, if that leaves zeroes           ├─ with FUA: then a flush
//!     (refused, or not)    write-zeroes                            ─┘
//! ```
//! A flush behind a discard or a write-zeroes covers it, because it is submitted after that has completed.

#[cfg(test)]
mod tests;

use super::transmission::{Command, Refusal};
use super::wire::Errno;

/// What the device is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Fill memory.
    Read,
    /// Write memory.
    Write {
        /// To stable storage.
        fua: bool,
    },
    /// Make stable.
    Flush,
    /// Give a range up.
    Discard,
    /// Zero a range.
    Zero,
}

/// How the device failed, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It has no such operation.
    NotSupported,
    /// It takes no changes.
    ReadOnly,
    /// It has become smaller, or has no space.
    NoSpace,
    /// It does not like the request.
    Invalid,
    /// It is being closed.
    Closing,
    /// It failed.
    Failed,
}

/// What a device can do, when a request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// It takes discards.
    pub discards: bool,
    /// What it discards reads as zeroes.
    pub discard_zeroes: bool,
    /// It zeroes faster than it writes.
    pub zeroes_fast: bool,
}

/// A request of a client on its way through the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    ask: Ask,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing comes after it.
    Last,
    /// If it worked, a flush.
    Flushed,
    /// A discard for a TRIM: it may be refused.
    Hint { fua: bool },
    /// A discard for WRITE_ZEROES: if refused, zeroes, unless it had to be fast.
    Freeing { fua: bool, fast: bool },
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another request of the device.
    Ask(Plan),
    /// The answer.
    Answer(Result<(), Refusal>),
}

const NOT_FAST: Refusal = Refusal { errno: Errno::Enotsup, why: "zeroing is no faster than writing here" };

impl Plan {
    /// How a command begins. Those that need no device do not come here, and are answered.
    /// What the device can do is asked for only where it matters.
    pub fn begin(command: Command, abilities: impl Fn() -> Abilities) -> Next {
        let plan = |ask, stage| Next::Ask(Plan { ask, stage });
        match command {
            Command::Read { .. } => plan(Ask::Read, Stage::Last),
            Command::Write { fua, .. } => plan(Ask::Write { fua }, Stage::Last),
            Command::Flush => plan(Ask::Flush, Stage::Last),
            Command::Trim { .. } if !abilities().discards => Next::Answer(Ok(())),
            Command::Trim { fua, .. } => plan(Ask::Discard, Stage::Hint { fua }),
            Command::Zeroes { fua, may_free, fast, .. } => {
                let abilities = abilities();
                let frees = may_free && abilities.discards && abilities.discard_zeroes;
                if frees {
                    plan(Ask::Discard, Stage::Freeing { fua, fast })
                } else if fast && !abilities.zeroes_fast {
                    Next::Answer(Err(NOT_FAST))
                } else {
                    plan(Ask::Zero, if fua { Stage::Flushed } else { Stage::Last })
                }
            }
            Command::Status { .. } | Command::StatusOf { .. } | Command::Nothing => Next::Answer(Ok(())),
        }
    }

    /// What the device is asked for now.
    pub fn ask(self) -> Ask {
        self.ask
    }

    /// Takes the device's answer.
    pub fn next(self, result: Result<(), Trouble>) -> Next {
        let plan = |ask, stage| Next::Ask(Plan { ask, stage });
        let flush_if = |fua| if fua { plan(Ask::Flush, Stage::Last) } else { Next::Answer(Ok(())) };
        match (self.stage, result) {
            (Stage::Last, Ok(())) => Next::Answer(Ok(())),
            (Stage::Flushed, Ok(())) => flush_if(true),
            (Stage::Hint { fua } | Stage::Freeing { fua, .. }, Ok(())) => flush_if(fua),
            (Stage::Hint { .. }, Err(Trouble::NotSupported)) => Next::Answer(Ok(())),
            (Stage::Freeing { fast: true, .. }, Err(Trouble::NotSupported)) => Next::Answer(Err(NOT_FAST)),
            (Stage::Freeing { fua, .. }, Err(Trouble::NotSupported)) => {
                plan(Ask::Zero, if fua { Stage::Flushed } else { Stage::Last })
            }
            (_, Err(trouble)) => Next::Answer(Err(refusal(self.ask, trouble))),
        }
    }
}

/// "Error values".
fn refusal(ask: Ask, trouble: Trouble) -> Refusal {
    let grows = matches!(ask, Ask::Write { .. } | Ask::Zero);
    match trouble {
        Trouble::ReadOnly => Refusal { errno: Errno::Eperm, why: "the device is read-only" },
        Trouble::NoSpace if grows => Refusal { errno: Errno::Enospc, why: "the device has no space for it" },
        Trouble::NoSpace | Trouble::Invalid | Trouble::NotSupported => {
            Refusal { errno: Errno::Einval, why: "the device does not take this request" }
        }
        Trouble::Closing => Refusal { errno: Errno::Eshutdown, why: "the device is being closed" },
        Trouble::Failed => Refusal { errno: Errno::Eio, why: "the device failed" },
    }
}
