//! Random damage: rows removed, exchanged, or with bits of them flipped. Whatever it is, a check tells it without a panic,
//! and repairs end with nothing left that can be repaired.

use super::check_finds::{dead, sample, unmounted};
use super::*;
use crate::meta::check::{Kind, Limits, Repair};
use crate::meta::redo::{self, Row};

/// Splitmix64: the same seed, the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).expect("below")
    }

    fn flip(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut flipped = bytes.to_vec();
        if !flipped.is_empty() {
            let at = self.below(flipped.len());
            flipped[at] ^= 1 << self.below(8);
        }
        flipped
    }
}

/// The table of counters: its keys are text.
const COUNTERS: u8 = 15;

type Found = (u8, Vec<u8>, Vec<u8>);

/// Every row that the redo log of the sample has, by number of table.
fn rows_of(f: &Fixture) -> Vec<Found> {
    let disk = as_dyn(&f.disk);
    let log = disk::read(&disk, crate::format::LOG, crate::format::LOG_LEN).expect("readable");
    let mut found = Vec::new();
    let whole = (0..log.len()).step_by(redo::UNIT).filter(|at| log[*at..].starts_with(b"SHFREDO\0"));
    for at in whole {
        let len = u32::from_le_bytes([log[at + 12], log[at + 13], log[at + 14], log[at + 15]]) as usize;
        for row in redo::rows(&log[at + 64..at + 64 + len]).map_while(Result::ok) {
            found.extend(row.value.map(|value| (row.table, row.key.to_vec(), value.to_vec())));
        }
    }
    found
}

/// One change of one row.
fn damage(r: &mut Random, rows: &[Found]) -> (u8, Vec<u8>, Option<Vec<u8>>) {
    let (table, key, value) = &rows[r.below(rows.len())];
    let others: Vec<&Found> = rows.iter().filter(|(t, k, _)| t == table && k.len() == key.len()).collect();
    match r.below(5) {
        0 => (*table, key.clone(), None),
        1 => (*table, key.clone(), Some(r.flip(value))),
        2 if *table != COUNTERS => (*table, r.flip(key), Some(value.clone())),
        3 => (*table, key.clone(), Some(others[r.below(others.len())].2.clone())),
        _ => (*table, key.clone(), Some(value.clone())),
    }
}

fn run(seed: u64) {
    let mut r = Random(seed);
    let (f, _) = sample();
    let rows = rows_of(&f);
    let damages: Vec<_> = (0..1 + r.below(4)).map(|_| damage(&mut r, &rows)).collect();
    f.run(|ops| {
        damages
            .iter()
            .try_for_each(|(table, key, value)| ops.t.redo(Row { table: *table, key, value: value.as_deref() }))
    });
    let told = f.checked();
    let disk = dead(f);
    let report = unmounted(&disk);
    // The log is what was damaged, so both see the same.
    assert_eq!(report, told, "seed {seed}");
    let mut rounds = 0;
    let left = loop {
        let mut go_on = |_| ControlFlow::Continue(());
        let proof = Unmounted::in_memory();
        let limits = Limits { findings: 100_000, ..Limits::DEFAULT };
        let report = Store::check_unmounted(&as_dyn(&disk), &proof, limits, &mut go_on).expect("readable");
        let repairs: Vec<Repair> = report.findings.iter().filter_map(|f| f.repair.clone()).collect();
        if repairs.is_empty() {
            break report;
        }
        rounds += 1;
        assert!(rounds < 16, "seed {seed}: {damages:?} goes round in circles: {report}");
        Store::repair_unmounted(&as_dyn(&disk), &proof, &repairs, LATER)
            .unwrap_or_else(|e| panic!("seed {seed}: {damages:?}: {e}: {repairs:?}"));
    };
    if left.is_clean() {
        let superblock = read_superblock(&as_dyn(&disk)).expect("a volume").superblock;
        let f = Fixture::open(disk, superblock);
        f.file("made after the repair");
        f.killed().must_be_clean();
    }
    assert!(left.findings.iter().all(|f| f.kind != Kind::Database), "seed {seed}: {left}");
}

/// The root was no directory, so what had lost its name could get none in it, and was repaired for ever.
#[test]
fn a_root_that_is_no_directory_is_told_and_nothing_is_reconnected() {
    run(1307);
}

#[test]
fn random_damage_is_told_and_repairs_come_to_an_end() {
    (0..60).for_each(run);
}

#[test]
#[ignore = "long: thousands of damaged volumes"]
fn thousands_of_random_damages_are_told_and_repairs_come_to_an_end() {
    (1000..6000).for_each(run);
}

/// Bytes of the disk, not rows: whatever is there, the check comes to an end and changes nothing.
#[test]
fn random_bytes_on_the_disk_are_told_without_a_panic() {
    let (f, _) = sample();
    let whole = dead(f);
    let superblock = read_superblock(&as_dyn(&whole)).expect("a volume").superblock;
    let store = superblock.ranges[0].start * FS_BLOCK;
    let places =
        [(0, 4096), (64 << 10, 4096), (128 << 10, 512), (192 << 10, 4096), (65 << 20, 60_000), (store, 400_000)];
    let mut r = Random(7);
    for seed in 0..80 {
        let disk = Arc::new(whole.copy());
        for _ in 0..1 + r.below(6) {
            let (start, len) = places[r.below(places.len())];
            let at = start + r.below(len) as u64 / 512 * 512;
            let mut block = disk::read(&as_dyn(&disk), block::units::ByteOffset(at), 512).expect("readable").to_vec();
            match r.below(3) {
                0 => block.fill(r.below(256) as u8),
                _ => block = r.flip(&block),
            }
            disk::write(&as_dyn(&disk), block::units::ByteOffset(at), &block).expect("writes");
        }
        disk::flush(&as_dyn(&disk)).expect("flushes");
        let mut go_on = |_| ControlFlow::Continue(());
        let told = Store::check_unmounted(&as_dyn(&disk), &Unmounted::in_memory(), Limits::DEFAULT, &mut go_on);
        // No volume at all, or a newer one, is an answer, too.
        assert!(told.is_ok() || matches!(told, Err(MetaError::Fatal(Fatal::Format(_)))), "seed {seed}: {told:?}");
    }
}
