//! Behaviours that DRBD's public suite asks of a replicated device, in our own words (docs/semantics/replication.md has the table),
//! over real processes in network namespaces. Each ends with the disks of all that are up to date compared byte by byte.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::field::Field;
use crate::fixture::{Background, background, until};
use crate::replica::client::{BLOCK, Client, pattern};
use crate::replica::nodes::Nodes as _;

const EIO: i32 = 5;

/// Blocks and the numbers of their writes.
type Written = Vec<(u64, u64)>;

/// Writes blocks in turn until told to stop, or until one fails: what was acknowledged, and the error.
struct Writer {
    first: u64,
    blocks: u64,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Background<(Written, Option<i32>)>,
}

impl Writer {
    /// Over so many blocks from `first` on.
    fn start(mut client: Client, first: u64, blocks: u64) -> Writer {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, acked) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = background(move || {
            let mut acknowledged = Vec::new();
            for number in 1.. {
                let block = first + number * 37 % blocks;
                if let Err(e) = client.write(block, &pattern(block, number), number % 16 == 0) {
                    return (acknowledged, Some(e.raw_os_error().unwrap_or(0)));
                }
                acknowledged.push((block, number));
                acked.store(number, Ordering::Relaxed);
                if ended.load(Ordering::Relaxed) {
                    break;
                }
            }
            (acknowledged, None)
        });
        Writer { first, blocks, stop, count, thread }
    }

    fn until_written(&self, more: u64) {
        let from = self.count.load(Ordering::Relaxed);
        until("some more writes", || self.count.load(Ordering::Relaxed) >= from + more);
    }

    /// Stops it: the last write of each block.
    fn stop(self) -> Vec<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let (acknowledged, error) = self.thread.ended("the writer");
        assert_eq!(error, None, "a write failed after {} of them", acknowledged.len());
        last(&acknowledged)
    }

    /// Waits until it fails: what was acknowledged for certain. The block of the write under way may hold it or not.
    fn until_failed(self) -> Vec<(u64, u64)> {
        let (acknowledged, error) = self.thread.ended("the writer");
        assert!(error.is_some(), "it was not told");
        let unsure = self.first + (acknowledged.last().map_or(0, |(_, n)| *n) + 1) * 37 % self.blocks;
        last(&acknowledged).into_iter().filter(|(b, _)| *b != unsure).collect()
    }
}

/// The last write of each block.
fn last(acknowledged: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let map: std::collections::BTreeMap<u64, u64> = acknowledged.iter().copied().collect();
    map.into_iter().collect()
}

/// What the source of the last synchronisation counted: blocks sent, blocks compared and equal.
fn moved(field: &Field, source: usize, target: usize) -> (u64, u64) {
    let last = field.peer(source, target)["synchronised"].clone();
    (last["sent"].as_u64().expect("it was synchronised"), last["equal"].as_u64().expect("it was synchronised"))
}

/// Those that differ come first and are slow. Waits until some hundred of them are done and stable, counted from what is left when
/// this synchronisation is first seen: where only what was marked is compared, that is little to begin with.
fn until_part_done(field: &Field, source: usize, target: usize) {
    let mut whole = None;
    until("a part is done", || {
        let left = field.peer(target, source)["out_of_sync_bytes"].as_u64().expect("bytes");
        if left == 0 || field.status(target)["disk"] != "Inconsistent" {
            return false;
        }
        left + 150 * BLOCK <= *whole.get_or_insert(left)
    });
}

/// [quorum-isolate-primary] One secondary is cut off, a write, the other one is cut off, another write: it fails, nobody
/// acknowledged it, and the new primary elsewhere is no split brain.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn a_primary_that_loses_its_peers_one_after_the_other_stops_at_the_last_majority() {
    let Some(mut field) = Field::equal(3, false, &["--on-no-quorum", "io-error"]) else { return };
    field.client(1).write(1, &pattern(1, 1), true).expect("written with all");
    field.net.cut(1, 2);
    field.client(1).write(2, &pattern(2, 2), true).expect("written with two of three");
    field.net.cut(1, 3);
    assert_eq!(field.writing(1, 3, 3).ended("the write"), Some(EIO));
    // Node 2 was dropped by a grant that node 3 knows.
    until("node 2 is told so", || field.tell(2, &["primary", "r0"]).err.contains("others hold"));
    field.until_promoted(3, &[]);
    field.until_equal_to(3, &[2]);
    field.holds(3, &[(1, 1), (2, 2)]);
    field.client(3).write(4, &pattern(4, 4), true).expect("written by the new primary");
    field.net.mend();
    field.until_equal(3);
    field.holds(3, &[(1, 1), (2, 2), (4, 4)]);
    field.compare_disks();
}

