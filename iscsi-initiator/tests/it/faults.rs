//! What units, ports and fabrics do to a node, on the array in this process.

use std::sync::Arc;
use std::time::Duration;

use block::buf::AlignedBuf;
use block::device::{BlockDevice, DeviceExt, Resize};
use block::error::IoErrorKind;
use block::multipath::{Config as Paths, PathState, Policy, Reason};
use block::shared::{
    CawOutcome, CompareAndWrite, HELD_TYPE, Incarnation, Keeps, NexusKey, NexusNumber, NodeId, Reservations, VolumeTag,
    exclude,
};
use block::units::{ByteLen, ByteOffset};
use block::worker::Workers;
use iscsi::discovery::Portal;
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::{Config, FenceGen};
use iscsi_initiator::lun::{Lun, Plan};
use iscsi_initiator::unit::{attach, lacks};
use iscsi_initiator::{LunDevice, Ownership, Session};
use scsi::LunAddress;
use scsi::alua::AccessState;

use crate::array::{Array, target};
use crate::tgt::{HOST, run, workers};

fn config(array: &Array, port: usize) -> Config {
    let kind = Kind::Normal { target: target().into() };
    let login = LoginConfig::new(HOST, Isid::from_number(5, 1), kind);
    Config::new(login, Portal { host: "127.0.0.1".into(), port: array.ports[port] })
}

pub(crate) async fn device(array: &Array, workers: &block::worker::Handle, isid: u16) -> LunDevice {
    let mut config = config(array, 0);
    config.login.isid = Isid::from_number(5, isid);
    let session = Session::start(workers, 0, config, Ownership::Alone);
    let identity = attach(&session, LunAddress::new(0).expect("in range")).await.expect("attaches");
    LunDevice::new(session, identity, FenceGen(0))
}

pub(crate) async fn both_ports(array: &Array, workers: &block::worker::Handle) -> Lun {
    let ms = Duration::from_millis;
    let paths = Paths {
        path_timeout: ms(200),
        check_failed: ms(20),
        check_min: ms(50),
        policy: Policy::Failover,
        ..Paths::default()
    };
    let plan = Plan {
        portals: vec![config(array, 0), config(array, 1)],
        lun: LunAddress::new(0).expect("in range"),
        per_portal: 1,
        first_slot: 1,
        host: 5,
        generation: FenceGen(0),
        paths,
    };
    let lun = Lun::open(workers, plan).await.expect("opens");
    until(|| lun.status().iter().all(|p| p.state == PathState::Up)).await;
    lun
}

pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    let waits = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), waits).await.expect("it comes to that");
}

pub(crate) fn block(byte: u8) -> AlignedBuf {
    AlignedBuf::from_slice(&[byte; 512])
}

/// Runs with an array and workers of its own.
pub(crate) fn with_array<F, Fut>(f: F)
where
    F: FnOnce(Arc<Array>, block::worker::Handle) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let workers: Workers = workers();
    let (array, handle) = (Arc::new(Array::start()), workers.handle());
    run(&workers, move || f(array, handle));
}

pub(crate) const AT: ByteOffset = ByteOffset(4096);

#[test]
fn a_unit_that_has_everything_lacks_nothing() {
    with_array(|array, workers| async move {
        let device = device(&array, &workers, 1).await;
        let lacks = lacks(device.session(), device.identity()).await.expect("is asked");
        assert_eq!(lacks, []);
        let caw = |expect: u8, new: u8| device.compare_and_write(AT, vec![expect; 512], vec![new; 512]);
        assert_eq!(caw(0, 1).await, Ok(CawOutcome::Done));
        assert!(matches!(caw(0, 2).await, Ok(CawOutcome::Miscompare { found }) if found == [1; 512]));
        array.attention(0x29, 0);
        assert_eq!(caw(1, 3).await, Ok(CawOutcome::Done), "a unit attention comes between");
        device.session().close().await;
    });
}

#[test]
fn a_change_of_size_is_told_and_the_new_blocks_are_used() {
    with_array(|array, workers| async move {
        let device = device(&array, &workers, 1).await;
        let mut resized = device.resized();
        assert_eq!(resized.borrow_and_update().len, ByteLen(1 << 20));
        {
            let mut state = array.state.lock();
            state.disk.resize(2 << 20, 0);
            state.blocks = 4096;
        }
        array.attention(0x2a, 9);
        device.read(AT, 512).await.expect("is asked again");
        resized.changed().await.expect("is told");
        assert_eq!(resized.borrow().len, ByteLen(2 << 20));
        let beyond = ByteOffset(3 << 19);
        device.write(beyond, block(4)).await.0.expect("lies within now");
        assert_eq!(device.read(beyond, 512).await.expect("reads")[..], [4; 512]);
        device.session().close().await;
    });
}

