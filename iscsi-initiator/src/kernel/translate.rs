//! Commands as requests of the block layer, and what the kernel answers as answers of a unit. Pure.
//!
//! The block layer tells an error number for what the unit has said (block/blk-core.c, `blk_errors`). Those that stand for an answer of the unit
//! become that answer again; all others say nothing of the command.

use block::device::Op;
use block::error::IoError;
use block::kernel_disk::Passed;
use block::units::ByteOffset;
use iscsi::session::{Answer, Cause, Class};
use scsi::cdb::Command;
use scsi::{Cdb, Status};

use super::core::Told;

/// Errors of the block layer that the kernel's libraries have no better name for.
const MEDIUM: i32 = 61; // ENODATA
const TARGET: i32 = 121; // EREMOTEIO
const CONFLICT: i32 = 52; // EBADE
const NO_SPACE: i32 = 28; // ENOSPC
const NOT_SUPPORTED: i32 = 95; // EOPNOTSUPP
const PROTECTION: i32 = 84; // EILSEQ
/// Of the ioctl.
const NOT_PERMITTED: i32 = 1; // EPERM
const NO_ACCESS: i32 = 13; // EACCES
const NO_SUCH_DEVICE: i32 = 6; // ENXIO
const NO_DEVICE: i32 = 19; // ENODEV

/// Where a command on blocks goes in the block layer; `None` for what goes by SG_IO: questions and their like, which are to be told what the unit
/// says word for word, and every command but plain reads and writes.
///
/// A write is on the medium when it is answered: nobody would hear that the unit has lost it.
pub(super) fn block_request(cdb: &Cdb, class: Class, len: usize) -> Option<(Op, ByteOffset)> {
    if class == Class::Control || len == 0 {
        return None;
    }
    let (op, range) = match Command::parse(cdb.head()).ok()? {
        Command::Read(read) => (Op::Read, read.range),
        Command::Write(write) => (Op::Write { fua: true }, write.range),
        _ => return None,
    };
    let block = u64::try_from(len).ok()?.checked_div(range.blocks.0)?;
    Some((op, ByteOffset(range.lba.0.checked_mul(block)?)))
}

/// What the block layer says of a read or write of so many bytes.
pub(super) fn of_block_layer(result: Result<(), IoError>, len: u32) -> Told {
    let Err(error) = result else { return good(len) };
    let Some(errno) = error.os else { return Told::NotSent(Cause::Disk("the request was not taken")) };
    match errno {
        CONFLICT => answer(Status::ReservationConflict, Vec::new()),
        // MEDIUM ERROR; HARDWARE ERROR, INTERNAL TARGET FAILURE; DATA PROTECT, SPACE ALLOCATION FAILED; ILLEGAL REQUEST, INVALID COMMAND;
        // ABORTED COMMAND, LOGICAL BLOCK GUARD CHECK FAILED.
        MEDIUM => answer(Status::CheckCondition, sense(0x03, 0x00, 0x00)),
        TARGET => answer(Status::CheckCondition, sense(0x04, 0x44, 0x00)),
        NO_SPACE => answer(Status::CheckCondition, sense(0x07, 0x27, 0x07)),
        NOT_SUPPORTED => answer(Status::CheckCondition, sense(0x05, 0x20, 0x00)),
        PROTECTION => answer(Status::CheckCondition, sense(0x0b, 0x10, 0x01)),
        _ => Told::GivenUp(Cause::Disk("the kernel gave a read or write up")),
    }
}

/// What SG_IO says.
pub(super) fn of_sg(passed: Passed) -> Told {
    match passed {
        Passed::Answered { status, sense, moved } => Told::Answered(Answer { status, sense, moved, overflow: 0 }),
        Passed::GivenUp(why) => Told::GivenUp(Cause::Disk(why.reason())),
        Passed::NotSent(NOT_PERMITTED | NO_ACCESS) => Told::NotSent(Cause::Disk(
            "the kernel does not let this process send SCSI commands: it needs CAP_SYS_RAWIO",
        )),
        Passed::NotSent(NO_DEVICE | NO_SUCH_DEVICE) => Told::NotSent(Cause::Disk("the disk is gone from this host")),
        Passed::NotSent(_) => Told::NotSent(Cause::Disk("the kernel refuses the command")),
    }
}

fn good(moved: u32) -> Told {
    Told::Answered(Answer { status: Status::Good, sense: Vec::new(), moved, overflow: 0 })
}

fn answer(status: Status, sense: Vec<u8>) -> Told {
    Told::Answered(Answer { status, sense, moved: 0, overflow: 0 })
}

/// Fixed sense data.
fn sense(key: u8, asc: u8, ascq: u8) -> Vec<u8> {
    vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0]
}
