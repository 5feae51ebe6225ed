//! What a life of the client knows, in a memory that its daemon's holder keeps: docs/formats/resume.md.
//!
//! ```text
//!   0  magic "SFLEDGE\0"     12  major, minor (u16, little endian)
//!  32  pieces, one behind the other: length (u32), crc32c of the body (u32), body: postcard of a list of [`Note`]
//! ```
//! Each piece is written by one system call, and only then what it notes is done; only the death of the process has to be survived,
//! not that of the machine, and what a system call has put into this memory is there. A kill in the middle of it leaves a last piece
//! whose checksum is wrong: it has not happened. Behind the last piece the memory is empty.
//!
//! A memory that is full is followed by another one, which begins with what the pieces came to, and is kept in its place. Prevents:
//! the next process reads the one that nothing is added to any more; the holder takes what it is given before it starts anybody.
//!
//! Good for one life, as the record of a planned restart ([`super::known`]). What cannot be written down makes it void.

use std::os::fd::{AsFd, OwnedFd};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::Errno;

use super::keep::VolumeKeeper;
use super::known::{LONGEST, RecordError, read_exact, write_all};
use crate::client::link::Notebook;
use crate::core::client::{Ledger, Note};

const MAGIC: [u8; 8] = *b"SFLEDGE\0";
/// Versions of the notes. postcard knows no optional fields: whatever changes in a note or below it raises the major one.
///
/// - 1.0: the first.
const MAJOR: u16 = 1;
const MINOR: u16 = 0;

const HEAD: usize = 32;
/// Before a piece.
const PREFIX: usize = 8;
/// Room for pieces at least: some ten thousand calls, so that beginning anew costs nothing that shows.
const ROOM: u64 = 1 << 20;
/// Notes in one piece of what a memory begins with.
const PART: usize = 512;

/// The ledger of this life.
pub(super) struct Book {
    keeper: VolumeKeeper,
    pages: Mutex<Pages>,
}

struct Pages {
    ledger: Ledger,
    /// `None`: it is void.
    memory: Option<OwnedFd>,
    /// Where the next piece goes, and where the memory ends.
    at: u64,
    end: u64,
}

impl Book {
    /// Begins the ledger of a life, in place of that of the one before.
    pub(super) fn begin(keeper: VolumeKeeper, ledger: Ledger) -> Book {
        let pages = Pages { ledger, memory: None, at: 0, end: 0 };
        let book = Book { keeper, pages: Mutex::new(pages) };
        book.turn(&mut book.pages.lock());
        book
    }

    /// Nobody goes on from it.
    pub(super) fn ends(&self) {
        self.pages.lock().void();
    }

    /// A new memory.
    fn turn(&self, pages: &mut Pages) {
        match write(&pages.ledger) {
            Ok((memory, at, end)) => match self.keeper.keep_ledger(memory.as_fd()) {
                Ok(()) => (pages.memory, pages.at, pages.end) = (Some(memory), at, end),
                Err(e) => pages.is_lost(&e),
            },
            Err(e) => pages.is_lost(&e),
        }
    }
}

impl Pages {
    fn is_lost(&mut self, why: &dyn std::fmt::Display) {
        tracing::error!("what is open is not kept in case that this daemon dies: {why}");
        self.void();
    }

    fn void(&mut self) {
        if let Some(memory) = self.memory.take()
            && let Err(e) = write_all(&memory, &[0; HEAD], 0)
        {
            // Its head is there, so this needs no memory; whoever goes on from it would go on from a moment that is past.
            tracing::error!("the ledger cannot be made void ({e}): this daemon ends");
            std::process::abort();
        }
    }
}

impl Notebook for Book {
    fn note(&self, notes: &[Note]) {
        let mut pages = self.pages.lock();
        let pages = &mut *pages;
        let Some(memory) = &pages.memory else { return };
        notes.iter().for_each(|note| pages.ledger.note(note));
        if pages.ledger.over {
            return pages.void();
        }
        let written = piece(notes).and_then(|bytes| {
            let fits = pages.at + bytes.len() as u64 + PREFIX as u64 <= pages.end;
            if fits {
                write_all(memory, &bytes, pages.at)?;
                pages.at += bytes.len() as u64;
            }
            Ok(fits)
        });
        match written {
            Ok(true) => {}
            // The ledger has these notes.
            Ok(false) => self.turn(pages),
            Err(e) => pages.is_lost(&e),
        }
    }
}

