//! One row of the table a line; then what holds for every row.

use proptest::prelude::*;

use super::*;
use crate::sense::AdditionalCode;

const ASK: Class = Class::Ask;
const WRITE: Class = Class::Write;
const CAW: Class = Class::Once;
const PR: Class = Class::Reserve;
const VERIFY: First = First::VerifyReservation { cache_lost: false };
const VERIFY_CACHE: First = First::VerifyReservation { cache_lost: true };

fn status(class: Class, status: Status) -> Action {
    verdict(class, Reply::Status(status, None)).action
}

fn check(class: Class, key: SenseKey, asc: u8, ascq: u8) -> Action {
    let sense = Sense::new(key, AdditionalCode::new(asc, ascq));
    verdict(class, Reply::Status(Status::CheckCondition, Some(&sense))).action
}

fn again(first: First, pace: Pace, or: Failure) -> Action {
    Action::Retry { first, pace, or }
}

fn settle(first: First, or: Failure) -> Action {
    Action::Settle { first, or }
}

fn attention(first: First) -> Action {
    again(first, Pace::AtOnce(ATTENTION_TRIES), Failure::Attention)
}

fn other_path(first: First, path: PathFate, or: Failure) -> Action {
    Action::Elsewhere { first, path, or }
}

#[test]
fn good_is_done() {
    for class in [ASK, WRITE, CAW, PR] {
        assert_eq!(status(class, Status::Good), Action::Done);
        assert_eq!(status(class, Status::ConditionMet), Action::Done);
    }
}

#[test]
fn busy_and_task_set_full_are_retried_later_on_the_same_path() {
    for class in [ASK, WRITE, CAW, PR] {
        assert_eq!(status(class, Status::Busy), again(First::Nothing, Pace::Later, Failure::Busy));
        assert_eq!(status(class, Status::TaskSetFull), again(First::Nothing, Pace::FewerAtOnce, Failure::Busy));
    }
}

#[test]
fn a_reservation_conflict_fences_at_once_and_settles_a_change_of_reservations() {
    for class in [ASK, WRITE, CAW] {
        assert_eq!(status(class, Status::ReservationConflict), Action::Fail(Failure::ReservationConflict));
    }
    assert_eq!(status(PR, Status::ReservationConflict), settle(First::Nothing, Failure::ReservationConflict));
    assert!(Failure::ReservationConflict.is_fence() && Failure::Preempted.is_fence());
}

#[test]
fn an_aborted_task_asks_for_its_key_first() {
    let verified = again(VERIFY, Pace::AtOnce(ABORT_TRIES), Failure::Aborted);
    assert_eq!(status(ASK, Status::TaskAborted), verified);
    assert_eq!(status(WRITE, Status::TaskAborted), verified);
    assert_eq!(status(CAW, Status::TaskAborted), settle(VERIFY, Failure::Aborted));
    assert_eq!(status(PR, Status::TaskAborted), settle(VERIFY, Failure::Aborted));
}

#[test]
fn an_allegiance_is_cleared() {
    let cleared = again(First::ClearAca, Pace::AtOnce(ABORT_TRIES), Failure::Aborted);
    assert_eq!(status(WRITE, Status::AcaActive), cleared);
    assert_eq!(status(CAW, Status::AcaActive), cleared, "it was not executed");
}

#[test]
fn a_status_that_does_not_exist_takes_the_path_down() {
    let left = other_path(First::Nothing, PathFate::Down, Failure::Protocol);
    assert_eq!(status(ASK, Status::Unknown(0x22)), left);
    assert_eq!(status(WRITE, Status::Unknown(0x22)), left, "its task has ended");
    assert_eq!(status(CAW, Status::Unknown(0x22)), settle(First::Nothing, Failure::Protocol));
}

