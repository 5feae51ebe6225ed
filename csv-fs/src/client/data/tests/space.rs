//! A volume that fills up: to the last block, from several nodes, over takeovers and evictions; and empty again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block::mem::MemDevice;
use block::units::{BlockSize, ByteLen};

use super::rig::*;
use crate::client::data::OpenFile;
use crate::client::session::{Caller, EIO, Errno};
use crate::client::space::ENOSPC;
use crate::proto::{Request, Space};
use crate::types::*;

/// Blocks left free by the file that takes the rest of the volume.
const LEFT: u64 = 2500;

async fn statfs(node: &Node) -> Space {
    let patient = Caller::patient();
    node.soon(node.path.statfs(&patient)).await.expect("statfs")
}

/// A volume with little room.
async fn small() -> (Cluster, Vec<Arc<Node>>) {
    let cluster = Cluster::on(MemDevice::new(ByteLen(1 << 30), BlockSize::B4096)).await;
    let nodes: Vec<_> = (1..=3).map(|n| Arc::new(cluster.node(n))).collect();
    let hog = nodes[0].create("hog").await;
    let free = statfs(&nodes[0]).await.free;
    nodes[0].fallocate(hog.ino(), 0, (free - LEFT) * FS_BLOCK).await;
    assert_eq!(statfs(&nodes[0]).await.free, LEFT);
    (cluster, nodes)
}

/// What a writer was told.
struct Written {
    file: Arc<OpenFile>,
    len: u64,
    seed: u8,
}

fn at(seed: u8, from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(|i| (i as u8).wrapping_mul(7).wrapping_add((i >> 12) as u8).wrapping_add(seed)).collect()
}

/// Fills files of one node until there is no space; each is longer by what every write said.
async fn fill(node: Arc<Node>, round: u8, wrote: Arc<AtomicU64>) -> Vec<Written> {
    let mut all = Vec::new();
    let mut sizes = (1..).map(|i: u64| 1 + (i * 7919 + u64::from(round) * 131) % 300_000);
    loop {
        let seed = round.wrapping_mul(40).wrapping_add(all.len() as u8);
        let number = node.session.client().node.get();
        let file = node.create(&format!("round-{round}-node-{number}-{}", all.len())).await;
        let mut written = Written { file, len: 0, seed };
        let full = loop {
            let n = sizes.next().unwrap();
            match node.try_write(&written.file, written.len, &at(seed, written.len, n)).await {
                Ok(n) => {
                    assert!(n > 0);
                    written.len += u64::from(n);
                    wrote.fetch_add(u64::from(n), Ordering::Relaxed);
                }
                Err(errno) => {
                    assert_eq!(errno, Errno(ENOSPC));
                    break true;
                }
            }
            if written.len > 1 << 20 {
                break false;
            }
        };
        all.push(written);
        if full {
            return all;
        }
    }
}

async fn must_be_whole(node: &Node, files: &[Written]) {
    for written in files {
        let file = node.open(written.file.ino()).await;
        assert_eq!(node.attr(file.ino()).await.size, written.len);
        let mut from = 0;
        while from < written.len {
            let got = node.read(&file, from, 1 << 20).await;
            assert!(!got.is_empty());
            assert!(got == at(written.seed, from, got.len() as u64), "from {from} of {}", written.len);
            from += got.len() as u64;
        }
        node.path.close(file.handle).await.expect("closes");
    }
}

async fn remove(node: &Node, owner: &Node, files: Vec<Written>) {
    for written in files {
        let name = name_of(owner, written.file.ino()).await;
        node.call(Request::Unlink { parent: InodeNo::ROOT, name }).await;
        owner.path.close(written.file.handle).await.expect("closes");
    }
}

async fn name_of(node: &Node, ino: InodeNo) -> Vec<u8> {
    let mut after = 0;
    loop {
        let list = Request::Readdir { dir: InodeNo::ROOT, after, max_bytes: 65_536, plus: false };
        let crate::proto::Reply::Entries { entries, .. } = node.call(list).await else { panic!() };
        if let Some(entry) = entries.iter().find(|e| e.ino == ino) {
            return entry.name.clone();
        }
        after = entries.last().expect("it is there").cookie;
    }
}

