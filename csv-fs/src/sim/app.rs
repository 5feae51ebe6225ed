//! Applications: what they do, and what they tell the oracles.

use std::cell::RefCell;

use block::shared::NodeId;
use rustix::io::Errno;

use super::disk::Block;
use super::files::{Ctx, Fail, New};
use super::oracle::SizeId;
use super::world::{MS, World};
use crate::core::client::{Event, Standing};
use crate::proto::{OpenRequest, Reply, Request, SetAttr, Want};
use crate::types::*;

/// Files that are there from the start: two that are written in place, one that grows and is cut.
pub(super) const FILES: [(&str, u64, u64); 3] = [("a", 4, 2), ("b", 3, 3), ("g", 1, 0)];
/// Blocks of the files that are written in place.
pub(super) const IN_PLACE: u64 = 6;

/// The inode of the n-th of [`FILES`].
pub(super) fn file(n: u64) -> InodeNo {
    InodeNo(10 + n)
}

/// An append: its halves, and the length, as the oracle knows them.
type Grown = (New, SizeId);

/// Something an application does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Read(InodeNo, u64),
    Write(InodeNo, u64),
    WriteHalf(InodeNo, u64, u8),
    Append(InodeNo),
    Truncate(InodeNo, u64),
    Stat(InodeNo),
    Fsync(InodeNo),
    /// A new name that nobody else uses: create, write, read back; perhaps unlink while it is open.
    Private {
        unlink: bool,
    },
    /// A name that all use: create or open, append, perhaps unlink.
    Common {
        unlink: bool,
    },
    Lookup,
    /// A program that locks.
    Locks,
    /// A program that takes a whole file for itself and keeps it.
    HoldsAll(InodeNo),
    /// A program that takes a whole file for itself if it can be had at once, and keeps it.
    TriesAll(InodeNo),
}

impl Ctx {
    pub(super) async fn run(&self, op: Op) -> Result<(), Fail> {
        match op {
            Op::Read(ino, block) => self.checked_read(ino, block).await.map(drop),
            Op::Write(ino, block) => self.checked_write(ino, block, [true, true]).await,
            Op::WriteHalf(ino, block, half) => self.checked_write(ino, block, [half == 0, half == 1]).await,
            Op::Append(ino) => self.append(ino).await,
            Op::Truncate(ino, blocks) => self.truncate(ino, blocks).await,
            Op::Stat(ino) => self.stat(ino).await,
            Op::Fsync(ino) => self.fsync(ino).await,
            Op::Private { unlink } => self.private(unlink).await,
            Op::Common { unlink } => self.common(unlink).await,
            Op::Lookup => self.lookup().await,
            Op::Locks => self.locks().await,
            Op::HoldsAll(ino) => self.holds_all_of(ino).await,
            Op::TriesAll(ino) => self.tries_all_of(ino).await,
        }
    }

    async fn checked_read(&self, ino: InodeNo, block: u64) -> Result<Block, Fail> {
        let began = self.now()?;
        let data = self.served(async |c| c.read(ino, block).await).await?;
        self.with(|w| {
            for (half, value) in (0..).zip(data) {
                let now = w.now;
                w.oracle.read_shows(self.who, (ino, block, half), value, began, now);
            }
        })?;
        Ok(data)
    }

    async fn checked_write(&self, ino: InodeNo, block: u64, halves: [bool; 2]) -> Result<(), Fail> {
        let new = self.with(|w| {
            let began = w.now;
            let mut new = [None, None];
            for half in 0..2u8 {
                if halves[usize::from(half)] {
                    new[usize::from(half)] = Some(w.oracle.write_begins(self.who, (ino, block, half), began));
                }
            }
            new
        })?;
        let written = self.served(async |c| c.write(ino, block, new).await).await;
        written.inspect_err(|e| self.write_failed(new, *e))?;
        self.with(|w| {
            let now = w.now;
            new.into_iter().flatten().for_each(|id| w.oracle.write_acked(id, now));
        })
    }

