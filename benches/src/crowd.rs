//! Section `status`: how long `status` takes on a cluster of 64 nodes with 100 volumes.
//!
//! Node 1 is a real daemon with 100 real volumes mounted; the command is the real command, from its start to its end. The 63
//! others are simulated at the cluster network: each a TLS endpoint with the node's own certificate in this process, which
//! greets, takes records, and tells of every volume it has been told of (`peers`). They share this machine's cores with the
//! daemon, which a real cluster does not.

mod peers;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::stats::Spread;
use crate::{Effort, Failure, interrupt};

use peers::Peers;

const NODES: u8 = 64;
/// The most volumes: what the reach is for.
pub const VOLUMES: usize = 100;
/// Bytes of each volume's sparse image: the smallest.
const IMAGE: u64 = 1 << 30;
/// What is to be reached, in milliseconds.
const REACH_MS: f64 = 200.0;
/// All nodes are connected, and a daemon answers, within this.
const LIMIT: Duration = Duration::from_secs(60);

/// One form of the answer.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    /// The command.
    pub command: &'static str,
    /// Milliseconds from its start to its end.
    pub ms: Spread,
    /// Bytes that it printed.
    pub bytes: usize,
    /// Whether the median is within the reach.
    pub ok: bool,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Crowd {
    /// Nodes, of which one is real.
    pub nodes: u8,
    /// Volumes.
    pub volumes: usize,
    /// Each form.
    pub looks: Vec<Look>,
}

/// Bytes of disk that it needs: the metadata of each volume, as it is formatted.
pub fn needs() -> u64 {
    VOLUMES as u64 * (8 << 20)
}

/// Measures it.
pub fn run(programs: &Path, dir: &Path, effort: &Effort, volumes: usize) -> Result<Crowd, Failure> {
    let dir = dir.join("crowd");
    fs::create_dir_all(&dir).map_err(|e| Failure::at(&dir, e))?;
    let node = Real::start(&programs.join("shorefast"), &dir)?;
    let _peers = Peers::start(&node.bundles(), &node.addresses[1..])?;
    node.until("all nodes to be up", |s| up(s) == usize::from(NODES))?;
    for n in 1..=volumes {
        interrupt::check()?;
        if n % 20 == 0 {
            eprintln!("  volume {n} of {volumes}");
        }
        node.create(n)?;
    }
    node.until("all volumes on all nodes", |s| whole(s, volumes))?;
    let looks = [
        ("status", &["status"][..]),
        ("status --json", &["--json", "status"]),
        ("status --check", &["status", "--check"]),
    ];
    let looks = looks
        .into_iter()
        .map(|(command, args)| node.look(command, args, effort.pairs * 2, volumes))
        .collect::<Result<_, _>>()?;
    Ok(Crowd { nodes: NODES, volumes, looks })
}

/// Nodes that are up, the asked one included.
fn up(status: &serde_json::Value) -> usize {
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    nodes.iter().filter(|n| n["link"] == "up" || n["link"] == "myself").count()
}

/// Every volume, with every node's word about it.
fn whole(status: &serde_json::Value, wanted: usize) -> bool {
    let volumes = status["volumes"].as_array().map_or(&[][..], Vec::as_slice);
    let all = |v: &serde_json::Value| v["nodes"].as_array().map_or(0, Vec::len) == usize::from(NODES);
    volumes.len() == wanted && volumes.iter().all(all) && up(status) == usize::from(NODES)
}

/// The one real node. Dropped, it is gone with its mounts.
struct Real {
    program: PathBuf,
    dir: PathBuf,
    addresses: Vec<String>,
    child: Child,
}