/// istgt answers INQUIRY of a page that it does not have with CHECK CONDITION and no sense data. Taking the path down for
/// that left a unit without any path, because of a page that nobody needs.
#[test]
fn a_check_condition_without_sense_data_is_no_fault_of_the_path() {
    let repeated = again(First::Nothing, Pace::AtOnce(ABORT_TRIES), Failure::Protocol);
    assert_eq!(status(ASK, Status::CheckCondition), repeated);
    assert_eq!(status(WRITE, Status::CheckCondition), repeated);
    assert_eq!(status(CAW, Status::CheckCondition), settle(First::Nothing, Failure::Protocol));
}

#[test]
fn a_recovered_error_is_success() {
    for key in [SenseKey::NoSense, SenseKey::RecoveredError, SenseKey::Completed] {
        assert_eq!(check(WRITE, key, 0x18, 0), Action::Done);
        assert_eq!(check(CAW, key, 0x5d, 0), Action::Done, "a predicted failure");
    }
}

#[test]
fn what_becomes_ready_is_waited_for() {
    let waited = again(First::Nothing, Pace::UntilReady, Failure::NotReady);
    for ascq in [0x00, 0x01, 0x04, 0x05, 0x07, 0x09, 0x14, 0x1b, 0x1d] {
        assert_eq!(check(CAW, SenseKey::NotReady, 0x04, ascq), waited, "04/{ascq:02x}");
    }
    let started = again(First::StartUnit, Pace::UntilReady, Failure::NotReady);
    assert_eq!(check(WRITE, SenseKey::NotReady, 0x04, 0x02), started);
}

#[test]
fn a_port_group_in_transition_is_waited_for_and_standby_is_left() {
    let waited = again(First::Nothing, Pace::WhileTransitioning, Failure::NotAccessible);
    let left = other_path(First::ReadPortGroups, PathFate::Keep, Failure::NotAccessible);
    for class in [ASK, WRITE, CAW, PR] {
        assert_eq!(check(class, SenseKey::NotReady, 0x04, 0x0a), waited);
        assert_eq!(check(class, SenseKey::NotReady, 0x04, 0x0b), left);
        assert_eq!(check(class, SenseKey::NotReady, 0x04, 0x0c), left);
    }
}

#[test]
fn what_will_not_become_ready_fails() {
    assert_eq!(check(ASK, SenseKey::NotReady, 0x04, 0x03), Action::Fail(Failure::NotReady));
    assert_eq!(check(ASK, SenseKey::NotReady, 0x04, 0x12), Action::Fail(Failure::NotReady));
    for ascq in [0, 1, 2] {
        assert_eq!(check(ASK, SenseKey::NotReady, 0x3a, ascq), Action::Fail(Failure::NoMedium));
    }
    assert_eq!(check(ASK, SenseKey::NotReady, 0x31, 0), Action::Fail(Failure::MediumCorrupt));
}

#[test]
fn a_flawed_medium_is_the_same_on_every_path() {
    assert_eq!(check(ASK, SenseKey::MediumError, 0x11, 0), Action::Fail(Failure::Medium));
    assert_eq!(check(WRITE, SenseKey::MediumError, 0x0c, 2), Action::Fail(Failure::Medium));
    assert_eq!(check(ASK, SenseKey::MediumError, 0x31, 0), Action::Fail(Failure::MediumCorrupt));
    assert_eq!(check(ASK, SenseKey::MediumError, 0x10, 1), Action::Fail(Failure::Protection));
}

#[test]
fn broken_hardware_is_tried_on_another_path() {
    let left = other_path(First::Nothing, PathFate::Keep, Failure::Hardware);
    assert_eq!(check(ASK, SenseKey::HardwareError, 0x44, 0), left);
    assert_eq!(check(WRITE, SenseKey::HardwareError, 0x44, 0), left);
    assert_eq!(check(CAW, SenseKey::HardwareError, 0x44, 0), settle(First::Nothing, Failure::Hardware));
}

