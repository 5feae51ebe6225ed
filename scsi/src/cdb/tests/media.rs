//! Commands on blocks: SBC-3 5.2 to 5.44, SBC-4 for WRITE ATOMIC.

use super::both_ways;
use crate::cdb::*;
use crate::units::{BlockCount, BlockLen, BlockRange, ByteCount, Lba, ShortByteCount};

fn range(lba: u64, blocks: u64) -> BlockRange {
    BlockRange::new(Lba(lba), BlockCount(blocks))
}

const WIDE: u64 = 0x0102_0304_0506_0708;

/// SBC-3 5.11 to 5.13 (READ (10), (12), (16)); SBC-2 5.9 for READ (6).
#[test]
fn read_in_all_forms() {
    let block = BlockLen::B512;
    let read = Read { form: Form::Six, ..Read::new(range(0x1f_2345, 256)) };
    both_ways(read, &read.cdb(block).unwrap(), &[0x08, 0x1f, 0x23, 0x45, 0, 0]);
    assert_eq!(read.cdb(block).unwrap().transfer(), Transfer::In(ByteCount(131_072)));
    let caching = Caching { disable_page_out: true, force_unit_access: true };
    let read = Read { form: Form::Ten, caching, group: 5, ..Read::new(range(0x0102_0304, 0x0506)) };
    both_ways(read, &read.cdb(block).unwrap(), &[0x28, 0x18, 1, 2, 3, 4, 5, 5, 6, 0]);
    let read = Read { form: Form::Twelve, ..Read::new(range(0x0102_0304, 0x0000_0506)) };
    both_ways(read, &read.cdb(block).unwrap(), &[0xa8, 0, 1, 2, 3, 4, 0, 0, 5, 6, 0, 0]);
    let read = Read { caching: Caching::FUA, ..Read::new(range(WIDE, 8)) };
    let bytes = [0x88, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 8, 0, 0];
    both_ways(read, &read.cdb(block).unwrap(), &bytes);
    assert_eq!(read.cdb(block).unwrap().transfer(), Transfer::In(ByteCount(4096)));
    assert_eq!(Read::new(range(0, 0)).cdb(block).unwrap().transfer(), Transfer::None);
}

/// SBC-3 5.32 to 5.34 (WRITE (10), (12), (16)).
#[test]
fn write_in_all_forms() {
    let block = BlockLen::B4096;
    let write = Write { form: Form::Six, ..Write::new(range(0x12, 1)) };
    both_ways(write, &write.cdb(block).unwrap(), &[0x0a, 0, 0, 0x12, 1, 0]);
    let write = Write { form: Form::Ten, caching: Caching::FUA, ..Write::new(range(0x0102_0304, 0x0506)) };
    both_ways(write, &write.cdb(block).unwrap(), &[0x2a, 0x08, 1, 2, 3, 4, 0, 5, 6, 0]);
    let write = Write { form: Form::Twelve, ..Write::new(range(1, 2)) };
    both_ways(write, &write.cdb(block).unwrap(), &[0xaa, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]);
    let write = Write::new(range(WIDE, 0x100));
    let bytes = [0x8a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 1, 0, 0, 0];
    both_ways(write, &write.cdb(block).unwrap(), &bytes);
    assert_eq!(write.cdb(block).unwrap().transfer(), Transfer::Out(ByteCount(1 << 20)));
}

/// SBC-3 5.2: byte 13 is the count, and twice as much goes out.
#[test]
fn compare_and_write() {
    let caw = CompareAndWrite::new(Lba(WIDE), 1);
    let cdb = caw.cdb(BlockLen::B512).unwrap();
    both_ways(caw, &cdb, &[0x89, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 0, 0]);
    assert_eq!(cdb.transfer(), Transfer::Out(ByteCount(1024)));
}

/// SBC-3 5.5 (ORWRITE (16)), SBC-4 5.48 (WRITE ATOMIC (16)).
#[test]
fn the_rarer_writes() {
    let block = BlockLen::B512;
    let or = OrWrite { caching: Caching::FUA, ..OrWrite::new(range(WIDE, 2)) };
    both_ways(or, &or.cdb(block).unwrap(), &[0x8b, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 2, 0, 0]);
    assert_eq!(or.cdb(block).unwrap().transfer(), Transfer::Out(ByteCount(1024)));
    let atomic = WriteAtomic { boundary: 0x0a0b, ..WriteAtomic::new(Lba(WIDE), 0x0c0d) };
    let bytes = [0x9c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0];
    both_ways(atomic, &atomic.cdb(block).unwrap(), &bytes);
}

