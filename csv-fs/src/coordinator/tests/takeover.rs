//! One coordinator dies, another follows on the same disk.

use super::cluster::*;
use crate::core::office::HowFenced;
use crate::proto::*;
use crate::types::*;

const DEAD: Option<HowFenced> = Some(HowFenced::Dead);

fn ordinary(index: u8) -> SlotRef {
    SlotRef { table: SlotTable::Ordinary, index }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_takeover() {
    let mut volume = Volume::new().await;
    let (first, latch) = volume.first().await;
    let mut a = Client::bound(1, &first).await;
    let made = a.create("f").await;
    latch.trip();
    let epoch = volume.take_office(3, DEAD);
    let (second, _latch) = volume.serve(epoch).await;
    a.moves_to(&second, vec![]).await;
    assert_eq!(a.lookup("f").await, Answer::Ok(Reply::Attr(made)));
    assert_eq!(a.call_in(0, create("f", 0)).await, Answer::Errno(rustix::io::Errno::EXIST.raw_os_error()));
}

#[tokio::test]
async fn an_answer_that_was_lost_with_its_coordinator_is_replayed_by_the_next() {
    let mut volume = Volume::new().await;
    let (first, latch) = volume.first().await;
    let mut a = Client::bound(1, &first).await;
    let answer = first.call(a.compose(ordinary(0), 1, create("f", 9))).await;
    latch.trip();
    let epoch = volume.take_office(3, DEAD);
    let (second, _latch) = volume.serve(epoch).await;
    a.moves_to(&second, vec![]).await;
    let again = second.call(a.compose(ordinary(0), 1, create("f", 9))).await;
    assert!(matches!(again, Answer::Ok(Reply::Created { opened: true, .. })));
    assert_eq!(again, answer, "an exclusive create, executed twice, would say EEXIST");
}

#[tokio::test]
async fn after_the_latch_is_tripped_nothing_is_acknowledged() {
    let mut volume = Volume::new().await;
    let (first, latch) = volume.first().await;
    let a = Client::bound(1, &first).await;
    a.create("f").await;
    latch.trip();
    for request in [create("g", 0), Request::Statfs, Request::Release { ino: InodeNo(5), handle: HandleId(1) }] {
        assert_eq!(a.call_in(7, request).await, Answer::StaleEpoch { hint: None });
    }
}

#[tokio::test]
async fn a_layout_and_its_uncommitted_blocks_survive_a_takeover_and_others_wait_for_them() {
    let mut volume = Volume::new().await;
    let (first, latch) = volume.first().await;
    let mut a = Client::bound(1, &first).await;
    let mut b = Client::bound(2, &first).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    let space = a.granted(16).await;
    latch.trip();
    let epoch = volume.take_office(3, DEAD);
    let (second, _latch) = volume.serve(epoch).await;
    b.moves_to(&second, vec![]).await;
    assert!(second.status().grace, "a has not come yet");
    let early = tokio::spawn({
        let call =
            b.compose(ordinary(3), 1, Request::LayoutGet { ino, range: BlockRange::new(0, 1), want: Want::Read });
        let second = std::sync::Arc::clone(&second);
        async move { second.call(call).await }
    });
    a.moves_to(&second, vec![a.holds(&held, vec![written(space[0], 3)])]).await;
    assert_eq!(a.next_callback().await, CallbackAsk::Recall { layout: held.id, ino }, "b waits for it");
    let commit = CommitBody { extents: vec![written(space[0], 3)], size: Some(9000), mtime: None, sync: 0 };
    a.give_back(&held, commit).await;
    let Answer::Ok(Reply::Layout(grant)) = early.await.unwrap() else { panic!() };
    assert_eq!((grant.extents, grant.size), (vec![written(space[0], 3)], 9000));
}

#[tokio::test]
async fn a_re_asserted_block_that_was_never_granted_evicts() {
    let mut volume = Volume::new().await;
    let (first, latch) = volume.first().await;
    let mut a = Client::bound(1, &first).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    latch.trip();
    let epoch = volume.take_office(3, DEAD);
    let (second, _latch) = volume.serve(epoch).await;
    a.coordinator = std::sync::Arc::clone(&second);
    let stolen = DiskRange { start: DiskBlock(200_000), len: BlockCount(1) };
    let answer = a.try_bind(vec![a.holds(&held, vec![written(stolen, 1)])]).await;
    assert!(matches!(answer, BindAnswer::Evicted { .. }), "{answer:?}");
    until(async || !second.status().grace).await;
    assert!(second.status().sessions.is_empty());
    assert_eq!(volume.fences.done.lock().len(), 1);
}

#[tokio::test]
async fn the_client_of_a_killed_coordinator_is_waited_for_if_its_daemon_comes_back() {
    let mut volume = Volume::new().await;
    volume.comes_back = true;
    let (first, latch) = volume.first().await;
    let mut own = Client::bound(4, &first).await;
    let mut a = Client::bound(1, &first).await;
    let ino = own.create("f").await.ino;
    let held = own.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    let space = own.granted(16).await;
    latch.trip();
    let epoch = volume.take_office(3, DEAD);
    let (second, _latch) = volume.serve(epoch).await;
    a.moves_to(&second, vec![]).await;
    assert!(second.status().grace, "its client has not come yet");
    own.moves_to(&second, vec![own.holds(&held, vec![written(space[0], 3)])]).await;
    until(async || !second.status().grace).await;
    assert_eq!(second.status().sessions.len(), 2, "nobody was evicted");
    assert!(volume.fences.done.lock().is_empty());
    let commit = CommitBody { extents: vec![written(space[0], 3)], size: Some(9000), mtime: None, sync: 0 };
    own.give_back(&held, commit).await;
    let Answer::Ok(Reply::Attr(attr)) = a.lookup("f").await else { panic!() };
    assert_eq!(attr.size, 9000);
}

#[tokio::test]
async fn the_killed_coordinators_own_client_is_not_waited_for() {
    let mut volume = Volume::new().await;
    let (first, latch) = volume.first().await;
    let own = Client::bound(4, &first).await;
    let mut a = Client::bound(1, &first).await;
    let ino = own.create_open("f", 3).await.ino;
    own.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    own.call(unlink("f")).await;
    latch.trip();
    let epoch = volume.take_office(3, DEAD);
    let (second, _latch) = volume.serve(epoch).await;
    a.moves_to(&second, vec![]).await;
    until(async || !second.status().grace).await;
    assert_eq!(second.status().sessions, [a.id]);
    assert!(volume.fences.done.lock().is_empty(), "its fence was proved before");
    until(async || matches!(a.call_in(1, Request::Getattr { ino }).await, Answer::Errno(2))).await;
}

#[tokio::test]
async fn two_takeovers_in_a_row_lose_nothing_of_a_client_that_saw_neither() {
    let mut volume = Volume::new().await;
    let (first, latch) = volume.first().await;
    let mut a = Client::bound(1, &first).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    latch.trip();
    let epoch = volume.take_office(3, DEAD);
    let (second, latch) = volume.serve(epoch).await;
    assert!(second.status().grace);
    latch.trip();
    let epoch = volume.take_office(2, DEAD);
    let (third, _latch) = volume.serve(epoch).await;
    a.moves_to(&third, vec![a.holds(&held, vec![])]).await;
    assert_eq!(third.status().layouts, 1);
}

#[tokio::test]
async fn who_does_not_come_back_is_evicted_when_grace_ends() {
    let mut volume = Volume::new().await;
    let (first, latch) = volume.first().await;
    let mut a = Client::bound(1, &first).await;
    let _gone = Client::bound(2, &first).await;
    latch.trip();
    let epoch = volume.take_office(3, DEAD);
    let (second, _latch) = volume.serve(epoch).await;
    a.moves_to(&second, vec![]).await;
    a.create("f").await;
    assert_eq!(second.status().sessions, [a.id]);
    assert_eq!(volume.fences.done.lock().len(), 1);
}
