//! What a shared disk must do, tried on tgt: persistent reservations of two hosts, names, and what tgt lacks.

use block::buf::AlignedBuf;
use block::device::DeviceExt;
use block::error::IoErrorKind;
use block::shared::{
    CompareAndWrite, ExcludeError, HELD_TYPE, Identify, Incarnation, Keeps, NexusKey, NexusNumber, NodeId,
    Reservations, ReserveError, VolumeTag, exclude,
};
use block::units::ByteOffset;
use iscsi::session::FenceGen;
use iscsi_initiator::unit::{Lack, attach, lacks};
use iscsi_initiator::{LunDevice, Ownership, Session};
use scsi::vpd::Sameness;
use scsi::{LunAddress, ReservationKey};

use crate::tgt::{Tgt, run, workers};

/// tgt cannot do more.
const KEEPS: Keeps = Keeps::UntilPowerLoss;
const VOLUME: [u8; 16] = [0x5f; 16];

fn key(node: u8, incarnation: u64, nexus: u16) -> NexusKey {
    let node = NodeId::new(node).expect("a node");
    NexusKey::new(VolumeTag::of(&VOLUME), node, Incarnation(incarnation), NexusNumber(nexus))
}

async fn device(session: &Session) -> LunDevice {
    let identity = attach(session, LunAddress::new(1).expect("in range")).await.expect("attaches");
    LunDevice::new(session.clone(), identity, FenceGen(0))
}

/// A nexus of another host each.
fn sessions(tgt: &Tgt, workers: &block::worker::Workers, n: u16) -> Vec<Session> {
    (1..=n)
        .map(|slot| {
            let mut config = tgt.config(slot, None, iscsi::keys::params::Offer::default());
            config.login.initiator = format!("iqn.2026-01.test:host{slot}");
            Session::start(&workers.handle(), 0, config, Ownership::Alone)
        })
        .collect()
}

fn block(byte: u8) -> AlignedBuf {
    AlignedBuf::from_slice(&[byte; 512])
}

#[test]
fn a_unit_that_claims_compare_and_write_and_has_none_is_found_out() {
    let Some(tgt) = Tgt::start().map(Tgt::without_pauses) else { return };
    let workers = workers();
    let session = tgt.session(&workers, 1);
    run(&workers, move || async move {
        let device = device(&session).await;
        assert!(device.identity().limits.claims_compare_and_write(1), "tgt claims it");
        let missing = lacks(&session, device.identity()).await.expect("is asked");
        assert_eq!(missing, [Lack::CompareAndWrite, Lack::PreemptAndAbort, Lack::PersistThroughPowerLoss]);
        let refused = device.compare_and_write(ByteOffset(0), vec![0; 512], vec![0; 512]).await;
        assert_eq!(refused.expect_err("has none").kind, IoErrorKind::NotSupported);
        session.close().await;
    });
}

#[test]
fn two_nexuses_of_one_unit_are_proved_to_lead_to_it_and_another_unit_is_not() {
    let Some(tgt) = Tgt::start().map(Tgt::without_pauses) else { return };
    let workers = workers();
    let sessions = sessions(&tgt, &workers, 2);
    run(&workers, move || async move {
        let (a, b) = (device(&sessions[0]).await, device(&sessions[1]).await);
        let (here, there) = (a.identify().await.expect("tells"), b.identify().await.expect("tells"));
        assert_eq!(here.same_disk(&there), Sameness::Same);
        assert_eq!(here, a.identity().names(sessions[0].target()), "what it was attached with");
        let controller = LunAddress::new(0).expect("in range");
        assert!(attach(&sessions[0], controller).await.is_err(), "no disk");
        for session in sessions {
            session.close().await;
        }
    });
}

