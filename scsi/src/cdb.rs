//! Command descriptor blocks (SPC-4 4.2, SBC-3 5): one type per command, for both ends.
//!
//! An initiator fills in a type and calls its `cdb()`: the block with direction and length of its data ([`Cdb`]). A
//! target calls [`Command::parse`]. Commands on blocks exist in several [`Form`]s; what does not fit a form is a
//! [`BuildError`](crate::BuildError), never cut off. Parameter lists and answers have modules of their own beside this
//! one.
//!
//! Refused: building commands that carry protection information; parsing variable-length blocks (7Fh), which no
//! command here has.

mod block;
mod capacity;
mod command;
mod compare_and_write;
mod copy;
mod inquiry;
mod log;
mod mode;
pub mod op;
mod or_write;
mod pre_fetch;
mod range;
mod read;
mod report;
mod reserve;
mod synchronize_cache;
#[cfg(test)]
mod tests;
mod unit;
mod unmap;
mod verify;
mod write;
mod write_and_verify;
mod write_atomic;
mod write_same;

pub use block::{Cdb, HEAD, MAX_CDB, Transfer};
pub use capacity::{GetLbaStatus, ReadCapacity10, ReadCapacity16};
pub use command::Command;
pub use compare_and_write::CompareAndWrite;
pub use copy::{CopyQuestion, ExtendedCopy, ReceiveCopyResults};
pub use inquiry::{Inquiry, RequestSense};
pub use log::LogSense;
pub use mode::{ModeSelect, ModeSense, PageControl};
pub use op::{ServiceAction, group_len};
pub use or_write::OrWrite;
pub use pre_fetch::PreFetch;
pub use range::{Caching, Form};
pub use read::Read;
pub use report::{
    OpCodeQuery, ReportLuns, ReportOpCodes, ReportTargetPortGroups, ReportTaskManagement, SelectReport,
    SetTargetPortGroups,
};
pub use reserve::{PersistentReserveIn, PersistentReserveOut};
pub use synchronize_cache::SynchronizeCache;
pub use unit::{PreventAllow, Release6, Reserve6, StartStopUnit, TestUnitReady};
pub use unmap::Unmap;
pub use verify::Verify;
pub use write::Write;
pub use write_and_verify::WriteAndVerify;
pub use write_atomic::WriteAtomic;
pub use write_same::WriteSame;
