use super::*;

/// Fixed sense data.
fn sense(key: u8, asc: u8, ascq: u8) -> Answer {
    let sense = vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0];
    Answer { status: Status::CheckCondition, sense, moved: 0, overflow: 0 }
}

fn failed(answer: &Answer) -> Option<IoErrorKind> {
    match judge(Op::Write { fua: false }, answer) {
        Verdict::Fail(_, kind) => Some(kind),
        Verdict::Good | Verdict::Again { .. } => None,
    }
}

/// Whoever sees the error must know what to repair.
#[test]
fn write_protected_not_ready_and_corrupt_media_are_told_apart() {
    assert_eq!(failed(&sense(7, 0x27, 0)), Some(IoErrorKind::ReadOnly));
    assert_eq!(failed(&sense(7, 0x27, 7)), Some(IoErrorKind::NoSpace));
    assert_eq!(failed(&sense(2, 0x3a, 0)), Some(IoErrorKind::NotReady));
    assert_eq!(failed(&sense(2, 4, 3)), Some(IoErrorKind::NotReady));
    assert_eq!(failed(&sense(3, 0x31, 0)), Some(IoErrorKind::Corrupt));
    assert_eq!(failed(&sense(3, 0x0c, 0)), Some(IoErrorKind::Medium));
    assert_eq!(failed(&sense(2, 4, 0x0b)), Some(IoErrorKind::NotAccessible));
    assert_eq!(failed(&sense(5, 0x25, 0)), Some(IoErrorKind::NoPath));
}

#[test]
fn a_reset_is_looked_into_before_a_write_goes_out_again() {
    let verdict = judge(Op::Write { fua: false }, &sense(6, 0x29, 0));
    assert!(matches!(verdict, Verdict::Again { first: First::VerifyReservation { cache_lost: true }, .. }));
    let verdict = judge(Op::Write { fua: false }, &sense(6, 0x2a, 9));
    assert!(matches!(verdict, Verdict::Again { first: First::ReadCapacity, .. }));
}

#[test]
fn a_conflict_and_a_preemption_are_a_fence_and_are_not_sent_again() {
    let conflict = Answer { status: Status::ReservationConflict, sense: Vec::new(), moved: 0, overflow: 0 };
    assert_eq!(failed(&conflict), Some(IoErrorKind::Fenced));
    assert_eq!(failed(&sense(6, 0x2a, 3)), Some(IoErrorKind::Fenced));
    assert_eq!(failed(&sense(6, 0x2a, 5)), Some(IoErrorKind::Fenced));
}
