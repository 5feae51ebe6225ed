//! What each command asks of the device, and what it makes of the answers.

use block::units::ByteOffset;
use scsi::Status;

use super::*;

const BLOCK: u32 = 512;

fn media(kind: Kind, lba: u64, blocks: u64) -> Media {
    let data = match kind {
        Kind::Write | Kind::WriteVerify(_) | Kind::Or | Kind::Verify(Check::Data) => blocks,
        Kind::Swap => blocks * 2,
        Kind::Verify(Check::Same) | Kind::Same { no_data: false, .. } => 1,
        _ => 0,
    };
    Media { kind, lba, blocks, fua: false, data_out: data * u64::from(BLOCK), block: BLOCK }
}

fn bytes(parts: &[(u8, usize)]) -> Option<AlignedBuf> {
    let all: Vec<u8> = parts.iter().flat_map(|(b, blocks)| vec![*b; blocks * BLOCK as usize]).collect();
    Some(AlignedBuf::from_slice(&all))
}

/// A device of 64 blocks that knows what it was asked.
struct Disk {
    blocks: Vec<u8>,
    log: Vec<(Op, u64, u64)>,
    refuses_discard: bool,
    fails: Option<IoErrorKind>,
}

impl Disk {
    fn new() -> Disk {
        Disk { blocks: vec![0xaa; 64 * BLOCK as usize], log: Vec::new(), refuses_discard: false, fails: None }
    }

    /// Runs a command to its end.
    fn run(&mut self, media: Media, data: Option<AlignedBuf>) -> (Outcome, Option<AlignedBuf>) {
        let (mut program, mut ask) = Program::begin(media, data);
        loop {
            ask = match ask {
                Ask::End(outcome, data) => return (outcome, data),
                Ask::Extents { .. } => program.extents(None),
                Ask::Io { op, at, len, buf } => {
                    let (result, buf) = self.execute(op, at, len, buf);
                    program.next(result, buf)
                }
            };
        }
    }

    fn execute(
        &mut self,
        op: Op,
        ByteOffset(at): ByteOffset,
        len: ByteLen,
        mut buf: Option<AlignedBuf>,
    ) -> (Result<(), IoErrorKind>, Option<AlignedBuf>) {
        self.log.push((op, at / u64::from(BLOCK), len.0 / u64::from(BLOCK)));
        if let Some(kind) = self.fails {
            return (Err(kind), buf);
        }
        let range = at as usize..(at + len.0) as usize;
        match op {
            Op::Read => buf.as_mut().expect("a buffer").copy_from_slice(&self.blocks[range]),
            Op::Write { .. } => self.blocks[range].copy_from_slice(buf.as_ref().expect("data")),
            Op::Discard if self.refuses_discard => return (Err(IoErrorKind::NotSupported), buf),
            Op::Discard | Op::WriteZeroes => self.blocks[range].fill(0),
            Op::Flush => {}
        }
        (Ok(()), buf)
    }

    fn block(&self, lba: usize) -> u8 {
        let block = &self.blocks[lba * BLOCK as usize..(lba + 1) * BLOCK as usize];
        assert!(block.iter().all(|b| *b == block[0]), "block {lba} is torn");
        block[0]
    }
}

fn code(outcome: &Outcome) -> Option<(SenseKey, AdditionalCode)> {
    outcome.sense.map(|s| (s.key, s.code))
}

#[test]
fn a_write_of_which_a_part_came_writes_whole_blocks_of_it() {
    let mut disk = Disk::new();
    let (outcome, _) = disk.run(media(Kind::Write, 4, 2), bytes(&[(1, 2)]));
    assert_eq!((outcome.status, disk.block(4), disk.block(5)), (Status::Good, 1, 1));
    for kind in [Kind::Write, Kind::WriteVerify(true)] {
        let mut short = bytes(&[(2, 2)]).expect("data");
        short.truncate(BLOCK as usize + 200);
        let (outcome, _) = disk.run(media(kind, 4, 2), Some(short));
        assert_eq!((outcome.status, disk.block(4), disk.block(5)), (Status::Good, 2, 1));
    }
    disk.log.clear();
    disk.run(media(Kind::Write, 4, 2), None);
    assert_eq!(disk.log, [], "nothing came, nothing is written");
}

