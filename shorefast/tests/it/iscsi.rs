//! `iscsi ...` as its users meet it, against tgt on 127.0.0.1 where that is installed.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::fixture::{run, until};

/// The target's name.
const TARGET: &str = "iqn.2026-01.test:cli";

/// A tgtd of this test's own, ended with it.
pub(crate) struct Tgt {
    child: Child,
    control: String,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Tgt {
    fn drop(&mut self) {
        // It ignores SIGTERM while it has targets.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Tgt {
    pub(crate) fn start() -> Option<Tgt> {
        let Some(tgtd) = ["/usr/sbin/tgtd", "/sbin/tgtd"].map(Path::new).into_iter().find(|p| p.exists()) else {
            println!("skipped: tgtd is not installed (./setup --for test installs it)");
            return None;
        };
        if !rustix::process::geteuid().is_root() {
            println!("skipped: tgtd wants to be started by root");
            return None;
        }
        drop(fs::create_dir_all("/var/run/tgtd"));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let control = (30_000 + std::process::id() % 500 * 4 + NEXT.fetch_add(1, Ordering::Relaxed) % 4).to_string();
        let dir = tempfile::tempdir().expect("a folder");
        let image = dir.path().join("disk.img");
        fs::File::create(&image).and_then(|f| f.set_len(32 << 20)).expect("an image");
        let portal = format!("portal=127.0.0.1:{port}");
        let mut command = Command::new(tgtd);
        command.args(["-f", "-t", "2", "-C", &control, "--iscsi", &portal]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("tgtd starts");
        let tgt = Tgt { child, control, port, _dir: dir };
        until("tgtd takes commands", || {
            tgt.admin(&["--mode", "target", "--op", "new", "--tid", "1", "--targetname", TARGET])
        });
        let image = image.display().to_string();
        let unit = ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "--backing-store", &image];
        assert!(
            tgt.admin(&unit)
                && tgt.admin(&["--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL"])
        );
        Some(tgt)
    }

    /// Its disk.
    pub(crate) fn unit(&self) -> String {
        format!("iscsi://127.0.0.1:{}/{TARGET}/1", self.port)
    }

    fn admin(&self, args: &[&str]) -> bool {
        let mut command = Command::new("tgtadm");
        command.args(["--lld", "iscsi", "-C", &self.control]).args(args).stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    }
}

#[test]
fn a_san_is_looked_at_and_measured_without_a_daemon() {
    let Some(tgt) = Tgt::start() else { return };
    let portal = format!("iscsi://127.0.0.1:{}", tgt.port);
    let unit = tgt.unit();
    run(&["iscsi", "discover", &portal]).expect(0, &[TARGET, &format!("127.0.0.1:{}", tgt.port)]);
    run(&["iscsi", "inquiry", &unit]).expect(0, &["IET", "naa."]);
    let capacity = run(&["--json", "iscsi", "capacity", &unit]).json();
    assert_eq!(capacity["capacity"]["bytes"], 32 << 20);
    run(&["iscsi", "reservations", &unit]).expect(0, &["none"]);
    let read = run(&["iscsi", "read", &unit, "--len", "4k"]);
    assert_eq!((read.code, read.out), (0, "\0".repeat(4096)));
    run(&["iscsi", "discover", &format!("127.0.0.1:{}", tgt.port)]).expect(0, &[TARGET]);
    run(&["iscsi", "read", &unit, "--at", "32m", "--len", "4k"]).expect(1, &["The unit ends at byte 33554432"]);
    run(&["iscsi", "read", &unit, "--at", "1", "--len", "4k"]).expect(1, &["multiples of 512 bytes"]);
    run(&["iscsi", "write", &unit, "--destroy-data"]).expect(0, &["0 bytes", "are written", &unit]);
    let bench = run(&["--json", "iscsi", "bench", &unit, "--seconds", "1", "--depth", "4"]).json();
    assert!(bench["bench"]["requests"].as_u64().is_some_and(|n| n > 0), "{bench}");
    run(&["iscsi", "inquiry", &format!("{portal}/iqn.2026-01.test:other/1")]).expect(1, &["no such target"]);
}

#[test]
fn what_would_destroy_data_is_refused_and_no_secret_is_shown() {
    let unit = "iscsi://user%secret-of-12@127.0.0.1:1/iqn.2026-01.test:x/1";
    for args in [&["iscsi", "write", unit][..], &["iscsi", "bench", unit, "--rw", "randwrite"]] {
        let ended = run(args);
        ended.expect(4, &["overwrites data", "user%***@127.0.0.1:1", "--destroy-data"]);
        assert!(!ended.err.contains("secret-of-12"), "{ended:?}");
    }
    run(&["iscsi", "capacity", unit]).expect(1, &["cannot connect", "refused"]);
    run(&["iscsi", "discover", "127.0.0.1:1"]).expect(1, &["127.0.0.1:1", "refused"]);
    run(&["iscsi", "capacity", "nbd://x"]).expect(2, &["iscsi://"]);
    run(&["iscsi", "capacity", "iscsi://127.0.0.1:1"]).expect(2, &["names no unit"]);
}

/// What can be tried without a SCSI disk: the rest is done by hand (benches/lab/sg.sh).
#[test]
fn what_is_no_scsi_disk_is_told_so_with_the_code_that_fits() {
    run(&["scsi", "inquiry", "/nonexistent"]).expect(3, &["/nonexistent"]);
    run(&["scsi", "reservations", "/dev/null"]).expect(2, &["/dev/null is no SCSI disk", "lsblk -S"]);
    run(&["scsi", "inquiry", "scsi:naa.0000000000000000"]).expect(3, &["no SCSI disk of this host leads to"]);
    run(&["scsi", "reset", "/dev/null"]).expect(4, &["every command that any host has", "--yes"]);
}
