//! The metadata store as the coordinator's core knows it: one value that changes by whole transactions. What `meta`
//! does with tables and pages is its own business and has its own tests; here are its promises: a transaction lands
//! whole or not at all, an answer is stored beside its change, and space is free, granted, mapped or waits in an orphan.

use std::collections::{BTreeMap, BTreeSet};

use block::shared::FenceGen;
use rustix::io::Errno;

use crate::core::coord::{DurableState, EvictReason, LayoutFacts, ReadAsk, ReadDone, StoreAsk, StoreDone};
use crate::proto::{Answer, CommitBody, DirEntry, Reply, Request, SetAttr, Space};
use crate::types::*;

/// A session's row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) fence_gen: FenceGen,
    pub(super) state: DurableState,
    pub(super) reason: String,
    pub(super) answers: BTreeMap<SlotRef, (u64, Answer)>,
    pub(super) grants: BTreeSet<u64>,
}

/// A regular file.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) size: u64,
    pub(super) named: bool,
    /// File block to disk block.
    pub(super) blocks: BTreeMap<u64, (u64, ExtentState)>,
}

/// The whole store.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) sessions: BTreeMap<ClientId, Row>,
    pub(super) names: BTreeMap<Vec<u8>, InodeNo>,
    pub(super) inodes: BTreeMap<InodeNo, Inode>,
    pub(super) orphans: BTreeSet<InodeNo>,
    pub(super) free: BTreeSet<u64>,
    pub(super) last_ino: u64,
}

/// What a transaction did that oracles care about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Note {
    Executed(ClientId, SlotRef, u64, Box<Request>),
    Evicted(ClientId),
    PathFenced(ClientId, FenceGen),
    Freed(InodeNo, BlockRange),
    Reaped(InodeNo),
    /// The file has no name any more.
    Unnamed(ClientId, InodeNo),
    /// The file is this long now.
    Sized(ClientId, InodeNo, u64),
}

/// The first data block of the simulated disk.
pub(super) const DATA: u64 = 1000;

fn errno(e: Errno) -> Answer {
    Answer::Errno(e.raw_os_error())
}

/// Why a durable request fails.
enum Failed {
    With(Errno),
    Contradiction,
}

impl From<Errno> for Failed {
    fn from(e: Errno) -> Failed {
        Failed::With(e)
    }
}

type Done = Result<Reply, Failed>;

impl State {
    /// A volume with so many data blocks and these files: (name, blocks mapped and written, blocks reserved).
    pub(super) fn format(blocks: u64, files: &[(&str, u64, u64)]) -> State {
        let mut state = State { free: (DATA..DATA + blocks).collect(), last_ino: 9, ..State::default() };
        for (name, written, unwritten) in files {
            state.last_ino += 1;
            let ino = InodeNo(state.last_ino);
            let mut inode = Inode { size: (written + unwritten) * FS_BLOCK, named: true, ..Inode::default() };
            for block in 0..written + unwritten {
                let Some(disk) = state.free.pop_first() else { break };
                let kind = if block < *written { ExtentState::Written } else { ExtentState::Unwritten };
                inode.blocks.insert(block, (disk, kind));
            }
            state.inodes.insert(ino, inode);
            state.names.insert(name.as_bytes().to_vec(), ino);
        }
        state
    }

    pub(super) fn attr(&self, ino: InodeNo) -> Option<Attr> {
        if ino == InodeNo::ROOT {
            return Some(attr(ino, 0, 0));
        }
        self.inodes.get(&ino).map(|i| attr(ino, i.size, i.blocks.len() as u64))
    }

    /// Where a block of a file lies, if it holds data.
    pub(super) fn mapped(&self, ino: InodeNo, block: u64) -> Option<u64> {
        let inode = self.inodes.get(&ino)?;
        inode.blocks.get(&block).filter(|(_, s)| *s == ExtentState::Written).map(|(d, _)| *d)
    }

    // ---- reading

