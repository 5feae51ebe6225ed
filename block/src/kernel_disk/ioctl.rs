//! The ioctls of a SCSI disk.

#![allow(unsafe_code)]
// Reason: an ioctl whose structure points to memory has no safe wrapper.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use scsi::Cdb;

use super::Passed;
use super::header::{Header, SENSE, is_not_sent};
use crate::file::raw::RawFile;

/// <scsi/sg.h>
const SG_IO: libc::c_ulong = 0x2285;
const SG_SCSI_RESET: libc::c_ulong = 0x2284;
/// SG_SCSI_RESET_DEVICE, and no other reset if that does not help (SG_SCSI_RESET_NO_ESCALATE).
const UNIT_ONLY: libc::c_int = 1 | 0x100;

/// Sends a command and waits for its end, which no signal interrupts.
pub(super) fn pass(file: &RawFile, cdb: &Cdb, data: Option<&mut [u8]>, limit: Duration) -> Passed {
    if !cdb.additional().is_empty() {
        return Passed::NotSent(libc::EOPNOTSUPP);
    }
    let mut command = *cdb.head();
    let mut sense = [0u8; SENSE];
    let data = data.filter(|bytes| !bytes.is_empty());
    let data = match data.map(|bytes| (bytes.as_mut_ptr() as u64, u32::try_from(bytes.len()))) {
        None => None,
        Some((at, Ok(len))) if len == cdb.transfer().len().0 => Some((at, len)),
        Some(_) => return Passed::NotSent(libc::EINVAL),
    };
    if data.is_none() && !cdb.transfer().is_empty() {
        return Passed::NotSent(libc::EINVAL);
    }
    let at = (command.as_mut_ptr() as u64, sense.as_mut_ptr() as u64);
    let mut header = Header::new(cdb, data, at, limit);
    // SAFETY: the structure is the kernel's (`header`); command, sense and data live in this frame or its caller's until the call returns, and
    // have the lengths that it says; the kernel keeps none of them afterwards.
    let answer = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), SG_IO, &raw mut header) };
    if answer == 0 {
        return header.passed(&sense);
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    if is_not_sent(errno) {
        return Passed::NotSent(errno);
    }
    Passed::GivenUp(super::GivenUp { host: u16::MAX, driver: 0 })
}

/// Resets the unit and waits for that.
pub(super) fn reset_unit(file: &RawFile) -> io::Result<()> {
    let mut which = UNIT_ONLY;
    // SAFETY: the command takes a pointer to an int, which lives until the call returns.
    let answer = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), SG_SCSI_RESET, &raw mut which) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
