//! Commands that go past the multipath device: COMPARE AND WRITE, PREEMPT AND ABORT, RESERVE, LOGICAL UNIT RESET. Its proof does not
//! cover them, so whoever leaves the unit lets none begin any more, and waits until those under way are answered.
//!
//! Prevents: a process leaves with a lease in the disk behind the target, and says that nothing of it comes any more; the next one goes on
//! with its incarnation, and finds itself in an office that it never took.
//!
//! A command is counted until it is answered, whatever becomes of who wanted it. What is answered without a word of whether it was
//! carried out, or not at all, has not ended. What was so before the end began is not remembered: a lease that lands then is given up
//! by the next process (`csv-fs/src/core/office/role.rs`), a slot is compared with what is there, and a preemption names its victim.

use std::sync::Arc;

use block::device::Op;
use block::error::{IoError, IoErrorKind};
use block::shared::{BoxFuture, CawOutcome, CompareAndWrite, ReserveError};
use block::units::{ByteLen, ByteOffset};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::unit::LunDevice;

/// The commands.
#[derive(Debug, Default)]
pub(super) struct Besides {
    state: Mutex<State>,
    /// One has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    shut: bool,
    /// One has ended since it was shut, and may still be carried out.
    in_doubt: bool,
}

impl State {
    /// Whether what was under way is known to be over, once nothing is.
    fn over(&self) -> Option<bool> {
        (self.under_way == 0).then_some(!self.in_doubt)
    }
}

impl Besides {
    /// Another one, unless none may begin any more.
    fn begins(self: &Arc<Self>) -> Option<UnderWay> {
        let mut state = self.state.lock();
        if state.shut {
            return None;
        }
        state.under_way += 1;
        drop(state);
        Some(UnderWay { besides: Arc::clone(self), is_over: false })
    }

    /// None begins any more.
    pub(super) fn shut(&self) {
        self.state.lock().shut = true;
    }

    /// Waits until none is under way. Whether each is known to be over that was under way when it was shut.
    pub(super) async fn are_over(&self) -> bool {
        loop {
            let ended = self.ended.notified();
            if let Some(over) = self.state.lock().over() {
                return over;
            }
            ended.await;
        }
    }

    /// Asks something of the unit in a task of its own, so that it is counted until it is answered.
    pub(super) fn asks<F>(self: &Arc<Self>, ask: F) -> BoxFuture<'static, Result<(), ReserveError>>
    where
        F: Future<Output = Result<(), ReserveError>> + Send + 'static,
    {
        let Some(under_way) = self.begins() else {
            return Box::pin(std::future::ready(Err(ReserveError::NotRegistered)));
        };
        let asked = tokio::spawn(async move {
            let answer = ask.await;
            under_way.answered(!matches!(answer, Err(ReserveError::Unknown(_))));
            answer
        });
        Box::pin(
            async move { asked.await.unwrap_or_else(|_| Err(ReserveError::Unknown("its task has ended".to_owned()))) },
        )
    }
}

/// One of them.
#[derive(Debug)]
struct UnderWay {
    besides: Arc<Besides>,
    is_over: bool,
}

impl UnderWay {
    /// It was answered. `is_over`: whether it was carried out or not, it is not any more.
    fn answered(mut self, is_over: bool) {
        self.is_over = is_over;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.besides.state.lock();
        state.under_way -= 1;
        state.in_doubt |= state.shut && !self.is_over;
        drop(state);
        self.besides.ended.notify_waiters();
    }
}

/// A unit's compare-and-write over one nexus, counted.
pub(super) struct CountedCaw {
    pub(super) unit: Arc<LunDevice>,
    pub(super) besides: Arc<Besides>,
}

impl CompareAndWrite for CountedCaw {
    fn compare_and_write(
        &self,
        at: ByteOffset,
        expect: Vec<u8>,
        new: Vec<u8>,
    ) -> BoxFuture<'_, Result<CawOutcome, IoError>> {
        let refused = IoError::new(IoErrorKind::ShuttingDown, Op::Write { fua: true }, at, ByteLen::of(&new));
        let Some(under_way) = self.besides.begins() else { return Box::pin(std::future::ready(Err(refused))) };
        let unit = Arc::clone(&self.unit);
        let asked = tokio::spawn(async move {
            let answer = unit.compare_and_write(at, expect, new).await;
            // An error is told of what was not carried out.
            under_way.answered(!matches!(answer, Ok(CawOutcome::Unknown)));
            answer
        });
        Box::pin(async move { asked.await.unwrap_or(Ok(CawOutcome::Unknown)) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn whoever_leaves_waits_for_what_is_under_way_and_lets_nothing_more_begin() {
        let besides = Arc::new(Besides::default());
        let one = besides.begins().expect("open");
        besides.shut();
        assert!(besides.begins().is_none());
        assert_eq!(besides.asks(async { Ok(()) }).await, Err(ReserveError::NotRegistered));
        assert!(tokio::time::timeout(SOON, besides.are_over()).await.is_err(), "one is under way");
        let waits = tokio::spawn({
            let besides = Arc::clone(&besides);
            async move { besides.are_over().await }
        });
        tokio::task::yield_now().await;
        one.answered(true);
        assert!(waits.await.expect("runs"));
    }

    #[tokio::test]
    async fn what_ends_without_a_word_of_what_became_of_it_is_not_over() {
        let besides = Arc::new(Besides::default());
        drop(besides.begins().expect("open"));
        let one = besides.begins().expect("open");
        besides.shut();
        drop(one);
        assert!(!besides.are_over().await);
    }

    /// What was so before is another rule's.
    #[tokio::test]
    async fn what_was_in_doubt_before_is_not_remembered() {
        let besides = Arc::new(Besides::default());
        drop(besides.begins().expect("open"));
        besides.shut();
        assert!(besides.are_over().await);
    }

    /// Who wanted it has gone; it is under way all the same.
    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_counted_until_it_is_answered() {
        let besides = Arc::new(Besides::default());
        let (answers, answer) = tokio::sync::oneshot::channel::<()>();
        drop(besides.asks(async move { answer.await.map_err(|_| ReserveError::NotRegistered) }));
        besides.shut();
        assert!(tokio::time::timeout(SOON, besides.are_over()).await.is_err());
        answers.send(()).expect("it is still asked");
        assert!(besides.are_over().await);
    }
}
