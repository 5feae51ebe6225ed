//! The ioctls that are answered: how direct I/O must be aligned, and the flags and hints of an inode. Everything else
//! gets ENOTTY, as on any file system that does not know it.
//!
//! The extent-size hint and the project are kept and told. The hint is not used: a growing file takes space ahead by its
//! length, and a node would have to be told the hint of each file it opens to go by it.

use fuse::Reply;
use fuse::op::Ioctl;

use super::{FileSystem, odd, sent};
use crate::client::session::{Caller, Errno};
use crate::proto::{Hints, HintsCall, Reply as Answer, Request};
use crate::types::InodeNo;

/// `XFS_IOC_DIOINFO`: three u32, alignment of memory, least and greatest size of direct I/O. Virtual machine monitors
/// ask any file system for it.
const XFS_IOC_DIOINFO: u32 = 0x800c_581e;
/// `FS_IOC_GETFLAGS`: an int on Linux, whatever its number says.
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
/// `FS_IOC_SETFLAGS`.
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
/// `FS_IOC_FSGETXATTR`: `struct fsxattr`, 28 bytes.
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
/// `FS_IOC_FSSETXATTR`.
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
/// `FS_XFLAG_EXTSIZE`: the extent size of `struct fsxattr` counts.
const FS_XFLAG_EXTSIZE: u32 = 0x800;
/// Alignment of memory: any sector; the daemon copies what lies otherwise.
const MEMORY: u32 = 512;

const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();

/// `struct fsxattr`, as far as it has meaning here.
struct Fsxattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
}

impl Fsxattr {
    fn parse(bytes: &[u8]) -> Result<Fsxattr, Errno> {
        let word = |n: usize| bytes.get(n * 4..n * 4 + 4).and_then(|w| w.try_into().ok()).map(u32::from_ne_bytes);
        match (word(0), word(1), word(3)) {
            (Some(flags), Some(extent_size), Some(project)) => Ok(Fsxattr { flags, extent_size, extents: 0, project }),
            _ => Err(Errno(EINVAL)),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let words = [self.flags, self.extent_size, self.extents, self.project, 0, 0, 0];
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }
}

impl FileSystem {
    pub(super) async fn ioctl(&self, ino: InodeNo, ioctl: Ioctl, reply: Reply, caller: &Caller) {
        let answer = match ioctl.cmd {
            XFS_IOC_DIOINFO => Ok(self.direct_io_info()),
            FS_IOC_GETFLAGS => Ok(0_u32.to_ne_bytes().to_vec()),
            FS_IOC_SETFLAGS => match ioctl.input.iter().all(|b| *b == 0) {
                true => Ok(Vec::new()),
                false => Err(Errno(EOPNOTSUPP)),
            },
            FS_IOC_FSGETXATTR => self.get_fsxattr(ino, caller).await,
            FS_IOC_FSSETXATTR => self.set_fsxattr(ino, &ioctl.input, caller).await,
            _ => return sent(reply.unsupported()),
        };
        sent(match answer {
            Ok(mut bytes) => {
                bytes.truncate(ioctl.out_size as usize);
                reply.ioctl(0, &bytes)
            }
            Err(Errno(errno)) => reply.error(errno),
        });
    }

    fn direct_io_info(&self) -> Vec<u8> {
        let least = u32::try_from(self.path.logical_block()).unwrap_or(MEMORY);
        let greatest = i32::MAX.cast_unsigned() & !(least - 1);
        [MEMORY, least, greatest].iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    async fn get_fsxattr(&self, ino: InodeNo, caller: &Caller) -> Result<Vec<u8>, Errno> {
        // So that the extents of what this node wrote are counted; other nodes are asked by the coordinator.
        if let Some(inode) = self.path.known(ino) {
            self.path.settle_times(&inode, caller).await?;
        }
        self.fsxattr(HintsCall::Get { ino }, caller).await.map(|x| x.bytes())
    }

    async fn fsxattr(&self, call: HintsCall, caller: &Caller) -> Result<Fsxattr, Errno> {
        match self.path.session.call(caller, Request::Hints(call)).await? {
            Answer::Hints { hints: Hints { extent_size, project }, extents } => {
                let flags = if extent_size > 0 { FS_XFLAG_EXTSIZE } else { 0 };
                Ok(Fsxattr { flags, extent_size, extents, project })
            }
            other => odd(other),
        }
    }

    async fn set_fsxattr(&self, ino: InodeNo, input: &[u8], caller: &Caller) -> Result<Vec<u8>, Errno> {
        let wanted = Fsxattr::parse(input)?;
        if wanted.flags & !FS_XFLAG_EXTSIZE != 0 {
            return Err(Errno(EOPNOTSUPP));
        }
        let extent_size = if wanted.flags & FS_XFLAG_EXTSIZE != 0 { wanted.extent_size } else { 0 };
        let hints = Hints { extent_size, project: wanted.project };
        self.fsxattr(HintsCall::Set { ino, hints }, caller).await.map(|_| Vec::new())
    }
}
