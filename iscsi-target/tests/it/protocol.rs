//! What the target answers, PDU by PDU: windows, data in both directions, texts, logins.

use std::sync::Arc;

use block::units::BlockSize;
use block::{BlockDevice, ByteLen, MemDevice};
use iscsi::chap::{Account, Chap, Secret};
use iscsi::keys::params::{DigestWish, Offer};
use iscsi::login::LoginError;
use iscsi::pdu::raw::{NopOut, Reject, ScsiCommand};
use iscsi::pdu::{Bhs, FINAL, IMMEDIATE, Opcode};
use iscsi_target::{Admission, Lun, Portal, Target};
use scsi::alua::{AccessState, PortGroup, PortGroups, SetStates};
use scsi::cdb::{Read, ReportTargetPortGroups, TestUnitReady, Write};
use scsi::reservations::{Change, Keys, Registration, ReservationType};
use scsi::units::{BlockRange, ByteCount};
use scsi::{BlockCount, Lba, ReservationKey, Status};

use crate::aborts::{B, read, write};
use crate::rig::Rig;
use crate::wire::{Wire, config};

fn memory() -> Lun {
    let device = Arc::new(MemDevice::new(ByteLen(16 << 20), BlockSize::B512));
    Lun::new(0, Arc::clone(&device) as Arc<dyn BlockDevice>).thin(device)
}

fn rig() -> Rig {
    Rig::with(|rig| rig.target(vec![memory()]))
}

fn login(rig: &Rig, host: &str) -> Wire {
    Wire::login(rig.server().addresses()[0], host).quiet()
}

#[test]
fn data_of_every_length_travels_in_both_directions_with_and_without_immediate_data() {
    let rig = rig();
    for (immediate, initial_r2t, slot) in [(true, false, 1), (true, true, 2), (false, true, 3)] {
        let mut config = config("iqn.2026-01.test:a", slot);
        config.offer = Offer { immediate_data: immediate, initial_r2t, max_recv_segment: 8192, ..Offer::default() };
        let mut wire = Wire::login_with(rig.server().addresses()[0], config).expect("it is let in").quiet();
        if !immediate {
            // The small initiator of this test always sends immediate data; they are refused where they were not agreed.
            let refused = wire.command(&write(0), 0, &[1; 512]);
            assert_eq!(refused.code(), Some((0x0b, 0x0c, 0x0c)));
            continue;
        }
        for blocks in [1_u32, 7, 128, 129, 2048, 4097] {
            let data: Vec<u8> = (0..blocks * 512).map(|n| (n % 251) as u8 ^ slot as u8).collect();
            let range = BlockRange::new(Lba(5), BlockCount(u64::from(blocks)));
            let put = wire.command(&Write::new(range).cdb(B).expect("fits"), 0, &data);
            assert_eq!((put.status, put.residual), (Status::Good, 0), "{blocks} blocks");
            let got = wire.command(&Read::new(range).cdb(B).expect("fits"), blocks * 512, &[]);
            assert_eq!(got.residual, 0);
            assert!(got.good() == data, "{blocks} blocks");
        }
    }
}

#[test]
fn commands_outside_of_the_window_and_repeated_ones_are_passed_over() {
    let rig = rig();
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    let now = wire.cmd_sn;
    for sn in [now.wrapping_sub(1), now.wrapping_add(128), now.wrapping_add(1 << 31)] {
        wire.cmd_sn = sn;
        wire.start(&TestUnitReady.cdb(), 0, &[]);
    }
    assert!(wire.is_silent());
    wire.cmd_sn = now;
    wire.command(&TestUnitReady.cdb(), 0, &[]).good();
    // A gap is lost commands: at recovery level 0 the connection's end.
    wire.cmd_sn = wire.cmd_sn.wrapping_add(2);
    wire.start(&TestUnitReady.cdb(), 0, &[]);
    assert!(wire.try_receive().is_none());
}

