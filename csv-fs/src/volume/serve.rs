//! What other nodes ask of this one: messages in, the right volume found, answers out.
//!
//! A message's sender is known by its certificate. What it says of itself must agree: a client that binds, calls or
//! redirects as another node is refused, whatever it presents.
//!
//! Nothing here waits: each request that takes time is a task that owns its reply, or (calls, redirected I/O) is handed to the
//! coordinator or the device together with it. How many there are at once is bounded by the network's budget per connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use block::shared::{BoxFuture, Epoch, NodeId};
use net::{Conn, Message, Payload, ReplyTo};
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::watch;

use super::Volume;
use super::remote::RemoteClient;
use super::wire::{self, WireError};
use crate::proto::*;
use crate::types::{ClientId, VolumeId};

/// The node's own business between nodes: opaque to the file system.
pub trait NodeBusiness {
    /// Answers what another node asked.
    ///
    /// # Cancel safety
    /// Never dropped before it is done, except with the process.
    fn ask(&self, body: Vec<u8>) -> BoxFuture<'static, PeerAnswer>;

    /// The minor version of the messages that a node speaks with this one.
    fn minor(&self, node: NodeId) -> u16;
}

/// The volumes that run on this node.
#[derive(Default)]
pub struct Directory {
    volumes: RwLock<BTreeMap<VolumeId, Arc<Volume>>>,
    beginning: watch::Sender<BTreeSet<VolumeId>>,
}

/// A volume is being started. Ends when this is dropped.
#[must_use]
pub struct Beginning {
    id: VolumeId,
    all: watch::Sender<BTreeSet<VolumeId>>,
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.all.send_modify(|all| {
            all.remove(&self.id);
        });
    }
}

impl Directory {
    /// This volume is about to be started: it is there, or will not be, when what this returns is dropped. What is asked of its client
    /// waits until then.
    ///
    /// Prevents: a client goes on in this process, and binds before its mount is served; its coordinator asks a layout back, is told that
    /// no such client is here, and evicts it.
    pub fn begins(&self, id: VolumeId) -> Beginning {
        self.beginning.send_modify(|all| {
            all.insert(id);
        });
        Beginning { id, all: self.beginning.clone() }
    }

    /// From now on messages for this volume reach it.
    pub fn insert(&self, volume: &Arc<Volume>) {
        self.volumes.write().insert(volume.id(), Arc::clone(volume));
    }

