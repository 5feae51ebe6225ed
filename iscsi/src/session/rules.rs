//! The rules that can be taken out, one at a time, to prove that the simulation notices.
//!
//! A session always runs with [`Rules::all`]; `Rules::without` exists only where the simulation is compiled. Each
//! variant quotes its rule; docs/semantics/iscsi.md says which interleaving it prevents.

/// One rule of the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A login always passes the security stage.
    SecurityStageFirst,
    /// A session is reinstated under the ISID that it had.
    SameIsid,
    /// A reinstated session proves the older one's tasks dead only at the same portal group.
    SamePortalGroup,
    /// Writes wait for the proof that the nexus is of their fence generation.
    WritesWaitForProof,
    /// What was submitted before a fence is purged, never sent.
    PurgeAtFence,
    /// A nexus is registered once: one that lost its registration is given up.
    RegisteredOnce,
    /// A compare-and-write without an answer is settled by reading its block, not by sending it again.
    CawSettledByNonce,
    /// A task that timed out is sent again only after its abort was answered.
    AbortBeforeReissue,
    /// A reset of a unit ends the tasks that were sent before it, not those that crossed it.
    ResetCoversOlder,
    /// A command is sent only inside the window.
    WindowKept,
    /// Data asked for by an R2T never wait behind commands.
    DataOutPassesWindow,
    /// A ping of the target is answered with its own tag and logical unit.
    PingEchoed,
    /// A gap in StatSN ends the connection.
    StatSnWithoutGap,
    /// Data-In is taken only in order: number and offset follow the last.
    DataInInOrder,
    /// A read is good only if its bytes and the residual make up what was asked for.
    ReadIsWhole,
    /// An R2T asks for the next bytes of its task and for no more than there are.
    R2tWithinTask,
    /// A task tag is not used again while the target may still use it.
    TagStaysTaken,
    /// After a logout request nothing more is sent.
    SilentAfterLogout,
}

/// The rules in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    missing: Option<Rule>,
}

impl Rules {
    /// Every rule: what a session runs with.
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
