//! What a client's data path does for its files: layouts and guards, mapping, flush and commit. Each is a task that
//! waits where the real shell waits.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use block::shared::NodeId;
use rustix::io::Errno;

use super::client_shell::{Direct, Held, write_of};
use super::disk::{Block, Req};
use super::exec::{Receiver, oneshot};
use super::oracle::{Value, WriteId};
use super::world::{MS, World};
use crate::core::client::map::Kind;
use crate::core::client::{CallFailure, Event, Note, Origin, RedirectResult, changes};
use crate::core::rules::Rule;
use crate::proto::{RedirectOp, Reply, Request, Want};
use crate::types::*;

/// Why an operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fail {
    Evicted,
    Errno(i32),
    /// An fsync that says that something was lost.
    Lost,
    /// The volume is full, for longer than anybody wants to wait.
    NoSpace,
    /// It waited for `io_timeout`.
    Expired,
}

/// One incarnation of one node's client, for tasks.
#[derive(Clone)]
pub(super) struct Ctx {
    world: Weak<RefCell<World>>,
    pub(super) n: NodeId,
    pub(super) who: ClientId,
    /// A program, which waits for `io_timeout`; else the node itself, on its own account.
    program: bool,
    /// Of which process it is, if it ends with it. A program does not.
    process: Option<u64>,
    /// The kernel's number of the request, and how many of its calls were asked that change something.
    pub(super) unique: Option<u64>,
    asked: Rc<Cell<u32>>,
}

/// New data for a block: by half, what is new.
pub(super) type New = [Option<WriteId>; 2];

impl Ctx {
    pub(super) fn new(w: &World, n: NodeId, who: ClientId) -> Ctx {
        Ctx { world: w.me.clone(), n, who, program: true, process: None, unique: None, asked: Rc::default() }
    }

    /// The same at the daemon that serves it now.
    pub(super) fn at_daemon(&self, w: &World, unique: u64) -> Ctx {
        let process = Some(w.nodes[&self.n].process);
        Ctx { process, unique: Some(unique), asked: Rc::default(), ..self.clone() }
    }

    /// Whether its process has ended.
    pub(super) fn is_gone(&self, w: &World) -> bool {
        self.process.is_some_and(|process| w.nodes[&self.n].process != process || !w.is_up(self.n))
    }

    fn origin(&self, request: &Request) -> Option<Origin> {
        let unique = self.unique?;
        match request {
            Request::Open { .. } => Some(Origin { unique, nth: u32::MAX }),
            request if changes(request) => {
                let nth = self.asked.get();
                self.asked.set(nth + 1);
                Some(Origin { unique, nth })
            }
            _ => None,
        }
    }

    /// On the node's own account.
    pub(super) fn own(w: &World, n: NodeId, who: ClientId) -> Ctx {
        Ctx { program: false, process: Some(w.nodes[&n].process), ..Ctx::new(w, n, who) }
    }

