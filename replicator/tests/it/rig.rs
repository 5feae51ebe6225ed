//! A server of a test's own: its workers, its folder, its exports; gone at the end, whatever the test comes to.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use block::file::OpenOptions;
use block::worker::Workers;
use block::{BlockSize, ByteLen, FileDevice, MemDevice};
use replicator::nbd::{Export, Exports, Listen, Security, Server};

/// Generous: only a broken test waits this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Served {
    pub(crate) exports: Arc<Exports>,
    server: Option<Server>,
    /// Behind a lock, so that threads of a test may share this.
    workers: Mutex<Workers>,
    dir: tempfile::TempDir,
}

impl Served {
    /// At a Unix socket.
    pub(crate) fn new(exports: impl IntoIterator<Item = Export>) -> Served {
        let workers = workers();
        let table = table(exports);
        Served::start(workers, table, tempfile::tempdir().expect("a folder"), None)
    }

    /// Also at a TCP address of the kernel's choice.
    pub(crate) fn with_tcp(exports: impl IntoIterator<Item = Export>, security: Security) -> Served {
        Served::start(workers(), table(exports), tempfile::tempdir().expect("a folder"), Some(security))
    }

    /// A sparse file of this size as the export `disk`.
    pub(crate) fn file(size: u64) -> (Served, Arc<FileDevice>) {
        let (workers, dir) = (workers(), tempfile::tempdir().expect("a folder"));
        let path = dir.path().join("disk.img");
        std::fs::File::create(&path).and_then(|f| f.set_len(size)).expect("an image");
        let device = FileDevice::open(&path, OpenOptions::default(), workers.handle()).expect("opens");
        let device = Arc::new(device);
        let export = Export::new("disk", device.clone()).provisioned(device.clone()).resizable(device.clone());
        (Served::start(workers, table([export]), dir, None), device)
    }

    fn start(workers: Workers, exports: Arc<Exports>, dir: tempfile::TempDir, tcp: Option<Security>) -> Served {
        let mut listen = vec![Listen::Unix(dir.path().join("s"))];
        listen.extend(tcp.map(|security| Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)), security)));
        let (handle, table) = (workers.handle(), Arc::clone(&exports));
        let started = workers.spawn(0, move || async move { Server::start(handle, table, &listen).await });
        let server = started.wait().expect("it ran").expect("it listens");
        Served { exports, server: Some(server), workers: Mutex::new(workers), dir }
    }

    /// Stops it, and says when it has.
    pub(crate) fn stop(&mut self) -> block::worker::Task<()> {
        let server = self.server.take().expect("stopped once");
        self.workers.lock().expect("no panic").spawn(0, move || server.stop())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.as_ref().expect("running").addresses()[0]
    }

    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    pub(crate) fn connect(&self) -> UnixStream {
        connect(&self.socket())
    }
}

/// A connection that waits only so long.
pub(crate) fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a bound");
    stream.set_write_timeout(Some(DEADLINE)).expect("a bound");
    stream
}

fn workers() -> Workers {
    Workers::start(2, "nbd").expect("workers start")
}

fn table(exports: impl IntoIterator<Item = Export>) -> Arc<Exports> {
    let table = Exports::default();
    exports.into_iter().for_each(|export| table.add(export).expect("it can be served"));
    Arc::new(table)
}

/// A device in memory.
pub(crate) fn memory(size: u64) -> Arc<MemDevice> {
    Arc::new(MemDevice::new(ByteLen(size), BlockSize::B512))
}

/// It under the name `disk`, with all that it can tell.
pub(crate) fn exported(device: &Arc<MemDevice>) -> Export {
    Export::new("disk", device.clone()).provisioned(device.clone())
}

/// Until a condition holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether these programs are there; says so if not.
pub(crate) fn installed(programs: &[&str]) -> bool {
    let there = |name: &str| Path::new("/usr/bin").join(name).exists();
    let missing: Vec<_> = programs.iter().filter(|p| !there(p)).collect();
    if !missing.is_empty() {
        println!("skipped: {missing:?} not installed (./setup --for test installs them)");
    }
    missing.is_empty()
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, args: &[&str]) -> Ran {
    let mut command = Command::new("timeout");
    // Debian's own Python has libnbd; another that stands before it in the path has not.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.args(["-k", "5", "60", program]).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs a program that must succeed.
pub(crate) fn must(program: &str, args: &[&str]) -> String {
    let ran = run(program, args);
    assert!(ran.ok, "{program} {args:?}: {ran:?}");
    ran.out
}

/// Bytes that no other place has.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
