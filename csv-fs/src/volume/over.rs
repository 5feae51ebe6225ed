//! How a volume's life on this node ends although nobody asked this node for it. Told once, the first that happens; whoever
//! composes the node stops the volume then, which gives back what it holds.
//!
//! A disk that carries another volume ends it before anything more is written there: see `VolumeHost::other_volume`.
//!
//! The end of the mount is told by its channels: they end with the FUSE connection. A mount that is taken out of the tree
//! while files are open (`umount -l`) ends with the last of them. The end that this node makes itself is not told.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// What ended it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Over {
    /// Somebody else unmounted it.
    Unmounted,
    /// Somebody aborted its FUSE connection.
    Aborted,
    /// Its disk carries another volume now.
    OtherVolume {
        /// Its name.
        name: String,
        /// Its identity.
        id: String,
    },
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Over::Unmounted => f.write_str("its mount was taken away from outside (umount)"),
            Over::Aborted => f.write_str("its FUSE connection was aborted from outside"),
            Over::OtherVolume { name, id } => {
                write!(
                    f,
                    "the disk was formatted again as volume {name} ({id}), or exchanged; what it held is gone from there"
                )
            }
        }
    }
}

/// Where the end is told.
#[derive(Debug)]
pub(super) struct Life {
    over: watch::Sender<Option<Over>>,
    /// This node takes the mount away itself.
    unmounting: AtomicBool,
}

impl Life {
    pub(super) fn new() -> Life {
        Life { over: watch::Sender::new(None), unmounting: AtomicBool::new(false) }
    }

    /// The end, once it is there.
    pub(super) fn over(&self) -> watch::Receiver<Option<Over>> {
        self.over.subscribe()
    }

    /// It is over. Later ends do not count.
    pub(super) fn ends(&self, how: Over) {
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            if first {
                *over = Some(how);
            }
            first
        });
    }

    /// A channel of the mount has ended.
    pub(super) fn channel_ended(&self, how: Over) {
        if !self.unmounting.load(Ordering::Acquire) {
            self.ends(how);
        }
    }

    /// From now on the end of the mount is this node's own doing, or not any more: the mount stayed.
    pub(super) fn unmounting(&self, now: bool) {
        self.unmounting.store(now, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(life: &Life) -> Option<Over> {
        life.over().borrow().clone()
    }

    #[test]
    fn the_first_end_is_told_and_the_own_unmounting_is_none() {
        let life = Life::new();
        life.unmounting(true);
        life.channel_ended(Over::Unmounted);
        assert_eq!(told(&life), None);
        life.unmounting(false);
        life.channel_ended(Over::Aborted);
        life.channel_ended(Over::Unmounted);
        assert_eq!(told(&life), Some(Over::Aborted));
    }
}
