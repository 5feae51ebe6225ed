//! What of a volume outlives this process: somebody else keeps its mount's descriptors, and gives them to the next.
//!
//! A process that makes room for the next in order leaves beside them what it knew ([`super::known`]), and the next goes on with
//! its incarnation: files stay open. After one that died the next life is a new incarnation. The mount goes on then, with all that
//! stands in it (working directories, containers, whoever waits for an answer), and what the process before knew does not: files
//! that were open get EIO until they are closed, and so does what was in flight. What the kernel had only queued is executed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fuse::{Keepsake, Kept};

use super::known::{Record, RecordError};

/// Who keeps descriptors when this process is gone.
pub trait Keeper: std::fmt::Debug + Send + Sync {
    /// Keeps a copy of a volume's descriptor; what was kept under that name before goes.
    ///
    /// # Errors
    /// If it will not be kept.
    fn keep(&self, volume: &str, thing: &str, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Copies of what was kept for this process.
    ///
    /// # Errors
    /// If there are no more descriptors to be had.
    fn kept(&self, volume: &str) -> io::Result<BTreeMap<String, OwnedFd>>;

    /// Nothing of this volume is kept any more.
    fn release(&self, volume: &str);
}

/// The record of the mount.
const RECORD: &str = "record";
/// What the client of the process before knew.
const KNOWN: &str = "known";
/// Followed by a channel's number.
const CHANNEL: &str = "channel ";

/// The keeper of one volume.
#[derive(Clone, Debug)]
pub(super) struct VolumeKeeper {
    keeper: Arc<dyn Keeper>,
    volume: String,
}

impl VolumeKeeper {
    pub(super) fn new(keeper: Arc<dyn Keeper>, volume: String) -> VolumeKeeper {
        VolumeKeeper { keeper, volume }
    }

    pub(super) fn release(&self) {
        self.keeper.release(&self.volume);
    }

    /// What was kept of its mount; `None` if nothing was.
    pub(super) fn kept(&self) -> io::Result<Option<Kept>> {
        let mut kept = Kept::default();
        for (thing, fd) in self.keeper.kept(&self.volume)? {
            match thing.strip_prefix(CHANNEL).map(str::parse) {
                Some(Ok(number)) => kept.channels.push((number, fd)),
                _ if thing == RECORD => kept.record = Some(fd),
                // Of a later version.
                _ => {}
            }
        }
        Ok((kept.record.is_some() || !kept.channels.is_empty()).then_some(kept))
    }

    /// Keeps what this process knows, for the next.
    pub(super) fn keep_known(&self, record: &Record) -> io::Result<()> {
        let memory = record.write().map_err(io::Error::other)?;
        self.keeper.keep(&self.volume, KNOWN, memory.as_fd())
    }

    /// Takes what the process before knew, for this one alone.
    pub(super) fn take_known(&self) -> Option<Record> {
        let memory = self.keeper.kept(&self.volume).ok()?.remove(KNOWN)?;
        Record::take(&memory)
            .inspect_err(|e| {
                if *e != RecordError::None {
                    tracing::warn!(volume = %self.volume, "what the daemon before knew is not taken: {e}");
                }
            })
            .ok()
    }
}

impl fuse::Keeper for VolumeKeeper {
    fn keep(&self, what: Keepsake, fd: BorrowedFd<'_>) -> io::Result<()> {
        match what {
            Keepsake::Record => self.keeper.keep(&self.volume, RECORD, fd),
            Keepsake::Channel(number) => self.keeper.keep(&self.volume, &format!("{CHANNEL}{number}"), fd),
        }
    }
}
