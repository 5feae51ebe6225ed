//! Damages a volume as no program of ours would: a record of the redo log that takes half of a name away.
//! Bytes: docs/formats/volume.md, "The redo log".

use std::fs::File;
use std::os::unix::fs::FileExt;

const LOG: u64 = 65 << 20;
const LOG_LEN: usize = 1 << 20;
const UNIT: usize = 4096;
const HEAD: usize = 64;
const DIRENT: u8 = 2;

struct Record<'a> {
    head: &'a [u8],
    rows: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

/// The records of the last checkpoint, in order: those that carry the highest number at 32.
fn records(log: &[u8]) -> Vec<(usize, Record<'_>)> {
    let number = |head: &[u8]| u64::from_le_bytes(head[32..40].try_into().expect("eight bytes"));
    let all = (0..LOG_LEN).step_by(UNIT).filter(|at| log[*at..].starts_with(b"SHFREDO\0"));
    let all = all.map(|at| {
        let (head, rest) = log[at..].split_at(HEAD);
        (at, Record { head, rows: &rest[..word(head, 12)] })
    });
    let all: Vec<_> = all.collect();
    let last = all.iter().map(|(_, r)| number(r.head)).max().expect("the log has records");
    all.into_iter().filter(|(_, r)| number(r.head) == last).collect()
}

/// The key of the row of table `dirent` for a name.
fn key_of<'a>(rows: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut at = 0;
    while at < rows.len() {
        let key_len = usize::from(u16::from_le_bytes([rows[at + 2], rows[at + 3]]));
        let key = &rows[at + 8..at + 8 + key_len];
        if rows[at] == DIRENT && key.ends_with(name) {
            return Some(key);
        }
        at += 8 + key_len + word(rows, at + 4);
    }
    None
}

/// Appends a record that removes a name from its directory, but not from the listing.
pub(super) fn remove_name(image: &File, name: &[u8]) {
    let mut log = vec![0; LOG_LEN];
    image.read_exact_at(&mut log, LOG).expect("readable");
    let records = records(&log);
    let key = records.iter().find_map(|(_, r)| key_of(r.rows, name)).expect("the name was made since the checkpoint");
    let mut row = vec![DIRENT, 0];
    row.extend_from_slice(&u16::try_from(key.len()).expect("short").to_le_bytes());
    row.extend_from_slice(&0_u32.to_le_bytes());
    row.extend_from_slice(key);
    let (at, last) = records.last().expect("there are some");
    let mut record = last.head.to_vec();
    record[8..12].fill(0);
    record[12..16].copy_from_slice(&u32::try_from(row.len()).expect("short").to_le_bytes());
    let place = u64::from_le_bytes(record[48..56].try_into().expect("eight bytes")) + 1;
    record[48..56].copy_from_slice(&place.to_le_bytes());
    record.extend_from_slice(&row);
    let crc = crc32c::crc32c(&record);
    record[8..12].copy_from_slice(&crc.to_le_bytes());
    record.resize(UNIT, 0);
    let next = at + (HEAD + last.rows.len()).next_multiple_of(UNIT);
    image.write_all_at(&record, LOG + next as u64).expect("writes");
}
