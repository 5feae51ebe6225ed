//! The kernel's requests, mapped to the session and the data path.
//!
//! READ and WRITE go to the data path from the thread that read them, look-ups and attributes to the session (`look`);
//! everything else is a task on that worker, since it waits for the coordinator. Names and attributes are never cached (all timeouts are 0) and every file is opened
//! for direct I/O, so what one node has been told is what the next one sees.
//!
//! What it refuses: what is not there yet (EOPNOTSUPP, never ENOSYS, which the kernel would remember).
//!
//! The kernel's node id is the inode's number; the root is 1. A FORGET needs no answer and changes nothing, because
//! node ids are stable.

mod attr;
mod dir;
mod gone;
mod ioctl;
mod locks;
mod look;
mod names;
mod open;
mod ranges;
#[cfg(test)]
mod tests;
mod xattr;

use std::cell::RefCell;
use std::sync::Arc;

use fuse::op::{FileHandle, Operation, Read, Write};
use fuse::{Reply, Request};

use self::attr::Form;
use self::gone::Folders;
use super::data::{DataPath, OpenFile, ReadTo, WriteTo};
use super::session::{Caller, EIO, Errno};
use crate::types::{HandleId, InodeNo};

/// Open files that a channel finds without asking the table that all share. More are looked up there.
const NEAR: usize = 64;

/// One mount of one volume.
pub struct FileSystem {
    path: Arc<DataPath>,
    folders: Folders,
}

/// The handler of one channel: lives on one worker.
pub struct ChannelHandler {
    fs: Arc<FileSystem>,
    near: RefCell<[Option<Arc<OpenFile>>; NEAR]>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Who {
    uid: u32,
    gid: u32,
}

impl FileSystem {
    /// A file system over this data path.
    pub fn new(path: Arc<DataPath>) -> Arc<FileSystem> {
        Arc::new(FileSystem { path, folders: Folders::default() })
    }

    /// The data path below.
    pub fn data(&self) -> &Arc<DataPath> {
        &self.path
    }

    /// A handler for one channel; call it on the worker that serves the channel:
    /// `channel.serve(move |request| handler.handle(request))`.
    pub fn handler(self: &Arc<Self>) -> ChannelHandler {
        ChannelHandler { fs: Arc::clone(self), near: RefCell::new([const { None }; NEAR]) }
    }
}

impl ChannelHandler {
    /// Takes one request of the kernel.
    pub fn handle(&self, request: Request) {
        let Request { unique, resent, nodeid, uid, gid, op, reply, .. } = request;
        let (fs, ino, who) = (&self.fs, InodeNo(nodeid), Who { uid, gid });
        // What was in flight under one incarnation is not done by the next.
        if resent && fs.path.is_another_life() {
            return sent(reply.error(EIO));
        }
        match op {
            Operation::Read(read) => self.read(read, reply),
            Operation::Write(write) => self.write(write, reply),
            Operation::Lookup { name } => fs.look_up(ino, name, reply),
            Operation::Getattr { .. } => fs.attributes(ino, reply, Form::Attr),
            Operation::Statx(_) => fs.attributes(ino, reply, Form::Statx),
            Operation::Getxattr { name, size } => fs.value(ino, name, size, reply),
            Operation::Interrupt { unique } => {
                // One that nobody watches yet is remembered.
                let _ = fs.path.interrupts.interrupt(unique);
            }
            Operation::Forget { .. } | Operation::BatchForget { .. } => {}
            Operation::Opendir { .. }
            | Operation::Releasedir(_)
            | Operation::Fsyncdir { .. }
            | Operation::Access { .. } => {
                without_asking(&op, reply);
            }
            Operation::Destroy => sent(reply.empty()),
            Operation::Unknown { .. } => sent(reply.unsupported()),
            op => {
                let waits = Arc::clone(fs);
                let since = fs.path.session.sweep_now();
                fs.path.run(
                    Some(unique),
                    since,
                    |caller| async move { waits.waiting(ino, who, op, reply, &caller).await },
                );
            }
        }
    }

    fn read(&self, read: Read, reply: Reply) {
        match self.file(read.fh) {
            Some(file) => self.fs.path.submit_read(&file, read.offset.0, read.size, ReadTo::Fuse(reply)),
            None => sent(reply.error(self.fs.unknown(read.fh).0)),
        }
    }

    fn write(&self, write: Write, reply: Reply) {
        let Some(file) = self.file(write.fh) else { return sent(reply.error(self.fs.unknown(write.fh).0)) };
        let kill = write.write_flags.kill_suidgid;
        self.fs.path.submit_write(&file, write.offset.0, write.data, kill, WriteTo::fuse(reply));
    }

