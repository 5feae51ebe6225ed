use block::shared::{Incarnation, NodeId};
use proptest::prelude::*;

use super::*;
use crate::core::time::Now;

const FILE: InodeNo = InodeNo(7);
const OTHER: InodeNo = InodeNo(8);
const NOW: Now = Now(1000);

/// Of some file.
pub(super) fn an_attr() -> crate::types::Attr {
    use crate::types::{Attr, BlockCount, Timestamp};
    let t = Timestamp::default();
    let (ino, blocks) = (FILE, BlockCount(0));
    let mode = 0o100_644;
    Attr { ino, mode, nlink: 1, uid: 0, gid: 0, rdev: 0, size: 0, blocks, atime: t, mtime: t, ctime: t, btime: t }
}

fn client(n: u8) -> ClientId {
    ClientId { node: NodeId::new(n).unwrap(), incarnation: Incarnation(1) }
}

fn owner(n: u8, id: u64) -> Owner {
    Owner { client: client(n), id }
}

fn lock(owner: Owner, start: u64, end: u64, mode: Mode) -> Lock {
    Lock { owner, handle: HandleId(owner.id), pid: 1, range: ByteRange { start, end }, mode, gift: 0 }
}

fn write(n: u8, id: u64, start: u64, end: u64) -> Lock {
    lock(owner(n, id), start, end, Mode::Write)
}

fn read(n: u8, id: u64, start: u64, end: u64) -> Lock {
    lock(owner(n, id), start, end, Mode::Read)
}

fn ranges(table: &LockTable, n: u8) -> Vec<(u64, u64, Mode)> {
    table.of_client(client(n)).map(|(_, _, l)| (l.range.start, l.range.end, l.mode)).collect()
}

#[test]
fn readers_share_and_a_writer_is_alone_across_nodes() {
    let mut t = LockTable::default();
    t.set(FILE, Space::Record, read(1, 1, 0, 10)).unwrap();
    t.set(FILE, Space::Record, read(2, 1, 5, 15)).unwrap();
    assert_eq!(t.set(FILE, Space::Record, write(3, 1, 9, 12)), Err(read(1, 1, 0, 10)));
    t.set(FILE, Space::Record, write(3, 1, 15, 16)).unwrap();
    assert_eq!(t.test(FILE, Space::Record, &read(1, 1, 0, 100)), Some(write(3, 1, 15, 16)));
    assert_eq!(t.test(OTHER, Space::Record, &write(1, 1, 0, 100)), None);
    t.check();
}

/// Else a file that is locked byte by byte would be as many locks; and a stretch that a client has on record would not be told apart.
#[test]
fn gifts_become_one_stretch_with_gifts_and_what_is_on_record_with_its_like() {
    let mut t = LockTable::default();
    let gifts = |t: &LockTable| -> Vec<(u64, u64, u64)> {
        t.of_client(client(1)).map(|(_, _, l)| (l.range.start, l.range.end, l.gift)).collect()
    };
    let give = |t: &mut LockTable, start, gift| {
        t.set(FILE, Space::Record, Lock { gift, ..write(1, 1, start, start + 1) }).unwrap();
        t.check();
    };
    give(&mut t, 0, 1);
    give(&mut t, 1, 2);
    assert_eq!(gifts(&t), [(0, 2, 2)]);
    t.on_record(FILE, Space::Record, &Lock { gift: 1, ..write(1, 1, 0, 2) });
    assert_eq!(gifts(&t), [(0, 2, 2)], "that was an earlier one");
    t.on_record(FILE, Space::Record, &Lock { gift: 2, ..write(1, 1, 0, 2) });
    give(&mut t, 2, 3);
    assert_eq!(gifts(&t), [(0, 2, 0), (2, 3, 3)]);
    t.on_record(FILE, Space::Record, &Lock { gift: 3, ..write(1, 1, 2, 3) });
    assert_eq!(gifts(&t), [(0, 3, 0)]);
    t.check();
}

