//! The peers as csv-fs asks for them.

use std::sync::Arc;

use block::shared::NodeId;
use csv_fs::volume::PeerTransport;
use net::Conn;

use super::peers::Peers;

/// Connections by node.
pub(super) struct Transport(pub(super) Arc<Peers>);

impl PeerTransport for Transport {
    fn conn(&self, node: NodeId) -> Option<Arc<Conn>> {
        self.0.conn(node)
    }

    fn comes_back(&self, node: NodeId) -> bool {
        self.0.comes_back(node)
    }

    fn minor(&self, node: NodeId) -> u16 {
        self.0.minor(node).unwrap_or_default()
    }
}
