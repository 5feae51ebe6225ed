//! What overrules the table, in this order: disk states, instability, grants, policies for split brains, the
//! administrator, a living primary. All of it is the same on both sides, or the handshake refuses.

use super::{Decision, Pair, Rule, Side, Verdict};
use crate::ids::NodeId;
use crate::meta::superblock::DiskState;

/// A split brain with no primary. What cannot decide falls through to nothing: a split brain it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroPrimaries {
    /// Nobody decides.
    #[default]
    Disconnect,
    /// Who began its generation later gives in; if that says nothing, who changed less.
    DiscardYoungerPrimary,
    /// Who began it earlier gives in; if that says nothing, who changed less.
    DiscardOlderPrimary,
    /// Who changed nothing gives in.
    DiscardZeroChanges,
    /// Who changed less gives in.
    DiscardLeastChanges,
    /// This node gives in.
    DiscardNode(NodeId),
}

/// With one primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnePrimary {
    /// Nobody decides.
    #[default]
    Disconnect,
    /// As with none, but only if the secondary gives in.
    Consensus,
    /// As with none, also against the primary.
    ViolentlyAsZero,
    /// The secondary gives in.
    DiscardSecondary,
}

/// With two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TwoPrimaries {
    /// Nobody decides.
    #[default]
    Disconnect,
    /// As with none.
    ViolentlyAsZero,
}

/// What becomes of split brains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AfterSplitBrain {
    /// With no primary.
    pub zero: ZeroPrimaries,
    /// With one.
    pub one: OnePrimary,
    /// With two.
    pub two: TwoPrimaries,
    /// Also where only a former generation is in common: everything is sent then.
    pub always: bool,
}

/// A living primary would become target, and there is something to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RrConflict {
    /// No connection.
    #[default]
    Disconnect,
    /// Try again later.
    RetryConnect,
    /// It becomes target.
    Violently,
    /// Protocol A: a primary that crashed gives in to the living one; else no connection.
    AutoDiscard,
}

/// How two sides settle what their generations do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// For split brains.
    pub after_split_brain: AfterSplitBrain,
    /// For living primaries.
    pub rr_conflict: RrConflict,
    /// Reigns are granted by a majority.
    pub quorum: bool,
    /// Acknowledged writes may be missing at the peer's disk: protocols A and B.
    pub unconfirmed: bool,
    /// Protocol A.
    pub asynchronous: bool,
}

/// What overrules a decision, and by which rule.
type Step = fn(Pair<'_>, &Decision) -> Option<(Verdict, Rule)>;

/// Overrules the table where it has to be.
pub(super) fn apply(pair: Pair<'_>, verdict: Verdict, rules: Vec<Rule>) -> Decision {
    let mut decision = Decision { verdict, rules };
    if matches!(decision.verdict, Verdict::Retry | Verdict::Unrelated) {
        return decision;
    }
    let steps: [Step; 6] = [disk_states, unstable, granted, after_split_brain, discard_my_data, living_primary];
    for step in steps {
        if let Some((verdict, rule)) = step(pair, &decision) {
            decision.verdict = verdict;
            decision.rules.push(rule);
        }
        if decision.verdict == Verdict::Retry {
            break;
        }
    }
    decision
}

/// The direction did not come from what was written, but from a tie or from nothing.
fn is_arbitrary(decision: &Decision) -> bool {
    let ties = [Rule::LostQuorumBoth, Rule::BothOffTie, Rule::LeftoverBits, Rule::LostQuorum];
    ties.contains(&decision.rule())
}

fn disk_states(p: Pair<'_>, decision: &Decision) -> Option<(Verdict, Rule)> {
    let (mine, theirs) = (p.me.disk, p.peer.disk);
    let unequal = mine != theirs && !(p.me.primary || p.peer.primary);
    let nothing = decision.verdict == Verdict::NoSync && mine.min(theirs) == DiskState::Inconsistent;
    let fresh = decision.rule() == Rule::JustCreatedBoth;
    (mine != theirs && !fresh && ((is_arbitrary(decision) && unequal) || nothing))
        .then(|| (p.source_if(mine > theirs), Rule::DiskStates))
}

fn unstable(p: Pair<'_>, decision: &Decision) -> Option<(Verdict, Rule)> {
    let moving = !p.me.stable || !p.peer.stable;
    (decision.verdict == Verdict::SplitBrain && moving).then_some((Verdict::Retry, Rule::Unstable))
}

fn granted(p: Pair<'_>, decision: &Decision) -> Option<(Verdict, Rule)> {
    let newest = if p.me.grant.number() >= p.peer.grant.number() { p.me.grant } else { p.peer.grant };
    if !p.policy.quorum || newest.members.is_empty() {
        return None;
    }
    let full = matches!(decision.verdict, Verdict::Source { full: true } | Verdict::Target { full: true });
    let same = |v: Verdict| if full { v_full(v) } else { v };
    match (newest.members.has(p.me.node), newest.members.has(p.peer.node)) {
        (true, false) => Some((same(p.source_if(true)), Rule::Granted)),
        (false, true) => Some((same(p.source_if(false)), Rule::Granted)),
        (false, false) => Some((Verdict::Wait, Rule::NeitherGranted)),
        (true, true) => None,
    }
    .filter(|(verdict, _)| *verdict != decision.verdict)
}

fn v_full(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Source { .. } => Verdict::Source { full: true },
        Verdict::Target { .. } => Verdict::Target { full: true },
        other => other,
    }
}

