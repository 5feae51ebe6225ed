//! Large directories: listed page by page while names come and go.

use super::*;

/// What one page of a listing holds, as the kernel asks for it.
const PAGE: u32 = 65_536;
/// Names made in one transaction.
const BATCH: usize = 1000;

fn stays(n: usize) -> String {
    format!("stays-{n:07}")
}

fn make(f: &Fixture, dir: InodeNo, names: usize) {
    for first in (0..names).step_by(BATCH) {
        f.run(|ops| {
            for n in first..(first + BATCH).min(names) {
                ops.create(&node(dir, stays(n).as_bytes(), 0o100_644), true)?;
            }
            Ok(())
        });
    }
}

/// A name comes, is renamed, and goes every other time.
fn change(f: &Fixture, dir: InodeNo, round: usize) {
    let name = |what: &str, n: usize| format!("{what}-{n}").into_bytes();
    f.run(|ops| ops.create(&node(dir, &name("new", round), 0o100_644), true));
    let rename = |ops: &mut Ops<'_>, from: &[u8], to: &[u8]| {
        let what = Rename { parent: dir, name: from, new_parent: dir, new_name: to, flags: 0 };
        ops.rename(&what, &never).map(drop)
    };
    f.run(|ops| rename(ops, &name("new", round), &name("renamed", round)));
    if round.is_multiple_of(2) {
        f.run(|ops| ops.unlink(dir, &name("renamed", round), &never));
    }
}

/// Walks through the directory under change; how many pages it took.
fn walk(f: &Fixture, dir: InodeNo, names: usize) -> usize {
    let mut seen = vec![false; names];
    let (mut after, mut pages) = (0, 0);
    loop {
        let listing = f.view().readdir(dir, after, PAGE, pages % 2 == 0).expect("a directory");
        for entry in &listing.entries {
            assert!(entry.cookie > after, "cookies rise");
            after = entry.cookie;
            let name = String::from_utf8(entry.name.clone()).expect("plain");
            if let Some(n) = name.strip_prefix("stays-") {
                let n: usize = n.parse().expect("a number");
                assert!(!std::mem::replace(&mut seen[n], true), "{name} was listed twice");
            }
        }
        pages += 1;
        // What is new is listed too, so a walk must not make more than it reads.
        if pages <= names / 400 + 1 {
            change(f, dir, pages);
        }
        if listing.end {
            break;
        }
    }
    assert_eq!(seen.iter().position(|s| !s), None, "of {names}");
    pages
}

fn large(names: usize, disk: u64) {
    let f = Fixture::on(blank(disk));
    let dir = f.dir(InodeNo::ROOT, "large");
    make(&f, dir, names);
    let pages = walk(&f, dir, names);
    assert!(pages < names / 200 + 10, "{pages} pages");
    for n in [0, names / 2, names - 1] {
        let found = f.view().lookup(dir, stays(n).as_bytes()).expect("there").ino;
        assert_eq!(f.run(|ops| ops.unlink(dir, stays(n).as_bytes(), &never)), Gone::Freed(found));
    }
    assert!(f.must_be_clean().entries > names as u64 - 3);
}

#[test]
fn a_directory_of_20_000_names_is_listed_under_change_each_that_stayed_exactly_once() {
    large(20_000, MIN_VOLUME);
}

#[test]
#[ignore = "long: makes a million names"]
fn a_directory_of_a_million_names_is_listed_under_change_each_that_stayed_exactly_once() {
    large(1_000_000, 4 << 30);
}
