//! A file system in memory: one directory, files by name, and files with a will of their own.
//!
//! What happens to a request can be changed by the file's name: reading `hang` waits until it is
//! interrupted, reading `forgotten` drops the reply, reading `pair` waits until two requests are being
//! served at once, opening `cached` lets the kernel cache. SETLKW always waits for an interrupt.

use block::units::ByteLen;
use fuse::op::{Read, ReadDir, Write};
use fuse::{
    Attr, DirBuf, Entry, FileHandle, FileKind, Interrupts, OpenFlags, Opened, Operation, Reply, Request, Statfs, Time,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

const ROOT: u64 = 1;
/// Long enough that nothing expires during a test.
const CACHED: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Read { offset: u64, size: u32 },
    Write { len: usize, aligned: bool },
    Lock { flock: bool, wait: bool },
    Getlk { flock: bool },
    Interrupt,
    Lookup(String),
    Fallocate,
    Statx,
    Release { flock: bool },
    Flush,
}

pub(crate) struct MemFs {
    state: Mutex<State>,
    pair: Barrier,
    interrupts: Interrupts,
}

struct State {
    files: BTreeMap<u64, Vec<u8>>,
    /// Cookie to name and inode. Cookies 1 and 2 are "." and "..".
    entries: BTreeMap<u64, (String, u64)>,
    next: u64,
    seen: Vec<Seen>,
}

impl MemFs {
    pub(crate) fn new(names: &[&str]) -> Arc<Self> {
        let state = State { files: BTreeMap::new(), entries: BTreeMap::new(), next: 3, seen: Vec::new() };
        let fs = Self { state: Mutex::new(state), pair: Barrier::new(2), interrupts: Interrupts::new() };
        for name in names {
            fs.add(name, b"");
        }
        Arc::new(fs)
    }

    pub(crate) fn add(&self, name: &str, data: &[u8]) -> u64 {
        let mut state = self.state.lock().unwrap();
        let cookie = state.next;
        state.next += 1;
        state.files.insert(100 + cookie, data.to_vec());
        state.entries.insert(cookie, (name.into(), 100 + cookie));
        100 + cookie
    }

    /// Changes a file behind the kernel's back.
    pub(crate) fn set(&self, ino: u64, data: &[u8]) {
        self.state.lock().unwrap().files.insert(ino, data.to_vec());
    }

    pub(crate) fn seen(&self, wanted: impl Fn(&Seen) -> bool) -> usize {
        self.state.lock().unwrap().seen.iter().filter(|seen| wanted(seen)).count()
    }

    pub(crate) fn handle(&self, request: Request) {
        let Request { nodeid, op, reply, .. } = request;
        match op {
            Operation::Lookup { name } => self.lookup(&name.to_string(), reply),
            Operation::Getattr { .. } => self.getattr(nodeid, reply),
            Operation::Statx(_) => {
                self.note(Seen::Statx);
                let birth = Time { seconds: 86_400, nanos: 5 };
                let _ = reply.statx(&self.attr(nodeid), Some(birth), Duration::ZERO);
            }
            Operation::Setattr(change) => {
                if let Some(size) = change.size {
                    let mut state = self.state.lock().unwrap();
                    let file = state.files.entry(nodeid).or_default();
                    file.resize(size.as_usize().unwrap(), 0);
                }
                self.getattr(nodeid, reply);
            }
            Operation::Create(create) => {
                let ino = self.add(&create.name.to_string(), b"");
                let _ = reply.created(&self.entry(ino, Duration::ZERO), self.opened(ino));
            }
            Operation::Unlink { name } => self.unlink(&name.to_string(), reply),
            Operation::Open { .. } => drop_delivery(reply.opened(self.opened(nodeid))),
            Operation::Opendir { .. } => {
                let opened = Opened { fh: FileHandle(0), flags: OpenFlags::NONE };
                drop_delivery(reply.opened(opened));
            }
            Operation::Read(read) => self.read(nodeid, &read, reply),
            Operation::Write(write) => self.write(nodeid, &write, reply),
            Operation::Readdir(dir) => self.readdir(&dir, false, reply),
            Operation::Readdirplus(dir) => self.readdir(&dir, true, reply),
            Operation::Statfs => {
                let statfs =
                    Statfs { blocks: 1000, bfree: 500, bsize: 4096, frsize: 4096, namelen: 255, ..Statfs::default() };
                drop_delivery(reply.statfs(&statfs));
            }
            op => self.rest(op, reply),
        }
    }

