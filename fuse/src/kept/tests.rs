use super::resent::Fate;
use super::*;
use std::sync::Arc;

const MINUTE_MS: u64 = 60_000;

fn described() -> Described {
    Described {
        path: "/mnt/a b".into(),
        connection: 77,
        by_helper: true,
        allow_other: false,
        negotiated: Negotiated {
            minor: 45,
            features: FeatureSet::from_bits(0x80_4000_0002),
            max_write: 1 << 20,
            max_background: 512,
        },
    }
}

/// Another process's view of the same memory.
fn again(record: &Record) -> OwnedFd {
    record.as_fd().try_clone_to_owned().unwrap()
}

fn described_record() -> Record {
    let record = Record::create().unwrap();
    record.describe(&described()).unwrap();
    record
}

/// One life: begins, is handed `uniques`, answers `answered`, and dies.
fn life(record: &Record, at_ms: u64, uniques: &[u64], answered: &[u64]) -> Vec<Fate> {
    let (record, _) = Record::open(again(record)).unwrap();
    let resends = Resends::begin(Arc::new(record), true, at_ms).unwrap();
    let fates = uniques.iter().map(|unique| resends.delivered(*unique)).collect();
    answered.iter().for_each(|unique| resends.answered(*unique));
    fates
}

#[test]
fn record_comes_back_as_it_was_written() {
    let record = described_record();
    let (record, found) = Record::open(again(&record)).unwrap();
    assert_eq!(found, described());
    assert_eq!(record.before().unwrap(), Before::Died);
    record.leaves(false).unwrap();
    assert_eq!(record.before().unwrap(), Before::Left);
    record.leaves(true).unwrap();
    assert_eq!(record.before().unwrap(), Before::Drained);
}

#[test]
fn bytes_of_the_record_are_frozen() {
    let record = described_record();
    let mut head = [0; 52];
    read_exact(&record.memory, &mut head, 0).unwrap();
    #[rustfmt::skip]
    let wanted = [
        0x00, b'T', b'N', b'U', b'O', b'M', b'F', b'S', 1, 0, 0, 0, 8, 0, 0, 0,
        0x02, 0, 0, 0x40, 0x80, 0, 0, 0, 45, 0, 0, 0, 0, 0, 0x10, 0,
        77, 0, 0, 0, 0, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(head, wanted);
    let mut path = [0; 8];
    read_exact(&record.memory, &mut path, 128).unwrap();
    assert_eq!(&path, b"/mnt/a b");
}

#[test]
fn what_is_no_record_is_refused() {
    let empty = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(Record::open(empty).unwrap_err(), RecordError::NotOne);
    let zero = Record::create().unwrap();
    assert_eq!(Record::open(again(&zero)).unwrap_err(), RecordError::NotOne);

    let record = described_record();
    record.write(8, &[2, 0, 9, 0]).unwrap();
    assert_eq!(Record::open(again(&record)).unwrap_err(), RecordError::Version { major: 2, minor: 9 });
    record.write(8, &[1, 0, 9, 0]).unwrap();
    assert!(Record::open(again(&record)).is_ok(), "a newer minor version is readable");
    for (at, bytes) in [(12, [0; 4]), (12, [0, 0, 1, 0]), (28, [0; 4]), (28, [1, 0, 16, 0])] {
        let record = described_record();
        record.write(at, &bytes).unwrap();
        assert_eq!(Record::open(again(&record)).unwrap_err(), RecordError::NotOne, "{bytes:?} at {at}");
    }
}

#[test]
fn mount_that_had_not_begun_is_not_taken_over() {
    let record = Record::create().unwrap();
    record.describe(&Described { connection: 0, ..described() }).unwrap();
    assert_eq!(Record::open(again(&record)).unwrap_err(), RecordError::Incomplete);
}

#[test]
fn request_that_kills_three_times_in_a_row_is_not_handed_out_again() {
    let record = described_record();
    // It killed once before it was resent.
    assert_eq!(life(&record, 1000, &[10], &[]), [Fate::Served]);
    assert_eq!(life(&record, 1100, &[10, 12], &[12]), [Fate::Served, Fate::Served]);
    // What was answered has nothing to do with it, nor has what comes for the first time.
    assert_eq!(life(&record, 1200, &[12, 10, 14], &[]), [Fate::Served, Fate::Deadly, Fate::Served]);
}

#[test]
fn deaths_that_are_not_in_a_row_do_not_count() {
    let record = described_record();
    for n in 1..10 {
        assert_eq!(life(&record, n * MINUTE_MS, &[10], &[]), [Fate::Served]);
    }
}

#[test]
fn orderly_end_is_no_death() {
    let record = described_record();
    for n in 1..10 {
        assert_eq!(life(&record, n, &[10], &[]), [Fate::Served]);
        record.leaves(false).unwrap();
    }
}

#[test]
fn nothing_is_handed_out_of_a_life_of_which_nothing_is_known() {
    let record = Arc::new(described_record());
    let resends = Resends::begin(record, false, 1).unwrap();
    assert_eq!(resends.delivered(10), Fate::Forgotten);
}

#[test]
fn more_requests_than_can_be_counted_are_served_uncounted() {
    let record = described_record();
    let many: Vec<u64> = (1..=ENTRIES as u64 + 5).collect();
    for n in 0..2 {
        assert!(life(&record, n, &many, &[]).iter().all(|fate| *fate == Fate::Served));
    }
    let fates = life(&record, 2, &many, &[]);
    assert_eq!(fates.iter().filter(|fate| **fate == Fate::Served).count(), 5);
}
