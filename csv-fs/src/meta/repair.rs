//! Carries out repairs of a check, row by row, in one transaction of a store that nobody else has open.
//!
//! Each repair does what it says of itself and no more; the counts that follow from it are repairs of their own, which
//! the next check names. So nothing here trusts a counter, and the order among the repairs of one check does not matter.
//! A repair whose rows are not there (any more) does nothing.

use redb::ReadableTable;

use super::check::{LOST_AND_FOUND, NEXT_INODE, Repair};
use super::error::Result;
use super::inode::{FIRST_COOKIE, Inode, LINKABLE, S_IFMT, type_bits};
use super::ops::{MAX_INO, State};
use super::space::{self, GROUP_BLOCKS};
use super::tables::{TREE, Tables};
use crate::types::{BlockCount, DiskBlock, DiskRange, InodeNo, Timestamp};
use rustix::fs::FileType;

/// Carries them out. Counts come last, and only if nothing else is to be done: else they would be wrong again.
pub(super) fn apply(t: &mut Tables<'_>, repairs: &[Repair], now: Timestamp) -> Result<()> {
    let others = repairs.iter().any(|r| !r.is_count());
    for repair in repairs.iter().filter(|r| r.is_count() != others) {
        one(t, repair, now)?;
    }
    Ok(())
}

fn one(t: &mut Tables<'_>, repair: &Repair, now: Timestamp) -> Result<()> {
    match repair {
        // Not of the store; done before it is opened.
        Repair::WriteSuperblocks => {}
        Repair::PutTree => drop(t.tree.insert(TREE, (TREE, 0))?),
        Repair::PutMetaRange { start, len } => drop(t.metarange.insert(start, len)?),
        Repair::SetCounter { name, value } => drop(t.counter.insert(*name, value)?),
        Repair::SetGroup { group, free: 0 } => drop(t.group.remove(group)?),
        Repair::SetGroup { group, free } => drop(t.group.insert(group, free)?),
        Repair::SetBlocks { ino, blocks } => change(t, *ino, |i| i.blocks = *blocks)?,
        Repair::SetLinks { ino, links } => change(t, *ino, |i| i.nlink = *links)?,
        Repair::SetParent { dir, parent } => change(t, *dir, |i| i.parent = InodeNo(*parent))?,
        Repair::SetNextCookie { dir, cookie } => change(t, *dir, |i| i.next_cookie = *cookie)?,
        Repair::MakeDirectory { dir } => make_directory(t, *dir, now)?,
        Repair::Reconnect { ino } => reconnect(t, *ino, now)?,
        Repair::RemoveOrphan { ino, kind } => drop(t.orphan.remove((TREE, *ino, *kind))?),
        Repair::RemoveEntry { dir, name } => remove_entry(t, *dir, name)?,
        Repair::PutEntry { dir, name, kind } => put_entry(t, *dir, name, *kind)?,
        Repair::RemoveCookie { dir, cookie } => drop(t.cookie.remove((TREE, *dir, *cookie))?),
        Repair::RemoveXattrs { ino } => remove_xattrs(t, *ino)?,
        Repair::AddFree { start, len } => add_free(t, *start, *len)?,
        Repair::TakeFree { start, len } => take_free(t, *start, *len)?,
        Repair::RemoveFreeRow { group, start } => drop(t.free.remove((*group, *start))?),
        Repair::TakeGrant { node, life, start, len } => take_grant(t, (*node, *life), *start, *len)?,
        Repair::SetRefcount { start, len, count } => set_refcount(t, *start, *len, *count)?,
        Repair::RemoveSession { node, life } => drop(t.session.remove((*node, *life))?),
        Repair::RemoveAnswer { node, life, table, slot } => drop(t.answer.remove((*node, *life, *table, *slot))?),
    }
    Ok(())
}

/// An inode that is there and can be read.
fn load(t: &Tables<'_>, ino: u64) -> Result<Option<Inode>> {
    Ok(t.inode.get((TREE, ino))?.and_then(|row| Inode::decode(row.value()).ok()))
}

fn put(t: &mut Tables<'_>, ino: u64, inode: &Inode) -> Result<()> {
    t.inode.insert((TREE, ino), inode.encode().as_slice())?;
    Ok(())
}

fn change(t: &mut Tables<'_>, ino: u64, f: impl FnOnce(&mut Inode)) -> Result<()> {
    if let Some(mut inode) = load(t, ino)? {
        f(&mut inode);
        put(t, ino, &inode)?;
    }
    Ok(())
}

