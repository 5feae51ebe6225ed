//! A program on a mount that does what it was seeded to do, by real system calls, and writes down each call before it makes it
//! and each answer when it has it, in a file outside of the volume.
//!
//! In a folder that [`prepare`] made: a file whose blocks are registers, two of appended records (of a block, of an odd length),
//! directories with a few names each, and a file with a lock. Everything is opened relative to the folder's own descriptor: a
//! program whose node died is told so, and does not wander into the next life's mount. It ends then; on EIO it closes the handle
//! and opens the file again, as the contract says.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::event::{EIO, Nanos, Op, Outcome};
use crate::raw;
use crate::register::INITIAL;

/// Registers of a folder.
pub const BLOCKS: u64 = 12;
/// Length of a register.
pub const BLOCK: usize = 4096;
/// The files of records and their records' lengths, multiples of 8.
pub const LOGS: [(&str, usize); 2] = [("blocks.log", 4096), ("odd.log", 1000)];
/// The file of registers.
pub const REGISTERS: &str = "registers";
/// The file with the lock.
pub const LOCK: &str = "lock";
/// Directories with names.
pub const DIRECTORIES: [&str; 3] = ["names-1", "names-2", "names-3"];
/// Names in each.
pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// Records that are read in one call.
const CHUNK: usize = 32;
/// A file that cannot be opened is tried again after that.
const AGAIN: Duration = Duration::from_millis(50);

/// The host's clock: of all processes the same, and it goes on while the host sleeps.
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// What a worker is to do.
#[derive(Clone, Debug)]
pub struct Work {
    /// The folder on the mount.
    pub folder: PathBuf,
    /// What it is called in the history.
    pub called: String,
    /// The node of the mount.
    pub node: u8,
    /// Its number, which no other process of the run has.
    pub process: u32,
    /// Decides what it does.
    pub seed: u64,
    /// Whether it opens its files with O_DIRECT.
    pub direct: bool,
    /// The longest pause between two calls, in microseconds.
    pub pause_us: u64,
    /// Whether it only makes, moves and removes names: what is executed twice shows at once.
    pub only_names: bool,
    /// When the run began.
    pub zero: Nanos,
}

/// Why a worker ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to.
    Told,
    /// Its node is gone.
    Gone,
}

/// Makes the folder's files, stable, through one node.
pub fn prepare(folder: &Path) -> io::Result<()> {
    std::fs::create_dir(folder)?;
    for dir in DIRECTORIES {
        std::fs::create_dir(folder.join(dir))?;
    }
    let registers = File::create_new(folder.join(REGISTERS))?;
    (&registers).write_all(&vec![0; BLOCK * BLOCKS as usize])?;
    registers.sync_all()?;
    for name in LOGS.iter().map(|(name, _)| *name).chain([LOCK]) {
        File::create_new(folder.join(name))?.sync_all()?;
    }
    Ok(())
}

/// Looks at everything once, from the beginning: what a quiet folder holds.
pub fn look(work: &Work, log: File) -> io::Result<Ended> {
    let mut worker = Worker::new(work, log)?;
    for block in 0..BLOCKS {
        worker.read(block)?;
    }
    for which in 0..LOGS.len() {
        worker.scan(which, 0)?;
    }
    for dir in 0..DIRECTORIES.len() {
        for name in NAMES {
            worker.names(dir, Op::Stat { name: name.to_owned() })?;
        }
    }
    Ok(worker.ended())
}

/// Works until it is told to stop, or its node is gone. What cannot be written down ends it too.
pub fn run(work: &Work, log: File, stop: &AtomicBool) -> io::Result<Ended> {
    let mut worker = Worker::new(work, log)?;
    while !worker.gone && !stop.load(Ordering::Relaxed) {
        worker.something()?;
        let pause = worker.chance.below(work.pause_us.max(1));
        std::thread::sleep(Duration::from_micros(pause));
    }
    if worker.holds && !worker.gone {
        worker.unlock()?;
    }
    Ok(worker.ended())
}

