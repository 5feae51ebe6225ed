//! Repairs lose nothing: what was there before is there after, and the rest is in `lost+found`.

use super::check_finds::{dead, repaired, sample, unmounted};
use super::*;
use crate::meta::check::Kind;
use crate::meta::tables::TREE;

const ROOT: InodeNo = InodeNo::ROOT;

fn reopened(disk: Arc<MemDevice>) -> Fixture {
    let superblock = read_superblock(&as_dyn(&disk)).expect("a volume").superblock;
    Fixture::open(disk, superblock)
}

#[test]
fn a_directory_that_lost_its_inode_comes_back_with_its_names_below_lost_and_found() {
    let (f, s) = sample();
    let data = f.view().extents(s.deep, BlockRange::ALL).expect("readable");
    f.run(|ops| {
        ops.t.inode.remove((TREE, s.inner.0)).expect("removes");
        Ok(())
    });
    let disk = dead(f);
    let left = repaired(&disk);
    assert!(left.is_clean(), "{left}");
    let f = reopened(disk);
    let view = f.view();
    let lost = view.lookup(ROOT, b"lost+found").expect("made");
    assert_eq!(lost.mode, 0o040_700);
    let inner = view.lookup(lost.ino, format!("#{}", s.inner.0).as_bytes()).expect("reconnected");
    assert_eq!(inner.ino, s.inner);
    assert_eq!(view.lookup(inner.ino, b"..").expect("there").ino, lost.ino);
    let deep = view.lookup(inner.ino, b"deep").expect("its names are there");
    assert_eq!((deep.ino, deep.nlink), (s.deep, 2));
    assert_eq!(view.extents(s.deep, BlockRange::ALL).expect("readable"), data);
}

#[test]
fn a_file_that_lost_its_names_keeps_its_data_and_attributes() {
    let (f, s) = sample();
    let (before, data) = (f.attr(s.file), f.view().extents(s.file, BlockRange::ALL).expect("readable"));
    f.run(|ops| {
        ops.t.dirent.remove((TREE, 1, &b"needle-in-the-metadata"[..])).expect("removes");
        Ok(())
    });
    let disk = dead(f);
    assert_eq!(unmounted(&disk).count, 3, "the name, its place, and the count of name bytes");
    let left = repaired(&disk);
    assert!(left.is_clean(), "{left}");
    let f = reopened(disk);
    let lost = f.view().lookup(ROOT, b"lost+found").expect("made").ino;
    let found = f.view().lookup(lost, format!("#{}", s.file.0).as_bytes()).expect("reconnected");
    assert_eq!(found, before);
    assert_eq!(f.view().extents(s.file, BlockRange::ALL).expect("readable"), data);
    assert_eq!(f.view().xattr(s.file, b"user.x").expect("there"), b"1");
    // A second one finds the place there.
    f.run(|ops| {
        ops.t.dirent.remove((TREE, lost.0, format!("#{}", s.file.0).as_bytes())).expect("removes");
        Ok(())
    });
    let disk = dead(f);
    assert!(repaired(&disk).is_clean());
    let f = reopened(disk);
    let found = f.view().lookup(lost, format!("#{}", s.file.0).as_bytes()).expect("reconnected again");
    assert_eq!(found.ino, s.file);
}

#[test]
fn a_session_that_cannot_be_read_goes_with_its_grants_and_answers() {
    let (f, _) = sample();
    let free = f.view().statfs().expect("readable").free;
    f.run(|ops| {
        ops.t.session.insert((1, 10), &b"?"[..]).expect("inserts");
        Ok(())
    });
    let disk = dead(f);
    let report = unmounted(&disk);
    assert_eq!(report.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::Session], "{report}");
    assert!(repaired(&disk).is_clean());
    let f = reopened(disk);
    assert!(f.view().sessions().expect("readable").is_empty());
    assert_eq!(f.must_be_clean().granted, 0);
    assert_eq!(f.view().statfs().expect("readable").free, free, "granted space counted as free before");
}

