//! The other nodes: a kept connection to each, who has a connection to us, and asking them something.
//!
//! Every node dials every other, so between two nodes there are two connections; a request goes out on either. A
//! connection that somebody dialled to us carries our requests to it as well as its own (callbacks go back on the
//! connection on which a client bound).
//!
//! HELLO carries who we are and which list of nodes we have. Another cluster, another list version, or a number
//! that is not the certificate's is refused with a sentence, and the sentence names the older node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::shared::{Epoch, NodeId};
use csv_fs::proto::{Opcode, PROTO_VERSION, PeerAnswer, PeerAsk};
use csv_fs::volume::wire;
use net::{Conn, DialTarget, Dialer, DownReason, LinkState, Net, Payload, PeerHello, Refusal};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::members::List;
use super::minors::{self, Minors};
use crate::api::{Link, Node, NodeInfo};
use crate::clock::WallTime;
use crate::init::{Bundle, dns_name};

/// What HELLO carries, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    cluster_id: String,
    node: Node,
    list_version: u64,
    version: String,
    /// The version of the file system's messages. Who does not say speaks the first.
    #[serde(default = "first_version")]
    messages: u16,
    /// Its minor versions.
    #[serde(default)]
    minors: Minors,
    /// Whether its daemon has a holder: if it is killed, the next goes on with what it had. Who does not say has none.
    #[serde(default)]
    comes_back: bool,
    /// Who is let in. Not told: the version says it.
    #[serde(skip)]
    nodes: Vec<Node>,
}

fn first_version() -> u16 {
    1
}

impl Greeting {
    /// This node's.
    pub(super) fn of(bundle: &Bundle, minors: Minors, comes_back: bool) -> Greeting {
        Greeting {
            cluster_id: bundle.cluster_id.clone(),
            node: bundle.node,
            list_version: bundle.list_version,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            messages: PROTO_VERSION,
            minors,
            comes_back,
            nodes: bundle.nodes.iter().map(|n| n.id).collect(),
        }
    }

    /// The same with another list of nodes.
    pub(super) fn of_list(&self, list: &List) -> Greeting {
        let nodes = list.nodes.iter().map(|n| n.id).collect();
        Greeting { list_version: list.version, nodes, ..self.clone() }
    }

    /// Whose it is.
    pub(super) fn node(&self) -> Node {
        self.node
    }

    /// As bytes for HELLO.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether this peer may talk to us; returns what it said.
    pub(super) fn judge(&self, peer: &PeerHello) -> Result<Greeting, Refusal> {
        let theirs: Greeting = serde_json::from_slice(&peer.app)
            .map_err(|e| Refusal::new(format!("the HELLO of {} does not parse: {e}", peer.identity)))?;
        if theirs.cluster_id != self.cluster_id {
            return Err(Refusal::new(format!(
                "{} belongs to cluster {}, this is {}",
                theirs.node, theirs.cluster_id, self.cluster_id
            )));
        }
        let proved = dns_name(&self.cluster_id, theirs.node);
        if peer.identity.subject != proved {
            return Err(Refusal::new(format!(
                "{} says that it is {}, its certificate says {}",
                peer.remote, theirs.node, peer.identity
            )));
        }
        if theirs.list_version <= self.list_version && !self.nodes.contains(&theirs.node) {
            return Err(Refusal::new(format!(
                "{} is not on version {} of the list of nodes, by which {} goes: it was removed",
                theirs.node, self.list_version, self.node
            )));
        }
        if theirs.list_version != self.list_version {
            let older = if theirs.list_version < self.list_version { theirs.node } else { self.node };
            return Err(Refusal::new(format!(
                "{} has version {} of the list of nodes, {} has {}: install the newer bundle on {older}",
                theirs.node, theirs.list_version, self.node, self.list_version
            )));
        }
        if theirs.messages != self.messages {
            let older = if theirs.messages < self.messages { theirs.node } else { self.node };
            return Err(Refusal::new(format!(
                "{} speaks version {} of the file system's messages, {} speaks {}: install the newer shorefast on {older}",
                theirs.node, theirs.messages, self.node, self.messages
            )));
        }
        if self.minors.with(theirs.minors).is_none() {
            let older = if theirs.minors.is_older_than(self.minors) { theirs.node } else { self.node };
            return Err(Refusal::new(format!(
                "{} ({}) speaks {} of the messages between nodes, {} ({}) speaks {}: upgrade {older}, one release after the other",
                theirs.node, theirs.version, theirs.minors, self.node, self.version, self.minors
            )));
        }
        Ok(theirs)
    }
}