#[test]
fn pings_are_echoed_and_what_is_no_request_is_rejected() {
    let rig = rig();
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    let ping = NopOut { itt: 9.into(), ttt: u32::MAX.into(), cmd_sn: wire.cmd_sn.into(), ..NopOut::default() };
    wire.send(&ping.with_data(5).bhs(), b"hello");
    let answer = wire.receive();
    assert_eq!((answer.bhs.kind(), &answer.data[..]), (Some(Opcode::NopIn), &b"hello"[..]));
    for (opcode, reason) in [(0x10, 0x03), (0x03 | IMMEDIATE, 0x04), (0x1c | IMMEDIATE, 0x05), (0x0a | IMMEDIATE, 0x05)]
    {
        let mut bytes = [0; 48];
        (bytes[0], bytes[1], bytes[19]) = (opcode, FINAL, 7);
        let odd = Bhs::from_bytes(bytes);
        wire.send(&odd, &[]);
        let answer = wire.receive();
        assert_eq!(answer.bhs.kind(), Some(Opcode::Reject), "{opcode:#x}");
        assert_eq!((Reject::of(&answer.bhs).reason, &answer.data[..]), (reason, &bytes[..]), "{opcode:#x}");
    }
    wire.command(&TestUnitReady.cdb(), 0, &[]).good();
}

#[test]
fn a_tag_that_is_in_use_is_rejected() {
    let rig = rig();
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    // A write of which no data have come yet.
    let long = Write::new(BlockRange::new(Lba(0), BlockCount(1024))).cdb(B).expect("fits");
    let c = ScsiCommand {
        flags: FINAL | ScsiCommand::WRITE,
        itt: 0x55.into(),
        expected_len: (512 * 1024).into(),
        cmd_sn: wire.cmd_sn.into(),
        cdb: *long.head(),
        ..ScsiCommand::default()
    };
    wire.cmd_sn += 1;
    wire.send(&c.bhs(), &[]);
    assert_eq!(wire.receive().bhs.kind(), Some(Opcode::R2t));
    let again = wire.immediate(c);
    wire.send(&again, &[]);
    let answer = wire.receive();
    assert_eq!((answer.bhs.kind(), Reject::of(&answer.bhs).reason), (Some(Opcode::Reject), 7));
}

#[test]
fn what_does_not_exist_is_refused_with_the_right_sense() {
    let rig = rig();
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    let raw = |bytes: &[u8]| scsi::Cdb::from_bytes(bytes, scsi::Transfer::None).expect("a block");
    // Unknown, vendor's, variable-length.
    for code in [0x02, 0xc1, 0x7f, 0x9c] {
        let mut bytes = vec![0; if code >= 0x80 { 16 } else { 6 }];
        bytes[0] = code;
        let cdb = if code == 0x7f { raw(&[vec![0x7f], vec![0; 31]].concat()) } else { raw(&bytes) };
        assert_eq!(wire.command(&cdb, 0, &[]).code(), Some((5, 0x20, 0)), "{code:#x}");
    }
    // Beyond the end, at the very end of addresses, protection information, NACA.
    let far = |lba| Read::new(BlockRange::new(Lba(lba), BlockCount(1))).cdb(B).expect("fits");
    assert_eq!(wire.command(&far(32768), 512, &[]).code(), Some((5, 0x21, 0)));
    assert_eq!(wire.command(&far(u64::MAX), 512, &[]).code(), Some((5, 0x21, 0)));
    let mut protect = [0; 16];
    (protect[0], protect[1], protect[13]) = (0x88, 0x20, 1);
    assert_eq!(wire.command(&raw(&protect), 512, &[]).code(), Some((5, 0x24, 0)));
    assert_eq!(wire.command(&raw(&[0, 0, 0, 0, 0, 4]), 0, &[]).code(), Some((5, 0x24, 0)));
    let itt = wire.start_on(9, &TestUnitReady.cdb(), 0, &[]);
    assert_eq!(wire.finish(itt, &[]).code(), Some((5, 0x25, 0)));
    wire.command(&TestUnitReady.cdb(), 0, &[]).good();
}

