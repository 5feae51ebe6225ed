//! Names, links, cookies, orphans; and that every directory hangs on the root.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

use super::{Report, inodes};
use crate::meta::OrphanKind;
use crate::meta::error::Result;
use crate::meta::inode::{FIRST_COOKIE, Inode, S_IFMT};
use crate::meta::tables::{Access, ReadTables};
use crate::types::InodeNo;

/// What the entries say about one inode.
#[derive(Default)]
struct Seen {
    names: u64,
    subdirs: u64,
    parent: u64,
}

pub(super) fn check(t: &ReadTables, report: &mut Report) -> Result<()> {
    let inodes: BTreeMap<u64, Inode> = inodes(t)?.into_iter().collect();
    report.inodes = inodes.len() as u64;
    let seen = entries(t, &inodes, report)?;
    cookies(t, report)?;
    let orphans = orphans(t, &inodes, report)?;
    for (ino, inode) in &inodes {
        let seen = seen.get(ino);
        links(*ino, inode, seen.unwrap_or(&Seen::default()), report);
        let nameless = inode.nlink == 0;
        report.unless(nameless == orphans.contains(ino), || {
            format!("ino {ino} has {} links, but is{} an orphan", inode.nlink, if nameless { " not" } else { "" })
        });
    }
    reach(&inodes, report);
    Ok(())
}

fn entries(t: &ReadTables, inodes: &BTreeMap<u64, Inode>, report: &mut Report) -> Result<BTreeMap<u64, Seen>> {
    let mut seen: BTreeMap<u64, Seen> = BTreeMap::new();
    let mut name_bytes = 0;
    for row in t.dirent().iter()? {
        let (key, value) = row?;
        let ((tree, dir, name), (ino, kind, cookie)) = (key.value(), value.value());
        report.entries += 1;
        name_bytes += name.len() as u64;
        let shown = || format!("entry \"{}\" of directory {dir}", String::from_utf8_lossy(name));
        let Some(inode) = inodes.get(&ino) else {
            report.problem(format!("{} names ino {ino}, which is not there", shown()));
            continue;
        };
        report.unless(inode.mode & S_IFMT == kind, || {
            format!("{} says type {kind:o}, its inode {:o}", shown(), inode.mode)
        });
        let twin = t.cookie().get((tree, dir, cookie))?;
        report.unless(twin.is_some_and(|c| c.value() == (ino, kind, name)), || {
            format!("{} and its cookie {cookie} do not say the same", shown())
        });
        match inodes.get(&dir) {
            Some(d) if d.is_dir() => report.unless((FIRST_COOKIE..d.next_cookie).contains(&cookie), || {
                format!("{} has cookie {cookie}, which was never given out", shown())
            }),
            _ => report.problem(format!("{} lies in something that is no directory", shown())),
        }
        let of = seen.entry(ino).or_default();
        of.names += 1;
        of.parent = dir;
        if inode.is_dir() {
            seen.entry(dir).or_default().subdirs += 1;
        }
    }
    let counted = t.counter().get("name_bytes")?.map_or(0, |v| v.value());
    report
        .unless(counted == name_bytes, || format!("the count of name bytes is {counted}, but there are {name_bytes}"));
    Ok(seen)
}

/// Every cookie row has its entry. (Uniqueness is the key's.)
fn cookies(t: &ReadTables, report: &mut Report) -> Result<()> {
    for row in t.cookie().iter()? {
        let (key, value) = row?;
        let ((tree, dir, cookie), (_, _, name)) = (key.value(), value.value());
        let entry = t.dirent().get((tree, dir, name))?;
        report.unless(entry.is_some_and(|e| e.value().2 == cookie), || {
            format!("cookie {cookie} of directory {dir} has no entry")
        });
    }
    Ok(())
}

/// The inodes without a name that the orphan table knows.
fn orphans(t: &ReadTables, inodes: &BTreeMap<u64, Inode>, report: &mut Report) -> Result<BTreeSet<u64>> {
    let mut unlinked = BTreeSet::new();
    for row in t.orphan().iter()? {
        let (_, ino, kind) = row?.0.value();
        report.unless(inodes.contains_key(&ino), || format!("orphan {ino} is not there"));
        if OrphanKind::from_byte(kind)? == OrphanKind::Unlinked {
            unlinked.insert(ino);
        }
    }
    Ok(unlinked)
}

fn links(ino: u64, inode: &Inode, seen: &Seen, report: &mut Report) {
    let is_root = ino == InodeNo::ROOT.0;
    let expected = match inode.is_dir() {
        true if inode.nlink == 0 => 0,
        true => 2 + seen.subdirs,
        false => seen.names,
    };
    report.unless(u64::from(inode.nlink) == expected, || {
        format!("ino {ino} has link count {}, but should have {expected}", inode.nlink)
    });
    if inode.is_dir() && inode.nlink > 0 {
        let names = u64::from(!is_root);
        report.unless(seen.names == names, || format!("directory {ino} has {} names", seen.names));
        let parent = if is_root { ino } else { seen.parent };
        report.unless(inode.parent.0 == parent, || {
            format!("directory {ino} says its parent is {}, but it lies in {parent}", inode.parent.0)
        });
    }
    if inode.nlink == 0 {
        report.unless(seen.names == 0 && seen.subdirs == 0, || {
            format!("ino {ino} has no links, but names or subdirectories")
        });
    }
}

/// Every directory reaches the root by its parents, without a ring.
fn reach(inodes: &BTreeMap<u64, Inode>, report: &mut Report) {
    let mut good: BTreeSet<u64> = BTreeSet::from([InodeNo::ROOT.0]);
    report.unless(inodes.contains_key(&InodeNo::ROOT.0), || "there is no root directory".to_owned());
    for (ino, _) in inodes.iter().filter(|(_, i)| i.is_dir() && i.nlink > 0) {
        let mut path = Vec::new();
        let mut at = *ino;
        while !good.contains(&at) {
            let Some(inode) = inodes.get(&at).filter(|_| path.len() <= inodes.len()) else {
                report.problem(format!("directory {ino} is not reached from the root"));
                break;
            };
            path.push(at);
            at = inode.parent.0;
        }
        if good.contains(&at) {
            good.extend(path);
        }
    }
}
