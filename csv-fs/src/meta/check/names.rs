//! Names: entries and listings agree, every name leads to an inode, links are counted right, every directory lies below
//! the root.
//!
//! Inodes are judged a part at a time; for each part all names are read. What a directory is and where it lies is taken
//! from the names, not from the inode: an inode that says something else is one finding, and what lies below it none.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::Checker;
use super::finding::{Kind, Repair, ino};
use super::source::{Cursor, EntryRow};
use crate::meta::OrphanKind;
use crate::meta::error::Result;
use crate::meta::inode::{FIRST_COOKIE, S_IFMT};
use crate::meta::ops::MAX_INO;
use crate::meta::rows;
use crate::types::InodeNo;

const PART: &str = "names";
/// Where a repair gives a name to what has none, in the root.
pub(in crate::meta) const LOST_AND_FOUND: &[u8] = b"lost+found";
const ROOT: u64 = InodeNo::ROOT.0;
const S_IFDIR: u16 = 0o04;

/// An inode while its names are counted.
struct Node {
    ino: u64,
    /// As it says itself.
    parent: u64,
    /// The last directory that has a name for it.
    named_in: u64,
    links: u32,
    names: u32,
    subdirs: u32,
    /// The type bits, shifted down; 0 if the inode cannot be read, or cannot be.
    kind: u16,
    orphan: bool,
    /// It has entries.
    filled: bool,
}

const _: () = assert!(size_of::<Node>() == 40, "the limits count on it");

impl Node {
    fn is_dir(&self) -> bool {
        self.kind == S_IFDIR
    }
}

/// A part of the inodes: those from `from` up to `end`.
struct Window {
    from: u64,
    end: Option<u64>,
    nodes: Vec<Node>,
}

impl Window {
    fn find(&self, ino: u64) -> Option<usize> {
        self.nodes.binary_search_by_key(&ino, |n| n.ino).ok()
    }

    fn covers(&self, ino: u64) -> bool {
        ino >= self.from && self.end.is_none_or(|end| ino < end)
    }
}

pub(super) fn check(c: &mut Checker<'_>) -> Result<()> {
    let mut dirs: Vec<(u64, u64)> = Vec::new();
    let reconnects = reconnects(c)?;
    let mut from = 0;
    loop {
        let mut window = load(c, from)?;
        count(c, &mut window)?;
        for node in &window.nodes {
            judge(c, node, reconnects);
            if node.is_dir() && node.names > 0 && node.ino != ROOT {
                dirs.push((node.ino, node.named_in));
            }
        }
        if from == 0 {
            listings(c)?;
        }
        match window.end {
            Some(end) => from = end,
            None => return rings(c, &dirs),
        }
    }
}

/// Whether there is, or can be, a place for what has no name: the root and `lost+found` are directories, or will be.
fn reconnects(c: &Checker<'_>) -> Result<bool> {
    let may_be = |ino: u64| -> Result<bool> {
        let row = c.source.inode(ino)?;
        Ok(row.is_none_or(|row| row.inode.is_some_and(|inode| inode.is_dir())))
    };
    let place = c.source.entry(ROOT, LOST_AND_FOUND)?.map_or(ROOT, |entry| entry.ino);
    Ok(may_be(ROOT)? && may_be(place)?)
}

fn load(c: &mut Checker<'_>, from: u64) -> Result<Window> {
    let mut orphans = Cursor::new(c.source.orphans(from)?)?;
    let mut window = Window { from, end: None, nodes: Vec::new() };
    for row in c.source.inodes(from)? {
        let row = row?;
        if window.nodes.len() == c.limits.inodes {
            window.end = Some(row.ino);
            break;
        }
        let mut orphan = false;
        while let Some(o) = orphans.next_if(|o| o.ino <= row.ino)? {
            orphan |= o.ino == row.ino && o.kind == OrphanKind::Unlinked.byte();
        }
        // One that cannot be is said to be that, and nothing else.
        let inode = row.inode.as_ref().filter(|_| (1..=MAX_INO).contains(&row.ino));
        window.nodes.push(Node {
            ino: row.ino,
            parent: inode.map_or(0, |i| i.parent.0),
            named_in: 0,
            links: inode.map_or(0, |i| i.nlink),
            names: 0,
            subdirs: 0,
            kind: inode.map_or(0, |i| ((i.mode & S_IFMT) >> 12) as u16),
            orphan,
            filled: false,
        });
    }
    Ok(window)
}