/// The place behind the last one of a directory's listing.
fn next_cookie(t: &Tables<'_>, dir: u64) -> Result<u64> {
    let last = t.cookie.range((TREE, dir, 0)..=(TREE, dir, u64::MAX))?.next_back().transpose()?;
    Ok(last.map_or(FIRST_COOKIE, |(key, _)| key.value().2.saturating_add(1).max(FIRST_COOKIE)))
}

/// A new directory of whoever owns the root.
fn empty_directory(t: &Tables<'_>, now: Timestamp, permissions: u32) -> Result<Inode> {
    let (uid, gid) = load(t, InodeNo::ROOT.0)?.map_or((0, 0), |root| (root.uid, root.gid));
    Ok(Inode { nlink: 2, ..Inode::new(type_bits(FileType::Directory) | permissions, uid, gid, now) })
}

fn make_directory(t: &mut Tables<'_>, dir: u64, now: Timestamp) -> Result<()> {
    if t.inode.get((TREE, dir))?.is_some() {
        return Ok(());
    }
    let root = dir == InodeNo::ROOT.0;
    let parent = if root { InodeNo::ROOT } else { InodeNo(0) };
    let next_cookie = next_cookie(t, dir)?;
    let permissions = if root { 0o755 } else { 0o700 };
    let empty = empty_directory(t, now, permissions)?;
    put(t, dir, &Inode { parent, next_cookie, ..empty })
}

/// Adds a name; both directory and target are there.
fn add_entry(t: &mut Tables<'_>, dir: u64, name: &[u8], ino: u64, kind: u32) -> Result<()> {
    let Some(mut parent) = load(t, dir)? else { return Ok(()) };
    let cookie = parent.next_cookie.max(next_cookie(t, dir)?);
    t.dirent.insert((TREE, dir, name), (ino, kind, cookie))?;
    t.cookie.insert((TREE, dir, cookie), (ino, kind, name))?;
    parent.next_cookie = cookie + 1;
    put(t, dir, &parent)
}

fn reconnect(t: &mut Tables<'_>, ino: u64, now: Timestamp) -> Result<()> {
    let Some(mut inode) = load(t, ino)? else { return Ok(()) };
    let Some(dir) = lost_and_found(t, now)? else { return Ok(()) };
    let mut name = format!("#{ino}").into_bytes();
    while t.dirent.get((TREE, dir, name.as_slice()))?.is_some() {
        name.push(b'_');
    }
    add_entry(t, dir, &name, ino, inode.mode & S_IFMT)?;
    inode.flags &= !LINKABLE;
    if inode.is_dir() {
        inode.parent = InodeNo(dir);
        inode.nlink = inode.nlink.max(2);
        change(t, dir, |lost| lost.nlink = lost.nlink.saturating_add(1))?;
    } else {
        inode.nlink = 1;
    }
    put(t, ino, &inode)
}

/// The directory `lost+found` of the root, made if it is not there. `None` if something else has that name, or there is
/// no root: then nothing is reconnected.
fn lost_and_found(t: &mut Tables<'_>, now: Timestamp) -> Result<Option<u64>> {
    let root = InodeNo::ROOT.0;
    let there = t.dirent.get((TREE, root, LOST_AND_FOUND))?.map(|row| row.value().0);
    if let Some(ino) = there {
        return Ok(load(t, ino)?.filter(Inode::is_dir).map(|_| ino));
    }
    if load(t, root)?.is_none_or(|root| !root.is_dir()) {
        return Ok(None);
    }
    let last = t.inode.range((TREE, 0)..=(TREE, MAX_INO))?.next_back().transpose()?.map_or(root, |(k, _)| k.value().1);
    let reserved = t.counter.get(NEXT_INODE)?.map_or(0, |v| v.value());
    let ino = reserved.max(last + 1);
    t.counter.insert(NEXT_INODE, ino + 1)?;
    let empty = empty_directory(t, now, 0o700)?;
    put(t, ino, &Inode { parent: InodeNo::ROOT, ..empty })?;
    add_entry(t, root, LOST_AND_FOUND, ino, type_bits(FileType::Directory))?;
    change(t, root, |root| root.nlink = root.nlink.saturating_add(1))?;
    Ok(Some(ino))
}

fn remove_entry(t: &mut Tables<'_>, dir: u64, name: &[u8]) -> Result<()> {
    let cookie = t.dirent.remove((TREE, dir, name))?.map(|row| row.value().2);
    let Some(cookie) = cookie else { return Ok(()) };
    let own = t.cookie.get((TREE, dir, cookie))?.is_some_and(|row| row.value().2 == name);
    if own {
        t.cookie.remove((TREE, dir, cookie))?;
    }
    Ok(())
}

