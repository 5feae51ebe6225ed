//! What only reads: the same code for a committed [`View`] and for a transaction under way.

use redb::{ReadableTable, ReadableTableMetadata};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::error::Result;
use super::inode::{FIRST_COOKIE, type_bits};
use super::ops::State;
use super::store::View;
use super::tables::{Access, TREE};
use super::{OrphanKind, map, rows, space, xattr};
use crate::format::Superblock;
use crate::proto::{CAPABILITY, DirEntry, Hints, Space};
use crate::types::*;

/// What the superblock says about space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Blocks that can hold data: all but those of the format and of the metadata store.
    pub(super) data_blocks: u64,
    /// Nodes that share the volume.
    pub(super) nodes: u64,
    /// Bytes of the database's file. It grows by doubling.
    pub(super) file: u64,
    /// Bytes of the metadata ranges, those reserved ahead included.
    pub(super) reach: u64,
}

/// What the rows of names and inodes take in the database, about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs(u64);

/// Bytes of an inode's row with its key.
const INODE_ROW: u64 = 170;
/// Bytes of one of the two rows of a name without the name, keys included.
const NAME_ROW: u64 = 60;
/// Bytes of a row of an extent, or of a free run.
const EXTENT_ROW: u64 = 60;
/// What a new file is taken to need: an inode and a name of 32 bytes.
const FILE: u64 = INODE_ROW + 2 * (NAME_ROW + 32);

impl Needs {
    /// Of what there is. `names` and `values`: bytes of all names, and of attributes and links.
    pub(super) fn of(t: &impl Access, names: u64, values: u64) -> Result<Needs> {
        let inodes = t.inode().len()? * INODE_ROW;
        let names = 2 * (names + NAME_ROW * t.dirent().len()?);
        let extents = EXTENT_ROW * (t.extent().len()? + t.free().len()?);
        Ok(Needs(inodes + names + extents + values))
    }

    /// Bytes of rows that a file of this length may hold: twice over for the slack of its trees, and a quarter left for what
    /// goes on without needing room: every change copies the pages that it touches.
    fn bound(file: u64) -> u64 {
        file / 4 * 3 / 2
    }

    /// Whether a file of this length has no room for more.
    pub(super) fn fill(self, file: u64) -> bool {
        self.0 > Needs::bound(file)
    }
}

impl Limits {
    /// What a superblock says.
    pub(super) fn of(superblock: &Superblock) -> Limits {
        let fixed: u64 = space::fixed_spans(superblock).iter().map(|s| s.len).sum();
        Limits {
            data_blocks: superblock.blocks().saturating_sub(fixed),
            nodes: u64::from(superblock.nodes),
            file: superblock.meta_len,
            reach: superblock.capacity() + superblock.reserved_ahead(),
        }
    }

    /// Whether the database finds room when it doubles its file.
    pub(super) fn can_grow(&self) -> bool {
        self.reach >= 2 * self.file
    }

    /// So many more files have room, if the store takes what it may of the free blocks.
    pub(super) fn files_free(&self, needs: Needs, free: u64) -> u64 {
        let (mut file, most) = (self.file, self.reach + free * FS_BLOCK / 2);
        while 2 * file <= most {
            file *= 2;
        }
        Needs::bound(file).saturating_sub(needs.0) / FILE
    }
}

/// Counts of the whole volume.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    pub(super) blocks: u64,
    pub(super) free: u64,
    pub(super) granted: u64,
    pub(super) inodes: u64,
    pub(super) files_free: u64,
}

/// An answer to readdir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Entries in cookie order.
    pub entries: Vec<DirEntry>,
    /// Whether none follow.
    pub end: bool,
}

/// A part of the last block of a file that lies beyond its end and must be zeroed on the disk, and flushed, before the
/// file grows: else old bytes would show. Zeroing it at any time does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The block on the disk.
    pub disk: DiskBlock,
    /// From this byte of it to its end.
    pub from: u32,
}

/// Operations that change nothing.
pub trait Reads {
    /// The tables.
    #[doc(hidden)]
    fn access(&self) -> &impl Access;

    /// All, free and granted blocks that can hold data, inodes, and how many more there is room for.
    #[doc(hidden)]
    fn totals(&self) -> Result<Totals>;

    /// The inode of a name. `.` and `..` are names too; `.` also of what is no folder, since that is how the kernel finds the
    /// inode of a handle again. One that has lost its last name is not found so, though it may be there until it is freed.
    fn lookup(&self, parent: InodeNo, name: &[u8]) -> Result<Attr> {
        if name == b"." {
            let attr = self.getattr(parent)?;
            return if attr.nlink > 0 { Ok(attr) } else { Err(Errno::NOENT.into()) };
        }
        let dir = rows::directory(self.access(), parent)?;
        let ino = match name {
            b".." => dir.parent,
            _ => rows::entry(self.access(), parent, name)?.ok_or(Errno::NOENT)?.ino,
        };
        self.getattr(ino)
    }

    /// Attributes; ENOENT for an inode that is not there (any more).
    fn getattr(&self, ino: InodeNo) -> Result<Attr> {
        Ok(rows::inode(self.access(), ino)?.attr(ino))
    }

    /// Target of a symbolic link.
    fn readlink(&self, ino: InodeNo) -> Result<Vec<u8>> {
        let inode = rows::inode(self.access(), ino)?;
        if inode.kind() == FileType::Symlink { Ok(inode.target) } else { Err(Errno::INVAL.into()) }
    }

