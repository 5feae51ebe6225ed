//! Runs the program: single commands, and clusters of daemons in a folder of their own.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::field::{Network, PORT};

/// Nothing here takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_shorefast");

/// What a command ended with.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Its standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Fails unless it ended with a code and said something.
    pub(crate) fn expect(&self, code: i32, words: &[&str]) {
        let said = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(said.contains(word), "`{word}` was not said: {self:?}");
        }
    }
}

/// Runs a command to its end; one that hangs is killed, and fails the test.
pub(crate) fn run(args: &[&str]) -> Ended {
    let mut command = Command::new(PROGRAM);
    command
        .args(args)
        .env_remove("SHOREFAST_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let deadline = Instant::now() + PATIENCE * 2;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |pipe: JoinHandle<String>| pipe.join().expect("reading does not panic");
    let ended = Ended { code: status.and_then(|s| s.code()).unwrap_or(-1), out: text(out), err: text(err) };
    assert!(status.is_some(), "{args:?} hangs: {ended:?}");
    ended
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_string(&mut text).expect("the program speaks UTF-8");
        }
        text
    })
}

/// Does something that may hang on a mount, with a limit. A panic in there is a panic here.
pub(crate) fn within<T: Send + 'static>(what: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let started = background(f);
    started.ended(what)
}

/// Something that goes on meanwhile on a thread of its own.
pub(crate) struct Background<T> {
    thread: JoinHandle<T>,
    done: mpsc::Receiver<()>,
}

/// Starts something that may hang on a mount.
pub(crate) fn background<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Background<T> {
    let (tx, done) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        // Dropped at the end, also by a panic: that is the signal.
        let _done = tx;
        f()
    });
    Background { thread, done }
}

impl<T> Background<T> {
    /// Whether it has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end, with a limit.
    pub(crate) fn ended(self, what: &str) -> T {
        let hangs = matches!(self.done.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Timeout));
        assert!(!hangs, "{what} hangs");
        self.thread.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
    }
}

