//! From written to durable: flush, then commit; and times of writes in place.
//!
//! A commit's body is put together first, then everything answered so far is flushed, then the body is sent. Prevents:
//! metadata that points at blocks whose data was never stable (after a crash they would show their former contents);
//! a greater length alone likewise, since behind the old end the last block may hold what an earlier cut left.
//! One commit per inode is under way at a time, so an fsync that finds another at work waits for it and is then covered by
//! its flush or makes its own.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::DataPath;
use crate::client::inode::Inode;
use crate::client::link::ClientEvent;
use crate::client::session::{Caller, EIO, Errno};
use crate::core::client::Event;
use crate::core::rules::Rule;
use crate::proto::Request;
use crate::types::*;

/// Extents in one commit: a message well below a frame's bound, a transaction well below a recall's deadline.
const BODY_MAX: usize = 2048;
/// Something uncommitted is committed after so many seconds even if nobody asks; a crash loses no more than that.
const COMMIT_AFTER: u32 = 5;
/// There is no such file (any more).
const ENOENT: Errno = Errno(rustix::io::Errno::NOENT.raw_os_error());
/// Between two attempts to commit what a recall waits for.
const RETRY: Duration = Duration::from_millis(200);

impl DataPath {
    /// Makes everything of this file that was acknowledged on this node durable, and what any node has written in place.
    ///
    /// The disk is flushed whatever this node remembers of the file. Prevents: a program writes in place, closes the file, and it is
    /// forgotten here; or it ran on another node. Another program (`sync FILE`) opens it and calls fsync, which is answered
    /// without a flush, and a power failure takes the writes away.
    ///
    /// # Cancel safety
    /// A dropped future may have flushed and committed a part.
    pub(crate) async fn fsync(&self, inode: &Arc<Inode>, caller: &Caller) -> Result<(), Errno> {
        // A loss up to here hit what had been written, not whoever asks.
        self.look_for_losses();
        inode.unflushed.store(true, Ordering::SeqCst);
        let committed = self.commit(inode, true, caller).await;
        // Told with this one, whatever else went wrong.
        let lost = inode.lost.swap(false, Ordering::SeqCst);
        committed?;
        if lost { Err(Errno(EIO)) } else { Ok(()) }
    }

    /// Tells the coordinator the time of writes in place, if it does not know it.
    pub(crate) async fn send_times(&self, inode: &Arc<Inode>, caller: &Caller) -> Result<(), Errno> {
        if inode.state.lock().map.is_dirty() {
            // They go with the commit.
            return Ok(());
        }
        let Some(at) = inode.touched() else { return Ok(()) };
        self.session.call(caller, Request::Times { changes: vec![(inode.ino, at)] }).await?;
        self.tell(inode);
        inode.touch_sent(Some(at));
        Ok(())
    }

    /// The same, or a commit where there is something to commit: after it, no time of an earlier write is sent any
    /// more.
    pub(crate) async fn settle_times(&self, inode: &Arc<Inode>, caller: &Caller) -> Result<(), Errno> {
        if inode.state.lock().map.is_dirty() {
            return self.commit(inode, false, caller).await;
        }
        self.send_times(inode, caller).await
    }