/// Which of two files owned the blocks that both claim, nobody can tell. Both keep them, counted as shared: none is written
/// in the other's place, and the first that is removed frees nothing of the second.
#[test]
fn blocks_that_two_files_claim_are_shared_and_both_can_be_copied_and_removed() {
    let (f, s) = sample();
    let data = f.view().extents(s.file, BlockRange::new(0, 1)).expect("readable")[0].disk.0;
    f.run(|ops| {
        ops.t.extent.insert((TREE, s.deep.0, 20), (data, 1, 0)).expect("inserts");
        Ok(())
    });
    let disk = dead(f);
    let left = repaired(&disk);
    assert!(left.is_clean(), "{left}");
    let f = reopened(disk);
    for (ino, at) in [(s.file, 0), (s.deep, 20)] {
        let found = f.view().extents(ino, BlockRange::new(at, at + 1)).expect("readable")[0];
        assert_eq!((found.disk.0, found.shared), (data, true));
    }
    f.run(|ops| ops.unlink(ROOT, b"needle-in-the-metadata", &never).map(drop));
    f.must_be_clean();
    f.run(|ops| ops.unlink(s.inner, b"deep", &never).map(drop));
    f.run(|ops| ops.unlink(s.dir, b"second name", &never).map(drop));
    assert_eq!(f.must_be_clean().mapped, 0);
}

/// A file with blocks of the metadata: whoever took them from it would lose its data, whoever left them the metadata.
#[test]
fn what_cannot_be_repaired_without_loss_is_left_as_it_is() {
    let (f, s) = sample();
    let taken = f.superblock.next[0].start;
    f.run(|ops| {
        ops.t.extent.insert((TREE, s.deep.0, 20), (taken, 1, 0)).expect("inserts");
        Ok(())
    });
    let disk = dead(f);
    let left = repaired(&disk);
    assert_eq!(left.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::MappedReserved], "{left}");
    let f = reopened(disk);
    assert_eq!(f.view().extents(s.deep, BlockRange::new(20, 21)).expect("readable")[0].disk.0, taken);
}

/// Whatever is damaged first, a node that dies while it repairs leaves a volume whose repair can be begun again.
#[test]
fn a_repair_that_is_cut_off_anywhere_can_be_begun_again() {
    use block::recording::{RecordingDevice, Survivors};
    let (f, s) = sample();
    f.run(|ops| {
        ops.t.dirent.remove((TREE, 1, &b"d"[..])).expect("removes");
        let inode = rows::inode(&ops.t, s.deep)?;
        let wrong = inode::Inode { nlink: 7, blocks: 40, ..inode };
        ops.t.inode.insert((TREE, s.deep.0), wrong.encode().as_slice()).expect("inserts");
        Ok(())
    });
    let start = dead(f);
    let report = unmounted(&start);
    let repairs: Vec<_> = report.findings.iter().filter_map(|f| f.repair.clone()).collect();
    assert!(repairs.len() > 3, "{report}");
    let recorded = RecordingDevice::new(Arc::new(start.copy()));
    let dev = Arc::clone(&recorded) as Arc<dyn BlockDevice>;
    Store::repair_unmounted(&dev, &Unmounted::in_memory(), &repairs, LATER).expect("repairs");
    let log = recorded.log();
    assert!(log.len() > 3);
    for prefix in 0..=log.len() {
        for survivors in [Survivors::DurableOnly, Survivors::Seeded(prefix as u64)] {
            let image = Arc::new(log.replay(&start, prefix, survivors));
            let left = repaired(&image);
            assert!(left.is_clean(), "prefix {prefix} of {}, {survivors:?}: {left}", log.len());
        }
    }
}

/// More than one round keeps, and many in one transaction.
#[test]
fn thousands_of_things_are_repaired_in_few_rounds() {
    let (f, s) = sample();
    f.run(|ops| {
        for n in 0..3000_u64 {
            let (ino, name) = (500_000 + n, format!("gone-{n}"));
            ops.t.dirent.insert((TREE, s.dir.0, name.as_bytes()), (ino, 0o100_000, 1000 + n)).expect("inserts");
            ops.t.orphan.insert((TREE, 600_000 + n, 0), 0).expect("inserts");
        }
        Ok(())
    });
    let disk = dead(f);
    let left = repaired(&disk);
    assert!(left.is_clean(), "{left}");
    let f = reopened(disk);
    assert_eq!(f.view().lookup(s.dir, b"second name").expect("there").ino, s.deep);
}
