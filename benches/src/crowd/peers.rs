//! 63 simulated nodes at the cluster network. Each greets with its own certificate and answers what a status asks; about
//! volumes it says that its data goes straight to the disk, and that node 1 coordinates.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use block::shared::Epoch;
use bytes::Bytes;
use csv_fs::proto::{Opcode, PROTO_MINORS, PROTO_VERSION, PeerAnswer, PeerAsk};
use csv_fs::volume::wire;
use net::{CloseReason, Conn, Message, Net, NetConfig, Payload, PeerHello, Refusal, ReplyTo, Security, Service};
use serde_json::{Value, json};

use crate::{Failure, bundle};

/// The endpoints; gone with this value.
pub(super) struct Peers {
    _runtime: tokio::runtime::Runtime,
    _nets: Vec<Net>,
}

impl Peers {
    /// One for each bundle, at its address of the list.
    pub(super) fn start(bundles: &[PathBuf], addresses: &[String]) -> Result<Peers, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the simulated nodes: {e}"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|e| failed(&e))?;
        let volumes = Arc::default();
        let mut nets = Vec::new();
        for ((path, address), node) in bundles.iter().zip(addresses).zip(2..) {
            let (material, subject) = bundle::read(path)?;
            let config = NetConfig::new(address.parse().map_err(|e| failed(&e))?, Security::Tls(material));
            let peer = Peer { node, cluster: cluster_of(&subject), volumes: Arc::clone(&volumes) };
            nets.push(runtime.block_on(Net::start(config, Arc::new(peer))).map_err(|e| failed(&e))?);
        }
        Ok(Peers { _runtime: runtime, _nets: nets })
    }
}

/// `node-7.CLUSTER.shorefast.internal`.
fn cluster_of(subject: &str) -> String {
    subject.split('.').nth(1).unwrap_or_default().to_owned()
}

struct Peer {
    node: u8,
    cluster: String,
    /// Names that any of them was told of: in a cluster all know all.
    volumes: Arc<Mutex<BTreeSet<String>>>,
}

impl Peer {
    fn greeting(&self) -> Bytes {
        let (oldest, newest) = PROTO_MINORS;
        let said = json!({
            "cluster_id": self.cluster, "node": self.node, "list_version": 1, "version": "0.1.0", "messages": PROTO_VERSION,
            "minors": { "oldest": oldest, "newest": newest },
        });
        said.to_string().into_bytes().into()
    }

    /// What the node's own business is answered with.
    fn talk(&self, asked: &Value) -> Value {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(records) = asked["exchange"].as_array() {
            volumes.extend(records.iter().filter_map(|r| Some(r["name"].as_str()?.to_owned())));
            return json!({ "records": [] });
        }
        let told: Vec<Value> = volumes.iter().map(|name| self.told(name)).collect();
        json!({ "words": { "told": told, "drained": false } })
    }

    fn told(&self, name: &str) -> Value {
        let path = json!({ "name": format!("/disks/{name}"), "ok": true, "detail": "ready" });
        json!({
            "name": name,
            "here": { "node": self.node, "route": "direct", "reason": null, "since": 0, "paths": [path], "wanted": true },
            "known": {
                "epoch": 1, "coordinator": 1, "metadata": "ok", "size_bytes": 1 << 30, "used_bytes": null, "timing": "default",
            },
        })
    }
}

impl Service for Peer {
    fn greeting(&self, _: &str) -> Bytes {
        Peer::greeting(self)
    }

    fn hello(&self, _: &PeerHello) -> Result<Bytes, Refusal> {
        Ok(Peer::greeting(self))
    }

    fn opened(&self, _: &Arc<Conn>) {}

    fn request(&self, _: &Arc<Conn>, msg: Message, reply: ReplyTo) {
        let answer = match wire::unpack(&msg) {
            Ok(PeerAsk::Node { body }) => {
                let asked = serde_json::from_slice(&body).unwrap_or_default();
                PeerAnswer::Node { body: self.talk(&asked).to_string().into_bytes() }
            }
            _ => PeerAnswer::UnknownVolume,
        };
        match wire::pack(Opcode::Peer, Epoch(0), &answer, Payload::None) {
            Ok(answer) => reply.send(answer),
            Err(e) => reply.fail(&e.to_string()),
        }
    }

    fn oneway(&self, _: &Arc<Conn>, _: Message) {}

    fn closed(&self, _: &Arc<Conn>, _: &CloseReason) {}
}
