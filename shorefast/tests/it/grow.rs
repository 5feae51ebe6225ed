//! A device that becomes larger while it is used, over real processes and files that become longer.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fixture::{background, until};
use crate::replica::client::{BLOCK, Client, holds, pattern};
use crate::replica::nodes::Nodes;
use crate::replica::sites::Sites;

const MIB: u64 = 1 << 20;

/// Makes a node's disk longer.
fn lengthen(nodes: &impl Nodes, n: usize, bytes: u64) {
    fs::File::options().write(true).open(nodes.disk(n)).and_then(|f| f.set_len(bytes)).expect("a longer disk");
}

fn size(nodes: &impl Nodes, n: usize) -> u64 {
    nodes.status(n)["size_bytes"].as_u64().expect("a size")
}

#[test]
fn a_device_grows_while_it_is_written_and_clients_see_it() {
    let mut sites = Sites::equal("C");
    let before = size(&sites, 1);
    let mut client = sites.client(1);
    assert_eq!(client.size(), before);
    let stop = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&stop);
    let writer = background(move || {
        let mut written = std::collections::BTreeMap::new();
        for number in 1.. {
            let block = number * 37 % 500;
            client.write(block, &pattern(block, number), number % 16 == 0).expect("a write fails while it grows");
            written.insert(block, number);
            if ended.load(Ordering::Relaxed) {
                break;
            }
        }
        written.into_iter().collect::<Vec<_>>()
    });
    for n in [1, 2] {
        lengthen(&sites, n, 64 * MIB);
    }
    sites.tell(1, &["resize", "r0"]).expect(0, &["bytes now"]);
    let after = size(&sites, 1);
    assert!(after > 63 * MIB && size(&sites, 2) == after, "{before} to {after}");
    let mut client = sites.client(1);
    assert_eq!(client.size(), after);
    let last = after / BLOCK - 1;
    client.write(last, &pattern(last, 1), true).expect("what is new is written");
    stop.store(true, Ordering::Relaxed);
    let written = writer.ended("the writer");
    sites.until_equal(1);
    sites.switch(1, 2);
    let mut client = sites.client(2);
    assert_eq!(client.size(), after);
    holds(&mut client, &written);
    holds(&mut client, &[(last, 1)]);
    sites.compare_disks();
    for n in [1, 2] {
        sites.tell(n, &["check", "r0"]).expect(0, &["Nothing is wrong"]);
        sites.up(n);
        assert_eq!(size(&sites, n), after, "also after a restart");
    }
}

/// [attach-while-connected-resize] A peer that is away keeps its bits, and nothing grows without it.
#[test]
fn nothing_grows_without_a_peer_or_without_room_and_what_was_marked_is_sent() {
    let mut sites = Sites::equal("C");
    let before = size(&sites, 1);
    let unchanged = |sites: &Sites, args: &[&str], word: &str| {
        sites.tell(1, &[&["resize", "r0"], args].concat()).expect(4, &[word]);
        assert_eq!(size(sites, 1), before);
    };
    unchanged(&sites, &[], "has room for");
    lengthen(&sites, 1, 64 * MIB);
    unchanged(&sites, &[], "the disk of node-2 has room for");
    lengthen(&sites, 2, 32 * MIB);
    unchanged(&sites, &["--size", "60M"], "the disk of node-2 has room for");
    unchanged(&sites, &["--size", "4M"], "never becomes smaller");
    sites.tell(2, &["resize", "r0"]).expect(4, &["not primary"]);
    sites.kill(2);
    until("node 2 is missed", || sites.peer(1)["connection"] != "Established");
    let mut client = sites.client(1);
    let written: Vec<(u64, u64)> = (0..3).map(|n| (n * 100, 7)).collect();
    written.iter().for_each(|(b, n)| client.write(*b, &pattern(*b, *n), true).expect("written alone"));
    unchanged(&sites, &[], "node-2 is not connected and equal");
    sites.up(2);
    sites.until_equal(1);
    let sent = sites.peer(1)["synchronised"]["sent"].as_u64();
    assert!(sent.is_some_and(|s| (3..20).contains(&s)), "what was marked, and no more: {sent:?}");
    sites.tell(1, &["resize", "r0", "--size", "30M"]).expect(0, &["31457280 bytes now"]);
    sites.until_equal(1);
    assert_eq!((size(&sites, 1), size(&sites, 2)), (30 * MIB, 30 * MIB));
    sites.switch(1, 2);
    holds(&mut sites.client(2), &written);
    sites.compare_disks();
}

