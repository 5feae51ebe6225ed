//! The list of nodes, and taking one from it. A change is a new version of the list in every node's bundle file.
//!
//! ```text
//! asked node                         every other node that stays
//!   PrepareList(version + 1) ──────►  checks version and list, tries to write beside its bundle
//!   TakeList, once all have said yes ► writes its bundle, and goes by the new list at once
//!   takes it itself, last
//! ```
//! Refused while any node that stays cannot be reached or does not know these messages: nodes with different versions of the
//! list refuse one another, so none may be left behind. A node that dies between the two questions comes back with the older
//! list; it is refused by a sentence that names it, and `node remove --bundle FILE` there, without a daemon, makes the
//! same change.
//!
//! Refused, too, while the node that goes is up: it may have volumes mounted. It is to be drained and stopped first. Its
//! session at each coordinator is evicted, so that what it held is free. Its certificate stays what it is, and is not let in
//! any more, since it is not on the list; its number is not given out again.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::minors::OPERATORS;
use super::node::{NodeParts, node_id};
use super::saving::Turn;
use super::talk::NodeTalk;
use crate::api::{Node, Progress};
use crate::events::{Code, Draft};
use crate::exit::{Exit, Failure};
use crate::init::BundleNode;

/// How long a node may take to write its bundle.
const WRITES_WITHIN: Duration = Duration::from_secs(10);
/// How long nodes may take to tell of their volumes.
const WORDS_WITHIN: Duration = Duration::from_secs(2);

/// A version of the list of nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct List {
    /// Raised by one with each change.
    pub(super) version: u64,
    /// All nodes.
    pub(super) nodes: Vec<BundleNode>,
}

impl List {
    /// The next version, without a node.
    fn without(&self, node: Node) -> List {
        let nodes = self.nodes.iter().filter(|n| n.id != node).cloned().collect();
        List { version: self.version + 1, nodes }
    }

    /// Whether it has a node.
    pub(super) fn has(&self, node: Node) -> bool {
        self.nodes.iter().any(|n| n.id == node)
    }

    /// Why `next` cannot follow this list on a node.
    fn refuses(&self, next: &List, me: Node) -> Option<String> {
        if next.version != self.version + 1 {
            return Some(format!("{me} has version {} of the list, {} cannot follow", self.version, next.version));
        }
        if !next.has(me) {
            return Some(format!("{me} itself is not on that list"));
        }
        let strange = next.nodes.iter().find(|n| !self.nodes.contains(n));
        strange.map(|n| format!("{me} does not know {} at {}", n.id, n.address))
    }
}

impl NodeParts {
    /// The list that counts now.
    pub(super) fn list(&self) -> List {
        self.list.read().clone()
    }

    /// Takes a node from the list, on all that stay.
    pub(super) async fn remove(self: &Arc<Self>, node: Node, progress: &Progress) -> Result<(), Failure> {
        self.is_a_node(node)?;
        self.may_go(node).await?;
        let next = self.list().without(node);
        let others: Vec<Node> = next.nodes.iter().map(|n| n.id).filter(|n| *n != self.bundle.node).collect();
        progress.say(format!(
            "Asking the {} other nodes that stay to take version {} of the list.",
            others.len(),
            next.version
        ));
        for other in &others {
            self.ask_list(*other, NodeTalk::PrepareList(next.clone())).await.map_err(|why| {
                Failure::new(
                    Exit::Refused,
                    format!("{node} was not removed: {other} cannot take the new list: {why}."),
                    "Nothing has changed. Put that right, then repeat the command.",
                )
            })?;
        }
        self.may_take(&next).await.map_err(|why| {
            Failure::new(
                Exit::Refused,
                format!("{node} was not removed: {why}."),
                "Put that right, then repeat the command.",
            )
        })?;
        for other in &others {
            self.ask_list(*other, NodeTalk::TakeList(next.clone())).await.map_err(|why| {
                Failure::failed(
                    format!("{node} is removed on some nodes only: {other} did not take the list: {why}."),
                    format!(
                        "On each node whose list is older: stop the daemon, `shorefast node remove {} --bundle FILE` with its \
                         bundle, and start it.",
                        node.number()
                    ),
                )
            })?;
        }
        self.take_list(next).await
    }

