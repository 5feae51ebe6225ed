//! The data path: reads and writes of files, to the disk or over the coordinator.
//!
//! - `hot`: one contiguous place under a layout held, direct: from the worker that read the request to its ring and
//!   back, without a lock that anybody contends for, a message or a task.
//! - `warm`: the same over the coordinator: no task either.
//! - `slow`: everything else, as a task: layouts asked for, blocks allocated, partial blocks filled or read first.
//! - `seek`: where data and holes are.
//! - `doubt`: writes in place that may have been executed.
//! - `disk`: one request to the disk by whichever route there is, moved to the other if the route changes under it.
//! - `clear`: holes made, ranges zeroed.
//! - `copy`: copies within the volume.
//! - `statfs`: what is free.
//! - `commit`: flush, then commit; times; giving layouts back.
//! - `leave`: what the next process is to know.
//! - `recover`: what a process that was killed has left.
//! - `loss`: what the disk had acknowledged and has lost.
//!
//! Lock order: route gate, layout guard, block-range lock, device. No lock is held across a coordinator call, except
//! the range lock of a sub-block write under an exclusive layout (its read-modify-write may be redirected), and of a write in
//! doubt while other nodes are asked (`doubt`).
//!
//! What keeps invariant 6 (executed exactly as if nothing had happened): a direct write that fails in a way that says
//! "path" closes the gate *before* it is issued again, so its second life is redirected, after the proof that the
//! first cannot land any more.

mod clear;
mod commit;
mod copy;
mod disk;
mod doubt;
mod files;
mod hot;
mod leave;
mod loss;
mod recover;
mod seek;
mod slow;
mod statfs;
#[cfg(test)]
pub(crate) mod tests;
mod warm;
mod write;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;
use block::device::{BlockDevice, Done};
use block::worker;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::core::client::{Reason, Sweep};
use crate::core::rules::Rule;
use crate::types::*;

use super::counters::Counters;
use super::gate::{Entered, Gate};
use super::inode::Inode;
use super::layout::LayoutGuard;
use super::outstanding::{Outstanding, SCAN, scans_in};
use super::session::{Caller, EIO, Errno, Session};
use super::space::Space;
use super::witness::{Marks, Recent};
use super::writes::Accepted;

pub use files::OpenFile;
pub(crate) use files::first_handle;
pub use leave::{KnownFile, KnownFiles};
pub use seek::Seek;

/// Layouts of files that nobody has open are kept for so many files; beyond, the oldest go back.
const IDLE_FILES: usize = 1024;

/// The data path of one volume on one node.
pub struct DataPath {
    me: Weak<DataPath>,
    pub(crate) session: Arc<Session>,
    /// Requests of the kernel that wait.
    pub(crate) interrupts: fuse::Interrupts,
    disk: Arc<dyn BlockDevice>,
    /// The route's gate, one per worker so that workers do not meet at it, and one for other threads. Who is inside
    /// is about to submit; it leaves when the request is with the device.
    gates: Vec<Gate>,
    outstanding: Outstanding<Pending>,
    inodes: Mutex<HashMap<InodeNo, Arc<Inode>>>,
    files: files::Handles,
    space: Arc<Space>,
    /// Inodes with something to commit, or times to send.
    dirty: Mutex<Vec<Arc<Inode>>>,
    /// As [`Inode::told`], of all inodes.
    told: AtomicU64,
    losses: loss::Seen,
    /// What was written here lately, for whoever asks; and what others are told of the present moment.
    recent: Recent,
    marks: Marks,
    left: recover::Left,
    logical: u64,
    path_scans: u32,
    io_timeout: Duration,
}

/// Who gets the bytes of a read.
pub enum ReadTo {
    /// The kernel.
    Fuse(fuse::Reply),
    /// Somebody who waits.
    Wait(oneshot::Sender<Result<ReadData, Errno>>),
}

/// Who is told that a write was done. Until then the write counts as accepted.
pub struct WriteTo {
    to: Writer,
    accepted: Option<Accepted>,
    /// In which life of this node it was accepted, see [`Space::life`].
    life: u64,
    /// When this node got it.
    began: Instant,
    /// It may have been executed.
    doubtful: bool,
    /// The right under which it was sent, until it can land no more.
    held: Option<LayoutGuard>,
}

enum Writer {
    Fuse(fuse::Reply),
    Wait(oneshot::Sender<Result<u32, Errno>>),
}

/// Bytes read: a part of a buffer.
#[derive(Debug)]
pub struct ReadData {
    buf: AlignedBuf,
    part: Range<usize>,
}

impl std::ops::Deref for ReadData {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buf[self.part.clone()]
    }
}

