//! What one life of a client knows, kept current outside its process, so that the next life goes on after a SIGKILL.
//!
//! The core says what is to be noted ([`Effect::Note`](super::Effect::Note)): all that one event brings, in one piece, before
//! anything that the event does. The shell writes each piece down before it goes on; a kill leaves whole pieces, and the last of
//! them perhaps torn, which has then not happened. Writes of files are noted by the shell that makes them. [`Ledger`] is what the
//! pieces come to; it says itself in notes again ([`Ledger::notes`]), so a memory that is full begins anew with what is left.
//!
//! # What is noted, and before what
//! | what | before | a life that did not find it would |
//! |---|---|---|
//! | the number of a bind | it is sent | bind under a number that was used |
//! | slot and number of a call, and what it asks if that may still matter | it is sent (rule `NotedBeforeSent`) | ask something else under that number, and get a stored answer for it |
//! | an answer, with what it brings: a file that is open, a lock, a layout | its caller is told | know nothing of what a program has |
//! | blocks and length of a write that no commit has covered | its program is told (rule `WriteIsNoted`) | lose what was acknowledged |
//! | that a request of the kernel was answered | (after the answer) | only keep a little more |
//! | that data do not go directly, or that something was lost | it shows anywhere | take itself for well |
//!
//! # What the next life does with it ([`super::recover`])
//! It is the client that it was, all of whose callers have gone: what is unanswered is sent again in its slot, under its number.
//! The kernel sends its requests again, too, and what comes for the second time (its [`Origin`]) is given the first one's answer
//! (rule `ClaimedOnce`). Prevents: `rename` was executed, its answer died with the daemon, and the second one is told ENOENT.
//!
//! # What it refuses
//! A life that is over (evicted, unmounted, or with a loss that a program is still to be told of), and one whose data went over the
//! coordinator: what that had not flushed lay in the memory that is gone ([`Ledger::resumable`]).

use std::collections::BTreeMap;

use block::shared::{Epoch, FenceGen};
use serde::{Deserialize, Serialize};

use super::calls::changes;
use super::hand_on::{Known, KnownOpen};
use super::map::FileMap;
use crate::core::locks::{Lock, LockTable, Owner};
use crate::proto::{ByteRange, CommitBody, LockMode, LockRequest, LockSpace, OwnLock, PlacedLock, Reply, Request};
use crate::types::*;

/// A request of the kernel, and the how many-th of the calls that it leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The kernel's number; it comes again under that.
    pub unique: u64,
    /// From 0 on. The same request leads to the same calls, given the same answers.
    pub nth: u32,
}

/// One thing that is noted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Note {
    /// The life that the rest is about. Comes first.
    Life {
        /// Which.
        client: ClientId,
        /// The first handle of its incarnation.
        first: u64,
        /// The next one.
        next: u64,
    },
    /// Under this number a bind is sent.
    Bind(Bind),
    /// Bound in this epoch.
    Epoch(Epoch),
    /// Data go directly, under this generation; or not.
    Direct(Option<FenceGen>),
    /// A call is sent.
    Sent {
        /// In which slot.
        slot: SlotRef,
        /// Under which number.
        seq: u64,
        /// What it asks, if that matters to the next life.
        request: Option<Box<Request>>,
        /// Which request of the kernel led to it.
        origin: Option<Origin>,
    },
    /// It is answered.
    Answered {
        /// In which slot.
        slot: SlotRef,
        /// Under which number.
        seq: u64,
        /// How.
        result: Result<Reply, i32>,
    },
    /// A file is open.
    Opened {
        /// Its name.
        handle: HandleId,
        /// Which file.
        ino: InodeNo,
        /// As the program opened it.
        flags: u32,
        /// By which request of the kernel, if that may not be answered yet.
        unique: Option<u64>,
    },
    /// A lock is held.
    Locked(PlacedLock),
    /// The last name of a waiter for a lock.
    Waiter(u64),
    /// An exclusive layout is held.
    Layout {
        /// Which.
        id: LayoutId,
        /// Of which file.
        ino: InodeNo,
        /// Over which blocks.
        range: BlockRange,
    },
    /// It is not held any more.
    LayoutGone(LayoutId),
    /// A program wrote what the coordinator does not know yet.
    Wrote {
        /// Which file.
        ino: InodeNo,
        /// Blocks that hold data now.
        extents: Vec<Extent>,
        /// The file's length, as far as it is known here.
        size: u64,
        /// Whether the coordinator knows of a shorter one.
        grew: bool,
        /// The request of the kernel that appended, and how many bytes: done again it would append again.
        appended: Option<(u64, u32)>,
    },
    /// The kernel has its answer.
    Replied(u64),
    /// The answer of a request of the kernel that has not come again.
    Kept {
        /// Which.
        origin: Origin,
        /// What it asked.
        request: Box<Request>,
        /// The answer.
        result: Result<Reply, i32>,
    },
    /// Nobody goes on from here.
    Over,
}

