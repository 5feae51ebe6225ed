//! Commands that are stuck in the device, and what an answered abort, reset or preemption proves about them. The device below
//! the target hangs, so that nothing there can know.

use std::sync::Arc;

use block::fault::FaultDevice;
use block::units::BlockSize;
use block::{BlockDevice, ByteLen, MemDevice};
use iscsi::pdu::Opcode;
use iscsi::pdu::raw::TaskResponse;
use iscsi_target::Lun;
use scsi::cdb::{CompareAndWrite, PersistentReserveIn, Read, Write};
use scsi::reservations::{Change, InAction, Keys, Registration, ReservationType};
use scsi::units::BlockRange;
use scsi::{BlockCount, BlockLen, Lba, ReservationKey, ShortByteCount, Status};

use crate::rig::Rig;
use crate::wire::Wire;

pub(crate) const B: BlockLen = BlockLen::B512;

pub(crate) fn write(lba: u64) -> scsi::Cdb {
    Write::new(BlockRange::new(Lba(lba), BlockCount(1))).cdb(B).expect("fits")
}

pub(crate) fn read(lba: u64) -> scsi::Cdb {
    Read::new(BlockRange::new(Lba(lba), BlockCount(1))).cdb(B).expect("fits")
}

struct Hurt {
    rig: Rig,
    device: Arc<FaultDevice>,
}

impl Hurt {
    fn new() -> Hurt {
        Hurt::with(|lun| lun)
    }

    fn with(lun: impl FnOnce(Lun) -> Lun) -> Hurt {
        let below: Arc<dyn BlockDevice> = Arc::new(MemDevice::new(ByteLen(1 << 20), BlockSize::B512));
        let device = FaultDevice::new(below);
        let lun = lun(Lun::new(0, Arc::clone(&device) as Arc<dyn BlockDevice>));
        Hurt { rig: Rig::with(|rig| rig.target(vec![lun])), device }
    }

    fn login(&self, host: &str) -> Wire {
        Wire::login(self.rig.server().addresses()[0], host).quiet()
    }

    /// A write that stays in the device.
    fn stuck(&self, wire: &mut Wire, lba: u64) -> u32 {
        let held = self.device.held();
        self.device.hang();
        let itt = wire.start(&write(lba), 0, &[0xee; 512]);
        crate::rig::until("the write is in the device", || self.device.held() > held);
        itt
    }
}

fn managed(wire: &mut Wire) -> u8 {
    let pdu = wire.receive();
    assert_eq!(pdu.bhs.kind(), Some(Opcode::TaskResponse), "{pdu:?}");
    TaskResponse::of(&pdu.bhs).response
}

#[test]
fn an_abort_is_answered_when_its_task_has_ended_and_not_before() {
    let hurt = Hurt::new();
    let mut wire = hurt.login("iqn.2026-01.test:a");
    let itt = hurt.stuck(&mut wire, 3);
    wire.manage(1, itt);
    assert!(wire.is_silent(), "the write is in the device and may land");
    hurt.device.heal();
    assert_eq!(managed(&mut wire), 0);
    // No response to the write follows; the next answer is to the next command.
    let after = wire.command(&read(3), 512, &[]);
    assert_eq!(after.status, Status::Good);
    wire.manage(1, itt);
    assert_eq!(managed(&mut wire), 1, "there is no such task any more");
}

#[test]
fn a_reset_of_the_unit_waits_for_the_commands_of_every_session_and_tells_them() {
    let hurt = Hurt::new();
    let (mut a, mut b) = (hurt.login("iqn.2026-01.test:a"), hurt.login("iqn.2026-01.test:b"));
    hurt.stuck(&mut a, 3);
    b.manage(5, u32::MAX);
    assert!(b.is_silent());
    hurt.device.heal();
    assert_eq!(managed(&mut b), 0);
    for wire in [&mut a, &mut b] {
        assert_eq!(wire.command(&read(0), 512, &[]).code(), Some((6, 0x29, 3)));
        assert_eq!(wire.command(&read(0), 512, &[]).status, Status::Good);
    }
}