fn piece(notes: &[Note]) -> Result<Vec<u8>, RecordError> {
    let mut bytes = postcard::to_extend(notes, vec![0; PREFIX]).map_err(|_| RecordError::Damaged)?;
    let (len, crc) = (bytes.len() - PREFIX, crc32c::crc32c(&bytes[PREFIX..]));
    bytes[..4].copy_from_slice(&u32::try_from(len).map_err(|_| RecordError::Damaged)?.to_le_bytes());
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// A memory that begins with all of it; where the next piece goes, and where it ends.
fn write(ledger: &Ledger) -> Result<(OwnedFd, u64, u64), RecordError> {
    let mut bytes = vec![0; HEAD];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[12..14].copy_from_slice(&MAJOR.to_le_bytes());
    bytes[14..16].copy_from_slice(&MINOR.to_le_bytes());
    for part in ledger.notes().chunks(PART) {
        bytes.extend(piece(part)?);
    }
    let (at, end) = (bytes.len() as u64, (2 * bytes.len() as u64 + ROOM).next_multiple_of(4096));
    let memory = rustix::fs::memfd_create("shorefast-ledger", MemfdFlags::CLOEXEC)?;
    // Not sparse: a full machine says so now, not in the middle of something.
    rustix::fs::fallocate(&memory, FallocateFlags::empty(), 0, end)?;
    write_all(&memory, &bytes, 0)?;
    Ok((memory, at, end))
}

/// Takes it: nobody else finds it there any more.
pub(super) fn take(memory: &OwnedFd) -> Result<Ledger, RecordError> {
    let len = rustix::fs::fstat(memory)?.st_size.cast_unsigned();
    if len > LONGEST {
        return Err(RecordError::Damaged);
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| RecordError::Damaged)?];
    read_exact(memory, &mut bytes)?;
    let ledger = read(&bytes);
    write_all(memory, &[0; HEAD], 0)?;
    ledger
}

fn read(bytes: &[u8]) -> Result<Ledger, RecordError> {
    let (head, mut rest) = bytes.split_at_checked(HEAD).ok_or(RecordError::None)?;
    if head[..8] != MAGIC {
        return Err(RecordError::None);
    }
    let (major, minor) = (u16::from_le_bytes([head[12], head[13]]), u16::from_le_bytes([head[14], head[15]]));
    if major != MAJOR {
        return Err(RecordError::Version(major, minor));
    }
    let mut notes: Vec<Note> = Vec::new();
    while let Some((body, behind)) = next(rest)? {
        notes.extend(postcard::from_bytes::<Vec<Note>>(body).map_err(|_| RecordError::Damaged)?);
        rest = behind;
    }
    Ledger::of(notes.iter()).ok_or(RecordError::Damaged)
}

/// The next piece, and what lies behind it. One that is torn is the last.
fn next(bytes: &[u8]) -> Result<Option<(&[u8], &[u8])>, RecordError> {
    let Some((prefix, rest)) = bytes.split_at_checked(PREFIX) else { return Ok(None) };
    let number = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
    let (len, crc) = (number(0) as usize, number(4));
    let Some((body, behind)) = rest.split_at_checked(len) else { return Err(RecordError::Damaged) };
    if len == 0 {
        return if crc == 0 { Ok(None) } else { Err(RecordError::Damaged) };
    }
    match crc32c::crc32c(body) == crc {
        true => Ok(Some((body, behind))),
        false if behind.iter().all(|b| *b == 0) => Ok(None),
        false => Err(RecordError::Damaged),
    }
}

impl From<std::io::Error> for RecordError {
    fn from(e: std::io::Error) -> RecordError {
        RecordError::System(e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    }
}

#[cfg(test)]
mod tests;