/// The last call of a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastCall {
    /// Its number.
    pub seq: u64,
    /// What it asks, if that matters.
    pub request: Option<Box<Request>>,
    /// Which request of the kernel led to it.
    pub origin: Option<Origin>,
    /// Whether it may be unanswered.
    pub open: bool,
}

impl LastCall {
    /// One that is answered.
    fn answered(seq: u64) -> LastCall {
        LastCall { seq, request: None, origin: None, open: false }
    }
}

/// An open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotedOpen {
    /// Which.
    pub ino: InodeNo,
    /// As the program opened it.
    pub flags: u32,
    /// By which request of the kernel, if that may not be answered yet.
    pub unique: Option<u64>,
}

/// What is uncommitted of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NotedFile {
    map: FileMap,
    size: u64,
    grew: bool,
}

impl NotedFile {
    /// Whether anything is.
    pub fn is_dirty(&self) -> bool {
        self.grew || self.map.uncommitted_extents() > 0
    }

    /// Blocks that no commit has covered.
    pub fn extents(&self) -> Vec<Extent> {
        self.map.uncommitted(BlockRange::ALL)
    }

    /// Mapping and length, as far as they are known: nothing of what was committed.
    pub fn map(&self) -> FileMap {
        FileMap::recovered(&self.extents(), self.size, self.grew)
    }

    fn committed(&mut self, body: &CommitBody) {
        self.map.committed(body);
        self.grew &= body.size.is_none_or(|size| size < self.size);
    }
}

/// What all notes come to.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Which life.
    pub client: ClientId,
    /// The highest epoch it was bound to.
    pub epoch: Epoch,
    /// The last number of a bind.
    pub bind: Bind,
    /// Under which generation data went directly, if they did.
    pub direct: Option<FenceGen>,
    /// Nobody goes on from here.
    pub over: bool,
    /// The last call of each slot that was used.
    pub slots: BTreeMap<SlotRef, LastCall>,
    /// Open files.
    pub opens: BTreeMap<HandleId, NotedOpen>,
    locks: LockTable,
    /// The last name of a waiter.
    pub waiter: u64,
    /// Exclusive layouts.
    pub layouts: BTreeMap<LayoutId, (InodeNo, BlockRange)>,
    /// Files with something uncommitted.
    pub files: BTreeMap<InodeNo, NotedFile>,
    /// Requests of the kernel that appended, perhaps unanswered.
    pub appended: BTreeMap<u64, u32>,
    /// Calls that were answered for requests of the kernel that may not be.
    pub answers: BTreeMap<Origin, (Box<Request>, Result<Reply, i32>)>,
    /// The first handle of the incarnation, and the next.
    pub handles: (u64, u64),
}

impl Ledger {
    /// Of a life that has done nothing.
    pub fn new(client: ClientId, first: u64, next: u64) -> Ledger {
        Ledger {
            client,
            epoch: Epoch(0),
            bind: Bind(0),
            direct: None,
            over: false,
            slots: BTreeMap::new(),
            opens: BTreeMap::new(),
            locks: LockTable::default(),
            waiter: 0,
            layouts: BTreeMap::new(),
            files: BTreeMap::new(),
            appended: BTreeMap::new(),
            answers: BTreeMap::new(),
            handles: (first, next),
        }
    }

    /// Of a life that goes on in order, from its last word.
    pub fn of_known(known: &Known, (first, next): (u64, u64)) -> Ledger {
        let mut ledger = Ledger::new(known.client, first, next);
        (ledger.bind, ledger.epoch, ledger.waiter) = (known.bind, known.epoch, known.waiter);
        for (table, numbers) in [(SlotTable::Ordinary, &known.ordinary), (SlotTable::Return, &known.returns)] {
            let used = (0..).zip(numbers).filter(|(_, seq)| **seq > 0);
            ledger.slots.extend(used.map(|(index, seq)| (SlotRef { table, index }, LastCall::answered(*seq))));
        }
        for KnownOpen { handle, ino, flags } in &known.opens {
            ledger.note(&Note::Opened { handle: *handle, ino: *ino, flags: *flags, unique: None });
        }
        known.locks.iter().for_each(|placed| ledger.note(&Note::Locked(*placed)));
        ledger
    }

