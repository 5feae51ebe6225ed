use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::buf::AlignedBuf;
use crate::device::{Completion, DeviceExt, Done, Op};
use crate::mem::MemDevice;
use crate::sync::{Memory, run_batch};
use crate::units::{BlockSize, ByteLen, ByteOffset};

type Answers = mpsc::Receiver<Result<(), IoErrorKind>>;

fn mem() -> Arc<MemDevice> {
    Arc::new(MemDevice::new(ByteLen(1 << 20), BlockSize::B512))
}

fn faulty() -> (Arc<MemDevice>, Arc<FaultDevice>) {
    let below = mem();
    (Arc::clone(&below), FaultDevice::new(below))
}

/// Submits a write of `byte` to block 0.
fn write(device: &dyn BlockDevice, byte: u8) -> Answers {
    let (sender, answers) = mpsc::channel();
    let mut buf = AlignedBuf::zeroed(512);
    buf.fill(byte);
    let done = Completion::new(move |done: Done| {
        assert!(done.buf.is_some(), "the buffer comes back");
        let _ = sender.send(done.result.map_err(|e| e.kind));
    });
    device.submit(Io::write(ByteOffset(0), buf, false, done));
    answers
}

fn on_disk(device: &dyn BlockDevice) -> u8 {
    let read = vec![(Op::Read, ByteOffset(0), Memory::Len(ByteLen(512)))];
    run_batch(device, read)[0].buf.as_deref().expect("a buffer")[0]
}

/// Polls a future that must be ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("not ready"),
    }
}

/// A device below that keeps requests until told; by hand, so that a test sees a request "in the kernel".
#[derive(Default)]
struct Slow(parking_lot::Mutex<Vec<Io>>);

impl BlockDevice for Slow {
    fn geometry(&self) -> Geometry {
        mem().geometry()
    }
    fn submit(&self, io: Io) {
        self.0.lock().push(io);
    }
    fn describe(&self) -> String {
        "slow".into()
    }
}

impl Slow {
    fn finish_all(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        all.into_iter().for_each(|io| io.complete(Ok(())));
    }
}

#[test]
fn hanging_holds_unexecuted_and_heal_executes() {
    let (below, fault) = faulty();
    fault.hang();
    let answers = write(&*fault, 1);
    assert_eq!((fault.held(), on_disk(&*below)), (1, 0));
    assert!(answers.try_recv().is_err());
    fault.heal();
    assert_eq!((fault.held(), on_disk(&*below)), (0, 1));
    assert_eq!(answers.try_recv(), Ok(Ok(())));
    assert_eq!(fault.state(), FaultState::Passing);
}

#[test]
fn hanging_holds_completions_of_requests_already_below() {
    let slow = Arc::new(Slow::default());
    let fault = FaultDevice::new(Arc::clone(&slow) as Arc<dyn BlockDevice>);
    let answers = write(&*fault, 1);
    assert_eq!(fault.below(), 1);
    fault.hang();
    slow.finish_all();
    assert_eq!((fault.below(), fault.held()), (0, 1));
    assert!(answers.try_recv().is_err(), "executed, but its answer hangs");
    fault.heal();
    assert_eq!(answers.try_recv(), Ok(Ok(())));
}

#[test]
fn failing_answers_what_was_held_and_what_comes_unexecuted() {
    let (below, fault) = faulty();
    fault.hang();
    let held = write(&*fault, 1);
    fault.fail();
    assert_eq!(held.try_recv(), Ok(Err(IoErrorKind::NoPath)));
    assert_eq!(write(&*fault, 2).try_recv(), Ok(Err(IoErrorKind::NoPath)));
    fault.fail_with(IoErrorKind::Medium);
    assert_eq!(write(&*fault, 3).try_recv(), Ok(Err(IoErrorKind::Medium)));
    fault.heal();
    assert_eq!(on_disk(&*below), 0);
}

#[test]
fn abort_drops_held_requests_unexecuted_for_ever() {
    let (below, fault) = faulty();
    fault.hang();
    let old = write(&*fault, 1);
    now(fault.abort_outstanding()).expect("proved");
    assert_eq!(old.try_recv(), Ok(Err(IoErrorKind::Aborted)));
    let newer = write(&*below, 2);
    assert_eq!(newer.try_recv(), Ok(Ok(())));
    fault.heal();
    assert_eq!(on_disk(&*below), 2, "the old write does not land");
}

#[test]
fn ignored_abort_lets_the_old_write_land() {
    let (below, fault) = faulty();
    fault.hang();
    let old = write(&*fault, 1);
    fault.ignore_aborts(true);
    now(fault.abort_outstanding()).expect("claimed");
    assert!(old.try_recv().is_err());
    assert_eq!(write(&*below, 2).try_recv(), Ok(Ok(())));
    fault.heal();
    assert_eq!(on_disk(&*below), 1, "what abort-own is there to prevent");
}

#[test]
fn an_abort_that_is_held_withdraws_nothing_until_it_is_let_go() {
    let (below, fault) = faulty();
    fault.hang();
    fault.hold_aborts(true);
    let old = write(&*fault, 1);
    let mut abort = pin!(fault.abort_outstanding());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(abort.as_mut().poll(&mut cx).is_pending());
    assert!(old.try_recv().is_err());
    fault.hold_aborts(false);
    assert!(abort.as_mut().poll(&mut cx).is_ready());
    assert_eq!(old.try_recv(), Ok(Err(IoErrorKind::Aborted)));
    fault.heal();
    assert_eq!(on_disk(&*below), 0);
}

