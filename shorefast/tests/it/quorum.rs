//! Quorum and tie-breaker over real processes in network namespaces: networks that are cut, sides that are promoted, requests that
//! wait or fail. After each test the disks of all that are up to date are compared byte by byte.

use std::fs;

use crate::field::Field;
use crate::fixture::{background, until};
use crate::replica::client::pattern;
use crate::replica::nodes::Nodes as _;

const EIO: i32 = 5;

#[test]
fn two_nodes_that_do_not_hear_one_another_are_never_both_primary() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.client(1).write(5, &pattern(5, 1), true).expect("written");
    field.net.cut(1, 2);
    field.until_unheard(2, 1);
    for more in [&[][..], &["--force"]] {
        let args = [&["primary", "r0"][..], more].concat();
        field.tell(2, &args).expect(4, &["another node is primary"]);
    }
    field.client(1).write(6, &pattern(6, 2), true).expect("written without the other");
    field.tell(2, &["primary", "r0"]).expect(4, &["another node is primary"]);
    assert_eq!(field.status(2)["role"], "Secondary");
    field.net.mend();
    field.until_equal(1);
    field.holds(1, &[(5, 1), (6, 2)]);
    field.compare_disks();
}

#[test]
fn the_side_with_the_tie_breaker_takes_over_and_what_waited_at_the_other_fails() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.client(1).write(5, &pattern(5, 1), true).expect("written");
    field.net.isolate(1);
    let waits = field.writing(1, 6, 2);
    until("it is suspended", || field.status(1)["suspended"] == true);
    assert_eq!(field.status(1)["quorum"], "no");
    field.until_promoted(2, &[]);
    field.client(2).write(5, &pattern(5, 3), true).expect("written by the new primary");
    assert!(!waits.is_done(), "without quorum nothing is answered");
    field.net.mend();
    assert_eq!(waits.ended("the write"), Some(EIO), "the reign was granted to another");
    field.until_equal(2);
    assert_eq!(field.status(1)["role"], "Secondary");
    field.holds(2, &[(5, 3)]);
    field.must(2, &["secondary", "r0"]);
    field.until_promoted(1, &[]);
    field.until_equal(1);
    field.holds(1, &[(5, 3)]);
    field.compare_disks();
}

#[test]
fn suspended_requests_go_on_when_quorum_returns() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.client(1).write(7, &pattern(7, 1), false).expect("written");
    field.net.isolate(1);
    let (write, mut reader) = (field.writing(1, 8, 2), field.client(1));
    until("it is suspended", || field.status(1)["suspended"] == true);
    let read = background(move || reader.read(7).expect("a read"));
    field.tell(2, &["status", "r0"]).expect(0, &["quorum:yes"]);
    field
        .tell(1, &["status", "r0"])
        .expect(0, &["r0 role:Primary suspended:quorum", "quorum:no", "tie-breaker connection:Connecting"]);
    assert!(!write.is_done() && !read.is_done());
    field.net.mend();
    assert_eq!(write.ended("the write"), None);
    assert!(read.ended("the read") == pattern(7, 1));
    field.until_equal(1);
    field.holds(1, &[(7, 1), (8, 2)]);
    field.compare_disks();
}

#[test]
fn with_io_error_requests_fail_without_quorum_and_go_on_with_it() {
    let Some(mut field) = Field::equal(2, true, &["--on-no-quorum", "io-error"]) else { return };
    let mut client = field.client(1);
    client.write(7, &pattern(7, 1), true).expect("written");
    field.net.isolate(1);
    assert_eq!(field.writing(1, 8, 2).ended("the write"), Some(EIO));
    assert_eq!(client.read(7).expect_err("no quorum").raw_os_error(), Some(EIO));
    assert_eq!(client.flush().expect_err("no quorum").raw_os_error(), Some(EIO));
    field.net.mend();
    until("there is quorum", || field.status(1)["quorum"] == "yes");
    client.write(9, &pattern(9, 3), true).expect("written");
    field.until_equal(1);
    field.holds(1, &[(7, 1), (9, 3)]);
    field.compare_disks();
}

/// Switched while requests wait: those fail, too.
#[test]
fn suspended_requests_fail_when_the_policy_becomes_io_error() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.net.isolate(1);
    let write = field.writing(1, 8, 2);
    until("it is suspended", || field.status(1)["suspended"] == true);
    let file = field.folder(1).join("r0.toml");
    let text = fs::read_to_string(&file).expect("the file");
    fs::write(&file, text.replace("suspend-io", "io-error")).expect("writes");
    field.must(1, &["adjust", "r0"]);
    assert_eq!(write.ended("the write"), Some(EIO));
    assert_eq!(field.status(1)["on_no_quorum"], "io-error");
    fs::write(&file, text.replace("10.77.0.2", "10.77.0.9")).expect("writes");
    field.tell(1, &["adjust", "r0"]).expect(4, &["restart"]);
    field.net.mend();
    field.until_equal(1);
    field.compare_disks();
}

