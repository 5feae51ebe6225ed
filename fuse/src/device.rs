//! One open file description of /dev/fuse: the only place that talks to the device.
//!
//! What it is: open, clone, read a message, write a message, wait for readiness. A request's answer is
//! accepted only on the description that read it, so a [`Device`] is shared (`Arc`) between the
//! channel and the reply tokens it hands out, and lives until the last of them is gone.
//!
//! What it refuses: blocking. Every description is O_NONBLOCK and close-on-exec.

#![allow(unsafe_code)] // the clone ioctl, and tokio's registration of a descriptor

use crate::abi::{self, OutHeader};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zerocopy::IntoBytes;

/// Where the kernel offers FUSE.
pub(crate) const PATH: &str = "/dev/fuse";

/// `_IOR(229, 0, u32)`: make this description another channel of the connection given.
const CLONE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(229, 0);

#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
    /// Nothing is answered any more: what was read is for the next process.
    left: AtomicBool,
}

impl Device {
    /// A description that belongs to no connection yet.
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(Self::of(rustix::fs::open(PATH, flags, Mode::empty())?))
    }

    /// One that somebody else opened (fusermount3).
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self, Errno> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        Ok(Self::of(fd))
    }

    fn of(fd: OwnedFd) -> Self {
        Self { fd, left: AtomicBool::new(false) }
    }

    /// From now on no request is answered here. Prevents: the process ends, what waits in it is dropped and answered EIO, and
    /// is not sent again to the next one.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
    }

    /// Whether its requests are for the next process.
    pub(crate) fn is_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    /// Another channel of the same connection (FUSE_DEV_IOC_CLONE).
    pub(crate) fn try_clone(&self) -> Result<Self, Errno> {
        let new = Self::open()?;
        let source = u32::try_from(self.fd.as_raw_fd()).map_err(|_| Errno::BADF)?;
        // SAFETY: FUSE_DEV_IOC_CLONE reads one u32, a descriptor number, from the pointer; `Setter`
        // passes a pointer to one that lives for the whole call.
        unsafe { rustix::ioctl::ioctl(&new.fd, rustix::ioctl::Setter::<CLONE, u32>::new(source)) }?;
        Ok(new)
    }

    /// One message into `into`; EAGAIN if there is none.
    pub(crate) fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.fd, into)
    }

    /// One message from one piece of memory.
    pub(crate) fn write(&self, message: &[u8]) -> Result<(), Errno> {
        whole(rustix::io::write(&self.fd, message)?, message.len())
    }

    /// One message from several.
    pub(crate) fn writev(&self, message: &[IoSlice<'_>]) -> Result<(), Errno> {
        let len = message.iter().map(|part| part.len()).sum();
        whole(rustix::io::writev(&self.fd, message)?, len)
    }

    /// Has everything that was read and not answered sent again.
    pub(crate) fn resend(&self) -> Result<(), Errno> {
        let len = u32::try_from(size_of::<OutHeader>()).map_err(|_| Errno::INVAL)?;
        self.write(OutHeader { len, error: abi::NOTIFY_RESEND, unique: 0 }.as_bytes())
    }

    /// Waits until a message can be read or the connection has ended; false after `timeout_ms`.
    pub(crate) fn wait(&self, timeout: std::time::Duration) -> Result<bool, Errno> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether its connection has not ended: the kernel says POLLERR once it has.
    pub(crate) fn is_connected(&self) -> Result<bool, Errno> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())))?;
        Ok(!fds[0].revents().contains(PollFlags::ERR))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The device takes a message whole or not at all; anything else is a kernel we do not know.
fn whole(written: usize, len: usize) -> Result<(), Errno> {
    if written == len { Ok(()) } else { Err(Errno::IO) }
}

/// Waits for messages of one channel.
pub(crate) enum Readiness {
    /// On the ring of this worker: of all channels that wait, one is woken.
    Ring(block::worker::Watch),
    /// By the runtime of this thread, where there is no ring: all are woken, one gets the message.
    Runtime(AsyncFd<Shared>),
}

/// What tokio holds: keeps the description open as long as it is registered.
pub(crate) struct Shared(Arc<Device>);

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}

/// The end of a connection is EPOLLERR alone, which tokio reports only to who asks for errors.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

impl Readiness {
    /// Must be called on a runtime.
    pub(crate) fn register(device: &Arc<Device>) -> io::Result<Self> {
        match block::worker::Watch::new(device.fd.try_clone()?) {
            Some(watch) => Ok(Self::Ring(watch)),
            None => Self::with_the_runtime(Arc::clone(device)),
        }
    }

    fn with_the_runtime(device: Arc<Device>) -> io::Result<Self> {
        // SAFETY: `Shared` owns the device for as long as tokio holds it; the device's OwnedFd is
        // never replaced or closed before its drop, so `as_raw_fd` always names the same description.
        let registered = unsafe { AsyncFd::register_with_interest(Shared(device), INTEREST) };
        Ok(Self::Runtime(registered?))
    }

    /// Resolves when a read may find something or the connection has ended. Whoever was told reads until nothing is left,
    /// then asks again. Cancel safe.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        match self {
            Self::Ring(watch) => watch.readable().await,
            // Cleared before the first read: what comes after it is told anew.
            Self::Runtime(registered) => registered.ready(INTEREST).await.map(|mut guard| guard.clear_ready()),
        }
    }
}
