//! The programs: this test program again, told by its environment what to do. Each ends at the end of its input, and the last
//! line of what it wrote down says how it ended.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use history::event::Nanos;
use history::worker::{Ended, Work, look, run};

/// Set for a program: what it does.
const ROLE: &str = "SHOREFAST_TEST_TORTURE";
/// A program that was told to end and does not within this hangs in its call.
const END: Duration = Duration::from_secs(60);

/// What a program does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Work,
    Look,
}

/// Whether this process is a program, which has ended then.
pub(super) fn is_one() -> bool {
    let Ok(told) = std::env::var(ROLE) else { return false };
    let fields: Vec<&str> = told.split('\t').collect();
    let [role, folder, called, node, process, seed, direct, pause, only_names, zero, log] = fields.as_slice() else {
        panic!("{ROLE}={told} is not what a program is told");
    };
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let work = Work {
        folder: PathBuf::from(folder),
        called: (*called).to_owned(),
        node: number(node) as u8,
        process: number(process) as u32,
        seed: number(seed) as u64,
        direct: *direct == "true",
        pause_us: number(pause) as u64,
        only_names: *only_names == "true",
        zero: number(zero),
    };
    let log_file = || File::options().create(true).append(true).open(log).expect("a log outside of the volume");
    let ended = match *role {
        "Look" => look(&work, log_file()),
        _ => {
            static STOP: AtomicBool = AtomicBool::new(false);
            std::thread::spawn(|| {
                // Whoever started it has closed the other end, or is gone.
                let _ = std::io::stdin().read_to_end(&mut Vec::new());
                STOP.store(true, Ordering::Relaxed);
            });
            run(&work, log_file(), &STOP)
        }
    };
    let said = match ended {
        Ok(Ended::Told) => "# told\n".to_owned(),
        Ok(Ended::Gone) => "# gone\n".to_owned(),
        // Its node died before it had begun.
        Err(e) if [107, 103].contains(&e.raw_os_error().unwrap_or(0)) => "# gone\n".to_owned(),
        Err(e) => format!("# failed: {e}\n"),
    };
    std::io::Write::write_all(&mut log_file(), said.as_bytes()).expect("its last word");
    true
}

/// A program that runs.
pub(super) struct Worker {
    child: Child,
    pub(super) node: usize,
    log: PathBuf,
}

impl Worker {
    pub(super) fn start(test: &str, role: Role, work: &Work, log: &Path) -> Worker {
        let Work { folder, called, node, process, seed, direct, pause_us, only_names, zero } = work;
        let folder = folder.display();
        let told = format!(
            "{role:?}\t{folder}\t{called}\t{node}\t{process}\t{seed}\t{direct}\t{pause_us}\t{only_names}\t{zero}\t{}",
            log.display()
        );
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", test, "--include-ignored", "--nocapture"])
            .env(ROLE, told)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts again");
        Worker { child, node: usize::from(*node), log: log.to_owned() }
    }

    /// How it has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().expect("it is our child")?;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        Some(text.lines().last().unwrap_or_default().to_owned())
    }

    /// It is to end.
    pub(super) fn tell_to_end(&mut self) {
        drop(self.child.stdin.take());
    }

    /// How it ended; its last call, if it does not.
    pub(super) fn until_ended(&mut self) -> Result<String, String> {
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if let Some(said) = self.ended() {
                return Ok(said);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().last().unwrap_or_default();
        Err(format!("a program on node {} hangs in: {last}", self.node))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tell_to_end();
        if matches!(self.child.try_wait(), Ok(None)) {
            // One that is stuck in a call ends when its daemon does.
            let _ = self.child.kill();
            let _ = self.child.try_wait();
        }
    }
}

/// The clock of the run.
pub(super) fn since(zero: Nanos) -> Nanos {
    history::worker::now() - zero
}
