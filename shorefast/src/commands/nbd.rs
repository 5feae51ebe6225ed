//! `nbd serve`: one disk in a process of its own, served until SIGTERM or SIGINT. No daemon is asked.
//!
//! Refused for safety: to serve a disk that carries a Shorefast volume, unless read-only, because whoever writes there
//! destroys it; to listen without TLS where other hosts could connect.
//!
//! The first signal stops in order: what clients have under way is answered. A second one ends the process at once.

use std::path::Path;
use std::sync::Arc;

use block::file::{OpenError, OpenOptions};
use block::worker::Workers;
use block::{BlockDevice, FileDevice};
use csv_fs::format::REPLICA;
use net::TlsMaterial;
use replicator::nbd::{Export, Exports, Listen, Security, Server, ServerError};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::{print, print_json};
use crate::cli::{Global, NbdCommand, NbdServeArgs};
use crate::daemon::{Signals, log_to_stderr};
use crate::exit::{Exit, Failure};
use crate::init::Bundle;

/// Runs a command.
pub(super) fn run(command: &NbdCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        NbdCommand::Serve(args) => serve(args, global),
    }
}

/// What is served, and where.
#[derive(Serialize)]
struct Ready {
    export: String,
    bytes: u64,
    read_only: bool,
    uris: Vec<String>,
}

fn serve(args: &NbdServeArgs, global: &Global) -> Result<Exit, Failure> {
    let level = ["warn", "debug", "trace"][usize::from(global.verbose).min(2)];
    log_to_stderr(EnvFilter::new(level));
    let listen = places(args)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = Workers::start(cores, "nbd")
        .map_err(|e| Failure::failed(format!("Cannot start the workers: {e}."), "See the limits of the system."))?;
    let device = open(args, &workers)?;
    let read_only = args.read_only || device.geometry().read_only;
    let bytes = device.geometry().len.0;
    let exports = Arc::new(Exports::default());
    // Clients are told nothing of this host's paths.
    let export = Export::new(&args.export, device.clone()).read_only(read_only).described("");
    exports
        .add(export.provisioned(device.clone()).resizable(device))
        .map_err(|e| Failure::usage(format!("{e}."), "Give another --export."))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("Cannot start: {e}."), "See the limits of the system."))?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let server = Server::start(workers.handle(), exports, &listen).await.map_err(|e| cannot_listen(&e))?;
        let uris = uris(args, &server);
        tell(&Ready { export: args.export.clone(), bytes, read_only, uris }, global)?;
        signals.next().await;
        tokio::select! {
            () = server.stop() => Ok(Exit::Ok),
            () = signals.next() => Err(Failure::failed(
                "Ended by a second signal.",
                "What clients had under way may have been carried out without an answer.",
            )),
        }
    });
    if ended.is_err() {
        // Their end would wait for a disk that hangs, and whoever sent the second signal does not want to.
        std::mem::forget(workers);
    }
    ended
}

fn places(args: &NbdServeArgs) -> Result<Vec<Listen>, Failure> {
    let mut listen: Vec<Listen> = args.unix.iter().cloned().map(Listen::Unix).collect();
    let Some(address) = args.listen else { return Ok(listen) };
    let security = match &args.tls_bundle {
        Some(bundle) => Security::Tls(certificates(bundle)?),
        None if address.ip().is_loopback() => Security::Plain,
        None => {
            return Err(Failure::new(
                Exit::Refused,
                format!("At {address} every host that reaches it could read and overwrite the disk."),
                "Give --tls-bundle with a node's bundle, or listen at 127.0.0.1 or a Unix socket.",
            ));
        }
    };
    listen.push(Listen::Tcp(address, security));
    Ok(listen)
}

fn certificates(path: &Path) -> Result<TlsMaterial, Failure> {
    let bundle = Bundle::load(path)?;
    TlsMaterial::from_pem(&bundle.ca_certificate, &bundle.certificate, &bundle.key).map_err(|e| {
        Failure::usage(
            format!("The certificates of the bundle {} cannot be used: {e}.", path.display()),
            "Use a bundle that `shorefast init --cluster` made.",
        )
    })
}

fn open(args: &NbdServeArgs, workers: &Workers) -> Result<Arc<FileDevice>, Failure> {
    let path = args.disk.strip_prefix("file:").unwrap_or(&args.disk);
    if path.contains("://") {
        return Err(Failure::usage(format!("{path} is not a path."), "Name a file or a block device of this host."));
    }
    let options = OpenOptions { read_only: args.read_only, ..OpenOptions::default() };
    let device = FileDevice::open(path, options, workers.handle()).map_err(|e| {
        let missing = matches!(&e, OpenError::Os { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
        let kind = if missing { Exit::NotFound } else { Exit::Failed };
        Failure::new(kind, format!("{e}."), "See whether the path is right, and who may open it.")
    })?;
    let device = Arc::new(device);
    if !args.read_only {
        carries_no_volume(path, &device)?;
    }
    Ok(device)
}

/// A volume's blocks are changed by its nodes alone, and a replica's only so that its peers get them.
fn carries_no_volume(path: &str, device: &Arc<FileDevice>) -> Result<(), Failure> {
    carries_none(&["shorefast", REPLICA], path, device, "Give --read-only, or another disk.")
}

/// Of a disk whose clients may be the nodes of a volume on it.
pub(super) fn carries_no_replica(path: &str, device: &Arc<FileDevice>) -> Result<(), Failure> {
    carries_none(&[REPLICA], path, device, "Serve it read-only (`,ro`), or another disk.")
}

fn carries_none(kinds: &[&str], path: &str, device: &Arc<FileDevice>, next: &str) -> Result<(), Failure> {
    if device.geometry().len.0 == 0 {
        return Ok(());
    }
    let device: Arc<dyn BlockDevice> = device.clone();
    let found = csv_fs::meta::foreign(&device)
        .map_err(|e| Failure::failed(format!("{path} cannot be read: {e}."), "See what the kernel log says."))?;
    match found.iter().find(|f| kinds.contains(&f.kind)) {
        None => Ok(()),
        Some(volume) => Err(Failure::new(
            Exit::Refused,
            format!("{path} carries {}: a client that writes there destroys it.", volume.what),
            next,
        )),
    }
}

fn cannot_listen(error: &ServerError) -> Failure {
    let kind = if matches!(error, ServerError::InUse(_)) { Exit::Refused } else { Exit::Failed };
    Failure::new(kind, format!("{error}."), "Stop what listens there, or choose another place.")
}

/// As clients write them.
fn uris(args: &NbdServeArgs, server: &Server) -> Vec<String> {
    let export = &args.export;
    let unix = args.unix.iter().map(|path| format!("nbd+unix:///{export}?socket={}", path.display()));
    let scheme = if args.tls_bundle.is_some() { "nbds" } else { "nbd" };
    let tcp = server.addresses().iter().map(|address| format!("{scheme}://{address}/{export}"));
    unix.chain(tcp).collect()
}

fn tell(ready: &Ready, global: &Global) -> Result<(), Failure> {
    if global.json {
        return print_json("nbd", ready);
    }
    if global.quiet {
        return Ok(());
    }
    print(&ready.uris.iter().map(|uri| format!("ready: {uri}\n")).collect::<String>())
}