#[test]
fn clear_task_set_tells_other_sessions_that_their_command_was_aborted() {
    let hurt = Hurt::new();
    let (mut a, mut b) = (hurt.login("iqn.2026-01.test:a"), hurt.login("iqn.2026-01.test:b"));
    let itt = hurt.stuck(&mut a, 3);
    b.manage(4, u32::MAX);
    assert!(b.is_silent() && a.is_silent());
    hurt.device.heal();
    assert_eq!(managed(&mut b), 0);
    assert_eq!(a.finish(itt, &[]).status, Status::TaskAborted);
}

/// The stuck write: without the wait it would land after the fencer had been told that nothing is left.
#[test]
fn preempt_and_abort_is_answered_when_nothing_of_the_victim_can_land_any_more() {
    let hurt = Hurt::new();
    let (mut a, mut b) = (hurt.login("iqn.2026-01.test:a"), hurt.login("iqn.2026-01.test:b"));
    for (wire, key) in [(&mut a, 1), (&mut b, 2)] {
        let to = Registration { key: ReservationKey(key), persist: false, all_ports: false, ports: Vec::new() };
        let (cdb, list) = Change::Register { from: ReservationKey::NONE, to }.command();
        wire.command(&cdb, 0, &list).good();
    }
    let kind = ReservationType::ExclusiveAccessAllRegistrants;
    let (cdb, list) = Change::Reserve { key: ReservationKey(2), kind }.command();
    b.command(&cdb, 0, &list).good();
    let itt = hurt.stuck(&mut a, 3);
    let preempt = |abort| Change::Preempt { key: ReservationKey(2), victim: ReservationKey(1), kind, abort }.command();
    let (cdb, list) = preempt(true);
    let fence = b.start(&cdb, 0, &list);
    assert!(b.is_silent(), "the victim's write may land");
    hurt.device.heal();
    assert_eq!(b.finish(fence, &list).status, Status::Good);
    assert_eq!(a.finish(itt, &[]).status, Status::TaskAborted);
    b.command(&write(3), 0, &[0x11; 512]).good();
    // Out: no read, no write, and no way back in with the old key.
    assert_eq!(a.command(&read(3), 512, &[]).status, Status::ReservationConflict);
    assert_eq!(a.command(&write(3), 0, &[0x22; 512]).status, Status::ReservationConflict);
    assert_eq!(a.command(&scsi::cdb::TestUnitReady.cdb(), 0, &[]).code(), Some((6, 0x2a, 5)));
    assert_eq!(b.command(&read(3), 512, &[]).good(), [0x11; 512]);
    let (cdb, list) = preempt(true);
    assert_eq!(b.command(&cdb, 0, &list).status, Status::ReservationConflict, "the key is gone");
}

const KIND: ReservationType = ReservationType::ExclusiveAccessAllRegistrants;

fn registers(wire: &mut Wire, key: u64) {
    let to = Registration { key: ReservationKey(key), persist: false, all_ports: false, ports: Vec::new() };
    let (cdb, list) = Change::Register { from: ReservationKey::NONE, to }.command();
    wire.command(&cdb, 0, &list).good();
}

/// Three sessions, registered with keys 1 to 3, a write of the first stuck in the device, and its PREEMPT AND ABORT by the second, which
/// waits for it.
fn preempting(hurt: &Hurt) -> ([Wire; 3], u32, Vec<u8>) {
    let mut all = ["a", "b", "c"].map(|host| hurt.login(&format!("iqn.2026-01.test:{host}")));
    all.iter_mut().zip(1..).for_each(|(wire, key)| registers(wire, key));
    let (cdb, list) = Change::Reserve { key: ReservationKey(2), kind: KIND }.command();
    all[1].command(&cdb, 0, &list).good();
    hurt.stuck(&mut all[0], 3);
    let preempt = Change::Preempt { key: ReservationKey(2), victim: ReservationKey(1), kind: KIND, abort: true };
    let (cdb, list) = preempt.command();
    let fence = all[1].start(&cdb, 0, &list);
    assert!(all[1].is_silent(), "the victim's write may land");
    (all, fence, list)
}

fn read_keys() -> scsi::Cdb {
    PersistentReserveIn { action: InAction::ReadKeys, alloc: ShortByteCount(512) }.cdb()
}

fn keys(told: &[u8]) -> Vec<u64> {
    Keys::parse(told).expect("keys").keys.iter().map(|key| key.0).collect()
}

