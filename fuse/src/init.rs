//! INIT: what this kernel and this crate agree on. Pure.
//!
//! The kernel offers a version and flags; the answer names the lower version, the flags both know and
//! the mount wants, and the sizes. Nothing else is ever read on the connection before it is answered.
//!
//! What it refuses: a kernel below the floor (Linux 6.1, protocol 7.37), another major version, and a
//! kernel that lacks a feature marked as needed. INIT is then answered with EPROTO, which ends the
//! connection.
//!
//! Called by `mount` once per mount.

#[cfg(test)]
mod tests;

use crate::abi::{self, InitIn, InitOut};
use crate::features::{Feature, FeatureSet, Row, TABLE, Want};
use zerocopy::FromZeros;

const PAGE: u32 = 4096;
/// 256 pages: what kernels allow without a sysctl, and what virtual machine monitors use at most.
pub(crate) const MAX_WRITE_LIMIT: u32 = 1 << 20;
/// Two pages: the kernel refuses read buffers below 8 KiB, and ours ends `max_write` behind a header.
pub(crate) const MAX_WRITE_FLOOR: u32 = 2 * PAGE;
/// Pages of a request without MAX_PAGES.
const PAGES_WITHOUT: u32 = 32;

/// What a mount asks of the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) max_write: u32,
    pub(crate) max_background: u16,
    pub(crate) without: &'a [Feature],
}

/// What was agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// The protocol's minor version in use.
    pub minor: u32,
    /// The features in use.
    pub features: FeatureSet,
    /// The largest payload of a WRITE, and the largest READ asked for.
    pub max_write: u32,
    /// Background requests (asynchronous direct I/O, read-ahead) in flight.
    pub max_background: u16,
}

/// Why INIT was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InitRefused {
    /// The kernel is older than the floor.
    #[error("the kernel speaks FUSE {major}.{minor}; 7.37 (Linux 6.1) is the least: boot a newer kernel")]
    TooOld {
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
    /// A needed feature is not there.
    #[error("the kernel's FUSE lacks {name}, without which there is no {lost}: boot a kernel that has it")]
    Lacks {
        /// The feature.
        name: &'static str,
        /// What would be lost.
        lost: &'static str,
    },
    /// The first message was something else.
    #[error("the kernel's first message was not INIT: unmount and mount again, and report this")]
    NotInit,
}

/// The agreement and the answer that says it.
pub(crate) fn negotiate(offer: &InitIn, wanted: Wanted<'_>) -> Result<(Negotiated, InitOut), InitRefused> {
    if offer.major != abi::MAJOR || offer.minor < abi::MINOR_FLOOR {
        return Err(InitRefused::TooOld { major: offer.major, minor: offer.minor });
    }
    let offered = offered(offer);
    if let Some(row) = TABLE.iter().find(|row| row.want == Want::Needed && !offered.has(row.feature)) {
        return Err(InitRefused::Lacks { name: row.name, lost: row.lost });
    }
    let asked = |row: &&Row| row.want == Want::Needed || !wanted.without.contains(&row.feature);
    let bits = TABLE.iter().filter(asked).fold(0, |bits, row| bits | row.feature.bit());
    let features = FeatureSet::from_bits(bits & offered.bits());

    let largest = if features.has(Feature::MaxPages) { MAX_WRITE_LIMIT } else { PAGES_WITHOUT * PAGE };
    let max_write = wanted.max_write.clamp(MAX_WRITE_FLOOR, largest) / PAGE * PAGE;
    let minor = offer.minor.min(abi::MINOR);
    let max_background = wanted.max_background.max(1);
    let agreed = Negotiated { minor, features, max_write, max_background };
    Ok((agreed, answer(offer, &agreed)))
}

fn offered(offer: &InitIn) -> FeatureSet {
    let low = u64::from(offer.flags);
    let extended = low & Feature::InitExt.bit() != 0;
    FeatureSet::from_bits(if extended { low | u64::from(offer.flags2) << 32 } else { low })
}

fn answer(offer: &InitIn, agreed: &Negotiated) -> InitOut {
    let bits = agreed.features.bits();
    let pages = agreed.max_write / PAGE;
    InitOut {
        major: abi::MAJOR,
        minor: agreed.minor,
        max_readahead: offer.max_readahead,
        // The two halves of the flags; both casts take the bits they name.
        flags: (bits & u64::from(u32::MAX)) as u32,
        flags2: (bits >> 32) as u32,
        max_background: agreed.max_background,
        // Where the kernel calls the connection congested: three quarters, as it does by itself.
        congestion_threshold: (agreed.max_background / 4 * 3).max(1),
        max_write: agreed.max_write,
        time_gran: 1,
        max_pages: u16::try_from(pages).unwrap_or(u16::MAX),
        ..InitOut::new_zeroed()
    }
}
