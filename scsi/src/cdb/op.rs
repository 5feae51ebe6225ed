//! Operation codes and service actions that this crate builds and parses (SPC-4 annex F.3).

use std::fmt;

use crate::units::OpCode;

/// The service action of an operation code that has several, 5 bits of byte 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAction(pub u8);

macro_rules! codes {
    ($($code:literal $name:ident $text:literal)*) => {
        $(#[doc = $text] pub const $name: OpCode = OpCode($code);)*

        impl OpCode {
            /// The standard's name; `None` where this crate does not know the code.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    0x00 TEST_UNIT_READY "TEST UNIT READY"
    0x03 REQUEST_SENSE "REQUEST SENSE"
    0x08 READ_6 "READ(6)"
    0x0a WRITE_6 "WRITE(6)"
    0x12 INQUIRY "INQUIRY"
    0x15 MODE_SELECT_6 "MODE SELECT(6)"
    0x16 RESERVE_6 "RESERVE(6)"
    0x17 RELEASE_6 "RELEASE(6)"
    0x1a MODE_SENSE_6 "MODE SENSE(6)"
    0x1b START_STOP_UNIT "START STOP UNIT"
    0x1e PREVENT_ALLOW_MEDIUM_REMOVAL "PREVENT ALLOW MEDIUM REMOVAL"
    0x25 READ_CAPACITY_10 "READ CAPACITY(10)"
    0x28 READ_10 "READ(10)"
    0x2a WRITE_10 "WRITE(10)"
    0x2e WRITE_AND_VERIFY_10 "WRITE AND VERIFY(10)"
    0x2f VERIFY_10 "VERIFY(10)"
    0x34 PRE_FETCH_10 "PRE-FETCH(10)"
    0x35 SYNCHRONIZE_CACHE_10 "SYNCHRONIZE CACHE(10)"
    0x41 WRITE_SAME_10 "WRITE SAME(10)"
    0x42 UNMAP "UNMAP"
    0x4d LOG_SENSE "LOG SENSE"
    0x55 MODE_SELECT_10 "MODE SELECT(10)"
    0x5a MODE_SENSE_10 "MODE SENSE(10)"
    0x5e PERSISTENT_RESERVE_IN "PERSISTENT RESERVE IN"
    0x5f PERSISTENT_RESERVE_OUT "PERSISTENT RESERVE OUT"
    0x83 EXTENDED_COPY "EXTENDED COPY"
    0x84 RECEIVE_COPY_RESULTS "RECEIVE COPY RESULTS"
    0x88 READ_16 "READ(16)"
    0x89 COMPARE_AND_WRITE "COMPARE AND WRITE"
    0x8a WRITE_16 "WRITE(16)"
    0x8b ORWRITE_16 "ORWRITE(16)"
    0x8e WRITE_AND_VERIFY_16 "WRITE AND VERIFY(16)"
    0x8f VERIFY_16 "VERIFY(16)"
    0x90 PRE_FETCH_16 "PRE-FETCH(16)"
    0x91 SYNCHRONIZE_CACHE_16 "SYNCHRONIZE CACHE(16)"
    0x93 WRITE_SAME_16 "WRITE SAME(16)"
    0x9c WRITE_ATOMIC_16 "WRITE ATOMIC(16)"
    0x9e SERVICE_ACTION_IN_16 "SERVICE ACTION IN(16)"
    0xa0 REPORT_LUNS "REPORT LUNS"
    0xa3 MAINTENANCE_IN "MAINTENANCE IN"
    0xa4 MAINTENANCE_OUT "MAINTENANCE OUT"
    0xa8 READ_12 "READ(12)"
    0xaa WRITE_12 "WRITE(12)"
    0xae WRITE_AND_VERIFY_12 "WRITE AND VERIFY(12)"
    0xaf VERIFY_12 "VERIFY(12)"
}

/// READ CAPACITY(16), a service action of [`SERVICE_ACTION_IN_16`].
pub const SA_READ_CAPACITY_16: ServiceAction = ServiceAction(0x10);
/// GET LBA STATUS, a service action of [`SERVICE_ACTION_IN_16`].
pub const SA_GET_LBA_STATUS: ServiceAction = ServiceAction(0x12);
/// REPORT TARGET PORT GROUPS, a service action of [`MAINTENANCE_IN`].
pub const SA_REPORT_TARGET_PORT_GROUPS: ServiceAction = ServiceAction(0x0a);
/// REPORT SUPPORTED OPERATION CODES, a service action of [`MAINTENANCE_IN`].
pub const SA_REPORT_SUPPORTED_OPERATION_CODES: ServiceAction = ServiceAction(0x0c);
/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, a service action of [`MAINTENANCE_IN`].
pub const SA_REPORT_SUPPORTED_TASK_MANAGEMENT: ServiceAction = ServiceAction(0x0d);
/// SET TARGET PORT GROUPS, a service action of [`MAINTENANCE_OUT`].
pub const SA_SET_TARGET_PORT_GROUPS: ServiceAction = ServiceAction(0x0a);

/// Bytes of a block with this operation code (SPC-4 4.2.1: its group, the upper three bits); `None` where the vendor
/// or the block itself says.
pub fn group_len(code: OpCode) -> Option<usize> {
    match code.0 >> 5 {
        0 => Some(6),
        1 | 2 => Some(10),
        4 => Some(16),
        5 => Some(12),
        _ => None,
    }
}

impl fmt::Display for ServiceAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service action {:02x}h", self.0)
    }
}