struct Worker<'a> {
    work: &'a Work,
    log: File,
    folder: OwnedFd,
    directories: Vec<OwnedFd>,
    /// By its name; none after it failed, until it is opened again.
    handles: Vec<(&'static str, OFlags, Option<OwnedFd>)>,
    /// Records that were seen of each file.
    seen: [u64; LOGS.len()],
    memory: Memory,
    chance: Chance,
    values: u64,
    holds: bool,
    gone: bool,
}

/// Opens a folder, also one whose node is being evicted: what is under way then ends with EIO, and counts as such.
fn begin(work: &Work, mut log: &File, at: BorrowedFd<'_>, folder: &Path) -> io::Result<OwnedFd> {
    let object = format!("{}/folder", work.called);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        let line = raw::invoked(now() - work.zero, work.process, work.node, &object, &Op::Open);
        log.write_all(line.as_bytes())?;
        let opened = rustix::fs::openat(at, folder, flags, Mode::empty());
        let outcome = opened.as_ref().map_or_else(|e| outcome_of(*e), |_| Outcome::Done);
        log.write_all(raw::answered(now() - work.zero, work.process, &outcome).as_bytes())?;
        match outcome {
            Outcome::Failed(EIO) => std::thread::sleep(AGAIN),
            _ => return Ok(opened?),
        }
    }
}

/// What a call came to, when it came to an error.
fn outcome_of(e: Errno) -> Outcome {
    match e {
        // A connection that ended with its daemon: nobody knows.
        Errno::NOTCONN | Errno::CONNABORTED => Outcome::Unknown,
        e => Outcome::Failed(e.raw_os_error()),
    }
}

