//! A unit's answers to commands, in the order in which it looks at things.

use scsi::cdb::{CompareAndWrite, Inquiry, ModeSense, Read, ReportLuns, SelectReport, TestUnitReady, Unmap, Write};
use scsi::reservations::{Isid, Registration, ReservationType};
use scsi::units::{BlockRange, ByteCount};
use scsi::vpd::{BlockLimits, DeviceIdentification, Identifier, PageCode, Sameness, SupportedPages};
use scsi::{BlockCount, Cdb, Lba, ReservationKey, ShortByteCount};

use super::*;

const A: NexusId = NexusId(1);
const B: NexusId = NexusId(2);

fn name(n: u8) -> NexusName {
    NexusName { initiator: format!("iqn.2026-01.test:{n}"), isid: Isid([0x80, 0, 0, 0, 0, n]), port: u16::from(n) }
}

fn shape() -> Shape {
    Shape {
        block: BlockLen::B512,
        physical_exponent: 3,
        blocks: 1000,
        read_only: false,
        write_through: false,
        thin: true,
        lun: 0,
        target: "iqn.2026-01.test:t".into(),
        ports: vec![1, 2],
        persists: true,
    }
}

/// Two nexuses through two ports, with nothing left to be told.
fn unit() -> Unit {
    let mut unit = Unit::new(shape(), Reservations::default());
    for (id, n) in [(A, 1), (B, 2)] {
        unit.attach(id, name(n));
        assert_eq!(code(go(&mut unit, id, &TestUnitReady.cdb())), Some((6, 0x29, 0)));
    }
    unit
}

/// Carries out a command that the unit answers by itself.
fn go(unit: &mut Unit, nexus: NexusId, cdb: &Cdb) -> Outcome {
    let bytes: Vec<u8> = cdb.head()[..cdb.len().min(16)].to_vec();
    let announced = match cdb.transfer() {
        scsi::Transfer::Out(len) => len.0,
        _ => 0,
    };
    let mut fx = Vec::new();
    match unit.arrive(nexus, &bytes, Order::Simple, announced) {
        Err(outcome) => outcome,
        Ok((task, plan)) => {
            let outcome = match unit.start(nexus, task, &plan, &mut fx) {
                Err(outcome) => outcome,
                Ok(_) => match &plan {
                    Plan::Answer(command) => unit.answer(nexus, command, &[0]),
                    _ => Outcome::GOOD,
                },
            };
            unit.tasks.end(task, &mut fx);
            outcome
        }
    }
}

fn code(outcome: Outcome) -> Option<(u8, u8, u8)> {
    outcome.sense.map(|s| (s.key.bits(), s.code.asc, s.code.ascq))
}

fn read(lba: u64, blocks: u64) -> Cdb {
    Read::new(BlockRange::new(Lba(lba), BlockCount(blocks))).cdb(BlockLen::B512).expect("fits")
}

fn write(lba: u64, blocks: u64) -> Cdb {
    Write::new(BlockRange::new(Lba(lba), BlockCount(blocks))).cdb(BlockLen::B512).expect("fits")
}

/// Changes reservations as a command would.
fn change(unit: &mut Unit, nexus: NexusId, change: &Change) -> (bool, Vec<Effect>) {
    let (cdb, list) = change.command();
    let mut fx = Vec::new();
    let (task, plan) = unit.arrive(nexus, &cdb.head()[..10], Order::Simple, 24).expect("it arrives");
    assert_eq!(unit.start(nexus, task, &plan, &mut fx), Ok(true));
    let Plan::ReserveOut(out) = plan else { panic!("a change") };
    let changed = unit.reserve_out(nexus, &out, &list).expect("it is allowed");
    let over = unit.reserved((nexus, task), changed, Wait { nexus, number: 1 }, &mut fx);
    unit.tasks.end(task, &mut fx);
    (over, fx)
}

fn register(unit: &mut Unit, nexus: NexusId, key: u64) {
    let to = Registration { key: ReservationKey(key), ..Registration::default() };
    change(unit, nexus, &Change::RegisterAndIgnore { to });
}

