//! Opening, making durable, closing.
//!
//! If the kernel does not take the answer to an OPEN or CREATE (the caller was killed while it waited), no RELEASE
//! will come, and the handle is released here.

use fuse::op::{Create, FileHandle, LockOwner, Tmpfile};
use fuse::{Delivery, OpenFlags, Opened, Reply};

use super::attr::entry;
use super::names::bytes;
use super::{FileSystem, Who, done, odd, sent};
use crate::client::data::OpenFile;
use crate::client::session::{Caller, Errno};
use crate::proto::{OpenRequest, Reply as Answer, Request, SetAttr};
use crate::types::{Attr, HandleId, InodeNo};

const O_EXCL: i32 = rustix::fs::OFlags::EXCL.bits().cast_signed();
const O_TRUNC: i32 = rustix::fs::OFlags::TRUNC.bits().cast_signed();
/// Set-user-id and set-group-id.
const SUID_SGID: u32 = 0o6000;

/// No page cache, and writes to one file side by side.
const FLAGS: OpenFlags = OpenFlags::DIRECT_IO.and(OpenFlags::PARALLEL_DIRECT_WRITES);

impl FileSystem {
    pub(super) async fn open(&self, ino: InodeNo, flags: i32, kill: bool, reply: Reply, caller: &Caller) {
        let handle = self.path.handle_for(reply.unique());
        match self.open_inode(ino, handle, flags, kill, caller).await.map_err(|e| self.of_looked_up(ino, e)) {
            Ok(()) => self.opened(handle, reply.opened(opened(handle))).await,
            Err(Errno(errno)) => sent(reply.error(errno)),
        }
    }

    async fn open_inode(
        &self,
        ino: InodeNo,
        handle: HandleId,
        flags: i32,
        kill: bool,
        caller: &Caller,
    ) -> Result<(), Errno> {
        let open = OpenRequest { handle, flags: flags.cast_unsigned() };
        // The process before has opened it, and was killed before it said so.
        if self.path.file(handle).is_none() {
            let size = match self.path.session.call(caller, Request::Open { ino, open }).await? {
                Answer::Attr(attr) => Some(attr.size),
                _ => None,
            };
            self.path.opened(ino, handle, flags, size);
        }
        if flags & O_TRUNC != 0
            && let Err(errno) = self.truncate(ino, kill, caller).await
        {
            self.close(handle).await;
            return Err(errno);
        }
        Ok(())
    }

    async fn truncate(&self, ino: InodeNo, kill: bool, caller: &Caller) -> Result<Attr, Errno> {
        let set = SetAttr { size: Some(0), kill_suid_sgid: kill, ..SetAttr::default() };
        self.path.set_attr(ino, set, caller).await
    }

    pub(super) async fn create(&self, parent: InodeNo, who: Who, c: Create, reply: Reply, caller: &Caller) {
        let handle = self.path.handle_for(reply.unique());
        match self.create_open(parent, who, c, handle, caller).await {
            Ok(attr) => self.opened(handle, reply.created(&entry(&attr), opened(handle))).await,
            Err(Errno(errno)) => sent(reply.error(errno)),
        }
    }

    async fn create_open(
        &self,
        parent: InodeNo,
        who: Who,
        c: Create,
        handle: HandleId,
        caller: &Caller,
    ) -> Result<Attr, Errno> {
        let open = OpenRequest { handle, flags: c.flags.cast_unsigned() };
        let (cut, kill) = (c.flags & O_TRUNC != 0, c.kill_suidgid);
        let request = Request::Create {
            parent,
            name: bytes(c.name),
            mode: c.mode,
            umask: c.umask,
            rdev: 0,
            uid: who.uid,
            gid: who.gid,
            exclusive: c.flags & O_EXCL != 0,
            open: Some(open),
        };
        let told = self.path.told();
        let attr = match self.path.session.call(caller, request).await? {
            Answer::Created { attr, opened: true } => attr,
            other => return odd(other),
        };
        self.opened_once(attr.ino, handle, c.flags, attr.size);
        let attr = match cut {
            true => self.cut_if_old(attr, kill, told, caller).await,
            false => self.path.exact(attr, told, caller).await,
        };
        if attr.is_err() {
            self.close(handle).await;
        }
        attr
    }

