//! Facts about names.

use rustix::io::Errno;

use super::*;
use crate::proto::rename_flags::{EXCHANGE, NOREPLACE};

const ROOT: InodeNo = InodeNo::ROOT;

fn rename(f: &Fixture, from: (InodeNo, &str), to: (InodeNo, &str), flags: u32) -> Result<Option<Gone>> {
    let what = Rename { parent: from.0, name: from.1.as_bytes(), new_parent: to.0, new_name: to.1.as_bytes(), flags };
    let mut txn = f.store.write().expect("begins");
    let out = txn.run(LATER, |ops| ops.rename(&what, &never)).expect("runs");
    txn.commit().expect("commits");
    out
}

fn rename_errno(f: &Fixture, from: (InodeNo, &str), to: (InodeNo, &str), flags: u32) -> Option<i32> {
    rename(f, from, to, flags).expect_err("fails").errno()
}

fn names(f: &Fixture, dir: InodeNo) -> Vec<String> {
    let listing = f.view().readdir(dir, 2, u32::MAX, false).expect("a directory");
    listing.entries.iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect()
}

#[test]
fn created_file_is_found_with_its_attributes() {
    let f = Fixture::new();
    let ino = f.file("a");
    let attr = f.view().lookup(ROOT, b"a").expect("there");
    assert_eq!((attr.ino, attr.mode, attr.nlink, attr.uid, attr.gid, attr.size), (ino, 0o100_644, 1, 1000, 100, 0));
    assert_eq!((attr.mtime, attr.btime), (NOW, NOW));
    let f = f.killed();
    assert_eq!(f.view().lookup(ROOT, b"a").expect("there"), attr);
    f.must_be_clean();
}

#[test]
fn existing_name_is_eexist_or_found() {
    let f = Fixture::new();
    let ino = f.file("a");
    f.dir(ROOT, "d");
    assert_eq!(f.errno(|ops| ops.create(&node(ROOT, b"a", 0o100_600), true)), errno(Errno::EXIST));
    let found = f.run(|ops| ops.create(&node(ROOT, b"a", 0o100_600), false));
    assert_eq!((found.existed, found.attr.ino, found.attr.mode), (true, ino, 0o100_644));
    assert_eq!(f.errno(|ops| ops.create(&node(ROOT, b"d", 0o100_600), false)), errno(Errno::ISDIR));
    assert_eq!(f.errno(|ops| ops.create(&node(ROOT, b"a", 0o040_700), false)), errno(Errno::EXIST));
    f.must_be_clean();
}

#[test]
fn names_of_255_bytes_work_and_256_are_refused() {
    let f = Fixture::new();
    let long = "x".repeat(255);
    f.file(&long);
    assert!(f.view().lookup(ROOT, long.as_bytes()).is_ok());
    let too_long = "x".repeat(256);
    assert_eq!(f.errno(|ops| ops.create(&node(ROOT, too_long.as_bytes(), 0o100_644), true)), errno(Errno::NAMETOOLONG));
    assert_eq!(
        f.view().lookup(ROOT, too_long.as_bytes()).expect_err("too long").errno(),
        Some(errno(Errno::NAMETOOLONG))
    );
    assert_eq!(f.errno(|ops| ops.create(&node(ROOT, b"a/b", 0o100_644), true)), errno(Errno::INVAL));
    f.must_be_clean();
}

