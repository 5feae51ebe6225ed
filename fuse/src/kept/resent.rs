//! The requests that the kernel sends again: which are handed out, and which have killed too often.

use super::{DELIVERIES, Entry, Record};
use parking_lot::Mutex;
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;

/// What becomes of a request that the kernel sends again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is handed out.
    Served,
    /// It is answered EIO: nothing of the process before is known any more.
    Forgotten,
    /// It is answered EIO: whoever served it died, again and again.
    Deadly,
}

/// The resent requests of one mount in this life.
#[derive(Debug)]
pub(crate) struct Resends {
    record: Arc<Record>,
    /// Whether they are handed out at all.
    served: bool,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    /// Where a request is counted, and how often it was handed out.
    counted: HashMap<u64, (usize, u64)>,
    free: Vec<usize>,
}

impl Resends {
    /// Begins this life's. `served`: they are handed out, not failed.
    pub(crate) fn begin(record: Arc<Record>, served: bool, now_ms: u64) -> Result<Arc<Self>, Errno> {
        let entries = record.begin(now_ms)?;
        let mut open = Open { counted: HashMap::new(), free: Vec::new() };
        for (at, entry) in entries.iter().enumerate().rev() {
            match entry.unique {
                0 => open.free.push(at),
                unique => drop(open.counted.insert(unique, (at, entry.deliveries))),
            }
        }
        Ok(Arc::new(Self { record, served, open: Mutex::new(open) }))
    }

    /// Request `unique` has come again. Counted before it is handed out. Prevents: it kills, and nobody knows that it did.
    pub(crate) fn delivered(&self, unique: u64) -> Fate {
        if !self.served {
            return Fate::Forgotten;
        }
        let mut open = self.open.lock();
        let before = open.counted.get(&unique).copied();
        let Some((at, deliveries)) = before.or_else(|| open.free.pop().map(|at| (at, 0))) else {
            return Fate::Served;
        };
        if deliveries >= u64::from(DELIVERIES) {
            return Fate::Deadly;
        }
        let entry = Entry { unique, deliveries: deliveries + 1 };
        open.counted.insert(unique, (at, entry.deliveries));
        self.write(at, entry);
        Fate::Served
    }

    /// Request `unique` was answered.
    pub(crate) fn answered(&self, unique: u64) {
        let mut open = self.open.lock();
        if let Some((at, _)) = open.counted.remove(&unique) {
            open.free.push(at);
            self.write(at, Entry::default());
        }
    }

    /// A count that cannot be written is one too few: the request is served once more than it should be.
    fn write(&self, at: usize, entry: Entry) {
        if let Err(error) = self.record.write_entry(at, entry) {
            tracing::warn!(%error, "a resent request is not counted");
        }
    }
}
