//! Benchmarks: Shorefast beside its bare peer (`peers/minifuse`) and raw ext4, interleaved in one run.
//!
//! - `arms`: what is measured (a fio job, appends, small files), each one call that gives one figure.
//! - `pairs`: two arms in turn, and the table of their ratios.
//! - `solo`, `trio`, `meta`, `takeover`, `survive`, `nbd`, `replica`, `iscsi`: the sections of the run, each on systems of its own.
//! - `crowd`: `status` on many nodes.
//! - `cluster`, `apart` (a network of its own), `minifuse`, `bundle`: real daemons, ended and unmounted when dropped.
//! - `place`, `machine`, `interrupt`, `report`: where it runs, on what, how it ends, what it leaves.
//!
//! Figures count only as ratios of medians within one run; no test asserts one. `src/main.rs` is the program.
#![forbid(unsafe_code)]

pub mod apart;
pub mod arms;
pub mod bundle;
pub mod cluster;
pub mod cpu;
pub mod crowd;
pub mod fio;
pub mod interrupt;
pub mod iscsi;
pub mod machine;
pub mod memory;
pub mod meta;
pub mod minifuse;
pub mod nbd;
pub mod pairs;
pub mod place;
pub mod replica;
pub mod report;
pub mod solo;
pub mod stats;
pub mod survive;
pub mod takeover;
pub mod trio;

use std::fmt;

/// Why a benchmark could not be run, in a sentence.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// With this sentence.
    pub fn new(why: impl Into<String>) -> Failure {
        Failure(why.into())
    }

    /// An operation on a path that failed.
    pub fn at(path: &std::path::Path, e: impl fmt::Display) -> Failure {
        Failure(format!("{}: {e}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// How much is done: from the command line, the same for every section.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Effort {
    /// Interleaved pairs per row.
    pub pairs: usize,
    /// Seconds of each half of a pair.
    pub seconds: f64,
    /// Kills of the takeover section.
    pub kills: usize,
    /// Bytes of each test file.
    pub file_bytes: u64,
}
