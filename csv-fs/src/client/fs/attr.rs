//! Attributes: asked for anew each time, and overlaid with what this node has written and not yet committed.

use std::time::Duration;

use block::units::ByteLen;
use fuse::op::{SetTime, SetattrIn};
use fuse::{Entry, FileKind, Reply, Statfs, Time};

use super::{FileSystem, sent};
use crate::client::inode::{timestamp, wall_nanos};
use crate::client::session::{Caller, EIO, Errno};
use crate::proto::SetAttr;
use crate::types::{Attr, FS_BLOCK, InodeNo, NAME_MAX, Timestamp};

/// The unit in which space is counted; also what directories tell as their preferred I/O size.
const BLOCK_SIZE: u32 = FS_BLOCK as u32;

/// The preferred I/O size of regular files. Nothing is cached in the kernel, so every read(2) is a request to this process
/// and one to the disk; programs that follow `st_blksize` (cmp, C's and Python's files) would make them a page each. Not
/// larger, as other network file systems have it: it is also what such a program keeps for every file it has open, and
/// reads for every look at a random place.
const PREFERRED_IO: u32 = 128 << 10;

/// In which form a request wants attributes. Nothing in it may be cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// LOOKUP, and what makes a name.
    Entry,
    /// GETATTR and SETATTR.
    Attr,
    /// STATX.
    Statx,
}

impl Form {
    /// Answers.
    pub(super) fn show(self, reply: Reply, attr: Result<Attr, Errno>) {
        sent(match (self, attr) {
            (_, Err(Errno(errno))) => reply.error(errno),
            (Form::Entry, Ok(attr)) => reply.entry(&entry(&attr)),
            (Form::Attr, Ok(attr)) => reply.attr(&kernel_attr(&attr), Duration::ZERO),
            (Form::Statx, Ok(attr)) => reply.statx(&kernel_attr(&attr), Some(time(attr.btime)), Duration::ZERO),
        });
    }
}

impl FileSystem {
    pub(super) async fn setattr(&self, ino: InodeNo, set: SetattrIn, reply: Reply, caller: &Caller) {
        // ftruncate(2).
        caller.begins_in(self.path.session.client());
        if set.fh.and_then(|fh| self.open_file(fh).ok()).is_some_and(|file| file.is_poisoned()) {
            return sent(reply.error(EIO));
        }
        let now = timestamp(wall_nanos());
        let when = |t: Option<SetTime>| {
            t.map(|t| match t {
                SetTime::Now => now,
                SetTime::At(at) => Timestamp { secs: at.seconds, nanos: at.nanos },
            })
        };
        let wanted = SetAttr {
            mode: set.mode.map(|m| m & 0o7777),
            uid: set.uid,
            gid: set.gid,
            size: set.size.map(|s| s.0),
            atime: when(set.atime),
            mtime: when(set.mtime),
            kill_suid_sgid: set.kill_suidgid,
            kill_capability: false,
        };
        let changed = self.change(ino, wanted, caller).await;
        Form::Attr.show(reply, changed.map_err(|e| self.of_looked_up(ino, e)));
    }

    /// A time that is set must not be undone by the time of an earlier write that is sent later.
    async fn change(&self, ino: InodeNo, set: SetAttr, caller: &Caller) -> Result<Attr, Errno> {
        if set.mtime.is_some()
            && let Some(inode) = self.path.known(ino)
        {
            self.path.settle_times(&inode, caller).await?;
        }
        self.path.set_attr(ino, set, caller).await
    }

    pub(super) async fn statfs(&self, reply: Reply, caller: &Caller) {
        match self.path.statfs(caller).await {
            Ok(space) => sent(reply.statfs(&Statfs {
                blocks: space.blocks,
                bfree: space.free,
                bavail: space.free,
                files: space.files + space.files_free,
                ffree: space.files_free,
                bsize: BLOCK_SIZE,
                namelen: NAME_MAX as u32,
                frsize: BLOCK_SIZE,
            })),
            Err(Errno(errno)) => sent(reply.error(errno)),
        }
    }
}

/// Attributes as the kernel has them.
pub(super) fn kernel_attr(attr: &Attr) -> fuse::Attr {
    let kind = FileKind::from_mode(attr.mode).unwrap_or(FileKind::Regular);
    fuse::Attr {
        ino: attr.ino.0,
        size: ByteLen(attr.size),
        blocks: attr.blocks.0 * (FS_BLOCK / 512),
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        kind,
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: if kind == FileKind::Regular { PREFERRED_IO } else { BLOCK_SIZE },
    }
}

/// An answer to a look-up; nothing in it may be cached.
pub(super) fn entry(attr: &Attr) -> Entry {
    Entry {
        nodeid: attr.ino.0,
        generation: 0,
        attr: kernel_attr(attr),
        entry_ttl: Duration::ZERO,
        attr_ttl: Duration::ZERO,
    }
}

fn time(t: Timestamp) -> Time {
    Time { seconds: t.secs, nanos: t.nanos }
}