/// A request to the disk that has not come back.
enum Pending {
    Read {
        to: ReadTo,
        file: Arc<OpenFile>,
        offset: u64,
        size: u32,
        part: Range<usize>,
        guard: LayoutGuard,
    },
    Write {
        to: WriteTo,
        inode: Arc<Inode>,
        offset: u64,
        /// Byte of the disk.
        at: u64,
        guard: LayoutGuard,
        sent: loss::Sent,
    },
    /// Somebody waits for a read, or for what may land: a write. `sent`: of a change.
    Wait {
        read: bool,
        lands: bool,
        to: oneshot::Sender<Done>,
        sent: Option<loss::Sent>,
    },
}

impl Pending {
    /// Whether it makes a difference if the disk executes it later.
    fn may_land(&self) -> bool {
        !matches!(self, Pending::Read { .. } | Pending::Wait { lands: false, .. })
    }
}

/// Proof of being between gate and device.
pub(in crate::client) struct InGate<'a>(&'a Gate);

impl Drop for InGate<'_> {
    fn drop(&mut self) {
        // Whoever closed it looks at the counts, not at this.
        let _ = self.0.leave();
    }
}

impl DataPath {
    /// A data path over this disk; `workers` is how many there are. After the session's `path_timeout` a request says that
    /// the path is gone.
    pub fn new(session: Arc<Session>, disk: Arc<dyn BlockDevice>, workers: usize) -> Arc<DataPath> {
        let (logical, losses) = (disk.geometry().logical_block.bytes(), loss::Seen::from(disk.losses()));
        let path = Arc::new_cyclic(|me| DataPath {
            me: Weak::clone(me),
            space: Space::new(Arc::clone(&session)),
            interrupts: fuse::Interrupts::new(),
            disk,
            gates: (0..=workers).map(|_| Gate::default()).collect(),
            outstanding: Outstanding::new(workers),
            inodes: Mutex::default(),
            files: files::Handles::of(session.client().incarnation),
            dirty: Mutex::default(),
            told: AtomicU64::new(0),
            losses,
            recent: Recent::new(workers),
            marks: Marks::default(),
            left: recover::Left::default(),
            logical,
            path_scans: scans_in(session.path_timeout),
            io_timeout: session.io_timeout,
            session,
        });
        let files: Weak<dyn super::session::Files> = Arc::downgrade(&path) as Weak<dyn super::session::Files>;
        path.session.attach(files);
        path
    }

    /// Starts the scans, the ticks and the housekeeping. They end with the data path.
    pub fn start(self: &Arc<Self>, workers: &worker::Handle) {
        for table in 0..workers.count() {
            let me = Weak::clone(&self.me);
            // Scanned on the worker whose table it is: nobody else touches its lock then.
            drop(workers.spawn(table, move || scan(me, table)));
        }
        let spawner = self.session.spawner.clone();
        spawner.control(scan(Weak::clone(&self.me), self.outstanding.tables() - 1));
        spawner.control(tick(Weak::clone(&self.me)));
        if let Some(every) = self.session.sweeps_every() {
            spawner.control(sweeps(Weak::clone(&self.me), every));
        }
        spawner.control(commit::housekeeping(Weak::clone(&self.me)));
    }

    /// The session below.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        self.session.counters()
    }

    /// The device's logical block in bytes.
    pub fn logical_block(&self) -> u64 {
        self.logical
    }

    /// The inode, made if this node does not know it yet.
    pub(crate) fn inode(&self, ino: InodeNo) -> Arc<Inode> {
        let new = || Arc::new(Inode::new(ino, self.session.rules));
        Arc::clone(self.inodes.lock().entry(ino).or_insert_with(new))
    }

    /// The inode, if this node knows it.
    pub(crate) fn known(&self, ino: InodeNo) -> Option<Arc<Inode>> {
        self.inodes.lock().get(&ino).cloned()
    }

    /// Reads and waits.
    ///
    /// # Cancel safety
    /// Safe: a read that is abandoned changes nothing.
    pub async fn read(&self, file: &Arc<OpenFile>, offset: u64, size: u32) -> Result<ReadData, Errno> {
        let (to, answer) = oneshot::channel();
        self.submit_read(file, offset, size, ReadTo::Wait(to));
        answer.await.unwrap_or(Err(Errno(EIO)))
    }

    /// Writes and waits. With O_APPEND the offset is not looked at.
    ///
    /// # Cancel safety
    /// A dropped future does not withdraw the write.
    pub async fn write(&self, file: &Arc<OpenFile>, offset: u64, data: AlignedBuf) -> Result<u32, Errno> {
        let (to, answer) = oneshot::channel();
        self.submit_write(file, offset, data, false, WriteTo::wait(to));
        answer.await.unwrap_or(Err(Errno(EIO)))
    }

    /// Enters the route's gate, if it is open.
    pub(in crate::client) fn enter_direct(&self) -> Option<InGate<'_>> {
        let gate = &self.gates[worker::current().unwrap_or(usize::MAX).min(self.gates.len() - 1)];
        (gate.enter() == Entered::Inside).then(|| InGate(gate))
    }

    fn close_gates(&self) {
        for gate in &self.gates {
            // Whether somebody is inside is looked at before the proof is asked for.
            let _ = gate.close();
        }
    }

    /// A direct request says that the path is gone. The gate closes here and now: whatever is issued again after this
    /// finds it closed, even if the core has not heard yet.
    fn path_failed(&self, reason: Reason) {
        self.close_gates();
        self.session.suspect(reason);
    }

    fn me(&self) -> Option<Arc<DataPath>> {
        self.me.upgrade()
    }

    /// On the list of those with something to commit or to tell.
    fn list_dirty(&self, inode: &Arc<Inode>) {
        if !inode.listed.load(Ordering::Relaxed) && !inode.listed.swap(true, Ordering::SeqCst) {
            self.dirty.lock().push(Arc::clone(inode));
        }
    }
}