#[test]
fn a_unit_attention_ends_one_command_and_not_those_that_ask_who_is_there() {
    let mut unit = unit();
    unit.attention_for_all(AdditionalCode::CAPACITY_CHANGED);
    unit.attention_for_all(AdditionalCode::CAPACITY_CHANGED);
    let inquiry = Inquiry { page: None, alloc: ShortByteCount(255) }.cdb();
    assert_eq!(go(&mut unit, A, &inquiry).status, Status::Good);
    let luns = ReportLuns { select: SelectReport::Addressable, alloc: ByteCount(64) }.cdb();
    assert_eq!(go(&mut unit, A, &luns).status, Status::Good);
    assert_eq!(code(go(&mut unit, A, &read(0, 1))), Some((6, 0x2a, 9)));
    assert_eq!(go(&mut unit, A, &read(0, 1)).status, Status::Good, "told once");
    assert_eq!(code(go(&mut unit, B, &read(0, 1))), Some((6, 0x2a, 9)), "each nexus for itself");
}

#[test]
fn attentions_are_bounded_and_the_loss_is_told() {
    let mut unit = unit();
    for ascq in 0..=MAX_ATTENTIONS {
        unit.attention_for_all(AdditionalCode::new(0x3f, u8::try_from(ascq).expect("few")));
    }
    let sense = unit.take_attention(A).expect("there are some");
    assert_eq!(sense.code, AdditionalCode::new(0x3f, 1), "the oldest is lost");
    assert_eq!(sense.specific, Some(scsi::sense::KeySpecific::AttentionOverflow(true)));
}

#[test]
fn reservation_conflict_comes_before_a_unit_attention() {
    let mut unit = unit();
    register(&mut unit, A, 1);
    let kind = ReservationType::ExclusiveAccess;
    change(&mut unit, A, &Change::Reserve { key: ReservationKey(1), kind });
    unit.attention_for_all(AdditionalCode::CAPACITY_CHANGED);
    assert_eq!(go(&mut unit, B, &read(0, 1)).status, Status::ReservationConflict);
    assert_eq!(code(go(&mut unit, B, &TestUnitReady.cdb())), Some((6, 0x2a, 9)));
}

#[test]
fn each_type_of_reservation_lets_through_what_the_standard_says() {
    for kind in ReservationType::ALL {
        let mut unit = unit();
        unit.attach(NexusId(3), name(3));
        while unit.take_attention(NexusId(3)).is_some() {}
        register(&mut unit, A, 1);
        register(&mut unit, B, 2);
        change(&mut unit, A, &Change::Reserve { key: ReservationKey(1), kind });
        let stranger = NexusId(3);
        for (nexus, registrant) in [(A, true), (B, kind.registrants_may()), (stranger, false)] {
            let may = |unit: &mut Unit, cdb: &Cdb| go(unit, nexus, cdb).status != Status::ReservationConflict;
            assert_eq!(may(&mut unit, &write(0, 1)), registrant, "{kind}: write of {nexus:?}");
            assert_eq!(may(&mut unit, &read(0, 1)), registrant || !kind.forbids_reads(), "{kind}: read of {nexus:?}");
            let unmap = Unmap { anchor: false, group: 0, list: ShortByteCount(24) }.cdb();
            assert_eq!(may(&mut unit, &unmap), registrant, "{kind}: unmap of {nexus:?}");
            let swap = CompareAndWrite::new(Lba(0), 1).cdb(BlockLen::B512).expect("fits");
            assert_eq!(may(&mut unit, &swap), registrant, "{kind}: compare-and-write of {nexus:?}");
            assert!(may(&mut unit, &TestUnitReady.cdb()), "{kind}");
        }
    }
}

