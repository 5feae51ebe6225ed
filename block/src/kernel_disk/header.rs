//! The structure of SG_IO (`struct sg_io_hdr`, version 3, of <scsi/sg.h>), and what its answer means. Pure.
//!
//! ```text
//!   0 'S'            4 direction     8 length of the command   9 room for sense   10 pieces   12 length of the data
//!  16 data          24 command      32 sense
//!  40 limit in ms   44 flags        48 pack id                56 the caller's
//!  64 status        65, 66 old      67 length of the sense    68 host     70 driver           72 residual
//!  76 duration      80 info         88
//! ```
//! Addresses are 64 bits; where they are not, the crate does not build.

use std::fmt;
use std::time::Duration;

use scsi::{Cdb, Status, Transfer};

use super::Passed;

/// Sense data that are read at most (SPC-4 4.5.1).
pub(super) const SENSE: usize = 252;

/// The ioctl's structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    interface: i32,
    direction: i32,
    cdb_len: u8,
    sense_room: u8,
    pieces: u16,
    data_len: u32,
    data: u64,
    cdb: u64,
    sense: u64,
    limit_ms: u32,
    flags: u32,
    pack: i32,
    _unused: u32,
    user: u64,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_len: u8,
    host: u16,
    driver: u16,
    residual: i32,
    duration_ms: u32,
    info: u32,
    _end: u32,
}
const _: () = assert!(size_of::<Header>() == 88 && size_of::<usize>() == 8);

const INTERFACE: i32 = b'S' as i32;
const NO_DATA: i32 = -1;
const TO_DEVICE: i32 = -2;
const FROM_DEVICE: i32 = -3;

/// Host codes (DID_... of <scsi/scsi_status.h>) with which the kernel marks what a status says already.
const STATUS_SAYS_IT: [u16; 4] = [0x10, 0x11, 0x12, 0x13];
/// Driver codes: nothing, and "there is sense data" (before Linux 5.14).
const DRIVER_SENSE: u16 = 8;

/// Why the kernel gave a command up: the host code of its SCSI layer, and the driver's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// DID_...
    pub host: u16,
    /// DRIVER_...
    pub driver: u16,
}

impl GivenUp {
    /// In words.
    pub fn reason(self) -> &'static str {
        match self.host {
            0x01 => "the kernel does not reach the unit any more",
            0x02 => "the way to the unit was busy for too long",
            0x03 => "the unit did not answer in time, and the kernel aborted the command",
            0x05 => "the kernel aborted the command",
            0x08 => "the kernel reset the unit or the way to it",
            0x0e => "the way to the unit was disturbed",
            0x0f => "the way to the unit is gone, and the kernel has waited long enough",
            0x14 => "the way to the unit is unreliable",
            _ => "the kernel gave the command up",
        }
    }
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (host {:#04x}, driver {:#04x})", self.reason(), self.host, self.driver)
    }
}

impl Header {
    /// For a command with its data and room for sense, all of which stay where they are until the ioctl returns.
    pub(super) fn new(cdb: &Cdb, data: Option<(u64, u32)>, at: (u64, u64), limit: Duration) -> Header {
        let (cdb_at, sense_at) = at;
        let (data_at, data_len) = data.unwrap_or((0, 0));
        Header {
            interface: INTERFACE,
            direction: match cdb.transfer() {
                Transfer::None => NO_DATA,
                Transfer::In(_) => FROM_DEVICE,
                Transfer::Out(_) => TO_DEVICE,
            },
            cdb_len: u8::try_from(cdb.len()).unwrap_or(u8::MAX),
            sense_room: SENSE as u8,
            data_len,
            data: data_at,
            cdb: cdb_at,
            sense: sense_at,
            limit_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
            ..Header::default()
        }
    }

    /// What the kernel has written into it. A status counts where the kernel has nothing to add to it.
    pub(super) fn passed(&self, sense: &[u8]) -> Passed {
        let plain = self.host == 0 && matches!(self.driver & 0x0f, 0 | DRIVER_SENSE);
        let said = self.status != 0 && STATUS_SAYS_IT.contains(&self.host);
        if !plain && !said {
            return Passed::GivenUp(GivenUp { host: self.host, driver: self.driver });
        }
        let left = u32::try_from(self.residual).unwrap_or(0).min(self.data_len);
        Passed::Answered {
            // The lowest bit was the vendor's (SAM-2).
            status: Status::from_byte(self.status & 0xfe),
            sense: sense[..sense.len().min(usize::from(self.sense_len))].to_vec(),
            moved: self.data_len - left,
        }
    }
}