    /// What is only noted.
    fn rest(&self, op: Operation, reply: Reply) {
        let delivery = match op {
            Operation::Flush { .. } => {
                self.note(Seen::Flush);
                reply.empty()
            }
            Operation::Release(release) => {
                self.note(Seen::Release { flock: release.flock_owner.is_some() });
                reply.empty()
            }
            Operation::Fsync { .. } | Operation::Releasedir(_) => reply.empty(),
            Operation::Setlk(lock) => {
                self.note(Seen::Lock { flock: lock.flock, wait: false });
                reply.empty()
            }
            Operation::Setlkw(lock) => {
                self.note(Seen::Lock { flock: lock.flock, wait: true });
                return self.wait_for_interrupt(reply);
            }
            Operation::Getlk(lock) => {
                self.note(Seen::Getlk { flock: lock.flock });
                let mut free = lock.lock;
                free.kind = fuse::op::LockKind::Unlock;
                reply.lock(&free)
            }
            Operation::Interrupt { unique } => {
                self.note(Seen::Interrupt);
                self.interrupts.interrupt(unique);
                return;
            }
            Operation::Fallocate(_) => {
                self.note(Seen::Fallocate);
                reply.unsupported()
            }
            // Anything else would fail the permission checks of whoever does not own the file.
            Operation::Getxattr { name, .. } if name.starts_with(b"system.posix_acl_") => {
                reply.error(rustix::io::Errno::NODATA.raw_os_error())
            }
            _ => reply.unsupported(),
        };
        drop_delivery(delivery);
    }

    fn note(&self, seen: Seen) {
        self.state.lock().unwrap().seen.push(seen);
    }

