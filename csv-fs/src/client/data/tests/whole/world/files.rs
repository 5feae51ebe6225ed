//! Data, lengths, and what is seen of files.

use super::*;
use crate::client::data::Seek;
use crate::proto::{OpenRequest, SetAttr};

/// So much is read at once.
const PART: u32 = 1 << 20;
/// A file of more extents than this is scattered: several times as many as a mapping may have that is copied at every change.
const SCATTERED: usize = 200;

impl Stack {
    pub(super) async fn open(&mut self, step: Step) -> Result<()> {
        let Some(ino) = self.file(step.a) else { return Ok(()) };
        let file = self.open_with(step.node, ino, 2).await?;
        self.opened(step.node, ino, file);
        Ok(())
    }

    async fn open_with(&self, n: usize, ino: Ino, flags: i32) -> Result<Arc<OpenFile>> {
        let handle = self.nodes[n].path.new_handle();
        let open = OpenRequest { handle, flags: flags.cast_unsigned() };
        same(Ok(()), self.call(n, Request::Open { ino: InodeNo(ino), open }).await)?;
        Ok(self.nodes[n].path.opened(InodeNo(ino), handle, flags, None))
    }

    async fn shut(&self, n: usize, file: &Arc<OpenFile>) -> Result<()> {
        let node = &self.nodes[n];
        node.soon(node.path.close(file.handle)).await.map_err(|e| format!("close: {e:?}"))
    }

    fn contents(&mut self, ino: Ino) -> Result<&mut Contents> {
        self.contents.get_mut(&ino).ok_or_else(|| format!("no contents of {ino}"))
    }

    pub(super) async fn write(&mut self, step: Step) -> Result<()> {
        let (n, bytes) = (step.node, step.bytes());
        if step.what == What::Append {
            let Some(ino) = self.file(step.a) else { return Ok(()) };
            let file = self.open_with(n, ino, 2 | rustix::fs::OFlags::APPEND.bits().cast_signed()).await?;
            equal("appended", &Ok(bytes.len() as u32), &self.nodes[n].try_write(&file, 0, &bytes).await)?;
            self.contents(ino)?.change(n, |data| data.extend(&bytes));
            return self.shut(n, &file).await;
        }
        let Some(at) = self.handle(step) else { return Ok(()) };
        let Handle { ino, ref file, .. } = self.handles[at];
        let offset = step.offset(self.length(ino));
        let got = self.nodes[n].try_write(file, offset, &bytes).await;
        equal("written", &Ok(bytes.len() as u32), &got)?;
        self.contents(ino)?.write(n, offset, &bytes);
        Ok(())
    }

    fn length(&self, ino: Ino) -> u64 {
        self.contents.get(&ino).map_or(0, |c| c.data.len() as u64)
    }

    /// Extents of a file that a node knows.
    fn extents(&self, n: usize, ino: Ino) -> usize {
        self.nodes[n].path.known(InodeNo(ino)).map_or(0, |inode| inode.state.lock().map.extents())
    }

    /// Many pieces, some of which are read at once, with what is behind them. Whoever has the file open elsewhere sees all.
    pub(super) async fn scatter(&mut self, step: Step) -> Result<()> {
        let Some(at) = self.handle(step) else { return Ok(()) };
        let (n, ino, file) = (step.node, self.handles[at].ino, Arc::clone(&self.handles[at].file));
        for (i, (offset, len)) in (0..).zip(step.pieces()) {
            let bytes = step.bytes_of(i, len);
            equal("written", &Ok(len as u32), &self.nodes[n].try_write(&file, offset, &bytes).await)?;
            self.contents(ino)?.write(n, offset, &bytes);
            if i % 8 == step.a % 8 {
                let got = self.nodes[n].read(&file, offset, 8192).await;
                equal_bytes("a piece", self.contents[&ino].read(offset, 8192), &got)?;
            }
        }
        self.seen.scattered += u64::from(self.extents(n, ino) > SCATTERED);
        if step.b.is_multiple_of(4) {
            let found = self.whole(1 - n, ino).await?;
            equal_bytes("the pieces elsewhere", &self.contents[&ino].data, &found)?;
        }
        Ok(())
    }

