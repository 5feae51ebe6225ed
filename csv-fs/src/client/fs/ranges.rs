//! Ranges of files: space for them, holes in them, and where those are.

use block::units::ByteOffset;
use fuse::Reply;
use fuse::op::{Fallocate, Lseek, Whence};

use super::{FileSystem, done};
use crate::client::data::Seek;
use crate::client::session::{Caller, EIO, Errno};

/// `EINVAL`.
const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
/// `EOPNOTSUPP`.
const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();
/// `FALLOC_FL_KEEP_SIZE`.
const KEEP_SIZE: i32 = 1;
/// `FALLOC_FL_PUNCH_HOLE`; only ever with KEEP_SIZE, as the kernel sees to.
const PUNCH_HOLE: i32 = 2;
/// `FALLOC_FL_ZERO_RANGE`.
const ZERO_RANGE: i32 = 16;

impl FileSystem {
    pub(super) async fn fallocate(&self, f: Fallocate, reply: Reply, caller: &Caller) {
        let (at, len, keep_size) = (f.offset.0, f.length.0, f.mode & KEEP_SIZE != 0);
        let result = match (self.open_file(f.fh), f.mode & !KEEP_SIZE) {
            (Err(errno), _) => Err(errno),
            (Ok(file), _) if file.is_poisoned() => Err(Errno(EIO)),
            (Ok(file), 0) => self.path.fallocate(file.ino(), at, len, keep_size, caller).await,
            (Ok(file), PUNCH_HOLE) if keep_size => self.path.punch(file.ino(), at, len, caller).await,
            (Ok(file), ZERO_RANGE) => self.path.zero_range(file.ino(), at, len, keep_size, caller).await,
            (Ok(_), _) => Err(Errno(EOPNOTSUPP)),
        };
        done(reply, result);
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