/// Fills the volume from every node at once; with `disturb`, the office is taken over meanwhile.
async fn fill_all(cluster: &mut Cluster, nodes: &[Arc<Node>], round: u8, disturb: bool) -> Vec<Vec<Written>> {
    let wrote = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = nodes.iter().map(|n| tokio::spawn(fill(Arc::clone(n), round, Arc::clone(&wrote)))).collect();
    if disturb {
        for (part, node) in [(3, 3), (2, 4)] {
            until(|| wrote.load(Ordering::Relaxed) > LEFT * FS_BLOCK / part).await;
            cluster.take_office(node).await;
        }
    }
    let mut all = Vec::new();
    for writer in writers {
        all.push(tokio::time::timeout(SOON * 2, writer).await.expect("in time").unwrap());
    }
    all
}

/// What statfs says is free is what can be written, to the block, by however many nodes at once; every byte that a write
/// said is there; and all of it is free again when the files are gone. Over takeovers, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d70_what_statfs_tells_can_be_written_to_the_block_and_is_free_again_when_all_is_removed() {
    let (mut cluster, nodes) = small().await;
    for round in 0..3 {
        let all = fill_all(&mut cluster, &nodes, round, round == 1).await;
        for node in &nodes {
            let patient = Caller::patient();
            node.soon(node.path.sync_all(&patient)).await.expect("stable");
        }
        let blocks: u64 = all.iter().flatten().map(|w| w.len.div_ceil(FS_BLOCK)).sum();
        assert_eq!((blocks, statfs(&nodes[1]).await.free), (LEFT, 0), "round {round}");
        for (n, files) in all.iter().enumerate() {
            must_be_whole(&nodes[(n + 1) % 3], files).await;
        }
        for (n, files) in all.into_iter().enumerate() {
            remove(&nodes[(n + 1) % 3], &nodes[n], files).await;
        }
        let patient = Caller::patient();
        for _ in 0..1000 {
            if nodes[0].path.statfs(&patient).await.unwrap().free == LEFT {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(statfs(&nodes[0]).await.free, LEFT, "round {round}");
    }
}

/// A write of a MiB found room for 10 blocks, and ENOSPC was said beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d71_a_write_for_which_there_is_not_enough_space_is_as_long_as_there_is() {
    let (_cluster, nodes) = small().await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let most = a.create("most").await;
    a.fallocate(most.ino(), 0, (LEFT - 10) * FS_BLOCK).await;
    let file = b.create("f").await;
    let data = pattern(1 << 20, 3);
    assert_eq!(b.try_write(&file, 100, &data).await, Ok(10 * 4096 - 100));
    assert_eq!(b.try_write(&file, 10 * 4096, &data).await, Err(Errno(ENOSPC)));
    // Its own blocks can be written; what would need new ones is left out.
    let again = pattern(1 << 20, 4);
    assert_eq!(b.try_write(&file, 8 * 4096 + 1, &again).await, Ok(2 * 4096 - 1));
    let appender = b.open_to_append(file.ino()).await;
    assert_eq!(b.try_write(&appender, 0, &[1]).await, Err(Errno(ENOSPC)));
    b.truncate(file.ino(), 9 * 4096 + 5).await;
    assert_eq!(b.try_write(&appender, 0, &data).await, Ok(4091), "in the block that is there");
    let expected =
        [vec![0; 100], data[..8 * 4096 + 1 - 100].to_vec(), again[..4096 + 4].to_vec(), data[..4091].to_vec()];
    assert!(a.read(&a.open(file.ino()).await, 0, 1 << 20).await == expected.concat());
    a.truncate(most.ino(), 0).await;
    assert_eq!(b.try_write(&file, 1 << 20, &data).await, Ok(1 << 20));
}