/// [attach-while-connected-resize, connect-differing-sizes] Three grow beside a writer whose requests would fail without a majority: they
/// are met again one after the other.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn three_replicas_grow_beside_writes_and_never_lose_quorum() {
    let Some(mut field) = Field::equal(3, false, &["--on-no-quorum", "io-error"]) else { return };
    let writer = Writer::start(field.client(1), 0, 300);
    writer.until_written(50);
    for len in [64_u64 << 20, 128 << 20] {
        for n in 1..=3 {
            let disk = fs::File::options().write(true).open(field.disk(n)).expect("a disk");
            disk.set_len(len).expect("a longer disk");
        }
        field.must(1, &["resize", "r0"]);
        writer.until_written(50);
        field.until_equal(1);
    }
    let written = writer.stop();
    let size = |n| field.status(n)["size_bytes"].as_u64().expect("a size");
    assert!(size(1) > 120 << 20 && size(2) == size(1) && size(3) == size(1));
    let last = size(1) / BLOCK - 1;
    field.client(1).write(last, &pattern(last, 3), true).expect("what is new is written");
    field.kill(1);
    field.until_promoted(2, &[]);
    // It meets its peers anew as a primary, and has no majority until then.
    field.until_equal_to(2, &[3]);
    field.holds(2, &written);
    field.holds(2, &[(last, 3)]);
    field.up(1);
    field.until_equal(2);
    field.compare_disks();
}

/// At A the peer of a primary that crashed may lack what was acknowledged: it takes over by force alone, which says so. After a switch in
/// good order it lacks nothing.
#[test]
fn at_a_with_quorum_roles_switch_in_order_and_a_crash_takes_force() {
    let Some(mut field) = Field::new(2, true, &["--protocol", "A"]) else { return };
    field.up_all();
    field.until_promoted(1, &["--force"]);
    field.until_equal_to(1, &[2]);
    field.client(1).write(1, &pattern(1, 1), false).expect("written");
    field.must(1, &["secondary", "r0"]);
    field.until_promoted(2, &[]);
    field.until_equal_to(2, &[1]);
    field.holds(2, &[(1, 1)]);
    field.client(2).write(2, &pattern(2, 2), true).expect("written");
    field.until_equal_to(2, &[1]);
    field.kill(2);
    until("node 1 is refused", || field.tell(1, &["primary", "r0"]).code == 4);
    field.tell(1, &["primary", "r0", "--force"]).expect(0, &["has not come here is lost"]);
    field.client(1).write(3, &pattern(3, 3), true).expect("written");
    field.up(2);
    field.until_equal_to(1, &[2]);
    field.holds(1, &[(1, 1), (3, 3)]);
    field.compare_disks();
}

/// [quorum-degraded-join, quorum-far-away-and-down] One of three alone is no majority, whoever it is and whatever it held;
/// with a second one it is.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn one_of_three_alone_is_refused_and_with_a_second_one_it_is_not() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    field.client(1).write(1, &pattern(1, 1), true).expect("written");
    for n in [1, 3, 2] {
        field.down(n);
    }
    for n in 1..=3 {
        field.up(n);
        field.tell(n, &["primary", "r0"]).expect(7, &["no majority"]);
        field.tell(n, &["primary", "r0", "--force"]).expect(7, &["no majority"]);
        field.down(n);
    }
    field.up_all();
    field.until_promoted(2, &[]);
    field.until_equal(2);
    field.holds(2, &[(1, 1)]);
    field.compare_disks();
}

