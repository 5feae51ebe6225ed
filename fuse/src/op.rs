//! What the kernel can ask for, typed.
//!
//! What it is: one variant of [`Operation`] per request, with the fields the kernel marks as valid and
//! nothing else (a field that is valid only with a flag is an `Option`).
//!
//! What it refuses: numbers without meaning. A request with an unknown code is
//! [`Operation::Unknown`]; one whose bytes do not add up never becomes an `Operation` at all (`parse`
//! answers it with EIO).
//!
//! Made by `parse`, consumed by the handler given to [`crate::Channel::serve`].

mod args;
mod lock;
mod setattr;

pub use args::{
    CopyFileRange, Create, Fallocate, ForgetOne, Ioctl, Lseek, Mkdir, Mknod, Name, Read, ReadDir, Release, Rename,
    Setxattr, Statx, Tmpfile, Whence, Write, WriteFlags,
};
pub use lock::{Lock, LockKind, LockRequest};
pub use setattr::{SetTime, SetattrIn, Time};

/// The server's name for an open file or directory: what it answered to OPEN, CREATE or OPENDIR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileHandle(pub u64);

/// The kernel's name for who holds a lock: a process (fcntl), an open file (OFD locks, flock).
/// Comparable, nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockOwner(pub u64);

/// One request of the kernel.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Name to inode. Answer: [`crate::Reply::entry`] or [`crate::Reply::negative`].
    Lookup {
        /// The name looked for.
        name: Name,
    },
    /// The kernel dropped `nlookup` references to the inode. Takes no answer.
    Forget {
        /// How many look-ups are given back.
        nlookup: u64,
    },
    /// Many forgets at once; the request's own node id means nothing. Takes no answer.
    BatchForget {
        /// Inode and count.
        forgets: Vec<ForgetOne>,
    },
    /// Attributes. Answer: `attr`.
    Getattr {
        /// The handle, when asked through an open file.
        fh: Option<FileHandle>,
    },
    /// Change attributes. Answer: `attr`.
    Setattr(SetattrIn),
    /// Target of a symbolic link. Answer: `data`.
    Readlink,
    /// Make a node. Answer: `entry`.
    Mknod(Mknod),
    /// Make a directory. Answer: `entry`.
    Mkdir(Mkdir),
    /// Remove a name that is no directory. Answer: `empty`.
    Unlink {
        /// The name.
        name: Name,
    },
    /// Remove an empty directory. Answer: `empty`.
    Rmdir {
        /// The name.
        name: Name,
    },
    /// Make a symbolic link. Answer: `entry`.
    Symlink {
        /// The new name.
        name: Name,
        /// What it points to, not checked.
        target: Vec<u8>,
    },
    /// Move a name. Answer: `empty`.
    Rename(Rename),
    /// Another name for an inode; the request's node id is the new parent. Answer: `entry`.
    Link {
        /// The inode that gets the name.
        inode: u64,
        /// The new name.
        name: Name,
    },
    /// Open a file. Answer: `opened`.
    Open {
        /// open(2)'s flags without O_CREAT and O_EXCL; O_TRUNC only with ATOMIC_O_TRUNC.
        flags: i32,
        /// Clear suid and sgid (O_TRUNC by someone without CAP_FSETID).
        kill_suidgid: bool,
    },
    /// Create and open. Answer: `created`.
    Create(Create),
    /// Create and open a file without a name. Answer: `created`.
    Tmpfile(Tmpfile),
    /// Read. Answer: `data`, short only at the end of the file.
    Read(Read),
    /// Write. Answer: `written`.
    Write(Write),
    /// close(2) was called once on a descriptor. Answer: `empty`.
    Flush {
        /// The handle.
        fh: FileHandle,
        /// Whose fcntl locks go.
        lock_owner: LockOwner,
    },
    /// The last reference to a handle is gone. Answer: `empty`.
    Release(Release),
    /// Make durable. Answer: `empty`.
    Fsync {
        /// The handle.
        fh: FileHandle,
        /// Data and what is needed to read it back, not times.
        datasync: bool,
    },
    /// Open a directory. Answer: `opened`.
    Opendir {
        /// open(2)'s flags.
        flags: i32,
    },
    /// Entries. Answer: `directory`.
    Readdir(ReadDir),
    /// Entries with their look-up answers. Answer: `directory`.
    Readdirplus(ReadDir),
    /// The last reference to a directory handle is gone. Answer: `empty`.
    Releasedir(Release),
    /// Make a directory durable. Answer: `empty`.
    Fsyncdir {
        /// The handle.
        fh: FileHandle,
        /// Data only.
        datasync: bool,
    },
    /// Space and counts. Answer: `statfs`.
    Statfs,
    /// Space for a range, or its removal. Answer: `empty`.
    Fallocate(Fallocate),
    /// access(2); never sent with `default_permissions`. Answer: `empty`.
    Access {
        /// R_OK, W_OK, X_OK.
        mask: i32,
    },
    /// Who stands in the way of this lock? Answer: `lock`.
    Getlk(LockRequest),
    /// Take or drop a lock now. Answer: `empty` or EAGAIN.
    Setlk(LockRequest),
    /// Take a lock, waiting for it. Answer: `empty`; must end with EINTR when interrupted.
    Setlkw(LockRequest),
    /// The process that waits for request `unique` got a signal. Takes no answer; the *interrupted*
    /// request is to be answered, with EINTR unless it is done anyway. It can arrive before that
    /// request is seen, on another channel: see [`crate::Interrupts`].
    Interrupt {
        /// The request interrupted.
        unique: u64,
    },
    /// SEEK_DATA or SEEK_HOLE (the others the kernel does itself). Answer: `offset`.
    Lseek(Lseek),
    /// Set an extended attribute. Answer: `empty`.
    Setxattr(Setxattr),
    /// Read one. Answer: `xattr_size` if `size` is 0, else `data`, or ERANGE.
    Getxattr {
        /// The name, with its prefix.
        name: Name,
        /// Room at the asker, 0 asks for the size.
        size: u32,
    },
    /// All names, each ended by a zero byte. Answer as for Getxattr.
    Listxattr {
        /// Room at the asker, 0 asks for the size.
        size: u32,
    },
    /// Remove one. Answer: `empty`.
    Removexattr {
        /// The name, with its prefix.
        name: Name,
    },
    /// Copy within the file system; the request's node id is the source. Answer: `copied`.
    CopyFileRange(CopyFileRange),
    /// ioctl(2). Answer: `ioctl`; `unsupported` says ENOTTY.
    Ioctl(Ioctl),
    /// statx(2) with more than stat's fields. Answer: `statx`. **Must be answered**: EOPNOTSUPP would
    /// reach the caller of statx(2).
    Statx(Statx),
    /// syncfs(2). Answer: `empty`.
    Syncfs,
    /// The mount is going; takes an empty answer. Sent for block-device mounts only.
    Destroy,
    /// Something newer than this crate. Dropping the reply answers EOPNOTSUPP.
    Unknown {
        /// Its code.
        opcode: u32,
    },
}