#[test]
fn an_illegal_request_is_not_repeated() {
    for (asc, ascq, failure) in [
        (0x20, 0x00, Failure::NotSupported),
        (0x21, 0x00, Failure::OutOfRange),
        (0x24, 0x00, Failure::Invalid),
        (0x26, 0x00, Failure::Invalid),
        (0x26, 0x04, Failure::Invalid),
        (0x1a, 0x00, Failure::Invalid),
        (0x55, 0x04, Failure::NoReservationRoom),
    ] {
        assert_eq!(check(PR, SenseKey::IllegalRequest, asc, ascq), Action::Fail(failure), "{asc:02x}/{ascq:02x}");
    }
    let gone = other_path(First::Nothing, PathFate::Down, Failure::NoSuchUnit);
    assert_eq!(check(WRITE, SenseKey::IllegalRequest, 0x25, 0), gone);
    let later = again(First::Nothing, Pace::Later, Failure::Busy);
    assert_eq!(check(WRITE, SenseKey::IllegalRequest, 0x55, 3), later);
}

#[test]
fn a_unit_attention_repeats_any_command_after_a_look() {
    for (asc, ascq, first) in [
        (0x29, 0x00, VERIFY_CACHE),
        (0x29, 0x01, VERIFY_CACHE),
        (0x29, 0x02, VERIFY),
        (0x29, 0x03, VERIFY),
        (0x29, 0x04, VERIFY_CACHE),
        (0x29, 0x07, VERIFY),
        (0x28, 0x00, First::Identify),
        (0x2a, 0x00, First::ReadModePages),
        (0x2a, 0x01, First::ReadModePages),
        (0x2a, 0x02, First::Nothing),
        (0x2a, 0x04, VERIFY),
        (0x2a, 0x06, First::ReadPortGroups),
        (0x2a, 0x07, First::ReadPortGroups),
        (0x2a, 0x08, First::Nothing),
        (0x2a, 0x09, First::ReadCapacity),
        (0x2c, 0x00, First::Nothing),
        (0x2c, 0x07, First::Nothing),
        (0x2c, 0x09, VERIFY),
        (0x2f, 0x00, VERIFY),
        (0x2f, 0x01, VERIFY_CACHE),
        (0x38, 0x07, First::TellThreshold),
        (0x3f, 0x01, First::Identify),
        (0x3f, 0x03, First::Identify),
        (0x3f, 0x05, First::Identify),
        (0x3f, 0x0e, First::Identify),
        (0x47, 0x7f, VERIFY),
        (0x5d, 0x00, First::Nothing),
    ] {
        for class in [ASK, WRITE, CAW, PR] {
            assert_eq!(check(class, SenseKey::UnitAttention, asc, ascq), attention(first), "{asc:02x}/{ascq:02x}");
        }
    }
}

#[test]
fn preemption_fences() {
    for class in [ASK, WRITE, CAW, PR] {
        assert_eq!(check(class, SenseKey::UnitAttention, 0x2a, 0x03), Action::Fail(Failure::Preempted));
        assert_eq!(check(class, SenseKey::UnitAttention, 0x2a, 0x05), Action::Fail(Failure::Preempted));
    }
}

#[test]
fn write_protection_and_a_full_thin_unit_are_told_apart() {
    for ascq in [0, 1, 2] {
        assert_eq!(check(WRITE, SenseKey::DataProtect, 0x27, ascq), Action::Fail(Failure::WriteProtected));
    }
    assert_eq!(check(WRITE, SenseKey::DataProtect, 0x27, 7), Action::Fail(Failure::NoSpace));
}