/// Reads all names for one part of the inodes.
fn count(c: &mut Checker<'_>, window: &mut Window) -> Result<()> {
    c.begin(PART)?;
    let mut dir: Option<(u64, Option<usize>)> = None;
    for row in c.source.entries(None)? {
        let row = row?;
        c.row(PART)?;
        let here = match dir {
            Some((of, at)) if of == row.dir => at,
            _ => window.find(row.dir),
        };
        dir = Some((row.dir, here));
        let target = window.find(row.ino);
        if let Some(at) = here {
            let is_dir = match target {
                Some(target) => window.nodes[target].is_dir(),
                // Of another part, or of none: a name that leads to nothing keeps nobody's count up.
                None => row.kind >> 12 == u32::from(S_IFDIR) && is_directory(c, row.ino)?,
            };
            window.nodes[at].filled = true;
            window.nodes[at].subdirs += u32::from(is_dir);
        }
        match target {
            Some(at) => {
                let node = &mut window.nodes[at];
                node.names = node.names.saturating_add(1);
                node.named_in = row.dir;
                let kind = node.kind;
                if kind != 0 && u32::from(kind) << 12 != row.kind {
                    wrong_type(c, &row, kind);
                }
            }
            None if window.covers(row.ino) => {
                let what = format!("{} leads to ino {}, which is not there", shown(&row), row.ino);
                c.found(Kind::EntryDangling, what, Repair::RemoveEntry { dir: row.dir, name: row.name });
            }
            None => {}
        }
    }
    Ok(())
}

fn is_directory(c: &Checker<'_>, ino: u64) -> Result<bool> {
    Ok(c.source.inode(ino)?.and_then(|row| row.inode).is_some_and(|inode| inode.is_dir()))
}

fn wrong_type(c: &mut Checker<'_>, row: &EntryRow, kind: u16) {
    let kind = u32::from(kind) << 12;
    let what = format!("{} says type {:o}, but {} is of type {kind:o}", shown(row), row.kind, ino(row.ino));
    c.found(Kind::EntryType, what, Repair::PutEntry { dir: row.dir, name: row.name.clone(), kind });
}

fn shown(row: &EntryRow) -> String {
    format!("name \"{}\" of directory {}", String::from_utf8_lossy(&row.name), row.dir)
}

/// An inode, once all its names were counted.
fn judge(c: &mut Checker<'_>, node: &Node, reconnects: bool) {
    let n = node.ino;
    if node.kind == 0 {
        return;
    }
    // The root needs none.
    let named = if n == ROOT { 1 } else { node.names };
    match (named, node.orphan) {
        (0, false) => {
            let what = format!("{} has no name and is no orphan", ino(n));
            return c.found(Kind::Unreachable, what, reconnects.then_some(Repair::Reconnect { ino: n }));
        }
        (0, true) if node.filled => {
            let what = format!("directory {n} is to be freed and has entries");
            let repair = Repair::RemoveOrphan { ino: n, kind: OrphanKind::Unlinked.byte() };
            return c.found(Kind::OrphanNotEmpty, what, repair);
        }
        (1.., true) => {
            let what = format!("{} is to be freed and has a name", ino(n));
            c.found(Kind::OrphanNamed, what, Repair::RemoveOrphan { ino: n, kind: OrphanKind::Unlinked.byte() });
        }
        _ => {}
    }
    if node.is_dir() {
        place(c, node);
    }
    let links = match (node.is_dir(), named, node.orphan) {
        (true, 0, true) => 0,
        (true, ..) => node.subdirs.saturating_add(2),
        (false, names, _) => names,
    };
    if node.links != links {
        let what = format!("{} has link count {}, but should have {links}", ino(n), node.links);
        c.found(Kind::LinkCount, what, Repair::SetLinks { ino: n, links });
    }
}

/// Whether a directory has one name, and says that it lies where that is.
fn place(c: &mut Checker<'_>, node: &Node) {
    let n = node.ino;
    let (names, place) = if n == ROOT { (0, ROOT) } else { (1, node.named_in) };
    if node.names > names {
        c.found(Kind::DirectoryNames, format!("{} is a directory with {} names", ino(n), node.names), None);
    } else if node.names == names && node.parent != place {
        let what = format!("directory {n} says that it lies in {}, but lies in {place}", node.parent);
        c.found(Kind::Parent, what, Repair::SetParent { dir: n, parent: place });
    }
}

/// What is known of a directory while its rows pass.
struct Passing {
    dir: u64,
    entries: u64,
    places: u64,
    last: u64,
    /// The sums of both sides' hashes: the order is another on each.
    sums: (u64, u64),
}

fn hash(row: &EntryRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    (row.ino, row.kind, row.cookie, &row.name).hash(&mut hasher);
    hasher.finish()
}

