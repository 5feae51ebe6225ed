//! Bodies about open files: handles, data, locks, space, ioctl.

use super::body;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

body!(OpenIn [8] { flags: u32, open_flags: u32 });
body!(OpenOut [16] { fh: u64, open_flags: u32, backing_id: i32 });
body!(CreateIn [16] { flags: u32, mode: u32, umask: u32, open_flags: u32 });
body!(ReleaseIn [24] { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 });
body!(FlushIn [24] { fh: u64, unused: u32, padding: u32, lock_owner: u64 });
body!(ReadIn [40] {
    fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
});
body!(WriteIn [40] {
    fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
});
body!(WriteOut [8] { size: u32, padding: u32 });
body!(FsyncIn [16] { fh: u64, fsync_flags: u32, padding: u32 });
body!(FileLock [24] { start: u64, end: u64, kind: u32, pid: u32 });
body!(LkIn [48] { fh: u64, owner: u64, lk: FileLock, lk_flags: u32, padding: u32 });
body!(LkOut [24] { lk: FileLock });
body!(InterruptIn [8] { unique: u64 });
body!(IoctlIn [32] { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 });
body!(IoctlOut [16] { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 });
body!(PollIn [24] { fh: u64, kh: u64, flags: u32, events: u32 });
body!(PollOut [8] { revents: u32, padding: u32 });
body!(FallocateIn [32] { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 });
body!(LseekIn [24] { fh: u64, offset: u64, whence: u32, padding: u32 });
body!(LseekOut [8] { offset: u64 });
body!(CopyFileRangeIn [56] {
    fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
});
body!(CopyFileRangeOut [8] { bytes_copied: u64 });

/// `read_flags`: `lock_owner` is valid.
pub(crate) const READ_LOCKOWNER: u32 = 1 << 1;
/// `release_flags`: flush as well (never sent by the kernels above the floor, parsed all the same).
pub(crate) const RELEASE_FLUSH: u32 = 1 << 0;
/// `release_flags`: the file's flock is to be dropped.
pub(crate) const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// `fsync_flags`: data only.
pub(crate) const FSYNC_FDATASYNC: u32 = 1 << 0;
/// `lk_flags`: flock(2), not fcntl(2).
pub(crate) const LK_FLOCK: u32 = 1 << 0;
/// `open_flags` of OPEN and CREATE requests: clear suid and sgid (killpriv v2, with O_TRUNC).
pub(crate) const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `write_flags`.
pub(crate) const WRITE_CACHE: u32 = 1 << 0;
/// `write_flags`: `lock_owner` is valid.
pub(crate) const WRITE_LOCKOWNER: u32 = 1 << 1;
/// `write_flags`: clear suid and sgid.
pub(crate) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
