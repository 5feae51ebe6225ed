//! What keeps an old write from landing on newer data of a unit, with the rule that does and without it: the same steps twice. A test in
//! which nothing lands says something only if the same steps show the write landing once the rule is gone.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use block::buf::AlignedBuf;

use super::array::Array;
use super::lab::Lab;
use super::networks::Net;
use crate::fixture::{until, within};
use crate::lockers::{IO, Locker};
use crate::stuck_write::{direct, read};

const OLD: u8 = 0x0d;
const NEWER: u8 = 0x9e;

/// What can land is let land for so long.
const WOULD_LAND: Duration = Duration::from_secs(2);
/// A machine that stalls for a second gives a nexus up before its networks are cut: then the steps begin again.
const TRIES: usize = 5;

/// What becomes of the old write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    InForce,
    TakenOut(&'static str),
}

/// Nodes that run with the rule or without it; node 1 coordinates.
fn nodes(rule: Rule, such: impl FnOnce(Array) -> Array) -> Option<Lab> {
    let lab = Lab::apart_with_array(3, such)?;
    let mut lab = match rule {
        Rule::InForce => lab,
        Rule::TakenOut(name) => lab.without_rule(name),
    };
    lab.begin("default");
    lab.until_well();
    lab.make_coordinator(1);
    Some(lab)
}

/// A file that node 2 writes in place, without asking anybody, and a program there that has it open. A process of its own: the daemon below
/// it may stand still, and every child of this one closes what this one has open.
fn in_place(lab: &Lab) -> Locker {
    let path = lab.cluster.mount(1, "v").join("file");
    within("making the file", move || {
        let file = direct(&path);
        file.write_all_at(&AlignedBuf::zeroed(16 * 4096), 0).expect("writes");
        file.sync_all().expect("makes stable");
    });
    let mut program = program(lab, 2);
    program.does("block 0 1");
    assert_eq!(read(&lab.cluster, 1), 1);
    // The reader may have taken the layout back.
    program.does("block 0 2");
    program
}

/// A program of a node that has the file open.
fn program(lab: &Lab, n: usize) -> Locker {
    Locker::with(&lab.cluster.mount(n, "v").join("file"), rustix::fs::OFlags::DIRECT.bits())
}

/// Its order to fill the first block.
fn fills(byte: u8) -> String {
    format!("block 0 {byte}")
}

/// How often the array's log says something.
fn said(lab: &Lab, what: &str) -> usize {
    lab.array.log().matches(what).count()
}

fn all_read(lab: &Lab, byte: u8, why: &str) {
    lab.all().for_each(|n| assert_eq!(read(&lab.cluster, n), byte, "as node {n} reads it, {why}"));
}

/// A write of node 2 is complete in the array, which has not begun it, and node 2 has lost both of its paths.
fn held_up_and_cut(lab: &Lab, program: &mut Locker) {
    for _ in 0..TRIES {
        let before = said(lab, "is held up");
        lab.array.hold(true);
        // The array hears of it by a signal: whichever of these writes comes next is the one.
        program.begin(&fills(OLD));
        until("a write is held up", || {
            if program.answered().is_some_and(|answer| answer == "ok") {
                program.begin(&fills(OLD));
            }
            said(lab, "is held up") > before
        });
        lab.cut(2, &Net::STORAGE);
        if said(lab, "was held up was aborted") == before {
            return;
        }
        lab.mend();
        assert_eq!(program.answer("a write that was sent again"), "ok");
        lab.until_well();
    }
    panic!("this machine stalled each time");
}

/// The array delays one write of node 2, and lets it go after node 2 was redirected and newer data were written.
fn a_write_is_stuck_while_its_node_is_redirected(rule: Rule) {
    let Some(lab) = nodes(rule, |array| array) else { return };
    let mut old = in_place(&lab);
    let mut newer = program(&lab, 2);
    held_up_and_cut(&lab, &mut old);
    let held = said(&lab, "is held up");
    lab.cluster.until_route(2, "block-redirected");
    if rule == Rule::InForce {
        assert_eq!(said(&lab, "was held up was aborted"), held, "redirected before that was proved dead");
        assert_eq!(old.answer("the write that was held up, and went the other way"), "ok");
        newer.does(&fills(NEWER));
        all_read(&lab, NEWER, "before the array lets anything go");
        lab.array.hold(false);
        std::thread::sleep(WOULD_LAND);
        assert_eq!(said(&lab, "was held up begins"), 0, "{}", lab.array.log());
        all_read(&lab, NEWER, "after it");
        lab.mend();
        lab.until_well();
        all_read(&lab, NEWER, "with all paths back");
        drop((old, newer));
        lab.ends_well();
    } else {
        newer.does(&fills(NEWER));
        assert_eq!((read(&lab.cluster, 1), read(&lab.cluster, 3)), (NEWER, NEWER));
        assert!(old.is_waiting() && said(&lab, "was held up was aborted") < held, "it was proved dead after all");
        lab.array.hold(false);
        // Acknowledged newer data are gone: what the rule is for.
        until("the old write's landing", || read(&lab.cluster, 1) == OLD);
        assert_eq!(said(&lab, "was held up begins"), 1);
    }
}