/// [quorum-tiebreaker] A and B are cut, the tie-breaker goes on with A; then it changes sides. B gains nothing by that: it was
/// dropped.
#[test]
fn a_tie_breaker_that_changes_sides_does_not_make_a_dropped_replica_primary() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.net.cut(1, 2);
    field.client(1).write(1, &pattern(1, 1), true).expect("written with the tie-breaker");
    field.net.cut(1, 3);
    until("it is suspended", || field.status(1)["suspended"] == true);
    let waits = field.writing(1, 2, 2);
    until("B is told why", || field.tell(2, &["primary", "r0"]).err.contains("others hold"));
    assert!(!waits.is_done());
    field.net.mend();
    assert_eq!(waits.ended("the write"), None);
    field.until_equal(1);
    field.holds(1, &[(1, 1), (2, 2)]);
    field.compare_disks();
}

/// [quorum-failover-reconnect, quorum-suspend-failover] Failover by the loss of the network, and a way back: no split brain, twice.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn failover_and_failback_by_the_network_come_to_no_split_brain() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    let mut written = Vec::new();
    for (old, new) in [(1, 2), (2, 1)] {
        let block = old as u64 * 10;
        field.client(old).write(block, &pattern(block, 1), true).expect("written");
        field.net.isolate(old);
        let waits = field.writing(old, block + 1, 1);
        field.until_promoted(new, &[]);
        field.client(new).write(block + 2, &pattern(block + 2, 2), true).expect("written");
        field.net.mend();
        assert_eq!(waits.ended("the write"), Some(EIO));
        field.until_equal(new);
        written.extend([(block, 1), (block + 2, 2)]);
        field.holds(new, &written);
    }
    field.compare_disks();
}

/// [quorum-lost-uuid] A secondary leaves in order, then quorum is lost, then all come back.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn who_left_in_order_is_brought_up_to_date_after_quorum_was_lost() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    field.down(2);
    field.client(1).write(1, &pattern(1, 1), true).expect("written with two of three");
    field.kill(3);
    let waits = field.writing(1, 2, 2);
    until("it is suspended", || field.status(1)["suspended"] == true);
    field.up(2);
    assert_eq!(waits.ended("the write"), None, "two of three again");
    field.up(3);
    field.until_equal(1);
    field.holds(1, &[(1, 1), (2, 2)]);
    field.compare_disks();
}

/// [quorum-suspend-timeout] A secondary that is frozen is left, writes go on; thawed it is synchronised.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn a_frozen_secondary_is_left_and_synchronised_when_it_thaws() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    let writer = Writer::start(field.client(1), 0, 400);
    writer.until_written(20);
    field.signal(2, "STOP");
    writer.until_written(20);
    field.signal(2, "CONT");
    writer.until_written(20);
    let written = writer.stop();
    field.until_equal(1);
    field.holds(1, &written);
    field.compare_disks();
}

/// [lost-primary-after-no-writes] A primary that vanishes idle leaves nothing to be synchronised.
#[test]
fn a_primary_that_vanishes_idle_costs_no_synchronisation() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    field.client(1).write(1, &pattern(1, 1), true).expect("written");
    until("all is settled", || [2, 3].iter().all(|n| field.peer(1, *n)["out_of_sync_bytes"] == 0));
    field.down(1);
    field.until_promoted(2, &[]);
    field.until_equal_to(2, &[3]);
    assert!(field.peer(2, 3)["synchronised"].is_null(), "{}", field.peer(2, 3));
    field.up(1);
    field.until_equal(2);
    field.holds(2, &[(1, 1)]);
    field.compare_disks();
}

/// [peer-acks] Secondaries do not gather bits for each other; after the loss of the primary only what was not settled is marked.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn secondaries_mark_nothing_for_each_other_until_the_primary_is_lost() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    let writer = Writer::start(field.client(1), 0, 300);
    writer.until_written(100);
    assert_eq!(field.peer(2, 3)["out_of_sync_bytes"], 0);
    assert_eq!(field.peer(3, 2)["out_of_sync_bytes"], 0);
    field.kill(1);
    drop(writer.until_failed());
    field.until_unheard(2, 1);
    let marked = field.peer(2, 3)["out_of_sync_bytes"].as_u64().expect("bytes");
    assert!(marked <= 300 * BLOCK, "no more than what was written is marked: {marked}");
    field.until_promoted(3, &[]);
    field.up(1);
    field.until_equal(3);
    field.compare_disks();
}

