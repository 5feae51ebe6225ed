//! What the server tells the kernel without being asked: caches that must go.
//!
//! What it is: a thread of its own per mount with a bounded queue. A notification takes kernel locks
//! (the inode's, the directory's) that a request may hold which is waiting for an answer of the very
//! worker that would send it; so it is never sent from a worker. [`Notifier`] is the worker's end.
//!
//! What it refuses: being dropped silently. A full queue makes the caller wait, a lost connection is
//! an error.
//!
//! Interleaving to know: a notification about a name waits for a mutation in that directory which the
//! kernel has already sent us. Whoever awaits the notification must not be what answers that mutation.

use crate::abi::{self, OutHeader};
use crate::device::Device;
use block::units::{ByteLen, ByteOffset};
use bytes::Bytes;
use rustix::io::Errno;
use std::io::IoSlice;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use zerocopy::IntoBytes;

/// Notifications waiting to be sent. A recall of a directory's names comes in hundreds; when full the
/// sender waits, which only delays the recall.
const QUEUE: usize = 1024;

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notified {
    /// The cache is gone (or filled, for a store).
    Done,
    /// The kernel had nothing of it.
    NotCached,
}

/// Why a notification was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// Unmounted or aborted: there is no cache left.
    #[error("the mount is gone")]
    Gone,
    /// The directory to be deleted is not empty for the kernel, or the name is a mount point.
    #[error("the kernel still uses the name")]
    Busy,
    /// The kernel did not take it.
    #[error("the kernel refused the notification: {0}")]
    Refused(#[source] Errno),
}

/// Sends notifications. Clones share the thread and its queue.
#[derive(Debug, Clone)]
pub struct Notifier {
    queue: mpsc::Sender<Job>,
    expire: bool,
}

#[derive(Debug)]
struct Job {
    message: Message,
    done: oneshot::Sender<Result<Notified, NotifyError>>,
}

#[derive(Debug)]
enum Message {
    Inode(abi::NotifyInvalInode),
    Entry(abi::NotifyInvalEntry, Box<[u8]>),
    Delete(abi::NotifyDelete, Box<[u8]>),
    Store(abi::NotifyStore, Bytes),
}

impl Notifier {
    /// Starts the thread. `expire` says whether the kernel can expire names.
    pub(crate) fn start(device: Arc<Device>, expire: bool) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        std::thread::Builder::new().name("fuse-notify".into()).spawn(move || run(&device, jobs))?;
        Ok(Self { queue, expire })
    }

    /// Whether its thread is there, which holds a descriptor of the mount.
    pub(crate) fn is_running(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Attributes of the inode go, and cached data of the range; `None` is to the end of the file.
    ///
    /// # Cancel safety
    /// Dropped before it is queued nothing happens, after that it is sent all the same.
    pub async fn inval_inode(
        &self,
        nodeid: u64,
        from: ByteOffset,
        len: Option<ByteLen>,
    ) -> Result<Notified, NotifyError> {
        let off = i64::try_from(from.0).map_err(|_| NotifyError::Refused(Errno::INVAL))?;
        // The kernel reads a length of 0 or less as "to the end".
        let len = len.map_or(0, |len| i64::try_from(len.0).unwrap_or(0));
        self.send(Message::Inode(abi::NotifyInvalInode { ino: nodeid, off, len })).await
    }

    /// Only the attributes of the inode go.
    ///
    /// # Cancel safety
    /// As for [`Self::inval_inode`].
    pub async fn inval_attr(&self, nodeid: u64) -> Result<Notified, NotifyError> {
        self.send(Message::Inode(abi::NotifyInvalInode { ino: nodeid, off: -1, len: 0 })).await
    }

    /// A name is to be looked up again. With `expire_only` what is below it stays (where the kernel
    /// can do that).
    ///
    /// # Cancel safety
    /// As for [`Self::inval_inode`].
    pub async fn inval_entry(&self, parent: u64, name: &[u8], expire_only: bool) -> Result<Notified, NotifyError> {
        let flags = if expire_only && self.expire { abi::EXPIRE_ONLY } else { 0 };
        let (name, namelen) = terminated(name)?;
        self.send(Message::Entry(abi::NotifyInvalEntry { parent, namelen, flags }, name)).await
    }

    /// A name was removed elsewhere; watchers (inotify) hear of it.
    ///
    /// # Cancel safety
    /// As for [`Self::inval_inode`].
    pub async fn delete(&self, parent: u64, child: u64, name: &[u8]) -> Result<Notified, NotifyError> {
        let (name, namelen) = terminated(name)?;
        self.send(Message::Delete(abi::NotifyDelete { parent, child, namelen, padding: 0 }, name)).await
    }

    /// Puts data into the page cache of an inode.
    ///
    /// # Cancel safety
    /// As for [`Self::inval_inode`].
    pub async fn store(&self, nodeid: u64, at: ByteOffset, data: Bytes) -> Result<Notified, NotifyError> {
        let size = u32::try_from(data.len()).map_err(|_| NotifyError::Refused(Errno::INVAL))?;
        self.send(Message::Store(abi::NotifyStore { nodeid, offset: at.0, size, padding: 0 }, data)).await
    }

    async fn send(&self, message: Message) -> Result<Notified, NotifyError> {
        let (done, outcome) = oneshot::channel();
        self.queue.send(Job { message, done }).await.map_err(|_| NotifyError::Gone)?;
        outcome.await.unwrap_or(Err(NotifyError::Gone))
    }
}

