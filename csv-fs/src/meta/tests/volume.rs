//! Making volumes of disks, and the check of a volume.

use block::units::ByteOffset;

use super::*;
use crate::format::{LEASE, LeaseBlock, SLOT_COUNT, Slot, slot_at};

#[test]
fn new_volume_has_empty_slots_an_empty_lease_and_all_space_accounted_for() {
    let f = Fixture::new();
    let dev = as_dyn(&f.disk);
    let volume = f.superblock.volume;
    let lease = disk::read(&dev, LEASE, 4096).expect("readable");
    assert_eq!(LeaseBlock::decode(&lease, volume), Ok(LeaseBlock::empty()));
    for node in (1..=SLOT_COUNT).filter_map(NodeId::new) {
        let slot = disk::read(&dev, slot_at(node), 512).expect("readable");
        assert_eq!(Slot::decode(&slot, volume, node), Ok(Slot::empty(node)));
    }
    let space = f.view().statfs().expect("readable");
    assert_eq!((space.blocks, space.free, space.files), (space.free, space.free, 1));
    // 66 MiB in front, two ranges of 64 MiB, one of 1 MiB behind, one block for the third superblock.
    assert_eq!(space.blocks, (MIN_VOLUME - (66 + 129) * (1 << 20)) / FS_BLOCK - 1);
    let root = f.attr(InodeNo::ROOT);
    assert_eq!((root.mode, root.nlink), (0o040_755, 2));
    f.must_be_clean();
}

#[test]
fn too_small_disk_is_refused() {
    let e = Store::format(&as_dyn(&blank(MIN_VOLUME - 4096)), &options()).expect_err("too small");
    assert!(e.to_string().contains("at least 1073741824"), "{e}");
}

#[test]
fn odd_length_and_large_blocks_are_formatted() {
    let f = Fixture::on(blank(MIN_VOLUME + 512));
    f.must_be_clean();
    f.file("a");
    let f = Fixture::on(Arc::new(MemDevice::with_volatile_cache(ByteLen(2 * MIN_VOLUME), BlockSize::B4096)));
    f.file("a");
    assert_eq!(f.superblock.logical_block, BlockSize::B4096);
    f.killed().must_be_clean();
}

#[test]
fn occupied_disk_is_refused_until_its_identity_is_repeated() {
    let disk = blank(MIN_VOLUME);
    let mut sector = [0; 4096];
    sector[..4].copy_from_slice(b"XFSB");
    sector[32..48].copy_from_slice(&[7; 16]);
    disk::write(&as_dyn(&disk), ByteOffset(0), &sector).expect("writes");
    let refused = Store::format(&as_dyn(&disk), &options()).expect_err("occupied");
    let MetaError::Fatal(Fatal::Occupied { found, id, .. }) = &refused else { panic!("{refused}") };
    assert_eq!((found[0].kind, id.as_str()), ("xfs", "07070707-0707-0707-0707-070707070707"));
    assert!(refused.to_string().contains("--wipe 07070707"), "{refused}");
    assert!(!refused.to_string().contains("is not its identity"), "{refused}");
    // As when a full stop was copied along.
    let wrong = FormatOptions { wipe: Some(format!("{id}.")), ..options() };
    let refused = Store::format(&as_dyn(&disk), &wrong).expect_err("that is not it");
    assert!(refused.to_string().contains(&format!("`{id}.` is not its identity")), "{refused}");
    assert_eq!(disk::read(&as_dyn(&disk), ByteOffset(0), 4096).expect("readable")[..4], *b"XFSB");
    let right = FormatOptions { wipe: Some(id.clone()), ..options() };
    Store::format(&as_dyn(&disk), &right).expect("formats");
    assert_eq!(foreign(&as_dyn(&disk)).expect("readable")[0].kind, "shorefast");
}

#[test]
fn volume_itself_is_not_formatted_over_unasked() {
    let f = Fixture::new();
    let refused = Store::format(&as_dyn(&f.disk), &options()).expect_err("occupied");
    assert!(refused.to_string().contains("shorefast \"test\""), "{refused}");
}
