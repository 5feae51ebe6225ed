//! Group commit, and what a call costs.

use std::sync::Arc;

use super::cluster::*;
use crate::proto::*;
use crate::types::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_commits() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let a = Arc::new(Client::bound(1, &coordinator).await);
    let metrics = coordinator.metrics();
    let before = (metrics.commits.get(), metrics.changes.get());
    let callers = (0..32u8).map(|n| {
        let a = Arc::clone(&a);
        tokio::spawn(async move {
            for i in 0..8 {
                let answer = a.call_in(n, create(&format!("{n}-{i}"), 0)).await;
                assert!(matches!(answer, Answer::Ok(_)), "{answer:?}");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let (commits, changes) = (metrics.commits.get() - before.0, metrics.changes.get() - before.1);
    assert_eq!(changes, 256);
    assert!(commits <= 128, "{commits} commits for {changes} changes");
}

#[tokio::test]
async fn a_call_that_changes_nothing_commits_nothing() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let a = Client::bound(1, &coordinator).await;
    a.create("f").await;
    let before = coordinator.metrics().commits.get();
    let enoent = Answer::Errno(rustix::io::Errno::NOENT.raw_os_error());
    assert_eq!(a.call_in(0, unlink("nothing")).await, enoent);
    assert!(matches!(a.lookup("f").await, Answer::Ok(_)));
    let ino = InodeNo::ROOT;
    assert!(matches!(a.call_in(0, Request::Getattr { ino }).await, Answer::Ok(_)));
    assert_eq!(coordinator.metrics().commits.get(), before);
}

#[tokio::test]
async fn a_failed_operation_spoils_no_other_of_its_commit() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let a = Client::bound(1, &coordinator).await;
    a.create("there").await;
    let calls = (0..20u8).map(|n| a.call_in(n, create(if n % 2 == 0 { "there" } else { NAMES[usize::from(n)] }, 0)));
    let exists = Answer::Errno(rustix::io::Errno::EXIST.raw_os_error());
    for (n, answer) in futures_all(calls).await.into_iter().enumerate() {
        assert_eq!(answer == exists, n % 2 == 0, "{n}: {answer:?}");
    }
}

const NAMES: [&str; 20] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];

/// All of them at once, in order of their start.
async fn futures_all<F: Future<Output = Answer>>(futures: impl Iterator<Item = F>) -> Vec<Answer> {
    let mut pinned: Vec<_> = futures.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, answer) in &mut pinned {
            if answer.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *answer = Some(ready);
            }
        }
        if pinned.iter().all(|(_, a)| a.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pinned.into_iter().filter_map(|(_, answer)| answer).collect()
}
