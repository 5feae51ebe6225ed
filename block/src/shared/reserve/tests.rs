//! `exclude` against a model of a disk's registrations.

use std::sync::Arc;

use parking_lot::Mutex;

use super::model::{Disk, Nexus};
use super::*;
use crate::shared::NexusNumber;

fn node(id: u8) -> NodeId {
    NodeId::new(id).expect("a node")
}

fn key(id: u8, incarnation: u64, nexus: u16) -> NexusKey {
    NexusKey::new(VolumeTag::of(&[9; 16]), node(id), Incarnation(incarnation), NexusNumber(nexus))
}

fn nexus(keys: &[NexusKey], held: Option<ReservationType>) -> Nexus {
    let keys = keys.iter().map(|k| k.key()).collect();
    Nexus(Arc::new(Mutex::new(Disk { keys, held, ..Disk::default() })))
}

#[tokio::test]
async fn every_key_of_the_victim_is_preempted_with_its_tasks_and_no_other() {
    let foreign = NexusKey::new(VolumeTag::of(&[8; 16]), node(2), Incarnation(5), NexusNumber(1));
    let all = [key(1, 1, 1), key(2, 5, 1), key(2, 5, 2), key(2, 4, 1), key(3, 5, 1), foreign];
    let nexus = nexus(&all, Some(HELD_TYPE));
    let proof = exclude(&nexus, key(1, 1, 1), (node(2), Incarnation(5))).await.expect("is excluded");
    assert_eq!((proof.node(), proof.incarnation()), (node(2), Incarnation(5)));
    let disk = nexus.0.lock();
    assert_eq!(disk.keys, [all[0], all[3], all[4], all[5]].map(NexusKey::key));
    assert_eq!(disk.aborted, [all[1], all[2]].map(NexusKey::key));
}

/// A nexus whose registration was on its way when the keys were read.
#[tokio::test]
async fn a_key_that_comes_between_is_found_in_another_round() {
    let nexus = nexus(&[key(1, 1, 1), key(2, 5, 1)], Some(HELD_TYPE));
    nexus.0.lock().between.push(Box::new(|disk| disk.keys.push(key(2, 5, 2).key())));
    drop(exclude(&nexus, key(1, 1, 1), (node(2), Incarnation(5))).await.expect("is excluded"));
    assert_eq!(nexus.0.lock().keys, [key(1, 1, 1).key()]);
}

#[tokio::test]
async fn keys_that_come_again_and_again_are_no_exclusion() {
    let nexus = nexus(&[key(1, 1, 1), key(2, 5, 1)], Some(HELD_TYPE));
    for n in 0..100 {
        nexus.0.lock().between.push(Box::new(move |disk| disk.keys.push(key(2, 5, 10 + n).key())));
    }
    let failed = exclude(&nexus, key(1, 1, 1), (node(2), Incarnation(5))).await;
    assert_eq!(failed.expect_err("it registers again and again"), ExcludeError::KeysComeBack);
}

/// The victim was faster: it has preempted this node. It must not be called excluded by one that is fenced itself.
#[tokio::test]
async fn who_is_not_registered_itself_excludes_nobody() {
    let nexus = nexus(&[key(2, 5, 1)], Some(HELD_TYPE));
    let failed = exclude(&nexus, key(1, 1, 1), (node(2), Incarnation(5))).await;
    assert_eq!(failed.expect_err("fenced itself"), ReserveError::NotRegistered.into());
    assert_eq!(nexus.0.lock().keys, [key(2, 5, 1).key()]);
}

#[tokio::test]
async fn without_the_reservation_nobody_is_excluded() {
    for held in [None, Some(ReservationType::WriteExclusiveRegistrantsOnly)] {
        let nexus = nexus(&[key(1, 1, 1), key(2, 5, 1)], held);
        let failed = exclude(&nexus, key(1, 1, 1), (node(2), Incarnation(5))).await;
        assert_eq!(failed.expect_err("strangers could write"), ExcludeError::NotHeld);
    }
}
