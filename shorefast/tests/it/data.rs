//! Contents: what a write returned is what every node reads next, and sizes are exact everywhere.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use crate::shared::{Folder, PAIRS};

fn open(dir: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(dir.join("file")).expect("opens")
}

/// Bytes that tell their place and their round.
fn pattern(round: usize, at: u64, len: usize) -> Vec<u8> {
    (at..at + len as u64).map(|i| (i as usize * 31 + round * 101 + (i >> 8) as usize) as u8).collect()
}

#[test]
fn what_a_write_returned_is_read_through_every_node_at_once_with_the_exact_size() {
    const ROUNDS: usize = 40;
    let Some(folder) = Folder::new("coherent") else { return };
    let files: Vec<File> = (1..=3).map(|n| folder.through(n, open)).collect();
    let mut expected: Vec<u8> = Vec::new();
    for round in 0..ROUNDS {
        // Aligned and not, inside, at and beyond the end, small and larger than a request of the kernel.
        let at = [0, 4096, 100, 8191, 40_000, expected.len() as u64, expected.len() as u64 + 5000][round % 7];
        let len = [1, 4096, 5000, 70_000, 8192][round % 5];
        let bytes = pattern(round, at, len);
        let end = at as usize + len;
        expected.resize(expected.len().max(end), 0);
        expected[at as usize..end].copy_from_slice(&bytes);
        let writer = files[round % 3].try_clone().expect("clones");
        folder.through(1 + round % 3, move |_| writer.write_all_at(&bytes, at).expect("writes"));
        for n in 1..=3 {
            let (file, wanted) = (files[n - 1].try_clone().expect("clones"), expected.clone());
            folder.through(n, move |dir| {
                let size = file.metadata().expect("stat").len();
                assert_eq!(size as usize, wanted.len(), "size through node {n}, round {round}");
                let mut found = vec![0; wanted.len() + 1];
                let read = file.read_at(&mut found, 0).expect("reads");
                let (whole, named) = (&found[..read], fs::read(dir.join("file")).expect("reads by name"));
                let wrong = whole.iter().zip(&wanted).position(|(a, b)| a != b);
                assert!(
                    read == wanted.len() && wrong.is_none(),
                    "node {n}, round {round}: {read} bytes, wrong at {wrong:?}"
                );
                assert!(named == wanted, "node {n}, round {round}, by name");
            });
        }
    }
}

#[test]
fn a_file_cut_through_one_node_is_cut_for_whoever_has_it_open_on_another() {
    let Some(folder) = Folder::new("cut") else { return };
    for (here, there) in PAIRS {
        let file = folder.through(here, |dir| {
            fs::write(dir.join("file"), vec![9; 50_000]).expect("writes");
            open(dir)
        });
        folder.through(there, |dir| open(dir).set_len(10_001).expect("cuts"));
        let file = folder.through(here, move |_| {
            let mut found = Vec::new();
            (&file).read_to_end(&mut found).expect("reads");
            assert_eq!(found, vec![9; 10_001]);
            file
        });
        // Growing again shows zeroes, never what was cut off.
        folder.through(there, |dir| open(dir).set_len(60_000).expect("grows"));
        let file = folder.through(here, move |_| {
            let mut found = vec![1; 49_999];
            file.read_exact_at(&mut found, 10_001).expect("reads");
            assert!(found.iter().all(|b| *b == 0), "what was cut off came back");
            file
        });
        folder.through(there, |dir| File::create(dir.join("file")).map(drop).expect("O_TRUNC"));
        folder.through(here, move |dir| {
            assert_eq!(file.metadata().expect("stat").len(), 0);
            assert_eq!(file.read_at(&mut [0; 10], 0).expect("reads"), 0);
            fs::remove_file(dir.join("file")).expect("removes");
        });
    }
}

#[test]
fn allocated_ranges_read_as_zeroes_and_grow_the_file_unless_told_not_to() {
    let Some(folder) = Folder::new("allocated") else { return };
    for (here, there) in PAIRS {
        folder.through(here, |dir| {
            let file = open(dir);
            file.write_all_at(b"kept", 5000).expect("writes");
            fallocate(&file, FallocateFlags::empty(), 0, 1_000_001).expect("allocates");
            fallocate(&file, FallocateFlags::KEEP_SIZE, 1_000_001, 1 << 20).expect("allocates beyond the end");
        });
        folder.through(there, |dir| {
            let mut wanted = vec![0; 1_000_001];
            wanted[5000..5004].copy_from_slice(b"kept");
            assert!(fs::read(dir.join("file")).expect("reads") == wanted);
            // One byte in the middle of what is allocated and not written.
            let file = open(dir);
            file.write_all_at(b"!", 500_000).expect("writes");
            wanted[500_000] = b'!';
            assert!(fs::read(dir.join("file")).expect("reads") == wanted);
        });
        folder.through(here, |dir| {
            assert_eq!(fs::read(dir.join("file")).expect("reads")[499_999..500_002], [0, b'!', 0]);
            fs::remove_file(dir.join("file")).expect("removes");
        });
    }
}

#[test]
fn a_sparse_file_of_a_tebibyte_takes_only_what_was_written() {
    const TIB: u64 = 1 << 40;
    let Some(folder) = Folder::new("sparse") else { return };
    for (here, there) in [(1, 2), (2, 3)] {
        folder.through(here, |dir| {
            let file = open(dir);
            file.set_len(TIB).expect("grows");
            file.write_all_at(b"middle", TIB / 2 + 77).expect("writes");
            file.write_all_at(b"end", TIB - 3).expect("writes");
        });
        folder.through(there, |dir| {
            let file = open(dir);
            let found = file.metadata().expect("stat");
            assert_eq!((found.len(), found.blocks()), (TIB, 2 * 8));
            let mut around = [1; 8192];
            file.read_exact_at(&mut around, TIB / 2).expect("reads");
            assert_eq!(&around[77..83], b"middle");
            assert!(around[..77].iter().chain(&around[83..]).all(|b| *b == 0));
            file.read_exact_at(&mut around, TIB - 8192).expect("reads");
            assert_eq!(&around[8189..], b"end");
            file.read_exact_at(&mut around, TIB / 4 + 1).expect("reads");
            assert!(around.iter().all(|b| *b == 0));
            fs::remove_file(dir.join("file")).expect("removes");
        });
    }
}

#[test]
fn attributes_set_through_one_node_are_told_by_the_others() {
    let Some(folder) = Folder::new("attributes") else { return };
    for (here, there) in PAIRS {
        let when = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
        folder.through(here, move |dir| {
            let file = open(dir);
            (&file).write_all(b"before the time is set").expect("writes");
            file.set_permissions(fs::Permissions::from_mode(0o604)).expect("chmod");
            file.set_times(fs::FileTimes::new().set_modified(when).set_accessed(when)).expect("utimes");
            std::os::unix::fs::fchown(&file, Some(12), Some(34)).expect("chown");
        });
        folder.through(there, move |dir| {
            let found = fs::metadata(dir.join("file")).expect("stat");
            assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o604, 12, 34));
            assert_eq!((found.modified().expect("mtime"), found.accessed().expect("atime")), (when, when));
            open(dir).write_all_at(b"x", 0).expect("writes");
        });
        folder.through(here, move |dir| {
            let found = fs::metadata(dir.join("file")).expect("stat");
            assert!(found.modified().expect("mtime") > when, "a write through another node left no time");
            fs::remove_file(dir.join("file")).expect("removes");
        });
    }
}