/// [resync-after-primary-crash, switch-primaries] Every write that was acknowledged is there after each of three failovers.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn acknowledged_writes_survive_failovers_around_the_ring() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    let mut written = Vec::new();
    for (old, new) in [(1, 2), (2, 3), (3, 1)] {
        let writer = Writer::start(field.client(old), old as u64 * 500, 200);
        writer.until_written(60);
        field.kill(old);
        written.extend(writer.until_failed());
        field.until_promoted(new, &[]);
        field.holds(new, &written);
        field.up(old);
        field.until_equal(new);
    }
    field.compare_disks();
}

/// [resync-initial, busy-resync-start] Both peers are filled for the first time while the first node writes.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn peers_join_for_the_first_time_while_the_first_node_writes() {
    let Some(mut field) = Field::new(3, false, &[]) else { return };
    field.up_all();
    field.until_promoted(1, &["--force"]);
    let writer = Writer::start(field.client(1), 0, 1000);
    until("both are up to date", || [2, 3].iter().all(|n| field.status(*n)["disk"] == "UpToDate"));
    writer.until_written(20);
    let written = writer.stop();
    field.until_equal(1);
    field.holds(1, &written);
    field.compare_disks();
}

/// [resync-double-target] One source, two targets at once.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn two_targets_are_synchronised_at_once_beside_writes() {
    let Some(mut field) = Field::equal(3, false, &["--quorum", "off"]) else { return };
    field.kill(2);
    field.kill(3);
    let mut client = field.client(1);
    for block in 0..800 {
        client.write(block, &pattern(block, 1), false).expect("written alone");
    }
    field.up(2);
    field.up(3);
    let writer = Writer::start(field.client(1), 400, 800);
    field.until_in_sync(1);
    writer.until_written(20);
    let written = writer.stop();
    field.until_equal(1);
    field.holds(1, &(0..400).map(|b| (b, 1)).collect::<Vec<_>>());
    field.holds(1, &written);
    field.compare_disks();
}

/// [resync-interrupt-variants] The target is killed in the middle of a synchronisation, then the source: each time the rest
/// is done, nothing that was done already is sent again, and until the end the target's data are of no state.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn an_interrupted_synchronisation_goes_on_after_either_side_was_killed() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    field.kill(2);
    let mut client = field.client(1);
    for block in 0..1500 {
        client.write(block, &pattern(block, 1), false).expect("written alone");
    }
    client.flush().expect("flushed");
    field.net.throttle(1, 800);
    for victim in [2, 1] {
        if victim == 2 {
            field.up(2);
        }
        until_part_done(&field, 1, 2);
        field.tell(2, &["primary", "r0"]).expect(4, &[]);
        field.kill(victim);
        if victim == 2 {
            field.up(2);
        } else {
            // What the killed one had sent is still read.
            field.until_unheard(2, 1);
            field.tell(2, &["primary", "r0"]).expect(4, &["synchronisation"]);
            field.up(1);
            field.until_promoted(1, &[]);
        }
    }
    field.net.unthrottle();
    field.until_equal(1);
    let (sent, _) = moved(&field, 1, 2);
    assert!(sent < 1400, "what was done before is not sent again: {sent}");
    field.holds(1, &(0..1500).map(|b| (b, 1)).collect::<Vec<_>>());
    field.compare_disks();
}

/// [switch-sync-source] The source is killed; another one that is whole takes its place.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn when_the_source_dies_another_one_finishes_the_synchronisation() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    field.kill(3);
    let mut client = field.client(1);
    for block in 0..1200 {
        client.write(block, &pattern(block, 1), false).expect("written with two of three");
    }
    client.flush().expect("flushed");
    field.net.throttle(1, 800);
    field.up(3);
    until_part_done(&field, 1, 3);
    field.kill(1);
    field.net.unthrottle();
    field.until_promoted(2, &[]);
    field.until_equal_to(2, &[3]);
    field.holds(2, &(0..1200).map(|b| (b, 1)).collect::<Vec<_>>());
    field.up(1);
    field.until_equal(2);
    field.compare_disks();
}

