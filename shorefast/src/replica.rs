//! A replicated device on this host: made, run in a process of its own, and told what to do over a socket.
//!
//! - `record`: what a host remembers of a replica, a file. `make`: `replica create`, and what it refuses.
//! - `sockets`: where its sockets are. `swap`: a volume gets another disk.
//! - `check`: the audit of the metadata. `events`: what changes, a line each.
//! - `ends`: where on a disk that grew the metadata are.
//! - `machine`: what a restarted process has not lost. `metrics`: what Prometheus reads.
//! - `force`: what a forced promotion may lose.
//! - `life`: `replica up`: the process. `talk`: what commands and it say to one another.
//!
//! One process for one replica: one that is killed takes no other down, and none needs a daemon. Whoever runs it (systemd, a
//! script) starts it again. Nothing here decides about data: the core of `replicator` does.

pub(crate) mod check;
mod ends;
mod events;
pub(crate) mod force;
pub(crate) mod life;
mod machine;
pub(crate) mod make;
mod metrics;
pub(crate) mod record;
pub(crate) mod sockets;
pub(crate) mod swap;
pub(crate) mod talk;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::shared::{FileDisk, NodeId};
use block::worker::Handle;

use crate::exit::{Exit, Failure};

/// How long the last requests of a process that was killed are waited for.
const FREE_WITHIN: Duration = Duration::from_secs(5);

/// Opens a replica's disk for this process alone. The lock is on the description that carries the I/O: it is free again only
/// when the last request of a process that was killed has landed.
fn open_alone(path: &Path, workers: &Handle) -> Result<Arc<FileDisk>, Failure> {
    let disk = FileDisk::open(path, workers.clone())
        .map_err(|e| Failure::failed(format!("{e}."), "See whether the path is right, and who may open it."))?;
    let Some(first) = NodeId::new(1) else { unreachable!("1 is a node") };
    let deadline = Instant::now() + FREE_WITHIN;
    let mut held = disk.hold_live(first);
    while matches!(held, Ok(false)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        held = disk.hold_live(first);
    }
    match held {
        Ok(true) => Ok(disk),
        Ok(false) => Err(Failure::new(
            Exit::Refused,
            format!("{} is in use by another process.", path.display()),
            "Stop what uses it; if that was just killed, its last requests may still be on their way: try again.",
        )),
        Err(e) => Err(Failure::failed(format!("{} cannot be locked: {e}.", path.display()), "Use a local disk.")),
    }
}
