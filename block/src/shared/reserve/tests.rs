//! `exclude` against a model of a disk's registrations: several nexuses, and others that act in between.

use std::sync::Arc;

use parking_lot::Mutex;
use scsi::reservations::Reservation;

use super::*;
use crate::shared::NexusNumber;

/// What another nexus does in between.
type Act = Box<dyn FnOnce(&mut Disk) + Send>;

#[derive(Default)]
struct Disk {
    keys: Vec<ReservationKey>,
    held: Option<ReservationType>,
    /// One after each reading of the keys.
    between: Vec<Act>,
    aborted: Vec<ReservationKey>,
}

/// A nexus of the model.
struct Nexus(Arc<Mutex<Disk>>);

type Answer<'a, T> = BoxFuture<'a, Result<T, ReserveError>>;

impl Reservations for Nexus {
    fn register(&self, key: ReservationKey, _: Keeps) -> Answer<'_, ()> {
        self.0.lock().keys.push(key);
        Box::pin(std::future::ready(Ok(())))
    }

    fn unregister(&self, key: ReservationKey) -> Answer<'_, ()> {
        self.0.lock().keys.retain(|k| *k != key);
        Box::pin(std::future::ready(Ok(())))
    }

    fn reserve(&self, _: ReservationKey, kind: ReservationType) -> Answer<'_, ()> {
        self.0.lock().held = Some(kind);
        Box::pin(std::future::ready(Ok(())))
    }

    fn preempt(&self, own: ReservationKey, victim: ReservationKey, _: ReservationType, abort: bool) -> Answer<'_, ()> {
        let mut disk = self.0.lock();
        if !disk.keys.contains(&own) {
            return Box::pin(std::future::ready(Err(ReserveError::NotRegistered)));
        }
        disk.keys.retain(|k| *k != victim);
        if abort {
            disk.aborted.push(victim);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn keys(&self) -> Answer<'_, Keys> {
        let mut disk = self.0.lock();
        let keys = Keys { keys: disk.keys.clone(), ..Keys::default() };
        if let Some(act) = disk.between.pop() {
            act(&mut disk);
        }
        Box::pin(std::future::ready(Ok(keys)))
    }

    fn reservation(&self) -> Answer<'_, Held> {
        let reservation = self.0.lock().held.map(|kind| Reservation { key: ReservationKey::NONE, kind });
        Box::pin(std::future::ready(Ok(Held { reservation, ..Held::default() })))
    }

    fn registrants(&self) -> Answer<'_, FullStatus> {
        Box::pin(std::future::ready(Ok(FullStatus::default())))
    }
}

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
