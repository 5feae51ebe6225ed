//! The volumes besides the first: where each has its bitmaps, and how its disk says whose it is.
//!
//! ```text
//!   disk of volume 0   data ................ | bitmaps of volume 0 | ring of the log | superblocks B, A
//!   disk of volume n   data ........... | bitmaps of volume n | label
//! ```
//! What is of the resource (promise, grant, role, position, generation) and the table of its volumes lie in the superblock, on the disk of
//! the first volume alone: so a change of them is one write, whatever the number of disks, and one log is hot or cold for all volumes. A
//! further volume's disk holds its own bitmaps, so that a volume can be added where the other disks have no room for more; a superblock
//! says where. Prevents: a crash between the superblocks of two disks, after which one volume knows of a grant or a generation and the
//! other does not.
//!
//! The *label* says which replica's disk it is and which volume of it. It is written before the superblock says where it is, and never
//! changed while the volume is there. Prevents: two disks are exchanged, or one was taken from another replica, and what the bitmaps say is taken
//! for the truth.
//!
//! A volume grows as the first does: bitmaps and label at the new end, then the superblock that says so. Nothing of the old place is written
//! over before, so a crash leaves one of the two whole.
//!
//! A volume that is *taken away* leaves a row in the table that says so, with the number of its life ([`Lives`](crate::ids::Lives)); after that its
//! label says so too, for whoever finds the disk. Its data stay as they are.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bitmap::{BITS_PER_PAGE, MAX_BITS};
use super::layout::{BIT_MAX, BIT_MIN, Shape};
use super::superblock::Superblock;
use super::{MetaError, PAGE, Put, Reader};
use crate::ids::{NodeId, SECTOR, Span, Volume};

const MAGIC: [u8; 8] = *b"SHFVOLM\0";
const VERSION: u32 = 1;
const CRC_AT: usize = 12;

/// A volume besides the first. Places are in bytes from the start of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Further {
    /// Which.
    pub volume: Volume,
    /// The number of its disk, drawn when the volume was made.
    pub number: u64,
    /// Its life: odd.
    pub life: u32,
    /// Sectors of data.
    pub data: u64,
    /// Sectors of a bit of its bitmaps.
    pub bit: u64,
    /// The first peer's bitmap; the others follow.
    pub bitmaps: u64,
    /// The label.
    pub label: u64,
}

impl Further {
    /// A volume on a disk of `len` bytes, of so many sectors, or of all that there is room for.
    pub fn new(volume: Volume, number: u64, len: u64, peers: u8, data: Option<u64>) -> Result<Further, MetaError> {
        let len = len / PAGE * PAGE;
        let most = Shape::for_data((len / SECTOR).max(BIT_MIN), peers)?;
        let bit = data.map_or(Ok(most), |d| Shape::for_data(d, peers))?.bit;
        let pages = |data: u64| u64::from(peers) * data.div_ceil(bit).div_ceil(BITS_PER_PAGE);
        let meta = (pages(data.unwrap_or(most.data)) + 1) * PAGE;
        let needed = data.unwrap_or(BIT_MIN).saturating_mul(SECTOR).saturating_add(meta);
        if needed > len {
            return Err(MetaError::TooSmall { needed, len });
        }
        let (label, bitmaps) = (len - PAGE, len - meta);
        Ok(Further { volume, number, life: 1, data: data.unwrap_or(bitmaps / SECTOR), bit, bitmaps, label })
    }

    /// In another life.
    #[must_use]
    pub fn of_life(self, life: u32) -> Further {
        Further { life, ..self }
    }

    /// The same when it has grown to so many sectors on a disk that has become longer.
    pub fn grown(&self, data: u64, len: u64, peers: u8) -> Result<Further, MetaError> {
        if data <= self.data {
            return Err(MetaError::Shape("a replica only grows"));
        }
        let finest = Shape::for_data(data, peers)?.bit;
        let bit = finest.max(self.bit);
        let pages = u64::from(peers) * data.div_ceil(bit).div_ceil(BITS_PER_PAGE);
        let len = len / PAGE * PAGE;
        let before = self.end().max(data * SECTOR);
        let needed = before.saturating_add((pages + 1) * PAGE);
        if needed > len {
            return Err(MetaError::TooSmall { needed, len });
        }
        let label = len - PAGE;
        Ok(Further { data, bit, bitmaps: label - pages * PAGE, label, ..*self })
    }