/// Names and listing of each directory hold the same rows; both tables are read side by side.
fn listings(c: &mut Checker<'_>) -> Result<()> {
    c.begin(PART)?;
    let source = c.source;
    let mut entries = Cursor::new(source.entries(None)?)?;
    let mut places = Cursor::new(source.cookies(None)?)?;
    let rootless = source.inode(ROOT)?.is_none();
    if rootless && [entries.peek(), places.peek()].into_iter().flatten().all(|row| row.dir != ROOT) {
        c.found(Kind::NotADirectory, "there is no root directory", Repair::MakeDirectory { dir: ROOT });
    }
    while let Some(dir) = entries.peek().map(|e| e.dir).into_iter().chain(places.peek().map(|p| p.dir)).min() {
        let mut passing = Passing { dir, entries: 0, places: 0, last: 0, sums: (0, 0) };
        while let Some(e) = entries.next_if(|e| e.dir == dir)? {
            c.row(PART)?;
            c.report.entries += 1;
            c.name_bytes += e.name.len() as u64;
            passing.entries += 1;
            passing.sums.0 = passing.sums.0.wrapping_add(hash(&e));
            if rows::check_name(&e.name).is_err() || matches!(&e.name[..], b"." | b"..") {
                c.found(Kind::EntryName, format!("{} is none that can be", shown(&e)), None);
            }
        }
        while let Some(p) = places.next_if(|p| p.dir == dir)? {
            c.row(PART)?;
            passing.places += 1;
            passing.last = p.cookie;
            passing.sums.1 = passing.sums.1.wrapping_add(hash(&p));
        }
        directory(c, &passing)?;
    }
    Ok(())
}

fn directory(c: &mut Checker<'_>, p: &Passing) -> Result<()> {
    let dir = p.dir;
    match c.source.inode(dir)? {
        None => {
            let what = format!("{} names lie in directory {dir}, which is not there", p.entries.max(p.places));
            c.found(Kind::NotADirectory, what, Repair::MakeDirectory { dir });
        }
        Some(row) => match row.inode {
            Some(inode) if !inode.is_dir() => {
                let what = format!("{} names lie in {}, which is no directory", p.entries.max(p.places), ino(dir));
                c.found(Kind::NotADirectory, what, None);
            }
            Some(inode) if p.places > 0 && p.last >= inode.next_cookie => {
                let what = format!("directory {dir} gives place {} next, but has {}", inode.next_cookie, p.last);
                c.found(Kind::NextCookie, what, Repair::SetNextCookie { dir, cookie: p.last.saturating_add(1) });
            }
            _ => {}
        },
    }
    if p.sums.0 == p.sums.1 && p.entries == p.places { Ok(()) } else { differences(c, dir) }
}

/// Every row of the one side without its twin on the other.
fn differences(c: &mut Checker<'_>, dir: u64) -> Result<()> {
    let source = c.source;
    for row in source.entries(Some(dir))? {
        let row = row?;
        c.row(PART)?;
        let twin = source.cookie(dir, row.cookie)?;
        if twin.as_ref() != Some(&row) || row.cookie < FIRST_COOKIE {
            let what = format!("{} is not in the listing at its place {}", shown(&row), row.cookie);
            c.found(Kind::Listing, what, Repair::PutEntry { dir, name: row.name, kind: row.kind });
        }
    }
    for row in source.cookies(Some(dir))? {
        let row = row?;
        c.row(PART)?;
        // A name that is there under another place is said above.
        if source.entry(dir, &row.name)?.is_none_or(|e| e.cookie != row.cookie) {
            let what = format!("place {} in the listing of directory {dir} shows what is no name", row.cookie);
            c.found(Kind::Listing, what, Repair::RemoveCookie { dir, cookie: row.cookie });
        }
    }
    Ok(())
}

/// Directories that lie in one another. `dirs`: each that has a name, with the directory of that name, in order.
fn rings(c: &mut Checker<'_>, dirs: &[(u64, u64)]) -> Result<()> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Seen {
        Never,
        Now,
        Before,
    }
    c.begin("directories")?;
    let find = |ino: u64| dirs.binary_search_by_key(&ino, |d| d.0).ok();
    let mut seen = vec![Seen::Never; dirs.len()];
    let mut path = Vec::new();
    for start in 0..dirs.len() {
        c.row("directories")?;
        let mut at = Some(start);
        while let Some(here) = at.filter(|here| seen[*here] == Seen::Never) {
            seen[here] = Seen::Now;
            path.push(here);
            at = find(dirs[here].1);
        }
        if let Some(first) = at.filter(|here| seen[*here] == Seen::Now) {
            let from = path.iter().position(|p| *p == first).unwrap_or(0);
            let ring: Vec<String> = path[from..].iter().take(8).map(|p| dirs[*p].0.to_string()).collect();
            let what = format!("directories {} lie in one another, and not below the root", ring.join(", "));
            c.found(Kind::Ring, what, None);
        }
        for here in path.drain(..) {
            seen[here] = Seen::Before;
        }
    }
    Ok(())
}