impl<'a> Worker<'a> {
    fn new(work: &'a Work, log: File) -> io::Result<Worker<'a>> {
        let folder = begin(work, &log, CWD, &work.folder)?;
        let directories: io::Result<Vec<OwnedFd>> =
            DIRECTORIES.iter().map(|d| begin(work, &log, folder.as_fd(), Path::new(d))).collect();
        let direct = if work.direct { OFlags::DIRECT } else { OFlags::empty() };
        let mut handles = vec![(REGISTERS, OFlags::RDWR | direct, None), (LOCK, OFlags::RDWR, None)];
        handles.extend(LOGS.map(|(name, _)| (name, OFlags::RDWR | OFlags::APPEND | direct, None)));
        Ok(Worker {
            work,
            log,
            folder,
            directories: directories?,
            handles,
            seen: [0; LOGS.len()],
            memory: Memory::new(BLOCK * CHUNK),
            chance: Chance(work.seed ^ u64::from(work.process).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            values: 0,
            holds: false,
            gone: false,
        })
    }

    fn ended(&self) -> Ended {
        if self.gone { Ended::Gone } else { Ended::Told }
    }

    fn value(&mut self) -> u64 {
        self.values += 1;
        u64::from(self.work.process) << 32 | self.values
    }

    fn something(&mut self) -> io::Result<()> {
        let which = self.chance.below(LOGS.len() as u64) as usize;
        match self.chance.below(100) {
            _ if self.work.only_names => self.some_name(),
            0..22 => {
                let block = self.chance.below(BLOCKS);
                self.write(block)
            }
            22..44 => {
                let block = self.chance.below(BLOCKS);
                self.read(block)
            }
            44..48 => self.fsync(REGISTERS),
            48..62 => self.append(which),
            62..66 => self.fsync(LOGS[which].0),
            66..71 => self.scan(which, self.seen[which]),
            71..80 if self.holds => self.unlock(),
            71..80 => self.lock(),
            _ => self.some_name(),
        }
    }

    /// Writes the call down, makes it, writes the answer down.
    fn call(&mut self, name: &str, op: Op, f: impl FnOnce(&mut Self) -> Result<Outcome, Errno>) -> io::Result<Outcome> {
        let Work { process, node, zero, .. } = *self.work;
        let object = format!("{}/{name}", self.work.called);
        self.log.write_all(raw::invoked(now() - zero, process, node, &object, &op).as_bytes())?;
        let outcome = f(self).unwrap_or_else(outcome_of);
        self.log.write_all(raw::answered(now() - zero, process, &outcome).as_bytes())?;
        self.gone |= outcome == Outcome::Unknown;
        Ok(outcome)
    }

    /// A call on a file that is open; opens it before if it is not, and closes it when it fails.
    fn on(
        &mut self,
        name: &'static str,
        op: Op,
        f: impl FnOnce(&mut Self, &OwnedFd) -> Result<Outcome, Errno>,
    ) -> io::Result<Outcome> {
        let Some(at) = self.handles.iter().position(|(n, ..)| *n == name) else {
            return Err(io::Error::other(format!("{name} is none of its files")));
        };
        let handle = match self.handles[at].2.take() {
            Some(handle) => handle,
            None => match self.open(name, self.handles[at].1)? {
                Some(handle) => handle,
                None => return Ok(Outcome::Unknown),
            },
        };
        let outcome = self.call(name, op, |w| f(w, &handle))?;
        match outcome {
            Outcome::Failed(EIO) => self.holds &= name != LOCK,
            _ => self.handles[at].2 = Some(handle),
        }
        Ok(outcome)
    }

    fn open(&mut self, name: &'static str, flags: OFlags) -> io::Result<Option<OwnedFd>> {
        let mut opened = None;
        self.call(name, Op::Open, |w| {
            opened = Some(rustix::fs::openat(&w.folder, name, flags | OFlags::CLOEXEC, Mode::empty())?);
            Ok(Outcome::Done)
        })?;
        if opened.is_none() {
            std::thread::sleep(AGAIN);
        }
        Ok(opened)
    }

    fn write(&mut self, block: u64) -> io::Result<()> {
        let value = self.value();
        self.on(REGISTERS, Op::Write { block, value }, |w, file| {
            let bytes = w.memory.filled(BLOCK, value);
            let n = rustix::io::pwrite(file, bytes, block * BLOCK as u64)?;
            // A part of a block is no block; it shows as torn if it is read.
            Ok(if n == BLOCK { Outcome::Done } else { Outcome::Torn })
        })
        .map(drop)
    }

    fn read(&mut self, block: u64) -> io::Result<()> {
        self.on(REGISTERS, Op::Read { block }, |w, file| {
            let bytes = w.memory.bytes(BLOCK);
            let n = rustix::io::pread(file, &mut *bytes, block * BLOCK as u64)?;
            Ok(whole(bytes.get(..n).filter(|b| b.len() == BLOCK)).map_or(Outcome::Torn, Outcome::Value))
        })
        .map(drop)
    }

    fn fsync(&mut self, name: &'static str) -> io::Result<()> {
        let synced = |_: &mut Self, file: &OwnedFd| rustix::fs::fsync(file).map(|()| Outcome::Done);
        self.on(name, Op::Fsync, synced).map(drop)
    }

    fn append(&mut self, which: usize) -> io::Result<()> {
        let (name, len) = LOGS[which];
        let value = self.value();
        self.on(name, Op::Append { value }, |w, file| {
            let n = rustix::io::write(file, w.memory.filled(len, value))?;
            Ok(if n == len { Outcome::Done } else { Outcome::Torn })
        })
        .map(drop)
    }

    fn scan(&mut self, which: usize, from: u64) -> io::Result<()> {
        let (name, len) = LOGS[which];
        let outcome = self.on(name, Op::Scan { from }, |w, file| {
            let mut found = Vec::new();
            loop {
                let bytes = w.memory.bytes(len * CHUNK);
                let n = rustix::io::pread(file, &mut *bytes, (from + found.len() as u64) * len as u64)?;
                for record in bytes.get(..n).unwrap_or_default().chunks(len) {
                    match whole(Some(record).filter(|r| r.len() == len)) {
                        Some(value) if value != INITIAL => found.push(value),
                        _ => return Ok(Outcome::Torn),
                    }
                }
                if n == 0 {
                    return Ok(Outcome::Records(found));
                }
            }
        })?;
        if let Outcome::Records(found) = outcome {
            self.seen[which] = from + found.len() as u64;
        }
        Ok(())
    }

    fn lock(&mut self) -> io::Result<()> {
        let outcome = self.on(LOCK, Op::Lock, |_, file| {
            match rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Outcome::Done),
                Err(Errno::AGAIN | Errno::ACCESS) => Ok(Outcome::Taken),
                Err(e) => Err(e),
            }
        })?;
        self.holds = outcome == Outcome::Done;
        Ok(())
    }

