//! How long to wait before something that failed is tried again: doubling, bounded, and short again when something
//! has changed. Used by the keeper of a volume (`node`).

use std::time::Duration;

use tokio::sync::watch;

/// The first wait: what a start lacks is often there a moment later (another daemon still ends, a disk comes up).
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait: somebody who puts a thing right sees within this that it helped, without giving a command.
const LONGEST: Duration = Duration::from_secs(10);

/// The waits between tries.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Nothing has failed yet.
    pub(super) fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// A try has failed: waits until the next, or until `news` changes, which may let it succeed.
    ///
    /// # Cancel safety
    /// Safe: at worst the next wait is longer.
    pub(super) async fn wait(&mut self, news: &mut watch::Receiver<u64>) {
        let wait = self.failed();
        match tokio::time::timeout(wait, news.changed()).await {
            Ok(Ok(())) => self.next = FIRST,
            // Nobody is left to ring.
            Ok(Err(_)) => tokio::time::sleep(wait).await,
            Err(_) => {}
        }
    }

    fn failed(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(backoff: &mut Backoff, n: usize) -> Vec<u128> {
        (0..n).map(|_| backoff.failed().as_millis()).collect()
    }

    #[test]
    fn tries_come_ever_more_rarely_down_to_one_in_ten_seconds() {
        let mut backoff = Backoff::new();
        assert_eq!(waits(&mut backoff, 7), [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    }

    #[tokio::test]
    async fn a_change_ends_the_wait_and_begins_the_waits_anew() {
        let (bell, mut news) = watch::channel(0);
        let mut backoff = Backoff::new();
        waits(&mut backoff, 6);
        let waiting = tokio::spawn(async move {
            backoff.wait(&mut news).await;
            backoff
        });
        bell.send_modify(|n| *n += 1);
        let mut backoff = waiting.await.expect("it ends");
        assert_eq!(waits(&mut backoff, 2), [500, 1000]);
    }
}
