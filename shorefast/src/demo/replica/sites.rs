//! The two sites: each a folder, a disk image and a process.
//!
//! Dropping [`Sites`] ends the processes and removes the folder, whatever happened before.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use replicator::runtime::status::{PeerStatus, Status};
use rustix::process::Signal;

use super::super::interrupt::Interrupt;
use super::super::place::{self, Record, RecordedNode};
use super::super::process::Identity;
use crate::api::Node;
use crate::cli::{ReplicaCreateArgs, ReplicaName, ReplicaOnIoError, ReplicaOnNoQuorum, ReplicaProtocol};
use crate::exit::Failure;
use crate::init::{self, NodeAddress};
use crate::replica::talk::{self, Ask};
use crate::replica::{make, sockets};

/// The device's name.
pub(super) const NAME: &str = "demo";
/// Bytes of the device; the images are sparse.
pub(super) const DEVICE: u64 = 256 << 20;
/// The metadata behind them, rounded up.
const META: u64 = 8 << 20;
/// A process is ready within a second; a busy machine may be slow.
const START_LIMIT: Duration = Duration::from_secs(20);

/// One site.
pub(super) struct Site {
    pub(super) node: Node,
    pub(super) dir: PathBuf,
    process: Option<(Child, Identity)>,
}

/// Both.
pub(super) struct Sites {
    /// The demo's folder.
    pub(super) dir: PathBuf,
    sites: Vec<Site>,
}

impl Site {
    /// The socket that NBD's clients use.
    pub(super) fn nbd(&self) -> PathBuf {
        sockets::nbd(&self.dir, NAME)
    }

    /// Its disk image.
    pub(super) fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    /// Tells its process something.
    pub(super) fn ask(&self, ask: Ask) -> Result<Status, Failure> {
        talk::ask(&self.dir, NAME, ask)
    }

    /// What it says of the other.
    pub(super) fn peer(&self) -> Option<PeerStatus> {
        self.ask(Ask::Status).ok()?.peers.into_iter().next()
    }

    /// Whether its process is there.
    pub(super) fn runs(&self) -> bool {
        self.process.as_ref().is_some_and(|(_, identity)| identity.lives())
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" / ")
    }
}

impl Sites {
    /// Lays everything out, makes both replicas and starts their processes.
    pub(super) fn start(wanted_dir: Option<&Path>, interrupt: &Interrupt) -> Result<Sites, Failure> {
        let dir = place::make(wanted_dir)?;
        let sites =
            (1..=2).filter_map(Node::new).map(|node| Site { node, dir: dir.join(node.to_string()), process: None });
        // From here on dropping it cleans up.
        let mut all = Sites { sites: sites.collect(), dir };
        all.lay_out()?;
        for n in 0..2 {
            all.up(n, interrupt)?;
        }
        Ok(all)
    }

    /// The first or the second.
    pub(super) fn site(&self, n: usize) -> &Site {
        &self.sites[n]
    }

    fn lay_out(&self) -> Result<(), Failure> {
        let failed = |e: io::Error| cannot_lay_out(&self.dir, &e);
        let addresses = free_addresses().map_err(failed)?;
        let of_nodes: Vec<NodeAddress> = self
            .sites
            .iter()
            .zip(&addresses)
            .map(|(site, at)| NodeAddress { node: site.node, address: at.to_string() })
            .collect();
        let made = init::make("demo", &of_nodes, &self.dir.join("certificates"))?;
        for (n, site) in self.sites.iter().enumerate() {
            fs::create_dir(&site.dir).map_err(failed)?;
            File::create_new(site.disk()).and_then(|f| f.set_len(DEVICE + META)).map_err(failed)?;
            let (other, at) = (&self.sites[1 - n], addresses[1 - n]);
            let bundle = made.bundles.iter().find(|(node, _)| *node == site.node).map(|(_, bundle)| bundle.clone());
            make::create(&ReplicaCreateArgs {
                replica: ReplicaName { name: NAME.to_owned(), dir: site.dir.clone() },
                local: vec![site.disk().display().to_string()],
                peer: vec![format!("{}={at}", other.node.number())],
                listen: addresses[n],
                protocol: ReplicaProtocol::C,
                quorum: None,
                on_no_quorum: ReplicaOnNoQuorum::SuspendIo,
                disk_timeout: None,
                on_io_error: ReplicaOnIoError::Detach,
                witness: None,
                size: vec![crate::cli::Size(DEVICE)],
                bundle: bundle.unwrap_or_default(),
                wipe: Vec::new(),
            })?;
        }
        Ok(())
    }

