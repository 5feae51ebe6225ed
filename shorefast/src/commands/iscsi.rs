//! `iscsi ...`: a session of this process's own, one question or one load, and the session's end. No daemon is asked.

mod bench;
mod portal;
mod shown;

use std::env;
use std::io::{self, Read as _, Write as _};

use block::buf::AlignedBuf;
use block::device::{BlockDevice, DeviceExt, Geometry};
use block::error::{IoError, IoErrorKind};
use block::units::ByteOffset;
use block::worker::{Handle, Workers};
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::{Config, FenceGen};
use iscsi_initiator::discovery::{DiscoveryError, discover};
use iscsi_initiator::unit::attach;
use iscsi_initiator::{Identity, LunDevice, Ownership, Session, SessionState, Url};
use scsi::LunAddress;

use crate::cli::{Global, IscsiCommand, Size};
use crate::exit::{Exit, Failure};

/// Where the initiator's name is looked for.
const INITIATOR_ENV: &str = "SHOREFAST_ISCSI_INITIATOR";
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

fn parse(url: &str) -> Result<Url, Failure> {
    Url::parse(url).map_err(|e| Failure::usage(format!("{e}."), "Write it like iscsi://HOST/TARGET/LUN."))
}

fn lookup(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn initiator() -> String {
    lookup(INITIATOR_ENV).unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.').collect();
        format!("iqn.2026-01.invalid.shorefast:{host}")
    })
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

/// A unit over a session of its own.
struct Unit {
    session: Session,
    identity: Identity,
}

impl Unit {
    async fn attach(workers: &Handle, url: &str) -> Result<Unit, Failure> {
        let url = parse(url)?;
        let Some((target, lun)) = url.unit.clone() else {
            return Err(Failure::usage(format!("{url} names no unit."), "Write it like iscsi://HOST/TARGET/LUN."));
        };
        let chap = url
            .chap(lookup)
            .map_err(|e| Failure::usage(format!("{url}: {e}."), "Correct the URL or the environment."))?;
        let lun = LunAddress::new(lun)
            .ok_or_else(|| Failure::usage("There is no such number of a unit.", "Give a smaller one."))?;
        // The process's own number: two commands at once must not take each other's session.
        let mut login =
            LoginConfig::new(initiator(), Isid::from_number(std::process::id(), 1), Kind::Normal { target });
        login.chap = chap;
        let session = Session::start(workers, 0, Config::new(login, url.portal.clone()), Ownership::Alone);
        first_word(&session).await.map_err(|cause| {
            let why = portal::because(&url.portal, &cause);
            Failure::failed(format!("{url}: {why}."), "See whether portal, target and secret are right.")
        })?;
        let identity = attach(&session, lun).await.map_err(|e| {
            Failure::failed(
                format!("{url}: {e}."),
                "`iscsi discover` tells the targets; the unit's number is the SAN's.",
            )
        })?;
        Ok(Unit { session, identity })
    }

    fn device(&self) -> LunDevice {
        LunDevice::new(self.session.clone(), self.identity.clone(), FenceGen(0))
    }
}

/// The nexus, or the first failure: a person waits.
async fn first_word(session: &Session) -> Result<(), iscsi::session::Cause> {
    let mut state = session.state();
    loop {
        match &*state.borrow_and_update() {
            SessionState::Up { .. } => return Ok(()),
            SessionState::Ended(cause) | SessionState::Down(Some(cause)) => return Err(cause.clone()),
            SessionState::Down(None) => {}
        }
        if state.changed().await.is_err() {
            return Err(iscsi::session::Cause::ClosedHere);
        }
    }
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
