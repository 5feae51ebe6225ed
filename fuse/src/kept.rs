//! What of a mount outlives the process that serves it: a record in shared memory (memfd), which somebody else keeps
//! beside the mount's descriptors of /dev/fuse and gives to the next process.
//!
//! ```text
//!      0  head: magic, version, what was agreed in INIT, connection number, length of the path
//!    128  the mount point's path
//!   8192  times: when the kernel was last asked to resend, whether the process left in order
//!   8208  requests that were resent and not answered yet: 4096 entries of number and deliveries
//! ```
//! The head is written before the mount is in the tree, and once more, complete, when it is. A record that never became
//! complete is of a process that died between the two; its mount is not taken over. It is read and written by system calls,
//! not mapped: each write is whole or has not happened, whenever the process is killed, and only resent requests cause any.
//!
//! **A request that kills whoever serves it** would be resent for ever. So each resent request is counted when it is
//! handed out and forgotten when it is answered. What is still there at the next resend was in flight when the process
//! died; once it has been handed out [`DELIVERIES`] times and nobody lived to answer it, it is answered EIO. Deaths count
//! only in a row: after [`STEADY`] of serving, or an orderly end, the counts begin anew. Prevents: a program that waits for a lock for
//! days gets an error because the process died three times in those days.
//!
//! Whoever is in flight beside the request that kills, three times in a row, gets EIO too: which of them it was nobody knows.

mod resent;
#[cfg(test)]
mod tests;

pub(crate) use resent::{Fate, Resends};

use crate::features::FeatureSet;
use crate::init::Negotiated;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// How often a resent request is handed out; with the first time, before any resend, it has then met three deaths.
pub(crate) const DELIVERIES: u32 = 2;
/// Serving for so long after a resend acquits whatever is still in flight.
pub(crate) const STEADY: Duration = Duration::from_secs(10);

const MAGIC: u64 = u64::from_be_bytes(*b"SFMOUNT\0");
/// A reader knows every record of its major version: what a later minor version adds it does not need.
///
/// - 1.0: the first.
const MAJOR: u16 = 1;
const MINOR: u16 = 0;

const PATH_AT: u64 = size_of::<Head>() as u64;
/// Linux's PATH_MAX.
const PATH_MAX: usize = 4096;
const TIMES_AT: u64 = 8192;
const ENTRIES_AT: u64 = TIMES_AT + size_of::<Times>() as u64;
/// Requests in flight that can be counted: the kernel's background limit of 512 and some thousand threads that wait. One
/// beyond is not counted; the limit of crashes in a row then is what ends a loop.
const ENTRIES: usize = 4096;
const LEN: u64 = ENTRIES_AT + (ENTRIES * size_of::<Entry>()) as u64;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    magic: u64,
    major: u16,
    minor: u16,
    path_len: u32,
    features: u64,
    protocol_minor: u32,
    max_write: u32,
    connection: u32,
    max_background: u16,
    complete: u8,
    by_helper: u8,
    allow_other: u8,
    unused: [u8; 87],
}
const _: () = assert!(size_of::<Head>() == 128);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Times {
    /// CLOCK_BOOTTIME of the last resend, in milliseconds; 0 if there was none.
    resent_at_ms: u64,
    /// 1 if the process that served it has left in order, 2 if it has answered everything before.
    left: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    /// 0: the entry is free; no request has that number.
    unique: u64,
    deliveries: u64,
}

/// How the process that served a mount before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It died.
    Died,
    /// It left in order, and some requests were not answered.
    Left,
    /// It left in order and owed the kernel nothing.
    Drained,
}

/// A mount as its record describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) path: PathBuf,
    pub(crate) connection: u32,
    pub(crate) by_helper: bool,
    pub(crate) allow_other: bool,
    pub(crate) negotiated: Negotiated,
}