/// [resync, resync-chain-close, resync-to-older] Each generation is written by another pair while the third is away; each of
/// them comes back in its turn, and gets what it missed, no more.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn generations_written_in_turn_arrive_in_the_right_direction_and_amount() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    let mut written = Vec::new();
    for (round, away) in [(1_u64, 3), (2, 2), (3, 3)] {
        field.down(away);
        let mut client = field.client(1);
        for block in 0..20 {
            let block = round * 100 + block;
            client.write(block, &pattern(block, round), false).expect("written with two of three");
            written.push((block, round));
        }
        client.flush().expect("flushed");
        drop(client);
        field.up(away);
        field.until_equal(1);
        assert_eq!(moved(&field, 1, away).0, 20, "round {round}");
    }
    field.must(1, &["secondary", "r0"]);
    field.until_promoted(3, &[]);
    field.until_equal(3);
    field.holds(3, &written);
    field.compare_disks();
}

/// [resync-reconciliation] Two secondaries stand at different positions of the stream when the primary dies.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn secondaries_at_different_positions_come_together_when_the_primary_dies() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    let writers: Vec<Writer> = (0..4).map(|n| Writer::start(field.client(1), n * 300, 250)).collect();
    writers.iter().for_each(|w| w.until_written(5));
    field.signal(3, "STOP");
    until("each waits for the frozen one", || field.status(1)["waiting"] == 4);
    field.kill(1);
    field.signal(3, "CONT");
    let sure: Vec<(u64, u64)> = writers.into_iter().flat_map(Writer::until_failed).collect();
    field.until_promoted(3, &[]);
    field.until_equal_to(3, &[2]);
    field.holds(3, &sure);
    field.up(1);
    field.until_equal(3);
    field.compare_disks();
}

/// [write-during-resync] The third link is slow: the source has writes before the target has them. Nobody waits in a circle.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn writes_beside_a_synchronisation_over_a_slow_link_come_to_an_end() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    field.kill(3);
    let mut client = field.client(1);
    for block in 0..300 {
        client.write(block, &pattern(block, 1), false).expect("written with two of three");
    }
    field.net.throttle(3, 800);
    field.up(3);
    let writer = Writer::start(field.client(1), 0, 300);
    field.until_in_sync(1);
    writer.until_written(20);
    let written = writer.stop();
    field.net.unthrottle();
    field.until_equal(1);
    field.holds(1, &written);
    field.compare_disks();
}

/// [recreate-node-day0, storage-migration-uuid] A disk that was lost and made anew is filled, and never counts before.
#[test]
fn a_replica_that_was_made_anew_is_filled_before_it_counts() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    field.client(1).write(1, &pattern(1, 1), true).expect("written");
    field.down(2);
    field.make_anew(2);
    field.net.isolate(2);
    field.up(2);
    field.tell(2, &["primary", "r0"]).expect(4, &[]);
    assert_eq!(field.status(2)["disk"], "Inconsistent");
    field.net.mend();
    field.until_equal(1);
    field.must(1, &["secondary", "r0"]);
    field.until_promoted(2, &[]);
    field.until_equal(2);
    field.holds(2, &[(1, 1)]);
    field.compare_disks();
}

