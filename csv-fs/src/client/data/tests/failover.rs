//! The coordinator dies, another takes over.

use std::sync::Arc;

use super::rig::*;
use crate::client::link::ClientEvent;
use crate::client::session::Caller;
use crate::core::client::Route;
use crate::core::coord::FencePurpose;
use crate::core::rules::Rule;
use crate::proto::Request;
use crate::types::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d30_in_place_io_goes_on_without_a_coordinator() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("f").await;
    node.write(&file, 0, &[1; 65_536]).await;
    node.fsync(&file).await;
    cluster.kill_coordinator().await;
    for i in 0..100u64 {
        node.write(&file, (i % 16) * 4096, &[i as u8; 4096]).await;
        assert_eq!(node.read(&file, (i % 16) * 4096, 4096).await, [i as u8; 4096]);
    }
    assert_eq!(node.session.route().borrow().route, Route::Direct);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d31_calls_wait_through_a_takeover_and_what_was_acknowledged_is_there() {
    let mut cluster = Cluster::new().await;
    let node = Arc::new(cluster.node(1));
    let file = node.create("f").await;
    let data = pattern(100_000, 9);
    node.write(&file, 0, &data).await;
    cluster.kill_coordinator().await;
    let (waits, name) = (Arc::clone(&node), "made while there was nobody");
    let created = tokio::spawn(async move { waits.create(name).await.ino() });
    cluster.take_office(4).await;
    let ino = tokio::time::timeout(SOON, created).await.expect("in time").unwrap();
    assert!(ino > InodeNo::ROOT);
    // Uncommitted until now, re-asserted with its layout.
    let other = cluster.node(2);
    let seen = other.open(file.ino()).await;
    assert_eq!(other.read(&seen, 0, 1 << 20).await, data);
    assert!(node.events.lock().iter().any(|e| matches!(e, ClientEvent::Unbound)));
    cluster.must_be_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d32_redirected_writes_survive_a_takeover() {
    let mut cluster = Cluster::new().await;
    let node = Arc::new(cluster.node(1));
    let file = node.create("f").await;
    node.write(&file, 0, &[1; 65_536]).await;
    node.fsync(&file).await;
    node.fault.hang();
    node.write(&file, 0, &[2; 4096]).await;
    cluster.kill_coordinator().await;
    node.routed(Route::Paused).await;
    let (waits, handle) = (Arc::clone(&node), Arc::clone(&file));
    let write = tokio::spawn(async move { waits.write(&handle, 4096, &[3; 4096]).await });
    cluster.take_office(4).await;
    tokio::time::timeout(SOON, write).await.expect("in time").unwrap();
    node.fsync(&file).await;
    node.fault.heal();
    node.routed(Route::Direct).await;
    assert_eq!(node.read(&file, 0, 8192).await, [[2; 4096], [3; 4096]].concat());
    cluster.must_be_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d33_a_caller_without_a_coordinator_can_be_interrupted() {
    let mut cluster = Cluster::new().await;
    let node = Arc::new(cluster.node(1));
    node.create("f").await;
    cluster.kill_coordinator().await;
    let caller = crate::client::session::Caller::interruptible();
    let (waits, his) = (Arc::clone(&node), caller.clone());
    let call = tokio::spawn(async move { waits.session.call(&his, Request::Statfs).await });
    until(|| node.session.load().0 > 0).await;
    caller.interrupt(&node.session);
    let result = tokio::time::timeout(SOON, call).await.expect("in time").unwrap();
    assert_eq!(result, Err(crate::client::session::Errno(crate::client::session::EINTR)));
}

/// Two processes read a file while there was no coordinator: one asked for the layout, the other waited for that one, and
/// could not be killed. So could none that cut a file whose layout was to go back first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d33_a_caller_that_waits_for_another_without_a_coordinator_can_be_interrupted() {
    let mut cluster = Cluster::new().await;
    let node = Arc::new(cluster.node(1));
    let file = node.create("f").await;
    node.write(&file, 0, &[1; 4096]).await;
    cluster.kill_coordinator().await;
    node.session.binding().wait_for(|b| !matches!(b, crate::core::client::Binding::Bound { .. })).await.unwrap();
    let asking = file.inode.asking.lock().await;
    let committing = file.inode.committing.lock().await;
    let caller = crate::client::session::Caller::interruptible();
    let (path, inode, ino) = (&node.path, &file.inode, file.ino());
    let layout = path.get_layout(inode, BlockRange::ALL, crate::proto::Want::Write, &caller);
    let set = crate::proto::SetAttr { size: Some(0), ..crate::proto::SetAttr::default() };
    let (sync, cut) = (path.fsync(inode, &caller), path.set_attr(ino, set, &caller));
    caller.interrupt(&node.session);
    let all = async { tokio::join!(layout, sync, cut) };
    let (layout, sync, cut) = tokio::time::timeout(SOON, all).await.expect("in time");
    let eintr = crate::client::session::Errno(crate::client::session::EINTR);
    assert_eq!((layout.map(drop), sync, cut.map(drop)), (Err(eintr), Err(eintr), Err(eintr)));
    drop((asking, committing));
}

/// What a node held exclusively when it was evicted is lost aloud; its other handles go on in the next life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d34_after_an_eviction_handles_that_lost_something_fail_and_others_go_on() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let kept = node.create("kept").await;
    node.write(&kept, 0, &[5; 4096]).await;
    node.fsync(&kept).await;
    node.path.let_everything_go().await;
    let lost = node.create("lost").await;
    node.write(&lost, 0, &[6; 4096]).await;
    assert_eq!(cluster.end_life(&node).await.poisoned, vec![lost.handle]);
    assert!(node.try_write(&lost, 0, &[7; 4096]).await.is_err());
    cluster.next_life(&node).await;
    assert_eq!(node.read(&kept, 0, 4096).await, [5; 4096]);
    node.write(&kept, 0, &[8; 4096]).await;
    assert!(node.path.read(&lost, 0, 4096).await.is_err(), "until it is closed");
    let again = node.open(lost.ino()).await;
    assert_eq!(node.read(&again, 0, 4096).await, b"", "what was never committed is not there");
    assert!(node.events.lock().iter().any(|e| *e == ClientEvent::Poisoned { handles: vec![lost.handle] }));
    cluster.must_be_clean().await;
}

