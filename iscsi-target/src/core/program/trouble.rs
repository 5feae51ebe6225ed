//! What an initiator is told about a request of the device that failed.

use block::IoErrorKind;
use scsi::{AdditionalCode, Sense, SenseKey};

use crate::core::unit::Outcome;

/// The outcome of a command whose request from block `lba` on failed.
pub(super) fn failed(kind: IoErrorKind, writes: bool, lba: u64) -> Outcome {
    use AdditionalCode as Code;
    let (key, code) = match kind {
        IoErrorKind::Medium | IoErrorKind::CacheLost if writes => (SenseKey::MediumError, Code::WRITE_ERROR),
        IoErrorKind::Medium | IoErrorKind::CacheLost => (SenseKey::MediumError, Code::UNRECOVERED_READ_ERROR),
        IoErrorKind::Corrupt => (SenseKey::MediumError, Code::MEDIUM_FORMAT_CORRUPTED),
        IoErrorKind::NoSpace => (SenseKey::DataProtect, Code::SPACE_ALLOCATION_FAILED),
        IoErrorKind::ReadOnly | IoErrorKind::Fenced => (SenseKey::DataProtect, Code::WRITE_PROTECTED),
        // The device has become smaller since the command was judged.
        IoErrorKind::OutOfRange => (SenseKey::IllegalRequest, Code::LBA_OUT_OF_RANGE),
        IoErrorKind::NotReady | IoErrorKind::NotAccessible | IoErrorKind::ShuttingDown => {
            (SenseKey::NotReady, Code::NOT_READY)
        }
        _ => (SenseKey::HardwareError, Code::INTERNAL_TARGET_FAILURE),
    };
    let sense = Sense::new(key, code);
    Outcome::sense(if key == SenseKey::MediumError { sense.with_information(lba) } else { sense })
}
