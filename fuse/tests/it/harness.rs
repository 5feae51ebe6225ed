//! Mounts for tests: served on threads, watched, taken away.

use crate::memfs::MemFs;
use fuse::{Channel, Ended, Mount, MountHow, MountOptions, Request, Unmount};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long anything may take before a test is called stuck.
pub(crate) const DEADLINE: Duration = Duration::from_secs(25);

/// A mounted [`MemFs`].
pub(crate) struct Served {
    pub(crate) fs: Arc<MemFs>,
    pub(crate) mount: Arc<Mount>,
    pub(crate) dir: tempfile::TempDir,
    ended: mpsc::Receiver<Ended>,
    channels: usize,
}

/// True if mounting is possible here; says so if not. With REQUIRE_ALL that is a failure.
pub(crate) fn can_mount() -> bool {
    let opened = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    match opened {
        Ok(_) => true,
        Err(error) => skip(&format!("/dev/fuse: {error}")),
    }
}

/// Prints why a test is skipped, and is false; panics where nothing may be skipped.
pub(crate) fn skip(reason: &str) -> bool {
    assert!(std::env::var_os("REQUIRE_ALL").is_none(), "may not be skipped: {reason}");
    println!("SKIPPED {}: {reason}", std::thread::current().name().unwrap_or("?"));
    false
}

pub(crate) fn options(at: &Path) -> MountOptions {
    MountOptions::new(at, "shorefast:test")
}

impl Served {
    pub(crate) fn new(names: &[&str], channels: usize) -> Self {
        Self::with(names, channels, MountHow::Auto)
    }

    pub(crate) fn with(names: &[&str], channels: usize, how: MountHow) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fs = MemFs::new(names);
        let (mount, ended) = serve(&fs, &MountOptions { channels, how, ..options(dir.path()) });
        Self { fs, mount: Arc::new(mount), dir, ended, channels }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.mount.mountpoint().join(name)
    }

    /// Runs `f` on a thread of its own; aborts the mount and fails if it takes too long.
    pub(crate) fn within<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        within(f, || {
            let _ = self.mount.abort();
        })
    }

    /// How each channel's `serve` ended.
    pub(crate) fn ends(&self) -> Vec<Ended> {
        (0..self.channels).map(|_| self.ended.recv_timeout(DEADLINE).expect("serve ends")).collect()
    }

    /// Waits until `condition` holds.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&MemFs) -> bool) {
        wait_until(what, || condition(&self.fs));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Aborted first: whoever is still stuck in it is let go. The mount's own drop unmounts.
        let _ = self.mount.abort();
        let _ = self.mount.unmount(Unmount::Lazy);
    }
}

/// Mounts and serves each channel on a thread with a runtime of its own.
pub(crate) fn serve(fs: &Arc<MemFs>, options: &MountOptions) -> (Mount, mpsc::Receiver<Ended>) {
    let (mount, channels) = Mount::open(options).expect("mount");
    let fs = Arc::clone(fs);
    let (stop, ended) = serve_channels(channels, move |request| fs.handle(request));
    // Never stopped: they end with the mount.
    std::mem::forget(stop);
    (mount, ended)
}

/// Serves each channel on a thread with a runtime of its own, until what is returned first is dropped or the mount ends.
pub(crate) fn serve_channels(
    channels: Vec<Channel>,
    handle: impl Fn(Request) + Clone + Send + 'static,
) -> (watch::Sender<()>, mpsc::Receiver<Ended>) {
    let (end, ended) = mpsc::channel();
    let (stop, stopped) = watch::channel(());
    for channel in channels {
        let (handle, end, mut stopped) = (handle.clone(), end.clone(), stopped.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                tokio::select! {
                    served = channel.serve(handle) => drop(end.send(served.expect("serve"))),
                    _ = stopped.changed() => {}
                }
            });
        });
    }
    (stop, ended)
}

/// Runs `f` on a thread of its own; after the deadline `free` is called and the test fails.
pub(crate) fn within<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static, free: impl FnOnce()) -> T {
    let (done, outcome) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let value = f();
        let _ = done.send(());
        value
    });
    if outcome.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
        free();
        panic!("stuck for {DEADLINE:?}");
    }
    match worker.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that does not outlive its test.
pub(crate) struct Child(pub(crate) std::process::Child);

impl Child {
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the child did not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.try_wait();
    }
}

/// True if every thread of the process is stopped (T), as its stat file says behind the name.
pub(crate) fn all_stopped(pid: u32) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    })
}

/// This very test, run again as another process: `role` tells it that it is the child.
pub(crate) fn again(test: &str, role: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("FUSE_TEST_ROLE", role);
    command
}

/// What [`again`] was given, in the child.
pub(crate) fn role() -> Option<String> {
    std::env::var("FUSE_TEST_ROLE").ok()
}

/// Takes whatever is mounted there away when the test ends.
pub(crate) struct Cleaned(pub(crate) PathBuf);

impl Drop for Cleaned {
    fn drop(&mut self) {
        use rustix::mount::UnmountFlags;
        while rustix::mount::unmount(&self.0, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    }
}
