use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::buf::AlignedBuf;
use crate::device::{Completion, DeviceExt};
use crate::provisioning::Extent;
use crate::sync::{Memory, run_batch};
use crate::units::{ByteLen, ByteOffset};
use crate::worker::Workers;

const SIZE: u64 = 8 << 20;
/// Generous: only a broken test waits this long.
const DEADLINE: Duration = Duration::from_secs(30);

fn image() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(SIZE).expect("sized");
    file
}

fn pattern(len: usize, seed: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::with_capacity(len);
    for (index, byte) in buf.iter_mut().enumerate() {
        *byte = seed.wrapping_add((index / 7) as u8);
    }
    buf
}

/// Every way a request can travel: direct with rings, direct without, buffered.
fn ways() -> Vec<(&'static str, Workers, OpenOptions)> {
    let rings = || Workers::start(2, "test").expect("workers start");
    let threads = Workers::start_without_rings(1, "test").expect("workers start");
    let buffered = OpenOptions { direct: Direct::Never, ..OpenOptions::default() };
    vec![
        ("rings", rings(), OpenOptions::default()),
        ("threads", threads, OpenOptions::default()),
        ("buffered", rings(), buffered),
    ]
}

#[test]
fn what_was_written_is_read_from_workers_and_from_other_threads() {
    for (name, workers, options) in ways() {
        let image = image();
        let device = Arc::new(FileDevice::open(image.path(), options, workers.handle()).expect("opens"));
        let on_worker = Arc::clone(&device);
        let task = workers.spawn(1, move || async move {
            let (result, buf) = on_worker.write(ByteOffset(65536), pattern(1 << 20, 3)).await;
            result.expect("written");
            assert_eq!(buf.len(), 1 << 20, "the buffer comes back");
            on_worker.write_fua(ByteOffset(0), pattern(4096, 9)).await.0.expect("written through");
            on_worker.flush().await.expect("flushed");
        });
        task.wait().expect("the task ran");
        let reads = vec![
            (Op::Read, ByteOffset(65536), Memory::Len(ByteLen(1 << 20))),
            (Op::Read, ByteOffset(0), Memory::Buf(AlignedBuf::zeroed(4096))),
            (Op::Flush, ByteOffset(0), Memory::Len(ByteLen(0))),
        ];
        let answers = run_batch(&*device, reads);
        assert!(answers.iter().all(|done| done.result.is_ok()), "{name}: {answers:?}");
        let bytes = |n: usize| answers[n].buf.as_deref().expect("a buffer");
        assert_eq!(bytes(0), &pattern(1 << 20, 3)[..], "{name}");
        assert_eq!(bytes(1), &pattern(4096, 9)[..], "{name}");
        workers.shutdown().expect("ends");
    }
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeroes_and_neighbours_stay() {
    for (name, workers, options) in ways() {
        let image = image();
        let device = FileDevice::open(image.path(), options, workers.handle()).expect("opens");
        let whole = vec![(Op::Write { fua: false }, ByteOffset(0), Memory::Buf(pattern(65536, 1)))];
        run_batch(&device, whole)[0].result.as_ref().expect("written");
        let holes = vec![
            (Op::Discard, ByteOffset(4096), Memory::Len(ByteLen(8192))),
            (Op::WriteZeroes, ByteOffset(32768), Memory::Len(ByteLen(4096))),
            (Op::WriteZeroes, ByteOffset(40960), Memory::Len(ByteLen(0))),
        ];
        for done in run_batch(&device, holes) {
            done.result.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let read = run_batch(&device, vec![(Op::Read, ByteOffset(0), Memory::Len(ByteLen(65536)))]);
        let mut expect = pattern(65536, 1);
        expect[4096..12288].fill(0);
        expect[32768..36864].fill(0);
        assert!(read[0].buf.as_deref() == Some(&expect[..]), "{name}");
    }
}

#[test]
fn misaligned_and_out_of_range_requests_are_refused() {
    let (image, workers) = (image(), Workers::start(1, "test").expect("workers start"));
    let device = FileDevice::open(image.path(), OpenOptions::default(), workers.handle()).expect("opens");
    let write = Op::Write { fua: false };
    let kinds: Vec<_> = run_batch(
        &device,
        vec![
            (write, ByteOffset(1), Memory::Buf(AlignedBuf::zeroed(4096))),
            (write, ByteOffset(0), Memory::Buf(AlignedBuf::zeroed(100))),
            (Op::Read, ByteOffset(SIZE), Memory::Len(ByteLen(4096))),
            (Op::Discard, ByteOffset(u64::MAX - 4095), Memory::Len(ByteLen(4096))),
            (write, ByteOffset(0), Memory::Len(ByteLen(4096))),
        ],
    )
    .into_iter()
    .map(|done| done.result.map_err(|e| e.kind))
    .collect();
    let misaligned = Err(IoErrorKind::Misaligned);
    let outside = Err(IoErrorKind::OutOfRange);
    assert_eq!(kinds, [misaligned, misaligned, outside, outside, misaligned]);
}

#[test]
fn a_file_that_shrank_gives_medium_errors() {
    for (name, workers, options) in ways() {
        let image = image();
        let device = FileDevice::open(image.path(), options, workers.handle()).expect("opens");
        image.as_file().set_len(SIZE / 2).expect("shrunk");
        let done = run_batch(&device, vec![(Op::Read, ByteOffset(SIZE / 2), Memory::Len(ByteLen(4096)))]);
        assert_eq!(done[0].result.as_ref().map_err(|e| e.kind), Err(IoErrorKind::Medium), "{name}");
    }
}

#[test]
fn read_only_device_refuses_writes_and_odd_files_are_no_disks() {
    let (image, workers) = (image(), Workers::start(1, "test").expect("workers start"));
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let device = FileDevice::open(image.path(), options, workers.handle()).expect("opens");
    let write = vec![(Op::Write { fua: false }, ByteOffset(0), Memory::Buf(AlignedBuf::zeroed(4096)))];
    let done = run_batch(&device, write);
    assert_eq!(done[0].result.as_ref().map_err(|e| e.kind), Err(IoErrorKind::ReadOnly));
    let open = |path: &str| FileDevice::open(path, options, workers.handle());
    assert!(matches!(open("/"), Err(OpenError::NotADisk { .. } | OpenError::Os { .. })));
    assert!(matches!(open("/dev/null"), Err(OpenError::NotADisk { .. } | OpenError::Os { .. })));
    assert!(matches!(open("/nowhere/at/all"), Err(OpenError::Os { .. })));
}

#[test]
fn requests_of_a_batch_reach_the_kernel_when_the_guard_drops() {
    let (image, workers) = (image(), Workers::start(1, "test").expect("workers start"));
    let options = OpenOptions::default();
    let device = Arc::new(FileDevice::open(image.path(), options, workers.handle()).expect("opens"));
    if !workers.handle().has_rings() || !device.is_direct() {
        return;
    }
    let task = workers.spawn(0, move || async move {
        let outer = worker::batch();
        let reads: Vec<_> = (0..600u64)
            .map(|n| {
                let _inner = worker::batch();
                device.read(ByteOffset(n % 2048 * 4096), 4096)
            })
            .collect();
        drop(outer);
        for read in reads {
            assert_eq!(read.await.expect("read").len(), 4096);
        }
    });
    task.wait().expect("more than a full submission queue went through one batch");
}

#[test]
fn every_request_completes_exactly_once_also_across_shutdown() {
    for (name, workers, options) in ways() {
        let image = image();
        let device = Arc::new(FileDevice::open(image.path(), options, workers.handle()).expect("opens"));
        let (sender, answers) = mpsc::channel();
        let submit = move |device: &FileDevice, n: usize| {
            let sender = sender.clone();
            let done = Completion::new(move |done| {
                let _ = sender.send((n, done.result.err().map(|e| e.kind)));
            });
            device.submit(Io::write(ByteOffset(n as u64 % 2048 * 4096), pattern(4096, 1), false, done));
        };
        let (local, of_worker) = (submit.clone(), Arc::clone(&device));
        let task = workers.spawn(0, move || async move {
            (0..1000).for_each(|n| local(&of_worker, n));
        });
        let (foreign, of_thread) = (submit.clone(), Arc::clone(&device));
        let thread = std::thread::spawn(move || (1000..3000).for_each(|n| foreign(&of_thread, n)));
        task.wait().expect("submitted");
        workers.shutdown().expect("ends");
        thread.join().expect("the foreign thread never waits for ever");
        submit(&device, 3000);
        drop(submit);
        let mut seen = vec![0; 3001];
        while let Ok((n, kind)) = answers.recv_timeout(DEADLINE) {
            assert!(matches!(kind, None | Some(IoErrorKind::ShuttingDown)), "{name}: {kind:?}");
            seen[n] += 1;
        }
        assert!(seen.iter().all(|&count| count == 1), "{name}: each exactly once");
    }
}

#[test]
fn a_panic_in_a_completion_does_not_end_the_worker() {
    let (image, workers) = (image(), Workers::start(1, "test").expect("workers start"));
    let options = OpenOptions::default();
    let device = Arc::new(FileDevice::open(image.path(), options, workers.handle()).expect("opens"));
    device.submit(Io::read(ByteOffset(0), 4096, Completion::new(|_| panic!("on purpose"))));
    let done = run_batch(&*device, vec![(Op::Read, ByteOffset(0), Memory::Len(ByteLen(4096)))]);
    assert!(done[0].result.is_ok());
    // The last count falls after the completion that woke this thread.
    workers.shutdown().expect("ends");
    assert_eq!(device.raw().in_flight().count(), 0);
}

#[test]
fn a_batch_waited_for_on_a_worker_is_refused() {
    let (image, workers) = (image(), Workers::start(1, "test").expect("workers start"));
    let options = OpenOptions::default();
    let device = Arc::new(FileDevice::open(image.path(), options, workers.handle()).expect("opens"));
    let task = workers.spawn(0, move || async move {
        run_batch(&*device, vec![(Op::Flush, ByteOffset(0), Memory::Len(ByteLen(0)))])
    });
    let done = task.wait().expect("answered");
    assert_eq!(done[0].result.as_ref().map_err(|e| e.kind), Err(IoErrorKind::NotSupported));
}

#[test]
fn holes_and_data_are_told_in_order_and_at_most_as_many_as_asked() {
    let workers = Workers::start(1, "test").expect("workers start");
    let image = image();
    std::os::unix::fs::FileExt::write_all_at(image.as_file(), &[7; 65536], 1 << 20).expect("written");
    std::os::unix::fs::FileExt::write_all_at(image.as_file(), &[7; 65536], 4 << 20).expect("written");
    let device = FileDevice::open(image.path(), OpenOptions::default(), workers.handle()).expect("opens");
    let ask = |at, len, most| {
        let (sender, receiver) = mpsc::channel();
        device.extents(ByteOffset(at), ByteLen(len), most, Box::new(move |found| sender.send(found).expect("awaited")));
        receiver.recv_timeout(DEADLINE).expect("told once")
    };
    let told = |found: Vec<Extent>| found.iter().map(|e| (e.len.0, e.hole)).collect::<Vec<_>>();
    let all = told(ask(0, SIZE, 100).expect("extents"));
    if all == [(SIZE, false)] {
        println!("skipped: the file system below {} does not tell holes", image.path().display());
        return;
    }
    let (mib, data) = (1 << 20, 65536);
    assert_eq!(all, [(mib, true), (data, false), (3 * mib - data, true), (data, false), (SIZE - 4 * mib - data, true)],);
    assert_eq!(told(ask(0, SIZE, 2).expect("extents")), all[..2], "no more than asked");
    assert_eq!(told(ask(mib + 4096, 4096, 1).expect("extents")), [(4096, false)], "never behind the range");
    assert_eq!(ask(SIZE, 4096, 1).expect_err("outside").kind, IoErrorKind::OutOfRange);
    assert_eq!(ask(0, 0, 1).expect_err("empty").kind, IoErrorKind::OutOfRange);
}

#[test]
fn size_is_that_of_the_last_look() {
    let workers = Workers::start(1, "test").expect("workers start");
    let image = image();
    let device = FileDevice::open(image.path(), OpenOptions::default(), workers.handle()).expect("opens");
    image.as_file().set_len(2 * SIZE + 100).expect("grown");
    assert_eq!(device.geometry().len, ByteLen(SIZE), "nobody looked");
    assert_eq!(device.rescan(), Ok(ByteLen(2 * SIZE)), "whole blocks");
    let read = run_batch(&device, vec![(Op::Read, ByteOffset(2 * SIZE - 4096), Memory::Len(ByteLen(4096)))]);
    assert!(read[0].result.is_ok());
    image.as_file().set_len(SIZE).expect("shrunk");
    assert_eq!(device.rescan(), Ok(ByteLen(SIZE)));
    let read = run_batch(&device, vec![(Op::Read, ByteOffset(SIZE), Memory::Len(ByteLen(4096)))]);
    assert_eq!(read[0].result.as_ref().expect_err("outside").kind, IoErrorKind::OutOfRange);
}