    pub(super) fn read(&self, ask: &ReadAsk) -> ReadDone {
        match ask {
            ReadAsk::Request(request) => ReadDone::Answer(self.answer(request)),
            ReadAsk::Layout { ino, range } => match self.inodes.get(ino) {
                None => ReadDone::Answer(errno(Errno::NOENT)),
                Some(inode) => ReadDone::Layout(LayoutFacts {
                    extents: extents(inode, *range),
                    told_to: range.end,
                    size: inode.size,
                    kill_privilege: false,
                }),
            },
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let found = |ino: Option<&InodeNo>| {
            ino.and_then(|i| self.attr(*i)).map_or(errno(Errno::NOENT), |a| Answer::Ok(Reply::Attr(a)))
        };
        match request {
            Request::Lookup { name, .. } => found(self.names.get(name)),
            Request::Getattr { ino } => found(Some(ino)),
            Request::Readdir { after, .. } => {
                let entry = |(n, (name, ino)): (usize, (&Vec<u8>, &InodeNo))| DirEntry {
                    ino: *ino,
                    kind: 0o100_000,
                    cookie: n as u64 + 3,
                    name: name.clone(),
                    attr: self.attr(*ino),
                };
                let entries = self.names.iter().enumerate().map(entry).filter(|e| e.cookie > *after).collect();
                Answer::Ok(Reply::Entries { entries, end: true })
            }
            Request::Statfs => {
                Answer::Ok(Reply::Space(Space { blocks: 0, free: self.free.len() as u64, files: 0, files_free: 0 }))
            }
            _ => errno(Errno::INVAL),
        }
    }

    // ---- changing

    pub(super) fn change(&mut self, ask: &StoreAsk, notes: &mut Vec<Note>) -> StoreDone {
        match ask {
            StoreAsk::Request { client, slot, seq, request } => self.request(*client, *slot, *seq, request, notes),
            StoreAsk::Session { client, fence_gen, create, verify } => {
                self.session(*client, *fence_gen, *create, verify)
            }
            StoreAsk::Evicting { client, why } => self.row(*client, |r| {
                r.state = DurableState::Evicting;
                r.reason = why.to_string();
            }),
            StoreAsk::Evicted { client, fence_gen, why } => self.evicted(*client, *fence_gen, *why, notes),
            StoreAsk::PathFenced { client, fence_gen } => {
                notes.push(Note::PathFenced(*client, *fence_gen));
                self.row(*client, |r| r.fence_gen = *fence_gen)
            }
            StoreAsk::EndSession { client } => {
                if let Some(row) = self.sessions.remove(client) {
                    self.free.extend(row.grants);
                }
                StoreDone::Done
            }
            StoreAsk::Reap { ino } => self.reap(*ino, notes),
            StoreAsk::ReapTail { .. } => StoreDone::Reaped { more: false },
        }
    }

    fn row(&mut self, client: ClientId, change: impl FnOnce(&mut Row)) -> StoreDone {
        if let Some(row) = self.sessions.get_mut(&client) {
            change(row);
        }
        StoreDone::Done
    }

    fn session(
        &mut self,
        client: ClientId,
        fence_gen: FenceGen,
        create: bool,
        verify: &[(InodeNo, Vec<Extent>)],
    ) -> StoreDone {
        if create {
            let fresh = Row {
                fence_gen,
                state: DurableState::Live,
                reason: String::new(),
                answers: BTreeMap::new(),
                grants: BTreeSet::new(),
            };
            self.sessions.entry(client).or_insert(fresh);
        }
        let grants = self.sessions.get(&client).map(|r| r.grants.clone()).unwrap_or_default();
        let claims = verify.iter().flat_map(|(ino, extents)| extents.iter().map(move |e| (*ino, e)));
        let outside =
            claims.flat_map(|(ino, e)| blocks_of(e).map(move |(f, d)| (ino, f, d))).find(|(ino, file, disk)| {
                let Some(inode) = self.inodes.get(ino) else { return false };
                match inode.blocks.get(file) {
                    Some((there, _)) => there != disk,
                    None => !grants.contains(disk),
                }
            });
        let outside = outside.map(|(ino, file, _)| format!("block {file} of {ino} was mapped outside the grant"));
        StoreDone::Session { grants: ranges(&grants), outside }
    }

    fn evicted(&mut self, client: ClientId, fence_gen: FenceGen, why: EvictReason, notes: &mut Vec<Note>) -> StoreDone {
        if let Some(row) = self.sessions.get_mut(&client) {
            row.state = DurableState::Evicted;
            row.fence_gen = fence_gen;
            if row.reason.is_empty() {
                row.reason = why.to_string();
            }
            row.answers.clear();
            self.free.extend(std::mem::take(&mut row.grants));
        }
        notes.push(Note::Evicted(client));
        StoreDone::Done
    }

    fn reap(&mut self, ino: InodeNo, notes: &mut Vec<Note>) -> StoreDone {
        self.orphans.remove(&ino);
        if let Some(inode) = self.inodes.remove(&ino) {
            self.free.extend(inode.blocks.values().map(|(d, _)| *d));
            notes.push(Note::Freed(ino, BlockRange::ALL));
            notes.push(Note::Reaped(ino));
        }
        StoreDone::Reaped { more: false }
    }

    fn request(
        &mut self,
        client: ClientId,
        slot: SlotRef,
        seq: u64,
        request: &Request,
        notes: &mut Vec<Note>,
    ) -> StoreDone {
        let mut orphaned = Vec::new();
        let answer = match self.durable(client, request, &mut orphaned, notes) {
            Ok(reply) => Answer::Ok(reply),
            Err(Failed::With(e)) => errno(e),
            Err(Failed::Contradiction) => return StoreDone::Contradiction { why: "outside the grant".to_owned() },
        };
        if matches!(answer, Answer::Ok(_)) {
            notes.push(Note::Executed(client, slot, seq, Box::new(request.clone())));
            if let Some(row) = self.sessions.get_mut(&client) {
                row.answers.insert(slot, (seq, answer.clone()));
            }
        }
        StoreDone::Request { answer, orphaned, truncated: None }
    }

    fn durable(
        &mut self,
        client: ClientId,
        request: &Request,
        orphaned: &mut Vec<InodeNo>,
        notes: &mut Vec<Note>,
    ) -> Done {
        match request {
            Request::Create { name, exclusive, open, .. } => self.create(name, *exclusive, open.is_some()),
            Request::Unlink { name, .. } => {
                let ino = self.names.remove(name).ok_or(Errno::NOENT)?;
                if let Some(inode) = self.inodes.get_mut(&ino) {
                    inode.named = false;
                }
                self.orphans.insert(ino);
                orphaned.push(ino);
                notes.push(Note::Unnamed(client, ino));
                Ok(Reply::Done)
            }
            Request::Setattr { ino, set } => self.setattr(client, *ino, *set, notes),
            Request::Commit { ino, commit, .. } => self.commit(client, *ino, commit, notes),
            Request::Grant { blocks } => self.grant(client, *blocks),
            Request::GrantReturn { ranges } => self.grant_back(client, ranges),
            Request::Times { .. } => Ok(Reply::Done),
            _ => Err(Errno::OPNOTSUPP.into()),
        }
    }

    fn create(&mut self, name: &[u8], exclusive: bool, open: bool) -> Done {
        if let Some(ino) = self.names.get(name).copied() {
            if exclusive {
                return Err(Errno::EXIST.into());
            }
            let attr = self.attr(ino).ok_or(Errno::IO)?;
            return Ok(Reply::Created { attr, opened: open });
        }
        self.last_ino += 1;
        let ino = InodeNo(self.last_ino);
        self.inodes.insert(ino, Inode { named: true, ..Inode::default() });
        self.names.insert(name.to_vec(), ino);
        Ok(Reply::Created { attr: attr(ino, 0, 0), opened: open })
    }

    fn setattr(&mut self, client: ClientId, ino: InodeNo, set: SetAttr, notes: &mut Vec<Note>) -> Done {
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::NOENT)?;
        if let Some(size) = set.size {
            inode.size = size;
            notes.push(Note::Sized(client, ino, size));
            let cut = inode.blocks.split_off(&size.div_ceil(FS_BLOCK));
            if !cut.is_empty() {
                self.free.extend(cut.values().map(|(d, _)| *d));
                notes.push(Note::Freed(ino, BlockRange::new(size.div_ceil(FS_BLOCK), u64::MAX)));
            }
        }
        self.attr(ino).map(Reply::Attr).ok_or(Errno::IO.into())
    }

