//! A killed process's LIVE lock is obtained only after its last write has landed.
//!
//! The child is this test program again, with the same test, told by an environment variable which
//! file to write.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use block::shared::{FileDisk, KillOutcome, NodeId, process_start_time};
use block::sync::{Memory, run_batch};
use block::{AlignedBuf, BlockDevice, ByteLen, ByteOffset, Completion, Io, Op, Workers};

const FILE: &str = "SHOREFAST_TEST_KILLED_FILE";
const NAME: &str = "it::killed::killed_process_frees_its_live_lock_after_its_last_write";
const SIZE: u64 = 16 << 20;
/// Large enough to be under way for milliseconds, few enough that the block layer takes all at once:
/// what waits for a free tag is waited for by a thread of the process, and so by its exit.
const WRITE: usize = 1 << 20;
const DEPTH: u64 = 16;
/// With the lock on another description one kill in three shows a late write; so many miss it with
/// a probability below one percent.
const KILLS: usize = 12;
/// Only a broken test waits this long.
const DEADLINE: Duration = Duration::from_secs(30);

fn victim() -> NodeId {
    NodeId::new(1).expect("a node number")
}

/// The child's part: holds its LIVE lock and keeps large writes in flight until it is killed.
fn write_until_killed(path: &OsStr) -> ! {
    let workers = Workers::start(1, "child").expect("workers start");
    let disk = FileDisk::open(path, workers.handle()).expect("opens");
    assert!(disk.hold_live(victim()).expect("locks work"));
    println!("\nready");
    let device = disk.device();
    // Other than any before it, so that every landing write changes something.
    let mut round = std::process::id() as u8;
    loop {
        round = round.wrapping_add(1);
        let (sender, answers) = std::sync::mpsc::channel();
        for n in 0..DEPTH {
            let sender = sender.clone();
            let mut buf = AlignedBuf::with_capacity(WRITE);
            buf.fill(round);
            let at = ByteOffset(n * WRITE as u64 % SIZE);
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

fn start_child(path: &Path) -> Kill {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["--exact", NAME, "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let ready = output.lines().map_while(Result::ok).any(|line| line == "ready");
    let child = Kill(child);
    assert!(ready, "the child got its lock");
    child
}

/// One byte per sector, read past the page cache, tells which round's write is there.
fn contents(disk: &FileDisk) -> Vec<u8> {
    let piece = |n: u64| (Op::Read, ByteOffset(n * WRITE as u64), Memory::Len(ByteLen(WRITE as u64)));
    let reads = (0..SIZE / WRITE as u64).map(piece).collect();
    let answers = run_batch(&*disk.device(), reads);
    let pieces = answers.iter().map(|done| done.buf.as_deref().expect("read"));
    pieces.flat_map(|bytes| bytes.iter().step_by(512).copied()).collect()
}

#[test]
fn killed_process_frees_its_live_lock_after_its_last_write() {
    if let Some(path) = std::env::var_os(FILE) {
        write_until_killed(&path);
    }
    let image = tempfile::NamedTempFile::new().expect("a temporary file");
    // Written blocks: overwriting them stays in flight asynchronously, past the death of the process.
    // (Writes that allocate run on kernel threads of the process, which die after it.)
    let filled = vec![0; 1 << 20];
    for n in 0..SIZE >> 20 {
        image.as_file().write_all_at(&filled, n << 20).expect("filled");
    }
    image.as_file().sync_all().expect("allocated");
    let workers = Workers::start(1, "test").expect("workers start");
    let disk = FileDisk::open(image.path(), workers.handle()).expect("opens");
    for _ in 0..KILLS {
        kill_one(image.path(), &disk);
    }
}

fn kill_one(path: &Path, disk: &FileDisk) {
    let before = contents(disk);
    let mut child = start_child(path);
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
    for _ in 0..3 {
        assert!(contents(disk) == at_lock, "a write landed after the lock was obtained");
    }
    drop(lock);
}
