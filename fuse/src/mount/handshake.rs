//! INIT on the wire: read it, answer it, once.

use super::MountError;
use super::error::system;
use crate::abi::{InHeader, InitIn, MIN_READ_BUFFER, OutHeader, opcode};
use crate::device::Device;
use crate::init::{self, InitRefused, Negotiated, Wanted};
use crate::parse;
use rustix::io::Errno;
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes};

/// The kernel queues INIT while it mounts; it is there at once unless the machine is dying.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(device: &Device, wanted: Wanted<'_>) -> Result<Negotiated, MountError> {
    let mut buffer = vec![0; MIN_READ_BUFFER];
    let len = read(device, &mut buffer)?;
    let (unique, offer) = offer(&buffer[..len])?;
    match init::negotiate(&offer, wanted) {
        Ok((negotiated, answer)) => {
            send(device, unique, 0, answer.as_bytes())?;
            tracing::debug!(features = %negotiated.features, minor = negotiated.minor, "INIT");
            Ok(negotiated)
        }
        Err(refused) => {
            send(device, unique, -libc::EPROTO, &[])?;
            Err(refused.into())
        }
    }
}

fn read(device: &Device, buffer: &mut [u8]) -> Result<usize, MountError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match device.read(buffer) {
            Ok(len) => return Ok(len),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(system("reading INIT")(error)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(MountError::InitTimeout(TIMEOUT.as_secs()));
        }
        device.wait(left).map_err(system("waiting for INIT"))?;
    }
}

fn offer(message: &[u8]) -> Result<(u64, InitIn), InitRefused> {
    let header = parse::header(message).map_err(|_| InitRefused::NotInit)?;
    if header.opcode != opcode::INIT {
        return Err(InitRefused::NotInit);
    }
    // Kernels before 7.36 send a shorter body, and are below the floor: the rest reads as zero.
    let mut body = [0; size_of::<InitIn>()];
    let sent = &message[size_of::<InHeader>()..];
    let len = sent.len().min(body.len());
    body[..len].copy_from_slice(&sent[..len]);
    let offer = InitIn::read_from_bytes(&body).map_err(|_| InitRefused::NotInit)?;
    Ok((header.unique, offer))
}

fn send(device: &Device, unique: u64, error: i32, body: &[u8]) -> Result<(), MountError> {
    let len = u32::try_from(size_of::<OutHeader>() + body.len()).unwrap_or(u32::MAX);
    let header = OutHeader { len, error, unique };
    device.write(&[header.as_bytes(), body].concat()).map_err(system("answering INIT"))
}
