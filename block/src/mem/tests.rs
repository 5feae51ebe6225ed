use super::*;
use crate::buf::AlignedBuf;
use crate::device::DeviceExt;
use crate::sync::{Memory, run_batch};
use crate::units::ByteOffset;

const LEN: ByteLen = ByteLen(1 << 20);

fn write(device: &MemDevice, block: u64, byte: u8, fua: bool) {
    let mut buf = AlignedBuf::zeroed(512);
    buf.fill(byte);
    let done = run_batch(device, vec![(Op::Write { fua }, ByteOffset(block * 512), Memory::Buf(buf))]);
    done[0].result.as_ref().expect("written");
}

fn read(device: &MemDevice, block: u64) -> u8 {
    let done = run_batch(device, vec![(Op::Read, ByteOffset(block * 512), Memory::Len(ByteLen(512)))]);
    let buf = done[0].buf.as_deref().expect("a buffer");
    assert!(buf.iter().all(|&b| b == buf[0]), "a block is never torn");
    buf[0]
}

fn flush(device: &MemDevice) {
    run_batch(device, vec![(Op::Flush, ByteOffset(0), Memory::Len(ByteLen(0)))]);
}

#[test]
fn crash_loses_exactly_what_was_neither_flushed_nor_fua() {
    let device = MemDevice::with_volatile_cache(LEN, BlockSize::B512);
    write(&device, 0, 1, false);
    write(&device, 1, 2, false);
    flush(&device);
    write(&device, 1, 3, false);
    write(&device, 2, 4, true);
    write(&device, 3, 5, false);
    assert_eq!([0, 1, 2, 3].map(|b| read(&device, b)), [1, 3, 4, 5]);
    assert_eq!(device.unflushed(), 2);
    device.crash();
    assert_eq!([0, 1, 2, 3].map(|b| read(&device, b)), [1, 2, 4, 0]);
}

#[test]
fn seeded_crash_keeps_any_version_since_the_flush_and_nothing_else() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let device = MemDevice::with_volatile_cache(LEN, BlockSize::B512);
        write(&device, 0, 9, false);
        write(&device, 0, 1, false);
        flush(&device);
        write(&device, 0, 2, false);
        write(&device, 0, 3, false);
        device.crash_keeping_some(seed);
        seen.insert(read(&device, 0));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn without_a_cache_every_write_survives() {
    let device = MemDevice::new(LEN, BlockSize::B512);
    write(&device, 7, 7, false);
    device.crash();
    assert_eq!(read(&device, 7), 7);
}

#[tokio::test]
async fn requests_can_be_awaited_and_zeroes_and_discards_read_as_zero() {
    let device = MemDevice::with_volatile_cache(LEN, BlockSize::B512);
    device.write(ByteOffset(0), AlignedBuf::from_slice(&[7; 1536])).await.0.expect("written");
    device.write_zeroes(ByteOffset(512), ByteLen(512)).await.expect("zeroed");
    device.discard(ByteOffset(1024), ByteLen(512)).await.expect("discarded");
    let buf = device.read(ByteOffset(0), 1536).await.expect("read");
    assert!(buf[..512].iter().all(|&b| b == 7) && buf[512..].iter().all(|&b| b == 0));
    device.crash();
    let buf = device.read(ByteOffset(0), 512).await.expect("read");
    assert!(buf.iter().all(|&b| b == 0));
}