#[test]
fn compare_and_write_writes_on_a_match_only_and_tells_where_it_differs() {
    let mut disk = Disk::new();
    let (outcome, _) = disk.run(media(Kind::Swap, 3, 2), bytes(&[(0xaa, 2), (1, 2)]));
    assert_eq!((outcome.status, disk.block(3), disk.block(4)), (Status::Good, 1, 1));
    let mut wrong = bytes(&[(1, 2), (2, 2)]).expect("data");
    wrong[600] = 9;
    let (outcome, _) = disk.run(media(Kind::Swap, 3, 2), Some(wrong));
    assert_eq!(code(&outcome), Some((SenseKey::Miscompare, AdditionalCode::MISCOMPARE)));
    assert_eq!(outcome.sense.and_then(|s| s.information), Some(600));
    assert_eq!(disk.block(3), 1);
    let (outcome, _) = disk.run(media(Kind::Swap, 3, 2), bytes(&[(1, 2)]));
    assert_eq!(code(&outcome), Some((SenseKey::IllegalRequest, AdditionalCode::INVALID_FIELD_IN_CDB)));
    let (outcome, _) = disk.run(media(Kind::Swap, 3, 0), None);
    assert_eq!(outcome.status, Status::Good);
}

#[test]
fn orwrite_keeps_every_bit_that_is_set() {
    let mut disk = Disk::new();
    disk.run(media(Kind::Or, 3, 1), bytes(&[(0x05, 1)]));
    assert_eq!(disk.block(3), 0xaf);
}

#[test]
fn verify_compares_with_nothing_with_its_data_or_with_one_block() {
    let mut disk = Disk::new();
    let miscompare = Some((SenseKey::Miscompare, AdditionalCode::MISCOMPARE));
    for (check, data, expected) in [
        (Check::Readable, None, None),
        (Check::Data, bytes(&[(0xaa, 4)]), None),
        (Check::Data, bytes(&[(0xaa, 3), (1, 1)]), miscompare),
        (Check::Same, bytes(&[(0xaa, 1)]), None),
        (Check::Same, bytes(&[(0xab, 1)]), miscompare),
    ] {
        let (outcome, _) = disk.run(media(Kind::Verify(check), 1, 4), data);
        assert_eq!(code(&outcome), expected, "{check:?}");
    }
    assert!(disk.log.iter().all(|(op, ..)| *op == Op::Read));
}

#[test]
fn write_and_verify_is_on_the_medium_and_read_back() {
    let mut disk = Disk::new();
    let (outcome, _) = disk.run(media(Kind::WriteVerify(true), 1, 2), bytes(&[(3, 2)]));
    assert_eq!(outcome.status, Status::Good);
    assert_eq!(disk.log, [(Op::Write { fua: true }, 1, 2), (Op::Read, 1, 2)]);
}

#[test]
fn write_same_unmaps_only_what_reads_as_its_data() {
    let mut disk = Disk::new();
    let same = |unmap, no_data| Kind::Same { unmap, no_data };
    disk.run(media(same(true, false), 0, 4), bytes(&[(0, 1)]));
    disk.run(media(same(true, true), 8, 4), None);
    disk.run(media(same(false, false), 16, 4), bytes(&[(0, 1)]));
    disk.run(media(same(true, false), 24, 4), bytes(&[(0xff, 1)]));
    let ops: Vec<Op> = disk.log.iter().map(|(op, ..)| *op).collect();
    assert_eq!(ops, [Op::Discard, Op::Discard, Op::WriteZeroes, Op::Write { fua: false }]);
    assert_eq!([disk.block(3), disk.block(11), disk.block(19), disk.block(27), disk.block(28)], [0, 0, 0, 0xff, 0xaa]);
}

