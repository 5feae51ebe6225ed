use super::*;

/// A core with so many nexuses that stand.
fn unit(nexuses: usize) -> (Core, Vec<Member>) {
    let mut core = Core::default();
    let members: Vec<Member> = (0..nexuses).map(|_| core.join()).collect();
    members.iter().for_each(|m| core.stands(*m, Some(1)));
    (core, members)
}

fn write(core: &mut Core, over: Member) {
    let sent = core.version;
    core.written(sent, over);
}

#[test]
fn a_flush_over_the_nexus_that_stood_since_the_write_is_believed() {
    let (mut core, m) = unit(1);
    write(&mut core, m[0]);
    let covers = core.flush();
    assert!(core.is_witness(m[0], covers));
}

#[test]
fn a_reset_between_write_and_flush_is_told_once_and_to_every_flush_that_covers_it() {
    let (mut core, m) = unit(1);
    write(&mut core, m[0]);
    core.reset(m[0]);
    let (one, two) = (core.flush(), core.flush());
    assert!(!core.is_witness(m[0], one) && !core.is_witness(m[0], two), "both have the write before them");
    core.over(one);
    core.over(two);
    write(&mut core, m[0]);
    let next = core.flush();
    assert!(core.is_witness(m[0], next), "what came after the reset is well");
}

#[test]
fn a_reset_while_the_flush_is_under_way_counts() {
    let (mut core, m) = unit(1);
    write(&mut core, m[0]);
    let covers = core.flush();
    core.reset(m[0]);
    assert!(!core.is_witness(m[0], covers));
}

#[test]
fn a_nexus_that_was_begun_anew_is_no_witness_and_one_that_stood_is() {
    let (mut core, m) = unit(2);
    write(&mut core, m[0]);
    core.stands(m[0], None);
    core.stands(m[0], Some(2));
    let covers = core.flush();
    assert!(!core.is_witness(m[0], covers));
    assert_eq!(core.witnesses(covers), [m[1]]);
    core.stands(m[1], Some(2));
    assert_eq!(core.witnesses(covers), []);
}

/// It was sent again over the new nexus: what was before that does not matter.
#[test]
fn a_write_that_was_answered_over_a_new_nexus_is_of_that() {
    let (mut core, m) = unit(1);
    let sent = core.version;
    core.stands(m[0], Some(2));
    core.written(sent, m[0]);
    let covers = core.flush();
    assert!(core.is_witness(m[0], covers));
}

/// The reset was told over one nexus before the answer to the write, which was executed before it, came over another.
#[test]
fn a_nexus_that_was_told_of_a_reset_after_the_write_was_sent_is_no_witness() {
    let (mut core, m) = unit(2);
    let sent = core.version;
    core.reset(m[0]);
    core.written(sent, m[1]);
    let covers = core.flush();
    assert!(!core.is_witness(m[0], covers));
}

#[test]
fn a_flush_that_failed_leaves_its_writes_to_the_next_and_a_later_one_does_not_clear_newer() {
    let (mut core, m) = unit(1);
    write(&mut core, m[0]);
    let failed = core.flush();
    core.reset(m[0]);
    let covers = core.flush();
    assert_eq!(covers.oldest, failed.oldest, "nothing was put on the medium so far");
    write(&mut core, m[0]);
    let later = core.flush();
    core.over(covers);
    let left = core.flush();
    assert!(core.is_witness(m[0], left), "of what is left nothing was lost");
    assert!(!core.is_witness(m[0], later), "it had the lost write before it as well");
}

#[test]
fn many_failed_flushes_are_bounded() {
    let (mut core, m) = unit(1);
    for _ in 0..10 * MAX_SEALED {
        write(&mut core, m[0]);
        core.flush();
    }
    assert!(core.sealed.len() <= MAX_SEALED);
    let covers = core.flush();
    core.over(covers);
    assert!(core.sealed.is_empty());
}