fn after_split_brain(p: Pair<'_>, decision: &Decision) -> Option<(Verdict, Rule)> {
    let policy = &p.policy.after_split_brain;
    let only_history = decision.rule() == Rule::HistoryBoth;
    if decision.verdict != Verdict::SplitBrain || (only_history && !policy.always) {
        return None;
    }
    let victim = match (p.me.primary, p.peer.primary) {
        (false, false) => zero(p),
        (true, true) => match policy.two {
            TwoPrimaries::Disconnect => None,
            TwoPrimaries::ViolentlyAsZero => zero(p),
        },
        (mine, _) => {
            let secondary = if mine { p.peer.node } else { p.me.node };
            match policy.one {
                OnePrimary::Disconnect => None,
                OnePrimary::Consensus => zero(p).filter(|v| *v == secondary),
                OnePrimary::ViolentlyAsZero => zero(p),
                OnePrimary::DiscardSecondary => Some(secondary),
            }
        }
    }?;
    let verdict = p.source_if(victim == p.peer.node);
    Some((if only_history { v_full(verdict) } else { verdict }, Rule::AfterSplitBrain))
}

/// Who gives in if nobody were primary.
fn zero(p: Pair<'_>) -> Option<NodeId> {
    let least = || larger(p, |s| s.dirty).map(|more| other(p, more));
    match p.policy.after_split_brain.zero {
        ZeroPrimaries::Disconnect => None,
        ZeroPrimaries::DiscardYoungerPrimary => larger(p, |s| s.began).or_else(least),
        ZeroPrimaries::DiscardOlderPrimary => larger(p, |s| s.began).map(|younger| other(p, younger)).or_else(least),
        ZeroPrimaries::DiscardZeroChanges => match (p.me.dirty, p.peer.dirty) {
            (0, n) if n > 0 => Some(p.me.node),
            (n, 0) if n > 0 => Some(p.peer.node),
            _ => None,
        },
        ZeroPrimaries::DiscardLeastChanges => least().or(Some(p.me.node.max(p.peer.node))),
        ZeroPrimaries::DiscardNode(node) => Some(node).filter(|n| *n == p.me.node || *n == p.peer.node),
    }
}

fn larger(p: Pair<'_>, of: impl Fn(&Side) -> u64) -> Option<NodeId> {
    match of(p.me).cmp(&of(p.peer)) {
        std::cmp::Ordering::Equal => None,
        order => Some(if order.is_gt() { p.me.node } else { p.peer.node }),
    }
}

fn other(p: Pair<'_>, node: NodeId) -> NodeId {
    if node == p.me.node { p.peer.node } else { p.me.node }
}

fn discard_my_data(p: Pair<'_>, decision: &Decision) -> Option<(Verdict, Rule)> {
    let one = p.me.discard_my_data != p.peer.discard_my_data;
    let gives = if p.me.discard_my_data { p.me } else { p.peer };
    let meant = decision.verdict == Verdict::SplitBrain || p.has_bits();
    // What no bits speak of is sent whole, whoever gives up.
    let whole = matches!(decision.verdict, Verdict::Source { full: true } | Verdict::Target { full: true });
    let full = whole || decision.rules.contains(&Rule::HistoryBoth);
    let verdict = p.source_if(!p.me.discard_my_data);
    let verdict = if full { v_full(verdict) } else { verdict };
    // Against a grant nothing is given up, and a whole disk is not replaced by a broken one.
    let against = decision.rules.contains(&Rule::Granted) || decision.verdict == Verdict::Wait;
    let from = if gives.node == p.me.node { p.peer } else { p.me };
    let whole = from.disk >= DiskState::Outdated;
    let allowed = one && meant && !gives.primary && !against && whole;
    (allowed && decision.verdict != verdict).then_some((verdict, Rule::DiscardMyData))
}

fn living_primary(p: Pair<'_>, decision: &Decision) -> Option<(Verdict, Rule)> {
    let (loser, winner) = match decision.verdict {
        Verdict::Target { .. } => (p.me, p.peer),
        Verdict::Source { .. } => (p.peer, p.me),
        _ => return None,
    };
    let full = matches!(decision.verdict, Verdict::Source { full: true } | Verdict::Target { full: true });
    if !loser.primary || !(p.has_bits() || full || loser.current != winner.current) {
        return None;
    }
    match p.policy.rr_conflict {
        RrConflict::Disconnect => Some((Verdict::PrimaryWouldLose, Rule::RrConflict)),
        RrConflict::RetryConnect => Some((Verdict::Retry, Rule::RrConflict)),
        RrConflict::Violently => None,
        RrConflict::AutoDiscard if p.policy.asynchronous && winner.crashed_primary => {
            Some((decision.verdict.mirrored(), Rule::AutoDiscard))
        }
        RrConflict::AutoDiscard => Some((Verdict::PrimaryWouldLose, Rule::RrConflict)),
    }
}
