//! The demo's cluster: certificates, one sparse disk image, three daemons of this very program on 127.0.0.1 to .3, or each on
//! networks of its own (`san`).
//!
//! Dropping a [`Cluster`] ends its daemons, takes its mounts away and removes its folder, whatever happened before,
//! unless it was told to [`Cluster::keep`]. Daemons are told apart by number and start time, never by name.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::interrupt::Interrupt;
use super::place::{self, Record, RecordedNode};
use super::process::Identity;
use super::san::networks::{Net, Networks};
use crate::api::{Client, Node, VolumeStatus};
use crate::exit::Failure;
use crate::init::{self, NodeAddress};

/// Nodes of the demo.
pub(crate) const NODES: u8 = 3;
/// The volume's name.
pub(crate) const VOLUME: &str = "demo";
/// The disk: sparse; the demo writes less than a GiB.
const DISK_BYTES: u64 = 4 << 30;
/// So much must be free where the disk lies.
const SPACE_NEEDED: u64 = 2 << 30;
/// The nodes' port where each is alone with its address.
const APART_PORT: u16 = 7440;
/// A daemon answers within a second; a busy machine may be slow.
const START_LIMIT: Duration = Duration::from_secs(20);

/// One daemon of the demo.
pub(crate) struct Member {
    /// Its node.
    pub(crate) node: Node,
    dir: PathBuf,
    process: Option<(Child, Identity)>,
    /// What leads to its networks, if it has some of its own.
    door: Option<String>,
}

impl Member {
    /// Its API.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    /// Where it mounts the volume.
    pub(crate) fn mount(&self) -> PathBuf {
        self.dir.join("mnt").join(VOLUME)
    }

    /// Its process, while there is one.
    pub(crate) fn process(&self) -> Option<Identity> {
        self.process.as_ref().map(|(_, identity)| *identity)
    }

    /// What leads to its networks, if it has some of its own.
    pub(super) fn door(&self) -> Option<&str> {
        self.door.as_deref()
    }

    /// The volume as this node tells it.
    pub(crate) fn volume(&self) -> Option<VolumeStatus> {
        self.client().status().ok()?.volumes.into_iter().find(|v| v.name == VOLUME)
    }

    /// The end of its log: the first place to look when something is wrong.
    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" / ")
    }
}

/// The demo's cluster.
pub(crate) struct Cluster {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Its daemons, by node.
    pub(crate) members: Vec<Member>,
    /// A disk array that the nodes need: ended after them.
    pub(super) array: Option<(Child, Identity)>,
    /// Networks of their own, if they have some.
    pub(super) networks: Option<Networks>,
    keep: bool,
    interrupt: Interrupt,
}

/// What all nodes have in their configuration besides their places.
const ALL_ON_ONE_DISK: &str = "workers = 1\ndebug = true\nfault_device = true\n";
/// A unit has no fault device: what it suffers, its networks and its array do.
const ALL_ON_ONE_UNIT: &str = "workers = 1\n";

impl Cluster {
    /// Lays everything out and starts the daemons.
    pub(crate) fn start(wanted_dir: Option<&Path>, interrupt: &Interrupt) -> Result<Cluster, Failure> {
        let mut cluster = Cluster::made(wanted_dir, interrupt)?;
        let addresses = free_addresses().map_err(|e| cannot_lay_out(&cluster.dir, &e))?;
        cluster.lay_out(&addresses, ALL_ON_ONE_DISK)?;
        cluster.start_all()?;
        Ok(cluster)
    }

    /// The same on networks of their own; nothing runs yet. The identity of the cluster besides.
    pub(super) fn lay_out_apart(
        wanted_dir: Option<&Path>,
        interrupt: &Interrupt,
        networks: Networks,
    ) -> Result<(Cluster, String), Failure> {
        let mut cluster = Cluster::made(wanted_dir, interrupt)?;
        let mut addresses = Vec::new();
        for member in &mut cluster.members {
            let host = usize::from(member.node.number());
            member.door = Some(networks.door(host));
            let address = format!("{}:{APART_PORT}", Net::Heartbeat.address(host));
            addresses.push(NodeAddress { node: member.node, address });
        }
        cluster.networks = Some(networks);
        let identity = cluster.lay_out(&addresses, ALL_ON_ONE_UNIT)?;
        Ok((cluster, identity))
    }