/// Node 2 was dropped by a grant that only node 1 and the tie-breaker know. A tie-breaker that forgot it would let node 2
/// reign without what node 1 acknowledged.
#[test]
fn a_killed_tie_breaker_keeps_what_it_granted() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    let witness = field.witness();
    field.net.cut(1, 2);
    field.client(1).write(5, &pattern(5, 1), true).expect("written without the other");
    field.kill(witness);
    field.kill(1);
    field.until_unheard(2, 1);
    field.tell(2, &["primary", "r0"]).expect(7, &["no majority"]);
    field.up(witness);
    until("the tie-breaker is heard", || field.status(2)["witness"]["connection"] == "Connected");
    field.tell(2, &["primary", "r0"]).expect(4, &["others hold what was granted last"]);
    field.net.mend();
    field.up(1);
    field.until_promoted(1, &[]);
    field.until_equal(1);
    field.holds(1, &[(5, 1)]);
    field.compare_disks();
}

/// Its folder is gone, and a new vote is made that knows of no grant: the replicas do not take it for the old one.
#[test]
fn a_tie_breaker_that_lost_its_memory_is_refused() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    let witness = field.witness();
    field.net.cut(1, 2);
    field.client(1).write(5, &pattern(5, 1), true).expect("written without the other");
    field.kill(witness);
    field.kill(1);
    fs::remove_file(field.folder(witness).join("r0.vote")).expect("removed");
    field.make_vote(witness);
    field.up(witness);
    until("the refusal", || {
        let said = field.status(2)["witness"]["reason"].to_string();
        said.contains("told of another") || said.contains("may have forgotten")
    });
    // Until then it is refused for another reason: there is a primary.
    field.until_unheard(2, 1);
    field.tell(2, &["primary", "r0"]).expect(7, &["no majority"]);
    field.tell(2, &["primary", "r0", "--force"]).expect(7, &["does not help", "quorum = \"off\""]);
    assert_eq!(field.status(2)["role"], "Secondary");
}

#[test]
fn of_three_nodes_the_majority_goes_on_and_the_third_is_never_primary_beside_it() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    field.client(1).write(5, &pattern(5, 1), true).expect("written");
    field.net.isolate(3);
    field.until_unheard(3, 1);
    field.until_unheard(3, 2);
    field.tell(3, &["primary", "r0"]).expect(7, &["no majority"]);
    field.client(1).write(6, &pattern(6, 2), true).expect("a majority is left");
    field.net.mend();
    field.until_equal(1);
    field.net.isolate(1);
    let waits = field.writing(1, 7, 3);
    field.until_promoted(3, &[]);
    field.client(3).write(8, &pattern(8, 4), true).expect("written by the new primary");
    field.net.mend();
    assert_eq!(waits.ended("the write"), Some(EIO));
    field.until_equal(3);
    field.holds(3, &[(5, 1), (6, 2), (8, 4)]);
    field.compare_disks();
}

#[test]
fn both_sides_promoted_at_the_same_moment_make_one_primary() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.must(1, &["secondary", "r0"]);
    for round in 0..5 {
        let folders = [field.folder(1), field.folder(2)];
        let tries: Vec<_> = folders
            .into_iter()
            .map(|dir| {
                let dir = dir.display().to_string();
                background(move || crate::fixture::run(&["replica", "primary", "r0", "--dir", &dir]).code)
            })
            .collect();
        let codes: Vec<i32> = tries.into_iter().map(|t| t.ended("the promotion")).collect();
        assert!(codes.iter().filter(|c| **c == 0).count() <= 1, "round {round}: {codes:?}");
        let primaries: Vec<usize> = [1, 2].into_iter().filter(|n| field.status(*n)["role"] == "Primary").collect();
        assert!(primaries.len() <= 1, "round {round}: {primaries:?} are primary");
        if let Some(n) = primaries.first().copied() {
            field.until_equal(n);
            field.must(n, &["secondary", "r0"]);
        }
    }
    field.until_promoted(2, &[]);
    field.until_equal(2);
    field.compare_disks();
}

#[test]
fn without_the_tie_breaker_two_replicas_go_on_and_a_forced_one_says_what_may_be_lost() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    let witness = field.witness();
    field.kill(witness);
    until("it is missed", || field.status(1)["witness"]["connection"] == "Connecting");
    field.client(1).write(5, &pattern(5, 1), true).expect("two of three are a majority");
    field.up(witness);
    until("it is back", || field.status(1)["witness"]["connection"] == "Connected");
    field.net.cut(1, 2);
    field.client(1).write(6, &pattern(6, 2), true).expect("written without the other");
    field.kill(1);
    field.until_unheard(2, 1);
    until("others hold it", || field.tell(2, &["primary", "r0"]).err.contains("others hold"));
    field.net.mend();
    field.tell(2, &["primary", "r0", "--force"]).expect(0, &["that of node-1", "is lost"]);
    field.client(2).write(7, &pattern(7, 3), true).expect("written by force");
    field.up(1);
    field.until_equal(2);
    field.holds(2, &[(5, 1), (7, 3)]);
    assert!(field.client(2).read(6).expect("a read") != pattern(6, 2), "what was given up is not there");
    field.compare_disks();
}
