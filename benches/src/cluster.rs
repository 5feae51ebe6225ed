//! A real cluster for benchmarks, made with the command line as a user would: `init`, one `daemon` per node on
//! 127.0.0.x, `volume create`. Dropped, it ends its daemons by pid and takes its mounts away.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::apart::Apart;
use crate::{Failure, fio};

/// The volume of a benchmark.
pub const VOLUME: &str = "bench";
/// A daemon answers, and a volume is mounted, within this.
const LIMIT: Duration = Duration::from_secs(30);

/// One node.
pub struct Member {
    /// Its number.
    pub node: u8,
    dir: PathBuf,
    child: Option<Child>,
}

impl Member {
    /// Its API socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    /// Where the volume is mounted.
    pub fn mount(&self) -> PathBuf {
        self.dir.join("mnt").join(VOLUME)
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

/// What sort of cluster.
#[derive(Clone, Copy)]
pub struct Kind {
    /// TLS between nodes.
    pub tls: bool,
    /// The volume's timers.
    pub timing: &'static str,
    /// A fault device under the disks.
    pub fault: bool,
    /// On a network of its own, which can be cut.
    pub apart: bool,
    /// Daemons whose mounts outlive them.
    pub holder: bool,
}

impl Kind {
    /// With TLS and these timers, and nothing else.
    pub fn timed(timing: &'static str) -> Kind {
        Kind { tls: true, timing, fault: false, apart: false, holder: false }
    }
}

/// Daemons of one host that share a disk image.
pub struct Cluster {
    program: PathBuf,
    dir: PathBuf,
    /// The nodes, from 1.
    pub members: Vec<Member>,
    /// The network of its own; it goes after the daemons have ended.
    pub apart: Option<Apart>,
    /// Whether what was started are holders, which end their daemons only when they are asked to end.
    holders: bool,
}

impl Cluster {
    /// Starts `nodes` daemons below `dir` and makes one volume on an image of `bytes`, each of which was written before:
    /// what is measured later is not the allocation below.
    pub fn start(program: &Path, dir: &Path, nodes: u8, bytes: u64, tls: bool) -> Result<Cluster, Failure> {
        Cluster::start_on(program, dir, nodes, Kind { tls, ..Kind::timed("fast") }, |disk| fio::fill(disk, bytes, true))
    }

    /// The same with the timers for real storage: for what is not about failover, and may keep the machine busy.
    pub fn start_patient(program: &Path, dir: &Path, nodes: u8, bytes: u64) -> Result<Cluster, Failure> {
        Cluster::start_on(program, dir, nodes, Kind::timed("default"), |disk| fio::fill(disk, bytes, true))
    }

    /// That on an image of which nothing was written: for what is not about the blocks of files.
    pub fn start_sparse(program: &Path, dir: &Path, nodes: u8, bytes: u64) -> Result<Cluster, Failure> {
        Cluster::start_kind(program, dir, nodes, bytes, Kind::timed("default"))
    }

    /// The same of any sort.
    pub fn start_kind(program: &Path, dir: &Path, nodes: u8, bytes: u64, kind: Kind) -> Result<Cluster, Failure> {
        Cluster::start_on(program, dir, nodes, kind, |disk| {
            fs::File::create_new(disk).and_then(|f| f.set_len(bytes)).map_err(|e| Failure::at(disk, e))
        })
    }

    fn start_on(
        program: &Path,
        dir: &Path,
        nodes: u8,
        kind: Kind,
        make_disk: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<Cluster, Failure> {
        let apart = if kind.apart { Some(Apart::new(nodes)?) } else { None };
        let addresses = apart.as_ref().map_or_else(|| free_addresses(nodes), |net| Ok(net.addresses()))?;
        let mut cluster = Cluster {
            program: program.to_owned(),
            dir: dir.to_owned(),
            members: Vec::new(),
            apart,
            holders: kind.holder,
        };
        fs::create_dir_all(dir).map_err(|e| Failure::at(dir, e))?;
        let mut init = Command::new(program);
        init.args(["init", "--cluster", "bench", "--out"]).arg(dir.join("bundles"));
        for (n, address) in (1..=nodes).zip(&addresses) {
            init.arg("--node").arg(format!("{n}={address}"));
        }
        run(&mut init)?;
        for n in 1..=nodes {
            let member = Member { node: n, dir: dir.join(format!("node-{n}")), child: None };
            configure(&member, dir, kind)?;
            cluster.members.push(member);
            cluster.start_daemon(usize::from(n - 1))?;
        }
        let disk = cluster.disk();
        make_disk(&disk)?;
        cluster.shorefast(
            0,
            &["volume", "create", VOLUME, "--timing", kind.timing, "--disk", &disk.display().to_string()],
        )?;
        for at in 0..cluster.members.len() {
            cluster.wait_until(at, "its volume to be mounted", |status| {
                route(status, at as u64 + 1).as_deref() == Some("direct")
            })?;
        }
        Ok(cluster)
    }

    /// The shared disk's image.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    /// Starts (again) the daemon at this place.
    pub fn start_daemon(&mut self, at: usize) -> Result<(), Failure> {
        let dir = self.members[at].dir.clone();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join("daemon.log"))
            .map_err(|e| Failure::at(&dir, e))?;
        let mut command = match &self.apart {
            // It becomes the program, in the mounts of this process.
            Some(net) => {
                let mut command = Command::new("nsenter");
                command.arg(net.door(self.members[at].node)).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        let child = command
            .args(["daemon", "--config"])
            .arg(dir.join("shorefast.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0) // a terminal's Ctrl-C is for the benchmark, which ends its daemons itself
            .spawn()
            .map_err(|e| Failure::at(&self.program, e))?;
        self.members[at].child = Some(child);
        self.wait_until(at, "its daemon to answer", |_| true)
    }

    /// Sends a signal to what was started at this place. By a system call: a program would have to wait for the daemon that it
    /// is to signal, since it closes what this process has open.
    pub fn signal(&self, at: usize, signal: Signal) -> Result<(), Failure> {
        let pid = self.members[at].pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| Failure::new(format!("node {} has ended", at + 1)))?;
        kill_process(pid, signal).map_err(|e| Failure::new(format!("no signal to node {}: {e}", at + 1)))
    }

    /// SIGKILLs a daemon and waits for its process to end.
    pub fn kill(&mut self, at: usize) -> Result<(), Failure> {
        if let Some(mut child) = self.members[at].child.take() {
            child
                .kill()
                .and_then(|()| child.wait())
                .map_err(|e| Failure::new(format!("node {} cannot be killed: {e}", at + 1)))?;
        }
        Ok(())
    }

    /// Runs a command against the daemon at this place; its standard output.
    pub fn shorefast(&self, at: usize, args: &[&str]) -> Result<String, Failure> {
        run(&mut self.command(at, args))
    }

    /// That command, to be run.
    pub fn command(&self, at: usize, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(self.members[at].socket()).args(args);
        command
    }

    /// The bundle of the node at this place.
    pub fn bundle(&self, at: usize) -> PathBuf {
        self.dir.join(format!("bundles/node-{}.bundle", self.members[at].node))
    }

    /// The volume's part of `status --json` as the node at this place sees it.
    pub fn status(&self, at: usize) -> Result<serde_json::Value, Failure> {
        let text = self.shorefast(at, &["--json", "status"])?;
        serde_json::from_str(&text).map_err(|e| Failure::new(format!("status of node {} is not JSON: {e}", at + 1)))
    }

    /// Waits until a node's status is as wanted.
    pub fn wait_until(
        &self,
        at: usize,
        what: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            if self.status(at).is_ok_and(|s| wanted(&s)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Failure::new(format!(
            "node {}: waited {} s for {what}; see {}",
            at + 1,
            LIMIT.as_secs(),
            self.members[at].dir.join("daemon.log").display()
        )))
    }

    /// The node that coordinates, as place in [`Cluster::members`].
    pub fn coordinator(&self, seen_from: usize) -> Option<usize> {
        let n = self.status(seen_from).ok()?["volumes"][0]["coordinator"].as_u64()?;
        usize::try_from(n).ok()?.checked_sub(1)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            if self.holders {
                let _ = self.signal(at, Signal::TERM);
            }
            if let Some(mut child) = self.members[at].child.take() {
                // A daemon that is killed leaves a dead mount, which is taken away below.
                if !self.holders {
                    let _ = child.kill();
                }
                let _ = child.wait();
            }
            let _ = Command::new("umount").arg("-l").arg(self.members[at].mount()).stderr(Stdio::null()).status();
        }
        if std::thread::panicking() {
            return; // the logs below are what is left to look at
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A node's route, out of a status.
pub fn route(status: &serde_json::Value, node: u64) -> Option<String> {
    let nodes = status["volumes"][0]["nodes"].as_array()?;
    let own = nodes.iter().find(|n| n["node"].as_u64() == Some(node))?;
    own["route"].as_str().map(str::to_owned)
}

fn configure(member: &Member, dir: &Path, kind: Kind) -> Result<(), Failure> {
    fs::create_dir_all(member.dir.join("mnt")).map_err(|e| Failure::at(&member.dir, e))?;
    let text = format!(
        "bundle = {bundle:?}\nsocket = {socket:?}\nstate_dir = {state:?}\nmount_root = {mounts:?}\nlog = \"warn\"\ndebug = true\nfault_device = {fault}\nplain_network = {plain}\nholder = {holder}\n",
        bundle = dir.join(format!("bundles/node-{}.bundle", member.node)),
        socket = member.socket(),
        state = member.dir.join("state"),
        mounts = member.dir.join("mnt"),
        fault = kind.fault,
        plain = !kind.tls,
        holder = kind.holder,
    );
    let path = member.dir.join("shorefast.toml");
    fs::write(&path, text).map_err(|e| Failure::at(&path, e))
}

fn free_addresses(nodes: u8) -> Result<Vec<String>, Failure> {
    (1..=nodes)
        .map(|n| {
            let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 0, n), 0))
                .map_err(|e| Failure::new(format!("127.0.0.{n}: {e}")))?;
            listener.local_addr().map(|a| a.to_string()).map_err(|e| Failure::new(e.to_string()))
        })
        .collect()
}

fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| Failure::new(format!("{command:?}: {e}")))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Failure::new(format!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}