#[test]
fn directories_count_links_and_know_their_parent() {
    let f = Fixture::new();
    let d = f.dir(ROOT, "d");
    let e = f.dir(d, "e");
    assert_eq!((f.attr(ROOT).nlink, f.attr(d).nlink, f.attr(e).nlink), (3, 3, 2));
    assert_eq!(f.view().lookup(e, b"..").expect("there").ino, d);
    assert_eq!(f.view().lookup(e, b".").expect("there").ino, e);
    assert_eq!(f.errno(|ops| ops.rmdir(ROOT, b"d", &never)), errno(Errno::NOTEMPTY));
    assert_eq!(f.errno(|ops| ops.unlink(ROOT, b"d", &never)), errno(Errno::ISDIR));
    f.run(|ops| ops.rmdir(d, b"e", &never));
    assert_eq!(f.run_at(LATER, |ops| ops.rmdir(ROOT, b"d", &never)), Gone::Freed(d));
    assert_eq!((f.attr(ROOT).nlink, f.attr(ROOT).mtime, f.attr(ROOT).ctime), (2, LATER, LATER));
    assert_eq!(f.view().getattr(d).expect_err("gone").errno(), Some(errno(Errno::NOENT)));
    f.must_be_clean();
}

#[test]
fn open_directory_outlives_its_name_and_takes_no_new_ones() {
    let f = Fixture::new();
    let d = f.dir(ROOT, "d");
    assert_eq!(f.run(|ops| ops.rmdir(ROOT, b"d", &|_| true)), Gone::Orphan(d));
    assert_eq!(f.attr(d).nlink, 0);
    assert_eq!(f.errno(|ops| ops.create(&node(d, b"x", 0o100_644), true)), errno(Errno::NOENT));
    assert_eq!(f.view().readdir(d, 0, 4096, false).expect("empty").entries.len(), 2);
    f.must_be_clean();
    assert_eq!(f.run(|ops| ops.reap(d)), Reaped::Done);
    f.must_be_clean();
}

#[test]
fn set_group_id_directory_passes_on_its_group() {
    let f = Fixture::new();
    let d = f.create(ROOT, "d", 0o042_775);
    f.run(|ops| ops.setattr(d, &crate::proto::SetAttr { gid: Some(7), ..Default::default() }));
    let (file, sub) = (f.create(d, "f", 0o100_644), f.dir(d, "s"));
    assert_eq!((f.attr(file).gid, f.attr(file).mode), (7, 0o100_644));
    assert_eq!((f.attr(sub).gid, f.attr(sub).mode), (7, 0o042_755));
}

#[test]
fn links_count_and_the_last_frees() {
    let f = Fixture::new();
    let a = f.file("a");
    let d = f.dir(ROOT, "d");
    f.run_at(LATER, |ops| ops.link(a, d, b"b"));
    assert_eq!((f.attr(a).nlink, f.attr(a).ctime), (2, LATER));
    assert_eq!(f.errno(|ops| ops.link(d, ROOT, b"x")), errno(Errno::PERM));
    assert_eq!(f.errno(|ops| ops.link(a, d, b"b")), errno(Errno::EXIST));
    assert!(matches!(f.run(|ops| ops.unlink(ROOT, b"a", &never)), Gone::Linked(attr) if attr.nlink == 1));
    assert_eq!(f.run(|ops| ops.unlink(d, b"b", &never)), Gone::Freed(a));
    assert_eq!(f.errno(|ops| ops.link(a, ROOT, b"x")), errno(Errno::NOENT));
    f.must_be_clean();
}

#[test]
fn open_file_outlives_its_name_until_it_is_reaped() {
    let f = Fixture::new();
    let a = f.file("a");
    assert_eq!(f.view().lookup(a, b".").expect("by its number").ino, a);
    assert_eq!(f.run(|ops| ops.unlink(ROOT, b"a", &|ino| ino == a)), Gone::Orphan(a));
    let f = f.killed();
    assert_eq!(f.attr(a).nlink, 0);
    assert_eq!(f.view().lookup(a, b".").expect_err("nameless").errno(), Some(errno(Errno::NOENT)));
    assert_eq!(f.view().orphans().expect("readable"), [(a, OrphanKind::Unlinked)]);
    assert_eq!(f.errno(|ops| ops.link(a, ROOT, b"again")), errno(Errno::NOENT));
    f.must_be_clean();
    f.run(|ops| ops.reap(a));
    f.run(|ops| ops.reap(a));
    assert_eq!(f.view().orphans().expect("readable"), []);
    assert_eq!(f.must_be_clean().inodes, 1);
}

