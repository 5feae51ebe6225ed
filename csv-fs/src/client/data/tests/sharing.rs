//! Two clients on one file.

use std::sync::Arc;

use super::rig::*;
use crate::proto::{Reply, Request, SetAttr};
use crate::types::FS_BLOCK;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d10_data_and_size_are_seen_by_every_node_at_once() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let at_a = a.create("f").await;
    let at_b = b.open(at_a.ino()).await;
    for i in 0..20u64 {
        let (writer, wf, reader, rf) = if i % 2 == 0 { (&a, &at_a, &b, &at_b) } else { (&b, &at_b, &a, &at_a) };
        let data = pattern(5000, i as u8);
        writer.write(wf, i * 5000, &data).await;
        assert_eq!(reader.attr(at_a.ino()).await.size, (i + 1) * 5000);
        assert_eq!(reader.read(rf, i * 5000, 10_000).await, data);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d11_writes_to_parts_of_one_block_by_two_nodes_do_not_undo_each_other() {
    let cluster = Cluster::new().await;
    let (a, b) = (Arc::new(cluster.node(1)), Arc::new(cluster.node(2)));
    let file = a.create("f").await;
    a.write(&file, 0, &[0; 4096]).await;
    let write = |node: &Arc<Node>, first: u64| {
        let (node, ino) = (Arc::clone(node), file.ino());
        tokio::spawn(async move {
            let file = node.open(ino).await;
            for i in 0..100 {
                let at = (i * 2 + first) * 16;
                node.write(&file, at, &[1 + first as u8; 16]).await;
            }
        })
    };
    let (one, two) = (write(&a, 0), write(&b, 1));
    one.await.unwrap();
    two.await.unwrap();
    let got = a.read(&file, 0, 3200).await;
    let expected: Vec<u8> = (0..200).flat_map(|i| [1 + (i % 2) as u8; 16]).collect();
    assert_eq!(got, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_appends_of_two_nodes_are_all_there_and_whole() {
    let cluster = Cluster::new().await;
    let (a, b) = (Arc::new(cluster.node(1)), Arc::new(cluster.node(2)));
    let file = a.create("f").await;
    let append = |node: &Arc<Node>, tag: u8| {
        let (node, ino) = (Arc::clone(node), file.ino());
        tokio::spawn(async move {
            let file = node.open_to_append(ino).await;
            for _ in 0..40 {
                node.write(&file, 0, &[tag; 100]).await;
            }
        })
    };
    let (one, two) = (append(&a, 1), append(&b, 2));
    one.await.unwrap();
    two.await.unwrap();
    let got = b.read(&b.open(file.ino()).await, 0, 100_000).await;
    assert_eq!(got.len(), 8000);
    let whole = got.chunks(100).all(|c| c.iter().all(|b| *b == c[0]));
    assert!(whole, "a record was torn");
    assert_eq!(got.iter().filter(|b| **b == 1).count(), 4000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d13_two_nodes_write_different_blocks_of_a_file_in_place_at_the_same_time() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let at_a = a.create("f").await;
    a.write(&at_a, 0, &vec![0; 1 << 20]).await;
    a.fsync(&at_a).await;
    let at_b = b.open(at_a.ino()).await;
    for i in 0..256u64 {
        let (node, file) = if i % 2 == 0 { (&a, &at_a) } else { (&b, &at_b) };
        node.write(file, i * 4096, &[i as u8; 4096]).await;
    }
    let calls = (a.path.counters().snapshot().calls, b.path.counters().snapshot().calls);
    for i in 0..256u64 {
        let (node, file) = if i % 2 == 0 { (&a, &at_a) } else { (&b, &at_b) };
        node.write(file, i * 4096, &[i as u8; 4096]).await;
    }
    let now = (a.path.counters().snapshot().calls, b.path.counters().snapshot().calls);
    assert!(now.0 - calls.0 <= 5 && now.1 - calls.1 <= 5, "shared layouts stay: {calls:?} {now:?}");
    let got = b.read(&at_b, 0, 1 << 20).await;
    assert!(got.chunks(4096).enumerate().all(|(i, c)| c.iter().all(|b| *b == i as u8)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d14_a_cut_by_another_node_is_seen_at_once() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let at_a = a.create("f").await;
    a.write(&at_a, 0, &[7; 10_000]).await;
    b.truncate(at_a.ino(), 3000).await;
    assert_eq!(a.read(&at_a, 0, 20_000).await, [7; 3000]);
    assert_eq!(a.attr(at_a.ino()).await.size, 3000);
    a.write(&at_a, 3000, &[8; 10]).await;
    assert_eq!(b.attr(at_a.ino()).await.size, 3010);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d15_two_nodes_that_want_one_block_both_get_on() {
    let cluster = Cluster::new().await;
    let (a, b) = (Arc::new(cluster.node(1)), Arc::new(cluster.node(2)));
    let file = a.create("f").await;
    a.write(&file, 0, &[0; 4096]).await;
    let fight = |node: &Arc<Node>| {
        let (node, ino) = (Arc::clone(node), file.ino());
        tokio::spawn(async move {
            let file = node.open(ino).await;
            for i in 0..50u8 {
                node.write(&file, 10, &[i; 100]).await;
                assert_eq!(node.read(&file, 10, 100).await.len(), 100);
            }
        })
    };
    let (one, two) = (fight(&a), fight(&b));
    one.await.unwrap();
    two.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d17_a_write_without_privilege_clears_suid_that_another_node_has_set_once() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let file = a.create("f").await;
    a.write(&file, 0, &[1; 4096]).await;
    let set = SetAttr { mode: Some(0o4755), ..SetAttr::default() };
    b.call(Request::Setattr { ino: file.ino(), set }).await;
    let write = async || {
        let (to, answer) = tokio::sync::oneshot::channel();
        let data = block::AlignedBuf::from_slice(&[2; 4096]);
        a.path.submit_write(&file, 0, data, true, crate::client::data::WriteTo::wait(to));
        assert_eq!(tokio::time::timeout(SOON, answer).await.unwrap().unwrap(), Ok(4096));
    };
    assert_eq!(b.attr(file.ino()).await.mode & 0o7777, 0o4755);
    write().await;
    assert_eq!(b.attr(file.ino()).await.mode & 0o7777, 0o755);
    write().await;
    let calls = a.path.counters().snapshot().calls;
    write().await;
    assert_eq!(a.path.counters().snapshot().calls, calls, "cleared once, not at every write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d18_space_that_another_node_holds_and_does_not_use_is_given_before_enospc_is_said() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let other = b.create("other").await;
    b.write(&other, 0, &vec![1; 4 << 20]).await;
    b.fsync(&other).await;
    // The next write takes blocks ahead for its file; they are not in the node's pool then.
    b.write(&other, 4 << 20, &[1; 4096]).await;
    b.fsync(&other).await;
    let Reply::Space(space) = a.call(Request::Statfs).await else { panic!() };
    let (pool, files) = b.path.space_held();
    assert!(pool > 1024 && files > 512, "{pool} in the pool, {files} with files");
    let file = a.create("f").await;
    // What it asked for ahead has come; the next test is about the other case.
    until(|| b.path.space().is_idle()).await;
    // What is granted counts as free: all but a little needs both back.
    a.fallocate(file.ino(), 0, (space.free - 256) * FS_BLOCK).await;
    assert_eq!(b.path.space_held(), (0, 0));
}

/// A node asked for space ahead at the moment at which another one's request found none: it returned what it had, was then
/// granted more, and ENOSPC was said while it kept that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d61_space_that_is_granted_while_it_is_called_back_comes_back_too() {
    let cluster = Cluster::new().await;
    let (a, b) = (Arc::new(cluster.node(1)), cluster.node(2));
    let (file, other) = (a.create("f").await, b.create("other").await);
    b.write(&other, 0, &[1; 4096]).await;
    b.fsync(&other).await;
    for round in 1..=5u64 {
        let Reply::Space(space) = a.call(Request::Statfs).await else { panic!() };
        until(|| b.path.space().is_idle()).await;
        let before = cluster.metrics().calls.get();
        cluster.suspend(true);
        let all = {
            let (a, ino, len) = (Arc::clone(&a), file.ino(), (space.free - 64) * FS_BLOCK);
            tokio::spawn(async move { a.fallocate(ino, 0, len).await })
        };
        until(|| cluster.metrics().calls.get() > before).await;
        // Behind it in the same transaction.
        until(|| {
            b.path.space().ask_ahead();
            b.path.space().asks()
        })
        .await;
        until(|| cluster.metrics().calls.get() > before + 1).await;
        cluster.suspend(false);
        all.await.unwrap();
        until(|| b.path.space_held().0 == 0).await;
        a.truncate(file.ino(), 0).await;
        b.write(&other, round << 20, &[1; 4096]).await;
        b.fsync(&other).await;
    }
}

/// A stat showed the length that a file had had before another node made it longer: a layout had gone back, and what was known under it
/// counted until that was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d44_what_was_known_under_a_layout_that_has_gone_back_counts_no_more() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let at_a = a.create("f").await;
    a.write(&at_a, 0, &[1; 20_000]).await;
    a.fsync(&at_a).await;
    let at_b = b.open(at_a.ino()).await;
    let answer = a.next_return_is_answered_late();
    b.truncate(at_a.ino(), 40_000).await;
    assert_eq!(a.attr(at_a.ino()).await.size, 40_000, "made longer");
    b.truncate(at_a.ino(), 0).await;
    assert_eq!(a.attr(at_a.ino()).await.size, 0, "cut");
    let other = b.create("g").await;
    b.write(&other, 0, &[2; 200_000]).await;
    b.write(&at_b, 0, &[3; 10_000]).await;
    b.fsync(&at_b).await;
    assert_eq!(a.read(&at_a, 0, 50_000).await, [3; 10_000]);
    answer.add_permits(1);
    a.write(&at_a, 10_000, &[4; 10_000]).await;
    assert_eq!(b.read(&at_b, 0, 50_000).await, [[3; 10_000], [4; 10_000]].concat());
    assert_eq!(b.read(&other, 0, 200_001).await, vec![2; 200_000]);
    cluster.must_be_clean().await;
}