/// Why a record cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is something else, or damaged.
    #[error("it is no record of a mount")]
    NotOne,
    /// It is of a version that this program does not know.
    #[error("it is of version {major}.{minor}, and this program knows {MAJOR}")]
    Version {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// The mount was not in the tree yet.
    #[error("the mount had not begun")]
    Incomplete,
    /// It cannot be read or written.
    #[error("its memory cannot be used: {0}")]
    System(#[from] Errno),
}

/// The record of one mount.
#[derive(Debug)]
pub(crate) struct Record {
    memory: OwnedFd,
}

impl Record {
    /// An empty one, all of its memory there.
    pub(crate) fn create() -> Result<Self, Errno> {
        let memory = rustix::fs::memfd_create("fuse-mount", MemfdFlags::CLOEXEC)?;
        // Not sparse: a full machine says so now, not when a request is resent.
        rustix::fs::fallocate(&memory, rustix::fs::FallocateFlags::empty(), 0, LEN)?;
        Ok(Self { memory })
    }

    /// One that was kept.
    pub(crate) fn open(memory: OwnedFd) -> Result<(Self, Described), RecordError> {
        let record = Self { memory };
        let described = record.described()?;
        Ok((record, described))
    }

    /// Writes what the mount is like. Without a connection it is not complete.
    pub(crate) fn describe(&self, mount: &Described) -> Result<(), Errno> {
        let path = mount.path.as_os_str().as_bytes();
        let path_len = u32::try_from(path.len()).map_err(|_| Errno::NAMETOOLONG)?;
        if path.len() > PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let head = Head {
            magic: MAGIC,
            major: MAJOR,
            minor: MINOR,
            path_len,
            features: mount.negotiated.features.bits(),
            protocol_minor: mount.negotiated.minor,
            max_write: mount.negotiated.max_write,
            connection: mount.connection,
            max_background: mount.negotiated.max_background,
            complete: u8::from(mount.connection != 0),
            by_helper: mount.by_helper.into(),
            allow_other: mount.allow_other.into(),
            ..Head::new_zeroed()
        };
        self.write(PATH_AT, path)?;
        self.write(0, head.as_bytes())
    }

    fn described(&self) -> Result<Described, RecordError> {
        if rustix::fs::fstat(&self.memory)?.st_size.cast_unsigned() < LEN {
            return Err(RecordError::NotOne);
        }
        let head: Head = self.read(0)?;
        if head.magic != MAGIC {
            return Err(RecordError::NotOne);
        }
        if head.major != MAJOR {
            return Err(RecordError::Version { major: head.major, minor: head.minor });
        }
        let path_len = usize::try_from(head.path_len).ok().filter(|len| (1..=PATH_MAX).contains(len));
        let mut path = vec![0; path_len.ok_or(RecordError::NotOne)?];
        read_exact(&self.memory, &mut path, PATH_AT)?;
        let fits = (crate::init::MAX_WRITE_FLOOR..=crate::init::MAX_WRITE_LIMIT).contains(&head.max_write);
        if !fits || !head.max_write.is_multiple_of(4096) {
            return Err(RecordError::NotOne);
        }
        if head.complete == 0 || head.connection == 0 {
            return Err(RecordError::Incomplete);
        }
        Ok(Described {
            path: std::ffi::OsString::from_vec(path).into(),
            connection: head.connection,
            by_helper: head.by_helper != 0,
            allow_other: head.allow_other != 0,
            negotiated: Negotiated {
                minor: head.protocol_minor,
                features: FeatureSet::from_bits(head.features),
                max_write: head.max_write,
                max_background: head.max_background,
            },
        })
    }

    /// How the process before ended.
    pub(crate) fn before(&self) -> Result<Before, Errno> {
        let times: Times = self.read(TIMES_AT)?;
        Ok(match times.left {
            0 => Before::Died,
            1 => Before::Left,
            _ => Before::Drained,
        })
    }

    /// This process leaves; what comes after it is no death.
    pub(crate) fn leaves(&self, drained: bool) -> Result<(), Errno> {
        let times: Times = self.read(TIMES_AT)?;
        self.write(TIMES_AT, Times { left: if drained { 2 } else { 1 }, ..times }.as_bytes())
    }

    /// The requests that the process before was handed again and has not answered, with how often. Those of a process
    /// that ended otherwise than soon after its resend begin anew. From now on this one serves, and asks for a resend.
    fn begin(&self, now_ms: u64) -> Result<Vec<Entry>, Errno> {
        let times: Times = self.read(TIMES_AT)?;
        let steady = u64::try_from(STEADY.as_millis()).unwrap_or(u64::MAX);
        let acquitted = times.left != 0 || now_ms.saturating_sub(times.resent_at_ms) >= steady;
        let mut entries = vec![Entry::default(); ENTRIES];
        read_exact(&self.memory, entries.as_mut_bytes(), ENTRIES_AT)?;
        for (at, entry) in entries.iter_mut().enumerate() {
            if acquitted && entry.unique != 0 {
                *entry = Entry::default();
                self.write_entry(at, *entry)?;
            }
        }
        self.write(TIMES_AT, Times { resent_at_ms: now_ms, left: 0 }.as_bytes())?;
        Ok(entries)
    }

    fn write_entry(&self, at: usize, entry: Entry) -> Result<(), Errno> {
        self.write(ENTRIES_AT + (at * size_of::<Entry>()) as u64, entry.as_bytes())
    }

    fn read<T: FromBytes + IntoBytes>(&self, at: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        read_exact(&self.memory, value.as_mut_bytes(), at)?;
        Ok(value)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.memory, bytes, at))?;
        if written == bytes.len() { Ok(()) } else { Err(Errno::NOSPC) }
    }
}

impl AsFd for Record {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn read_exact(memory: &OwnedFd, into: &mut [u8], at: u64) -> Result<(), Errno> {
    let read = rustix::io::retry_on_intr(|| rustix::io::pread(memory, &mut *into, at))?;
    if read == into.len() { Ok(()) } else { Err(Errno::NODATA) }
}

/// What somebody else is to keep for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Keepsake {
    /// Its record.
    Record,
    /// One of its channels.
    Channel(u16),
}

/// Somebody who keeps a mount's descriptors when this process is gone.
pub trait Keeper: std::fmt::Debug + Send + Sync {
    /// Keeps a copy of this descriptor; one that was kept under that name before goes.
    ///
    /// # Errors
    /// If it will not be kept.
    fn keep(&self, what: Keepsake, fd: BorrowedFd<'_>) -> std::io::Result<()>;
}

/// The descriptors of one mount that were kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// The record.
    pub record: Option<OwnedFd>,
    /// The channels by their numbers.
    pub channels: Vec<(u16, OwnedFd)>,
}

impl Described {
    pub(crate) fn new(path: &Path, by_helper: bool, allow_other: bool, negotiated: Negotiated) -> Self {
        Self { path: path.into(), connection: 0, by_helper, allow_other, negotiated }
    }
}
