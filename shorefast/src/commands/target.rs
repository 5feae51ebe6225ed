//! `target`: disks of this host served over iSCSI by a process of its own, until SIGTERM or SIGINT; and what that is asked and told
//! while it runs ([`control`]).
//!
//! Refused for safety: to let everybody in where other hosts could connect; to serve a disk that a daemon of this host has open, or
//! that another target serves; to go on from reservations that cannot be read.
//!
//! A disk that is served and may be written has every node's LIVE lock, for as long as anything of it is open. Prevents: the nodes
//! of a volume go by its locks on this host and by its reservations on others, and neither keeps the other out.
//!
//! The first signal stops in order: what initiators have in the disks is completed. A second one ends the process at once.

mod control;

pub(crate) use control::sessions_at;

use std::env;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::file::{OpenError, OpenOptions};
use block::shared::{FileDisk, Opener};
use block::worker::Workers;
use block::{BlockDevice, FileDevice, Rescan};
use iscsi::chap::{Account, Secret};
use iscsi::discovery::Portal as At;
use iscsi_target::{Admission, Lun, Portal, Server, ServerError, Target};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::nbd::carries_no_replica;
use super::{print, print_json};
use crate::api::{Server as Socket, ServerError as SocketError};
use crate::cli::{Global, TargetCommand, TargetServeArgs};
use crate::daemon::{Signals, log_to_stderr};
use crate::exit::{Exit, Failure};

/// Where secrets are looked for, as the initiator's commands do.
const SECRET_ENV: &str = "SHOREFAST_ISCSI_SECRET";
const TARGET_SECRET_ENV: &str = "SHOREFAST_ISCSI_TARGET_SECRET";
/// How often sizes and space are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The locks of a target that was killed are free when its last request has ended; this is longer than a disk that works needs.
const LOCKS_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries.
const LOCKS_AGAIN: Duration = Duration::from_millis(50);

/// Runs a command.
pub(super) fn run(command: &TargetCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        TargetCommand::Serve(args) => serve(args, global),
        TargetCommand::Sessions(which) => control::sessions(which, global),
        TargetCommand::Alua(args) => control::alua(args, global),
    }
}

/// What is served, and where.
#[derive(Serialize)]
struct Ready {
    name: String,
    portals: Vec<String>,
    luns: Vec<Served>,
}

#[derive(Serialize)]
struct Served {
    lun: u64,
    disk: String,
    bytes: u64,
    read_only: bool,
}

fn serve(args: &TargetServeArgs, global: &Global) -> Result<Exit, Failure> {
    let level = ["warn", "info", "debug"][usize::from(global.verbose).min(2)];
    log_to_stderr(EnvFilter::new(level));
    let admission = admission(args)?;
    let limits = |e: io::Error| Failure::failed(format!("Cannot start: {e}."), "See the limits of the system.");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = Workers::start(cores, "target").map_err(limits)?;
    let name = args.name.clone().unwrap_or_else(own_name);
    let redirect = redirect(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(limits)?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::new()?;
        // First: of two targets the second one is refused at once, and does not wait for the locks of the first.
        let socket = Socket::bind(&args.control.control).map_err(|e| taken(&e))?;
        let (disks, served) = tokio::select! {
            opened = open_all(args, &workers) => opened?,
            () = signals.next() => return Ok(Exit::Ok),
        };
        let target = Target {
            name: name.clone(),
            luns: disks.iter().map(Disk::lun).collect(),
            portals: args.portal.iter().map(|p| Portal { address: p.address, group: p.group }).collect(),
            admission,
            state: Some(args.state.clone()),
            redirect,
        };
        let server = Server::start(workers.handle(), target).await.map_err(|e| cannot_serve(&e))?;
        let groups = args.portal.iter().map(|p| p.group);
        let portals: Vec<_> = server.addresses().into_iter().zip(groups).collect();
        let shown = portals.iter().map(|(address, group)| format!("{address},{group}"));
        tell(&Ready { name, portals: shown.collect(), luns: served }, global)?;
        tokio::select! {
            () = control::answer(&socket, &server, &portals) => {}
            () = watch(&disks, &server, args.low_space.0) => {}
            held = hold(&server, args) => held?,
            () = signals.next() => {}
        }
        drop(socket);
        tokio::select! {
            () = server.stop() => Ok(Exit::Ok),
            () = signals.next() => Err(Failure::failed(
                "Ended by a second signal.",
                "What initiators had under way may have been carried out without an answer.",
            )),
        }
    });
    if ended.is_err() {
        // Their end would wait for a disk that hangs, and whoever sent the second signal does not want to.
        std::mem::forget(workers);
    }
    ended
}