/// What was acknowledged is lost with the power unless it was made stable: by FUA, by SYNCHRONIZE CACHE, or by a cache that is
/// switched off.
#[test]
fn an_answered_write_is_stable_with_fua_after_synchronize_cache_and_with_the_cache_off() {
    let device = Arc::new(MemDevice::with_volatile_cache(ByteLen(1 << 20), BlockSize::B512));
    let lun = Lun::new(0, Arc::clone(&device) as Arc<dyn BlockDevice>);
    let rig = Rig::with(|rig| rig.target(vec![lun]));
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    let swap = scsi::cdb::CompareAndWrite::new(Lba(3), 1).cdb(B).expect("fits");
    let fua = |lba| {
        let range = BlockRange::new(Lba(lba), BlockCount(1));
        Write { caching: scsi::cdb::Caching::FUA, ..Write::new(range) }.cdb(B).expect("fits")
    };
    let mut lost_and_kept = |make: &mut dyn FnMut(&mut Wire)| {
        make(&mut wire);
        device.crash();
        [1, 2, 3].map(|lba| wire.command(&read(lba), 512, &[]).good()[0])
    };
    assert_eq!(lost_and_kept(&mut |w| drop(w.command(&write(1), 0, &[1; 512]).good())), [0, 0, 0]);
    assert_eq!(lost_and_kept(&mut |w| drop(w.command(&fua(2), 0, &[2; 512]).good())), [0, 2, 0]);
    let data = [[0; 512], [3; 512]].concat();
    assert_eq!(lost_and_kept(&mut |w| drop(w.command(&swap, 0, &data).good())), [0, 2, 3]);
    let sync = scsi::cdb::SynchronizeCache::new(BlockRange::new(Lba(0), BlockCount(0))).cdb().expect("fits");
    let flushed = lost_and_kept(&mut |w| {
        w.command(&write(1), 0, &[4; 512]).good();
        w.command(&sync, 0, &[]).good();
    });
    assert_eq!(flushed, [4, 2, 3]);
    let off = scsi::mode::ModeData {
        pages: vec![scsi::mode::Page::Caching(scsi::mode::Caching { write_cache: false, read_cache_disabled: false })],
        ..Default::default()
    };
    let list = off.to_bytes(scsi::cdb::Form::Ten, true);
    let select = scsi::cdb::ModeSelect {
        form: scsi::cdb::Form::Ten,
        page_format: true,
        save: false,
        list: ByteCount::of(&list).expect("short"),
    };
    let off = lost_and_kept(&mut |w| {
        w.command(&select.cdb().expect("fits"), 0, &list).good();
        w.command(&write(1), 0, &[5; 512]).good();
    });
    assert_eq!(off, [5, 2, 3]);
}

#[test]
fn where_data_lie_is_told_up_to_the_end() {
    let rig = rig();
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    wire.command(&write(100), 0, &[1; 512]).good();
    let ask = |from| scsi::cdb::GetLbaStatus { from: Lba(from), alloc: ByteCount(256) }.cdb();
    let told = scsi::lba_status::LbaStatus::parse(&wire.command(&ask(0), 256, &[]).good()).expect("runs");
    let runs: Vec<(u64, u64, bool)> = told
        .extents
        .iter()
        .map(|(r, state)| (r.lba.0, r.blocks.0, *state == scsi::lba_status::BlockState::Mapped))
        .collect();
    assert_eq!(runs, [(0, 100, false), (100, 1, true), (101, 32667, false)]);
    assert_eq!(wire.command(&ask(32768), 256, &[]).code(), Some((5, 0x21, 0)));
}

#[test]
fn port_groups_are_set_from_inside_and_from_outside_and_everybody_else_is_told() {
    let at = |group| Portal { address: "127.0.0.1:0".parse().expect("an address"), group };
    let rig = Rig::with(|rig| Target { portals: vec![at(1), at(2)], ..rig.target(vec![memory()]) });
    let at = rig.server().addresses();
    let mut one = Wire::login(at[0], "iqn.2026-01.test:a").quiet();
    let mut two = Wire::login(at[1], "iqn.2026-01.test:a").quiet();
    assert!(rig.server().set_group(2, AccessState::Standby) && !rig.server().set_group(3, AccessState::Standby));
    for wire in [&mut one, &mut two] {
        assert_eq!(wire.command(&TestUnitReady.cdb(), 0, &[]).code(), Some((6, 0x2a, 6)));
    }
    one.command(&TestUnitReady.cdb(), 0, &[]).good();
    assert_eq!(two.command(&read(0), 512, &[]).code(), Some((2, 4, 0x0b)));
    let report = ReportTargetPortGroups { extended: false, alloc: ByteCount(255) };
    let groups = PortGroups::parse(&two.command(&report.cdb(), 255, &[]).good()).expect("a report");
    assert_eq!(groups.group(PortGroup(2)).map(|g| g.state), Some(AccessState::Standby));
    let (cdb, list) = SetStates { groups: vec![(PortGroup(2), AccessState::ActiveNonOptimized)] }.command();
    two.command(&cdb, 0, &list).good();
    assert_eq!(one.command(&TestUnitReady.cdb(), 0, &[]).code(), Some((6, 0x2a, 6)));
    two.command(&read(0), 512, &[]).good();
    let (cdb, list) = SetStates { groups: vec![(PortGroup(9), AccessState::Standby)] }.command();
    assert_eq!(two.command(&cdb, 0, &list).code(), Some((5, 0x26, 0)));
}

