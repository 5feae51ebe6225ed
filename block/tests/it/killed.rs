//! A killed process's LIVE lock is obtained only after its last write has landed, because it is on the open file description
//! that carries the writes. With the lock on another one (a mutation, which only this program makes) the same steps show
//! writes landing after the lock was obtained, so the test can see what it looks for.
//!
//! The child is this test program again, with one of its tests, told by environment variables which file to write, how
//! much of it at once, and where its lock is.

use std::ffi::OsStr;
use std::io::Write;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::slow::Slow;
use block::shared::{FileDisk, KillOutcome, NodeId, process_start_time};
use block::sync::{Memory, run_batch};
use block::{AlignedBuf, BlockDevice, ByteLen, ByteOffset, Completion, Io, Op, Workers};

const FILE: &str = "SHOREFAST_TEST_KILLED_FILE";
/// Set if the child's lock is on a description of its own.
const MUTATED: &str = "SHOREFAST_TEST_KILLED_MUTATED";
const NAME: &str = "it::killed::killed_process_frees_its_live_lock_after_its_last_write";
const SIZE: u64 = 16 << 20;
/// All of that under way at once ...
const LARGE: u64 = 512 << 20;
/// ... and held back in the kernel, so that what is on its way takes its time after the process has ended.
const PACE: u64 = 48 << 20;
/// Of a large file so much of the head, and so much of the tail, of each write is looked at.
const SAMPLE: usize = 4096;
/// Large enough to be under way for milliseconds, few enough that the block layer takes all at once:
/// what waits for a free tag is waited for by a thread of the process, and so by its exit.
const WRITE: usize = 1 << 20;
/// With the lock on another description one kill in three shows a late write; so many miss it with
/// a probability below one percent.
const KILLS: usize = 12;
/// The mutation is seen at the first kill, unless nothing was on its way at that very moment.
const MUTATED_KILLS: usize = 5;
/// Only a broken test waits this long.
const DEADLINE: Duration = Duration::from_secs(30);

fn victim() -> NodeId {
    NodeId::new(1).expect("a node number")
}

/// The child's part: holds its LIVE lock and keeps large writes in flight, the whole file at once, until it is killed.
fn write_until_killed(path: &OsStr) -> ! {
    let workers = Workers::start(1, "child").expect("workers start");
    let disk = FileDisk::open(path, workers.handle()).expect("opens");
    let writes = disk.device().geometry().len.0 / WRITE as u64;
    let apart = std::env::var_os(MUTATED).map(|_| FileDisk::open(path, workers.handle()).expect("opens"));
    assert!(apart.as_ref().unwrap_or(&disk).hold_live(victim()).expect("locks work"));
    println!("\nready");
    std::io::stdin().read_line(&mut String::new()).expect("it is told to begin");
    let device = disk.device();
    // Other than any before it, so that every landing write changes something.
    let mut round = std::process::id() as u8;
    loop {
        round = round.wrapping_add(1);
        let (sender, answers) = std::sync::mpsc::channel();
        for n in 0..writes {
            let sender = sender.clone();
            let mut buf = AlignedBuf::with_capacity(WRITE);
            buf.fill(round);
            let at = ByteOffset(n * WRITE as u64);
            let done = Completion::new(move |done| {
                let _ = sender.send(done.result);
            });
            device.submit(Io::write(at, buf, false, done));
        }
        drop(sender);
        for result in answers {
            result.expect("written");
        }
    }
}

struct Kill(Child);

