//! A path is lost and comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rig::*;
use crate::core::client::{Reason, Route};
use crate::core::coord::FencePurpose;

/// A file with one written block, in place.
async fn file_of(node: &Node) -> Arc<crate::client::data::OpenFile> {
    let file = node.create("f").await;
    node.write(&file, 0, &[1; 65_536]).await;
    node.fsync(&file).await;
    node.write(&file, 0, &[1; 4096]).await;
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d20_no_call_fails_while_a_path_hangs_and_the_route_comes_back_with_it() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = file_of(&node).await;
    node.fault.hang();
    node.write(&file, 0, &[2; 4096]).await;
    assert_eq!(node.routed(Route::BlockRedirected).await, Reason::IoTimedOut);
    assert_eq!(node.read(&file, 0, 4096).await, [2; 4096]);
    node.write(&file, 8192, &[3; 100]).await;
    node.write(&file, 70_000, &[4; 5000]).await;
    node.fsync(&file).await;
    assert_eq!(cluster.office.done.lock()[..], [(client_id(1), FencePurpose::Path)]);
    node.fault.heal();
    node.routed(Route::Direct).await;
    let before = node.path.counters().snapshot();
    node.write(&file, 4096, &[5; 4096]).await;
    let after = node.path.counters().snapshot();
    assert_eq!(after.direct_written - before.direct_written, 4096);
    let mut expected = vec![1; 65_536];
    expected[..4096].fill(2);
    expected[4096..8192].fill(5);
    expected[8192..8292].fill(3);
    expected.resize(70_000, 0);
    expected.extend([4; 5000]);
    assert_eq!(node.read(&file, 0, 100_000).await, expected);
}

/// The node did all it should; its programs must not see an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_ends_between_raising_a_generation_and_committing_it_costs_the_node_nothing() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = file_of(&node).await;
    let before = cluster.office.fence_gen(client_id(1).node);
    cluster.office.falls_silent.store(true, Ordering::Release);
    node.fault.hang();
    let office = Arc::clone(&cluster.office);
    let takeover = async {
        until(|| office.fence_gen(client_id(1).node) > before).await;
        office.falls_silent.store(false, Ordering::Release);
        cluster.take_office(4).await;
    };
    tokio::join!(node.write(&file, 0, &[2; 4096]), takeover);
    assert_eq!(node.read(&file, 0, 4096).await, [2; 4096]);
    node.fsync(&file).await;
    node.fault.heal();
    node.routed(Route::Direct).await;
    let path = (client_id(1), FencePurpose::Path);
    assert_eq!(cluster.office.done.lock()[..], [path, path], "and it was not evicted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d21_no_call_fails_while_a_path_fails() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = file_of(&node).await;
    node.fault.fail();
    node.write(&file, 0, &[2; 4096]).await;
    assert_eq!(node.read(&file, 0, 4096).await, [2; 4096]);
    assert_eq!(node.session.route().borrow().reason, Reason::IoFailed);
    node.fault.heal();
    node.routed(Route::Direct).await;
    assert_eq!(node.read(&file, 0, 4096).await, [2; 4096]);
}

/// The stuck write: it hangs below, its redirected twin is done, a newer one follows, the path heals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d22_a_write_that_hung_does_not_land_after_a_newer_one() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = file_of(&node).await;
    node.fault.hang();
    node.write(&file, 0, &[2; 4096]).await;
    node.write(&file, 0, &[3; 4096]).await;
    node.fault.heal();
    node.routed(Route::Direct).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(node.read(&file, 0, 4096).await, [3; 4096]);
}

/// The same with the proof faked: the old write lands. If it did not, the test before would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_abort_own_the_old_write_lands() {
    let cluster = Cluster::new().await;
    let node = Arc::new(cluster.node(1));
    let file = file_of(&node).await;
    node.fault.hang();
    let (first, handle) = (Arc::clone(&node), Arc::clone(&file));
    let stuck = tokio::spawn(async move { first.try_write(&handle, 0, &[2; 4096]).await });
    until(|| node.fault.held() > 0).await;
    node.fault.ignore_aborts(true);
    node.routed(Route::BlockRedirected).await;
    node.write(&file, 0, &[3; 4096]).await;
    node.fault.heal();
    until(|| stuck.is_finished()).await;
    node.routed(Route::Direct).await;
    assert_eq!(node.read(&file, 0, 4096).await, [2; 4096], "the newer write was undone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d23_a_read_that_hangs_is_answered_by_the_coordinator() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = file_of(&node).await;
    node.fault.hang();
    assert_eq!(node.read(&file, 0, 4096).await, [1; 4096]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d24_the_administrator_redirects_and_gives_back() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = file_of(&node).await;
    node.session.force_redirect(true);
    assert_eq!(node.routed(Route::BlockRedirected).await, Reason::Administrator);
    let before = node.path.counters().snapshot();
    node.write(&file, 0, &[2; 4096]).await;
    let after = node.path.counters().snapshot();
    assert_eq!(
        (after.direct_written, after.redirected_written),
        (before.direct_written, before.redirected_written + 4096)
    );
    node.session.force_redirect(false);
    node.routed(Route::Direct).await;
    assert_eq!(node.read(&file, 0, 4096).await, [2; 4096]);
}

/// They were counted as slow, as if each had taken a task: nobody could see from the counters whether redirected I/O was
/// sent at once, which is what makes it bearable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirected_io_in_place_is_counted_as_warm_and_not_as_slow() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = file_of(&node).await;
    node.session.force_redirect(true);
    node.routed(Route::BlockRedirected).await;
    let before = node.path.counters().snapshot();
    for i in 0..16 {
        node.write(&file, 4096 * i, &[2; 4096]).await;
        assert_eq!(node.read(&file, 4096 * i, 4096).await, [2; 4096]);
    }
    let after = node.path.counters().snapshot();
    let ways = |c: crate::client::counters::CounterSnapshot| [c.hot, c.warm, c.slow];
    let [hot, warm, slow] = [0, 1, 2].map(|i| ways(after)[i] - ways(before)[i]);
    assert_eq!([hot, warm, slow], [0, 32, 0]);
    // What cannot be sent at once is slow here too.
    node.write(&file, 100, &[3; 10]).await;
    assert_eq!(node.path.counters().snapshot().slow, after.slow + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d25_another_node_gets_a_layout_back_from_one_whose_path_hangs() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let at_a = a.create("f").await;
    a.write(&at_a, 0, &[1; 10_000]).await;
    a.fault.hang();
    let at_b = b.open(at_a.ino()).await;
    assert_eq!(b.read(&at_b, 0, 20_000).await, [1; 10_000]);
    assert!(cluster.office.done.lock().iter().all(|(_, why)| *why == FencePurpose::Path), "nobody was evicted");
}
