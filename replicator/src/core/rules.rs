//! The rules that can be taken out, one at a time, to prove that the simulation notices.
//!
//! A node always runs with [`Rules::all`]; `Rules::without` exists only where the simulation is compiled. Each variant
//! quotes its rule; docs/semantics/replication.md says which interleaving it prevents.

/// One rule of the core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A block is written only in an extent that is durably hot.
    HotBeforeData,
    /// An extent leaves the log only after its bits are durable.
    BitsBeforeCold,
    /// A bit is cleared only when the peer was proved to hold what is here.
    ClearOnProof,
    /// At C a write is acknowledged when the peer has written it.
    WriteWaitsForPeer,
    /// At C a flush is acknowledged when the peer's writes are stable.
    FlushWaitsForPeer,
    /// Waiting requests complete without a lost peer only after its loss is granted and durable.
    DropIsGrantedFirst,
    /// Overlapping writes are executed in the order of the stream.
    OverlapsInOrder,
    /// An application's write waits for a synchronisation that reads its block.
    WriteDefersToSync,
    /// Who goes on without a peer begins a new generation.
    NewGenerationAlone,
    /// What a lost primary may not have sent to all becomes bits.
    UnsettledBecomesDirty,
    /// A settlement names those that have everything in it, and no others.
    SettlementNamesHolders,
    /// A voter keeps nothing for a ballot lower than it promised.
    LowerBallotRefused,
    /// A vote is durable before it is given.
    VoteIsDurable,
    /// What is written by a synchronisation is marked for every other peer.
    TargetMarksOthers,
    /// A target compares only where nobody's write but its source's is under way.
    CompareAtRest,
    /// A verification compares again what was written while it was compared.
    CompareAgain,
    /// That a full synchronisation was begun is durable after the bits that it set.
    BegunAfterBits,
    /// A peer makes what came before a barrier stable before it writes what came after.
    BarrierBeforeLater,
    /// A node that lost its cache reigns only if no member of the newest grant can have kept one.
    CacheKeeperReigns,
    /// Who starts has kept what it acknowledged only if it proves that: it was at rest, or only its process has ended.
    KeptIsProved,
    /// That a disk is at rest is written down when nothing is under way there.
    StableBeforeRest,
    /// What a failed write may have left is not cleared by the acknowledgement of what was read before.
    SpoiledStays,
    /// Without quorum a node reigns when every peer that is connected has promised.
    PeersAnswerFirst,
    /// Without quorum who has promised is not promoted itself before it has met the other again, or that one gave up.
    WhoPromisedWaits,
    /// A node that knows of no grant has no vote before a grant that names it is in force without it, and does not reign where others know one.
    NewcomerVotesLast,
    /// What a new replica was found to hold is marked for whoever may not hold the same.
    NewcomerMarksOthers,
    /// A peer is asked for acknowledgements before it is counted as a member, and has all that was acknowledged.
    JoinAfterDrain,
    /// A disk is opened only when everything that a former process asked of it has landed.
    AttachAtRest,
    /// What is new when a device grows is marked for every peer.
    GrowthIsMarked,
    /// The writes of all volumes have one order at a peer.
    VolumesInOneOrder,
    /// A flush makes the disks of all volumes stable.
    FlushIsOfAllDisks,
    /// That a volume was taken away stays written down.
    TakenAwayIsRemembered,
    /// A volume that is being taken away takes no request any more.
    NothingNewWhereItGoes,
    /// What is on a disk that a volume got is marked for every peer, and the replica is not whole until it is synchronised.
    SwappedIsMarked,
}

/// The rules in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    missing: Option<Rule>,
}

impl Rules {
    /// Every rule: what a node runs with.
    pub const fn all() -> Rules {
        Rules { missing: None }
    }

    /// All but one; only the simulation can construct it.
    #[cfg(any(test, feature = "simulation"))]
    pub const fn without(rule: Rule) -> Rules {
        Rules { missing: Some(rule) }
    }

    /// Whether a rule is in force.
    pub fn has(self, rule: Rule) -> bool {
        self.missing != Some(rule)
    }
}
