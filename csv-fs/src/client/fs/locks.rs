//! `fcntl` records and `flock`: asked of the coordinator, by way of the session, which knows what to do when it dies.
//!
//! The kernel does not say which records are of an open file (`F_OFD_SETLK`) and which of a process: their owners differ,
//! and that is enough. What it does not send when a program is killed with the first kind is an unlock; RELEASE ends what
//! was taken through a handle.

use fuse::Reply;
use fuse::op::{Lock, LockKind, LockRequest as Asked};

use super::{FileSystem, done, odd, sent};
use crate::client::data::OpenFile;
use crate::client::session::{Caller, EIO, Errno};
use crate::core::client::LockOp;
use crate::proto::{
    ByteRange, LockHolder, LockMode, LockReply, LockRequest, LockSpace, OwnLock, Reply as Answer, Request,
};

/// `EINVAL`.
const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();

impl FileSystem {
    /// SETLK and SETLKW.
    pub(super) async fn set_lock(&self, ask: Asked, wait: bool, reply: Reply, caller: &Caller) {
        let result = match self.open_file(ask.fh) {
            Ok(file) => self.lock_or_unlock(&file, &ask, wait, caller).await,
            Err(errno) => Err(errno),
        };
        done(reply, result);
    }

    async fn lock_or_unlock(&self, file: &OpenFile, ask: &Asked, wait: bool, caller: &Caller) -> Result<(), Errno> {
        let (ino, space, owner, range) = (file.ino(), space(ask), ask.owner.0, range(ask)?);
        let session = &self.path.session;
        match mode(ask.lock.kind) {
            Some(_) if file.is_poisoned() => Err(Errno(EIO)),
            Some(mode) => {
                let lock = OwnLock { owner, handle: file.handle, pid: ask.lock.pid, range, mode };
                session.lock(caller, LockOp::Take { ino, space, lock, wait }).await
            }
            None => {
                file.inode.writes.quiet().await;
                session.lock(caller, LockOp::Drop { ino, space, owner, range }).await?;
                // Prevents: a node is evicted, its lock given to others, who write; its program gives the lock back, is told
                // that all is well, and believes that it was alone.
                if file.is_poisoned() { Err(Errno(EIO)) } else { Ok(()) }
            }
        }
    }

    /// GETLK.
    pub(super) async fn test_lock(&self, ask: Asked, reply: Reply, caller: &Caller) {
        match self.in_the_way(&ask, caller).await {
            Ok(other) => sent(reply.lock(&shown(other, self.path.session.client().node))),
            Err(Errno(errno)) => sent(reply.error(errno)),
        }
    }

    async fn in_the_way(&self, ask: &Asked, caller: &Caller) -> Result<Option<LockHolder>, Errno> {
        let file = self.open_file(ask.fh)?;
        let mode = mode(ask.lock.kind).ok_or(Errno(EINVAL))?;
        let lock = OwnLock { owner: ask.owner.0, handle: file.handle, pid: ask.lock.pid, range: range(ask)?, mode };
        let test = LockRequest::Test { ino: file.ino(), space: space(ask), lock };
        match self.path.session.call(caller, Request::Locks(test)).await? {
            Answer::Locks(LockReply::InTheWay(other)) => Ok(other),
            reply => odd(reply),
        }
    }
}

fn space(ask: &Asked) -> LockSpace {
    if ask.flock { LockSpace::Whole } else { LockSpace::Record }
}

fn range(ask: &Asked) -> Result<ByteRange, Errno> {
    match ask.flock {
        true => Ok(ByteRange::ALL),
        false => ByteRange::inclusive(ask.lock.start, ask.lock.end).ok_or(Errno(EINVAL)),
    }
}

fn mode(kind: LockKind) -> Option<LockMode> {
    match kind {
        LockKind::Read => Some(LockMode::Read),
        LockKind::Write => Some(LockMode::Write),
        LockKind::Unlock => None,
    }
}

/// What the kernel is told. A process of another node has no number here: 0, as for one in another pid namespace.
fn shown(other: Option<LockHolder>, here: block::shared::NodeId) -> Lock {
    let Some(LockHolder { node, pid, range, mode }) = other else {
        return Lock { kind: LockKind::Unlock, start: 0, end: 0, pid: 0 };
    };
    let kind = match mode {
        LockMode::Read => LockKind::Read,
        LockMode::Write => LockKind::Write,
    };
    Lock { kind, start: range.start, end: range.last(), pid: if node == here { pid } else { 0 } }
}
