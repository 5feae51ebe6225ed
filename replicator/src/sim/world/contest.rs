//! Promotions in the same moment without quorum, and what is known of them: I10.
//!
//! Two nodes that have a connection when a promotion is asked for, and have it until one of them reigns, do not both reign: not if
//! the other was asked before, and not if it is asked in the moments in which the new reign begins that connection anew.

use super::*;

/// Milliseconds in which all are asked.
const MOMENT: u64 = 14;
/// Milliseconds after a new reign in which another node that is asked is judged, if the two have not met again.
const JUST_AFTER: u64 = 50;

/// The connections that a node had, and when that was.
#[derive(Debug, Default)]
struct Had {
    at: u64,
    conns: BTreeMap<NodeId, ConnId>,
}

/// What is known of promotions.
#[derive(Debug, Default)]
pub(super) struct Contests {
    /// When each node was last asked to be primary.
    asked: BTreeMap<NodeId, Had>,
    /// When each was so last, before it ended its connections.
    won: BTreeMap<NodeId, Had>,
}

impl World {
    /// An administrator asks for a promotion.
    pub(super) fn ask_to_promote(&mut self, node: NodeId) {
        let had = self.has(node);
        self.contests.asked.insert(node, had);
        self.event(node, Event::Promote { force: false });
    }

    /// Several administrators, who do not know of one another.
    pub(super) fn ask_all_to_promote(&mut self, nodes: &[NodeId]) {
        self.count("promotions: several in one moment".to_owned());
        for node in nodes {
            let wait = self.rng.below(MOMENT);
            self.later(wait, Happening::Asks(*node));
        }
    }

    /// The connections of a node that carry what is said on them.
    fn has(&self, node: NodeId) -> Had {
        let whole = |key: &(NodeId, NodeId), conn: &ConnId, ends: &NodeSet| {
            ends.len() == 2 && !self.torn.contains(conn) && !self.cut.get(key).copied().unwrap_or(false)
        };
        let conns = self.conns.iter().filter(|((a, b), _)| *a == node || *b == node);
        let conns = conns.filter(|(key, (conn, ends))| whole(key, conn, ends));
        let conns = conns.map(|((a, b), (conn, _))| (if *a == node { *b } else { *a }, *conn)).collect();
        Had { at: self.now, conns }
    }

    /// A node reigns; its connections are there yet.
    pub(super) fn look_at_contest(&mut self, node: NodeId) {
        let had = self.has(node);
        self.contests.won.insert(node, had);
        if self.quorum {
            return;
        }
        for other in self.disks.without(node).iter() {
            let reigns = self.hosts[&other].node.as_ref().is_some_and(Node::is_primary);
            let also = self.contests.asked.get(&other).is_some_and(|o| o.at + MOMENT > self.now);
            if also && !reigns {
                self.count("promotions: one beside others that were asked".to_owned());
            }
            if let Some(what) = self.is_second(node, other).filter(|_| reigns) {
                self.oracle.object("I10 OneOfThoseConnected", what);
            }
        }
    }

    /// Why a node must not reign beside another that was promoted before.
    fn is_second(&self, node: NodeId, first: NodeId) -> Option<String> {
        let (asked, before) = (self.contests.asked.get(&node)?, self.contests.asked.get(&first)?);
        let won = self.contests.won.get(&first)?;
        let conn = won.conns.get(&node).filter(|c| before.conns.get(&node) == Some(c))?;
        let both = asked.conns.get(&first) == Some(conn);
        let newest = self.last.keys().filter(|(a, b, _)| pair(*a, *b) == pair(node, first)).map(|(_, _, c)| *c).max();
        let just_after = asked.at >= won.at && asked.at < won.at + JUST_AFTER && newest == Some(*conn);
        let text = |when| format!("{node} and {first} both reign, asked at {} and {}, {when}", asked.at, before.at);
        if both {
            Some(text("with a connection between them until one did"))
        } else {
            just_after.then(|| text("the second in the moment in which the connection began anew"))
        }
    }
}