/// [pre-existing-data, checksum-resync] The data to begin with are those of the second node; the first one joins late. Where
/// both hold the same nothing is sent.
#[test]
fn data_that_were_there_before_are_kept_and_only_what_differs_is_sent() {
    let Some(mut field) = Field::new(2, false, &[]) else { return };
    let fill = |n: usize, from: u64| {
        let mut image = fs::read(field.disk(n)).expect("a disk");
        for block in from..200 {
            image[(block * BLOCK) as usize..((block + 1) * BLOCK) as usize].copy_from_slice(&pattern(block, 7));
        }
        fs::write(field.disk(n), image).expect("writes");
    };
    fill(2, 0);
    fill(1, 50);
    field.up(2);
    field.must(2, &["primary", "r0", "--force"]);
    field.up(1);
    field.until_equal(2);
    let (sent, equal) = moved(&field, 2, 1);
    assert_eq!(sent, 50, "only the blocks that differ");
    assert!(equal > 3000, "the rest was compared: {equal}");
    field.holds(2, &(0..200).map(|b| (b, 7)).collect::<Vec<_>>());
    field.compare_disks();
}

/// [uuid-disconnect-resync, diskless-primary-uuid-bump] Without a write nothing is begun anew; with one it is, once.
#[test]
fn a_generation_ends_with_the_first_write_without_a_peer_and_not_before() {
    let Some(mut field) = Field::equal(2, false, &[]) else { return };
    let generation = |f: &Field, n: usize| f.status(n)["generation"].clone();
    let before = generation(&field, 1);
    field.must(2, &["disconnect", "r0"]);
    field.until_unheard(1, 2);
    assert_eq!(generation(&field, 1), before);
    field.must(2, &["connect", "r0"]);
    field.until_equal(1);
    assert_eq!(generation(&field, 1), before);
    field.must(2, &["disconnect", "r0"]);
    field.until_unheard(1, 2);
    for block in 0..3 {
        field.client(1).write(block, &pattern(block, 1), true).expect("written alone");
    }
    let after = generation(&field, 1);
    assert_ne!(after, before);
    field.must(2, &["connect", "r0"]);
    field.until_equal(1);
    assert_eq!((generation(&field, 1), generation(&field, 2)), (after.clone(), after));
    assert_eq!(moved(&field, 1, 2).0, 3);
    field.compare_disks();
}

/// [concurrent-disconnect, connect-abort, stress-connect-and-2pc] Connections are ended and made from all sides at once while
/// the primary writes. Nobody waits in a circle.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn connections_ended_and_made_from_all_sides_leave_everybody_equal() {
    let Some(mut field) = Field::equal(3, false, &["--quorum", "off"]) else { return };
    let writer = Writer::start(field.client(1), 0, 500);
    for round in 0..4 {
        let tells: Vec<_> = [1, 2, 3]
            .into_iter()
            .map(|n| {
                let dir = field.folder(n).display().to_string();
                let word = if (round + n) % 2 == 0 { "disconnect" } else { "connect" };
                background(move || crate::fixture::run(&["replica", word, "r0", "--dir", &dir]).code)
            })
            .collect();
        tells.into_iter().for_each(|t| assert_eq!(t.ended("the command"), 0));
        (1..=3).for_each(|n| field.must(n, &["connect", "r0"]));
        writer.until_written(10);
    }
    let written = writer.stop();
    field.until_equal(1);
    field.holds(1, &written);
    field.compare_disks();
}

/// [promote-while-connecting, concurrent-promote-demote] Roles change while connections come and go: what was acknowledged
/// stays, and there is never more than one primary.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn roles_that_change_while_connections_come_and_go_lose_nothing() {
    let Some(mut field) = Field::equal(2, true, &[]) else { return };
    let mut written = Vec::new();
    for round in 0..4_u64 {
        let (from, to) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        field.client(from).write(round, &pattern(round, round + 1), false).expect("written");
        written.push((round, round + 1));
        field.must(to, &["disconnect", "r0"]);
        field.client(from).write(round + 10, &pattern(round + 10, 1), true).expect("written without the other");
        written.push((round + 10, 1));
        field.must(to, &["connect", "r0"]);
        field.tell(to, &["primary", "r0"]).expect(4, &[]);
        field.until_equal(from);
        field.must(from, &["secondary", "r0"]);
        field.until_promoted(to, &[]);
        assert_eq!(field.status(from)["role"], "Secondary");
        field.holds(to, &written);
    }
    field.until_equal(1);
    field.compare_disks();
}