    /// No longer.
    pub fn remove(&self, volume: &Volume) {
        self.volumes.write().remove(&volume.id());
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Volume>> {
        self.volumes.read().values().cloned().collect()
    }

    /// A connection has ended: sessions bound over it have no callbacks until they bind again.
    pub fn closed(&self, conn: &Conn) {
        for volume in self.all() {
            volume.link_lost(conn.id());
        }
    }

    /// A request of another node.
    pub fn request(
        self: &Arc<Self>,
        from: NodeId,
        conn: &Arc<Conn>,
        msg: Message,
        reply: ReplyTo,
        node: &dyn NodeBusiness,
    ) {
        if let Err(e) = self.dispatch(from, conn, msg, reply, node) {
            tracing::warn!(%from, "a request was not understood: {e}");
        }
    }

    fn get(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.volumes.read().get(&id).cloned()
    }

    /// A reply that is dropped on the way out by an error tells the caller that there is no answer.
    fn dispatch(
        self: &Arc<Self>,
        from: NodeId,
        conn: &Arc<Conn>,
        msg: Message,
        reply: ReplyTo,
        node: &dyn NodeBusiness,
    ) -> Result<(), WireError> {
        match wire::opcode(&msg)? {
            Opcode::Peer => self.peer(from, wire::unpack(&msg)?, reply, node),
            Opcode::Bind => self.bind(from, conn, wire::unpack(&msg)?, reply, node.minor(from)),
            Opcode::Call => self.call(from, Epoch(msg.epoch), wire::unpack(&msg)?, reply),
            Opcode::Redirect => self.redirect(from, wire::unpack(&msg)?, msg.payload, reply),
            Opcode::Callback => self.callback(wire::unpack(&msg)?, reply),
        }
        Ok(())
    }

    fn peer(&self, from: NodeId, ask: PeerAsk, reply: ReplyTo, node: &dyn NodeBusiness) {
        let volume = match &ask {
            PeerAsk::Node { body } => {
                let answer = node.ask(body.clone());
                tokio::spawn(async move { send(reply, Opcode::Peer, Epoch(0), &answer.await, Payload::None) });
                return;
            }
            PeerAsk::Who { volume }
            | PeerAsk::Alive { volume, .. }
            | PeerAsk::Fence { volume, .. }
            | PeerAsk::NewEpoch { volume, .. }
            | PeerAsk::NoPath { volume, .. }
            | PeerAsk::TakeOffice { volume, .. }
            | PeerAsk::Mark { volume, .. }
            | PeerAsk::WrittenSince { volume, .. } => self.get(*volume),
        };
        let Some(volume) = volume else {
            return send(reply, Opcode::Peer, Epoch(0), &PeerAnswer::UnknownVolume, Payload::None);
        };
        tokio::spawn(async move {
            let answer = volume.peer_asked(from, ask).await;
            send(reply, Opcode::Peer, volume.epoch(), &answer, Payload::None);
        });
    }

    fn bind(&self, from: NodeId, conn: &Arc<Conn>, request: BindRequest, reply: ReplyTo, minor: u16) {
        let none = BindAnswer::NotCoordinator { hint: None };
        let Some(volume) = self.get(request.volume).filter(|_| claims_truly(from, request.client)) else {
            return send(reply, Opcode::Bind, Epoch(0), &none, Payload::None);
        };
        let conn = Arc::clone(conn);
        tokio::spawn(async move {
            // Whoever takes office tells of it before its store is open. Refused, a client would come again after a pause that
            // is longer than the opening; it gives up by itself what takes too long.
            let answer = match volume.opened_coordinator().await {
                Some(coordinator) => {
                    let client = RemoteClient { epoch: coordinator.epoch(), conn: Arc::clone(&conn), minor };
                    let answer = coordinator.bind(Arc::new(client), request).await;
                    // Prevents: it had ended, and that was told, before this came to its turn, and the client counts as
                    // connected for ever.
                    if !conn.is_open() {
                        coordinator.link_lost(conn.id());
                    }
                    answer
                }
                None => BindAnswer::NotCoordinator { hint: volume.hint() },
            };
            send(reply, Opcode::Bind, volume.epoch(), &answer, Payload::None);
        });
    }

    fn call(&self, from: NodeId, epoch: Epoch, call: Call, reply: ReplyTo) {
        let stale = Answer::StaleEpoch { hint: None };
        let Some(volume) = self.get(call.volume).filter(|_| claims_truly(from, call.client)) else {
            return send(reply, Opcode::Call, Epoch(0), &stale, Payload::None);
        };
        // No task: whoever knows the answer sends it, which for a look-up in memory is this thread.
        let Some(coordinator) = volume.coordinator().filter(|c| c.epoch() >= epoch) else {
            let none = Answer::StaleEpoch { hint: volume.hint() };
            return send(reply, Opcode::Call, volume.epoch(), &none, Payload::None);
        };
        coordinator.call_then(call, move |answer| send(reply, Opcode::Call, volume.epoch(), &answer, Payload::None));
    }

    fn redirect(&self, from: NodeId, request: Redirect, payload: Payload, reply: ReplyTo) {
        let stale = RedirectAnswer::StaleEpoch { hint: None };
        let Some(volume) = self.get(request.volume).filter(|_| claims_truly(from, request.client)) else {
            return send(reply, Opcode::Redirect, Epoch(0), &stale, Payload::None);
        };
        // No task: the request goes to the device from here, the answer to the connection from its completion.
        let Some(coordinator) = volume.coordinator() else {
            let none = RedirectAnswer::StaleEpoch { hint: volume.hint() };
            return send(reply, Opcode::Redirect, volume.epoch(), &none, Payload::None);
        };
        coordinator.redirect_then(request, payload.into_aligned(), move |answer, data| {
            send(reply, Opcode::Redirect, volume.epoch(), &answer, data.map_or(Payload::None, Payload::Aligned));
        });
    }

    fn callback(self: &Arc<Self>, callback: Callback, reply: ReplyTo) {
        let me = Arc::clone(self);
        tokio::spawn(async move {
            let begins = |all: &BTreeSet<VolumeId>| all.contains(&callback.volume);
            // It was inserted before it was said to have begun.
            let _ = me.beginning.subscribe().wait_for(|all| !begins(all)).await;
            let Some(volume) = me.get(callback.volume) else {
                return send(reply, Opcode::Callback, Epoch(0), &CallbackAnswer::WrongIncarnation, Payload::None);
            };
            let answer = volume.session().callback(callback.client, callback.ask).await;
            send(reply, Opcode::Callback, volume.epoch(), &answer, Payload::None);
        });
    }
}

/// Whether a client is of the node that the certificate proves.
fn claims_truly(from: NodeId, client: ClientId) -> bool {
    let truly = client.node == from;
    if !truly {
        tracing::warn!(%from, %client, "a node spoke for another one and was refused");
    }
    truly
}

fn send<T: Serialize>(reply: ReplyTo, opcode: Opcode, epoch: Epoch, answer: &T, payload: Payload) {
    match wire::pack(opcode, epoch, answer, payload) {
        Ok(message) => reply.send(message),
        Err(e) => reply.fail(&e.to_string()),
    }
}