/// The name with the zero byte that the kernel wants and does not count.
fn terminated(name: &[u8]) -> Result<(Box<[u8]>, u32), NotifyError> {
    let namelen = u32::try_from(name.len()).map_err(|_| NotifyError::Refused(Errno::NAMETOOLONG))?;
    Ok(([name, &[0]].concat().into_boxed_slice(), namelen))
}

/// The thread: one notification after the other until nobody can send any more or the mount is gone.
fn run(device: &Device, mut jobs: mpsc::Receiver<Job>) {
    while let Some(Job { message, done }) = jobs.blocking_recv() {
        let outcome = match message.write(device) {
            Ok(()) => Ok(Notified::Done),
            Err(Errno::NOENT) => Ok(Notified::NotCached),
            Err(Errno::NODEV | Errno::CONNABORTED | Errno::NOTCONN | Errno::PERM) => Err(NotifyError::Gone),
            Err(Errno::NOTEMPTY | Errno::BUSY) => Err(NotifyError::Busy),
            Err(error) => Err(NotifyError::Refused(error)),
        };
        // The asker may have stopped waiting; the notification was sent all the same.
        let _ = done.send(outcome);
        if outcome == Err(NotifyError::Gone) {
            return;
        }
    }
}

impl Message {
    fn write(&self, device: &Device) -> Result<(), Errno> {
        let (code, fixed, tail): (i32, &[u8], &[u8]) = match self {
            Self::Inode(fixed) => (abi::NOTIFY_INVAL_INODE, fixed.as_bytes(), &[]),
            Self::Entry(fixed, name) => (abi::NOTIFY_INVAL_ENTRY, fixed.as_bytes(), name),
            Self::Delete(fixed, name) => (abi::NOTIFY_DELETE, fixed.as_bytes(), name),
            Self::Store(fixed, data) => (abi::NOTIFY_STORE, fixed.as_bytes(), data),
        };
        let len = u32::try_from(size_of::<OutHeader>() + fixed.len() + tail.len());
        let header = OutHeader { len: len.map_err(|_| Errno::INVAL)?, error: code, unique: 0 };
        device.writev(&[IoSlice::new(header.as_bytes()), IoSlice::new(fixed), IoSlice::new(tail)])
    }
}
