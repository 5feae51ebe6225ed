//! The NBD server alone: ours over a null device beside nbdkit's null plugin and qemu-nbd on a null-co device, each at a
//! Unix socket, fio's nbd engine (libnbd) as the client of all three.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::arms::{Arm, Measured};
use crate::fio::{self, Pattern};
use crate::pairs::{self, Reach, Side, Table};
use crate::{Effort, Failure};

/// Bytes of each null device.
const SIZE: u64 = 1 << 30;
/// Until a server listens.
const START: Duration = Duration::from_secs(20);
/// Beside each of the two: then it is so beside the better.
const REACH: Reach = Reach { ratio: None, cpu: Some(0.90) };

/// A server over a null device; dropped, it is ended.
struct Null {
    name: &'static str,
    child: Child,
    uri: String,
}

impl Null {
    fn start(name: &'static str, export: &str, socket: PathBuf, command: &mut Command) -> Result<Null, Failure> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.map_err(|e| Failure::new(format!("{name} could not be started: {e}; see ./setup")))?;
        let server = Null { name, child, uri: format!("nbd+unix:///{export}?socket={}", socket.display()) };
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if begun.elapsed() > START {
                return Err(Failure::new(format!("{name} does not listen at {}", socket.display())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn ours(programs: &Path, dir: &Path) -> Result<Null, Failure> {
        let socket = dir.join("ours.sock");
        let mut command = Command::new(programs.join("null-nbd"));
        Null::start("shorefast", "null", socket.clone(), command.arg("--unix").arg(&socket))
    }

    fn nbdkit(dir: &Path) -> Result<Null, Failure> {
        let socket = dir.join("nbdkit.sock");
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--unix"]).arg(&socket).args(["null", &SIZE.to_string()]);
        Null::start("nbdkit", "", socket, &mut command)
    }

    fn qemu_nbd(dir: &Path) -> Result<Null, Failure> {
        let socket = dir.join("qemu.sock");
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--shared=8", "--socket"]).arg(&socket);
        command.args(["--image-opts", &format!("driver=null-co,size={SIZE}")]);
        Null::start("qemu-nbd", "", socket, &mut command)
    }

    fn side(&self, job: Job) -> Side<'_> {
        let arm = Box::new(Fio { job, uri: &self.uri });
        Side { name: self.name, pids: vec![self.child.id()], arm }
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
struct Job {
    pattern: Pattern,
    block: u32,
    depth: u32,
}

impl Job {
    fn name(self) -> String {
        format!("{} {}k qd{}", self.pattern.fio(), self.block >> 10, self.depth)
    }
}

struct Fio<'a> {
    job: Job,
    uri: &'a str,
}

impl Arm for Fio<'_> {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let output = Command::new("fio")
            .args(["--name=b", "--output-format=json", "--ioengine=nbd", "--time_based", "--norandommap"])
            .args(["--randrepeat=0", "--thread"])
            .arg(format!("--uri={}", self.uri))
            .arg(format!("--size={SIZE}"))
            .arg(format!("--rw={}", self.job.pattern.fio()))
            .arg(format!("--bs={}", self.job.block))
            .arg(format!("--iodepth={}", self.job.depth))
            .arg(format!("--runtime={seconds}"))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Failure::new(format!("fio could not be started ({e}); install Debian's package fio")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Failure::new(format!("fio failed on {} ({}): {said}", self.uri, self.job.name())));
        }
        fio::parse(&output.stdout, self.job.pattern.reads())
    }
}

/// Each job beside each of the two.
pub fn run(programs: &Path, dir: &Path, effort: &Effort) -> Result<Vec<Table>, Failure> {
    let ours = Null::ours(programs, dir)?;
    let mut tables = Vec::new();
    for peer in [Null::nbdkit(dir)?, Null::qemu_nbd(dir)?] {
        let mut rows = Vec::new();
        for (block, depth) in [(4096, 1), (4096, 32), (128 << 10, 8)] {
            for pattern in [Pattern::RandRead, Pattern::RandWrite] {
                let job = Job { pattern, block, depth };
                let reach = if depth == 32 { REACH } else { Reach::default() };
                rows.push(pairs::run(job.name(), ours.side(job), peer.side(job), reach, effort)?);
            }
        }
        tables.push(Table { title: format!("the NBD server over a null device, beside {}", peer.name), rows });
    }
    Ok(tables)
}
