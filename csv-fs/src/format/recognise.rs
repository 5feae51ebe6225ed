//! Recognises what already lies on a disk, so that no volume is ever formatted over somebody's data.
//!
//! Looks at the first [`SCAN_HEAD`] and the last [`SCAN_TAIL`] bytes, as the caller read them, for the signatures of
//! file systems, volume managers, partition tables, arrays, swap and encryption. Everything found is named, with an
//! identity that `--wipe ID` must repeat: the content's own UUID where it has one, else a checksum of its signature
//! block, so that an identity noted for one disk never opens another.
//!
//! Offsets and magics are those of the formats' own headers (ext: `ext4_super_block`; xfs: `xfs_dsb`; btrfs:
//! `btrfs_super_block`; LVM: `label_header`, `pv_header`; md: `mdp_superblock_1`; GPT: UEFI 5.3; LUKS: its on-disk
//! specification). Content that none of them matches is not recognised and not protected.

use super::raw::SUPER_MAGIC;
use super::{SUPERBLOCKS, Superblock};

/// Bytes from the start of the disk that [`recognise`] wants (less on a smaller disk).
pub const SCAN_HEAD: usize = 2 << 20;
/// Bytes before the end of the disk that it wants.
pub const SCAN_TAIL: usize = 1 << 20;

/// The kind of a disk that carries a replica.
pub const REPLICA: &str = "shorefast-replica";

/// Something that is already there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What kind: `ext4`, `lvm2`, `gpt`…
    pub kind: &'static str,
    /// For people: kind, label, UUID.
    pub what: String,
    /// What `--wipe` must be given.
    pub id: String,
}

/// A signature without more structure than a UUID: where the magic lies, and where the UUID (16 bytes) may be found.
struct Signature {
    kind: &'static str,
    at: usize,
    magic: &'static [u8],
    uuid_at: Option<usize>,
    label: Option<(usize, usize)>,
}

const fn plain(kind: &'static str, at: usize, magic: &'static [u8]) -> Signature {
    Signature { kind, at, magic, uuid_at: None, label: None }
}

const fn with_uuid(
    kind: &'static str,
    at: usize,
    magic: &'static [u8],
    uuid_at: usize,
    label: Option<(usize, usize)>,
) -> Signature {
    Signature { kind, at, magic, uuid_at: Some(uuid_at), label }
}

const K: usize = 1024;

/// Signatures at the head of the disk.
const HEAD: &[Signature] = &[
    with_uuid("xfs", 0, b"XFSB", 32, Some((108, 12))),
    with_uuid("btrfs", 64 * K + 64, b"_BHRfS_M", 64 * K + 32, Some((64 * K + 0x12b, 256))),
    with_uuid("md-raid", 0, &[0xfc, 0x4e, 0x2b, 0xa9], 16, Some((32, 32))),
    with_uuid("md-raid", 4 * K, &[0xfc, 0x4e, 0x2b, 0xa9], 4 * K + 16, Some((4 * K + 32, 32))),
    with_uuid("swap", 4086, b"SWAPSPACE2", K + 12, Some((K + 28, 16))),
    plain("swap", 4086, b"SWAP-SPACE"),
    with_uuid("bcache", 4 * K + 24, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], 4 * K + 40, None),
    with_uuid("f2fs", K, &[0x10, 0x20, 0xf5, 0xf2], K + 108, None),
    plain("gfs2", 64 * K, &[0x01, 0x16, 0x19, 0x70]),
    plain("ocfs2", K, b"OCFSV2"),
    plain("ocfs2", 2 * K, b"OCFSV2"),
    plain("ocfs2", 4 * K, b"OCFSV2"),
    plain("ocfs2", 8 * K, b"OCFSV2"),
    plain("ntfs", 3, b"NTFS    "),
    plain("exfat", 3, b"EXFAT   "),
    plain("refs", 3, b"ReFS"),
    plain("fat", 54, b"FAT1"),
    plain("fat", 82, b"FAT32"),
    plain("vmfs", 1 << 20, &[0x0d, 0xd0, 0x01, 0xc0]),
    plain("iso9660", 32 * K + 1, b"CD001"),
    plain("squashfs", 0, b"hsqs"),
    plain("bluestore", 0, b"bluestore block device"),
    plain("qcow2", 0, b"QFI\xfb"),
    plain("vhdx", 0, b"vhdxfile"),
];

