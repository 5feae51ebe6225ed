//! A gate, step by step.

use super::gate::*;

#[test]
fn the_last_to_leave_a_closed_gate_is_told() {
    let gate = Gate::default();
    assert_eq!(gate.enter(), Entered::Inside);
    assert_eq!(gate.enter(), Entered::Inside);
    assert!(!gate.close());
    assert_eq!(gate.enter(), Entered::Closed);
    assert!(!gate.leave());
    assert!(gate.leave());
    assert_eq!(gate.inside(), 0);
    gate.open();
    assert_eq!(gate.enter(), Entered::Inside);
}

#[test]
fn an_empty_gate_says_so_when_it_is_closed() {
    let gate = Gate::default();
    assert!(gate.close());
    assert_eq!(gate.enter(), Entered::ClosedAndEmpty);
    assert!(gate.is_closed());
}
