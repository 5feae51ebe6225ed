//! A replicated device over two real processes, its disks files, its clients over NBD. After each test in which the two
//! were equal at the end the disks are compared byte by byte.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::fixture::{addresses, background, path, run, until};

#[path = "replica/client.rs"]
pub(crate) mod client;
#[path = "replica/nodes.rs"]
pub(crate) mod nodes;
#[path = "replica/sites.rs"]
pub(crate) mod sites;

use client::{BLOCK, Client, holds, pattern};
use nodes::Nodes as _;
use sites::Sites;

/// The last write of each block.
fn last(acknowledged: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let map: std::collections::BTreeMap<u64, u64> = acknowledged.iter().copied().collect();
    map.into_iter().collect()
}

#[test]
fn every_acknowledged_write_survives_the_primarys_death_and_only_what_differs_is_sent_back() {
    let mut sites = Sites::equal("C");
    let acked = Arc::new(AtomicU64::new(0));
    let (count, mut client) = (Arc::clone(&acked), sites.client(1));
    let writer = background(move || {
        let mut acknowledged = Vec::new();
        for number in 1.. {
            let block = number * 37 % 1500;
            if client.write(block, &pattern(block, number), number % 50 == 0).is_err() {
                return (acknowledged, (block, number));
            }
            acknowledged.push((block, number));
            count.store(number, Ordering::Relaxed);
        }
        unreachable!("it is killed before");
    });
    until("some hundred writes", || acked.load(Ordering::Relaxed) > 400);
    sites.kill(1);
    let (acknowledged, unanswered) = writer.ended("the writer");
    until("the promotion of the other", || sites.tell(2, &["primary", "r0"]).code == 0);
    let mut client = sites.client(2);
    // The one that was under way may be there or not.
    let whole: Vec<_> = last(&acknowledged).into_iter().filter(|(b, _)| *b != unanswered.0).collect();
    holds(&mut client, &whole);
    for block in 2000..2020 {
        client.write(block, &pattern(block, 7), true).expect("written alone");
    }
    sites.up(1);
    sites.until_equal(2);
    let moved = sites.peer(2)["synchronised"].clone();
    let sent = moved["sent"].as_u64().expect("it was synchronised");
    assert!((20..=22).contains(&sent), "what differs is twenty blocks and at most the one under way: {moved}");
    assert!(moved["equal"].as_u64() > Some(100), "where the dead one had written is compared: {moved}");
    drop(client);
    sites.switch(2, 1);
    holds(&mut sites.client(1), &whole);
    sites.compare_disks();
}

#[test]
fn a_split_brain_is_found_and_ends_with_the_data_that_the_user_chose() {
    let mut sites = Sites::equal("C");
    sites.client(1).write(5, &pattern(5, 1), true).expect("written");
    sites.must(2, &["disconnect", "r0"]);
    until("the first notices", || sites.peer(1)["connection"] == "Connecting");
    sites.must(2, &["primary", "r0"]);
    sites.client(2).write(5, &pattern(5, 2), true).expect("written apart");
    sites.client(1).write(6, &pattern(6, 3), true).expect("written apart");
    sites.must(2, &["connect", "r0"]);
    for n in [1, 2] {
        until("the split brain is found", || sites.peer(n)["connection"] == "StandAlone");
        let reason = sites.peer(n)["reason"].to_string();
        assert!(reason.contains("SplitBrain"), "{reason}");
    }
    assert_eq!(sites.client(2).read(5).expect("a read"), pattern(5, 2), "nobody was overwritten");
    sites.tell(2, &["connect", "r0", "--discard-my-data"]).expect(4, &["primary", "secondary r0"]);
    sites.must(2, &["secondary", "r0"]);
    sites.must(2, &["connect", "r0", "--discard-my-data"]);
    sites.must(1, &["connect", "r0"]);
    sites.until_equal(1);
    assert_eq!(sites.peer(1)["synchronised"]["sent"], 2, "{}", sites.peer(1));
    holds(&mut sites.client(1), &[(5, 1), (6, 3)]);
    sites.switch(1, 2);
    holds(&mut sites.client(2), &[(5, 1), (6, 3)]);
    sites.compare_disks();
}