    /// What these notes come to; `None` if they do not begin with a life.
    pub fn of<'a>(mut notes: impl Iterator<Item = &'a Note>) -> Option<Ledger> {
        let Some(Note::Life { client, first, next }) = notes.next() else { return None };
        let mut ledger = Ledger::new(*client, *first, *next);
        notes.for_each(|note| ledger.note(note));
        Some(ledger)
    }

    /// Whether another process can go on from here; else why not.
    pub fn resumable(&self) -> Result<FenceGen, &'static str> {
        let moving = |r: &Request| matches!(r, Request::PathLost { .. } | Request::PathBack { .. } | Request::Goodbye);
        if self.over {
            return Err("its life was over, or had lost something");
        }
        if self.slots.values().any(|c| c.open && c.request.as_deref().is_some_and(moving)) {
            return Err("its data were about to go another way");
        }
        self.direct.ok_or("its data went over the coordinator")
    }

    /// Locks held.
    pub fn locks(&self) -> Vec<PlacedLock> {
        let placed = |(ino, space, lock): (InodeNo, LockSpace, Lock)| PlacedLock { ino, space, lock: lock.own() };
        self.locks.of_client(self.client).map(placed).collect()
    }

    /// Handles that a request of the kernel was, or is to be, answered with.
    pub fn promised(&self) -> BTreeMap<u64, HandleId> {
        let opened = self.opens.iter().filter_map(|(handle, o)| Some((o.unique?, *handle)));
        let creating = self.slots.values().filter(|c| c.open).filter_map(|c| match c.request.as_deref() {
            Some(Request::Create { open: Some(open), .. }) => Some((c.origin?.unique, open.handle)),
            _ => None,
        });
        opened.chain(creating).collect()
    }

    /// Takes a note.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Life { client, first, next } => *self = Ledger::new(*client, *first, *next),
            Note::Bind(bind) => self.bind = *bind,
            Note::Epoch(epoch) => self.epoch = *epoch,
            Note::Direct(direct) => self.direct = *direct,
            Note::Sent { slot, seq, request, origin } => {
                if let Some(request) = request {
                    self.sent(request);
                }
                let call = LastCall { seq: *seq, request: request.clone(), origin: *origin, open: true };
                self.slots.insert(*slot, call);
            }
            Note::Answered { slot, seq, result } => self.answered(*slot, *seq, result),
            Note::Opened { handle, ino, flags, unique } => {
                self.opens.insert(*handle, NotedOpen { ino: *ino, flags: *flags, unique: *unique });
                self.handles.1 = self.handles.1.max(handle.0 + 1);
            }
            Note::Locked(PlacedLock { ino, space, lock }) => {
                self.locks.put(*ino, *space, Lock::of(self.client, *lock));
            }
            Note::Waiter(last) => self.waiter = self.waiter.max(*last),
            Note::Layout { id, ino, range } => drop(self.layouts.insert(*id, (*ino, *range))),
            Note::LayoutGone(id) => self.layout_gone(*id),
            Note::Wrote { ino, extents, size, grew, appended } => {
                if *grew || !extents.is_empty() {
                    let file = self.files.entry(*ino).or_default();
                    file.map.wrote(extents);
                    (file.size, file.grew) = (*size, file.grew | grew);
                }
                self.appended.extend(*appended);
            }
            Note::Replied(unique) => self.replied(*unique),
            Note::Kept { origin, request, result } => {
                self.answers.insert(*origin, (request.clone(), result.clone()));
            }
            Note::Over => self.over = true,
        }
    }

    /// What a call takes away takes it away when it is sent: the record claims only what no request may have given up.
    fn sent(&mut self, request: &Request) {
        match request {
            Request::Open { open, .. } | Request::Create { open: Some(open), .. } => {
                self.handles.1 = self.handles.1.max(open.handle.0 + 1);
            }
            Request::Release { ino, handle } => {
                self.opens.remove(handle);
                self.locks.released(*ino, self.client, *handle);
            }
            Request::Locks(LockRequest::Take { ino, space, lock, wait, weaken }) => {
                self.waiter = self.waiter.max(wait.map_or(0, |w| w.0));
                if *space == LockSpace::Whole {
                    self.locks.lets_go_first(*ino, *space, &Lock::of(self.client, *lock));
                } else if *weaken && lock.mode == LockMode::Read {
                    for strong in self.held_in(*ino, *space, lock.owner, lock.range) {
                        let weak = OwnLock { mode: LockMode::Read, ..strong };
                        self.locks.put(*ino, *space, Lock::of(self.client, weak));
                    }
                }
            }
            Request::Locks(LockRequest::Drop { ino, space, owner, range }) => self.let_go(*ino, *space, *owner, *range),
            Request::Locks(LockRequest::Restore { ino, space, owner, range, held }) => {
                self.let_go(*ino, *space, *owner, *range);
                held.iter().for_each(|lock| self.locks.put(*ino, *space, Lock::of(self.client, *lock)));
            }
            _ => {}
        }
    }

    fn held_in(&self, ino: InodeNo, space: LockSpace, owner: u64, range: ByteRange) -> Vec<OwnLock> {
        let owner = Owner { client: self.client, id: owner };
        self.locks.held_in(ino, space, owner, range).map(|l| l.own()).collect()
    }

    fn let_go(&mut self, ino: InodeNo, space: LockSpace, owner: u64, range: ByteRange) {
        self.locks.clear(ino, space, Owner { client: self.client, id: owner }, range);
    }

    fn answered(&mut self, slot: SlotRef, seq: u64, result: &Result<Reply, i32>) {
        let Some(call) = self.slots.get_mut(&slot).filter(|c| c.seq == seq && c.open) else { return };
        call.open = false;
        let (request, origin) = (call.request.take(), call.origin.take());
        let Some(request) = request else { return };
        if let (Request::Commit { ino, commit, give_back }, Ok(_)) = (&*request, result) {
            if let Some(file) = self.files.get_mut(ino) {
                file.committed(commit);
                if !file.is_dirty() {
                    self.files.remove(ino);
                }
            }
            give_back.iter().for_each(|id| self.layout_gone(*id));
        }
        if let Some(origin) = origin.filter(|_| changes(&request)) {
            self.answers.insert(origin, (request, result.clone()));
        }
    }

    /// What was uncommitted under it is committed, or lost.
    fn layout_gone(&mut self, id: LayoutId) {
        let Some((ino, _)) = self.layouts.remove(&id) else { return };
        let Some(file) = self.files.get_mut(&ino) else { return };
        let held: Vec<BlockRange> = self.layouts.values().filter(|(i, _)| *i == ino).map(|(_, r)| *r).collect();
        file.map.keep_only(&held);
        file.grew &= held.iter().any(|r| r.end == BlockRange::ALL.end);
        if !file.is_dirty() {
            self.files.remove(&ino);
        }
    }

    fn replied(&mut self, unique: u64) {
        self.appended.remove(&unique);
        let of = Origin { unique, nth: 0 }..=Origin { unique, nth: u32::MAX };
        let gone: Vec<Origin> = self.answers.range(of).map(|(origin, _)| *origin).collect();
        for origin in gone {
            self.answers.remove(&origin);
        }
        self.opens.values_mut().filter(|o| o.unique == Some(unique)).for_each(|o| o.unique = None);
    }

    /// All of it, as notes.
    pub fn notes(&self) -> Vec<Note> {
        let (client, (first, next)) = (self.client, self.handles);
        let mut notes = vec![
            Note::Life { client, first, next },
            Note::Bind(self.bind),
            Note::Epoch(self.epoch),
            Note::Direct(self.direct),
            Note::Waiter(self.waiter),
        ];
        let opened = |(handle, o): (&HandleId, &NotedOpen)| {
            let NotedOpen { ino, flags, unique } = *o;
            Note::Opened { handle: *handle, ino, flags, unique }
        };
        // Calls first: what they took away when they were sent is not there any more, and nothing comes back by them.
        for (slot, call) in &self.slots {
            let LastCall { seq, request, origin, open } = call.clone();
            notes.push(Note::Sent { slot: *slot, seq, request: request.clone(), origin });
            if !open {
                notes.push(Note::Answered { slot: *slot, seq, result: Ok(Reply::Done) });
            }
        }
        notes.extend(self.opens.iter().map(opened));
        notes.extend(self.locks().into_iter().map(Note::Locked));
        notes.extend(self.layouts.iter().map(|(id, (ino, range))| Note::Layout { id: *id, ino: *ino, range: *range }));
        notes.extend(self.files.iter().map(|(ino, f)| Note::Wrote {
            ino: *ino,
            extents: f.extents(),
            size: f.size,
            grew: f.grew,
            appended: None,
        }));
        let appended = |(unique, len): (&u64, &u32)| Note::Wrote {
            ino: InodeNo(0),
            extents: Vec::new(),
            size: 0,
            grew: false,
            appended: Some((*unique, *len)),
        };
        notes.extend(self.appended.iter().map(appended));
        let kept = |(origin, (request, result)): (&Origin, &(Box<Request>, Result<Reply, i32>))| Note::Kept {
            origin: *origin,
            request: request.clone(),
            result: result.clone(),
        };
        notes.extend(self.answers.iter().map(kept));
        notes.extend(self.over.then_some(Note::Over));
        notes
    }
}

/// Whether what a request asks matters to a life that finds it unanswered: it changes something, or brings something that has to go
/// back, or its table is that of returns, in which nothing else may be sent. Of all others the number is enough.
pub(super) fn matters(request: &Request) -> bool {
    match request {
        Request::Open { .. } | Request::LayoutGet { .. } | Request::Locks(LockRequest::Take { .. }) => true,
        request => request.is_durable() || request.table() == SlotTable::Return,
    }
}
