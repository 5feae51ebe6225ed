//! The damages: each changes the rows of one thing, and whatever counts it, so that nothing else is wrong.

use redb::ReadableTable;

use super::Sample;
use crate::meta::check::Kind;
use crate::meta::inode::Inode;
use crate::meta::ops::Ops;
use crate::meta::rows;
use crate::meta::space::GROUP_BLOCKS;
use crate::meta::tables::TREE;
use crate::types::InodeNo;

pub(super) struct Damage {
    pub(super) kind: Kind,
    pub(super) repaired: bool,
    pub(super) done: fn(&mut Ops<'_>, &Sample),
}

const ROOT: u64 = 1;
const FILE: u32 = 0o100_000;
const DIR: u32 = 0o040_000;

fn inode(ops: &Ops<'_>, ino: u64) -> Inode {
    rows::inode(&ops.t, InodeNo(ino)).expect("there")
}

fn put(ops: &mut Ops<'_>, ino: u64, inode: &Inode) {
    ops.t.inode.insert((TREE, ino), inode.encode().as_slice()).expect("inserts");
}

fn change(ops: &mut Ops<'_>, ino: u64, f: impl FnOnce(&mut Inode)) {
    let mut changed = inode(ops, ino);
    f(&mut changed);
    put(ops, ino, &changed);
}

/// Adds a name, with everything that counts names.
fn name(ops: &mut Ops<'_>, dir: u64, name: &[u8], ino: u64, kind: u32) {
    let cookie = inode(ops, dir).next_cookie;
    change(ops, dir, |d| d.next_cookie += 1);
    ops.t.dirent.insert((TREE, dir, name), (ino, kind, cookie)).expect("inserts");
    ops.t.cookie.insert((TREE, dir, cookie), (ino, kind, name)).expect("inserts");
    ops.s.name_bytes += name.len() as u64;
}

/// Takes a name away, likewise.
fn unname(ops: &mut Ops<'_>, dir: u64, name: &[u8]) {
    let (_, _, cookie) = ops.t.dirent.remove((TREE, dir, name)).expect("removes").expect("there").value();
    ops.t.cookie.remove((TREE, dir, cookie)).expect("removes");
    ops.s.name_bytes -= name.len() as u64;
}

fn new_dir(ops: &mut Ops<'_>, ino: u64, parent: u64, links: u32) {
    let like = inode(ops, ROOT);
    put(ops, ino, &Inode { parent: InodeNo(parent), nlink: links, next_cookie: 3, ..like });
    ops.s.inodes += 1;
}

fn new_file(ops: &mut Ops<'_>, ino: u64, links: u32) {
    let now = ops.now();
    put(ops, ino, &Inode { nlink: links, ..Inode::new(FILE | 0o644, 0, 0, now) });
    ops.s.inodes += 1;
}

/// The extent of a file at a file block.
fn extent(ops: &Ops<'_>, ino: u64, file: u64) -> (u64, u32, u8) {
    ops.t.extent.get((TREE, ino, file)).expect("readable").expect("there").value()
}

fn map(ops: &mut Ops<'_>, ino: u64, file: u64, disk: u64) {
    ops.t.extent.insert((TREE, ino, file), (disk, 1, 0)).expect("inserts");
    change(ops, ino, |i| i.blocks += 1);
}

/// The first run of free blocks: group, start, length.
fn first_free(ops: &Ops<'_>) -> (u32, u64, u32) {
    let row = ops.t.free.first().expect("readable").expect("some");
    let ((group, start), len) = (row.0.value(), row.1.value());
    (group, start, len)
}

/// The free space of a group became so much more.
fn recount(ops: &mut Ops<'_>, group: u32, by: i64) {
    let count = i64::from(ops.t.group.get(group).expect("readable").map_or(0, |v| v.value())) + by;
    ops.t.group.insert(group, u32::try_from(count).expect("fits")).expect("inserts");
    ops.s.free = ops.s.free.checked_add_signed(by).expect("fits");
}

/// Takes the first free blocks, so that they are nobody's.
fn lose(ops: &mut Ops<'_>, blocks: u32) -> u64 {
    let (group, start, len) = first_free(ops);
    ops.t.free.remove((group, start)).expect("removes");
    ops.t.free.insert((group, start + u64::from(blocks)), len - blocks).expect("inserts");
    recount(ops, group, -i64::from(blocks));
    start
}

const fn repaired(kind: Kind, done: fn(&mut Ops<'_>, &Sample)) -> Damage {
    Damage { kind, repaired: true, done }
}

const fn left(kind: Kind, done: fn(&mut Ops<'_>, &Sample)) -> Damage {
    Damage { kind, repaired: false, done }
}

pub(super) const DAMAGES: &[Damage] = &[
    left(Kind::SessionSlot, |ops, _| {
        let who = super::client(1);
        let session = ops.session(who).expect("readable").expect("there");
        ops.put_session(&crate::meta::Session { fence_gen: block::shared::FenceGen(9), ..session }).expect("puts");
    }),
    left(Kind::Checkpoint, |ops, _| drop(ops.t.counter.remove("checkpoint_chance").expect("removes"))),
    repaired(Kind::Tree, |ops, _| drop(ops.t.tree.remove(TREE).expect("removes"))),
    left(Kind::Tree, |ops, _| drop(ops.t.tree.insert(3, (0, 0)).expect("inserts"))),
    left(Kind::Tree, |ops, _| drop(ops.t.orphan.insert((2, 9, 0), 0).expect("inserts"))),
    repaired(Kind::MetaRange, |ops, _| {
        let last = ops.t.metarange.last().expect("readable").expect("some").0.value();
        ops.t.metarange.remove(last).expect("removes");
    }),
    left(Kind::MetaRange, |ops, _| drop(ops.t.metarange.insert(5, 10).expect("inserts"))),
    repaired(Kind::Counter, |ops, _| ops.s.free += 1),
    repaired(Kind::Counter, |ops, _| ops.s.granted -= 1),
    repaired(Kind::Counter, |ops, _| ops.s.inodes += 1),
    repaired(Kind::Counter, |ops, _| ops.s.name_bytes += 1),
    repaired(Kind::NextInode, |ops, _| drop(ops.t.counter.insert("inodes_reserved", 3).expect("inserts"))),
    repaired(Kind::NextInode, |ops, _| drop(ops.t.counter.insert("inodes_reserved", 1 << 50).expect("inserts"))),
    left(Kind::InodeRow, |ops, s| drop(ops.t.inode.insert((TREE, s.deep.0), &b"abc"[..]).expect("inserts"))),
    left(Kind::InodeFields, |ops, s| change(ops, s.file.0, |i| i.mtime.nanos = 1_000_000_000)),
    left(Kind::InodeFields, |ops, s| change(ops, s.file.0, |i| i.flags = 4)),
    left(Kind::InodeFields, |ops, s| change(ops, s.file.0, |i| i.target = b"x".to_vec())),
    left(Kind::InodeFields, |ops, s| change(ops, s.file.0, |i| i.size = u64::MAX)),
    repaired(Kind::BlockCount, |ops, s| change(ops, s.file.0, |i| i.blocks += 1)),
    left(Kind::Extent, |ops, s| {
        let (disk, len, _) = extent(ops, s.file.0, 0);
        ops.t.extent.insert((TREE, s.file.0, 0), (disk, len, 6)).expect("inserts");
    }),
    left(Kind::ExtentOverlap, |ops, s| {
        let value = extent(ops, s.file.0, 10);
        ops.t.extent.remove((TREE, s.file.0, 10)).expect("removes");
        ops.t.extent.insert((TREE, s.file.0, 1), value).expect("inserts");
    }),
    left(Kind::ExtentOwner, |ops, s| {
        let value = extent(ops, s.deep.0, 0);
        ops.t.extent.remove((TREE, s.deep.0, 0)).expect("removes");
        ops.t.extent.insert((TREE, s.dir.0, 0), value).expect("inserts");
        change(ops, s.deep.0, |i| i.blocks -= 1);
    }),
    left(Kind::ExtentOwner, |ops, s| {
        let value = extent(ops, s.deep.0, 0);
        ops.t.extent.remove((TREE, s.deep.0, 0)).expect("removes");
        ops.t.extent.insert((TREE, 900, 0), value).expect("inserts");
        change(ops, s.deep.0, |i| i.blocks -= 1);
    }),
    left(Kind::Xattr, |ops, s| drop(ops.t.xattr.insert((TREE, s.file.0, &b"bogus"[..]), &b"1"[..]).expect("inserts"))),
    left(Kind::Xattr, |ops, s| {
        for n in 0..17 {
            let name = format!("user.{n}");
            ops.t.xattr.insert((TREE, s.file.0, name.as_bytes()), vec![0; 65_536].as_slice()).expect("inserts");
        }
    }),
    repaired(Kind::XattrOwner, |ops, _| {
        for name in [&b"user.a"[..], b"user.b"] {
            ops.t.xattr.insert((TREE, 900, name), &b"1"[..]).expect("inserts");
        }
    }),
    left(Kind::Acl, |ops, s| {
        let name = &b"system.posix_acl_access"[..];
        ops.t.xattr.insert((TREE, s.file.0, name), &b"none"[..]).expect("inserts");
    }),
    left(Kind::Acl, |ops, s| {
        // user::7, user:5:6, group::5, mask::6, other::1, beside a mode of 644.
        let entries = [(1_u16, 7_u16, u32::MAX), (2, 6, 5), (4, 5, u32::MAX), (16, 6, u32::MAX), (32, 1, u32::MAX)];
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            list.extend_from_slice(&tag.to_le_bytes());
            list.extend_from_slice(&rights.to_le_bytes());
            list.extend_from_slice(&id.to_le_bytes());
        }
        let name = &b"system.posix_acl_access"[..];
        ops.t.xattr.insert((TREE, s.file.0, name), list.as_slice()).expect("inserts");
    }),
    repaired(Kind::Orphan, |ops, _| drop(ops.t.orphan.insert((TREE, 900, 0), 0).expect("inserts"))),
    repaired(Kind::Orphan, |ops, s| drop(ops.t.orphan.insert((TREE, s.file.0, 7), 0).expect("inserts"))),
    repaired(Kind::Orphan, |ops, s| drop(ops.t.orphan.insert((TREE, s.dir.0, 1), 0).expect("inserts"))),
    repaired(Kind::OrphanNamed, |ops, s| drop(ops.t.orphan.insert((TREE, s.file.0, 0), 0).expect("inserts"))),
    repaired(Kind::OrphanNotEmpty, |ops, s| {
        new_dir(ops, 900, s.dir.0, 0);
        ops.t.orphan.insert((TREE, 900, 0), 0).expect("inserts");
        new_file(ops, 901, 1);
        name(ops, 900, b"kept", 901, FILE);
    }),
    repaired(Kind::Unreachable, |ops, _| unname(ops, ROOT, b"needle-in-the-metadata")),
    repaired(Kind::Unreachable, |ops, _| new_file(ops, 900, 0)),
    repaired(Kind::Unreachable, |ops, s| {
        unname(ops, s.dir.0, b"inner");
        change(ops, s.dir.0, |d| d.nlink -= 1);
    }),
    repaired(Kind::LinkCount, |ops, s| change(ops, s.deep.0, |i| i.nlink = 9)),
    repaired(Kind::LinkCount, |ops, _| change(ops, ROOT, |i| i.nlink += 1)),
    repaired(Kind::Parent, |ops, s| change(ops, s.inner.0, |i| i.parent = InodeNo::ROOT)),
    left(Kind::DirectoryNames, |ops, s| {
        name(ops, ROOT, b"twice", s.inner.0, DIR);
        change(ops, ROOT, |d| d.nlink += 1);
    }),
    left(Kind::Ring, |ops, s| {
        unname(ops, ROOT, b"d");
        change(ops, ROOT, |d| d.nlink -= 1);
        name(ops, s.inner.0, b"d", s.dir.0, DIR);
        change(ops, s.inner.0, |d| d.nlink += 1);
        change(ops, s.dir.0, |d| d.parent = s.inner);
    }),
    repaired(Kind::NotADirectory, |ops, s| {
        unname(ops, s.dir.0, b"inner");
        change(ops, s.dir.0, |d| d.nlink -= 1);
        ops.t.inode.remove((TREE, s.inner.0)).expect("removes");
        ops.s.inodes -= 1;
    }),
    left(Kind::NotADirectory, |ops, s| {
        change(ops, s.file.0, |i| i.next_cookie = 3);
        new_file(ops, 900, 1);
        name(ops, s.file.0, b"inside", 900, FILE);
    }),
    repaired(Kind::NotADirectory, |ops, _| {
        ops.t.inode.remove((TREE, ROOT)).expect("removes");
        ops.s.inodes -= 1;
    }),
    repaired(Kind::EntryDangling, |ops, s| name(ops, s.dir.0, b"ghost", 900, FILE)),
    repaired(Kind::EntryDangling, |ops, s| name(ops, s.dir.0, b"ghost", 900, DIR)),
    repaired(Kind::EntryType, |ops, s| {
        let found = ops.t.dirent.get((TREE, s.inner.0, &b"deep"[..])).expect("readable");
        let (ino, _, cookie) = found.expect("there").value();
        ops.t.dirent.insert((TREE, s.inner.0, &b"deep"[..]), (ino, DIR, cookie)).expect("inserts");
        ops.t.cookie.insert((TREE, s.inner.0, cookie), (ino, DIR, &b"deep"[..])).expect("inserts");
    }),
    left(Kind::EntryName, |ops, s| {
        name(ops, s.dir.0, b"a/b", s.deep.0, FILE);
        change(ops, s.deep.0, |i| i.nlink += 1);
    }),
    repaired(Kind::Listing, |ops, s| drop(ops.t.cookie.remove((TREE, s.inner.0, 3)).expect("removes"))),
    repaired(Kind::Listing, |ops, s| {
        change(ops, s.inner.0, |d| d.next_cookie = 100);
        ops.t.cookie.insert((TREE, s.inner.0, 50), (s.deep.0, FILE, &b"nobody"[..])).expect("inserts");
    }),
    repaired(Kind::NextCookie, |ops, s| change(ops, s.inner.0, |d| d.next_cookie = 3)),
    repaired(Kind::BlockLost, |ops, _| {
        lose(ops, 3);
    }),
    repaired(Kind::FreeInUse, |ops, s| {
        let (disk, ..) = extent(ops, s.file.0, 0);
        let group = u32::try_from(disk / GROUP_BLOCKS).expect("fits");
        ops.t.free.insert((group, disk), 1).expect("inserts");
        recount(ops, group, 1);
    }),
    repaired(Kind::FreeInUse, |ops, _| {
        ops.t.free.insert((0, 7), 2).expect("inserts");
        recount(ops, 0, 2);
    }),
    repaired(Kind::FreeInUse, |ops, _| {
        let (group, start, _) = first_free(ops);
        ops.t.free.insert((group, start + 2), 2).expect("inserts");
        recount(ops, group, 2);
    }),
    repaired(Kind::GrantInUse, |ops, s| {
        let (disk, ..) = extent(ops, s.file.0, 0);
        ops.t.grant.insert((1, 10, disk + 1), 1).expect("inserts");
        ops.s.granted += 1;
    }),
    repaired(Kind::MappedTwice, |ops, s| {
        let (disk, ..) = extent(ops, s.file.0, 0);
        map(ops, s.deep.0, 20, disk);
    }),
    left(Kind::MappedReserved, |ops, s| map(ops, s.deep.0, 20, 2)),
    left(Kind::OutsideVolume, |ops, s| map(ops, s.deep.0, 20, 1 << 30)),
    repaired(Kind::OutsideVolume, |ops, _| {
        ops.t.grant.insert((1, 10, 1 << 30), 4).expect("inserts");
        ops.s.granted += 4;
    }),
    repaired(Kind::Refcount, |ops, s| {
        let (disk, len, _) = extent(ops, s.file.0, 0);
        ops.t.refcount.insert(disk, (len, 2)).expect("inserts");
    }),
    repaired(Kind::Refcount, |ops, s| {
        let (disk, ..) = extent(ops, s.file.0, 0);
        map(ops, s.deep.0, 20, disk);
        ops.t.refcount.insert(disk, (1, 3)).expect("inserts");
    }),
    repaired(Kind::Refcount, |ops, s| {
        let (disk, ..) = extent(ops, s.file.0, 0);
        ops.t.refcount.insert(disk, (1, 1)).expect("inserts");
    }),
    repaired(Kind::FreeRun, |ops, _| {
        let (group, start, len) = first_free(ops);
        ops.t.free.insert((group, start), 5).expect("inserts");
        ops.t.free.insert((group, start + 5), len - 5).expect("inserts");
    }),
    repaired(Kind::GroupCount, |ops, _| {
        let (group, ..) = first_free(ops);
        let count = ops.t.group.get(group).expect("readable").expect("there").value();
        ops.t.group.insert(group, count - 1).expect("inserts");
    }),
    repaired(Kind::GroupCount, |ops, _| drop(ops.t.group.insert(77, 1).expect("inserts"))),
    repaired(Kind::Session, |ops, _| drop(ops.t.session.insert((9, 9), &b"?"[..]).expect("inserts"))),
    repaired(Kind::GrantOwner, |ops, _| {
        let start = lose(ops, 4);
        ops.t.grant.insert((5, 5, start), 4).expect("inserts");
        ops.s.granted += 4;
    }),
    repaired(Kind::Answer, |ops, _| drop(ops.t.answer.insert((1, 10, 0, 5), &b"?"[..]).expect("inserts"))),
    repaired(Kind::Answer, |ops, _| {
        let good = ops.t.answer.first().expect("readable").expect("some").1.value().to_vec();
        ops.t.answer.insert((1, 10, 1, 8), good.as_slice()).expect("inserts");
    }),
    repaired(Kind::AnswerOwner, |ops, _| {
        let good = ops.t.answer.first().expect("readable").expect("some").1.value().to_vec();
        ops.t.answer.insert((5, 5, 0, 0), good.as_slice()).expect("inserts");
    }),
];
