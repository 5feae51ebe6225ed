//! The kernel's FUSE ABI, version 7.45, as plain structs and numbers.
//!
//! What it is: every message body of `include/uapi/linux/fuse.h` that this crate reads or writes, as
//! `repr(C)` zerocopy structs. The ABI is between a kernel and a process of one machine, so all fields
//! are in the machine's own byte order and every struct is padded to 8 bytes; the size asserts below
//! each struct are the contract.
//!
//! What it refuses: meaning. Nothing here is checked or interpreted; `parse` turns bodies into
//! [`crate::Operation`], `reply` turns answers into bodies. Extensions that are never negotiated
//! (security contexts, supplementary groups, DAX mappings, CUSE) have no struct here.
//!
//! Called by `parse`, `reply`, `init` and `notify` only; nothing of it is public.

mod directory;
mod file;
mod init;
mod inode;
mod notify;

pub(crate) use directory::*;
pub(crate) use file::*;
pub(crate) use init::*;
pub(crate) use inode::*;
pub(crate) use notify::*;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's major number; a kernel with another one does not exist.
pub(crate) const MAJOR: u32 = 7;
/// The highest minor number whose structs are written here.
pub(crate) const MINOR: u32 = 45;
/// Linux 6.1. Below it FUSE_INIT_EXT, killpriv v2 and max_pages cannot all be relied on.
pub(crate) const MINOR_FLOOR: u32 = 37;
/// In the number of a request: it was sent again, since whoever read it first has not answered it (FUSE_UNIQUE_RESEND).
pub(crate) const RESENT: u64 = 1 << 63;
/// The kernel refuses reads into less (`FUSE_MIN_READ_BUFFER`).
pub(crate) const MIN_READ_BUFFER: usize = 8192;

/// Declares a body: a zerocopy struct and its size assert.
macro_rules! body {
    ($(#[$doc:meta])* $name:ident [$size:literal] { $($field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $ty),* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}
pub(crate) use body;

body!(
    /// In front of every request.
    InHeader [40] {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
);

body!(
    /// In front of every answer (`error` is 0 or a negated errno) and, with `unique` 0 and a
    /// notification code in `error`, of every notification.
    OutHeader [16] { len: u32, error: i32, unique: u64 }
);

/// Bytes in front of a WRITE's payload.
pub(crate) const WRITE_PREFIX: usize = size_of::<InHeader>() + size_of::<WriteIn>();
const _: () = assert!(WRITE_PREFIX == 80);

/// Operation codes.
pub(crate) mod opcode {
    macro_rules! codes { ($($name:ident = $n:literal),* $(,)?) => { $(pub(crate) const $name: u32 = $n;)* } }
    codes! {
        LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, READLINK = 5, SYMLINK = 6, MKNOD = 8,
        MKDIR = 9, UNLINK = 10, RMDIR = 11, RENAME = 12, LINK = 13, OPEN = 14, READ = 15, WRITE = 16,
        STATFS = 17, RELEASE = 18, FSYNC = 20, SETXATTR = 21, GETXATTR = 22, LISTXATTR = 23,
        REMOVEXATTR = 24, FLUSH = 25, INIT = 26, OPENDIR = 27, READDIR = 28, RELEASEDIR = 29,
        FSYNCDIR = 30, GETLK = 31, SETLK = 32, SETLKW = 33, ACCESS = 34, CREATE = 35, INTERRUPT = 36,
        DESTROY = 38, IOCTL = 39, POLL = 40, BATCH_FORGET = 42, FALLOCATE = 43, READDIRPLUS = 44,
        RENAME2 = 45, LSEEK = 46, COPY_FILE_RANGE = 47, SYNCFS = 50, TMPFILE = 51, STATX = 52,
        COPY_FILE_RANGE_64 = 53,
    }

    /// True for the codes above; the holes are operations that this crate never offers.
    pub(crate) fn is_known(code: u32) -> bool {
        matches!(code, LOOKUP..=COPY_FILE_RANGE_64) && !matches!(code, 7 | 19 | 37 | 41 | 48 | 49)
    }
}