    /// Starts a site's process, in a process group of its own so that Ctrl-C reaches the demo alone; waits until it answers.
    pub(super) fn up(&mut self, n: usize, interrupt: &Interrupt) -> Result<(), Failure> {
        let site = &mut self.sites[n];
        let start = || -> io::Result<Child> {
            let log = File::options().create(true).append(true).open(site.dir.join("log"))?;
            Command::new(std::env::current_exe()?)
                .args(["replica", "up", NAME, "--dir"])
                .arg(&site.dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .spawn()
        };
        let child = start().map_err(|e| {
            Failure::failed(format!("The site of {} did not start: {e}.", site.node), "See the message.")
        })?;
        let gone = || Failure::failed(format!("The site of {} ended at once.", site.node), "See its log.");
        let identity = Identity::of(child.id()).ok_or_else(gone)?;
        site.process = Some((child, identity));
        self.record()?;
        let (site, deadline) = (&self.sites[n], Instant::now() + START_LIMIT);
        while site.ask(Ask::Status).is_err() {
            interrupt.check()?;
            if !site.runs() || Instant::now() > deadline {
                return Err(Failure::failed(
                    format!("The site of {} does not run. The end of its log: {}", site.node, site.log_tail()),
                    "Run it again; if it stays so, that is a defect.",
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// SIGKILL to a site's process; returns when it has ended.
    pub(super) fn kill(&mut self, n: usize) -> Result<(), Failure> {
        let Some((mut child, identity)) = self.sites[n].process.take() else { return Ok(()) };
        let failed = |e: io::Error| Failure::failed(format!("The site could not be killed: {e}."), "See the message.");
        identity.signal(Signal::KILL).map_err(failed)?;
        child.wait().map_err(failed)?;
        Ok(())
    }

    /// The orderly end of both processes.
    pub(super) fn down(&mut self) -> Result<(), Failure> {
        for site in &mut self.sites {
            site.ask(Ask::Down)?;
            let Some((mut child, _)) = site.process.take() else { continue };
            let ended = child.wait();
            if !ended.is_ok_and(|status| status.success()) {
                return Err(Failure::failed(
                    format!("The site of {} ended badly: {}", site.node, site.log_tail()),
                    "That is a defect.",
                ));
            }
        }
        Ok(())
    }

    fn record(&self) -> Result<(), Failure> {
        let recorded = |site: &Site| {
            let (_, process) = site.process.as_ref()?;
            // It mounts nothing: the place is one where nothing ever is.
            let (mount, socket) = (site.dir.join("mnt"), site.nbd());
            Some(RecordedNode { node: site.node, process: *process, mount, socket })
        };
        let nodes = self.sites.iter().filter_map(recorded).collect();
        let record = Record { nodes, array: None, spaces: Vec::new() };
        place::write(&self.dir, &record).map_err(|e| cannot_lay_out(&self.dir, &e))
    }
}

impl Drop for Sites {
    fn drop(&mut self) {
        let mut running: Vec<(Child, Identity)> = self.sites.iter_mut().filter_map(|s| s.process.take()).collect();
        // Nothing is to be kept: whoever was in the middle of something is in the middle of nothing that anybody wants.
        place::end(running.iter().map(|(_, identity)| *identity));
        for (child, identity) in &mut running {
            if !identity.lives() {
                let _ = child.wait();
            }
        }
        if let Err(failure) = place::clean(&self.dir) {
            eprintln!("{failure}");
        }
    }
}

/// One address a site, with a port that is free now.
fn free_addresses() -> io::Result<Vec<SocketAddr>> {
    // Both are held until both are chosen.
    let held: Vec<TcpListener> =
        (1..=2).map(|n| TcpListener::bind((Ipv4Addr::new(127, 0, 0, n), 0))).collect::<io::Result<_>>()?;
    held.iter().map(TcpListener::local_addr).collect()
}

fn cannot_lay_out(dir: &Path, e: &io::Error) -> Failure {
    Failure::failed(
        format!("The demo cannot be laid out in {}: {e}.", dir.display()),
        "Name another folder with --dir.",
    )
}
