//! A file system in a few maps: what the store must be indistinguishable from. It knows nothing of disks; blocks it
//! is told about by the store's answers, and holds the store to them.

use std::collections::BTreeMap;

use rustix::io::Errno;

use crate::proto::rename_flags::{EXCHANGE, NOREPLACE};
use crate::types::{Extent, ExtentState, FS_BLOCK};

pub(crate) type Ino = u64;
pub(crate) type Outcome<T> = Result<T, Errno>;
/// File block to disk block and whether it is written.
pub(crate) type Blocks = BTreeMap<u64, (u64, bool)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dir { parent: Ino, entries: BTreeMap<Vec<u8>, Ino> },
    File { size: u64, blocks: Blocks },
    Link { target: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) nlink: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    pub(crate) nodes: BTreeMap<Ino, Node>,
    /// Inodes that are kept open: they outlive their last name.
    pub(crate) open: std::collections::BTreeSet<Ino>,
}

impl Reference {
    pub(crate) fn new() -> Reference {
        let root = Node { kind: Kind::Dir { parent: 1, entries: BTreeMap::new() }, nlink: 2 };
        Reference { nodes: BTreeMap::from([(1, root)]), ..Reference::default() }
    }

    fn entries(&self, dir: Ino) -> Outcome<&BTreeMap<Vec<u8>, Ino>> {
        match &self.nodes.get(&dir).ok_or(Errno::NOENT)?.kind {
            Kind::Dir { entries, .. } => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, dir: Ino) -> &mut BTreeMap<Vec<u8>, Ino> {
        match &mut self.nodes.get_mut(&dir).expect("a directory").kind {
            Kind::Dir { entries, .. } => entries,
            other => panic!("{other:?} is no directory"),
        }
    }

    pub(crate) fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.nodes[&ino].kind, Kind::Dir { .. })
    }

    fn links(&mut self, ino: Ino, by: i32) {
        let node = self.nodes.get_mut(&ino).expect("there");
        node.nlink = node.nlink.checked_add_signed(by).expect("a link count");
    }

    fn must_be_new(&self, dir: Ino, name: &[u8]) -> Outcome<()> {
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        if self.nodes[&dir].nlink == 0 { Err(Errno::NOENT) } else { Ok(()) }
    }

    /// Whether a new node may be made; [`Reference::made`] tells its number.
    pub(crate) fn make(&self, dir: Ino, name: &[u8]) -> Outcome<()> {
        self.must_be_new(dir, name)
    }

    pub(crate) fn made(&mut self, dir: Ino, name: &[u8], ino: Ino, kind: Kind) {
        let is_dir = matches!(kind, Kind::Dir { .. });
        assert!(
            self.nodes.insert(ino, Node { kind, nlink: if is_dir { 2 } else { 1 } }).is_none(),
            "a number was reused"
        );
        self.entries_mut(dir).insert(name.to_vec(), ino);
        self.links(dir, i32::from(is_dir));
    }

    pub(crate) fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Outcome<()> {
        self.entries(dir)?;
        let node = self.nodes.get(&ino).ok_or(Errno::NOENT)?;
        match node.kind {
            Kind::Dir { .. } => return Err(Errno::PERM),
            _ if node.nlink == 0 => return Err(Errno::NOENT),
            _ => self.must_be_new(dir, name)?,
        }
        self.entries_mut(dir).insert(name.to_vec(), ino);
        self.links(ino, 1);
        Ok(())
    }

    pub(crate) fn unlink(&mut self, dir: Ino, name: &[u8]) -> Outcome<()> {
        let ino = *self.entries(dir)?.get(name).ok_or(Errno::NOENT)?;
        if self.is_dir(ino) {
            return Err(Errno::ISDIR);
        }
        self.entries_mut(dir).remove(name);
        self.lost_name(ino);
        Ok(())
    }

    pub(crate) fn rmdir(&mut self, dir: Ino, name: &[u8]) -> Outcome<()> {
        let ino = *self.entries(dir)?.get(name).ok_or(Errno::NOENT)?;
        if !self.entries(ino)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.entries_mut(dir).remove(name);
        self.links(dir, -1);
        self.lost_name(ino);
        Ok(())
    }

    fn lost_name(&mut self, ino: Ino) {
        let left = if self.is_dir(ino) { 0 } else { self.nodes[&ino].nlink - 1 };
        self.nodes.get_mut(&ino).expect("there").nlink = left;
        self.drop_if_unused(ino);
    }

    pub(crate) fn close(&mut self, ino: Ino) {
        self.open.remove(&ino);
        self.drop_if_unused(ino);
    }

    fn drop_if_unused(&mut self, ino: Ino) {
        if self.nodes.get(&ino).is_some_and(|n| n.nlink == 0) && !self.open.contains(&ino) {
            self.nodes.remove(&ino);
        }
    }

    fn below(&self, mut dir: Ino, above: Ino) -> bool {
        loop {
            match &self.nodes[&dir].kind {
                _ if dir == above => return true,
                Kind::Dir { parent, .. } if *parent != dir => dir = *parent,
                _ => return false,
            }
        }
    }

    pub(crate) fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), flags: u32) -> Outcome<()> {
        self.entries(from.0)?;
        self.entries(to.0)?;
        let source = *self.entries(from.0)?.get(from.1).ok_or(Errno::NOENT)?;
        let target = self.entries(to.0)?.get(to.1).copied();
        if self.is_dir(source) && self.below(to.0, source) {
            return Err(Errno::INVAL);
        }
        match (target, flags) {
            (None, EXCHANGE) => return Err(Errno::NOENT),
            (None, _) if self.nodes[&to.0].nlink == 0 => return Err(Errno::NOENT),
            (Some(t), EXCHANGE) if self.is_dir(t) && self.below(from.0, t) => return Err(Errno::INVAL),
            (Some(_), NOREPLACE) => return Err(Errno::EXIST),
            (Some(t), _) if t == source => return Ok(()),
            (Some(t), 0) => match (self.is_dir(source), self.is_dir(t)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.entries(t)?.is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            },
            _ => {}
        }
        self.take_out(from);
        if let Some(t) = target {
            self.take_out(to);
            if flags == EXCHANGE {
                self.put_in(from, t);
            } else {
                self.lost_name(t);
            }
        }
        self.put_in(to, source);
        Ok(())
    }

    fn take_out(&mut self, (dir, name): (Ino, &[u8])) {
        let ino = self.entries_mut(dir).remove(name).expect("there");
        self.links(dir, -i32::from(self.is_dir(ino)));
    }

    fn put_in(&mut self, (dir, name): (Ino, &[u8]), ino: Ino) {
        self.entries_mut(dir).insert(name.to_vec(), ino);
        self.links(dir, i32::from(self.is_dir(ino)));
        if let Kind::Dir { parent, .. } = &mut self.nodes.get_mut(&ino).expect("there").kind {
            *parent = dir;
        }
    }

    fn file_mut(&mut self, ino: Ino) -> Outcome<(&mut u64, &mut Blocks)> {
        match &mut self.nodes.get_mut(&ino).ok_or(Errno::NOENT)?.kind {
            Kind::File { size, blocks } => Ok((size, blocks)),
            Kind::Dir { .. } => Err(Errno::ISDIR),
            Kind::Link { .. } => Err(Errno::INVAL),
        }
    }

    pub(crate) fn truncate(&mut self, ino: Ino, to: u64) -> Outcome<()> {
        let (size, blocks) = self.file_mut(ino)?;
        if to <= *size {
            blocks.retain(|b, _| *b < to.div_ceil(FS_BLOCK));
        }
        *size = to;
        Ok(())
    }

    pub(crate) fn clear(&mut self, ino: Ino, range: std::ops::Range<u64>, hole: bool) -> Outcome<()> {
        let blocks = self.file_mut(ino).map_err(|e| if e == Errno::ISDIR { Errno::INVAL } else { e })?.1;
        blocks.retain(|b, _| !hole || !range.contains(b));
        blocks.range_mut(range).for_each(|(_, (_, written))| *written = false);
        Ok(())
    }

    /// Takes over what the store mapped into the holes of a range, after checking that it mapped nothing else.
    pub(crate) fn fallocated(&mut self, ino: Ino, first: u64, end: u64, extents: &[Extent]) {
        let (size, blocks) = self.file_mut(ino).expect("a file");
        *size = (*size).max(end * FS_BLOCK);
        for e in extents {
            for i in 0..e.len.0 {
                let (file, disk) = (e.file.0 + i, e.disk.0 + i);
                blocks.entry(file).or_insert_with(|| {
                    assert!(
                        (first..end).contains(&file) && e.state == ExtentState::Unwritten,
                        "mapped outside the range: {e:?}"
                    );
                    (disk, false)
                });
            }
        }
        assert!((first..end).all(|b| blocks.contains_key(&b)), "a hole was left");
    }

    pub(crate) fn commit(&mut self, ino: Ino, extents: &[Extent], new_size: u64) -> Outcome<()> {
        let (size, blocks) = self.file_mut(ino)?;
        for e in extents {
            for i in 0..e.len.0 {
                blocks.insert(e.file.0 + i, (e.disk.0 + i, true));
            }
        }
        *size = (*size).max(new_size);
        Ok(())
    }
}
