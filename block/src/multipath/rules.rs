//! The rules that can be taken out, one at a time, to prove that the simulation notices.
//!
//! A device always runs with [`Rules::all`]. Each variant quotes its rule; docs/semantics/iscsi.md says which interleaving
//! it prevents.

/// One rule of the paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A change without an answer is sent again only when its path was proved dead.
    DeadBeforeReissue,
    /// A path whose changes are not proved dead takes no request.
    NothingBeforeProof,
    /// A conflict of reservations is an answer: it is never tried over another path.
    ConflictIsFinal,
    /// A path is used only after its disk was proved to be this one.
    SameDiskOnly,
    /// The late answer to a request that was sent again elsewhere is passed over.
    LateAnswersPass,
    /// What is withdrawn is told to be withdrawn when it is dead.
    WithdrawnWhenDead,
    /// Requests go to the best port groups that can be reached.
    BestGroupOnly,
    /// Reads of a failed path go over another one at once.
    ReadsGoAround,
    /// A path that does not answer in time has failed.
    SilenceFails,
    /// While a port group changes its state, requests wait.
    TransitionWaits,
    /// No more requests wait for a path than the bound says.
    QueueBounded,
}

/// The rules in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    missing: Option<Rule>,
}

impl Rules {
    /// Every rule: what a device runs with.
    pub const fn all() -> Rules {
        Rules { missing: None }
    }

    /// All but one; only tests can construct it.
    #[cfg(test)]
    pub(super) const fn without(rule: Rule) -> Rules {
        Rules { missing: Some(rule) }
    }

    /// Whether a rule is in force.
    pub fn has(self, rule: Rule) -> bool {
        self.missing != Some(rule)
    }
}
