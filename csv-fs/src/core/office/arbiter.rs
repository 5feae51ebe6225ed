//! Who may be coordinator, by the static rule: the largest clique of nodes that have a path and hear each other; then
//! the one that contains the present holder; then the lowest ids, compared as sorted lists.
//!
//! A pure function of what one node sees, plus the memory of how long it has seen it. Only liveness rests on it: two
//! nodes that judge differently for a moment may both challenge, and fence and compare-and-write settle that.
//!
//! - Permission is given after the same clique was seen for two renew periods, and withdrawn at once.
//! - Two cliques that both hold the present holder count as the same: the waiting is there to let views agree before
//!   anybody acts *against* a holder. So a coordinator keeps permission while other nodes come and go.
//! - A node that is *proved dead* has no vote: it is left out of every set. If what remains of the clique seen before
//!   is just that clique without the dead, it is the same clique for the clock (`settled` is kept). So the members of
//!   a clique whose coordinator was killed act at once, and nobody outside it does: a node that was in the minority
//!   a moment ago still has to see its own clique win for two periods.

use std::collections::BTreeMap;
use std::time::Duration;

use block::shared::NodeId;

use super::view::NodeSet;
use crate::core::time::Now;

/// The search for the largest clique gives up after so many steps and takes the best found. Sixty-four nodes that
/// hear each other take 64 steps; only graphs no network makes come near it.
const CLIQUE_STEPS: u32 = 20_000;

/// What a node sees: each node whose slot counts, and whom it hears.
pub(super) type Hearing = BTreeMap<NodeId, NodeSet>;

/// The winning clique.
pub(super) fn winner(hearing: &Hearing, holder: Option<NodeId>, before: NodeSet) -> NodeSet {
    let pairs = mutual(hearing);
    let all: NodeSet = hearing.keys().copied().collect();
    let mut search = Search { pairs: &pairs, holder, before, best: NodeSet::EMPTY, steps: 0 };
    search.extend(NodeSet::EMPTY, all, NodeSet::EMPTY);
    search.best
}

fn mutual(hearing: &Hearing) -> Hearing {
    let hears = |a: NodeId, b: NodeId| hearing.get(&a).is_some_and(|h| h.contains(b));
    let row = |a: NodeId| hearing.keys().copied().filter(|b| *b != a && hears(a, *b) && hears(*b, a)).collect();
    hearing.keys().map(|a| (*a, row(*a))).collect()
}

/// Bron-Kerbosch with a pivot.
struct Search<'a> {
    pairs: &'a Hearing,
    holder: Option<NodeId>,
    before: NodeSet,
    best: NodeSet,
    steps: u32,
}

impl Search<'_> {
    fn of(&self, node: NodeId) -> NodeSet {
        self.pairs.get(&node).copied().unwrap_or_default()
    }

    fn extend(&mut self, clique: NodeSet, mut open: NodeSet, mut closed: NodeSet) {
        self.steps += 1;
        if open.is_empty() && closed.is_empty() {
            if self.better(clique) {
                self.best = clique;
            }
            return;
        }
        if self.steps > CLIQUE_STEPS || clique.len() + open.len() < self.best.len() {
            return;
        }
        let Some(pivot) = open.or(closed).iter().max_by_key(|n| self.of(*n).and(open).len()) else { return };
        for node in open.minus(self.of(pivot)).iter() {
            let near = self.of(node);
            self.extend(clique.or(NodeSet::one(node)), open.and(near), closed.and(near));
            open.remove(node);
            closed.insert(node);
        }
    }

    fn better(&self, clique: NodeSet) -> bool {
        if clique.len() != self.best.len() {
            return clique.len() > self.best.len();
        }
        let holds = |c: NodeSet| self.holder.is_some_and(|h| c.contains(h));
        if holds(clique) != holds(self.best) {
            return holds(clique);
        }
        let same = |c: NodeSet| !c.is_empty() && c == self.before;
        if same(clique) != same(self.best) {
            return same(clique);
        }
        lower(clique, self.best)
    }
}

