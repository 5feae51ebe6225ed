//! Criterion: the pieces of which a steady-state operation is made, one by one, through the crates' public interfaces.
//!
//! - *layout lookup*: a block range through a file's mapping (`FileMap::pieces`), of one extent and of a thousand. The
//!   published snapshot that the hot path looks into is not public; this is the map it is made from.
//! - *frames*: header encoded and decoded; a whole 4 KiB write frame through the reader.
//! - *a steady-state write*: `DataPath::write` of 4 KiB in place under a layout held, on a device in memory. It holds the
//!   whole route: snapshot, gates, table of outstanding requests, completion, answer; and the copy into memory.
#![forbid(unsafe_code)]

mod rig;

use std::hint::black_box;

use block::buf::AlignedBuf;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use csv_fs::core::client::map::FileMap;
use csv_fs::types::{BlockCount, BlockRange, DiskBlock, Extent, ExtentState, FileBlock};
use net::frame::{Header, Kind, Version};
use net::framer::Framer;

/// Blocks of one extent of the fragmented file.
const RUN: u64 = 16;

fn map(extents: u64) -> FileMap {
    let extents: Vec<Extent> = (0..extents)
        .map(|n| Extent {
            file: FileBlock(n * RUN),
            // A gap between two, so that they are not one.
            disk: DiskBlock(1 << 20 | (n * (RUN + 1))),
            len: BlockCount(RUN),
            state: ExtentState::Written,
            shared: false,
        })
        .collect();
    let mut map = FileMap::new();
    map.merge(BlockRange::ALL, &extents, Some(extents.len() as u64 * RUN * 4096), &[]);
    map
}

fn layout_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("layout lookup");
    for extents in [1, 1000] {
        let map = map(extents);
        let mut at = 0;
        group.bench_function(format!("one block of {extents} extents"), |b| {
            b.iter(|| {
                at = (at + 7919) % (extents * RUN);
                black_box(map.pieces(BlockRange::new(at, at + 1)))
            });
        });
    }
    group.finish();
}

fn write_header(body: &[u8], payload: &[u8]) -> Header {
    Header { opcode: 7, request_id: 42, epoch: 9, ..Header::new(Kind::Request, body, payload) }
}

fn frames(c: &mut Criterion) {
    let (body, payload) = ([3; 48], vec![0xa5; 4096]);
    let mut group = c.benchmark_group("frames");
    let header = write_header(&body, &payload);
    group.bench_function("header encode", |b| b.iter(|| black_box(black_box(&header).encode())));
    let bytes = header.encode();
    group.bench_function("header decode", |b| b.iter(|| Header::decode(black_box(&bytes))));
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("4k write: checksum and header", |b| {
        b.iter(|| write_header(black_box(&body), black_box(&payload)).encode());
    });
    let wire = [&bytes[..], &body, &payload].concat();
    let mut framer = Framer::default();
    framer.open(Version::V1);
    group.bench_function("4k write: read, checked, in aligned memory", |b| {
        b.iter(|| {
            let mut rest = wire.as_slice();
            loop {
                let space = framer.space();
                let n = space.len().min(rest.len());
                space[..n].copy_from_slice(&rest[..n]);
                rest = &rest[n..];
                if let Ok(Some(frame)) = framer.filled(n) {
                    break black_box(frame);
                }
            }
        });
    });
    group.finish();
}

fn steady_write(c: &mut Criterion) {
    let rig = match rig::Rig::start() {
        Ok(rig) => rig,
        Err(why) => return eprintln!("skipped: a steady-state write: {why}"),
    };
    let mut group = c.benchmark_group("a steady-state write");
    let data = AlignedBuf::zeroed(4096);
    let mut n = 0;
    group.bench_function("4k in place, to the answer, device in memory", |b| {
        b.iter(|| {
            n = (n + 7) % (rig::FILE / 4096);
            rig.write(n * 4096, AlignedBuf::from_slice(&data))
        });
    });
    group.bench_function("of which the buffer's allocation and copy", |b| b.iter(|| AlignedBuf::from_slice(&data)));
    group.finish();
    rig.check_all_were_hot();
}

criterion_group!(micro, layout_lookup, frames, steady_write);
criterion_main!(micro);
