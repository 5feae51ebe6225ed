//! The seam between the API and a running node: whatever a command can ask, as one trait. The daemon's composition
//! implements it; tests implement it with a few lines.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::request::{CheckAnswer, CreateVolume, DiskFault};
use super::types::{Node, NodeInfo, Status, VolumeStatus};
use crate::events::EventLog;
use crate::exit::Failure;

/// An answer that will be there.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Tells whoever asked what is being done; a line that nobody can take any more is dropped.
#[derive(Clone, Debug)]
pub struct Progress(mpsc::Sender<String>);

impl Progress {
    /// Lines that may wait for a slow reader; more are dropped, they only amuse.
    const QUEUE: usize = 16;

    /// A sender and the end to read from.
    pub fn channel() -> (Progress, mpsc::Receiver<String>) {
        let (tx, rx) = mpsc::channel(Progress::QUEUE);
        (Progress(tx), rx)
    }

    /// Says a line.
    pub fn say(&self, line: impl Into<String>) {
        // A full queue means a reader slower than the work: it will see the end all the same.
        let _ = self.0.try_send(line.into());
    }
}

/// A running node, as the API sees it. Every failure says what to do next.
///
/// # Cancel safety
/// The server never drops one of these futures before it is done, also when whoever asked has gone away.
pub trait NodeControl: Send + Sync + 'static {
    /// Everything, as this node knows it; must answer also while disks and coordinators don't.
    fn status(&self) -> Pending<'_, Status>;
    /// The nodes of the cluster.
    fn nodes(&self) -> Pending<'_, Vec<NodeInfo>>;
    /// The volumes known here.
    fn volumes(&self) -> Pending<'_, Vec<VolumeStatus>>;
    /// Formats, takes office, mounts here, tells the others.
    fn volume_create(&self, ask: CreateVolume, progress: Progress) -> Pending<'_, VolumeStatus>;
    /// Mounts here; done if it is mounted already.
    fn volume_mount(&self, name: String) -> Pending<'_, VolumeStatus>;
    /// Unmounts here; refused with open files unless `force`.
    fn volume_unmount(&self, name: String, force: bool) -> Pending<'_, ()>;
    /// Hands the office to another node; done once that node holds it.
    fn volume_move(&self, name: String, to: Node, progress: Progress) -> Pending<'_, VolumeStatus>;
    /// Redirects a node's data through the coordinator, or stops that; `None` is this node.
    fn volume_redirect(&self, name: String, on: bool, node: Option<Node>) -> Pending<'_, ()>;
    /// Checks a volume at its coordinator; one that no node has mounted is left to whoever asks. A `repair` of a mounted
    /// one is refused.
    fn volume_check(&self, name: String, repair: bool, progress: Progress) -> Pending<'_, CheckAnswer>;
    /// Drains a node, or puts it back into service; `None` is this node. Done once it coordinates nothing.
    fn node_drain(&self, node: Option<Node>, on: bool, progress: Progress) -> Pending<'_, ()>;
    /// Takes a node from the list of nodes, on all that stay.
    fn node_remove(&self, node: Node, progress: Progress) -> Pending<'_, ()>;
    /// Gives back everything, in stages and within a bound: no new requests, drain, flush, end sessions, resign,
    /// unmount. Called once, by the daemon, after the API has closed.
    fn stop(&self) -> Pending<'_, ()>;
    /// Makes room for the next daemon of this node: what is open stays open, and the mounts are left to it. Called instead of
    /// `stop`, under the same conditions.
    fn leave(&self) -> Pending<'_, ()>;
    /// What happened here.
    fn events(&self) -> Arc<EventLog>;
    /// Makes this node's disks misbehave; refused unless the configuration has `debug = true` and a fault device.
    fn debug_disk(&self, fault: DiskFault) -> Pending<'_, ()>;
    /// Begins to evict a node from a volume that this node coordinates; refused unless the configuration has
    /// `debug = true`.
    fn debug_evict(&self, name: String, node: Node) -> Pending<'_, ()>;
}
