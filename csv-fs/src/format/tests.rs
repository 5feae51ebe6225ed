use block::device::Geometry;
use block::shared::{Epoch, FenceGen, Incarnation, NodeId};
use block::units::{BlockSize, ByteLen};

use super::*;
use crate::types::VolumeId;

pub(super) const VOLUME: VolumeId = VolumeId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

pub(super) fn node(n: u8) -> NodeId {
    NodeId::new(n).expect("1..=64")
}

pub(super) fn geometry(len: u64) -> Geometry {
    Geometry {
        logical_block: BlockSize::B512,
        physical_block: BlockSize::B4096,
        len: ByteLen(len),
        memory_align: 512,
        read_only: false,
        discard: true,
    }
}

pub(super) fn superblock() -> Superblock {
    Superblock::new(
        &geometry(MIN_VOLUME + 512),
        VOLUME,
        VolumeName::new("vol-1").expect("good"),
        3,
        TimingMs::FAST,
        1_700_000_000,
    )
    .expect("large enough")
}

pub(super) fn lease() -> LeaseBlock {
    LeaseBlock {
        epoch: Epoch(7),
        node: Some(node(3)),
        incarnation: Incarnation(0x1122_3344),
        address: "10.0.0.3:7000".to_owned(),
        counter: 99,
        nonce: 0xdead_beef,
        resigned: Some(Resigned { in_favour: Some(node(2)) }),
    }
}

pub(super) fn slot() -> Slot {
    Slot {
        node: node(64),
        incarnation: Incarnation(5),
        boot_id: [7; 16],
        pid: 4242,
        pid_start: 123_456,
        fence_gen: FenceGen(3),
        counter: 17,
        nonce: 18,
        peers_heard: 0b101,
        mark: Some(FenceMark { by: node(1), incarnation: Incarnation(5), fence_gen: FenceGen(3) }),
        answer: FenceGen(2),
    }
}

/// The frozen bytes: a change here is a change of the format, with a new version and a new line in the document.
/// Each begins with its magic, version and the crc over all the rest.
#[test]
fn bytes_of_version_1_are_frozen() {
    let sb = superblock().encode();
    assert_eq!(hex(&sb[..16]), "53484f524546535401000000c7287737");
    let before_the_redo_log = Superblock { features: Features::default(), ..superblock() }.encode();
    assert_eq!(hex(&before_the_redo_log[..16]), "53484f5245465354010000008d75dd72");
    assert_eq!(&sb[64..69], b"vol-1");
    let lease = lease().encode(VOLUME).expect("fits");
    assert_eq!(hex(&lease[..16]), "5348464c4541534501000000185b47a3");
    assert_eq!(hex(&lease[16..40]), "0123456789abcdef00112233445566776300000000000000");
    let slot = slot().encode(VOLUME);
    assert_eq!(hex(&slot[..16]), "534846534c4f54000100000054b9c4bc");
    assert_eq!(hex(&slot[32..64]), "1100000000000000120000000000000005000000000000000300000000000000");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn structures_survive_their_bytes() {
    assert_eq!(Superblock::decode(&superblock().encode()), Ok(superblock()));
    let mut padded = lease().encode(VOLUME).expect("fits").to_vec();
    padded.resize(4096, 0);
    assert_eq!(LeaseBlock::decode(&padded, VOLUME), Ok(lease()));
    assert_eq!(Slot::decode(&slot().encode(VOLUME), VOLUME, node(64)), Ok(slot()));
    let empty = LeaseBlock::empty();
    assert_eq!(LeaseBlock::decode(&empty.encode(VOLUME).expect("fits"), VOLUME), Ok(empty));
    assert_eq!(Slot::decode(&Slot::empty(node(1)).encode(VOLUME), VOLUME, node(1)), Ok(Slot::empty(node(1))));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = slot().encode(VOLUME);
    for bit in 0..good.len() * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Slot::decode(&bad, VOLUME, node(64)).is_err(), "bit {bit}");
    }
    let good = superblock().encode();
    for byte in 0..good.len() {
        let mut bad = good;
        bad[byte] ^= 0x10;
        assert!(Superblock::decode(&bad).is_err(), "byte {byte}");
    }
}

