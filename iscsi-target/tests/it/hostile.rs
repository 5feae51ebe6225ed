//! Bytes that are no iSCSI, sessions by the thousand: nobody else is harmed, and memory is bounded.

use std::sync::Arc;

use block::units::BlockSize;
use block::{BlockDevice, ByteLen, MemDevice};
use iscsi::pdu::Opcode;
use iscsi::pdu::raw::{R2t, ScsiResponse};
use iscsi_target::Lun;
use scsi::cdb::{Read, TestUnitReady, Write};
use scsi::units::BlockRange;
use scsi::{BlockCount, BlockLen, Lba};

use crate::aborts::{read, write};
use crate::rig::Rig;
use crate::wire::{Wire, config};

fn rig() -> Rig {
    Rig::with(|rig| {
        let device: Arc<dyn BlockDevice> = Arc::new(MemDevice::new(ByteLen(1 << 20), BlockSize::B512));
        rig.target(vec![Lun::new(0, device)])
    })
}

#[test]
fn bytes_that_are_no_iscsi_end_their_connection_and_harm_no_other() {
    let rig = rig();
    let at = rig.server().addresses()[0];
    let mut healthy = Wire::login(at, "iqn.2026-01.test:healthy").quiet();
    healthy.command(&write(1), 0, &[7; 512]).good();
    bolero::check!().with_iterations(150).with_type::<(bool, Vec<(u8, u8, Vec<u8>)>)>().for_each(|(inside, pdus)| {
        let mut wire = if *inside { Wire::login(at, "iqn.2026-01.test:mad") } else { Wire::connect(at) };
        for (opcode, flags, rest) in pdus {
            let mut bytes = vec![*opcode & 0x7f, *flags];
            bytes.extend(rest.iter().take(46));
            bytes.resize(48, 0);
            // Most are short enough to be whole.
            if flags & 3 != 0 {
                bytes[4..8].fill(0);
            }
            wire.raw(&bytes);
        }
    });
    assert_eq!(healthy.command(&read(1), 512, &[]).good(), [7; 512]);
    // Every one of those sessions ends, and its place is given back.
    crate::rig::until("only the healthy one is left", || rig.server().sessions().len() == 1);
}

/// A thousand sessions that do nothing: what the process holds more than without them.
#[test]
fn a_thousand_idle_sessions_take_less_than_200_mib() {
    let rig = rig();
    let at = rig.server().addresses()[0];
    let before = resident();
    let mut wires: Vec<Wire> = Vec::new();
    for n in 0..1000_u16 {
        wires.push(Wire::login_with(at, config("iqn.2026-01.test:idle", n)).expect("it is let in"));
    }
    assert_eq!(rig.server().sessions().len(), 1000);
    for wire in wires.iter_mut().step_by(97) {
        assert_eq!(wire.command(&TestUnitReady.cdb(), 0, &[]).code(), Some((6, 0x29, 0)));
    }
    let grown = resident().saturating_sub(before);
    println!("1000 idle sessions, both ends in this process: {} KiB", grown >> 10);
    assert!(grown < 200 << 20, "{} MiB", grown >> 20);
}

/// A whole window of long reads that nobody takes, and of long writes whose data nobody has sent yet.
#[test]
fn a_session_that_asks_for_more_than_it_takes_makes_the_target_hold_no_more_than_its_bound() {
    let rig = Rig::with(|rig| {
        let device: Arc<dyn BlockDevice> = Arc::new(MemDevice::new(ByteLen(8 << 20), BlockSize::B4096));
        rig.target(vec![Lun::new(0, device)])
    });
    let mut wire = Wire::login(rig.server().addresses()[0], "iqn.2026-01.test:greedy").quiet();
    let range = BlockRange::new(Lba(0), BlockCount(1024));
    let long = Read::new(range).cdb(BlockLen::B4096).expect("fits");
    wire.command(&long, 4 << 20, &[]).good();
    let before = resident();
    let reads: Vec<u32> = (0..100).map(|_| wire.start(&long, 4 << 20, &[])).collect();
    let total = || rig.server().sessions().first().map(|s| s.commands_total);
    crate::rig::until("all of them have come", || total().is_some_and(|n| n >= 102));
    let grown = resident().saturating_sub(before);
    // Other tests of this process take some, too.
    assert!(grown < 200 << 20, "{} MiB for 400 MiB that were asked for", grown >> 20);
    for itt in reads {
        wire.finish(itt, &[]).good();
    }
    let put = Write::new(range).cdb(BlockLen::B4096).expect("fits");
    let data = vec![0x77; 4 << 20];
    let mut left: Vec<u32> = (0..100).map(|_| wire.announce(&put, 4 << 20)).collect();
    while !left.is_empty() {
        let pdu = wire.receive();
        match pdu.bhs.kind() {
            Some(Opcode::R2t) => wire.answer(&R2t::of(&pdu.bhs), &data),
            Some(Opcode::ScsiResponse) => {
                assert_eq!(ScsiResponse::of(&pdu.bhs).status, 0);
                left.retain(|itt| *itt != pdu.bhs.itt.get());
            }
            other => panic!("{other:?}"),
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 200 << 20, "{} MiB for 400 MiB that were announced", grown >> 20);
    }
    assert_eq!(wire.command(&long, 4 << 20, &[]).good(), data);
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: u64 = pages.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4096
}