/// The second fencer: it reads that the key is gone, and takes that for the proof, while the write is in the device.
#[test]
fn that_a_key_is_gone_is_told_to_nobody_before_the_commands_of_its_nexus_have_ended() {
    let hurt = Hurt::new();
    let ([_a, mut b, mut c], fence, list) = preempting(&hurt);
    let told = c.start(&read_keys(), 512, &[]);
    assert!(c.is_silent(), "READ KEYS waits");
    let again = Change::Preempt { key: ReservationKey(3), victim: ReservationKey(1), kind: KIND, abort: true };
    let (cdb, again) = again.command();
    let also = c.start(&cdb, 0, &again);
    assert!(c.is_silent(), "and so does another change");
    // What has nothing to do with reservations goes on.
    b.command(&scsi::cdb::TestUnitReady.cdb(), 0, &[]).good();
    hurt.device.heal();
    assert_eq!(b.finish(fence, &list).status, Status::Good);
    assert_eq!(keys(&c.finish(told, &[]).good()), [2, 3]);
    assert_eq!(c.finish(also, &again).status, Status::ReservationConflict);
}

/// A disk that answers nobody does not make everybody wait for ever: who waits can be aborted, and a session that ends has nothing left.
#[test]
fn who_waits_for_a_preemption_can_be_aborted_and_may_leave() {
    let hurt = Hurt::new();
    let ([_a, _b, mut c], ..) = preempting(&hurt);
    let told = c.start(&read_keys(), 512, &[]);
    assert!(c.is_silent());
    c.manage(1, told);
    assert_eq!(managed(&mut c), 0, "ABORT TASK");
    c.start(&read_keys(), 512, &[]);
    assert!(c.is_silent());
    drop(c);
    let mut c = hurt.login("iqn.2026-01.test:c");
    c.command(&scsi::cdb::TestUnitReady.cdb(), 0, &[]);
    hurt.device.heal();
    assert_eq!(keys(&c.command(&read_keys(), 512, &[]).good()), [2, 3]);
}

/// The fencer's session ends before it was answered. Its next login is answered when what it had begun is over, so that what the keys show
/// then is true.
#[test]
fn a_preemption_whose_session_has_ended_goes_on_and_the_next_login_waits_for_it() {
    let hurt = Hurt::new();
    let ([_a, b, mut c], ..) = preempting(&hurt);
    drop(b);
    let told = c.start(&read_keys(), 512, &[]);
    assert!(c.is_silent(), "it goes on");
    let device = Arc::clone(&hurt.device);
    let address = hurt.rig.server().addresses()[0];
    let again = std::thread::spawn(move || drop(Wire::login(address, "iqn.2026-01.test:b")));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!again.is_finished(), "the login waits");
    device.heal();
    again.join().expect("it is let in");
    assert_eq!(keys(&c.finish(told, &[]).good()), [2, 3]);
}

/// A reset of the unit ends whatever is being aborted already, and whoever aborts it.
#[test]
fn a_reset_of_the_unit_waits_for_what_a_preemption_is_ending() {
    let hurt = Hurt::with(|lun| lun.tells_early(true));
    let ([_a, b, mut c], ..) = preempting(&hurt);
    assert_eq!(keys(&c.command(&read_keys(), 512, &[]).good()), [2, 3], "as some other targets tell it");
    drop(b);
    c.manage(5, u32::MAX);
    assert!(c.is_silent(), "the write may land");
    hurt.device.heal();
    assert_eq!(managed(&mut c), 0);
}

