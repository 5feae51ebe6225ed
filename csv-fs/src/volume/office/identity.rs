//! Who this process is: boot id, pid, start time, and a random base for its nonces.

use std::io;
use std::time::Duration;

use block::shared::{SharedDisk, VolumeTag};

use super::{OfficeConfig, StartError};
use crate::core::office::{Config, DiskKind};

/// `net`'s keep-alive takes a peer for dead that has said nothing for so long.
const SILENCE: Duration = Duration::from_secs(3);
/// The longest address that a lease block holds.
const ADDRESS_MAX: usize = 64;

/// What the core is told.
pub(super) fn core_config(config: &OfficeConfig, disk: &SharedDisk) -> Result<Config, StartError> {
    if config.address.len() > ADDRESS_MAX {
        return Err(StartError::AddressTooLong(config.address.clone()));
    }
    let of = |what| move |source| StartError::Identity { what, source };
    let kind = match disk.kind {
        block::shared::DiskKind::File(_) => DiskKind::File,
        block::shared::DiskKind::Unit(_) => {
            DiskKind::Scsi { volume_tag: VolumeTag::of(&config.volume.0.to_be_bytes()).get() }
        }
    };
    let pid = std::process::id();
    let started = block::shared::process_start_time(pid).map_err(of("start time of this process"))?;
    Ok(Config {
        node: config.node,
        nodes: config.nodes,
        boot: boot_id().map_err(of("boot id"))?,
        pid,
        pid_start: started.unwrap_or(0),
        address: config.address.clone(),
        nonce_base: random().map_err(of("random numbers"))?,
        timing: config.timing,
        kind,
        nexuses: 1,
        silence: SILENCE,
        resumes: config.resumes,
    })
}

/// The kernel's boot id: a file disk is shared by processes of one boot of one host.
pub(super) fn boot_id() -> io::Result<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn random() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if got < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(u64::from_ne_bytes(bytes))
}
