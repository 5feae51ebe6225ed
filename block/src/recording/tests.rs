use super::*;
use crate::buf::AlignedBuf;
use crate::fault::FaultDevice;
use crate::sync::{Memory, run_batch};

const LEN: ByteLen = ByteLen(1 << 20);

fn start() -> MemDevice {
    MemDevice::new(LEN, BlockSize::B512)
}

fn filled(len: usize, byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(len);
    buf.fill(byte);
    buf
}

fn do_one(device: &dyn BlockDevice, op: Op, block: u64, memory: Memory) {
    run_batch(device, vec![(op, ByteOffset(block * 512), memory)])[0].result.as_ref().expect("done");
}

fn write(device: &dyn BlockDevice, block: u64, byte: u8) {
    do_one(device, Op::Write { fua: false }, block, Memory::Buf(filled(512, byte)));
}

fn block(image: &MemDevice, block: u64) -> u8 {
    let read = vec![(Op::Read, ByteOffset(block * 512), Memory::Len(ByteLen(512)))];
    run_batch(image, read)[0].buf.as_deref().expect("a buffer")[0]
}

#[test]
fn every_prefix_holds_what_was_durable_by_then() {
    let device = RecordingDevice::new(Arc::new(start()));
    write(&*device, 0, 1); // entries 0, 1
    do_one(&*device, Op::Flush, 0, Memory::Len(ByteLen(0))); // 2, 3
    write(&*device, 0, 2); // 4, 5
    do_one(&*device, Op::Write { fua: true }, 1, Memory::Buf(filled(512, 3))); // 6, 7
    device.mark(4711); // 8
    let log = device.log();
    assert_eq!(log.len(), 9);
    let at = |prefix, survivors| {
        let image = log.replay(&start(), prefix, survivors);
        (block(&image, 0), block(&image, 1))
    };
    let durable: Vec<_> = (0..=9).map(|n| at(n, Survivors::DurableOnly)).collect();
    let (zero, flushed, fua) = ((0, 0), (1, 0), (1, 3));
    assert_eq!(durable, [zero, zero, zero, zero, flushed, flushed, flushed, flushed, fua, fua]);
    let all: Vec<_> = (0..=9).map(|n| at(n, Survivors::All).0).collect();
    assert_eq!(all, [0, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
}

#[test]
fn a_flush_covers_only_writes_completed_before_its_submission() {
    let fault = FaultDevice::new(Arc::new(start()));
    let device = RecordingDevice::new(Arc::clone(&fault) as Arc<dyn BlockDevice>);
    fault.hang();
    let (done, _waiting) = Completion::channel();
    device.submit(Io::write(ByteOffset(0), filled(512, 1), false, done)); // in flight
    let (done, _waiting) = Completion::channel();
    device.submit(Io::flush(done)); // does not cover it
    fault.heal();
    let log = device.log();
    let image = log.replay(&start(), log.len(), Survivors::DurableOnly);
    assert_eq!(block(&image, 0), 0);
}

#[test]
fn seeded_survivors_are_whole_blocks_of_allowed_versions() {
    let device = RecordingDevice::new(Arc::new(start()));
    do_one(&*device, Op::Write { fua: false }, 0, Memory::Buf(filled(1024, 1)));
    do_one(&*device, Op::Flush, 0, Memory::Len(ByteLen(0)));
    do_one(&*device, Op::Write { fua: false }, 0, Memory::Buf(filled(1024, 2)));
    do_one(&*device, Op::WriteZeroes, 0, Memory::Len(ByteLen(512)));
    let log = device.log();
    let images: std::collections::BTreeSet<_> = (0..200)
        .map(|seed| log.replay(&start(), log.len(), Survivors::Seeded(seed)))
        .map(|image| (block(&image, 0), block(&image, 1)))
        .collect();
    let expect = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)];
    assert_eq!(images.into_iter().collect::<Vec<_>>(), expect);
}

#[test]
fn failed_requests_may_or_may_not_be_there_and_reads_are_not_recorded() {
    let fault = FaultDevice::new(Arc::new(start()));
    let device = RecordingDevice::new(Arc::clone(&fault) as Arc<dyn BlockDevice>);
    fault.fail();
    let request = vec![(Op::Write { fua: true }, ByteOffset(0), Memory::Buf(filled(512, 1)))];
    assert!(run_batch(&*device, request)[0].result.is_err());
    let read = vec![(Op::Read, ByteOffset(0), Memory::Len(ByteLen(512)))];
    assert!(run_batch(&*device, read)[0].result.is_err());
    let log = device.log();
    assert_eq!(log.len(), 2);
    assert_eq!(block(&log.replay(&start(), 2, Survivors::DurableOnly), 0), 0);
    assert_eq!(block(&log.replay(&start(), 2, Survivors::All), 0), 1);
}
