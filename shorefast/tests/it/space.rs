//! A volume that is filled to its last block through every node, emptied and filled again, with nodes killed between.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};

use crate::fixture::{Background, Cluster, background, can_mount, path, until, within};

/// Blocks that a file leaves free which takes the rest of the smallest volume.
const LEFT: u64 = 3000;
const BLOCK: u64 = 4096;

/// A file that a node has filled, and what its writes said.
#[derive(Clone, Debug)]
struct Filled {
    name: String,
    len: u64,
    seed: u8,
}

fn bytes(seed: u8, from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(|i| (i as u8).wrapping_mul(29).wrapping_add((i >> 12) as u8).wrapping_add(seed)).collect()
}

fn free(dir: &Path) -> (u64, u64) {
    let told = statvfs(dir).expect("statvfs");
    assert_eq!(told.f_frsize, BLOCK);
    (told.f_bfree, told.f_bavail)
}

/// Fills files until a write says ENOSPC, and makes all of it stable.
fn fill(dir: &Path, tag: &str) -> Vec<Filled> {
    let mut all = Vec::new();
    let mut step = 0_u64;
    loop {
        let seed = (tag.len() * 31 + all.len() * 7) as u8 ^ tag.as_bytes()[0];
        let mut filled = Filled { name: format!("{tag}-{}", all.len()), len: 0, seed };
        let mut file = File::create_new(dir.join(&filled.name)).expect("creates");
        let full = loop {
            step += 1;
            match file.write(&bytes(seed, filled.len, 1 + step * 7919 % 200_000)) {
                Ok(n) => filled.len += n as u64,
                Err(e) => {
                    assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()), "{e}");
                    break true;
                }
            }
            if filled.len > 2 << 20 {
                break false;
            }
        };
        file.sync_all().expect("stable");
        all.push(filled);
        if full {
            return all;
        }
    }
}

fn must_be_whole(dir: &Path, files: &[Filled]) {
    for filled in files {
        let found = fs::read(dir.join(&filled.name)).expect("reads");
        assert_eq!(found.len() as u64, filled.len, "{}", filled.name);
        assert!(found == bytes(filled.seed, 0, filled.len), "{}: not what was written", filled.name);
    }
}

fn volume_with_little_room(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(nodes);
    (1..=nodes).for_each(|n| cluster.start(n));
    let disk = cluster.disk("v.img", 1 << 30);
    cluster.ask(1, &["volume", "create", "v", "--disk", path(&disk), "--timing", "fast"]).expect(0, &[]);
    (2..=nodes).for_each(|n| until("the mount", || cluster.is_mounted(n)));
    let dir = cluster.mount(1, "v");
    within("most of the space", move || {
        let hog = File::create_new(dir.join("hog")).expect("creates");
        let take = free(&dir).0 - LEFT;
        fallocate(&hog, FallocateFlags::empty(), 0, take * BLOCK).expect("allocates");
        assert_eq!(free(&dir), (LEFT, LEFT));
    });
    cluster
}

/// Fills the volume through some nodes at once; every block that statvfs told is used then, and every byte there.
fn fill_all(cluster: &Cluster, nodes: &[usize], round: &str) -> Vec<Filled> {
    let writers: Vec<Background<Vec<Filled>>> = nodes
        .iter()
        .map(|n| {
            let (dir, tag) = (cluster.mount(*n, "v"), format!("{round}-{n}"));
            background(move || fill(&dir, &tag))
        })
        .collect();
    let all: Vec<Filled> = writers.into_iter().flat_map(|w| w.ended("filling the volume")).collect();
    let reader = cluster.mount(*nodes.last().expect("some"), "v");
    let (files, at) = (all.clone(), reader);
    within("reading it all", move || {
        let blocks: u64 = files.iter().map(|f| f.len.div_ceil(BLOCK)).sum();
        assert_eq!((blocks, free(&at)), (LEFT, (0, 0)));
        must_be_whole(&at, &files);
    });
    all
}

fn remove_all(dir: PathBuf, files: Vec<Filled>) {
    within("removing", move || files.iter().for_each(|f| fs::remove_file(dir.join(&f.name)).expect("removes")));
}

fn until_free(cluster: &Cluster, n: usize) {
    let dir = cluster.mount(n, "v");
    until("all the space", || {
        let dir = dir.clone();
        within("statvfs", move || free(&dir)) == (LEFT, LEFT)
    });
}

/// Space that only open files of a node use: one that was unlinked, one that never had a name, one that was cut.
fn hold_open(dir: PathBuf) -> Vec<File> {
    within("files without a name", move || {
        let mut gone = File::create_new(dir.join("gone")).expect("creates");
        gone.write_all(&[1; 1 << 20]).expect("writes");
        gone.sync_all().expect("stable");
        fs::remove_file(dir.join("gone")).expect("removes");
        let mut cut = File::create_new(dir.join("cut")).expect("creates");
        cut.write_all(&[2; 1 << 20]).expect("writes");
        cut.set_len(1000).expect("cuts");
        fs::remove_file(dir.join("cut")).expect("removes");
        let mut held = vec![gone, cut];
        let flags = OFlags::TMPFILE.bits() as i32;
        if let Ok(mut nameless) = File::options().write(true).custom_flags(flags).open(&dir) {
            nameless.write_all(&[3; 1 << 20]).expect("writes");
            held.push(nameless);
        }
        gone_is_there(&mut held[0]);
        assert!(free(&dir).0 <= LEFT - 257, "what is open is used");
        held
    })
}

fn gone_is_there(file: &mut File) {
    file.rewind().expect("seeks");
    let mut found = Vec::new();
    file.read_to_end(&mut found).expect("reads");
    assert!(found == [1; 1 << 20]);
}

/// Dropping files of a mount whose daemon is dead fails or hangs; nobody waits for it.
fn forget(files: Vec<File>) {
    drop(std::thread::spawn(move || drop(files)));
}

#[test]
fn a_volume_filled_through_three_nodes_is_full_to_the_block_and_free_again_though_nodes_are_killed() {
    if !can_mount() {
        return;
    }
    let mut cluster = volume_with_little_room(3);
    let all = fill_all(&cluster, &[1, 2, 3], "first");
    remove_all(cluster.mount(2, "v"), all);
    until_free(&cluster, 1);

    // A node dies with files open that have no name any more, with a grant, and with rights.
    let held = hold_open(cluster.mount(3, "v"));
    cluster.kill(3);
    until_free(&cluster, 2);
    forget(held);
    let all = fill_all(&cluster, &[1, 2], "second");

    // The coordinator dies on the full volume, and with such files.
    remove_all(cluster.mount(2, "v"), all);
    until_free(&cluster, 2);
    let held = hold_open(cluster.mount(1, "v"));
    cluster.kill(1);
    let all = fill_all(&cluster, &[2], "third");
    forget(held);
    cluster.start(3);
    until("the mount", || cluster.is_mounted(3));
    let (dir, files) = (cluster.mount(3, "v"), all.clone());
    within("reading it all", move || must_be_whole(&dir, &files));
    remove_all(cluster.mount(3, "v"), all);
    until_free(&cluster, 2);
}