    /// Of one that got EIO for its age nothing may land any more.
    fn write_failed(&self, new: New, how: Fail) {
        if how == Fail::Expired {
            let _ = self.with(|w| {
                let now = w.now;
                new.into_iter().flatten().for_each(|id| w.oracle.write_expired(id, now));
            });
        }
    }

    async fn append(&self, ino: InodeNo) -> Result<(), Fail> {
        let (began, told) = (self.now()?, RefCell::new(None));
        self.served(async |c| c.appends(ino, began, &told).await).await?;
        // Its program is told.
        let Some((new, grown)) = told.take() else { return Ok(()) };
        self.with(|w| {
            let now = w.now;
            new.into_iter().flatten().for_each(|id| w.oracle.write_acked(id, now));
            w.oracle.size_acked(grown, now);
        })
    }

    /// The daemon's part. What is noted as done is not done again.
    async fn appends(&self, ino: InodeNo, began: u64, told: &RefCell<Option<Grown>>) -> Result<(), Fail> {
        let done =
            self.with(|w| w.shell(self.n).is_some_and(|s| self.unique.is_some_and(|u| s.appended.remove(&u))))?;
        if done {
            return self.with(|w| w.coverage.count("restart", "an append was done already"));
        }
        while !self.with(|w| {
            w.shell(self.n).is_some_and(|s| !std::mem::replace(&mut s.files.entry(ino).or_default().appending, true))
        })? {
            self.sleep(500).await?;
        }
        let done = loop {
            let layout = match self.acquire(ino, BlockRange::ALL, Want::Exclusive).await {
                Ok(layout) => layout,
                Err(e) => break Err(e),
            };
            let appended = self.append_under(layout, ino, began, told).await;
            self.let_go(layout);
            match appended {
                Ok(true) => break Ok(()),
                Ok(false) => {}
                Err(e) => break Err(e),
            }
        };
        self.with(|w| w.shell(self.n).map(|s| s.files.entry(ino).or_default().appending = false))?;
        done
    }

    async fn append_under(
        &self,
        layout: LayoutId,
        ino: InodeNo,
        began: u64,
        told: &RefCell<Option<Grown>>,
    ) -> Result<bool, Fail> {
        let (block, new, grown) = self.with(|w| {
            let size = w.shell(self.n).map_or(0, |s| s.files.entry(ino).or_default().map.size());
            let block = size / FS_BLOCK;
            let new = [0, 1].map(|half| Some(w.oracle.write_begins(self.who, (ino, block, half), began)));
            let grown = w.oracle.size_begins(self.who, ino, (block + 1) * FS_BLOCK, true, began);
            (block, new, grown)
        })?;
        if !self.put(layout, ino, block, new).await.inspect_err(|e| self.write_failed(new, *e))? {
            return Ok(false);
        }
        let pause = self.with(|w| {
            let size = (block + 1) * FS_BLOCK;
            if let Some(shell) = w.shell(self.n) {
                let file = shell.files.entry(ino).or_default();
                file.map.grew(size);
                file.unflushed = true;
            }
            w.wrote(self.n, ino, Vec::new(), (size, true), self.unique);
            w.trace(|| format!("{}: appended block {block} of {ino} under layout {:#x}", self.who, layout.0));
            told.replace(Some((new, grown)));
            w.rng.below(2) * w.rng.below(4 * MS)
        })?;
        // It is noted, and its program is not told yet.
        self.sleep(pause).await?;
        Ok(true)
    }

