//! A coordinator, or a client, on another node, over one connection of the cluster network.
//!
//! One [`RemoteLink`] stands for one connection and ends with it; the client binds anew over the next. An answer that
//! does not parse ends the connection: a peer that speaks another language cannot be trusted with half of it.

use std::sync::Arc;

use block::shared::{BoxFuture, Epoch};
use bytes::Bytes;
use net::{CallError, Conn, Message, NotNow, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire;
use crate::client::link::{CallDone, CoordinatorLink, LinkLost, RedirectDone, Told};
use crate::coordinator::ClientLink;
use crate::proto::{
    BindAnswer, BindRequest, Call, Callback, CallbackAnswer, CallbackAsk, MINOR_LOCK_HELD, Opcode, Redirect, RedirectOp,
};

/// One connection to a node that may be the coordinator.
pub(super) struct RemoteLink(pub(super) Arc<Conn>);

impl RemoteLink {
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        opcode: Opcode,
        epoch: Epoch,
        ask: &Q,
    ) -> Result<A, LinkLost> {
        let message = wire::pack(opcode, epoch, ask, Payload::None).map_err(|e| lost(&self.0, &e.to_string()))?;
        let answer = self.0.call(message).await;
        Ok(understood(&self.0, answer)?.0)
    }

    /// Sends from this thread, and has the connection's reader tell; what cannot be sent at once comes back.
    fn send<A: DeserializeOwned + 'static, T: 'static>(
        &self,
        message: Message,
        told: fn(A, Payload) -> T,
        done: Told<T>,
    ) -> Option<BoxFuture<'static, ()>> {
        let conn = Arc::clone(&self.0);
        let then = move |answer| done.tell(understood(&conn, answer).map(|(answer, payload)| told(answer, payload)));
        let NotNow { msg, then } = self.0.call_then(message, then).err()?;
        let conn = Arc::clone(&self.0);
        Some(Box::pin(async move { then(conn.call(msg).await) }))
    }
}

/// The answer to a request, read.
fn understood<A: DeserializeOwned>(conn: &Conn, answer: Result<Message, CallError>) -> Result<(A, Payload), LinkLost> {
    let answer = answer.map_err(|e| {
        tracing::debug!(peer = %conn.peer(), "no answer: {e}");
        // A peer that does not answer a request of a known kind is as good as gone for this client.
        if conn.is_open() { lost(conn, &e.to_string()) } else { LinkLost }
    })?;
    let value = wire::unpack(&answer).map_err(|e| lost(conn, &e.to_string()))?;
    Ok((value, answer.payload))
}

fn lost(conn: &Conn, why: &str) -> LinkLost {
    conn.close(why);
    LinkLost
}

impl CoordinatorLink for RemoteLink {
    fn bind(&self, epoch: Epoch, request: BindRequest) -> BoxFuture<'_, Result<BindAnswer, LinkLost>> {
        Box::pin(async move { self.ask(Opcode::Bind, epoch, &request).await })
    }

    fn call(&self, epoch: Epoch, call: Call, done: CallDone) -> Option<BoxFuture<'static, ()>> {
        let message = match wire::pack(Opcode::Call, epoch, &call, Payload::None) {
            Ok(message) => message,
            Err(e) => {
                done.tell(Err(lost(&self.0, &e.to_string())));
                return None;
            }
        };
        self.send(message, |answer, _| answer, done)
    }

    fn redirect(
        &self,
        epoch: Epoch,
        redirect: Redirect,
        data: Option<Bytes>,
        done: RedirectDone,
    ) -> Option<BoxFuture<'static, ()>> {
        let payload = data.map_or(Payload::None, Payload::Shared);
        let expected = if redirect.op == RedirectOp::Read { redirect.len } else { 0 };
        let message = match wire::pack(Opcode::Redirect, epoch, &redirect, payload) {
            Ok(message) => message.expecting(expected),
            Err(e) => {
                done.tell(Err(lost(&self.0, &e.to_string())));
                return None;
            }
        };
        self.send(message, |answer, payload| (answer, payload.into_aligned()), done)
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0.closed().await;
        })
    }
}

/// A client on another node, over the connection on which it bound.
pub(super) struct RemoteClient {
    pub(super) conn: Arc<Conn>,
    /// The reign that asks.
    pub(super) epoch: Epoch,
    /// The minor version of the messages that it speaks.
    pub(super) minor: u16,
}

impl ClientLink for RemoteClient {
    fn id(&self) -> u64 {
        self.conn.id()
    }

    fn callback(&self, callback: Callback) -> BoxFuture<'_, Option<CallbackAnswer>> {
        Box::pin(async move {
            if self.minor < MINOR_LOCK_HELD && matches!(callback.ask, CallbackAsk::LockHeld { .. }) {
                // It cannot be asked, and is believed to have heard whatever it was told.
                return Some(CallbackAnswer::Accepted);
            }
            let message = wire::pack(Opcode::Callback, self.epoch, &callback, Payload::None).ok()?;
            let answer = self.conn.call(message).await.ok()?;
            wire::unpack(&answer).ok()
        })
    }
}
