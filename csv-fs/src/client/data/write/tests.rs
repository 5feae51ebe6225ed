//! What one life of a node accepted is not done in the next.

use super::*;
use crate::client::data::tests::rig::{Cluster, Node, SOON, until};

/// A node's life ends, and its next begins.
async fn lives_again(cluster: &mut Cluster, node: &Node) {
    cluster.end_life(node).await;
    cluster.next_life(node).await;
}

/// A node was evicted when the disk had taken a write, and the task of the write had not gone on yet. Then the blocks
/// were entered into the mapping for the next life, which committed them and was evicted for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_a_write_whose_layout_is_gone_are_not_mapped() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("f").await;
    let (inode, caller) = (Arc::clone(&file.inode), Caller::patient());
    let guard = node.path.guard_for_write(&inode, Some(0), FS_BLOCK, &caller).await.unwrap();
    let mut reserved = Some(node.path.space.reserve(&caller, 1, None).await.unwrap());
    let job =
        Job { inode: &inode, append: false, guard: &guard, offset: 0, end: FS_BLOCK, grows: true, caller: &caller };
    let Ok(Ok(plan)) = node.path.plan(&job, &mut reserved) else { panic!("no plan") };
    let mut data = AlignedBuf::from_slice(&[1; FS_BLOCK as usize]);
    node.path.put_image(&job, &plan, &mut data).await.unwrap();
    lives_again(&mut cluster, &node).await;
    assert_eq!(node.path.mapped(&job, &plan), Err(Errno(EIO)));
    drop(guard);
    let life = node.session.client();
    node.path.close(file.handle).await.unwrap();
    let again = node.open(inode.ino).await;
    node.write(&again, FS_BLOCK, &[2; 4096]).await;
    node.fsync(&again).await;
    assert_eq!(node.session.client(), life, "not evicted again");
    assert_eq!(node.read(&again, 0, 4096).await, [0; 4096]);
    cluster.must_be_clean().await;
}

/// A write waited for its turn to ask for a layout while its node was evicted and began its next life, and was executed in
/// that: after the locks of the life before had been given to others. So was one that came back from a path that was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_life_accepted_is_not_written_in_the_next() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("f").await;
    node.write(&file, 0, &[1; 8192]).await;
    node.fsync(&file).await;
    node.path.let_go(&file.inode).await;
    let asking = file.inode.asking.lock().await;
    let slow = node.path.counters().slow.load(Ordering::Relaxed);
    let (to, waits) = tokio::sync::oneshot::channel();
    node.path.submit_write(&file, 0, AlignedBuf::from_slice(&[2; 4096]), false, WriteTo::wait(to));
    let patient = Caller::patient();
    let mut punch = Box::pin(node.path.punch(file.ino(), 100, 200, &patient));
    let waiting = std::future::poll_fn(|cx| std::task::Poll::Ready(punch.as_mut().poll(cx).is_pending()));
    assert!(waiting.await);
    until(|| node.path.counters().slow.load(Ordering::Relaxed) > slow).await;
    lives_again(&mut cluster, &node).await;
    drop(asking);
    let both = async { tokio::join!(waits, punch) };
    let (written, punched) = tokio::time::timeout(SOON, both).await.expect("in time");
    assert_eq!((written.unwrap(), punched), (Err(Errno(EIO)), Err(Errno(EIO))));
    assert_eq!(node.read(&file, 0, 8192).await, [1; 8192]);

    node.write(&file, 0, &[1; 4096]).await;
    node.fsync(&file).await;
    node.fault.ignore_aborts(true);
    node.fault.hang();
    let (to, stuck) = tokio::sync::oneshot::channel();
    node.path.submit_write(&file, 0, AlignedBuf::from_slice(&[3; 4096]), false, WriteTo::wait(to));
    lives_again(&mut cluster, &node).await;
    node.fault.ignore_aborts(false);
    block::shared::AbortOwn::abort_outstanding(&*node.fault).await.unwrap();
    node.fault.heal();
    assert_eq!(tokio::time::timeout(SOON, stuck).await.expect("in time").unwrap(), Err(Errno(EIO)));
    let again = node.open(file.ino()).await;
    assert_eq!(node.read(&again, 0, 8192).await, [1; 8192]);
    cluster.must_be_clean().await;
}

/// A commit was put together, then the node was evicted and began its next life, and then the commit was sent. The new life
/// was evicted for it: the blocks were not granted to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_life_put_together_is_not_asked_for_by_the_next() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node(1);
    let file = node.create("f").await;
    node.write(&file, 0, &[1; 8192]).await;
    let life = node.session.client();
    let commit = file.inode.state.lock().map.commit_body(9, 0);
    assert_eq!(commit.extents.len(), 1);
    let ranges = node.path.space.drain();
    assert!(!ranges.is_empty());
    lives_again(&mut cluster, &node).await;
    let (ino, give_back, next) = (file.ino(), Vec::new(), node.session.client());
    for request in [Request::Commit { ino, commit, give_back }, Request::GrantReturn { ranges }] {
        assert_eq!(node.session.call_of(life, &Caller::patient(), request).await, Err(Errno(EIO)));
    }
    let reply = node.session.call_of(next, &Caller::patient(), Request::Statfs).await;
    assert!(matches!(reply, Ok(crate::proto::Reply::Space(_))), "{reply:?}");
    assert_eq!(node.session.client(), next);
    cluster.must_be_clean().await;
}
