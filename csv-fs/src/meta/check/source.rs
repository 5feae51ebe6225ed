//! The abstract view that a check reads: every table of tree 0 in the order of its key, and single rows.
//!
//! Implemented for whatever gives [`Access`] to the database's tables. A row that does not decode is a row with nothing
//! in it, not an error: an error means that the database itself cannot be read.

use redb::ReadableTable;

use crate::meta::error::Result;
use crate::meta::inode::Inode;
use crate::meta::ops::MAX_INO;
use crate::meta::session::{self, Session};
use crate::meta::tables::{Access, TREE};
use crate::proto::Answer;

/// Rows in the order of their key.
pub(in crate::meta) type Rows<'a, T> = Box<dyn Iterator<Item = Result<T>> + 'a>;

#[derive(Debug)]
pub(in crate::meta) struct InodeRow {
    pub(super) ino: u64,
    /// `None` if it does not decode.
    pub(super) inode: Option<Inode>,
}

/// A row of table `dirent` or of table `cookie`: they hold the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::meta) struct EntryRow {
    pub(super) dir: u64,
    pub(super) name: Vec<u8>,
    pub(super) ino: u64,
    pub(super) kind: u32,
    pub(super) cookie: u64,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct ExtentRow {
    pub(super) ino: u64,
    pub(super) file: u64,
    pub(super) disk: u64,
    pub(super) len: u32,
    pub(super) flags: u8,
}

#[derive(Debug)]
pub(in crate::meta) struct XattrRow {
    pub(super) ino: u64,
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct OrphanRow {
    pub(super) ino: u64,
    pub(super) kind: u8,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct FreeRow {
    pub(super) group: u32,
    pub(super) start: u64,
    pub(super) len: u32,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct GrantRow {
    pub(super) node: u8,
    pub(super) life: u64,
    pub(super) start: u64,
    pub(super) len: u64,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct RefcountRow {
    pub(super) start: u64,
    pub(super) len: u32,
    pub(super) count: u32,
}

#[derive(Debug)]
pub(in crate::meta) struct SessionRow {
    pub(super) node: u8,
    pub(super) life: u64,
    /// `None` if it does not decode.
    pub(super) session: Option<Session>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::meta) struct AnswerRow {
    pub(super) node: u8,
    pub(super) life: u64,
    pub(super) table: u8,
    pub(super) slot: u8,
    /// Whether it decodes.
    pub(super) decodes: bool,
}

/// What a check reads.
pub(in crate::meta) trait Source {
    fn inodes(&self, from: u64) -> Result<Rows<'_, InodeRow>>;
    /// Table `dirent`, of one directory or of all.
    fn entries(&self, of: Option<u64>) -> Result<Rows<'_, EntryRow>>;
    /// Table `cookie`, of one directory or of all.
    fn cookies(&self, of: Option<u64>) -> Result<Rows<'_, EntryRow>>;
    fn extents(&self) -> Result<Rows<'_, ExtentRow>>;
    fn xattrs(&self) -> Result<Rows<'_, XattrRow>>;
    fn orphans(&self, from: u64) -> Result<Rows<'_, OrphanRow>>;
    fn refcounts(&self) -> Result<Rows<'_, RefcountRow>>;
    fn free(&self) -> Result<Rows<'_, FreeRow>>;
    fn groups(&self) -> Result<Rows<'_, (u32, u32)>>;
    fn grants(&self) -> Result<Rows<'_, GrantRow>>;
    fn sessions(&self) -> Result<Rows<'_, SessionRow>>;
    fn answers(&self) -> Result<Rows<'_, AnswerRow>>;
    fn metaranges(&self) -> Result<Rows<'_, (u64, u64)>>;
    fn trees(&self) -> Result<Rows<'_, (u16, u16, u8)>>;
    /// The tables that have a row of another tree than 0.
    fn other_trees(&self) -> Result<Vec<&'static str>>;
    fn counter(&self, name: &str) -> Result<Option<u64>>;
    fn inode(&self, ino: u64) -> Result<Option<InodeRow>>;
    fn entry(&self, dir: u64, name: &[u8]) -> Result<Option<EntryRow>>;
    fn cookie(&self, dir: u64, cookie: u64) -> Result<Option<EntryRow>>;
    /// The highest number in use of those that an inode can have.
    fn last_ino(&self) -> Result<u64>;
}

/// Single rows as stored, by the numbers of the redo log.
pub(in crate::meta) trait Exact {
    /// The value of a row; `None` if there is none, an error if no table takes such a key.
    fn exact(&self, table: u8, key: &[u8]) -> Result<Option<Vec<u8>>>;
}

impl<A: Access> Source for A {
    fn inodes(&self, from: u64) -> Result<Rows<'_, InodeRow>> {
        let rows = Access::inode(self).range((TREE, from)..=(TREE, u64::MAX))?;
        Ok(Box::new(rows.map(|row| {
            let (key, value) = row?;
            Ok(InodeRow { ino: key.value().1, inode: Inode::decode(value.value()).ok() })
        })))
    }

    fn entries(&self, of: Option<u64>) -> Result<Rows<'_, EntryRow>> {
        let rows = match of {
            Some(dir) => self.dirent().range((TREE, dir, &b""[..])..(TREE, dir.saturating_add(1), &b""[..]))?,
            None => self.dirent().range((TREE, 0, &b""[..])..(TREE + 1, 0, &b""[..]))?,
        };
        Ok(Box::new(rows.map(|row| {
            let (key, value) = row?;
            let ((_, dir, name), (ino, kind, cookie)) = (key.value(), value.value());
            Ok(EntryRow { dir, name: name.to_vec(), ino, kind, cookie })
        })))
    }

    fn cookies(&self, of: Option<u64>) -> Result<Rows<'_, EntryRow>> {
        let rows = match of {
            Some(dir) => Access::cookie(self).range((TREE, dir, 0)..=(TREE, dir, u64::MAX))?,
            None => Access::cookie(self).range((TREE, 0, 0)..=(TREE, u64::MAX, u64::MAX))?,
        };
        Ok(Box::new(rows.map(|row| {
            let (key, value) = row?;
            let ((_, dir, cookie), (ino, kind, name)) = (key.value(), value.value());
            Ok(EntryRow { dir, name: name.to_vec(), ino, kind, cookie })
        })))
    }

    fn extents(&self) -> Result<Rows<'_, ExtentRow>> {
        let rows = self.extent().range((TREE, 0, 0)..=(TREE, u64::MAX, u64::MAX))?;
        Ok(Box::new(rows.map(|row| {
            let (key, value) = row?;
            let ((_, ino, file), (disk, len, flags)) = (key.value(), value.value());
            Ok(ExtentRow { ino, file, disk, len, flags })
        })))
    }

