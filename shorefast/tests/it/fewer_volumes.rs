//! A volume is taken away from a replicated device, and one volume's disk is replaced alone, over real processes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fixture::{PROGRAM, background, path, until};
use crate::replica::client::{BLOCK, holds, pattern};
use crate::replica::nodes::Nodes;
use crate::replica::sites::Sites;
use crate::volumes::{MIB, client, compare_all, disk, make_disk, two_volumes};

fn volumes(sites: &Sites, n: usize) -> usize {
    sites.status(n)["volumes"].as_array().map_or(0, Vec::len)
}

/// Takes the second volume's rows out of a site's file.
fn forget_second(sites: &Sites, n: usize) {
    let record = sites.folder(n).join("r0.toml");
    let text = fs::read_to_string(&record).expect("a record");
    let cut = text.find("[volumes.1]").expect("a table");
    fs::write(&record, &text[..cut]).expect("written");
}

fn name_second(sites: &Sites, n: usize, disk: &std::path::Path) {
    let record = sites.folder(n).join("r0.toml");
    let text = fs::read_to_string(&record).expect("a record");
    fs::write(&record, text + &format!("\n[volumes.1]\ndisk = {:?}\n", path(disk))).expect("written");
}

/// Beside writes to the other volume; then one of the same number is added.
#[test]
fn a_volume_is_taken_away_on_all_nodes_when_nobody_uses_it_and_can_be_added_again() {
    let mut sites = two_volumes("C");
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, mut first) = (Arc::clone(&stop), client(&sites, 1, 0));
    let writer = background(move || {
        let mut written = std::collections::BTreeMap::new();
        for number in 1.. {
            let block = number * 37 % 500;
            first.write(block, &pattern(block, number), number % 16 == 0).expect("a write to the other volume fails");
            written.insert(block, number);
            if ended.load(Ordering::Relaxed) {
                break;
            }
        }
        written.into_iter().collect::<Vec<_>>()
    });
    let mut second = client(&sites, 1, 1);
    second.write(7, &pattern(7, 9), true).expect("written");
    sites.tell(1, &["remove-volume", "r0", "1"]).expect(4, &["r0/1 is not taken away", "clients use it"]);
    second.write(8, &pattern(8, 9), true).expect("whoever uses it goes on");
    drop(second);
    until("the client has left", || sites.tell(2, &["remove-volume", "r0", "1"]).err.contains("not primary"));
    sites.tell(1, &["remove-volume", "r0", "3"]).expect(3, &["has no volume 3"]);
    until("nobody uses it", || sites.tell(1, &["remove-volume", "r0", "1"]).code == 0);
    assert_eq!((volumes(&sites, 1), volumes(&sites, 2)), (1, 1), "on all nodes");
    sites.tell(1, &["remove-volume", "r0", "1"]).expect(3, &["has no volume 1"]);
    sites.tell(1, &["adjust", "r0"]).expect(4, &["carries volume 1 of a replica"]);
    // The file of one node names it yet: that is told, and nothing more.
    sites.down(2);
    sites.up(2);
    sites.until_equal(1);
    for n in [1, 2] {
        forget_second(&sites, n);
        sites.must(n, &["adjust", "r0"]);
        let bytes = fs::read(disk(&sites, n, 1)).expect("a disk");
        assert_eq!(&bytes[7 * BLOCK as usize..][..BLOCK as usize], pattern(7, 9), "what was written is there");
    }
    for n in [1, 2] {
        let other = sites.folder(n).join("again.img");
        fs::File::create(&other).and_then(|f| f.set_len(8 * MIB)).expect("a disk");
        fs::rename(&other, disk(&sites, n, 1)).expect("another disk");
        name_second(&sites, n, &disk(&sites, n, 1));
    }
    sites.must(2, &["adjust", "r0"]);
    sites.must(1, &["adjust", "r0"]);
    sites.until_equal(1);
    let mut second = client(&sites, 1, 1);
    assert!(second.size() < 8 * MIB && second.read(7).expect("a read").iter().all(|b| *b == 0), "it is a new one");
    second.write(3, &pattern(3, 5), true).expect("written");
    stop.store(true, Ordering::Relaxed);
    let written = writer.ended("the writer");
    sites.until_equal(1);
    drop(second);
    sites.switch(1, 2);
    holds(&mut client(&sites, 2, 0), &written);
    holds(&mut client(&sites, 2, 1), &[(3, 5)]);
    compare_all(&mut sites);
}