#[test]
fn the_same_number_on_two_nodes_is_two_owners() {
    let mut t = LockTable::default();
    t.set(FILE, Space::Record, write(1, 5, 0, 1)).unwrap();
    assert_eq!(t.set(FILE, Space::Record, write(2, 5, 0, 1)), Err(write(1, 5, 0, 1)));
}

#[test]
fn an_owner_splits_shortens_converts_and_merges_its_own() {
    let mut t = LockTable::default();
    t.set(FILE, Space::Record, write(1, 1, 0, 100)).unwrap();
    assert!(t.clear(FILE, Space::Record, owner(1, 1), ByteRange { start: 40, end: 60 }));
    assert_eq!(ranges(&t, 1), [(0, 40, Mode::Write), (60, 100, Mode::Write)]);
    t.set(FILE, Space::Record, read(1, 1, 30, 70)).unwrap();
    assert_eq!(ranges(&t, 1), [(0, 30, Mode::Write), (30, 70, Mode::Read), (70, 100, Mode::Write)]);
    t.set(FILE, Space::Record, write(1, 1, 30, 70)).unwrap();
    assert_eq!(ranges(&t, 1), [(0, 100, Mode::Write)]);
    assert!(!t.clear(FILE, Space::Record, owner(1, 1), ByteRange { start: 100, end: 200 }));
    t.check();
}

#[test]
fn records_and_flock_do_not_meet() {
    let mut t = LockTable::default();
    t.set(FILE, Space::Record, write(1, 1, 0, ByteRange::MAX)).unwrap();
    t.set(FILE, Space::Whole, Lock { range: ByteRange::ALL, ..write(2, 2, 0, 1) }).unwrap();
    assert_eq!(t.count(), 2);
}

/// Two shared holders that upgrade would wait for each other for ever if each kept what it has.
#[test]
fn flock_lets_go_before_it_changes_to_exclusive() {
    let mut t = LockTable::default();
    let whole = |l: Lock| Lock { range: ByteRange::ALL, ..l };
    t.set(FILE, Space::Whole, whole(read(1, 1, 0, 1))).unwrap();
    t.set(FILE, Space::Whole, whole(read(2, 2, 0, 1))).unwrap();
    t.set(FILE, Space::Whole, whole(write(1, 1, 0, 1))).unwrap_err();
    t.set(FILE, Space::Whole, whole(write(2, 2, 0, 1))).unwrap();
    assert_eq!(t.count(), 1);
    t.check();
}

/// QEMU killed by SIGKILL: the kernel sends FLUSH with the process' number, which owns nothing, then RELEASE.
#[test]
fn the_release_of_a_handle_drops_what_was_taken_through_it_and_nothing_else() {
    let mut t = LockTable::default();
    t.set(FILE, Space::Record, read(1, 77, 100, 101)).unwrap();
    t.set(FILE, Space::Record, read(1, 77, 201, 202)).unwrap();
    t.set(FILE, Space::Record, write(1, 5, 0, 1)).unwrap();
    assert!(!t.flushed(FILE, owner(1, 4)));
    assert!(t.released(FILE, client(1), HandleId(77)));
    assert_eq!(ranges(&t, 1), [(0, 1, Mode::Write)]);
    assert!(t.flushed(FILE, owner(1, 5)));
    assert_eq!(t.count(), 0);
}

#[test]
fn a_client_that_is_gone_holds_nothing_and_its_files_are_told() {
    let mut t = LockTable::default();
    t.set(FILE, Space::Record, write(1, 1, 0, 1)).unwrap();
    t.set(OTHER, Space::Whole, Lock { range: ByteRange::ALL, ..write(1, 2, 0, 1) }).unwrap();
    t.set(OTHER, Space::Record, write(2, 1, 5, 6)).unwrap();
    assert_eq!(t.client_gone(client(1)), [FILE, OTHER]);
    assert_eq!((t.count(), ranges(&t, 1).len()), (1, 0));
    t.check();
}

