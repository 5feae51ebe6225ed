//! A tgtd of a test's own: its port, its control port, its disks; gone at the end, whatever the test comes to.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use block::worker::Workers;
use iscsi::chap::Chap;
use iscsi::discovery::Portal;
use iscsi::ids::Isid;
use iscsi::keys::params::Offer;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::Config;
use iscsi_initiator::{Ownership, Session};

/// Name of this host in tests.
pub(crate) const HOST: &str = "iqn.2026-01.test:host";
/// The target's name.
pub(crate) const TARGET: &str = "iqn.2026-01.test:t1";
/// Bytes of its disk.
pub(crate) const DISK: u64 = 64 << 20;

/// The daemon.
pub(crate) struct Tgt {
    child: Child,
    control: u16,
    host: String,
    /// The network namespace that it runs in, if not this process's.
    namespace: Option<String>,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
}

/// Control ports are numbers of tgtd's own; tests of one process must not share one, and those of two hardly do.
fn control() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = u16::try_from(std::process::id() % 500).unwrap_or(0) * 50 + 1000;
    base + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn program(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin"].iter().map(|d| Path::new(d).join(name)).find(|p| p.exists())
}

impl Tgt {
    /// Starts one with a target and a disk; none, said aloud, where that cannot be.
    pub(crate) fn start() -> Option<Tgt> {
        Tgt::start_at("127.0.0.1")
    }

    /// The same at another address of the loopback.
    pub(crate) fn start_at(host: &str) -> Option<Tgt> {
        let port = TcpListener::bind((host, 0)).and_then(|l| l.local_addr()).expect("a free port").port();
        Tgt::start_in(None, host, port)
    }

    /// The same in a network namespace.
    pub(crate) fn start_in(namespace: Option<&str>, host: &str, port: u16) -> Option<Tgt> {
        let Some(tgtd) = program("tgtd") else {
            println!("skipped: tgtd is not installed (./setup --for test installs it)");
            return None;
        };
        if !rustix_is_root() {
            println!("skipped: tgtd wants to be started by root");
            return None;
        }
        drop(std::fs::create_dir_all("/var/run/tgtd"));
        let control = control();
        let dir = tempfile::tempdir().expect("a folder");
        let child = Tgt::spawn(&tgtd, control, namespace, (host, port));
        let (host, namespace) = (host.to_owned(), namespace.map(str::to_owned));
        let tgt = Tgt { child, control, host, namespace, port, dir };
        tgt.configure();
        Some(tgt)
    }

    fn spawn(tgtd: &Path, control: u16, namespace: Option<&str>, (host, port): (&str, u16)) -> Child {
        let portal = format!("portal={host}:{port}");
        let mut command = Command::new(if namespace.is_some() { Path::new("ip") } else { tgtd });
        if let Some(namespace) = namespace {
            // It becomes what it starts, so that the child is tgtd.
            command.args(["netns", "exec", namespace]).arg(tgtd);
        }
        command.args(["-f", "-t", "4", "-C", &control.to_string(), "--iscsi", &portal]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        command.spawn().expect("tgtd starts")
    }

    fn configure(&self) {
        let image = self.dir.path().join("disk.img");
        if !image.exists() {
            std::fs::File::create(&image).and_then(|f| f.set_len(DISK)).expect("an image");
        }
        let image = image.display().to_string();
        let begun = Instant::now();
        while !self.admin(&["--mode", "target", "--op", "new", "--tid", "1", "--targetname", TARGET]).status.success() {
            assert!(begun.elapsed() < Duration::from_secs(20), "tgtd takes commands");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.must(&["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "--backing-store", &image]);
        self.must(&[
            "--mode",
            "logicalunit",
            "--op",
            "update",
            "--tid",
            "1",
            "--lun",
            "1",
            "--params",
            "thin_provisioning=1",
        ]);
        self.must(&["--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL"]);
    }

    fn admin(&self, args: &[&str]) -> Output {
        let tgtadm = program("tgtadm").expect("comes with tgtd");
        Command::new(tgtadm)
            .args(["--lld", "iscsi", "-C", &self.control.to_string()])
            .args(args)
            .output()
            .expect("tgtadm runs")
    }

    /// A command of tgtadm that must succeed.
    pub(crate) fn must(&self, args: &[&str]) {
        let out = self.admin(args);
        assert!(out.status.success(), "tgtadm {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Sets a key of the target.
    pub(crate) fn set(&self, key: &str, value: &str) {
        self.must(&["--mode", "target", "--op", "update", "--tid", "1", "--name", key, "--value", value]);
    }

    /// A target that wants no pause before a new login.
    pub(crate) fn without_pauses(self) -> Tgt {
        self.set("DefaultTime2Wait", "0");
        self
    }

    /// An account, for logins or (outgoing) for the target's own proof.
    pub(crate) fn account(&self, user: &str, secret: &str, outgoing: bool) {
        self.must(&["--mode", "account", "--op", "new", "--user", user, "--password", secret]);
        let mut bind = vec!["--mode", "account", "--op", "bind", "--tid", "1", "--user", user];
        if outgoing {
            bind.push("--outgoing");
        }
        self.must(&bind);
    }

    /// SIGKILL, and another one on the same port and disk.
    pub(crate) fn kill_and_restart(&mut self) {
        self.child.kill().expect("is ours");
        self.child.wait().expect("is ours");
        self.child = {
            let place = (self.host.as_str(), self.port);
            Tgt::spawn(&program("tgtd").expect("was there"), self.control, self.namespace.as_deref(), place)
        };
        self.configure();
    }

    pub(crate) fn portal(&self) -> Portal {
        Portal { host: self.host.clone(), port: self.port }
    }

    /// How to log in, with these keys.
    pub(crate) fn config(&self, slot: u16, chap: Option<Chap>, offer: Offer) -> Config {
        let kind = Kind::Normal { target: TARGET.into() };
        let mut login = LoginConfig::new(HOST, Isid::from_number(7, slot), kind);
        login.chap = chap;
        login.offer = offer;
        Config::new(login, self.portal())
    }

    pub(crate) fn session(&self, workers: &Workers, slot: u16) -> Session {
        Session::start(&workers.handle(), 0, self.config(slot, None, Offer::default()), Ownership::Alone)
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        // It ignores SIGTERM while it has targets.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

pub(crate) fn workers() -> Workers {
    Workers::start(1, "test").expect("workers start")
}

/// Runs a future on worker 0 and waits for it, not for ever.
pub(crate) fn run<F, Fut>(workers: &Workers, f: F) -> Fut::Output
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let task = workers.spawn(0, || async {
        let bounded = tokio::time::timeout(Duration::from_secs(60), f());
        bounded.await.expect("ends within a minute")
    });
    task.wait().expect("the test's future does not panic")
}