    fn made(wanted_dir: Option<&Path>, interrupt: &Interrupt) -> Result<Cluster, Failure> {
        let dir = place::make(wanted_dir)?;
        let member = |node: Node| Member { node, dir: dir.join(node.to_string()), process: None, door: None };
        let members = (1..=NODES).filter_map(Node::new).map(member).collect();
        let (array, networks, interrupt) = (None, None, interrupt.clone());
        // From here on dropping it cleans up.
        let cluster = Cluster { dir, members, array, networks, keep: false, interrupt };
        enough_space(&cluster.dir)?;
        Ok(cluster)
    }

    /// Starts all daemons, and waits until they answer.
    pub(super) fn start_all(&mut self) -> Result<(), Failure> {
        for n in 0..self.members.len() {
            self.start_daemon(n)?;
        }
        let interrupt = self.interrupt.clone();
        self.members.iter().try_for_each(|member| self.wait_for_daemon(member, &interrupt))
    }

    /// The disk image.
    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    /// A daemon by its node.
    pub(crate) fn member(&self, node: Node) -> Option<&Member> {
        self.members.iter().find(|m| m.node == node)
    }

    /// Disk, certificates and configurations; the cluster's identity.
    fn lay_out(&self, addresses: &[NodeAddress], all: &str) -> Result<String, Failure> {
        let failed = |e: io::Error| cannot_lay_out(&self.dir, &e);
        File::create_new(self.disk()).and_then(|f| f.set_len(DISK_BYTES)).map_err(failed)?;
        let made = init::make("demo", addresses, &self.dir.join("certificates"))?;
        for (member, (_, bundle)) in self.members.iter().zip(&made.bundles) {
            fs::create_dir(&member.dir).map_err(failed)?;
            fs::write(member.dir.join("shorefast.toml"), configuration(member, bundle) + all).map_err(failed)?;
        }
        Ok(made.cluster_id)
    }

    /// Starts a node's daemon, in a process group of its own so that Ctrl-C reaches the demo alone.
    pub(crate) fn start_daemon(&mut self, n: usize) -> Result<(), Failure> {
        let member = &mut self.members[n];
        let start = || -> io::Result<Child> {
            let log = File::options().create(true).append(true).open(member.dir.join("daemon.log"))?;
            behind(member.door.as_deref())?
                .arg("daemon")
                .arg("--config")
                .arg(member.dir.join("shorefast.toml"))
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .spawn()
        };
        let child = start().map_err(|e| {
            Failure::failed(format!("The daemon of {} did not start: {e}.", member.node), "See the message.")
        })?;
        let identity = Identity::of(child.id());
        let gone = || Failure::failed(format!("The daemon of {} ended at once.", member.node), "See its log.");
        member.process = Some((child, identity.ok_or_else(gone)?));
        self.record()
    }

