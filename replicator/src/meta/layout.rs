//! Where the parts of the metadata lie.
//!
//! *Internal*: behind the data on the same device, superblocks last, so that they are found from the device's length
//! alone. *External*: on a device of their own, superblocks first. Places are counted once, when the replica is made,
//! and kept in the superblock.

use super::bitmap::{self, BITS_PER_PAGE};
use super::log::{CONTEXT, DEFAULT_SLOTS};
use super::{MetaError, PAGE};
use crate::ids::{SECTOR, Sizes, Span, Volume};

/// Peers that a replica can have: eight replicas in all.
pub const MAX_PEERS: usize = 7;
/// Sectors of an extent of the activity log: 4 MiB.
pub const EXTENT: u64 = (4 << 20) / SECTOR;
/// Bits of the number of an extent within its volume: 256 TiB have half as many. The volume's number lies above them.
const EXTENT_BITS: u32 = 27;
/// Sectors of the smallest and the largest bit: 4 KiB and 1 MiB.
pub const BIT_MIN: u64 = 4096 / SECTOR;
/// See [`BIT_MIN`].
pub const BIT_MAX: u64 = (1 << 20) / SECTOR;

/// The sizes that a replica is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sectors of data.
    pub data: u64,
    /// Sectors of a bit of the bitmaps.
    pub bit: u64,
    /// Sectors of an extent of the activity log.
    pub extent: u64,
    /// Peers there is room for.
    pub peers: u8,
    /// Extents that can be hot at once.
    pub log_slots: u32,
    /// Pages of the log's ring.
    pub log_pages: u32,
}

/// Where things lie, in bytes from the start of the metadata's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The sizes.
    pub shape: Shape,
    /// The two superblocks.
    pub supers: [u64; 2],
    /// The log's ring.
    pub log: u64,
    /// The first peer's bitmap; the others follow.
    pub bitmaps: u64,
}

/// Bytes of the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    /// That of the first volume's data.
    pub data: u64,
    /// That of the metadata: the same if they are one.
    pub meta: u64,
    /// Those of the further volumes; 0 where there is no disk.
    pub further: Sizes,
}

impl Devices {
    /// Those of a resource with one volume.
    pub fn one(data: u64, meta: u64) -> Devices {
        Devices { data, meta, further: Sizes::default() }
    }

    /// Bytes of a further volume's disk.
    pub(super) fn of(&self, volume: Volume) -> u64 {
        self.further.of(volume)
    }
}

fn too_small(needed: u64, len: u64) -> MetaError {
    MetaError::TooSmall { needed, len }
}

impl Shape {
    /// The default for so many sectors and peers: the finest bits whose bitmap fits into
    /// [`bitmap::MAX_BITS`]; a log that covers the device or 64 GiB of it.
    pub fn for_data(data: u64, peers: u8) -> Result<Shape, MetaError> {
        let bit = std::iter::successors(Some(BIT_MIN), |b| Some(b * 2).filter(|b| *b <= BIT_MAX))
            .find(|b| data.div_ceil(*b) <= bitmap::MAX_BITS)
            .ok_or(MetaError::Shape("the device is larger than bitmaps can cover (256 TiB)"))?;
        let shape = Shape { data, bit, extent: EXTENT, peers, log_slots: 1, log_pages: 1 }.with_log_for(data);
        shape.check()?;
        Ok(shape)
    }

    /// With a log that covers so many sectors, of all volumes together, or 64 GiB of them.
    #[must_use]
    pub fn with_log_for(self, sectors: u64) -> Shape {
        let slots = u32::try_from(sectors.div_ceil(EXTENT)).unwrap_or(u32::MAX).clamp(1, DEFAULT_SLOTS);
        Shape { log_slots: slots, log_pages: pages_for(slots), ..self }
    }

