//! `io_timeout`: what waits too long gets EIO, but not before it is certain that it will not be executed.

use std::sync::Arc;
use std::time::Duration;

use super::rig::*;
use crate::client::data::OpenFile;
use crate::client::link::ClientEvent;
use crate::client::session::{Caller, EIO, Errno};
use crate::core::client::{Overdue, Route};
use crate::core::rules::Rule;
use crate::proto::{Reply, Request};
use crate::types::*;

const IO_TIMEOUT: Duration = Duration::from_millis(500);

async fn impatient(lacking: Lacking) -> Cluster {
    let mut cluster = Cluster::lacking(lacking).await;
    cluster.io_timeout = IO_TIMEOUT;
    cluster
}

/// A file with one written block, in place.
async fn file_of(node: &Node) -> Arc<OpenFile> {
    let file = node.create("f").await;
    node.write(&file, 0, &[1; 65_536]).await;
    node.fsync(&file).await;
    node.write(&file, 0, &[1; 4096]).await;
    file
}

/// A program's request that begins now.
fn program(node: &Node) -> Caller {
    Caller::of_program(node.session.sweep_now())
}

fn remove() -> Request {
    Request::Unlink { parent: InodeNo::ROOT, name: b"f".to_vec() }
}

async fn is_there(node: &Node) -> bool {
    let patient = Caller::patient();
    let found = node.session.call(&patient, Request::Lookup { parent: InodeNo::ROOT, name: b"f".to_vec() });
    matches!(node.soon(found).await, Ok(Reply::Attr(_)))
}

type Writing = tokio::task::JoinHandle<Result<u32, Errno>>;

