//! The file system of one file.
//!
//! Reads and writes go to the device as they come; both must be aligned to its logical block
//! (EINVAL otherwise), as `O_DIRECT` has it. The size never changes. Everything else is the least
//! that fio and cp need.

use block::{AlignedBuf, BlockDevice, ByteLen, Completion, Done, FileDevice, Io};
use fuse::op::{Read, ReadDir, Write};
use fuse::{Attr, DirBuf, Entry, FileHandle, FileKind, OpenFlags, Opened, Operation, Reply, Request, Statfs, Time};
use std::time::{Duration, SystemTime};

const ROOT: u64 = 1;
const FILE: u64 = 2;
/// Names and attributes never change.
const TTL: Duration = Duration::from_secs(3600);

pub(crate) struct PassThrough {
    device: FileDevice,
    name: String,
    len: ByteLen,
    block: u64,
    born: Time,
}

impl PassThrough {
    pub(crate) fn new(device: FileDevice, name: &str) -> Self {
        let geometry = device.geometry();
        let (len, block) = (geometry.len, geometry.logical_block.bytes());
        Self { device, name: name.into(), len, block, born: SystemTime::now().into() }
    }

    pub(crate) fn handle(&self, request: Request) {
        let Request { nodeid, op, reply, .. } = request;
        match op {
            Operation::Read(read) => self.read(&read, reply),
            Operation::Write(write) => self.write(write, reply),
            Operation::Fsync { .. } => self.flush(reply),
            Operation::Readdir(dir) => self.readdir(&dir, false, reply),
            Operation::Readdirplus(dir) => self.readdir(&dir, true, reply),
            op => self.rest(nodeid, &op, reply),
        }
    }

    fn rest(&self, nodeid: u64, op: &Operation, reply: Reply) {
        // Nothing here is undone when an answer does not arrive.
        let _ = match op {
            Operation::Lookup { name } if nodeid == ROOT && **name == *self.name.as_bytes() => {
                reply.entry(&self.entry())
            }
            Operation::Lookup { .. } => reply.negative(TTL),
            Operation::Getattr { .. } | Operation::Setattr(_) => reply.attr(&self.attr(nodeid), TTL),
            Operation::Statx(_) => reply.statx(&self.attr(nodeid), Some(self.born), TTL),
            Operation::Open { .. } => {
                let flags = OpenFlags::DIRECT_IO.and(OpenFlags::PARALLEL_DIRECT_WRITES);
                reply.opened(Opened { fh: FileHandle(0), flags })
            }
            Operation::Opendir { .. } => reply.opened(Opened { fh: FileHandle(0), flags: OpenFlags::CACHE_DIR }),
            Operation::Flush { .. } | Operation::Release(_) | Operation::Releasedir(_) | Operation::Fsyncdir { .. } => {
                reply.empty()
            }
            Operation::Fallocate(range) if range.mode == 0 => reply.empty(),
            Operation::Statfs => reply.statfs(&self.statfs()),
            _ => reply.unsupported(),
        };
    }

    fn read(&self, read: &Read, reply: Reply) {
        let left = self.len.0.saturating_sub(read.offset.0);
        let len = u64::from(read.size).min(left);
        if !self.aligned(read.offset.0, len) {
            reply.error(libc::EINVAL);
            return;
        }
        let Some(len) = ByteLen(len).as_usize() else {
            reply.error(libc::EINVAL);
            return;
        };
        let done = Completion::new(move |done: Done| {
            let _ = match (done.result, done.buf) {
                (Ok(()), Some(data)) => reply.data(&data),
                (Ok(()), None) => reply.error(libc::EIO),
                (Err(error), _) => reply.error(error.errno()),
            };
        });
        self.device.submit(Io::read_into(read.offset, AlignedBuf::with_capacity(len), done));
    }

    fn write(&self, write: Write, reply: Reply) {
        let len = ByteLen::of(&write.data).0;
        let inside = write.offset.0.checked_add(len).is_some_and(|end| end <= self.len.0);
        if !inside || !self.aligned(write.offset.0, len) {
            reply.error(if inside { libc::EINVAL } else { libc::ENOSPC });
            return;
        }
        let done = Completion::new(move |done: Done| {
            let _ = match done.result {
                // At most max_write.
                Ok(()) => reply.written(len as u32),
                Err(error) => reply.error(error.errno()),
            };
        });
        self.device.submit(Io::write(write.offset, write.data, false, done));
    }

    fn flush(&self, reply: Reply) {
        let done = Completion::new(move |done: Done| {
            let _ = match done.result {
                Ok(()) => reply.empty(),
                Err(error) => reply.error(error.errno()),
            };
        });
        self.device.submit(Io::flush(done));
    }

    fn aligned(&self, offset: u64, len: u64) -> bool {
        (offset | len).is_multiple_of(self.block)
    }

    fn readdir(&self, dir: &ReadDir, plus: bool, reply: Reply) {
        let mut out = DirBuf::new(dir.size);
        let dots = [(1, "."), (2, "..")];
        let mut room = dots.iter().filter(|(next, _)| dir.cookie < *next).all(|(next, name)| match plus {
            true => out.push_plus_bare(ROOT, *next, FileKind::Directory, name.as_bytes()),
            false => out.push(ROOT, *next, FileKind::Directory, name.as_bytes()),
        });
        if dir.cookie < 3 && room {
            room = match plus {
                true => out.push_plus(&self.entry(), 3, self.name.as_bytes()),
                false => out.push(FILE, 3, FileKind::Regular, self.name.as_bytes()),
            };
        }
        // What found no room is asked for again, from the cookie before it.
        let _ = if room || !out.is_empty() { reply.directory(&out) } else { reply.error(libc::EINVAL) };
    }

    fn entry(&self) -> Entry {
        Entry { nodeid: FILE, generation: 0, attr: self.attr(FILE), entry_ttl: TTL, attr_ttl: TTL }
    }

    fn attr(&self, nodeid: u64) -> Attr {
        let file = nodeid == FILE;
        let size = if file { self.len } else { ByteLen::ZERO };
        Attr {
            ino: nodeid,
            size,
            blocks: size.0 / 512,
            atime: self.born,
            mtime: self.born,
            ctime: self.born,
            kind: if file { FileKind::Regular } else { FileKind::Directory },
            perm: if file { 0o666 } else { 0o755 },
            nlink: if file { 1 } else { 2 },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
        }
    }

    fn statfs(&self) -> Statfs {
        Statfs { blocks: self.len.0 / 4096, bsize: 4096, frsize: 4096, namelen: 255, files: 1, ..Statfs::default() }
    }
}