/// Whether no thread of a process runs any more; the ring's own ones are the kernel's, and take no signal.
fn stands_still(pid: &str) -> bool {
    let stands = |stat: &str| {
        stat.rsplit_once(") ").is_none_or(|(name, rest)| name.contains("(iou-") || !rest.starts_with(['R', 'S', 'D']))
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().map_while(Result::ok);
    tasks.map(|task| fs::read_to_string(task.path().join("stat")).unwrap_or_default()).all(|stat| stands(&stat))
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come about within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Whether mounts are possible here; says why a test is skipped, if not.
pub(crate) fn can_mount() -> bool {
    let can = fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !can {
        println!("skipped: /dev/fuse cannot be opened");
    }
    can
}

/// Daemons on addresses of their own, and the folder they live in; all of it goes with this value.
pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    daemons: Vec<Option<Child>>,
    /// What leads to the network of each daemon, if it is not this host's own.
    doors: Vec<String>,
    /// The network that the daemons are on, if this has made one. It goes after they have ended.
    net: Option<Network>,
    _folder: tempfile::TempDir,
}

/// Addresses that no other test uses: the second and third byte and the port tell process and cluster apart.
pub(crate) fn addresses(nodes: usize) -> Vec<String> {
    static CLUSTERS: AtomicU32 = AtomicU32::new(0);
    let (pid, cluster) = (std::process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
    let port = 12_000 + pid / 200 % 20_000;
    (1..=nodes).map(|n| format!("127.{}.{}.{n}:{port}", 20 + pid % 200, 1 + cluster % 250)).collect()
}

impl Cluster {
    /// Certificates and configurations for some nodes; nothing runs yet.
    pub(crate) fn new(nodes: usize) -> Cluster {
        Cluster::on(addresses(nodes), Vec::new(), None)
    }

    /// The same on a network of its own, which can be cut. None, said aloud, where there is no such thing.
    pub(crate) fn apart(nodes: usize) -> Option<Cluster> {
        let net = Network::new(nodes)?;
        let addresses = (1..=nodes).map(|n| format!("{}:{PORT}", net.address(n))).collect();
        let doors = (1..=nodes).map(|n| net.door(n)).collect();
        Some(Cluster::on(addresses, doors, Some(net)))
    }

    /// The same on networks that somebody else has made, and takes away.
    pub(crate) fn behind(doors: Vec<String>, addresses: Vec<String>) -> Cluster {
        Cluster::on(addresses, doors, None)
    }

    fn on(addresses: Vec<String>, doors: Vec<String>, net: Option<Network>) -> Cluster {
        let nodes = addresses.len();
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_owned();
        let list: Vec<String> = addresses.iter().zip(1..).map(|(a, n)| format!("{n}={a}")).collect();
        let out = dir.join("certificates");
        make_bundles(&list, &out);
        let cluster = Cluster { dir, daemons: (0..nodes).map(|_| None).collect(), doors, net, _folder: folder };
        for n in 1..=nodes {
            fs::create_dir(cluster.node_dir(n)).expect("a folder");
            cluster.configure(n, "");
        }
        cluster
    }

    /// The network of a cluster that is apart.
    pub(crate) fn network(&self) -> &Network {
        self.net.as_ref().expect("it is on a network of its own")
    }

    /// Writes a node's configuration, with lines of a test's own.
    pub(crate) fn configure(&self, n: usize, more: &str) {
        let dir = self.node_dir(n);
        let at = |name: &str| dir.join(name).display().to_string();
        let text = format!(
            "bundle = \"{}\"\nsocket = \"{}\"\nstate_dir = \"{}\"\nmount_root = \"{}\"\nworkers = 1\ndebug = true\nfault_device = true\n{more}",
            self.bundle(n).display(),
            at("api.sock"),
            at("state"),
            at("mnt")
        );
        fs::write(dir.join("shorefast.toml"), text).expect("writes");
    }

    pub(crate) fn node_dir(&self, n: usize) -> PathBuf {
        self.dir.join(format!("node-{n}"))
    }

    pub(crate) fn bundle(&self, n: usize) -> PathBuf {
        self.dir.join(format!("certificates/node-{n}.bundle"))
    }

    pub(crate) fn config(&self, n: usize) -> String {
        self.node_dir(n).join("shorefast.toml").display().to_string()
    }

    pub(crate) fn socket(&self, n: usize) -> String {
        self.node_dir(n).join("api.sock").display().to_string()
    }

    /// Where a node mounts a volume.
    pub(crate) fn mount(&self, n: usize, volume: &str) -> PathBuf {
        self.node_dir(n).join("mnt").join(volume)
    }

    /// Some nodes that run, and a volume `v` that all of them have mounted; node 1 is its coordinator.
    pub(crate) fn with_volume(nodes: usize) -> Cluster {
        let mut cluster = Cluster::new(nodes);
        cluster.begin("fast");
        cluster
    }

    /// Starts all nodes, and waits until each of them answers.
    pub(crate) fn start_all(&mut self) {
        let nodes = self.daemons.len();
        for n in 1..=nodes {
            self.spawn(n);
        }
        for n in 1..=nodes {
            self.until_answers(n);
        }
    }

    /// Starts all nodes, and makes a volume `v` with this timing that all of them mount.
    pub(crate) fn begin(&mut self, timing: &str) {
        let nodes = self.daemons.len();
        self.start_all();
        self.create_timed("v", timing);
        for n in 2..=nodes {
            until("the mount", || self.is_mounted(n));
        }
    }

    /// Starts a node and waits until it answers.
    pub(crate) fn start(&mut self, n: usize) {
        self.spawn(n);
        self.until_answers(n);
    }

    /// Starts a node whose daemon some other program becomes: what it is called with, the program under test at the end.
    pub(crate) fn start_as(&mut self, n: usize, wrapper: &[String]) {
        self.spawn_as(n, wrapper);
        self.until_answers(n);
    }

    /// The process of a node that runs.
    pub(crate) fn pid(&self, n: usize) -> u32 {
        self.daemons[n - 1].as_ref().expect("it runs").id()
    }

    fn spawn(&mut self, n: usize) {
        self.spawn_as(n, &[PROGRAM.to_owned()]);
    }

    fn spawn_as(&mut self, n: usize, program: &[String]) {
        let log = fs::File::options().create(true).append(true).open(self.node_dir(n).join("log")).expect("a log");
        let enter = self.doors.get(n - 1).into_iter().flat_map(|door| ["nsenter".to_owned(), door.clone()]);
        let program: Vec<String> = enter.chain(program.iter().cloned()).collect();
        let child = Command::new(&program[0])
            .args(&program[1..])
            .args(["daemon", "--config", &self.config(n)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program runs");
        self.daemons[n - 1] = Some(child);
    }

    fn until_answers(&mut self, n: usize) {
        until("the daemon's answer", || {
            let alive = matches!(self.daemons[n - 1].as_mut().map(Child::try_wait), Some(Ok(None)));
            assert!(alive, "the daemon ended: {}", self.log(n));
            self.ask(n, &["--json", "node", "list"]).code == 0
        });
    }

    /// Whether a node's daemon has ended by itself, or by another's hand.
    pub(crate) fn has_died(&mut self, n: usize) -> bool {
        let ended = self.is_dead(n);
        if ended {
            self.daemons[n - 1] = None;
        }
        ended
    }

    /// Whether a node's daemon has ended and nobody has buried it yet.
    pub(crate) fn is_dead(&mut self, n: usize) -> bool {
        self.daemons[n - 1].as_mut().is_some_and(|d| d.try_wait().expect("it is our child").is_some())
    }

    /// What a node's daemon wrote.
    pub(crate) fn log(&self, n: usize) -> String {
        fs::read_to_string(self.node_dir(n).join("log")).unwrap_or_default()
    }

    fn log_tail(&self, n: usize) -> String {
        let log = self.log(n);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// SIGTERM, and waits; the exit code.
    pub(crate) fn stop(&mut self, n: usize) -> i32 {
        let Some(mut child) = self.daemons[n - 1].take() else { return 0 };
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        let mut code = -1;
        until("the daemon's end", || match child.try_wait().expect("it is our child") {
            Some(status) => {
                code = status.code().unwrap_or(-1);
                true
            }
            None => false,
        });
        code
    }

    /// Sends a running node's daemon a signal by its name. One that is to stop has stopped when this returns.
    ///
    /// Prevents: what is asked of it next is answered by a thread that has not stopped yet.
    pub(crate) fn signal(&self, n: usize, signal: &str) {
        let pid = self.pid(n).to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill runs");
        assert!(sent.success(), "{signal} was not sent to node {n}");
        if signal == "STOP" {
            until("its standing still", || stands_still(&pid));
        }
    }

    /// SIGKILL, and waits.
    pub(crate) fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.daemons[n - 1].take() {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
    }

    /// Runs a command against a node.
    pub(crate) fn ask(&self, n: usize, args: &[&str]) -> Ended {
        let socket = self.socket(n);
        let mut all = vec!["--socket", &socket];
        all.extend(args);
        run(&all)
    }

    /// A volume of a node's status; none of one that does not answer.
    pub(crate) fn volume(&self, n: usize, name: &str) -> Option<Value> {
        let status = self.ask(n, &["--json", "status"]);
        if status.code != 0 {
            return None;
        }
        let volumes = status.json()["volumes"].as_array()?.clone();
        volumes.into_iter().find(|v| v["name"] == name)
    }

    /// Fails unless the check of the volume `v`, asked for through a node, finds nothing wrong.
    pub(crate) fn checks_clean(&self, n: usize) {
        self.ask(n, &["volume", "check", "v"]).expect(0, &["Nothing is wrong"]);
    }

    /// Whether a node has mounted the volume `v`.
    pub(crate) fn is_mounted(&self, n: usize) -> bool {
        self.volume(n, "v").is_some_and(|v| v["mount"].is_string())
    }

    /// Who coordinates `v`, as a node knows it; 0 for nobody.
    pub(crate) fn coordinator(&self, n: usize) -> u64 {
        self.volume(n, "v").and_then(|v| v["coordinator"].as_u64()).unwrap_or(0)
    }

    /// How a node's data travels to `v`, as it says itself, and why.
    pub(crate) fn route(&self, n: usize) -> (String, String) {
        let nodes = self.volume(n, "v").map(|v| v["nodes"].clone()).unwrap_or_default();
        let own = nodes.as_array().and_then(|l| l.iter().find(|r| r["node"] == n)).cloned().unwrap_or_default();
        let text = |name: &str| own[name].as_str().unwrap_or_default().to_owned();
        (text("route"), text("reason"))
    }

    /// Waits until a node's data travels like that.
    pub(crate) fn until_route(&self, n: usize, route: &str) {
        until(&format!("the route {route} of node {n}"), || self.route(n).0 == route);
    }

    /// Waits until a node has an event of that code whose message says something.
    pub(crate) fn until_event(&self, n: usize, code: &str, said: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = self.events(n);
            if events.iter().any(|(c, m)| c == code && m.contains(said)) {
                return;
            }
            assert!(Instant::now() < deadline, "no event {code} with `{said}` on node {n}: {events:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The codes and messages of a node's events.
    pub(crate) fn events(&self, n: usize) -> Vec<(String, String)> {
        let text = self.ask(n, &["--json", "events"]).out;
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).expect("an event a line");
            let field = |name: &str| event["event"][name].as_str().unwrap_or_default().to_owned();
            (field("code"), field("message"))
        };
        text.lines().map(event).collect()
    }

    /// A sparse file to be a disk.
    pub(crate) fn disk(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.dir.join(name);
        fs::File::create_new(&path).and_then(|f| f.set_len(bytes)).expect("a sparse file");
        path
    }

    /// Makes a volume on a fresh disk through node 1.
    pub(crate) fn create_volume(&self, name: &str) -> PathBuf {
        self.create_timed(name, "fast")
    }

    /// With timers of that name: `default` where a machine that stalls for a moment must not show.
    pub(crate) fn create_timed(&self, name: &str, timing: &str) -> PathBuf {
        let disk = self.disk(&format!("{name}.img"), 2 << 30);
        self.ask(1, &["volume", "create", name, "--disk", path(&disk), "--timing", timing]).expect(0, &[]);
        disk
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        for n in 1..=self.daemons.len() {
            if panicking {
                eprintln!("the end of node {n}'s log:\n{}", self.log_tail(n));
            }
            // While a test panics nothing more may panic.
            if let Some(mut child) = self.daemons[n - 1].take() {
                // A holder first: it would start another daemon.
                let held = children(child.id());
                let _ = child.kill();
                let _ = child.wait();
                for pid in held {
                    let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
                }
            }
        }
        for point in mounts_below(&self.dir) {
            let _ = Command::new("umount").arg("-l").arg(&point).stderr(Stdio::null()).status();
            let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(&point).stderr(Stdio::null()).status();
        }
    }
}

/// What a process has started and not waited for yet.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split(' ').filter_map(|pid| pid.trim().parse().ok()).collect::<Vec<_>>()).collect()
}

/// Makes a cluster's bundles.
pub(crate) fn make_bundles(list: &[String], out: &Path) {
    let mut args = vec!["init", "--cluster", "test", "--out", path(out)];
    for node in list {
        args.extend(["--node", node.as_str()]);
    }
    run(&args).expect(0, &[]);
}

/// Mount points below a folder, from the kernel's table.
pub(crate) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|p| p.starts_with(dir)).collect()
}

/// A path as an argument.
pub(crate) fn path(p: &Path) -> &str {
    p.to_str().expect("folders of tests have plain names")
}
