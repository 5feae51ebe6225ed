//! What the server tells the kernel about inodes, handles and the file system.
//!
//! Plain values with public fields; their conversion to the ABI is the only thing that happens here.
//! Called by `reply` and by the directory builder.

use crate::abi;
use crate::op::{FileHandle, Time};
use block::units::ByteLen;
use std::time::Duration;
use zerocopy::FromZeros;

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// The S_IFMT bits.
    #[must_use]
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::BlockDevice => libc::S_IFBLK,
            Self::CharDevice => libc::S_IFCHR,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
        }
    }

    /// The kind in a mode, if its S_IFMT bits name one.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::Regular,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFBLK => Self::BlockDevice,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            _ => return None,
        })
    }
}

/// The attributes of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// The number stat(2) shows.
    pub ino: u64,
    /// Size in bytes.
    pub size: ByteLen,
    /// Space in units of 512 bytes.
    pub blocks: u64,
    /// Access time.
    pub atime: Time,
    /// Modification time.
    pub mtime: Time,
    /// Change time.
    pub ctime: Time,
    /// What it is.
    pub kind: FileKind,
    /// The lower 12 bits of the mode.
    pub perm: u16,
    /// Names of the inode.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, for devices.
    pub rdev: u32,
    /// Preferred I/O size: st_blksize.
    pub blksize: u32,
}

impl Attr {
    /// Type and permissions as st_mode has them.
    #[must_use]
    pub const fn mode(&self) -> u32 {
        self.kind.mode_bits() | (self.perm & 0o7777) as u32
    }

    pub(crate) fn to_abi(self) -> abi::Attr {
        abi::Attr {
            ino: self.ino,
            size: self.size.0,
            blocks: self.blocks,
            atime: self.atime.seconds.cast_unsigned(),
            mtime: self.mtime.seconds.cast_unsigned(),
            ctime: self.ctime.seconds.cast_unsigned(),
            atimensec: self.atime.nanos,
            mtimensec: self.mtime.nanos,
            ctimensec: self.ctime.nanos,
            mode: self.mode(),
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            blksize: self.blksize,
            flags: 0,
        }
    }

    /// As STATX has it; `birth` is when the inode was made, if that is known.
    pub(crate) fn to_statx(self, birth: Option<Time>) -> abi::Statx {
        let time = |t: Time| abi::SxTime { sec: t.seconds, nsec: t.nanos, reserved: 0 };
        let mask = libc::STATX_BASIC_STATS | if birth.is_some() { libc::STATX_BTIME } else { 0 };
        let rdev = u64::from(self.rdev);
        abi::Statx {
            mask,
            blksize: self.blksize,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            // The mode's 16 bits are all there are.
            mode: (self.mode() & 0xffff) as u16,
            ino: self.ino,
            size: self.size.0,
            blocks: self.blocks,
            atime: time(self.atime),
            btime: time(birth.unwrap_or_default()),
            ctime: time(self.ctime),
            mtime: time(self.mtime),
            rdev_major: libc::major(rdev),
            rdev_minor: libc::minor(rdev),
            ..abi::Statx::new_zeroed()
        }
    }
}

/// The answer to a look-up: the kernel then holds one reference to `nodeid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The number all later requests use. Not 0.
    pub nodeid: u64,
    /// Tells lives of a reused node id apart.
    pub generation: u64,
    /// The attributes.
    pub attr: Attr,
    /// How long the name may be believed.
    pub entry_ttl: Duration,
    /// How long the attributes may be believed.
    pub attr_ttl: Duration,
}

impl Entry {
    pub(crate) fn to_abi(self) -> abi::EntryOut {
        abi::EntryOut {
            nodeid: self.nodeid,
            generation: self.generation,
            entry_valid: self.entry_ttl.as_secs(),
            attr_valid: self.attr_ttl.as_secs(),
            entry_valid_nsec: self.entry_ttl.subsec_nanos(),
            attr_valid_nsec: self.attr_ttl.subsec_nanos(),
            attr: self.attr.to_abi(),
        }
    }
}

/// How an open file is to be treated by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenFlags(u32);

impl OpenFlags {
    /// No page cache for this open file.
    pub const DIRECT_IO: Self = Self(1 << 0);
    /// Keep what an earlier open left in the page cache.
    pub const KEEP_CACHE: Self = Self(1 << 1);
    /// lseek fails.
    pub const NONSEEKABLE: Self = Self(1 << 2);
    /// The directory's entries may be cached.
    pub const CACHE_DIR: Self = Self(1 << 3);
    /// There is no file position at all.
    pub const STREAM: Self = Self(1 << 4);
    /// Do not flush the page cache at close.
    pub const NOFLUSH: Self = Self(1 << 5);
    /// Direct writes that do not grow the file may run side by side.
    pub const PARALLEL_DIRECT_WRITES: Self = Self(1 << 6);
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }
}

/// An open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What later requests name it by.
    pub fh: FileHandle,
    /// How the kernel is to treat it.
    pub flags: OpenFlags,
}

impl Opened {
    pub(crate) fn to_abi(self) -> abi::OpenOut {
        abi::OpenOut { fh: self.fh.0, open_flags: self.flags.bits(), backing_id: 0 }
    }
}

/// statfs(2)'s answer; counts are in units of `frsize` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statfs {
    /// All.
    pub blocks: u64,
    /// Free.
    pub bfree: u64,
    /// Free for users.
    pub bavail: u64,
    /// Inodes.
    pub files: u64,
    /// Inodes free.
    pub ffree: u64,
    /// Preferred I/O size.
    pub bsize: u32,
    /// Longest name in bytes.
    pub namelen: u32,
    /// The unit.
    pub frsize: u32,
}

impl Statfs {
    pub(crate) fn to_abi(self) -> abi::Kstatfs {
        abi::Kstatfs {
            blocks: self.blocks,
            bfree: self.bfree,
            bavail: self.bavail,
            files: self.files,
            ffree: self.ffree,
            bsize: self.bsize,
            namelen: self.namelen,
            frsize: self.frsize,
            ..abi::Kstatfs::new_zeroed()
        }
    }
}
