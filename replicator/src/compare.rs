//! What two replicas that meet are to one another: equal, source and target, split off, strangers.
//!
//! One table of rules over what both sides say of themselves ([`Side`]), first match wins; then the policies, in their order.
//! The outcome names the rule that decided, and those that overruled it: it goes to the log as it is. Pure, and
//! *mirrored*: both sides calculate alone and come to opposite ends of the same decision; the handshake compares.
//!
//! A direction says whose data count; which blocks are sent is said by the bits of both sides together, which cover every
//! difference of every pair always (see [`crate::meta`]). So a rule that finds nothing to do never clears a
//! bit: bits that are left over lead to a synchronisation by comparison (rule [`Rule::LeftoverBits`]).
//!
//! With quorum, the newest grant decides whose data count ([`Rule::Granted`]): everything acknowledged is on all of its
//! members. Generations then only tell whether the data are related, and what is discarded.

mod policy;
mod table;
#[cfg(test)]
mod tests;

pub use policy::{AfterSplitBrain, OnePrimary, Policy, RrConflict, TwoPrimaries, ZeroPrimaries};

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, Grant, NodeId, Seq};
use crate::meta::superblock::DiskState;

/// What a side says of itself to one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Who.
    pub node: NodeId,
    /// The generation of its data.
    pub current: Generation,
    /// The generation it left this peer with; none if it did not go on without it.
    pub bitmap: Generation,
    /// Those it left other peers with.
    pub bitmap_others: Vec<Generation>,
    /// Former generations, newest first.
    pub history: Vec<Generation>,
    /// When its current generation began, in seconds since 1970.
    pub began: u64,
    /// How good its data are.
    pub disk: DiskState,
    /// It is primary now.
    pub primary: bool,
    /// It was found as a primary that had crashed, and nobody has settled that yet.
    pub crashed_primary: bool,
    /// It was primary and lost quorum.
    pub lost_quorum: bool,
    /// It was started anew since it was last equal to a primary: what was acknowledged and not flushed may be lost here.
    pub restarted: bool,
    /// It was connected to this peer, and equal, when it last wrote that down.
    pub reconnect: bool,
    /// Nobody is about to change its data: no synchronisation towards it is under way.
    pub stable: bool,
    /// Its administrator gives its changes up.
    pub discard_my_data: bool,
    /// The primary that it lost without a farewell, if one.
    pub lost_primary: Option<NodeId>,
    /// Where its stream is.
    pub position: Seq,
    /// Bits that it has set for this peer.
    pub dirty: u64,
    /// The newest grant it has accepted.
    pub grant: Grant,
    /// What it said at the beginning of the handshake has changed since.
    pub changed: bool,
}

/// What is to be done, as seen from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The data are equal.
    NoSync,
    /// The data here count.
    Source {
        /// Everything is sent, not what the bits say.
        full: bool,
    },
    /// The data there count.
    Target {
        /// Everything is sent, not what the bits say.
        full: bool,
    },
    /// The connection stays, no data flow: neither side has what counts.
    Wait,
    /// Something changed meanwhile: connect again.
    Retry,
    /// Both have written apart; nobody is overwritten.
    SplitBrain,
    /// The data have nothing in common.
    Unrelated,
    /// A living primary would lose its data.
    PrimaryWouldLose,
}