/// Both rows of a name that is there; at another place if its own is taken by another name, or is none.
fn put_entry(t: &mut Tables<'_>, dir: u64, name: &[u8], kind: u32) -> Result<()> {
    let Some((ino, _, cookie)) = t.dirent.get((TREE, dir, name))?.map(|row| row.value()) else { return Ok(()) };
    let taken = t.cookie.get((TREE, dir, cookie))?.is_some_and(|row| {
        let other = row.value().2;
        other != name
    });
    if taken || cookie < FIRST_COOKIE {
        return add_entry(t, dir, name, ino, kind);
    }
    t.dirent.insert((TREE, dir, name), (ino, kind, cookie))?;
    t.cookie.insert((TREE, dir, cookie), (ino, kind, name))?;
    Ok(())
}

fn remove_xattrs(t: &mut Tables<'_>, ino: u64) -> Result<()> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for row in t.xattr.range((TREE, ino, &b""[..])..(TREE, ino + 1, &b""[..]))? {
        names.push(row?.0.value().2.to_vec());
    }
    for name in &names {
        t.xattr.remove((TREE, ino, name.as_slice()))?;
    }
    Ok(())
}

fn add_free(t: &mut Tables<'_>, start: u64, len: u64) -> Result<()> {
    // The counts of the groups may be wrong by more than is added: they are set afterwards.
    let groups = start / GROUP_BLOCKS..=start.saturating_add(len).saturating_sub(1) / GROUP_BLOCKS;
    let mut counts = Vec::new();
    for group in groups {
        let group = space::group_of(group * GROUP_BLOCKS)?;
        counts.push((group, t.group.get(group)?.map(|v| v.value())));
        t.group.remove(group)?;
    }
    space::free(t, &mut State::default(), DiskRange { start: DiskBlock(start), len: BlockCount(len) })?;
    for (group, count) in counts {
        match count {
            Some(count) => drop(t.group.insert(group, count)?),
            None => drop(t.group.remove(group)?),
        }
    }
    Ok(())
}

/// What is left of a run on either side of what is taken.
fn rests(start: u64, end: u64, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
    [(start, end.min(from)), (start.max(to), end)].into_iter().filter(|(a, b)| a < b)
}

fn take_free(t: &mut Tables<'_>, from: u64, len: u64) -> Result<()> {
    let to = from.saturating_add(len);
    let mut hit = Vec::new();
    let group = |block: u64| u32::try_from(block / GROUP_BLOCKS).unwrap_or(u32::MAX);
    let groups = (group(from).saturating_sub(1), 0)..=(group(to), u64::MAX);
    // A run that is filed elsewhere, or longer than a group, is a finding of its own and goes whole.
    for row in t.free.range(groups)? {
        let (key, len) = row?;
        let ((group, start), len) = (key.value(), u64::from(len.value()));
        if start < to && start.saturating_add(len) > from {
            hit.push((group, start, start.saturating_add(len)));
        }
    }
    for (group, start, end) in hit {
        t.free.remove((group, start))?;
        for (a, b) in rests(start, end, from, to) {
            t.free.insert((group, a), u32::try_from(b - a).unwrap_or(u32::MAX))?;
        }
    }
    Ok(())
}

fn take_grant(t: &mut Tables<'_>, (node, life): (u8, u64), from: u64, len: u64) -> Result<()> {
    let to = from.saturating_add(len);
    let mut hit = Vec::new();
    for row in t.grant.range((node, life, 0)..=(node, life, u64::MAX))? {
        let (key, len) = row?;
        let (start, end) = (key.value().2, key.value().2.saturating_add(len.value()));
        if start < to && end > from {
            hit.push((start, end));
        }
    }
    for (start, end) in hit {
        t.grant.remove((node, life, start))?;
        for (a, b) in rests(start, end, from, to) {
            t.grant.insert((node, life, a), b - a)?;
        }
    }
    Ok(())
}

fn set_refcount(t: &mut Tables<'_>, from: u64, len: u64, count: u32) -> Result<()> {
    let to = from.saturating_add(len);
    let mut hit = Vec::new();
    for row in t.refcount.range(..to.max(from.saturating_add(1)))?.rev() {
        let (key, value) = row?;
        let (start, (len, n)) = (key.value(), value.value());
        let end = start.saturating_add(len.into());
        if end <= from && start != from {
            break;
        }
        hit.push((start, end, n));
    }
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    for (start, end, n) in hit {
        t.refcount.remove(start)?;
        for (a, b) in rests(start, end, from, to) {
            t.refcount.insert(a, (narrow(b - a), n))?;
        }
    }
    if count > 1 {
        t.refcount.insert(from, (narrow(len), count))?;
    }
    Ok(())
}