#[test]
fn symbolic_link_keeps_its_target() {
    let f = Fixture::new();
    let attr = f.run(|ops| ops.symlink(ROOT, b"s", b"../x", 1, 2));
    assert_eq!((attr.size, attr.mode), (4, 0o120_777));
    assert_eq!(f.view().readlink(attr.ino).expect("a link"), b"../x");
    assert_eq!(f.view().readlink(ROOT).expect_err("no link").errno(), Some(errno(Errno::INVAL)));
    assert_eq!(f.errno(|ops| ops.create(&node(attr.ino, b"x", 0o100_644), true)), errno(Errno::NOTDIR));
    assert_eq!(f.errno(|ops| ops.symlink(ROOT, b"t", &[b'x'; 4096], 1, 2)), errno(Errno::NAMETOOLONG));
}

#[test]
fn rename_moves_and_replaces() {
    let f = Fixture::new();
    let (a, b) = (f.file("a"), f.file("b"));
    let d = f.dir(ROOT, "d");
    assert_eq!(rename(&f, (ROOT, "a"), (ROOT, "b"), 0).expect("renames"), Some(Gone::Freed(b)));
    assert_eq!(names(&f, ROOT), ["b", "d"]);
    assert_eq!(f.view().lookup(ROOT, b"b").expect("there").ino, a);
    assert_eq!(f.attr(a).ctime, LATER);
    rename(&f, (ROOT, "b"), (d, "c"), 0).expect("renames");
    assert_eq!((names(&f, ROOT), names(&f, d)), (vec!["d".to_owned()], vec!["c".to_owned()]));
    assert_eq!(rename_errno(&f, (ROOT, "nope"), (d, "c"), 0), Some(errno(Errno::NOENT)));
    f.must_be_clean();
}

#[test]
fn rename_of_directories_moves_links_and_dotdot() {
    let f = Fixture::new();
    let (d, e) = (f.dir(ROOT, "d"), f.dir(ROOT, "e"));
    let sub = f.dir(d, "sub");
    rename(&f, (d, "sub"), (e, "sub"), 0).expect("renames");
    assert_eq!((f.attr(d).nlink, f.attr(e).nlink, f.attr(ROOT).nlink), (2, 3, 4));
    assert_eq!(f.view().lookup(sub, b"..").expect("there").ino, e);
    assert_eq!(rename_errno(&f, (ROOT, "e"), (sub, "x"), 0), Some(errno(Errno::INVAL)));
    assert_eq!(rename_errno(&f, (ROOT, "e"), (e, "x"), 0), Some(errno(Errno::INVAL)));
    assert_eq!(rename_errno(&f, (ROOT, "d"), (ROOT, "e"), 0), Some(errno(Errno::NOTEMPTY)));
    rename(&f, (ROOT, "d"), (e, "sub"), 0).expect("replaces an empty directory");
    assert_eq!((f.attr(ROOT).nlink, f.attr(e).nlink), (3, 3));
    f.must_be_clean();
}

#[test]
fn rename_refuses_wrong_types_and_flags() {
    let f = Fixture::new();
    f.file("a");
    f.dir(ROOT, "d");
    assert_eq!(rename_errno(&f, (ROOT, "a"), (ROOT, "d"), 0), Some(errno(Errno::ISDIR)));
    assert_eq!(rename_errno(&f, (ROOT, "d"), (ROOT, "a"), 0), Some(errno(Errno::NOTDIR)));
    assert_eq!(rename_errno(&f, (ROOT, "a"), (ROOT, "d"), NOREPLACE), Some(errno(Errno::EXIST)));
    assert_eq!(rename_errno(&f, (ROOT, "a"), (ROOT, "x"), EXCHANGE), Some(errno(Errno::NOENT)));
    assert_eq!(rename_errno(&f, (ROOT, "a"), (ROOT, "x"), 4), Some(errno(Errno::INVAL)));
    assert_eq!(rename_errno(&f, (ROOT, "a"), (ROOT, "d"), NOREPLACE | EXCHANGE), Some(errno(Errno::INVAL)));
    rename(&f, (ROOT, "a"), (ROOT, "x"), NOREPLACE).expect("renames");
    f.must_be_clean();
}