/// Who is let in; nobody is let in unasked where other hosts could connect.
fn admission(args: &TargetServeArgs) -> Result<Admission, Failure> {
    let open = args.initiator.is_empty() && args.user.is_none();
    if let Some(portal) = args.portal.iter().find(|p| open && !p.address.ip().is_loopback()) {
        return Err(Failure::new(
            Exit::Refused,
            format!("At {} every host that reaches it could read and overwrite the disks.", portal.address),
            "Give --user, or --initiator for each host that may log in, or listen at 127.0.0.1.",
        ));
    }
    let account = |name: &Option<String>, variable: &str| {
        let Some(name) = name else { return Ok(None) };
        let secret = env::var(variable)
            .map_err(|_| Failure::usage(format!("There is no secret for {name}."), format!("Set {variable}.")))?;
        let secret =
            Secret::new(secret).map_err(|e| Failure::usage(format!("{e}."), format!("Set another {variable}.")))?;
        Ok(Some(Account { name: name.clone(), secret }))
    };
    let user = account(&args.user, SECRET_ENV)?;
    let own = account(&args.target_user, TARGET_SECRET_ENV)?;
    if let (Some(user), Some(own)) = (&user, &own)
        && user.secret == own.secret
    {
        return Err(Failure::usage(
            format!("{SECRET_ENV} and {TARGET_SECRET_ENV} are the same: whoever knows one can answer for the other."),
            "Set two different secrets.",
        ));
    }
    let initiators = (!args.initiator.is_empty()).then(|| args.initiator.clone());
    Ok(Admission { initiators, accounts: user.into_iter().collect(), own })
}

fn redirect(args: &TargetServeArgs) -> Result<Option<(At, bool)>, Failure> {
    let parse = |to: &String| At::parse(to).map(|portal| (portal, false));
    let parsed = args.redirect.as_ref().map(parse).transpose();
    parsed.map_err(|e| Failure::usage(format!("{e}."), "Write the portal like 192.0.2.1:3260."))
}

/// The target's name, made of the host's.
fn own_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.').collect();
    format!("iqn.2026-01.invalid.shorefast:target.{host}")
}

/// A disk that is served.
struct Disk {
    number: u64,
    device: Arc<FileDevice>,
    read_only: bool,
    write_through: bool,
    tells_early: bool,
}

impl Disk {
    fn lun(&self) -> Lun {
        let device = Arc::clone(&self.device);
        let lun = Lun::new(self.number, device.clone()).thin(device);
        lun.read_only(self.read_only).write_through(self.write_through).tells_early(self.tells_early)
    }
}