    fn lookup(&self, name: &str, reply: Reply) {
        self.note(Seen::Lookup(name.into()));
        let found = self.find(name);
        let ttl = if name == "cached" { CACHED } else { Duration::ZERO };
        drop_delivery(match found {
            Some((_, ino)) => reply.entry(&self.entry(ino, ttl)),
            None => reply.negative(Duration::ZERO),
        });
    }

    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let state = self.state.lock().unwrap();
        state.entries.iter().find(|(_, entry)| entry.0 == name).map(|(cookie, entry)| (*cookie, entry.1))
    }

    fn name_of(&self, ino: u64) -> String {
        let state = self.state.lock().unwrap();
        state.entries.values().find(|entry| entry.1 == ino).map_or(String::new(), |entry| entry.0.clone())
    }

    fn unlink(&self, name: &str, reply: Reply) {
        let Some((cookie, ino)) = self.find(name) else {
            return drop_delivery(reply.error(libc::ENOENT));
        };
        let mut state = self.state.lock().unwrap();
        state.entries.remove(&cookie);
        state.files.remove(&ino);
        drop(state);
        drop_delivery(reply.empty());
    }

    fn getattr(&self, ino: u64, reply: Reply) {
        let ttl = if self.name_of(ino) == "cached" { CACHED } else { Duration::ZERO };
        drop_delivery(reply.attr(&self.attr(ino), ttl));
    }

    fn attr(&self, ino: u64) -> Attr {
        let directory = ino == ROOT;
        let len = self.state.lock().unwrap().files.get(&ino).map_or(0, Vec::len);
        attr(ino, directory, len)
    }

    fn entry(&self, ino: u64, ttl: Duration) -> Entry {
        Entry { nodeid: ino, generation: 0, attr: self.attr(ino), entry_ttl: ttl, attr_ttl: ttl }
    }

    fn opened(&self, ino: u64) -> Opened {
        let flags = match self.name_of(ino).as_str() {
            "cached" => OpenFlags::KEEP_CACHE,
            _ => OpenFlags::DIRECT_IO.and(OpenFlags::PARALLEL_DIRECT_WRITES),
        };
        Opened { fh: FileHandle(ino), flags }
    }

    fn read(&self, ino: u64, read: &Read, reply: Reply) {
        self.note(Seen::Read { offset: read.offset.0, size: read.size });
        match self.name_of(ino).as_str() {
            "forgotten" => return drop(reply),
            "hang" => return self.wait_for_interrupt(reply),
            "pair" => drop(self.pair.wait()),
            _ => {}
        }
        let state = self.state.lock().unwrap();
        let file = &state.files[&ino];
        let from = usize::try_from(read.offset.0).unwrap().min(file.len());
        let to = file.len().min(from + read.size as usize);
        // In two pieces, to have the vectored answer in use.
        let middle = from + (to - from) / 2;
        drop_delivery(reply.data_vectored(&[&file[from..middle], &file[middle..to]]));
    }

    fn write(&self, ino: u64, write: &Write, reply: Reply) {
        self.note(Seen::Write { len: write.data.len(), aligned: write.data.is_aligned_to(4096) });
        let mut state = self.state.lock().unwrap();
        let Some(file) = state.files.get_mut(&ino) else {
            return drop_delivery(reply.error(libc::EIO));
        };
        let from = usize::try_from(write.offset.0).unwrap();
        let to = from + write.data.len();
        if file.len() < to {
            file.resize(to, 0);
        }
        file[from..to].copy_from_slice(&write.data);
        drop(state);
        drop_delivery(reply.written(u32::try_from(write.data.len()).unwrap()));
    }

    fn readdir(&self, dir: &ReadDir, plus: bool, reply: Reply) {
        let mut out = DirBuf::new(dir.size);
        let mut push = |ino: u64, next: u64, name: &str| {
            let kind = if ino == ROOT { FileKind::Directory } else { FileKind::Regular };
            match (plus, ino) {
                (false, _) => out.push(ino, next, kind, name.as_bytes()),
                (true, ROOT) => out.push_plus_bare(ino, next, kind, name.as_bytes()),
                (true, _) => out.push_plus(&self.entry(ino, Duration::ZERO), next, name.as_bytes()),
            }
        };
        for (cookie, name) in [(1, "."), (2, "..")] {
            if dir.cookie < cookie && !push(ROOT, cookie, name) {
                break;
            }
        }
        let from = dir.cookie.max(2) + 1;
        let rest: Vec<_> = {
            let state = self.state.lock().unwrap();
            // More than any answer has room for.
            state.entries.range(from..).take(1000).map(|(c, (name, ino))| (*c, name.clone(), *ino)).collect()
        };
        for (cookie, name, ino) in rest {
            if !push(ino, cookie, &name) {
                break;
            }
        }
        drop_delivery(reply.directory(&out));
    }

    fn wait_for_interrupt(&self, reply: Reply) {
        let mut watch = self.interrupts.watch(reply.unique());
        tokio::task::spawn_local(async move {
            watch.interrupted().await;
            let _ = reply.error(libc::EINTR);
        });
    }
}

/// A memory file system has nothing to undo when an answer does not arrive.
fn drop_delivery(_: fuse::Delivery) {}

/// What everybody may do anything with.
pub(crate) fn attr(ino: u64, directory: bool, len: usize) -> Attr {
    Attr {
        ino,
        size: ByteLen::from_usize(len),
        blocks: (len as u64).div_ceil(512),
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        kind: if directory { FileKind::Directory } else { FileKind::Regular },
        perm: if directory { 0o777 } else { 0o666 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
    }
}
