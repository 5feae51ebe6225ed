//! A coordinator, or a client, on another node, over one connection of the cluster network.
//!
//! One [`RemoteLink`] stands for one connection and ends with it; the client binds anew over the next. An answer that
//! does not parse ends the connection: a peer that speaks another language cannot be trusted with half of it.

use std::sync::Arc;

use block::buf::AlignedBuf;
use block::shared::{BoxFuture, Epoch};
use bytes::Bytes;
use net::{Conn, Message, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire;
use crate::client::link::{CoordinatorLink, LinkLost};
use crate::coordinator::ClientLink;
use crate::proto::{Answer, BindAnswer, BindRequest, Call, Callback, CallbackAnswer, Opcode, Redirect, RedirectAnswer};

/// One connection to a node that may be the coordinator.
pub(super) struct RemoteLink(pub(super) Arc<Conn>);

impl RemoteLink {
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        opcode: Opcode,
        epoch: Epoch,
        ask: &Q,
        payload: Payload,
    ) -> Result<(A, Payload), LinkLost> {
        let message = wire::pack(opcode, epoch, ask, payload).map_err(|e| self.lost(&e.to_string()))?;
        let answer: Message = self.0.call(message).await.map_err(|e| {
            tracing::debug!(peer = %self.0.peer(), "no answer: {e}");
            // A peer that does not answer a request of a known kind is as good as gone for this client.
            if self.0.is_open() { self.lost(&e.to_string()) } else { LinkLost }
        })?;
        let value = wire::unpack(&answer).map_err(|e| self.lost(&e.to_string()))?;
        Ok((value, answer.payload))
    }

    fn lost(&self, why: &str) -> LinkLost {
        self.0.close(why);
        LinkLost
    }
}

impl CoordinatorLink for RemoteLink {
    fn bind(&self, epoch: Epoch, request: BindRequest) -> BoxFuture<'_, Result<BindAnswer, LinkLost>> {
        Box::pin(async move { Ok(self.ask(Opcode::Bind, epoch, &request, Payload::None).await?.0) })
    }

    fn call(&self, epoch: Epoch, call: Call) -> BoxFuture<'_, Result<Answer, LinkLost>> {
        Box::pin(async move { Ok(self.ask(Opcode::Call, epoch, &call, Payload::None).await?.0) })
    }

    fn redirect(
        &self,
        epoch: Epoch,
        redirect: Redirect,
        data: Option<Bytes>,
    ) -> BoxFuture<'_, Result<(RedirectAnswer, Option<AlignedBuf>), LinkLost>> {
        let payload = data.map_or(Payload::None, Payload::Shared);
        Box::pin(async move {
            let (answer, payload) = self.ask(Opcode::Redirect, epoch, &redirect, payload).await?;
            Ok((answer, payload.into_aligned()))
        })
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
}

impl ClientLink for RemoteClient {
    fn id(&self) -> u64 {
        self.conn.id()
    }

    fn callback(&self, callback: Callback) -> BoxFuture<'_, Option<CallbackAnswer>> {
        Box::pin(async move {
            let message = wire::pack(Opcode::Callback, self.epoch, &callback, Payload::None).ok()?;
            let answer = self.conn.call(message).await.ok()?;
            wire::unpack(&answer).ok()
        })
    }
}
