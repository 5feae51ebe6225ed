//! Planned moves, and ends that were not planned.

use std::sync::Arc;

use block::fault::FaultDevice;
use block::mem::MemDevice;
use block::units::{BlockSize, ByteLen};

use super::cluster::*;
use crate::coordinator::{CheckError, Suspension};
use crate::proto::*;
use crate::types::*;

#[tokio::test]
async fn a_planned_move_keeps_layouts_and_loses_nothing() {
    let mut volume = Volume::new().await;
    let (first, latch) = volume.first().await;
    let mut a = Client::bound(1, &first).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    let hint = CoordinatorHint { epoch: block::shared::Epoch(2), node: client_id(3).node };
    let drained = first.stop_for_move(Some(hint.clone())).await;
    assert_eq!(drained.epoch(), first.epoch());
    assert!(latch.is_tripped());
    assert_eq!(a.call_in(2, Request::Statfs).await, Answer::StaleEpoch { hint: Some(hint) });
    let epoch = volume.take_office(3, None);
    let (second, _latch) = volume.serve(epoch).await;
    a.moves_to(&second, vec![a.holds(&held, vec![])]).await;
    assert!(!second.status().grace);
    assert_eq!(second.status().layouts, 1);
    assert!(matches!(a.lookup("f").await, Answer::Ok(_)));
}

#[tokio::test]
async fn a_move_under_load_answers_every_call_once_and_keeps_what_was_acknowledged() {
    let mut volume = Volume::new().await;
    let (first, _latch) = volume.first().await;
    let mut a = Client::bound(1, &first).await;
    let calls = (0..48).map(|n: u8| {
        let slot = SlotRef { table: SlotTable::Ordinary, index: n };
        let call = a.compose(slot, 1, create(&format!("f{n}"), 0));
        let first = Arc::clone(&first);
        tokio::spawn(async move { first.call(call).await })
    });
    let calls: Vec<_> = calls.collect();
    tokio::task::yield_now().await;
    first.stop_for_move(None).await;
    let epoch = volume.take_office(3, None);
    let (second, _latch) = volume.serve(epoch).await;
    a.moves_to(&second, vec![]).await;
    for (n, call) in calls.into_iter().enumerate() {
        let name = format!("f{n}");
        let slot = SlotRef { table: SlotTable::Ordinary, index: n as u8 };
        match call.await.unwrap() {
            Answer::StaleEpoch { .. } => {
                let again = second.call(a.compose(slot, 1, create(&name, 0))).await;
                assert!(matches!(again, Answer::Ok(_)), "{name}: {again:?}");
            }
            answer => assert_eq!(second.call(a.compose(slot, 1, create(&name, 0))).await, answer),
        }
        assert!(matches!(
            a.call_in(60, Request::Lookup { parent: InodeNo::ROOT, name: name.into() }).await,
            Answer::Ok(_)
        ));
    }
}

#[tokio::test]
async fn a_store_whose_disk_fails_sends_its_clients_elsewhere() {
    let memory: Arc<dyn block::BlockDevice> = Arc::new(MemDevice::new(ByteLen(1 << 30), BlockSize::B4096));
    let fault = FaultDevice::new(memory);
    let mut volume = Volume::on(Arc::clone(&fault) as Arc<dyn block::BlockDevice>).await;
    let (first, latch) = volume.first().await;
    let mut a = Client::bound(1, &first).await;
    a.create("f").await;
    fault.fail();
    assert_eq!(a.call_in(1, create("g", 0)).await, Answer::StaleEpoch { hint: None });
    assert!(latch.is_tripped());
    first.stop(None).await;
    fault.heal();
    let epoch = volume.take_office(3, Some(crate::core::office::HowFenced::Dead));
    let (second, _latch) = volume.serve(epoch).await;
    a.moves_to(&second, vec![]).await;
    assert!(matches!(a.lookup("f").await, Answer::Ok(_)));
}

