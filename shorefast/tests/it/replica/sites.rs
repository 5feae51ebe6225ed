//! Two sites: each a folder, a disk and a process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use super::nodes::{Node, Nodes};
use crate::fixture::{Ended, PATIENCE, PROGRAM, addresses, make_bundles, path, run, until};

pub(crate) struct Sites {
    dir: PathBuf,
    addresses: Vec<String>,
    protocol: &'static str,
    nodes: [Node; 2],
    _folder: tempfile::TempDir,
}

impl Nodes for Sites {
    fn node(&self, n: usize) -> &Node {
        &self.nodes[n - 1]
    }

    fn node_mut(&mut self, n: usize) -> &mut Node {
        &mut self.nodes[n - 1]
    }
}

impl Sites {
    /// Two replicas on disks of these sizes; nothing runs.
    pub(crate) fn new(protocol: &'static str, sizes: [u64; 2]) -> Sites {
        let folder = tempfile::tempdir().expect("a folder");
        let (dir, addresses) = (folder.path().to_owned(), addresses(2));
        let list: Vec<String> = addresses.iter().zip(1..).map(|(a, n)| format!("{n}={a}")).collect();
        make_bundles(&list, &dir.join("certificates"));
        let nodes = [1, 2].map(|n| Node::new(dir.join(format!("site-{n}"))));
        let sites = Sites { dir, addresses, protocol, nodes, _folder: folder };
        for (n, size) in [1, 2].into_iter().zip(sizes) {
            fs::File::create(sites.disk(n)).and_then(|f| f.set_len(size)).expect("a disk");
            sites.create(n, "r0", &sites.disk(n)).expect(0, &[]);
        }
        sites
    }

    /// Two that run and are equal, the first one primary.
    pub(crate) fn equal(protocol: &'static str) -> Sites {
        Sites::equal_of(protocol, 16 << 20)
    }

    /// The same with disks of a size.
    pub(crate) fn equal_of(protocol: &'static str, size: u64) -> Sites {
        let mut sites = Sites::new(protocol, [size; 2]);
        sites.up(1);
        sites.up(2);
        sites.must(1, &["primary", "r0", "--force"]);
        sites.until_equal(1);
        sites
    }

    pub(crate) fn bundle(&self, n: usize) -> PathBuf {
        self.dir.join(format!("certificates/node-{n}.bundle"))
    }

    pub(crate) fn create(&self, n: usize, name: &str, disk: &Path) -> Ended {
        self.create_with(n, name, disk, &self.bundle(n))
    }

    /// The same with more options.
    pub(crate) fn create_more(&self, n: usize, name: &str, disk: &Path, more: &[&str]) -> Ended {
        self.create_by(n, name, disk, &self.bundle(n), more)
    }

    fn create_with(&self, n: usize, name: &str, disk: &Path, bundle: &Path) -> Ended {
        self.create_by(n, name, disk, bundle, &[])
    }

    fn create_by(&self, n: usize, name: &str, disk: &Path, bundle: &Path, more: &[&str]) -> Ended {
        let (dir, other) = (self.folder(n), 3 - n);
        let peer = format!("{other}={}", self.addresses[other - 1]);
        let mut args = vec!["replica", "create", name, "--dir", path(dir), "--local", path(disk), "--peer", &peer];
        args.extend(["--listen", &self.addresses[n - 1], "--bundle", path(bundle), "--protocol", self.protocol]);
        args.extend(more);
        run(&args)
    }

    /// A bundle of a node of another cluster.
    pub(crate) fn other_cluster(&self, n: usize) -> PathBuf {
        let list: Vec<String> = self.addresses.iter().zip(1..).map(|(a, n)| format!("{n}={a}")).collect();
        make_bundles(&list, &self.dir.join("other"));
        self.dir.join(format!("other/node-{n}.bundle"))
    }

    /// Makes a site's replica anew with another bundle.
    pub(crate) fn recreate(&self, n: usize, bundle: &Path) {
        fs::remove_file(self.folder(n).join("r0.toml")).expect("a record");
        let disk = fs::File::create(self.disk(n)).expect("a disk");
        disk.set_len(8 << 20).expect("a disk");
        self.create_with(n, "r0", &self.disk(n), bundle).expect(0, &[]);
    }

    /// Runs a site's process, and waits until it is ready.
    pub(crate) fn up(&mut self, n: usize) {
        let mut command = Command::new(PROGRAM);
        command.args(["replica", "up", "r0", "--dir", path(self.folder(n))]);
        self.nodes[n - 1].start(command);
    }

    /// Where a site listens for the other.
    pub(crate) fn listens(&self, n: usize) -> &str {
        &self.addresses[n - 1]
    }

    /// What a site says of the other.
    pub(crate) fn peer(&self, n: usize) -> Value {
        self.status(n)["peers"][0].clone()
    }

    /// Waits until a site and its peer have the same data, and say so.
    pub(crate) fn until_equal(&self, n: usize) {
        until("the two are equal", || {
            let (own, peer) = (self.status(n), self.peer(n));
            let equal = peer["connection"] == "Established" && peer["out_of_sync_bytes"] == 0;
            equal && own["disk"] == "UpToDate" && self.status(3 - n)["disk"] == "UpToDate"
        });
    }

    /// The primary's role goes to the other.
    pub(crate) fn switch(&self, from: usize, to: usize) {
        self.must(from, &["secondary", "r0"]);
        until("the other is primary", || self.tell(to, &["primary", "r0"]).code == 0);
        self.until_equal(to);
    }

    /// `events --follow` of a site, line by line.
    pub(crate) fn following(&self, n: usize) -> Follower {
        let mut child = Command::new(PROGRAM)
            .args(["replica", "events", "r0", "--follow", "--dir", path(self.folder(n))])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let out = child.stdout.take().expect("piped");
        let (lines, come) = mpsc::channel();
        std::thread::spawn(move || {
            // Whoever listens may have gone.
            BufReader::new(out).lines().map_while(Result::ok).all(|line| lines.send(line).is_ok())
        });
        Follower { child, come }
    }

    /// Bytes that a site's disk has allocated.
    pub(crate) fn allocated(&self, n: usize) -> u64 {
        fs::metadata(self.disk(n)).expect("a disk").blocks() * 512
    }

    /// Stops both and compares their data.
    pub(crate) fn compare_disks(&mut self) {
        let size = usize::try_from(self.status(1)["size_bytes"].as_u64().expect("a size")).expect("a size");
        self.down(1);
        self.down(2);
        let (one, two) = (fs::read(self.disk(1)).expect("a disk"), fs::read(self.disk(2)).expect("a disk"));
        let differ = one[..size].chunks(4096).zip(two[..size].chunks(4096)).position(|(a, b)| a != b);
        assert_eq!(differ, None, "the disks differ in that block");
    }
}

/// A command that follows events.
pub(crate) struct Follower {
    child: Child,
    come: mpsc::Receiver<String>,
}

impl Follower {
    /// Waits for a line.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        loop {
            let line = self.come.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{what} was not told: {e}"));
            if holds(&serde_json::from_str(&line).expect("JSON")) {
                return;
            }
        }
    }

    /// Waits for the end, which is that of the replica's process.
    pub(crate) fn ended(mut self) {
        until("the end of the command", || self.child.try_wait().expect("it is our child").is_some());
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
