//! A volume without a free block, whose store cannot grow any more: ENOSPC is said in time, and what needs no room goes on.

use rustix::io::Errno;

use super::*;

const ROOT: InodeNo = InodeNo::ROOT;

/// Takes all free space for one file.
fn without_space() -> Fixture {
    let f = Fixture::new();
    let hog = f.file("hog");
    let free = f.view().statfs().expect("readable").free;
    f.run(|ops| ops.fallocate(hog, 0, free * FS_BLOCK, false));
    assert_eq!(f.view().statfs().expect("readable").free, 0);
    f
}

/// Runs an operation again and again, some in each commit, until it finds no room; how often it did.
fn until_full(f: &Fixture, mut work: impl FnMut(&mut Ops<'_>, usize) -> Result<()>) -> usize {
    let mut done = 0;
    loop {
        let mut txn = f.store.write().expect("begins");
        let full = txn
            .run(NOW, |ops| {
                for _ in 0..200 {
                    match work(ops, done) {
                        Ok(()) => done += 1,
                        Err(e) => return Some(e),
                    }
                }
                None
            })
            .expect("runs");
        txn.commit().expect("commits");
        if let Some(e) = full {
            assert_eq!(e.errno(), Some(errno(Errno::NOSPC)), "{e}");
            return done;
        }
    }
}

/// What needs no room goes on, however much of it there is between two checkpoints.
fn goes_on(f: &Fixture, inodes: &[InodeNo]) {
    let mut at = 1_usize;
    for round in 0..400 {
        let changes: Vec<_> = (0..200)
            .map(|_| {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (inodes[(at >> 33) % inodes.len()], Timestamp { secs: LATER.secs + round, nanos: 0 })
            })
            .collect();
        f.run(|ops| ops.times(&changes));
    }
}

fn dirs(f: &Fixture) -> Vec<InodeNo> {
    (0..50).map(|i| f.dir(ROOT, &format!("d{i}"))).collect()
}

/// Names and inodes until there is no room, everything removed, and as many again.
fn names_until_full_twice(f: Fixture) {
    let dirs = dirs(&f);
    let mut inodes = Vec::new();
    let n = until_full(&f, |ops, i| {
        let name = format!("name-{i}");
        inodes.push(ops.create(&node(dirs[i * 7 % 50], name.as_bytes(), 0o100_644), true)?.attr.ino);
        Ok(())
    });
    assert_eq!(f.view().statfs().expect("readable").files_free, 0);
    goes_on(&f, &inodes);
    let f = f.killed();
    f.must_be_clean();
    for part in (0..n).collect::<Vec<_>>().chunks(200) {
        f.run(|ops| {
            let unlink = |i: &usize| ops.unlink(dirs[i * 7 % 50], format!("name-{i}").as_bytes(), &never).map(drop);
            part.iter().try_for_each(unlink)
        });
    }
    f.must_be_clean();
    let again = until_full(&f, |ops, i| {
        let name = format!("again-{i}");
        ops.create(&node(dirs[i * 7 % 50], name.as_bytes(), 0o100_644), true).map(drop)
    });
    // The first time it was looked at whether there is room only when the store could not grow any more.
    assert!(again * 4 > n * 3, "{again} after {n}");
    f.must_be_clean();
}

#[test]
#[ignore = "long: 300 000 files"]
fn names_on_a_full_volume_end_with_enospc_and_everything_else_goes_on() {
    names_until_full_twice(without_space());
}

/// The values of attributes were not counted: the store wanted to grow and could not, the reign ended, and so did the next.
#[test]
fn attributes_and_links_on_a_full_volume_end_with_enospc_and_everything_else_goes_on() {
    let f = without_space();
    let dirs = dirs(&f);
    let inodes: Vec<_> = (0..2000).map(|i| (dirs[i % 50], format!("f{i}"))).collect();
    let inodes = f.run(|ops| {
        let create = |(dir, name): &(_, String)| ops.create(&node(*dir, name.as_bytes(), 0o100_644), true);
        inodes.iter().map(create).map(|made| Ok(made?.attr.ino)).collect::<Result<Vec<_>>>()
    });
    let target = [b't'; 4000];
    let links = until_full(&f, |ops, i| match i {
        0..1500 => ops.symlink(dirs[i % 50], format!("l{i}").as_bytes(), &target, 0, 0).map(drop),
        _ => ops.set_xattr(inodes[i % 2000], format!("user.{}", i / 2000).as_bytes(), &[7; 60_000], 0, false),
    });
    assert!(links > 1700, "{links}");
    goes_on(&f, &inodes);
    let f = f.killed();
    f.must_be_clean();
    f.run(|ops| (0..1500).try_for_each(|i| ops.unlink(dirs[i % 50], format!("l{i}").as_bytes(), &never).map(drop)));
    // The first of them are those that have the first values.
    f.run(|ops| (1500..1800).try_for_each(|i| ops.remove_xattr(inodes[i % 2000], b"user.0")));
    f.run(|ops| ops.set_xattr(inodes[1], b"user.again", &[7; 60_000], 0, false));
    f.must_be_clean();
}

/// A store that was made before values were counted.
#[test]
fn a_store_that_does_not_count_values_counts_them_when_it_is_opened() {
    let f = Fixture::new();
    let ino = f.file("f");
    f.run(|ops| {
        ops.set_xattr(ino, b"user.a", b"123", 0, false)?;
        ops.symlink(ROOT, b"l", b"target", 0, 0)?;
        ops.t.counter.remove(crate::meta::ops::VALUE_BYTES)?;
        Ok(())
    });
    let f = f.killed();
    f.must_be_clean();
    f.run(|ops| ops.remove_xattr(ino, b"user.a"));
    f.must_be_clean();
}