#[test]
fn reserve_6_and_persistent_reservations_refuse_one_another() {
    let mut unit = unit();
    assert_eq!(go(&mut unit, A, &scsi::cdb::Reserve6.cdb()).status, Status::Good);
    assert_eq!(go(&mut unit, B, &read(0, 1)).status, Status::ReservationConflict);
    assert_eq!(go(&mut unit, B, &scsi::cdb::Reserve6.cdb()).status, Status::ReservationConflict);
    let (cdb, list) = Change::Reserve { key: ReservationKey(1), kind: ReservationType::WriteExclusive }.command();
    let (_, plan) = unit.arrive(A, &cdb.head()[..10], Order::Simple, 24).expect("it arrives");
    let Plan::ReserveOut(out) = plan else { panic!("a change") };
    assert_eq!(unit.reserve_out(A, &out, &list), Err(Outcome::status(Status::ReservationConflict)));
    assert_eq!(go(&mut unit, B, &scsi::cdb::Release6.cdb()).status, Status::Good, "of nothing, and changes nothing");
    assert_eq!(go(&mut unit, B, &read(0, 1)).status, Status::ReservationConflict);
    unit.detach(A);
    assert_eq!(go(&mut unit, B, &read(0, 1)).status, Status::Good, "it ends with its session");
    register(&mut unit, B, 2);
    assert_eq!(go(&mut unit, B, &scsi::cdb::Reserve6.cdb()).status, Status::ReservationConflict);
}

#[test]
fn what_became_of_a_registration_is_told_also_to_a_nexus_that_comes_back() {
    let mut unit = unit();
    register(&mut unit, A, 1);
    register(&mut unit, B, 2);
    unit.detach(B);
    let kind = ReservationType::WriteExclusive;
    let preempt = Change::Preempt { key: ReservationKey(1), victim: ReservationKey(2), kind, abort: false };
    change(&mut unit, A, &preempt);
    unit.attach(NexusId(9), name(2));
    assert_eq!(code(go(&mut unit, NexusId(9), &TestUnitReady.cdb())), Some((6, 0x29, 7)), "nexus loss");
    assert_eq!(code(go(&mut unit, NexusId(9), &TestUnitReady.cdb())), Some((6, 0x2a, 5)), "registrations preempted");
    assert_eq!(go(&mut unit, NexusId(9), &TestUnitReady.cdb()).status, Status::Good);
}

#[test]
fn preempt_and_abort_aborts_the_victims_commands_and_waits_for_them() {
    let mut unit = unit();
    register(&mut unit, A, 1);
    register(&mut unit, B, 2);
    let cdb = write(0, 1);
    let (victim, plan) = unit.arrive(B, cdb.head(), Order::Simple, 512).expect("it arrives");
    let mut fx = Vec::new();
    assert_eq!(unit.start(B, victim, &plan, &mut fx), Ok(true));
    let kind = ReservationType::WriteExclusive;
    let preempt = Change::Preempt { key: ReservationKey(1), victim: ReservationKey(2), kind, abort: true };
    let (over, fx) = change(&mut unit, A, &preempt);
    assert!(!over);
    assert_eq!(fx, [Effect::Abort(B, victim)]);
    let mut fx = Vec::new();
    assert_eq!(unit.tasks.end(victim, &mut fx), Some(Abort::Told));
    assert_eq!(fx, [Effect::Over(Wait { nexus: A, number: 1 })]);
}

#[test]
fn a_full_task_set_is_told_and_takes_commands_again() {
    let mut unit = unit();
    let cdb = write(0, 1);
    let tasks: Vec<TaskId> =
        (0..MAX_TASKS).map(|_| unit.arrive(A, cdb.head(), Order::Simple, 512).expect("there is room").0).collect();
    assert_eq!(unit.arrive(B, cdb.head(), Order::Simple, 512), Err(Outcome::status(Status::TaskSetFull)));
    unit.tasks.end(tasks[7], &mut Vec::new());
    assert!(unit.arrive(B, cdb.head(), Order::Simple, 512).is_ok());
}

