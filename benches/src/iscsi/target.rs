//! Section `target`: our target as users start it, beside tgt, on the same file in memory; the client of both is our initiator, in
//! this process. CPU is the target's, so that its reach is twice the requests of a second of CPU, or 1.2 times.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use block::worker::Workers;
use iscsi::discovery::Portal;
use tempfile::TempDir;

use super::ours::{self, Lun, Ours, Paths};
use super::tgt::{TARGETS, Tgt, port};
use super::{Job, job};
use crate::arms::{Arm, Measured};
use crate::memory::Resident;
use crate::pairs::{self, Reach, Side, Table};
use crate::{Effort, Failure, cpu};

/// Until it listens.
const START: Duration = Duration::from_secs(20);
/// Half of tgt's CPU for a request: twice as many for a second of it.
const TWICE: Reach = Reach { ratio: None, cpu: Some(0.50) };
/// 1.2 times as many.
const MORE: Reach = Reach { ratio: None, cpu: Some(0.83) };
/// Several sessions beside one.
const AS_FAST: Reach = Reach { ratio: Some(1.0), cpu: None };
/// Sessions that do nothing.
const IDLE: u16 = 1000;

/// `shorefast target serve`.
struct Serving {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Serving {
    fn start(programs: &Path, image: &Path) -> Result<Serving, Failure> {
        let dir = TempDir::new_in("/dev/shm").map_err(|e| Failure::at(Path::new("/dev/shm"), e))?;
        // The unit in memory has number 1 at tgt, so it has here.
        let first = dir.path().join("first");
        std::fs::write(&first, vec![0; 1 << 20]).map_err(|e| Failure::at(&first, e))?;
        let port = port()?;
        let mut command = Command::new(programs.join("shorefast"));
        command.args(["target", "serve", "--name", TARGETS[0], "--portal", &format!("127.0.0.1:{port}")]);
        for lun in [&first, image] {
            command.arg("--lun").arg(format!("file:{}", lun.display()));
        }
        command.arg("--state").arg(dir.path().join("state")).arg("--control").arg(dir.path().join("control"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|e| Failure::new(format!("shorefast could not be started: {e}")))?;
        let mut serving = Serving { child, port, _dir: dir };
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > START || serving.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(Failure::new("shorefast target serve does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(serving)
    }

    fn portal(&self) -> Portal {
        Portal { host: "127.0.0.1".to_owned(), port: self.port }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A load whose own CPU does not count.
struct Client<'a>(Ours<'a>);

impl Arm for Client<'_> {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        Ok(Measured { cpu_s: None, ..self.0.measure(seconds)? })
    }
}

/// Every table of the section; of its rows those whose name contains `row`.
pub fn run(programs: &Path, effort: &Effort, row: &str) -> Result<(Vec<Table>, Vec<Resident>), Failure> {
    let workers = Workers::start(1, "bench").map_err(|e| Failure::new(format!("no worker: {e}")))?;
    let tgt = Tgt::start()?;
    let ours = Serving::start(programs, &tgt.image())?;
    let side = |name, pid, portal, job: Job, paths| {
        let arm = Box::new(Client(Ours::at(&workers, portal, job, Lun::Memory, paths)));
        Side { name, pids: vec![pid], arm }
    };
    let at_ours = |job, paths, name| side(name, ours.child.id(), ours.portal(), job, paths);
    let at_tgt = |job, paths, name| side(name, tgt.pid(), tgt.portals(1).remove(0), job, paths);
    let mut rows = Vec::new();
    let small = [job(false, true, 4, 32), job(true, true, 4, 32)];
    for (job, reach) in [
        (small[0], TWICE),
        (small[1], TWICE),
        (job(false, false, 128, 8), Reach::default()),
        (job(true, false, 128, 8), Reach::default()),
        (job(false, false, 1024, 8), MORE),
        (job(true, false, 1024, 8), MORE),
    ] {
        let name = job.name(Lun::Memory);
        if name.contains(row) {
            let sides = (at_ours(job, Paths::Alone, "shorefast"), at_tgt(job, Paths::Alone, "tgt"));
            rows.push(pairs::run(name, sides.0, sides.1, reach, effort)?);
        }
    }
    let beside = Table { title: "the target beside tgt, on the same file in memory".to_owned(), rows };
    let mut rows = Vec::new();
    for job in small {
        let name = format!("{}, 4/1 sessions", job.name(Lun::Memory));
        if name.contains(row) {
            let sides = (at_ours(job, Paths::Sessions(4), "four"), at_ours(job, Paths::Sessions(1), "one"));
            rows.push(pairs::run(name, sides.0, sides.1, AS_FAST, effort)?);
        }
    }
    let sessions = Table { title: "four sessions at our target beside one".to_owned(), rows };
    let mut memory = Vec::new();
    if "idle sessions".contains(row) {
        let (handle, portal, pid) = (workers.handle(), ours.portal(), ours.child.id());
        let look = workers.spawn(0, move || ours::idle(handle, portal, IDLE, move || cpu::resident_mib(pid)));
        let (mib, peak_mib) = look.wait().map_err(|_| Failure::new("the sessions were lost with their worker"))??;
        memory.push(Resident { after: format!("target, {IDLE} idle sessions"), node: 1, mib, peak_mib });
    }
    let tables = [beside, sessions].into_iter().filter(|t| !t.rows.is_empty()).collect();
    Ok((tables, memory))
}