#[test]
fn two_names_of_one_inode_are_left_alone() {
    let f = Fixture::new();
    let a = f.file("a");
    f.run(|ops| ops.link(a, ROOT, b"b"));
    assert_eq!(rename(&f, (ROOT, "a"), (ROOT, "b"), 0).expect("does nothing"), None);
    assert_eq!(names(&f, ROOT), ["a", "b"]);
}

#[test]
fn exchange_swaps_across_directories_and_types() {
    let f = Fixture::new();
    let (d, e) = (f.dir(ROOT, "d"), f.dir(ROOT, "e"));
    let (file, sub) = (f.create(d, "x", 0o100_644), f.dir(e, "y"));
    rename(&f, (d, "x"), (e, "y"), EXCHANGE).expect("swaps");
    assert_eq!(f.view().lookup(d, b"x").expect("there").ino, sub);
    assert_eq!(f.view().lookup(e, b"y").expect("there").ino, file);
    assert_eq!((f.attr(d).nlink, f.attr(e).nlink), (3, 2));
    assert_eq!(f.view().lookup(sub, b"..").expect("there").ino, d);
    assert_eq!(rename_errno(&f, (d, "x"), (ROOT, "d"), EXCHANGE), Some(errno(Errno::INVAL)));
    f.must_be_clean();
}

#[test]
fn walk_sees_every_lasting_entry_once_whatever_changes() {
    let f = Fixture::new();
    let d = f.dir(ROOT, "d");
    f.run(|ops| {
        (0..5000).try_for_each(|i| ops.create(&node(d, format!("lasting-{i}").as_bytes(), 0o100_644), true).map(drop))
    });
    let (mut seen, mut after, mut round) = (Vec::new(), 0, 0);
    loop {
        let listing = f.view().readdir(d, after, 8192, round % 2 == 0).expect("a directory");
        for e in &listing.entries {
            assert!(e.cookie > after, "cookies grow");
            after = e.cookie;
            seen.push(String::from_utf8_lossy(&e.name).into_owned());
        }
        if listing.end {
            break;
        }
        // Between two parts of the walk names come, go, and are replaced.
        let (new, old) = (format!("new-{round}"), format!("new-{}", round - 3));
        f.run(|ops| {
            ops.create(&node(d, new.as_bytes(), 0o100_644), true)?;
            ops.create(&node(d, b"over", 0o100_644), true)?;
            let over = format!("lasting-{}", 4999 - round);
            ops.rename(
                &Rename { parent: d, name: b"over", new_parent: d, new_name: over.as_bytes(), flags: 0 },
                &never,
            )?;
            if round >= 3 { ops.unlink(d, old.as_bytes(), &never).map(drop) } else { Ok(()) }
        });
        round += 1;
    }
    assert!(round > 20, "the walk had {round} parts");
    let mut lasting: Vec<_> = seen.iter().filter(|n| n.starts_with("lasting")).collect();
    assert_eq!(lasting.len(), 5000);
    lasting.sort();
    lasting.dedup();
    assert_eq!(lasting.len(), 5000);
    f.must_be_clean();
}

#[test]
fn first_entry_comes_however_little_room_there_is() {
    let f = Fixture::new();
    let listing = f.view().readdir(ROOT, 0, 0, true).expect("a directory");
    assert_eq!((listing.entries.len(), listing.entries[0].cookie, listing.end), (1, 1, false));
}

