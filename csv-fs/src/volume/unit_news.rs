//! Tells people what outsiders do to a volume's unit, as far as the unit tells it: that it was reset, that its reservation was released.
//!
//! Each nexus of a node is told of the same reset, one after the other as they come to ask. So what comes of a kind within [`LULL`] is told once;
//! of the other kind it is told behind that.

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

/// What counts as told, `now` that a lull is over: everything of the kinds that were told at its beginning.
fn past(before: &Notices, now: &Notices, told: &[UnitNews]) -> Notices {
    let of = |kind, before, now| if told.contains(&kind) { now } else { before };
    let reset = of(UnitNews::Reset, before.reset, now.reset);
    Notices { reset, released: of(UnitNews::Released, before.released, now.released), ..*now }
}

/// Follows a volume's unit, if it has one, until the volume has ended.
pub(super) fn follow(host: &Arc<VolumeHost>, disk: &SharedDisk) {
    let Some(mut notices) = disk.nexuses().map(|nexuses| nexuses.notices()) else { return };
    let host: Weak<VolumeHost> = Arc::downgrade(host);
    tokio::spawn(async move {
        let mut told = *notices.borrow_and_update();
        loop {
            let first = news(&told, &notices.borrow_and_update());
            if first.is_empty() {
                match notices.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
            let Some(host) = host.upgrade() else { return };
            first.iter().for_each(|news| host.notice(Notice::Unit(*news)));
            drop(host);
            tokio::time::sleep(LULL).await;
            told = past(&told, &notices.borrow(), &first);
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

    #[test]
    fn a_reservation_that_is_released_right_after_a_reset_is_told_too() {
        let before = Notices { reset: 1, released: 4, ..Notices::default() };
        let told = [UnitNews::Reset];
        let after = past(&before, &Notices { reset: 3, released: 5, ..before }, &told);
        assert_eq!((after.reset, after.released), (3, 4), "the other nexuses' resets are the same one");
        assert_eq!(news(&after, &Notices { reset: 3, released: 5, ..before }), [UnitNews::Released]);
    }
}
