//! The redo log: the rows that a commit changed, in one write and one flush. Pure: bytes in, bytes out.
//!
//! A commit of the database costs two flushes and rewrites its allocator state, whatever it changed. So most commits
//! only append a record here and stay in the database's memory; a *checkpoint*, a durable commit of the database, takes
//! in all of them at once when the log is full.
//!
//! ```text
//!  checkpoint g ──► record 0, 1, 2 ... of generation g, each flushed before the next is written and before its
//!       ▲           changes are acknowledged or seen by a reader
//!       └────────── the next record does not fit: that commit is checkpoint g+1, and record 0 lies at the front again
//!  opening: the database as of its last checkpoint g, then records 0, 1, 2 ... of g as far as they are whole, then
//!           checkpoint g+1
//! ```
//! Rules, each with what it prevents:
//! - *A record names its checkpoint and its place.* What earlier generations left behind it in the log is whole too, and
//!   would undo what came later.
//! - *A checkpoint draws a number by chance, and its records carry it.* Names and values come from applications: bytes of
//!   a half-written record could pose as the record after it.
//! - *Records hold rows, not requests.* Another version of the program may decide otherwise when it runs a request again.
//! - *Opening ends with a checkpoint, also if there was no record.* Else the new reign's record 0 would lie over the first of those
//!   that its database needs; or right before one that lay whole behind a damaged one, and would be followed by it.
//! - *Replaying twice does no harm*: a crash before the checkpoint that follows replays all records again, and the last
//!   row of each key wins both times.
//!
//! Bytes: docs/formats/volume.md.

#[cfg(test)]
mod tests;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Result, damaged};
use crate::types::VolumeId;

/// Records begin at multiples of this, so that writing one never touches the one before.
pub(super) const UNIT: usize = 4096;

/// Bytes of the log.
pub(super) const CAPACITY: usize = crate::format::LOG_LEN as usize;

/// Pages of a commit besides the leaves: roots and branches of the tables that most commits touch.
const PATHS: u64 = 16;

const MAGIC: [u8; 8] = *b"SHFREDO\0";

/// Before the rows of a record.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRecord {
    magic: [u8; 8],
    /// Over head and rows, itself as zero.
    crc: U32,
    /// Bytes of rows.
    len: U32,
    volume: [u8; 16],
    generation: U64,
    chance: U64,
    sequence: U64,
    reserved: [u8; 8],
}

/// Before the key and the value of a row.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRow {
    table: u8,
    /// 1: the row is there with this value; 0: it is removed.
    there: u8,
    key_len: U16,
    value_len: U32,
}

const HEAD: usize = size_of::<RawRecord>();
const ROW_HEAD: usize = size_of::<RawRow>();
const _: () = assert!(HEAD == 64 && ROW_HEAD == 8);

/// Which checkpoint records follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Checkpoint {
    /// Counts checkpoints.
    pub(super) generation: u64,
    /// Drawn by chance for each.
    pub(super) chance: u64,
}

/// A changed row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Row<'a> {
    /// The table's number in the format.
    pub(super) table: u8,
    /// Its key as the database stores it.
    pub(super) key: &'a [u8],
    /// Its value likewise, `None` if the row was removed.
    pub(super) value: Option<&'a [u8]>,
}

/// The changed rows of one transaction, encoded.
#[derive(Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    /// There were more than a log can hold: nothing is kept, the commit has to be a checkpoint.
    too_many: bool,
    count: u64,
}

impl Rows {
    /// One more.
    pub(super) fn push(&mut self, row: Row<'_>) {
        self.count += 1;
        let value = row.value.unwrap_or_default();
        let lengths = (u16::try_from(row.key.len()), u32::try_from(value.len()));
        let fits = self.bytes.len() + ROW_HEAD + row.key.len() + value.len() <= CAPACITY;
        let (false, true, (Ok(key_len), Ok(value_len))) = (self.too_many, fits, lengths) else {
            self.too_many = true;
            self.bytes = Vec::new();
            return;
        };
        let head = RawRow {
            table: row.table,
            there: row.value.is_some().into(),
            key_len: U16::new(key_len),
            value_len: U32::new(value_len),
        };
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(row.key);
        self.bytes.extend_from_slice(value);
    }

    /// One after the other; `None` if they were too many to be kept.
    pub(super) fn each(&self) -> Option<impl Iterator<Item = Row<'_>>> {
        // Encoded here, so that none is cut short.
        (!self.too_many).then(|| rows(&self.bytes).filter_map(Result::ok))
    }

    /// Room that a record of them takes in the log; `None` if they have no place in one.
    fn room(&self) -> Option<usize> {
        (!self.too_many).then(|| (HEAD + self.bytes.len()).next_multiple_of(UNIT))
    }
}