/// Everybody else.
pub(super) struct Peers {
    me: Node,
    addresses: Mutex<Arc<BTreeMap<NodeId, String>>>,
    dialers: Mutex<BTreeMap<NodeId, Dialer>>,
    /// Connections that others dialled to us, by their number.
    incoming: Mutex<BTreeMap<NodeId, BTreeMap<u64, Arc<Conn>>>>,
    versions: Mutex<BTreeMap<NodeId, String>>,
    /// What each speaks with this node, as of its last connection.
    minors: Mutex<BTreeMap<NodeId, u16>>,
    /// Whose daemon is followed by one that goes on, as of its last connection.
    come_back: Mutex<BTreeSet<NodeId>>,
    /// Who has said that it is drained.
    drained: Mutex<BTreeSet<NodeId>>,
    round_trips: Mutex<BTreeMap<NodeId, Duration>>,
    started: Instant,
}

impl Peers {
    /// Of a bundle; nothing is dialled yet.
    pub(super) fn new(bundle: &Bundle) -> Peers {
        let others = bundle.nodes.iter().filter(|n| n.id != bundle.node);
        Peers {
            me: bundle.node,
            addresses: Mutex::new(Arc::new(
                others.filter_map(|n| Some((NodeId::new(n.id.number())?, n.address.clone()))).collect(),
            )),
            dialers: Mutex::default(),
            incoming: Mutex::default(),
            versions: Mutex::default(),
            minors: Mutex::default(),
            come_back: Mutex::default(),
            drained: Mutex::default(),
            round_trips: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Begins to dial everybody. `targets` are the resolved addresses.
    pub(super) fn dial(&self, net: &Net, targets: Vec<(NodeId, DialTarget)>) {
        let mut dialers = self.dialers.lock();
        for (node, target) in targets {
            dialers.insert(node, net.dial(target));
        }
    }

    /// All of them, by number and address.
    pub(super) fn addresses(&self) -> Arc<BTreeMap<NodeId, String>> {
        Arc::clone(&self.addresses.lock())
    }

    /// A node is no node of this cluster any more: nobody dials it, and its connections end.
    pub(super) fn forget(&self, node: NodeId) {
        let mut addresses = self.addresses.lock();
        let rest = addresses.iter().filter(|(n, _)| **n != node).map(|(n, a)| (*n, a.clone())).collect();
        *addresses = Arc::new(rest);
        drop(addresses);
        // Dropped, it ends.
        drop(self.dialers.lock().remove(&node));
        let conns = self.incoming.lock().remove(&node);
        conns.into_iter().flatten().for_each(|(_, conn)| conn.close("this node was removed from the cluster"));
        self.drained.lock().remove(&node);
    }

    /// The minor version of the messages that a node speaks with this one, once it has been connected.
    pub(super) fn minor(&self, node: NodeId) -> Option<u16> {
        self.minors.lock().get(&node).copied()
    }

    /// Whether its daemon is followed by one that goes on, as it said last.
    pub(super) fn comes_back(&self, node: NodeId) -> bool {
        self.come_back.lock().contains(&node)
    }

    /// A node has said whether it is drained.
    pub(super) fn drained(&self, node: NodeId, drained: bool) {
        let mut all = self.drained.lock();
        let _ = if drained { all.insert(node) } else { all.remove(&node) };
    }

    /// Whether it is, as it said last.
    pub(super) fn is_drained(&self, node: NodeId) -> bool {
        self.drained.lock().contains(&node)
    }

    /// Watches the link that we dial to a node.
    pub(super) fn link(&self, node: NodeId) -> Option<tokio::sync::watch::Receiver<LinkState>> {
        self.dialers.lock().get(&node).map(Dialer::state)
    }

    /// An open connection to a node, the one we dialled if there is a choice.
    pub(super) fn conn(&self, node: NodeId) -> Option<Arc<Conn>> {
        let dialled = self.dialers.lock().get(&node).and_then(Dialer::conn).filter(|c| c.is_open());
        dialled.or_else(|| self.incoming.lock().get(&node)?.values().find(|c| c.is_open()).cloned())
    }

    /// Remembers a connection that was dialled to us, and what its HELLO said.
    pub(super) fn opened(&self, node: NodeId, conn: &Arc<Conn>, greeting: &Greeting, own: Minors) {
        self.versions.lock().insert(node, greeting.version.clone());
        if let Some(minor) = own.with(greeting.minors) {
            self.minors.lock().insert(node, minor);
        }
        let mut come_back = self.come_back.lock();
        let _ = if greeting.comes_back { come_back.insert(node) } else { come_back.remove(&node) };
        drop(come_back);
        if conn.role() == net::Role::Acceptor {
            self.incoming.lock().entry(node).or_default().insert(conn.id(), Arc::clone(conn));
        }
    }

    /// Forgets a connection.
    pub(super) fn closed(&self, node: NodeId, conn: &Conn) {
        if let Some(conns) = self.incoming.lock().get_mut(&node) {
            conns.remove(&conn.id());
        }
    }

    /// Asks a node; `None` if it cannot be reached or does not answer in time.
    ///
    /// # Cancel safety
    /// Safe to drop; the question may have arrived.
    pub(super) async fn ask(&self, node: NodeId, epoch: Epoch, ask: &PeerAsk, within: Duration) -> Option<PeerAnswer> {
        let conn = self.conn(node)?;
        let message = wire::pack(Opcode::Peer, epoch, ask, Payload::None).ok()?;
        let answer = tokio::time::timeout(within, conn.call(message)).await.ok()?.ok()?;
        wire::unpack(&answer).ok()
    }

    /// How long a question and its answer took; `None`: there was no answer.
    pub(super) fn round_trip(&self, node: NodeId, took: Option<Duration>) {
        let mut all = self.round_trips.lock();
        match took {
            Some(took) => drop(all.insert(node, took)),
            None => drop(all.remove(&node)),
        }
    }

    /// All nodes for `node list`, this one included.
    pub(super) fn list(&self, own_address: &str, minors: Minors, drained: bool) -> Vec<NodeInfo> {
        let mut nodes = vec![NodeInfo {
            node: self.me,
            address: own_address.to_owned(),
            link: Link::Myself,
            since: WallTime::now().earlier(self.started.elapsed()),
            reason: None,
            round_trip_us: None,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            messages: Some(minors::shown(minors.newest())),
            drained,
        }];
        nodes.extend(self.addresses().keys().filter_map(|node| self.info(*node)));
        nodes.sort_by_key(|n| n.node);
        nodes
    }

    fn info(&self, node: NodeId) -> Option<NodeInfo> {
        let state = self.link(node)?.borrow().clone();
        let (link, since, reason) = match state {
            // It has called us, and answers on that.
            LinkState::Down { since, .. } if self.conn(node).is_some() => (Link::Up, since, None),
            LinkState::Connecting if self.conn(node).is_some() => (Link::Up, self.started, None),
            LinkState::Connecting => (Link::Connecting, self.started, None),
            LinkState::Up(_) => (Link::Up, self.started, None),
            LinkState::Down { why, since } => (down_kind(&why), since, Some(why.to_string())),
        };
        Some(NodeInfo {
            node: Node::new(node.get())?,
            address: self.addresses().get(&node)?.clone(),
            link,
            since: WallTime::now().earlier(since.elapsed()),
            reason,
            // What it answered before it went down says nothing of now.
            round_trip_us: Some(node).filter(|_| link == Link::Up).and_then(|_| self.round_trip_us(node)),
            version: self.versions.lock().get(&node).cloned(),
            messages: self.minor(node).map(minors::shown),
            // What it said before it went down says nothing of now, either.
            drained: link == Link::Up && self.is_drained(node),
        })
    }

    fn round_trip_us(&self, node: NodeId) -> Option<u64> {
        self.round_trips.lock().get(&node).and_then(|t| u64::try_from(t.as_micros()).ok())
    }
}

fn down_kind(why: &DownReason) -> Link {
    match why {
        DownReason::Tls(_) | DownReason::HelloRefused(_) => Link::Refused,
        _ => Link::Down,
    }
}

#[cfg(test)]
mod tests {
    use net::{PeerIdentity, Role};

    use super::*;

    fn greeting(node: u8, messages: u16) -> Greeting {
        let node = serde_json::from_value(serde_json::json!(node)).expect("a node");
        let nodes = (1..=3).filter_map(Node::new).collect();
        let (cluster_id, version) = ("lab".to_owned(), "0.1.0".to_owned());
        Greeting {
            cluster_id,
            node,
            list_version: 1,
            version,
            messages,
            minors: Minors::own(false),
            comes_back: true,
            nodes,
        }
    }

    fn hello(from: &Greeting, app: Vec<u8>) -> PeerHello {
        let identity = PeerIdentity { subject: dns_name(&from.cluster_id, from.node), proved: true };
        PeerHello { role: Role::Dialer, identity, remote: ([127, 0, 0, 2], 7440).into(), features: 0, app: app.into() }
    }

    /// Messages are numbered by their order: one that lacks some would take one for another.
    #[test]
    fn node_that_speaks_other_messages_is_refused_and_the_older_one_is_named() {
        let (us, other) = (greeting(1, 2), greeting(2, 1));
        let said = |us: &Greeting, hello: &PeerHello| us.judge(hello).expect_err("refused").to_string();
        let refused = said(&us, &hello(&other, other.to_bytes()));
        assert!(refused.contains("install the newer shorefast on node-2"), "{refused}");
        let refused = said(&other, &hello(&us, us.to_bytes()));
        assert!(refused.contains("install the newer shorefast on node-2"), "{refused}");
        let mut before = serde_json::to_value(&other).expect("encodes");
        before.as_object_mut().expect("an object").remove("messages");
        let refused = said(&us, &hello(&other, before.to_string().into_bytes()));
        assert!(refused.contains("speaks version 1"), "{refused}");
        let same = greeting(2, 2);
        let heard = us.judge(&hello(&same, same.to_bytes())).expect("the same");
        assert_eq!(heard, Greeting { nodes: Vec::new(), ..same });
    }

    #[test]
    fn versions_without_anything_in_common_are_refused_and_the_older_node_is_named_whoever_judges() {
        let between = |oldest: u16, newest: u16| {
            serde_json::from_value::<Minors>(serde_json::json!({ "oldest": oldest, "newest": newest })).expect("minors")
        };
        let us = Greeting { minors: between(6, 7), ..greeting(1, 2) };
        let told = |minors| Greeting { minors, version: "0.9.9".to_owned(), ..greeting(2, 2) };
        let too_old = told(between(4, 5));
        let refused = us.judge(&hello(&too_old, too_old.to_bytes())).expect_err("refused").to_string();
        for word in [
            "node-2 (0.9.9) speaks 2.4 to 2.5",
            "node-1 (0.1.0) speaks 2.6 to 2.7",
            "upgrade node-2, one release after",
        ] {
            assert!(refused.contains(word), "{refused}");
        }
        let too_new = told(between(8, 9));
        let refused = us.judge(&hello(&too_new, too_new.to_bytes())).expect_err("refused").to_string();
        assert!(refused.contains("upgrade node-1"), "{refused}");
        for near in [between(5, 6), between(7, 8)] {
            let near = told(near);
            us.judge(&hello(&near, near.to_bytes())).expect("a release apart");
        }
    }

    /// Its certificate is still good.
    #[test]
    fn a_node_that_is_not_on_the_list_is_refused_by_that_and_one_with_a_newer_list_by_the_version() {
        let us = Greeting { list_version: 2, nodes: vec![Node::new(1).expect("a node")], ..greeting(1, 2) };
        for (version, word) in [(1, "it was removed"), (2, "it was removed"), (3, "install the newer bundle on node-1")]
        {
            let gone = Greeting { list_version: version, ..greeting(2, 2) };
            let refused = us.judge(&hello(&gone, gone.to_bytes())).expect_err("refused").to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
