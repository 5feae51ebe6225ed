//! Primary commands (SPC-4 6) and those of SBC-3 without a range.

use super::both_ways;
use crate::cdb::*;
use crate::error::CdbError;
use crate::mode::PageId;
use crate::reservations::{InAction, OutAction, ReservationType};
use crate::units::{ByteCount, Lba, OpCode, ShortByteCount};
use crate::vpd::PageCode;

/// SPC-4 6.47, SBC-3 5.25 and 5.10, SPC-2 7.21 and 7.16.
#[test]
fn commands_about_the_unit() {
    both_ways(TestUnitReady, &TestUnitReady.cdb(), &[0; 6]);
    both_ways(StartStopUnit::START, &StartStopUnit::START.cdb(), &[0x1b, 0, 0, 0, 1, 0]);
    let stop = StartStopUnit {
        immediate: true,
        power_condition: 3,
        power_modifier: 1,
        no_flush: true,
        load_eject: true,
        start: false,
    };
    both_ways(stop, &stop.cdb(), &[0x1b, 1, 0, 1, 0x36, 0]);
    let prevent = PreventAllow { prevent: true };
    both_ways(prevent, &prevent.cdb(), &[0x1e, 0, 0, 0, 1, 0]);
    assert!(Command::parse(&[0x1e, 0, 0, 0, 2, 0]).is_err());
    both_ways(Reserve6, &Reserve6.cdb(), &[0x16, 0, 0, 0, 0, 0]);
    both_ways(Release6, &Release6.cdb(), &[0x17, 0, 0, 0, 0, 0]);
    assert_eq!(Command::parse(&[0x16, 0x10, 0, 0, 0, 0]), Err(CdbError::InvalidField { byte: 1, bit: Some(4) }));
}

/// SPC-4 6.6 and 6.39.
#[test]
fn inquiry_and_request_sense() {
    both_ways(Inquiry::STANDARD, &Inquiry::STANDARD.cdb(), &[0x12, 0, 0, 0, 96, 0]);
    assert_eq!(Inquiry::STANDARD.cdb().transfer(), Transfer::In(ByteCount(96)));
    let page = Inquiry::page(PageCode::IDENTIFICATION, ShortByteCount(0x0400));
    both_ways(page, &page.cdb(), &[0x12, 1, 0x83, 4, 0, 0]);
    assert_eq!(Command::parse(&[0x12, 0, 0x83, 0, 96, 0]), Err(CdbError::InvalidField { byte: 2, bit: None }));
    assert_eq!(Command::parse(&[0x12, 2, 0, 0, 96, 0]), Err(CdbError::InvalidField { byte: 1, bit: Some(1) }));
    let sense = RequestSense { descriptor: true, alloc: ByteCount(252) };
    both_ways(sense, &sense.cdb().unwrap(), &[0x03, 1, 0, 0, 252, 0]);
    both_ways(RequestSense::fixed(), &RequestSense::fixed().cdb().unwrap(), &[0x03, 0, 0, 0, 252, 0]);
    assert!(RequestSense { alloc: ByteCount(256), ..sense }.cdb().is_err());
}

/// SBC-3 5.15, 5.16, 5.4.
#[test]
fn capacity_and_lba_status() {
    both_ways(ReadCapacity10, &ReadCapacity10.cdb(), &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(Command::parse(&[0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0]).is_err());
    let full = ReadCapacity16::FULL;
    both_ways(full, &full.cdb(), &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]);
    let status = GetLbaStatus { from: Lba(0x0102_0304_0506_0708), alloc: ByteCount(0x0a0b_0c0d) };
    let bytes = [0x9e, 0x12, 1, 2, 3, 4, 5, 6, 7, 8, 0xa, 0xb, 0xc, 0xd, 0, 0];
    both_ways(status, &status.cdb(), &bytes);
}

/// SPC-4 6.13, 6.14, 6.11, 6.12, 6.9.
#[test]
fn mode_and_log() {
    let six = ModeSense {
        form: Form::Six,
        no_block_descriptors: true,
        control: PageControl::Changeable,
        alloc: ByteCount(255),
        ..ModeSense::current(PageId::CACHING)
    };
    both_ways(six, &six.cdb().unwrap(), &[0x1a, 8, 0x48, 0, 255, 0]);
    let ten = ModeSense { long_lba: true, control: PageControl::Saved, ..ModeSense::current(PageId::ALL_SUBPAGES) };
    both_ways(ten, &ten.cdb().unwrap(), &[0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 2, 0, 0]);
    assert!(ModeSense { alloc: ByteCount(256), ..six }.cdb().is_err());
    assert!(ModeSense { long_lba: true, ..six }.cdb().is_err());
    assert!(ModeSense { form: Form::Sixteen, ..ten }.cdb().is_err());
    let six = ModeSelect { form: Form::Six, page_format: true, save: true, list: ByteCount(24) };
    both_ways(six, &six.cdb().unwrap(), &[0x15, 0x11, 0, 0, 24, 0]);
    let ten = ModeSelect { form: Form::Ten, page_format: true, save: false, list: ByteCount(0x0102) };
    both_ways(ten, &ten.cdb().unwrap(), &[0x55, 0x10, 0, 0, 0, 0, 0, 1, 2, 0]);
    let log = LogSense { from: 0x0102, save: true, ..LogSense::page(0x0c, 1, ShortByteCount(0x0304)) };
    both_ways(log, &log.cdb(), &[0x4d, 1, 0x4c, 1, 0, 1, 2, 3, 4, 0]);
}