/// The check of one path takes the news; the device over all of them tells it, and every path uses the new blocks.
#[test]
fn a_change_of_size_is_told_over_all_paths_also_if_a_check_takes_the_news() {
    with_array(|array, workers| async move {
        let lun = both_ports(&array, &workers).await;
        let mut resized = lun.resized();
        resized.mark_unchanged();
        {
            let mut state = array.state.lock();
            state.disk.resize(2 << 20, 0);
            state.blocks = 4096;
        }
        // Two at once: the question that follows up the first takes the second.
        array.attention(0x29, 0);
        array.attention(0x2a, 9);
        resized.changed().await.expect("is told, though nobody reads or writes");
        assert_eq!(resized.borrow().len, ByteLen(2 << 20));
        let beyond = ByteOffset(3 << 19);
        lun.write(beyond, block(4)).await.0.expect("lies within now");
        array.state.lock().groups[0] = AccessState::Standby;
        assert_eq!(lun.read(beyond, 512).await.expect("over the other port too")[..], [4; 512]);
        lun.close().await;
    });
}

#[test]
fn a_unit_that_becomes_write_protected_says_so() {
    with_array(|array, workers| async move {
        let device = device(&array, &workers, 1).await;
        device.write(AT, block(1)).await.0.expect("writes");
        array.state.lock().write_protected = true;
        let refused = device.write(AT, block(2)).await.0.expect_err("is protected");
        assert_eq!(refused.kind, IoErrorKind::ReadOnly);
        array.attention(0x2a, 1);
        device.read(AT, 512).await.expect("reads");
        assert!(device.geometry().read_only, "learned with the unit attention");
        device.session().close().await;
    });
}

/// The number of the unit is given to another one: not a byte is written there.
#[test]
fn another_unit_at_the_same_address_gets_no_write() {
    with_array(|array, workers| async move {
        let device = device(&array, &workers, 1).await;
        array.state.lock().unit = 2;
        array.attention(0x3f, 0x0e);
        let refused = device.write(AT, block(7)).await.0.expect_err("is another one");
        assert_eq!(refused.kind, IoErrorKind::NoPath);
        assert_eq!(device.read(AT, 512).await.expect_err("for good").kind, IoErrorKind::NoPath);
        assert_eq!(device.notices().borrow().another_unit, 1);
        assert_eq!(array.state.lock().disk[4096], 0);
        device.session().close().await;
    });
}

/// The target forgets its registrations when it restarts: a write that finds that out is not sent again.
#[test]
fn after_a_reset_without_registrations_nothing_is_written() {
    with_array(|array, workers| async move {
        let device = device(&array, &workers, 1).await;
        device.register(scsi::ReservationKey(9), Keeps::ThroughPowerLoss).await.expect("registers");
        device.reserve(scsi::ReservationKey(9), HELD_TYPE).await.expect("reserves");
        device.write(AT, block(1)).await.0.expect("writes");
        {
            let mut state = array.state.lock();
            state.keys.clear();
            state.held = None;
        }
        array.attention(0x29, 1);
        let fenced = device.write(AT, block(2)).await.0.expect_err("is not registered any more");
        assert_eq!(fenced.kind, IoErrorKind::Fenced);
        assert_eq!(array.state.lock().disk[4096], 1);
        assert_eq!(device.notices().borrow().cache_lost, 1);
        device.session().close().await;
    });
}

