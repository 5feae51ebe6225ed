//! How a command ends: the exit codes of the contract, and [`Failure`], the one error type a person meets.
//!
//! A failure always says what happened *and* what to do next; both are sentences. The same type travels over the API,
//! so that a command ends with the code the daemon chose.

use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// The exit codes of every command (docs/contract.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Done.
    Ok,
    /// Failed; nothing else fits.
    Failed,
    /// The command line, the configuration or a request is wrong.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// Refused because going on could destroy data.
    Refused,
    /// Ran, and found problems.
    Problems,
    /// Timed out here; the work goes on in the daemon.
    StillRunning,
    /// Too few nodes can be reached to decide.
    NoQuorum,
}

impl Exit {
    /// Every code, in numeric order.
    pub const ALL: [Exit; 8] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::NotFound,
        Exit::Refused,
        Exit::Problems,
        Exit::StillRunning,
        Exit::NoQuorum,
    ];

    /// The number the process ends with.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Refused => 4,
            Exit::Problems => 5,
            Exit::StillRunning => 6,
            Exit::NoQuorum => 7,
        }
    }

    /// Its meaning, as the contract has it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Ok => "ok",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::NotFound => "not found",
            Exit::Refused => "refused for safety",
            Exit::Problems => "ran and found problems",
            Exit::StillRunning => "timed out and still running",
            Exit::NoQuorum => "no quorum",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command did not do what it was asked, and what to do next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code.
    pub kind: Exit,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do next, in one sentence.
    pub next: String,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: Exit, message: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), next: next.into() }
    }

    /// A failure of no special kind.
    pub fn failed(message: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message, next)
    }

    /// A wrong command line, configuration or request.
    pub fn usage(message: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message, next)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.message, self.next)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract_in_order() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|e| e.code()).collect();
        assert_eq!(codes, (0..8).collect::<Vec<u8>>());
    }
}
