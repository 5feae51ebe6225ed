//! The rules that can be taken out, one at a time, to prove that the simulation notices.
//!
//! A daemon runs with [`Rules::all`]. `Rules::without` exists only where the simulation is compiled, and in builds with debug
//! assertions, where a test of real processes may have a daemon that lacks a rule (key `without_rule`); what is installed is
//! built without them, so a running system cannot lose a rule. Each variant quotes its rule; docs/semantics/fencing.md says
//! which interleaving it prevents.

/// One rule of the safety core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A nexus registers, *then* reads its slot, and does I/O only if `fence_gen` is the one it was granted.
    RegisterThenReadSlot,
    /// A nexus is admitted only once what a lost office of its node left has ended; no grant comes before that end.
    EndedBeforeAdmitted,
    /// At home the proof that nothing is in flight covers every nexus: the key of one that does not answer is preempted.
    EveryNexusIsProved,
    /// The latch is tripped and every metadata write has ended before `resigned` is written.
    DrainBeforeResign,
    /// NothingInFlight is proved before the coordinator accepts the node's redirected I/O.
    AbortBeforeRedirect,
    /// A higher bind number cancels or completes every redirected request of lower binds before BIND is answered.
    BindCancelsOlder,
    /// A new coordinator finishes every `evicting` it finds before it gives anything away.
    FinishEvicting,
    /// Who may re-assert is decided by the durable session table alone.
    ReassertBySessionTable,
    /// A CAW whose reply was lost is settled only by reading back one's own nonce or a newer value.
    LostCawIsUnsettled,
    /// A fencer compares the incarnation in the slot it raises with the one it means to fence.
    FenceNamesIncarnation,
    /// A return request never waits for an ordinary request's slot.
    ReturnsHaveOwnSlots,
    /// A recall of a node on a draining route waits for that route, within its bound.
    DrainingCountsAsProgress,
    /// Freed space is reused only when every layout on it was returned or its holder fenced.
    FreeAfterReturn,
    /// The stored answer of a request is replayed; it is not executed again.
    StoredAnswers,
    /// A client sends nothing of what is unanswered before its new BIND is answered.
    ResendAfterBind,
    /// What is repeated after the history has changed is followed by whatever was written over it meanwhile.
    RepeatInOrder,
    /// A grant that is older than a fence opens no gate, whenever its answer comes.
    FenceOutlastsAnswers,
    /// A path is taken back only after every redirected request has been answered and flushed.
    DrainBeforePathBack,
    /// A layout is given back only after the last request that took a guard on it has ended.
    DrainBeforeReturn,
    /// The old epoch is fenced, or has resigned, before the lease is taken.
    FenceBeforeLease,
    /// The proof that a coordinator was fenced is of one reign; it says nothing of a later one of the same client.
    ProofOfOneReign,
    /// A client that holds file locks has come back to a new coordinator only once it has named them, and grace waits for it.
    GraceWaitsForLocks,
    /// A victim says "fenced" only once every request of its own has ended.
    AnswerNeedsNothingInFlight,
    /// A node's raise of its own generation counts only when the renewal that carries it has landed.
    OwnRaiseHasLanded,
    /// A commit tells of mappings and lengths only after the data below them was flushed.
    FlushBeforeMapping,
    /// A write of a part of a block writes back what is around it.
    KeepAround,
    /// What lies between the old end of a file and a write behind it is zeroed before.
    ZeroBehindEnd,
    /// The length that reads of a node go by is never older than the answer to a write of that node.
    LengthIsPublished,
    /// Attributes are told after every other node's exclusive holder has committed.
    SyncBeforeAttributes,
    /// A file without a name is freed only when nobody has it open any more.
    OpenKeepsOrphan,
    /// RELEASE ends the locks that were taken through its handle.
    ReleaseEndsLocks,
    /// What a lock request was given after its caller had gone is undone.
    AbandonedLockIsUndone,
    /// What an office hears of its node's path is what became of requests, not the route that is published.
    PathIsNotRoute,
    /// Nobody is refused a lock because of one that its holder may not have heard of.
    RefusedByRecord,
    /// What a caller that has gone left unanswered is answered before anything of its file that must come after it.
    LeftBehindFirst,
    /// A life hands its incarnation on to the next only when it holds no layout and nothing of it is unanswered.
    LeavesWithEmptyHands,
    /// Where no LIVE lock says that a process has ended, its incarnation goes on in the next only if it has itself proved that nothing which
    /// it had sent can land any more.
    EndedBeforeHandedOn,
    /// What a call asks, and under which number, is kept outside the process before it is sent.
    NotedBeforeSent,
    /// A request of the kernel that comes again is given the answer to what it led to before.
    ClaimedOnce,
    /// What a program was told is written, and no commit has covered, is kept outside the process before.
    WriteIsNoted,
    /// That a victim's keys are gone proves nothing: a fence counts by its own answered PREEMPT AND ABORTs under its mark, and after
    /// one that was begun and not finished only by a reset of the unit.
    AnsweredPreempt,
    /// A program's request gets EIO after `io_timeout` only once it can no longer be executed.
    ExpiredIsWithdrawn,
    /// A write in place that may have been executed is executed again only over blocks that nobody is known to have written since it began.
    AskedBeforeRepeated,
}

/// The rules in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    missing: Option<Rule>,
}

impl Rules {
    /// Every rule: what a daemon runs with.
    pub const fn all() -> Rules {
        Rules { missing: None }
    }

    /// All but one; only the simulation and builds with debug assertions can construct it.
    #[cfg(any(test, feature = "simulation", debug_assertions))]
    pub const fn without(rule: Rule) -> Rules {
        Rules { missing: Some(rule) }
    }

    /// Whether a rule is in force.
    pub fn has(self, rule: Rule) -> bool {
        self.missing != Some(rule)
    }
}