/// A write that is with a disk which hangs, and of which it cannot be proved that it was withdrawn.
async fn stuck(cluster: &Cluster) -> (Arc<Node>, Arc<OpenFile>, Writing) {
    let node = Arc::new(cluster.node(1));
    let file = file_of(&node).await;
    node.fault.hold_aborts(true);
    node.fault.hang();
    let (writer, handle) = (Arc::clone(&node), Arc::clone(&file));
    let write = tokio::spawn(async move { writer.try_write(&handle, 0, &[2; 4096]).await });
    until(|| node.fault.held() > 0).await;
    (node, file, write)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d50_a_write_that_is_with_the_disk_gets_eio_only_once_it_was_withdrawn_and_does_not_land() {
    let mut cluster = impatient(Lacking::Nothing).await;
    let (node, file, write) = stuck(&cluster).await;
    until(|| node.session.waits_longer() == Overdue { at_disk: 1, ..Overdue::default() }).await;
    let said = |e: &ClientEvent| matches!(e, ClientEvent::IoOverdue { overdue } if overdue.at_disk == 1);
    until(|| node.events.lock().iter().any(said)).await;
    cluster.kill_coordinator().await;
    tokio::time::sleep(2 * IO_TIMEOUT).await;
    assert!(!write.is_finished(), "it may still land");
    // Now it is withdrawn, and there is nobody to redirect it to.
    node.fault.hold_aborts(false);
    assert_eq!(write.await.unwrap(), Err(Errno(EIO)));
    until(|| node.session.waits_longer() == Overdue::default()).await;
    until(|| node.events.lock().contains(&ClientEvent::IoTimeout { requests: 1 })).await;
    assert_eq!(node.path.counters().snapshot().timed_out, 1);
    node.fault.heal();
    cluster.take_office(4).await;
    node.routed(Route::Direct).await;
    assert_eq!(node.read(&file, 0, 4096).await, [1; 4096], "what failed has landed");
    node.write(&file, 0, &[3; 4096]).await;
    assert_eq!(node.read(&file, 0, 4096).await, [3; 4096]);
    cluster.must_be_clean().await;
}

/// Its program was told that it failed, and then it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_rule_the_write_that_got_eio_lands() {
    let cluster = impatient(Lacking::Rule(Rule::ExpiredIsWithdrawn)).await;
    let (node, file, write) = stuck(&cluster).await;
    assert_eq!(node.soon(write).await.unwrap(), Err(Errno(EIO)));
    node.fault.heal();
    node.fault.hold_aborts(false);
    node.routed(Route::Direct).await;
    assert_eq!(node.read(&file, 0, 4096).await, [2; 4096]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_withdrawn_and_finds_a_coordinator_is_executed_whatever_its_age() {
    let cluster = impatient(Lacking::Nothing).await;
    let (node, file, write) = stuck(&cluster).await;
    until(|| node.session.waits_longer().at_disk == 1).await;
    node.fault.hold_aborts(false);
    assert_eq!(node.soon(write).await.unwrap(), Ok(4096));
    assert_eq!(node.read(&file, 0, 4096).await, [2; 4096]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d51_what_waits_for_a_coordinator_and_was_not_sent_gets_eio_and_is_not_executed_by_the_next() {
    let mut cluster = impatient(Lacking::Nothing).await;
    let node = cluster.node(1);
    let file = file_of(&node).await;
    node.path.let_go(&file.inode).await;
    cluster.kill_coordinator().await;
    node.session.binding().wait_for(|b| !matches!(b, crate::core::client::Binding::Bound { .. })).await.unwrap();
    // Somebody patient is at it: whoever waits for him here does not wait for ever either.
    let committing = file.inode.committing.lock().await;
    let (removing, syncing) = (program(&node), program(&node));
    let all = async {
        tokio::join!(
            node.session.call(&removing, remove()),
            node.path.fsync(&file.inode, &syncing),
            node.path.write(&file, 0, block::AlignedBuf::from_slice(&[2; 4096])),
            node.path.read(&file, 0, 4096),
        )
    };
    let (removed, synced, written, read) = node.soon(all).await;
    let eio = Err(Errno(EIO));
    assert_eq!((removed.map(drop), synced, written.map(drop), read.map(drop)), (eio, eio, eio, eio));
    drop(committing);
    assert_eq!(node.session.load().1, 0, "nothing waits to be sent");
    cluster.take_office(4).await;
    assert!(is_there(&node).await);
    assert_eq!(node.read(&file, 0, 4096).await, [1; 4096]);
    cluster.must_be_clean().await;
}

/// A removal that a coordinator has and does not execute; that coordinator is followed by another.
async fn removed_without_an_answer(lacking: Lacking) -> (Result<(), Errno>, bool) {
    let mut cluster = impatient(lacking).await;
    let node = Arc::new(cluster.node(1));
    file_of(&node).await;
    cluster.suspend(true);
    let (caller, his) = (program(&node), Arc::clone(&node));
    let call = tokio::spawn(async move { his.session.call(&caller, remove()).await.map(drop) });
    until(|| call.is_finished() || node.session.waits_longer().calls == 1).await;
    cluster.take_office(4).await;
    let result = node.soon(call).await.unwrap();
    // What was sent again has been answered.
    until(|| node.session.load().0 == 0).await;
    let there = is_there(&node).await;
    cluster.must_be_clean().await;
    (result, there)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d52_a_change_that_was_sent_gets_eio_once_the_next_coordinator_will_not_execute_it() {
    assert_eq!(removed_without_an_answer(Lacking::Nothing).await, (Err(Errno(EIO)), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d52_without_the_rule_a_change_that_got_eio_is_executed_by_the_next_coordinator() {
    let lacking = Lacking::Rule(Rule::ExpiredIsWithdrawn);
    assert_eq!(removed_without_an_answer(lacking).await, (Err(Errno(EIO)), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d53_a_change_that_was_executed_and_not_heard_of_is_told_as_it_was() {
    let mut cluster = impatient(Lacking::Nothing).await;
    let node = Arc::new(cluster.node(1));
    // Nothing else of it is durable: no time of a write is told meanwhile.
    node.create("f").await;
    *node.fate.lock() = Fate::LostWithCoordinator;
    let (caller, his) = (program(&node), Arc::clone(&node));
    let call = tokio::spawn(async move { his.session.call(&caller, remove()).await.map(drop) });
    until(|| cluster.is_dead()).await;
    until(|| node.session.waits_longer().calls == 1).await;
    assert!(!call.is_finished());
    cluster.take_office(4).await;
    assert_eq!(node.soon(call).await.unwrap(), Ok(()), "the answer that was stored");
    assert!(!is_there(&node).await);
}