    /// Refuses sizes that no replica has.
    pub fn check(&self) -> Result<(), MetaError> {
        let bad = |what| Err(MetaError::Shape(what));
        if !self.bit.is_power_of_two() || !(BIT_MIN..=BIT_MAX).contains(&self.bit) {
            return bad("a bit covers a power of two from 4 KiB to 1 MiB");
        }
        if !self.extent.is_power_of_two() || self.extent < self.bit || self.extent > EXTENT {
            return bad("an extent of the log is a power of two, no smaller than a bit and at most 4 MiB");
        }
        if self.data == 0 || !self.data.is_multiple_of(BIT_MIN) || self.data.div_ceil(self.bit) > bitmap::MAX_BITS {
            return bad("the data are whole blocks of 4 KiB, at least one, and no more than a bitmap can cover");
        }
        if self.data.div_ceil(self.extent) > 1 << EXTENT_BITS {
            return bad("the data have more extents than the log can number");
        }
        if self.peers == 0 || usize::from(self.peers) > MAX_PEERS {
            return bad("a replica has one to seven peers");
        }
        if self.log_slots == 0 || self.log_pages < pages_for(self.log_slots) || self.log_pages > 4096 {
            return bad("the ring of the log is too short for its slots, or too long");
        }
        Ok(())
    }

    /// The extents of a span; those of the first volume count from 0.
    pub fn extents(&self, span: Span) -> std::ops::Range<u32> {
        let Some(volume) = Volume::of(span.at) else { return 0..0 };
        let units = Span::new(Volume::local(span.at), span.len).units(self.extent);
        let number = |unit: u64| u32::from(volume.get()) << EXTENT_BITS | u32::try_from(unit).unwrap_or(u32::MAX);
        number(units.start)..number(units.end)
    }

    /// The sectors of an extent; none if it is one of no volume that can be.
    pub fn span_of(&self, extent: u32) -> Option<Span> {
        let volume = u8::try_from(extent >> EXTENT_BITS).ok().and_then(Volume::new)?;
        let local = u64::from(extent & ((1 << EXTENT_BITS) - 1)) * self.extent;
        Some(Span::new(volume.base() + local, self.extent))
    }

    /// Bits of a bitmap.
    pub fn bits(&self) -> u64 {
        self.data.div_ceil(self.bit)
    }

    /// Pages of a bitmap.
    pub fn bitmap_pages(&self) -> u64 {
        self.bits().div_ceil(BITS_PER_PAGE)
    }

    /// Memory that the bitmaps of all peers take, in bytes.
    pub fn memory(&self) -> u64 {
        u64::from(self.peers) * self.bits().div_ceil(64) * 8
    }

    /// Bytes of all metadata.
    pub fn meta_len(&self) -> u64 {
        (2 + u64::from(self.log_pages) + u64::from(self.peers) * self.bitmap_pages()) * PAGE
    }
}

/// Pages of a ring in which a whole rotation of the context survives a torn page, with as many again to spread wear.
fn pages_for(slots: u32) -> u32 {
    (u64::from(slots).div_ceil(CONTEXT as u64) as u32 + 1).max(4)
}

impl Layout {
    /// Metadata on a device of its own.
    pub fn external(shape: Shape) -> Layout {
        let log = 2 * PAGE;
        Layout { shape, supers: [0, PAGE], log, bitmaps: log + u64::from(shape.log_pages) * PAGE }
    }

    /// Metadata behind the data on a device of `len` bytes; the data are what is left.
    pub fn internal(len: u64, peers: u8) -> Result<Layout, MetaError> {
        let len = len / PAGE * PAGE;
        let all = Shape::for_data((len / SECTOR).max(BIT_MIN), peers)?;
        let data = len.checked_sub(all.meta_len()).filter(|d| *d >= PAGE);
        let data = data.ok_or(MetaError::TooSmall { needed: all.meta_len() + PAGE, len })?;
        Ok(Layout::behind(len, Shape { data: data / SECTOR, ..all }))
    }

