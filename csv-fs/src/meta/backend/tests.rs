//! The backend below the database: bytes in, bytes out, whatever lies where.

use block::mem::MemDevice;
use block::units::BlockSize;

use super::*;
use crate::format::{MIN_VOLUME, TimingMs, VolumeName};
use crate::types::VolumeId;

const PAGE64: u64 = PAGE as u64;

/// A store of three pages in one range and a hundred in another.
fn backend() -> (Arc<MemDevice>, FencedBackend) {
    let disk = Arc::new(MemDevice::with_volatile_cache(ByteLen(MIN_VOLUME), BlockSize::B512));
    let name = VolumeName::new("b").expect("a good name");
    let made = Superblock::new(&disk.geometry(), VolumeId(1), name, 1, TimingMs::FAST, 0).expect("large enough");
    let ranges = vec![BlockSpan { start: 20_000, len: 3 }, BlockSpan { start: 30_000, len: 100 }];
    let superblock = Superblock { ranges, next: vec![BlockSpan { start: 40_000, len: 50 }], ..made };
    let dev = Arc::clone(&disk) as Arc<dyn BlockDevice>;
    (disk, FencedBackend(Shared::new(dev, superblock, Arc::new(Latch::new()), true)))
}

fn read(backend: &FencedBackend, offset: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0xee; len];
    backend.read(offset, &mut out).expect("readable");
    out
}

#[test]
fn bytes_come_back_before_and_after_the_sync_also_unaligned_and_across_ranges() {
    let (disk, backend) = backend();
    backend.set_len(10 * PAGE64).expect("room");
    backend.write(0, &[1; 320]).expect("writes");
    backend.write(2 * PAGE64, &[2; 3 * PAGE]).expect("writes");
    backend.write(PAGE64 - 10, &[3; 20]).expect("writes");
    let check = |backend: &FencedBackend| {
        assert_eq!(read(backend, 300, 40), [[1; 20], [0; 20]].concat());
        assert_eq!(read(backend, PAGE64 - 12, 24), [vec![0; 2], vec![3; 20], vec![0; 2]].concat());
        assert_eq!(read(backend, 2 * PAGE64, 3 * PAGE), vec![2; 3 * PAGE]);
        assert_eq!(read(backend, 5 * PAGE64 - 4, 8), [2, 2, 2, 2, 0, 0, 0, 0]);
    };
    check(&backend);
    assert_eq!(disk.unflushed(), 0, "nothing goes to the disk before the sync");
    backend.sync_data().expect("syncs");
    disk.crash();
    check(&backend);
    let second = disk::read(&backend.0.dev, ByteOffset(30_000 * PAGE64), PAGE64).expect("readable");
    assert_eq!(second[..], [2; PAGE], "the fourth page lies in the second range");
}

#[test]
fn grown_again_after_shrinking_it_reads_as_zeroes() {
    let (_disk, backend) = backend();
    backend.set_len(10 * PAGE64).expect("room");
    backend.write(0, &[7; 10 * PAGE]).expect("writes");
    backend.sync_data().expect("syncs");
    backend.write(8 * PAGE64, &[8; PAGE]).expect("writes");
    backend.set_len(4 * PAGE64).expect("shrinks");
    assert_eq!(backend.len().expect("known"), 4 * PAGE64);
    backend.set_len(12 * PAGE64).expect("grows");
    assert_eq!(read(&backend, 3 * PAGE64, 2 * PAGE), [[7; PAGE], [0; PAGE]].concat());
    assert_eq!(read(&backend, 5 * PAGE64, 7 * PAGE), vec![0; 7 * PAGE]);
}

#[test]
fn growth_takes_the_reserved_range_and_nothing_more() {
    let (disk, backend) = backend();
    backend.set_len(103 * PAGE64).expect("the ranges hold that");
    assert_eq!(backend.0.superblock().next.len(), 1);
    backend.set_len(104 * PAGE64).expect("the reserved range is there");
    let grown = backend.0.superblock();
    assert_eq!((grown.ranges.len(), grown.next.len(), grown.meta_len), (3, 0, 104 * PAGE64));
    disk.crash();
    let copies = disk::read_superblocks(&backend.0.dev).map(|c| c.expect("readable"));
    assert!(copies.iter().all(|c| Superblock::decode(c) == Ok(grown.clone())), "all copies are stable");
    assert!(backend.set_len(154 * PAGE64).is_err());
    assert!(backend.write(0, &[0; PAGE]).is_err(), "a backend that could not grow is failed");
}

#[test]
fn page_that_is_being_written_is_read_from_memory() {
    let (disk, backend) = backend();
    backend.set_len(10 * PAGE64).expect("room");
    backend.write(PAGE64, &[1; PAGE]).expect("writes");
    let going = backend.0.pages.lock().start_writing();
    assert_eq!(going.len(), 1);
    assert_eq!(read(&backend, PAGE64, PAGE), [1; PAGE]);
    backend.write(PAGE64, &[2; PAGE]).expect("writes");
    assert_eq!(read(&backend, PAGE64, PAGE), [2; PAGE]);
    backend.0.pages.lock().end_writing();
    assert_eq!(read(&backend, PAGE64, PAGE), [2; PAGE]);
    assert_eq!(disk.unflushed(), 0);
}

#[test]
fn tripped_latch_refuses_reads_writes_syncs_and_growth() {
    let (disk, backend) = backend();
    backend.set_len(10 * PAGE64).expect("room");
    backend.write(0, &[1; PAGE]).expect("writes");
    backend.0.latch().trip();
    assert!(backend.read(0, &mut [0; 8]).is_err());
    assert!(backend.write(0, &[2; PAGE]).is_err());
    assert!(backend.sync_data().is_err());
    assert!(backend.set_len(20 * PAGE64).is_err());
    assert_eq!((disk.unflushed(), backend.0.latch().in_flight()), (0, 0));
}

/// A program's fsync on the same node was told that the disk had lost its cache; the store's own flush came after it, succeeded, and a
/// commit was acknowledged whose pages were gone.
#[test]
fn a_loss_that_another_flush_was_told_of_fails_the_store_if_it_had_written_and_only_then() {
    let disk = Arc::new(MemDevice::with_volatile_cache(ByteLen(MIN_VOLUME), BlockSize::B512));
    let fault = block::fault::FaultDevice::new(Arc::clone(&disk) as Arc<dyn BlockDevice>);
    let (_, made) = backend();
    let dev = Arc::clone(&fault) as Arc<dyn BlockDevice>;
    let backend = FencedBackend(Shared::new(dev, made.0.superblock(), Arc::new(Latch::new()), true));
    let lost = || {
        fault.lose_cache();
        assert!(disk::flush(&(Arc::clone(&fault) as Arc<dyn BlockDevice>)).is_err(), "somebody else is told");
    };
    backend.set_len(10 * PAGE64).expect("room");
    lost();
    backend.write(0, &[1; PAGE]).expect("writes");
    backend.sync_data().expect("nothing of the store was in the cache");
    backend.write(0, &[2; PAGE]).expect("writes");
    backend.0.write_out().expect("pages travel before the sync");
    disk.crash();
    lost();
    assert!(backend.sync_data().is_err(), "what was written before is gone");
    assert!(backend.read(0, &mut [0; 8]).is_err(), "failed for good");
}
