//! A program on one node that works all the time: it writes blocks in place, reads each back before it writes it again, and
//! makes, fills, renames and removes files. What a call returned it remembers; a call that fails it notes, and goes on.
//!
//! It is a process of its own: whatever else the test starts would inherit its open file and close it, and a close waits for
//! a coordinator that a node which is cut off does not have.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use block::buf::AlignedBuf;

use crate::fixture::PATIENCE;

/// Set for that process: its folder.
const ROLE: &str = "SHOREFAST_TEST_LOAD";
/// The test that it is started as.
const TEST: &str = "cuts::the_rule_of_the_test_is_the_written_one";

const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();
const BLOCK: usize = 4096;
/// Blocks that are written in turn.
const BLOCKS: u64 = 16;
/// Between two rounds: it is load, and leaves the machine to others.
const BREATH: Duration = Duration::from_millis(3);
/// Files that are kept at a time.
const KEPT: u64 = 8;

/// What it has done and seen.
#[derive(Default)]
struct State {
    stop: AtomicBool,
    /// Rounds over: each is a block written in place, and a file made, synced and renamed.
    rounds: AtomicU64,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    errors: Vec<(String, i32)>,
    /// For each block what it may hold: what was acknowledged last, and since then attempts that failed.
    blocks: Vec<Vec<u64>>,
    /// Names that are there for sure.
    names: BTreeSet<u64>,
    /// Names that a failed call may have made, or taken away.
    doubtful: BTreeSet<u64>,
}

/// The program, running.
pub(crate) struct Load {
    of: usize,
    /// The name of its folder on the volume.
    pub(crate) folder: String,
    child: Option<Child>,
    input: ChildStdin,
    said: Mutex<mpsc::Receiver<String>>,
}

impl State {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Takes a call's result; `None` after an error, which is noted.
    fn take<T>(&self, what: &str, result: io::Result<T>) -> Option<T> {
        result.map_err(|e| self.noted().errors.push((what.to_owned(), e.raw_os_error().unwrap_or(-1)))).ok()
    }
}

fn name(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("file-{number}"))
}

fn filled(number: u64) -> AlignedBuf {
    AlignedBuf::from_slice(&number.to_le_bytes().repeat(BLOCK / 8))
}

/// The number that fills a block; a torn one fails.
fn number_in(block: &[u8]) -> u64 {
    let words: BTreeSet<u64> =
        block.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes"))).collect();
    assert_eq!(words.len(), 1, "a torn block: {words:?}");
    words.into_iter().next().unwrap_or(0)
}

fn open(dir: &Path) -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(O_DIRECT).open(dir.join("blocks"))
}

impl Load {
    /// The program of a node, which makes a folder of that name on its mount and begins.
    pub(crate) fn start(of: usize, mount: &Path, folder: String) -> Load {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", TEST, "--nocapture"])
            .env(ROLE, mount.join(&folder))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts again");
        let (input, out) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (tx, said) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            // Whoever listens may have gone.
            lines.filter_map(|l| l.strip_prefix("said ").map(str::to_owned)).try_for_each(|l| tx.send(l))
        });
        let load = Load { of, folder, child: Some(child), input, said: Mutex::new(said) };
        assert_eq!(load.answer("the start"), "ready");
        load
    }

    fn answer(&self, what: &str) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("the program of node {}: {what}: {e}", self.of))
    }

    fn ask(&self, what: &str) -> String {
        writeln!(&self.input, "{what}").unwrap_or_else(|e| panic!("the program of node {} has ended: {e}", self.of));
        self.answer(what)
    }

    /// Rounds so far.
    pub(crate) fn rounds(&self) -> u64 {
        self.ask("rounds").parse().expect("a number")
    }

    /// Calls that failed so far, and with which errno.
    pub(crate) fn errors(&self) -> Vec<(String, i32)> {
        serde_json::from_str(&self.ask("errors")).expect("a list")
    }

    /// Ends its work after the present call.
    pub(crate) fn stop(&self) {
        assert_eq!(self.ask("stop"), "stopped");
    }

    /// Fails unless its folder, seen through some mount, holds what it remembers.
    pub(crate) fn verify(&self, mount: &Path) {
        assert_eq!(self.ask(&format!("verify {}", mount.join(&self.folder).display())), "as remembered");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // It may hang in a mount until the daemon has ended, too: it is not waited for here.
        let _ = child.kill();
        std::thread::spawn(move || child.wait());
    }
}