/// Everything recognised on a disk. `head` and `tail` are its first and last bytes.
pub fn recognise(head: &[u8], tail: &[u8]) -> Vec<Foreign> {
    let mut found = Vec::new();
    found.extend(own(head));
    found.extend(ext(head));
    found.extend(HEAD.iter().filter_map(|s| s.find(head)));
    found.extend(lvm(head));
    found.extend(luks(head));
    found.extend(zfs(head));
    found.extend(replica(head, tail));
    found.extend(md_at_end(tail));
    found.extend(partition_table(head, tail));
    found
}

impl Foreign {
    fn new(kind: &'static str, label: &str, id: String) -> Foreign {
        let label = if label.is_empty() { String::new() } else { format!(" \"{label}\"") };
        Foreign { kind, what: format!("{kind}{label}, {id}"), id }
    }
}

impl Signature {
    fn find(&self, head: &[u8]) -> Option<Foreign> {
        if !at(head, self.at, self.magic) {
            return None;
        }
        let id = match self.uuid_at.and_then(|o| bytes16(head, o)) {
            Some(uuid) => uuid_text(uuid),
            None => checksum_id(head, self.at),
        };
        let label = self.label.map(|(o, n)| text(head, o, n)).unwrap_or_default();
        Some(Foreign::new(self.kind, &label, id))
    }
}

fn at(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes.get(offset..offset + magic.len()) == Some(magic)
}

fn bytes16(bytes: &[u8], offset: usize) -> Option<[u8; 16]> {
    bytes.get(offset..offset + 16)?.try_into().ok()
}

fn le32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// Printable text up to the first zero.
fn text(bytes: &[u8], offset: usize, len: usize) -> String {
    let raw = bytes.get(offset..offset + len).unwrap_or_default();
    let raw = raw.split(|b| *b == 0).next().unwrap_or_default();
    raw.iter().map(|b| char::from(*b)).filter(|c| !c.is_control()).collect::<String>().trim().to_owned()
}

fn uuid_text(uuid: [u8; 16]) -> String {
    crate::types::VolumeId(u128::from_be_bytes(uuid)).to_string()
}

/// The identity of content without a UUID: the checksum of the 4096-byte block with its signature.
fn checksum_id(bytes: &[u8], offset: usize) -> String {
    let start = offset / 4096 * 4096;
    let end = bytes.len().min(start + 4096);
    format!("crc-{:08x}", crc32c::crc32c(&bytes[start.min(end)..end]))
}

/// An identity that the format itself spells out; a checksum where it left that empty.
fn text_id(bytes: &[u8], offset: usize, len: usize) -> String {
    let id = text(bytes, offset, len);
    if id.is_empty() { checksum_id(bytes, offset) } else { id }
}

/// A shorefast volume, also a damaged one (a copy with the magic counts). The third copy is the caller's to look at:
/// [`super::choose`].
fn own(head: &[u8]) -> Option<Foreign> {
    SUPERBLOCKS.iter().find_map(|place| {
        let bytes = head.get(usize::try_from(place.0).ok()?..)?;
        if !bytes.starts_with(&SUPER_MAGIC) {
            return None;
        }
        Some(match Superblock::decode(bytes) {
            Ok(s) => Foreign::new("shorefast", s.name.as_str(), s.volume.to_string()),
            Err(_) => Foreign::new("shorefast", "", checksum_id(bytes, 0)),
        })
    })
}

/// ext2, ext3 or ext4, told apart by their features as `blkid` does.
fn ext(head: &[u8]) -> Option<Foreign> {
    const JOURNAL: u32 = 0x4;
    /// extents, 64bit, flex_bg, metadata checksum seed, and the like: none of them in ext3.
    const EXT4_INCOMPAT: u32 = 0x40 | 0x80 | 0x200 | 0x2000 | 0x4000 | 0x8000 | 0x10000;
    if !at(head, K + 56, &[0x53, 0xef]) {
        return None;
    }
    let (compat, incompat) = (le32(head, K + 92)?, le32(head, K + 96)?);
    let kind = match (incompat & EXT4_INCOMPAT != 0, compat & JOURNAL != 0) {
        (true, _) => "ext4",
        (false, true) => "ext3",
        (false, false) => "ext2",
    };
    Some(Foreign::new(kind, &text(head, K + 120, 16), uuid_text(bytes16(head, K + 104)?)))
}