    /// Entries with cookies above `after`, about `max_bytes` of them as the kernel counts, but at least one. Entries
    /// that are there all the time appear exactly once in a walk from 0, whatever changes meanwhile.
    fn readdir(&self, dir: InodeNo, after: u64, max_bytes: u32, plus: bool) -> Result<Listing> {
        let inode = rows::directory(self.access(), dir)?;
        let mut room = i64::from(max_bytes);
        let mut entries = Vec::new();
        let dots = [(1, &b"."[..], dir), (2, b"..", inode.parent)];
        for (cookie, name, ino) in dots.into_iter().filter(|(cookie, ..)| *cookie > after) {
            if !take(&mut room, name, plus, entries.is_empty()) {
                return Ok(Listing { entries, end: false });
            }
            let attr = if plus { Some(self.getattr(ino)?) } else { None };
            entries.push(DirEntry { ino, kind: type_bits(FileType::Directory), cookie, name: name.to_vec(), attr });
        }
        let first = after.saturating_add(1).max(FIRST_COOKIE);
        for row in self.access().cookie().range((TREE, dir.0, first)..=(TREE, dir.0, u64::MAX))? {
            let (key, value) = row?;
            let (cookie, (ino, kind, name)) = (key.value().2, value.value());
            if !take(&mut room, name, plus, entries.is_empty()) {
                return Ok(Listing { entries, end: false });
            }
            let attr = if plus { Some(self.getattr(InodeNo(ino))?) } else { None };
            entries.push(DirEntry { ino: InodeNo(ino), kind, cookie, name: name.to_vec(), attr });
        }
        Ok(Listing { entries, end: true })
    }

    /// Space and numbers of files. Granted space counts as free: it can still be had.
    fn statfs(&self) -> Result<Space> {
        let t = self.totals()?;
        Ok(Space { blocks: t.blocks, free: t.free + t.granted, files: t.inodes, files_free: t.files_free })
    }

    /// The mapping of a range of a file, clipped to it; what no extent covers is a hole.
    fn extents(&self, ino: InodeNo, range: BlockRange) -> Result<Vec<Extent>> {
        if !rows::inode(self.access(), ino)?.is_regular() {
            return Ok(Vec::new());
        }
        let end = rows::truncating(self.access(), ino)?.map_or(range.end, |from| range.end.min(from));
        let range = BlockRange { start: range.start, end };
        let mut extents = map::mapped(self.access().extent(), ino, range)?;
        let shared = self.access().refcount();
        if !shared.is_empty()? {
            for extent in &mut extents {
                extent.shared = map::is_shared(shared, extent)?;
            }
        }
        Ok(extents)
    }

    /// What must be zeroed on the disk before a file grows beyond its present end.
    fn tail(&self, ino: InodeNo) -> Result<Option<Tail>> {
        let inode = rows::inode(self.access(), ino)?;
        let from = u32::try_from(inode.size % FS_BLOCK).unwrap_or(0);
        if from == 0 {
            return Ok(None);
        }
        let block = inode.size / FS_BLOCK;
        let last = map::mapped(self.access().extent(), ino, BlockRange::new(block, block + 1))?;
        Ok(last.first().filter(|e| e.state == ExtentState::Written).map(|e| Tail { disk: e.disk, from }))
    }

    /// The value of an extended attribute; ENODATA if there is none of that name.
    fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>> {
        rows::inode(self.access(), ino)?;
        xattr::check_name(name)?;
        xattr::find(self.access(), ino, name)?.ok_or_else(|| Errno::NODATA.into())
    }

    /// The names of all of them, each ended by a zero byte.
    fn xattrs(&self, ino: InodeNo) -> Result<Vec<u8>> {
        rows::inode(self.access(), ino)?;
        xattr::names(self.access(), ino)
    }

    /// Hints and marks, and how many extents there are.
    fn hints(&self, ino: InodeNo) -> Result<(Hints, u32)> {
        let inode = rows::inode(self.access(), ino)?;
        let mut extents = 0_u32;
        for row in self.access().extent().range((TREE, ino.0, 0)..=(TREE, ino.0, u64::MAX))? {
            row?;
            extents = extents.saturating_add(1);
        }
        Ok((Hints { extent_size: inode.extent_hint, project: inode.project }, extents))
    }

    /// Whether a file has capabilities that a write must remove.
    fn has_capability(&self, ino: InodeNo) -> Result<bool> {
        Ok(xattr::find(self.access(), ino, CAPABILITY)?.is_some())
    }

    /// Whether a truncation of this file left something to free, see [`Ops::reap_tail`](super::Ops::reap_tail).
    fn is_truncating(&self, ino: InodeNo) -> Result<bool> {
        Ok(rows::truncating(self.access(), ino)?.is_some())
    }

    /// Orphans: inodes without a name that may still be open, and files whose cut-off tail is not yet freed.
    fn orphans(&self) -> Result<Vec<(InodeNo, OrphanKind)>> {
        let mut orphans = Vec::new();
        for row in self.access().orphan().iter()? {
            let (_, ino, kind) = row?.0.value();
            orphans.push((InodeNo(ino), OrphanKind::from_byte(kind)?));
        }
        Ok(orphans)
    }
}

impl Reads for View {
    fn access(&self) -> &impl Access {
        &self.tables
    }

    fn totals(&self) -> Result<Totals> {
        State::load(&self.tables.counter)?.totals(&self.tables, &self.limits)
    }
}

/// Whether an entry still fits; the first always does. The kernel's `fuse_dirent` is 24 bytes and the name, rounded up
/// to 8; with attributes 128 more.
fn take(room: &mut i64, name: &[u8], plus: bool, first: bool) -> bool {
    let bytes = 24 + name.len().next_multiple_of(8) + if plus { 128 } else { 0 };
    *room -= i64::try_from(bytes).unwrap_or(i64::MAX);
    first || *room >= 0
}
