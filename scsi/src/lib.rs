//! SCSI as pure types: commands, sense, vital product data, reservations, target port groups.
//!
//! Both ends use it: an initiator builds commands and parses what comes back, a target parses commands and builds the
//! answers. Byte layouts are those of SAM-5, SPC-4 (with what SPC-5 adds, where said) and SBC-3; each item names the
//! clause it comes from.
//!
//! - [`units`], [`lun`]: addresses, counts, keys; how a logical unit is addressed.
//! - [`cdb`]: commands. [`status`], [`sense`]: how a command ended.
//! - [`inquiry`], [`vpd`], [`luns`], [`capacity`], [`opcodes`], [`mode`], [`log`]: what a target tells about itself.
//! - [`reservations`]: persistent reservations. [`alua`]: target port groups.
//! - [`unmap`], [`lba_status`]: blocks that have no data.
//! - [`action`]: what an initiator does about how a command ended.
//! - [`error`]: why bytes were not accepted.
//!
//! Architecture invariant: a leaf. It imports nothing of ours, knows no transport, no clock and no runtime, and does
//! no I/O. Any bytes are parsed or refused with a typed error: none panics, and none makes a parser allocate more than
//! the limit stated beside it.

#![forbid(unsafe_code)]

pub mod action;
pub mod alua;
pub mod capacity;
pub mod cdb;
pub mod error;
pub mod inquiry;
pub mod lba_status;
pub mod log;
pub mod lun;
pub mod luns;
pub mod mode;
pub mod opcodes;
pub mod reservations;
pub mod sense;
pub mod status;
pub mod units;
pub mod unmap;
pub mod vpd;
mod wire;

pub use cdb::{Cdb, Transfer};
pub use error::{BuildError, CdbError, ListError, ParseError};
pub use lun::LunAddress;
pub use sense::{AdditionalCode, Sense, SenseKey};
pub use status::Status;
pub use units::{BlockCount, BlockLen, BlockRange, ByteCount, Lba, OpCode, ReservationKey, ShortByteCount};