/// tgt has no PREEMPT AND ABORT: it takes keys away, and what their nexuses have outstanding goes on. That fences nobody.
#[test]
fn a_preempted_node_writes_no_more_and_without_the_abort_it_is_not_called_excluded() {
    let Some(tgt) = Tgt::start().map(Tgt::without_pauses) else { return };
    let workers = workers();
    let sessions = sessions(&tgt, &workers, 3);
    run(&workers, move || async move {
        let (a, b, c) = (device(&sessions[0]).await, device(&sessions[1]).await, device(&sessions[2]).await);
        let (own, one, two) = (key(1, 7, 1), key(2, 9, 1), key(2, 9, 2));
        a.register(own.key(), KEEPS).await.expect("registers");
        b.register(one.key(), KEEPS).await.expect("registers");
        c.register(two.key(), KEEPS).await.expect("registers");
        let not_held = exclude(&a, own, (NodeId::new(3).expect("a node"), Incarnation(1))).await;
        assert_eq!(not_held.expect_err("strangers could write"), ExcludeError::NotHeld);
        b.reserve(one.key(), HELD_TYPE).await.expect("reserves");
        a.reserve(own.key(), HELD_TYPE).await.expect("all registrants hold it");
        assert_eq!(a.keys().await.expect("reads").keys.len(), 3);
        for device in [&a, &b, &c] {
            device.write_fua(ByteOffset(0), block(1)).await.0.expect("a registrant writes");
        }
        let other_life = exclude(&a, own, (one.node, Incarnation(8))).await.expect("nothing is registered");
        assert_eq!((other_life.incarnation(), a.keys().await.expect("reads").keys.len()), (Incarnation(8), 3));
        let refused = exclude(&a, own, (one.node, Incarnation(9))).await.expect_err("tgt refuses the abort");
        assert!(matches!(refused, ExcludeError::Reserve(ReserveError::Refused(_))), "{refused:?}");
        for key in [one, two] {
            a.preempt(own.key(), key.key(), HELD_TYPE, false).await.expect("takes the key away");
        }
        assert_eq!(a.keys().await.expect("reads").keys, [own.key()]);
        for device in [&b, &c] {
            let write = device.write(ByteOffset(0), block(2)).await.0.expect_err("fenced");
            assert_eq!(write.kind, IoErrorKind::Fenced);
        }
        assert_eq!(a.read(ByteOffset(0), 512).await.expect("reads")[..], [1; 512]);
        a.write(ByteOffset(0), block(3)).await.0.expect("goes on");
        for session in sessions {
            session.close().await;
        }
    });
}

/// The fenced node's session comes back after its nexus was given up, and is still no registrant: nothing registers it anew.
#[test]
fn a_fenced_nexus_is_given_up_and_never_registered_again() {
    let Some(tgt) = Tgt::start().map(Tgt::without_pauses) else { return };
    let workers = workers();
    let sessions = sessions(&tgt, &workers, 2);
    run(&workers, move || async move {
        let (a, b) = (device(&sessions[0]).await, device(&sessions[1]).await);
        let (own, victim) = (key(1, 1, 1), key(2, 1, 1));
        a.register(own.key(), KEEPS).await.expect("registers");
        b.register(victim.key(), KEEPS).await.expect("registers");
        a.reserve(own.key(), HELD_TYPE).await.expect("reserves");
        let before = sessions[1].nexus().expect("stands");
        a.preempt(own.key(), victim.key(), HELD_TYPE, false).await.expect("takes the key away");
        let fenced = b.read(ByteOffset(0), 512).await.expect_err("type 8 keeps readers out too");
        assert_eq!(fenced.kind, IoErrorKind::Fenced);
        let (nexus, _) = loop {
            let up = sessions[1].up().await.expect("logs in again");
            if up.0 > before {
                break up;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        assert!(nexus > before, "the nexus was given up");
        let fenced = b.write(ByteOffset(0), block(9)).await.0.expect_err("still fenced");
        assert_eq!(fenced.kind, IoErrorKind::Fenced);
        assert_eq!(a.keys().await.expect("reads").keys, [own.key()]);
        let late = b.preempt(victim.key(), own.key(), HELD_TYPE, false).await;
        assert_eq!(late, Err(ReserveError::NotRegistered));
        for session in sessions {
            session.close().await;
        }
    });
}

#[test]
fn changes_of_reservations_are_settled_by_what_is_registered_and_held() {
    let Some(tgt) = Tgt::start().map(Tgt::without_pauses) else { return };
    let workers = workers();
    let sessions = sessions(&tgt, &workers, 2);
    run(&workers, move || async move {
        let (a, b) = (device(&sessions[0]).await, device(&sessions[1]).await);
        let (own, other) = (ReservationKey(0x11), ReservationKey(0x22));
        a.register(own, KEEPS).await.expect("registers");
        b.register(other, KEEPS).await.expect("registers");
        assert_eq!(a.register(own, KEEPS).await, Err(ReserveError::Reserved), "once in its life");
        a.reserve(own, HELD_TYPE).await.expect("reserves");
        assert_eq!(a.reservation().await.expect("reads").reservation.map(|r| r.kind), Some(HELD_TYPE));
        // Nobody has that key: the target answers RESERVATION CONFLICT, and what was wanted is so.
        a.preempt(own, ReservationKey(0x33), HELD_TYPE, false).await.expect("nobody has that key");
        b.unregister(other).await.expect("unregisters");
        assert_eq!(a.keys().await.expect("reads").keys, [own]);
        let full = a.registrants().await;
        assert!(matches!(full, Err(ReserveError::Refused(_))), "tgt has no READ FULL STATUS: {full:?}");
        let stranger = b.write(ByteOffset(0), block(1)).await.0.expect_err("not registered");
        assert_eq!(stranger.kind, IoErrorKind::Fenced);
        for session in sessions {
            session.close().await;
        }
    });
}