fn wait(lock: Lock) -> Wait {
    Wait { ino: FILE, space: Space::Record, lock }
}

#[test]
fn waiters_are_ready_in_the_order_of_arrival_when_what_was_in_the_way_is_gone() {
    let (mut t, mut w) = (LockTable::default(), Waiters::default());
    t.set(FILE, Space::Record, write(1, 1, 0, 10)).unwrap();
    let first = wait(write(2, 1, 0, 5));
    let second = wait(write(3, 1, 4, 6));
    let third = wait(read(2, 2, 8, 9));
    for (id, wish) in [(1, first), (2, second), (3, third)] {
        assert_eq!(w.acquire(&mut t, WaitId(id), wish), Err(Refused::Blocked));
    }
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, NOW), []);
    t.clear(FILE, Space::Record, owner(1, 1), ByteRange::ALL);
    // The second overlaps the first, which came before it.
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, NOW), [(client(2), WaitId(1)), (client(2), WaitId(3))]);
    w.acquire(&mut t, WaitId(1), first).unwrap();
    w.acquire(&mut t, WaitId(3), third).unwrap();
    w.acquire(&mut t, WaitId(2), second).unwrap_err();
    assert_eq!((w.ready(&t, FILE, ByteRange::ALL, NOW), w.count()), (vec![], 1));
    t.clear(FILE, Space::Record, owner(2, 1), ByteRange::ALL);
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, NOW), [(client(3), WaitId(2))]);
}

#[test]
fn a_second_attempt_keeps_its_place_and_who_left_is_not_called() {
    let (mut t, mut w) = (LockTable::default(), Waiters::default());
    t.set(FILE, Space::Record, write(1, 1, 0, 1)).unwrap();
    let (a, b) = (wait(write(2, 1, 0, 1)), wait(write(3, 1, 0, 1)));
    w.acquire(&mut t, WaitId(1), a).unwrap_err();
    w.acquire(&mut t, WaitId(1), b).unwrap_err();
    w.acquire(&mut t, WaitId(1), a).unwrap_err();
    t.flushed(FILE, owner(1, 1));
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, NOW), [(client(2), WaitId(1))]);
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, NOW), [], "it was told, and comes");
    assert_eq!(w.leave(client(2), WaitId(1)), Some(a));
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, NOW), [(client(3), WaitId(1))]);
    assert_eq!(w.released(FILE, client(3), HandleId(1)), [b]);
    assert_eq!((w.ready(&t, FILE, ByteRange::ALL, NOW), w.count()), (vec![], 0));
}

/// A program that takes and drops a lock in a loop beside the coordinator was always faster than the message to a waiter
/// far away.
#[test]
fn who_comes_to_wait_does_not_overtake_one_that_was_told_and_who_does_not_wait_does() {
    let (mut t, mut w) = (LockTable::default(), Waiters::default());
    t.set(FILE, Space::Record, write(1, 1, 0, 1)).unwrap();
    let (far, near) = (wait(write(2, 1, 0, 1)), wait(write(1, 1, 0, 1)));
    w.acquire(&mut t, WaitId(1), far).unwrap_err();
    t.flushed(FILE, owner(1, 1));
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, NOW), [(client(2), WaitId(1))]);
    assert_eq!(w.acquire(&mut t, WaitId(9), near), Err(Refused::Blocked));
    // F_SETLK asks what is, not who waits.
    t.set(FILE, Space::Record, write(3, 1, 0, 1)).unwrap();
    assert_eq!(w.acquire(&mut t, WaitId(1), far), Err(Refused::Blocked));
    t.flushed(FILE, owner(3, 1));
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, NOW), [(client(2), WaitId(1))]);
    w.acquire(&mut t, WaitId(1), far).unwrap();
    assert_eq!(w.count(), 1);
}

