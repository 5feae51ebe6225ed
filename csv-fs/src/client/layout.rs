//! A layout as operations hold it: a cell with a gate, and guards on it.
//!
//! Prevents: a layout goes back while an operation that took it is still on its way to the disk. `Withdraw` closes the
//! gate; the last guard to go reports `Drained`, and only then the core lets the return begin.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::core::client::Event;
use crate::proto::LayoutGrant;
use crate::types::{BlockRange, LayoutId, LayoutMode};

use super::gate::{Entered, Gate};
use super::session::Session;

/// A layout that is held, or was.
#[derive(Debug)]
pub(crate) struct LayoutCell {
    pub(crate) id: LayoutId,
    pub(crate) range: BlockRange,
    pub(crate) mode: LayoutMode,
    /// suid, sgid or capabilities may be there, and a write without privilege clears all.
    kill_privilege: AtomicBool,
    /// Capabilities may be there, and every write removes them.
    kill_capability: AtomicBool,
    gate: Gate,
    /// Nothing that was made under it is unknown to the coordinator, and nothing more will be: it is on its way back.
    settled: AtomicBool,
    /// It is not held any more.
    gone: AtomicBool,
    session: Weak<Session>,
}

/// The right to use a layout until dropped.
#[derive(Debug)]
pub(crate) struct LayoutGuard {
    cell: Arc<LayoutCell>,
}

impl LayoutCell {
    pub(crate) fn new(grant: &LayoutGrant, session: Weak<Session>) -> Arc<LayoutCell> {
        let LayoutGrant { id, range, mode, kill_privilege, .. } = *grant;
        let (kill_capability, kill_privilege) = (AtomicBool::new(kill_privilege), AtomicBool::new(kill_privilege));
        let (gate, settled, gone) = (Gate::default(), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(LayoutCell { id, range, mode, kill_privilege, kill_capability, gate, settled, gone, session })
    }

    /// A guard, unless it was withdrawn.
    pub(crate) fn guard(self: &Arc<Self>) -> Option<LayoutGuard> {
        match self.gate.enter() {
            Entered::Inside => Some(LayoutGuard { cell: Arc::clone(self) }),
            Entered::Closed => None,
            Entered::ClosedAndEmpty => {
                self.drained();
                None
            }
        }
    }

    /// The guard that comes with the grant: nobody else knows the cell yet.
    pub(crate) fn first_guard(self: &Arc<Self>) -> LayoutGuard {
        let entered = self.gate.enter();
        debug_assert_eq!(entered, Entered::Inside, "a cell is withdrawn only after its grant was published");
        LayoutGuard { cell: Arc::clone(self) }
    }

    /// No new guards; reports at once if there are none.
    pub(crate) fn withdraw(&self) {
        if self.gate.close() {
            self.drained();
        }
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.gate.is_closed()
    }

    /// It is not held any more, whoever still has a guard on it.
    pub(crate) fn end(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    /// Whether it is not held any more. For whoever is inside the route's gate: it was closed before this was set, and is
    /// opened again only in the next life. Prevents: an operation is stopped between its look at the mapping and the
    /// gate, this node is evicted and begins its next life, and then it writes to blocks that were given to others.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// It goes back. To be called before the coordinator is told so, with the inode's lock held.
    ///
    /// Prevents: it has gone back, and a new coordinator is in office before this node has heard so; another node makes the file longer;
    /// this one asks for its length, and is answered before it is answered about the layout. It takes what it knew under that for better
    /// than the answer: the length goes back.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::SeqCst);
    }

    /// Whether what is known here of its blocks is better than what the coordinator says.
    pub(crate) fn rules(&self) -> bool {
        self.mode == LayoutMode::Exclusive && !self.settled.load(Ordering::SeqCst)
    }

    /// Whether it gives authority over the file's length.
    pub(crate) fn rules_size(&self) -> bool {
        self.rules() && self.range.end == BlockRange::ALL.end
    }

    /// Whether suid, sgid (if the writer is `unprivileged`) or capabilities are to be cleared before a write.
    pub(crate) fn kills(&self, unprivileged: bool) -> bool {
        (unprivileged && self.kill_privilege.load(Ordering::SeqCst)) || self.kill_capability.load(Ordering::SeqCst)
    }

    /// They were cleared. They do not come back while it is held: who sets them needs the whole file for itself.
    pub(crate) fn killed(&self, unprivileged: bool) {
        self.kill_capability.store(false, Ordering::SeqCst);
        if unprivileged {
            self.kill_privilege.store(false, Ordering::SeqCst);
        }
    }

    fn drained(&self) {
        if let Some(session) = self.session.upgrade() {
            session.post(Event::Drained { layout: self.id });
        }
    }
}

impl std::ops::Deref for LayoutGuard {
    type Target = Arc<LayoutCell>;
    fn deref(&self) -> &Arc<LayoutCell> {
        &self.cell
    }
}

impl Drop for LayoutGuard {
    fn drop(&mut self) {
        if self.cell.gate.leave() {
            self.cell.drained();
        }
    }
}