fn register(key: u64, persist: bool) -> (scsi::Cdb, Vec<u8>) {
    let to = Registration { key: ReservationKey(key), persist, all_ports: false, ports: Vec::new() };
    Change::Register { from: ReservationKey::NONE, to }.command()
}

fn keys(wire: &mut Wire) -> Vec<u64> {
    let cdb = scsi::cdb::PersistentReserveIn {
        action: scsi::reservations::InAction::ReadKeys,
        alloc: scsi::ShortByteCount(1024),
    };
    let answer = wire.command(&cdb.cdb(), 1024, &[]).good();
    Keys::parse(&answer).expect("keys").keys.iter().map(|k| k.0).collect()
}

#[test]
fn reservations_that_are_to_survive_are_there_after_a_restart_and_others_are_not() {
    let mut rig = Rig::file(16 << 20);
    let kind = ReservationType::ExclusiveAccessAllRegistrants;
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    let (cdb, list) = register(7, true);
    wire.command(&cdb, 0, &list).good();
    let (cdb, list) = Change::Reserve { key: ReservationKey(7), kind }.command();
    wire.command(&cdb, 0, &list).good();
    rig.restart();
    let mut stranger = login(&rig, "iqn.2026-01.test:b");
    assert_eq!(keys(&mut stranger), [7]);
    assert_eq!(stranger.command(&write(0), 0, &[1; 512]).status, Status::ReservationConflict);
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    wire.command(&write(0), 0, &[1; 512]).good();
    // Registered anew without APTPL: from now on nothing survives.
    let to = Registration { key: ReservationKey(7), ..Registration::default() };
    let (cdb, list) = Change::RegisterAndIgnore { to }.command();
    wire.command(&cdb, 0, &list).good();
    rig.restart();
    let mut stranger = login(&rig, "iqn.2026-01.test:b");
    assert_eq!(keys(&mut stranger), Vec::<u64>::new());
    stranger.command(&write(0), 0, &[1; 512]).good();
}

#[test]
fn a_target_without_a_place_for_reservations_refuses_those_that_are_to_survive() {
    let rig = Rig::with(|rig| Target { state: None, ..rig.target(vec![memory()]) });
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    let (cdb, list) = register(7, true);
    assert_eq!(wire.command(&cdb, 0, &list).code(), Some((5, 0x26, 0)));
    let (cdb, list) = register(7, false);
    wire.command(&cdb, 0, &list).good();
}

#[test]
fn initiators_are_let_in_by_name_and_by_proof() {
    let account = |name: &str, secret: &str| Account { name: name.into(), secret: Secret::new(secret).expect("long") };
    let admission = Admission {
        initiators: Some(vec!["iqn.2026-01.test:a".into()]),
        accounts: vec![account("in", "secret-of-12")],
        own: Some(account("out", "another-secret")),
    };
    let rig = Rig::with(|rig| Target { admission, ..rig.target(vec![memory()]) });
    let at = rig.server().addresses()[0];
    let try_in = |host: &str, chap: Option<Chap>| {
        let mut config = config(host, 1);
        config.chap = chap;
        Wire::login_with(at, config).map(drop)
    };
    let chap = |secret: &str, target: Option<&str>| {
        let target = target.map(|secret| account("out", secret));
        Some(Chap::new(account("in", secret), target, vec![]).expect("two secrets"))
    };
    let refused = |class, detail| Err(LoginError::Refused { class, detail });
    assert_eq!(try_in("iqn.2026-01.test:a", chap("secret-of-12", None)), Ok(()));
    assert_eq!(try_in("iqn.2026-01.test:a", chap("secret-of-12", Some("another-secret"))), Ok(()));
    assert_eq!(try_in("iqn.2026-01.test:a", chap("wrong-secret", None)), refused(2, 1));
    assert_eq!(try_in("iqn.2026-01.test:a", None), refused(2, 1));
    assert_eq!(try_in("iqn.2026-01.test:b", chap("secret-of-12", None)), refused(2, 2));
    let mut skips = config("iqn.2026-01.test:a", 1);
    skips.skip_security = true;
    assert_eq!(Wire::login_with(at, skips).map(drop), refused(2, 1), "by going round the security stage");
    let mut other = config("iqn.2026-01.test:a", 1);
    other.kind = iscsi::login::Kind::Normal { target: "iqn.2026-01.test:other".into() };
    assert_eq!(Wire::login_with(at, other).map(drop), refused(2, 3));
}