    fn unlock(&mut self) -> io::Result<()> {
        let given = |_: &mut Self, file: &OwnedFd| {
            rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingUnlock).map(|()| Outcome::Done)
        };
        self.on(LOCK, Op::Unlock, given)?;
        self.holds = false;
        Ok(())
    }

    fn some_name(&mut self) -> io::Result<()> {
        let dir = self.chance.below(DIRECTORIES.len() as u64) as usize;
        let name = |n: u64| NAMES[n as usize % NAMES.len()].to_owned();
        let one = self.chance.below(NAMES.len() as u64);
        let op = match self.chance.below(8) {
            0 | 1 => Op::Create { name: name(one) },
            2 => Op::Unlink { name: name(one) },
            3 | 4 => Op::Rename { from: name(one), to: name(one + 1 + self.chance.below(2)) },
            _ => Op::Stat { name: name(one) },
        };
        self.names(dir, op)
    }

    fn names(&mut self, dir: usize, op: Op) -> io::Result<()> {
        let asked = op.clone();
        self.call(DIRECTORIES[dir], op, |w| {
            let dir = w.directories[dir].as_fd();
            let done = match &asked {
                Op::Create { name } => {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                    let made = rustix::fs::openat(dir, name.as_str(), flags, Mode::from_raw_mode(0o600));
                    // It was made, whatever becomes of the question for its number.
                    made.map(|file| rustix::fs::fstat(file).map_or(Outcome::Done, |found| Outcome::Inode(found.st_ino)))
                }
                Op::Unlink { name } => {
                    rustix::fs::unlinkat(dir, name.as_str(), AtFlags::empty()).map(|()| Outcome::Done)
                }
                Op::Rename { from, to } => {
                    rustix::fs::renameat(dir, from.as_str(), dir, to.as_str()).map(|()| Outcome::Done)
                }
                Op::Stat { name } => look_at(dir, name).map(|found| Outcome::Inode(found.st_ino)),
                _ => Err(Errno::INVAL),
            };
            match done {
                Err(Errno::EXIST) => Ok(Outcome::Taken),
                Err(Errno::NOENT) => Ok(Outcome::Absent),
                other => other,
            }
        })
        .map(drop)
    }
}

/// What has a name. One that is replaced again and again meanwhile is ESTALE, and is looked for again (docs/posix.md).
fn look_at(dir: BorrowedFd<'_>, name: &str) -> Result<Stat, Errno> {
    loop {
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::STALE) => (),
            found => return found,
        }
    }
}

/// The one value of which something consists.
fn whole(bytes: Option<&[u8]>) -> Option<u64> {
    let (first, _) = bytes?.split_first_chunk::<8>()?;
    bytes?.chunks(8).all(|word| word == first).then(|| u64::from_le_bytes(*first))
}

/// Memory on a page boundary, as O_DIRECT wants it.
struct Memory {
    bytes: Vec<u8>,
    from: usize,
}

impl Memory {
    fn new(len: usize) -> Memory {
        let bytes = vec![0; len + BLOCK];
        let from = bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
        Memory { bytes, from }
    }

    fn bytes(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + len]
    }

    fn filled(&mut self, len: usize, value: u64) -> &[u8] {
        let bytes = self.bytes(len);
        bytes.chunks_mut(8).for_each(|word| word.copy_from_slice(&value.to_le_bytes()[..word.len()]));
        bytes
    }
}

/// Reproducible chance (splitmix64).
#[derive(Clone, Copy, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}
