//! Names: each change is one call, durable before its answer.

use fuse::Reply;
use fuse::op::{Mkdir, Mknod, Name, Rename};

use super::attr::Form;
use super::{FileSystem, Who, done, fail, odd, sent};
use crate::client::session::{Caller, Errno};
use crate::proto::{Reply as Answer, Request, rename_flags};
use crate::types::{Attr, InodeNo};

/// `S_IFDIR`.
const S_IFDIR: u32 = 0o040_000;
/// `EINVAL`.
const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();

impl FileSystem {
    /// A call that answers with an inode, and its entry for the kernel.
    async fn entry(&self, request: Request, reply: Reply, caller: &Caller) {
        Form::Entry.show(reply, self.attr_call(request, caller).await);
    }

    async fn attr_call(&self, request: Request, caller: &Caller) -> Result<Attr, Errno> {
        let told = self.path.told();
        match self.path.session.call(caller, request).await? {
            Answer::Attr(attr) | Answer::Created { attr, .. } => self.path.exact(attr, told, caller).await,
            other => odd(other),
        }
    }

    async fn plain(&self, request: Request, reply: Reply, caller: &Caller) {
        done(reply, self.path.session.call(caller, request).await.map(drop));
    }

    pub(super) async fn readlink(&self, ino: InodeNo, reply: Reply, caller: &Caller) {
        let read = self.path.session.call(caller, Request::Readlink { ino }).await;
        match read.map_err(|e| self.of_looked_up(ino, e)) {
            Ok(Answer::Target(target)) => sent(reply.data(&target)),
            Ok(other) => fail(reply, odd(other)),
            Err(Errno(errno)) => sent(reply.error(errno)),
        }
    }

    pub(super) async fn mknod(&self, parent: InodeNo, who: Who, m: Mknod, reply: Reply, caller: &Caller) {
        let request = create(parent, m.name, (m.mode, m.umask), m.rdev, who);
        self.entry(request, reply, caller).await;
    }

    pub(super) async fn mkdir(&self, parent: InodeNo, who: Who, m: Mkdir, reply: Reply, caller: &Caller) {
        let request = create(parent, m.name, ((m.mode & 0o7777) | S_IFDIR, m.umask), 0, who);
        self.entry(request, reply, caller).await;
    }

    pub(super) async fn symlink(
        &self,
        parent: InodeNo,
        who: Who,
        name: Name,
        target: Vec<u8>,
        reply: Reply,
        caller: &Caller,
    ) {
        let request = Request::Symlink { parent, name: bytes(name), target, uid: who.uid, gid: who.gid };
        self.entry(request, reply, caller).await;
    }

    pub(super) async fn link(&self, ino: InodeNo, parent: InodeNo, name: Name, reply: Reply, caller: &Caller) {
        self.entry(Request::Link { ino, parent, name: bytes(name) }, reply, caller).await;
    }

    pub(super) async fn unlink(&self, parent: InodeNo, name: Name, reply: Reply, caller: &Caller) {
        self.plain(Request::Unlink { parent, name: bytes(name) }, reply, caller).await;
    }

    pub(super) async fn rmdir(&self, parent: InodeNo, name: Name, reply: Reply, caller: &Caller) {
        self.plain(Request::Rmdir { parent, name: bytes(name) }, reply, caller).await;
    }

    pub(super) async fn rename(&self, parent: InodeNo, r: Rename, reply: Reply, caller: &Caller) {
        if r.flags & !(rename_flags::NOREPLACE | rename_flags::EXCHANGE) != 0 {
            return sent(reply.error(EINVAL));
        }
        let request = Request::Rename {
            parent,
            name: bytes(r.name),
            new_parent: InodeNo(r.new_parent),
            new_name: bytes(r.new_name),
            flags: r.flags,
        };
        self.plain(request, reply, caller).await;
    }
}

fn create(parent: InodeNo, name: Name, (mode, umask): (u32, u32), rdev: u32, who: Who) -> Request {
    let (name, Who { uid, gid }) = (bytes(name), who);
    Request::Create { parent, name, mode, umask, rdev, uid, gid, exclusive: true, open: None }
}

pub(super) fn bytes(name: Name) -> Vec<u8> {
    name.into_bytes().into_vec()
}