    fn commit(&mut self, client: ClientId, ino: InodeNo, body: &CommitBody, notes: &mut Vec<Note>) -> Done {
        let row = self.sessions.get_mut(&client).ok_or(Errno::STALE)?;
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::NOENT)?;
        let claims: Vec<(u64, u64)> = body.extents.iter().flat_map(blocks_of).collect();
        for (file, disk) in &claims {
            let fits = match inode.blocks.get(file) {
                Some((there, _)) => there == disk,
                None => row.grants.contains(disk),
            };
            if !fits {
                return Err(Failed::Contradiction);
            }
        }
        for (file, disk) in claims {
            row.grants.remove(&disk);
            inode.blocks.insert(file, (disk, ExtentState::Written));
        }
        inode.size = inode.size.max(body.size.unwrap_or(0));
        notes.push(Note::Sized(client, ino, inode.size));
        Ok(Reply::Done)
    }

    fn grant(&mut self, client: ClientId, blocks: BlockCount) -> Done {
        let row = self.sessions.get_mut(&client).ok_or(Errno::STALE)?;
        let mut given = BTreeSet::new();
        while (given.len() as u64) < blocks.0.min(4)
            && let Some(block) = self.free.pop_first()
        {
            given.insert(block);
        }
        if given.is_empty() {
            return Err(Errno::NOSPC.into());
        }
        row.grants.extend(&given);
        Ok(Reply::Granted(ranges(&given)))
    }

    fn grant_back(&mut self, client: ClientId, back: &[DiskRange]) -> Done {
        let row = self.sessions.get_mut(&client).ok_or(Errno::STALE)?;
        let blocks: Vec<u64> = back.iter().flat_map(|r| r.start.0..r.start.0 + r.len.0).collect();
        if blocks.iter().any(|b| !row.grants.contains(b)) {
            return Err(Failed::Contradiction);
        }
        for block in blocks {
            row.grants.remove(&block);
            self.free.insert(block);
        }
        Ok(Reply::Done)
    }
}

/// (file block, disk block) of an extent.
pub(super) fn blocks_of(e: &Extent) -> impl Iterator<Item = (u64, u64)> + use<> {
    let (file, disk) = (e.file.0, e.disk.0);
    (0..e.len.0).map(move |n| (file + n, disk + n))
}

fn ranges(blocks: &BTreeSet<u64>) -> Vec<DiskRange> {
    blocks.iter().map(|b| DiskRange { start: DiskBlock(*b), len: BlockCount(1) }).collect()
}

fn extents(inode: &Inode, range: BlockRange) -> Vec<Extent> {
    let inside = inode.blocks.range(range.start.0..range.end.0.max(range.start.0));
    let one = |(file, (disk, state)): (&u64, &(u64, ExtentState))| Extent {
        file: FileBlock(*file),
        disk: DiskBlock(*disk),
        len: BlockCount(1),
        state: *state,
        shared: false,
    };
    inside.map(one).collect()
}

fn attr(ino: InodeNo, size: u64, blocks: u64) -> Attr {
    let t = Timestamp::default();
    Attr {
        ino,
        mode: 0o100_644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size,
        blocks: BlockCount(blocks),
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
    }
}