    /// Looks at the world, if the incarnation still lives.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> Result<T, Fail> {
        let world = self.world.upgrade().ok_or(Fail::Evicted)?;
        let mut w = world.borrow_mut();
        let lives = w.client_is(self.n) == Some(self.who) || w.is_between(self.n) == Some(self.who);
        if !lives || self.is_gone(&w) {
            return Err(Fail::Evicted);
        }
        Ok(f(&mut w))
    }

    pub(super) async fn wait<T>(&self, receiver: Receiver<T>) -> Result<T, Fail> {
        receiver.await.ok_or(Fail::Evicted)
    }

    pub(super) async fn sleep(&self, micros: u64) -> Result<(), Fail> {
        let (sender, receiver) = oneshot();
        self.with(|w| w.wake_after(self.n, micros, sender))?;
        self.wait(receiver).await
    }

    pub(super) fn now(&self) -> Result<u64, Fail> {
        self.with(|w| w.now)
    }

    pub(super) async fn call(&self, request: Request) -> Result<(Reply, Option<LayoutId>), Fail> {
        let (sender, receiver) = oneshot();
        // A file is closed whatever became of it before.
        let program = self.program && !matches!(request, Request::Release { .. });
        let (began, asked) = (self.now()?, request.clone());
        let origin = self.origin(&request);
        self.with(|w| w.call(self.n, request, origin, program, sender))?;
        match self.wait(receiver).await? {
            (Ok(reply), guard) => Ok((reply, guard)),
            (Err(CallFailure::Errno(e)), _) => Err(Fail::Errno(e)),
            (Err(CallFailure::Expired), _) => {
                self.with(|w| w.oracle.gave_up(self.who, asked, w.now - began, w.setup.io_timeout * MS))?;
                Err(Fail::Expired)
            }
            (Err(_), _) => Err(Fail::Evicted),
        }
    }

    // ---- layouts

    /// A guard on a layout over these blocks.
    pub(super) async fn acquire(&self, ino: InodeNo, range: BlockRange, want: Want) -> Result<LayoutId, Fail> {
        let held = self.with(|w| {
            let shell = w.shell(self.n)?;
            let id = shell.covering(ino, range, want == Want::Exclusive)?;
            let exclusive = shell.layouts.get(&id)?.mode == LayoutMode::Exclusive;
            let map = &shell.files.entry(ino).or_default().map;
            let in_place = map.pieces(range).iter().all(|p| matches!(p.kind, Kind::Written { .. }));
            if want == Want::Write && !exclusive && !in_place {
                return None;
            }
            shell.layouts.get_mut(&id)?.guards += 1;
            Some(id)
        })?;
        if let Some(id) = held {
            return Ok(id);
        }
        loop {
            if let (Reply::Layout(_), Some(guard)) = self.call(Request::LayoutGet { ino, range, want }).await? {
                return Ok(guard);
            }
        }
    }

    pub(super) fn let_go(&self, layout: LayoutId) {
        // An incarnation that is over has no guards.
        let _ = self.with(|w| w.let_go(self.n, layout));
    }

    async fn lock(&self, ino: InodeNo, block: u64) -> Result<(), Fail> {
        loop {
            if self.with(|w| w.shell(self.n).is_some_and(|s| s.files.entry(ino).or_default().locked.insert(block)))? {
                return Ok(());
            }
            self.sleep(400).await?;
        }
    }

    fn unlock(&self, ino: InodeNo, block: u64) {
        let _ = self.with(|w| w.shell(self.n).map(|s| s.files.entry(ino).or_default().locked.remove(&block)));
    }

    // ---- the device

    /// Writes one block; false if the layout is gone.
    async fn device_write(&self, layout: LayoutId, block: u64, data: Block, new: &[WriteId]) -> Result<bool, Fail> {
        loop {
            let (sender, direct) = oneshot();
            let sent = self.with(|w| {
                let open = w.shell(self.n).is_some_and(|s| s.core.gate_open());
                let Some(claim) = w.claim(self.n, layout).filter(|_| open) else { return false };
                w.direct(self.n, Req::Write(Box::new(write_of(block, data, new.to_vec(), claim))), sender);
                true
            })?;
            if sent {
                match self.wait(direct).await? {
                    Direct::Done => return Ok(true),
                    _ => self.sleep(100).await?,
                }
                continue;
            }
            let (sender, redirected) = oneshot();
            self.with(|w| {
                let Some(claim) = w.claim(self.n, layout) else { return };
                let write = write_of(block, data, new.to_vec(), claim);
                w.redirect(self.n, layout, RedirectOp::Write, block, Some(write), (self.program, sender));
            })?;
            match self.wait(redirected).await?.0 {
                RedirectResult::Done => return Ok(true),
                RedirectResult::NoLayout => return Ok(false),
                RedirectResult::Direct | RedirectResult::InDoubt => {}
                RedirectResult::Evicted => return Err(Fail::Evicted),
                RedirectResult::Expired => return Err(Fail::Expired),
                RedirectResult::Errno(e) => return Err(Fail::Errno(e)),
            }
        }
    }

    /// Reads one block; `None` if the layout is gone.
    async fn device_read(&self, layout: LayoutId, block: u64) -> Result<Option<Block>, Fail> {
        loop {
            let (sender, direct) = oneshot();
            let sent = self.with(|w| {
                let open = w.shell(self.n).is_some_and(|s| s.core.gate_open());
                if open {
                    w.direct(self.n, Req::Read { block }, sender);
                }
                open
            })?;
            if sent {
                match self.wait(direct).await? {
                    Direct::Data(data) => return Ok(Some(data)),
                    _ => self.sleep(100).await?,
                }
                continue;
            }
            let (sender, redirected) = oneshot();
            self.with(|w| w.redirect(self.n, layout, RedirectOp::Read, block, None, (self.program, sender)))?;
            match self.wait(redirected).await? {
                (RedirectResult::Done, Some(data)) => return Ok(Some(data)),
                (RedirectResult::NoLayout, _) => return Ok(None),
                (RedirectResult::Evicted, _) => return Err(Fail::Evicted),
                (RedirectResult::Expired, _) => return Err(Fail::Expired),
                (RedirectResult::Errno(e), _) => return Err(Fail::Errno(e)),
                _ => {}
            }
        }
    }

    /// Makes stable what was written before.
    pub(super) async fn flush(&self) -> Result<(), Fail> {
        loop {
            let (sender, direct) = oneshot();
            let sent = self.with(|w| {
                let open = w.shell(self.n).is_some_and(|s| s.core.gate_open());
                if open {
                    w.direct(self.n, Req::Flush, sender);
                }
                open
            })?;
            if sent {
                match self.wait(direct).await? {
                    Direct::Done => return Ok(()),
                    _ => self.sleep(100).await?,
                }
                continue;
            }
            let (sender, redirected) = oneshot();
            self.with(|w| w.redirect(self.n, LayoutId(0), RedirectOp::Flush, 0, None, (self.program, sender)))?;
            match self.wait(redirected).await?.0 {
                RedirectResult::Done => return Ok(()),
                RedirectResult::Evicted => return Err(Fail::Evicted),
                RedirectResult::Expired => return Err(Fail::Expired),
                RedirectResult::Errno(e) => return Err(Fail::Errno(e)),
                RedirectResult::NoLayout | RedirectResult::Direct | RedirectResult::InDoubt => {}
            }
        }
    }

    // ---- blocks

    /// Reads a block of a file.
    pub(super) async fn read(&self, ino: InodeNo, block: u64) -> Result<Block, Fail> {
        let range = BlockRange::new(block, block + 1);
        loop {
            let layout = self.acquire(ino, range, Want::Read).await?;
            let kind = self.kind(ino, block)?;
            let data = match kind {
                Kind::Written { disk, .. } => self.device_read(layout, disk.0).await,
                Kind::Hole | Kind::Unwritten { .. } => Ok(Some([Value::Zero, Value::Zero])),
            };
            self.let_go(layout);
            if let Some(data) = data? {
                return Ok(data);
            }
        }
    }

    fn kind(&self, ino: InodeNo, block: u64) -> Result<Kind, Fail> {
        let range = BlockRange::new(block, block + 1);
        let piece = self.with(|w| {
            w.shell(self.n).and_then(|s| s.files.entry(ino).or_default().map.pieces(range).first().copied())
        })?;
        Ok(piece.map_or(Kind::Hole, |p| p.kind))
    }

    /// Writes a block of a file, or one half of it.
    pub(super) async fn write(&self, ino: InodeNo, block: u64, new: New) -> Result<(), Fail> {
        let half = new.iter().any(Option::is_none);
        let mut want = if half { Want::Exclusive } else { Want::Write };
        loop {
            let layout = self.acquire(ino, BlockRange::new(block, block + 1), want).await?;
            let exclusive = self.held(layout)?.is_some_and(|h| h.mode == LayoutMode::Exclusive);
            // A whole write under a shared layout of this node must not pass a sub-block write under an exclusive one
            // of the same node, which read the old block.
            self.lock(ino, block).await?;
            let done = match (exclusive, self.kind(ino, block)?) {
                (true, _) => self.put(layout, ino, block, new).await,
                (false, Kind::Written { disk, .. }) if !half => {
                    self.device_write(layout, disk.0, data(new, [Value::Zero; 2]), &ids(new)).await
                }
                (false, _) => {
                    want = Want::Exclusive;
                    Ok(false)
                }
            };
            self.unlock(ino, block);
            if done == Ok(true) {
                self.wrote(ino)?;
            }
            self.let_go(layout);
            if done? {
                return Ok(());
            }
        }
    }

    pub(super) fn held(&self, layout: LayoutId) -> Result<Option<Held>, Fail> {
        self.with(|w| w.shell(self.n).and_then(|s| s.layouts.get(&layout).copied()))
    }

    fn wrote(&self, ino: InodeNo) -> Result<(), Fail> {
        self.with(|w| {
            if let Some(shell) = w.shell(self.n) {
                shell.files.entry(ino).or_default().unflushed = true;
            }
        })
    }

    /// Writes under an exclusive layout, the block locked: in place, over an old half, or into new space.
    pub(super) async fn put(&self, layout: LayoutId, ino: InodeNo, block: u64, new: New) -> Result<bool, Fail> {
        let half = new.iter().any(Option::is_none);
        let (disk, old, fresh) = match self.kind(ino, block)? {
            Kind::Written { disk, .. } if half => match self.device_read(layout, disk.0).await? {
                Some(old) => (disk.0, old, false),
                None => return Ok(false),
            },
            Kind::Written { disk, .. } => (disk.0, [Value::Zero; 2], false),
            Kind::Unwritten { disk, .. } => (disk.0, [Value::Zero; 2], true),
            Kind::Hole => (self.space().await?, [Value::Zero; 2], true),
        };
        let hole = self.kind(ino, block)? == Kind::Hole;
        let done = self.device_write(layout, disk, data(new, old), &ids(new)).await?;
        self.with(|w| {
            let Some(shell) = w.shell(self.n) else { return };
            if done && fresh {
                let extent = Extent {
                    file: FileBlock(block),
                    disk: DiskBlock(disk),
                    len: BlockCount(1),
                    state: ExtentState::Written,
                    shared: false,
                };
                let map = &mut shell.files.entry(ino).or_default().map;
                map.wrote(&[extent]);
                let size = map.size();
                w.wrote(self.n, ino, vec![extent], (size, false), None);
            } else if !done && hole {
                shell.grant.insert(disk);
            }
        })?;
        Ok(done)
    }

    /// A block of the grant.
    async fn space(&self) -> Result<u64, Fail> {
        for _ in 0..20 {
            if let Some(block) = self.with(|w| w.shell(self.n).and_then(|s| s.grant.pop_first()))? {
                return Ok(block);
            }
            match self.call(Request::Grant { blocks: BlockCount(4) }).await {
                Ok((Reply::Granted(ranges), _)) => self.with(|w| {
                    if let Some(shell) = w.shell(self.n) {
                        shell.grant.extend(ranges.iter().flat_map(|r| r.start.0..r.start.0 + r.len.0));
                    }
                })?,
                Ok(_) => {}
                Err(Fail::Errno(e)) if e == Errno::NOSPC.raw_os_error() => self.sleep(20_000).await?,
                Err(e) => return Err(e),
            }
        }
        Err(Fail::NoSpace)
    }

    // ---- commits

    /// Flushes, then commits what is uncommitted of a file. `name_it`: at least one commit goes out, which names the
    /// highest sync asked for.
    pub(super) async fn commit(&self, ino: InodeNo, mut name_it: bool) -> Result<(), Fail> {
        while !self.with(|w| {
            w.shell(self.n).is_some_and(|s| !std::mem::replace(&mut s.files.entry(ino).or_default().committing, true))
        })? {
            self.sleep(500).await?;
        }
        let done = loop {
            let body = self.with(|w| {
                let file = w.shell(self.n)?.files.entry(ino).or_default();
                let body = file.map.commit_body(8, file.sync);
                file.unflushed = false;
                Some(body)
            })?;
            let Some(body) = body else { break Err(Fail::Evicted) };
            if let Err(e) = self.flush().await {
                self.wrote(ino)?;
                break Err(e);
            }
            if body.extents.is_empty() && body.size.is_none() && !name_it {
                break Ok(());
            }
            name_it = false;
            match self.call(Request::Commit { ino, commit: body.clone(), give_back: Vec::new() }).await {
                Ok(_) => {
                    self.with(|w| w.shell(self.n).map(|s| s.files.entry(ino).or_default().map.committed(&body)))?
                }
                Err(e) => break Err(e),
            };
            if !self.with(|w| w.shell(self.n).is_some_and(|s| s.files.entry(ino).or_default().map.is_dirty()))? {
                break Ok(());
            }
        };
        self.with(|w| w.shell(self.n).map(|s| s.files.entry(ino).or_default().committing = false))?;
        done
    }
}