    async fn truncate(&self, ino: InodeNo, blocks: u64) -> Result<(), Fail> {
        let (cut, sized) = self.with(|w| {
            let now = w.now;
            let cut = w.oracle.cut_begins(self.who, ino, blocks, now);
            (cut, w.oracle.size_begins(self.who, ino, blocks * FS_BLOCK, false, now))
        })?;
        // A time of its own, by which an oracle knows it.
        let atime = self.with(|w| {
            w.last_name += 1;
            Timestamp { secs: i64::try_from(w.last_name).unwrap_or_default(), nanos: 0 }
        })?;
        let set = SetAttr { size: Some(blocks * FS_BLOCK), atime: Some(atime), ..SetAttr::default() };
        let cuts = async |c: Ctx| {
            c.with(|w| {
                let own: Vec<LayoutId> = w
                    .shell(c.n)
                    .map(|s| s.layouts.iter().filter(|(_, h)| h.ino == ino).map(|(id, _)| *id).collect())
                    .unwrap_or_default();
                for layout in own {
                    w.client(c.n, Event::GiveBack { layout });
                }
            })?;
            c.call(Request::Setattr { ino, set }).await
        };
        self.served(cuts).await?;
        self.with(|w| {
            let now = w.now;
            w.oracle.cut_acked(cut, now);
            w.oracle.size_acked(sized, now);
        })
    }

    async fn stat(&self, ino: InodeNo) -> Result<(), Fail> {
        let began = self.now()?;
        let size = self.served(async |c| c.length(ino).await).await?;
        self.with(|w| {
            let now = w.now;
            w.oracle.size_shows(self.who, ino, size, began, now);
        })
    }

    async fn length(&self, ino: InodeNo) -> Result<u64, Fail> {
        let ruled = self.with(|w| {
            let shell = w.shell(self.n)?;
            let rules = shell.core.layouts().any(|(_, l)| {
                let here = l.ino == ino && l.standing != Standing::Returning;
                here && l.mode == LayoutMode::Exclusive && l.range.end == BlockRange::ALL.end
            });
            rules.then(|| shell.files.entry(ino).or_default().map.size())
        })?;
        match ruled {
            Some(size) => Ok(size),
            None => match self.call(Request::Getattr { ino }).await? {
                (Reply::Attr(attr), _) => Ok(attr.size),
                _ => Err(Fail::Errno(0)),
            },
        }
    }

    async fn fsync(&self, ino: InodeNo) -> Result<(), Fail> {
        let began = self.now()?;
        let syncs = async |c: Ctx| {
            c.commit(ino, false).await?;
            c.with(|w| w.shell(c.n).is_some_and(|s| std::mem::take(&mut s.files.entry(ino).or_default().lost)))
        };
        if self.served(syncs).await? {
            return Err(Fail::Lost);
        }
        self.with(|w| w.oracle.synced(self.who, ino, began))
    }

    async fn open_new(&self, name: &[u8], exclusive: bool) -> Result<(InodeNo, HandleId), Fail> {
        let (handle, ino) = self.served(async |c| c.creates(name, exclusive).await).await?;
        self.has_open(handle, ino)?;
        Ok((ino, handle))
    }

    /// The handle for a request of the kernel that opens a file, and whether the process before has done that.
    fn handle(&self) -> Result<(HandleId, bool), Fail> {
        self.with(|w| {
            w.last_name += 1;
            let new = HandleId(w.last_name);
            let promised = self.unique.and_then(|u| w.shell(self.n).and_then(|s| s.promised.remove(&u)));
            (promised.unwrap_or(new), promised.is_some())
        })
    }

    async fn creates(&self, name: &[u8], exclusive: bool) -> Result<(HandleId, InodeNo), Fail> {
        let (handle, _) = self.handle()?;
        let open = Some(OpenRequest { handle, flags: 2 });
        let request = Request::Create {
            parent: InodeNo::ROOT,
            name: name.to_vec(),
            mode: 0o100_644,
            umask: 0,
            rdev: 0,
            uid: 0,
            gid: 0,
            exclusive,
            open,
        };
        match self.call(request).await? {
            (Reply::Created { attr, .. }, _) => Ok((handle, attr.ino)),
            _ => Err(Fail::Errno(0)),
        }
    }

    fn has_open(&self, handle: HandleId, ino: InodeNo) -> Result<(), Fail> {
        self.with(|w| {
            w.trace(|| format!("{} has {ino} open as handle {}", self.who, handle.0));
            w.oracle.opened(self.who, handle, ino);
        })
    }

