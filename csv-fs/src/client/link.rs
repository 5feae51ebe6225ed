//! What the client's shell needs from outside: coordinators to talk to, the disk's own slot, a place for events.
//!
//! A link is one connection. When it ends its calls fail with [`LinkLost`], and the client binds again over another
//! one: a link is never repaired in place, because the bind number stands for exactly one connection.

use std::sync::Arc;

use block::buf::AlignedBuf;
use block::shared::{BoxFuture, Epoch, FenceGen};
use bytes::Bytes;

use crate::core::client::{Note, Overdue, RouteInfo};
use crate::proto::{Answer, BindAnswer, BindRequest, Call, CoordinatorHint, Redirect, RedirectAnswer};
use crate::types::{ClientId, HandleId, InodeNo};

/// The connection has ended; whether the request was executed is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the connection to the coordinator has ended")]
pub struct LinkLost;

type Listener<T> = Box<dyn FnOnce(Result<T, LinkLost>) + Send>;

/// Told once what became of a request. Dropped untold, it says that the link is lost.
pub struct Told<T>(Option<Listener<T>>);

/// Told what became of a redirected request; the buffer is a read's.
pub type RedirectDone = Told<(RedirectAnswer, Option<AlignedBuf>)>;

/// Told the answer to a call.
pub type CallDone = Told<Answer>;

impl<T> Told<T> {
    /// `told` must not block; it may be called under the session's lock.
    pub fn new(told: impl FnOnce(Result<T, LinkLost>) + Send + 'static) -> Told<T> {
        Told(Some(Box::new(told)))
    }

    /// Tells.
    pub fn tell(mut self, outcome: Result<T, LinkLost>) {
        if let Some(told) = self.0.take() {
            told(outcome);
        }
    }
}

impl<T> Drop for Told<T> {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Err(LinkLost));
        }
    }
}

/// One connection to a node that may be the coordinator: over the network, or within this process.
pub trait CoordinatorLink: Send + Sync + 'static {
    /// Binds the client to the coordinator over this connection.
    ///
    /// # Cancel safety
    /// A dropped future leaves the bind as it is; the next one has a higher number.
    fn bind(&self, epoch: Epoch, request: BindRequest) -> BoxFuture<'_, Result<BindAnswer, LinkLost>>;

    /// A session call. Called under the session's lock, so it does not wait: what cannot be sent at once comes back as a
    /// future, to be run by the caller. `done` is told on any thread, or before this returns.
    fn call(&self, epoch: Epoch, call: Call, done: CallDone) -> Option<BoxFuture<'static, ()>>;

    /// Redirected I/O; `data` is a write's. As [`CoordinatorLink::call`], and it does not do the work either.
    fn redirect(
        &self,
        epoch: Epoch,
        redirect: Redirect,
        data: Option<Bytes>,
        done: RedirectDone,
    ) -> Option<BoxFuture<'static, ()>>;

    /// Returns when the connection has ended.
    ///
    /// # Cancel safety
    /// Safe: may be dropped and called again.
    fn closed(&self) -> BoxFuture<'_, ()>;
}

/// How coordinators are found and reached.
pub trait Coordinators: Send + Sync + 'static {
    /// The present connection to that node, if there is one.
    fn link(&self, to: &CoordinatorHint) -> Option<Arc<dyn CoordinatorLink>>;

    /// Asks every peer that can be reached, and looks at the lease: what each knows, in any order. Bounded in time.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed by asking.
    fn ask_who(&self) -> BoxFuture<'_, Vec<CoordinatorHint>>;
}

/// Which bytes were written since a moment that everybody has heard of: see [`crate::client::data`], `doubt`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenSince {
    /// Whose moment.
    pub client: ClientId,
    /// Its number.
    pub mark: u64,
    /// Which bytes of the disk: where they begin, and how many.
    pub spans: Vec<(u64, u64)>,
}

/// Other nodes, as witnesses of what was written when.
pub trait Witnesses: Send + Sync + 'static {
    /// Has every other node note when it hears of this moment. Does not wait, and may be heard late or not at all.
    fn mark(&self, client: ClientId, number: u64);

    /// Of these bytes those that programs of some node have written by writes that began after it had heard of that moment or of a later
    /// one. Who does not answer in time has seen nothing. Bounded in time.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed by asking.
    fn written_since(&self, question: WrittenSince) -> BoxFuture<'_, Vec<(u64, u64)>>;
}

/// There is no other node.
#[derive(Clone, Copy, Debug)]
pub struct NoWitnesses;

impl Witnesses for NoWitnesses {
    fn mark(&self, _: ClientId, _: u64) {}

    fn written_since(&self, _: WrittenSince) -> BoxFuture<'_, Vec<(u64, u64)>> {
        Box::pin(async { Vec::new() })
    }
}

/// The node's own slot on the disk.
pub trait OwnSlot: Send + Sync + 'static {
    /// Reads it now and tells the fence generation in it; `None` if it could not be read. May hang as the disk does.
    ///
    /// # Cancel safety
    /// Safe: a read that is abandoned changes nothing.
    fn fence_gen(&self) -> BoxFuture<'_, Option<FenceGen>>;
}

/// What happened that a user may want to know.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The route changed.
    Route {
        /// Before.
        from: RouteInfo,
        /// Now.
        to: RouteInfo,
    },
    /// What this node's office is to know of the path to the disk.
    OwnPath {
        /// Whether it is there: a request failed, or the own slot was read again.
        ok: bool,
    },
    /// Bound to a coordinator.
    Bound {
        /// Its epoch.
        epoch: Epoch,
    },
    /// No coordinator; what needs one waits.
    Unbound,
    /// This incarnation was evicted.
    Evicted {
        /// Why, as the coordinator says.
        reason: String,
    },
    /// Open handles that fail from now on until they are closed: they held something that was lost.
    Poisoned {
        /// Which.
        handles: Vec<HandleId>,
    },
    /// Acknowledged writes of a file, not yet flushed, were lost; its next fsync fails.
    WritesLost {
        /// Which file.
        ino: InodeNo,
    },
    /// Requests of programs have waited for `io_timeout`, may still be executed, and therefore wait longer.
    IoOverdue {
        /// How many, and what for.
        overdue: Overdue,
    },
    /// Requests of programs got EIO after `io_timeout`; none of them will be executed.
    IoTimeout {
        /// How many since this was said last.
        requests: u64,
    },
    /// Locks held through these handles were not taken in by a new coordinator; the handles fail until they are closed.
    LocksLost {
        /// Which.
        handles: Vec<HandleId>,
    },
    /// A commit failed with this errno and is tried again.
    CommitFailed {
        /// Of which file.
        ino: InodeNo,
        /// Why.
        errno: i32,
    },
}

/// What is to outlive this process.
pub trait Notebook: Send + Sync + 'static {
    /// Keeps all of it, or, if the process ends meanwhile, nothing. Must not block, and must not call back into the client.
    fn note(&self, notes: &[Note]);
}

/// Where events go. Must not block and must not call back into the client.
pub trait EventSink: Send + Sync + 'static {
    /// Takes one.
    fn event(&self, event: ClientEvent);
}

impl<F: Fn(ClientEvent) + Send + Sync + 'static> EventSink for F {
    fn event(&self, event: ClientEvent) {
        self(event);
    }
}
