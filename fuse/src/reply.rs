//! The answer to a request: a token that is used exactly once.
//!
//! What it is: [`Reply`] remembers the description of /dev/fuse that read its request, because the
//! kernel accepts the answer nowhere else, and the request's code, because it decides the form of some
//! answers. It is `Send`: an answer may come from any thread, at any time.
//!
//! What it refuses: being forgotten (dropping it answers EIO, or EOPNOTSUPP for a request nobody knows,
//! and logs), errno values that the kernel would not take (they become EIO; a refused answer would
//! leave the caller hanging), and **ENOSYS**: the kernel remembers it for the life of the mount, so it
//! leaves as EOPNOTSUPP, or as ENOTTY for an ioctl.
//!
//! A process that leaves its mount to the next ([`Mount::leave`](crate::Mount::leave)) answers nothing any more: what it has read
//! and not answered is sent again.
//!
//! States: open → answered. FORGET and INTERRUPT have a token that is born answered: the kernel
//! expects nothing, and whatever is said is not sent.
//!
//! Every method tells whether the answer arrived. It did not when the caller was killed while it
//! waited or the mount is gone: a server that has just made a handle or taken a lock reads that and
//! undoes it, since no RELEASE will come.

mod directory;
#[cfg(test)]
mod tests;

pub use directory::DirBuf;

use crate::abi::{self, OutHeader, opcode};
use crate::attr::{Attr, Entry, Opened, Statfs};
use crate::device::Device;
use crate::kept::Resends;
use crate::op::{Lock, LockKind, Time};
use rustix::io::Errno;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// The largest fixed answer: CREATE's entry and handle, STATX. Built on the stack.
const FIXED_MAX: usize = size_of::<OutHeader>() + size_of::<abi::StatxOut>();

/// Parts of one answer that the kernel takes in one call (UIO_MAXIOV), less the header.
const PARTS_MAX: usize = 1023;

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The kernel has it.
    Delivered,
    /// Nobody waits for it any more: the caller was killed, or the mount is gone. Undo what only the
    /// caller could have given back.
    Gone,
    /// The kernel did not take it: a defect here. The caller got EIO.
    Refused,
}

/// The one answer to one request.
#[derive(Debug)]
pub struct Reply {
    device: Arc<Device>,
    /// As the kernel wants it back.
    unique: u64,
    opcode: u32,
    answered: bool,
    /// Where it is counted, if it was sent again.
    resent: Option<Arc<Resends>>,
}

impl Reply {
    pub(crate) fn new(device: Arc<Device>, unique: u64, opcode: u32) -> Self {
        let answered = matches!(opcode, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT);
        Self { device, unique, opcode, answered, resent: None }
    }

    /// The reply of a request that was sent again.
    pub(crate) fn counted_by(mut self, resends: &Arc<Resends>) -> Self {
        self.resent = Some(Arc::clone(resends));
        self
    }