#[test]
fn blocks_of_another_volume_or_node_are_refused() {
    let other = VolumeId(1);
    assert_eq!(
        LeaseBlock::decode(&lease().encode(other).expect("fits"), VOLUME),
        Err(FormatError::OtherVolume { what: "lease block" })
    );
    assert_eq!(Slot::decode(&slot().encode(other), VOLUME, node(64)), Err(FormatError::OtherVolume { what: "slot" }));
    assert!(Slot::decode(&slot().encode(VOLUME), VOLUME, node(1)).is_err());
    assert!(LeaseBlock::decode(&[0; 10], VOLUME).is_err());
}

#[test]
fn newest_good_superblock_counts_and_the_damaged_are_named() {
    let new = Superblock { generation: 9, ..superblock() };
    let old = Superblock { generation: 8, ..superblock() };
    let (n, o, mut bad) = (new.encode(), old.encode(), new.encode());
    bad[100] ^= 1;
    let chosen = choose([Some(&bad), Some(&o), Some(&n)]).expect("one is good");
    assert_eq!(chosen.superblock, new);
    assert_eq!(chosen.copies[1], CopyState::Old { generation: 8 });
    assert_eq!(chosen.copies[2], CopyState::Good);
    let remarks = chosen.remarks();
    assert_eq!(remarks.len(), 2);
    assert!(remarks[0].contains("superblock A (at 0) is damaged"), "{}", remarks[0]);
    assert_eq!(choose([Some(&bad), None, Some(&bad)]), Err(FormatError::AllDamaged));
    assert_eq!(choose([Some(&[0; 4096]), None, Some(&[1; 4096])]), Err(FormatError::NotAVolume));
}

#[test]
fn unknown_incompatible_feature_is_refused_with_a_sentence() {
    let features = Features { compat: 1, ro_compat: 0, incompat: 0 };
    assert!(Superblock::decode(&Superblock { features, ..superblock() }.encode()).is_ok());
    let features = Features { incompat: 0x10, ..features };
    let bytes = Superblock { features, ..superblock() }.encode();
    let good = superblock().encode();
    let refused = choose([Some(&good), Some(&bytes), Some(&good)]).expect_err("refused");
    assert!(refused.to_string().contains("incompat bits 0x10"), "{refused}");
    assert!(!Features { ro_compat: 1, ..features }.writable());
    let mut newer = good;
    newer[8] = 2;
    super::raw::seal(&mut newer);
    assert_eq!(Superblock::decode(&newer), Err(FormatError::NewerVersion { found: 2 }));
}

#[test]
fn senseless_ranges_are_refused_although_the_checksum_fits() {
    let outside = Superblock { ranges: vec![BlockSpan { start: u64::MAX - 1, len: 4 }], ..superblock() };
    let overlap = Superblock { next: superblock().ranges, ..superblock() };
    let none = Superblock { ranges: Vec::new(), ..superblock() };
    let too_long = Superblock { meta_len: RANGE_LEN + 1, ..superblock() };
    for bad in [outside, overlap, none, too_long] {
        assert!(matches!(Superblock::decode(&bad.encode()), Err(FormatError::Damaged { .. })));
    }
}

#[test]
fn small_and_changed_devices_are_refused() {
    let made =
        |len| Superblock::new(&geometry(len), VOLUME, VolumeName::new("v").expect("good"), 1, TimingMs::DEFAULT, 0);
    assert_eq!(made(MIN_VOLUME - 512), Err(FormatError::TooSmall { len: MIN_VOLUME - 512 }));
    let sb = made(MIN_VOLUME * 2).expect("large enough");
    assert!(matches!(sb.fits(&geometry(MIN_VOLUME)), Err(FormatError::Shrunk { .. })));
    let other = Geometry { logical_block: BlockSize::B4096, ..geometry(MIN_VOLUME * 2) };
    assert!(matches!(sb.fits(&other), Err(FormatError::OtherBlockSize { found: 4096, recorded: 512 })));
    assert_eq!(sb.fits(&geometry(MIN_VOLUME * 4)), Ok(()));
}

#[test]
fn names_are_checked() {
    for bad in ["", "-a", ".a", "a/b", "ä", &"x".repeat(64)] {
        assert_eq!(VolumeName::new(bad), Err(FormatError::BadName), "{bad}");
    }
    assert!(VolumeName::new(&"x".repeat(63)).is_ok());
}

