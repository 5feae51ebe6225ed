//! A disk array: `shorefast target serve` with one unit at several portals, in a process of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::{Ended, PROGRAM, path, run, until};

/// The target's name.
pub(super) const NAME: &str = "iqn.2026-01.test:array";
/// The node of which commands can be held up.
pub(super) const HELD_UP: usize = 2;
/// Who is no node.
pub(super) const OUTSIDER: &str = "iqn.2026-01.test:outsider";

/// One that runs, or can; ended with this value.
pub(crate) struct Array {
    dir: PathBuf,
    /// What leads to its networks.
    door: Option<String>,
    /// Where nodes reach it; in a portal group each.
    portals: Vec<String>,
    /// Where only the outsider does.
    own: String,
    /// An account that initiators must have, and its secret.
    account: Option<(&'static str, &'static str)>,
    /// What of node 2 is held up.
    holds: Holds,
    /// It tells that a key is gone before the commands of its nexus have ended.
    tells_early: bool,
    /// It has a write cache that does not outlive a loss of power.
    caches: bool,
    child: Option<Child>,
}

/// What of a node an array holds up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holds {
    /// Its next write, before it begins.
    Write,
    /// The same in the disk, where nothing can abort it.
    WriteInDisk,
    /// Every read and compare-and-write, before it begins; no write.
    Looks,
}

/// A node's name as an initiator in tests.
pub(super) fn initiator(n: usize) -> String {
    format!("iqn.2026-01.test:node-{n}")
}

impl Array {
    /// In that folder; it does not run yet.
    pub(super) fn new(dir: PathBuf, door: Option<String>, portals: Vec<String>, own: String) -> Array {
        fs::create_dir(&dir).expect("a folder");
        File::create(dir.join("disk.img")).and_then(|f| f.set_len(2 << 30)).expect("a sparse file");
        Array {
            dir,
            door,
            portals,
            own,
            account: None,
            holds: Holds::Write,
            tells_early: false,
            caches: false,
            child: None,
        }
    }

    /// The same, with a disk in which writes of node 2 may be stuck; and what it tells of keys meanwhile.
    pub(super) fn that_sticks(mut self, tells_early: bool) -> Array {
        (self.holds, self.tells_early) = (Holds::WriteInDisk, tells_early);
        self
    }

    /// The same, that holds up what node 2 reads, and not what it writes.
    pub(super) fn that_holds_looks(mut self) -> Array {
        self.holds = Holds::Looks;
        self
    }

    /// The same with a volatile write cache.
    pub(super) fn that_caches(mut self) -> Array {
        self.caches = true;
        self
    }

    /// From its next start on it lets in only whoever has this account.
    pub(super) fn asks_for(&mut self, user: &'static str, secret: &'static str) {
        self.account = Some((user, secret));
    }

    /// The file behind the unit.
    pub(super) fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    /// The unit, at each of its portals.
    pub(super) fn urls(&self) -> Vec<String> {
        self.portals.iter().map(|portal| format!("iscsi://{portal}/{NAME}/0")).collect()
    }

    fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// This program, or another, on the array's networks.
    fn inside(&self, program: &str) -> Command {
        match &self.door {
            None => Command::new(program),
            Some(door) => {
                let mut command = Command::new("nsenter");
                command.args([door, program]);
                command
            }
        }
    }

    /// Starts it for so many nodes, without waiting.
    pub(super) fn spawn(&mut self, nodes: usize) {
        let ready = File::create(self.dir.join("ready")).expect("a file");
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("a log");
        let mut command = self.inside(PROGRAM);
        command.args(["--json", "target", "serve", "--name", NAME, "--lun", path(&self.disk())]);
        if !self.caches {
            // As arrays are whose cache outlives a loss of power: no program has to be told that its writes may be lost.
            command.arg("--write-through");
        }
        for (portal, group) in self.portals.iter().chain([&self.own]).zip(1..) {
            command.args(["--portal", &format!("{portal},{group}")]);
        }
        for name in (1..=nodes).map(initiator).chain([OUTSIDER.to_owned()]) {
            command.args(["--initiator", &name]);
        }
        let holds = match self.holds {
            Holds::Write => "--hold-write-of",
            Holds::WriteInDisk => "--stick-write-of",
            Holds::Looks => "--hold-looks-of",
        };
        command.args([holds, &initiator(HELD_UP)]);
        if self.tells_early {
            command.arg("--tells-early");
        }
        if let Some((user, secret)) = self.account {
            command.args(["--user", user]).env("SHOREFAST_ISCSI_SECRET", secret);
        }
        command.args(["--state", path(&self.dir.join("state")), "--control", path(&self.control())]);
        self.child = Some(command.stdin(Stdio::null()).stdout(ready).stderr(log).spawn().expect("the program runs"));
    }

