//! The arguments of single operations.

use super::{FileHandle, LockOwner};
use block::buf::AlignedBuf;
use block::units::{ByteLen, ByteOffset};
use std::fmt;
use std::ops::Deref;

/// One component of a path: not empty, no slash, no zero byte; any other byte is possible. Or the name of an extended
/// attribute, in which a slash is a byte like any other.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The name, if it is one.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let valid = !bytes.is_empty() && !bytes.iter().any(|b| matches!(b, 0 | b'/'));
        valid.then(|| Self(bytes.into()))
    }

    /// The name of an extended attribute, if it is one.
    #[must_use]
    pub fn of_attribute(bytes: &[u8]) -> Option<Self> {
        let valid = !bytes.is_empty() && !bytes.contains(&0);
        valid.then(|| Self(bytes.into()))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its bytes, given away.
    #[must_use]
    pub fn into_bytes(self) -> Box<[u8]> {
        self.0
    }
}

impl Deref for Name {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// References given back to one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgetOne {
    /// The inode.
    pub nodeid: u64,
    /// How many.
    pub nlookup: u64,
}

/// Arguments of MKNOD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mknod {
    /// The name.
    pub name: Name,
    /// Type and permissions, the umask already applied.
    pub mode: u32,
    /// Device number, for devices.
    pub rdev: u32,
    /// The umask that was applied.
    pub umask: u32,
}

/// Arguments of MKDIR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mkdir {
    /// The name.
    pub name: Name,
    /// Permissions, the umask already applied.
    pub mode: u32,
    /// The umask that was applied.
    pub umask: u32,
}

/// Arguments of RENAME and RENAME2; the request's node id is the old parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// The old name.
    pub name: Name,
    /// The new parent.
    pub new_parent: u64,
    /// The new name.
    pub new_name: Name,
    /// RENAME_NOREPLACE (1), RENAME_EXCHANGE (2), RENAME_WHITEOUT (4).
    pub flags: u32,
}

/// Arguments of TMPFILE; the request's node id is the directory. The name that comes with it is the
/// kernel's invention (a slash) and is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfile {
    /// open(2)'s flags.
    pub flags: i32,
    /// Type and permissions, the umask already applied.
    pub mode: u32,
    /// The umask that was applied.
    pub umask: u32,
}

/// Arguments of CREATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// The name.
    pub name: Name,
    /// open(2)'s flags; O_EXCL is for the server to honour.
    pub flags: i32,
    /// Type and permissions, the umask already applied.
    pub mode: u32,
    /// The umask that was applied.
    pub umask: u32,
    /// Clear suid and sgid of a file that existed and is truncated.
    pub kill_suidgid: bool,
}

/// Arguments of READ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The handle.
    pub fh: FileHandle,
    /// From here.
    pub offset: ByteOffset,
    /// At most so many bytes.
    pub size: u32,
    /// The open file's flags now (O_DIRECT may have been changed by fcntl).
    pub flags: i32,
    /// Who reads, where mandatory locks would matter.
    pub lock_owner: Option<LockOwner>,
}

/// The flags of a WRITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteFlags {
    /// From the page cache: `fh` is a guess and uid, gid, pid are not the writer's.
    pub cache: bool,
    /// Clear suid and sgid (the writer lacks CAP_FSETID).
    pub kill_suidgid: bool,
}

/// Arguments of WRITE.
#[derive(Debug)]
pub struct Write {
    /// The handle.
    pub fh: FileHandle,
    /// To here.
    pub offset: ByteOffset,
    /// The bytes, aligned to a page, in the buffer the kernel copied them to. Give it back (drop it)
    /// as soon as it is written: a slab of the pool stays out as long as a window of it lives.
    pub data: AlignedBuf,
    /// How it was written.
    pub write_flags: WriteFlags,
    /// The open file's flags now.
    pub flags: i32,
    /// Who writes, where mandatory locks would matter.
    pub lock_owner: Option<LockOwner>,
}

/// Arguments of RELEASE and RELEASEDIR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The handle; every lock recorded for it goes.
    pub fh: FileHandle,
    /// The open file's flags.
    pub flags: i32,
    /// Who had its flock, if it had one.
    pub flock_owner: Option<LockOwner>,
    /// Flush as well.
    pub flush: bool,
}

/// Arguments of READDIR and READDIRPLUS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadDir {
    /// The handle.
    pub fh: FileHandle,
    /// The cookie to go on from, 0 at the start.
    pub cookie: u64,
    /// Room for the answer in bytes: what [`crate::DirBuf`] is made with.
    pub size: u32,
}

/// Arguments of FALLOCATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallocate {
    /// The handle.
    pub fh: FileHandle,
    /// Start of the range.
    pub offset: ByteOffset,
    /// Its length.
    pub length: ByteLen,
    /// FALLOC_FL_* bits; 0 allocates and grows.
    pub mode: i32,
}

/// What LSEEK looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// The next data.
    Data,
    /// The next hole; the end of the file is one.
    Hole,
    /// Another number, to be answered EINVAL.
    Other(u32),
}

/// Arguments of LSEEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lseek {
    /// The handle.
    pub fh: FileHandle,
    /// From here.
    pub offset: ByteOffset,
    /// What is looked for.
    pub whence: Whence,
}

/// Arguments of SETXATTR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setxattr {
    /// The name, with its prefix.
    pub name: Name,
    /// The value.
    pub value: Vec<u8>,
    /// XATTR_CREATE (1) or XATTR_REPLACE (2).
    pub flags: u32,
    /// Clear sgid: a `system.posix_acl_access` set by someone outside the group.
    pub kill_sgid: bool,
}

/// Arguments of COPY_FILE_RANGE and COPY_FILE_RANGE_64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFileRange {
    /// Handle of the source.
    pub fh_in: FileHandle,
    /// From here.
    pub offset_in: ByteOffset,
    /// Inode of the target.
    pub nodeid_out: u64,
    /// Handle of the target.
    pub fh_out: FileHandle,
    /// To here.
    pub offset_out: ByteOffset,
    /// At most so many bytes.
    pub length: ByteLen,
    /// copy_file_range(2)'s flags.
    pub flags: u64,
}

/// Arguments of IOCTL. Only well-formed ones come (sizes are in the command's own number).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ioctl {
    /// The handle.
    pub fh: FileHandle,
    /// FUSE_IOCTL_* bits; 16 says that the handle is a directory's.
    pub flags: u32,
    /// The command.
    pub cmd: u32,
    /// The argument's address in the caller; a name, not to be followed.
    pub arg: u64,
    /// What the command reads.
    pub input: Vec<u8>,
    /// Room for what it writes.
    pub out_size: u32,
}

/// Arguments of STATX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statx {
    /// The handle, when asked through an open file.
    pub fh: Option<FileHandle>,
    /// AT_STATX_* bits.
    pub flags: u32,
    /// STATX_* bits asked for.
    pub mask: u32,
}