    fn xattrs(&self) -> Result<Rows<'_, XattrRow>> {
        let rows = self.xattr().range((TREE, 0, &b""[..])..(TREE + 1, 0, &b""[..]))?;
        Ok(Box::new(rows.map(|row| {
            let (key, value) = row?;
            let (_, ino, name) = key.value();
            Ok(XattrRow { ino, name: name.to_vec(), value: value.value().to_vec() })
        })))
    }

    fn orphans(&self, from: u64) -> Result<Rows<'_, OrphanRow>> {
        let rows = self.orphan().range((TREE, from, 0)..=(TREE, u64::MAX, u8::MAX))?;
        Ok(Box::new(rows.map(|row| {
            let (_, ino, kind) = row?.0.value();
            Ok(OrphanRow { ino, kind })
        })))
    }

    fn refcounts(&self) -> Result<Rows<'_, RefcountRow>> {
        Ok(Box::new(self.refcount().iter()?.map(|row| {
            let (key, value) = row?;
            let (len, count) = value.value();
            Ok(RefcountRow { start: key.value(), len, count })
        })))
    }

    fn free(&self) -> Result<Rows<'_, FreeRow>> {
        Ok(Box::new(Access::free(self).iter()?.map(|row| {
            let (key, value) = row?;
            let (group, start) = key.value();
            Ok(FreeRow { group, start, len: value.value() })
        })))
    }

    fn groups(&self) -> Result<Rows<'_, (u32, u32)>> {
        Ok(Box::new(self.group().iter()?.map(|row| {
            let (key, value) = row?;
            Ok((key.value(), value.value()))
        })))
    }

    fn grants(&self) -> Result<Rows<'_, GrantRow>> {
        Ok(Box::new(self.grant().iter()?.map(|row| {
            let (key, value) = row?;
            let (node, life, start) = key.value();
            Ok(GrantRow { node, life, start, len: value.value() })
        })))
    }

    fn sessions(&self) -> Result<Rows<'_, SessionRow>> {
        Ok(Box::new(self.session().iter()?.map(|row| {
            let (key, value) = row?;
            let (node, life) = key.value();
            Ok(SessionRow { node, life, session: session::decode(value.value()).ok() })
        })))
    }

    fn answers(&self) -> Result<Rows<'_, AnswerRow>> {
        Ok(Box::new(self.answer().iter()?.map(|row| {
            let (key, value) = row?;
            let (node, life, table, slot) = key.value();
            let decodes = session::decode::<(u64, Answer)>(value.value()).is_ok();
            Ok(AnswerRow { node, life, table, slot, decodes })
        })))
    }

    fn metaranges(&self) -> Result<Rows<'_, (u64, u64)>> {
        Ok(Box::new(self.metarange().iter()?.map(|row| {
            let (key, value) = row?;
            Ok((key.value(), value.value()))
        })))
    }

    fn trees(&self) -> Result<Rows<'_, (u16, u16, u8)>> {
        Ok(Box::new(self.tree().iter()?.map(|row| {
            let (key, value) = row?;
            let (parent, sealed) = value.value();
            Ok((key.value(), parent, sealed))
        })))
    }

    fn other_trees(&self) -> Result<Vec<&'static str>> {
        let mut others = Vec::new();
        macro_rules! look {
            ($($table:ident, $name:literal, $first:expr;)*) => {
                $(if Access::$table(self).range($first..)?.next().is_some() {
                    others.push($name);
                })*
            };
        }
        look! {
            inode, "inode", (TREE + 1, 0);
            dirent, "dirent", (TREE + 1, 0, &b""[..]);
            cookie, "cookie", (TREE + 1, 0, 0);
            extent, "extent", (TREE + 1, 0, 0);
            orphan, "orphan", (TREE + 1, 0, 0);
            xattr, "xattr", (TREE + 1, 0, &b""[..]);
        }
        Ok(others)
    }

    fn counter(&self, name: &str) -> Result<Option<u64>> {
        Ok(Access::counter(self).get(name)?.map(|v| v.value()))
    }

    fn inode(&self, ino: u64) -> Result<Option<InodeRow>> {
        let row = Access::inode(self).get((TREE, ino))?;
        Ok(row.map(|v| InodeRow { ino, inode: Inode::decode(v.value()).ok() }))
    }

    fn entry(&self, dir: u64, name: &[u8]) -> Result<Option<EntryRow>> {
        let row = self.dirent().get((TREE, dir, name))?;
        Ok(row.map(|v| {
            let (ino, kind, cookie) = v.value();
            EntryRow { dir, name: name.to_vec(), ino, kind, cookie }
        }))
    }

    fn cookie(&self, dir: u64, cookie: u64) -> Result<Option<EntryRow>> {
        let row = Access::cookie(self).get((TREE, dir, cookie))?;
        Ok(row.map(|v| {
            let (ino, kind, name) = v.value();
            EntryRow { dir, name: name.to_vec(), ino, kind, cookie }
        }))
    }

    fn last_ino(&self) -> Result<u64> {
        let row = Access::inode(self).range((TREE, 0)..=(TREE, MAX_INO))?.next_back().transpose()?;
        Ok(row.map_or(0, |(key, _)| key.value().1))
    }
}

/// A table read along with others: the next row can be looked at before it is taken.
pub(super) struct Cursor<'a, T> {
    rows: Rows<'a, T>,
    head: Option<T>,
}

impl<'a, T> Cursor<'a, T> {
    pub(super) fn new(mut rows: Rows<'a, T>) -> Result<Cursor<'a, T>> {
        let head = rows.next().transpose()?;
        Ok(Cursor { rows, head })
    }

    pub(super) fn peek(&self) -> Option<&T> {
        self.head.as_ref()
    }

    pub(super) fn next(&mut self) -> Result<Option<T>> {
        let next = self.rows.next().transpose()?;
        Ok(std::mem::replace(&mut self.head, next))
    }

    /// The next one, if `wanted` says so of it.
    pub(super) fn next_if(&mut self, wanted: impl FnOnce(&T) -> bool) -> Result<Option<T>> {
        if self.head.as_ref().is_some_and(wanted) { self.next() } else { Ok(None) }
    }
}