fn blank() -> Vec<u8> {
    vec![0; SCAN_HEAD]
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

#[test]
fn empty_and_unknown_contents_are_not_foreign() {
    assert_eq!(recognise(&blank(), &[0; SCAN_TAIL]), Vec::new());
    assert_eq!(recognise(&[], &[]), Vec::new());
    assert_eq!(recognise(&vec![0xa5; SCAN_HEAD], &[0xa5; SCAN_TAIL]), Vec::new());
}

#[test]
fn ext_generations_are_told_apart() {
    let uuid: Vec<u8> = (0..16).collect();
    for (compat, incompat, kind) in [(0_u32, 2_u32, "ext2"), (4, 2, "ext3"), (4, 0x42, "ext4"), (0, 0x240, "ext4")] {
        let mut head = blank();
        put(&mut head, 1080, &[0x53, 0xef]);
        put(&mut head, 1024 + 92, &compat.to_le_bytes());
        put(&mut head, 1024 + 96, &incompat.to_le_bytes());
        put(&mut head, 1024 + 104, &uuid);
        put(&mut head, 1024 + 120, b"mydata");
        let found = recognise(&head, &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, kind);
        assert_eq!(found[0].id, "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert!(found[0].what.contains("mydata"));
    }
}

#[test]
fn known_contents_are_named() {
    type Write = (usize, &'static [u8]);
    let cases: &[(&str, &[Write])] = &[
        ("xfs", &[(0, b"XFSB")]),
        ("btrfs", &[(65600, b"_BHRfS_M")]),
        ("lvm2", &[(512, b"LABELONE"), (536, b"LVM2 001"), (544, b"abcdefabcdefabcdefabcdefabcdefab")]),
        ("vmfs", &[(1 << 20, &[0x0d, 0xd0, 0x01, 0xc0])]),
        ("md-raid", &[(4096, &[0xfc, 0x4e, 0x2b, 0xa9])]),
        ("swap", &[(4086, b"SWAPSPACE2")]),
        ("luks", &[(0, b"LUKS\xba\xbe")]),
        ("zfs", &[(135_168, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0])]),
        ("gpt", &[(512, b"EFI PART")]),
        ("gpt", &[(4096, b"EFI PART")]),
        ("dos-partition-table", &[(446 + 4, &[0x83]), (510, &[0x55, 0xaa])]),
        ("ntfs", &[(3, b"NTFS    "), (510, &[0x55, 0xaa])]),
    ];
    for (kind, writes) in cases {
        let mut head = blank();
        for (at, what) in *writes {
            put(&mut head, *at, what);
        }
        let found = recognise(&head, &[0; SCAN_TAIL]);
        assert_eq!(found.iter().map(|f| f.kind).collect::<Vec<_>>(), [*kind]);
        assert!(!found[0].id.is_empty());
    }
}

#[test]
fn ends_of_the_disk_are_looked_at_too() {
    let mut tail = vec![0; SCAN_TAIL];
    put(&mut tail, SCAN_TAIL - 512, b"EFI PART");
    put(&mut tail, SCAN_TAIL - 8192, &[0xfc, 0x4e, 0x2b, 0xa9]);
    let kinds: Vec<_> = recognise(&blank(), &tail).iter().map(|f| f.kind).collect();
    assert_eq!(kinds, ["md-raid", "gpt"]);
}

/// Metadata of a replica lie behind its data; the disk need not end at a whole page.
#[test]
fn a_replica_is_recognised_at_either_end_of_the_disk() {
    let mut superblock = vec![0; 4096];
    put(&mut superblock, 0, b"SHFREPL\0");
    put(&mut superblock, 48, &0x0102_0304_0506_0708_u64.to_le_bytes());
    put(&mut superblock, 56, &[7]);
    let expect = |head: &[u8], tail: &[u8]| {
        let found = recognise(head, tail);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].kind, found[0].id.as_str()), (REPLICA, "replica-0102030405060708"));
        assert!(found[0].what.contains("node 7"));
    };
    for before_end in [4096, 8192, 4096 + 512, 8192 + 3584] {
        let mut tail = vec![0; SCAN_TAIL];
        put(&mut tail, SCAN_TAIL - before_end, &superblock[..before_end.min(4096)]);
        expect(&blank(), &tail);
    }
    for at in [0, 4096] {
        let mut head = blank();
        put(&mut head, at, &superblock);
        expect(&head, &[0; SCAN_TAIL]);
    }
}

#[test]
fn own_volume_is_recognised_by_its_id_also_if_one_copy_is_damaged() {
    let mut head = blank();
    put(&mut head, 65536, &superblock().encode());
    let found = recognise(&head, &[]);
    assert_eq!((found[0].kind, found[0].id.as_str()), ("shorefast", "01234567-89ab-cdef-0011-223344556677"));
}
