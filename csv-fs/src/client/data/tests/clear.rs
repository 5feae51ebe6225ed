//! Holes and zeroed ranges.

use std::sync::Arc;

use super::rig::*;
use crate::client::data::Seek;
use crate::types::*;
use block::mem::MemDevice;
use block::units::{BlockSize, ByteLen};

/// The volume's free blocks, grants included.
async fn free(node: &Node) -> u64 {
    match node.call(crate::proto::Request::Statfs).await {
        crate::proto::Reply::Space(space) => space.free,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d61_a_hole_reads_as_zeroes_through_every_node_and_its_blocks_are_free_again() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let file = a.create("f").await;
    let other = b.open(file.ino()).await;
    let mut expected = pattern(100_000, 3);
    a.write(&file, 0, &expected).await;
    // Both hold a layout, with the mapping of before the hole.
    b.write(&other, 8192, &expected[8192..12_288]).await;
    assert!(a.read(&file, 0, 200_000).await == expected);
    a.fsync(&file).await;
    let before = free(&a).await;
    // Whole blocks only, so that nothing but the hole itself recalls what the other node holds.
    b.punch(file.ino(), 8192, 16 * FS_BLOCK).await;
    expected[8192..8192 + 16 * 4096].fill(0);
    assert_eq!((free(&a).await, a.attr(file.ino()).await.blocks), (before + 16, BlockCount(25 - 16)));
    for (node, file) in [(&a, &file), (&b, &other)] {
        assert!(node.read(file, 0, 200_000).await == expected);
        assert_eq!(node.seek(file, 0, Seek::Hole).await, Some(8192));
        assert_eq!(node.seek(file, 8192, Seek::Data).await, Some(18 * FS_BLOCK));
    }
    // What is written in place by who had the blocks before is read by others: it went to the file's blocks of now.
    a.write(&file, 8192, &[9; 4096]).await;
    expected[8192..12_288].fill(9);
    assert!(b.read(&other, 0, 200_000).await == expected);
    // In parts of blocks, and beyond the end: the length stays.
    b.punch(file.ino(), 5000, 20_000).await;
    expected[5000..25_000].fill(0);
    assert!(a.read(&file, 0, 200_000).await == expected);
    a.punch(file.ino(), 90_000, 1 << 40).await;
    expected[90_000..].fill(0);
    assert!(b.read(&other, 0, 200_000).await == expected);
    a.punch(file.ino(), 1 << 41, 10).await;
    assert_eq!(b.attr(file.ino()).await.size, 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d62_a_zeroed_range_keeps_its_space_and_grows_the_file_unless_told_not_to() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let file = a.create("f").await;
    let other = b.open(file.ino()).await;
    a.write(&file, 0, &pattern(20_000, 3)).await;
    b.zero_range(file.ino(), 1000, 40_000, true).await;
    let mut expected = pattern(20_000, 3);
    expected[1000..].fill(0);
    assert!(a.read(&file, 0, 100_000).await == expected);
    assert_eq!(a.attr(file.ino()).await.blocks, BlockCount(11));
    b.zero_range(file.ino(), 10, 41_000, false).await;
    expected[10..].fill(0);
    expected.resize(41_010, 0);
    assert!(a.read(&file, 0, 100_000).await == expected);
    assert_eq!(b.seek(&other, 4096, Seek::Data).await, None);
    a.write(&file, 30_000, b"here").await;
    expected[30_000..30_004].copy_from_slice(b"here");
    assert!(b.read(&other, 0, 100_000).await == expected);
}

async fn check_taker(node: &Node, taker: &Arc<crate::client::data::OpenFile>, len: u64) {
    for at in (0..len).step_by(64 * 1024) {
        let got = node.read(taker, at, 64 * 1024).await;
        assert!(got.iter().all(|b| *b == 0x11), "a write in place landed in a block that was given away");
    }
}

/// One node writes in place without asking anybody while another makes holes there and a third file takes the space
/// that comes free. A write that landed after its block was freed would show in that file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d63_in_place_writes_never_land_in_space_that_a_hole_gave_back() {
    const LEN: u64 = 256 * 1024;
    let cluster = Cluster::new().await;
    let nodes = [Arc::new(cluster.node(1)), Arc::new(cluster.node(2))];
    let file = nodes[0].create("f").await;
    nodes[0].write(&file, 0, &vec![1; LEN as usize]).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (node, file, stop) = (Arc::clone(&nodes[0]), Arc::clone(&file), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut round = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                node.write(&file, round * 7 % (LEN / FS_BLOCK) * FS_BLOCK, &[0xee; FS_BLOCK as usize]).await;
                round += 1;
            }
        })
    };
    // Little is free, so that what a hole gives back is what the next file gets.
    let hog = nodes[1].create("hog").await;
    nodes[1].fallocate(hog.ino(), 0, (free(&nodes[1]).await - 1024) * FS_BLOCK).await;
    let taker = nodes[1].create("taker").await;
    let mut len = 0;
    for _ in 0..60 {
        nodes[1].punch(file.ino(), 0, LEN).await;
        nodes[1].write(&taker, len, &vec![0x11; 64 * 1024]).await;
        len += 64 * 1024;
        if len == 2 << 20 {
            check_taker(&nodes[1], &taker, len).await;
            nodes[1].truncate(taker.ino(), 0).await;
            len = 0;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    check_taker(&nodes[1], &taker, len).await;
    let got = nodes[1].read(&nodes[1].open(file.ino()).await, 0, LEN as u32).await;
    assert!(got.iter().all(|b| matches!(*b, 0 | 0xee | 1)), "the other file's bytes show");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d64_a_hole_is_made_while_the_path_hangs() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let file = a.create("f").await;
    let mut expected = pattern(50_000, 9);
    a.write(&file, 0, &expected).await;
    a.fault.hang();
    a.punch(file.ino(), 100, 20_000).await;
    expected[100..20_100].fill(0);
    assert!(b.read(&b.open(file.ino()).await, 0, 60_000).await == expected);
    a.fault.heal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d65_a_copy_is_what_the_source_was() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    let (from, to) = (a.create("from").await, a.create("to").await);
    let data = pattern(3_000_000, 5);
    a.write(&from, 0, &data).await;
    let patient = crate::client::session::Caller::patient();
    let mut copied = 0;
    while copied < data.len() as u64 - 7 {
        let left = 1 << 30;
        copied += a.path.copy((&from, 7 + copied), (&to, copied), left, false, &patient).await.expect("copies");
    }
    assert_eq!(a.path.copy((&from, 3_000_000), (&to, 0), 10, false, &patient).await, Ok(0), "at the end");
    a.path.sync_all(&patient).await.expect("stable");
    let seen = b.open(to.ino()).await;
    let mut got = Vec::new();
    while got.len() < copied as usize {
        got.extend(b.read(&seen, got.len() as u64, 1 << 20).await);
    }
    assert!(got == data[7..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d66_a_sync_of_everything_survives_a_crash_of_node_coordinator_and_disk_cache() {
    let mut cluster = Cluster::on(MemDevice::with_volatile_cache(ByteLen(1 << 30), BlockSize::B512)).await;
    let mut files = Vec::new();
    {
        let node = cluster.node(1);
        for n in 0..5 {
            let file = node.create(&format!("f{n}")).await;
            node.write(&file, 0, &pattern(50_000, n)).await;
            files.push(file.ino());
        }
        let patient = crate::client::session::Caller::patient();
        node.soon(node.path.sync_all(&patient)).await.expect("stable");
    }
    cluster.kill_coordinator().await;
    cluster.device.crash();
    cluster.take_office(4).await;
    let other = cluster.node(2);
    for (n, ino) in files.into_iter().enumerate() {
        assert_eq!(other.read(&other.open(ino).await, 0, 60_000).await, pattern(50_000, n as u8));
    }
}
