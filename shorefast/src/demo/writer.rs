//! A writer of the demo: one process per node that writes through its node's mount, counts every failed system
//! call, and remembers what was acknowledged.
//!
//! Three files, two threads:
//! - the *image*, one preallocated file that all writers share: writer `n` of `N` owns the slots `i` with
//!   `i % N == n - 1`, and writes them in place, O_DIRECT; it also reads other writers' slots and checks that they
//!   are whole;
//! - `grow-N.direct` and `grow-N.buffered`: files of its own that only grow, the one O_DIRECT, the other not, with an
//!   fsync every few records.
//!
//! Acknowledged means: for the image, that `pwrite` returned; for the growing files, that a later `fsync` did (what
//! only `write` acknowledged is checked too, unless the node itself was killed).
//!
//! It speaks JSON lines on its standard output ([`Tick`] about every 100 ms, at the end a [`Manifest`]) and obeys
//! lines on its standard input: `phase NAME`, `pause`, `resume`, `stop`. While its mount is dead it counts the failure
//! once per attempt, waits 20 ms and opens its files anew; paused, it makes no further attempt until resumed.

mod fill;
mod grow;
mod image;
mod tally;

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use fill::{FillArgs, fill};
pub(crate) use image::check_block;
pub(crate) use tally::{CallFailure, Tally};

/// How a writer is started; the hidden subcommand `demo-writer`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WriterArgs {
    /// Where the volume is mounted for this node.
    #[arg(long)]
    pub(crate) mount: PathBuf,
    /// This writer's node, from 1.
    #[arg(long)]
    pub(crate) node: u8,
    /// How many writers share the image.
    #[arg(long)]
    pub(crate) nodes: u8,
    /// Slots in the image.
    #[arg(long)]
    pub(crate) slots: u64,
}

/// Blocks of [`super::pattern::BLOCK`] bytes in one slot of the image.
pub(crate) const SLOT_BLOCKS: u64 = 4;
/// Name of the shared image below the mount.
pub(crate) const IMAGE: &str = "images/disk.img";

/// What a writer says while it runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tick {
    /// Name of the phase in which this was counted.
    pub(crate) phase: String,
    /// Operations completed and verified since the last tick.
    pub(crate) verified_ops: u64,
    /// Bytes written or read and verified since the last tick.
    pub(crate) verified_bytes: u64,
    /// Longest system call that ended since the last tick, or is still running, in milliseconds.
    pub(crate) longest_call_ms: u64,
    /// Failed calls since the last tick.
    pub(crate) failures: Vec<CallFailure>,
    /// What was read and is wrong, in words.
    pub(crate) mismatches: Vec<String>,
}

/// What a writer knows at its end, for the verification through every node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Its node.
    pub(crate) node: u8,
    /// Slot → last acknowledged version, and the version of a write that failed (it may or may not be there).
    pub(crate) image: Vec<SlotState>,
    /// The growing files.
    pub(crate) grown: Vec<GrownState>,
}

/// One slot of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotState {
    /// Number of the slot.
    pub(crate) slot: u64,
    /// Last acknowledged version; 0 is the version the image was filled with.
    pub(crate) acked: u64,
    /// A newer version whose write failed.
    pub(crate) in_doubt: Option<u64>,
}

/// One growing file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GrownState {
    /// Path below the mount.
    pub(crate) path: String,
    /// Which file of the writer, as its stamps say.
    pub(crate) file: u8,
    /// Blocks that an fsync covered.
    pub(crate) fsynced: u64,
    /// Blocks that a write covered.
    pub(crate) written: u64,
}

/// A line on the standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// Progress.
    Tick(Tick),
    /// The end.
    Manifest(Manifest),
}

/// Runs a writer until `stop` or the end of its input.
pub(crate) fn run(args: &WriterArgs) -> io::Result<()> {
    let tally = Arc::new(Tally::default());
    let image = spawn("image", args, &tally, image::run)?;
    let grow = spawn("grow", args, &tally, grow::run)?;
    let ticker = {
        let tally = tally.clone();
        std::thread::Builder::new().name("ticker".into()).spawn(move || {
            while !tally.stopped() {
                std::thread::sleep(Duration::from_millis(100));
                if say(&Line::Tick(tally.take())).is_err() {
                    tally.stop(); // nobody listens any more
                }
            }
        })?
    };
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((line.as_str(), "")) {
            ("phase", name) => tally.set_phase(name),
            ("pause", _) => tally.pause(true),
            ("resume", _) => tally.pause(false),
            _ => break,
        }
    }
    tally.stop();
    let gone = || io::Error::other("a thread of the writer panicked");
    let image = image.join().map_err(|_| gone())?;
    let grown = grow.join().map_err(|_| gone())?;
    ticker.join().map_err(|_| gone())?;
    say(&Line::Tick(tally.take()))?;
    say(&Line::Manifest(Manifest { node: args.node, image, grown }))
}

fn spawn<T: Send + 'static>(
    name: &str,
    args: &WriterArgs,
    tally: &Arc<Tally>,
    f: fn(&WriterArgs, &Tally) -> T,
) -> io::Result<std::thread::JoinHandle<T>> {
    let (args, tally) = (args.clone(), tally.clone());
    std::thread::Builder::new().name(name.into()).spawn(move || f(&args, &tally))
}

fn say(line: &Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}
