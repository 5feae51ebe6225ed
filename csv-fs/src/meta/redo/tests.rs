use super::*;

const VOLUME: VolumeId = VolumeId(0xfeed);
const LOG: usize = 16 * UNIT;

fn checkpoint(generation: u64) -> Checkpoint {
    Checkpoint { generation, chance: generation.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

fn row(value: &[u8]) -> Row<'_> {
    Row { table: 2, key: b"key", value: Some(value) }
}

fn one(value: &[u8]) -> Rows {
    let mut rows = Rows::default();
    rows.push(row(value));
    rows
}

fn put(log: &mut [u8], append: &Append) {
    log[append.at..append.at + append.bytes.len()].copy_from_slice(&append.bytes);
}

fn values(log: &[u8], checkpoint: Checkpoint) -> Vec<Vec<u8>> {
    let rows = records(log, VOLUME, checkpoint).flat_map(rows);
    rows.map(|row| row.unwrap().value.unwrap().to_vec()).collect()
}

#[test]
fn records_come_back_in_order_with_every_row() {
    let mut log = vec![0; LOG];
    let mut tail = Tail::new(VOLUME, LOG, checkpoint(7));
    let mut first = one(b"a");
    first.push(Row { table: 9, key: &[1; 300], value: None });
    put(&mut log, &tail.append(&first).unwrap());
    put(&mut log, &tail.append(&one(&[5; 9000])).unwrap());
    put(&mut log, &tail.append(&Rows::default()).unwrap());
    put(&mut log, &tail.append(&one(b"")).unwrap());
    let found: Vec<_> = records(&log, VOLUME, checkpoint(7)).collect();
    assert_eq!(found.len(), 4);
    let got: Vec<_> = rows(found[0]).map(Result::unwrap).collect();
    assert_eq!(got, [row(b"a"), Row { table: 9, key: &[1; 300], value: None }]);
    assert_eq!(rows(found[1]).next().unwrap().unwrap().value, Some(&[5; 9000][..]));
    assert_eq!(rows(found[2]).count(), 0);
    assert_eq!(rows(found[3]).next().unwrap().unwrap().value, Some(&b""[..]), "an empty value is not a removal");
}

#[test]
fn record_that_is_not_whole_ends_the_log() {
    let mut tail = Tail::new(VOLUME, LOG, checkpoint(1));
    let appends = [tail.append(&one(&[1; 100])).unwrap(), tail.append(&one(&[2; 9000])).unwrap()];
    let third = tail.append(&one(&[3; 10])).unwrap();
    for torn in (0..HEAD + ROW_HEAD + 3 + 9000).step_by(512) {
        let mut log = vec![0xee; LOG];
        put(&mut log, &appends[0]);
        put(&mut log, &third);
        log[appends[1].at..appends[1].at + torn].copy_from_slice(&appends[1].bytes[..torn]);
        assert_eq!(values(&log, checkpoint(1)), [vec![1; 100]], "torn after {torn}");
    }
    for flipped in [0, 8, 12, 16, 32, 40, 48, 63, HEAD, HEAD + ROW_HEAD] {
        let mut log = vec![0; LOG];
        put(&mut log, &appends[0]);
        log[flipped] ^= 1;
        assert_eq!(values(&log, checkpoint(1)), Vec::<Vec<u8>>::new(), "byte {flipped}");
    }
}

/// Record 0 of generation 2 lies over record 0 of generation 1; records 1 and 2 of generation 1 are still whole behind it.
#[test]
fn records_before_a_checkpoint_are_never_replayed_after_it() {
    let mut log = vec![0; LOG];
    let mut old = Tail::new(VOLUME, LOG, checkpoint(1));
    for value in [b"a", b"b", b"c"] {
        put(&mut log, &old.append(&one(value)).unwrap());
    }
    let mut new = Tail::new(VOLUME, LOG, checkpoint(2));
    assert_eq!(values(&log, checkpoint(2)), Vec::<Vec<u8>>::new());
    put(&mut log, &new.append(&one(b"d")).unwrap());
    assert_eq!(values(&log, checkpoint(2)), [b"d"]);
    assert_eq!(values(&log, checkpoint(1)), Vec::<Vec<u8>>::new());
}

/// An application stores, as the value of a row, what the record after its own would look like; its own is torn exactly
/// there, and the one before is written anew in its place.
#[test]
fn bytes_of_an_application_do_not_pose_as_a_record() {
    let real = checkpoint(3);
    // All that an application can know, and a chance that it guesses.
    let mut forger = Tail::new(VOLUME, LOG, Checkpoint { chance: 1, ..real });
    forger.append(&one(b"first")).unwrap();
    let forged = forger.append(&one(b"forged")).unwrap();
    let mut log = vec![0; LOG];
    put(&mut log, &Tail::new(VOLUME, LOG, real).append(&one(b"first")).unwrap());
    put(&mut log, &forged);
    assert_eq!(values(&log, real), [b"first"]);
}

#[test]
fn record_of_another_volume_is_not_replayed() {
    let mut log = vec![0; LOG];
    put(&mut log, &Tail::new(VolumeId(1), LOG, checkpoint(1)).append(&one(b"a")).unwrap());
    assert_eq!(records(&log, VOLUME, checkpoint(1)).count(), 0);
}

#[test]
fn full_log_asks_for_a_checkpoint() {
    let mut tail = Tail::new(VOLUME, 3 * UNIT, checkpoint(1));
    assert!(tail.append(&one(&[0; 3 * UNIT])).is_none(), "larger than the log");
    assert!(tail.append(&one(&[0; 2 * UNIT - 100])).is_some());
    assert!(tail.append(&one(&[0; UNIT])).is_none(), "what is left is too small");
    assert!(tail.append(&one(b"a")).is_some());
    assert!(tail.append(&Rows::default()).is_none());
    let mut many = Rows::default();
    (0..5).for_each(|_| many.push(row(&[0; 300_000])));
    assert!(Tail::new(VOLUME, usize::MAX, checkpoint(1)).append(&many).is_none());
    assert!(many.bytes.is_empty(), "what cannot be logged takes no memory");
}

#[test]
fn any_bytes_are_read_without_a_panic() {
    let mut tail = Tail::new(VOLUME, LOG, checkpoint(1));
    let good = tail.append(&one(&[9; 64])).unwrap().bytes;
    for cut in 0..good.len().min(200) {
        let _ = records(&good[..cut], VOLUME, checkpoint(1)).count();
        let _ = rows(&good[cut..]).count();
    }
    let mut long = good.clone();
    long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(records(&long, VOLUME, checkpoint(1)).count(), 0);
}

#[test]
fn record_bytes_are_frozen() {
    let mut rows = one(b"value");
    rows.push(Row { table: 15, key: b"k", value: None });
    let bytes = Tail::new(VOLUME, LOG, Checkpoint { generation: 2, chance: 3 }).append(&rows).unwrap().bytes;
    assert_eq!(bytes.len(), UNIT);
    let mut expected = Vec::new();
    expected.extend_from_slice(b"SHFREDO\0");
    expected.extend_from_slice(&bytes[8..12]);
    expected.extend_from_slice(&25_u32.to_le_bytes());
    expected.extend_from_slice(&0xfeed_u128.to_be_bytes());
    for number in [2_u64, 3, 0, 0] {
        expected.extend_from_slice(&number.to_le_bytes());
    }
    expected.extend_from_slice(b"\x02\x01\x03\0\x05\0\0\0keyvalue\x0f\0\x01\0\0\0\0\0k");
    assert_eq!(&bytes[..expected.len()], &expected[..]);
    assert!(bytes[expected.len()..].iter().all(|b| *b == 0));
    let mut unsealed = expected.clone();
    unsealed[8..12].fill(0);
    assert_eq!(bytes[8..12], crc32c::crc32c(&unsealed).to_le_bytes());
}

/// Whatever lies in the log, also with checksums that fit: its records end somewhere, and their rows are read or are damage.
/// The corpus of single rows is that of `meta::fuzz`.
#[test]
fn fuzz_any_log_is_read_up_to_where_it_is_whole() {
    type Input = (Vec<(u8, Vec<u8>, Option<Vec<u8>>)>, Vec<(u16, u8)>, bool);
    bolero::check!().with_type::<Input>().for_each(|(changed_rows, changes, seal)| {
        let (mut log, mut tail) = (vec![0; LOG], Tail::new(VOLUME, LOG, checkpoint(3)));
        let mut appended = 0;
        for of_record in changed_rows.chunks(2) {
            let mut all = Rows::default();
            for (table, key, value) in of_record {
                all.push(Row { table: *table, key, value: value.as_deref() });
            }
            let Some(append) = tail.append(&all) else { break };
            put(&mut log, &append);
            appended += 1;
        }
        assert_eq!(records(&log, VOLUME, checkpoint(3)).count(), appended);
        for (at, byte) in changes.iter().take(4) {
            // In the first record, most in its head.
            log[usize::from(*at) % if at % 2 == 0 { 80 } else { UNIT }] = *byte;
        }
        if *seal {
            let (head, rest) = RawRecord::ref_from_prefix(&log).expect("long enough");
            let len = (head.len.get() as usize).min(rest.len());
            let crc = checksum(head, &rest[..len]);
            log[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        let mut bytes = 0;
        for row in records(&log, VOLUME, checkpoint(3)).flat_map(rows) {
            bytes += row.map_or(0, |row| ROW_HEAD + row.key.len() + row.value.map_or(0, <[u8]>::len));
        }
        assert!(bytes <= LOG && whole_after(&log, VOLUME, checkpoint(3), 0) <= LOG / UNIT);
    });
}