    pub(super) async fn read(&mut self, step: Step) -> Result<()> {
        let Some(at) = self.handle(step) else { return Ok(()) };
        let Handle { ino, file, .. } = &self.handles[at];
        let (node, offset) = (&self.nodes[step.node], step.offset(self.length(*ino)));
        let got = node.soon(node.path.read(file, offset, step.len() as u32)).await;
        let got = got.map_err(|e| format!("read: {e:?}"))?;
        equal_bytes("a read", self.contents[ino].read(offset, step.len()), &got)?;
        self.seen.reads_of_scattered += u64::from(self.extents(step.node, *ino) > SCATTERED);
        Ok(())
    }

    /// Cuts, allocates, makes holes.
    pub(super) async fn reshape(&mut self, step: Step) -> Result<()> {
        let Some(ino) = self.file(step.a) else { return Ok(()) };
        let (n, at, len) = (step.node, step.offset(self.length(ino)), step.len());
        let (node, patient, number) = (&self.nodes[n], Caller::patient(), InodeNo(ino));
        let keep = step.a.is_multiple_of(3);
        let got = match step.what {
            What::Truncate => {
                let set = SetAttr { size: Some(at), ..SetAttr::default() };
                node.soon(node.path.set_attr(number, set, &patient)).await.map(drop)
            }
            What::Allocate => node.soon(node.path.fallocate(number, at, len, keep, &patient)).await,
            What::Punch => node.soon(node.path.punch(number, at, len, &patient)).await,
            _ => node.soon(node.path.zero_range(number, at, len, keep, &patient)).await,
        };
        same(Ok(()), got)?;
        self.contents(ino)?.change(n, |data| {
            let (from, end) = (data.len().min(at as usize), data.len().min((at + len) as usize));
            match step.what {
                What::Truncate => data.resize(at as usize, 0),
                What::Allocate => {}
                _ => data[from..end].fill(0),
            }
            if matches!(step.what, What::Allocate | What::Zero) && !keep {
                data.resize(data.len().max((at + len) as usize), 0);
            }
        });
        Ok(())
    }

    pub(super) async fn copy(&mut self, step: Step) -> Result<()> {
        let (Some(from), Some(to)) = (self.handle(step), self.handle(Step { a: step.c, ..step })) else {
            return Ok(());
        };
        let (from, to) = (&self.handles[from], &self.handles[to]);
        if from.ino == to.ino {
            return Ok(());
        }
        let (node, patient, at) = (&self.nodes[step.node], Caller::patient(), step.offset(self.length(from.ino)));
        let bytes = self.contents[&from.ino].read(at, step.len()).to_vec();
        let copy = node.path.copy((&from.file, at), (&to.file, at / 2), step.len(), false, &patient);
        equal("copied", &Ok(bytes.len() as u64), &node.soon(copy).await)?;
        let ino = to.ino;
        if !bytes.is_empty() {
            self.contents(ino)?.write(step.node, at / 2, &bytes);
        }
        Ok(())
    }

    /// Data is where there is any, and a hole is all zeroes.
    pub(super) async fn seek(&mut self, step: Step) -> Result<()> {
        let Some(handle) = self.handle(step) else { return Ok(()) };
        let Handle { ino, file, .. } = &self.handles[handle];
        let (node, data) = (&self.nodes[step.node], &self.contents[ino].data);
        let at = step.offset(data.len() as u64);
        let patient = Caller::patient();
        let found = node.soon(node.path.seek(&file.inode, at, Seek::Data, &patient)).await;
        let hole = node.soon(node.path.seek(&file.inode, at, Seek::Hole, &patient)).await;
        let end = data.len() as u64;
        if at >= end {
            let none = Err(Errno(rustix::io::Errno::NXIO.raw_os_error()));
            return equal("behind the end", &(none, none), &(found, hole));
        }
        let upto = found.unwrap_or(end) as usize;
        if data[at as usize..upto].iter().any(|b| *b != 0) {
            return Err(format!("data at {at} was passed over, told {upto}"));
        }
        match hole {
            Ok(hole) if (at..=end).contains(&hole) => Ok(()),
            other => Err(format!("a hole at {other:?}")),
        }
    }

    pub(super) async fn fsync(&mut self, step: Step) -> Result<()> {
        let Some(at) = self.handle(step) else { return Ok(()) };
        let Handle { ino, ref file, .. } = self.handles[at];
        let (node, patient) = (&self.nodes[step.node], Caller::patient());
        node.soon(node.path.fsync(&file.inode, &patient)).await.map_err(|e| format!("fsync: {e:?}"))?;
        self.contents(ino)?.synced(step.node);
        Ok(())
    }

