//! A tgtd of the section's own: two portals on the loopback, a unit in memory and a null one; a second target with the same
//! units and a data digest.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use iscsi::discovery::Portal;
use tempfile::TempDir;

use super::ours::Lun;
use crate::Failure;

/// Bytes of the unit in memory.
pub(super) const SIZE: u64 = 512 << 20;
/// The keys with which libiscsi was fastest: whole writes of up to 256 KiB without an R2T, several R2Ts for longer ones.
const KEYS: [(&str, &str); 6] = [
    ("MaxRecvDataSegmentLength", "262144"),
    ("MaxXmitDataSegmentLength", "262144"),
    ("FirstBurstLength", "262144"),
    ("MaxBurstLength", "1048576"),
    ("InitialR2T", "No"),
    ("MaxOutstandingR2T", "8"),
];
/// Until the daemon takes commands.
const START: Duration = Duration::from_secs(20);

/// Targets: without and with a data digest.
pub(super) const TARGETS: [&str; 2] = ["iqn.2026-01.test:bench", "iqn.2026-01.test:digest"];

pub(super) struct Tgt {
    child: Child,
    control: String,
    ports: [u16; 2],
    /// In memory: /dev/shm.
    dir: TempDir,
}

impl Tgt {
    pub(super) fn start() -> Result<Tgt, Failure> {
        let dir = TempDir::new_in("/dev/shm").map_err(|e| Failure::at(Path::new("/dev/shm"), e))?;
        // tgtd keeps its control socket there.
        std::fs::create_dir_all("/var/run/tgtd").map_err(|e| Failure::at(Path::new("/var/run/tgtd"), e))?;
        let ports = [port()?, port()?];
        let control = (std::process::id() % 30_000 + 1).to_string();
        let portals = format!("portal=127.0.0.1:{},portal=127.0.0.1:{}", ports[0], ports[1]);
        let child = Command::new("/usr/sbin/tgtd")
            .args(["-f", "-t", "16", "-C", &control, "--iscsi", &portals])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| Failure::new(format!("tgtd could not be started: {e}; install Debian's package tgt")))?;
        let tgt = Tgt { child, control, ports, dir };
        tgt.configure()?;
        Ok(tgt)
    }

    fn configure(&self) -> Result<(), Failure> {
        let image = self.image();
        // Written, so that no page of it comes into being while it is measured.
        std::fs::write(&image, vec![0x5a; SIZE as usize]).map_err(|e| Failure::at(&image, e))?;
        let image = image.display().to_string();
        let begun = Instant::now();
        for (n, target) in TARGETS.iter().enumerate() {
            let tid = (n + 1).to_string();
            let new = ["--mode", "target", "--op", "new", "--tid", &tid, "--targetname", target];
            while let Err(why) = self.admin(&new) {
                if begun.elapsed() > START {
                    return Err(why);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let unit = ["--mode", "logicalunit", "--op", "new", "--tid", &tid, "--backing-store", &image];
            self.admin(&[&unit[..], &["--lun", "1"]].concat())?;
            self.admin(&[&unit[..], &["--lun", "2", "--bstype", "null"]].concat())?;
            let digest = (n == 1).then_some(("DataDigest", "CRC32C"));
            for (key, value) in KEYS.into_iter().chain(digest) {
                self.admin(&["--mode", "target", "--op", "update", "--tid", &tid, "--name", key, "--value", value])?;
            }
            self.admin(&["--mode", "target", "--op", "bind", "--tid", &tid, "--initiator-address", "ALL"])?;
        }
        Ok(())
    }

    fn admin(&self, args: &[&str]) -> Result<(), Failure> {
        let out = Command::new("/usr/sbin/tgtadm")
            .args(["--lld", "iscsi", "-C", &self.control])
            .args(args)
            .output()
            .map_err(|e| Failure::new(format!("tgtadm could not be started: {e}; install Debian's package tgt")))?;
        if out.status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("tgtadm {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim())))
    }

    /// Its portals, the first so many.
    pub(super) fn portals(&self, count: usize) -> Vec<Portal> {
        self.ports.iter().take(count).map(|port| Portal { host: "127.0.0.1".to_owned(), port: *port }).collect()
    }

    /// The process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file behind its unit in memory.
    pub(super) fn image(&self) -> PathBuf {
        self.dir.path().join("unit")
    }

    /// A unit at the first portal, in libiscsi's form.
    pub(super) fn url(&self, lun: Lun) -> String {
        format!("iscsi://127.0.0.1:{}/{}/{}", self.ports[0], TARGETS[0], lun.number())
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        // It ignores SIGTERM while it has targets.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free on the loopback.
pub(super) fn port() -> Result<u16, Failure> {
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
    free.map(|a| a.port()).map_err(|e| Failure::new(format!("no free port on 127.0.0.1: {e}")))
}
