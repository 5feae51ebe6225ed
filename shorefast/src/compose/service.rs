//! What the cluster network calls: who may come in, and where messages go. It calls on its own thread; whatever is a task is
//! one of the control threads.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use block::shared::{BoxFuture, NodeId};
use bytes::Bytes;
use csv_fs::proto::PeerAnswer;
use csv_fs::volume::NodeBusiness;
use net::{CloseReason, Conn, DownReason, Message, PeerHello, Refusal, ReplyTo, Service};
use parking_lot::RwLock;
use tokio::runtime::Handle;

use super::members::List;
use super::node::{NodeParts, node_id};
use super::peers::Greeting;
use crate::events::{Code, Draft};

/// The service of a node's endpoint. The endpoint exists before the node does, so the node comes in later; until
/// then nobody is let in.
pub(super) struct NodeService {
    greeting: RwLock<Arc<Greeting>>,
    node: RwLock<Weak<NodeParts>>,
    /// Which node an open connection leads to; read for every request.
    leads_to: RwLock<HashMap<u64, NodeId>>,
    control: Handle,
}

impl NodeService {
    /// Tasks run where this is called.
    pub(super) fn new(greeting: Greeting) -> NodeService {
        let (node, leads_to) = (RwLock::default(), RwLock::default());
        let greeting = RwLock::new(Arc::new(greeting));
        NodeService { greeting, node, leads_to, control: Handle::current() }
    }

    /// From now on connections are judged by another list of nodes. Those that are open stay.
    pub(super) fn goes_by(&self, list: &List) {
        let mut greeting = self.greeting.write();
        *greeting = Arc::new(greeting.of_list(list));
    }

    fn said(&self) -> Arc<Greeting> {
        Arc::clone(&self.greeting.read())
    }

    /// From now on messages go to this node.
    pub(super) fn serve(&self, node: &Arc<NodeParts>) {
        *self.node.write() = Arc::downgrade(node);
    }

    fn node(&self) -> Option<Arc<NodeParts>> {
        self.node.read().upgrade()
    }
}

impl Service for NodeService {
    fn greeting(&self, _subject: &str) -> Bytes {
        self.said().to_bytes().into()
    }

    fn hello(&self, peer: &PeerHello) -> Result<Bytes, Refusal> {
        if self.node().is_none() {
            return Err(Refusal::new("this node is just starting"));
        }
        let said = self.said();
        said.judge(peer)?;
        Ok(said.to_bytes().into())
    }

    fn opened(&self, conn: &Arc<Conn>) {
        let _tasks = self.control.enter();
        // Judged by `hello` a moment ago; a connection that was refused does not open.
        if let (Some(node), Ok(greeting)) = (self.node(), self.said().judge(conn.hello())) {
            let peer = node_id(greeting.node());
            self.leads_to.write().insert(conn.id(), peer);
            node.peers.opened(peer, conn, &greeting, node.minors);
        }
    }

    fn request(&self, conn: &Arc<Conn>, msg: Message, reply: ReplyTo) {
        let _tasks = self.control.enter();
        let peer = self.leads_to.read().get(&conn.id()).copied();
        match (self.node(), peer) {
            (Some(node), Some(peer)) => node.directory.request(peer, conn, msg, reply, &Business(Arc::clone(&node))),
            _ => reply.fail("this node is stopping"),
        }
    }

    fn oneway(&self, conn: &Arc<Conn>, msg: Message) {
        tracing::warn!(peer = %conn.peer(), opcode = msg.opcode, "a one-way message, which this version has none of, was ignored");
    }

    fn closed(&self, conn: &Arc<Conn>, _why: &CloseReason) {
        let _tasks = self.control.enter();
        let peer = self.leads_to.write().remove(&conn.id());
        if let (Some(node), Some(peer)) = (self.node(), peer) {
            node.peers.closed(peer, conn);
            node.directory.closed(conn);
        }
    }

    fn refused(&self, remote: std::net::SocketAddr, why: &DownReason) {
        if let Some(node) = self.node() {
            node.events.record(Draft::node(Code::PeerRefused, format!("{remote} was not let in: {why}")));
        }
    }
}

struct Business(Arc<NodeParts>);

impl NodeBusiness for Business {
    fn ask(&self, body: Vec<u8>) -> BoxFuture<'static, PeerAnswer> {
        let node = Arc::clone(&self.0);
        Box::pin(async move {
            let talk = node.talked_to(&body).await;
            PeerAnswer::Node { body: serde_json::to_vec(&talk).unwrap_or_default() }
        })
    }

    fn minor(&self, node: NodeId) -> u16 {
        self.0.peers.minor(node).unwrap_or_default()
    }
}
