//! Random operations on the store and on a reference in memory, in batches that are committed, dropped, or cut off by
//! the death of the node; then both must show the same, and every invariant must hold.

pub(crate) mod reference;

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::*;
use crate::proto::rename_flags::{EXCHANGE, NOREPLACE};
use crate::proto::{Clear, ClearInto, CommitBody, SetAttr};
use reference::{Ino, Kind, Outcome, Reference};

/// Batches of one run.
const BATCHES: usize = 60;

/// Splitmix64: the same seed, the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn name(&mut self) -> Vec<u8> {
        vec![b'a' + self.below(6) as u8]
    }

    /// Mostly the root and directories, sometimes what is none or is gone.
    fn dir(&mut self, model: &Reference) -> Ino {
        let dirs: Vec<Ino> = model.nodes.keys().copied().filter(|i| model.is_dir(*i)).collect();
        if self.below(12) == 0 { self.any(model) } else { self.pick(&dirs) }
    }

    fn any(&mut self, model: &Reference) -> Ino {
        let mut all: Vec<Ino> = model.nodes.keys().copied().collect();
        all.push(1 << 40);
        self.pick(&all)
    }
}

fn expect<T: std::fmt::Debug>(what: &str, expected: Outcome<()>, got: Result<T>) -> Option<T> {
    match (expected, got) {
        (Ok(()), Ok(out)) => Some(out),
        (Err(e), Err(g)) if g.errno() == Some(e.raw_os_error()) => None,
        (expected, got) => panic!("{what}: the reference says {expected:?}, the store {got:?}"),
    }
}

/// One operation on both.
fn step(r: &mut Random, m: &mut Reference, ops: &mut Ops<'_>) {
    let (dir, name) = (r.dir(m), r.name());
    match r.below(16) {
        0..=2 => make(m, ops, dir, &name, r.below(3)),
        3 => {
            let ino = r.any(m);
            expect("link", m.link(ino, dir, &name), ops.link(InodeNo(ino), InodeNo(dir), &name));
        }
        4 => {
            let open = m.open.clone();
            expect("unlink", m.unlink(dir, &name), ops.unlink(InodeNo(dir), &name, &|i| open.contains(&i.0)));
        }
        5 => {
            let open = m.open.clone();
            expect("rmdir", m.rmdir(dir, &name), ops.rmdir(InodeNo(dir), &name, &|i| open.contains(&i.0)));
        }
        6..=8 => {
            let (to, new_name, flags) = (r.dir(m), r.name(), r.pick(&[0, 0, NOREPLACE, EXCHANGE]));
            let what =
                Rename { parent: InodeNo(dir), name: &name, new_parent: InodeNo(to), new_name: &new_name, flags };
            let open = m.open.clone();
            let got = ops.rename(&what, &|i| open.contains(&i.0));
            expect("rename", m.rename((dir, &name), (to, &new_name), flags), got);
        }
        9 => {
            let (ino, size) = (r.any(m), r.below(40 * FS_BLOCK));
            let set = SetAttr { size: Some(size), ..SetAttr::default() };
            expect("setattr", m.truncate(ino, size), ops.setattr(InodeNo(ino), &set));
        }
        10 => fallocate(r, m, ops),
        11 => write(r, m, ops),
        12 | 13 => clear(r, m, ops),
        14 => {
            let ino = r.any(m);
            if m.nodes.contains_key(&ino) && ino != 1 {
                m.open.insert(ino);
            }
        }
        _ => {
            let open: Vec<Ino> = m.open.iter().copied().collect();
            if !open.is_empty() {
                let ino = r.pick(&open);
                m.close(ino);
                if !m.nodes.contains_key(&ino) {
                    while ops.reap(InodeNo(ino)).expect("reaps") == Reaped::More {}
                }
            }
        }
    }
}

fn make(m: &mut Reference, ops: &mut Ops<'_>, dir: Ino, name: &[u8], what: u64) {
    let expected = m.make(dir, name);
    let (kind, got) = match what {
        0 => (
            Kind::Dir { parent: dir, entries: BTreeMap::new() },
            ops.create(&node(InodeNo(dir), name, 0o040_755), true).map(|c| c.attr),
        ),
        1 => (Kind::Link { target: b"t".to_vec() }, ops.symlink(InodeNo(dir), name, b"t", 0, 0)),
        _ => (
            Kind::File { size: 0, blocks: BTreeMap::new() },
            ops.create(&node(InodeNo(dir), name, 0o100_644), true).map(|c| c.attr),
        ),
    };
    if let Some(attr) = expect("create", expected, got) {
        m.made(dir, name, attr.ino.0, kind);
    }
}

fn fallocate(r: &mut Random, m: &mut Reference, ops: &mut Ops<'_>) {
    let (ino, first, len) = (r.any(m), r.below(30), 1 + r.below(10));
    let expected = match m.nodes.get(&ino).map(|n| &n.kind) {
        None => Err(Errno::NOENT),
        Some(Kind::Dir { .. }) => Err(Errno::ISDIR),
        Some(Kind::Link { .. }) => Err(Errno::NODEV),
        Some(Kind::File { .. }) => Ok(()),
    };
    let got = ops.fallocate(InodeNo(ino), first * FS_BLOCK, len * FS_BLOCK, false);
    if expect("fallocate", expected, got).is_some() {
        let extents = ops.extents(InodeNo(ino), BlockRange::ALL).expect("readable");
        m.fallocated(ino, first, first + len, &extents);
    }
}