    /// Commits, and with `flush` flushes also what needs no commit.
    pub(super) async fn commit(&self, inode: &Arc<Inode>, flush: bool, caller: &Caller) -> Result<(), Errno> {
        let _one = self.session.unless_given_up(caller, inode.committing.lock()).await?;
        loop {
            self.look_for_losses();
            self.forget_what_was_lost(inode);
            // Before what it says.
            let life = self.session.client();
            let mut body = {
                let state = inode.state.lock();
                let sync = (state.sync_asked > state.sync_named).then_some(state.sync_asked);
                state.map.commit_body(BODY_MAX, sync.unwrap_or(0))
            };
            body.mtime = inode.touched();
            let shows_more = !body.extents.is_empty() || body.size.is_some();
            let must_flush = shows_more || (flush && inode.unflushed.load(Ordering::SeqCst));
            let flush_late = shows_more && !self.session.rules.has(Rule::FlushBeforeMapping);
            if must_flush && !flush_late {
                inode.unflushed.store(false, Ordering::SeqCst);
                if let Err(errno) = self.flush(caller).await {
                    inode.unflushed.store(true, Ordering::SeqCst);
                    // This file is one of those that lost something, if that is why.
                    self.look_for_losses();
                    return Err(errno);
                }
            }
            if body == Default::default() {
                return Ok(());
            }
            let request = Request::Commit { ino: inode.ino, commit: body.clone(), give_back: Vec::new() };
            match self.session.call_of(life, caller, request).await {
                // Its file is gone, and nobody here has it open: there is nothing to keep.
                Err(ENOENT) if inode.opens.load(Ordering::SeqCst) == 0 => {
                    inode.touch_sent(body.mtime);
                    return Ok(());
                }
                other => other?,
            };
            if flush_late {
                self.flush(caller).await?;
            }
            self.tell(inode);
            inode.touch_sent(body.mtime);
            let more = {
                let mut state = inode.state.lock();
                state.map.committed(&body);
                state.sync_named = state.sync_named.max(body.sync);
                state.dirty_for = 0;
                body.extents.len() == BODY_MAX
            };
            if !more {
                return Ok(());
            }
        }
    }

    /// In the background.
    pub(super) fn commit_soon(&self, inode: &Arc<Inode>) {
        let (Some(me), inode) = (self.me(), Arc::clone(inode)) else { return };
        self.session.spawner.control(async move {
            if let Err(Errno(errno)) = me.commit(&inode, false, &Caller::patient()).await {
                me.session.emit(ClientEvent::CommitFailed { ino: inode.ino, errno });
                me.list_dirty(&inode);
            }
        });
    }

    /// Until what was made under this layout is committed, and what was redirected under it is flushed; or until it is
    /// not held any more (an eviction).
    pub(super) fn settle_soon(&self, layout: LayoutId, inode: Arc<Inode>) {
        let Some(me) = self.me() else { return };
        self.session.spawner.control(async move {
            loop {
                let kept = me.session.load().3 > 0;
                let done = me.commit(&inode, kept, &Caller::patient()).await;
                {
                    let state = inode.state.lock();
                    let Some(cell) = state.cells.iter().find(|c| c.id == layout) else { return };
                    if done.is_ok() {
                        cell.settle();
                    }
                }
                match done {
                    Ok(()) => return me.session.post(Event::Settled { layout }),
                    Err(Errno(errno)) => me.session.emit(ClientEvent::CommitFailed { ino: inode.ino, errno }),
                }
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    /// One round: times of what was written in place, one message for all; commits that are due.
    async fn keep_house(&self) {
        let listed = std::mem::take(&mut *self.dirty.lock());
        let mut times = Vec::new();
        for inode in listed {
            inode.listed.store(false, Ordering::SeqCst);
            let due = {
                let mut state = inode.state.lock();
                let dirty = state.map.is_dirty();
                state.dirty_for = if dirty { state.dirty_for + 1 } else { 0 };
                dirty.then_some(state.dirty_for >= COMMIT_AFTER)
            };
            match (due, inode.touched()) {
                (Some(true), _) => self.commit_soon(&inode),
                (Some(false), _) => self.list_dirty(&inode),
                (None, Some(at)) => times.push((inode, at)),
                // Prevents: it was on this list when it was closed, and is kept in the table for ever.
                (None, None) => self.forget_if_idle(&inode),
            }
        }
        if times.is_empty() {
            return;
        }
        let changes = times.iter().map(|(inode, at)| (inode.ino, *at)).collect();
        let known = self.session.call(&Caller::patient(), Request::Times { changes }).await.is_ok();
        for (inode, at) in times {
            if known {
                self.tell(&inode);
                inode.touch_sent(Some(at));
                self.forget_if_idle(&inode);
            } else {
                self.list_dirty(&inode);
            }
        }
    }
}

/// Every second until the data path is gone.
pub(super) async fn housekeeping(path: Weak<DataPath>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(path) = path.upgrade() else { return };
        path.keep_house().await;
    }
}