    async fn close(&self, ino: InodeNo, handle: HandleId) -> Result<(), Fail> {
        self.with(|w| w.oracle.closing(self.who, handle))?;
        self.served(async |c| c.releases(ino, handle).await).await
    }

    /// What is not open any more was released by the process before.
    pub(super) async fn releases(&self, ino: InodeNo, handle: HandleId) -> Result<(), Fail> {
        match self.with(|w| w.shell(self.n).is_some_and(|s| s.core.has_open(handle)))? {
            true => self.call(Request::Release { ino, handle }).await.map(drop),
            false => Ok(()),
        }
    }

    /// OPEN.
    pub(super) async fn opens_file(&self, ino: InodeNo, flags: u32) -> Result<HandleId, Fail> {
        let (handle, before) = self.handle()?;
        if !before {
            self.call(Request::Open { ino, open: OpenRequest { handle, flags } }).await?;
        }
        Ok(handle)
    }

    async fn private(&self, unlink: bool) -> Result<(), Fail> {
        let name = self.with(|w| {
            w.last_name += 1;
            format!("private-{}", w.last_name).into_bytes()
        })?;
        let (ino, handle) = self.open_new(&name, true).await?;
        self.with(|w| {
            let now = w.now;
            w.oracle.created(&name, now);
        })?;
        let done = self.private_opened(&name, ino, unlink).await;
        self.closes(done, ino, handle).await
    }

    async fn private_opened(&self, name: &[u8], ino: InodeNo, unlink: bool) -> Result<(), Fail> {
        self.append(ino).await?;
        if unlink {
            self.unlink(name).await?;
            self.append(ino).await?;
        }
        self.fsync(ino).await.or_else(|e| if e == Fail::Lost { Ok(()) } else { Err(e) })?;
        self.checked_read(ino, 0).await?;
        self.stat(ino).await?;
        if !unlink && self.with(|w| w.rng.permille(900))? {
            self.unlink(name).await?;
        }
        Ok(())
    }

    /// A program closes what it has open also when something failed.
    async fn closes(&self, done: Result<(), Fail>, ino: InodeNo, handle: HandleId) -> Result<(), Fail> {
        let closed = self.close(ino, handle).await;
        done.and(closed)
    }

    async fn unlink(&self, name: &[u8]) -> Result<(), Fail> {
        self.with(|w| w.oracle.unlink_begins(name))?;
        let unlink = Request::Unlink { parent: InodeNo::ROOT, name: name.to_vec() };
        self.served(async |c| c.call(unlink.clone()).await.map(drop)).await
    }

    async fn common(&self, unlink: bool) -> Result<(), Fail> {
        let (ino, handle) = self.open_new(b"common", false).await?;
        let done = self.common_opened(ino, unlink).await;
        self.closes(done, ino, handle).await
    }

    async fn common_opened(&self, ino: InodeNo, unlink: bool) -> Result<(), Fail> {
        self.append(ino).await?;
        self.checked_read(ino, 0).await?;
        if unlink {
            match self.unlink(b"common").await {
                Err(Fail::Errno(e)) if e == Errno::NOENT.raw_os_error() => {}
                other => other?,
            }
            self.checked_read(ino, 0).await?;
        }
        Ok(())
    }

    async fn lookup(&self) -> Result<(), Fail> {
        let looks = Request::Lookup { parent: InodeNo::ROOT, name: b"common".to_vec() };
        let found = self.served(async |c| c.call(looks.clone()).await).await;
        let ino = match found {
            Ok((Reply::Attr(attr), _)) => attr.ino,
            Err(Fail::Errno(e)) if e == Errno::NOENT.raw_os_error() => return Ok(()),
            other => return other.map(drop),
        };
        let handle = match self.served(async |c| c.opens_file(ino, 0).await).await {
            Err(Fail::Errno(e)) if e == Errno::NOENT.raw_os_error() => return Ok(()),
            other => other?,
        };
        self.has_open(handle, ino)?;
        let listing = Request::Readdir { dir: InodeNo::ROOT, after: 0, max_bytes: 4096, plus: true };
        let listed = self.served(async |c| c.call(listing.clone()).await).await;
        let done = match listed {
            Ok(_) => self.checked_read(ino, 0).await.map(drop),
            Err(e) => Err(e),
        };
        self.closes(done, ino, handle).await
    }
}