    /// Until it answers.
    pub(crate) fn wait_for_daemon(&self, member: &Member, interrupt: &Interrupt) -> Result<(), Failure> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            interrupt.check()?;
            if member.client().status().is_ok() {
                return Ok(());
            }
            let dead = member.process().is_none_or(|p| !p.lives());
            if dead || Instant::now() > deadline {
                let how = if dead { "ended" } else { "does not answer" };
                return Err(Failure::failed(
                    format!("The daemon of {} {how}. The end of its log: {}", member.node, member.log_tail()),
                    format!("With --dir DIR and --keep its whole log stays in {}.", member.dir.display()),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL to a node's daemon; returns when it has ended.
    pub(crate) fn kill(&mut self, n: usize) -> Result<(), Failure> {
        let Some((mut child, identity)) = self.members[n].process.take() else { return Ok(()) };
        let failed =
            |e: io::Error| Failure::failed(format!("The daemon could not be killed: {e}."), "See the message.");
        identity.signal(Signal::KILL).map_err(failed)?;
        child.wait().map_err(failed)?;
        Ok(())
    }

    /// Leaves everything as it is when dropped, whatever comes, but for Ctrl-C.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }

    pub(super) fn record(&self) -> Result<(), Failure> {
        let recorded = |m: &Member| {
            Some(RecordedNode { node: m.node, process: m.process()?, mount: m.mount(), socket: m.socket() })
        };
        let record = Record {
            nodes: self.members.iter().filter_map(recorded).collect(),
            array: self.array.as_ref().map(|(_, identity)| *identity),
            spaces: self.networks.as_ref().map(Networks::spaces).unwrap_or_default(),
        };
        place::write(&self.dir, &record).map_err(|e| cannot_lay_out(&self.dir, &e))
    }

    /// The orderly end: asks the daemons, kills those that do not listen, unmounts, removes.
    fn end(&mut self) -> Result<(), Failure> {
        let mut running: Vec<(Child, Identity)> = self.members.iter_mut().filter_map(|m| m.process.take()).collect();
        let identities: Vec<Identity> = running.iter().map(|(_, identity)| *identity).collect();
        // While somebody waits for them, ended children are gone and not only dead.
        let array = self.array.take();
        let array_too = array.as_ref().map(|(_, identity)| *identity);
        let ender = std::thread::spawn(move || {
            place::end(identities.into_iter());
            place::end(array_too.into_iter());
        });
        // The thread cannot panic; if it did, the children are looked at all the same.
        let _ = ender.join();
        running.extend(array);
        for (child, identity) in &mut running {
            if !identity.lives() {
                let _ = child.wait();
            }
        }
        place::clean(&self.dir)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.keep && self.interrupt.check().is_ok() {
            return;
        }
        if let Err(failure) = self.end() {
            eprintln!("{failure}");
        }
    }
}

/// This program, on the networks behind a door.
pub(super) fn behind(door: Option<&str>) -> io::Result<Command> {
    let program = std::env::current_exe()?;
    Ok(match door {
        None => Command::new(program),
        Some(door) => {
            // It becomes the program, so that the process is the daemon's.
            let mut command = Command::new("nsenter");
            command.arg(door).arg(program);
            command
        }
    })
}

/// One address a node, with a port that is free now.
fn free_addresses() -> io::Result<Vec<NodeAddress>> {
    let mut held = Vec::new();
    for n in 1..=NODES {
        // All are held until all are chosen, so that no two are the same.
        held.push(TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 0, n), 0))?);
    }
    let address = |(l, n): (&TcpListener, u8)| -> io::Result<NodeAddress> {
        let node = Node::new(n).ok_or_else(|| io::Error::other("no such node"))?;
        Ok(NodeAddress { node, address: l.local_addr()?.to_string() })
    };
    held.iter().zip(1..).map(address).collect()
}

fn configuration(member: &Member, bundle: &Path) -> String {
    let text = |path: PathBuf| toml::Value::String(path.to_string_lossy().into_owned());
    format!(
        "bundle = {}\nsocket = {}\nstate_dir = {}\nmount_root = {}\n",
        text(bundle.to_owned()),
        text(member.socket()),
        text(member.dir.join("state")),
        text(member.dir.join("mnt")),
    )
}

fn enough_space(dir: &Path) -> Result<(), Failure> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| cannot_lay_out(dir, &e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= SPACE_NEEDED {
        return Ok(());
    }
    Err(Failure::failed(
        format!("{} has only {} free.", dir.display(), crate::render::bytes(free)),
        format!(
            "The demo needs {}: name another folder with --dir, or set TMPDIR.",
            crate::render::bytes(SPACE_NEEDED)
        ),
    ))
}

fn cannot_lay_out(dir: &Path, e: &io::Error) -> Failure {
    Failure::failed(
        format!("The demo cannot be laid out in {}: {e}.", dir.display()),
        "Name another folder with --dir.",
    )
}
