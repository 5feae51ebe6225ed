//! Promotions in the same moment without quorum, over real processes in network namespaces: of nodes that hear one another one is
//! primary, and each of the others is told who is in its way.

use std::sync::{Arc, Barrier};

use crate::field::Field;
use crate::fixture::{Ended, background, run, until};
use crate::replica::client::pattern;
use crate::replica::nodes::Nodes as _;

const NO_QUORUM: &[&str] = &["--quorum", "off"];

/// These nodes are promoted at once; what each was told.
fn at_once(field: &Field, nodes: &[usize], more: &'static [&str]) -> Vec<Ended> {
    let start = Arc::new(Barrier::new(nodes.len()));
    let tries: Vec<_> = nodes
        .iter()
        .map(|n| {
            let (dir, start) = (field.folder(*n).display().to_string(), Arc::clone(&start));
            background(move || {
                start.wait();
                run(&[&["replica", "primary", "r0", "--dir", &dir], more].concat())
            })
        })
        .collect();
    tries.into_iter().map(|t| t.ended("the promotion")).collect()
}

/// The one of these that is primary; the others were told why they are not, and what to do.
fn winner(field: &Field, nodes: &[usize], told: &[Ended]) -> usize {
    let primaries: Vec<usize> = nodes.iter().copied().filter(|n| field.status(*n)["role"] == "Primary").collect();
    assert_eq!(primaries.len(), 1, "{primaries:?} are primary: {told:?}");
    for (n, ended) in nodes.iter().zip(told) {
        if *n == primaries[0] {
            ended.expect(0, &[]);
        } else {
            ended.expect(4, &["does not become primary here", "shorefast replica secondary r0"]);
            // Of three the one that is in the way may itself give way to the third.
            let others = nodes.iter().filter(|o| *o != n);
            let mut names = others.map(|o| format!("node-{o} is being promoted as well, or was just before"));
            let said = names.any(|s| ended.err.contains(&s)) || ended.err.contains("another node is primary");
            assert!(said, "{ended:?}");
        }
    }
    primaries[0]
}

/// All hear one another, and nobody is primary.
fn until_all_met(field: &Field, replicas: usize) {
    until("all have met", || {
        (1..=replicas).all(|n| {
            let status = field.status(n);
            let met = |p: &serde_json::Value| p["connection"] == "Established" && p["role"] == "Secondary";
            status["role"] == "Secondary" && status["peers"].as_array().expect("peers").iter().all(met)
        })
    });
}

/// Two replicas were promoted in the same moment, and both became primary, three times of three: without quorum each asked only its own disk, and
/// told the other afterwards.
#[test]
fn of_two_promoted_at_the_same_moment_without_quorum_one_is_primary_and_the_other_is_told() {
    let Some(mut field) = Field::equal(2, false, NO_QUORUM) else { return };
    field.must(1, &["secondary", "r0"]);
    let mut named = 0;
    for round in 1..=20_u64 {
        until_all_met(&field, 2);
        let told = at_once(&field, &[1, 2], &[]);
        named += told.iter().filter(|t| t.err.contains("is being promoted as well")).count();
        let primary = winner(&field, &[1, 2], &told);
        field.client(primary).write(round, &pattern(round, round), true).expect("written by the primary");
        field.until_equal(primary);
        field.must(primary, &["secondary", "r0"]);
    }
    assert!(named > 0, "none of 20 rounds was in the same moment");
    field.until_promoted(2, &[]);
    field.until_equal(2);
    field.holds(2, &(1..=20).map(|n| (n, n)).collect::<Vec<_>>());
    field.compare_disks();
}

/// The very first promotion, which takes force: also there only one says where the data to begin with are.
#[test]
fn of_two_new_replicas_promoted_by_force_at_the_same_moment_one_is_primary() {
    for _ in 0..3 {
        let Some(mut field) = Field::new(2, false, NO_QUORUM) else { return };
        field.up_all();
        let heard =
            |n, other| !["Connecting", "Handshake"].map(Into::into).contains(&field.peer(n, other)["connection"]);
        until("both have met", || heard(1, 2) && heard(2, 1));
        let told = at_once(&field, &[1, 2], &["--force"]);
        let primary = winner(&field, &[1, 2], &told);
        field.client(primary).write(5, &pattern(5, 1), true).expect("written by the primary");
        field.until_equal(primary);
        field.compare_disks();
    }
}

/// Nodes 1 and 3 do not hear one another; node 2, which hears both, promises one of them at a time.
#[test]
fn of_three_promoted_at_the_same_moment_one_is_primary_also_where_two_do_not_hear_one_another() {
    let Some(mut field) = Field::equal(3, false, NO_QUORUM) else { return };
    let mut primary = 1;
    for _ in 0..4 {
        field.must(primary, &["secondary", "r0"]);
        until_all_met(&field, 3);
        let told = at_once(&field, &[1, 2, 3], &[]);
        primary = winner(&field, &[1, 2, 3], &told);
        field.until_equal(primary);
    }
    for _ in 0..2 {
        field.must(primary, &["secondary", "r0"]);
        until_all_met(&field, 3);
        field.net.cut(1, 3);
        field.until_unheard(1, 3);
        field.until_unheard(3, 1);
        let told = at_once(&field, &[1, 3], &[]);
        primary = winner(&field, &[1, 3], &told);
        field.net.mend();
        field.until_equal(primary);
    }
    field.compare_disks();
}

/// A frozen secondary is not waited for longer than a vote; one that is promoted and killed bars its peer for some seconds at most.
#[test]
fn nobody_waits_for_ever_for_a_peer_that_was_frozen_or_killed_while_promotions_were_asked_for() {
    let Some(mut field) = Field::equal(2, false, NO_QUORUM) else { return };
    field.must(1, &["secondary", "r0"]);
    for _ in 0..3 {
        until_all_met(&field, 2);
        let dir = field.folder(1).display().to_string();
        let first = background(move || run(&["replica", "primary", "r0", "--dir", &dir]));
        field.kill(1);
        let _ = first.ended("the promotion");
        field.until_promoted(2, &[]);
        field.up(1);
        field.until_equal(2);
        field.must(2, &["secondary", "r0"]);
    }
    until_all_met(&field, 2);
    field.signal(2, "STOP");
    let said = field.tell(1, &["primary", "r0"]);
    field.signal(2, "CONT");
    said.expect(0, &[]);
    field.until_equal(1);
    field.compare_disks();
}
