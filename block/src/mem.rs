//! A device in memory, for tests: sparse, and with a volatile cache if asked for, which loses what
//! was not flushed when [`MemDevice::crash`] is called.
//!
//! Requests complete inside `submit`. With the cache, a write without FUA becomes durable at the
//! next flush; until then a crash keeps or loses each of its logical blocks by itself, never a part
//! of one. As in a real cache, one of the unflushed versions of a block may be the one that survives.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::device::{BlockDevice, Geometry, Io, Op};
use crate::error::{IoError, IoErrorKind};
use crate::provisioning::{Extent, ExtentsDone, Provisioning, push};
use crate::rng::Rng;
use crate::units::{BlockSize, ByteLen, ByteOffset, Lba};

type Block = Box<[u8]>;

/// A device in memory.
pub struct MemDevice {
    geometry: Geometry,
    volatile: bool,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    /// Blocks never written are absent and read as zeroes.
    durable: BTreeMap<Lba, Block>,
    /// Versions of each block since it was last durable, oldest first.
    cached: BTreeMap<Lba, Vec<Block>>,
}

impl MemDevice {
    /// A device of zeroes whose writes are durable at once. `len` is rounded down to whole blocks.
    pub fn new(len: ByteLen, block: BlockSize) -> MemDevice {
        let geometry = Geometry {
            logical_block: block,
            physical_block: BlockSize::B4096,
            len: ByteLen(len.0 - len.0 % block.bytes()),
            memory_align: 1,
            read_only: false,
            discard: true,
        };
        MemDevice { geometry, volatile: false, state: Mutex::default() }
    }

    /// The same with a volatile cache.
    pub fn with_volatile_cache(len: ByteLen, block: BlockSize) -> MemDevice {
        MemDevice { volatile: true, ..MemDevice::new(len, block) }
    }

    /// A device of its own with the same contents, the cache's included.
    pub fn copy(&self) -> MemDevice {
        let state = Mutex::new(self.state.lock().clone());
        MemDevice { geometry: self.geometry, volatile: self.volatile, state }
    }

    /// Power fails: everything not flushed is lost.
    pub fn crash(&self) {
        self.state.lock().cached.clear();
    }

    /// Power fails: of each block not flushed, the old contents or any version written since
    /// survive, by a choice drawn from `seed`.
    pub fn crash_keeping_some(&self, seed: u64) {
        let mut rng = Rng::new(seed);
        let mut state = self.state.lock();
        for (lba, mut versions) in std::mem::take(&mut state.cached) {
            // Index `len` stands for the old contents.
            let choice = rng.below(versions.len() as u64 + 1) as usize;
            if choice < versions.len() {
                state.durable.insert(lba, versions.swap_remove(choice));
            }
        }
    }

    /// Blocks that a crash could lose.
    pub fn unflushed(&self) -> usize {
        self.state.lock().cached.len()
    }

    /// Puts one block's contents there, durable. For replays.
    pub(crate) fn place(&self, lba: Lba, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.cached.remove(&lba);
        state.durable.insert(lba, bytes.into());
    }

    fn blocks(&self, io: &Io) -> impl Iterator<Item = Lba> + use<> {
        let block = self.geometry.logical_block.bytes();
        (io.at.0 / block..(io.at.0 + io.len.0) / block).map(Lba)
    }

    fn execute(&self, io: &mut Io) {
        let size = self.geometry.logical_block.as_usize();
        let blocks = self.blocks(io);
        let mut state = self.state.lock();
        match (io.op, io.buf.as_deref_mut()) {
            (Op::Read, Some(buf)) => {
                for (lba, bytes) in blocks.zip(buf.chunks_exact_mut(size)) {
                    match state.current(lba) {
                        Some(block) => bytes.copy_from_slice(block),
                        None => bytes.fill(0),
                    }
                }
            }
            (Op::Write { fua }, Some(buf)) => {
                for (lba, bytes) in blocks.zip(buf.chunks_exact(size)) {
                    state.write(lba, bytes.into(), fua || !self.volatile);
                }
            }
            (Op::Discard | Op::WriteZeroes, _) => {
                for lba in blocks {
                    state.zero(lba, size, !self.volatile);
                }
            }
            (Op::Flush, _) => state.flush(),
            // Refused by the geometry check.
            (Op::Read | Op::Write { .. }, None) => {}
        }
    }
}

impl State {
    fn current(&self, lba: Lba) -> Option<&Block> {
        self.cached.get(&lba).and_then(|versions| versions.last()).or_else(|| self.durable.get(&lba))
    }

    fn write(&mut self, lba: Lba, bytes: Block, durable: bool) {
        if durable {
            self.cached.remove(&lba);
            self.durable.insert(lba, bytes);
        } else {
            self.cached.entry(lba).or_default().push(bytes);
        }
    }

    /// Zeroes without storing blocks that are absent anyway.
    fn zero(&mut self, lba: Lba, size: usize, durable: bool) {
        if durable {
            self.cached.remove(&lba);
            self.durable.remove(&lba);
        } else if self.current(lba).is_some() {
            self.write(lba, vec![0; size].into(), false);
        }
    }

    fn flush(&mut self) {
        for (lba, mut versions) in std::mem::take(&mut self.cached) {
            if let Some(newest) = versions.pop() {
                self.durable.insert(lba, newest);
            }
        }
    }
}

impl BlockDevice for MemDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&self, mut io: Io) {
        let verdict = self.geometry.check(&io);
        if verdict.is_ok() {
            self.execute(&mut io);
        }
        io.complete(verdict);
    }

    fn describe(&self) -> String {
        let cache = if self.volatile { " with a volatile cache" } else { "" };
        format!("memory ({}){cache}", self.geometry.len)
    }
}

impl Provisioning for MemDevice {
    fn discard_zeroes(&self) -> bool {
        true
    }

    fn zeroes_fast(&self) -> bool {
        true
    }

    /// Blocks never written, or zeroed since, are holes.
    fn extents(&self, at: ByteOffset, len: ByteLen, most: usize, done: ExtentsDone) {
        let block = self.geometry.logical_block.bytes();
        let aligned = at.is_aligned_to(block) && len.is_aligned_to(block);
        if len == ByteLen::ZERO || !aligned || !self.geometry.contains(at, len) {
            return done(Err(IoError::new(IoErrorKind::OutOfRange, Op::Read, at, len)));
        }
        let mut found = Vec::new();
        {
            let state = self.state.lock();
            for lba in (at.0 / block..(at.0 + len.0) / block).map(Lba) {
                let hole = state.current(lba).is_none();
                push(&mut found, Extent { len: ByteLen(block), hole, zero: hole });
                if found.len() > most {
                    break;
                }
            }
        }
        found.truncate(most.max(1));
        done(Ok(found));
    }
}

#[cfg(test)]
mod tests;