/// How many applications a node runs.
const APPS: u32 = 3;
/// And how many programs that lock.
const LOCKERS: u32 = 2;

impl World {
    pub(super) fn random_op(&mut self) -> Op {
        let in_place = file(self.rng.below(2));
        let block = self.rng.below(IN_PLACE);
        match self.rng.below(100) {
            0..25 => Op::Write(in_place, block),
            25..45 => Op::Read(in_place, block),
            45..55 => Op::WriteHalf(in_place, block, (self.rng.below(2)) as u8),
            55..63 => Op::Append(file(2)),
            63..66 => Op::Truncate(file(2), self.rng.below(3)),
            66..72 => Op::Stat(file(2)),
            72..78 => Op::Read(file(2), self.rng.below(4)),
            78..86 => Op::Fsync(file(self.rng.below(3))),
            86..92 => Op::Private { unlink: self.rng.permille(700) },
            92..97 => Op::Common { unlink: self.rng.permille(300) },
            _ => Op::Lookup,
        }
    }

    /// Applications of a node begin, for the life of its process.
    pub(super) fn apps_begin(&mut self, n: NodeId) {
        for app in 0..APPS + LOCKERS {
            *self.apps.entry(n).or_default() += 1;
            let me = self.me.clone();
            self.spawn_at(n, async move {
                loop {
                    let Some(world) = me.upgrade() else { return };
                    let (wait, op, who) = {
                        let mut w = world.borrow_mut();
                        if w.closing {
                            let left = w.apps.entry(n).or_default();
                            *left = left.saturating_sub(1);
                            return;
                        }
                        let (sender, wait) = super::exec::oneshot();
                        let pause = w.rng.below(30 * MS);
                        w.wake_program(n, pause, sender);
                        let op = if app < APPS { w.random_op() } else { Op::Locks };
                        (wait, op, w.is_between(n).or(w.client_is(n)))
                    };
                    drop(world);
                    wait.await;
                    let (Some(world), Some(who)) = (me.upgrade(), who) else { return };
                    let ctx = Ctx::new(&world.borrow(), n, who);
                    drop(world);
                    let _ = ctx.with(|w| w.doing.insert((n, app), op));
                    let result = ctx.run(op).await;
                    if let Some(world) = me.upgrade() {
                        let mut w = world.borrow_mut();
                        w.doing.remove(&(n, app));
                        w.op_ended(n, who, op, result);
                    }
                }
            });
        }
    }

    pub(super) fn op_ended(&mut self, n: NodeId, who: ClientId, op: Op, result: Result<(), Fail>) {
        self.trace(|| {
            format!("{who}: {op:?} ends {}", if result.is_ok() { "well".to_owned() } else { format!("{result:?}") })
        });
        match result {
            Ok(()) => {
                self.coverage.variant("op", &op);
                *self.ops_done.entry(n).or_default() += 1;
            }
            Err(Fail::Evicted) => {
                self.coverage.count("op", "evicted");
                self.oracle.app_told_evicted(who);
            }
            Err(Fail::Lost) if self.disk.resets > 0 => self.coverage.count("op", "fsync says lost"),
            Err(Fail::NoSpace) => self.coverage.count("op", "no space"),
            Err(Fail::Expired) if self.setup.io_timeout > 0 => self.coverage.count("op", "expired"),
            Err(e) => self.oracle.app_error(who, &format!("{op:?}: {e:?}")),
        }
    }
}