/// The log's end: where the next record goes.
#[derive(Debug)]
pub(super) struct Tail {
    volume: VolumeId,
    capacity: usize,
    checkpoint: Checkpoint,
    sequence: u64,
    at: usize,
    /// Rows in it.
    rows: u64,
}

/// A record on its way: `bytes` go to offset `at` of the log.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) at: usize,
    pub(super) bytes: Vec<u8>,
}

impl Tail {
    /// An empty log after a checkpoint.
    pub(super) fn new(volume: VolumeId, capacity: usize, checkpoint: Checkpoint) -> Tail {
        Tail { volume, capacity, checkpoint, sequence: 0, at: 0, rows: 0 }
    }

    /// The checkpoint that the records follow.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// Pages that the database has copied since the checkpoint, and cannot use again before the next, at most about: one
    /// for each row, and the paths to them.
    pub(super) fn copied(&self) -> u64 {
        self.rows + self.sequence * PATHS
    }

    /// How many records follow it.
    pub(super) fn records(&self) -> u64 {
        self.sequence
    }

    /// The record of these rows, and the tail moved behind it. `None` if it does not fit: checkpoint instead.
    pub(super) fn append(&mut self, rows: &Rows) -> Option<Append> {
        let room = rows.room().filter(|room| *room <= self.capacity - self.at)?;
        let mut head = RawRecord {
            magic: MAGIC,
            crc: U32::ZERO,
            len: U32::new(u32::try_from(rows.bytes.len()).ok()?),
            volume: self.volume.0.to_be_bytes(),
            generation: U64::new(self.checkpoint.generation),
            chance: U64::new(self.checkpoint.chance),
            sequence: U64::new(self.sequence),
            reserved: [0; 8],
        };
        head.crc = U32::new(checksum(&head, &rows.bytes));
        let mut bytes = Vec::with_capacity(room);
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&rows.bytes);
        bytes.resize(room, 0);
        let append = Append { at: self.at, bytes };
        self.at += room;
        self.sequence += 1;
        self.rows += rows.count;
        Some(append)
    }
}

/// The records of a log that follow a checkpoint, in order, as far as they are whole. Each is the bytes of its rows.
pub(super) fn records(log: &[u8], volume: VolumeId, checkpoint: Checkpoint) -> impl Iterator<Item = &[u8]> {
    let (mut at, mut sequence) = (0, 0);
    std::iter::from_fn(move || {
        let (_, rows) = whole(log, at, volume, checkpoint).filter(|(place, _)| *place == sequence)?;
        at += (HEAD + rows.len()).next_multiple_of(UNIT);
        sequence += 1;
        Some(rows)
    })
}

/// The place and the rows of a record that follows a checkpoint, if one lies whole at `at`.
fn whole(log: &[u8], at: usize, volume: VolumeId, checkpoint: Checkpoint) -> Option<(u64, &[u8])> {
    let (head, rest) = RawRecord::ref_from_prefix(log.get(at..)?).ok()?;
    let ours = head.magic == MAGIC
        && head.volume == volume.0.to_be_bytes()
        && (head.generation.get(), head.chance.get()) == (checkpoint.generation, checkpoint.chance);
    let rows = rest.get(..usize::try_from(head.len.get()).ok()?)?;
    (ours && head.crc.get() == checksum(head, rows)).then(|| (head.sequence.get(), rows))
}

/// How many records of a checkpoint lie whole in a log at place `from` or later, wherever. After the end of the log
/// there are none, unless a record before them was damaged after it was written.
pub(super) fn whole_after(log: &[u8], volume: VolumeId, checkpoint: Checkpoint, from: u64) -> usize {
    let at = (0..log.len()).step_by(UNIT);
    at.filter_map(|at| whole(log, at, volume, checkpoint)).filter(|(place, _)| *place >= from).count()
}

/// The rows of a record. An error if they do not fill it exactly, although its checksum was good.
pub(super) fn rows(mut record: &[u8]) -> impl Iterator<Item = Result<Row<'_>>> {
    std::iter::from_fn(move || {
        if record.is_empty() {
            return None;
        }
        let row = split_row(record);
        record = row.map_or(&[], |(_, rest)| rest);
        Some(row.map(|(row, _)| row).ok_or_else(|| damaged("a row of the redo log is cut short")))
    })
}

fn split_row(record: &[u8]) -> Option<(Row<'_>, &[u8])> {
    let (head, rest) = RawRow::ref_from_prefix(record).ok()?;
    let (key, rest) = rest.split_at_checked(head.key_len.get().into())?;
    let (value, rest) = rest.split_at_checked(usize::try_from(head.value_len.get()).ok()?)?;
    Some((Row { table: head.table, key, value: (head.there != 0).then_some(value) }, rest))
}

fn checksum(head: &RawRecord, rows: &[u8]) -> u32 {
    let head = RawRecord { crc: U32::ZERO, ..head.clone() };
    crc32c::crc32c_append(crc32c::crc32c(head.as_bytes()), rows)
}
