//! The nodes of a replicated device, wherever they run: for each a folder with its disk, its record and its log, and a process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::client::Client;
use crate::fixture::{Ended, path, run, until};

/// One node. Its process is ended with this value.
pub(crate) struct Node {
    folder: PathBuf,
    running: Option<Child>,
}

impl Node {
    /// Makes its folder; nothing runs.
    pub(crate) fn new(folder: PathBuf) -> Node {
        fs::create_dir(&folder).expect("a folder");
        Node { folder, running: None }
    }

    /// Whether its process was started, and has not been ended by the test.
    pub(crate) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Runs its process, and waits until it is ready.
    pub(crate) fn start(&mut self, mut command: Command) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).expect("a log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.expect("the program runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        self.running = Some(child);
        assert!(line.starts_with("ready: "), "not ready: {line:?} {}", self.log());
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the log in {}:\n{}", self.folder.display(), self.log());
        }
        // While a test panics nothing more may panic.
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Nodes by their numbers, from 1. The device is `r0`.
pub(crate) trait Nodes {
    fn node(&self, n: usize) -> &Node;

    fn node_mut(&mut self, n: usize) -> &mut Node;

    fn folder(&self, n: usize) -> &Path {
        &self.node(n).folder
    }

    fn disk(&self, n: usize) -> PathBuf {
        self.folder(n).join("disk.img")
    }

    /// SIGKILL, and waits.
    fn kill(&mut self, n: usize) {
        let mut child = self.node_mut(n).running.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// Sends a node's process a signal by its name.
    fn signal(&self, n: usize, signal: &str) {
        let pid = self.node(n).running.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill runs");
        assert!(sent.success(), "{signal} was not sent to node {n}");
    }

    /// `replica down`, and waits for the end.
    fn down(&mut self, n: usize) {
        self.must(n, &["down", "r0"]);
        let mut child = self.node_mut(n).running.take().expect("it runs");
        let mut code = None;
        until("the end of the process", || {
            code = child.try_wait().expect("it is our child");
            code.is_some()
        });
        assert_eq!(code.and_then(|c| c.code()), Some(0), "{}", self.node(n).log());
    }

    /// Runs a command on a node.
    fn tell(&self, n: usize, args: &[&str]) -> Ended {
        let all = [&["replica"], args, &["--dir", path(self.folder(n))]].concat();
        run(&all)
    }

    /// Runs one that must succeed.
    fn must(&self, n: usize, args: &[&str]) {
        self.tell(n, args).expect(0, &[]);
    }

    fn status(&self, n: usize) -> Value {
        self.tell(n, &["status", "r0", "--json"]).json()["replica"].clone()
    }

    /// A client of a node's device.
    fn client(&self, n: usize) -> Client {
        Client::connect(&self.folder(n).join("r0.nbd"), "r0").expect("it is served")
    }
}