/// Looks now and then whether a disk has another size, and how much its file system has left. Never ready.
async fn watch(disks: &[Disk], server: &Server, low: u64) {
    loop {
        for disk in disks {
            let before = disk.device.geometry().len;
            match disk.device.rescan() {
                Ok(len) if len != before => {
                    tracing::info!("LUN {} has {len} now", disk.number);
                    server.resized(disk.number);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("LUN {}: its size cannot be looked at: {error}", disk.number),
            }
            // Of a block device the file system is that of its node, which says nothing.
            let is_file = disk.device.path().metadata().is_ok_and(|m| m.is_file());
            if let (true, Ok(fs)) = (is_file, rustix::fs::statvfs(disk.device.path())) {
                server.space_left(disk.number, fs.f_bavail.saturating_mul(fs.f_frsize), low);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// # Cancel safety
/// What was opened is closed.
async fn open_all(args: &TargetServeArgs, workers: &Workers) -> Result<(Vec<Disk>, Vec<Served>), Failure> {
    let mut disks = Vec::new();
    let mut served = Vec::new();
    for (lun, disk) in (0..).zip(&args.lun) {
        let (path, read_only) = disk.strip_suffix(",ro").map_or((disk.as_str(), false), |path| (path, true));
        let path = path.strip_prefix("file:").unwrap_or(path);
        let device = open(path, read_only, workers).await?;
        served.push(Served { lun, disk: path.to_owned(), bytes: device.geometry().len.0, read_only });
        let (write_through, tells_early) = (args.write_through, args.tells_early);
        disks.push(Disk { number: lun, device, read_only, write_through, tells_early });
    }
    Ok((disks, served))
}

async fn open(path: &str, read_only: bool, workers: &Workers) -> Result<Arc<FileDevice>, Failure> {
    if path.contains("://") {
        return Err(Failure::usage(format!("{path} is not a path."), "Name a file or a block device of this host."));
    }
    let cannot = |e: OpenError| {
        let missing = matches!(&e, OpenError::Os { source, .. } if source.kind() == io::ErrorKind::NotFound);
        let kind = if missing { Exit::NotFound } else { Exit::Failed };
        Failure::new(kind, format!("{e}."), "See whether the path is right, and who may open it.")
    };
    if read_only {
        let options = OpenOptions { read_only, ..OpenOptions::default() };
        return FileDevice::open(path, options, workers.handle()).map(Arc::new).map_err(cannot);
    }
    // On this description all its I/O goes, so that the locks are free when the last of it has landed.
    let disk = FileDisk::open(path, workers.handle()).map_err(cannot)?;
    keep_nodes_out(path, &disk).await?;
    carries_no_replica(path, &disk.file())?;
    Ok(disk.file())
}

/// Every node's LIVE lock, for life. A target that was killed may have requests in the kernel, and its locks, for a while.
async fn keep_nodes_out(path: &str, disk: &FileDisk) -> Result<(), Failure> {
    let until = Instant::now() + LOCKS_WITHIN;
    loop {
        let held = disk.hold_all_live().map_err(|e| {
            Failure::failed(format!("The locks of {path} cannot be taken: {e}."), "Use a file on a local file system.")
        })?;
        match held {
            Ok(()) => return Ok(()),
            Err(Opener::Target) if Instant::now() < until => tokio::time::sleep(LOCKS_AGAIN).await,
            Err(opener) => return Err(is_open(path, opener)),
        }
    }
}

fn is_open(path: &str, opener: Opener) -> Failure {
    let next = match opener {
        Opener::Target => "Stop that target; if it was killed, the kernel log may say why its requests do not end.",
        Opener::Node(_) => "Unmount the volume on every node first, or serve it read-only (`,ro`).",
    };
    Failure::new(Exit::Refused, format!("{opener} has {path} open."), next)
}

fn cannot_serve(error: &ServerError) -> Failure {
    match error {
        ServerError::Name(_) | ServerError::Portals => Failure::usage(format!("{error}."), "Correct the command line."),
        ServerError::Lun(iscsi_target::LunError::Store(_)) => Failure::new(
            Exit::Refused,
            format!("{error}."),
            "Whoever was kept out by them could write. Bring the file back; or remove it if no initiator relies on it.",
        ),
        ServerError::Bind { .. } => {
            Failure::failed(format!("{error}."), "Stop what listens there, or choose another place.")
        }
        _ => Failure::failed(format!("{error}."), "See whether the disk is the right one."),
    }
}

fn taken(e: &SocketError) -> Failure {
    match e {
        SocketError::InUse(_) => Failure::new(
            Exit::Refused,
            format!("{e}: another target runs there."),
            "See `shorefast target sessions`, or give another --control.",
        ),
        _ => Failure::failed(format!("{e}."), "See who may write there, or give another --control."),
    }
}

fn tell(ready: &Ready, global: &Global) -> Result<(), Failure> {
    if global.json {
        return print_json("target", ready);
    }
    if global.quiet {
        return Ok(());
    }
    let mut text = String::new();
    for portal in &ready.portals {
        let place = portal.split(',').next().unwrap_or(portal);
        for lun in &ready.luns {
            text += &format!("ready: iscsi://{place}/{}/{}\n", ready.name, lun.lun);
        }
    }
    print(&text)
}

/// Holds commands up and lets them go, as signals say. Never ready, unless there are no signals to be had.
async fn hold(server: &Server, args: &TargetServeArgs) -> Result<(), Failure> {
    let (held, stuck) = (args.hold_write_of.as_deref(), args.stick_write_of.as_deref());
    let looks = args.hold_looks_of.as_deref();
    if held.or(stuck).or(looks).is_none() {
        return std::future::pending().await;
    }
    let no_signals =
        |e: io::Error| Failure::failed(format!("Cannot listen for signals: {e}."), "See the limits of the system.");
    let mut hold = signal(SignalKind::user_defined1()).map_err(no_signals)?;
    let mut let_go = signal(SignalKind::user_defined2()).map_err(no_signals)?;
    loop {
        tokio::select! {
            _ = hold.recv() => {
                held.into_iter().for_each(|initiator| server.hold_next_write(initiator));
                stuck.into_iter().for_each(|initiator| server.stick_next_write(initiator));
                looks.into_iter().for_each(|initiator| server.hold_looks(initiator));
            }
            _ = let_go.recv() => server.let_go(),
        }
    }
}
