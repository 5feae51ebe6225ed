//! The demo's end: whatever stops it, no process, no mount and no folder is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::{PATIENCE, PROGRAM, can_mount, mounts_below, path, run, until};

/// A demo that was started; what it left goes with this value.
struct Demo {
    dir: PathBuf,
    process: Child,
    folder: tempfile::TempDir,
}

impl Demo {
    fn start(more: &[&str]) -> Demo {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("demo");
        // What it looked at and did not find is in what it prints.
        let printed = fs::File::create(folder.path().join("printed")).expect("a file");
        let process = Command::new(PROGRAM)
            .args(["demo", "--dir", path(&dir), "--report", path(&folder.path().join("report.html"))])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::from(printed))
            .stderr(Stdio::from(fs::File::create(folder.path().join("said")).expect("a file")))
            .spawn()
            .expect("the program runs");
        Demo { dir, process, folder }
    }

    /// Waits until all nodes have mounted the volume; the daemons' processes.
    fn mounted(&mut self) -> Vec<u32> {
        until("the demo's mounts", || {
            assert_eq!(self.process.try_wait().expect("it is our child"), None, "the demo ended early");
            mounts_below(&self.dir).len() == 3
        });
        daemons(&self.dir)
    }

    /// Waits for as long as a demo takes on a machine that is busy with other things.
    fn goes_to_its_end(&mut self) {
        let deadline = Instant::now() + PATIENCE * 8;
        while self.process.try_wait().expect("it is our child").is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it printed, and what it said beside that.
    fn told(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("printed") + &read("said")
    }

    /// Waits for the end of its process.
    fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        until("the demo's end", || {
            let status = self.process.try_wait().expect("it is our child");
            code = status.and_then(|s| s.code());
            status.is_some()
        });
        code
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // While a test panics nothing more may panic.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if self.dir.exists() {
            let _ = Command::new(PROGRAM).args(["demo", "--stop"]).arg(&self.dir).stderr(Stdio::null()).status();
        }
    }
}

/// The daemons that a demo's record names.
fn daemons(dir: &Path) -> Vec<u32> {
    let record: Value = serde_json::from_slice(&fs::read(dir.join("demo.json")).expect("its record")).expect("JSON");
    let nodes = record["nodes"].as_array().expect("a list").iter();
    nodes.map(|n| u32::try_from(n["process"]["pid"].as_u64().expect("a process")).expect("small")).collect()
}

/// Whether a process lives that is this program, or was not waited for.
fn lives(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(PROGRAM))
}

fn nothing_is_left(dir: &Path, pids: &[u32]) {
    assert!(pids.len() >= 2);
    for pid in pids {
        assert!(!lives(*pid), "process {pid} was left");
    }
    assert_eq!(mounts_below(dir), Vec::<PathBuf>::new());
    assert!(!dir.exists(), "its folder was left");
}

#[test]
fn a_demo_that_is_interrupted_leaves_no_process_no_mount_and_no_folder() {
    if !can_mount() {
        return;
    }
    let mut demo = Demo::start(&[]);
    let pids = demo.mounted();
    assert!(pids.iter().all(|pid| lives(*pid)));
    Command::new("kill").args(["-INT", &demo.process.id().to_string()]).status().expect("kill runs");
    assert_eq!(demo.ended(), Some(1));
    let said = fs::read_to_string(demo.folder.path().join("said")).expect("what it said");
    assert!(said.contains("interrupted") && said.contains("no process, mount or folder of it is left"), "{said}");
    nothing_is_left(&demo.dir, &pids);
    assert!(!demo.folder.path().join("report.html").exists());
}

#[test]
fn a_demo_whose_own_process_was_killed_is_ended_by_stop() {
    if !can_mount() {
        return;
    }
    let mut demo = Demo::start(&["--keep"]);
    let pids = demo.mounted();
    demo.process.kill().expect("it is our child");
    demo.process.wait().expect("it is our child");
    assert!(pids.iter().all(|pid| lives(*pid)), "the daemons go on without it");
    run(&["demo", "--stop", path(&demo.dir)]).expect(0, &["has ended"]);
    nothing_is_left(&demo.dir, &pids);
}