#[test]
fn fields_of_commands_on_blocks_are_judged() {
    let mut unit = unit();
    let check = |unit: &mut Unit, cdb: &Cdb| code(go(unit, A, cdb));
    assert_eq!(check(&mut unit, &read(999, 1)), None);
    assert_eq!(check(&mut unit, &read(1000, 0)), None, "nothing, at the end");
    assert_eq!(check(&mut unit, &read(999, 2)), Some((5, 0x21, 0)));
    assert_eq!(check(&mut unit, &read(1001, 0)), Some((5, 0x21, 0)));
    let mut large = Unit::new(Shape { blocks: 1 << 20, ..shape() }, Reservations::default());
    large.attach(A, name(1));
    large.take_attention(A);
    let most = u64::from(media::MAX_TRANSFER / 512);
    assert_eq!(check(&mut large, &read(0, most)), None);
    assert_eq!(check(&mut large, &read(0, most + 1)), Some((5, 0x24, 0)));
    // The initiator's own length of a compare-and-write must be the command's.
    let swap = CompareAndWrite::new(Lba(0), 2).cdb(BlockLen::B512).expect("fits");
    for (announced, expected) in [(2048, None), (1024, Some((5, 0x24, 0))), (4096, Some((5, 0x24, 0)))] {
        let arrived = unit.arrive(A, swap.head(), Order::Simple, announced);
        assert_eq!(arrived.err().and_then(code), expected, "{announced}");
    }
}

#[test]
fn a_read_only_unit_refuses_changes_and_says_so_in_its_mode_header() {
    let mut unit = Unit::new(Shape { read_only: true, ..shape() }, Reservations::default());
    unit.attach(A, name(1));
    unit.take_attention(A);
    let unmap = Unmap { anchor: false, group: 0, list: ShortByteCount(24) }.cdb();
    let swap = CompareAndWrite::new(Lba(0), 1).cdb(BlockLen::B512).expect("fits");
    for cdb in [write(0, 1), unmap, swap] {
        assert_eq!(code(go(&mut unit, A, &cdb)), Some((7, 0x27, 0)), "{cdb:?}");
    }
    assert_eq!(go(&mut unit, A, &read(0, 1)).status, Status::Good);
    let sense = ModeSense::current(scsi::mode::PageId::CACHING);
    let data = go(&mut unit, A, &sense.cdb().expect("fits")).data;
    let data = scsi::mode::ModeData::parse(&sense, &data).expect("mode data");
    assert!(data.write_protected && data.dpo_fua && data.caching().is_some_and(|c| c.write_cache));
}

#[test]
fn pages_tell_one_unit_through_every_port_and_its_limits() {
    let mut unit = unit();
    let page = |unit: &mut Unit, nexus, code| {
        go(unit, nexus, &Inquiry { page: Some(code), alloc: ShortByteCount(1024) }.cdb()).data
    };
    let pages = SupportedPages::parse(&page(&mut unit, A, PageCode::SUPPORTED)).expect("a page");
    for code in &pages.pages {
        assert!(page(&mut unit, A, *code).len() > 4, "{code:?}");
    }
    let ids = [A, B]
        .map(|nexus| DeviceIdentification::parse(&page(&mut unit, nexus, PageCode::IDENTIFICATION)).expect("a page"));
    assert_eq!(ids[0].same_unit(&ids[1], (None, None), false), Sameness::Same);
    assert_eq!(ids.each_ref().map(|id| id.port().map(|p| p.0)), [Some(1), Some(2)]);
    assert_eq!(ids.each_ref().map(|id| id.port_group().map(|p| p.0)), [Some(1), Some(2)]);
    let mut other = Unit::new(Shape { lun: 1, ..shape() }, Reservations::default());
    other.attach(A, name(1));
    let other = DeviceIdentification::parse(&page(&mut other, A, PageCode::IDENTIFICATION)).expect("a page");
    assert_eq!(ids[0].same_unit(&other, (None, None), false), Sameness::Different);
    assert!(ids[0].designators.iter().any(|d| matches!(d.identifier, Identifier::Uuid(_))));
    let limits = BlockLimits::parse(&page(&mut unit, A, PageCode::BLOCK_LIMITS)).expect("a page");
    assert!(limits.claims_compare_and_write(1) && limits.max_unmap_blocks.is_some());
    assert_eq!(limits.max_transfer, Some(BlockCount(u64::from(media::MAX_TRANSFER / 512))));
}