/// Which rule decided. The names are those of the log; docs/semantics/replication.md says what each prevents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What was said at the beginning of the handshake is true no more.
    InitialHandshakeChanged,
    /// Neither has data.
    JustCreatedBoth,
    /// There are no data here.
    JustCreatedSelf,
    /// There are none at the peer.
    JustCreatedPeer,
    /// A synchronisation from here ended, and this side did not hear of it.
    SyncSourceMissedFinish,
    /// The same from the peer.
    SyncPeerMissedFinish,
    /// One lost its cache, the other did not: who kept it has everything that was acknowledged.
    LostCache,
    /// Both were connected and equal.
    Reconnected,
    /// One was a primary that crashed (A or B): what it wrote last counts.
    CrashedPrimary,
    /// One was a primary that lost quorum.
    LostQuorum,
    /// Both were.
    LostQuorumBoth,
    /// One was a primary that crashed while the other was connected (C): its last writes are rolled back.
    PostCrash,
    /// One was connected.
    OneWasConnected,
    /// Neither was: one was a primary that crashed.
    BothOffCrashed,
    /// Neither was, both crashed.
    BothOffTie,
    /// Neither was, neither crashed.
    BothOff,
    /// A primary both had is gone; one side has more of its stream, as its bits tell.
    ReconcileBitmap,
    /// Both sides have bits: the position in the stream tells.
    ReconcileDagtag,
    /// Equal generations and bits: compared, never forgotten.
    LeftoverBits,
    /// The peer went on when this side was away.
    BitmapPeer,
    /// It did so from a generation that it left another peer with.
    BitmapPeerOther,
    /// This side went on when the peer was away.
    BitmapSelf,
    /// It did so from a generation that it left another peer with.
    BitmapSelfOther,
    /// This side's generation is a former one of the peer.
    HistoryPeer,
    /// The peer's is a former one of this side.
    HistorySelf,
    /// Both went on from the same generation.
    BitmapBoth,
    /// They have a former generation in common, or each is a former one of the other.
    HistoryBoth,
    /// They have nothing in common.
    UnrelatedData,
    /// The better disk is the source.
    DiskStates,
    /// A split brain is not judged while a side is about to change.
    Unstable,
    /// The side that was granted the newest reign is the source.
    Granted,
    /// Neither side has what was granted.
    NeitherGranted,
    /// A policy for split brains chose.
    AfterSplitBrain,
    /// The administrator gives one side's changes up.
    DiscardMyData,
    /// A living primary would become target.
    RrConflict,
    /// A living primary keeps its data, the crashed one's unreplicated tail goes (A).
    AutoDiscard,
}

/// A decision and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub verdict: Verdict,
    /// Every rule that spoke, in order; the last one decided. Never empty.
    pub rules: Vec<Rule>,
}

impl Verdict {
    /// The same as the peer sees it.
    #[must_use]
    pub fn mirrored(self) -> Verdict {
        match self {
            Verdict::Source { full } => Verdict::Target { full },
            Verdict::Target { full } => Verdict::Source { full },
            same => same,
        }
    }

    /// Whether data may flow.
    pub fn connects(self) -> bool {
        matches!(self, Verdict::NoSync | Verdict::Source { .. } | Verdict::Target { .. } | Verdict::Wait)
    }
}

impl Decision {
    /// The rule that decided.
    pub fn rule(&self) -> Rule {
        self.rules.last().copied().unwrap_or(Rule::UnrelatedData)
    }
}

/// Two sides, and how to settle what neither knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) me: &'a Side,
    pub(crate) peer: &'a Side,
    pub(crate) policy: &'a Policy,
}

/// What `me` and `peer` are to one another.
pub fn compare(me: &Side, peer: &Side, policy: &Policy) -> Decision {
    let pair = Pair { me, peer, policy };
    let (verdict, rule) = table::first_match(pair);
    policy::apply(pair, verdict, rule)
}

impl Pair<'_> {
    /// The tie-break: the lower node is the source.
    pub(crate) fn tie(self) -> Verdict {
        self.source_if(self.me.node < self.peer.node)
    }

    /// By the bits.
    pub(crate) fn source_if(self, me: bool) -> Verdict {
        if me { Verdict::Source { full: false } } else { Verdict::Target { full: false } }
    }

    /// A verdict for the case that both are down: a primary that lives now is followed instead.
    pub(crate) fn unless_one_lives(self, verdict: Verdict) -> Verdict {
        match (self.me.primary, self.peer.primary) {
            (true, false) => self.source_if(true),
            (false, true) => self.source_if(false),
            _ => verdict,
        }
    }

    pub(crate) fn has_bits(self) -> bool {
        self.me.dirty > 0 || self.peer.dirty > 0
    }
}