#[test]
fn failed_operation_leaves_the_others_of_its_batch() {
    let f = Fixture::new();
    let mut txn = f.store.write().expect("begins");
    let results = txn
        .run(NOW, |ops| {
            let a = ops.create(&node(ROOT, b"a", 0o100_644), true).is_ok();
            let again = ops.create(&node(ROOT, b"a", 0o100_644), true).expect_err("exists").errno();
            let b = ops.create(&node(ROOT, b"b", 0o100_644), true).is_ok();
            (a, again, b)
        })
        .expect("runs");
    assert_eq!(results, (true, Some(errno(Errno::EXIST)), true));
    txn.commit().expect("commits");
    let f = f.killed();
    assert_eq!(names(&f, ROOT), ["a", "b"]);
    f.must_be_clean();
}

#[test]
fn inode_numbers_are_never_reused_over_reopening() {
    let f = Fixture::new();
    let a = f.file("a");
    f.run(|ops| ops.unlink(ROOT, b"a", &never));
    let b = f.file("a");
    let f = f.killed();
    let c = f.file("c");
    assert!(a < b && b < c);
    assert!(c.0 - b.0 <= 1025, "a batch is skipped, no more");
}

#[test]
fn dropped_transaction_changes_nothing() {
    let f = Fixture::new();
    let mut txn = f.store.write().expect("begins");
    txn.run(NOW, |ops| ops.create(&node(ROOT, b"a", 0o100_644), true)).expect("runs").expect("creates");
    drop(txn);
    assert_eq!(names(&f, ROOT), Vec::<String>::new());
    f.file("b");
    f.must_be_clean();
}

fn nameless(f: &Fixture, exclusive: bool) -> InodeNo {
    f.run(|ops| ops.create(&node(InodeNo::ROOT, b"", 0o100_600), exclusive)).attr.ino
}

#[test]
fn a_file_made_without_a_name_is_an_orphan_until_it_gets_one() {
    let f = Fixture::new();
    let (a, b, never_named) = (nameless(&f, false), nameless(&f, false), nameless(&f, true));
    assert_eq!(f.attr(a).nlink, 0);
    assert_eq!(f.errno(|ops| ops.link(never_named, InodeNo::ROOT, b"x")), errno(Errno::NOENT));
    assert_eq!(f.run(|ops| ops.link(a, InodeNo::ROOT, b"a")).nlink, 1);
    f.must_be_clean();
    let f = f.killed();
    let orphans: Vec<InodeNo> = f.view().orphans().expect("readable").into_iter().map(|(ino, _)| ino).collect();
    assert_eq!(orphans, [b, never_named], "those that have a name are none");
    for ino in orphans {
        assert_eq!(f.run(|ops| ops.reap(ino)), Reaped::Done);
    }
    // A name once lost is not got back.
    f.run(|ops| ops.unlink(InodeNo::ROOT, b"a", &|_| true));
    assert_eq!(f.errno(|ops| ops.link(a, InodeNo::ROOT, b"again")), errno(Errno::NOENT));
    assert_eq!(f.run(|ops| ops.reap(a)), Reaped::Done);
    f.must_be_clean();
}

#[test]
fn links_end_where_their_count_does() {
    let f = Fixture::new();
    let a = f.file("a");
    f.run(|ops| {
        let mut inode = crate::meta::rows::inode(&ops.t, a)?;
        inode.nlink = u32::MAX;
        ops.t.inode.insert(crate::meta::tables::inode_key(a), inode.encode().as_slice())?;
        Ok(())
    });
    assert_eq!(f.errno(|ops| ops.link(a, InodeNo::ROOT, b"b")), errno(Errno::MLINK));
    assert_eq!(f.view().lookup(InodeNo::ROOT, b"b").map_err(|e| e.errno()), Err(Some(errno(Errno::NOENT))));
}

#[test]
fn hints_are_kept() {
    use crate::proto::Hints;
    let f = Fixture::new();
    let a = f.file("a");
    let hints = Hints { extent_size: 1 << 20, project: 7 };
    f.run(|ops| ops.set_hints(a, hints));
    assert_eq!(f.errno(|ops| ops.set_hints(a, Hints { extent_size: 1000, project: 7 })), errno(Errno::INVAL));
    let f = f.killed();
    assert_eq!(f.view().hints(a).expect("there"), (hints, 0));
}
