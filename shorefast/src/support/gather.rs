//! Has the parts made, some at a time, each in a process of its own with a deadline.
//!
//! A process that is killed and does not end hangs in the kernel. It is left behind, as are the two threads that read its
//! pipes: nothing waits for them, and they end with this command.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::plan::{How, Part};

/// Parts that are made at once: some wait for a daemon, some for a disk.
const AT_ONCE: usize = 8;
/// How long a killed process may take to end.
const DIES_WITHIN: Duration = Duration::from_secs(1);
/// How often a process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What a part says on standard error is a sentence or two.
const COMPLAINT_MAX: u64 = 16 << 10;

/// What became of a part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    /// Which.
    pub(crate) part: Part,
    /// What it printed, perhaps not all.
    pub(crate) text: Vec<u8>,
    /// Why it is not there, or not whole.
    pub(crate) lacks: Option<String>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Has all parts made. Those that have not begun within `all` are left out. In the order given.
pub(crate) fn gather(program: &Path, parts: Vec<Part>, all: Duration) -> Vec<Outcome> {
    let (started, next) = (Instant::now(), AtomicUsize::new(0));
    let outcomes: Vec<Mutex<Option<Outcome>>> = parts.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(parts.len()) {
            scope.spawn(|| {
                while let Some((part, outcome)) = at(&next, &parts, &outcomes) {
                    let left = all.saturating_sub(started.elapsed());
                    *outcome.lock() = Some(match left.is_zero() {
                        true => not_begun(part.clone(), all),
                        false => run_one(program, part.clone(), left),
                    });
                }
            });
        }
    });
    outcomes.into_iter().filter_map(Mutex::into_inner).collect()
}

fn at<'a, T>(next: &AtomicUsize, parts: &'a [Part], outcomes: &'a [T]) -> Option<(&'a Part, &'a T)> {
    let n = next.fetch_add(1, Ordering::Relaxed);
    Some((parts.get(n)?, outcomes.get(n)?))
}

fn not_begun(part: Part, all: Duration) -> Outcome {
    let lacks = format!("the bundle was to be ready within {} s, and other parts took them", all.as_secs());
    Outcome { part, text: Vec::new(), lacks: Some(lacks), took: Duration::ZERO }
}

/// Has one part made, within its deadline and `left`.
pub(crate) fn run_one(program: &Path, part: Part, left: Duration) -> Outcome {
    let started = Instant::now();
    let within = part.within.min(left);
    let (text, lacks) = match command(program, &part.how).spawn() {
        Ok(child) => followed(child, within, part.at_most),
        Err(e) => (Vec::new(), Some(format!("it cannot be started: {e}"))),
    };
    Outcome { part, text, lacks, took: started.elapsed() }
}

