//! Nodes, a disk array, and what is between them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU32, Ordering};

use block::buf::AlignedBuf;
use serde_json::Value;

use super::array::{Array, folder, initiator};
use super::networks::{ARRAY, Net, Networks};
use crate::cuts::load::Load;
use crate::fixture::{Background, Cluster, Ended, addresses, background, can_mount, until, within};

const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();

/// Gone in this order.
pub(super) struct Lab {
    pub(super) loads: Vec<Load>,
    pub(super) cluster: Cluster,
    pub(super) array: Array,
    networks: Option<Networks>,
    pub(super) nodes: usize,
}

impl Lab {
    /// Everything at addresses of the loopback interface; the array runs, no node does. None, said aloud, where nothing can be
    /// mounted.
    pub(super) fn plain(nodes: usize) -> Option<Lab> {
        Lab::with_array(nodes, |array| array)
    }

    /// The same, with such an array.
    pub(super) fn with_array(nodes: usize, such: impl FnOnce(Array) -> Array) -> Option<Lab> {
        if !can_mount() {
            return None;
        }
        let cluster = Cluster::new(nodes);
        let portals = addresses(3);
        let (own, portals) = (portals[2].clone(), portals[..2].to_vec());
        Some(Lab::of(nodes, cluster, None, |dir| such(Array::new(dir, None, portals, own))))
    }

    /// Every host in networks of its own, which can be cut.
    pub(super) fn apart(nodes: usize) -> Option<Lab> {
        Lab::apart_with_array(nodes, |array| array)
    }