impl Real {
    fn start(program: &Path, dir: &Path) -> Result<Real, Failure> {
        let addresses = free_addresses()?;
        let mut init = Command::new(program);
        init.args(["init", "--cluster", "crowd", "--out"]).arg(dir.join("bundles"));
        for (n, address) in (1..=NODES).zip(&addresses) {
            init.arg("--node").arg(format!("{n}={address}"));
        }
        output(&mut init)?;
        let text = format!(
            "bundle = {:?}\nsocket = {:?}\nstate_dir = {:?}\nmount_root = {:?}\nlog = \"warn\"\n",
            dir.join("bundles/node-1.bundle"),
            dir.join("api.sock"),
            dir.join("state"),
            dir.join("mnt")
        );
        let config = dir.join("shorefast.toml");
        fs::write(&config, text).map_err(|e| Failure::at(&config, e))?;
        let log = fs::File::create(dir.join("daemon.log")).map_err(|e| Failure::at(dir, e))?;
        let child = Command::new(program)
            .args(["daemon", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| Failure::at(program, e))?;
        Ok(Real { program: program.to_owned(), dir: dir.to_owned(), addresses, child })
    }

    fn bundles(&self) -> Vec<PathBuf> {
        (2..=NODES).map(|n| self.dir.join(format!("bundles/node-{n}.bundle"))).collect()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(self.dir.join("api.sock")).args(args);
        command
    }

    fn create(&self, n: usize) -> Result<(), Failure> {
        let disk = self.dir.join(format!("disk-{n}.img"));
        fs::File::create_new(&disk).and_then(|f| f.set_len(IMAGE)).map_err(|e| Failure::at(&disk, e))?;
        let name = format!("volume-{n:03}");
        output(self.command(&["volume", "create", &name, "--disk"]).arg(&disk)).map(drop)
    }

    fn until(&self, what: &str, holds: impl Fn(&serde_json::Value) -> bool) -> Result<(), Failure> {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            interrupt::check()?;
            let status = output(&mut self.command(&["--json", "status"]));
            if status.is_ok_and(|text| serde_json::from_slice(&text).is_ok_and(|s| holds(&s))) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(Failure::new(format!(
            "waited {} s for {what}; see {}",
            LIMIT.as_secs(),
            self.dir.join("daemon.log").display()
        )))
    }

    /// Runs a command again and again. What it printed must be whole, or nothing was measured.
    fn look(&self, command: &'static str, args: &[&str], times: usize, volumes: usize) -> Result<Look, Failure> {
        let (mut ms, mut bytes) = (Vec::new(), 0);
        for _ in 0..times {
            interrupt::check()?;
            let begin = Instant::now();
            let text = output(&mut self.command(args))?;
            ms.push(begin.elapsed().as_secs_f64() * 1e3);
            bytes = text.len();
        }
        self.until("the same afterwards", |s| whole(s, volumes))?;
        let ms = Spread::of(&ms).ok_or_else(|| Failure::new("nothing was measured"))?;
        Ok(Look { command, ms, bytes, ok: ms.median <= REACH_MS })
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // A daemon that is killed leaves dead mounts, which are taken away below.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for n in 1..=VOLUMES {
            let mount = self.dir.join(format!("mnt/volume-{n:03}"));
            let _ = Command::new("umount").arg("-l").arg(&mount).stderr(Stdio::null()).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn free_addresses() -> Result<Vec<String>, Failure> {
    let free = |n: u8| -> std::io::Result<String> {
        Ok(TcpListener::bind((Ipv4Addr::new(127, 0, 1, n), 0))?.local_addr()?.to_string())
    };
    (1..=NODES).map(|n| free(n).map_err(|e| Failure::new(format!("127.0.1.{n}: {e}")))).collect()
}

/// Runs a command; what it printed. 5 ("found problems") is an answer, too.
fn output(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| Failure::new(format!("{command:?}: {e}")))?;
    match output.status.code() {
        Some(0 | 5) => Ok(output.stdout),
        _ => Err(Failure::new(format!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

/// A table for people.
pub fn table(c: &Crowd) -> String {
    let mut text = format!(
        "\n{} nodes (one real), {} volumes; milliseconds of the command, median (range), at most {REACH_MS:.0}\n",
        c.nodes, c.volumes
    );
    for look in &c.looks {
        let Spread { min, median, max } = look.ms;
        let judged = if look.ok { "ok" } else { "above" };
        text += &format!("{:<20} {median:.0} ({min:.0}-{max:.0})  {} bytes  {judged}\n", look.command, look.bytes);
    }
    text
}