    /// The most sectors of data that there is room for on a disk of `len` bytes; what there are if it has not grown.
    pub fn room(&self, len: u64, peers: u8) -> u64 {
        let most = Further::new(self.volume, self.number, len, peers, None).map_or(0, |f| f.data);
        if most > self.data && self.grown(most, len, peers).is_ok() { most } else { self.data }
    }

    /// Bits of a bitmap.
    pub fn bits(&self) -> u64 {
        self.data.div_ceil(self.bit)
    }

    /// Pages of a bitmap.
    pub fn bitmap_pages(&self) -> u64 {
        self.bits().div_ceil(BITS_PER_PAGE)
    }

    /// The address of a page of a peer's bitmap.
    pub fn bitmap_page(&self, slot: usize, page: u64) -> u64 {
        self.address(self.bitmaps + (slot as u64 * self.bitmap_pages() + page) * PAGE)
    }

    /// What a disk must be as long as.
    pub fn end(&self) -> u64 {
        self.label + PAGE
    }

    /// Where its metadata lie, as sectors of the volume.
    pub fn own(&self) -> Span {
        Span::new(self.volume.base() + self.bitmaps / SECTOR, (self.end() - self.bitmaps) / SECTOR)
    }

    fn address(&self, at: u64) -> u64 {
        self.volume.base() * SECTOR + at
    }

    /// Refuses what no volume has, or places so far out that sums wrap.
    pub(super) fn check(&self, peers: u8) -> Result<(), MetaError> {
        let bits = self.bit.is_power_of_two() && (BIT_MIN..=BIT_MAX).contains(&self.bit);
        let data = self.data > 0 && self.data.is_multiple_of(BIT_MIN) && self.data <= MAX_BITS * BIT_MAX;
        let lives = self.life % 2 == 1;
        if !bits || !data || !lives || self.bits() > MAX_BITS || self.volume == Volume::FIRST {
            return Err(MetaError::Shape("a volume has whole blocks of 4 KiB, and no more than a bitmap can cover"));
        }
        let pages = u64::from(peers) * self.bitmap_pages();
        let whole = self.label.is_multiple_of(PAGE) && self.label < 1 << 48;
        if !whole || self.bitmaps.checked_add(pages * PAGE) != Some(self.label) || self.bitmaps < self.data * SECTOR {
            return Err(MetaError::Shape("the bitmaps of a volume lie in the way of its data or its label"));
        }
        Ok(())
    }

    /// The label, where it is to lie; or that of a volume that was taken away.
    pub(super) fn put_label(&self, of: &Superblock, taken_away: bool) -> Put {
        let mut raw = RawLabel::new_zeroed();
        (raw.magic, raw.version, raw.taken_away) = (MAGIC, VERSION.into(), taken_away.into());
        (raw.resource, raw.device, raw.number) = (of.resource, of.device.into(), self.number.into());
        (raw.node, raw.volume) = (of.node.get(), self.volume.get());
        let mut bytes = vec![0; PAGE as usize];
        bytes[..size_of::<RawLabel>()].copy_from_slice(raw.as_bytes());
        let crc = crc_of(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        Put { at: self.address(self.label), bytes }
    }

    /// Whether the disk is the one that the superblock speaks of.
    pub(super) fn find(&self, reader: &dyn Reader, of: &Superblock) -> Result<(), MetaError> {
        let volume = self.volume.get();
        let found = Label::decode(&reader.read(self.address(self.label), PAGE)?)?;
        let (resource, device, number, node) = (of.resource, of.device, self.number, of.node);
        let wanted = Label { resource, device, number, node, volume, taken_away: false };
        if found == Some(wanted) { Ok(()) } else { Err(MetaError::OtherDisk { volume, found }) }
    }
}

/// A volume that was taken away from the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Which.
    pub volume: Volume,
    /// The number of the disk that it had here; 0 if it had none.
    pub number: u64,
    /// Its life: even.
    pub life: u32,
}