    /// The same, with such an array.
    pub(super) fn apart_with_array(nodes: usize, such: impl FnOnce(Array) -> Array) -> Option<Lab> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if !can_mount() {
            return None;
        }
        let name = format!("sft{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let networks = match Networks::make(&name, nodes) {
            Ok(networks) => networks,
            Err(e) => {
                println!("skipped: network namespaces with nft cannot be made (root, ip and nft are needed): {e}");
                return None;
            }
        };
        let doors = (1..=nodes).map(|n| networks.door(n)).collect();
        let addresses = (1..=nodes).map(|n| format!("{}:7440", Net::Heartbeat.address(n))).collect();
        let cluster = Cluster::behind(doors, addresses);
        let portals = Net::STORAGE.map(|net| format!("{}:3260", net.address(ARRAY))).to_vec();
        let (door, own) = (networks.door(ARRAY), "127.0.0.1:3260".to_owned());
        Some(Lab::of(nodes, cluster, Some(networks), |dir| such(Array::new(dir, Some(door), portals, own))))
    }

    fn of(
        nodes: usize,
        cluster: Cluster,
        networks: Option<Networks>,
        array: impl FnOnce(std::path::PathBuf) -> Array,
    ) -> Lab {
        for n in 1..=nodes {
            configure(&cluster, n, "");
        }
        let mut array = array(folder(&cluster.dir));
        array.start(nodes);
        Lab { loads: Vec::new(), cluster, array, networks, nodes }
    }

    /// Every daemon has a holder.
    pub(super) fn held(self) -> Lab {
        self.all().for_each(|n| configure(&self.cluster, n, "holder = true\n"));
        self
    }

    /// Every node runs without a rule, from its next start on.
    pub(super) fn without_rule(self, rule: &str) -> Lab {
        self.all().for_each(|n| configure(&self.cluster, n, &format!("without_rule = \"{rule}\"\n")));
        self
    }

    pub(super) fn all(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.nodes
    }

    /// `volume create v` on the unit at all its portals, through node 1.
    pub(super) fn create(&self, timing: &str) -> Ended {
        let urls = self.array.urls();
        let mut args = vec!["volume", "create", "v", "--timing", timing];
        urls.iter().for_each(|url| args.extend(["--disk", url]));
        self.cluster.ask(1, &args)
    }

    /// All nodes run and have the volume `v` mounted.
    pub(super) fn begin(&mut self, timing: &str) {
        self.cluster.start_all();
        self.create(timing).expect(0, &[]);
        for n in self.all() {
            until(&format!("node {n} has mounted it"), || self.cluster.is_mounted(n));
        }
    }

    /// The same, and on every node a program that works.
    pub(super) fn begin_under_load(&mut self, timing: &str) {
        self.begin(timing);
        self.loads = self.all().map(|n| Load::start(n, &self.cluster.mount(n, "v"), format!("of-{n}"))).collect();
        self.until_well();
    }

    pub(super) fn cut(&self, n: usize, nets: &[Net]) {
        self.networks.as_ref().expect("it is apart").cut(n, nets).expect("nft");
    }

    /// What leads to a node's networks.
    pub(super) fn door(&self, n: usize) -> String {
        self.networks.as_ref().expect("it is apart").door(n)
    }

    pub(super) fn mend(&self) {
        self.networks.as_ref().expect("it is apart").mend().expect("nft");
    }

    /// A node's word about itself.
    pub(super) fn own_word(&self, n: usize) -> Value {
        let nodes = self.cluster.volume(n, "v").map(|v| v["nodes"].clone()).unwrap_or_default();
        nodes.as_array().and_then(|l| l.iter().find(|r| r["node"] == n)).cloned().unwrap_or_default()
    }

    /// How many of a node's paths work, of how many.
    pub(super) fn paths(&self, n: usize) -> (usize, usize) {
        let paths = self.own_word(n)["paths"].as_array().cloned().unwrap_or_default();
        (paths.iter().filter(|p| p["ok"] == true).count(), paths.len())
    }

    fn rounds(&self) -> Vec<u64> {
        self.loads.iter().map(Load::rounds).collect()
    }

    /// Waits until the programs of these nodes got on.
    pub(super) fn until_they_get_on(&self, nodes: &[usize]) {
        let before = self.rounds();
        until(&format!("the programs of {nodes:?} get on from {before:?}"), || {
            let now = self.rounds();
            nodes.iter().all(|n| now[n - 1] > before[n - 1] + 2)
        });
    }

    /// Waits until every node says that all is well and goes its two ways to the array, and every program gets on.
    pub(super) fn until_well(&self) {
        for n in self.all() {
            until(&format!("all is well as node {n} sees it: {:?}", self.own_word(n)), || {
                self.cluster.ask(n, &["status", "--check"]).code == 0 && self.paths(n) == (2, 2)
            });
        }
        if !self.loads.is_empty() {
            self.until_they_get_on(&self.all().collect::<Vec<_>>());
        }
    }

    /// Who coordinates, as all nodes say; 0 while they do not agree.
    pub(super) fn coordinator(&self) -> usize {
        let said: Vec<u64> = self.all().map(|n| self.cluster.coordinator(n)).collect();
        if said.iter().all(|n| *n == said[0]) { said[0] as usize } else { 0 }
    }

    pub(super) fn make_coordinator(&self, n: usize) {
        if self.cluster.coordinator(n) != n as u64 {
            self.cluster.ask(n, &["volume", "move", "v", "--to", &n.to_string()]).expect(0, &[]);
        }
        until("everybody knows the coordinator", || self.coordinator() == n);
    }

    /// Some program on one node begins to want a file of another's program; what it wants it gets once the other has given it back, or
    /// was evicted.
    pub(super) fn want(&self, on: usize, of: usize) -> Background<u64> {
        let path = self.cluster.mount(on, "v").join(format!("of-{of}")).join("held");
        background(move || std::fs::metadata(path).expect("it is there").len())
    }

    /// A program of a node keeps a file open that it alone writes, and that grows; with this value it ends.
    pub(super) fn hold(&self, n: usize) -> Holding {
        let path = self.cluster.mount(n, "v").join(format!("of-{n}")).join("held");
        within("a file", move || {
            let file = File::create(path).expect("made");
            file.write_all_at(&[1; 65536], 0).expect("written");
            Holding(Some(file))
        })
    }

    /// Events of a code that a node has told so far.
    pub(super) fn count(&self, n: usize, code: &str) -> usize {
        self.cluster.events(n).iter().filter(|(c, _)| c == code).count()
    }

    /// Fails if a program of a node but these saw an error, or another one than EIO.
    pub(super) fn only_these_saw_errors(&self, evicted: &[usize]) {
        for (load, n) in self.loads.iter().zip(1..) {
            let errors = load.errors();
            assert!(
                evicted.contains(&n) || errors.is_empty(),
                "a program of node {n}, which was served, saw {errors:?}"
            );
            assert!(errors.iter().all(|(_, errno)| *errno == EIO), "a program of node {n} saw {errors:?}");
        }
    }

    /// What the programs remember is there through every node, and the volume is in order.
    pub(super) fn ends_well(self) {
        self.loads.iter().for_each(Load::stop);
        for load in &self.loads {
            self.all().for_each(|n| load.verify(&self.cluster.mount(n, "v")));
        }
        self.cluster.checks_clean(1);
        for n in self.all() {
            assert!(!self.cluster.log(n).contains("panicked"), "node {n}: {}", self.cluster.log(n));
        }
    }

    /// Writes a block of a file through a node.
    pub(super) fn write(&self, n: usize, block: u64, byte: u8) {
        let path = self.cluster.mount(n, "v").join("file");
        within("a write", move || {
            let file = File::options().write(true).create(true).truncate(false).custom_flags(O_DIRECT).open(path);
            let file = file.expect("opens");
            file.write_all_at(&AlignedBuf::from_slice(&[byte; 4096]), block * 4096).expect("writes");
            file.sync_all().expect("syncs");
        });
    }

    /// The whole of that file through a node.
    pub(super) fn read(&self, n: usize) -> Vec<u8> {
        let path = self.cluster.mount(n, "v").join("file");
        within("a read", move || {
            let mut found = Vec::new();
            File::open(path).and_then(|mut f| f.read_to_end(&mut found)).expect("reads");
            found
        })
    }
}

fn configure(cluster: &Cluster, n: usize, more: &str) {
    cluster.configure(n, &format!("iscsi_initiator = \"{}\"\n{more}", initiator(n)));
}

/// An open file of a mount, which is closed aside: a close waits for a coordinator that may not be heard.
pub(super) struct Holding(Option<File>);

impl Drop for Holding {
    fn drop(&mut self) {
        let file = self.0.take();
        std::thread::spawn(move || drop(file));
    }
}