    pub(super) async fn sync_all(&mut self, n: usize) -> Result<()> {
        let (node, patient) = (&self.nodes[n], Caller::patient());
        node.soon(node.path.sync_all(&patient)).await.map_err(|e| format!("sync: {e:?}"))?;
        self.contents.values_mut().for_each(|c| c.synced(n));
        Ok(())
    }

    pub(super) async fn stat(&mut self, step: Step) -> Result<()> {
        let ino = match self.handle(step).filter(|_| step.b.is_multiple_of(2)) {
            Some(at) => self.handles[at].ino,
            None => self.anything(step.a),
        };
        self.attributes(step.node, ino).await.map(drop)
    }

    async fn attributes(&self, n: usize, ino: Ino) -> Result<Attr> {
        let (node, patient) = (&self.nodes[n], Caller::patient());
        let got = node.soon(node.path.attr(InodeNo(ino), &patient)).await.map_err(|e| format!("stat: {e:?}"))?;
        let (row, contents) = (&self.reference.nodes[&ino], &self.contents[&ino]);
        equal("nlink and mode", &(row.nlink, contents.mode), &(got.nlink, got.mode & 0o7777))?;
        let size = match &row.kind {
            Kind::File { .. } => contents.data.len(),
            Kind::Link { target } => target.len(),
            Kind::Dir { .. } => return Ok(got),
        };
        equal("size", &(size as u64), &got.size)?;
        Ok(got)
    }

    /// All that one node sees, against the reference.
    pub(super) async fn compare_tree(&self, n: usize) -> Result<()> {
        for (ino, row) in &self.reference.nodes {
            let ino = *ino;
            let context = |e| format!("ino {ino} on node {n}: {e}");
            self.attributes(n, ino).await.map_err(context)?;
            self.xattrs(n, ino).await.map_err(context)?;
            match &row.kind {
                Kind::Dir { .. } => self.list(n, ino).await.map_err(context)?,
                Kind::File { .. } => {
                    let found = self.whole(n, ino).await.map_err(context)?;
                    equal_bytes("the file", &self.contents[&ino].data, &found).map_err(context)?;
                }
                Kind::Link { .. } => {}
            }
        }
        Ok(())
    }

    async fn whole(&self, n: usize, ino: Ino) -> Result<Vec<u8>> {
        let file = self.open_with(n, ino, 0).await?;
        let found = self.all_of(n, &file).await;
        self.shut(n, &file).await?;
        Ok(found)
    }

    async fn all_of(&self, n: usize, file: &Arc<OpenFile>) -> Vec<u8> {
        let mut found = Vec::new();
        loop {
            let part = self.nodes[n].read(file, found.len() as u64, PART).await;
            if part.is_empty() {
                return found;
            }
            found.extend(part);
        }
    }

    /// Blocks of all files.
    pub(super) async fn used(&self) -> Result<u64> {
        let mut used = 0;
        for (ino, row) in &self.reference.nodes {
            if matches!(row.kind, Kind::File { .. }) {
                used += self.attributes(0, *ino).await?.blocks.0;
            }
        }
        Ok(used)
    }

    /// After an eviction: handles that lost something, and those on files that had no name any more, are of no use.
    pub(super) async fn close_lost(&mut self, n: usize) -> Result<()> {
        let lost = |w: &Stack, h: &Handle| h.node == n && (h.file.is_poisoned() || !w.has_name(h.ino));
        while let Some(at) = self.handles.iter().position(|h| lost(self, h)) {
            let Handle { file, .. } = self.closed(at);
            // What it lost may be said here.
            let _ = self.nodes[n].soon(self.nodes[n].path.close(file.handle)).await;
        }
        Ok(())
    }

    /// What a node had not synced may be lost, and nothing else.
    pub(super) async fn look_for_losses(&mut self, n: usize) -> Result<()> {
        let there = |ino: &Ino| self.reference.nodes.contains_key(ino);
        let lossy = |(ino, c): (&Ino, &Contents)| (c.may_lose(n) && there(ino)).then_some(*ino);
        let inos: Vec<Ino> = self.contents.iter().filter_map(lossy).collect();
        for ino in inos {
            let found = match self.handles.iter().find(|h| h.ino == ino) {
                Some(handle) => self.all_of(handle.node, &handle.file).await,
                None => self.whole(1 - n, ino).await?,
            };
            self.contents(ino)?.lost(n, found).map_err(|e| format!("ino {ino}: {e}"))?;
        }
        Ok(())
    }
}
