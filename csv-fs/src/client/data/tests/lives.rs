//! Between two lives of a node: what comes then waits for the next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use block::buf::AlignedBuf;

use super::rig::*;
use crate::client::data::{OpenFile, ReadTo, WriteTo};
use crate::client::session::{Caller, EINTR, EIO, Errno};

/// A file that loses nothing when its node is evicted.
async fn settled_file(node: &Node, name: &str) -> Arc<OpenFile> {
    let file = node.create(name).await;
    node.write(&file, 0, &[1; 8192]).await;
    node.fsync(&file).await;
    node.path.let_everything_go().await;
    file
}

type Answer<T> = tokio::sync::oneshot::Receiver<Result<T, Errno>>;

fn write(node: &Node, file: &Arc<OpenFile>, data: &[u8]) -> Answer<u32> {
    let (to, answer) = tokio::sync::oneshot::channel();
    node.path.submit_write(file, 0, AlignedBuf::from_slice(data), false, WriteTo::wait(to));
    answer
}

fn read(node: &Node, file: &Arc<OpenFile>) -> Answer<crate::client::data::ReadData> {
    let (to, answer) = tokio::sync::oneshot::channel();
    node.path.submit_read(file, 0, 4096, ReadTo::Wait(to));
    answer
}

/// So long that what does not wait is answered.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// A program wrote a file a tenth of a second after its node was evicted, before the next life had begun, and got EIO.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d75_what_comes_between_two_lives_is_done_in_the_next() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = settled_file(&node, "f").await;
    let appender = node.open_to_append(file.ino()).await;
    cluster.end_life(&node).await;
    let (mut reading, mut writing, mut appending) =
        (read(&node, &file), write(&node, &file, &[2; 4096]), write(&node, &appender, &[3; 100]));
    a_while().await;
    let early = (reading.try_recv().is_ok(), writing.try_recv().is_ok(), appending.try_recv().is_ok());
    assert_eq!(early, (false, false, false));
    cluster.next_life(&node).await;
    let got = node.soon(reading).await.unwrap().unwrap();
    assert!(*got == [1; 4096] || *got == [2; 4096], "both came at once");
    assert_eq!(node.soon(writing).await.unwrap(), Ok(4096));
    assert_eq!(node.soon(appending).await.unwrap(), Ok(100));
    assert_eq!(node.read(&file, 0, 4096).await, [2; 4096]);
    assert_eq!(node.read(&file, 8192, 4096).await, [3; 100]);
    node.fsync(&file).await;
    cluster.must_be_clean().await;
}

/// A handle whose lock, or data, was lost does not wait: and one that is poisoned while its write waits is not let through with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d76_a_handle_that_lost_something_is_not_used_in_the_next_life() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let (late, other) = (settled_file(&node, "late").await, settled_file(&node, "other").await);
    let lost = node.create("lost").await;
    node.write(&lost, 0, &[6; 4096]).await;
    assert_eq!(cluster.end_life(&node).await.poisoned, vec![lost.handle]);
    assert_eq!(node.soon(write(&node, &lost, &[7; 4096])).await.unwrap(), Err(Errno(EIO)));
    let (writing, reading, others) =
        (write(&node, &late, &[7; 4096]), read(&node, &late), write(&node, &other, &[7; 4096]));
    a_while().await;
    // As by an eviction that is still going through the handles when the write comes.
    late.poison();
    cluster.next_life(&node).await;
    assert_eq!(node.soon(writing).await.unwrap(), Err(Errno(EIO)));
    assert_eq!(node.soon(reading).await.unwrap().map(drop), Err(Errno(EIO)));
    assert_eq!(node.soon(others).await.unwrap(), Ok(4096));
    let again = node.open(late.ino()).await;
    assert_eq!(node.read(&again, 0, 4096).await, [1; 4096]);
    cluster.must_be_clean().await;
}

/// What was under way belongs to the life that accepted it; a read changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d77_of_what_an_eviction_interrupts_reads_are_done_in_the_next_life_and_writes_fail() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let (file, to) = (settled_file(&node, "f").await, settled_file(&node, "to").await);
    let asking = file.inode.asking.lock().await;
    let slow = node.path.counters().slow.load(Ordering::Relaxed);
    let (mut reading, writing) = (read(&node, &file), write(&node, &file, &[2; 4096]));
    until(|| node.path.counters().slow.load(Ordering::Relaxed) == slow + 2).await;
    a_while().await;
    let caller = Caller::of_program(node.session.sweep_now());
    let copying = {
        let (path, from, to, caller) = (Arc::clone(&node.path), Arc::clone(&file), Arc::clone(&to), caller);
        tokio::spawn(async move { path.copy((&from, 0), (&to, 0), 4096, false, &caller).await })
    };
    a_while().await;
    cluster.end_life(&node).await;
    drop(asking);
    assert_eq!(node.soon(writing).await.unwrap(), Err(Errno(EIO)));
    assert_eq!(
        node.soon(copying).await.unwrap(),
        Err(Errno(EIO)),
        "it does not wait for a life in which it is not done"
    );
    a_while().await;
    assert!(reading.try_recv().is_err(), "between two lives");
    let early = node.path.life() - 1;
    cluster.next_life(&node).await;
    assert_eq!(*node.soon(reading).await.unwrap().unwrap(), [1; 4096]);
    // One that was looked at in the life before, and goes on now, where another handle of the file has a layout.
    node.write(&file, 0, &[3; 4096]).await;
    node.fsync(&file).await;
    node.write(&file, 0, &[3; 4096]).await;
    let write = |life| {
        let (answer, _ended) = tokio::sync::oneshot::channel();
        let to = WriteTo { life, ..WriteTo::wait(answer) };
        node.path.hot_write(&file.inode, 0, AlignedBuf::from_slice(&[4; 4096]), false, to).is_ok()
    };
    assert_eq!((write(early), write(node.path.life())), (false, true));
    cluster.must_be_clean().await;
}

/// Who waits for the next life may be interrupted, waits no longer than `io_timeout`, and not for one that does not follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d78_whoever_waits_for_the_next_life_is_let_go() {
    let mut cluster = Cluster::new().await;
    let node = Arc::new(cluster.node(1));
    let file = settled_file(&node, "f").await;
    cluster.end_life(&node).await;
    let caller = Caller::of_program(node.session.sweep_now());
    let waits = {
        let (node, caller) = (Arc::clone(&node), caller.clone());
        tokio::spawn(async move { node.session.next_life(&caller).await })
    };
    let writing = write(&node, &file, &[2; 4096]);
    a_while().await;
    assert!(!waits.is_finished());
    caller.interrupt(&node.session);
    assert_eq!(node.soon(waits).await.unwrap(), Err(Errno(EINTR)));
    node.session.no_life_follows();
    assert_eq!(node.soon(writing).await.unwrap(), Err(Errno(EIO)));
    assert_eq!(node.soon(write(&node, &file, &[2; 4096])).await.unwrap(), Err(Errno(EIO)));

    cluster.io_timeout = Duration::from_millis(500);
    let impatient = cluster.node(2);
    let file = settled_file(&impatient, "g").await;
    cluster.end_life(&impatient).await;
    assert_eq!(impatient.soon(write(&impatient, &file, &[2; 4096])).await.unwrap(), Err(Errno(EIO)));
    assert_eq!(impatient.path.counters().snapshot().timed_out, 1);
    cluster.next_life(&impatient).await;
    assert_eq!(impatient.read(&file, 0, 4096).await, [1; 4096], "what failed has landed");
}
