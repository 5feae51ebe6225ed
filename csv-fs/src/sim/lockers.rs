//! Programs that lock files: records of a process, records of an open file, `flock`; what they ask for, and what they tell the
//! oracle. A program opens a file, takes, waits for and drops locks for a while, and ends: by an unlock and a close, or killed,
//! when only its FLUSH (records of a process) and its RELEASE come.

use block::shared::NodeId;
use rustix::io::Errno;

use super::app::file;
use super::exec::oneshot;
use super::files::{Ctx, Fail};
use super::oracle::Wanted;
use super::world::{MS, World};
use crate::core::client::{CallFailure, Event, LockOp};
use crate::core::locks::Owner;
use crate::proto::{ByteRange, LockMode, LockSpace, OwnLock};
use crate::types::*;

/// Bytes of a file that programs lock: few, so that they meet.
const SPAN: u64 = 4;
/// Files that they lock.
const FILES: u64 = 2;

/// A program with a file open.
struct Program<'a> {
    ctx: &'a Ctx,
    ino: InodeNo,
    handle: HandleId,
    space: LockSpace,
    /// A process: its FLUSH ends its records.
    process: bool,
}

impl Ctx {
    /// A program, from its first open to its end.
    pub(super) async fn locks(&self) -> Result<(), Fail> {
        let (n, kind) = self.with(|w| (w.rng.below(FILES), w.rng.below(3)))?;
        let space = if kind == 0 { LockSpace::Whole } else { LockSpace::Record };
        let program = self.opens(file(n), space, kind == 1).await?;
        for _ in 0..self.with(|w| w.rng.range(1, 5))? {
            if self.with(|w| w.closing)? {
                break;
            }
            program.does_something().await?;
            let pause = self.with(|w| w.rng.below(150 * MS))?;
            self.naps(pause).await?;
        }
        program.ends().await
    }

    /// Takes a whole file for itself and never lets it go; waits for it if need be.
    pub(super) async fn holds_all_of(&self, ino: InodeNo) -> Result<(), Fail> {
        let program = self.opens(ino, LockSpace::Record, true).await?;
        program.take(ByteRange::ALL, LockMode::Write, true, None).await
    }

    /// Takes a whole file for itself if it can be had at once, and never lets it go.
    pub(super) async fn tries_all_of(&self, ino: InodeNo) -> Result<(), Fail> {
        let program = self.opens(ino, LockSpace::Record, true).await?;
        program.take(ByteRange::ALL, LockMode::Write, false, None).await
    }

    async fn opens(&self, ino: InodeNo, space: LockSpace, process: bool) -> Result<Program<'_>, Fail> {
        let handle = self.served(async |c| c.opens_file(ino, 2).await).await?;
        Ok(Program { ctx: self, ino, handle, space, process })
    }
}

