//! A resource of several volumes over real processes: one order of writes, one role, a disk and an export for each volume. After each test in
//! which the nodes were equal at the end the disks of all volumes are compared byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fixture::{background, path, until};
use crate::replica::client::{BLOCK, Client, holds, pattern};
use crate::replica::nodes::Nodes;
use crate::replica::sites::Sites;

pub(crate) const MIB: u64 = 1 << 20;

/// The disk of a volume of a site.
pub(crate) fn disk(sites: &Sites, n: usize, volume: usize) -> PathBuf {
    if volume == 0 { sites.disk(n) } else { sites.folder(n).join(format!("disk-{volume}.img")) }
}

pub(crate) fn make_disk(sites: &Sites, n: usize, volume: usize, bytes: u64) {
    fs::File::create(disk(sites, n, volume)).and_then(|f| f.set_len(bytes)).expect("a disk");
}

/// Two sites with a device of two volumes, equal, the first one primary.
pub(crate) fn two_volumes(protocol: &'static str) -> Sites {
    let mut sites = Sites::new(protocol, [16 * MIB; 2]);
    for n in [1, 2] {
        fs::remove_file(sites.folder(n).join("r0.toml")).expect("a record");
        fs::File::create(sites.disk(n)).and_then(|f| f.set_len(16 * MIB)).expect("a disk");
        make_disk(&sites, n, 1, 12 * MIB);
        let further = disk(&sites, n, 1);
        sites.create_more(n, "r0", &sites.disk(n), &["--local", path(&further)]).expect(0, &[" + "]);
        sites.up(n);
    }
    sites.must(1, &["primary", "r0", "--force"]);
    sites.until_equal(1);
    sites
}

/// A client of a volume.
pub(crate) fn client(sites: &Sites, n: usize, volume: usize) -> Client {
    let export = if volume == 0 { "r0".to_owned() } else { format!("r0/{volume}") };
    Client::connect(&sites.folder(n).join("r0.nbd"), &export).expect("it is served")
}

/// Stops both and compares the data of all volumes.
pub(crate) fn compare_all(sites: &mut Sites) {
    let volumes: Vec<(u64, u64)> = sites.status(1)["volumes"]
        .as_array()
        .expect("volumes")
        .iter()
        .map(|v| (v["volume"].as_u64().expect("a number"), v["size_bytes"].as_u64().expect("a size")))
        .collect();
    assert!(volumes.len() > 1, "{volumes:?}");
    for n in [1, 2] {
        sites.down(n);
        sites.tell(n, &["check", "r0"]).expect(0, &["Nothing is wrong"]);
    }
    for (volume, size) in volumes {
        let read = |n| fs::read(disk(sites, n, volume as usize)).expect("a disk")[..size as usize].to_vec();
        let (one, two) = (read(1), read(2));
        let differ = one.chunks(4096).zip(two.chunks(4096)).position(|(a, b)| a != b);
        assert_eq!(differ, None, "volume {volume} differs in that block");
    }
}

/// [add-disk-concurrent, quorum-multi-volume] What was acknowledged on all volumes outlives the primary's process, in one order: each write goes
/// to the first volume, then to the second, and never is there a second without its first.
#[test]
fn writes_to_two_volumes_survive_the_primarys_death_in_their_order() {
    for protocol in ["C", "A"] {
        let mut sites = two_volumes(protocol);
        let acked = Arc::new(AtomicU64::new(0));
        let (count, mut first, mut second) = (Arc::clone(&acked), client(&sites, 1, 0), client(&sites, 1, 1));
        let writer = background(move || {
            for number in 1.. {
                let block = number % 1000;
                let written = first.write(block, &pattern(block, number), false);
                if written.and_then(|()| second.write(block, &pattern(block, number), number % 50 == 0)).is_err() {
                    return;
                }
                count.store(number, Ordering::Relaxed);
            }
        });
        until("some hundred writes", || acked.load(Ordering::Relaxed) > 700);
        sites.kill(1);
        writer.ended("the writer");
        let last = acked.load(Ordering::Relaxed);
        until("the promotion of the other", || sites.tell(2, &["primary", "r0"]).code == 0);
        let (mut first, mut second) = (client(&sites, 2, 0), client(&sites, 2, 1));
        let number = |data: &[u8]| u64::from_le_bytes(data[..8].try_into().expect("eight bytes")) & 0xffff_ffff;
        for block in 0..1000 {
            let (one, two) =
                (number(&first.read(block).expect("a read")), number(&second.read(block).expect("a read")));
            assert!(one >= two, "block {block}: write {two} is in the second volume, the first has {one}");
            let expected = if last >= block { last - (last - block) % 1000 } else { 0 };
            assert!(protocol == "A" || two >= expected, "block {block}: {two} after {expected} was acknowledged");
        }
        // It goes on alone: what the dead one has besides is given up when it is back.
        second.write(1500, &pattern(1500, 1), true).expect("written alone");
        sites.up(1);
        sites.until_equal(2);
        drop((first, second));
        sites.switch(2, 1);
        compare_all(&mut sites);
    }
}