#[test]
fn a_volume_is_not_taken_away_without_a_peer_but_by_force_and_then_there_too() {
    let mut sites = two_volumes("C");
    sites.down(2);
    sites.tell(1, &["remove-volume", "r0", "1"]).expect(4, &["node-2 is not connected and equal", "--force"]);
    assert_eq!(volumes(&sites, 1), 2, "nothing has changed");
    let mut second = client(&sites, 1, 1);
    second.write(3, &pattern(3, 1), true).expect("it is served yet");
    sites.must(1, &["remove-volume", "r0", "1", "--force"]);
    assert!(second.write(4, &pattern(4, 1), true).is_err(), "its clients are disconnected by force");
    assert_eq!(volumes(&sites, 1), 1);
    // The other one comes, alone at first, and has it yet: what the two are is said when they meet.
    sites.up(2);
    sites.until_equal(1);
    assert_eq!(volumes(&sites, 2), 1, "who was away does so when it comes");
    sites.switch(1, 2);
    sites.client(2).write(1, &pattern(1, 1), true).expect("written");
    for n in [1, 2] {
        sites.down(n);
        forget_second(&sites, n);
        sites.tell(n, &["check", "r0"]).expect(0, &["Nothing is wrong"]);
    }
    sites.up(1);
    sites.up(2);
    assert_eq!((volumes(&sites, 1), volumes(&sites, 2)), (1, 1), "also after a restart");
    sites.must(2, &["primary", "r0"]);
    sites.until_equal(2);
    sites.compare_disks();
}

#[test]
fn what_the_file_names_no_more_is_taken_away_by_adjust_on_the_primary() {
    let mut sites = two_volumes("C");
    forget_second(&sites, 2);
    sites.tell(2, &["adjust", "r0"]).expect(4, &["r0/1 is taken away on the primary"]);
    assert_eq!((volumes(&sites, 1), volumes(&sites, 2)), (2, 2));
    forget_second(&sites, 1);
    sites.must(1, &["adjust", "r0"]);
    sites.must(2, &["adjust", "r0"]);
    assert_eq!((volumes(&sites, 1), volumes(&sites, 2)), (1, 1));
    sites.until_equal(1);
    sites.compare_disks();
}

/// Whoever dies in the middle, both have the volume in the end or neither has.
#[test]
fn whoever_is_killed_while_a_volume_is_taken_away_both_agree_in_the_end() {
    for (round, victim) in [1, 2, 1, 2].into_iter().enumerate() {
        let mut sites = two_volumes("C");
        let mut second = client(&sites, 1, 1);
        second.write(5, &pattern(5, 2), true).expect("written");
        drop(second);
        let dir = sites.folder(1).to_owned();
        let asked = background(move || {
            let mut command = std::process::Command::new(PROGRAM);
            command.args(["replica", "remove-volume", "r0", "1", "--force", "--dir", path(&dir)]).output().is_ok()
        });
        std::thread::sleep(Duration::from_millis(4 + 9 * round as u64));
        sites.kill(victim);
        asked.ended("the command");
        sites.up(victim);
        until("somebody is primary", || {
            sites.status(1)["role"] == "Primary" || sites.tell(1, &["primary", "r0"]).code == 0
        });
        sites.until_equal(1);
        let (one, two) = (volumes(&sites, 1), volumes(&sites, 2));
        assert_eq!(one, two, "round {round}: node {victim} was killed");
        if one == 2 {
            holds(&mut client(&sites, 1, 1), &[(5, 2)]);
            compare_all(&mut sites);
        } else {
            sites.compare_disks();
        }
    }
}

