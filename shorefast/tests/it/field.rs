//! Replicas of one device, each a process in a network namespace of its own, and a tie-breaker beside them. Whatever a test comes
//! to, its processes are ended by their identity and its namespaces are removed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::fixture::{Background, Ended, PROGRAM, background, make_bundles, path, run, until};
use crate::replica::client::{holds, pattern};
use crate::replica::nodes::{Node, Nodes};

#[path = "field/network.rs"]
mod network;

pub(crate) use network::{Network, PORT};

/// Bytes of a replica's disk: room for 3 extents of the activity log.
const DISK: u64 = 16 << 20;

pub(crate) struct Field {
    // Their processes end before their namespaces go.
    nodes: Vec<Node>,
    pub(crate) net: Network,
    dir: PathBuf,
    replicas: usize,
    /// The tie-breaker's node: the one after the replicas.
    witness: Option<usize>,
    options: Vec<String>,
    /// How often the machine of each node has begun a new life.
    boots: Vec<u32>,
    _folder: tempfile::TempDir,
}

impl Nodes for Field {
    fn node(&self, n: usize) -> &Node {
        &self.nodes[n - 1]
    }

    fn node_mut(&mut self, n: usize) -> &mut Node {
        &mut self.nodes[n - 1]
    }
}

impl Field {
    /// Replicas 1 to `replicas`, nothing runs. With `witness` the node after them is the tie-breaker. None where there are
    /// no namespaces.
    pub(crate) fn new(replicas: usize, witness: bool, options: &[&str]) -> Option<Field> {
        let nodes = replicas + usize::from(witness);
        let net = Network::new(nodes)?;
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_owned();
        let list: Vec<String> = (1..=nodes).map(|n| format!("{n}={}:{PORT}", net.address(n))).collect();
        make_bundles(&list, &dir.join("certificates"));
        let node = |n| Node::new(dir.join(format!("node-{n}")));
        let mut field = Field {
            net,
            nodes: (1..=nodes).map(node).collect(),
            dir,
            replicas,
            witness: witness.then_some(nodes),
            boots: vec![0; nodes],
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            _folder: folder,
        };
        if let Some(node) = field.witness {
            let identity = field.make_vote(node);
            let given = format!("{node}={}:{PORT}/{identity}", field.net.address(node));
            field.options.extend(["--witness".to_owned(), given]);
        }
        for n in 1..=replicas {
            fs::File::create(field.disk(n)).and_then(|f| f.set_len(DISK)).expect("a disk");
            field.create(n).expect(0, &[]);
        }
        Some(field)
    }

    /// All run and are equal; node 1 is primary.
    pub(crate) fn equal(replicas: usize, witness: bool, options: &[&str]) -> Option<Field> {
        let mut field = Field::new(replicas, witness, options)?;
        field.up_all();
        field.until_promoted(1, &["--force"]);
        field.until_equal(1);
        Some(field)
    }

    pub(crate) fn bundle(&self, n: usize) -> PathBuf {
        self.dir.join(format!("certificates/node-{n}.bundle"))
    }

    /// The node of the tie-breaker.
    pub(crate) fn witness(&self) -> usize {
        self.witness.expect("there is one")
    }

    /// `witness create`; the identity.
    pub(crate) fn make_vote(&self, node: usize) -> String {
        let (dir, bundle) = (self.folder(node), self.bundle(node));
        let mut args = vec!["witness", "create", "r0", "--json", "--dir", path(dir), "--bundle", path(&bundle)];
        let replicas: Vec<String> = (1..=self.replicas).map(|n| n.to_string()).collect();
        replicas.iter().for_each(|n| args.extend(["--replica", n]));
        let made = run(&args);
        made.expect(0, &[]);
        made.json()["witness"]["identity"].as_str().expect("an identity").to_owned()
    }

    /// `replica create` on a node's disk.
    pub(crate) fn create(&self, n: usize) -> Ended {
        let (dir, disk, bundle) = (self.folder(n), self.disk(n), self.bundle(n));
        let listen = format!("{}:{PORT}", self.net.address(n));
        let mut args = vec!["replica", "create", "r0", "--dir", path(dir), "--local", path(&disk)];
        args.extend(["--listen", &listen, "--bundle", path(&bundle)]);
        let others = (1..=self.replicas).filter(|o| *o != n);
        let peers: Vec<String> = others.map(|o| format!("{o}={}:{PORT}", self.net.address(o))).collect();
        peers.iter().for_each(|p| args.extend(["--peer", p]));
        args.extend(self.options.iter().map(String::as_str));
        run(&args)
    }