    fn file(&self, fh: FileHandle) -> Option<Arc<OpenFile>> {
        let at = fh.0 as usize % NEAR;
        let mut near = self.near.borrow_mut();
        // Handles are never reused, so what is here under this number is this handle.
        if let Some(file) = near[at].as_ref().filter(|f| f.handle.0 == fh.0) {
            return Some(Arc::clone(file));
        }
        let file = self.fs.path.file(HandleId(fh.0))?;
        near[at] = Some(Arc::clone(&file));
        Some(file)
    }
}

impl FileSystem {
    /// Everything that waits for the coordinator.
    async fn waiting(&self, ino: InodeNo, who: Who, op: Operation, reply: Reply, caller: &Caller) {
        if let Err(Errno(errno)) = self.begins(&op, caller).await {
            return sent(reply.error(errno));
        }
        match op {
            Operation::Setattr(set) => self.setattr(ino, set, reply, caller).await,
            Operation::Readlink => self.readlink(ino, reply, caller).await,
            Operation::Mknod(mknod) => self.mknod(ino, who, mknod, reply, caller).await,
            Operation::Mkdir(mkdir) => self.mkdir(ino, who, mkdir, reply, caller).await,
            Operation::Unlink { name } => self.unlink(ino, name, reply, caller).await,
            Operation::Rmdir { name } => self.rmdir(ino, name, reply, caller).await,
            Operation::Symlink { name, target } => self.symlink(ino, who, name, target, reply, caller).await,
            Operation::Rename(rename) => self.rename(ino, rename, reply, caller).await,
            Operation::Link { inode, name } => self.link(InodeNo(inode), ino, name, reply, caller).await,
            Operation::Open { flags, kill_suidgid } => self.open(ino, flags, kill_suidgid, reply, caller).await,
            Operation::Create(create) => self.create(ino, who, create, reply, caller).await,
            Operation::Flush { fh, lock_owner } => self.flush(fh, lock_owner, reply, caller).await,
            Operation::Getlk(ask) => self.test_lock(ask, reply, caller).await,
            Operation::Setlk(ask) => self.set_lock(ask, false, reply, caller).await,
            Operation::Setlkw(ask) => self.set_lock(ask, true, reply, caller).await,
            Operation::Release(release) => self.release(release.fh, reply).await,
            Operation::Fsync { fh, .. } => self.fsync(fh, reply, caller).await,
            Operation::Fallocate(fallocate) => self.fallocate(who, fallocate, reply, caller).await,
            Operation::Lseek(seek) => self.lseek(seek, reply, caller).await,
            Operation::Readdir(read) => self.readdir(ino, read, false, reply, caller).await,
            Operation::Readdirplus(read) => self.readdir(ino, read, true, reply, caller).await,
            Operation::Statfs => self.statfs(reply, caller).await,
            Operation::Setxattr(set) => self.setxattr(ino, set, reply, caller).await,
            Operation::Listxattr { size } => self.listxattr(ino, who, size, reply, caller).await,
            Operation::Removexattr { name } => self.removexattr(ino, name, reply, caller).await,
            Operation::Tmpfile(tmpfile) => self.tmpfile(ino, who, tmpfile, reply, caller).await,
            Operation::CopyFileRange(copy) => self.copy(who, copy, reply, caller).await,
            Operation::Ioctl(ioctl) => self.ioctl(ino, ioctl, reply, caller).await,
            Operation::Syncfs => done(reply, self.path.sync_all(caller).await),
            _ => sent(reply.unsupported()),
        }
    }

    /// What comes between two lives of this node waits for the next, but for what is told at once: that its handle fails, and that it is
    /// closed.
    ///
    /// Prevents: the disk is gone, and with it the next life; a program is killed, the kernel closes its files, for which no signal
    /// interrupts it any more, and it is there for ever.
    async fn begins(&self, op: &Operation, caller: &Caller) -> Result<(), Errno> {
        if !self.path.session.is_between_lives() {
            return Ok(());
        }
        let poisoned = |fh: FileHandle| self.path.file(HandleId(fh.0)).is_some_and(|file| file.is_poisoned());
        let fails = match op {
            Operation::Release(_) | Operation::Flush { .. } => return Ok(()),
            Operation::Fsync { fh, .. } => poisoned(*fh),
            Operation::Fallocate(fallocate) => poisoned(fallocate.fh),
            Operation::Setlk(ask) | Operation::Setlkw(ask) => poisoned(ask.fh),
            Operation::Setattr(set) => set.fh.is_some_and(poisoned),
            Operation::CopyFileRange(copy) => poisoned(copy.fh_in) || poisoned(copy.fh_out),
            _ => false,
        };
        if fails {
            return Err(Errno(EIO));
        }
        self.path.session.next_life(caller).await
    }

    fn open_file(&self, fh: FileHandle) -> Result<Arc<OpenFile>, Errno> {
        self.path.file(HandleId(fh.0)).ok_or_else(|| self.unknown(fh))
    }

    /// What a handle gets that is not open: one that the process before has given out failed with that.
    fn unknown(&self, fh: FileHandle) -> Errno {
        if self.path.is_of_an_earlier_life(HandleId(fh.0)) { Errno(EIO) } else { Errno(EBADF) }
    }
}

/// Needs nobody: directories have no state of their own (cookies are stable), their changes are durable before the
/// answer, and the kernel checks permissions.
fn without_asking(op: &Operation, reply: Reply) {
    match op {
        Operation::Opendir { .. } => {
            sent(reply.opened(fuse::Opened { fh: FileHandle(0), flags: fuse::OpenFlags::NONE }));
        }
        _ => sent(reply.empty()),
    }
}

/// Answers `empty`, or the error.
fn done(reply: Reply, result: Result<(), Errno>) {
    match result {
        Ok(()) => sent(reply.empty()),
        Err(Errno(errno)) => sent(reply.error(errno)),
    }
}

/// Whether anybody still waited for it makes no difference to most answers.
fn sent(_: fuse::Delivery) {}

/// Answers the error that there is.
fn fail(reply: Reply, result: Result<std::convert::Infallible, Errno>) {
    let Err(Errno(errno)) = result;
    sent(reply.error(errno));
}

/// A reply of another kind than was asked for: a defect of the coordinator.
fn odd<T>(reply: crate::proto::Reply) -> Result<T, Errno> {
    tracing::error!(?reply, "the coordinator's reply does not fit its request");
    Err(Errno(EIO))
}

/// `EBADF`.
const EBADF: i32 = rustix::io::Errno::BADF.raw_os_error();

impl std::fmt::Debug for FileSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.fmt(f)
    }
}

impl std::fmt::Debug for ChannelHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fs.fmt(f)
    }
}
