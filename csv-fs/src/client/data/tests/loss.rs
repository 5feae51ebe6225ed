//! The disk loses its volatile cache.

use std::sync::Arc;

use block::device::DeviceExt;
use block::error::IoErrorKind;
use block::mem::MemDevice;
use block::units::{BlockSize, ByteLen};

use super::rig::*;
use crate::client::data::OpenFile;
use crate::client::link::ClientEvent;
use crate::client::session::{Caller, EIO, Errno};

async fn cluster() -> Cluster {
    Cluster::on(MemDevice::with_volatile_cache(ByteLen(1 << 30), BlockSize::B512)).await
}

/// A file of one block that is stable.
async fn stable(node: &Node, name: &str) -> Arc<OpenFile> {
    let file = node.create(name).await;
    node.write(&file, 0, &[1; 4096]).await;
    node.fsync(&file).await;
    file
}

async fn try_fsync(node: &Node, file: &Arc<OpenFile>) -> Result<(), Errno> {
    let patient = Caller::patient();
    node.soon(node.path.fsync(&file.inode, &patient)).await
}

/// The power of the disk fails and comes back; its next flush is told.
fn loses_its_cache(cluster: &Cluster, node: &Node) {
    cluster.device.crash();
    node.fault.lose_cache();
}

/// Two files were written; the first fsync's flush was told that the cache was lost, the second one's succeeded and was believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d95_after_a_loss_every_file_with_unflushed_writes_fails_and_no_other() {
    let cluster = cluster().await;
    let node = cluster.node(1);
    let (a, b, c) = (stable(&node, "a").await, stable(&node, "b").await, stable(&node, "c").await);
    node.write(&a, 0, &[2; 4096]).await;
    node.write(&b, 0, &[2; 4096]).await;
    loses_its_cache(&cluster, &node);
    assert_eq!(try_fsync(&node, &a).await, Err(Errno(EIO)), "its own flush was told");
    assert_eq!(try_fsync(&node, &b).await, Err(Errno(EIO)), "another's flush was told");
    assert_eq!(try_fsync(&node, &c).await, Ok(()), "it had lost nothing");
    assert_eq!([a.is_poisoned(), b.is_poisoned(), c.is_poisoned()], [true, true, false]);
    for file in [&a, &b] {
        let told = ClientEvent::WritesLost { ino: file.ino() };
        assert!(node.events.lock().contains(&told), "{:?}", node.events.lock());
    }
    // Whoever opens it again goes on, with what is there now.
    let again = node.open(b.ino()).await;
    node.write(&again, 0, &[3; 4096]).await;
    node.fsync(&again).await;
    cluster.device.crash();
    assert_eq!(node.read(&again, 0, 4096).await, [3; 4096]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d96_a_loss_that_somebody_elses_flush_was_told_of_is_not_passed_over() {
    let cluster = cluster().await;
    let node = cluster.node(1);
    let (a, closed) = (stable(&node, "a").await, stable(&node, "closed").await);
    node.write(&a, 0, &[2; 4096]).await;
    node.write(&closed, 0, &[2; 4096]).await;
    node.path.close(closed.handle).await.expect("closes");
    loses_its_cache(&cluster, &node);
    // The metadata store's, say, or that of a lease.
    assert_eq!(node.fault.flush().await.expect_err("told").kind, IoErrorKind::CacheLost);
    assert_eq!(try_fsync(&node, &a).await, Err(Errno(EIO)));
    let opened = node.open(closed.ino()).await;
    assert_eq!(try_fsync(&node, &opened).await, Err(Errno(EIO)), "nobody had it open when it happened");
}

/// The fsync failed; the next commit, seconds later, flushed an empty cache and mapped blocks whose data had never been stable: the file
/// showed what their former owner had left there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d97_what_no_commit_had_covered_is_forgotten_and_never_shows_what_lay_there_before() {
    let mut cluster = cluster().await;
    let node = cluster.node(1);
    let old = node.create("old").await;
    node.write(&old, 0, &vec![0xaa; 1 << 20]).await;
    node.fsync(&old).await;
    node.truncate(old.ino(), 0).await;
    let file = node.create("new").await;
    node.write(&file, 0, &vec![7; 1 << 20]).await;
    loses_its_cache(&cluster, &node);
    assert_eq!(try_fsync(&node, &file).await, Err(Errno(EIO)));
    // Whatever comes first, the commit that is due or this one.
    let again = node.open(file.ino()).await;
    let _ = try_fsync(&node, &again).await;
    let size = node.attr(file.ino()).await.size;
    let seen = node.read(&again, 0, 1 << 20).await;
    assert!(!seen.contains(&0xaa), "it shows what another file has left ({size} bytes long)");
    assert_eq!((size, seen.len()), (0, 0), "nothing of it was ever stable");
    node.write(&again, 0, &[8; 5000]).await;
    node.fsync(&again).await;
    cluster.device.crash();
    assert_eq!(node.read(&again, 0, 1 << 20).await, [8; 5000]);
    drop(node);
    cluster.must_be_sound().await.expect("sound");
}

/// A write was with the disk while the loss was told: no look at the files found it, and its success was believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d98_a_write_on_its_way_while_a_loss_is_told_fails() {
    let cluster = cluster().await;
    let node = cluster.node(1);
    let a = stable(&node, "a").await;
    node.fault.delay(std::time::Duration::from_millis(100));
    let (path, file) = (Arc::clone(&node.path), Arc::clone(&a));
    let data = block::AlignedBuf::from_slice(&[2; 4096]);
    let write = tokio::spawn(async move { path.write(&file, 0, data).await });
    until(|| node.fault.held() > 0).await;
    node.fault.lose_cache();
    assert_eq!(node.fault.flush().await.expect_err("told").kind, IoErrorKind::CacheLost);
    let written = node.soon(write).await.expect("it does not panic");
    assert_eq!(written, Err(Errno(EIO)));
}