/// Without ABORT the keys are gone and the held write is not: what keeps it out then is that it is looked at once more when it begins.
#[test]
fn a_write_that_is_held_up_before_it_begins_lands_when_it_is_let_go_unless_its_nexus_was_preempted_meanwhile() {
    let hurt = Hurt::new();
    let (mut a, mut b) = (hurt.login("iqn.2026-01.test:a"), hurt.login("iqn.2026-01.test:b"));
    let server = hurt.rig.server();
    server.hold_next_write("iqn.2026-01.test:a");
    b.command(&write(3), 0, &[0x10; 512]).good();
    let held = a.start(&write(3), 0, &[0x22; 512]);
    assert!(a.is_silent() && hurt.device.held() == 0, "it has not begun");
    a.command(&write(4), 0, &[0x23; 512]).good();
    server.let_go();
    assert_eq!(a.finish(held, &[]).status, Status::Good);
    assert_eq!(b.command(&read(3), 512, &[]).good(), [0x22; 512]);
    for (wire, key) in [(&mut a, 1), (&mut b, 2)] {
        let to = Registration { key: ReservationKey(key), persist: false, all_ports: false, ports: Vec::new() };
        let (cdb, list) = Change::Register { from: ReservationKey::NONE, to }.command();
        wire.command(&cdb, 0, &list).good();
    }
    let kind = ReservationType::ExclusiveAccessAllRegistrants;
    let (cdb, list) = Change::Reserve { key: ReservationKey(2), kind }.command();
    b.command(&cdb, 0, &list).good();
    for (abort, ends_with) in [(false, Status::ReservationConflict), (true, Status::TaskAborted)] {
        server.hold_next_write("iqn.2026-01.test:a");
        let held = a.start(&write(3), 0, &[0xee; 512]);
        assert!(a.is_silent());
        let (cdb, list) = Change::Preempt { key: ReservationKey(2), victim: ReservationKey(1), kind, abort }.command();
        b.command(&cdb, 0, &list).good();
        b.command(&write(3), 0, &[0x11; 512]).good();
        server.let_go();
        assert_eq!(a.finish(held, &[]).status, ends_with, "abort: {abort}");
        assert_eq!(b.command(&read(3), 512, &[]).good(), [0x11; 512]);
        // Its unit attention, and in again for the next round.
        a.command(&scsi::cdb::TestUnitReady.cdb(), 0, &[]);
        let to = Registration { key: ReservationKey(1), persist: false, all_ports: false, ports: Vec::new() };
        let (cdb, list) = Change::Register { from: ReservationKey::NONE, to }.command();
        a.command(&cdb, 0, &list).good();
    }
}

/// For tests of what an initiator does before it has seen anything.
#[test]
fn looks_of_one_initiator_are_held_up_until_they_are_let_go_and_its_writes_are_not() {
    let hurt = Hurt::new();
    let (mut a, mut b) = (hurt.login("iqn.2026-01.test:a"), hurt.login("iqn.2026-01.test:b"));
    let server = hurt.rig.server();
    server.hold_looks("iqn.2026-01.test:a");
    a.command(&write(3), 0, &[0x22; 512]).good();
    let looks = a.start(&read(3), 512, &[]);
    let swap = CompareAndWrite::new(Lba(3), 1).cdb(B).expect("fits");
    let swaps = a.start(&swap, 0, &[[0x22; 512], [0x33; 512]].concat());
    assert!(a.is_silent(), "both wait");
    assert_eq!(b.command(&read(3), 512, &[]).good(), [0x22; 512], "others do not");
    server.let_go();
    assert_eq!(a.finish(looks, &[]).good(), [0x22; 512]);
    a.finish(swaps, &[]).good();
    assert_eq!(a.command(&read(3), 512, &[]).good(), [0x33; 512]);
}

/// A write that waits behind another command is not executed once its nexus was preempted.
#[test]
fn a_command_that_waits_is_held_to_the_reservation_of_when_it_runs() {
    let hurt = Hurt::new();
    let (mut a, mut b) = (hurt.login("iqn.2026-01.test:a"), hurt.login("iqn.2026-01.test:b"));
    hurt.device.hang();
    let swap = CompareAndWrite::new(Lba(3), 1).cdb(B).expect("fits");
    let first = b.start(&swap, 0, &[0; 1024]);
    crate::rig::until("it is in the device", || hurt.device.held() > 0);
    let late = a.start(&write(3), 0, &[0xee; 512]);
    assert!(a.is_silent(), "it waits for the compare-and-write");
    let to = Registration { key: ReservationKey(2), ..Registration::default() };
    let (cdb, list) = Change::Register { from: ReservationKey::NONE, to }.command();
    let register = b.start(&cdb, 0, &list);
    assert_eq!(b.finish(register, &list).status, Status::Good);
    let (cdb, list) = Change::Reserve { key: ReservationKey(2), kind: ReservationType::WriteExclusive }.command();
    let reserve = b.start(&cdb, 0, &list);
    assert_eq!(b.finish(reserve, &list).status, Status::Good);
    hurt.device.heal();
    assert_eq!(b.finish(first, &[]).status, Status::Good);
    assert_eq!(a.finish(late, &[]).status, Status::ReservationConflict);
    assert_eq!(b.command(&read(3), 512, &[]).good(), [0; 512]);
}

