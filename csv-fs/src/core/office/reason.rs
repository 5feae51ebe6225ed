//! Why a coordinator is fenced by the node that takes its office: for people. Nothing is decided by it.

use std::fmt;

use block::shared::Epoch;

use super::{Office, PeerLoss};
use crate::types::ClientId;

/// Why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeoverWhy {
    /// It was an earlier life of this very node.
    EarlierLife,
    /// It is proved to have ended.
    Ended,
    /// It said that it has no path to the disk.
    NoPath,
    /// Its process is gone: its LIVE lock was acquired.
    ProcessGone,
    /// Its connection ended, and most nodes do not hear it.
    ConnectionEnded,
    /// It lives, and most nodes do not hear it.
    Outvoted,
    /// It does not renew its lease.
    LeaseSilent,
}

impl fmt::Display for TakeoverWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TakeoverWhy::EarlierLife => "it was an earlier life of this node",
            TakeoverWhy::Ended => "its session has ended",
            TakeoverWhy::NoPath => "it has no path to the disk",
            TakeoverWhy::ProcessGone => "its process is gone",
            TakeoverWhy::ConnectionEnded => "its connection ended, and most nodes do not hear it",
            TakeoverWhy::Outvoted => "most nodes do not hear it",
            TakeoverWhy::LeaseSilent => "it does not renew its lease",
        })
    }
}

impl Office {
    /// Why the holder of a reign is being fenced; `locked`: its LIVE lock is held here.
    pub(super) fn takeover_why(&self, holder: ClientId, epoch: Epoch, locked: bool) -> TakeoverWhy {
        let outvoted = self.arbiter.given.is_some_and(|clique| !clique.contains(holder.node));
        let ended = self.lost.get(&holder.node).is_some_and(|(how, _)| *how != PeerLoss::Silent);
        match () {
            () if holder.node == self.config.node => TakeoverWhy::EarlierLife,
            () if locked => TakeoverWhy::ProcessGone,
            () if self.no_path == Some(epoch) => TakeoverWhy::NoPath,
            () if self.is_ended(holder) => TakeoverWhy::Ended,
            () if self.look.lease_covered() >= self.config.timing.challenge_after => TakeoverWhy::LeaseSilent,
            () if outvoted && ended => TakeoverWhy::ConnectionEnded,
            () if outvoted => TakeoverWhy::Outvoted,
            () => TakeoverWhy::LeaseSilent,
        }
    }
}