/// Of two sets of equal size, whether the sorted ids of the first come first.
fn lower(a: NodeSet, b: NodeSet) -> bool {
    let differs = a.0 ^ b.0;
    differs != 0 && a.0 & (1 << differs.trailing_zeros()) != 0
}

/// The arbiter's memory.
#[derive(Debug, Default)]
pub(super) struct Arbiter {
    /// The clique seen last, and since when.
    seen: Option<(NodeSet, Now)>,
    /// The last clique in which this node had permission, and when it last had.
    pub(super) last_given: Option<(NodeSet, Now)>,
    /// The clique in which it has permission now.
    pub(super) given: Option<NodeSet>,
    /// When the clique seen now will have been seen long enough for that.
    pub(super) settles: Option<Now>,
}

impl Arbiter {
    /// Judges anew. `hearing` leaves out the dead already; `me` is `None` while this node has no path.
    pub(super) fn judge(
        &mut self,
        now: Now,
        me: Option<NodeId>,
        hearing: &Hearing,
        holder: Option<NodeId>,
        dead: NodeSet,
        settle: Duration,
    ) {
        let recent = |(clique, at): &(NodeSet, Now)| (now.since(*at) <= settle).then(|| clique.minus(dead));
        let before = match holder {
            // The tie-break for a clique that just lost its holder: stay with what remains of it.
            None => self.last_given.as_ref().and_then(recent).unwrap_or_default(),
            Some(_) => NodeSet::EMPTY,
        };
        let clique = winner(hearing, holder, before);
        let holds = |c: NodeSet| holder.is_some_and(|h| c.contains(h));
        let kept = self.seen.filter(|(seen, _)| seen.minus(dead) == clique || holds(*seen) && holds(clique));
        let inherits =
            !before.is_empty() && before == clique && self.last_given.is_some_and(|(c, _)| !c.and(dead).is_empty());
        let since = match kept {
            _ if inherits => now - settle,
            Some((_, since)) => since,
            None => now,
        };
        self.seen = Some((clique, since));
        let settled = now.since(since) >= settle;
        let member = me.is_some_and(|me| clique.contains(me));
        self.settles = (member && !settled).then(|| since + settle);
        self.given = (settled && member).then_some(clique);
        if self.given.is_some() {
            self.last_given = Some((clique, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::new(n).expect("a node id")
    }

    fn set(nodes: &[u8]) -> NodeSet {
        nodes.iter().map(|n| node(*n)).collect()
    }

    fn hearing(rows: &[(u8, &[u8])]) -> Hearing {
        rows.iter().map(|(n, heard)| (node(*n), set(heard))).collect()
    }

    const SETTLE: Duration = Duration::from_millis(500);

    #[test]
    fn the_largest_clique_wins_whoever_holds_office() {
        let h = hearing(&[(1, &[2]), (2, &[1]), (3, &[])]);
        assert_eq!(winner(&h, Some(node(3)), NodeSet::EMPTY), set(&[1, 2]));
    }

    #[test]
    fn one_way_hearing_makes_no_pair() {
        let h = hearing(&[(1, &[2, 3]), (2, &[3]), (3, &[2])]);
        assert_eq!(winner(&h, None, NodeSet::EMPTY), set(&[2, 3]));
    }

    #[test]
    fn of_equal_cliques_the_holders_wins_and_then_the_lowest_ids() {
        let h = hearing(&[(1, &[2]), (2, &[1, 3]), (3, &[2, 4]), (4, &[3])]);
        assert_eq!(winner(&h, Some(node(4)), NodeSet::EMPTY), set(&[3, 4]));
        assert_eq!(winner(&h, None, NodeSet::EMPTY), set(&[1, 2]));
        assert_eq!(winner(&hearing(&[(2, &[]), (5, &[])]), None, NodeSet::EMPTY), set(&[2]));
    }

    #[test]
    fn sixty_four_nodes_that_hear_each_other_are_one_clique() {
        let all: NodeSet = (1..=64).map(node).collect();
        let h: Hearing = (1..=64).map(|n| (node(n), all)).collect();
        assert_eq!(winner(&h, None, NodeSet::EMPTY), all);
    }

    #[test]
    fn permission_is_given_after_two_periods_and_withdrawn_at_once() {
        let mut a = Arbiter::default();
        let both = hearing(&[(1, &[2]), (2, &[1])]);
        a.judge(Now(0), Some(node(1)), &both, None, NodeSet::EMPTY, SETTLE);
        a.judge(Now(499), Some(node(1)), &both, None, NodeSet::EMPTY, SETTLE);
        assert_eq!((a.given, a.settles), (None, Some(Now(500))));
        a.judge(Now(500), Some(node(1)), &both, None, NodeSet::EMPTY, SETTLE);
        assert_eq!(a.given, Some(set(&[1, 2])));
        a.judge(Now(501), Some(node(1)), &hearing(&[(1, &[]), (2, &[])]), Some(node(2)), NodeSet::EMPTY, SETTLE);
        assert_eq!(a.given, None);
    }

    #[test]
    fn a_holder_keeps_permission_while_another_member_goes() {
        let mut a = Arbiter::default();
        let three = hearing(&[(1, &[2, 3]), (2, &[1, 3]), (3, &[1, 2])]);
        a.judge(Now(0), Some(node(3)), &three, Some(node(3)), NodeSet::EMPTY, SETTLE);
        a.judge(Now(600), Some(node(3)), &three, Some(node(3)), NodeSet::EMPTY, SETTLE);
        let two = hearing(&[(2, &[3]), (3, &[2])]);
        a.judge(Now(610), Some(node(3)), &two, Some(node(3)), NodeSet::EMPTY, SETTLE);
        assert_eq!(a.given, Some(set(&[2, 3])));
    }

    #[test]
    fn members_of_a_killed_holders_clique_keep_permission_without_its_vote() {
        let mut a = Arbiter::default();
        let three = hearing(&[(1, &[2, 3]), (2, &[1, 3]), (3, &[1, 2])]);
        a.judge(Now(0), Some(node(2)), &three, Some(node(3)), NodeSet::EMPTY, SETTLE);
        a.judge(Now(600), Some(node(2)), &three, Some(node(3)), NodeSet::EMPTY, SETTLE);
        // The connection to 3 went; 1 has not noticed yet. Alive, node 3 would keep its tie.
        let lost = hearing(&[(1, &[2, 3]), (2, &[1]), (3, &[1, 2])]);
        a.judge(Now(610), Some(node(2)), &lost, Some(node(3)), NodeSet::EMPTY, SETTLE);
        assert_eq!(a.given, None);
        // Its death is proved: its vote is gone, and what remains is the clique of before.
        let without = hearing(&[(1, &[2]), (2, &[1])]);
        a.judge(Now(615), Some(node(2)), &without, None, set(&[3]), SETTLE);
        assert_eq!(a.given, Some(set(&[1, 2])));
        a.judge(Now(620), Some(node(2)), &without, None, set(&[3]), SETTLE);
        assert_eq!(a.given, Some(set(&[1, 2])), "and it stays");
    }

    #[test]
    fn a_node_outside_the_killed_holders_clique_still_waits_two_periods() {
        let mut a = Arbiter::default();
        let split = hearing(&[(1, &[]), (2, &[3]), (3, &[2])]);
        a.judge(Now(0), Some(node(1)), &split, Some(node(3)), NodeSet::EMPTY, SETTLE);
        a.judge(Now(600), Some(node(1)), &split, Some(node(3)), NodeSet::EMPTY, SETTLE);
        assert_eq!(a.given, None);
        a.judge(Now(610), Some(node(1)), &hearing(&[(1, &[]), (2, &[])]), None, set(&[3]), SETTLE);
        assert_eq!(a.given, None);
    }
}