fn command(program: &Path, how: &How) -> Command {
    let mut command = match how {
        How::This(words) => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
        How::Other(other, words) => {
            let mut command = Command::new(other);
            command.args(words);
            command
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn followed(mut child: Child, within: Duration, at_most: u64) -> (Vec<u8>, Option<String>) {
    let (out, err) = (Pipe::follow(child.stdout.take(), at_most), Pipe::follow(child.stderr.take(), COMPLAINT_MAX));
    let deadline = Instant::now() + within;
    let ended = until(deadline, || exit(&mut child));
    let lacks = match ended {
        Some(status) => {
            // Its last words may still be in the pipe; a child of its own that holds the pipe open is not waited for.
            let _ = until(Instant::now() + DIES_WITHIN, || (out.is_done() && err.is_done()).then_some(()));
            (!status.success()).then(|| complaint(status, &err.taken()))
        }
        None => Some(end(&mut child, within)),
    };
    let lacks =
        lacks.or_else(|| out.is_cut().then(|| format!("it is longer than {at_most} bytes; the rest was cut off")));
    (out.taken(), lacks)
}

fn complaint(status: ExitStatus, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said).split_whitespace().collect::<Vec<_>>().join(" ");
    let code = status.code().map_or_else(|| "by a signal".to_owned(), |code| format!("with {code}"));
    if said.is_empty() { format!("it ended {code}") } else { format!("it ended {code}: {said}") }
}

/// Kills it; says what became of it.
fn end(child: &mut Child, within: Duration) -> String {
    let late = format!("it was not done within {:.0} s", within.as_secs_f64().ceil());
    if let Err(e) = child.kill() {
        return format!("{late}, and cannot be ended: {e}");
    }
    match until(Instant::now() + DIES_WITHIN, || exit(child)) {
        Some(_) => format!("{late}, and was ended"),
        None => format!("{late}, and hangs in the kernel (process {})", child.id()),
    }
}

fn exit(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}

fn until<T>(deadline: Instant, mut holds: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(value) = holds() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What a process writes, as it comes.
struct Pipe(Arc<Collected>);

#[derive(Default)]
struct Collected {
    bytes: Mutex<Vec<u8>>,
    done: AtomicBool,
    cut: AtomicBool,
}

impl Pipe {
    fn follow(pipe: Option<impl Read + Send + 'static>, at_most: u64) -> Pipe {
        let read = Arc::new(Collected::default());
        if let Some(pipe) = pipe {
            let read = Arc::clone(&read);
            std::thread::spawn(move || {
                // A pipe that breaks has ended.
                let _ = collect(pipe, &read, at_most);
                read.done.store(true, Ordering::Release);
            });
        } else {
            read.done.store(true, Ordering::Release);
        }
        Pipe(read)
    }

    fn is_done(&self) -> bool {
        self.0.done.load(Ordering::Acquire)
    }

    fn is_cut(&self) -> bool {
        self.0.cut.load(Ordering::Acquire)
    }

    fn taken(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.bytes.lock())
    }
}

/// Keeps the first `at_most` bytes and reads on: a full pipe would stop the process.
fn collect(mut pipe: impl Read, into: &Collected, at_most: u64) -> io::Result<()> {
    let at_most = usize::try_from(at_most).unwrap_or(usize::MAX);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let n = match pipe.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let mut bytes = into.bytes.lock();
        let room = at_most.saturating_sub(bytes.len());
        bytes.extend_from_slice(&chunk[..n.min(room)]);
        if n > room {
            into.cut.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(words: &[&str], within: Duration, at_most: u64) -> Part {
        let words = words.iter().map(|w| (*w).to_owned()).collect();
        let how = How::Other("sh".into(), words);
        Part { name: words_name(&how), about: "a test".into(), how, within, at_most }
    }

    fn words_name(how: &How) -> String {
        format!("{how:?}")
    }

    fn sh(script: &str, within: Duration, at_most: u64) -> Outcome {
        run_one(Path::new("/nowhere"), part(&["-c", script], within, at_most), Duration::from_secs(60))
    }

    #[test]
    fn a_part_that_does_not_end_is_given_up_and_what_it_said_until_then_is_kept() {
        let outcome = sh("echo begun; exec sleep 1000", Duration::from_millis(300), 1 << 20);
        assert_eq!(outcome.text, b"begun\n");
        let lacks = outcome.lacks.expect("it did not end");
        assert!(lacks.contains("not done within 1 s, and was ended"), "{lacks}");
    }

    #[test]
    fn a_part_that_fails_says_why_and_one_that_is_too_long_is_cut() {
        let failed = sh("echo half; echo 'no such daemon' >&2; exit 3", Duration::from_secs(20), 1 << 20);
        assert_eq!(failed.lacks.as_deref(), Some("it ended with 3: no such daemon"));
        assert_eq!(failed.text, b"half\n");
        let long = sh("head -c 300000 /dev/zero", Duration::from_secs(20), 1000);
        assert_eq!(long.text.len(), 1000);
        assert!(long.lacks.expect("cut").contains("longer than 1000 bytes"));
        let whole = sh("echo all", Duration::from_secs(20), 1000);
        assert_eq!((whole.text.as_slice(), whole.lacks), (b"all\n".as_slice(), None));
    }

    #[test]
    fn one_part_that_hangs_holds_no_other_up_and_all_are_told_of_in_order() {
        let slow = part(&["-c", "exec sleep 1000"], Duration::from_millis(200), 10);
        let quick = |n: usize| part(&["-c", &format!("echo {n}")], Duration::from_secs(20), 10);
        let mut parts = vec![slow];
        parts.extend((0..20).map(quick));
        let outcomes = gather(Path::new("/nowhere"), parts.clone(), Duration::from_secs(60));
        assert_eq!(outcomes.iter().map(|o| o.part.clone()).collect::<Vec<_>>(), parts);
        assert!(outcomes[0].lacks.is_some() && outcomes[1..].iter().all(|o| o.lacks.is_none()), "{outcomes:?}");
        let none = gather(Path::new("/nowhere"), parts, Duration::ZERO);
        assert!(none.iter().all(|o| o.lacks.as_ref().is_some_and(|l| l.contains("was to be ready"))));
    }
}
