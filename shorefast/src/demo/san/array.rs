//! The demo's disk array: `shorefast target serve` in a process and networks of its own, with one unit at two portals, each in a
//! portal group of its own; what it says of its initiators and reservations; and an outsider who changes these.
//!
//! A third portal, on the array's own loopback interface, is the outsider's: no network of the nodes leads there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use block::shared::{Incarnation, NexusKey, ReservationKey};
use rustix::process::Signal;
use serde_json::Value;

use super::super::cluster::{Cluster, behind};
use super::super::interrupt::Interrupt;
use super::super::process::Identity;
use super::networks::{ARRAY, Net};
use super::outsider::Act;
use crate::api::Node;
use crate::commands::sessions_at;
use crate::exit::Failure;
use crate::san::node_initiator;

/// The target's name.
const NAME: &str = "iqn.2026-01.invalid.shorefast:demo";
/// The outsider's name.
const OUTSIDER: &str = "iqn.2026-01.invalid.shorefast:outsider";
const PORT: u16 = 3260;
/// It listens within a moment; one that was killed has to wait for the locks of its dead predecessor.
const READY_WITHIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(30);

/// What is known of the array while it is served.
#[derive(Clone, Debug)]
pub(super) struct Array {
    dir: PathBuf,
    door: String,
    cluster_id: String,
    nodes: Vec<Node>,
}

impl Array {
    /// Of a cluster that is laid out on networks of its own.
    pub(super) fn of(cluster: &Cluster, door: String, cluster_id: String) -> Array {
        let nodes = cluster.members.iter().map(|m| m.node).collect();
        Array { dir: cluster.dir.clone(), door, cluster_id, nodes }
    }

    /// The unit, at each of its portals.
    pub(super) fn urls() -> Vec<String> {
        Net::STORAGE.map(|net| format!("iscsi://{}:{PORT}/{NAME}/0", net.address(ARRAY))).to_vec()
    }

    fn outsiders_url() -> String {
        format!("iscsi://127.0.0.1:{PORT}/{NAME}/0")
    }

    fn initiator(&self, node: Node) -> String {
        node_initiator(None, &self.cluster_id, node)
    }