#[test]
fn each_volume_has_its_export_its_bits_and_its_size_and_all_have_one_role() {
    let mut sites = two_volumes("C");
    let (mut first, mut second) = (client(&sites, 1, 0), client(&sites, 1, 1));
    assert!(first.size() > 15 * MIB && second.size() > 11 * MIB && second.size() < 12 * MIB);
    sites.must(1, &["disconnect", "r0"]);
    for block in 0..20 {
        second.write(block * 7, &pattern(block * 7, 3), true).expect("written without the peer");
    }
    first.write(5, &pattern(5, 4), true).expect("written without the peer");
    let marked = |n: usize| sites.status(1)["volumes"][n]["out_of_sync"][0]["bytes"].as_u64();
    assert_eq!((marked(0), marked(1)), (Some(BLOCK), Some(20 * BLOCK)));
    assert_eq!(sites.peer(1)["out_of_sync_bytes"], 21 * BLOCK);
    sites.tell(1, &["status", "r0"]).expect(0, &["volume:0 disk:UpToDate", "volume:1 disk:UpToDate"]);
    sites.must(1, &["connect", "r0"]);
    sites.until_equal(1);
    assert_eq!(sites.peer(1)["synchronised"]["sent"], 21, "{}", sites.peer(1));
    sites.switch(1, 2);
    assert!(first.read(0).is_err() && second.read(0).is_err(), "a secondary serves no volume");
    holds(&mut client(&sites, 2, 1), &[(7, 3), (133, 3)]);
    holds(&mut client(&sites, 2, 0), &[(5, 4)]);
    compare_all(&mut sites);
}

/// A volume is damaged behind the replica's back: the verification says which volume, and repairs it.
#[test]
fn a_verification_names_the_volume_that_differs_and_repairs_it() {
    use std::os::unix::fs::FileExt;
    let mut sites = two_volumes("C");
    for volume in [0, 1] {
        let mut client = client(&sites, 1, volume);
        (0..50).for_each(|block| client.write(block, &pattern(block, 1), false).expect("written"));
        client.flush().expect("flushed");
    }
    let file = fs::File::options().write(true).open(disk(&sites, 2, 1)).expect("a disk");
    file.write_all_at(&[9; 4096], 11 * BLOCK).expect("damaged");
    let found = sites.tell(1, &["verify", "r0"]);
    found.expect(5, &["volume 1: bytes 45056 to 49151"]);
    sites.must(1, &["verify", "r0", "--repair-from", "1"]);
    sites.must(1, &["verify", "r0"]);
    compare_all(&mut sites);
}

/// [add-disk-concurrent] A second volume is added to a device that is written, on all nodes or on none; then one of its disks grows.
#[test]
fn a_volume_is_added_while_the_device_is_written_and_grows() {
    let mut sites = Sites::equal("C");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (ended, mut first) = (Arc::clone(&stop), sites.client(1));
    let writer = background(move || {
        let mut written = BTreeMap::new();
        for number in 1.. {
            let block = number * 37 % 500;
            first
                .write(block, &pattern(block, number), number % 16 == 0)
                .expect("a write fails while a volume is added");
            written.insert(block, number);
            if ended.load(Ordering::Relaxed) {
                break;
            }
        }
        written.into_iter().collect::<Vec<_>>()
    });
    for n in [1, 2] {
        make_disk(&sites, n, 1, 8 * MIB);
        // What lies there is another on each node, and nobody's.
        let junk = vec![n as u8 * 17; 3 << 20];
        std::os::unix::fs::FileExt::write_all_at(
            &fs::File::options().write(true).open(disk(&sites, n, 1)).expect("a disk"),
            &junk,
            2 << 20,
        )
        .expect("written");
        let record = sites.folder(n).join("r0.toml");
        let text = fs::read_to_string(&record).expect("a record");
        fs::write(&record, text + &format!("\n[volumes.1]\ndisk = {:?}\n", path(&disk(&sites, n, 1))))
            .expect("written");
    }
    sites.tell(1, &["adjust", "r0"]).expect(4, &["r0/1 is not resized", "node-2 has no disk for it"]);
    assert_eq!(sites.status(1)["volumes"].as_array().map(Vec::len), Some(1), "on all nodes or on none");
    sites.must(2, &["adjust", "r0"]);
    sites.must(1, &["adjust", "r0"]);
    sites.until_equal(1);
    let mut second = client(&sites, 1, 1);
    let before = second.size();
    assert!(before > 7 * MIB, "{before}");
    second.write(3, &pattern(3, 5), true).expect("written");
    for n in [1, 2] {
        fs::File::options()
            .write(true)
            .open(disk(&sites, n, 1))
            .and_then(|f| f.set_len(24 * MIB))
            .expect("a longer disk");
    }
    sites.tell(1, &["resize", "r0", "--volume", "1"]).expect(0, &["r0/1 has", "bytes now"]);
    let mut second = client(&sites, 1, 1);
    assert!(second.size() > 23 * MIB);
    let end = second.size() / BLOCK - 1;
    second.write(end, &pattern(end, 6), true).expect("what is new is written");
    stop.store(true, Ordering::Relaxed);
    let written = writer.ended("the writer");
    sites.until_equal(1);
    drop(second);
    sites.switch(1, 2);
    holds(&mut client(&sites, 2, 0), &written);
    holds(&mut client(&sites, 2, 1), &[(3, 5), (end, 6)]);
    compare_all(&mut sites);
    for n in [1, 2] {
        sites.up(n);
        assert_eq!(sites.status(n)["volumes"].as_array().map(Vec::len), Some(2), "also after a restart");
    }
}

