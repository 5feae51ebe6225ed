//! Batches from threads that run no async code, such as a metadata thread: submit all, wait for all.
//!
//! A thread that does so often attaches a [`ThreadRing`]: its batches then go through a ring of its own
//! instead of through a worker's queue, and a batch of one through plain system calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::buf::AlignedBuf;
use crate::device::{BlockDevice, Completion, Done, Io, Op};
use crate::error::{IoError, IoErrorKind};
use crate::units::{ByteLen, ByteOffset};
use crate::worker::{self, Attached, Bell};

/// The memory of one request of a batch.
#[derive(Debug)]
pub enum Memory {
    /// What a write writes, or where a read goes.
    Buf(AlignedBuf),
    /// The length; a read gets memory of its own, other operations need none.
    Len(ByteLen),
}

impl From<AlignedBuf> for Memory {
    fn from(buf: AlignedBuf) -> Memory {
        Memory::Buf(buf)
    }
}

impl From<ByteLen> for Memory {
    fn from(len: ByteLen) -> Memory {
        Memory::Len(len)
    }
}

/// A ring for this thread's batches, for as long as the value lives.
///
/// Only [`run_batch`] uses it; requests submitted otherwise go to the workers as before.
#[must_use = "the ring is closed when this is dropped"]
pub struct ThreadRing {
    _attached: Attached,
}

impl ThreadRing {
    /// Gives this thread a ring. An error where io_uring is refused, or where the thread is a worker
    /// or has one already; batches work without it, only slower.
    pub fn attach() -> std::io::Result<ThreadRing> {
        Ok(ThreadRing { _attached: Attached::new()? })
    }
}

/// Where the answers of one batch gather.
struct Gathering {
    left: AtomicUsize,
    answers: Mutex<Vec<Option<Done>>>,
    all: Condvar,
    /// Of a thread that waits in its ring.
    bell: Option<Bell>,
}

/// Submits every request and waits until each has ended; the answers come in the order of the
/// requests. There is no order among the requests themselves: a flush in the same batch covers none of its
/// writes.
///
/// Not for workers, whose thread must go on to complete what is waited for: there each request is
/// answered `NotSupported`, unexecuted.
pub fn run_batch(device: &dyn BlockDevice, requests: Vec<(Op, ByteOffset, Memory)>) -> Vec<Done> {
    if worker::current().is_some() {
        tracing::error!("a batch was to be waited for on a worker; refused, it would wait for ever");
        return requests.into_iter().map(refused).collect();
    }
    let (attached, alone) = (worker::is_attached(), requests.len() == 1);
    let gathering = Arc::new(Gathering {
        left: AtomicUsize::new(requests.len()),
        answers: Mutex::new(requests.iter().map(|_| None).collect()),
        all: Condvar::new(),
        // Without an eventfd the batch goes the slower way.
        bell: (attached && !alone).then(Bell::new).and_then(Result::ok),
    });
    let submit = || submit_all(device, requests, &gathering);
    match &gathering.bell {
        Some(bell) => worker::drive(bell, submit, || gathering.is_done()),
        None if attached && alone => worker::alone(submit),
        None => submit(),
    }
    gathering.wait()
}

fn submit_all(device: &dyn BlockDevice, requests: Vec<(Op, ByteOffset, Memory)>, gathering: &Arc<Gathering>) {
    for (index, (op, at, memory)) in requests.into_iter().enumerate() {
        let to = Arc::clone(gathering);
        let done = Completion::new(move |done| to.put(index, done));
        let (len, buf) = memory.into_parts(op);
        device.submit(Io { op, at, len, buf, done });
    }
}

fn refused((op, at, memory): (Op, ByteOffset, Memory)) -> Done {
    let (len, buf) = memory.into_parts(op);
    Done { result: Err(IoError::new(IoErrorKind::NotSupported, op, at, len)), buf }
}