#[test]
fn a_replica_demo_kills_a_site_loses_nothing_and_sends_back_only_what_differs() {
    let mut demo = Demo::start(&["--replica"]);
    until("the two sites", || demo.dir.join("demo.json").exists() && daemons(&demo.dir).len() == 2);
    let pids = daemons(&demo.dir);
    demo.goes_to_its_end();
    assert_eq!(demo.ended(), Some(0), "{}", demo.told());
    assert!(pids.iter().all(|pid| !lives(*pid)) && !demo.dir.exists(), "something was left");
    let page = fs::read_to_string(demo.folder.path().join("report.html")).expect("a report");
    for shown in ["All of it held", "Throughput", "Behind", "Synchronised", "byte by byte", "sent of 256 MiB"] {
        assert!(page.contains(shown), "{shown} is missing in the report");
    }
    assert!(!page.contains("FAILED"));
}

#[test]
fn a_replica_demo_that_is_interrupted_leaves_no_process_and_no_folder() {
    let mut demo = Demo::start(&["--replica"]);
    until("the two sites", || demo.dir.join("demo.json").exists() && daemons(&demo.dir).len() == 2);
    let pids = daemons(&demo.dir);
    assert!(pids.iter().all(|pid| lives(*pid)));
    Command::new("kill").args(["-INT", &demo.process.id().to_string()]).status().expect("kill runs");
    assert_eq!(demo.ended(), Some(1));
    let said = fs::read_to_string(demo.folder.path().join("said")).expect("what it said");
    assert!(said.contains("interrupted"), "{said}");
    nothing_is_left(&demo.dir, &pids);
    assert!(!demo.folder.path().join("report.html").exists());
}

/// Network namespaces that a demo's process has made.
fn namespaces(demo: u32) -> Vec<String> {
    let listed = Command::new("ip").args(["netns", "list"]).output().map(|o| o.stdout).unwrap_or_default();
    let names =
        String::from_utf8_lossy(&listed).lines().filter_map(|l| l.split(' ').next().map(str::to_owned)).collect();
    let of_it = format!("sfd{demo}n");
    Vec::into_iter(names).filter(|name: &String| name.starts_with(&of_it)).collect()
}

/// Whether a demo may have networks of its own here; says why a test is skipped, if not.
fn can_cut() -> bool {
    let can = crate::field::Network::new(1).is_some();
    can && can_mount()
}

#[test]
fn a_san_demo_that_is_interrupted_leaves_no_process_no_mount_no_namespace_and_no_folder() {
    if !can_cut() {
        return;
    }
    let mut demo = Demo::start(&["--san"]);
    let pids = demo.mounted();
    let id = demo.process.id();
    assert_eq!(namespaces(id).len(), 5, "three nodes, an array, and the switch");
    Command::new("kill").args(["-INT", &id.to_string()]).status().expect("kill runs");
    assert_eq!(demo.ended(), Some(1));
    nothing_is_left(&demo.dir, &pids);
    assert_eq!(namespaces(id), Vec::<String>::new());
}

#[test]
fn a_san_demo_whose_own_process_was_killed_is_ended_by_stop() {
    if !can_cut() {
        return;
    }
    let mut demo = Demo::start(&["--san"]);
    let pids = demo.mounted();
    let id = demo.process.id();
    demo.process.kill().expect("it is our child");
    demo.process.wait().expect("it is our child");
    run(&["demo", "--stop", path(&demo.dir)]).expect(0, &["has ended"]);
    nothing_is_left(&demo.dir, &pids);
    assert_eq!(namespaces(id), Vec::<String>::new());
}

#[test]
#[ignore = "long: two to three minutes of networks that are cut"]
fn a_san_demo_goes_through_every_fault_and_all_of_it_holds() {
    if !can_cut() {
        return;
    }
    let mut demo = Demo::start(&["--san"]);
    demo.goes_to_its_end();
    assert_eq!(demo.ended(), Some(0), "{}", demo.told());
    let page = fs::read_to_string(demo.folder.path().join("report.html")).expect("a report");
    assert!(page.contains("All of it held") && page.contains("Faults of the array and its networks"));
    assert!(!page.contains("FAILED"));
}