fn data(new: New, old: Block) -> Block {
    [new[0].map_or(old[0], Value::By), new[1].map_or(old[1], Value::By)]
}

fn ids(new: New) -> Vec<WriteId> {
    new.into_iter().flatten().collect()
}

impl World {
    /// A program is about to be told of what no commit has covered.
    pub(super) fn wrote(
        &mut self,
        n: NodeId,
        ino: InodeNo,
        extents: Vec<Extent>,
        (size, grew): (u64, bool),
        unique: Option<u64>,
    ) {
        if self.setup.rules.has(Rule::WriteIsNoted) {
            let appended = unique.map(|unique| (unique, FS_BLOCK as u32));
            self.keeps_notes(n, &[Note::Wrote { ino, extents, size, grew, appended }]);
        }
    }

    fn ctx(&self, n: NodeId) -> Option<Ctx> {
        self.client_is(n).map(|who| Ctx::own(self, n, who))
    }

    /// A withdrawn layout, without guards: what was made under it is committed, then it may go back.
    pub(super) fn settle(&mut self, n: NodeId, layout: LayoutId, ino: InodeNo) {
        let Some(ctx) = self.ctx(n) else { return };
        self.spawn_at(n, async move {
            match ctx.commit(ino, false).await {
                Ok(()) => {}
                Err(Fail::Evicted) => return,
                Err(e) => {
                    // The file may be gone; nothing of it is anybody's then.
                    let _ = ctx.with(|w| {
                        w.coverage.count("client", "commit refused");
                        w.trace(|| format!("{}: commit of {ino} refused: {e:?}", ctx.who));
                        if w.disk.lun.store.inodes.contains_key(&ino) {
                            w.oracle.app_error(ctx.who, &format!("commit of {ino}, which is there: {e:?}"));
                        }
                        w.shell(n).map(|s| s.files.remove(&ino))
                    });
                }
            }
            let _ = ctx.with(|w| w.client(n, Event::Settled { layout }));
        });
    }

    pub(super) fn sync(&mut self, n: NodeId, ino: InodeNo, number: u64) {
        let Some(ctx) = self.ctx(n) else { return };
        if let Some(file) = self.shell(n).map(|s| s.files.entry(ino).or_default()) {
            file.sync = file.sync.max(number);
        }
        self.spawn_at(n, async move {
            // The coordinator asks again if nothing comes.
            let _ = ctx.commit(ino, true).await;
        });
    }

    /// Granted space that is not needed goes back.
    pub(super) fn return_grant(&mut self, n: NodeId) {
        let Some(ctx) = self.ctx(n) else { return };
        let back = self.shell(n).map(|s| std::mem::take(&mut s.grant)).unwrap_or_default();
        let ranges = back.into_iter().map(|b| DiskRange { start: DiskBlock(b), len: BlockCount(1) }).collect();
        self.spawn_at(n, async move {
            let _ = ctx.call(Request::GrantReturn { ranges }).await;
        });
    }
}