/// The second volume's disk of node 2 is lost; the other volume is as it was, and is not sent again.
#[test]
fn the_disk_of_one_volume_is_replaced_and_that_volume_alone_is_synchronised() {
    let mut sites = two_volumes("C");
    let (mut first, mut second) = (client(&sites, 1, 0), client(&sites, 1, 1));
    for block in 0..600 {
        first.write(block, &pattern(block, 1), false).expect("written");
        second.write(block, &pattern(block, 2), false).expect("written");
    }
    second.flush().expect("flushed");
    let new = |sites: &Sites, len: u64| -> PathBuf {
        let path = sites.folder(2).join("new.img");
        fs::File::create(&path).and_then(|f| f.set_len(len)).expect("a disk");
        path
    };
    let other = new(&sites, 12 * MIB);
    let replace = ["replace-disk", "r0", "--volume", "1", "--local"];
    let with = |more: &[&str]| [&replace[..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let tell = |sites: &Sites, n: usize, more: &[&str]| {
        let args = with(more);
        sites.tell(n, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    tell(&sites, 2, &[path(&other)]).expect(4, &["in use"]);
    sites.down(2);
    fs::remove_file(disk(&sites, 2, 1)).expect("lost");
    for block in 590..610 {
        first.write(block, &pattern(block, 3), false).expect("written without the peer");
    }
    sites.tell(2, &["up", "r0"]).expect(1, &["disk-1.img"]);
    tell(&sites, 2, &[path(&new(&sites, 4 * MIB))]).expect(1, &["cannot be the disk of r0/1"]);
    new(&sites, 12 * MIB);
    fs::copy(disk(&sites, 1, 1), &other).expect("copied");
    tell(&sites, 2, &[path(&other)]).expect(4, &["carries volume 1 of a replica of node 1", "--wipe"]);
    new(&sites, 12 * MIB);
    tell(&sites, 2, &[path(&other)]).expect(0, &["is synchronised in full"]);
    sites.up(2);
    sites.until_equal(1);
    let moved = sites.peer(1)["synchronised"].clone();
    let count = |what: &str| moved[what].as_u64().expect("a number");
    let blocks = sites.status(1)["volumes"][1]["size_bytes"].as_u64().expect("a size") / BLOCK;
    let all = count("sent") + count("zeroed") + count("equal");
    assert!(count("sent") >= 600 && all >= blocks, "{moved}");
    // Of the first volume only what was written meanwhile, and what was hot when node 2 was stopped: nothing.
    assert!(all <= blocks + 40, "{moved}, {blocks} blocks");
    drop((first, second));
    sites.switch(1, 2);
    holds(&mut client(&sites, 2, 1), &(0..600).map(|b| (b, 2)).collect::<Vec<_>>());
    holds(&mut client(&sites, 2, 0), &[(3, 1), (595, 3), (609, 3)]);
    for n in [1, 2] {
        sites.down(n);
        sites.tell(n, &["check", "r0"]).expect(0, &["Nothing is wrong"]);
    }
    let len = (blocks * BLOCK) as usize;
    let read = |path: PathBuf| fs::read(path).expect("a disk")[..len].to_vec();
    assert!(read(disk(&sites, 1, 1)) == read(other), "the disks of the volume differ");
}

/// What no peer has is not given up for an empty disk without being told so.
#[test]
fn the_only_node_that_has_a_volumes_newest_data_keeps_its_disk() {
    let mut sites = two_volumes("C");
    sites.down(2);
    let mut second = client(&sites, 1, 1);
    second.write(5, &pattern(5, 2), true).expect("written alone");
    drop(second);
    sites.down(1);
    let other = sites.folder(1).join("new.img");
    fs::File::create(&other).and_then(|f| f.set_len(12 * MIB)).expect("a disk");
    let before = fs::read(disk(&sites, 1, 0)).expect("a disk");
    sites
        .tell(1, &["replace-disk", "r0", "--volume", "1", "--local", path(&other)])
        .expect(4, &["was written here when no peer was there", "--force"]);
    assert!(fs::read(disk(&sites, 1, 0)).expect("a disk") == before, "nothing has changed");
    sites.up(1);
    sites.up(2);
    sites.must(1, &["primary", "r0"]);
    sites.until_equal(1);
    holds(&mut client(&sites, 1, 1), &[(5, 2)]);
    compare_all(&mut sites);
}

/// It was named in one node's file only.
#[test]
fn a_disk_for_a_volume_that_was_never_made_is_let_go_again() {
    let mut sites = Sites::equal("C");
    make_disk(&sites, 1, 1, 8 * MIB);
    name_second(&sites, 1, &disk(&sites, 1, 1));
    sites.tell(1, &["adjust", "r0"]).expect(4, &["node-2 has no disk for it"]);
    forget_second(&sites, 1);
    sites.must(1, &["adjust", "r0"]);
    assert_eq!(volumes(&sites, 1), 1);
    sites.compare_disks();
}