    /// Whether a node may be taken away, and everybody else is there to hear of it.
    async fn may_go(self: &Arc<Self>, node: Node) -> Result<(), Failure> {
        let refused = |message: String, next: String| Err(Failure::new(Exit::Refused, message, next));
        if node == self.bundle.node {
            return refused(format!("{node} cannot remove itself."), "Give the command on a node that stays.".into());
        }
        if self.peers.conn(node_id(node)).is_some() {
            return refused(
                format!("{node} is up, and may have volumes mounted."),
                format!(
                    "`shorefast node drain {}`, move its applications, stop its daemon, then repeat.",
                    node.number()
                ),
            );
        }
        let mut told = self.own_word();
        told.extend(self.words_of_others(WORDS_WITHIN).await.into_iter().flat_map(|w| w.told));
        let held = told.iter().find(|t| t.known.as_ref().is_some_and(|k| k.coordinator == Some(node)));
        if let Some(held) = held {
            return refused(
                format!("{node} is still coordinator of {}, as far as is known.", held.name),
                "Wait until another node has taken over: see `shorefast status`.".into(),
            );
        }
        for other in self.list().nodes.iter().map(|n| n.id).filter(|n| *n != node && *n != self.bundle.node) {
            match self.peers.conn(node_id(other)).and_then(|_| self.peers.minor(node_id(other))) {
                Some(minor) if minor >= OPERATORS => {}
                Some(_) => {
                    return refused(
                        format!("{other} runs an older version, which takes no new list of nodes."),
                        format!("Upgrade {other} first: what all nodes take part in waits until all can."),
                    );
                }
                None => {
                    return refused(
                        format!("{other} cannot be reached, and would be left with the older list."),
                        format!("Start {other}, or remove it first."),
                    );
                }
            }
        }
        Ok(())
    }

    async fn ask_list(&self, node: Node, talk: NodeTalk) -> Result<(), String> {
        match self.talk(node_id(node), &talk, WRITES_WITHIN).await {
            Some(NodeTalk::Done(done)) => done.map_err(|e| e.message.trim_end_matches('.').to_owned()),
            _ => Err("it did not answer".to_owned()),
        }
    }

    /// Whether this node could take that list now.
    pub(super) async fn may_take(self: &Arc<Self>, next: &List) -> Result<(), String> {
        if let Some(why) = self.list.read().refuses(next, self.bundle.node) {
            return Err(why);
        }
        let bundle = self.bundle.of_list(next.version, next.nodes.clone());
        self.saves(move |node, _| bundle.could_be_saved(&node.config.bundle)).await.map_err(|e| e.message)
    }

    /// Goes by a new list from now on. The same list once more changes nothing.
    pub(super) async fn take_list(self: &Arc<Self>, next: List) -> Result<(), Failure> {
        self.saves(move |node, turn| node.go_by(turn, &next)).await
    }

    fn go_by(&self, _: &Turn, next: &List) -> Result<(), Failure> {
        let now = self.list();
        if now == *next {
            return Ok(());
        }
        if let Some(why) = now.refuses(next, self.bundle.node) {
            return Err(Failure::new(Exit::Refused, format!("{why}."), "See `shorefast node list` on both nodes."));
        }
        self.bundle.of_list(next.version, next.nodes.clone()).save(&self.config.bundle)?;
        *self.list.write() = next.clone();
        self.service.goes_by(next);
        for node in now.nodes.iter().map(|n| n.id).filter(|n| !next.has(*n)) {
            for volume in self.directory.all() {
                // Refused where this node does not coordinate, or the node has no session.
                let _ = volume.evict(node_id(node));
            }
            self.peers.forget(node_id(node));
            let message = format!("{node} is no node of this cluster any more; the list has version {}", next.version);
            self.events.record(Draft::node(Code::NodeRemoved, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(version: u64, nodes: &[u8]) -> List {
        let node = |n: &u8| BundleNode { id: Node::new(*n).expect("a node"), address: format!("h{n}:1") };
        List { version, nodes: nodes.iter().map(node).collect() }
    }

    #[test]
    fn a_list_is_followed_by_its_next_version_with_known_nodes_only() {
        let me = Node::new(1).expect("a node");
        let now = list(4, &[1, 2, 3]);
        let next = now.without(Node::new(3).expect("a node"));
        assert_eq!(next, list(5, &[1, 2]));
        assert_eq!(now.refuses(&next, me), None);
        for (next, word) in [
            (list(4, &[1, 2]), "version 4"),
            (list(6, &[1, 2]), "cannot follow"),
            (list(5, &[2, 3]), "itself"),
            (list(5, &[1, 4]), "node-4"),
        ] {
            let why = now.refuses(&next, me).expect("refused");
            assert!(why.contains(word), "{why}");
        }
        let mut moved = list(5, &[1, 2]);
        moved.nodes[1].address = "elsewhere:1".into();
        assert!(now.refuses(&moved, me).is_some_and(|why| why.contains("elsewhere")));
    }
}
