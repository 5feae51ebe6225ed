//! A logical unit: finding out what it is, and the block device made of it.
//!
//! Attaching asks, in this order: INQUIRY; pages 00h, 83h, B0h, B2h where they are there; READ CAPACITY (16); MODE
//! SENSE for write protection and write cache. Unit attentions on the way are taken and the question asked again.
//!
//! The device: reads and writes as READ and WRITE (16), cut to the unit's longest transfer; a flush is SYNCHRONIZE
//! CACHE (16), where there is a cache (`cache`); a discard UNMAP; zeroes WRITE SAME (16). What a target answers is judged by [`scsi::action::verdict`]; what
//! becomes of a request whose answer is lost, by the session. What a verdict asks for before a command goes out again
//! (is this nexus still registered? is it still the same unit? how large is it now?) is done by `follow`. Whether
//! a flush that succeeded may be believed, `stability` says.
//!
//! What a shared disk must do besides: COMPARE AND WRITE (`caw`), persistent reservations (`reserve`), its name
//! (`identify`). [`lacks()`] finds out what a unit cannot, by trying, since some units claim what they do not have.

mod ask;
mod attach;
mod cache;
mod caw;
mod device;
mod follow;
mod identify;
mod lacks;
mod look;
mod reserve;
mod stability;

use block::device::Geometry;
pub use block::shared::Notices;
use iscsi::session::{Cause, Outcome};
use scsi::action::Failure;
use scsi::inquiry::StandardInquiry;
use scsi::vpd::{BlockLimits, DeviceIdentification, LogicalBlockProvisioning, UnitSerialNumber};
use scsi::{BlockLen, LunAddress};

pub use attach::attach;
pub use cache::WriteCache;
pub use device::LunDevice;
pub use lacks::{Lack, lacks};
pub(crate) use stability::Stability;

/// What a unit is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its address.
    pub lun: LunAddress,
    /// Standard inquiry data.
    pub inquiry: StandardInquiry,
    /// Page 83h: which unit it is, the same over every path.
    pub identification: Option<DeviceIdentification>,
    /// Page 80h.
    pub serial: Option<UnitSerialNumber>,
    /// Page B0h; all unknown where it is not there.
    pub limits: BlockLimits,
    /// Page B2h.
    pub provisioning: Option<LogicalBlockProvisioning>,
    /// The last block and the length of one.
    pub capacity: scsi::capacity::Capacity,
    /// Whether it takes no writes.
    pub read_only: bool,
    /// How it keeps what it has acknowledged.
    pub cache: WriteCache,
    /// As the block layer sees it.
    pub geometry: Geometry,
}

/// Why a unit cannot be used.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// The session has no nexus.
    #[error(transparent)]
    Session(#[from] Cause),
    /// A question was not answered.
    #[error("{command}: no answer ({outcome:?})")]
    Unanswered {
        /// Which.
        command: &'static str,
        /// How it ended.
        outcome: Outcome,
    },
    /// The unit refuses.
    #[error("{command}: {failure}")]
    Failed {
        /// Which command.
        command: &'static str,
        /// Why.
        failure: Failure,
    },
    /// The answer cannot be read.
    #[error("{command}: {source}")]
    Parse {
        /// To which command.
        command: &'static str,
        /// What is wrong.
        source: scsi::ParseError,
    },
    /// It is something else than a disk, or has blocks that cannot be used.
    #[error("{0}")]
    Unusable(&'static str),
}

/// The block layer's size of a block.
fn block_size(block: BlockLen) -> Option<block::units::BlockSize> {
    block::units::BlockSize::new(block.get())
}
