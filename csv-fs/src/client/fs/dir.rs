//! Listing a directory. Cookies are the coordinator's: stable, never reused, so a listing that goes on after any change
//! shows every name that was there all the time exactly once.
//!
//! Cookie 1 is `.`, 2 is `..`; the kernel's cookie of an entry is the place to go on from, which is the entry's own.

use fuse::op::ReadDir;
use fuse::{DirBuf, FileKind, Reply};

use super::attr::entry;
use super::{FileSystem, odd, sent};
use crate::client::session::{Caller, Errno};
use crate::proto::{DirEntry, Reply as Answer, Request};
use crate::types::InodeNo;

impl FileSystem {
    pub(super) async fn readdir(&self, dir: InodeNo, read: ReadDir, plus: bool, reply: Reply, caller: &Caller) {
        match self.list(dir, &read, plus, caller).await {
            Ok(buf) => sent(reply.directory(&buf)),
            Err(Errno(errno)) => sent(reply.error(errno)),
        }
    }

    async fn list(&self, dir: InodeNo, read: &ReadDir, plus: bool, caller: &Caller) -> Result<DirBuf, Errno> {
        let request = Request::Readdir { dir, after: read.cookie, max_bytes: read.size, plus };
        let told = self.path.told();
        let entries = match self.path.session.call(caller, request).await? {
            Answer::Entries { entries, .. } => entries,
            other => return odd(other),
        };
        let mut buf = DirBuf::new(read.size);
        for e in &entries {
            if !self.push(&mut buf, e, plus, told) {
                break;
            }
        }
        Ok(buf)
    }

    fn push(&self, buf: &mut DirBuf, e: &DirEntry, plus: bool, told: u64) -> bool {
        let kind = FileKind::from_mode(e.kind).unwrap_or(FileKind::Regular);
        // "." and ".." carry no look-up, nor does what this node knows better by now: the kernel asks for it by name.
        let attr = e.attr.filter(|_| plus && e.cookie > 2).and_then(|a| self.path.exact_now(a, told));
        match attr {
            Some(attr) => buf.push_plus(&entry(&attr), e.cookie, &e.name),
            _ if plus => buf.push_plus_bare(e.ino.0, e.cookie, kind, &e.name),
            _ => buf.push(e.ino.0, e.cookie, kind, &e.name),
        }
    }
}