/// A row of the table.
pub(super) enum Row {
    There(Further),
    Gone(Gone),
}

/// What a disk says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The resource.
    pub resource: [u8; 16],
    /// The replica's number.
    pub device: u64,
    /// The disk's.
    pub number: u64,
    /// The node.
    pub node: NodeId,
    /// The volume's number.
    pub volume: u8,
    /// The volume was taken away from the resource.
    pub taken_away: bool,
}

impl Label {
    /// That of the bytes at the end of a disk; none if they are no label.
    ///
    /// # Errors
    /// A label of a newer program.
    pub fn decode(bytes: &[u8]) -> Result<Option<Label>, MetaError> {
        let Ok((raw, _)) = RawLabel::ref_from_prefix(bytes) else { return Ok(None) };
        if raw.magic != MAGIC || raw.crc.get() != crc_of(bytes) {
            return Ok(None);
        }
        if raw.version.get() > VERSION {
            return Err(MetaError::Newer { version: raw.version.get(), incompat: 0 });
        }
        let label = |node| Label {
            resource: raw.resource,
            device: raw.device.get(),
            number: raw.number.get(),
            node,
            volume: raw.volume,
            taken_away: raw.taken_away != 0,
        };
        Ok(NodeId::new(raw.node).map(label))
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLabel {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    resource: [u8; 16],
    device: U64,
    number: U64,
    node: u8,
    volume: u8,
    taken_away: u8,
    reserved: [u8; 5],
}

const _: () = assert!(size_of::<RawLabel>() == 56);

impl RawLabel {
    fn new_zeroed() -> RawLabel {
        zerocopy::FromZeros::new_zeroed()
    }
}

fn crc_of(bytes: &[u8]) -> u32 {
    let head = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &[0; 4]);
    crc32c::crc32c_append(head, &bytes[CRC_AT + 4..])
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawFurther {
    volume: u8,
    reserved: [u8; 3],
    bit: U32,
    data: U64,
    bitmaps: U64,
    label: U64,
    number: U64,
    life: U32,
    reserved2: U32,
}

const _: () = assert!(size_of::<RawFurther>() == 48);

impl RawFurther {
    pub(super) fn of(further: &Further) -> RawFurther {
        RawFurther {
            volume: further.volume.get(),
            reserved: [0; 3],
            bit: (further.bit as u32).into(),
            data: further.data.into(),
            bitmaps: further.bitmaps.into(),
            label: further.label.into(),
            number: further.number.into(),
            // Programs from before there were lives wrote 0, and a first life is written as they did.
            life: if further.life == 1 { 0 } else { further.life }.into(),
            reserved2: 0.into(),
        }
    }

    pub(super) fn of_gone(gone: &Gone) -> RawFurther {
        let number = gone.number.into();
        let volume = gone.volume.get();
        RawFurther { volume, number, life: gone.life.into(), ..zerocopy::FromZeros::new_zeroed() }
    }

    /// None: an empty row.
    pub(super) fn read(&self, peers: u8) -> Result<Option<Row>, MetaError> {
        if self.volume == 0 {
            return Ok(None);
        }
        let volume = Volume::new(self.volume).ok_or(MetaError::Damaged)?;
        let (number, life) = (self.number.get(), self.life.get());
        if self.data.get() == 0 && life > 0 && life.is_multiple_of(2) {
            return Ok(Some(Row::Gone(Gone { volume, number, life })));
        }
        let further = Further {
            volume,
            number,
            life: life.max(1),
            data: self.data.get(),
            bit: self.bit.get().into(),
            bitmaps: self.bitmaps.get(),
            label: self.label.get(),
        };
        further.check(peers).map(|()| Some(Row::There(further)))
    }
}