#[test]
fn digests_are_agreed_and_kept() {
    let rig = rig();
    let Some((good, text)) = crate::rig::run("iscsi-inq", 60, &[&format!("{}?header_digest=crc32c", rig.url(0))])
    else {
        return;
    };
    assert!(good && text.contains("Shorefast LUN"), "{text}");
    // Both ends agree on data digests, too; the small initiator of these tests then cannot go on, which is no matter.
    let mut with = config("iqn.2026-01.test:a", 1);
    with.offer.data_digest = DigestWish::Always;
    with.offer.header_digest = DigestWish::Always;
    assert!(Wire::login_with(rig.server().addresses()[0], with).is_ok());
}

#[test]
fn a_redirect_and_a_request_to_log_out_reach_the_initiator() {
    let there = iscsi::discovery::Portal { host: "127.0.0.9".into(), port: 3260 };
    let moved = Rig::with(|rig| Target { redirect: Some((there.clone(), false)), ..rig.target(vec![memory()]) });
    let (login, request) = iscsi::login::Login::begin(
        config("iqn.2026-01.test:a", 1),
        iscsi::ids::Itt(1),
        iscsi::ids::CmdSn(1),
        iscsi::chap::Entropy { identifier: 1, challenge: [1; 16] },
    );
    let mut plain = Wire::connect(moved.server().addresses()[0]);
    plain.send(&request.bhs.bhs(), &request.text);
    let answer = plain.receive();
    match login.answer(&iscsi::pdu::raw::LoginResponse::of(&answer.bhs), &answer.data) {
        Ok(iscsi::login::Step::Redirected { portal, permanent }) => assert_eq!((portal, permanent), (there, false)),
        other => panic!("{other:?}"),
    }
    let rig = rig();
    let mut wire = crate::protocol::login(&rig, "iqn.2026-01.test:a");
    rig.server().ask_logout(7);
    let message = wire.receive();
    assert_eq!(message.bhs.kind(), Some(Opcode::Async));
    let message = iscsi::pdu::raw::Async::of(&message.bhs);
    assert_eq!((message.event, message.parameter3.get()), (1, 7));
    wire.logout();
    assert_eq!(wire.receive().bhs.kind(), Some(Opcode::LogoutResponse));
}

#[test]
fn a_changed_size_and_little_space_are_told_once_to_every_session() {
    let rig = Rig::file(16 << 20);
    let mut wire = login(&rig, "iqn.2026-01.test:a");
    let path = rig.dir.path().join("disk.img");
    std::fs::File::options().write(true).open(path).and_then(|f| f.set_len(32 << 20)).expect("it grows");
    block::Rescan::rescan(&*rig.first.clone().expect("a device")).expect("looked at again");
    assert!(rig.server().resized(0) && !rig.server().resized(5));
    assert_eq!(wire.command(&TestUnitReady.cdb(), 0, &[]).code(), Some((6, 0x2a, 9)));
    let capacity = wire.command(&scsi::cdb::ReadCapacity16::FULL.cdb(), 32, &[]).good();
    let capacity = scsi::capacity::Capacity::parse(&capacity).expect("a capacity");
    assert_eq!(capacity.blocks().map(|b| b.0 * u64::from(capacity.block.get())), Some(32 << 20));
    for left in [10 << 20, 1 << 20, 1 << 19] {
        rig.server().space_left(0, left, 2 << 20);
    }
    assert_eq!(wire.command(&TestUnitReady.cdb(), 0, &[]).code(), Some((6, 0x38, 7)));
    wire.command(&TestUnitReady.cdb(), 0, &[]).good();
}
