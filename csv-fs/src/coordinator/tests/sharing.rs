//! Two clients of one coordinator.

use super::cluster::*;
use crate::proto::*;
use crate::types::*;

#[tokio::test]
async fn names_made_by_one_client_are_seen_by_another() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let (a, b) = (Client::bound(1, &coordinator).await, Client::bound(2, &coordinator).await);
    let made = a.create("f").await;
    assert_eq!(b.lookup("f").await, Answer::Ok(Reply::Attr(made)));
    assert_eq!(b.call_in(0, create("f", 0)).await, Answer::Errno(rustix::io::Errno::EXIST.raw_os_error()));
}

#[tokio::test]
async fn an_exclusive_layout_comes_after_the_recall_of_what_is_in_its_way_and_sees_what_was_committed() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let mut a = Client::bound(1, &coordinator).await;
    let b = Client::bound(2, &coordinator).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    let space = a.granted(16).await;
    let asks = b.layout(ino, BlockRange::new(0, 1), Want::Exclusive);
    let returns = async {
        assert_eq!(a.next_callback().await, CallbackAsk::Recall { layout: held.id, ino });
        let commit = CommitBody { extents: vec![written(space[0], 2)], size: Some(2 * FS_BLOCK), mtime: None, sync: 0 };
        a.give_back(&held, commit).await;
    };
    let (grant, ()) = tokio::join!(asks, returns);
    assert_eq!((grant.mode, grant.size), (LayoutMode::Exclusive, 2 * FS_BLOCK));
    assert_eq!(grant.extents, [written(space[0], 2)]);
}

#[tokio::test]
async fn a_size_that_a_holder_has_not_committed_is_asked_for() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let mut a = Client::bound(1, &coordinator).await;
    let b = Client::bound(2, &coordinator).await;
    let ino = a.create("f").await.ino;
    a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    let commits = async {
        let CallbackAsk::Sync { ino: of, number } = a.next_callback().await else { panic!() };
        assert_eq!(of, ino);
        let commit = CommitBody { size: Some(1234), sync: number, ..CommitBody::default() };
        a.call(Request::Commit { ino, commit, give_back: vec![] }).await;
    };
    let (found, ()) = tokio::join!(b.lookup("f"), commits);
    let Answer::Ok(Reply::Attr(attr)) = found else { panic!("{found:?}") };
    assert_eq!(attr.size, 1234);
}

#[tokio::test]
async fn an_open_file_without_a_name_is_freed_at_its_last_release() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let (a, b) = (Client::bound(1, &coordinator).await, Client::bound(2, &coordinator).await);
    let ino = a.create_open("f", 5).await.ino;
    b.call(unlink("f")).await;
    assert!(matches!(a.call_in(1, Request::Getattr { ino }).await, Answer::Ok(_)), "a has it open");
    a.call(Request::Release { ino, handle: HandleId(5) }).await;
    until(async || matches!(a.call_in(1, Request::Getattr { ino }).await, Answer::Errno(2))).await;
}

#[tokio::test]
async fn space_granted_to_others_is_recalled_before_enospc_is_said() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let mut a = Client::bound(1, &coordinator).await;
    let b = Client::bound(2, &coordinator).await;
    let ino = b.create("f").await.ino;
    let space = a.granted(1 << 20).await;
    let Reply::Space(free) = b.call(Request::Statfs).await else { panic!() };
    let len = free.free * FS_BLOCK;
    let wants_all = b.call_in(3, Request::Fallocate { ino, offset: 0, len, keep_size: true });
    let gives = async {
        assert_eq!(a.next_callback().await, CallbackAsk::RecallGrant);
        a.call(Request::GrantReturn { ranges: space }).await;
    };
    let (answer, ()) = tokio::join!(wants_all, gives);
    assert!(matches!(answer, Answer::Ok(_)), "{answer:?}");
    let one = Request::Fallocate { ino, offset: len, len: FS_BLOCK, keep_size: true };
    let asks = async {
        assert_eq!(a.next_callback().await, CallbackAsk::RecallGrant);
        a.call(Request::GrantReturn { ranges: vec![] }).await;
    };
    let (answer, ()) = tokio::join!(b.call_in(3, one), asks);
    assert_eq!(answer, Answer::Errno(rustix::io::Errno::NOSPC.raw_os_error()), "now it is true");
}

#[tokio::test]
async fn a_client_that_holds_on_to_what_was_recalled_is_evicted_and_the_other_served() {
    let mut volume = Volume::new().await;
    let (coordinator, _latch) = volume.first().await;
    let mut a = Client::bound(1, &coordinator).await;
    let b = Client::bound(2, &coordinator).await;
    let ino = a.create("f").await.ino;
    a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    b.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    assert_eq!(volume.fences.done.lock()[..], [(a.id, crate::core::coord::FencePurpose::Eviction)]);
    assert!(matches!(a.try_bind(vec![]).await, BindAnswer::Evicted { .. }));
}

#[tokio::test]
async fn a_file_made_longer_shows_zeroes_where_it_was_cut() {
    use block::device::DeviceExt;
    let mut volume = Volume::new().await;
    let (coordinator, _latch) = volume.first().await;
    let a = Client::bound(1, &coordinator).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    let space = a.granted(16).await;
    let mut block = block::AlignedBuf::zeroed(4096);
    block.fill(7);
    let at = block::ByteOffset(space[0].start.0 * FS_BLOCK);
    volume.device.write(at, block).await.0.unwrap();
    let commit = CommitBody { extents: vec![written(space[0], 1)], size: Some(4096), mtime: None, sync: 0 };
    a.give_back(&held, commit).await;
    for size in [100, 5000] {
        a.call(Request::Setattr { ino, set: SetAttr { size: Some(size), ..SetAttr::default() } }).await;
    }
    let block = volume.device.read(at, 4096).await.unwrap();
    assert!(block[..100].iter().all(|b| *b == 7) && block[100..].iter().all(|b| *b == 0));
}
