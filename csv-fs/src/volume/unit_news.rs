//! Tells people what outsiders do to a volume's unit, as far as the unit tells it: that it was reset, that its reservation was released.
//!
//! Each nexus of a node is told of the same reset, one after the other as they come to ask. So what comes within [`LULL`] is told once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use block::shared::{Notices, SharedDisk};

use super::host::{Notice, VolumeHost};

/// Two nexuses that are in use ask within that time: each is checked, and the lease is renewed, about once a second.
const LULL: Duration = Duration::from_secs(2);

/// What somebody did to a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnitNews {
    /// Reset it.
    Reset,
    /// Released its reservation, which is held again.
    Released,
}

/// What is new.
fn news(before: &Notices, now: &Notices) -> Vec<UnitNews> {
    let of = |is: bool, news| is.then_some(news);
    let reset = of(now.reset > before.reset, UnitNews::Reset);
    reset.into_iter().chain(of(now.released > before.released, UnitNews::Released)).collect()
}

/// Follows a volume's unit, if it has one, until the volume has ended.
pub(super) fn follow(host: &Arc<VolumeHost>, disk: &SharedDisk) {
    let Some(mut notices) = disk.nexuses().map(|nexuses| nexuses.notices()) else { return };
    let host: Weak<VolumeHost> = Arc::downgrade(host);
    tokio::spawn(async move {
        let mut told = *notices.borrow_and_update();
        while notices.changed().await.is_ok() {
            let first = news(&told, &notices.borrow_and_update());
            if first.is_empty() {
                continue;
            }
            let Some(host) = host.upgrade() else { return };
            first.into_iter().for_each(|news| host.notice(Notice::Unit(news)));
            drop(host);
            tokio::time::sleep(LULL).await;
            told = *notices.borrow_and_update();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_and_a_released_reservation_are_news_and_what_this_node_follows_up_itself_is_none() {
        let before = Notices { reset: 1, released: 4, ..Notices::default() };
        let more = Notices { cache_lost: 1, port_groups: 1, space_low: 1, ..before };
        assert!(news(&before, &more).is_empty());
        assert_eq!(news(&before, &Notices { reset: 3, ..more }), [UnitNews::Reset]);
        assert_eq!(news(&before, &Notices { released: 5, reset: 2, ..more }), [UnitNews::Reset, UnitNews::Released]);
    }
}
