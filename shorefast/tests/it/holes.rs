//! Holes and zeroed ranges, through every node.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek, statvfs};

use crate::ext4::{Said, answers_as_ext4};
use crate::shared::{Folder, PAIRS};

const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE;
const KEEP: FallocateFlags = FallocateFlags::KEEP_SIZE;

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).expect("opens")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| 1 + (i * 31 + (i >> 8)) as u8 % 250).collect()
}

/// Length, contents in short, and with `with_map` where data and holes are: for zeroed ranges ext4 decides by their length
/// whether it writes the zeroes.
fn look(what: &str, file: &File, with_map: bool, said: &mut Said) {
    let len = file.metadata().expect("stat").len();
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    file.read_exact_at(&mut bytes, 0).expect("reads");
    let mut runs = Vec::new();
    for (i, b) in bytes.iter().enumerate() {
        if i == 0 || (*b == 0) != (bytes[i - 1] == 0) {
            runs.push((i, *b == 0));
        }
    }
    let sum: u64 = bytes.iter().enumerate().map(|(i, b)| i as u64 * u64::from(*b)).sum();
    said.note(what, (len, runs, sum));
    if !with_map {
        return;
    }
    let mut map = Vec::new();
    for at in [0, 1, 4095, 4096, 5000, 8192, 20_000, len.saturating_sub(1), len, len + 1] {
        map.push((at, seek(file, SeekFrom::Data(at)), seek(file, SeekFrom::Hole(at))));
    }
    said.note(what, map);
}

fn calls(here: &Path, there: &Path, said: &mut Said) {
    let modes = [
        (HOLE, 0, 4096),
        (HOLE, 5000, 100),
        (HOLE, 5000, 30_000),
        (HOLE, 8192, 8192),
        (HOLE, 50_000, 1 << 20),
        (HOLE, 1 << 30, 4096),
        (HOLE, 0, 0),
        (FallocateFlags::PUNCH_HOLE, 0, 4096),
        (ZERO, 4096, 4096),
        (ZERO, 100, 9000),
        (ZERO, 40_000, 40_000),
        (ZERO | KEEP, 40_000, 400_000),
        (ZERO | KEEP, 100, 100),
        (KEEP, 0, 1 << 20),
        (KEEP, 1 << 20, 1 << 20),
        (FallocateFlags::empty(), 10_000, 100_000),
        (HOLE | ZERO, 0, 4096),
    ];
    for (n, (mode, at, len)) in modes.into_iter().enumerate() {
        let (file, other) = (open(&here.join(n.to_string())), open(&there.join(n.to_string())));
        file.write_all_at(&pattern(60_001), 0).expect("writes");
        file.sync_all().expect("syncs");
        let what = format!("{mode:?} at {at} for {len}");
        said.note(&what, fallocate(&other, mode, at, len));
        look(&what, &file, mode == HOLE, said);
        other.write_all_at(b"written again", 6000).expect("writes");
        other.set_len(70_000).expect("grows or cuts");
        other.sync_all().expect("syncs");
        look(&what, &file, mode == HOLE, said);
    }
    let empty = open(&here.join("empty"));
    said.note(
        "in nothing",
        (fallocate(&empty, HOLE, 0, 4096), seek(&empty, SeekFrom::Data(0)), seek(&empty, SeekFrom::Hole(0))),
    );
    let reader = File::open(there.join("empty")).expect("opens");
    said.note("read only", fallocate(&reader, HOLE, 0, 4096));
    said.note("a folder", fallocate(File::open(here).expect("opens"), HOLE, 0, 4096));
    said.note("too far", fallocate(&empty, FallocateFlags::empty(), u64::MAX / 2, 4096));
}

#[test]
fn holes_zeroed_ranges_and_lseek_answer_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("holes", calls);
}

#[test]
fn space_comes_back_after_a_hole_is_made_through_any_node() {
    // Alone on its volume, so that nobody else changes what is free.
    if !crate::fixture::can_mount() {
        return;
    }
    let cluster = crate::fixture::Cluster::with_volume(2);
    let dirs = [cluster.mount(1, "v"), cluster.mount(2, "v")];
    crate::fixture::within("holes and space", move || {
        for (here, there) in [(0, 1), (1, 0)] {
            let path = |n: usize| dirs[n].join("file");
            fs::write(path(here), pattern(8 << 20)).expect("writes");
            let file = open(&path(there));
            file.sync_all().expect("syncs");
            let free = || statvfs(&dirs[here]).expect("statvfs").f_bfree;
            let (before, blocks) = (free(), file.metadata().expect("stat").blocks());
            fallocate(&file, HOLE, 1 << 20, 4 << 20).expect("a hole");
            assert_eq!((free(), file.metadata().expect("stat").blocks()), (before + 1024, blocks - 8192));
            fs::remove_file(path(here)).expect("removes");
        }
    });
}

#[test]
fn a_hole_made_through_one_node_is_read_as_zeroes_by_whoever_has_the_file_open_on_another() {
    let Some(folder) = Folder::new("hole") else { return };
    for (here, there) in PAIRS {
        let file = folder.through(here, |dir| {
            let file = open(&dir.join("file"));
            file.write_all_at(&pattern(1 << 20), 0).expect("writes");
            file
        });
        folder.through(there, |dir| fallocate(open(&dir.join("file")), HOLE, 1000, 900_000).expect("a hole"));
        folder.through(here, move |dir| {
            let mut expected = pattern(1 << 20);
            expected[1000..901_000].fill(0);
            let mut found = vec![1; 1 << 20];
            file.read_exact_at(&mut found, 0).expect("reads");
            assert!(found == expected);
            file.write_all_at(&[7; 4096], 8192).expect("writes into the hole");
            assert_eq!(fs::read(dir.join("file")).expect("reads")[8191..8194], [0, 7, 7]);
            fs::remove_file(dir.join("file")).expect("removes");
        });
    }
}