#[tokio::test]
async fn a_stop_waits_for_redirected_writes_that_are_on_their_way_to_the_disk() {
    let memory: Arc<dyn block::BlockDevice> = Arc::new(MemDevice::new(ByteLen(1 << 30), BlockSize::B4096));
    let fault = FaultDevice::new(memory);
    let mut volume = Volume::on(Arc::clone(&fault) as Arc<dyn block::BlockDevice>).await;
    let (first, _latch) = volume.first().await;
    let a = Client::bound(1, &first).await;
    let ino = a.create("f").await.ino;
    let held = a.layout(ino, BlockRange::ALL, Want::Exclusive).await;
    let space = a.granted(16).await;
    a.call(Request::PathLost { nothing_in_flight: true }).await;
    fault.hang();
    let request = Redirect {
        volume: VolumeId(0x5110),
        client: a.id,
        bind: a.bind,
        layout: held.id,
        op: RedirectOp::Write,
        at: space[0].start.0 * FS_BLOCK,
        len: 4096,
    };
    let data = block::AlignedBuf::zeroed(4096);
    let coordinator = Arc::clone(&first);
    let write = tokio::spawn(async move { coordinator.redirect(request, Some(data)).await });
    until(async || first.status().redirects_in_progress == 1).await;
    let coordinator = Arc::clone(&first);
    let stop = tokio::spawn(async move { coordinator.stop(None).await });
    until(async || !first.status().serving).await;
    assert!(!stop.is_finished(), "a write of this reign may still land");
    fault.heal();
    let (answer, _) = write.await.unwrap();
    assert!(matches!(answer, RedirectAnswer::Done { .. }), "{answer:?}");
    assert_eq!(stop.await.unwrap().epoch(), first.epoch());
}

#[tokio::test]
async fn while_metadata_is_suspended_changes_wait_and_look_ups_do_not() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    let a = Arc::new(Client::bound(1, &coordinator).await);
    a.create("f").await;
    coordinator.suspend(true);
    let waits = tokio::spawn({
        let a = Arc::clone(&a);
        async move { a.call_in(5, create("g", 0)).await }
    });
    assert!(matches!(a.lookup("f").await, Answer::Ok(_)));
    assert_eq!(a.lookup("g").await, Answer::Errno(rustix::io::Errno::NOENT.raw_os_error()));
    assert!(!waits.is_finished());
    coordinator.suspend(false);
    assert!(matches!(waits.await.unwrap(), Answer::Ok(_)));
}

/// The lease was not renewed in time while the store was being opened. That was told to a coordinator that was not there yet,
/// and to nobody else: once it was there it committed, and went on to.
#[tokio::test]
async fn what_was_suspended_while_the_store_was_opened_is_suspended_when_it_is_open() {
    let mut volume = Volume::new().await;
    let epoch = volume.take_office(4, None);
    let suspension = Arc::new(Suspension::new());
    suspension.set(true);
    let (coordinator, _latch) = volume.serve_suspended(epoch, Arc::clone(&suspension)).await;
    let mut client = Client::new(1, &coordinator);
    let commits = || coordinator.metrics().commits.get();
    // Its session is the first change.
    {
        let bind = client.bind(vec![]);
        tokio::pin!(bind);
        let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut bind).await;
        assert!(early.is_err(), "bound by a commit of a suspended coordinator");
        assert_eq!(commits(), 0);
        suspension.set(false);
        bind.await;
    }
    assert_eq!(commits(), 1);
    suspension.set(true);
    suspension.set(false);
    client.create("f").await;
}

#[tokio::test]
async fn an_empty_volume_is_served_without_grace() {
    let (coordinator, _latch) = Volume::new().await.first().await;
    assert!(coordinator.status().serving && !coordinator.status().grace);
}

/// A check that goes on after its reign would keep the store open, and with it the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_under_way_ends_with_its_reign_and_before_the_store_is_closed() {
    for in_order in [true, false] {
        let mut volume = Volume::new().await;
        let (first, _latch) = volume.first().await;
        assert!(first.check(|_| ()).await.unwrap().is_clean());
        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let checking = Arc::clone(&first);
        let check = tokio::spawn(async move {
            let heard = move |_| {
                let _ = begun.send(());
                // Until the reign is being ended.
                let _ = may_go_on.recv();
            };
            checking.check(heard).await
        });
        has_begun.recv().await.unwrap();
        let ending = Arc::clone(&first);
        let end =
            tokio::spawn(
                async move { if in_order { ending.stop_for_move(None).await } else { ending.stop(None).await } },
            );
        until(async || !first.status().serving).await;
        assert!(!end.is_finished(), "the check has the store open");
        until(async || first.inner.checks.is_closed()).await;
        drop(go_on);
        end.await.unwrap();
        assert!(matches!(check.await.unwrap(), Err(CheckError::Ended)), "in order: {in_order}");
        assert!(matches!(first.check(|_| ()).await, Err(CheckError::Ended)));
        let epoch = volume.take_office(3, None);
        let (second, _latch) = volume.serve(epoch).await;
        assert!(second.check(|_| ()).await.unwrap().is_clean());
    }
}
