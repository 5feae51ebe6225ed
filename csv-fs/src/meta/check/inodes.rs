//! Inodes, and what is filed under their numbers: extents, extended attributes, the list of orphans. All four are read
//! side by side, once.

use rustix::fs::FileType;

use super::finding::{Kind, Repair, ino};
use super::source::{Cursor, ExtentRow, InodeRow, OrphanRow, XattrRow};
use super::{Checker, Report};
use crate::meta::OrphanKind;
use crate::meta::acl::{ACCESS, Acl, DEFAULT};
use crate::meta::error::Result;
use crate::meta::inode::{FIRST_COOKIE, Inode, LINKABLE};
use crate::meta::map::MAX_EXTENT;
use crate::meta::ops::{MAX_INO, MAX_SIZE};
use crate::meta::tables::EXTENT_UNWRITTEN;
use crate::meta::xattr;
use crate::types::FS_BLOCK;

const PART: &str = "inodes";

/// Blocks of the longest file.
const MAX_BLOCKS: u64 = MAX_SIZE.div_ceil(FS_BLOCK);

struct Beside<'a> {
    extents: Cursor<'a, ExtentRow>,
    xattrs: Cursor<'a, XattrRow>,
    orphans: Cursor<'a, OrphanRow>,
}

pub(super) fn check(c: &mut Checker<'_>) -> Result<()> {
    c.begin(PART)?;
    let source = c.source;
    let mut beside = Beside {
        extents: Cursor::new(source.extents()?)?,
        xattrs: Cursor::new(source.xattrs()?)?,
        orphans: Cursor::new(source.orphans(0)?)?,
    };
    for row in source.inodes(0)? {
        let row = row?;
        c.row(PART)?;
        c.report.inodes += 1;
        strays(c, &mut beside, Some(row.ino))?;
        inode(c, &row, &mut beside)?;
    }
    strays(c, &mut beside, None)
}

/// Rows under the number of an inode that is not there, up to `next`.
fn strays(c: &mut Checker<'_>, beside: &mut Beside<'_>, next: Option<u64>) -> Result<()> {
    let before = |n: u64| next.is_none_or(|next| n < next);
    let mut said = None;
    while let Some(e) = beside.extents.next_if(|e| before(e.ino))? {
        c.row(PART)?;
        count(c.report, &e);
        if said.replace(e.ino) != Some(e.ino) {
            c.found(Kind::ExtentOwner, format!("ino {} has extents, but is not there", e.ino), None);
        }
    }
    let mut said = None;
    while let Some(x) = beside.xattrs.next_if(|x| before(x.ino))? {
        c.row(PART)?;
        c.value_bytes += bytes(&x);
        if said.replace(x.ino) != Some(x.ino) {
            let what = format!("ino {} has extended attributes, but is not there", x.ino);
            c.found(Kind::XattrOwner, what, Repair::RemoveXattrs { ino: x.ino });
        }
    }
    while let Some(o) = beside.orphans.next_if(|o| before(o.ino))? {
        let what = format!("ino {} is on the list of orphans, but is not there", o.ino);
        c.found(Kind::Orphan, what, Repair::RemoveOrphan { ino: o.ino, kind: o.kind });
    }
    Ok(())
}

fn bytes(x: &XattrRow) -> u64 {
    (x.name.len() + x.value.len()) as u64
}

fn count(report: &mut Report, e: &ExtentRow) {
    report.extents += 1;
    report.mapped += u64::from(e.len);
}

fn inode(c: &mut Checker<'_>, row: &InodeRow, beside: &mut Beside<'_>) -> Result<()> {
    let n = row.ino;
    match &row.inode {
        None => c.found(Kind::InodeRow, format!("{} cannot be read", ino(n)), None),
        Some(inode) => {
            c.value_bytes += inode.target.len() as u64;
            for wrong in fields(n, inode) {
                c.found(Kind::InodeFields, format!("{} {wrong}", ino(n)), None);
            }
        }
    }
    extents(c, row, beside)?;
    xattrs(c, row, beside)?;
    while let Some(o) = beside.orphans.next_if(|o| o.ino == n)? {
        orphan(c, row, o);
    }
    Ok(())
}