/// SBC-3 5.29 to 5.31 (VERIFY), 5.36 to 5.38 (WRITE AND VERIFY): BYTCHK decides how much data goes out.
#[test]
fn verify_and_write_and_verify() {
    let block = BlockLen::B512;
    for (byte_check, flags, data) in [(0, 0x10, 0), (1, 0x12, 8 * 512), (3, 0x16, 512)] {
        let verify = Verify { byte_check, disable_page_out: true, ..Verify::new(range(WIDE, 8)) };
        let cdb = verify.cdb(block).unwrap();
        both_ways(verify, &cdb, &[0x8f, flags, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 8, 0, 0]);
        assert_eq!(cdb.transfer(), Transfer::output(ByteCount(data)));
    }
    let verify = Verify { form: Form::Ten, ..Verify::new(range(1, 2)) };
    both_ways(verify, &verify.cdb(block).unwrap(), &[0x2f, 0, 0, 0, 0, 1, 0, 0, 2, 0]);
    let verify = Verify { form: Form::Twelve, ..Verify::new(range(1, 2)) };
    both_ways(verify, &verify.cdb(block).unwrap(), &[0xaf, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]);
    let write = WriteAndVerify { form: Form::Ten, byte_check: 1, ..WriteAndVerify::new(range(1, 2)) };
    both_ways(write, &write.cdb(block).unwrap(), &[0x2e, 2, 0, 0, 0, 1, 0, 0, 2, 0]);
    let write = WriteAndVerify { form: Form::Twelve, ..WriteAndVerify::new(range(1, 2)) };
    both_ways(write, &write.cdb(block).unwrap(), &[0xae, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]);
    let write = WriteAndVerify::new(range(1, 2));
    let cdb = write.cdb(block).unwrap();
    both_ways(write, &cdb, &[0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]);
    assert_eq!(cdb.transfer(), Transfer::Out(ByteCount(1024)));
}

/// SBC-3 5.26, 5.27 (SYNCHRONIZE CACHE), 5.8, 5.9 (PRE-FETCH).
#[test]
fn caches() {
    let sync = SynchronizeCache { form: Form::Ten, immediate: true, ..SynchronizeCache::new(range(1, 2)) };
    both_ways(sync, &sync.cdb().unwrap(), &[0x35, 2, 0, 0, 0, 1, 0, 0, 2, 0]);
    let sync = SynchronizeCache::new(range(0, 0));
    both_ways(sync, &sync.cdb().unwrap(), &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sync.cdb().unwrap().transfer(), Transfer::None);
    let fetch = PreFetch { form: Form::Ten, ..PreFetch::new(range(1, 2)) };
    both_ways(fetch, &fetch.cdb().unwrap(), &[0x34, 0, 0, 0, 0, 1, 0, 0, 2, 0]);
    let fetch = PreFetch { immediate: true, ..PreFetch::new(range(WIDE, 2)) };
    both_ways(fetch, &fetch.cdb().unwrap(), &[0x90, 2, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 2, 0, 0]);
}

/// SBC-3 5.43, 5.44 (WRITE SAME), 5.28 (UNMAP).
#[test]
fn blocks_without_data() {
    let block = BlockLen::B512;
    let same = WriteSame { form: Form::Ten, unmap: true, anchor: true, ..WriteSame::new(range(1, 2)) };
    both_ways(same, &same.cdb(block).unwrap(), &[0x41, 0x18, 0, 0, 0, 1, 0, 0, 2, 0]);
    assert_eq!(same.cdb(block).unwrap().transfer(), Transfer::Out(ByteCount(512)));
    let same = WriteSame { unmap: true, no_data: true, ..WriteSame::new(range(WIDE, 1 << 24)) };
    let cdb = same.cdb(block).unwrap();
    both_ways(same, &cdb, &[0x93, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0, 0, 0, 0]);
    assert_eq!(cdb.transfer(), Transfer::None);
    assert!(WriteSame { form: Form::Ten, no_data: true, ..same }.cdb(block).is_err());
    let unmap = Unmap { anchor: true, group: 3, list: ShortByteCount(24) };
    both_ways(unmap, &unmap.cdb(), &[0x42, 1, 0, 0, 0, 0, 3, 0, 24, 0]);
}

/// The bits that this crate builds nothing with are still told to a target, which must refuse them or obey.
#[test]
fn protection_information_is_parsed_and_never_built() {
    let bytes = [0x28, 0x20, 0, 0, 0, 1, 0, 0, 1, 0];
    let Ok(Command::Read(read)) = Command::parse(&bytes) else { panic!("a read") };
    assert_eq!(read.protect, 1);
    assert!(read.cdb(BlockLen::B512).is_err());
}
