//! The tasks of one open connection: a reader, a writer, and the supervisor that ticks and buries.
//!
//! ```text
//! supervisor: opened() ─► ticks ─► the end has a reason ─► reader stopped ─► writer drained (bounded) ─► closed()
//! ```
//! The reader hands each frame to the service inline: no task, no queue, so `opened`, messages and `closed`
//! never overlap. The writer gives as many frames as wait to one vectored write (TLS seals them into as few
//! records as they fit). Both end the connection on failure; only the supervisor stops them.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::budget::cost_kib;
use crate::conn::Conn;
use crate::error::{CallError, CloseReason};
use crate::frame::Kind;
use crate::framer::{Frame, Framer};
use crate::keepalive::{KeepAlive, Sample, Verdict};
use crate::limits::{CLOSE_GRACE, MAX_BATCH};
use crate::outbox::{Gone, Taken};
use crate::outgoing::Outgoing;
use crate::reply::ReplyTo;
use crate::service::Service;

/// How often, and how long without a sign of life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) interval: Duration,
    pub(crate) dead_after: Duration,
}

/// Runs a connection to its end. The future does the supervisor's part.
pub(crate) async fn run<R, W>(
    conn: Arc<Conn>,
    service: Arc<dyn Service>,
    halves: (R, W),
    framer: Framer,
    timing: Timing,
) -> CloseReason
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    service.opened(&conn);
    let mut writer = tokio::spawn(write_loop(halves.1, conn.clone()));
    let mut reader = tokio::spawn(read_loop(halves.0, framer, conn.clone(), service.clone()));
    let why = supervise(&conn, &mut reader, timing).await;
    reader.abort();
    // Waits for a service method that is running right now; it must not block, so this is short.
    if !reader.is_finished() {
        drop(reader.await);
    }
    if tokio::time::timeout(CLOSE_GRACE, &mut writer).await.is_err() {
        writer.abort();
    }
    conn.outbox.kill();
    tracing::debug!(peer = %conn.peer(), remote = %conn.remote(), conn = conn.id(), "connection closed: {why}");
    service.closed(&conn, &why);
    why
}

/// Ticks until the connection has a reason to end.
async fn supervise(conn: &Conn, reader: &mut JoinHandle<CloseReason>, timing: Timing) -> CloseReason {
    let mut keepalive = KeepAlive::new(KeepAlive::ticks(timing.interval, timing.dead_after));
    let mut ticks = tokio::time::interval(timing.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let closed = conn.closed();
    tokio::pin!(closed);
    loop {
        tokio::select! {
            why = &mut closed => return why,
            ended = &mut *reader => {
                conn.end(ended.unwrap_or(CloseReason::ServicePanicked));
                return closed.await;
            }
            _ = ticks.tick() => tick(conn, &mut keepalive),
        }
    }
}

fn tick(conn: &Conn, keepalive: &mut KeepAlive) {
    let sample = Sample {
        received: conn.traffic.received.load(Ordering::Relaxed),
        sent: conn.traffic.sent.load(Ordering::Relaxed),
        backlog: conn.outbox.backlog(),
    };
    match keepalive.tick(sample) {
        Verdict::Fine => {}
        Verdict::Ping => conn.outbox.ping(),
        Verdict::Silent | Verdict::Stuck => conn.end(CloseReason::TimedOut),
    }
}

async fn read_loop<R: AsyncRead + Unpin>(
    mut io: R,
    mut framer: Framer,
    conn: Arc<Conn>,
    service: Arc<dyn Service>,
) -> CloseReason {
    loop {
        let n = match io.read(framer.space()).await {
            Ok(0) => return CloseReason::Reset,
            Ok(n) => n,
            Err(e) => return CloseReason::from(&e),
        };
        conn.traffic.received.fetch_add(n as u64, Ordering::Relaxed);
        match framer.filled(n) {
            Ok(None) => {}
            Ok(Some(frame)) => {
                if let Err(why) = dispatch(frame, &conn, &*service) {
                    return why;
                }
            }
            Err(e) => return e.into(),
        }
    }
}

/// One whole frame. An error ends the connection.
fn dispatch(frame: Frame, conn: &Arc<Conn>, service: &dyn Service) -> Result<(), CloseReason> {
    let id = frame.header.request_id;
    match frame.header.kind {
        Kind::Request => {
            let cost = cost_kib(frame.body.len(), frame.payload.len());
            conn.admit(cost).map_err(|e| CloseReason::Protocol(e.to_string()))?;
            let reply = ReplyTo::new(conn.clone(), id, cost);
            service.request(conn, frame.into_message(), reply);
            Ok(())
        }
        Kind::Reply => answered(conn, id, Ok(frame.into_message())),
        Kind::Fail => answered(conn, id, Err(CallError::Unanswered(frame.sentence()))),
        Kind::Oneway => {
            service.oneway(conn, frame.into_message());
            Ok(())
        }
        Kind::Ping => {
            conn.outbox.pong();
            Ok(())
        }
        Kind::Pong => Ok(()),
        Kind::Bye => Err(CloseReason::Peer(frame.sentence())),
        // The framer lets none of these through once the connection is open.
        kind @ (Kind::Hello | Kind::Welcome | Kind::Ready | Kind::Refuse) => {
            Err(CloseReason::Protocol(format!("unexpected frame of kind {kind:?}")))
        }
    }
}

fn answered(conn: &Conn, id: u64, answer: Result<crate::message::Message, CallError>) -> Result<(), CloseReason> {
    conn.answered(id, answer).map_err(|e| CloseReason::Protocol(e.to_string()))
}

async fn write_loop<W: AsyncWrite + Unpin>(mut io: W, conn: Arc<Conn>) {
    if let Err(e) = write_all(&mut io, &conn).await {
        conn.end(CloseReason::from(&e));
        return;
    }
    // All is said: the peer sees an orderly end. That it is not seen is the peer's keep-alive's matter.
    drop(io.shutdown().await);
}

async fn write_all<W: AsyncWrite + Unpin>(io: &mut W, conn: &Conn) -> io::Result<()> {
    let mut batch = Outgoing::default();
    loop {
        match conn.outbox.take(&mut batch) {
            Taken::Frames => write_batch(io, conn, &mut batch).await?,
            Taken::Nothing => {
                io.flush().await?;
                conn.outbox.rung().await;
            }
            Taken::Finished => return io.flush().await,
        }
    }
}

async fn write_batch<W: AsyncWrite + Unpin>(io: &mut W, conn: &Conn, batch: &mut Outgoing) -> io::Result<()> {
    while !batch.is_empty() {
        let n = poll_fn(|cx| {
            let mut slices = [IoSlice::new(&[]); 3 * MAX_BATCH];
            let filled = batch.slices(&mut slices);
            Pin::new(&mut *io).poll_write_vectored(cx, &slices[..filled])
        })
        .await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        conn.traffic.sent.fetch_add(n as u64, Ordering::Relaxed);
        let mut gone = Gone::default();
        batch.advance(n, |kind, len| gone.count(kind, len));
        conn.outbox.written(&gone);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
