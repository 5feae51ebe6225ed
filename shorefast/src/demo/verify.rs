//! The verification at the end: every pattern the writers were told is there, read through one node's mount.
//!
//! Runs in a process of its own (hidden subcommand `demo-verify`), once per node. The manifests arrive as JSON on
//! the standard input: one per writer, with `killed` for the node that was SIGKILLed, of whose growing files only
//! what was fsynced counts as acknowledged.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use block::buf::AlignedBuf;
use serde::{Deserialize, Serialize};

use super::pattern::{self, BLOCK, Stamp};
use super::writer::{GrownState, IMAGE, Manifest, SLOT_BLOCKS, SlotState, check_block};

/// At most this many differences are told in words.
const TOLD: usize = 20;
/// Blocks read at once.
const CHUNK: u64 = 64;

/// Arguments of `demo-verify`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Where the volume is mounted for the node to read through.
    #[arg(long)]
    pub(crate) mount: PathBuf,
}

/// What is to be verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Expected {
    /// What each writer knows.
    pub(crate) manifests: Vec<Manifest>,
    /// The nodes that were killed.
    pub(crate) killed: Vec<u8>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Bytes read and found right.
    pub(crate) bytes: u64,
    /// Failed system calls.
    pub(crate) failed_calls: u64,
    /// What is wrong, in words.
    pub(crate) wrong: Vec<String>,
}

/// Reads [`Expected`] from the standard input, prints a [`Verdict`].
pub(crate) fn run(args: &VerifyArgs) -> io::Result<()> {
    let expected: Expected = serde_json::from_reader(io::stdin().lock())?;
    let mut verdict = Verdict::default();
    verify_image(&args.mount, &expected, &mut verdict);
    for manifest in &expected.manifests {
        let killed = expected.killed.contains(&manifest.node);
        for grown in &manifest.grown {
            verify_grown(&args.mount, manifest.node, grown, killed, &mut verdict);
        }
    }
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &verdict)?;
    out.write_all(b"\n")
}

fn verify_image(mount: &Path, expected: &Expected, verdict: &mut Verdict) {
    let slots: BTreeMap<u64, &SlotState> =
        expected.manifests.iter().flat_map(|m| &m.image).map(|s| (s.slot, s)).collect();
    let Some(file) = open(mount, IMAGE, true, verdict) else { return };
    let mut buf = AlignedBuf::zeroed(SLOT_BLOCKS as usize * BLOCK);
    for (slot, state) in slots {
        if !read(&file, &mut buf, slot * SLOT_BLOCKS, IMAGE, verdict) {
            continue;
        }
        let bad =
            buf.chunks_exact(BLOCK).enumerate().find_map(|(i, b)| check_block(b, slot, i as u64, Some(state)).err());
        match bad {
            Some(why) => verdict.wrong(format!("{IMAGE} slot {slot}: {why}")),
            None => verdict.bytes += buf.len() as u64,
        }
    }
}

fn verify_grown(mount: &Path, node: u8, grown: &GrownState, killed: bool, verdict: &mut Verdict) {
    let blocks = if killed { grown.fsynced } else { grown.written };
    if blocks == 0 {
        return;
    }
    let Some(file) = open(mount, &grown.path, false, verdict) else { return };
    let version =
        grown.path.rsplit('-').next().and_then(|s| s.split('.').next()).and_then(|s| s.parse().ok()).unwrap_or(0);
    let mut at = 0;
    while at < blocks {
        let n = CHUNK.min(blocks - at);
        let mut buf = AlignedBuf::zeroed(n as usize * BLOCK);
        if !read(&file, &mut buf, at, &grown.path, verdict) {
            return;
        }
        for (i, block) in buf.chunks_exact(BLOCK).enumerate() {
            let want = Stamp { node, file: grown.file, index: at + i as u64, version };
            match pattern::check(block) {
                Ok(found) if found == want => verdict.bytes += BLOCK as u64,
                other => verdict.wrong(format!("{} block {}: {other:?}", grown.path, want.index)),
            }
        }
        at += n;
    }
}

fn open(mount: &Path, name: &str, direct: bool, verdict: &mut Verdict) -> Option<File> {
    let flags = if direct { rustix::fs::OFlags::DIRECT.bits() as i32 } else { 0 };
    match OpenOptions::new().read(true).custom_flags(flags).open(mount.join(name)) {
        Ok(f) => Some(f),
        Err(e) => {
            verdict.failed_calls += 1;
            verdict.wrong(format!("open {name}: {e}"));
            None
        }
    }
}

fn read(file: &File, buf: &mut [u8], block: u64, name: &str, verdict: &mut Verdict) -> bool {
    match file.read_exact_at(buf, block * BLOCK as u64) {
        Ok(()) => true,
        Err(e) => {
            verdict.failed_calls += u64::from(e.raw_os_error().is_some());
            verdict.wrong(format!("read {name} block {block}: {e}"));
            false
        }
    }
}

impl Verdict {
    fn wrong(&mut self, what: String) {
        if self.wrong.len() < TOLD {
            self.wrong.push(what);
        }
    }
}