#[test]
fn what_was_given_up_at_a_meeting_is_given_up_at_that_meeting_only() {
    let mut sites = Sites::equal("C");
    sites.must(2, &["disconnect", "r0"]);
    sites.must(2, &["connect", "r0", "--discard-my-data"]);
    sites.until_equal(1);
    sites.must(2, &["disconnect", "r0"]);
    sites.must(2, &["primary", "r0"]);
    sites.client(2).write(5, &pattern(5, 2), true).expect("written apart");
    sites.client(1).write(5, &pattern(5, 3), true).expect("written apart");
    sites.must(2, &["secondary", "r0"]);
    sites.must(2, &["connect", "r0"]);
    until("the split brain is found", || sites.peer(2)["connection"] == "StandAlone");
    sites.down(2);
    let disk = fs::read(sites.disk(2)).expect("a disk");
    assert!(disk[5 * BLOCK as usize..6 * BLOCK as usize] == pattern(5, 2), "nobody was overwritten");
}

#[test]
fn what_was_written_without_the_peer_is_sent_when_it_is_back_and_roles_switch() {
    let mut sites = Sites::equal("C");
    sites.tell(2, &["primary", "r0"]).expect(4, &["another node is primary"]);
    let mut client = sites.client(1);
    sites.must(1, &["disconnect", "r0"]);
    let written: Vec<(u64, u64)> = (0..30).map(|n| (n * 101, 9)).collect();
    for (block, number) in &written {
        client.write(*block, &pattern(*block, *number), false).expect("written without the peer");
    }
    client.flush().expect("flushed");
    assert_eq!(sites.peer(1)["out_of_sync_bytes"], 30 * BLOCK);
    sites.must(1, &["connect", "r0"]);
    sites.until_equal(1);
    assert_eq!(sites.peer(1)["synchronised"]["sent"], 30, "{}", sites.peer(1));
    sites.switch(1, 2);
    assert!(client.read(0).is_err(), "a secondary serves nobody");
    holds(&mut sites.client(2), &written);
    sites.compare_disks();
}

/// The same at A and B: what was flushed and settled is there on both.
#[test]
fn asynchronous_protocols_come_to_the_same_disks() {
    for protocol in ["A", "B"] {
        let mut sites = Sites::equal(protocol);
        let mut client = sites.client(1);
        let written: Vec<(u64, u64)> = (0..200).map(|n| (n * 7 % 1000, n)).collect();
        for (block, number) in &written {
            client.write(*block, &pattern(*block, *number), false).expect("written");
        }
        sites.switch(1, 2);
        holds(&mut sites.client(2), &last(&written));
        sites.compare_disks();
    }
}

/// Writes go on all the while; whoever reads at the end finds the last of each.
#[test]
fn writes_go_on_while_the_peer_is_killed_and_synchronised_again_and_again() {
    let mut sites = Sites::equal("C");
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, mut client) = (Arc::clone(&stop), sites.client(1));
    let writer = background(move || {
        let mut acknowledged = Vec::new();
        for number in 1.. {
            let block = number * 89 % 3000;
            client.write(block, &pattern(block, number), false).expect("written");
            acknowledged.push((block, number));
            if ended.load(Ordering::Relaxed) {
                break;
            }
        }
        acknowledged
    });
    for _ in 0..3 {
        sites.kill(2);
        sites.up(2);
        sites.until_equal(1);
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.ended("the writer");
    sites.switch(1, 2);
    holds(&mut sites.client(2), &last(&acknowledged));
    sites.compare_disks();
}

