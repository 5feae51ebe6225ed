//! Offices on a real file, with real locks, compare-and-writes and faults. Three in one process, each with a
//! description of its own, as three processes have; one test has a real process to kill.

mod house;

use std::process::{Child, Command};
use std::time::Duration;

use block::shared::{Epoch, FenceGen};

use self::house::{Did, House, PATIENCE, node};
use super::OfficeError;
use crate::core::office::{Before, HowFenced, PeerLoss, Purpose};
use crate::types::ClientId;

/// Tells a test process that it is to be a node, and on which file.
const CHILD: &str = "SHOREFAST_OFFICE_TEST_DISK";

#[tokio::test(flavor = "multi_thread")]
async fn of_three_offices_exactly_one_takes_office() {
    let house = House::new();
    for n in 1..=3 {
        house.start(n);
    }
    let first = house.coordinator().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(house.took_office(), [first], "and nobody else ever did");
    for n in 1..=3 {
        let hint = house.hint(n).expect("everybody knows");
        assert_eq!((hint.node, hint.epoch), (node(first), Epoch(1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_hands_office_to_the_named_node_without_a_fence() {
    let house = House::with_3_in_office().await;
    house.handle(3).resign_to(Some(node(2))).await.expect("resigned");
    let proof = house.until_in_office(2).await;
    assert_eq!((proof.epoch(), proof.before()), (Epoch(2), Before::Resigned(house.client(3))));
    let log = house.log();
    let drained = log.iter().position(|d| *d == Did::Drained(3)).expect("drained");
    let taken = log.iter().position(|d| *d == Did::Took(2)).expect("taken");
    assert!(drained < taken, "{log:?}");
    assert_eq!(house.handle(1).resign_to(None).await, Err(OfficeError::NotInOffice));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_whose_disk_hangs_is_succeeded_only_after_nothing_of_it_is_in_flight() {
    let house = House::with_3_in_office().await;
    house.fault(3).hang();
    let heir = house.another_coordinator(3).await;
    let log = house.log();
    let at = |d: Did| log.iter().position(|x| *x == d).unwrap_or_else(|| panic!("{d:?} in {log:?}"));
    assert!(at(Did::Tripped(3)) < at(Did::Stopped(3)), "the latch first: {log:?}");
    assert!(at(Did::Stopped(3)) < at(Did::Took(heir)), "{log:?}");
    let proof = house.until_in_office(heir).await;
    assert!(
        matches!(proof.before(), Before::Fenced(p) if p.how() == HowFenced::Answered && p.client() == house.client(3)),
        "{proof:?}"
    );
    house.fault(3).heal();
    let mut state = house.handle(3).state();
    let healed = state.wait_for(|s| s.own_path_ok);
    assert!(tokio::time::timeout(PATIENCE, healed).await.is_ok(), "its slot is renewed again");
    assert_eq!(house.handle(3).slot(node(3)).map(|s| s.fence_gen >= FenceGen(1)), Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_gone_is_succeeded_by_its_live_lock() {
    let house = House::with_3_in_office().await;
    let dead = house.client(3);
    house.vanish(3).await;
    let heir = house.another_coordinator(3).await;
    let proof = house.until_in_office(heir).await;
    assert!(matches!(proof.before(), Before::Fenced(p) if p.is_dead(false) && p.client() == dead), "{proof:?}");
    // It comes back as a later incarnation, and the coordinator knows the earlier one to be over.
    house.start(3);
    assert_eq!(house.until_registered(3).await.incarnation.0, dead.incarnation.0 + 1);
    let again = house.handle(heir).fence(dead, Purpose::Eviction).await.expect("fenced");
    assert!(again.is_dead(false));
    let slot = house.until_slot(heir, 3, |s| s.incarnation.0 == dead.incarnation.0 + 1).await;
    assert!(slot.fence_gen >= FenceGen(1), "the new life begins above every fence of the old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_client_is_fenced_for_its_coordinator_and_goes_on_once_granted() {
    let house = House::with_3_in_office().await;
    let victim = house.client(1);
    let proof = house.handle(3).fence(victim, Purpose::Eviction).await.expect("fenced");
    assert_eq!((proof.how(), proof.fence_gen()), (HowFenced::Answered, FenceGen(1)));
    assert!(house.log().contains(&Did::Stopped(1)));
    let path = house.handle(3).fence(house.client(2), Purpose::Path).await.expect("fenced");
    assert_eq!((path.how(), path.fence_gen()), (HowFenced::Answered, FenceGen(1)));
    house.handle(2).granted(path.fence_gen());
    assert_eq!(house.handle(1).fence(victim, Purpose::Eviction).await, Err(OfficeError::NotInOffice));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_office_that_was_stopped_says_so() {
    let house = House::with_3_in_office().await;
    let handle = house.handle(3);
    handle.stop().await;
    handle.stop().await;
    let nobody = ClientId { node: node(1), incarnation: block::shared::Incarnation(1) };
    assert_eq!(handle.fence(nobody, Purpose::Path).await, Err(OfficeError::Stopped));
}

/// The node that a test process kills: it runs an office until then. Does nothing as an ordinary test.
#[tokio::test(flavor = "multi_thread")]
async fn the_child_process_of_the_kill_test_holds_office() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let house = House::on(path.as_ref());
    house.start(3);
    house.handle(3).peer_heard(node(1));
    house.handle(3).peer_heard(node(2));
    tokio::time::sleep(4 * PATIENCE).await;
}

/// A child that is ended whatever becomes of the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_holds_office_is_killed_and_succeeded() {
    let house = House::new();
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["the_child_process_of_the_kill_test_holds_office", "--nocapture", "--test-threads=1"]);
    let mut child = Ended(child.env(CHILD, house.path()).stdout(std::process::Stdio::null()).spawn().expect("starts"));
    // The child first, so that the others find it in office.
    house.until_lease_of(node(3)).await;
    for n in 1..=2 {
        house.start(n);
        house.handle(n).peer_heard(node(3));
    }
    for n in 1..=2 {
        house.until_hint(n, node(3)).await;
        house.until_permitted(n).await;
    }
    let begun = std::time::Instant::now();
    child.0.kill().expect("SIGKILL");
    for n in 1..=2 {
        house.handle(n).peer_lost(node(3), PeerLoss::Closed);
    }
    let heir = house.another_coordinator(3).await;
    println!("a killed coordinator was succeeded after {} ms", begun.elapsed().as_millis());
    let proof = house.until_in_office(heir).await;
    assert!(
        matches!(proof.before(), Before::Fenced(p) if p.how() == HowFenced::Dead && p.client().node == node(3)),
        "{proof:?}"
    );
}
