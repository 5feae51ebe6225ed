//! Names, links, modes and attributes.

use std::collections::BTreeMap;

use super::*;
use crate::meta::tests::model::reference::Node as Row;
use crate::proto::rename_flags::{EXCHANGE, NOREPLACE};
use crate::proto::{OpenRequest, SetAttr, XattrCall, xattr_flags};

impl Stack {
    fn creation(dir: Ino, name: Vec<u8>, mode: u32, open: Option<OpenRequest>) -> Request {
        let exclusive = !name.is_empty();
        let parent = InodeNo(dir);
        Request::Create { parent, name, mode, umask: 0, rdev: 0, uid: 0, gid: 0, exclusive, open }
    }

    pub(super) async fn create(&mut self, step: Step) -> Result<()> {
        let (dir, name, n) = (self.dir(step.a), step.name(), step.node);
        let handle = self.nodes[n].path.new_handle();
        let open = Some(OpenRequest { handle, flags: 2 });
        let got = self.call(n, Stack::creation(dir, name.clone(), 0o100_644, open)).await;
        let Some(reply) = same(self.reference.make(dir, &name), got)? else { return Ok(()) };
        let Reply::Created { attr, opened: true } = reply else { return Err(format!("{reply:?}")) };
        self.made(dir, &name, attr.ino.0, Kind::File { size: 0, blocks: BTreeMap::new() }, 0o644);
        let file = self.nodes[n].path.opened(attr.ino, handle, 2, Some(attr.size));
        self.opened(n, attr.ino.0, file);
        Ok(())
    }

    fn made(&mut self, dir: Ino, name: &[u8], ino: Ino, kind: Kind, mode: u32) {
        self.reference.made(dir, name, ino, kind);
        self.contents.insert(ino, Contents::new(mode));
    }