#[test]
fn a_command_that_was_given_up_is_repeated_a_few_times() {
    let repeated = again(First::Nothing, Pace::AtOnce(ABORT_TRIES), Failure::Aborted);
    for (asc, ascq) in [(0x47, 0x01), (0x4b, 0x00), (0x4b, 0x02), (0x0c, 0x0c), (0x0c, 0x0d), (0x4e, 0x00), (0, 0)] {
        assert_eq!(check(ASK, SenseKey::AbortedCommand, asc, ascq), repeated, "{asc:02x}/{ascq:02x}");
        assert_eq!(check(WRITE, SenseKey::AbortedCommand, asc, ascq), repeated, "{asc:02x}/{ascq:02x}");
        assert_eq!(check(CAW, SenseKey::AbortedCommand, asc, ascq), settle(First::Nothing, Failure::Aborted));
        assert_eq!(check(PR, SenseKey::AbortedCommand, asc, ascq), settle(First::Nothing, Failure::Aborted));
    }
    for ascq in [1, 2, 3] {
        assert_eq!(check(WRITE, SenseKey::AbortedCommand, 0x10, ascq), Action::Fail(Failure::Protection));
    }
    let verified = again(VERIFY, Pace::AtOnce(ABORT_TRIES), Failure::Aborted);
    assert_eq!(check(WRITE, SenseKey::AbortedCommand, 0x2f, 0), verified);
    let later = again(First::Nothing, Pace::Later, Failure::Busy);
    assert_eq!(check(WRITE, SenseKey::AbortedCommand, 0x55, 3), later);
}

#[test]
fn a_miscompare_is_an_answer() {
    let sense = Sense::new(SenseKey::Miscompare, AdditionalCode::MISCOMPARE);
    let reply = Reply::Status(Status::CheckCondition, Some(&sense));
    assert_eq!(verdict(CAW, reply), Verdict { executed: Executed::No, action: Action::Differs });
    // WRITE AND VERIFY has written when it finds that the medium differs.
    assert_eq!(verdict(WRITE, reply), Verdict { executed: Executed::Ended, action: Action::Differs });
}

#[test]
fn keys_that_no_disk_should_use_fail() {
    for key in [SenseKey::BlankCheck, SenseKey::CopyAborted, SenseKey::VolumeOverflow, SenseKey::Reserved] {
        assert_eq!(check(WRITE, key, 0, 0), Action::Fail(Failure::Unexpected));
    }
}

#[test]
fn a_failed_path_settles_what_matters_and_proves_its_end_before_a_write_goes_elsewhere() {
    let after = |class, reply| verdict(class, reply).action;
    assert_eq!(after(ASK, Reply::Lost), other_path(First::Nothing, PathFate::Down, Failure::Path));
    assert_eq!(after(WRITE, Reply::Lost), other_path(First::NexusDead, PathFate::Down, Failure::Path));
    assert_eq!(after(CAW, Reply::Lost), settle(First::NexusDead, Failure::Path));
    assert_eq!(after(PR, Reply::Lost), settle(First::NexusDead, Failure::Path));
    for class in [ASK, WRITE, CAW, PR] {
        assert_eq!(
            after(class, Reply::TargetFailure),
            after(class, Reply::Lost),
            "it says nothing about what it had begun"
        );
    }
}

/// A failure is no answer to a compare-and-write either: what was written before the medium failed may be a lease.
#[test]
fn a_compare_and_write_that_failed_halfway_is_settled() {
    for (key, asc, ascq, failure) in [
        (SenseKey::MediumError, 0x0c, 0x00, Failure::Medium),
        (SenseKey::DataProtect, 0x27, 0x07, Failure::NoSpace),
        (SenseKey::AbortedCommand, 0x10, 0x01, Failure::Protection),
        (SenseKey::VendorSpecific, 0x80, 0x00, Failure::Unexpected),
    ] {
        assert_eq!(check(CAW, key, asc, ascq), settle(First::Nothing, failure));
        assert_eq!(check(WRITE, key, asc, ascq), Action::Fail(failure));
    }
    assert_eq!(check(CAW, SenseKey::DataProtect, 0x27, 0), Action::Fail(Failure::WriteProtected), "not executed");
}

