//! What tgt 1.0.85 and istgt 0.4 sent, byte for byte (disks of 64 MiB; tgt with thin provisioning), and what is read.

use scsi::action::{Action, Class, First, Reply, verdict};
use scsi::alua::{AccessState, PortGroups, RelativePort};
use scsi::capacity::{Capacity, Capacity10};
use scsi::cdb::{Form, ModeSense, op};
use scsi::inquiry::StandardInquiry;
use scsi::lba_status::{BlockState, LbaStatus};
use scsi::luns::Luns;
use scsi::mode::{ModeData, PageId};
use scsi::opcodes::SupportedCommands;
use scsi::reservations::{Capabilities, FullStatus, Held, Keys, ReservationType, TransportId};
use scsi::vpd::{
    BlockCharacteristics, BlockLimits, DeviceIdentification, LogicalBlockProvisioning, ProvisioningType, Rotation,
    Sameness, ScsiPorts, Strength, SupportedPages, UnitSerialNumber,
};
use scsi::{AdditionalCode, BlockCount, BlockLen, Lba, LunAddress, ReservationKey, Sense, SenseKey, Status};

macro_rules! answer {
    ($name:literal) => {
        include_bytes!(concat!("answers/", $name)).as_slice()
    };
}
macro_rules! page {
    ($name:literal) => {
        include_bytes!(concat!("__fuzz__/vpd/corpus/", $name)).as_slice()
    };
}
macro_rules! sense {
    ($name:literal) => {
        Sense::parse(include_bytes!(concat!("__fuzz__/sense/corpus/", $name))).expect("sense data")
    };
}

#[test]
fn inquiry_capacity_and_units() {
    let tgt = StandardInquiry::parse(answer!("tgt_inquiry")).expect("inquiry data");
    assert_eq!((tgt.vendor.as_str(), tgt.product.as_str(), tgt.revision.as_str()), ("IET", "VIRTUAL-DISK", "0001"));
    assert_eq!((tgt.version, tgt.queueing, tgt.versions), (5, true, vec![0x04c0, 0x0960, 0x0300]));
    let istgt = StandardInquiry::parse(answer!("istgt_inquiry")).expect("inquiry data");
    assert_eq!((istgt.vendor.as_str(), istgt.product.as_str()), ("FreeBSD", "iSCSI DISK"));
    assert!(!istgt.port_groups.implicit && !istgt.port_groups.explicit);
    let size = Capacity10::Size { last: Lba(0x1_ffff), block: BlockLen::B512 };
    for (ten, sixteen, thin) in [
        (answer!("tgt_capacity10"), answer!("tgt_capacity16"), true),
        (answer!("istgt_capacity10"), answer!("istgt_capacity16"), false),
    ] {
        assert_eq!(Capacity10::parse(ten), Ok(size));
        let capacity = Capacity::parse(sixteen).expect("capacity data");
        assert_eq!((capacity.blocks(), capacity.block), (Some(BlockCount(1 << 17)), BlockLen::B512));
        assert_eq!((capacity.provisioning, capacity.reads_zeroes), (thin, thin));
    }
    let luns = Luns::parse(answer!("tgt_luns")).expect("a list").luns;
    assert_eq!(luns, [LunAddress::ZERO, LunAddress::new(1).expect("small")]);
    assert_eq!(Luns::parse(answer!("istgt_luns")).expect("a list").luns, [LunAddress::ZERO]);
}