#[test]
fn every_command_that_is_reported_is_there_and_no_other() {
    let mut unit = unit();
    for code in 0..=u8::MAX {
        let len = scsi::cdb::group_len(scsi::OpCode(code)).unwrap_or(16);
        let rows: Vec<_> = opcodes::TABLE.iter().filter(|row| row.code.0 == code).collect();
        for action in 0..32 {
            let mut cdb = vec![0; len];
            cdb[0] = code;
            let has_actions = rows.iter().any(|row| row.action.is_some());
            if has_actions {
                cdb[1] = action;
            } else if action > 0 {
                break;
            }
            let there = rows.iter().any(|row| row.action.is_none_or(|a| a == u16::from(action)));
            let unknown = match unit.arrive(A, &cdb, Order::Simple, 0) {
                Ok((task, _)) => {
                    unit.tasks.end(task, &mut Vec::new());
                    false
                }
                // A service action that is unknown is a wrong field of a known command.
                Err(outcome) => match self::code(outcome) {
                    Some((5, 0x20, 0)) => true,
                    Some((5, 0x24, 0)) => has_actions && !there,
                    _ => false,
                },
            };
            // REPLACE LOST RESERVATION is parsed, and refused when it is carried out.
            let replace_lost = code == 0x5f && action == 8;
            let wrong_field = !there && !unknown;
            assert!(there != unknown || replace_lost || (code == 0x5f && wrong_field), "{code:#04x}/{action}");
        }
    }
}

#[test]
fn any_command_of_anybody_is_planned_or_refused_and_the_task_set_is_empty_in_the_end() {
    bolero::check!().with_type::<Vec<(bool, [u8; 16], u8, Vec<u8>)>>().for_each(|commands| {
        let mut unit = unit();
        for (second, cdb, how, list) in commands {
            let nexus = if *second { B } else { A };
            let mut cdb = *cdb;
            // Half of them are commands that there are.
            if how & 1 == 0 {
                cdb[0] = opcodes::TABLE[usize::from(cdb[0]) % opcodes::TABLE.len()].code.0;
            }
            let order = [Order::Simple, Order::Ordered, Order::HeadOfQueue][usize::from(how % 3)];
            let announced = u32::from(*how) * 512;
            let mut fx = Vec::new();
            let Ok((task, plan)) = unit.arrive(nexus, &cdb, order, announced) else { continue };
            if unit.start(nexus, task, &plan, &mut fx).is_err() {
                continue;
            }
            match &plan {
                Plan::Answer(command) => drop(unit.answer(nexus, command, &[0, 7])),
                Plan::Media(media) => {
                    assert!(media.lba + media.blocks <= unit.shape.blocks);
                    drop(crate::core::program::Program::begin(*media, None));
                }
                Plan::Select(select) => drop(unit.select(nexus, select, list)),
                Plan::SetGroups(_) => drop(unit.set_groups(nexus, list)),
                Plan::ReserveOut(out) => {
                    let mut list = list.clone();
                    list.resize(out.list.0 as usize, 0);
                    if let Ok(changed) = unit.reserve_out(nexus, out, &list) {
                        let wait = Wait { nexus, number: 1 };
                        unit.reserved((nexus, task), changed, wait, &mut fx);
                    }
                }
            }
            unit.tasks.end(task, &mut fx);
            let reservations = &unit.reservations;
            let holder = reservations.hold.as_ref();
            assert!(holder.is_none_or(|hold| match &hold.by {
                Some(by) => reservations.registered.contains_key(by),
                None => !reservations.registered.is_empty(),
            }));
        }
        assert_eq!(unit.tasks.len(), 0);
    });
}