impl Memory {
    fn into_parts(self, op: Op) -> (ByteLen, Option<AlignedBuf>) {
        match self {
            Memory::Buf(buf) => (ByteLen::of(&buf), Some(buf)),
            // A length that no memory has stays without a buffer and is refused by the device.
            Memory::Len(len) if op == Op::Read && len <= crate::device::MAX_TRANSFER => {
                (len, len.as_usize().map(AlignedBuf::with_capacity))
            }
            Memory::Len(len) => (len, None),
        }
    }
}

impl Gathering {
    fn put(&self, index: usize, done: Done) {
        let mut answers = self.answers.lock();
        answers[index] = Some(done);
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.all.notify_one();
            if let Some(bell) = &self.bell {
                bell.ring();
            }
        }
    }

    fn is_done(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    fn wait(&self) -> Vec<Done> {
        let mut answers = self.answers.lock();
        while !self.is_done() {
            self.all.wait(&mut answers);
        }
        let lost = || Done { result: Err(IoError::dropped()), buf: None };
        answers.drain(..).map(|answer| answer.unwrap_or_else(lost)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fault::FaultDevice;
    use crate::file::{FileDevice, OpenOptions};
    use crate::worker::Workers;

    fn writes_and_reads(device: &dyn BlockDevice, byte: u8) {
        let write = |n: u64| {
            let mut buf = AlignedBuf::zeroed(4096);
            buf.fill(byte);
            (Op::Write { fua: false }, ByteOffset(n * 4096), Memory::Buf(buf))
        };
        let written = run_batch(device, (0..300).map(write).collect());
        assert!(written.iter().all(|done| done.result.is_ok()));
        let read = |n: u64| (Op::Read, ByteOffset(n * 4096), Memory::Len(ByteLen(4096)));
        for done in run_batch(device, (0..300).map(read).collect()) {
            assert_eq!(done.buf.as_deref(), Some(&[byte; 4096][..]));
        }
    }

    #[test]
    fn batches_run_through_a_ring_of_the_thread_or_a_workers() {
        let image = tempfile::NamedTempFile::new().expect("a temporary file");
        image.as_file().set_len(4 << 20).expect("sized");
        let workers = Workers::start(1, "test").expect("workers start");
        let options = OpenOptions::default();
        let device = FileDevice::open(image.path(), options, workers.handle()).expect("opens");
        writes_and_reads(&device, 1);
        let ring = ThreadRing::attach().expect("io_uring");
        assert!(ThreadRing::attach().is_err(), "one ring per thread");
        writes_and_reads(&device, 2);
        assert!(run_batch(&device, Vec::new()).is_empty());
        workers.shutdown().expect("ends");
        // The proof that the ring is the thread's own: the workers are gone.
        writes_and_reads(&device, 3);
        let flush = || run_batch(&device, vec![(Op::Flush, ByteOffset::ZERO, Memory::Len(ByteLen(0)))]);
        assert!(flush()[0].result.is_ok(), "one request alone needs neither ring nor worker");
        drop(ring);
        let done = flush();
        assert_eq!(done[0].result.as_ref().map_err(|e| e.kind), Err(IoErrorKind::ShuttingDown));
    }

    #[test]
    fn a_thread_waiting_in_its_ring_wakes_for_requests_that_end_elsewhere() {
        let image = tempfile::NamedTempFile::new().expect("a temporary file");
        image.as_file().set_len(4 << 20).expect("sized");
        let workers = Workers::start(1, "test").expect("workers start");
        let options = OpenOptions::default();
        let file = FileDevice::open(image.path(), options, workers.handle()).expect("opens");
        let fault = FaultDevice::new(Arc::new(file));
        let _ring = ThreadRing::attach().expect("io_uring");
        for count in [300, 1] {
            fault.hang();
            let healer = Arc::clone(&fault);
            let heal = std::thread::spawn(move || {
                while healer.held() < count {
                    std::thread::yield_now();
                }
                healer.heal();
            });
            let write =
                |n: usize| (Op::Write { fua: false }, ByteOffset(n as u64 * 4096), AlignedBuf::zeroed(4096).into());
            let written = run_batch(&*fault, (0..count).map(write).collect());
            assert!(written.iter().all(|done| done.result.is_ok()));
            heal.join().expect("healed");
        }
    }
}
