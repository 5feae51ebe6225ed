//! A device that writes down what passes, so that every moment can be replayed.
//!
//! The log holds submissions and completions in the order in which they happened. A power failure
//! after any prefix of it is turned into a device image by [`Log::replay`]: what the contract calls durable by
//! then is there; of every other block one of the versions that may have reached the disk is chosen
//! (all, none, or by seed). Data and metadata share the one log, so that their order is tested as well.

mod replay;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;

pub use replay::Survivors;

use crate::device::{BlockDevice, Completion, Done, Geometry, Io, Op};
use crate::mem::MemDevice;
use crate::units::{BlockSize, ByteLen, ByteOffset};

/// A device that records, in front of another one.
pub struct RecordingDevice {
    device: Arc<dyn BlockDevice>,
    log: Arc<Mutex<Log>>,
}

/// What passed, so far. A clone is cheap per entry: data is shared.
#[derive(Clone)]
pub struct Log {
    block: BlockSize,
    entries: Vec<Entry>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A change or a flush went below.
    Submitted(Change),
    /// The request submitted as entry `of` came back.
    Completed {
        /// Index of its submission in the log.
        of: usize,
        /// False if it failed: then nothing is known about it.
        ok: bool,
    },
    /// A mark of the test's own, to find a moment again.
    Mark(u64),
}

/// A submitted request that matters to what is on the disk.
#[derive(Clone, Debug)]
pub struct Change {
    /// Write, discard, write-zeroes or flush.
    pub op: Op,
    /// Where.
    pub at: ByteOffset,
    /// How much.
    pub len: ByteLen,
    /// What a write wrote.
    pub data: Option<Arc<[u8]>>,
}

impl RecordingDevice {
    /// Records what passes to `device` from now on.
    pub fn new(device: Arc<dyn BlockDevice>) -> Arc<RecordingDevice> {
        let block = device.geometry().logical_block;
        Arc::new(RecordingDevice { device, log: Arc::new(Mutex::new(Log { block, entries: Vec::new() })) })
    }

    /// The log as it is now.
    pub fn log(&self) -> Log {
        self.log.lock().clone()
    }

    /// Puts a mark into the log.
    pub fn mark(&self, mark: u64) {
        self.log.lock().entries.push(Entry::Mark(mark));
    }
}

impl Log {
    /// How many entries there are; prefixes are 0 to this.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What happened, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The disk after a power failure at the moment when exactly the first `prefix` entries had
    /// happened, on top of `start`, the contents when recording began.
    pub fn replay(&self, start: &MemDevice, prefix: usize, survivors: Survivors) -> MemDevice {
        replay::replay(self, start, prefix, survivors)
    }
}

impl BlockDevice for RecordingDevice {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn submit(&self, io: Io) {
        if io.op == Op::Read || self.device.geometry().check(&io).is_err() {
            return self.device.submit(io);
        }
        let Io { op, at, len, buf, done: to } = io;
        let data = buf.as_deref().filter(|_| op.moves_data()).map(Arc::from);
        let of = {
            let mut log = self.log.lock();
            log.entries.push(Entry::Submitted(Change { op, at, len, data }));
            log.entries.len() - 1
        };
        let log = Arc::clone(&self.log);
        let done = Completion::new(move |done: Done| {
            log.lock().entries.push(Entry::Completed { of, ok: done.result.is_ok() });
            to.complete(done);
        });
        self.device.submit(Io { op, at, len, buf, done });
    }

    fn describe(&self) -> String {
        format!("{}, recorded", self.device.describe())
    }

    fn losses(&self) -> u64 {
        self.device.losses()
    }
}