/// SPC-4 6.33, 6.35, 6.36, 6.37, 6.45.
#[test]
fn reports() {
    let luns = ReportLuns { select: SelectReport::All, alloc: ByteCount(0x0102_0304) };
    both_ways(luns, &luns.cdb(), &[0xa0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 0, 0]);
    assert!(Command::parse(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0]).is_err(), "fewer than 16 bytes");
    assert!(Command::parse(&[0xa0, 0, 3, 0, 0, 0, 0, 0, 0, 16, 0, 0]).is_err());
    let groups = ReportTargetPortGroups { extended: true, alloc: ByteCount(512) };
    both_ways(groups, &groups.cdb(), &[0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    let set = SetTargetPortGroups { list: ByteCount(8) };
    both_ways(set, &set.cdb(), &[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    assert_eq!(set.cdb().transfer(), Transfer::Out(ByteCount(8)));
    for (query, middle) in [
        (OpCodeQuery::All, [0x80, 0, 0, 0]),
        (OpCodeQuery::One(OpCode(0x89)), [0x81, 0x89, 0, 0]),
        (OpCodeQuery::Action(OpCode(0x5f), 5), [0x82, 0x5f, 0, 5]),
        (OpCodeQuery::Either(OpCode(0x5f), 0x0102), [0x83, 0x5f, 1, 2]),
    ] {
        let report = ReportOpCodes { timeouts: true, query, alloc: ByteCount(64) };
        let [b2, b3, b4, b5] = middle;
        both_ways(report, &report.cdb(), &[0xa3, 0x0c, b2, b3, b4, b5, 0, 0, 0, 64, 0, 0]);
    }
    assert!(Command::parse(&[0xa3, 0x0c, 4, 0, 0, 0, 0, 0, 0, 64, 0, 0]).is_err());
    let tasks = ReportTaskManagement { extended: true, alloc: ByteCount(16) };
    both_ways(tasks, &tasks.cdb(), &[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0]);
}

/// SPC-4 6.15, 6.16.
#[test]
fn persistent_reserve() {
    for (n, action) in
        [InAction::ReadKeys, InAction::ReadReservation, InAction::ReportCapabilities, InAction::ReadFullStatus]
            .into_iter()
            .enumerate()
    {
        let command = PersistentReserveIn { action, alloc: ShortByteCount(0x0102) };
        both_ways(command, &command.cdb(), &[0x5e, u8::try_from(n).unwrap(), 0, 0, 0, 0, 0, 1, 2, 0]);
    }
    assert!(Command::parse(&[0x5e, 4, 0, 0, 0, 0, 0, 0, 8, 0]).is_err());
    let all_registrants = Some(ReservationType::ExclusiveAccessAllRegistrants);
    for (n, action) in [
        OutAction::Register,
        OutAction::Reserve,
        OutAction::Release,
        OutAction::Clear,
        OutAction::Preempt,
        OutAction::PreemptAndAbort,
        OutAction::RegisterAndIgnore,
        OutAction::RegisterAndMove,
        OutAction::ReplaceLost,
    ]
    .into_iter()
    .enumerate()
    {
        let kind = if action.has_type() { all_registrants } else { None };
        let command = PersistentReserveOut { action, kind, list: ByteCount(24) };
        let byte = if action.has_type() { 8 } else { 0 };
        both_ways(command, &command.cdb(), &[0x5f, u8::try_from(n).unwrap(), byte, 0, 0, 0, 0, 0, 24, 0]);
    }
    assert_eq!(Command::parse(&[0x5f, 1, 0x18, 0, 0, 0, 0, 0, 24, 0]), Err(CdbError::bit(2, 7)), "scope");
    assert_eq!(Command::parse(&[0x5f, 1, 0x02, 0, 0, 0, 0, 0, 24, 0]), Err(CdbError::bit(2, 3)), "type");
    assert!(Command::parse(&[0x5f, 0, 0xff, 0, 0, 0, 0, 0, 24, 0]).is_ok(), "REGISTER looks at neither");
}

/// SPC-3 6.3 and 6.17.
#[test]
fn extended_copy() {
    let copy = ExtendedCopy { list: ByteCount(0x0102_0304) };
    both_ways(copy, &copy.cdb(), &[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0]);
    assert_eq!(copy.cdb().transfer(), Transfer::Out(ByteCount(0x0102_0304)));
    let lid4 = Command::parse(&[0x83, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]);
    assert_eq!(lid4, Err(CdbError::bit(1, 4)), "another command");
    for (question, code) in [
        (CopyQuestion::Status, 0),
        (CopyQuestion::Data, 1),
        (CopyQuestion::OperatingParameters, 3),
        (CopyQuestion::FailureDetails, 4),
    ] {
        let results = ReceiveCopyResults { question, list_id: 7, alloc: ByteCount(0x0102) };
        both_ways(results, &results.cdb(), &[0x84, code, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0]);
    }
    assert!(Command::parse(&[0x84, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]).is_err());
}