#[test]
fn pages_tell_what_each_target_can_do() {
    let pages = SupportedPages::parse(page!("istgt_00")).expect("a page");
    assert_eq!(pages.pages.len(), 9);
    let limits = BlockLimits::parse(page!("tgt_b0")).expect("a page");
    assert!(limits.claims_compare_and_write(128), "and it answers the command with 20/00: see its list of commands");
    assert_eq!((limits.max_unmap_blocks, limits.max_unmap_ranges), (Some(BlockCount(0xffff_ffff)), Some(u32::MAX)));
    let limits = BlockLimits::parse(page!("istgt_b0")).expect("a page");
    assert!(limits.claims_compare_and_write(255) && limits.max_unmap_blocks.is_none());
    let medium = BlockCharacteristics::parse(page!("istgt_b1")).expect("a page");
    assert_eq!(medium.rotation, Rotation::PerMinute(7200));
    let thin = LogicalBlockProvisioning::parse(page!("tgt_b2")).expect("a page");
    assert!(thin.unmap && thin.write_same_16 && thin.write_same_10 && thin.reads_zeroes());
    assert_eq!(thin.kind, ProvisioningType::Thin);
    let ports = ScsiPorts::parse(page!("istgt_88")).expect("a page");
    assert_eq!(ports.ports[0].names[0].identifier.to_string(), "iqn.2026-01.test:disk1,t,0x0001");
    let serial = |page| UnitSerialNumber::parse(page).expect("a page").expect("a number").as_str().to_owned();
    assert_eq!((serial(page!("tgt_80")), serial(page!("istgt_80"))), ("beaf11".to_owned(), "10000001".to_owned()));
}

/// tgt numbers its units from 1 in an NAA 6h identifier without a company, and gives each the serial number `beaf` with
/// target and unit. Two hosts that run it have two disks with the same page 83h *and* the same page 80h. Taken for one
/// unit, a volume on the first was written to the second whenever the path changed.
#[test]
fn two_targets_of_one_make_are_not_one_unit() {
    let page = DeviceIdentification::parse(page!("tgt_83")).expect("a page");
    let strengths: Vec<Strength> = page.designators.iter().map(|d| d.identifier.strength()).collect();
    assert_eq!(strengths, [Strength::Local; 3]);
    let serial = UnitSerialNumber::parse(page!("tgt_80")).expect("a page");
    let serials = (serial.as_ref(), serial.as_ref());
    assert_eq!(page.same_unit(&page, serials, false), Sameness::Unproved, "over two targets");
    assert_eq!(page.same_unit(&page, serials, true), Sameness::Same, "over two portals of one");
    assert_eq!(page.unit_name().map(ToString::to_string).as_deref(), Some("naa.3000000100000001"));
    let other = DeviceIdentification::parse(page!("istgt_83")).expect("a page");
    assert_eq!(page.same_unit(&other, (None, None), false), Sameness::Different);
    assert_eq!(other.port(), Some(RelativePort(1)));
}

#[test]
fn mode_pages_come_with_either_header() {
    let ten = ModeSense::current(PageId::ALL);
    let six = ModeSense { form: Form::Six, ..ten };
    for (command, bytes, caching) in [
        (ten, answer!("tgt_mode10_3f"), true),
        (six, answer!("tgt_mode6_3f"), true),
        (ten, answer!("istgt_mode10_3f"), true),
        (six, answer!("istgt_mode6_3f"), true),
    ] {
        let data = ModeData::parse(&command, bytes).expect("mode data");
        assert_eq!(data.caching().map(|page| page.write_cache), Some(caching));
        assert_eq!(data.control().map(|page| page.descriptor_sense), Some(false));
        assert!(!data.write_protected);
        assert!(data.pages.len() >= 5, "{} pages", data.pages.len());
    }
    assert!(ModeData::parse(&ten, answer!("tgt_mode10_3f")).expect("mode data").dpo_fua);
    assert!(!ModeData::parse(&ten, answer!("istgt_mode10_3f")).expect("mode data").dpo_fua);
}

