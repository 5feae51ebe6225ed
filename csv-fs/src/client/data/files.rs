//! Open files, and what the session asks of the files.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use block::shared::Incarnation;
use parking_lot::{Mutex, RwLock};

use super::{DataPath, IDLE_FILES, Pending};
use crate::client::inode::Inode;
use crate::client::layout::{LayoutCell, LayoutGuard};
use crate::client::link::ClientEvent;
use crate::client::session::{Caller, Errno, Files};
#[cfg(test)]
use crate::client::space::Reserved;
use crate::core::client::Event;
use crate::proto::{LayoutGrant, Reply, Request, SetAttr};
use crate::types::*;

/// `O_APPEND` of Linux.
const O_APPEND: i32 = rustix::fs::OFlags::APPEND.bits().cast_signed();

/// An open file of this node.
#[derive(Debug)]
pub struct OpenFile {
    /// Its name towards coordinator and kernel.
    pub handle: HandleId,
    pub(crate) inode: Arc<Inode>,
    flags: i32,
    poisoned: AtomicBool,
}

impl OpenFile {
    /// Which file.
    pub fn ino(&self) -> InodeNo {
        self.inode.ino
    }

    /// Whether writes go to the end.
    pub(crate) fn appends(&self) -> bool {
        self.flags & O_APPEND != 0
    }

    /// As it was opened.
    pub(super) fn flags(&self) -> i32 {
        self.flags
    }

    /// It fails until it is closed.
    pub(super) fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    /// Whether it fails until it is closed, because something it held was lost.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }
}

/// How often the coordinator was told of an inode, at one moment.
pub(crate) struct ToldOf {
    inode: Arc<Inode>,
    told: u64,
}

/// All open files, and the files that nobody has open any more but whose layouts are kept.
#[derive(Debug)]
pub(super) struct Handles {
    open: RwLock<HashMap<HandleId, Arc<OpenFile>>>,
    /// The first of this process, or of the one that it goes on for.
    first: AtomicU64,
    next: AtomicU64,
    idle: Mutex<VecDeque<InodeNo>>,
}

/// Handles of one incarnation: more than are opened in its life.
const HANDLES: u64 = 1 << 32;

/// The first handle of an incarnation.
pub(crate) fn first_handle(incarnation: Incarnation) -> u64 {
    incarnation.0.saturating_mul(HANDLES) + 1
}

impl Handles {
    /// None is open. They begin above all of earlier incarnations. Prevents: a mount outlives its daemon, and a file that was open
    /// before is taken for one that was opened since.
    pub(super) fn of(incarnation: Incarnation) -> Handles {
        let first = first_handle(incarnation);
        let (next, first) = (AtomicU64::new(first), AtomicU64::new(first));
        Handles { open: RwLock::default(), first, next, idle: Mutex::default() }
    }
}

impl Handles {
    /// The first, and the next.
    pub(super) fn numbers(&self) -> (u64, u64) {
        (self.first.load(Ordering::Relaxed), self.next.load(Ordering::Relaxed))
    }

    /// Goes on with the numbers of another process.
    pub(super) fn goes_on(&self, first: u64, next: u64) {
        self.first.store(first, Ordering::Relaxed);
        self.next.store(next, Ordering::Relaxed);
    }

    /// All that are open.
    pub(super) fn all(&self) -> Vec<Arc<OpenFile>> {
        self.open.read().values().cloned().collect()
    }
}