/// What a file keeps for its next blocks is found wherever its node is with it, and what a write only would like to have is
/// not taken where there is little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d72_no_enospc_is_said_beside_what_files_of_other_nodes_keep_for_later() {
    let (_cluster, nodes) = small().await;
    let mut written = 0;
    let mut files = Vec::new();
    for node in &nodes {
        let file = node.create(&format!("of-{}", node.session.client().node.get())).await;
        for i in 0..20 {
            node.write(&file, i * 40_960, &[1; 40_960]).await;
            written += 10;
        }
        files.push(file);
    }
    let last = nodes[2].create("last").await;
    let mut len = 0;
    while let Ok(n) = nodes[2].try_write(&last, len, &[2; 100_000]).await {
        len += u64::from(n);
    }
    assert_eq!(written + len.div_ceil(FS_BLOCK), LEFT);
    assert_eq!(statfs(&nodes[2]).await.files, 6, "root, hog and four");
}

/// A write had taken space and waited; its node was evicted, the space given to others, and the node began its next life:
/// the write went on, over what others had written there, and said that it was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d73_a_write_does_not_go_on_in_the_next_life_with_space_of_the_last() {
    let mut cluster = Cluster::new().await;
    let (a, b) = (Arc::new(cluster.node(1)), cluster.node(2));
    let file = a.create("f").await;
    a.write(&file, 0, &[1; 4096]).await;
    a.fsync(&file).await;
    let appender = a.open_to_append(file.ino()).await;
    // It finds that it needs space, and waits for that.
    until(|| a.path.space().is_idle()).await;
    let held = a.path.space().drain();
    a.call(Request::GrantReturn { ranges: held }).await;
    file.inode.state.lock().reserve = None;
    let held = a.path.space().drain();
    if !held.is_empty() {
        a.call(Request::GrantReturn { ranges: held }).await;
    }
    cluster.suspend(true);
    let write = {
        let (node, file) = (Arc::clone(&a), Arc::clone(&appender));
        tokio::spawn(async move { node.try_write(&file, 0, &pattern(100_000, 7)).await })
    };
    until(|| a.path.space().asks()).await;
    // Then it has space and a layout, and waits for its turn to append.
    let inode = Arc::clone(&file.inode);
    let turn = inode.appending.lock().await;
    cluster.suspend(false);
    until(|| !a.path.space().asks()).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    cluster.end_life(&a).await;
    cluster.next_life(&a).await;
    a.call(Request::Statfs).await;
    // What it had is somebody else's by now.
    let other = b.create("other").await;
    let theirs = pattern(8 << 20, 9);
    for (i, part) in theirs.chunks(1 << 20).enumerate() {
        b.write(&other, (i as u64) << 20, part).await;
    }
    drop(turn);
    assert_eq!(tokio::time::timeout(SOON, write).await.unwrap().unwrap(), Err(Errno(EIO)));
    for (i, part) in theirs.chunks(1 << 20).enumerate() {
        assert!(b.read(&other, (i as u64) << 20, 1 << 20).await == part, "MiB {i}");
    }
    assert_eq!(b.attr(file.ino()).await.size, 4096);
}

/// What is asked of a node between the beginning of its next life and its first bind is of that life, and waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d74_a_write_that_comes_before_the_next_life_is_bound_is_done_in_it() {
    let mut cluster = Cluster::new().await;
    let node = Arc::new(cluster.node(1));
    let file = node.create("f").await;
    node.write(&file, 0, &[1; 4096]).await;
    node.fsync(&file).await;
    node.path.let_everything_go().await;
    cluster.end_life(&node).await;
    cluster.kill_coordinator().await;
    cluster.next_life(&node).await;
    let write = {
        let (node, file) = (Arc::clone(&node), Arc::clone(&file));
        tokio::spawn(async move { node.try_write(&file, 4096, &[2; 100_000]).await })
    };
    until(|| node.session.load().0 > 0).await;
    cluster.take_office(4).await;
    assert_eq!(tokio::time::timeout(SOON, write).await.unwrap().unwrap(), Ok(100_000));
}