impl Drop for Kill {
    fn drop(&mut self) {
        // Already dead in the good case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_child(path: &Path, mutated: bool, slow: Option<&Slow>) -> Kill {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", NAME, "--nocapture"]).env(FILE, path).stdin(Stdio::piped()).stdout(Stdio::piped());
    if mutated {
        command.env(MUTATED, "1");
    }
    let mut child = command.spawn().expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let ready = output.lines().map_while(Result::ok).any(|line| line == "ready");
    let mut child = Kill(child);
    assert!(ready, "the child got its lock");
    slow.iter().for_each(|slow| slow.holds_back(child.0.id()));
    child.0.stdin.as_mut().expect("piped").write_all(b"begin\n").expect("it listens");
    child
}

/// One byte per sector, read past the page cache, tells which round's write is there.
fn contents(disk: &FileDisk) -> Vec<u8> {
    let len = disk.device().geometry().len.0;
    let (whole, head, tail) = (WRITE as u64, 0, (WRITE - SAMPLE) as u64);
    let read = |at: u64, len: usize| (Op::Read, ByteOffset(at), Memory::Len(ByteLen(len as u64)));
    let starts = (0..len / whole).map(|n| n * whole);
    let reads = match len {
        LARGE => starts.flat_map(|at| [head, tail].map(|part| read(at + part, SAMPLE))).collect(),
        _ => starts.map(|at| read(at, WRITE)).collect(),
    };
    let answers = run_batch(&*disk.device(), reads);
    let pieces = answers.iter().map(|done| done.buf.as_deref().expect("read"));
    pieces.flat_map(|bytes| bytes.iter().step_by(512).copied()).collect()
}

/// A file all of whose blocks were written: overwriting them stays in flight asynchronously, past the death of the process.
/// (Writes that allocate run on kernel threads of the process, which die after it.)
fn written(size: u64) -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new().expect("a temporary file");
    let filled = vec![0; 1 << 20];
    for n in 0..size >> 20 {
        image.as_file().write_all_at(&filled, n << 20).expect("filled");
    }
    image.as_file().sync_all().expect("allocated");
    image
}

struct Rig {
    image: tempfile::NamedTempFile,
    disk: std::sync::Arc<FileDisk>,
    _workers: Workers,
}

impl Rig {
    fn new(size: u64) -> Rig {
        let image = written(size);
        let workers = Workers::start(1, "test").expect("workers start");
        let disk = FileDisk::open(image.path(), workers.handle()).expect("opens");
        Rig { image, disk, _workers: workers }
    }
}

#[test]
fn killed_process_frees_its_live_lock_after_its_last_write() {
    if let Some(path) = std::env::var_os(FILE) {
        write_until_killed(&path);
    }
    let rig = Rig::new(SIZE);
    for _ in 0..KILLS {
        assert!(!rig.a_write_lands_late(false, None), "a write landed after the lock was obtained");
    }
}

#[test]
fn of_half_a_gigabyte_in_flight_none_lands_after_the_lock_was_obtained() {
    let rig = Rig::new(LARGE);
    let slow = Slow::new(rig.image.path(), PACE);
    assert!(!rig.a_write_lands_late(false, slow.as_ref()), "a write landed after the lock was obtained");
}

#[test]
fn with_the_lock_on_another_description_writes_land_after_it_was_obtained() {
    let rig = Rig::new(LARGE);
    let Some(slow) = Slow::new(rig.image.path(), PACE) else { return };
    let seen = (0..MUTATED_KILLS).any(|_| rig.a_write_lands_late(true, Some(&slow)));
    assert!(seen, "the test cannot see a late write");
}

impl Rig {
    /// Kills a child with writes in flight: whether one landed after its lock was obtained.
    fn a_write_lands_late(&self, mutated: bool, slow: Option<&Slow>) -> bool {
        let disk = &*self.disk;
        let before = contents(disk);
        let mut child = start_child(self.image.path(), mutated, slow);
        // Writes are under way once the first has landed.
        let deadline = Instant::now() + DEADLINE;
        while contents(disk) == before {
            assert!(Instant::now() < deadline, "the child writes");
        }
        assert!(disk.try_lock_live(victim()).expect("locks work").is_none(), "it lives");
        let pid = child.0.id();
        let started = process_start_time(pid).expect("readable").expect("alive");
        assert_eq!(disk.kill_holder(pid, started).expect("killed"), KillOutcome::Signalled);
        let lock = loop {
            if let Some(lock) = disk.try_lock_live(victim()).expect("locks work") {
                break lock;
            }
            assert!(Instant::now() < deadline, "its last write lands");
            std::thread::sleep(Duration::from_micros(50));
        };
        let at_lock = contents(disk);
        child.0.wait().expect("reaped");
        // A write that was held back needs its time to land.
        let settle = if slow.is_some() { Duration::from_secs(3) } else { Duration::ZERO };
        let until = Instant::now() + settle;
        let mut looks = 0;
        while looks < 3 || Instant::now() < until {
            if contents(disk) != at_lock {
                return true;
            }
            looks += 1;
            std::thread::sleep(settle / 20);
        }
        drop(lock);
        false
    }
}