/// A fault of the controller behind port A is not one of port B; the medium is behind both.
#[test]
fn a_hardware_error_is_tried_over_another_path_once_and_a_medium_error_is_not() {
    with_array(|array, workers| async move {
        let lun = both_ports(&array, &workers).await;
        array.state.lock().faults[0] = Some((4, 0x44, 0));
        lun.write(AT, block(1)).await.0.expect("goes over port B");
        assert_eq!(lun.read(AT, 512).await.expect("so does this")[..], [1; 512]);
        assert_eq!(lun.status()[0].state, PathState::Up, "it may do for other requests");
        array.state.lock().faults[1] = Some((4, 0x44, 0));
        array.state.lock().asked = [0; 2];
        assert_eq!(lun.read(AT, 512).await.expect_err("both have it").kind, IoErrorKind::Hardware);
        assert_eq!(array.state.lock().asked, [1, 1], "once over each");
        array.state.lock().faults = [Some((3, 0x11, 0)), None];
        array.state.lock().asked = [0; 2];
        assert_eq!(lun.read(AT, 512).await.expect_err("the medium's").kind, IoErrorKind::Medium);
        assert_eq!(array.state.lock().asked, [1, 0], "port B is not asked");
        lun.close().await;
        array.state.lock().faults = [Some((4, 0x44, 0)), None];
        let alone = device(&array, &workers, 3).await;
        assert_eq!(alone.read(AT, 512).await.expect_err("there is no other path").kind, IoErrorKind::Hardware);
        alone.session().close().await;
    });
}

/// The unit restarts with writes in its cache, and its flush succeeds afterwards: it must not be believed.
#[test]
fn a_flush_after_a_reset_is_not_believed_once_and_the_next_write_is_well() {
    with_array(|array, workers| async move {
        let device = device(&array, &workers, 1).await;
        device.flush().await.expect("nothing is to be lost yet");
        array.attention(0x29, 0);
        device.write(AT, block(1)).await.0.expect("is sent again after the news");
        device.flush().await.expect("it was written after the reset");
        device.write(AT, block(2)).await.0.expect("writes");
        array.attention(0x29, 0);
        let (one, two) = (device.flush(), device.flush());
        assert_eq!(one.await.expect_err("may be lost").kind, IoErrorKind::CacheLost);
        assert_eq!(two.await.expect_err("covers the same write").kind, IoErrorKind::CacheLost);
        device.write_fua(AT, block(3)).await.0.expect("writes");
        array.attention(0x29, 0);
        device.flush().await.expect("it was on the medium already");
        device.write(AT, block(4)).await.0.expect("writes");
        device.read(AT, 512).await.expect("reads");
        array.attention(0x29, 0);
        device.read(AT, 512).await.expect("the read takes the news");
        assert_eq!(device.flush().await.expect_err("may be lost").kind, IoErrorKind::CacheLost);
        device.session().close().await;
    });
}

/// A nexus that was lost proves nothing of the cache when it is back. One that stood all the time does.
#[test]
fn a_flush_over_a_new_nexus_is_believed_only_if_another_stood_all_the_time() {
    with_array(|array, workers| async move {
        let alone = device(&array, &workers, 1).await;
        alone.write(AT, block(1)).await.0.expect("writes");
        array.cut(0);
        until(|| alone.session().nexus() == Some(2)).await;
        assert_eq!(alone.flush().await.expect_err("nobody knows").kind, IoErrorKind::CacheLost);
        alone.flush().await.expect("is told once");
        alone.session().close().await;

        let lun = both_ports(&array, &workers).await;
        lun.write(AT, block(2)).await.0.expect("goes over port A");
        array.cut(0);
        until(|| lun.paths()[0].device().session().nexus() == Some(2)).await;
        until(|| lun.status().iter().all(|p| p.state == PathState::Up)).await;
        lun.flush().await.expect("port B has stood, and says that nothing happened");
        lun.write(AT, block(3)).await.0.expect("goes over port A");
        array.attention(0x29, 1);
        assert_eq!(lun.flush().await.expect_err("both were told").kind, IoErrorKind::CacheLost);
        lun.close().await;
    });
}

/// The whole fence: the victim's write is in the fabric, its keys are preempted with its tasks, the write is let go.
#[test]
fn a_write_that_waits_in_the_fabric_does_not_outlive_the_fence_of_its_node() {
    with_array(|array, workers| async move {
        let (coordinator, victim) = (device(&array, &workers, 1).await, device(&array, &workers, 2).await);
        let key = |node: u8| {
            let node = NodeId::new(node).expect("a node");
            NexusKey::new(VolumeTag::of(&[7; 16]), node, Incarnation(3), NexusNumber(1))
        };
        coordinator.register(key(1).key(), Keeps::ThroughPowerLoss).await.expect("registers");
        victim.register(key(2).key(), Keeps::ThroughPowerLoss).await.expect("registers");
        coordinator.reserve(key(1).key(), HELD_TYPE).await.expect("reserves");
        array.state.lock().holds[0] = true;
        let stuck = victim.write(AT, block(2));
        until(|| array.state.lock().fabric.len() == 1).await;
        let proof = exclude(&coordinator, key(1), (key(2).node, Incarnation(3))).await.expect("is excluded");
        assert_eq!(proof.node(), key(2).node);
        array.state.lock().holds[0] = false;
        coordinator.write(AT, block(1)).await.0.expect("goes on");
        array.release();
        assert_eq!(coordinator.read(AT, 512).await.expect("reads")[..], [1; 512]);
        drop(stuck);
        let fenced = victim.write(AT, block(3)).await.0.expect_err("is fenced");
        assert_eq!(fenced.kind, IoErrorKind::Fenced);
        victim.session().close().await;
        coordinator.session().close().await;
    });
}