#[test]
fn a_write_that_the_array_delays_does_not_land_on_newer_data_of_its_node_that_was_redirected() {
    a_write_is_stuck_while_its_node_is_redirected(Rule::InForce);
}

#[test]
fn without_the_proof_a_write_that_the_array_delays_lands_on_newer_data_of_its_node_that_was_redirected() {
    a_write_is_stuck_while_its_node_is_redirected(Rule::TakenOut("AbortBeforeRedirect"));
}

/// The incarnations in a node's keys: the eighth to twelfth digit of each.
fn lives(lab: &Lab, n: usize) -> Vec<String> {
    let keys = lab.array.keys_of(n);
    keys.iter().map(|key| key.trim_start_matches("0x").chars().skip(7).take(5).collect()).collect()
}

/// Node 2 stands still, and nobody hears it. It is evicted, fenced by the unit, and another writes what it had; then the array is restarted, and
/// with it go all sessions. Node 2 wakes with a program's write before it, logs in anew and registers its old identity. What it reads of the
/// unit the array delays, and what it writes it does not: whether it writes before it has seen its slot is up to it alone.
fn a_fenced_node_registers_its_old_identity_again(rule: Rule) {
    let Some(mut lab) = nodes(rule, Array::that_holds_looks) else { return };
    let mut old = in_place(&lab);
    let mut newer = program(&lab, 3);
    let life = lives(&lab, 2).into_iter().max().expect("it is registered");
    lab.cluster.signal(2, "STOP");
    lab.cut(2, &[Net::Heartbeat]);
    old.begin(&fills(OLD));
    // A part of a block is for one node at a time: the coordinator asks node 2 to give back what it has, in vain.
    newer.does("write");
    newer.does(&fills(NEWER));
    assert!(!lives(&lab, 2).contains(&life), "its keys are left: {:?}", lab.array.reservations());
    // Else it would write over a session whose key is gone, and be told so.
    lab.array.kill();
    lab.array.start(lab.nodes);
    lab.array.hold(true);
    until("the array delays what node 2 reads", || said(&lab, "are held up from now on") > 0);
    assert_eq!((read(&lab.cluster, 1), read(&lab.cluster, 3)), (NEWER, NEWER));
    lab.cluster.signal(2, "CONT");
    until("it has registered its old identity again", || lives(&lab, 2).contains(&life));
    if rule == Rule::InForce {
        until("it reads", || said(&lab, "a look of") > 0);
        std::thread::sleep(WOULD_LAND);
        assert_eq!((read(&lab.cluster, 1), read(&lab.cluster, 3)), (NEWER, NEWER), "it has not read its slot");
        lab.array.hold(false);
        std::thread::sleep(WOULD_LAND);
        assert_eq!((read(&lab.cluster, 1), read(&lab.cluster, 3)), (NEWER, NEWER), "it has read its slot");
        lab.mend();
        lab.cluster.until_event(2, "self-evicted", "");
        assert_eq!(old.answer("the write of a life that is over"), IO, "it was not executed");
        lab.until_well();
        all_read(&lab, NEWER, "in its next life");
        drop((old, newer));
        lab.ends_well();
    } else {
        until("the old write's landing", || read(&lab.cluster, 1) == OLD);
        assert_eq!(old.answer("the old write"), "ok", "and its program is told so");
    }
}

#[test]
fn a_fenced_node_that_registers_its_old_identity_again_does_not_write() {
    a_fenced_node_registers_its_old_identity_again(Rule::InForce);
}

#[test]
fn without_the_look_at_its_slot_a_fenced_node_that_registers_its_old_identity_again_writes() {
    a_fenced_node_registers_its_old_identity_again(Rule::TakenOut("RegisterThenReadSlot"));
}
