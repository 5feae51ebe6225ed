//! Look-ups that need no reader thread.

use super::cluster::*;
use crate::proto::*;

#[tokio::test]
async fn what_was_looked_up_is_told_without_a_thread_until_it_changes() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let (a, b) = (Client::bound(1, &coordinator).await, Client::bound(2, &coordinator).await);
    let ino = a.create("f").await.ino;
    let count = || (coordinator.metrics().reads.get(), coordinator.metrics().known.get());
    let first = b.lookup("f").await;
    let (reads, known) = count();
    assert_eq!(a.lookup("f").await, first);
    assert_eq!(a.call_in(0, Request::Getattr { ino }).await, first);
    assert_eq!(count(), (reads, known + 2), "twice from memory");
    for mode in [0o600, 0o640] {
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        let Reply::Attr(changed) = a.call(Request::Setattr { ino, set }).await else { panic!() };
        assert_eq!(b.lookup("f").await, Answer::Ok(Reply::Attr(changed)));
        assert_eq!(b.lookup("f").await, Answer::Ok(Reply::Attr(changed)));
    }
    assert_eq!(count(), (reads + 2, known + 4), "a change is looked up once");
    a.call(unlink("f")).await;
    assert_eq!(b.lookup("f").await, Answer::Errno(rustix::io::Errno::NOENT.raw_os_error()));
}

/// The answer is in memory, and this node has been fenced meanwhile: somebody else may have changed it.
#[tokio::test]
async fn what_is_in_memory_is_told_to_nobody_once_the_latch_is_tripped() {
    let (coordinator, latch) = Volume::new().await.first().await;
    let a = Client::bound(1, &coordinator).await;
    a.create("f").await;
    assert!(matches!(a.lookup("f").await, Answer::Ok(_)));
    assert!(matches!(a.lookup("f").await, Answer::Ok(_)));
    latch.trip();
    assert_eq!(a.lookup("f").await, Answer::StaleEpoch { hint: None });
}