/// Zeroes and discards are writes like others: they reach both disks, in order, and leave the same on both; and what is
/// zero at the source is no data at the target either.
#[test]
fn discards_and_zeroes_reach_both_disks_and_a_synchronisation_keeps_holes() {
    const MIB: u64 = (1 << 20) / BLOCK;
    let mut sites = Sites::equal_of("C", 64 << 20);
    let mut client = sites.client(1);
    let mut written = Vec::new();
    for block in 0..32 * MIB {
        client.write(block, &pattern(block, 1), false).expect("written");
        written.push((block, 1));
    }
    client.trim(MIB, 4 * MIB as u32).expect("discarded");
    client.zero(8 * MIB + 1, 3 * MIB as u32, true).expect("zeroed");
    client.zero(16 * MIB, MIB as u32, false).expect("zeroed");
    // Behind them, and over them.
    client.write(2 * MIB, &pattern(2 * MIB, 2), true).expect("written");
    written.push((2 * MIB, 2));
    let zeroed = |block: u64| {
        (MIB..5 * MIB).contains(&block)
            || (8 * MIB + 1..11 * MIB + 1).contains(&block)
            || (16 * MIB..17 * MIB).contains(&block)
    };
    let still: Vec<_> = last(&written).into_iter().filter(|(b, n)| !zeroed(*b) || *n == 2).collect();
    let is_zero = |client: &mut Client| {
        for block in (0..32 * MIB).filter(|b| zeroed(*b) && *b != 2 * MIB) {
            assert!(client.read(block).expect("a read") == vec![0; BLOCK as usize], "block {block} is not zero");
        }
    };
    holds(&mut client, &still);
    is_zero(&mut client);
    let (one, two) = (sites.allocated(1), sites.allocated(2));
    let holes = one < 28 << 20;
    if holes {
        assert!(two < 28 << 20, "the peer's disk has no holes: {two} bytes beside {one}");
    } else {
        println!("skipped: the file system of the disks has no holes");
    }
    sites.switch(1, 2);
    let mut client = sites.client(2);
    holds(&mut client, &still);
    is_zero(&mut client);

    // Without the peer, and then synchronised: what is zero is told, and frees there.
    sites.must(2, &["disconnect", "r0"]);
    client.trim(20 * MIB, 8 * MIB as u32).expect("discarded");
    client.write(30 * MIB, &pattern(30 * MIB, 3), true).expect("written");
    assert_eq!(sites.peer(2)["out_of_sync_bytes"], (8 * MIB + 1) * BLOCK);
    sites.must(2, &["connect", "r0"]);
    sites.until_equal(2);
    let moved = sites.peer(2)["synchronised"].clone();
    assert_eq!((moved["sent"].as_u64(), moved["zeroed"].as_u64()), (Some(1), Some(8 * MIB)), "{moved}");
    if holes {
        let (one, two) = (sites.allocated(1), sites.allocated(2));
        assert!(one < 20 << 20 && two < 20 << 20, "{one} and {two} bytes are allocated");
    }
    sites.compare_disks();
}

/// Blocks of each disk are damaged behind the replicas' backs, while others are written.
#[test]
fn a_verification_finds_the_damaged_blocks_and_repairs_them_from_the_named_side() {
    let mut sites = Sites::equal("C");
    let mut client = sites.client(1);
    let written: Vec<(u64, u64)> = (0..200).map(|block| (block, 1)).collect();
    for (block, number) in &written {
        client.write(*block, &pattern(*block, *number), false).expect("written");
    }
    client.flush().expect("flushed");
    let damage = |n: usize, block: u64, blocks: u64| {
        let file = fs::File::options().write(true).open(sites.disk(n)).expect("a disk");
        file.write_all_at(&vec![0xd0; (blocks * BLOCK) as usize], block * BLOCK)
            .and_then(|()| file.sync_all())
            .expect("damage");
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, mut busy) = (Arc::clone(&stop), sites.client(1));
    let writer = background(move || {
        let mut acknowledged = Vec::new();
        for number in 1.. {
            let block = 1000 + number * 7 % 40;
            busy.write(block, &pattern(block, number), false).expect("written");
            acknowledged.push((block, number));
            if ended.load(Ordering::Relaxed) {
                return acknowledged;
            }
        }
        unreachable!("it is told to stop");
    });
    sites.must(1, &["verify", "r0"]);
    damage(2, 10, 2);
    damage(2, 50, 1);
    let ranges = |n: usize| sites.peer(n)["verified"]["ranges"].clone();
    sites
        .tell(1, &["verify", "r0"])
        .expect(5, &["12288 bytes differ in 2 ranges", "bytes 40960 to 49151", "bytes 204800 to 208895"]);
    assert_eq!(ranges(2), serde_json::json!([[40960, 8192], [204_800, 4096]]), "the other side knows as well");
    sites.tell(2, &["verify", "r0", "--repair-from", "1"]).expect(4, &["not primary here"]);
    sites.tell(2, &["verify", "r0"]).expect(5, &["12288 bytes differ in 2 ranges"]);
    sites.tell(1, &["verify", "r0", "--repair-from", "1"]).expect(0, &["Repaired, as node-1 has it"]);
    sites.must(1, &["verify", "r0"]);

    damage(1, 60, 3);
    assert!(client.read(61).expect("a read") != pattern(61, 1), "it is damaged");
    sites.tell(1, &["verify", "r0", "--repair-from", "2"]).expect(0, &["Repaired, as node-2 has it"]);
    holds(&mut client, &written);
    sites.must(1, &["verify", "r0"]);
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.ended("the writer");
    sites.switch(1, 2);
    holds(&mut sites.client(2), &last(&acknowledged));
    holds(&mut sites.client(2), &written);
    sites.must(2, &["disconnect", "r0"]);
    sites.tell(2, &["verify", "r0"]).expect(4, &["an equal peer"]);
    sites.must(2, &["connect", "r0"]);
    sites.until_equal(2);
    sites.compare_disks();
}

