//! What of a volume outlives this process: somebody else keeps its mount's descriptors, and gives them to the next.
//!
//! A process that makes room for the next in order leaves beside them what it knew ([`super::known`]); of one that is killed there is
//! what it noted as it came ([`super::ledger`]). The next goes on with its incarnation: files stay open. Where neither is there, or
//! good, the next life is a new incarnation. The mount goes on then, with all that stands in it (working directories, containers,
//! whoever waits for an answer), and what the process before knew does not: files that were open get EIO until they are closed, and
//! so does what was in flight. What the kernel had only queued is executed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fuse::{Keepsake, Kept};

use super::known::{Record, RecordError};
use super::ledger;
use crate::core::client::Ledger;
use crate::core::office::Resumes;
use crate::types::ClientId;

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
/// What the client of this process knows at any time.
const LEDGER: &str = "ledger";
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

    /// Keeps what this process notes.
    pub(super) fn keep_ledger(&self, memory: BorrowedFd<'_>) -> io::Result<()> {
        self.keeper.keep(&self.volume, LEDGER, memory)
    }

    /// Takes what the process before knew, for this one alone: its last word if it left in order, else what it had noted.
    pub(super) fn take_known(&self) -> Option<Left> {
        let mut kept = self.keeper.kept(&self.volume).ok()?;
        let taken = |e: &RecordError| {
            if *e != RecordError::None {
                tracing::warn!(volume = %self.volume, "what the daemon before knew is not taken: {e}");
            }
        };
        // Both are void from here on, whichever is taken.
        let record = kept.remove(KNOWN).and_then(|memory| Record::take(&memory).inspect_err(taken).ok());
        let noted = kept.remove(LEDGER).and_then(|memory| ledger::take(&memory).inspect_err(taken).ok());
        match (record, noted) {
            (Some(record), _) => Some(Left::InOrder(Box::new(record))),
            (None, Some(ledger)) => match ledger.resumable() {
                Ok(_) => Some(Left::Killed(Box::new(ledger))),
                Err(why) => {
                    tracing::warn!(volume = %self.volume, "nobody goes on from the daemon that died: {why}");
                    None
                }
            },
            (None, None) => None,
        }
    }
}

/// What the process before has left of its client.
pub(super) enum Left {
    /// Its last word.
    InOrder(Box<Record>),
    /// It was killed.
    Killed(Box<Ledger>),
}

impl Left {
    /// Whether this life begins with it: only if it goes on with that incarnation, which the slot has shown. Of one that is over nothing
    /// goes on, and nobody knows what became of what was in flight.
    ///
    /// Prevents: a record was not taken, because the mount was gone by then; the life after that is killed, and the next one finds, beside
    /// what that had noted, the record of a life that is long over, and opens its files.
    pub(super) fn counts_for(&self, life: ClientId) -> bool {
        self.resumes().incarnation == life.incarnation
    }

    /// The life that goes on.
    pub(super) fn resumes(&self) -> Resumes {
        let (client, fence_gen, ended) = match self {
            // On a unit it is kept only with that proof; of a file the LIVE lock says so.
            Left::InOrder(record) => (record.client.client, record.client.fence_gen, true),
            // Nobody goes on from one that has none.
            Left::Killed(ledger) => (ledger.client, ledger.direct.unwrap_or_default(), false),
        };
        Resumes { incarnation: client.incarnation, fence_gen, ended }
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
