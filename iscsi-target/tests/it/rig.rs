//! A target of a test's own: workers, disks, portals; gone at the end, whatever the test comes to.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use block::FileDevice;
use block::file::OpenOptions;
use block::worker::Workers;
use iscsi_target::{Admission, Lun, Portal, Server, Target};

/// The target's name.
pub(crate) const TARGET: &str = "iqn.2026-01.test:ours";

/// A target that runs.
pub(crate) struct Rig {
    pub(crate) server: Option<Server>,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) workers: Workers,
    pub(crate) dir: tempfile::TempDir,
    /// The device of [`Rig::file`].
    pub(crate) first: Option<Arc<FileDevice>>,
}

impl Rig {
    /// One unit, a sparse file of so many bytes, at one portal.
    pub(crate) fn file(bytes: u64) -> Rig {
        let mut rig = Rig::empty();
        let device = rig.device("disk.img", bytes);
        rig.first = Some(device.clone());
        rig.start(rig.target(vec![Lun::new(0, device.clone()).thin(device)]));
        rig
    }

    /// Stops the target of [`Rig::file`], and starts another on the same disk and state.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let device = self.first.clone().expect("made by `file`");
        self.start(self.target(vec![Lun::new(0, device.clone()).thin(device)]));
    }

    fn empty() -> Rig {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let workers = Workers::start(2, "test").expect("workers start");
        Rig { server: None, runtime, workers, dir: tempfile::tempdir().expect("a folder"), first: None }
    }

    fn start(&mut self, target: Target) {
        let started = self.runtime.block_on(Server::start(self.workers.handle(), target));
        self.server = Some(started.expect("it listens"));
    }

    /// What `make` makes.
    pub(crate) fn with(make: impl FnOnce(&Rig) -> Target) -> Rig {
        let mut rig = Rig::empty();
        let target = make(&rig);
        rig.start(target);
        rig
    }

    /// A file as a device.
    pub(crate) fn device(&self, name: &str, bytes: u64) -> Arc<FileDevice> {
        let path = self.dir.path().join(name);
        if !path.exists() {
            std::fs::File::create(&path).and_then(|f| f.set_len(bytes)).expect("an image");
        }
        Arc::new(FileDevice::open(path, OpenOptions::default(), self.workers.handle()).expect("opens"))
    }

    /// A target of these units at one portal, for everybody.
    pub(crate) fn target(&self, luns: Vec<Lun>) -> Target {
        Target {
            name: TARGET.into(),
            luns,
            portals: vec![Portal { address: "127.0.0.1:0".parse().expect("an address"), group: 1 }],
            admission: Admission::default(),
            state: Some(self.dir.path().join("state")),
            redirect: None,
        }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// libiscsi's URL of a unit.
    pub(crate) fn url(&self, lun: u64) -> String {
        format!("iscsi://{}/{TARGET}/{lun}", self.server().addresses()[0])
    }

    /// Stops the target in order.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            let bounded = async { tokio::time::timeout(std::time::Duration::from_secs(60), server.stop()).await };
            self.runtime.block_on(bounded).expect("it stops");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // The server begins to stop; the workers end its tasks.
        drop(self.server.take());
    }
}

/// Runs a program for at most so many seconds; all that it said, and whether it ended well. None, said aloud, where it is
/// not installed.
pub(crate) fn run(program: &str, seconds: u32, args: &[&str]) -> Option<(bool, String)> {
    if !["/usr/bin", "/usr/sbin"].iter().any(|d| Path::new(d).join(program).exists()) {
        println!("skipped: {program} is not installed (./setup --for test installs it)");
        return None;
    }
    let output = Command::new("timeout")
        .args(["-k", "5", &seconds.to_string(), program])
        .args(args)
        .output()
        .expect("the program runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some((output.status.success(), text))
}

/// Waits for a condition, not for ever.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
