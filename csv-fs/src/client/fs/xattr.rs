//! Extended attributes. The kernel checks who may; of `trusted.` names it leaves it to us to tell nobody else.

use fuse::Reply;
use fuse::op::{Name, Setxattr};

use super::names::bytes;
use super::{FileSystem, Who, done, odd};
use crate::client::session::{Caller, Errno};
use crate::proto::{Reply as Answer, Request, XattrCall};
use crate::types::InodeNo;

/// `ERANGE`.
const ERANGE: i32 = rustix::io::Errno::RANGE.raw_os_error();

impl FileSystem {
    pub(super) async fn setxattr(&self, ino: InodeNo, set: Setxattr, reply: Reply, caller: &Caller) {
        let Setxattr { name, value, flags, kill_sgid } = set;
        let call = XattrCall::Set { ino, name: bytes(name), value, flags, kill_sgid };
        done(reply, self.xattr(call, caller).await.map(drop));
    }

    pub(super) async fn removexattr(&self, ino: InodeNo, name: Name, reply: Reply, caller: &Caller) {
        done(reply, self.xattr(XattrCall::Remove { ino, name: bytes(name) }, caller).await.map(drop));
    }

    pub(super) async fn listxattr(&self, ino: InodeNo, who: Who, size: u32, reply: Reply, caller: &Caller) {
        let names = self.xattr(XattrCall::List { ino }, caller).await;
        tell(reply, names.map(|names| if who.uid == 0 { names } else { for_everybody(&names) }), size);
    }

    async fn xattr(&self, call: XattrCall, caller: &Caller) -> Result<Vec<u8>, Errno> {
        let ino = call.ino();
        let answer = self.path.session.call(caller, Request::Xattr(call)).await;
        match answer.map_err(|e| self.of_looked_up(ino, e))? {
            Answer::Bytes(bytes) => Ok(bytes),
            Answer::Done => Ok(Vec::new()),
            other => odd(other),
        }
    }
}

/// The bytes, or with `size` 0 how many there are; ERANGE if they do not fit.
pub(super) fn tell(reply: Reply, bytes: Result<Vec<u8>, Errno>, size: u32) {
    super::sent(match bytes {
        // 64 KiB and less, as the store sees to.
        Ok(bytes) if size == 0 => reply.xattr_size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Ok(bytes) if bytes.len() > size as usize => reply.error(ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(Errno(errno)) => reply.error(errno),
    });
}

/// Names without those of the `trusted.` kind.
fn for_everybody(names: &[u8]) -> Vec<u8> {
    names.split_inclusive(|b| *b == 0).filter(|name| !name.starts_with(b"trusted.")).flatten().copied().collect()
}
