//! Replicas that were all stopped, or died, come back: alone and without being forced where what they know proves that nothing is
//! missing, and not where it does not. Real processes in namespaces, a tie-breaker, and a boot of each machine that the test ends.

use crate::field::Field;
use crate::fixture::until;
use crate::replica::client::pattern;
use crate::replica::nodes::Nodes as _;

/// Until node `n` runs and hears the tie-breaker.
fn up_with_tie_breaker(field: &mut Field, n: usize) {
    field.up(n);
    until("the tie-breaker is heard", || field.status(n)["witness"]["connection"] == "Connected");
}

#[test]
fn replicas_that_were_stopped_in_order_come_back_alone_whichever_stopped_last() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.client(1).write(5, &pattern(5, 1), false).expect("written, not flushed");
    for (first, last, back) in [(1, 2, 1), (2, 1, 2), (1, 2, 2)] {
        field.down(first);
        field.down(last);
        // Also its machine may have been switched off.
        field.switch_off(1);
        field.switch_off(2);
        up_with_tie_breaker(&mut field, back);
        assert_eq!(field.status(back)["lost_cache"], false);
        field.until_promoted(back, &[]);
        field.holds(back, &[(5, 1)]);
        field.up(3 - back);
        field.until_equal(back);
        field.must(back, &["secondary", "r0"]);
    }
    field.until_promoted(1, &[]);
    field.until_equal(1);
    field.compare_disks();
}

/// The one that went first lacks what the other wrote alone: it is refused, and the other one is not.
#[test]
fn of_two_that_stopped_in_order_only_the_one_that_has_everything_comes_back_alone() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.down(2);
    field.client(1).write(5, &pattern(5, 1), true).expect("written alone");
    field.down(1);
    up_with_tie_breaker(&mut field, 2);
    field.tell(2, &["primary", "r0"]).expect(4, &["others hold what was granted last"]);
    field.down(2);
    up_with_tie_breaker(&mut field, 1);
    field.until_promoted(1, &[]);
    field.holds(1, &[(5, 1)]);
    field.up(2);
    field.until_equal(1);
    field.compare_disks();
}

#[test]
fn replicas_whose_processes_were_killed_come_back_alone_while_their_machines_live_on() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.client(1).write(5, &pattern(5, 1), false).expect("written, not flushed");
    field.kill(1);
    field.kill(2);
    up_with_tie_breaker(&mut field, 2);
    field.until_promoted(2, &[]);
    field.holds(2, &[(5, 1)]);
    field.up(1);
    field.until_equal(2);
    field.kill(2);
    field.kill(1);
    up_with_tie_breaker(&mut field, 1);
    field.until_promoted(1, &[]);
    field.holds(1, &[(5, 1)]);
    field.up(2);
    field.until_equal(1);
    field.compare_disks();
}

/// Each may lack what it acknowledged last: one alone is refused, also when its process is started once more; both together know that
/// nobody has more.
#[test]
fn after_a_failure_of_all_power_both_come_back_unforced_and_neither_alone() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.client(1).write(5, &pattern(5, 1), true).expect("written and flushed");
    field.lose_power(1);
    field.lose_power(2);
    for _ in 0..2 {
        up_with_tie_breaker(&mut field, 1);
        assert_eq!(field.status(1)["lost_cache"], true);
        field.tell(1, &["primary", "r0"]).expect(4, &["may be lost here"]);
        field.kill(1);
    }
    field.up(1);
    field.up(2);
    field.until_promoted(1, &[]);
    field.until_equal(1);
    field.holds(1, &[(5, 1)]);
    assert_eq!((&field.status(1)["lost_cache"], &field.status(2)["lost_cache"]), (&false.into(), &false.into()));
    // What both have now they have kept, if only their processes end.
    field.kill(2);
    field.kill(1);
    up_with_tie_breaker(&mut field, 2);
    field.until_promoted(2, &[]);
    field.up(1);
    field.until_equal(2);
    field.compare_disks();
}