/// SPC-4 4.5.5: the write whose error is deferred had ended with GOOD long before.
#[test]
fn a_deferred_error_is_a_lost_write_whoever_brings_it() {
    for class in [ASK, WRITE, CAW, PR] {
        let lost = Sense { deferred: true, ..Sense::new(SenseKey::MediumError, AdditionalCode::WRITE_ERROR) };
        let found = verdict(class, Reply::Status(Status::CheckCondition, Some(&lost)));
        assert_eq!(found, Verdict { executed: Executed::No, action: Action::Fail(Failure::LostWrite) });
        let recovered = Sense { key: SenseKey::RecoveredError, ..lost };
        let found = verdict(class, Reply::Status(Status::CheckCondition, Some(&recovered)));
        assert!(matches!(found.action, Action::Retry { first: First::Nothing, .. }), "{found:?}");
    }
}

#[test]
fn every_operation_has_the_class_of_its_repetition() {
    assert_eq!(Class::of(op::READ_16), ASK);
    assert_eq!(Class::of(op::SYNCHRONIZE_CACHE_16), ASK);
    assert_eq!(Class::of(op::PERSISTENT_RESERVE_IN), ASK);
    assert_eq!(Class::of(op::WRITE_16), WRITE);
    assert_eq!(Class::of(op::UNMAP), WRITE);
    assert_eq!(Class::of(op::COMPARE_AND_WRITE), CAW);
    assert_eq!(Class::of(op::PERSISTENT_RESERVE_OUT), PR);
    assert_eq!(Class::of(OpCode(0xc5)), CAW, "nobody knows");
    // What sends data to the target changes something.
    for code in (0..=u8::MAX).map(OpCode).filter(|code| code.name().is_some_and(|name| name.contains("WRITE"))) {
        assert_ne!(Class::of(code), ASK, "{code}");
    }
}

fn any_class() -> impl Strategy<Value = Class> {
    proptest::sample::select(&[ASK, WRITE, CAW, PR][..])
}

fn any_sense() -> impl Strategy<Value = Sense> {
    let named = proptest::sample::select(AdditionalCode::ALL);
    let code = prop_oneof![named, any::<(u8, u8)>().prop_map(|(asc, ascq)| AdditionalCode::new(asc, ascq))];
    (0u8..16, code, proptest::bool::weighted(0.1))
        .prop_map(|(key, code, deferred)| Sense { deferred, ..Sense::new(SenseKey::from_bits(key), code) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_may_have_been_executed_is_never_repeated_blindly(
        class in any_class(), byte: u8, sense in any_sense(), with: bool, transport in 0..3,
    ) {
        let status = if with { Status::CheckCondition } else { Status::from_byte(byte) };
        let reply = match transport {
            0 => Reply::Status(status, with.then_some(&sense)),
            1 => Reply::TargetFailure,
            _ => Reply::Lost,
        };
        let Verdict { executed, action } = verdict(class, reply);
        let first = match action {
            Action::Retry { first, .. } | Action::Elsewhere { first, .. } => Some(first),
            _ => None,
        };
        let ends = first.is_some() || matches!(action, Action::Fail(_));
        if matches!(class, Class::Once | Class::Reserve) && ends {
            prop_assert_eq!(executed, Executed::No);
        }
        if class == Class::Write && executed == Executed::Running && first.is_some() {
            prop_assert_eq!(first, Some(First::NexusDead));
        }
        if executed == Executed::Running {
            let ends = matches!(action, Action::Retry { .. } | Action::Done | Action::Differs);
            prop_assert!(!ends, "{:?}", action);
        }
        if action == Action::Done {
            prop_assert_eq!(executed, Executed::Yes);
        }
        if status == Status::ReservationConflict && transport == 0 {
            let fenced = matches!(action, Action::Fail(Failure::ReservationConflict) | Action::Settle { .. });
            prop_assert!(fenced, "{:?}", action);
        }
        let preempted = sense.code.asc == 0x2a && matches!(sense.code.ascq, 3 | 5);
        if transport == 0 && with && !sense.deferred && sense.key == SenseKey::UnitAttention && preempted {
            prop_assert_eq!(action, Action::Fail(Failure::Preempted));
        }
    }
}