/// A file was closed while its node was evicted: it stayed in the table for ever, as one did that was closed right after it was
/// written, and one that was cut without being open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d35_files_that_nobody_has_open_are_forgotten() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("f").await;
    node.write(&file, 0, &[5; 4096]).await;
    node.path.let_go(&file.inode).await;
    let ino = file.ino();
    node.path.close(file.handle).await.unwrap();
    drop(file);
    until(|| node.path.known(ino).is_none()).await;
    node.truncate(ino, 100).await;
    assert!(node.path.known(ino).is_none(), "cut");
    let file = node.open(ino).await;
    node.write(&file, 0, &[6; 4096]).await;
    cluster.end_life(&node).await;
    assert!(node.path.close(file.handle).await.is_err(), "evicted");
    drop(file);
    cluster.next_life(&node).await;
    until(|| node.path.known(ino).is_none()).await;
}

/// A file is written and fsynced; its coordinator dies before the commit is executed, and so does the program. The commit is
/// sent again to the next one, and is late. Meanwhile the file is cut to `left` bytes through a node. How long it is when
/// everything has arrived, and whether somebody was evicted.
async fn cut_behind_a_commit_that_was_left(lacking: Lacking, len: usize, left: u64, through: u8) -> (u64, bool) {
    let mut cluster = Cluster::lacking(lacking).await;
    let (node, other) = (Arc::new(cluster.node(1)), Arc::new(cluster.node(2)));
    let file = node.create("f").await;
    node.write(&file, 0, &[1; 100]).await;
    node.fsync(&file).await;
    node.write(&file, 100, &vec![2; len - 100]).await;
    let _first = node.next_commit_is_late();
    let caller = Caller::interruptible();
    let (path, inode, his) = (Arc::clone(&node.path), Arc::clone(&file.inode), caller.clone());
    let sync = tokio::spawn(async move { path.fsync(&inode, &his).await });
    node.late_commit_sent().await;
    let again = node.next_commit_is_late();
    caller.interrupt(&node.session);
    cluster.take_office(4).await;
    assert_eq!(sync.await.unwrap(), Err(crate::client::session::Errno(crate::client::session::EINTR)));
    node.late_commit_sent().await;
    let (ino, cutter) = (file.ino(), Arc::clone(if through == 1 { &node } else { &other }));
    let cut = tokio::spawn(async move { cutter.truncate(ino, left).await });
    until(|| cut.is_finished() || node.session.load().1 > 0).await;
    again.add_permits(1);
    cut.await.unwrap();
    until(|| node.session.load().0 == 0).await;
    let evicted = |(_, purpose): &(ClientId, FencePurpose)| *purpose == FencePurpose::Eviction;
    // Whoever is being evicted is waited for.
    let len = other.attr(ino).await.size;
    (len, cluster.office.done.lock().iter().any(evicted))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d36_a_commit_whose_caller_was_interrupted_does_not_undo_a_later_cut() {
    for (len, left) in [(200, 50), (40_960, 0)] {
        for through in [1, 2] {
            let found = cut_behind_a_commit_that_was_left(Lacking::Nothing, len, left, through).await;
            assert_eq!(found, (left, false), "{len} bytes cut to {left} through node {through}");
        }
    }
}

/// The file is as long as before, and blocks that are free are mapped: for those the node is evicted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d36_without_the_rule_a_commit_that_was_left_behind_undoes_a_cut() {
    let lacking = Lacking::Rule(Rule::LeftBehindFirst);
    for through in [1, 2] {
        assert_eq!(cut_behind_a_commit_that_was_left(lacking, 200, 50, through).await, (200, false));
        assert!(cut_behind_a_commit_that_was_left(lacking, 40_960, 0, through).await.1, "evicted");
    }
}
