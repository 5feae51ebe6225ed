//! Bodies about inodes: attributes, look-ups, creations, extended attributes, statfs.

use super::body;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

body!(Attr [88] {
    ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
    atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32,
    rdev: u32, blksize: u32, flags: u32,
});
body!(EntryOut [128] {
    nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
    entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr,
});
body!(ForgetIn [8] { nlookup: u64 });
body!(ForgetOne [16] { nodeid: u64, nlookup: u64 });
body!(BatchForgetIn [8] { count: u32, dummy: u32 });
body!(GetattrIn [16] { getattr_flags: u32, dummy: u32, fh: u64 });
body!(AttrOut [104] { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr });
body!(SetattrIn [88] {
    valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
    atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32,
    unused5: u32,
});
body!(MknodIn [16] { mode: u32, rdev: u32, umask: u32, padding: u32 });
body!(MkdirIn [8] { mode: u32, umask: u32 });
body!(RenameIn [8] { newdir: u64 });
body!(Rename2In [16] { newdir: u64, flags: u32, padding: u32 });
body!(LinkIn [8] { oldnodeid: u64 });
body!(AccessIn [8] { mask: u32, padding: u32 });
body!(
    /// The first half of the extended body; the kernel sends only this when FUSE_SETXATTR_EXT was
    /// not negotiated.
    SetxattrIn [8] { size: u32, flags: u32 }
);
body!(SetxattrExt [8] { setxattr_flags: u32, padding: u32 });
body!(GetxattrIn [8] { size: u32, padding: u32 });
body!(GetxattrOut [8] { size: u32, padding: u32 });
body!(Kstatfs [80] {
    blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
    bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
});
body!(SxTime [16] { sec: i64, nsec: u32, reserved: i32 });
body!(Statx [256] {
    mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16,
    ino: u64, size: u64, blocks: u64, attributes_mask: u64,
    atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
    rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
});
body!(StatxIn [24] { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 });
body!(StatxOut [288] { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx });

/// `getattr_flags`: the handle is valid.
pub(crate) const GETATTR_FH: u32 = 1;

/// Bits of `SetattrIn::valid`.
pub(crate) mod fattr {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const FH: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
    pub(crate) const LOCKOWNER: u32 = 1 << 9;
    pub(crate) const CTIME: u32 = 1 << 10;
    pub(crate) const KILL_SUIDGID: u32 = 1 << 11;
}