    /// Metadata of this shape at the end of a device of `len` bytes, a multiple of a page.
    pub fn behind(len: u64, shape: Shape) -> Layout {
        let log = len - (2 + u64::from(shape.log_pages)) * PAGE;
        let bitmaps = log - u64::from(shape.peers) * shape.bitmap_pages() * PAGE;
        Layout { shape, supers: [len - PAGE, len - 2 * PAGE], log, bitmaps }
    }

    /// Whether the metadata lie behind the data, on the same device.
    pub fn is_internal(&self) -> bool {
        self.supers[0] != 0
    }

    /// Bytes of the device by whose end the superblocks are found; none if they are found at its start.
    pub fn found_by(&self) -> Option<u64> {
        self.is_internal().then(|| self.supers[0].max(self.supers[1]) + PAGE)
    }

    /// The most sectors of data that there is room for on devices that have grown; what there are if they have not.
    pub fn room(&self, devices: Devices) -> u64 {
        let now = self.shape.data;
        let most = match self.is_internal() {
            true => Layout::internal(devices.meta, self.shape.peers).map_or(0, |l| l.shape.data),
            false => devices.data / PAGE * (PAGE / SECTOR),
        };
        if most > now && self.grown(most, devices).is_ok() { most } else { now }
    }

    /// Where everything lies when the data have grown to so many sectors. Nothing that is moved is written over before: internal
    /// metadata move behind the end of the device as it was, bitmaps of external ones that become longer behind what is there.
    pub fn grown(&self, data: u64, devices: Devices) -> Result<Layout, MetaError> {
        let plain = Shape::for_data(data, self.shape.peers)?;
        if data <= self.shape.data {
            return Err(MetaError::Shape("a replica only grows"));
        }
        let shape = Shape { data, bit: plain.bit.max(self.shape.bit), ..self.shape };
        if !self.is_internal() {
            let same = (shape.bit, shape.bitmap_pages()) == (self.shape.bit, self.shape.bitmap_pages());
            let bitmaps = if same { self.bitmaps } else { self.end().next_multiple_of(PAGE) };
            let layout = Layout { shape, bitmaps, ..*self };
            let fits = layout.end() <= devices.meta && data <= devices.data / SECTOR;
            shape.check()?;
            return if fits { Ok(layout) } else { Err(too_small(layout.end(), devices.meta)) };
        }
        let slots = plain.log_slots.max(self.shape.log_slots);
        let shape = Shape { log_slots: slots, log_pages: self.shape.log_pages.max(pages_for(slots)), ..shape };
        shape.check()?;
        let len = devices.meta / PAGE * PAGE;
        let before = self.end().max(data * SECTOR);
        let needed = before.saturating_add(shape.meta_len());
        if needed > len {
            return Err(too_small(needed, len));
        }
        Ok(Layout::behind(len, shape))
    }

    /// The places where superblocks may lie on a device of `len` bytes: internal, then external.
    pub fn places(len: u64) -> [[u64; 2]; 2] {
        let len = len / PAGE * PAGE;
        [[len.saturating_sub(PAGE), len.saturating_sub(2 * PAGE)], [0, PAGE]]
    }

    /// Where a page of a peer's bitmap lies.
    pub fn bitmap_page(&self, slot: usize, page: u64) -> u64 {
        self.bitmaps + (slot as u64 * self.shape.bitmap_pages() + page) * PAGE
    }

    /// Where the page of a log transaction lies.
    pub fn log_page(&self, transaction: u64) -> u64 {
        self.log + transaction % u64::from(self.shape.log_pages) * PAGE
    }

    /// The end of the metadata: what a device must be as long as.
    pub fn end(&self) -> u64 {
        let bitmaps = self.bitmap_page(usize::from(self.shape.peers), 0);
        let log = self.log + u64::from(self.shape.log_pages) * PAGE;
        bitmaps.max(log).max(self.supers[0] + PAGE).max(self.supers[1] + PAGE)
    }
}