    /// A file without a name; every second one gets one, if there is none of it yet.
    pub(super) async fn nameless(&mut self, step: Step) -> Result<()> {
        let (dir, n) = (self.dir(step.a), step.node);
        let handle = self.nodes[n].path.new_handle();
        let open = Some(OpenRequest { handle, flags: 2 });
        let got = self.call(n, Stack::creation(dir, Vec::new(), 0o100_600, open)).await;
        let Some(Reply::Created { attr, opened: true }) = same(Ok(()), got)? else { return Err("not made".into()) };
        let ino = attr.ino.0;
        let row = Row { kind: Kind::File { size: 0, blocks: BTreeMap::new() }, nlink: 0 };
        self.reference.nodes.insert(ino, row);
        self.contents.insert(ino, Contents::new(0o600));
        let file = self.nodes[n].path.opened(attr.ino, handle, 2, Some(0));
        self.opened(n, ino, file);
        if step.b.is_multiple_of(2) {
            let name = step.other_name();
            let got = self.call(n, Request::Link { ino: attr.ino, parent: InodeNo(dir), name: name.clone() }).await;
            if same(self.reference.make(dir, &name), got)?.is_some() {
                self.reference.nodes.get_mut(&ino).ok_or("it is there")?.nlink = 1;
                if let Kind::Dir { entries, .. } = &mut self.reference.nodes.get_mut(&dir).ok_or("no folder")?.kind {
                    entries.insert(name, ino);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn mkdir(&mut self, step: Step) -> Result<()> {
        let (dir, name) = (self.dir(step.a), step.name());
        let got = self.call(step.node, Stack::creation(dir, name.clone(), 0o040_755, None)).await;
        if let Some(Reply::Created { attr, .. }) = same(self.reference.make(dir, &name), got)? {
            self.made(dir, &name, attr.ino.0, Kind::Dir { parent: dir, entries: BTreeMap::new() }, 0o755);
        }
        Ok(())
    }

    pub(super) async fn symlink(&mut self, step: Step) -> Result<()> {
        let (dir, name, target) = (self.dir(step.a), step.name(), vec![b't'; 1 + (step.c % 300) as usize]);
        let parent = InodeNo(dir);
        let request = Request::Symlink { parent, name: name.clone(), target: target.clone(), uid: 0, gid: 0 };
        let got = self.call(step.node, request).await;
        if let Some(Reply::Attr(attr)) = same(self.reference.make(dir, &name), got)? {
            self.made(dir, &name, attr.ino.0, Kind::Link { target: target.clone() }, 0o777);
            let got = self.call(1 - step.node, Request::Readlink { ino: attr.ino }).await;
            return equal("readlink", &Ok(Reply::Target(target)), &got);
        }
        Ok(())
    }

    pub(super) async fn link(&mut self, step: Step) -> Result<()> {
        let (dir, name) = (self.dir(step.a), step.name());
        let ino = self.anything(step.c);
        let request = Request::Link { ino: InodeNo(ino), parent: InodeNo(dir), name: name.clone() };
        let got = self.call(step.node, request).await;
        same(self.reference.link(ino, dir, &name), got).map(drop)
    }

    pub(super) async fn unlink(&mut self, step: Step) -> Result<()> {
        let (dir, name) = (self.dir(step.a), step.name());
        let got = self.call(step.node, Request::Unlink { parent: InodeNo(dir), name: name.clone() }).await;
        same(self.reference.unlink(dir, &name), got).map(drop)
    }

    pub(super) async fn rmdir(&mut self, step: Step) -> Result<()> {
        let (dir, name) = (self.dir(step.a), step.name());
        let got = self.call(step.node, Request::Rmdir { parent: InodeNo(dir), name: name.clone() }).await;
        same(self.reference.rmdir(dir, &name), got).map(drop)
    }

    pub(super) async fn rename(&mut self, step: Step) -> Result<()> {
        let flags = [0, 0, 0, NOREPLACE, EXCHANGE][(step.a % 5) as usize];
        let (from, to) = (self.dir(step.a / 5), self.dir(step.c / 7));
        let (name, new_name) = (step.name(), step.other_name());
        let request = Request::Rename {
            parent: InodeNo(from),
            name: name.clone(),
            new_parent: InodeNo(to),
            new_name: new_name.clone(),
            flags,
        };
        let got = self.call(step.node, request).await;
        same(self.reference.rename((from, &name), (to, &new_name), flags), got).map(drop)
    }

    pub(super) async fn lookup(&mut self, step: Step) -> Result<()> {
        let (dir, name) = (self.dir(step.a), step.name());
        let Kind::Dir { entries, .. } = &self.reference.nodes[&dir].kind else { return Err("no folder".into()) };
        let expected = entries.get(&name).copied();
        let got = self.call(step.node, Request::Lookup { parent: InodeNo(dir), name }).await;
        match (expected, got) {
            (Some(ino), Ok(Reply::Attr(attr))) => equal("look-up", &ino, &attr.ino.0),
            (None, Err(Errno(2))) => Ok(()),
            (expected, got) => Err(format!("expected {expected:?}, got {got:?}")),
        }
    }

    pub(super) async fn list(&self, n: usize, dir: Ino) -> Result<()> {
        let Kind::Dir { entries: expected, .. } = &self.reference.nodes[&dir].kind else {
            return Err("no folder".into());
        };
        let (mut found, mut after) = (BTreeMap::new(), 0);
        loop {
            let request = Request::Readdir { dir: InodeNo(dir), after, max_bytes: 500, plus: false };
            let got = self.call(n, request).await;
            let Ok(Reply::Entries { entries, end }) = got else { return Err(format!("{got:?}")) };
            after = entries.last().map_or(after, |e| e.cookie);
            found.extend(entries.into_iter().filter(|e| e.cookie > 2).map(|e| (e.name, e.ino.0)));
            if end {
                return equal("a listing", expected, &found);
            }
        }
    }

    pub(super) async fn chmod(&mut self, step: Step) -> Result<()> {
        let (ino, mode) = (self.anything(step.a), (step.b % 0o1000) as u32);
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        let patient = Caller::patient();
        let node = &self.nodes[step.node];
        let got = node.soon(node.path.set_attr(InodeNo(ino), set, &patient)).await;
        same(Ok(()), got)?;
        self.contents.get_mut(&ino).ok_or("it is there")?.mode = mode;
        Ok(())
    }

    pub(super) async fn change_xattr(&mut self, step: Step) -> Result<()> {
        let ino = self.anything(step.a);
        let name = format!("user.{}", step.b % 4).into_bytes();
        let there = self.contents[&ino].xattrs.contains_key(&name);
        if step.what == What::RemoveXattr {
            let call = XattrCall::Remove { ino: InodeNo(ino), name: name.clone() };
            let expected = if there { Ok(()) } else { Err(rustix::io::Errno::NODATA) };
            same(expected, self.call(step.node, Request::Xattr(call)).await)?;
            self.contents.get_mut(&ino).ok_or("it is there")?.xattrs.remove(&name);
            return Ok(());
        }
        let flags = [0, 0, xattr_flags::CREATE, xattr_flags::REPLACE][(step.c % 4) as usize];
        let value = vec![step.a as u8; (step.c % 300) as usize];
        let expected = match (flags, there) {
            (xattr_flags::CREATE, true) => Err(rustix::io::Errno::EXIST),
            (xattr_flags::REPLACE, false) => Err(rustix::io::Errno::NODATA),
            _ => Ok(()),
        };
        let (ino_no, kill_sgid) = (InodeNo(ino), false);
        let call = XattrCall::Set { ino: ino_no, name: name.clone(), value: value.clone(), flags, kill_sgid };
        if same(expected, self.call(step.node, Request::Xattr(call)).await)?.is_some() {
            self.contents.get_mut(&ino).ok_or("it is there")?.xattrs.insert(name, value);
        }
        Ok(())
    }

    pub(super) async fn xattrs(&self, n: usize, ino: Ino) -> Result<()> {
        let expected = &self.contents[&ino].xattrs;
        let names: Vec<u8> = expected.keys().flat_map(|name| name.iter().copied().chain([0])).collect();
        let got = self.call(n, Request::Xattr(XattrCall::List { ino: InodeNo(ino) })).await;
        equal("names of attributes", &Ok(Reply::Bytes(names)), &got)?;
        for (name, value) in expected {
            let call = XattrCall::Get { ino: InodeNo(ino), name: name.clone() };
            equal("an attribute", &Ok(Reply::Bytes(value.clone())), &self.call(n, Request::Xattr(call)).await)?;
        }
        Ok(())
    }
}