/// A disk with data becomes a replica, and is synchronised while it is written: the synchronisation holds back for that. Its target is
/// killed in the middle; what it has does not come again.
#[test]
fn a_synchronisation_goes_on_where_it_was_when_its_target_is_killed() {
    let size: u64 = 192 << 20;
    let mut sites = Sites::new("C", [size; 2]);
    let data: Vec<u8> =
        (0..size / 8 - (1 << 20)).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    fs::File::options().write(true).open(sites.disk(1)).and_then(|f| f.write_all_at(&data, 0)).expect("data");
    sites.up(1);
    sites.must(1, &["primary", "r0", "--force"]);
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, mut client) = (Arc::clone(&stop), sites.client(1));
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let writer = background(move || {
        let mut acknowledged = Vec::new();
        for number in 1.. {
            let block = number * 89 % 3000;
            client.write(block, &pattern(block, number), false).expect("written");
            acknowledged.push((block, number));
            counted.store(number, Ordering::Relaxed);
            if ended.load(Ordering::Relaxed) {
                break;
            }
        }
        acknowledged
    });
    sites.up(2);
    let total = sites.status(1)["size_bytes"].as_u64().expect("a size");
    let mut left = total;
    let mut before = 0;
    until("a third of it", || {
        let peer = sites.peer(1);
        assert_ne!(peer["connection"], "Established", "it ended before anybody looked");
        before = count.load(Ordering::Relaxed);
        let bytes = |of: &str| peer["resync"][of].as_u64().unwrap_or(0);
        left = bytes("total_bytes") - bytes("done_bytes");
        bytes("total_bytes") >= total && bytes("done_bytes") > total / 3
    });
    sites.kill(2);
    sites.up(2);
    sites.until_equal(1);
    // One more may be under way at either end.
    let meanwhile = (count.load(Ordering::Relaxed) - before + 2).min(3000);
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.ended("the writer");
    let moved = sites.peer(1)["synchronised"].clone();
    let again: u64 = ["sent", "zeroed"].iter().filter_map(|k| moved[k].as_u64()).sum();
    // Besides the rest, what the writer wrote while the target was away, or not yet back: a block of each number is another one, up to 3000.
    assert!(
        again * BLOCK <= left + meanwhile * BLOCK,
        "{left} of {total} bytes were left, {meanwhile} written: {moved}"
    );
    sites.switch(1, 2);
    holds(&mut sites.client(2), &last(&acknowledged));
    sites.compare_disks();
}

