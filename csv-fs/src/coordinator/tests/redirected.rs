//! Redirected I/O.

use std::sync::Arc;

use block::AlignedBuf;
use block::device::{BlockDevice, DeviceExt};
use block::error::IoErrorKind;
use block::fault::FaultDevice;
use block::mem::MemDevice;
use block::units::{BlockSize, ByteLen};

use super::cluster::*;
use crate::proto::*;
use crate::types::*;

fn io(a: &Client, layout: LayoutId, op: RedirectOp, block: DiskBlock) -> Redirect {
    Redirect { volume: VolumeId(0x5110), client: a.id, bind: a.bind, layout, op, at: block.0 * FS_BLOCK, len: 4096 }
}

fn ones() -> AlignedBuf {
    let mut data = AlignedBuf::zeroed(4096);
    data.fill(1);
    data
}

#[tokio::test]
async fn what_was_written_over_the_coordinator_is_read_over_it() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let a = Client::bound(1, &coordinator).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await.id;
    let at = a.granted(16).await[0].start;
    let (early, _) = coordinator.redirect(io(&a, held, RedirectOp::Write, at), Some(ones())).await;
    assert_eq!(early, RedirectAnswer::PathNotFenced);
    let fenced = a.call(Request::PathLost { nothing_in_flight: true }).await;
    assert_eq!(fenced, Reply::PathFenced { fence_gen: block::shared::FenceGen(GEN.0 + 1) });
    let verifier = Verifier { epoch: coordinator.epoch(), boot: 11, generation: 0 };
    let (answer, none) = coordinator.redirect(io(&a, held, RedirectOp::Write, at), Some(ones())).await;
    assert_eq!((answer, none.is_none()), (RedirectAnswer::Done { verifier }, true));
    let (answer, _) = coordinator.redirect(io(&a, LayoutId(0), RedirectOp::Flush, at), None).await;
    assert_eq!(answer, RedirectAnswer::Done { verifier });
    let (answer, data) = coordinator.redirect(io(&a, held, RedirectOp::Read, at), None).await;
    assert_eq!(answer, RedirectAnswer::Done { verifier });
    assert_eq!(data.as_deref(), Some(&[1; 4096][..]));
    assert_eq!(coordinator.status().redirects_in_progress, 0);
    assert_eq!(coordinator.metrics().redirected_written.get(), 4096);
}

#[tokio::test]
async fn redirected_io_of_an_older_bind_or_without_layout_is_refused() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let mut a = Client::bound(1, &coordinator).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    let at = a.granted(16).await[0].start;
    a.call(Request::PathLost { nothing_in_flight: true }).await;
    let old = io(&a, held.id, RedirectOp::Write, at);
    a.bind(vec![a.holds(&held, vec![])]).await;
    assert_eq!(coordinator.redirect(old, Some(ones())).await.0, RedirectAnswer::StaleBind);
    let without = io(&a, LayoutId(1), RedirectOp::Write, at);
    assert_eq!(coordinator.redirect(without, Some(ones())).await.0, RedirectAnswer::NoLayout);
    let now = io(&a, held.id, RedirectOp::Write, at);
    assert!(matches!(coordinator.redirect(now, Some(ones())).await.0, RedirectAnswer::Done { .. }));
}

#[tokio::test]
async fn a_request_whose_payload_does_not_fit_is_refused() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let a = Client::bound(1, &coordinator).await;
    let request = Redirect { len: 8192, ..io(&a, LayoutId(1), RedirectOp::Write, DiskBlock(50_000)) };
    let einval = RedirectAnswer::Errno(rustix::io::Errno::INVAL.raw_os_error());
    assert_eq!(coordinator.redirect(request, Some(ones())).await.0, einval);
    assert_eq!(coordinator.redirect(request, None).await.0, einval);
}

/// The verifier of a reign never changed: a client that had sent its writes through the coordinator was told that they were
/// stable after the disk had lost them.
#[tokio::test]
async fn a_loss_of_the_disks_cache_changes_the_verifier_of_every_later_answer_and_of_the_flush_that_is_told() {
    let memory = Arc::new(MemDevice::new(ByteLen(1 << 30), BlockSize::B512)) as Arc<dyn BlockDevice>;
    let fault = FaultDevice::new(memory);
    let mut volume = Volume::on(Arc::clone(&fault) as Arc<dyn BlockDevice>).await;
    let (coordinator, _latch) = volume.first().await;
    let mut a = Client::bound(1, &coordinator).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    let at = a.granted(16).await[0].start;
    a.call(Request::PathLost { nothing_in_flight: true }).await;
    let verifier = |generation| Verifier { epoch: coordinator.epoch(), boot: 11, generation };
    let (answer, _) = coordinator.redirect(io(&a, held.id, RedirectOp::Write, at), Some(ones())).await;
    assert_eq!(answer, RedirectAnswer::Done { verifier: verifier(0) });
    fault.lose_cache();
    let (answer, _) = coordinator.redirect(io(&a, LayoutId(0), RedirectOp::Flush, at), None).await;
    assert_eq!(answer, RedirectAnswer::Done { verifier: verifier(1) }, "it covers nothing of before");
    // Somebody else's flush is told.
    fault.lose_cache();
    assert_eq!(fault.flush().await.expect_err("told").kind, IoErrorKind::CacheLost);
    let (answer, _) = coordinator.redirect(io(&a, LayoutId(0), RedirectOp::Flush, at), None).await;
    assert_eq!(answer, RedirectAnswer::Done { verifier: verifier(2) });
    let bound = a.try_bind(vec![a.holds(&held, vec![])]).await;
    assert!(matches!(bound, BindAnswer::Bound { verifier: v, .. } if v == verifier(2)), "{bound:?}");
}