/// Reinstatement: the initiator takes it for the proof that nothing of its older session can land.
#[test]
fn a_new_login_of_a_nexus_is_answered_when_nothing_of_its_older_session_is_left() {
    let hurt = Hurt::new();
    let mut a = hurt.login("iqn.2026-01.test:a");
    hurt.stuck(&mut a, 3);
    let at = hurt.rig.server().addresses()[0];
    let again = std::thread::spawn(move || Wire::login(at, "iqn.2026-01.test:a"));
    crate::rig::until("the older session has ended", || a.is_silent() || a.try_receive().is_none());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!again.is_finished(), "its write is in the device and may land");
    hurt.device.heal();
    let mut again = again.join().expect("it logs in");
    assert_eq!(again.command(&read(3), 512, &[]).code(), Some((6, 0x29, 7)), "nexus loss");
    assert_eq!(again.command(&read(3), 512, &[]).status, Status::Good);
    assert_eq!(hurt.rig.server().sessions().len(), 1);
}

/// An initiator gives up after some seconds and tries again: the tries must not pile up.
#[test]
fn a_login_that_is_given_up_while_it_waits_is_forgotten() {
    let hurt = Hurt::new();
    let mut a = hurt.login("iqn.2026-01.test:a");
    hurt.stuck(&mut a, 3);
    let at = hurt.rig.server().addresses()[0];
    for _ in 0..3 {
        let mut config = crate::wire::config("iqn.2026-01.test:a", 1);
        config.skip_security = true;
        let (_, request) = iscsi::login::Login::begin(
            config,
            iscsi::ids::Itt(1),
            iscsi::ids::CmdSn(1),
            iscsi::chap::Entropy { identifier: 1, challenge: [1; 16] },
        );
        let mut again = Wire::connect(at);
        again.send(&request.bhs.bhs(), &request.text);
        assert!(again.is_silent(), "the older session has a write in the device");
        again.hang_up();
        crate::rig::until("the target has forgotten it", || again.is_closed());
    }
    assert!(hurt.device.held() > 0, "while the write is still there");
    hurt.device.heal();
    crate::rig::until("nobody is left", || hurt.rig.server().sessions().is_empty());
    let mut last = hurt.login("iqn.2026-01.test:a");
    assert_eq!(last.command(&read(3), 512, &[]).status, Status::Good);
}

#[test]
fn a_logout_is_answered_when_its_commands_have_ended() {
    let hurt = Hurt::new();
    let mut a = hurt.login("iqn.2026-01.test:a");
    hurt.stuck(&mut a, 3);
    a.logout();
    assert!(a.is_silent());
    hurt.device.heal();
    assert_eq!(a.receive().bhs.kind(), Some(Opcode::LogoutResponse));
    assert!(a.try_receive().is_none(), "and then it closes");
}

#[test]
fn a_target_that_is_stopped_asks_for_a_logout_first() {
    let mut hurt = Hurt::new();
    let mut a = hurt.login("iqn.2026-01.test:a");
    let at = hurt.rig.server().addresses()[0];
    let initiator = std::thread::spawn(move || {
        let message = a.receive();
        assert_eq!(message.bhs.kind(), Some(Opcode::Async), "{message:?}");
        assert_eq!(iscsi::pdu::raw::Async::of(&message.bhs).event, 1);
        a.command(&write(3), 0, &[1; 512]).good();
        a.logout();
        assert_eq!(a.receive().bhs.kind(), Some(Opcode::LogoutResponse));
        assert!(a.try_receive().is_none());
    });
    hurt.rig.stop();
    initiator.join().expect("it could finish what it had to do");
    assert!(std::net::TcpStream::connect(at).is_err(), "nobody listens any more");
}

#[test]
fn a_target_that_is_stopped_waits_for_what_the_device_has() {
    let mut hurt = Hurt::new();
    let mut a = hurt.login("iqn.2026-01.test:a");
    hurt.stuck(&mut a, 3);
    let device = Arc::clone(&hurt.device);
    let healer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        device.heal();
    });
    hurt.rig.stop();
    assert!(healer.is_finished(), "it has stopped before the device had completed the write");
    healer.join().expect("it does not panic");
}