#[test]
fn abort_waits_for_what_has_passed_below_and_answers_its_held_completion() {
    let slow = Arc::new(Slow::default());
    let fault = FaultDevice::new(Arc::clone(&slow) as Arc<dyn BlockDevice>);
    let answers = write(&*fault, 1);
    fault.hang();
    let mut abort = pin!(fault.abort_outstanding());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(abort.as_mut().poll(&mut cx).is_pending());
    slow.finish_all();
    assert!(abort.as_mut().poll(&mut cx).is_ready());
    assert_eq!(answers.try_recv(), Ok(Err(IoErrorKind::Aborted)), "the way brings no other answer");
}

#[test]
fn delayed_requests_are_executed_later_and_can_be_aborted_before() {
    let (below, fault) = faulty();
    fault.delay(Duration::from_secs(3600));
    let answers = write(&*fault, 1);
    assert_eq!((fault.held(), on_disk(&*below)), (1, 0));
    now(fault.abort_outstanding()).expect("proved");
    assert_eq!(answers.try_recv(), Ok(Err(IoErrorKind::Aborted)));
    let answers = write(&*fault, 2);
    // Those held now get the new, short delay.
    fault.delay(Duration::from_millis(1));
    assert_eq!(answers.recv_timeout(Duration::from_secs(30)), Ok(Ok(())));
    assert_eq!(on_disk(&*below), 2);
}

#[test]
fn a_gate_hangs_and_is_aborted_like_a_request() {
    let (_below, fault) = faulty();
    assert!(now(fault.admit()).is_ok());
    fault.hang();
    let mut waiting = pin!(fault.admit());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    now(fault.abort_outstanding()).expect("proved");
    assert!(matches!(waiting.as_mut().poll(&mut cx), Poll::Ready(Err(IoErrorKind::Aborted))));
    let mut waiting = pin!(fault.admit());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    fault.heal();
    let Poll::Ready(Ok(pass)) = waiting.as_mut().poll(&mut cx) else { panic!("let through") };
    assert_eq!(fault.below(), 1);
    fault.hang();
    let mut answer = pin!(pass.answer_arrives());
    assert!(answer.as_mut().poll(&mut cx).is_pending());
    assert_eq!(fault.below(), 0, "executed: an abort need not wait for it");
    fault.fail();
    assert_eq!(answer.as_mut().poll(&mut cx), Poll::Ready(false));
}

#[test]
fn dropping_the_device_answers_what_it_holds() {
    let (_below, fault) = faulty();
    fault.hang();
    let answers = write(&*fault, 1);
    drop(fault);
    assert_eq!(answers.try_recv(), Ok(Err(IoErrorKind::ShuttingDown)));
}

#[test]
fn requests_racing_with_hang_and_heal_all_complete() {
    let (_below, fault) = faulty();
    let (sender, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (sender, fault) = (sender.clone(), Arc::clone(&fault));
            scope.spawn(move || {
                for _ in 0..5000 {
                    let sender = sender.clone();
                    let done = Completion::new(move |done: Done| drop(sender.send(done.result)));
                    fault.submit(Io::read(ByteOffset(0), 512, done));
                }
            });
        }
        for _ in 0..200 {
            fault.hang();
            fault.delay(Duration::from_micros(10));
            fault.heal();
        }
    });
    fault.heal();
    drop(sender);
    let mut count = 0;
    while let Ok(result) = answers.recv_timeout(Duration::from_secs(30)) {
        result.expect("passed");
        count += 1;
    }
    assert_eq!(count, 10_000);
}

#[test]
fn seeded_faults_repeat_and_every_request_is_answered() {
    let run = |seed| {
        let plan = FaultPlan { refused: 50, answer_lost: 50, held: 200, hold_for: 5 };
        let faults = SeededFaults::new(mem(), plan, seed);
        let answers: Vec<_> = (0..500).map(|n| write(&*faults, n as u8)).collect();
        faults.release_all();
        answers.iter().map(|a| a.try_recv().expect("answered")).collect::<Vec<_>>()
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
    for kind in [IoErrorKind::Medium, IoErrorKind::TimedOut] {
        assert!(first.contains(&Err(kind)), "{kind:?} happened");
    }
}

#[tokio::test]
async fn a_lost_answer_was_executed_and_a_refused_request_was_not() {
    let below = mem();
    let plan = FaultPlan { answer_lost: 1000, ..FaultPlan::default() };
    let faults = SeededFaults::new(Arc::clone(&below) as Arc<dyn BlockDevice>, plan, 1);
    let (result, _) = faults.write(ByteOffset(0), AlignedBuf::from_slice(&[5; 512])).await;
    assert_eq!(result.expect_err("lost").kind, IoErrorKind::TimedOut);
    assert_eq!(on_disk(&*below), 5);
    let plan = FaultPlan { refused: 1000, ..FaultPlan::default() };
    let faults = SeededFaults::new(Arc::clone(&below) as Arc<dyn BlockDevice>, plan, 1);
    let (result, _) = faults.write(ByteOffset(0), AlignedBuf::from_slice(&[6; 512])).await;
    assert_eq!(result.expect_err("refused").kind, IoErrorKind::Medium);
    assert_eq!(on_disk(&*below), 5);
}