/// A write is delayed on port A; it is sent again over B; newer data are written over B; A's copy is let go.
async fn the_stuck_write(lun: &Lun, array: &Array) {
    array.state.lock().holds[0] = true;
    lun.write(AT, block(1)).await.0.expect("is sent again over B");
    lun.write(AT, block(2)).await.0.expect("is newer");
    array.release();
    assert_eq!(lun.read(AT, 512).await.expect("reads")[..], [2; 512]);
}

/// The proof is the path's own: its session logs in again at its port.
#[test]
fn a_write_stuck_at_one_port_is_dead_before_it_goes_over_the_other() {
    with_array(|array, workers| async move {
        let lun = both_ports(&array, &workers).await;
        the_stuck_write(&lun, &array).await;
        array.state.lock().holds[0] = false;
        until(|| lun.status().iter().all(|p| p.state == PathState::Up)).await;
        lun.close().await;
    });
}

/// Nobody can log in at port A any more: its nexus is killed over B, and is a path again only with another key.
#[test]
fn a_nexus_that_cannot_log_in_is_killed_over_the_other_port() {
    with_array(|array, workers| async move {
        let lun = both_ports(&array, &workers).await;
        let who = (VolumeTag::of(&[3; 16]), NodeId::new(1).expect("a node"), Incarnation(5));
        lun.register(who, Keeps::ThroughPowerLoss).await.expect("registers");
        array.state.lock().closed[0] = true;
        the_stuck_write(&lun, &array).await;
        let own = lun.paths()[1].key().expect("registered");
        assert_eq!(lun.paths()[1].device().keys().await.expect("reads").keys, [own]);
        {
            let mut state = array.state.lock();
            (state.holds[0], state.closed[0]) = (false, false);
        }
        until(|| lun.status()[0].state == PathState::Failed(Reason::Fenced)).await;
        let next = NexusKey::new(who.0, who.1, who.2, NexusNumber(9)).key();
        lun.paths()[0].register(next, Keeps::ThroughPowerLoss).await.expect("with the next number");
        until(|| lun.status().iter().all(|p| p.state == PathState::Up)).await;
        lun.close().await;
    });
}

#[test]
fn requests_follow_the_port_groups_and_wait_while_both_change() {
    with_array(|array, workers| async move {
        let lun = both_ports(&array, &workers).await;
        lun.write(AT, block(1)).await.0.expect("writes");
        array.state.lock().groups = [AccessState::Standby, AccessState::ActiveNonOptimized];
        lun.write(AT, block(2)).await.0.expect("goes over the other group");
        until(|| lun.status()[0].access.state == AccessState::Standby).await;
        array.state.lock().groups = [AccessState::Transitioning; 2];
        let waits = lun.write(AT, block(3));
        until(|| lun.waiting().0 == 1).await;
        array.state.lock().groups = [AccessState::ActiveOptimized, AccessState::Standby];
        waits.await.0.expect("goes over the group that took over");
        assert_eq!(array.state.lock().disk[4096], 3);
        lun.close().await;
    });
}

/// LIO does not count the extended header of REPORT TARGET PORT GROUPS, so that its answer ends within the last group. No path
/// to it was ever used.
#[test]
fn port_groups_are_read_from_a_target_that_miscounts_them() {
    with_array(|array, workers| async move {
        array.state.lock().miscounts = true;
        let lun = both_ports(&array, &workers).await;
        array.state.lock().groups = [AccessState::Standby, AccessState::ActiveNonOptimized];
        lun.write(AT, block(2)).await.0.expect("goes over the other group");
        until(|| lun.status()[0].access.state == AccessState::Standby).await;
        lun.close().await;
    });
}