#[test]
fn commands_and_blocks_are_listed() {
    let commands = SupportedCommands::parse(answer!("tgt_opcodes_all")).expect("a list");
    assert_eq!(commands.commands.len(), 50);
    assert!(commands.has(op::PERSISTENT_RESERVE_OUT, Some(4)), "PREEMPT");
    assert!(!commands.has(op::PERSISTENT_RESERVE_OUT, Some(5)), "PREEMPT AND ABORT");
    assert!(!commands.has(op::COMPARE_AND_WRITE, None));
    let timed = SupportedCommands::parse(answer!("tgt_opcodes_all_rctd")).expect("a list");
    assert_eq!(timed.commands.len(), 50);
    assert!(timed.commands.iter().all(|command| command.timeouts.is_some()));
    let status = LbaStatus::parse(answer!("tgt_lbastatus")).expect("a list");
    let states: Vec<_> = status.extents.iter().map(|(range, state)| (range.blocks.0, *state)).collect();
    assert_eq!(states, [(8, BlockState::Mapped), (0x1_fff8, BlockState::Deallocated)]);
}

#[test]
fn reservations_are_told() {
    let (a, b) = (ReservationKey(0x0001_0010_0000_0001), ReservationKey(0x0001_0020_0000_0002));
    for bytes in [answer!("tgt_prin0_two"), answer!("istgt_prin0_two")] {
        assert_eq!(Keys::parse(bytes).expect("a list").keys, [a, b]);
    }
    assert_eq!(Held::parse(answer!("tgt_prin1")).expect("an answer").reservation, None);
    // Of a reservation that all registrants hold the standard wants key 0; istgt tells the one that made it.
    for (bytes, key) in [(answer!("tgt_prin1_held"), ReservationKey::NONE), (answer!("istgt_prin1_held"), a)] {
        let held = Held::parse(bytes).expect("an answer").reservation.expect("it is held");
        assert_eq!((held.key, held.kind), (key, ReservationType::ExclusiveAccessAllRegistrants));
    }
    let tgt = Capabilities::parse(answer!("tgt_prin2_held")).expect("an answer");
    let types = tgt.types.expect("it tells them");
    assert!(ReservationType::ALL.into_iter().all(|kind| types.has(kind)));
    assert!(!tgt.persist_through_power_loss);
    let istgt = Capabilities::parse(answer!("istgt_prin2_held")).expect("an answer");
    assert_eq!((istgt.types, istgt.all_target_ports, istgt.specify_ports), (None, true, true));
}

/// istgt leaves out the four bytes in front of the name. The key that is registered must be told all the same.
#[test]
fn a_name_that_is_none_does_not_hide_a_registration() {
    let status = FullStatus::parse(answer!("istgt_prin3_held")).expect("a list");
    let [one] = &status.registrants[..] else { panic!("{status:?}") };
    assert_eq!(one.key, ReservationKey(0x0001_0010_0000_0001));
    assert_eq!(one.holds, Some(ReservationType::ExclusiveAccessAllRegistrants));
    assert_eq!(one.initiator, TransportId::Other(b"iqn.2026-01.test:raw,i,0x800000010203".to_vec()));
}

#[test]
fn port_groups_are_told() {
    let groups = PortGroups::parse(answer!("istgt_rtpg")).expect("a list");
    let group = groups.of_port(RelativePort(1)).expect("its group");
    assert_eq!((group.state, group.preferred), (AccessState::ActiveOptimized, true));
}

#[test]
fn sense_data_leads_to_the_right_action() {
    let power_on = First::VerifyReservation { cache_lost: true };
    for sense in [sense!("tgt_power_on"), sense!("istgt_power_on")] {
        let reply = Reply::Status(Status::CheckCondition, Some(&sense));
        let action = verdict(Class::Write, reply).action;
        assert!(matches!(action, Action::Retry { first, .. } if first == power_on), "{action:?}");
    }
    let miscompare = sense!("istgt_miscompare");
    assert!(miscompare.is(SenseKey::Miscompare, AdditionalCode::MISCOMPARE));
    assert_eq!(miscompare.information, Some(0), "it says valid, and byte 100 was the first to differ");
    // tgt sends what is left of an earlier sense together with GOOD.
    let stale = sense!("tgt_beside_good");
    let found = verdict(Class::Write, Reply::Status(Status::Good, Some(&stale)));
    assert_eq!(found.action, Action::Done);
}