/// Error numbers with which the ioctl refuses a command that it has not sent.
pub(super) fn is_not_sent(errno: i32) -> bool {
    matches!(
        errno,
        libc::EPERM
            | libc::EACCES
            | libc::EINVAL
            | libc::ENOTTY
            | libc::EOPNOTSUPP
            | libc::EFAULT
            | libc::ENOMEM
            | libc::ENODEV
            | libc::ENXIO
            | libc::EBUSY
            | libc::EAGAIN
    )
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use scsi::cdb::TestUnitReady;
    use scsi::reservations::{Change, ReservationType};
    use scsi::{ReservationKey, Sense, SenseKey};

    use super::*;

    /// As <scsi/sg.h> has it on every 64-bit Linux.
    #[test]
    fn the_structure_of_the_ioctl_lies_as_the_kernel_reads_it() {
        let places = [
            (offset_of!(Header, direction), 4),
            (offset_of!(Header, cdb_len), 8),
            (offset_of!(Header, sense_room), 9),
            (offset_of!(Header, data_len), 12),
            (offset_of!(Header, data), 16),
            (offset_of!(Header, cdb), 24),
            (offset_of!(Header, sense), 32),
            (offset_of!(Header, limit_ms), 40),
            (offset_of!(Header, user), 56),
            (offset_of!(Header, status), 64),
            (offset_of!(Header, sense_len), 67),
            (offset_of!(Header, host), 68),
            (offset_of!(Header, driver), 70),
            (offset_of!(Header, residual), 72),
            (offset_of!(Header, info), 80),
        ];
        places.iter().for_each(|(is, ought)| assert_eq!(is, ought));
    }

    #[test]
    fn a_command_says_which_way_its_data_go_and_how_long_it_may_take() {
        let limit = Duration::from_secs(15);
        let bare = Header::new(&TestUnitReady.cdb(), None, (7, 8), limit);
        assert_eq!((bare.interface, bare.direction, bare.cdb_len, bare.data_len), (0x53, -1, 6, 0));
        assert_eq!((bare.cdb, bare.sense, bare.sense_room, bare.limit_ms), (7, 8, 252, 15_000));
        let kind = ReservationType::ExclusiveAccessAllRegistrants;
        let (cdb, list) = Change::Reserve { key: ReservationKey(1), kind }.command();
        let out = Header::new(&cdb, Some((9, list.len() as u32)), (7, 8), limit);
        assert_eq!((out.direction, out.cdb_len, out.data, out.data_len), (-2, 10, 9, 24));
    }

    fn answered(change: impl FnOnce(&mut Header)) -> Header {
        let mut header = Header { data_len: 512, ..Header::default() };
        change(&mut header);
        header
    }

    #[test]
    fn a_good_answer_says_how_much_was_moved() {
        let moved = |residual| match answered(|h| h.residual = residual).passed(&[]) {
            Passed::Answered { status: Status::Good, moved, .. } => moved,
            other => panic!("{other:?}"),
        };
        assert_eq!((moved(0), moved(100), moved(-4), moved(9999)), (512, 412, 512, 0));
    }

    /// What Linux 6.12 leaves in the structure for MISCOMPARE, and 5.10, which marks sense data by a driver code.
    #[test]
    fn sense_data_come_with_their_status_whatever_the_kernels_age() {
        let fixed = [0x70, 0, 0x0e, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0, 0];
        for driver in [0, 8] {
            let header = answered(|h| (h.status, h.sense_len, h.driver) = (2, 18, driver));
            let mut room = [0xff; SENSE];
            room[..18].copy_from_slice(&fixed);
            let Passed::Answered { status: Status::CheckCondition, sense, .. } = header.passed(&room) else { panic!() };
            let sense = Sense::parse(&sense).expect("sense");
            assert_eq!((sense.key, sense.code.asc), (SenseKey::Miscompare, 0x1d));
        }
    }

    /// Linux before 5.19 adds DID_NEXUS_FAILURE to a conflict.
    #[test]
    fn a_reservation_conflict_is_an_answer_also_where_the_kernel_marks_it() {
        for host in [0, 0x11] {
            let header = answered(|h| (h.status, h.host) = (0x18, host));
            let Passed::Answered { status, .. } = header.passed(&[]) else { panic!("{host:#x}") };
            assert_eq!(status, Status::ReservationConflict);
        }
    }

    #[test]
    fn what_the_kernel_gave_up_is_no_answer_whatever_status_lies_there() {
        for host in [0x01, 0x02, 0x03, 0x05, 0x07, 0x08, 0x0b, 0x0d, 0x0e, 0x0f, 0x14, 0xff] {
            for status in [0, 2] {
                let header = answered(|h| (h.status, h.host) = (status, host));
                assert_eq!(header.passed(&[]), Passed::GivenUp(GivenUp { host, driver: 0 }), "{host:#x}");
            }
        }
        // A mark of a status without one, and a driver that ran out of time.
        let marked = answered(|h| h.host = 0x11).passed(&[]);
        assert!(matches!(marked, Passed::GivenUp(_)), "{marked:?}");
        let late = answered(|h| h.driver = 6).passed(&[]);
        assert!(matches!(late, Passed::GivenUp(_)), "{late:?}");
    }

    #[test]
    fn only_error_numbers_of_before_the_command_say_that_it_was_not_sent() {
        assert!([libc::EPERM, libc::ENODEV, libc::EBUSY].into_iter().all(is_not_sent));
        assert!(![libc::EIO, libc::ETIMEDOUT, libc::EINTR, libc::ENOLINK].into_iter().any(is_not_sent));
    }
}