impl Program<'_> {
    /// The kernel's number of whoever holds the locks: nobody else has it.
    fn owner(&self) -> u64 {
        self.handle.0
    }

    async fn does_something(&self) -> Result<(), Fail> {
        let (what, mode, patience, range) = self.ctx.with(|w| {
            let start = w.rng.below(SPAN);
            let range = ByteRange { start, end: start + 1 + w.rng.below(SPAN - start) };
            let mode = if w.rng.permille(500) { LockMode::Read } else { LockMode::Write };
            let patience = w.rng.permille(250).then(|| w.rng.below(400 * MS));
            (w.rng.below(10), mode, patience, range)
        })?;
        let range = if self.space == LockSpace::Whole { ByteRange::ALL } else { range };
        match what {
            0..2 => self.drop(range).await,
            2..6 => self.take(range, mode, false, None).await,
            _ => self.take(range, mode, true, patience).await,
        }
    }

    /// Asks for a lock; one that is waited for may be given up after a while.
    async fn take(&self, range: ByteRange, mode: LockMode, wait: bool, patience: Option<u64>) -> Result<(), Fail> {
        let (n, who) = (self.ctx.n, self.ctx.who);
        let Program { ino, space, handle, .. } = *self;
        let lock = OwnLock { owner: self.owner(), handle, pid: 1, range, mode };
        let wanted = Wanted { client: who, ino, space, lock };
        let had = self.ctx.with(|w| w.oracle.lock_wanted(&wanted, SPAN, w.now))?;
        // Whose daemon makes room for the next meanwhile, his request is sent again to that one.
        let result = loop {
            let inside = self.ctx.enters().await?;
            let (sender, answered) = oneshot();
            self.ctx.with(|w| {
                let ticket = w.lock(n, LockOp::Take { ino, space, lock, wait }, sender);
                if let (Some(ticket), Some(patience)) = (ticket, patience) {
                    w.at_node(n, patience, move |w| w.client(n, Event::Cancel { ticket }));
                }
            })?;
            let answered = answered.await;
            drop(inside);
            match answered {
                Some((result, _)) => break result,
                None => self.ctx.with(|_| ())?,
            }
        };
        self.ctx.with(|w| {
            let how = match result {
                Ok(_) if wait => "given, perhaps after a wait",
                Ok(_) => "given",
                Err(CallFailure::Interrupted) => "interrupted",
                Err(CallFailure::Expired) => "expired",
                Err(CallFailure::Errno(e)) if e == Errno::AGAIN.raw_os_error() => "refused",
                Err(CallFailure::Errno(e)) if e == Errno::DEADLK.raw_os_error() => "deadlock",
                Err(CallFailure::Errno(e)) => return Err(Fail::Errno(e)),
                Err(CallFailure::Evicted) => return Err(Fail::Evicted),
            };
            w.coverage.count("lock", how);
            match result {
                Ok(_) => w.oracle.lock_given(&wanted, SPAN, w.now),
                Err(_) => w.oracle.lock_not_given(&wanted, had, how == "refused", w.now),
            }
            Ok(())
        })?
    }

    async fn drop(&self, range: ByteRange) -> Result<(), Fail> {
        let Program { ino, space, .. } = *self;
        let owner = self.owner();
        self.ctx.with(|w| {
            w.coverage.count("lock", "dropped");
            w.oracle.lock_dropped(self.ctx.who, owner, range);
        })?;
        let drops = async |c: Ctx| {
            let (sender, answered) = oneshot();
            c.with(|w| w.lock(c.n, LockOp::Drop { ino, space, owner, range }, sender))?;
            c.wait(answered).await
        };
        match self.ctx.served(drops).await? {
            (Ok(_), _) => self.has_let_go(range),
            (Err(CallFailure::Errno(e)), _) => Err(Fail::Errno(e)),
            (Err(_), _) => Err(Fail::Evicted),
        }
    }

    /// Unlocks and closes; or is killed.
    async fn ends(&self) -> Result<(), Fail> {
        let killed = self.ctx.with(|w| w.rng.permille(500))?;
        if !killed || self.process {
            self.drop(ByteRange::ALL).await?;
        }
        self.ctx.with(|w| {
            w.coverage.count("lock", if killed { "left to RELEASE" } else { "dropped before RELEASE" });
            w.oracle.lock_dropped(self.ctx.who, self.owner(), ByteRange::ALL);
        })?;
        self.ctx.served(async |c| c.releases(self.ino, self.handle).await).await?;
        self.has_let_go(ByteRange::ALL)
    }

    fn has_let_go(&self, range: ByteRange) -> Result<(), Fail> {
        let owner = Owner { client: self.ctx.who, id: self.owner() };
        self.ctx.with(|w| w.oracle.lock_let_go((self.ino, self.space), owner, range, w.now))
    }
}

impl World {
    /// Locks that the coordinator on a node has given.
    pub(super) fn locks_given(&self, n: NodeId) -> usize {
        let proc = self.nodes.get(&n).and_then(|node| node.proc.as_ref());
        proc.and_then(|p| p.reign.as_ref()).map_or(0, |reign| reign.core.locks().0)
    }

    /// Locks held and waited for, as each core says that is in use.
    pub(super) fn locks_left(&self) -> Vec<(NodeId, &'static str, (usize, usize))> {
        let mut left = Vec::new();
        for (n, node) in &self.nodes {
            let Some(proc) = &node.proc else { continue };
            if self.in_office(*n)
                && let Some(reign) = &proc.reign
            {
                left.push((*n, "coordinator", reign.core.locks()));
            }
            if let Some(client) = &proc.client {
                left.push((*n, "client", client.core.locks()));
            }
        }
        left.retain(|(_, _, count)| *count != (0, 0));
        left
    }
}