#[test]
fn one_that_was_told_and_does_not_come_is_told_again_and_keeps_nobody_out() {
    let (mut t, mut w) = (LockTable::default(), Waiters::default());
    t.set(FILE, Space::Record, write(1, 1, 0, 1)).unwrap();
    let (silent, other) = (wait(write(2, 1, 0, 1)), wait(write(3, 1, 0, 1)));
    w.acquire(&mut t, WaitId(1), silent).unwrap_err();
    w.acquire(&mut t, WaitId(2), other).unwrap_err();
    t.flushed(FILE, owner(1, 1));
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, NOW), [(client(2), WaitId(1))]);
    let due = w.next().unwrap();
    assert_eq!(w.overdue(NOW), []);
    assert_eq!(w.overdue(due), [(client(2), WaitId(1), silent)]);
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, due), [(client(3), WaitId(2))]);
    w.acquire(&mut t, WaitId(2), other).unwrap();
    // It comes after all, and queues like everybody.
    assert_eq!(w.acquire(&mut t, WaitId(1), silent), Err(Refused::Blocked));
    assert_eq!(w.next(), None);
    t.flushed(FILE, owner(3, 1));
    assert_eq!(w.ready(&t, FILE, ByteRange::ALL, due), [(client(2), WaitId(1))]);
}

#[test]
fn what_an_owner_holds_in_a_range_is_told_cut_to_it() {
    let mut t = LockTable::default();
    t.set(FILE, Space::Record, write(1, 1, 0, 10)).unwrap();
    t.set(FILE, Space::Record, read(1, 1, 10, 20)).unwrap();
    t.set(FILE, Space::Record, read(1, 1, 30, 40)).unwrap();
    let held =
        |start, end| -> Vec<Lock> { t.held_in(FILE, Space::Record, owner(1, 1), ByteRange { start, end }).collect() };
    assert_eq!(held(5, 31), [write(1, 1, 5, 10), read(1, 1, 10, 20), read(1, 1, 30, 31)]);
    assert_eq!(held(20, 30), []);
    assert_eq!((held(0, 10), t.count_of(client(1))), (vec![write(1, 1, 0, 10)], 3));
}

#[test]
fn a_circle_of_owners_over_files_and_nodes_is_refused_and_a_chain_is_not() {
    let (mut t, mut w) = (LockTable::default(), Waiters::default());
    let on = |ino, lock| Wait { ino, space: Space::Record, lock };
    t.set(FILE, Space::Record, write(1, 1, 0, 1)).unwrap();
    t.set(OTHER, Space::Record, write(2, 1, 0, 1)).unwrap();
    t.set(OTHER, Space::Record, write(3, 1, 5, 6)).unwrap();
    assert!(matches!(w.acquire(&mut t, WaitId(1), on(OTHER, write(1, 1, 0, 1))), Err(Refused::Blocked)));
    assert!(matches!(w.acquire(&mut t, WaitId(1), on(OTHER, write(2, 1, 5, 6))), Err(Refused::Blocked)));
    // 3 -> 1 -> 2 -> 3.
    assert_eq!(w.acquire(&mut t, WaitId(1), on(FILE, write(3, 1, 0, 1))), Err(Refused::Deadlock));
    // Somebody outside may wait for any of them.
    assert!(matches!(w.acquire(&mut t, WaitId(9), on(FILE, write(3, 2, 0, 1))), Err(Refused::Blocked)));
    assert_eq!(w.count(), 3, "who was refused does not wait");
    w.leave(client(1), WaitId(1));
    assert!(matches!(w.acquire(&mut t, WaitId(1), on(FILE, write(3, 1, 0, 1))), Err(Refused::Blocked)));
}

