//! Every command that an initiator sends, held against what a target of another make says of its bits: CDB USAGE DATA (SPC-4
//! 6.35.3) has a bit set for each that is looked at. A field in the wrong place shows there.

use block::buf::AlignedBuf;
use iscsi::session::{Class, Outcome};
use iscsi_initiator::Session;
use scsi::cdb::{
    Caching, Form, GetLbaStatus, Inquiry, ModeSense, OpCodeQuery, PersistentReserveIn, PreFetch, Read, ReadCapacity10,
    ReadCapacity16, ReportLuns, ReportOpCodes, RequestSense, SelectReport, StartStopUnit, SynchronizeCache,
    TestUnitReady, Unmap, Verify, Write, WriteAndVerify, WriteSame,
};
use scsi::mode::PageId;
use scsi::opcodes::{OneCommand, Support};
use scsi::reservations::{Change, InAction, Registration, ReservationType};
use scsi::vpd::PageCode;
use scsi::{BlockCount, BlockLen, BlockRange, ByteCount, Cdb, Lba, LunAddress, ReservationKey, ShortByteCount, Status};

use crate::tgt::{Tgt, run, workers};

/// Every field that is not reserved set to something.
fn commands() -> Vec<Cdb> {
    let block = BlockLen::B512;
    let range = BlockRange::new(Lba(0x1f_ffff), BlockCount(0xff));
    let key = ReservationKey(1);
    let kind = ReservationType::ExclusiveAccessAllRegistrants;
    let to = Registration::persistent(key);
    let changes = [
        Change::Register { from: key, to: to.clone() },
        Change::RegisterAndIgnore { to },
        Change::Reserve { key, kind },
        Change::Release { key, kind },
        Change::Clear { key },
        Change::Preempt { key, victim: key, kind, abort: false },
    ];
    let asks = [InAction::ReadKeys, InAction::ReadReservation, InAction::ReportCapabilities];
    let alloc = ByteCount(512);
    let mut all = vec![
        TestUnitReady.cdb(),
        RequestSense::fixed().cdb().expect("fits"),
        Inquiry::page(PageCode::IDENTIFICATION, ShortByteCount(0x3ff)).cdb(),
        StartStopUnit::START.cdb(),
        ReadCapacity10.cdb(),
        ReadCapacity16::FULL.cdb(),
        GetLbaStatus { from: Lba(u64::from(u32::MAX)), alloc }.cdb(),
        ReportLuns { select: SelectReport::All, alloc }.cdb(),
        ReportOpCodes { timeouts: true, query: OpCodeQuery::All, alloc }.cdb(),
        Unmap { anchor: false, group: 0, list: ShortByteCount(24) }.cdb(),
    ];
    for form in [Form::Six, Form::Ten] {
        all.extend(ModeSense { form, alloc: ByteCount(255), ..ModeSense::current(PageId::CACHING) }.cdb());
    }
    for form in [Form::Ten, Form::Sixteen] {
        let caching = Caching::FUA;
        all.extend(Read { form, caching, ..Read::new(range) }.cdb(block));
        all.extend(Write { form, caching, ..Write::new(range) }.cdb(block));
        all.extend(Verify { form, byte_check: 1, ..Verify::new(range) }.cdb(block));
        all.extend(WriteAndVerify { form, ..WriteAndVerify::new(range) }.cdb(block));
        all.extend(SynchronizeCache { form, ..SynchronizeCache::new(range) }.cdb());
        all.extend(PreFetch { form, ..PreFetch::new(range) }.cdb());
        all.extend(WriteSame { form, unmap: true, ..WriteSame::new(range) }.cdb(block));
    }
    all.extend(asks.map(|action| PersistentReserveIn { action, alloc: ShortByteCount(512) }.cdb()));
    all.extend(changes.map(|change| change.command().0));
    all
}

async fn usage(session: &Session, cdb: &Cdb) -> OneCommand {
    let bytes = cdb.head();
    // What has service actions is asked for with its own.
    let action = match bytes[0] {
        0x5e | 0x5f | 0x9e | 0xa3 => OpCodeQuery::Action(cdb.op_code(), u16::from(bytes[1] & 0x1f)),
        _ => OpCodeQuery::One(cdb.op_code()),
    };
    let ask = ReportOpCodes { timeouts: false, query: action, alloc: ByteCount(512) }.cdb();
    for _ in 0..4 {
        let memory = Some(AlignedBuf::zeroed(512));
        let ended = session.carry_out(LunAddress::new(1).expect("in range"), ask.clone(), Class::Control, memory).await;
        let Outcome::Answered(answer) = ended.outcome else { panic!("{cdb:?}: {:?}", ended.outcome) };
        if answer.status == Status::Good {
            let bytes = &ended.memory.expect("comes back")[..answer.moved as usize];
            return OneCommand::parse(bytes).expect("an answer");
        }
    }
    panic!("{cdb:?}: the question is refused");
}

#[test]
fn no_command_sets_a_bit_that_a_target_of_another_make_does_not_look_at() {
    let Some(tgt) = Tgt::start() else { return };
    let workers = workers();
    let session = tgt.session(&workers, 1);
    let compared = run(&workers, move || async move {
        let (mut compared, mut stray) = (0, Vec::new());
        for cdb in commands() {
            let one = usage(&session, &cdb).await;
            if one.support != Support::Standard {
                println!("tgt does not have {:02x?}: {:?}", &cdb.head()[..cdb.len()], one.support);
                continue;
            }
            assert_eq!((one.usage.len(), one.usage[0]), (cdb.len(), cdb.head()[0]));
            let beside = cdb.head().iter().zip(&one.usage).skip(1).any(|(set, looked)| set & !looked != 0);
            if beside {
                stray.push(format!("{:02x?} beside {:02x?}", &cdb.head()[..cdb.len()], one.usage));
            }
            compared += 1;
        }
        assert!(stray.is_empty(), "{stray:#?}");
        session.close().await;
        compared
    });
    assert!(compared >= 25, "{compared}");
}
