//! What a process that was killed has left of its files, and what this one notes for the case that it is killed.
//!
//! Blocks and lengths that no commit has covered are noted before their program is told, under the file's lock, so that no commit
//! names what is not noted. The next process holds the layouts under which they were made, commits them and gives the layouts back;
//! it never reads by them, since it knows no more of the mapping.
//!
//! An append that was noted is done. It comes again if the kernel had no answer, and is then only answered.
//! Prevents: a program appends once, and its file has it twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::DataPath;
use crate::client::inode::wall_nanos;
use crate::client::layout::LayoutCell;
use crate::client::session::{Caller, EIO, Errno};
use crate::core::client::{Event, Ledger, Note};
use crate::core::rules::Rule;
use crate::proto::LayoutGrant;
use crate::types::*;

/// Requests of the kernel that the process before had at work.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Whether there are any: looked at by every append.
    any: AtomicBool,
    unanswered: Mutex<Unanswered>,
}

#[derive(Debug, Default)]
struct Unanswered {
    /// What opened a file, and as what.
    opened: BTreeMap<u64, HandleId>,
    /// What appended, and how many bytes; `None`: they are lost.
    appended: BTreeMap<u64, Option<u32>>,
}

impl Left {
    /// The incarnation is over: what was uncommitted is lost with it.
    pub(super) fn is_lost(&self) {
        self.unanswered.lock().appended.values_mut().for_each(|len| *len = None);
    }
}

impl DataPath {
    /// Blocks and length of a write that was executed. The caller holds the file's lock.
    pub(super) fn note_write(
        &self,
        caller: &Caller,
        ino: InodeNo,
        fresh: &[Extent],
        (size, grew): (u64, bool),
        appended: Option<u64>,
    ) {
        if (fresh.is_empty() && !grew && appended.is_none()) || !self.session.rules.has(Rule::WriteIsNoted) {
            return;
        }
        self.session.note(|| Note::Wrote {
            ino,
            extents: fresh.to_vec(),
            size,
            grew,
            appended: appended.and_then(|len| Some((caller.notes()?, u32::try_from(len).ok()?))),
        });
    }

    /// What an append is answered that the process before has done.
    pub(super) fn has_appended(&self, unique: Option<u64>) -> Option<(u64, Result<u32, Errno>)> {
        let unique = unique.filter(|_| self.left.any.load(Ordering::Relaxed))?;
        let done = self.left.unanswered.lock().appended.remove(&unique)?;
        Some((unique, done.ok_or(Errno(EIO))))
    }

    /// Whether the incarnation that this process began with, or went on with, is over.
    pub(crate) fn is_another_life(&self) -> bool {
        self.life() > 0
    }

    /// In which life of this node is done what comes now: the how manieth of this process.
    pub(crate) fn life(&self) -> u64 {
        self.space.life()
    }

    /// The handle for a request of the kernel that opens a file: the one that the process before gave it, or a new one.
    pub(crate) fn handle_for(&self, unique: u64) -> HandleId {
        let any = self.left.any.load(Ordering::Relaxed);
        let promised = any.then(|| self.left.unanswered.lock().opened.remove(&unique)).flatten();
        promised.unwrap_or_else(|| self.new_handle())
    }

    /// Goes on with the files of a process that was killed, before any request.
    pub(crate) fn recover(&self, ledger: &Ledger) {
        let (first, next) = ledger.handles;
        self.files.goes_on(first, next);
        for (handle, o) in &ledger.opens {
            self.opened(o.ino, *handle, o.flags.cast_signed(), None);
        }
        self.left.any.store(true, Ordering::Relaxed);
        *self.left.unanswered.lock() = Unanswered {
            opened: ledger.promised(),
            appended: ledger.appended.iter().map(|(unique, len)| (*unique, Some(*len))).collect(),
        };
        for (ino, file) in &ledger.files {
            let inode = self.inode(*ino);
            let mut state = inode.state.lock();
            state.map = file.map();
            for (id, (_, range)) in ledger.layouts.iter().filter(|(_, (of, _))| of == ino) {
                let grant = LayoutGrant {
                    id: *id,
                    ino: *ino,
                    range: *range,
                    mode: LayoutMode::Exclusive,
                    extents: Vec::new(),
                    size: state.map.size(),
                    kill_privilege: false,
                    beside: Vec::new(),
                };
                state.cells.push(LayoutCell::new(&grant, Arc::downgrade(&self.session)));
            }
            drop(state);
            inode.touch(wall_nanos());
            inode.unflushed.store(true, Ordering::SeqCst);
            self.list_dirty(&inode);
        }
    }

    /// The layouts of the process before serve nobody: withdrawn before anybody asks.
    pub(crate) fn gives_back(&self, ledger: &Ledger) {
        ledger.layouts.keys().for_each(|layout| self.session.post(Event::GiveBack { layout: *layout }));
    }
}