/// What is not the volume's disk is refused, and so is a disk that carries anything.
#[test]
fn a_volume_runs_only_with_its_own_disk() {
    let mut sites = two_volumes("C");
    sites.down(1);
    let (one, other) = (disk(&sites, 1, 1), disk(&sites, 2, 1));
    let aside = sites.folder(1).join("aside");
    fs::rename(&one, &aside).expect("moved");
    fs::copy(&other, &one).expect("copied");
    sites.tell(1, &["up", "r0"]).expect(1, &["the disk given for volume 1 is that of volume 1 of another replica"]);
    fs::File::create(&one).and_then(|f| f.set_len(12 * MIB)).expect("a disk");
    sites.tell(1, &["up", "r0"]).expect(1, &["carries no label of a volume"]);
    sites.tell(1, &["check", "r0"]).expect(5, &["carries no label of a volume"]);
    fs::rename(&aside, &one).expect("moved back");
    let record = sites.folder(1).join("r0.toml");
    let text = fs::read_to_string(&record).expect("a record");
    let cut = text.find("[volumes.1]").expect("a table");
    fs::write(&record, &text[..cut]).expect("written");
    sites.tell(1, &["up", "r0"]).expect(1, &["the replica has volume 1, and there is no disk for it"]);
    // A disk with anything on it is not taken for a volume that is to be added.
    let third = sites.folder(1).join("third.img");
    fs::copy(aside_of(&sites), &third).expect("copied");
    fs::write(&record, format!("{text}\n[volumes.2]\ndisk = {:?}\n", path(&third))).expect("written");
    sites.tell(1, &["up", "r0"]).expect(4, &["carries volume 1 of a replica"]);
    fs::write(&record, &text).expect("written");
    sites.up(1);
    sites.must(2, &["primary", "r0"]);
    sites.until_equal(2);
    compare_all(&mut sites);
}

/// A disk that carries a volume of another node's replica.
fn aside_of(sites: &Sites) -> PathBuf {
    disk(sites, 2, 1)
}

/// [verify] Neither of two secondaries follows a primary: they are compared with one another, whichever is asked.
#[test]
fn two_secondaries_without_a_primary_are_compared_and_what_differs_is_found() {
    use std::os::unix::fs::FileExt;
    let mut sites = Sites::equal("C");
    let mut first = sites.client(1);
    (0..50).for_each(|block| first.write(block, &pattern(block, 1), false).expect("written"));
    first.flush().expect("flushed");
    drop(first);
    sites.must(1, &["secondary", "r0"]);
    until("the two are secondaries and equal", || {
        let both = [1, 2].map(|n| (sites.status(n)["role"].clone(), sites.peer(n)["connection"].clone()));
        both.iter().all(|(role, connection)| role == "Secondary" && connection == "Established")
    });
    for n in [1, 2] {
        sites.tell(n, &["verify", "r0"]).expect(0, &["nothing differs"]);
    }
    let file = fs::File::options().write(true).open(sites.disk(2)).expect("a disk");
    file.write_all_at(&[9; 4096], 11 * BLOCK).expect("damaged");
    for n in [1, 2] {
        sites.tell(n, &["verify", "r0"]).expect(5, &["bytes 45056 to 49151"]);
    }
    sites.tell(1, &["verify", "r0", "--repair-from", "1"]).expect(4, &["is not primary here"]);
    sites.must(1, &["primary", "r0"]);
    sites.until_equal(1);
    sites.tell(2, &["verify", "r0"]).expect(5, &["bytes 45056 to 49151"]);
    sites.must(1, &["verify", "r0", "--repair-from", "1"]);
    sites.compare_disks();
}