    /// Runs a node's process, replica or tie-breaker, and waits until it is ready.
    pub(crate) fn up(&mut self, n: usize) {
        let (dir, bundle, listen) = (self.folder(n), self.bundle(n), format!("{}:{PORT}", self.net.address(n)));
        // `ip` becomes the program; it makes a mount namespace, in which the machine's life is the one that the test says.
        let mut command = Command::new("ip");
        let boot = self.folder(n).join("boot");
        fs::write(&boot, format!("{n}-{}\n", self.boots[n - 1])).expect("written");
        let (space, script) = (self.net.space(n), "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"");
        command.args(["netns", "exec", &space, "sh", "-c", script, path(&boot), PROGRAM]);
        if self.witness == Some(n) {
            command.args(["witness", "up", "--listen", &listen, "--dir", path(dir), "--bundle", path(&bundle)]);
        } else {
            command.args(["replica", "up", "r0", "--dir", path(dir)]);
        }
        self.nodes[n - 1].start(command);
    }

    /// The machine of a node that does not run is switched off, and on again.
    pub(crate) fn switch_off(&mut self, n: usize) {
        assert!(!self.node(n).runs());
        self.boots[n - 1] += 1;
    }

    /// Power fails at a node: its process ends, and whatever its disk had in a cache may be lost.
    pub(crate) fn lose_power(&mut self, n: usize) {
        self.kill(n);
        self.boots[n - 1] += 1;
    }

    pub(crate) fn up_all(&mut self) {
        (1..=self.nodes.len()).for_each(|n| self.up(n));
    }

    /// What a node says of another.
    pub(crate) fn peer(&self, n: usize, other: usize) -> Value {
        let status = self.status(n);
        let peers = status["peers"].as_array().expect("peers").clone();
        peers.into_iter().find(|p| p["node"] == other).expect("it is a peer")
    }

    /// `primary`, until it succeeds.
    pub(crate) fn until_promoted(&self, n: usize, more: &[&str]) {
        let args = [&["primary", "r0"][..], more].concat();
        until(&format!("node {n} is primary"), || self.tell(n, &args).code == 0);
    }

    /// Waits until the primary and every peer have the same data, and say so.
    pub(crate) fn until_equal(&self, primary: usize) {
        until(&format!("all are equal to node {primary}"), || {
            let own = self.status(primary);
            let peers = own["peers"].as_array().expect("peers");
            let equal = peers.iter().all(|p| p["connection"] == "Established" && p["out_of_sync_bytes"] == 0);
            let all = (1..=self.replicas).all(|n| self.status(n)["disk"] == "UpToDate");
            let granted = own["quorum"] == "off" || own["granted"].as_array().map(Vec::len) == Some(self.replicas);
            equal && all && granted && own["role"] == "Primary"
        });
    }

    /// Waits until these peers of the primary have its data.
    pub(crate) fn until_equal_to(&self, primary: usize, peers: &[usize]) {
        until(&format!("{peers:?} are equal to node {primary}"), || {
            peers.iter().all(|n| {
                let peer = self.peer(primary, *n);
                let equal = peer["connection"] == "Established" && peer["out_of_sync_bytes"] == 0;
                equal && self.status(*n)["disk"] == "UpToDate"
            })
        });
    }

    /// Waits until every peer of the primary is its equal, whatever is being written.
    pub(crate) fn until_in_sync(&self, primary: usize) {
        until(&format!("all follow node {primary}"), || {
            let own = self.status(primary);
            own["peers"].as_array().expect("peers").iter().all(|p| p["connection"] == "Established")
        });
    }

    /// A node's disk is lost, and its replica is made anew.
    pub(crate) fn make_anew(&self, n: usize) {
        fs::remove_file(self.folder(n).join("r0.toml")).expect("a record");
        fs::remove_file(self.disk(n)).expect("a disk");
        fs::File::create(self.disk(n)).and_then(|f| f.set_len(DISK)).expect("a disk");
        self.create(n).expect(0, &[]);
    }

    /// Until a node has noticed that another cannot be heard.
    pub(crate) fn until_unheard(&self, n: usize, other: usize) {
        until(&format!("node {n} notices that node {other} is gone"), || self.peer(n, other)["role"] == "Unknown");
    }

    /// A write in the background: its error, if it comes to one.
    pub(crate) fn writing(&self, n: usize, block: u64, number: u64) -> Background<Option<i32>> {
        let mut client = self.client(n);
        background(move || {
            client.write(block, &pattern(block, number), true).err().map(|e| e.raw_os_error().unwrap_or(0))
        })
    }

    /// Fails unless a node's device holds these writes.
    pub(crate) fn holds(&self, n: usize, written: &[(u64, u64)]) {
        holds(&mut self.client(n), written);
    }

    /// The disks of all nodes that say that they are up to date are equal to the byte; the primary stops first.
    pub(crate) fn compare_disks(&mut self) {
        let run: Vec<usize> = (1..=self.replicas).filter(|n| self.node(*n).runs()).collect();
        let states: Vec<(usize, Value)> = run.iter().map(|n| (*n, self.status(*n))).collect();
        let size = states[0].1["size_bytes"].as_u64().expect("a size") as usize;
        let good: Vec<usize> = states.iter().filter(|(_, s)| s["disk"] == "UpToDate").map(|(n, _)| *n).collect();
        assert!(good.len() > 1, "there is nothing to compare: {states:?}");
        let (first, then): (Vec<_>, Vec<_>) = states.iter().partition(|(_, s)| s["role"] == "Primary");
        first.into_iter().chain(then).for_each(|(n, _)| self.down(*n));
        let read = |n: usize| fs::read(self.disk(n)).expect("a disk");
        let one = read(good[0]);
        for n in &good[1..] {
            let other = read(*n);
            let differ = one[..size].chunks(4096).zip(other[..size].chunks(4096)).position(|(a, b)| a != b);
            assert_eq!(differ, None, "the disks of nodes {} and {n} differ in that block", good[0]);
        }
    }
}
