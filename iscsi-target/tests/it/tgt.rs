//! tgt, a target of another make, for the same suite in the same run; gone at the end, whatever the test comes to.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::rig::until;

const NAME: &str = "iqn.2026-01.test:tgt";

pub(crate) struct Tgt {
    child: Child,
    control: String,
    port: u16,
    dir: tempfile::TempDir,
}

impl Tgt {
    /// Starts one with a thin unit; none, said aloud, where that cannot be.
    pub(crate) fn start(bytes: u64) -> Option<Tgt> {
        if !Path::new("/usr/sbin/tgtd").exists() {
            println!("skipped: tgtd is not installed (./setup --for test installs it)");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            println!("skipped: tgtd wants to be started by root");
            return None;
        }
        drop(std::fs::create_dir_all("/var/run/tgtd"));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let control = (28_000 + std::process::id() % 2000).to_string();
        let dir = tempfile::tempdir().expect("a folder");
        let portal = format!("portal=127.0.0.1:{port}");
        let mut command = Command::new("/usr/sbin/tgtd");
        command.args(["-f", "-t", "4", "-C", &control, "--iscsi", &portal]);
        let child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().expect("it starts");
        let tgt = Tgt { child, control, port, dir };
        let image = tgt.dir.path().join("disk.img");
        std::fs::File::create(&image).and_then(|f| f.set_len(bytes)).expect("an image");
        until("tgtd takes commands", || tgt.admin("target", "new", &["--targetname", NAME]));
        let unit = ["--lun", "1", "--backing-store", &image.display().to_string()];
        assert!(tgt.admin("logicalunit", "new", &unit));
        assert!(tgt.admin("logicalunit", "update", &["--lun", "1", "--params", "thin_provisioning=1"]));
        assert!(tgt.admin("target", "bind", &["--initiator-address", "ALL"]));
        Some(tgt)
    }

    fn admin(&self, mode: &str, op: &str, more: &[&str]) -> bool {
        let mut command = Command::new("/usr/sbin/tgtadm");
        command.args(["--lld", "iscsi", "-C", &self.control, "--mode", mode, "--op", op, "--tid", "1"]).args(more);
        command.stderr(Stdio::null()).status().expect("tgtadm comes with tgtd").success()
    }

    pub(crate) fn url(&self) -> String {
        format!("iscsi://127.0.0.1:{}/{NAME}/1", self.port)
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        // It ignores SIGTERM while it has targets.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