    /// Whether it listens; fails if it has ended.
    pub(super) fn listens(&mut self) -> bool {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("it is our child"));
        assert!(ended.is_none(), "the array ended: {}", self.log());
        fs::read_to_string(self.dir.join("ready")).is_ok_and(|said| said.contains("portals"))
    }

    pub(super) fn start(&mut self, nodes: usize) {
        self.spawn(nodes);
        until("the array listens", || self.listens());
    }

    /// SIGKILL, as when its power goes.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is our child");
            child.wait().expect("it has ended");
        }
    }

    /// Stops it in order; its exit code.
    pub(super) fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::TERM).expect("it is our child");
        until("the array has stopped", || child.try_wait().is_ok_and(|ended| ended.is_some()));
        child.wait().expect("it has ended").code()
    }

    /// Holds up what it is to hold up of node 2, or lets it go.
    pub(super) fn hold(&self, hold: bool) {
        self.signal(if hold { Signal::USR1 } else { Signal::USR2 });
    }

    /// It answers nobody for a while.
    pub(super) fn stands_still(&self, still: bool) {
        self.signal(if still { Signal::STOP } else { Signal::CONT });
    }

    fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().expect("it runs"));
        rustix::process::kill_process(pid, signal).expect("it is our child");
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// How many reads and writes of a node have met a reservation since the array was started.
    pub(super) fn refused(&self, n: usize) -> (u64, u64) {
        let told = run(&["--json", "target", "sessions", "--control", path(&self.control())]);
        let sessions = told.json()["sessions"].as_array().cloned().unwrap_or_default();
        let its = sessions.iter().filter(|s| s["initiator"] == initiator(n).as_str());
        let number = |s: &Value, name: &str| s[name].as_u64().expect("a number");
        its.map(|s| (number(s, "refused_reads"), number(s, "refused_writes"))).max().unwrap_or_default()
    }

    /// Whether the unit refuses a read and a write of somebody on a node's networks and of its name, who has not registered: at a place
    /// where a volume has nothing.
    pub(super) fn refuses(&self, door: &str, n: usize) -> bool {
        let (url, at) = (self.urls().remove(0), ["--at", "32m"]);
        let command = |what: &str| {
            let mut command = Command::new("nsenter");
            command.args([door, PROGRAM, "iscsi", what, &url]).args(at).env("SHOREFAST_ISCSI_INITIATOR", initiator(n));
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let read = command("read").args(["--len", "4k"]).status().expect("it runs");
        let mut writes = command("write").arg("--destroy-data").spawn().expect("it runs");
        // It may have been refused before it reads anything.
        drop(writes.stdin.take().expect("piped").write_all(&[0; 4096]));
        let write = writes.wait().expect("it ends");
        !read.success() && !write.success()
    }

    /// The array's own administrator tells how it is reached through a portal group; what was said.
    pub(super) fn set_group(&self, group: &str, state: &str) -> Ended {
        run(&["target", "alua", "--group", group, "--state", state, "--control", path(&self.control())])
    }

    /// The portals at which each node's sessions are, by node.
    pub(super) fn sessions(&self, n: usize) -> usize {
        let told = run(&["--json", "target", "sessions", "--control", path(&self.control())]);
        let sessions = told.json()["sessions"].as_array().cloned().unwrap_or_default();
        sessions.iter().filter(|s| s["initiator"] == initiator(n).as_str() && s["discovery"] == false).count()
    }

    fn own_url(&self) -> String {
        format!("iscsi://{}/{NAME}/0", self.own)
    }

    /// A command of the outsider.
    fn outside(&self, args: &[&str]) -> Ended {
        let ended =
            self.inside(PROGRAM).args(args).env("SHOREFAST_ISCSI_INITIATOR", OUTSIDER).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Ended { code: ended.status.code().unwrap_or(-1), out: text(ended.stdout), err: text(ended.stderr) }
    }

    /// An outsider changes the unit's reservations.
    pub(super) fn outsider(&self, act: &str, node: Option<usize>) {
        let (url, node) = (self.own_url(), node.map(|n| n.to_string()));
        let mut args = vec!["demo-outsider", "--url", &url, "--do", act];
        if let Some(node) = &node {
            args.extend(["--node", node]);
        }
        self.outside(&args).expect(0, &[]);
    }

    /// An outsider resets the unit.
    pub(super) fn reset(&self, more: &[&str]) -> Ended {
        let url = self.own_url();
        self.outside(&[&["iscsi", "reset", &url], more].concat())
    }

    /// What is registered, each key as it is printed; and the reservation, `none` if there is none.
    pub(super) fn reservations(&self) -> (Vec<String>, String) {
        let told = self.outside(&["--json", "iscsi", "reservations", &self.own_url()]);
        told.expect(0, &[]);
        let told = told.json()["reservations"].clone();
        let key = |key: &Value| key.as_str().expect("a key").to_owned();
        let keys = told["keys"].as_array().expect("keys").iter().map(key).collect();
        (keys, told["reservation"].as_str().expect("a reservation").to_owned())
    }

    /// Keys of one node: the fifth to seventh digit of a key are its number.
    pub(super) fn keys_of(&self, n: usize) -> BTreeSet<String> {
        let digits = |key: &String| key.trim_start_matches("0x").chars().collect::<Vec<char>>();
        let is_its =
            |key: &String| digits(key).get(4..7).is_some_and(|d| d.iter().collect::<String>() == format!("{n:03x}"));
        self.reservations().0.into_iter().filter(is_its).collect()
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the array's log:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A folder for an array beside a cluster.
pub(super) fn folder(cluster: &Path) -> PathBuf {
    cluster.join("array")
}