fn clear(r: &mut Random, m: &mut Reference, ops: &mut Ops<'_>) {
    let (ino, first, len) = (r.any(m), r.below(40), 1 + r.below(12));
    let (range, into) = (BlockRange::new(first, first + len), r.pick(&[ClearInto::Hole, ClearInto::Unwritten]));
    let got = ops.clear(&Clear { ino: InodeNo(ino), range, into });
    let upto = expect("clear", m.clear(ino, first..first + len, into == ClearInto::Hole), got);
    assert!(upto.is_none_or(|upto| upto == range.end), "a short range is one step");
}

/// A client writes: unwritten blocks where there are some, else new ones from its grant.
fn write(r: &mut Random, m: &mut Reference, ops: &mut Ops<'_>) {
    let who = client(1 + r.below(2) as u8);
    let files: Vec<Ino> =
        m.nodes.iter().filter(|(_, n)| matches!(n.kind, Kind::File { .. })).map(|(i, _)| *i).collect();
    if files.is_empty() {
        return;
    }
    let (ino, first, len) = (r.pick(&files), r.below(30), 1 + r.below(6));
    let range = BlockRange::new(first, first + len);
    let mut claims = ops.extents(InodeNo(ino), range).expect("readable");
    if claims.is_empty() {
        ops.grant(who, BlockCount(1 + r.below(50))).expect("space");
        let run = ops.grants(who).expect("readable")[0];
        let len = run.len.0.min(len);
        claims.push(Extent {
            file: FileBlock(first),
            disk: run.start,
            len: BlockCount(len),
            state: ExtentState::Written,
            shared: false,
        });
    }
    for claim in &mut claims {
        claim.state = ExtentState::Written;
    }
    let size = r.below(40 * FS_BLOCK);
    let body = CommitBody { extents: claims.clone(), size: Some(size), mtime: None, ..CommitBody::default() };
    expect("commit", m.commit(ino, &claims, size), ops.commit_mappings(who, InodeNo(ino), &body));
    if r.below(4) == 0 {
        let run = ops.grants(who).expect("readable");
        ops.return_grant(who, &run).expect("its own");
    }
}

/// Both show the same, from the root down and inode by inode.
fn compare(f: &Fixture, m: &Reference) {
    let view = f.view();
    assert_eq!(view.statfs().expect("readable").files, m.nodes.len() as u64);
    for (ino, n) in &m.nodes {
        let attr = view.getattr(InodeNo(*ino)).expect("there");
        assert_eq!(attr.nlink, n.nlink, "ino {ino}");
        match &n.kind {
            Kind::Dir { parent, entries } => {
                let listing = view.readdir(InodeNo(*ino), 0, u32::MAX, false).expect("a directory");
                let shown: BTreeMap<Vec<u8>, Ino> =
                    listing.entries.into_iter().skip(2).map(|e| (e.name, e.ino.0)).collect();
                assert_eq!(&shown, entries, "directory {ino}");
                if n.nlink > 0 {
                    assert_eq!(view.lookup(InodeNo(*ino), b"..").expect("there").ino.0, *parent);
                }
            }
            Kind::Link { target } => assert_eq!(&view.readlink(InodeNo(*ino)).expect("a link"), target),
            Kind::File { size, blocks } => {
                assert_eq!((attr.size, attr.blocks.0), (*size, blocks.len() as u64), "ino {ino}");
                let extents = view.extents(InodeNo(*ino), BlockRange::ALL).expect("readable");
                let written = |e: &Extent| e.state == ExtentState::Written;
                let shown: BTreeMap<u64, (u64, bool)> = extents
                    .iter()
                    .flat_map(|e| (0..e.len.0).map(move |i| (e.file.0 + i, (e.disk.0 + i, written(e)))))
                    .collect();
                assert_eq!(&shown, blocks, "ino {ino}");
            }
        }
    }
    f.must_be_clean();
}

/// What is known in memory is what a view shows. Then everything is looked at, last in a view of some batches before.
fn compare_known(f: &Fixture, m: &Reference, earlier: &Option<Arc<View>>) {
    let (view, recent) = (f.view(), f.store.recent());
    let dirs = || m.nodes.keys().map(|ino| InodeNo(*ino)).filter(|ino| m.is_dir(ino.0));
    let names = || dirs().flat_map(|dir| (b'a'..=b'f').map(move |c| (dir, [c])));
    for ino in (0..64).map(InodeNo) {
        assert!(recent.attr(ino).is_none_or(|attr| view.getattr(ino).is_ok_and(|a| a == attr)), "{ino}");
    }
    for (dir, name) in names() {
        let shown = view.lookup(dir, &name);
        assert!(f.known(dir, &name).is_none_or(|attr| shown.is_ok_and(|a| a == attr)), "{dir} {name:?}");
    }
    for view in [Some(&view), earlier.as_ref()].into_iter().flatten() {
        names().for_each(|(dir, name)| f.note(view, dir, &name));
    }
}

fn run(seed: u64) {
    let (mut f, mut m, mut r) = (Fixture::new(), Reference::new(), Random(seed));
    let mut earlier = None;
    f.session(client(1));
    f.session(client(2));
    for _ in 0..BATCHES {
        let mut next = m.clone();
        let mut txn = f.store.write().expect("begins");
        let ops = 1 + r.below(10);
        txn.run(NOW, |store| (0..ops).for_each(|_| step(&mut r, &mut next, store))).expect("runs");
        if r.below(8) == 0 {
            drop(txn);
        } else {
            txn.commit().expect("commits");
            m = next;
        }
        if r.below(10) == 0 {
            earlier = None;
            f = f.killed();
        }
        compare_known(&f, &m, &earlier);
        if r.below(3) == 0 {
            earlier = Some(f.view());
        }
        if r.below(6) == 0 {
            compare(&f, &m);
        }
    }
    compare(&f, &m);
}

#[test]
fn store_is_indistinguishable_from_the_reference() {
    for seed in 0..40 {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}