/// [connect-differing-sizes] Either side is killed somewhere in the middle: it has the old size or the new one, and both have the
/// same again when they have met.
#[test]
fn whoever_is_killed_while_the_device_grows_both_have_one_size_in_the_end() {
    let mut sites = Sites::equal("C");
    let mut sizes = vec![size(&sites, 1)];
    sites.client(1).write(5, &pattern(5, 1), true).expect("written");
    for round in 0..6_u64 {
        let (victim, len) = (1 + round as usize % 2, (32 + 16 * round) * MIB);
        for n in [1, 2] {
            lengthen(&sites, n, len);
        }
        let folder = sites.folder(1).to_owned();
        let asked = background(move || {
            crate::fixture::run(&["replica", "resize", "r0", "--dir", crate::fixture::path(&folder)])
        });
        std::thread::sleep(Duration::from_millis(4 * round));
        sites.kill(victim);
        drop(asked.ended("the command"));
        sites.up(victim);
        if victim == 1 {
            until("it is primary again", || sites.tell(1, &["primary", "r0"]).code == 0);
        }
        sites.until_equal(1);
        until("one size", || size(&sites, 1) == size(&sites, 2));
        let now = size(&sites, 1);
        assert!(now >= *sizes.last().expect("one"), "{now} after {sizes:?}");
        sizes.push(now);
        let mut client = sites.client(1);
        let last = now / BLOCK - 1;
        client.write(last, &pattern(last, round), true).expect("the last block is written");
        holds(&mut client, &[(5, 1), (last, round)]);
    }
    println!("sizes: {sizes:?}");
    sites.compare_disks();
    for n in [1, 2] {
        sites.tell(n, &["check", "r0"]).expect(0, &["Nothing is wrong"]);
    }
}

/// The metadata lie where the disk ended before: they are found there.
#[test]
fn a_disk_that_grew_while_its_replica_was_stopped_is_found_and_grows_later() {
    let mut sites = Sites::equal("C");
    let before = size(&sites, 1);
    sites.client(1).write(3, &pattern(3, 9), true).expect("written");
    for n in [1, 2] {
        sites.down(n);
        lengthen(&sites, n, 48 * MIB);
        sites.tell(n, &["check", "r0"]).expect(0, &["Nothing is wrong"]);
    }
    sites.up(1);
    sites.up(2);
    until("it is primary", || sites.tell(1, &["primary", "r0"]).code == 0);
    sites.until_equal(1);
    assert_eq!((size(&sites, 1), size(&sites, 2)), (before, before));
    sites.must(1, &["resize", "r0"]);
    sites.until_equal(1);
    holds(&mut sites.client(1), &[(3, 9)]);
    let after = size(&sites, 2);
    assert!(after > 47 * MIB);
    // About to move once more, and killed: neither place is forgotten.
    for n in [1, 2] {
        lengthen(&sites, n, 80 * MIB);
    }
    sites.tell(1, &["resize", "r0", "--size", "200M"]).expect(4, &["has room for"]);
    for n in [1, 2] {
        sites.kill(n);
        sites.up(n);
    }
    until("it is primary", || sites.tell(1, &["primary", "r0"]).code == 0);
    sites.until_equal(1);
    assert_eq!((size(&sites, 1), size(&sites, 2)), (after, after));
    holds(&mut sites.client(1), &[(3, 9)]);
    sites.compare_disks();
}

/// The files are sparse: what is new reads as zeroes on both, but for where each had its own metadata.
#[test]
fn what_is_assumed_to_be_clean_is_not_sent() {
    let mut sites = Sites::equal("C");
    let before = size(&sites, 1);
    for n in [1, 2] {
        lengthen(&sites, n, 256 * MIB);
    }
    sites.tell(1, &["resize", "r0", "--assume-clean"]).expect(0, &[]);
    sites.until_equal(1);
    let moved = sites.peer(1)["synchronised"].clone();
    let units = |of: &str| moved[of].as_u64().expect("it was synchronised");
    let own = (16 * MIB - before).div_ceil(BLOCK);
    assert!(units("sent") + units("zeroed") + units("equal") <= own, "{moved} of {own} blocks of metadata");
    let last = size(&sites, 1) / BLOCK - 1;
    let mut client: Client = sites.client(1);
    client.write(last, &pattern(last, 2), true).expect("written");
    holds(&mut client, &[(last, 2)]);
    sites.compare_disks();
}
