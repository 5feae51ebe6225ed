//! Two nodes, a coordinator, and the reference they are held to.

mod files;
mod names;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::rig::*;
use super::Seen;
use super::expected::Contents;
use super::steps::{Step, What};
use crate::client::data::OpenFile;
use crate::client::link::ClientEvent;
use crate::client::session::{Caller, Errno};
use crate::meta::tests::model::reference::{Ino, Kind, Reference};
use crate::proto::{Reply, Request, Space};
use crate::types::*;

/// More open files than this are closed, the oldest first.
const OPEN: usize = 20;

type Result<T> = std::result::Result<T, String>;

/// A file that a node has open.
struct Handle {
    node: usize,
    ino: Ino,
    file: Arc<OpenFile>,
}

/// All of it.
pub(super) struct World {
    cluster: Cluster,
    beside: bool,
    stack: Stack,
}

/// What one step works with.
struct Stack {
    nodes: Vec<Node>,
    reference: Reference,
    contents: BTreeMap<Ino, Contents>,
    handles: Vec<Handle>,
    free: u64,
    seen: Seen,
}

/// An answer against what was expected; what it brought if both are good.
fn same<T: std::fmt::Debug>(
    expected: std::result::Result<(), rustix::io::Errno>,
    got: std::result::Result<T, Errno>,
) -> Result<Option<T>> {
    match (expected, got) {
        (Ok(()), Ok(value)) => Ok(Some(value)),
        (Err(e), Err(Errno(n))) if e.raw_os_error() == n => Ok(None),
        (expected, got) => Err(format!("expected {expected:?}, got {got:?}")),
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, got: &T) -> Result<()> {
    if expected == got { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}

fn equal_bytes(what: &str, expected: &[u8], got: &[u8]) -> Result<()> {
    equal(&format!("{what}, length"), &expected.len(), &got.len())?;
    match expected.iter().zip(got).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(i) => Err(format!("{what}: byte {i} is {:#x}, expected {:#x}", got[i], expected[i])),
    }
}

impl World {
    pub(super) async fn new(lacking: Lacking) -> World {
        let cluster = Cluster::dozing(lacking).await;
        let nodes = vec![cluster.node(1), cluster.node(2)];
        let mut stack = Stack {
            nodes,
            reference: Reference::new(),
            contents: BTreeMap::from([(1, Contents::new(0o755))]),
            handles: Vec::new(),
            seen: Seen::default(),
            free: 0,
        };
        // Each is bound then: whom the coordinator does not know it cannot evict.
        for n in 0..stack.nodes.len() {
            stack.free = stack.space(n).await.expect("a volume").free;
        }
        World { cluster, beside: false, stack }
    }

    pub(super) async fn step(&mut self, step: Step) -> Result<()> {
        match step.what {
            What::Takeover => self.cluster.take_office(4).await,
            What::TakeoverBeside => self.beside = true,
            What::LoseAnswer => *self.stack.nodes[step.node].fate.lock() = Fate::Lost,
            What::LoseCoordinator => *self.stack.nodes[step.node].fate.lock() = Fate::LostWithCoordinator,
            What::Evict => self.evict(step.node, true).await?,
            What::EvictUnsynced => self.evict(step.node, false).await?,
            _ => self.step_over_a_death(step).await?,
        }
        let Stack { reference, contents, .. } = &mut self.stack;
        contents.retain(|ino, _| reference.nodes.contains_key(ino));
        Ok(())
    }

    /// A step; if the coordinator dies in the middle of it, another one takes office, beside it.
    async fn step_over_a_death(&mut self, step: Step) -> Result<()> {
        let mut beside = std::mem::take(&mut self.beside);
        let World { cluster, stack, .. } = self;
        let mut doing = std::pin::pin!(stack.step_and_close(step));
        loop {
            if std::mem::take(&mut beside) || cluster.is_dead() {
                let mut office = std::pin::pin!(cluster.take_office(4));
                tokio::select! {
                    biased;
                    () = &mut office => {}
                    done = &mut doing => {
                        office.await;
                        return done;
                    }
                }
            }
            tokio::select! {
                done = &mut doing => return done,
                () = tokio::time::sleep(std::time::Duration::from_millis(2)) => {}
            }
        }
    }

    /// Every answer arrives from here on, and somebody is in office.
    async fn settle(&mut self) {
        self.stack.nodes.iter().for_each(|node| *node.fate.lock() = Fate::Arrives);
        if self.cluster.is_dead() {
            self.cluster.take_office(4).await;
        }
    }

    /// The last events of each node.
    pub(super) fn told(&self) -> Vec<Vec<ClientEvent>> {
        let of = |node: &Node| node.events.lock().iter().rev().take(10).rev().cloned().collect();
        self.stack.nodes.iter().map(of).collect()
    }

    /// A node's life ends, and its next begins. With `synced` it loses nothing.
    async fn evict(&mut self, n: usize, synced: bool) -> Result<()> {
        self.settle().await;
        if synced {
            self.stack.sync_all(n).await?;
        }
        let node = &self.stack.nodes[n];
        self.cluster.end_life(node).await;
        self.cluster.next_life(node).await;
        self.stack.space(n).await?;
        self.stack.close_lost(n).await?;
        if !synced {
            // What was lost is said once.
            let _ = self.stack.nodes[n].path.sync_all(&Caller::patient()).await;
        }
        // What is still open is opened again by the next life.
        for _ in 0..1000 {
            if self.cluster.opens() == self.stack.handles.len() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.stack.look_for_losses(n).await
    }

    /// Everything is closed, seen alike by both nodes, and nothing is left over.
    pub(super) async fn end(mut self) -> Result<Seen> {
        self.settle().await;
        while !self.stack.handles.is_empty() {
            self.stack.close(0).await?;
        }
        for n in 0..self.stack.nodes.len() {
            self.stack.nodes[n].session.force_redirect(false);
            self.stack.sync_all(n).await?;
        }
        for n in 0..self.stack.nodes.len() {
            self.stack.compare_tree(n).await?;
        }
        let used = self.stack.used().await?;
        let files = self.stack.reference.nodes.len() as u64;
        for _ in 0..1000 {
            let space = self.stack.space(0).await?;
            if (space.files, space.free + used) == (files, self.stack.free) {
                self.cluster.must_be_sound().await?;
                return Ok(self.stack.seen);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let space = self.stack.space(0).await?;
        let open = self.cluster.opens();
        Err(format!("{open} open, {files} files use {used} of {} blocks, and left is {space:?}", self.stack.free))
    }
}

impl Stack {
    /// With too many files open, the oldest are closed.
    async fn step_and_close(&mut self, step: Step) -> Result<()> {
        self.step(step).await?;
        while self.handles.len() > OPEN {
            self.close(0).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<()> {
        match step.what {
            What::Create => self.create(step).await,
            What::Nameless => self.nameless(step).await,
            What::Mkdir => self.mkdir(step).await,
            What::Symlink => self.symlink(step).await,
            What::Link => self.link(step).await,
            What::Unlink => self.unlink(step).await,
            What::Rmdir => self.rmdir(step).await,
            What::Rename => self.rename(step).await,
            What::Open => self.open(step).await,
            What::Close => match self.handle(step) {
                Some(at) => self.close(at).await,
                None => Ok(()),
            },
            What::Write | What::Append => self.write(step).await,
            What::Scatter => self.scatter(step).await,
            What::Read => self.read(step).await,
            What::Truncate | What::Allocate | What::Punch | What::Zero => self.reshape(step).await,
            What::Copy => self.copy(step).await,
            What::Seek => self.seek(step).await,
            What::Fsync => self.fsync(step).await,
            What::SyncAll => self.sync_all(step.node).await,
            What::Stat => self.stat(step).await,
            What::List => self.list(step.node, self.dir(step.a)).await,
            What::Lookup => self.lookup(step).await,
            What::Chmod => self.chmod(step).await,
            What::SetXattr | What::RemoveXattr => self.change_xattr(step).await,
            What::Xattrs => self.xattrs(step.node, self.anything(step.a)).await,
            What::Redirect => {
                self.nodes[step.node].session.force_redirect(step.a.is_multiple_of(2));
                Ok(())
            }
            What::Forget => self.forget(),
            What::Takeover | What::TakeoverBeside | What::LoseAnswer | What::LoseCoordinator => Ok(()),
            What::Evict | What::EvictUnsynced => Ok(()),
        }
    }

    async fn call(&self, n: usize, request: Request) -> std::result::Result<Reply, Errno> {
        let (node, patient) = (&self.nodes[n], Caller::patient());
        node.soon(node.session.call(&patient, request)).await
    }

    async fn space(&self, n: usize) -> Result<Space> {
        let patient = Caller::patient();
        self.nodes[n].soon(self.nodes[n].path.statfs(&patient)).await.map_err(|e| format!("{e:?}"))
    }

    /// A name goes from the reference alone.
    fn forget(&mut self) -> Result<()> {
        let root = self.reference.nodes.get_mut(&1).ok_or("no root")?;
        if let Kind::Dir { entries, .. } = &mut root.kind {
            entries.insert(b"forgotten".to_vec(), 1 << 40);
        }
        Ok(())
    }

    /// A folder that has a name.
    fn dir(&self, pick: u64) -> Ino {
        let there = |(ino, node): (&Ino, &_)| (node_is_dir(node) && self.has_name(*ino)).then_some(*ino);
        let all: Vec<Ino> = self.reference.nodes.iter().filter_map(there).collect();
        all[(pick % all.len() as u64) as usize]
    }

    fn has_name(&self, ino: Ino) -> bool {
        self.reference.nodes.get(&ino).is_some_and(|n| n.nlink > 0)
    }

    /// A regular file that has a name.
    fn file(&self, pick: u64) -> Option<Ino> {
        let named = |ino: &&Ino| matches!(self.reference.nodes[*ino].kind, Kind::File { .. }) && self.has_name(**ino);
        let all: Vec<Ino> = self.reference.nodes.keys().filter(named).copied().collect();
        (!all.is_empty()).then(|| all[(pick % all.len() as u64) as usize])
    }

    /// A file or folder that has a name.
    fn anything(&self, pick: u64) -> Ino {
        match pick % 3 {
            0 => self.dir(pick / 3),
            _ => self.file(pick / 3).unwrap_or(1),
        }
    }

    /// An open file of the step's node.
    fn handle(&self, step: Step) -> Option<usize> {
        let own: Vec<usize> = (0..self.handles.len()).filter(|i| self.handles[*i].node == step.node).collect();
        (!own.is_empty()).then(|| own[(step.a % own.len() as u64) as usize])
    }

    fn opened(&mut self, node: usize, ino: Ino, file: Arc<OpenFile>) {
        self.reference.open.insert(ino);
        self.handles.push(Handle { node, ino, file });
    }

    /// Takes a handle out of the reference.
    fn closed(&mut self, at: usize) -> Handle {
        let handle = self.handles.remove(at);
        if !self.handles.iter().any(|h| h.ino == handle.ino) {
            self.reference.close(handle.ino);
        }
        handle
    }

    async fn close(&mut self, at: usize) -> Result<()> {
        let Handle { node, file, .. } = self.closed(at);
        let node = &self.nodes[node];
        node.soon(node.path.close(file.handle)).await.map_err(|e| format!("close: {e:?}"))
    }
}

fn node_is_dir(node: &crate::meta::tests::model::reference::Node) -> bool {
    matches!(node.kind, Kind::Dir { .. })
}