#[test]
fn a_replica_is_made_and_run_only_where_that_harms_nobody() {
    let mut sites = Sites::new("C", [16 << 20, 12 << 20]);
    let disk = sites.disk(1);
    let again = |name: &str, more: &[&str]| {
        let (dir, bundle) = (sites.folder(1), sites.bundle(1));
        let mut args =
            vec!["replica", "create", name, "--dir", path(dir), "--local", path(&disk), "--peer", "2=127.0.0.9:9"];
        args.extend(["--listen", "127.0.0.1:0", "--bundle", path(&bundle)]);
        args.extend(more);
        run(&args)
    };
    again("r0", &[]).expect(4, &["already"]);
    again("r1", &[]).expect(4, &["carries a replica of node 1", "--wipe replica-"]);
    again("../r1", &[]).expect(2, &["no name"]);
    again("r1", &["--peer", "7=127.0.0.9:9"]).expect(2, &["no such node"]);
    again("r1", &["--peer", "1=127.0.0.9:9"]).expect(2, &["this node itself"]);
    let swap = sites.folder(1).join("swap.img");
    let mut image = vec![0; 16 << 20];
    image[4086..4096].copy_from_slice(b"SWAPSPACE2");
    fs::write(&swap, &image).expect("an image");
    sites.create(1, "r2", &swap).expect(4, &["swap", "--wipe"]);
    assert!(fs::read(&swap).expect("the image") == image, "it was not touched");
    sites.tell(1, &["status", "r9"]).expect(3, &["no replica r9"]);
    sites.tell(1, &["status", "r0"]).expect(3, &["does not run", "replica up r0"]);
    sites.up(1);
    sites.tell(1, &["up", "r0"]).expect(4, &["in use"]);
    sites.tell(1, &["primary", "r0"]).expect(4, &["--force"]);
    sites.up(2);
    until("the sizes are compared", || sites.peer(1)["reason"].to_string().contains("--size"));
    assert_eq!(sites.peer(1)["connection"], "Connecting");
}

#[test]
fn a_node_of_another_cluster_is_not_let_in() {
    let mut sites = Sites::new("C", [8 << 20, 8 << 20]);
    let other: PathBuf = sites.other_cluster(2);
    sites.recreate(2, &other);
    sites.up(1);
    sites.up(2);
    until("the refusal", || sites.peer(1)["reason"].is_string());
    sites.must(1, &["primary", "r0", "--force"]);
    assert_eq!(sites.peer(1)["connection"], "Connecting");
    assert_eq!(sites.status(2)["disk"], "Inconsistent", "nothing came from there");
}

#[test]
fn a_preview_says_what_a_connection_would_come_to_and_changes_nothing() {
    let mut sites = Sites::equal("C");
    sites.tell(2, &["connect", "r0", "--tentative"]).expect(4, &["disconnect r0"]);
    sites.must(2, &["disconnect", "r0"]);
    let mut client = sites.client(1);
    for block in 0..20 {
        client.write(block, &pattern(block, 3), true).expect("written without the peer");
    }
    let before = fs::read(sites.disk(2)).expect("a disk");
    let said = ["node-1", "this replica would be the target", "up to 81920 bytes", "BitmapPeer"];
    sites.tell(2, &["connect", "r0", "--tentative"]).expect(0, &said);
    assert_eq!(sites.peer(2)["connection"], "StandAlone");
    assert_eq!(sites.peer(2)["preview"]["result"], "target");
    assert_eq!(sites.status(2)["disk"], "UpToDate", "it knows of nothing newer in earnest");
    assert!(fs::read(sites.disk(2)).expect("a disk") == before, "nothing was changed");
    sites.kill(1);
    sites.tell(2, &["connect", "r0", "--tentative"]).expect(0, &["node-1: nothing is known"]);
    sites.up(1);
    sites.must(2, &["connect", "r0"]);
    sites.must(1, &["primary", "r0"]);
    sites.until_equal(1);
    holds(&mut sites.client(1), &(0..20).map(|b| (b, 3)).collect::<Vec<_>>());
    sites.compare_disks();
}

#[test]
fn events_tell_what_there_is_and_then_each_change_as_a_line_of_json() {
    let mut sites = Sites::equal("C");
    let once = sites.tell(1, &["events", "r0"]);
    once.expect(0, &[]);
    let lines: Vec<serde_json::Value> = once.out.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let of = |l: &serde_json::Value| (l["event"].clone(), l["of"]["object"].clone());
    let expected = [("exists", "resource"), ("exists", "peer"), ("exists", "-")].map(|(e, o)| (e.into(), o.into()));
    assert_eq!(lines.iter().map(of).collect::<Vec<_>>(), expected);
    assert!(lines.iter().all(|l| l["schema"] == 1 && l["at"].as_u64() > Some(0)));
    let follower = sites.following(1);
    sites.kill(2);
    let lost = |l: &serde_json::Value| l["event"] == "change" && l["of"]["connection"] == "Connecting";
    follower.until("the loss of the peer", lost);
    sites.up(2);
    follower.until("its return", |l| l["event"] == "change" && l["of"]["connection"] == "Established");
    sites.until_equal(1);
    sites.must(1, &["secondary", "r0"]);
    follower.until("the change of role", |l| l["of"]["object"] == "resource" && l["of"]["role"] == "Secondary");
    sites.compare_disks();
    follower.ended();
}