#[test]
fn a_device_that_refuses_to_discard_is_zeroed_so_that_unmapped_blocks_read_as_zeroes() {
    let mut disk = Disk { refuses_discard: true, ..Disk::new() };
    let ranges = [(3, 2), (9, 0), (20, 1)].map(|(lba, n)| BlockRange::new(Lba(lba), BlockCount(n)));
    let (_, list) = UnmapList { ranges: ranges.to_vec() }.command().expect("fits");
    let unmap = |len: usize| Media { data_out: len as u64, ..media(Kind::Unmap, 0, 64) };
    let (outcome, _) = disk.run(unmap(list.len()), Some(AlignedBuf::from_slice(&list)));
    assert_eq!(outcome.status, Status::Good);
    assert_eq!([disk.block(2), disk.block(3), disk.block(4), disk.block(9), disk.block(20)], [0xaa, 0, 0, 0xaa, 0]);
    let discards = disk.log.iter().filter(|(op, ..)| *op == Op::Discard).count();
    assert_eq!((discards, disk.log.len()), (1, 3), "it is asked once");
}

#[test]
fn unmap_beyond_the_end_unmaps_nothing() {
    let mut disk = Disk::new();
    let ranges = [(3, 2), (63, 2)].map(|(lba, n)| BlockRange::new(Lba(lba), BlockCount(n)));
    let (_, list) = UnmapList { ranges: ranges.to_vec() }.command().expect("fits");
    let unmap = Media { data_out: list.len() as u64, ..media(Kind::Unmap, 0, 64) };
    let (outcome, _) = disk.run(unmap, Some(AlignedBuf::from_slice(&list)));
    assert_eq!(code(&outcome), Some((SenseKey::IllegalRequest, AdditionalCode::LBA_OUT_OF_RANGE)));
    let (outcome, _) = disk.run(unmap, Some(AlignedBuf::from_slice(&list[..8])));
    assert_eq!(code(&outcome), Some((SenseKey::IllegalRequest, AdditionalCode::PARAMETER_LIST_LENGTH_ERROR)));
    assert_eq!(disk.log, []);
}

#[test]
fn with_the_cache_off_discards_and_zeroes_are_flushed() {
    let mut disk = Disk::new();
    let same = Media { fua: true, ..media(Kind::Same { unmap: true, no_data: true }, 0, 4) };
    disk.run(same, None);
    assert_eq!(disk.log.last().map(|(op, ..)| *op), Some(Op::Flush));
}

#[test]
fn failures_of_the_device_are_told_as_what_they_are() {
    use AdditionalCode as Code;
    for (kind, command, expected) in [
        (IoErrorKind::Medium, Kind::Read, (SenseKey::MediumError, Code::UNRECOVERED_READ_ERROR)),
        (IoErrorKind::Medium, Kind::Write, (SenseKey::MediumError, Code::WRITE_ERROR)),
        (IoErrorKind::NoSpace, Kind::Write, (SenseKey::DataProtect, Code::SPACE_ALLOCATION_FAILED)),
        (IoErrorKind::CacheLost, Kind::Flush, (SenseKey::MediumError, Code::WRITE_ERROR)),
        (IoErrorKind::NoPath, Kind::Read, (SenseKey::HardwareError, Code::INTERNAL_TARGET_FAILURE)),
        (IoErrorKind::OutOfRange, Kind::Read, (SenseKey::IllegalRequest, Code::LBA_OUT_OF_RANGE)),
        (IoErrorKind::NotSupported, Kind::Write, (SenseKey::HardwareError, Code::INTERNAL_TARGET_FAILURE)),
        // The read of a compare-and-write is a read.
        (IoErrorKind::Medium, Kind::Swap, (SenseKey::MediumError, Code::UNRECOVERED_READ_ERROR)),
    ] {
        let mut disk = Disk { fails: Some(kind), ..Disk::new() };
        let data = (command != Kind::Read && command != Kind::Flush).then(|| bytes(&[(1, 2)])).flatten();
        let (outcome, _) = disk.run(media(command, 7, 1), data);
        assert_eq!(code(&outcome), Some(expected), "{kind:?} of {command:?}");
        if expected.0 == SenseKey::MediumError && command != Kind::Flush {
            assert_eq!(outcome.sense.and_then(|s| s.information), Some(7));
        }
    }
}
