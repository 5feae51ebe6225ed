//! Which disk is at the end of a path: its name in the world, asked anew over that path.

use scsi::vpd::{DeviceIdentification, Sameness, UnitSerialNumber};

use super::BoxFuture;
use crate::error::IoError;

/// A way to a disk that can say which disk it leads to.
pub trait Identify: Send + Sync {
    /// Asks the disk at the end of this way; nothing is remembered from before.
    ///
    /// # Cancel safety
    /// May be dropped; it changes nothing.
    fn identify(&self) -> BoxFuture<'_, Result<DiskIdentity, IoError>>;
}

/// What a disk is called over one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskIdentity {
    /// The target that was asked: names that are unique only within a target count only there.
    pub target: String,
    /// Page 83h.
    pub identification: DeviceIdentification,
    /// Page 80h.
    pub serial: Option<UnitSerialNumber>,
}

impl DiskIdentity {
    /// Whether two paths lead to one disk. What is not proved is not merged.
    pub fn same_disk(&self, other: &DiskIdentity) -> Sameness {
        let serials = (self.serial.as_ref(), other.serial.as_ref());
        self.identification.same_unit(&other.identification, serials, self.target == other.target)
    }

    /// Its name for people.
    pub fn name(&self) -> String {
        self.identification.unit_name().map_or_else(|| "a disk without a name".to_owned(), ToString::to_string)
    }
}
