//! `iscsi ...`: a session of this process's own, one question or one load, and the session's end. No daemon is asked.

mod bench;
pub(super) mod shown;

pub(crate) use shown::ask as reservations_of;

use std::io::{self, Read as _, Write as _};

use block::buf::AlignedBuf;
use block::device::{BlockDevice, DeviceExt, Geometry};
use block::error::{IoError, IoErrorKind};
use block::units::ByteOffset;
use block::worker::{Handle, Workers};
use iscsi_initiator::LunDevice;
use iscsi_initiator::discovery::{DiscoveryError, discover};

use crate::cli::{Global, IscsiCommand, Size};
use crate::exit::{Exit, Failure};
use crate::san::{Unit, initiator, lookup, parse, portal};

/// Bytes of one request of `read` and `write`.
const PIECE: usize = 1 << 20;

/// Runs a command.
pub(super) fn run(command: &IscsiCommand, global: &Global) -> Result<Exit, Failure> {
    let (command, global) = (command.clone(), global.clone());
    let workers = Workers::start(1, "iscsi")
        .map_err(|e| Failure::failed(format!("Cannot start a worker: {e}."), "See what the kernel log says."))?;
    let handle = workers.handle();
    let task = workers.spawn(0, move || async move { carry_out(&handle, &command, &global).await });
    task.wait().map_err(|_| Failure::failed("The command was lost.", "That is a defect."))?
}

async fn carry_out(workers: &Handle, command: &IscsiCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        IscsiCommand::Discover { url } => {
            let url = portal::portal(url)?;
            let chap = url
                .chap(lookup)
                .map_err(|e| Failure::usage(format!("{url}: {e}."), "Correct the URL or the environment."))?;
            let found = discover(workers, &initiator(), &url.portal, chap).await;
            let found = found.map_err(|e| {
                let why = match &e {
                    DiscoveryError::Session { portal, cause } => {
                        format!("{portal}: {}", portal::because(portal, cause))
                    }
                    e => e.to_string(),
                };
                Failure::failed(format!("{why}."), "See whether the portal is right and reachable.")
            })?;
            shown::targets(&found, &url, global)?;
        }
        IscsiCommand::Inquiry { url } => {
            let unit = Unit::attach(workers, url).await?;
            shown::inquiry(&unit.identity, global)?;
            unit.session.close().await;
        }
        IscsiCommand::Capacity { url } => {
            let unit = Unit::attach(workers, url).await?;
            shown::capacity(&unit.identity, global)?;
            unit.session.close().await;
        }
        IscsiCommand::Read { url, at, len } => {
            let unit = Unit::attach(workers, url).await?;
            read(&unit.device(), *at, *len).await?;
            unit.session.close().await;
        }
        IscsiCommand::Write { url, at, destroy_data } => {
            allowed(*destroy_data, url)?;
            let unit = Unit::attach(workers, url).await?;
            let written = write(&unit.device(), *at).await?;
            shown::written(written, *at, url, global)?;
            unit.session.close().await;
        }
        IscsiCommand::Reservations { url } => {
            let unit = Unit::attach(workers, url).await?;
            shown::reservations(&unit.session, unit.identity.lun, global).await?;
            unit.session.close().await;
        }
        IscsiCommand::Reset { url, yes } => {
            let shown = parse(url)?.to_string();
            may_reset(*yes, &shown)?;
            let unit = Unit::attach(workers, url).await?;
            let ended = reset(&unit).await;
            unit.session.close().await;
            ended?;
            shown::reset(&shown, global)?;
        }
        IscsiCommand::Bench(args) => {
            if bench::writes(args.rw) {
                allowed(args.destroy_data, &args.url)?;
            }
            let unit = Unit::attach(workers, &args.url).await?;
            bench::run(&unit.device(), args, global).await?;
            unit.session.close().await;
        }
    }
    Ok(Exit::Ok)
}

fn allowed(destroy: bool, url: &str) -> Result<(), Failure> {
    if destroy {
        return Ok(());
    }
    let shown = parse(url)?;
    Err(Failure::new(
        Exit::Refused,
        format!("This overwrites data on {shown}."),
        "Say --destroy-data if that is meant.",
    ))
}

/// Whether a unit, as it is shown, may be reset.
pub(super) fn may_reset(yes: bool, shown: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!(
            "This ends every command that any host has on {shown}; each of them has to find out, and to send it again."
        ),
        "Say --yes if that is meant.",
    ))
}

/// Resets a unit, and says what is known if that fails.
pub(crate) async fn reset(unit: &Unit) -> Result<(), Failure> {
    if unit.session.reset_unit(unit.identity.lun).await {
        return Ok(());
    }
    Err(Failure::failed(
        "The unit did not answer that it was reset; nobody knows whether it was.",
        "A reset may be repeated. A unit that does not answer one has commands that do not end, or refuses it: see what the target reports.",
    ))
}

async fn read(device: &LunDevice, at: Size, len: Size) -> Result<(), Failure> {
    let mut done = 0;
    while done < len.0 {
        let piece = usize::try_from(len.0 - done).unwrap_or(PIECE).min(PIECE);
        let buf = device.read(ByteOffset(at.0 + done), piece).await;
        let buf = buf.map_err(|e| io_failure(&e, device))?;
        io::stdout()
            .write_all(&buf)
            .map_err(|e| Failure::failed(format!("Cannot write the data: {e}."), "See where the output goes."))?;
        done += buf.len() as u64;
    }
    Ok(())
}

/// A failed request, with advice that fits it.
fn io_failure(e: &IoError, device: &LunDevice) -> Failure {
    let Geometry { logical_block, len, .. } = device.geometry();
    let next = match e.kind {
        IoErrorKind::OutOfRange => format!("The unit ends at byte {}.", len.0),
        IoErrorKind::Misaligned => {
            format!("Position and length are multiples of {} bytes here.", logical_block.bytes())
        }
        IoErrorKind::ReadOnly => "Choose a unit that may be written.".to_owned(),
        _ => "See what the target reports, and try again.".to_owned(),
    };
    Failure::failed(format!("{e}."), next)
}

/// One piece after the other; at the end a flush. Returns how much it was.
async fn write(device: &LunDevice, at: Size) -> Result<u64, Failure> {
    let failed = |e: IoError| io_failure(&e, device);
    let mut done = 0;
    loop {
        let mut piece = Vec::new();
        let taken = io::stdin().lock().take(PIECE as u64).read_to_end(&mut piece);
        taken.map_err(|e| Failure::failed(format!("Cannot read the data: {e}."), "See where the input comes from."))?;
        if piece.is_empty() {
            break;
        }
        let (result, _) = device.write(ByteOffset(at.0 + done), AlignedBuf::from_slice(&piece)).await;
        result.map_err(failed)?;
        done += piece.len() as u64;
    }
    device.flush().await.map_err(failed)?;
    Ok(done)
}
