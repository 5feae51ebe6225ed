//! The other nodes: a kept connection to each, who has a connection to us, and asking them something.
//!
//! Every node dials every other, so between two nodes there are two connections; a request goes out on either. A
//! connection that somebody dialled to us carries our requests to it as well as its own (callbacks go back on the
//! connection on which a client bound).
//!
//! HELLO carries who we are and which list of nodes we have. Another cluster, another list version, or a number
//! that is not the certificate's is refused with a sentence, and the sentence names the older node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::shared::{Epoch, NodeId};
use csv_fs::proto::{Opcode, PROTO_VERSION, PeerAnswer, PeerAsk};
use csv_fs::volume::wire;
use net::{Conn, DialTarget, Dialer, DownReason, LinkState, Net, Payload, PeerHello, Refusal};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

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
}

fn first_version() -> u16 {
    1
}

impl Greeting {
    /// This node's.
    pub(super) fn of(bundle: &Bundle) -> Greeting {
        Greeting {
            cluster_id: bundle.cluster_id.clone(),
            node: bundle.node,
            list_version: bundle.list_version,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            messages: PROTO_VERSION,
        }
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
        Ok(theirs)
    }
}

/// Everybody else.
pub(super) struct Peers {
    me: Node,
    addresses: BTreeMap<NodeId, String>,
    dialers: Mutex<BTreeMap<NodeId, Dialer>>,
    /// Connections that others dialled to us, by their number.
    incoming: Mutex<BTreeMap<NodeId, BTreeMap<u64, Arc<Conn>>>>,
    versions: Mutex<BTreeMap<NodeId, String>>,
    round_trips: Mutex<BTreeMap<NodeId, Duration>>,
    started: Instant,
}

impl Peers {
    /// Of a bundle; nothing is dialled yet.
    pub(super) fn new(bundle: &Bundle) -> Peers {
        let others = bundle.nodes.iter().filter(|n| n.id != bundle.node);
        Peers {
            me: bundle.node,
            addresses: others.filter_map(|n| Some((NodeId::new(n.id.number())?, n.address.clone()))).collect(),
            dialers: Mutex::default(),
            incoming: Mutex::default(),
            versions: Mutex::default(),
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
    pub(super) fn addresses(&self) -> &BTreeMap<NodeId, String> {
        &self.addresses
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
    pub(super) fn opened(&self, node: NodeId, conn: &Arc<Conn>, greeting: &Greeting) {
        self.versions.lock().insert(node, greeting.version.clone());
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
    pub(super) fn list(&self, own_address: &str) -> Vec<NodeInfo> {
        let mut nodes = vec![NodeInfo {
            node: self.me,
            address: own_address.to_owned(),
            link: Link::Myself,
            since: WallTime::now().earlier(self.started.elapsed()),
            reason: None,
            round_trip_us: None,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }];
        nodes.extend(self.addresses.keys().filter_map(|node| self.info(*node)));
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
            address: self.addresses.get(&node)?.clone(),
            link,
            since: WallTime::now().earlier(since.elapsed()),
            reason,
            // What it answered before it went down says nothing of now.
            round_trip_us: Some(node).filter(|_| link == Link::Up).and_then(|_| self.round_trip_us(node)),
            version: self.versions.lock().get(&node).cloned(),
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
        Greeting { cluster_id: "lab".to_owned(), node, list_version: 1, version: "0.1.0".to_owned(), messages }
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
        assert_eq!(us.judge(&hello(&same, same.to_bytes())).expect("the same"), same);
    }
}