/// [split-brain, two-primaries-reject] Without quorum both sides of a cut are promoted and write: both find it, nobody is overwritten.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn without_quorum_a_split_brain_over_a_cut_is_found_on_both_sides() {
    let Some(mut field) = Field::equal(2, false, &[]) else { return };
    field.net.cut(1, 2);
    field.until_unheard(2, 1);
    field.tell(2, &["primary", "r0"]).expect(0, &[]);
    field.client(1).write(1, &pattern(1, 1), true).expect("written apart");
    field.client(2).write(1, &pattern(1, 2), true).expect("written apart");
    field.net.mend();
    for (n, other) in [(1, 2), (2, 1)] {
        until("it is found", || field.peer(n, other)["connection"] == "StandAlone");
    }
    field.holds(1, &[(1, 1)]);
    field.holds(2, &[(1, 2)]);
    field.must(2, &["secondary", "r0"]);
    field.must(2, &["connect", "r0", "--discard-my-data"]);
    field.must(1, &["connect", "r0"]);
    field.until_equal(1);
    field.holds(1, &[(1, 1)]);
    field.compare_disks();
}

/// [revert-older-data] The disk of a secondary is put back to a state of former generations: it is not taken for a current one.
#[test]
fn a_disk_that_was_put_back_to_an_older_state_is_synchronised() {
    let Some(mut field) = Field::equal(2, false, &[]) else { return };
    field.client(1).write(1, &pattern(1, 1), true).expect("written");
    field.down(2);
    let old = fs::read(field.disk(2)).expect("a disk");
    field.client(1).write(2, &pattern(2, 2), true).expect("written alone");
    field.up(2);
    field.until_equal(1);
    field.down(2);
    field.client(1).write(3, &pattern(3, 3), true).expect("written alone");
    fs::write(field.disk(2), old).expect("writes");
    field.up(2);
    field.until_equal(1);
    field.holds(1, &[(1, 1), (2, 2), (3, 3)]);
    field.compare_disks();
}

/// [outdate, outdate-not-all] Who was left by a grant calls itself outdated once it hears of it, and the others do not.
#[test]
fn who_was_left_by_a_grant_is_outdated_and_the_others_are_not() {
    let Some(mut field) = Field::equal(3, false, &[]) else { return };
    field.net.cut(1, 3);
    field.client(1).write(1, &pattern(1, 1), true).expect("written with node 2");
    until("node 3 is told by node 2", || field.tell(3, &["primary", "r0"]).code == 4);
    field.kill(1);
    field.until_promoted(2, &[]);
    field.until_equal_to(2, &[3]);
    field.holds(2, &[(1, 1)]);
    field.net.mend();
    field.up(1);
    field.until_equal(2);
    field.compare_disks();
}

/// [attach-concurrent] Two secondaries come up at the same moment, without and with something to be synchronised.
#[test]
fn two_secondaries_come_up_at_the_same_moment() {
    let Some(mut field) = Field::equal(3, false, &["--quorum", "off"]) else { return };
    for number in [0_u64, 1] {
        field.kill(2);
        field.kill(3);
        let mut client = field.client(1);
        for block in 0..number * 100 {
            client.write(block, &pattern(block, number), false).expect("written alone");
        }
        drop(client);
        field.up(2);
        field.up(3);
        field.until_equal(1);
    }
    field.holds(1, &(0..100).map(|b| (b, 1)).collect::<Vec<_>>());
    field.compare_disks();
}

/// [protocol-a-io, busy-resync] At A and B the peer is killed and synchronised again and again beside writes.
#[test]
#[ignore = "long: some seconds, one of many; `make test-long`"]
fn at_a_and_b_a_peer_that_comes_and_goes_beside_writes_ends_equal() {
    for protocol in ["A", "B"] {
        let Some(mut field) = Field::equal(2, false, &["--protocol", protocol]) else { return };
        let writer = Writer::start(field.client(1), 0, 1000);
        for _ in 0..2 {
            field.kill(2);
            writer.until_written(20);
            field.up(2);
            field.until_in_sync(1);
        }
        let written = writer.stop();
        field.until_equal(1);
        field.holds(1, &written);
        field.compare_disks();
    }
}
