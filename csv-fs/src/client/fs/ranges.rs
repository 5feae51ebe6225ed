//! Ranges of files: space for them, holes in them, and where those are.

use block::units::ByteOffset;
use fuse::Reply;
use fuse::op::{CopyFileRange, Fallocate, FileHandle, Lseek, Whence};

use super::{FileSystem, Who, done};
use crate::client::data::Seek;
use crate::client::session::{Caller, EIO, Errno};
use crate::proto::SetAttr;

/// `EINVAL`.
const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
/// `EOPNOTSUPP`.
const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();
/// Set-user-id and set-group-id.
const SUID_SGID: u32 = 0o6000;
/// `FALLOC_FL_KEEP_SIZE`.
const KEEP_SIZE: i32 = 1;
/// `FALLOC_FL_PUNCH_HOLE`; only ever with KEEP_SIZE, as the kernel sees to.
const PUNCH_HOLE: i32 = 2;
/// `FALLOC_FL_ZERO_RANGE`.
const ZERO_RANGE: i32 = 16;

impl FileSystem {
    pub(super) async fn fallocate(&self, who: Who, f: Fallocate, reply: Reply, caller: &Caller) {
        let (at, len, keep_size) = (f.offset.0, f.length.0, f.mode & KEEP_SIZE != 0);
        caller.begins_in(self.path.session.client());
        let result = match (self.open_file(f.fh), f.mode & !KEEP_SIZE) {
            (Err(errno), _) => Err(errno),
            (Ok(file), _) if file.is_poisoned() => Err(Errno(EIO)),
            (Ok(file), 0) => self.path.fallocate(file.ino(), at, len, keep_size, caller).await,
            (Ok(file), PUNCH_HOLE) if keep_size => self.path.punch(file.ino(), at, len, caller).await,
            (Ok(file), ZERO_RANGE) => self.path.zero_range(file.ino(), at, len, keep_size, caller).await,
            (Ok(_), _) => Err(Errno(EOPNOTSUPP)),
        };
        let result = match result {
            Ok(()) => self.changed_by(who, f.fh, caller).await,
            failed => failed,
        };
        done(reply, result);
    }

    /// suid and sgid go when somebody without privilege has changed a file. Here the kernel does not say whether the
    /// caller may keep them: root may.
    async fn changed_by(&self, who: Who, fh: FileHandle, caller: &Caller) -> Result<(), Errno> {
        if who.uid == 0 {
            return Ok(());
        }
        let ino = self.open_file(fh)?.ino();
        if self.path.attr(ino, caller).await?.mode & SUID_SGID != 0 {
            let set = SetAttr { kill_suid_sgid: true, ..SetAttr::default() };
            self.path.set_attr(ino, set, caller).await?;
        }
        Ok(())
    }

    /// The kernel has checked what it can: both files are of this mount, and do not overlap.
    pub(super) async fn copy(&self, who: Who, c: CopyFileRange, reply: Reply, caller: &Caller) {
        let copied = match (self.open_file(c.fh_in), self.open_file(c.fh_out)) {
            (Err(errno), _) | (_, Err(errno)) => Err(errno),
            _ if c.flags != 0 => Err(Errno(EINVAL)),
            (Ok(from), Ok(to)) => {
                let (from, to) = ((&from, c.offset_in.0), (&to, c.offset_out.0));
                // Who may keep suid and sgid the kernel does not say here.
                self.path.copy(from, to, c.length.0, who.uid != 0, caller).await
            }
        };
        super::sent(match copied {
            Ok(n) => reply.copied(n),
            Err(Errno(errno)) => reply.error(errno),
        });
    }

    pub(super) async fn lseek(&self, seek: Lseek, reply: Reply, caller: &Caller) {
        let found = match (self.open_file(seek.fh), seek.whence) {
            (Err(errno), _) => Err(errno),
            (Ok(_), Whence::Other(_)) => Err(Errno(EINVAL)),
            (Ok(file), Whence::Data) => self.path.seek(&file.inode, seek.offset.0, Seek::Data, caller).await,
            (Ok(file), Whence::Hole) => self.path.seek(&file.inode, seek.offset.0, Seek::Hole, caller).await,
        };
        super::sent(match found {
            Ok(at) => reply.offset(ByteOffset(at)),
            Err(Errno(errno)) => reply.error(errno),
        });
    }
}