    /// Starts it, and waits until it listens.
    pub(super) fn start(&self, cluster: &mut Cluster, interrupt: &Interrupt) -> Result<(), Failure> {
        let ready = self.dir.join("array.ready");
        let start = || -> io::Result<std::process::Child> {
            let log = File::options().create(true).append(true).open(self.dir.join("array.log"))?;
            let mut command = behind(Some(&self.door))?;
            command.args(["--json", "target", "serve", "--name", NAME, "--write-through", "--lun"]).arg(cluster.disk());
            for (net, group) in Net::STORAGE.iter().zip(1..) {
                command.args(["--portal", &format!("{}:{PORT},{group}", net.address(ARRAY))]);
            }
            command.args(["--portal", &format!("127.0.0.1:{PORT},3"), "--initiator", OUTSIDER]);
            for node in &self.nodes {
                command.args(["--initiator", &self.initiator(*node)]);
            }
            if let Some(node) = self.slowed() {
                command.args(["--hold-write-of", &self.initiator(node)]);
            }
            command.arg("--state").arg(self.dir.join("array")).arg("--control").arg(self.control());
            command.stdin(Stdio::null()).stdout(File::create(&ready)?).stderr(log).process_group(0).spawn()
        };
        let child = start().map_err(|e| failed(&format!("did not start: {e}")))?;
        let identity = Identity::of(child.id()).ok_or_else(|| failed("ended at once"))?;
        cluster.array = Some((child, identity));
        cluster.record()?;
        let deadline = Instant::now() + READY_WITHIN;
        while !fs::read_to_string(&ready).unwrap_or_default().contains("portals") {
            interrupt.check()?;
            if !identity.lives() || Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.join("array.log")).unwrap_or_default();
                return Err(failed(&format!("does not listen: {}", log.lines().last().unwrap_or("it said nothing"))));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// SIGKILL, as when its power goes.
    pub(super) fn kill(cluster: &mut Cluster) -> Result<(), Failure> {
        let Some((mut child, identity)) = cluster.array.take() else { return Ok(()) };
        identity
            .signal(Signal::KILL)
            .and_then(|()| child.wait())
            .map_err(|e| failed(&format!("was not killed: {e}")))?;
        Ok(())
    }

    /// The node of which a write can be held up.
    pub(super) fn slowed(&self) -> Option<Node> {
        self.nodes.get(1).copied()
    }

    /// The next write of that node is held up; or what is held up is let go.
    pub(super) fn hold(cluster: &Cluster, hold: bool) -> Result<(), Failure> {
        let Some((_, identity)) = &cluster.array else { return Ok(()) };
        let sent = identity.signal(if hold { Signal::USR1 } else { Signal::USR2 });
        sent.map_err(|e| failed(&format!("was not told to hold a write up: {e}")))
    }

    /// How often it has said something in its log.
    pub(super) fn said(&self, what: &str) -> usize {
        fs::read_to_string(self.dir.join("array.log")).unwrap_or_default().matches(what).count()
    }

    pub(super) fn control(&self) -> PathBuf {
        self.dir.join("array.sock")
    }

    /// How many reads and writes of a node have met a reservation since the array was started.
    pub(super) fn refused(&self, node: Node) -> (u64, u64) {
        let name = self.initiator(node);
        let sessions = sessions_at(&self.control()).unwrap_or_default();
        // Each session tells those of all sessions of its name.
        let its = sessions.iter().filter(|s| s.initiator == name).map(|s| (s.refused_reads, s.refused_writes));
        its.max().unwrap_or_default()
    }

    /// Writes of a node that the array has let in since it was started; told while the node has a session.
    pub(super) fn writes(&self, node: Node) -> Option<u64> {
        let name = self.initiator(node);
        let sessions = sessions_at(&self.control()).unwrap_or_default();
        sessions.iter().filter(|s| s.initiator == name).map(|s| s.writes).max()
    }

    /// How many keys of a node's session are registered.
    pub(super) fn keys_of(&self, node: Node, session: u64) -> usize {
        let keys = self.reservations().map(|(keys, _)| keys).unwrap_or_default();
        let parsed = keys.iter().filter_map(|key| u64::from_str_radix(key.trim_start_matches("0x"), 16).ok());
        let its = parsed.filter_map(|key| NexusKey::parse(ReservationKey(key)));
        its.filter(|k| k.node.get() == node.number() && k.is_of(k.volume, k.node, Incarnation(session))).count()
    }

    /// Whether the unit refuses a read and a write of somebody on a node's networks, under its name, who has not registered: at a place
    /// where a volume has nothing. What the node itself has tried depends on what it was doing.
    pub(super) fn refuses(&self, door: Option<&str>, node: Node) -> bool {
        let url = Array::urls().remove(0);
        let tries = |what: &str, more: &[&str]| {
            let mut command = behind(door)?;
            command.args(["iscsi", what, &url, "--at", "32m"]).args(more);
            command.env("SHOREFAST_ISCSI_INITIATOR", self.initiator(node)).process_group(0);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            if let Some(mut input) = child.stdin.take() {
                // It may have been refused before it reads anything.
                drop(input.write_all(&[0; 4096]));
            }
            child.wait()
        };
        let refused = |ended: io::Result<std::process::ExitStatus>| ended.is_ok_and(|status| !status.success());
        refused(tries("read", &["--len", "4k"])) && refused(tries("write", &["--destroy-data"]))
    }

    /// The keys that are registered, and the reservation; none while it does not answer.
    pub(super) fn reservations(&self) -> Option<(BTreeSet<String>, String)> {
        let told = self.run(&["--json", "iscsi", "reservations", &Array::outsiders_url()]).ok()?;
        let told: Value = serde_json::from_str(&told).ok()?;
        let keys = told["reservations"]["keys"].as_array()?.iter().filter_map(|key| Some(key.as_str()?.to_owned()));
        Some((keys.collect(), told["reservations"]["reservation"].as_str()?.to_owned()))
    }

    /// An outsider acts.
    pub(super) fn outsider(&self, act: Act, node: Option<Node>) -> Result<(), Failure> {
        let (url, act, number) = (Array::outsiders_url(), act.to_string(), node.map(|n| n.number().to_string()));
        let mut args = vec!["demo-outsider", "--url", &url, "--do", &act];
        if let Some(number) = &number {
            args.extend(["--node", number]);
        }
        self.run(&args).map(drop).map_err(|why| failed(&format!("refuses the outsider: {why}")))
    }

    /// This program on the array's own loopback interface; what it printed, or what it complained of.
    fn run(&self, args: &[&str]) -> Result<String, String> {
        let ended = behind(Some(&self.door)).and_then(|command: Command| {
            let mut command = command;
            command.args(args).env("SHOREFAST_ISCSI_INITIATOR", OUTSIDER).stdin(Stdio::null()).process_group(0).output()
        });
        let ended = ended.map_err(|e| e.to_string())?;
        if ended.status.success() {
            return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned())
    }
}

fn failed(how: &str) -> Failure {
    Failure::failed(format!("The demo's disk array {how}."), "Run it again; if it stays so, that is a defect.")
}