/// What no inode can hold.
fn fields(n: u64, inode: &Inode) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut unless = |fine: bool, what: String| {
        if !fine {
            wrong.push(what)
        }
    };
    let kind = inode.kind();
    unless(kind != FileType::Unknown, format!("is of no known type (mode {:o})", inode.mode));
    unless((1..=MAX_INO).contains(&n), "has a number that none can have".to_owned());
    unless(inode.flags & !LINKABLE == 0, format!("has unknown flags ({:#x})", inode.flags));
    unless(inode.size <= MAX_SIZE, format!("has size {}, more than any file", inode.size));
    let times = [inode.atime, inode.mtime, inode.ctime, inode.btime];
    unless(times.iter().all(|t| t.nanos < 1_000_000_000), "has a time with too many nanoseconds".to_owned());
    let target = inode.target.len() as u64;
    match kind {
        FileType::Symlink => {
            unless(target > 0 && target == inode.size, format!("is a link of size {} to {target} bytes", inode.size));
        }
        _ => unless(target == 0, "is no link, but has a target".to_owned()),
    }
    let first = kind != FileType::Directory || inode.next_cookie >= FIRST_COOKIE;
    unless(first, format!("is a directory whose next place is {}", inode.next_cookie));
    wrong
}

fn extents(c: &mut Checker<'_>, row: &InodeRow, beside: &mut Beside<'_>) -> Result<()> {
    let n = row.ino;
    let (mut owned, mut end, mut any) = (0, 0, false);
    while let Some(e) = beside.extents.next_if(|e| e.ino == n)? {
        c.row(PART)?;
        count(c.report, &e);
        any = true;
        owned += u64::from(e.len);
        let len = u64::from(e.len);
        let file_end = e.file.saturating_add(len);
        let good = (1..=MAX_EXTENT).contains(&len) && e.flags & !EXTENT_UNWRITTEN == 0 && file_end <= MAX_BLOCKS;
        if !good {
            let what = format!(
                "{} has an extent of {len} blocks with flags {:#x} at file block {}, which none can be",
                ino(n),
                e.flags,
                e.file
            );
            c.found(Kind::Extent, what, None);
        }
        if e.file < end {
            let what = format!("{} maps file blocks from {} twice", ino(n), e.file);
            c.found(Kind::ExtentOverlap, what, None);
        }
        end = end.max(file_end);
    }
    let Some(inode) = &row.inode else { return Ok(()) };
    if any && !inode.is_regular() {
        c.found(Kind::ExtentOwner, format!("{} has extents, but is no regular file", ino(n)), None);
    } else if inode.blocks != owned {
        let what = format!("{} counts {} blocks, but has {owned}", ino(n), inode.blocks);
        c.found(Kind::BlockCount, what, Repair::SetBlocks { ino: n, blocks: owned });
    }
    Ok(())
}

fn xattrs(c: &mut Checker<'_>, row: &InodeRow, beside: &mut Beside<'_>) -> Result<()> {
    let n = row.ino;
    let mut room = xattr::Room::default();
    while let Some(x) = beside.xattrs.next_if(|x| x.ino == n)? {
        c.row(PART)?;
        c.value_bytes += bytes(&x);
        room.add(&x.name, x.value.len());
        let shown = String::from_utf8_lossy(&x.name).into_owned();
        if xattr::check_name(&x.name).is_err() || x.value.len() > xattr::VALUE_MAX {
            let what = format!("{} has an extended attribute \"{shown}\" of {} bytes", ino(n), x.value.len());
            c.found(Kind::Xattr, what, None);
        }
        if let Some(wrong) = row.inode.as_ref().and_then(|inode| list(inode, &x)) {
            c.found(Kind::Acl, format!("{}: {shown} {wrong}", ino(n)), None);
        }
    }
    if !room.is_enough() {
        c.found(Kind::Xattr, format!("{} has more extended attributes than fit", ino(n)), None);
    }
    Ok(())
}

/// What is wrong with an access control list.
fn list(inode: &Inode, x: &XattrRow) -> Option<&'static str> {
    if x.name != ACCESS && x.name != DEFAULT {
        return None;
    }
    let Ok(Some(acl)) = Acl::parse(&x.value) else { return Some("is no access control list") };
    let (mode, plain) = acl.mode(inode.mode);
    match x.name.as_slice() {
        DEFAULT if !inode.is_dir() => Some("belongs to what is no directory"),
        ACCESS if mode != inode.mode => Some("says other rights than the mode"),
        ACCESS if plain => Some("says no more than the mode"),
        _ => None,
    }
}

fn orphan(c: &mut Checker<'_>, row: &InodeRow, o: OrphanRow) {
    let n = row.ino;
    let tail = match OrphanKind::from_byte(o.kind) {
        Ok(kind) => kind == OrphanKind::Truncated,
        Err(_) => {
            let what = format!("{} is on the list of orphans as kind {}, which is unknown", ino(n), o.kind);
            return c.found(Kind::Orphan, what, Repair::RemoveOrphan { ino: n, kind: o.kind });
        }
    };
    if tail && row.inode.as_ref().is_some_and(|i| !i.is_regular()) {
        let what = format!("{} is no regular file, but listed as cut off", ino(n));
        c.found(Kind::Orphan, what, Repair::RemoveOrphan { ino: n, kind: o.kind });
    }
}