impl DataPath {
    /// Runs what waits as a task of this worker, for a request of a program that waits since then. With `unique`, an INTERRUPT
    /// of that request of the kernel reaches the caller that the work is given.
    pub(crate) fn run<Fut>(&self, unique: Option<u64>, since: Sweep, work: impl FnOnce(Caller) -> Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Some(unique) = unique else { return self.session.spawner.here(work(Caller::of_program(since))) };
        let caller = Caller::of_request(unique, since);
        let work = work(caller.clone());
        let (mut watch, session) = (self.interrupts.watch(unique), Arc::clone(&self.session));
        self.session.spawner.here(async move {
            tokio::pin!(work);
            tokio::select! {
                biased;
                () = &mut work => return session.replied(&caller),
                () = watch.interrupted() => caller.interrupt(&session),
            }
            work.await;
            session.replied(&caller);
        });
    }
}

impl ReadTo {
    fn unique(&self) -> Option<u64> {
        match self {
            ReadTo::Fuse(reply) => Some(reply.unique()),
            ReadTo::Wait(_) => None,
        }
    }

    fn answer(self, result: Result<ReadData, Errno>) {
        match self {
            // Whether the kernel still wanted it makes no difference to a read or write.
            ReadTo::Fuse(reply) => {
                let _ = match result {
                    Ok(data) => reply.data(&data),
                    Err(Errno(errno)) => reply.error(errno),
                };
            }
            ReadTo::Wait(waiter) => drop(waiter.send(result)),
        }
    }
}

impl WriteTo {
    /// The kernel.
    pub fn fuse(reply: fuse::Reply) -> WriteTo {
        WriteTo::new(Writer::Fuse(reply))
    }

    /// Somebody who waits.
    pub fn wait(to: oneshot::Sender<Result<u32, Errno>>) -> WriteTo {
        WriteTo::new(Writer::Wait(to))
    }

    fn new(to: Writer) -> WriteTo {
        WriteTo { to, accepted: None, life: 0, began: Instant::now(), doubtful: false, held: None }
    }

    fn unique(&self) -> Option<u64> {
        match &self.to {
            Writer::Fuse(reply) => Some(reply.unique()),
            Writer::Wait(_) => None,
        }
    }

    fn answer(self, result: Result<u32, Errno>) {
        let WriteTo { to, accepted, .. } = self;
        match to {
            Writer::Fuse(reply) => {
                let _ = match result {
                    Ok(n) => reply.written(n),
                    Err(Errno(errno)) => reply.error(errno),
                };
            }
            Writer::Wait(waiter) => drop(waiter.send(result)),
        }
        drop(accepted);
    }
}

async fn scan(path: Weak<DataPath>, table: usize) {
    loop {
        tokio::time::sleep(SCAN).await;
        let Some(path) = path.upgrade() else { return };
        let Some(oldest) = path.outstanding.scan(table) else { continue };
        if oldest > path.path_scans {
            path.session.overdue();
        }
        if oldest > doubt::LATE {
            path.mark_soon();
        }
    }
}

/// Whose time is over, again and again.
async fn sweeps(path: Weak<DataPath>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(path) = path.upgrade() else { return };
        let late = |p: &Pending, age: Duration| p.may_land() && age >= path.io_timeout;
        if !path.session.rules.has(Rule::ExpiredIsWithdrawn) {
            path.answer_too_soon(late);
        }
        path.session.sweep(path.outstanding.count(late));
    }
}

/// The core's clock.
async fn tick(path: Weak<DataPath>) {
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let Some(path) = path.upgrade() else { return };
        path.session.tick();
        path.look_for_losses();
        if path.redirected_is_under_way() {
            path.mark_soon();
        }
    }
}

impl std::fmt::Debug for DataPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPath")
            .field("disk", &self.disk.describe())
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
