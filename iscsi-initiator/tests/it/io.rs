//! Data, and what happens when the target dies or another host takes the session.

use std::sync::Arc;

use block::buf::AlignedBuf;
use block::device::{BlockDevice, DeviceExt};
use block::units::{ByteLen, ByteOffset};
use iscsi::session::{Cause, FenceGen};
use iscsi_initiator::unit::attach;
use iscsi_initiator::{LunDevice, Session};
use scsi::LunAddress;

use crate::tgt::{DISK, Tgt, run, workers};

async fn device(session: &Session) -> Arc<LunDevice> {
    let identity = attach(session, LunAddress::new(1).expect("in range")).await.expect("attaches");
    Arc::new(LunDevice::new(session.clone(), identity, FenceGen(0)))
}

/// A small stream of numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

#[test]
fn reads_agree_with_a_shadow_copy_of_everything_written() {
    let Some(tgt) = Tgt::start() else { return };
    let workers = workers();
    let session = tgt.session(&workers, 1);
    run(&workers, move || async move {
        let device = device(&session).await;
        let mut shadow = vec![0_u8; 8 << 20];
        let mut rng = Rng(1);
        for n in 0..400_u32 {
            let blocks = [1, 8, 64, 512, 2048][rng.below(5) as usize];
            let at = rng.below((shadow.len() as u64 / 512) - blocks) * 512;
            let (from, len) = (at as usize, blocks as usize * 512);
            match rng.below(8) {
                0..=3 => {
                    let bytes: Vec<u8> = (0..len as u32).map(|i| (i ^ n).to_le_bytes()[0] ^ n as u8).collect();
                    let fua = rng.below(4) == 0;
                    let buf = AlignedBuf::from_slice(&bytes);
                    let (result, _) = if fua {
                        device.write_fua(ByteOffset(at), buf).await
                    } else {
                        device.write(ByteOffset(at), buf).await
                    };
                    result.expect("writes");
                    shadow[from..from + len].copy_from_slice(&bytes);
                }
                4 => {
                    device.write_zeroes(ByteOffset(at), ByteLen(len as u64)).await.expect("zeroes");
                    shadow[from..from + len].fill(0);
                }
                5 => device.flush().await.expect("flushes"),
                _ => {
                    let read = device.read(ByteOffset(at), len).await.expect("reads");
                    assert!(*read == shadow[from..from + len], "step {n}, {len} bytes at {at}");
                }
            }
        }
        device.discard(ByteOffset(1 << 20), ByteLen(1 << 20)).await.expect("discards");
        let beyond = device.read(ByteOffset(DISK), 512).await.expect_err("beyond the end");
        assert_eq!(beyond.kind, block::error::IoErrorKind::OutOfRange);
        session.close().await;
    });
}

/// Many requests at once, and each is answered once with its own data.
#[test]
fn a_deep_queue_is_answered_with_each_requests_own_data() {
    let Some(tgt) = Tgt::start() else { return };
    let workers = workers();
    let session = tgt.session(&workers, 1);
    run(&workers, move || async move {
        let device = device(&session).await;
        let block = |n: u64| AlignedBuf::from_slice(&n.to_le_bytes().repeat(512));
        let writes: Vec<_> = (0..600).map(|n| device.write(ByteOffset(n * 4096), block(n))).collect();
        for write in writes {
            write.await.0.expect("writes");
        }
        let reads: Vec<_> = (0..600).map(|n| (n, device.read(ByteOffset(n * 4096), 4096))).collect();
        for (n, read) in reads {
            assert!(*read.await.expect("reads") == *block(n), "block {n}");
        }
        session.close().await;
    });
}

/// The target is killed under load: every request is answered, and what was acknowledged is there.
#[test]
fn a_killed_and_restarted_target_loses_no_request() {
    let Some(mut tgt) = Tgt::start() else { return };
    let workers = workers();
    let session = tgt.session(&workers, 1);
    let (sender, receiver) = std::sync::mpsc::channel();
    let task = {
        let session = session.clone();
        workers.spawn(0, move || async move {
            let device = device(&session).await;
            sender.send(()).expect("the test waits");
            for round in 0..200_u64 {
                let block = |n: u64| AlignedBuf::from_slice(&(round * 1000 + n).to_le_bytes().repeat(512));
                let writes: Vec<_> = (0..32).map(|n| device.write(ByteOffset(n * 4096), block(n))).collect();
                for write in writes {
                    write.await.0.expect("is sent again after the restart");
                }
                let reads: Vec<_> = (0..32).map(|n| (n, device.read(ByteOffset(n * 4096), 4096))).collect();
                for (n, read) in reads {
                    assert!(*read.await.expect("reads") == *block(n), "round {round}, block {n}");
                }
                if round % 20 == 0 {
                    sender.send(()).expect("the test waits");
                }
            }
            drop(device);
            session.close().await;
        })
    };
    for _ in 0..3 {
        receiver.recv().expect("the load runs");
    }
    tgt.kill_and_restart();
    for _ in 0..2 {
        receiver.recv().expect("the load goes on");
    }
    tgt.kill_and_restart();
    task.wait().expect("the load does not panic");
}

/// Two hosts with one name and ISID: each login ends the other's session. It is told, and not fought over for ever.
#[test]
fn a_session_that_another_takes_again_and_again_is_given_up_with_its_reason() {
    let Some(tgt) = Tgt::start() else { return };
    let workers = workers();
    // One after the other: of two logins at the same moment tgt lets both in.
    let one = tgt.session(&workers, 9);
    run(&workers, {
        let one = one.clone();
        move || async move { one.up().await.map(drop) }
    })
    .expect("logs in");
    let two = tgt.session(&workers, 9);
    let cause = run(&workers, move || async move {
        let ended = |s: Session| async move {
            let mut state = s.state();
            loop {
                if let iscsi_initiator::SessionState::Ended(cause) = &*state.borrow_and_update() {
                    return cause.clone();
                }
                if state.changed().await.is_err() {
                    return Cause::ClosedHere;
                }
            }
        };
        tokio::select! {
            cause = ended(one) => cause,
            cause = ended(two) => cause,
        }
    });
    assert_eq!(cause, Cause::Usurped);
}

#[test]
fn a_closed_session_answers_whatever_comes_after() {
    let Some(tgt) = Tgt::start() else { return };
    let workers = workers();
    let session = tgt.session(&workers, 1);
    run(&workers, move || async move {
        let device = device(&session).await;
        assert_eq!(session.close().await, Cause::ClosedHere);
        let failed = device.read(ByteOffset(0), 512).await.expect_err("closed");
        assert_eq!(failed.kind, block::error::IoErrorKind::NoPath);
        assert!(device.geometry().len.0 == DISK);
    });
}