/// Is the program, if this process was started to be; whether it was.
pub(crate) fn is_the_program() -> bool {
    let Some(dir) = std::env::var_os(ROLE).map(PathBuf::from) else { return false };
    let state = begin(&dir);
    let worker = std::thread::spawn({
        let (dir, state) = (dir.clone(), Arc::clone(&state));
        move || work(&dir, &state)
    });
    let mut worker = Some(worker);
    println!("\nsaid ready");
    for line in io::stdin().lines().map_while(Result::ok) {
        // The test is told of its end by the end of this process.
        assert!(state.stops() || worker.as_ref().is_some_and(|w| !w.is_finished()), "the work has ended");
        let answer = match line.split_once(' ') {
            Some((_, dir)) => {
                verify(&state.noted(), Path::new(dir));
                "as remembered".to_owned()
            }
            None if line == "rounds" => state.rounds.load(Ordering::SeqCst).to_string(),
            None if line == "errors" => serde_json::to_string(&state.noted().errors).expect("plain"),
            None => {
                state.stop.store(true, Ordering::SeqCst);
                worker.take().map(std::thread::JoinHandle::join).transpose().expect("it did not fail");
                "stopped".to_owned()
            }
        };
        println!("\nsaid {answer}");
    }
    true
}

/// Makes the folder and the file whose blocks are written.
fn begin(dir: &Path) -> Arc<State> {
    fs::create_dir(dir).expect("a folder");
    let file = File::create_new(dir.join("blocks")).expect("a file");
    file.write_all_at(&vec![0; BLOCKS as usize * BLOCK], 0).and_then(|()| file.sync_all()).expect("writes");
    let state = Arc::new(State::default());
    state.noted().blocks = vec![vec![0]; BLOCKS as usize];
    state
}

fn verify(noted: &Noted, dir: &Path) {
    let file = open(dir).expect("opens");
    for (at, may) in noted.blocks.iter().enumerate() {
        let mut found = AlignedBuf::zeroed(BLOCK);
        file.read_exact_at(&mut found, (at * BLOCK) as u64).expect("reads");
        let found = number_in(&found);
        assert!(may.contains(&found), "block {at} in {} holds {found}, not {may:?}", dir.display());
    }
    for number in &noted.names {
        let text = fs::read_to_string(name(dir, *number)).unwrap_or_else(|e| panic!("file {number}: {e}"));
        assert_eq!(text, number.to_string(), "in {}", dir.display());
    }
    let entry = |e: io::Result<fs::DirEntry>| e.expect("an entry").file_name().into_string().expect("a plain name");
    for found in fs::read_dir(dir).expect("lists").map(entry) {
        let Some(number) = found.strip_prefix("file-").and_then(|n| n.parse().ok()) else { continue };
        assert!(noted.names.contains(&number) || noted.doubtful.contains(&number), "{found} was removed");
    }
}

fn work(dir: &Path, state: &State) {
    let mut file = None;
    for round in 1.. {
        if state.stops() {
            return;
        }
        if file.is_none() {
            file = state.take("open", open(dir));
        }
        if let Some(open) = &file
            && write(open, state, round).is_none()
        {
            file = None;
        }
        if file.is_some() && make(dir, state, round).is_some() {
            state.rounds.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(BREATH);
    }
}

/// Reads a block back, and writes it anew.
fn write(file: &File, state: &State, round: u64) -> Option<()> {
    let block = round % BLOCKS;
    let at = block * BLOCK as u64;
    let mut found = AlignedBuf::zeroed(BLOCK);
    state.take("read", file.read_exact_at(&mut found, at))?;
    let found = number_in(&found);
    let may = state.noted().blocks[block as usize].clone();
    assert!(may.contains(&found), "block {block} holds {found}, not {may:?}");
    match state.take("write", file.write_all_at(&filled(round), at)) {
        Some(()) => state.noted().blocks[block as usize] = vec![round],
        None => {
            state.noted().blocks[block as usize].push(round);
            return None;
        }
    }
    Some(())
}

/// Makes a file, makes it stable under its name, and takes an old one away.
fn make(dir: &Path, state: &State, round: u64) -> Option<()> {
    let (new, kept) = (dir.join("new"), name(dir, round));
    let fill = || {
        let mut file = File::create(&new)?;
        file.write_all(round.to_string().as_bytes())?;
        file.sync_all()
    };
    state.take("create", fill())?;
    state.noted().doubtful.insert(round);
    state.take("rename", fs::rename(&new, &kept))?;
    let old = {
        let mut noted = state.noted();
        noted.doubtful.remove(&round);
        noted.names.insert(round);
        if noted.names.len() as u64 <= KEPT {
            return Some(());
        }
        let old = noted.names.pop_first()?;
        noted.doubtful.insert(old);
        old
    };
    state.take("unlink", fs::remove_file(name(dir, old)))?;
    state.noted().doubtful.remove(&old);
    Some(())
}