impl DataPath {
    /// A handle that was never used before on this node.
    pub fn new_handle(&self) -> HandleId {
        HandleId(self.files.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The coordinator has answered the open of this handle. `size` as its answer showed it.
    pub fn opened(&self, ino: InodeNo, handle: HandleId, flags: i32, size: Option<u64>) -> Arc<OpenFile> {
        let inode = self.inode(ino);
        inode.opens.fetch_add(1, Ordering::SeqCst);
        if let Some(size) = size {
            inode.state.lock().size_hint = size;
        }
        let file = Arc::new(OpenFile { handle, inode, flags, poisoned: AtomicBool::new(false) });
        self.files.open.write().insert(handle, Arc::clone(&file));
        file
    }

    /// Whether a handle was given out by an earlier process, of which nothing is known here.
    pub(crate) fn is_of_an_earlier_life(&self, handle: HandleId) -> bool {
        handle.0 < self.files.first.load(Ordering::Relaxed)
    }

    /// An open file by its handle.
    pub fn file(&self, handle: HandleId) -> Option<Arc<OpenFile>> {
        self.files.open.read().get(&handle).cloned()
    }

    /// Every handle on this file fails from now on; those that did not before.
    pub(super) fn poison(&self, inode: &Arc<Inode>) -> Vec<HandleId> {
        let open = self.files.open.read();
        let of = open.values().filter(|file| Arc::ptr_eq(&file.inode, inode));
        of.filter(|file| !file.poisoned.swap(true, Ordering::SeqCst)).map(|file| file.handle).collect()
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.files.open.read().len()
    }

    /// The last reference to a handle is gone: what was made is committed, then the coordinator is told.
    ///
    /// # Cancel safety
    /// Not safe: the release would not be sent.
    pub async fn close(&self, handle: HandleId) -> Result<(), Errno> {
        let Some(file) = self.files.open.write().remove(&handle) else { return Ok(()) };
        let inode = &file.inode;
        // What was taken through it ends with it; whoever gets a lock next must find every write there.
        inode.writes.quiet().await;
        let last = inode.opens.fetch_sub(1, Ordering::SeqCst) == 1;
        let patient = Caller::patient();
        let committed = if last { self.commit(inode, false, &patient).await } else { Ok(()) };
        let released = self.session.call(&patient, Request::Release { ino: inode.ino, handle }).await;
        // Also when this node was evicted meanwhile. Prevents: the file is kept in the table for ever, and whoever opens it
        // next fails after a later eviction for what was lost in this one.
        if last {
            inode.forfeited.store(false, Ordering::SeqCst);
            self.idle(inode);
        }
        released.and(committed)
    }

    /// Nobody has it open: its reserve goes back to the pool, its layouts stay for the next open, within a bound.
    fn idle(&self, inode: &Arc<Inode>) {
        let holds = {
            let mut state = inode.state.lock();
            state.reserve = None;
            !state.cells.is_empty()
        };
        if !holds {
            return self.forget_if_idle(inode);
        }
        let oldest = {
            let mut idle = self.files.idle.lock();
            idle.push_back(inode.ino);
            (idle.len() > IDLE_FILES).then(|| idle.pop_front()).flatten()
        };
        if let Some(old) = oldest.and_then(|ino| self.known(ino))
            && old.opens.load(Ordering::SeqCst) == 0
        {
            self.give_back_all(&old);
        }
    }

    /// Granted blocks that are not mapped: in the pool, and kept by files for what they write next.
    #[cfg(test)]
    pub(crate) fn space_held(&self) -> (u64, u64) {
        let kept = |inode: &Arc<Inode>| inode.state.lock().reserve.as_ref().map_or(0, Reserved::left);
        (self.space.free(), self.inodes.lock().values().map(kept).sum())
    }

    #[cfg(test)]
    pub(crate) fn space(&self) -> &std::sync::Arc<crate::client::space::Space> {
        &self.space
    }

    /// What files keep for their next blocks goes back to the pool.
    pub(super) fn take_reserves_back(&self) {
        let all: Vec<Arc<Inode>> = self.inodes.lock().values().cloned().collect();
        for inode in all {
            inode.state.lock().reserve = None;
        }
    }

    /// Takes a file out of the table that nobody has open, and of which nothing is held or to be told.
    pub(super) fn forget_if_idle(&self, inode: &Arc<Inode>) {
        let mut inodes = self.inodes.lock();
        let unused = inode.opens.load(Ordering::SeqCst) == 0
            && inode.state.lock().cells.is_empty()
            && !inode.listed.load(Ordering::SeqCst);
        // The table's reference and the caller's: somebody else's means an operation under way.
        if unused && Arc::strong_count(inode) <= 2 {
            inodes.remove(&inode.ino);
        }
    }

    fn give_back_all(&self, inode: &Inode) -> Vec<LayoutId> {
        let held: Vec<LayoutId> = inode.state.lock().cells.iter().map(|c| c.id).collect();
        held.iter().for_each(|layout| self.session.post(Event::GiveBack { layout: *layout }));
        held
    }

    /// Gives back every layout of a file and waits until each is gone. For operations that the coordinator does on
    /// the whole file: it would only recall them.
    pub(crate) async fn let_go(&self, inode: &Inode) {
        let given = self.give_back_all(inode);
        loop {
            let gone = inode.layout_gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if !inode.state.lock().cells.iter().any(|c| given.contains(&c.id)) {
                return;
            }
            gone.await;
        }
    }

    /// Handles that held something which an eviction took away fail until they are closed: these, and those of files with a loss.
    fn poison_lost(&self, locked: &[HandleId]) -> Vec<HandleId> {
        let is_lost = |file: &OpenFile| {
            let inode = &file.inode;
            [&inode.forfeited, &inode.unflushed, &inode.lost].iter().any(|flag| flag.load(Ordering::SeqCst))
        };
        let open = self.files.open.read();
        let lost = open.values().filter(|file| locked.contains(&file.handle) || is_lost(file));
        lost.map(|file| {
            file.poison();
            file.handle
        })
        .collect()
    }

    /// Gives back every layout of every file: before unmounting.
    pub async fn let_everything_go(&self) {
        let all: Vec<Arc<Inode>> = self.inodes.lock().values().cloned().collect();
        for inode in all {
            self.let_go(&inode).await;
        }
    }

    /// Sets attributes, length included: then the own layouts go back first. (What lies behind the present end in the
    /// last block of a file that grows is zeroed by the coordinator, under its hold of the whole file.)
    pub async fn set_attr(&self, ino: InodeNo, set: SetAttr, caller: &Caller) -> Result<Attr, Errno> {
        let life = self.session.life_of(caller);
        // Prevents: one that nobody has open is kept in the table for ever.
        if let Some(inode) = self.known(ino).filter(|_| set.size.is_some()) {
            self.session.unless_given_up(caller, self.let_go(&inode)).await?;
        }
        match self.session.call_of(life, caller, Request::Setattr { ino, set }).await? {
            Reply::Attr(attr) => {
                if let (Some(size), Some(inode)) = (set.size, self.known(ino)) {
                    inode.state.lock().size_hint = size;
                }
                Ok(self.overlay(attr))
            }
            _ => Err(Errno(crate::client::session::EIO)),
        }
    }

    /// Space for a range, and with `keep_size` off the length that goes with it.
    pub async fn fallocate(
        &self,
        ino: InodeNo,
        offset: u64,
        len: u64,
        keep_size: bool,
        caller: &Caller,
    ) -> Result<(), Errno> {
        let (inode, life) = (self.inode(ino), self.session.life_of(caller));
        self.session.unless_given_up(caller, self.let_go(&inode)).await?;
        self.session.call_of(life, caller, Request::Fallocate { ino, offset, len, keep_size }).await?;
        let mut state = inode.state.lock();
        if !keep_size {
            state.size_hint = state.size_hint.max(offset.saturating_add(len));
        }
        Ok(())
    }

    /// Asks for attributes, and adds what only this node knows.
    ///
    /// Prevents: the coordinator answers with the length of before our commit, the commit is answered and the layout
    /// returned, then the first answer is looked at: the length would go back. If anything was told meanwhile, it is
    /// asked again.
    pub async fn attr(&self, ino: InodeNo, caller: &Caller) -> Result<Attr, Errno> {
        loop {
            let before = self.told_of(ino);
            match self.session.call(caller, Request::Getattr { ino }).await? {
                Reply::Attr(attr) => {
                    if let Some(attr) = self.exact_since(attr, &before) {
                        return Ok(attr);
                    }
                }
                _ => return Err(Errno(crate::client::session::EIO)),
            }
        }
    }

    /// To be taken before the attributes of one inode are asked for, for [`DataPath::exact_since`].
    pub(crate) fn told_of(&self, ino: InodeNo) -> Option<ToldOf> {
        self.known(ino).map(|inode| ToldOf { told: inode.told.load(Ordering::SeqCst), inode })
    }

    /// Attributes that were asked for after `before` was taken, with what only this node knows; `None` if the coordinator was
    /// told of anything meanwhile.
    pub(crate) fn exact_since(&self, attr: Attr, before: &Option<ToldOf>) -> Option<Attr> {
        let attr = self.overlay(attr);
        before.as_ref().is_none_or(|b| b.inode.told.load(Ordering::SeqCst) == b.told).then_some(attr)
    }

    /// To be taken before a request whose answer carries attributes, for [`DataPath::exact`].
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    /// Attributes that came with another answer, made exact: asked for again if the coordinator was told of anything
    /// since `told` was taken.
    pub async fn exact(&self, attr: Attr, told: u64, caller: &Caller) -> Result<Attr, Errno> {
        match self.exact_now(attr, told) {
            Some(attr) => Ok(attr),
            None => self.attr(attr.ino, caller).await,
        }
    }

    /// The same; `None` if they would have to be asked for again.
    pub fn exact_now(&self, attr: Attr, told: u64) -> Option<Attr> {
        let attr = if self.known(attr.ino).is_some() { self.overlay(attr) } else { return Some(attr) };
        (self.told() == told).then_some(attr)
    }

    /// The coordinator knows now what only this node knew of this file.
    pub(super) fn tell(&self, inode: &Inode) {
        inode.told.fetch_add(1, Ordering::SeqCst);
        self.told.fetch_add(1, Ordering::SeqCst);
    }

    /// What this node knows better than the coordinator's answer: length and time of writes that no commit has
    /// covered.
    pub(crate) fn overlay(&self, mut attr: Attr) -> Attr {
        let Some(inode) = self.known(attr.ino) else { return attr };
        let new = {
            let mut state = inode.state.lock();
            match state.ruled_size() {
                Some(size) => attr.size = size,
                None => state.size_hint = attr.size,
            }
            state.map.new_blocks()
        };
        attr.blocks.0 += new;
        if let Some(at) = inode.touched() {
            attr.mtime = attr.mtime.max(at);
            attr.ctime = attr.ctime.max(at);
        }
        attr
    }
}

impl Files for DataPath {
    fn granted(&self, grant: &LayoutGrant) -> LayoutGuard {
        let inode = self.inode(grant.ino);
        let cell = LayoutCell::new(grant, Arc::downgrade(&self.session));
        let mut state = inode.state.lock();
        state.granted(grant, Arc::clone(&cell));
        inode.publish(&mut state, true);
        drop(state);
        cell.first_guard()
    }

    fn withdraw(&self, layout: LayoutId, ino: InodeNo) {
        let Some(inode) = self.known(ino) else { return self.session.post(Event::Drained { layout }) };
        let cell = inode.state.lock().cells.iter().find(|c| c.id == layout).cloned();
        match cell {
            Some(cell) => {
                cell.withdraw();
                let mut state = inode.state.lock();
                inode.publish(&mut state, true);
            }
            None => self.session.post(Event::Drained { layout }),
        }
    }

    fn dropped(&self, layout: LayoutId, ino: InodeNo, lost: bool) {
        let Some(inode) = self.known(ino) else { return };
        let withdrawn = {
            let mut state = inode.state.lock();
            let cell = state.cells.iter().find(|c| c.id == layout).cloned();
            inode
                .told
                .fetch_add(u64::from(cell.as_ref().is_some_and(|c| c.mode == LayoutMode::Exclusive)), Ordering::SeqCst);
            if lost && cell.as_ref().is_some_and(|c| c.mode == LayoutMode::Exclusive) {
                let dirty = state.map.is_dirty();
                inode.lost.fetch_or(dirty, Ordering::SeqCst);
                inode.forfeited.store(true, Ordering::SeqCst);
            }
            if let Some(cell) = &cell {
                cell.end();
            }
            state.dropped(layout);
            inode.publish(&mut state, true);
            cell
        };
        // After the lock: closing the gate may report that it is empty.
        if let Some(cell) = withdrawn.filter(|c| !c.is_withdrawn()) {
            cell.withdraw();
        }
        inode.layout_gone.notify_waiters();
        if inode.opens.load(Ordering::SeqCst) == 0 {
            self.forget_if_idle(&inode);
        }
    }

    fn settle(&self, layout: LayoutId, ino: InodeNo) {
        match self.known(ino) {
            Some(inode) => self.settle_soon(layout, inode),
            None => self.session.post(Event::Settled { layout }),
        }
    }

    fn sync(&self, ino: InodeNo, number: u64) {
        let inode = self.inode(ino);
        {
            let mut state = inode.state.lock();
            state.sync_asked = state.sync_asked.max(number);
        }
        self.commit_soon(&inode);
    }

    fn is_dirty(&self, ino: InodeNo) -> bool {
        self.known(ino).is_some_and(|inode| inode.touched().is_some() || inode.state.lock().map.is_dirty())
    }

    fn uncommitted(&self, ino: InodeNo, range: BlockRange) -> (Vec<Extent>, Option<u64>, Option<Timestamp>) {
        let Some(inode) = self.known(ino) else { return (Vec::new(), None, None) };
        let state = inode.state.lock();
        let size = if range.end == BlockRange::ALL.end { state.map.dirty_size() } else { None };
        (state.map.uncommitted(range), size, inode.touched())
    }

    fn bound(&self, first: bool, grants: Vec<DiskRange>) {
        if first {
            self.space.bound(grants);
        }
    }

    fn return_grant(&self, life: ClientId) {
        self.take_reserves_back();
        let ranges = self.space.drain();
        let session = Arc::clone(&self.session);
        self.session.spawner.control(async move {
            let patient = Caller::patient();
            let back = session.call_of(life, &patient, Request::GrantReturn { ranges });
            if let Err(Errno(errno)) = back.await {
                tracing::warn!(
                    "granted space could not be given back (errno {errno}); it goes back when the session ends"
                );
            }
        });
    }

    fn asks_for_space(&self) -> bool {
        self.space.asks()
    }

    fn close_direct(&self) {
        self.close_gates();
    }

    fn open_direct(&self) {
        self.gates.iter().for_each(crate::client::gate::Gate::open);
    }

    fn direct_closed(&self) -> bool {
        self.gates.iter().all(crate::client::gate::Gate::is_closed)
    }

    fn direct_entered(&self) -> bool {
        self.gates.iter().any(|g| g.inside() > 0)
    }

    fn reissue_reads(&self) {
        let is_read = |p: &Pending, _| matches!(p, Pending::Read { .. } | Pending::Wait { read: true, .. });
        for (pending, age) in self.outstanding.take_all(is_read) {
            match pending {
                Pending::Read { to, file, offset, size, .. } => {
                    self.slow_read(file, offset, size, to, self.session.sweep_before(age));
                }
                // Its sender is gone: whoever waits goes another way.
                Pending::Wait { .. } | Pending::Write { .. } => {}
            }
        }
    }

    fn writes_lost(&self, layout: LayoutId) {
        let all: Vec<Arc<Inode>> = self.inodes.lock().values().cloned().collect();
        let of = |inode: &Inode| inode.state.lock().cells.iter().any(|c| c.id == layout);
        for inode in all.into_iter().filter(|i| of(i)) {
            inode.lost.store(true, Ordering::SeqCst);
            self.session.emit(ClientEvent::WritesLost { ino: inode.ino });
        }
    }

    fn evicted(&self, locked: &[HandleId]) -> Vec<HandleId> {
        self.close_gates();
        // Also before: whoever looks for his life first, and is of the next one, then finds his handle poisoned. Prevents: one that has
        // looked finds it well, stands still until the next life has begun, and writes under a lock that others have by then.
        let mut poisoned = self.poison_lost(locked);
        self.space.life_ends();
        self.left.is_lost();
        poisoned.extend(self.poison_lost(locked));
        poisoned.sort_unstable();
        poisoned.dedup();
        for file in self.files.open.read().values() {
            file.inode.state.lock().reserve = None;
        }
        poisoned
    }

    fn locks_lost(&self, handles: &[HandleId]) {
        for file in handles.iter().filter_map(|handle| self.file(*handle)) {
            file.poisoned.store(true, Ordering::SeqCst);
        }
    }

    fn handle_lost(&self, handle: HandleId, _ino: InodeNo) {
        if let Some(file) = self.file(handle) {
            file.poisoned.store(true, Ordering::SeqCst);
        }
    }
}