/// An LVM physical volume: its label lies in one of the first four sectors.
fn lvm(head: &[u8]) -> Option<Foreign> {
    (0..4).map(|sector| sector * 512).find_map(|o| {
        let is_label = at(head, o, b"LABELONE") && at(head, o + 24, b"LVM2 001");
        is_label.then(|| Foreign::new("lvm2", "", text_id(head, o + 32, 32)))
    })
}

fn luks(head: &[u8]) -> Option<Foreign> {
    at(head, 0, b"LUKS\xba\xbe").then(|| Foreign::new("luks", "", text_id(head, 168, 40)))
}

/// A ZFS vdev: an uberblock in the first label's ring (128 KiB to 256 KiB), of either byte order.
fn zfs(head: &[u8]) -> Option<Foreign> {
    const MAGIC: u64 = 0x00ba_b10c;
    let ring = (128 * K..256 * K).step_by(K);
    ring.into_iter().find_map(|o| {
        let is = at(head, o, &MAGIC.to_le_bytes()) || at(head, o, &MAGIC.to_be_bytes());
        is.then(|| Foreign::new("zfs", "", checksum_id(head, 16 * K)))
    })
}

/// A replica's superblock (docs/formats/replica.md): in one of the last two pages of the disk, whose size need not be one of
/// whole pages, or in one of its first two.
fn replica(head: &[u8], tail: &[u8]) -> Option<Foreign> {
    const MAGIC: &[u8] = b"SHFREPL\0";
    let ends = (1..=4 * K * 3 / 512).filter_map(|n| tail.len().checked_sub(n * 512));
    let found = ends.map(|o| (tail, o)).chain([0, 4 * K].map(|o| (head, o)));
    found.into_iter().filter(|(bytes, o)| at(bytes, *o, MAGIC)).find_map(|(bytes, o)| {
        let number = u64::from_le_bytes(bytes.get(o + 48..o + 56)?.try_into().ok()?);
        let (node, id) = (*bytes.get(o + 56)?, format!("replica-{number:016x}"));
        Some(Foreign { kind: REPLICA, what: format!("a replica of node {node}, {id}"), id })
    })
}

/// md metadata at the end: 0.90 in the last whole 64 KiB but one, 1.0 at least 8 KiB before the end.
fn md_at_end(tail: &[u8]) -> Option<Foreign> {
    const MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];
    let places = [
        tail.len().checked_sub(64 * K),
        tail.len().checked_sub(128 * K),
        tail.len().checked_sub(8 * K),
        tail.len().checked_sub(12 * K),
    ];
    places.into_iter().flatten().find_map(|o| {
        let o = o / (4 * K) * (4 * K);
        at(tail, o, &MAGIC).then(|| Foreign::new("md-raid", "", checksum_id(tail, o)))
    })
}

/// GPT (either copy) or a DOS partition table.
fn partition_table(head: &[u8], tail: &[u8]) -> Option<Foreign> {
    for sector in [512, 4096] {
        if at(head, sector, b"EFI PART") {
            return Some(Foreign::new("gpt", "", uuid_text(bytes16(head, sector + 56)?)));
        }
        if let Some(o) = tail.len().checked_sub(sector).filter(|o| at(tail, *o, b"EFI PART")) {
            return Some(Foreign::new("gpt", "backup copy", uuid_text(bytes16(tail, o + 56)?)));
        }
    }
    // A boot sector of FAT or NTFS ends in the same two bytes, but has no entries of this form.
    let entry_ok = |i: usize| {
        let entry = head.get(446 + 16 * i..462 + 16 * i)?;
        Some(matches!(entry[0], 0 | 0x80) && (entry[4] != 0 || entry.iter().all(|b| *b == 0)))
    };
    let used = |i: usize| head.get(446 + 16 * i + 4).is_some_and(|kind| *kind != 0);
    let table = at(head, 510, &[0x55, 0xaa]) && (0..4).all(|i| entry_ok(i) == Some(true)) && (0..4).any(used);
    table.then(|| {
        Foreign::new(
            "dos-partition-table",
            "",
            format!("{:08x}-{}", le32(head, 440).unwrap_or(0), checksum_id(head, 0)),
        )
    })
}
