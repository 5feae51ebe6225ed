//! One client: what files hold.

use std::sync::Arc;
use std::time::Duration;

use super::rig::*;
use crate::types::*;
use block::mem::MemDevice;
use block::units::{BlockSize, ByteLen};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d01_what_was_written_is_read_back_whatever_its_alignment() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("a").await;
    for (offset, len) in [
        (0, 4096),
        (4096, 100),
        (4196, 9000),
        (20_000, 1),
        (20_001, 511),
        (65_536, 1 << 20),
        (65_000, 1000),
        (1_200_001, 77_777),
    ] {
        let data = pattern(len, offset as u8);
        node.write(&file, offset, &data).await;
        assert_eq!(node.read(&file, offset, len as u32).await, data, "{len} bytes at {offset}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d02_holes_and_the_rest_of_new_blocks_read_as_zeroes() {
    // Every block of the device holds something before the file gets it.
    let device = MemDevice::new(ByteLen(1 << 30), BlockSize::B512);
    let cluster = Cluster::on(device).await;
    let node = cluster.node(1);
    let old = node.create("old").await;
    node.write(&old, 0, &vec![0xaa; 1 << 20]).await;
    node.fsync(&old).await;
    node.truncate(old.ino(), 0).await;
    let file = node.create("a").await;
    node.write(&file, 10_000, b"x").await;
    let mut expected = vec![0; 10_001];
    expected[10_000] = b'x';
    assert_eq!(node.read(&file, 0, 20_000).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d03_reads_are_short_only_at_the_end_of_the_file() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("a").await;
    assert_eq!(node.read(&file, 0, 4096).await, b"");
    node.write(&file, 0, &pattern(5000, 1)).await;
    assert_eq!(node.read(&file, 4096, 4096).await.len(), 904);
    assert_eq!(node.read(&file, 5000, 4096).await, b"");
    assert_eq!(node.read(&file, 1 << 40, 4096).await, b"");
}

/// The published mapping of a file with many extents was not renewed when the file grew, and its length stood still with
/// it: what had just been written behind the end was not there, or not all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d03a_a_file_of_many_extents_is_read_up_to_the_end_that_it_has_now() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("a").await;
    for i in 0..200 {
        let offset = i * 3 * FS_BLOCK;
        let data = pattern(5000, i as u8);
        node.write(&file, offset, &data).await;
        assert_eq!(node.read(&file, offset, 8192).await, data, "the {i}th piece");
        assert_eq!(node.read(&file, offset + 4000, 8192).await, data[4000..], "the end of the {i}th piece");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d04_preallocated_space_reads_as_zeroes_and_takes_writes() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("a").await;
    node.fallocate(file.ino(), 0, 1 << 20).await;
    assert_eq!(node.attr(file.ino()).await.size, 1 << 20);
    assert_eq!(node.read(&file, 0, 8192).await, vec![0; 8192]);
    node.write(&file, 5000, b"hello").await;
    let got = node.read(&file, 4096, 8192).await;
    let mut expected = vec![0; 8192];
    expected[904..909].copy_from_slice(b"hello");
    assert_eq!(got, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d05_what_lay_behind_a_cut_does_not_come_back_when_the_file_grows() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("a").await;
    node.write(&file, 0, &[0xaa; 12_288]).await;
    node.truncate(file.ino(), 100).await;
    node.truncate(file.ino(), 8192).await;
    let mut expected = vec![0xaa; 100];
    expected.resize(8192, 0);
    assert_eq!(node.read(&file, 0, 20_000).await, expected, "grown by truncate");
    node.write(&file, 0, &[0xaa; 8192]).await;
    node.truncate(file.ino(), 100).await;
    node.write(&file, 2000, b"x").await;
    let mut expected = vec![0xaa; 100];
    expected.resize(2000, 0);
    expected.push(b'x');
    assert_eq!(node.read(&file, 0, 20_000).await, expected, "grown by a write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d06_fsync_survives_a_crash_of_node_coordinator_and_disk_cache() {
    let cluster = Cluster::on(MemDevice::with_volatile_cache(ByteLen(1 << 30), BlockSize::B512)).await;
    let mut cluster = cluster;
    let data = pattern(300_000, 3);
    let ino = {
        let node = cluster.node(1);
        let file = node.create("a").await;
        node.write(&file, 0, &data).await;
        node.fsync(&file).await;
        file.ino()
    };
    cluster.kill_coordinator().await;
    cluster.device.crash();
    cluster.take_office(4).await;
    let other = cluster.node(2);
    let file = other.open(ino).await;
    assert_eq!(other.read(&file, 0, 1 << 20).await, data);
}

/// As `sync FILE` does it, which has written nothing itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d06_fsync_by_who_wrote_nothing_covers_what_another_node_wrote_in_place() {
    let cluster = Cluster::on(MemDevice::with_volatile_cache(ByteLen(1 << 30), BlockSize::B512)).await;
    let mut cluster = cluster;
    let ino = {
        let (writer, other) = (cluster.node(1), cluster.node(2));
        let file = writer.create("a").await;
        writer.write(&file, 0, &pattern(65_536, 3)).await;
        writer.fsync(&file).await;
        let opened = other.open(file.ino()).await;
        writer.write(&file, 0, &pattern(65_536, 4)).await;
        other.fsync(&opened).await;
        file.ino()
    };
    cluster.kill_coordinator().await;
    cluster.device.crash();
    cluster.take_office(4).await;
    let other = cluster.node(3);
    let file = other.open(ino).await;
    assert_eq!(other.read(&file, 0, 1 << 20).await, pattern(65_536, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d07_steady_writes_and_reads_in_place_send_no_message() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("a").await;
    node.write(&file, 0, &vec![1; 1 << 20]).await;
    node.fsync(&file).await;
    let metrics = cluster.metrics();
    node.write(&file, 0, &[2; 4096]).await;
    // Times of writes in place may go once a second; they are what is left out here.
    let before = (metrics.calls.get(), metrics.redirects.get(), node.path.counters().snapshot());
    for i in 0..10_000u64 {
        let at = (i * 37 % 256) * 4096;
        if i % 2 == 0 {
            node.write(&file, at, &[3; 4096]).await;
        } else {
            node.read(&file, at, 4096).await;
        }
    }
    let after = node.path.counters().snapshot();
    assert_eq!(after.hot - before.2.hot, 10_000, "all of them on the hot path");
    assert_eq!(metrics.redirects.get(), before.1);
    let times = metrics.calls.get() - before.0;
    assert!(times <= 60, "only times, once a second: {times}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d08_blocks_uncommitted_count_in_stat() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("a").await;
    node.write(&file, 0, &[1; 8192]).await;
    let attr = node.attr(file.ino()).await;
    assert_eq!((attr.size, attr.blocks), (8192, BlockCount(2)));
    node.fsync(&file).await;
    assert_eq!(node.attr(file.ino()).await.blocks, BlockCount(2));
}

/// A length was committed without a flush when no block was new: after a crash, what a cut had left in the last block
/// was part of the file again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d09_a_length_that_outlives_a_crash_shows_nothing_that_was_cut_off() {
    let mut cluster = Cluster::on(MemDevice::with_volatile_cache(ByteLen(1 << 30), BlockSize::B512)).await;
    let ino = {
        let node = cluster.node(1);
        let file = node.create("a").await;
        node.write(&file, 0, &[0xaa; 4096]).await;
        node.fsync(&file).await;
        node.truncate(file.ino(), 100).await;
        node.write(&file, 2000, b"x").await;
        // Nobody asks for it to be durable; closing commits the length.
        node.path.close(file.handle).await.unwrap();
        file.ino()
    };
    cluster.kill_coordinator().await;
    cluster.device.crash();
    cluster.take_office(4).await;
    let other = cluster.node(2);
    let file = other.open(ino).await;
    let mut expected = vec![0xaa; 100];
    expected.resize(2000, 0);
    expected.push(b'x');
    assert_eq!(other.read(&file, 0, 8192).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_a_small_redirected_write_does_not_keep_the_slab_it_was_read_into() {
    let cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("a").await;
    node.write(&file, 0, &vec![1; 1 << 20]).await;
    node.session.force_redirect(true);
    node.routed(crate::core::client::Route::BlockRedirected).await;
    // As the kernel's requests are read: windows of a slab of a pool.
    let slabs = block::buf::BufPool::new(2 << 20, 4);
    let mut slab = slabs.get();
    for block in 0..64u64 {
        let mut payload = slab.split_to(8192);
        payload.advance(4096);
        payload.fill(block as u8);
        assert_eq!(node.path.write(&file, block * 4096, payload).await, Ok(4096));
    }
    let large = slab.split_to(256 << 10);
    assert_eq!(node.path.write(&file, 512 << 10, large).await, Ok(256 << 10));
    drop(slab);
    assert_eq!(node.session.load().3, (256 + 256) << 10, "all of it is kept");
    assert_eq!(slabs.idle(), 1, "the slab is back in its pool");
    assert_eq!(node.read(&file, 63 * 4096, 4096).await, [63; 4096]);
}

/// Two writers on one node, both past the end. The second had looked at the length before it waited for the first to
/// write the block of the old end, and then zeroed what the first had written there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d19_a_write_past_the_end_does_not_undo_one_that_made_the_file_longer_meanwhile() {
    let cluster = Cluster::new().await;
    let node = Arc::new(cluster.node(1));
    let file = node.create("f").await;
    node.write(&file, 0, &pattern(1000, 1)).await;
    for round in 0..5u64 {
        let end = node.attr(file.ino()).await.size;
        let (first, second) = (pattern(500, 2), pattern(500, 3));
        node.fault.delay(Duration::from_millis(60));
        let write = |at: u64, data: &[u8]| {
            let (node, file, data) = (Arc::clone(&node), Arc::clone(&file), data.to_vec());
            tokio::spawn(async move { node.write(&file, at, &data).await })
        };
        let one = write(end, &first);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let other = write(end + 700, &second);
        one.await.unwrap();
        other.await.unwrap();
        node.fault.heal();
        assert_eq!(node.read(&file, end, 500).await, first, "round {round}");
        assert_eq!(node.read(&file, end + 500, 200).await, vec![0; 200], "round {round}");
        assert_eq!(node.read(&file, end + 700, 500).await, second, "round {round}");
    }
}