    pub(super) async fn tmpfile(&self, dir: InodeNo, who: Who, t: Tmpfile, reply: Reply, caller: &Caller) {
        let handle = self.path.handle_for(reply.unique());
        let request = Request::Create {
            parent: dir,
            name: Vec::new(),
            mode: t.mode,
            umask: t.umask,
            rdev: 0,
            uid: who.uid,
            gid: who.gid,
            exclusive: t.flags & O_EXCL != 0,
            open: Some(OpenRequest { handle, flags: t.flags.cast_unsigned() }),
        };
        match self.path.session.call(caller, request).await {
            Ok(Answer::Created { attr, opened: true }) => {
                self.opened_once(attr.ino, handle, t.flags, attr.size);
                self.opened(handle, reply.created(&entry(&attr), opened(handle))).await;
            }
            Ok(other) => super::fail(reply, odd(other)),
            Err(Errno(errno)) => sent(reply.error(errno)),
        }
    }

    /// O_TRUNC: a file that was there already is cut, one that is new has nothing to cut.
    async fn cut_if_old(&self, attr: Attr, kill: bool, told: u64, caller: &Caller) -> Result<Attr, Errno> {
        // One that was changed since it was made was there already. One that is new keeps the bits it was made with,
        // though the kernel, which does not know that it is new, asks for them to be cleared.
        let loses_bits = kill && attr.mode & SUID_SGID != 0 && attr.ctime != attr.btime;
        if attr.size > 0 || loses_bits {
            return self.truncate(attr.ino, kill, caller).await;
        }
        self.path.exact(attr, told, caller).await
    }

    /// Unless the process before has opened it, and was killed before it said so.
    fn opened_once(&self, ino: InodeNo, handle: HandleId, flags: i32, size: u64) {
        if self.path.file(handle).is_none() {
            self.path.opened(ino, handle, flags, Some(size));
        }
    }

    async fn opened(&self, handle: HandleId, delivery: Delivery) {
        if delivery != Delivery::Delivered {
            self.close(handle).await;
        }
    }

    async fn close(&self, handle: HandleId) {
        if let Err(Errno(errno)) = self.path.close(handle).await {
            tracing::warn!(?handle, errno, "a file could not be closed in order");
        }
    }

    /// close(2), once per descriptor: what others see of times is up to date afterwards.
    /// Its process' record locks on the file end, after every write that was accepted. A process without one waits for no
    /// write: whoever starts a program closes its duplicates of all that is open, and would hang with a write that does.
    pub(super) async fn flush(&self, fh: FileHandle, owner: LockOwner, reply: Reply, caller: &Caller) {
        let result = match self.open_file(fh) {
            Ok(file) => self.flush_file(&file, owner, caller).await,
            Err(errno) => Err(errno),
        };
        done(reply, result);
    }

    async fn flush_file(&self, file: &OpenFile, owner: LockOwner, caller: &Caller) -> Result<(), Errno> {
        // Its process' locks have ended with the life before; times are told by the next.
        if self.path.session.is_between_lives() {
            return if file.is_poisoned() { Err(Errno(crate::client::session::EIO)) } else { Ok(()) };
        }
        if self.path.session.may_hold_records(file.ino(), owner.0) {
            file.inode.writes.quiet().await;
        }
        let told = self.path.send_times(&file.inode, caller).await;
        self.path.session.drop_records(caller, file.ino(), owner.0).await?;
        told
    }

    pub(super) async fn release(&self, fh: FileHandle, reply: Reply) {
        self.close(HandleId(fh.0)).await;
        sent(reply.empty());
    }

    pub(super) async fn fsync(&self, fh: FileHandle, reply: Reply, caller: &Caller) {
        let result = match self.open_file(fh) {
            Ok(file) if file.is_poisoned() => Err(Errno(crate::client::session::EIO)),
            // It may have been poisoned meanwhile: one fsync of several takes the news that the file has.
            Ok(file) => match self.path.fsync(&file.inode, caller).await {
                Ok(()) if file.is_poisoned() => Err(Errno(crate::client::session::EIO)),
                result => result,
            },
            Err(errno) => Err(errno),
        };
        done(reply, result);
    }
}

fn opened(handle: HandleId) -> Opened {
    Opened { fh: FileHandle(handle.0), flags: FLAGS }
}