    /// The request's number, as INTERRUPT names it.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.unique & !abi::RESENT
    }

    /// Done, nothing to say.
    pub fn empty(self) -> Delivery {
        self.fixed(&[])
    }

    /// Failed. `errno` is positive: `libc::ENOENT`.
    pub fn error(mut self, errno: i32) -> Delivery {
        self.send_error(errno)
    }

    /// The server does not do this: EOPNOTSUPP, or ENOTTY for an ioctl.
    pub fn unsupported(self) -> Delivery {
        self.error(libc::ENOSYS)
    }

    /// Attributes, to be believed for `ttl`.
    pub fn attr(self, attr: &Attr, ttl: Duration) -> Delivery {
        self.body(&attr_out(attr, ttl))
    }

    /// STATX. `birth` is left out where it is not known.
    pub fn statx(self, attr: &Attr, birth: Option<Time>, ttl: Duration) -> Delivery {
        self.body(&abi::StatxOut {
            attr_valid: ttl.as_secs(),
            attr_valid_nsec: ttl.subsec_nanos(),
            stat: attr.to_statx(birth),
            ..abi::StatxOut::new_zeroed()
        })
    }

    /// A name was found or made.
    pub fn entry(self, entry: &Entry) -> Delivery {
        debug_assert_ne!(entry.nodeid, 0, "node id 0 says that there is none");
        self.body(&entry.to_abi())
    }

    /// There is no such name, to be believed for `ttl`; zero says ENOENT.
    pub fn negative(self, ttl: Duration) -> Delivery {
        if ttl.is_zero() {
            return self.error(libc::ENOENT);
        }
        self.body(&abi::EntryOut {
            entry_valid: ttl.as_secs(),
            entry_valid_nsec: ttl.subsec_nanos(),
            ..abi::EntryOut::new_zeroed()
        })
    }

    /// OPEN and OPENDIR. If the answer is [`Delivery::Gone`] no RELEASE comes.
    pub fn opened(self, opened: Opened) -> Delivery {
        self.body(&opened.to_abi())
    }

    /// CREATE and TMPFILE. If the answer is [`Delivery::Gone`] neither RELEASE nor FORGET comes.
    pub fn created(self, entry: &Entry, opened: Opened) -> Delivery {
        let mut body = [0; size_of::<abi::EntryOut>() + size_of::<abi::OpenOut>()];
        let (front, back) = body.split_at_mut(size_of::<abi::EntryOut>());
        front.copy_from_slice(entry.to_abi().as_bytes());
        back.copy_from_slice(opened.to_abi().as_bytes());
        self.fixed(&body)
    }

    /// Bytes: READ, READLINK, GETXATTR, LISTXATTR. They are copied before this returns.
    pub fn data(mut self, bytes: &[u8]) -> Delivery {
        let header = self.header(bytes.len());
        self.send(|device| device.writev(&[IoSlice::new(header.as_bytes()), IoSlice::new(bytes)]))
    }

    /// Bytes that lie in several places, in order.
    pub fn data_vectored(mut self, parts: &[&[u8]]) -> Delivery {
        if parts.len() > PARTS_MAX {
            return self.data(&parts.concat());
        }
        let header = self.header(parts.iter().map(|part| part.len()).sum());
        let mut slices = Vec::with_capacity(parts.len() + 1);
        slices.push(IoSlice::new(header.as_bytes()));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        self.send(|device| device.writev(&slices))
    }

    /// READDIR and READDIRPLUS; an empty one is the end.
    pub fn directory(self, entries: &DirBuf) -> Delivery {
        self.data(entries.as_bytes())
    }

    /// WRITE: so many bytes were taken.
    pub fn written(self, size: u32) -> Delivery {
        self.body(&abi::WriteOut { size, padding: 0 })
    }

    /// COPY_FILE_RANGE in both forms. The older one cannot say more than 4 GiB; it is told less,
    /// which callers have to expect.
    pub fn copied(self, bytes: u64) -> Delivery {
        if self.opcode == opcode::COPY_FILE_RANGE_64 {
            return self.body(&abi::CopyFileRangeOut { bytes_copied: bytes });
        }
        self.written(u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// LSEEK: where it is.
    pub fn offset(self, offset: block::units::ByteOffset) -> Delivery {
        self.body(&abi::LseekOut { offset: offset.0 })
    }

    /// STATFS.
    pub fn statfs(self, statfs: &Statfs) -> Delivery {
        self.body(&statfs.to_abi())
    }

    /// GETLK: the lock in the way, or one of kind Unlock.
    pub fn lock(self, lock: &Lock) -> Delivery {
        let kind = match lock.kind {
            LockKind::Read => libc::F_RDLCK,
            LockKind::Write => libc::F_WRLCK,
            LockKind::Unlock => libc::F_UNLCK,
        };
        let lk = abi::FileLock { start: lock.start, end: lock.end, kind: kind.cast_unsigned(), pid: lock.pid };
        self.body(&abi::LkOut { lk })
    }

    /// GETXATTR and LISTXATTR of size 0: the size it would take.
    pub fn xattr_size(self, size: u32) -> Delivery {
        self.body(&abi::GetxattrOut { size, padding: 0 })
    }

    /// IOCTL: its result and what it wrote.
    pub fn ioctl(mut self, result: i32, output: &[u8]) -> Delivery {
        let out = abi::IoctlOut { result, flags: 0, in_iovs: 0, out_iovs: 0 };
        let header = self.header(size_of_val(&out) + output.len());
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(out.as_bytes()), IoSlice::new(output)];
        self.send(|device| device.writev(&parts))
    }

    pub(crate) fn polled(self, revents: u32) -> Delivery {
        self.body(&abi::PollOut { revents, padding: 0 })
    }

    fn body(self, body: &(impl IntoBytes + Immutable)) -> Delivery {
        self.fixed(body.as_bytes())
    }

    /// Header and a short body in one piece: one write, no vector.
    fn fixed(mut self, body: &[u8]) -> Delivery {
        debug_assert!(size_of::<OutHeader>() + body.len() <= FIXED_MAX);
        let header = self.header(body.len());
        let mut message = [0; FIXED_MAX];
        let end = size_of::<OutHeader>() + body.len();
        message[..size_of::<OutHeader>()].copy_from_slice(header.as_bytes());
        message[size_of::<OutHeader>()..end].copy_from_slice(body);
        self.send(|device| device.write(&message[..end]))
    }

    /// The header of an answer with `len` bytes behind it. Answers are bounded by the room the kernel
    /// named, far below 4 GiB; a longer one is refused by the kernel for its length field.
    fn header(&self, len: usize) -> OutHeader {
        let len = u32::try_from(size_of::<OutHeader>() + len).unwrap_or(u32::MAX);
        OutHeader { len, error: 0, unique: self.unique }
    }

    fn send_error(&mut self, errno: i32) -> Delivery {
        let errno = match errno {
            libc::ENOSYS if self.opcode == opcode::IOCTL => libc::ENOTTY,
            libc::ENOSYS => libc::EOPNOTSUPP,
            // ERESTARTSYS (512) and above are the kernel's own; it ignores an answer that says so.
            1..512 => errno,
            _ => libc::EIO,
        };
        let header = OutHeader { error: -errno, ..self.header(0) };
        self.send(|device| device.write(header.as_bytes()))
    }

    fn send(&mut self, write: impl FnOnce(&Device) -> Result<(), Errno>) -> Delivery {
        if self.answered {
            return Delivery::Delivered;
        }
        self.answered = true;
        if self.device.is_left() {
            return Delivery::Gone;
        }
        let written = write(&self.device);
        if let Some(resends) = self.resent.take() {
            resends.answered(self.unique & !abi::RESENT);
        }
        match written {
            Ok(()) => Delivery::Delivered,
            // ENOENT: interrupted and gone; the others: unmounted or aborted.
            Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED | Errno::PERM) => Delivery::Gone,
            Err(error) => {
                tracing::error!(unique = self.unique, opcode = self.opcode, %error, "the kernel refused an answer");
                Delivery::Refused
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.answered || self.device.is_left() {
            return;
        }
        let errno = if opcode::is_known(self.opcode) {
            tracing::error!(unique = self.unique, opcode = self.opcode, "a request was dropped unanswered");
            libc::EIO
        } else {
            libc::EOPNOTSUPP
        };
        self.send_error(errno);
    }
}

fn attr_out(attr: &Attr, ttl: Duration) -> abi::AttrOut {
    abi::AttrOut { attr_valid: ttl.as_secs(), attr_valid_nsec: ttl.subsec_nanos(), dummy: 0, attr: attr.to_abi() }
}
