//! Two hosts: network namespaces with a veth pair between them, replicas in each, a plain NBD server, an echo.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Failure, fio};

const SPACES: [&str; 2] = ["sfbench-1", "sfbench-2"];
const VETHS: [&str; 2] = ["sfbench-v1", "sfbench-v2"];
pub(super) const ADDRESSES: [&str; 2] = ["10.79.0.1", "10.79.0.2"];
/// Name, protocol, port.
const RESOURCES: [(&str, &str, u16); 3] = [("alone", "C", 7801), ("c", "C", 7802), ("a", "A", 7803)];
/// Until a process is ready, or two replicas are equal.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Hosts {
    programs: PathBuf,
    dir: PathBuf,
    /// Bytes of a device's disk.
    pub(super) size: u64,
    running: RefCell<BTreeMap<(usize, String), Child>>,
    plain: RefCell<Option<Child>>,
    // After the processes.
    _net: Namespaces,
}

/// The namespaces; dropped, they are gone.
struct Namespaces;

impl Namespaces {
    fn make() -> Result<Namespaces, Failure> {
        // What a run that was killed has left.
        drop(Namespaces);
        let net = Namespaces;
        for space in SPACES {
            ip(&["netns", "add", space])?;
        }
        ip(&[
            "link", "add", VETHS[0], "netns", SPACES[0], "type", "veth", "peer", "name", VETHS[1], "netns", SPACES[1],
        ])?;
        for n in 0..2 {
            ip(&["-n", SPACES[n], "addr", "add", &format!("{}/24", ADDRESSES[n]), "dev", VETHS[n]])?;
            ip(&["-n", SPACES[n], "link", "set", "lo", "up"])?;
            ip(&["-n", SPACES[n], "link", "set", VETHS[n], "up"])?;
        }
        Ok(net)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for space in SPACES {
            let _ = Command::new("ip").args(["netns", "del", space]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(args: &[&str]) -> Result<(), Failure> {
    let ended = Command::new("ip").args(args).output();
    let ended = ended.map_err(|e| Failure::new(format!("ip could not be started: {e}; see ./setup")))?;
    let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    let why = || Failure::new(format!("`ip {}`: {said}; namespaces need root", args.join(" ")));
    ended.status.success().then_some(()).ok_or_else(why)
}

/// A command in a host's namespace; `ip` becomes it.
pub(super) fn on(host: usize, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", SPACES[host - 1]]).arg(program);
    command
}

impl Hosts {
    pub(super) fn start(programs: &Path, dir: &Path, size: u64) -> Result<Hosts, Failure> {
        let net = Namespaces::make()?;
        let hosts = Hosts {
            programs: programs.to_owned(),
            dir: dir.join("replica"),
            size,
            running: RefCell::default(),
            plain: RefCell::default(),
            _net: net,
        };
        for host in [1, 2] {
            fs::create_dir_all(hosts.folder(host)).map_err(|e| Failure::at(&hosts.dir, e))?;
        }
        let nodes: Vec<String> = (1..=2).map(|n| format!("{n}={}:7800", ADDRESSES[n - 1])).collect();
        let out = hosts.dir.join("certificates");
        hosts.shorefast(&[
            "init",
            "--cluster",
            "bench",
            "--node",
            &nodes[0],
            "--node",
            &nodes[1],
            "--out",
            text(&out),
        ])?;
        fio::fill(&hosts.disk(1, "plain"), size, true)?;
        for (name, ..) in RESOURCES {
            for host in [1, 2] {
                if (host, name) != (2, "alone") {
                    fio::fill(&hosts.disk(host, name), size, true)?;
                    hosts.create(host, name)?;
                }
            }
        }
        hosts.serve_plain()?;
        Ok(hosts)
    }

    pub(super) fn folder(&self, host: usize) -> PathBuf {
        self.dir.join(format!("host-{host}"))
    }

    pub(super) fn disk(&self, host: usize, name: &str) -> PathBuf {
        self.folder(host).join(format!("{name}.disk"))
    }

    fn shorefast(&self, args: &[&str]) -> Result<Value, Failure> {
        let ended = Command::new(self.programs.join("shorefast")).args(args).arg("--json").output();
        let ended = ended.map_err(|e| Failure::new(format!("shorefast could not be started: {e}")))?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            return Err(Failure::new(format!("`shorefast {}`: {said}", args.join(" "))));
        }
        Ok(serde_json::from_slice(&ended.stdout).unwrap_or(Value::Null))
    }

    fn replica(&self, host: usize, args: &[&str]) -> Result<Value, Failure> {
        let dir = self.folder(host);
        self.shorefast(&[&["replica"], args, &["--dir", text(&dir)]].concat())
    }

    pub(super) fn create(&self, host: usize, name: &str) -> Result<(), Failure> {
        let known = RESOURCES.iter().find(|(n, ..)| *n == name);
        let (_, protocol, port) = known.ok_or_else(|| Failure::new(format!("there is no resource {name}")))?;
        let other = 3 - host;
        let at = |n: usize| format!("{}:{port}", ADDRESSES[n - 1]);
        let (disk, bundle) = (self.disk(host, name), self.dir.join(format!("certificates/node-{host}.bundle")));
        let args = ["create", name, "--local", text(&disk), "--peer", &format!("{other}={}", at(other))];
        let more = ["--listen", &at(host), "--bundle", text(&bundle), "--protocol", protocol];
        self.replica(host, &[&args[..], &more[..]].concat())?;
        let file = self.folder(host).join(format!("{name}.toml"));
        let record = fs::read_to_string(&file).map_err(|e| Failure::at(&file, e))?;
        fs::write(&file, format!("metrics = \"off\"\n{record}")).map_err(|e| Failure::at(&file, e))
    }

    /// Runs a replica, if it does not run.
    pub(super) fn up(&self, host: usize, name: &str) -> Result<(), Failure> {
        let key = (host, name.to_owned());
        if self.running.borrow().contains_key(&key) {
            return Ok(());
        }
        let dir = self.folder(host);
        let log = fs::File::options().create(true).append(true).open(dir.join(format!("{name}.log")));
        let log = log.map_err(|e| Failure::at(&dir, e))?;
        let mut command = on(host, &self.programs.join("shorefast"));
        command
            .args(["replica", "up", name, "--dir", text(&dir)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().map_err(|e| Failure::new(format!("a replica could not be started: {e}")))?;
        self.running.borrow_mut().insert(key, child);
        until(&format!("{name} runs on host {host}"), || self.status(host, name).is_ok())
    }

    /// Kills a replica.
    pub(super) fn kill(&self, host: usize, name: &str) {
        if let Some(mut child) = self.running.borrow_mut().remove(&(host, name.to_owned())) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills all but those of a resource: they would share the machine.
    fn leave_only(&self, name: &str) {
        let others: Vec<(usize, String)> = self.running.borrow().keys().filter(|(_, n)| n != name).cloned().collect();
        others.into_iter().for_each(|(host, other)| self.kill(host, &other));
    }

    pub(super) fn status(&self, host: usize, name: &str) -> Result<Value, Failure> {
        Ok(self.replica(host, &["status", name])?["replica"].clone())
    }

    /// Host 1 is primary of a resource, and its peer does not run.
    pub(super) fn only_primary(&self, name: &str) -> Result<(), Failure> {
        self.leave_only(name);
        self.kill(2, name);
        self.up(1, name)?;
        self.promote(name)
    }

    /// Both run and are equal, host 1 primary; every block was written once, with what is not zero.
    pub(super) fn both(&self, name: &str) -> Result<(), Failure> {
        self.leave_only(name);
        self.up(1, name)?;
        self.up(2, name)?;
        self.promote(name)?;
        self.until_equal(name)
    }

    fn promote(&self, name: &str) -> Result<(), Failure> {
        if self.status(1, name)?["role"] == "Primary" {
            return Ok(());
        }
        let fresh = self.status(1, name)?["disk"] == "Inconsistent";
        self.replica(1, &[&["primary", name][..], if fresh { &["--force"] } else { &[] }].concat())?;
        if fresh {
            // Bytes that differ from the peer's, and extents of the log that are hot.
            let bytes = self.status(1, name)?["size_bytes"].as_u64().unwrap_or(0);
            fio::nbd_fill(&self.uri(name), bytes >> 20 << 20)?;
        }
        Ok(())
    }

    /// Waits until the peer has everything.
    pub(super) fn until_equal(&self, name: &str) -> Result<(), Failure> {
        until(&format!("{name} is equal on both hosts"), || {
            let Ok(status) = self.status(1, name) else { return false };
            let peer = &status["peers"][0];
            peer["connection"] == "Established" && peer["out_of_sync_bytes"] == 0
        })
    }

    fn serve_plain(&self) -> Result<(), Failure> {
        let (disk, socket) = (self.disk(1, "plain"), self.folder(1).join("plain.nbd"));
        let mut command = on(1, &self.programs.join("shorefast"));
        command.args(["nbd", "serve", "--export", "plain", "--disk", text(&disk), "--unix", text(&socket)]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|e| Failure::new(format!("the plain server could not be started: {e}")))?;
        *self.plain.borrow_mut() = Some(child);
        until("the plain server listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok())
    }

    pub(super) fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.folder(1).join(format!("{name}.nbd")).display())
    }

    pub(super) fn pid(&self, host: usize, name: &str) -> u32 {
        self.running.borrow().get(&(host, name.to_owned())).map_or(0, Child::id)
    }

    pub(super) fn plain_pid(&self) -> u32 {
        self.plain.borrow().as_ref().map_or(0, Child::id)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let all = std::mem::take(&mut *self.running.borrow_mut());
        for mut child in all.into_values().chain(self.plain.borrow_mut().take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A path of ours as text.
pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<(), Failure> {
    let begun = Instant::now();
    while !done() {
        crate::interrupt::check()?;
        if begun.elapsed() > PATIENCE {
            return Err(Failure::new(format!("waited {} s, and not yet: {what}", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