#[test]
fn a_check_names_what_is_wrong_with_the_metadata_and_changes_nothing() {
    let mut sites = Sites::equal("C");
    sites.tell(1, &["check", "r0"]).expect(4, &["in use"]);
    sites.down(1);
    sites.down(2);
    sites.tell(1, &["check", "r0"]).expect(0, &["Nothing is wrong", "disk:Consistent"]);
    assert_eq!(sites.tell(1, &["check", "r0", "--json"]).json()["check"]["clean"], true);
    let mut disk = fs::read(sites.disk(1)).expect("a disk");
    let end = disk.len();
    disk[end - 4096 + 100] ^= 1;
    fs::write(sites.disk(1), &disk).expect("writes");
    sites.tell(1, &["check", "r0"]).expect(5, &["superblock A"]);
    assert!(fs::read(sites.disk(1)).expect("a disk") == disk, "nothing was changed");
    disk[end - 8192 + 100] ^= 1;
    fs::write(sites.disk(1), &disk).expect("writes");
    sites.tell(1, &["check", "r0"]).expect(5, &["both superblocks are damaged"]);
}

/// What Prometheus reads: lag and acknowledgements of writes that were made, the state that status tells.
#[test]
fn metrics_tell_acknowledgements_lag_and_state() {
    let mut sites = Sites::new("C", [16 << 20; 2]);
    let port = addresses(1)[0].clone();
    let file = sites.folder(1).join("r0.toml");
    let text = fs::read_to_string(&file).expect("the file");
    fs::write(&file, format!("metrics = \"{port}\"\n{text}")).expect("writes");
    sites.up(1);
    sites.up(2);
    sites.must(1, &["primary", "r0", "--force"]);
    sites.until_equal(1);
    let metrics = || scrape(&port, "/metrics");
    let number = |text: &str, name: &str| -> f64 {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    };
    let acks = "shorefast_replica_peer_acknowledgement_seconds_count{name=\"r0\",peer=\"2\"}";
    let writes = "shorefast_replica_request_seconds_count{name=\"r0\",op=\"write\"}";
    let before = metrics();
    let mut client = sites.client(1);
    for n in 0..20 {
        client.write(n, &pattern(n, 1), n % 5 == 0).expect("written");
    }
    let after = metrics();
    for name in [acks, writes] {
        assert_eq!(number(&after, name) - number(&before, name), 20.0, "{name}");
    }
    let written = "shorefast_replica_written_bytes_total{name=\"r0\"}";
    assert_eq!(number(&after, written) - number(&before, written), f64::from(20 * 4096));
    assert_eq!(number(&after, "shorefast_replica_primary{"), 1.0);
    assert_eq!(number(&after, "shorefast_replica_peer_lag_bytes{"), 0.0);
    assert!(after.contains("shorefast_replica_disk{name=\"r0\",state=\"UpToDate\"} 1"), "{after}");
    // A peer that is frozen writes nothing: the lag grows with what is sent to it.
    sites.signal(2, "STOP");
    let mut other = sites.client(1);
    let waits = background(move || other.write(30, &pattern(30, 2), false));
    until("there is a lag", || number(&metrics(), "shorefast_replica_peer_lag_bytes{") == 4096.0);
    // From one look to the next: a peer that is silent for seconds is given up, and has no lag then.
    let mut last = f64::MAX;
    until("the lag grows", || {
        let lag = number(&metrics(), "shorefast_replica_peer_lag_seconds{");
        std::mem::replace(&mut last, lag) + 0.001 < lag
    });
    sites.signal(2, "CONT");
    waits.ended("the write").expect("written");
    until("there is no lag", || number(&metrics(), "shorefast_replica_peer_lag_bytes{") == 0.0);
    assert!(scrape(&port, "/").starts_with("HTTP/1.1 404"));
}

fn scrape(at: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(at).expect("it is served");
    let asked = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    std::io::Write::write_all(&mut stream, asked.as_bytes()).expect("asked");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).expect("an answer");
    text
}
