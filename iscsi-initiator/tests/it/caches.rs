//! What is on the medium when it is acknowledged, on the array in this process: FUA, flushes, write caches that come and go.

use block::device::DeviceExt;
use block::error::IoErrorKind;
use block::shared::{CawOutcome, CompareAndWrite, HELD_TYPE, Keeps, Reservations};
use iscsi_initiator::LunDevice;
use scsi::ReservationKey;

use crate::array::Array;
use crate::faults::{AT, block, both_ports, device, with_array};

/// Commands with FUA and SYNCHRONIZE CACHEs since the last look.
fn seen(array: &Array) -> (u32, u32) {
    let mut state = array.state.lock();
    (std::mem::take(&mut state.forced), std::mem::take(&mut state.synced))
}

async fn renew(device: &LunDevice, from: u8) {
    let caw = device.compare_and_write(AT, vec![from; 512], vec![from + 1; 512]).await;
    assert_eq!(caw, Ok(CawOutcome::Done));
}

/// A unit without DPOFUA may pass FUA over: what was acknowledged then was in its cache, a lease among it.
#[test]
fn fua_is_asked_only_of_a_unit_that_looks_at_it() {
    with_array(|array, workers| async move {
        for (n, write_cache, fua, expected) in
            [(1, true, true, (1, 0)), (2, true, false, (0, 1)), (3, false, true, (0, 0))]
        {
            {
                let mut state = array.state.lock();
                (state.write_cache, state.fua) = (write_cache, fua);
            }
            let device = device(&array, &workers, n).await;
            assert_eq!(device.identity().cache.write_back, write_cache);
            device.write_fua(AT, block(1)).await.0.expect("writes");
            assert_eq!(seen(&array), expected, "cache {write_cache}, FUA {fua}");
            renew(&device, 1).await;
            assert_eq!(seen(&array), expected, "cache {write_cache}, FUA {fua}, compare-and-write");
            device.write(AT, block(1)).await.0.expect("writes");
            device.flush().await.expect("flushes");
            assert_eq!(seen(&array), (0, u32::from(write_cache)), "a flush is for a cache");
            device.session().close().await;
        }
    });
}

/// The news comes over one nexus; a flush over another one, which has not heard it, must not be left out.
#[test]
fn a_cache_that_is_switched_on_is_reckoned_with_over_every_nexus() {
    with_array(|array, workers| async move {
        array.state.lock().write_cache = false;
        let lun = both_ports(&array, &workers).await;
        let (a, b) = (lun.paths()[0].device(), lun.paths()[1].device());
        b.flush().await.expect("there is no cache");
        assert_eq!(seen(&array), (0, 0));
        array.state.lock().write_cache = true;
        array.attention(0x2a, 1);
        a.write(AT, block(1)).await.0.expect("is sent again after the news");
        b.flush().await.expect("flushes");
        assert_eq!(seen(&array), (0, 1));
        a.write_fua(AT, block(1)).await.0.expect("writes");
        assert_eq!(seen(&array), (1, 0), "it was asked what there is now");
        lun.close().await;
    });
}

/// A lease is renewed each second, so that a renewal most likely takes the news of a reset. The next flush was believed then.
#[test]
fn a_reset_is_known_whichever_command_was_told_of_it() {
    with_array(|array, workers| async move {
        let device = device(&array, &workers, 1).await;
        device.write(AT, block(1)).await.0.expect("writes");
        array.attention(0x29, 0);
        renew(&device, 1).await;
        assert_eq!(device.flush().await.expect_err("may be lost").kind, IoErrorKind::CacheLost);
        device.write(AT, block(1)).await.0.expect("writes");
        array.attention(0x29, 1);
        device.register(ReservationKey(9), Keeps::ThroughPowerLoss).await.expect("registers");
        assert_eq!(device.flush().await.expect_err("may be lost").kind, IoErrorKind::CacheLost);
        device.write(AT, block(1)).await.0.expect("writes");
        array.attention(0x29, 1);
        device.reserve(ReservationKey(9), HELD_TYPE).await.expect("reserves");
        assert_eq!(device.flush().await.expect_err("may be lost").kind, IoErrorKind::CacheLost);
        device.session().close().await;
    });
}

#[test]
fn without_a_cache_a_reset_loses_nothing() {
    with_array(|array, workers| async move {
        array.state.lock().write_cache = false;
        let device = device(&array, &workers, 1).await;
        device.write(AT, block(1)).await.0.expect("writes");
        array.attention(0x29, 0);
        device.flush().await.expect("it was on the medium");
        device.read(AT, 512).await.expect("takes the news");
        device.flush().await.expect("it is known again that there is no cache");
        device.write(AT, block(2)).await.0.expect("writes");
        array.cut(0);
        crate::faults::until(|| device.session().nexus() == Some(2)).await;
        device.flush().await.expect("nor does a lost nexus");
        device.session().close().await;
    });
}

/// The command that brings a deferred error has nothing to do with the write that was lost. The next flush was believed then.
#[test]
fn a_write_that_was_lost_after_its_answer_fails_the_next_flush() {
    with_array(|array, workers| async move {
        let device = device(&array, &workers, 1).await;
        device.write(AT, block(1)).await.0.expect("writes");
        array.state.lock().deferred = true;
        device.read(AT, 512).await.expect_err("brings the news");
        assert_eq!(device.flush().await.expect_err("one write is lost").kind, IoErrorKind::CacheLost);
        device.write(AT, block(2)).await.0.expect("writes");
        device.flush().await.expect("that one is well");
        device.session().close().await;
    });
}
