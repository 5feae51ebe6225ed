use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use block::shared::{Epoch, FenceGen, Incarnation, NodeId};

use super::*;
use crate::core::client::Origin;
use crate::proto::{ByteRange, LockMode, LockSpace, OwnLock, PlacedLock, Reply, Request};
use crate::types::*;
use crate::volume::keep::Keeper;

/// A holder: the last memory that it was given.
#[derive(Debug, Default)]
struct Holder(Mutex<Option<OwnedFd>>, Mutex<u32>);

impl Keeper for Holder {
    fn keep(&self, _: &str, thing: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        assert_eq!(thing, "ledger");
        *self.0.lock() = Some(fd.try_clone_to_owned()?);
        *self.1.lock() += 1;
        Ok(())
    }

    fn kept(&self, _: &str) -> io::Result<BTreeMap<String, OwnedFd>> {
        Ok(BTreeMap::new())
    }

    fn release(&self, _: &str) {}
}

fn client() -> ClientId {
    ClientId { node: NodeId::new(2).expect("a node"), incarnation: Incarnation(3) }
}

fn begin() -> (Arc<Holder>, Book) {
    let holder = Arc::new(Holder::default());
    let keeper = VolumeKeeper::new(Arc::clone(&holder) as Arc<dyn Keeper>, "v".into());
    (holder, Book::begin(keeper, Ledger::new(client(), 100, 100)))
}

fn of_each_kind() -> Vec<Note> {
    let (slot, ino, handle) = (SlotRef { table: SlotTable::Ordinary, index: 4 }, InodeNo(7), HandleId(101));
    let origin = Some(Origin { unique: 40, nth: 0 });
    let unlink = Request::Unlink { parent: InodeNo::ROOT, name: b"a".to_vec() };
    let lock = OwnLock { owner: 9, handle, pid: 1, range: ByteRange::ALL, mode: LockMode::Write };
    let extent = Extent {
        file: FileBlock(2),
        disk: DiskBlock(50),
        len: BlockCount(3),
        state: ExtentState::Written,
        shared: false,
    };
    vec![
        Note::Bind(Bind(4)),
        Note::Epoch(Epoch(6)),
        Note::Direct(Some(FenceGen(2))),
        Note::Sent { slot, seq: 8, request: Some(Box::new(unlink)), origin },
        Note::Answered { slot, seq: 8, result: Ok(Reply::Done) },
        Note::Opened { handle, ino, flags: 2, unique: Some(41) },
        Note::Locked(PlacedLock { ino, space: LockSpace::Record, lock }),
        Note::Waiter(17),
        Note::Layout { id: LayoutId(3), ino, range: BlockRange::ALL },
        Note::Wrote { ino, extents: vec![extent], size: 20_000, grew: true, appended: Some((42, 512)) },
        Note::Sent { slot: SlotRef { index: 5, ..slot }, seq: 1, request: None, origin: None },
    ]
}

fn memory(holder: &Holder) -> OwnedFd {
    holder.0.lock().as_ref().expect("kept").try_clone().expect("a copy")
}

fn bytes(memory: &OwnedFd) -> Vec<u8> {
    let mut all = vec![0; rustix::fs::fstat(memory).expect("a length").st_size as usize];
    read_exact(memory, &mut all).expect("reads");
    all
}

#[test]
fn what_was_noted_is_found_once() {
    let (holder, book) = begin();
    of_each_kind().iter().for_each(|note| book.note(std::slice::from_ref(note)));
    let found = take(&memory(&holder)).expect("it is whole");
    let mut wanted = Ledger::new(client(), 100, 100);
    of_each_kind().iter().for_each(|note| wanted.note(note));
    assert_eq!(found.notes(), wanted.notes());
    assert_eq!((found.bind, found.epoch, found.waiter, found.handles), (Bind(4), Epoch(6), 17, (100, 102)));
    assert_eq!(found.promised(), BTreeMap::from([(41, HandleId(101))]));
    assert!(matches!(take(&memory(&holder)), Err(RecordError::None)), "it is void");
}

/// A kill in the middle of a note, wherever that is: those before it are there, and nothing of it.
#[test]
fn a_note_that_was_torn_has_not_happened() {
    let (holder, book) = begin();
    let notes = of_each_kind();
    let (first, last) = notes.split_at(notes.len() - 2);
    first.iter().for_each(|note| book.note(std::slice::from_ref(note)));
    let at = book.pages.lock().at as usize;
    let before = read(&bytes(&memory(&holder))).expect("it is whole").notes();
    book.note(last);
    let (whole, end) = (bytes(&memory(&holder)), book.pages.lock().at as usize);
    assert_ne!(read(&whole).expect("it is whole").notes(), before);
    for cut in at..end {
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        if torn == whole {
            // What was not written was nothing.
            continue;
        }
        assert_eq!(read(&torn).expect("what is before it is there").notes(), before, "cut at {cut}");
    }
}

#[test]
fn what_is_damaged_before_its_end_is_not_taken() {
    let (holder, book) = begin();
    of_each_kind().iter().for_each(|note| book.note(std::slice::from_ref(note)));
    let whole = bytes(&memory(&holder));
    for at in [0, 13, HEAD, HEAD + 5, HEAD + PREFIX + 1] {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        assert!(read(&bad).is_err(), "byte {at}");
    }
}

#[test]
fn a_memory_that_is_full_is_followed_by_one_with_what_is_left() {
    let (holder, book) = begin();
    let slot = SlotRef { table: SlotTable::Ordinary, index: 0 };
    of_each_kind().iter().for_each(|note| book.note(std::slice::from_ref(note)));
    let began = std::time::Instant::now();
    for seq in 1..120_000 {
        book.note(&[Note::Sent { slot, seq, request: None, origin: None }]);
    }
    println!("{} ns a note", began.elapsed().as_nanos() / 120_000);
    assert!(*holder.1.lock() > 1, "it was full");
    let found = take(&memory(&holder)).expect("it is whole");
    assert_eq!(found.notes(), book.pages.lock().ledger.notes());
    assert_eq!(found.slots[&slot].seq, 119_999);
}

#[test]
fn a_life_that_is_over_leaves_nothing() {
    let (holder, book) = begin();
    book.note(&of_each_kind());
    book.note(&[Note::Over]);
    assert!(matches!(take(&memory(&holder)), Err(RecordError::None)));
    let (holder, book) = begin();
    book.ends();
    book.note(&of_each_kind());
    assert!(matches!(take(&memory(&holder)), Err(RecordError::None)));
}

/// Another daemon, of another version perhaps, reads them.
#[test]
fn bytes_of_the_notes_are_what_they_were() {
    let shown: String = piece(&of_each_kind()).expect("bytes").iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(shown, FROZEN);
}

const FROZEN: &str = "580000009d65edb20b01040206030102040004080108010161012800050004080000066507020129070700096501008080808080\
    808080800101081109030700ffffffffffffffffff010b07010232030000a09c0101012a8004040005010000";
