//! The writer's own growing files: appends, O_DIRECT and buffered, with an fsync every few records.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use block::buf::AlignedBuf;

use super::{GrownState, Tally, WriterArgs};
use crate::demo::pattern::{self, BLOCK, Stamp};

const WHO: &str = "grow";
/// Blocks in one record.
const RECORD_BLOCKS: u64 = 8;
const RECORD_BYTES: usize = RECORD_BLOCKS as usize * BLOCK;
/// Records between two fsyncs.
const FSYNC_EVERY: u64 = 8;
/// A file stops growing here (32 MiB); then a new one begins.
const MAX_BLOCKS: u64 = 8 * 1024;
/// A writer that has appended so much (96 MiB) goes on slowly, so that a fast machine does not fill the demo's disk,
/// and reading all of it back at the end stays short.
const BUDGET_BLOCKS: u64 = 24 * 1024;
/// A slow writer's pause between appends.
const PACE: Duration = Duration::from_millis(15);

/// Appends until told to stop; returns what each file must hold.
pub(super) fn run(args: &WriterArgs, tally: &Tally) -> Vec<GrownState> {
    let mut files = [Growing::new(args, tally, 1, "direct"), Growing::new(args, tally, 2, "buffered")];
    let mut done: Vec<GrownState> = Vec::new();
    while !tally.stopped() {
        let appended: u64 = done.iter().chain(files.iter().map(|f| &f.state)).map(|s| s.written).sum();
        if appended > BUDGET_BLOCKS {
            std::thread::sleep(PACE);
        }
        for f in &mut files {
            if f.turn().is_err() {
                f.lost_its_node();
                tally.rest(); // counted; a restarted node is tried again
            }
            if f.full() || f.abandoned {
                done.push(f.start_next());
            }
        }
    }
    for f in &mut files {
        // A last fsync, so that the end of the demo is about what is stable.
        let _ = f.fsync();
        done.push(f.state.clone());
    }
    done
}

struct Growing<'a> {
    args: &'a WriterArgs,
    tally: &'a Tally,
    kind: &'static str,
    number: u32,
    open: Option<File>,
    buf: AlignedBuf,
    state: GrownState,
    records: u64,
    abandoned: bool,
}

impl<'a> Growing<'a> {
    fn new(args: &'a WriterArgs, tally: &'a Tally, file: u8, kind: &'static str) -> Self {
        let mut g = Growing {
            args,
            tally,
            kind,
            number: 0,
            open: None,
            buf: AlignedBuf::zeroed(RECORD_BYTES),
            state: GrownState { path: String::new(), file, fsynced: 0, written: 0 },
            records: 0,
            abandoned: false,
        };
        g.start_next();
        g
    }

    /// Returns the state of the file so far and turns to a new one.
    fn start_next(&mut self) -> GrownState {
        self.number += 1;
        let path = format!("images/grow-{}-{:03}.{}", self.args.node, self.number, self.kind);
        self.open = None;
        self.abandoned = false;
        let fresh = GrownState { path, file: self.state.file, fsynced: 0, written: 0 };
        std::mem::replace(&mut self.state, fresh)
    }

    fn full(&self) -> bool {
        self.state.written >= MAX_BLOCKS
    }

    /// The node died under this file: what was only written is in doubt, so the file is left as it is.
    fn lost_its_node(&mut self) {
        self.open = None;
        self.abandoned = self.state.written > 0;
    }

    fn turn(&mut self) -> io::Result<()> {
        let file = match self.open.take() {
            Some(f) => f,
            None => self.open_file()?,
        };
        let first = self.state.written;
        let stamp = self.stamp(first);
        for (i, block) in self.buf.chunks_exact_mut(BLOCK).enumerate() {
            pattern::fill(block, Stamp { index: first + i as u64, ..stamp });
        }
        let buf = &self.buf;
        self.tally.call(WHO, "pwrite", || file.write_all_at(buf, first * BLOCK as u64))?;
        self.state.written += RECORD_BLOCKS;
        self.tally.verified(RECORD_BYTES);
        self.records += 1;
        self.open = Some(file);
        if self.records.is_multiple_of(FSYNC_EVERY) {
            self.fsync()?;
            self.read_back()?;
        }
        Ok(())
    }

    fn open_file(&self) -> io::Result<File> {
        let path = self.args.mount.join(&self.state.path);
        let direct = if self.kind == "direct" { rustix::fs::OFlags::DIRECT.bits() as i32 } else { 0 };
        self.tally.call(WHO, "open", || {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(direct).open(&path)
        })
    }

    fn fsync(&mut self) -> io::Result<()> {
        let Some(file) = &self.open else { return Ok(()) };
        self.tally.call(WHO, "fsync", || file.sync_all())?;
        self.state.fsynced = self.state.written;
        self.tally.verified(0);
        Ok(())
    }

    /// Reads a record from the middle of what is there, and asks for the length.
    fn read_back(&mut self) -> io::Result<()> {
        let Some(file) = &self.open else { return Ok(()) };
        let records = self.state.written / RECORD_BLOCKS;
        let first = (self.records.wrapping_mul(7919) % records) * RECORD_BLOCKS;
        let buf = &mut self.buf;
        self.tally.call(WHO, "pread", || file.read_exact_at(buf, first * BLOCK as u64))?;
        for (i, block) in self.buf.chunks_exact(BLOCK).enumerate() {
            let want = self.stamp(first + i as u64);
            if pattern::check(block) != Ok(want) {
                self.tally.mismatch(format!("{} block {}: {:?}", self.state.path, want.index, pattern::check(block)));
                return Ok(());
            }
        }
        let len = self.tally.call(WHO, "fstat", || file.metadata())?.len();
        let want = self.state.written * BLOCK as u64;
        if len != want {
            self.tally.mismatch(format!("{} is {len} bytes long, {want} were written", self.state.path));
            return Ok(());
        }
        self.tally.verified(RECORD_BYTES);
        Ok(())
    }

    fn stamp(&self, index: u64) -> Stamp {
        // The number of the file is its version, so that one file's blocks cannot pass for another's.
        Stamp { node: self.args.node, file: self.state.file, index, version: u64::from(self.number) }
    }
}