/// Looks through every interval would be ten thousand million steps here.
#[test]
fn a_hundred_thousand_locks_on_one_file_are_taken_tested_and_dropped() {
    let mut t = LockTable::default();
    const N: u64 = 100_000;
    for n in 0..N {
        let mode = if n % 3 == 0 { Mode::Read } else { Mode::Write };
        t.set(FILE, Space::Record, lock(owner(1 + (n % 3) as u8, n % 50), n * 2, n * 2 + 1, mode)).unwrap();
    }
    assert_eq!(t.count() as u64, N);
    for n in 0..N {
        let found = t.test(FILE, Space::Record, &write(9, 1, n * 2, n * 2 + 1)).unwrap();
        assert_eq!(found.range.start, n * 2);
        assert_eq!(t.test(FILE, Space::Record, &write(9, 1, n * 2 + 1, n * 2 + 2)), None);
    }
    assert_eq!(t.client_gone(client(1)), [FILE]);
    (0..N).filter(|n| n % 3 != 0).for_each(|n| {
        let owner = owner(1 + (n % 3) as u8, n % 50);
        assert!(t.clear(FILE, Space::Record, owner, ByteRange { start: n * 2, end: n * 2 + 1 }));
    });
    assert_eq!(t.count(), 0);
}

const SPAN: u64 = 24;

#[derive(Clone, Copy, Debug)]
enum Step {
    Set(Lock),
    Clear(Owner, ByteRange),
    Release(u8, u64),
    Gone(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let who = (1u8..4, 0u64..3);
    let span = (0..SPAN, 1..SPAN).prop_map(|(start, len)| ByteRange { start, end: (start + len).min(SPAN) });
    prop_oneof![
        6 => (who.clone(), span.clone(), any::<bool>()).prop_map(|((n, id), r, w)| {
            Step::Set(lock(owner(n, id), r.start, r.end, if w { Mode::Write } else { Mode::Read }))
        }),
        3 => (who.clone(), span).prop_map(|((n, id), r)| Step::Clear(owner(n, id), r)),
        1 => who.prop_map(|(n, id)| Step::Release(n, id)),
        1 => (1u8..4).prop_map(Step::Gone),
    ]
}

/// Byte by byte: who has it, and for what.
type Model = BTreeMap<(u64, Owner), Mode>;

fn in_the_way(model: &Model, wanted: &Lock) -> Option<u64> {
    let hit = |(at, who): &(u64, Owner), mode: &Mode| {
        *who != wanted.owner
            && (wanted.range.start..wanted.range.end).contains(at)
            && (wanted.mode == Mode::Write || *mode == Mode::Write)
    };
    model.iter().filter(|(k, mode)| hit(k, mode)).map(|((at, _), _)| *at).min()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_behaves_as_a_map_from_bytes_to_holders(steps in prop::collection::vec(step(), 1..60)) {
        let (mut table, mut model) = (LockTable::default(), Model::new());
        for step in steps {
            match step {
                Step::Set(wanted) => {
                    let free = in_the_way(&model, &wanted).is_none();
                    prop_assert_eq!(table.test(FILE, Space::Record, &wanted).is_none(), free);
                    let set = table.set(FILE, Space::Record, wanted);
                    prop_assert_eq!(set.is_ok(), free);
                    if let Err(other) = set {
                        prop_assert!(other.conflicts(&wanted), "{other:?} is not in the way of {wanted:?}");
                    }
                    if free {
                        let bytes = wanted.range.start..wanted.range.end;
                        model.extend(bytes.map(|at| ((at, wanted.owner), wanted.mode)));
                    }
                }
                Step::Clear(who, range) => {
                    let had = model.len();
                    model.retain(|(at, o), _| *o != who || !(range.start..range.end).contains(at));
                    prop_assert_eq!(table.clear(FILE, Space::Record, who, range), model.len() < had);
                }
                Step::Release(n, id) => {
                    model.retain(|(_, o), _| *o != owner(n, id));
                    table.released(FILE, client(n), HandleId(id));
                }
                Step::Gone(n) => {
                    model.retain(|(_, o), _| o.client != client(n));
                    table.client_gone(client(n));
                }
            }
            table.check();
            let held = (1..4).flat_map(|n| table.of_client(client(n)).map(|(_, _, l)| l).collect::<Vec<_>>());
            let bytes: Model =
                held.flat_map(|l| (l.range.start..l.range.end).map(move |at| ((at, l.owner), l.mode))).collect();
            prop_assert_eq!(&bytes, &model);
        }
    }
}
