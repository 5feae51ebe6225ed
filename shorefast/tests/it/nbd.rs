//! `nbd serve` as its users meet it, with QEMU's tools as clients where they are installed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::fixture::{PROGRAM, run, until};

/// A running server, ended with the test.
struct Serving {
    child: Child,
    line: String,
}

impl Serving {
    fn start(args: &[&str]) -> Serving {
        let mut command = Command::new(PROGRAM);
        command.args(["--json", "nbd", "serve"]).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.contains("uris"), "not ready: {line:?}");
        Serving { child, line }
    }

    fn uri(&self, n: usize) -> String {
        let value: serde_json::Value = serde_json::from_str(&self.line).expect("JSON");
        value["nbd"]["uris"][n].as_str().expect("a URI").to_owned()
    }

    /// Asks it to stop, and waits for that; its exit code.
    fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is our child");
        until("it has stopped", || self.child.try_wait().is_ok_and(|ended| ended.is_some()));
        self.child.wait().expect("it has ended").code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn qemu_io(uri: &str, commands: &[&str]) -> Option<String> {
    if !Path::new("/usr/bin/qemu-io").exists() {
        println!("skipped: qemu-io is not installed (./setup --for test installs it)");
        return None;
    }
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "60", "qemu-io", "-f", "raw"]);
    for c in commands {
        command.args(["-c", c]);
    }
    let output = command.arg(uri).output().expect("qemu-io runs");
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_disk_is_served_until_the_signal_and_what_was_flushed_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let (disk, socket) = (dir.path().join("disk.img"), dir.path().join("s"));
    fs::File::create(&disk).and_then(|f| f.set_len(16 << 20)).expect("an image");
    let (disk_arg, socket_arg) = (disk.display().to_string(), socket.display().to_string());
    let at = ["--disk", &disk_arg, "--unix", &socket_arg, "--listen", "127.0.0.1:0", "--export", "vm"];
    let serving = Serving::start(&at);
    assert!(serving.uri(0).starts_with("nbd+unix:///vm?socket=") && serving.uri(1).starts_with("nbd://127.0.0.1:"));
    run(&["nbd", "serve", "--disk", &disk_arg, "--unix", &socket_arg]).expect(4, &["in use"]);
    for n in 0..2 {
        let Some(out) = qemu_io(&serving.uri(n), &["write -P 0x41 1M 64k", "flush", "read -P 0x41 1M 64k"]) else {
            return;
        };
        assert!(!out.contains("fail"), "{out}");
    }
    assert_eq!(serving.stop(), Some(0));
    assert!(!socket.exists(), "the socket goes with it");
    assert_eq!(fs::read(&disk).expect("the image")[1 << 20..][..65536], [0x41; 65536]);
}

#[test]
fn what_would_be_dangerous_or_cannot_be_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = dir.path().join("disk.img");
    fs::File::create(&disk).and_then(|f| f.set_len(16 << 20)).expect("an image");
    let (disk, socket) = (disk.display().to_string(), dir.path().join("s").display().to_string());
    run(&["nbd", "serve", "--disk", &disk]).expect(2, &["--unix"]);
    run(&["nbd", "serve", "--disk", &disk, "--listen", "0.0.0.0:0"]).expect(4, &["every host", "--tls-bundle"]);
    run(&["nbd", "serve", "--disk", &disk, "--unix", &socket, "--tls-bundle", "x"]).expect(2, &["--listen"]);
    run(&["nbd", "serve", "--disk", "/nonexistent", "--unix", &socket]).expect(3, &["/nonexistent"]);
    run(&["nbd", "serve", "--disk", "iscsi://h/t/1", "--unix", &socket]).expect(2, &["not a path"]);
    run(&["nbd", "serve", "--disk", &disk, "--unix", &disk]).expect(1, &["cannot listen"]);
    assert!(fs::metadata(&disk).is_ok_and(|m| m.is_file()), "a file that stood there still does");
}

/// Whoever writes there destroys the volume under its nodes.
#[test]
fn a_disk_with_a_volume_is_served_read_only_or_not_at_all() {
    use block::worker::Workers;
    use block::{BlockDevice, FileDevice};
    use csv_fs::format::{TimingMs, VolumeName};
    use csv_fs::meta::{FormatOptions, Root, Store};
    let dir = tempfile::tempdir().expect("a folder");
    let (disk, socket) = (dir.path().join("disk.img"), dir.path().join("s").display().to_string());
    fs::File::create(&disk).and_then(|f| f.set_len(1 << 30)).expect("an image");
    {
        let workers = Workers::start(1, "format").expect("workers start");
        let device = FileDevice::open(&disk, block::file::OpenOptions::default(), workers.handle()).expect("opens");
        let device: std::sync::Arc<dyn BlockDevice> = std::sync::Arc::new(device);
        let options = FormatOptions {
            volume: csv_fs::types::VolumeId(0x1234_5678),
            name: VolumeName::new("precious").expect("a name"),
            nodes: 1,
            timing: TimingMs::FAST,
            root: Root { uid: 0, gid: 0, mode: 0o755, now: csv_fs::types::Timestamp::default() },
            wipe: None,
        };
        Store::format(&device, &options).expect("formatted");
    }
    let disk = disk.display().to_string();
    run(&["nbd", "serve", "--disk", &disk, "--unix", &socket]).expect(4, &["precious", "--read-only"]);
    let serving = Serving::start(&["--disk", &disk, "--unix", &socket, "--read-only"]);
    assert!(serving.line.contains("\"read_only\":true"), "{}", serving.line);
    assert_eq!(serving.stop(), Some(0));
}
