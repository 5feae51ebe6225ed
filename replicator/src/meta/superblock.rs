//! The superblock: what a replica is, which data it holds, what it promised.
//!
//! Two copies. A change writes the one that is not the newest, with the next sequence, whole and flushed, before anybody
//! acts on it. [`newest`] takes the good copy with the highest sequence; a copy of a newer program decides alone.

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::further::{Further, Gone, RawFurther, Row};
use super::layout::{Devices, Layout, MAX_PEERS, Shape};
use super::{MetaError, PAGE};
use crate::ids::{Ballot, Generation, Grant, Lives, NodeId, NodeSet, SECTOR, Seq, Sizes, Volume};

/// Version of the format. 1: first. Programs that know of no [`Life`] leave zeroes there, which prove nothing.
pub const VERSION: u32 = 1;
/// The incompatible feature of a resource with more volumes than the first.
const SEVERAL_VOLUMES: u64 = 1;
/// That of one from which a volume was taken away, also if it was added again.
const SEVERAL_LIVES: u64 = 2;
/// Former generations that are remembered.
pub const HISTORY: usize = 32;
const MAGIC: [u8; 8] = *b"SHFREPL\0";
const CRC_AT: usize = 12;

/// How good the data are, from worst to best. The names and their order are DRBD's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub enum DiskState {
    /// There is no disk.
    Diskless,
    /// It failed and is being left.
    Failed,
    /// In the middle of a synchronisation: neither old nor new.
    Inconsistent,
    /// Whole, but older than what others have.
    Outdated,
    /// Whole; nobody said yet whether others have newer.
    Consistent,
    /// The newest.
    UpToDate,
}

/// What is remembered of oneself over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Was primary when it was written: found at a start, it is a crashed primary.
    pub primary: bool,
    /// The data are whole.
    pub consistent: bool,
    /// The data were the newest that this node knew of.
    pub up_to_date: bool,
    /// Was primary and lost quorum.
    pub lost_quorum: bool,
    /// Everything that was acknowledged here is stable here, and no extent is hot. Taken back before anything is written.
    pub at_rest: bool,
}

/// One life of the machine and of the disk in it: what completed in it is there for as long as it lasts, stable or not. Zeroes: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life(pub [u8; 16]);

impl Life {
    /// Nothing is known.
    pub const UNKNOWN: Life = Life([0; 16]);

    /// Whether it proves that what completed is there still.
    pub fn goes_on(self, then: Life) -> bool {
        self != Life::UNKNOWN && self == then
    }
}

/// What is remembered of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// The generation that both had when this side went on without it; the bits say what changed since.
    pub bitmap: Generation,
    /// Where the stream was then.
    pub position: Seq,
    /// Both were connected and equal when this was written.
    pub connected: bool,
    /// It cannot have newer data than this node.
    pub outdated: bool,
    /// Everything has to be synchronised.
    pub full_sync: bool,
}

/// The superblock in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Raised by each change.
    pub sequence: u64,
    /// Bits that older programs may not ignore.
    pub incompat: u64,
    /// The resource all replicas belong to.
    pub resource: [u8; 16],
    /// This replica's own number, drawn when it was made.
    pub device: u64,
    /// This node.
    pub node: NodeId,
    /// Where things lie.
    pub layout: Layout,
    /// Sectors of the replicated device as agreed; at most the shape's data.
    pub size: u64,
    /// About itself.
    pub flags: Flags,
    /// The generation of the data.
    pub current: Generation,
    /// When that generation began here or where it came from, in seconds since 1970.
    pub began: u64,
    /// The last position of the stream that is known to be here.
    pub position: Seq,
    /// Nothing of a lower ballot is accepted.
    pub promised: Ballot,
    /// The newest grant accepted.
    pub grant: Grant,
    /// About each peer, by its bitmap's slot.
    pub peers: Vec<Peer>,
    /// Former generations, newest first.
    pub history: Vec<Generation>,
    /// In which nothing that was acknowledged here is missing; unknown if something may be.
    pub life: Life,
    /// The volumes besides the first, ascending.
    pub further: Vec<Further>,
    /// Those that were taken away, and were not added again, ascending.
    pub gone: Vec<Gone>,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPeer {
    node: u8,
    flags: u8,
    reserved: [u8; 6],
    bitmap: U64,
    position: U64,
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuper {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    sequence: U64,
    incompat: U64,
    resource: [u8; 16],
    device: U64,
    node: u8,
    peers: u8,
    flags: u8,
    reserved: [u8; 5],
    data: U64,
    size: U64,
    bit: U32,
    extent: U32,
    log_slots: U32,
    log_pages: U32,
    supers: [U64; 2],
    log: U64,
    bitmaps: U64,
    current: U64,
    position: U64,
    promised_round: U32,
    promised_node: U32,
    grant_round: U32,
    grant_node: U32,
    grant_version: U32,
    reserved2: U32,
    grant_generation: U64,
    grant_members: U64,
    peer: [RawPeer; MAX_PEERS],
    history: [U64; HISTORY],
    began: U64,
    life: [u8; 16],
    further: [RawFurther; Volume::MOST - 1],
    tail: [u8; 2744],
}

const _: () = assert!(size_of::<RawSuper>() as u64 == PAGE);

impl Superblock {
    /// The superblock of a replica that was just made: its data are nobody's yet.
    pub fn new(resource: [u8; 16], device: u64, node: NodeId, layout: Layout, peers: &[NodeId]) -> Superblock {
        let peer = |n: &NodeId| Peer {
            node: *n,
            bitmap: Generation::NONE,
            position: Seq(0),
            connected: false,
            outdated: false,
            full_sync: false,
        };
        Superblock {
            sequence: 0,
            incompat: 0,
            resource,
            device,
            node,
            size: layout.shape.data,
            layout,
            flags: Flags::default(),
            current: Generation::JUST_CREATED,
            began: 0,
            position: Seq(0),
            promised: Ballot::default(),
            grant: Grant::default(),
            peers: peers.iter().map(peer).collect(),
            history: Vec::new(),
            life: Life::UNKNOWN,
            further: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// A volume besides the first.
    pub fn further(&self, volume: Volume) -> Option<&Further> {
        self.further.iter().find(|f| f.volume == volume)
    }

    /// A further volume is there, or is another than it was.
    pub(crate) fn set_further(&mut self, further: Further) {
        self.further.retain(|f| f.volume != further.volume);
        self.gone.retain(|g| g.volume != further.volume);
        self.further.push(further);
        self.further.sort_by_key(|f| f.volume);
        self.name_features();
    }

    /// A further volume is not there any more, or never was, and has that life.
    pub(crate) fn set_gone(&mut self, gone: Gone) {
        self.forget(gone.volume);
        self.gone.push(gone);
        self.gone.sort_by_key(|g| g.volume);
        self.name_features();
    }

    /// Nothing is known of a further volume.
    pub(crate) fn forget(&mut self, volume: Volume) {
        self.further.retain(|f| f.volume != volume);
        self.gone.retain(|g| g.volume != volume);
        self.name_features();
    }

    fn name_features(&mut self) {
        let several = if self.further.is_empty() { 0 } else { SEVERAL_VOLUMES };
        let lives = if self.lives().are_plain() { 0 } else { SEVERAL_LIVES };
        self.incompat = self.incompat & !(SEVERAL_VOLUMES | SEVERAL_LIVES) | several | lives;
    }

    /// The lives of all volumes.
    pub fn lives(&self) -> Lives {
        let there = self.further.iter().map(|f| (f.volume, f.life));
        let gone = self.gone.iter().map(|g| (g.volume, g.life));
        let first = Lives::default().with(Volume::FIRST, 1);
        there.chain(gone).fold(first, |lives, (volume, life)| lives.with(volume, life))
    }

    /// Sectors of all volumes, as agreed.
    pub fn sizes(&self) -> Sizes {
        self.further.iter().fold(Sizes::one(self.size), |sizes, f| sizes.with(f.volume, f.data))
    }

    /// Sectors of a volume's data.
    pub fn data(&self, volume: Volume) -> u64 {
        if volume == Volume::FIRST { self.layout.shape.data } else { self.further(volume).map_or(0, |f| f.data) }
    }

    /// The address of a page of a peer's bitmap of a volume.
    pub(super) fn bitmap_page(&self, volume: Volume, slot: usize, page: u64) -> u64 {
        self.further(volume).map_or_else(|| self.layout.bitmap_page(slot, page), |f| f.bitmap_page(slot, page))
    }

    /// The most sectors of a volume that there is room for on disks of these lengths; what there are now if they have not grown, and none
    /// of a volume that has no disk.
    pub fn room(&self, volume: Volume, devices: &Devices) -> u64 {
        let (peers, len) = (self.layout.shape.peers, devices.of(volume));
        match self.further(volume) {
            _ if volume == Volume::FIRST => self.layout.room(*devices),
            Some(further) => further.room(len, peers),
            None => Further::new(volume, 0, len, peers, None).map_or(0, |f| f.data),
        }
    }

    /// Memory that the bitmaps of all volumes and peers take, in bytes.
    pub fn memory(&self) -> u64 {
        let peers = u64::from(self.layout.shape.peers);
        let further: u64 = self.further.iter().map(|f| peers * f.bits().div_ceil(64) * 8).sum();
        self.layout.shape.memory() + further
    }

    /// What is known of a peer.
    pub fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.iter().find(|p| p.node == node)
    }

    /// The same, to change it.
    pub fn peer_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|p| p.node == node)
    }

    /// The slot of a peer's bitmap.
    pub fn slot(&self, node: NodeId) -> Option<usize> {
        self.peers.iter().position(|p| p.node == node)
    }

    /// Remembers a former generation.
    pub fn remember(&mut self, generation: Generation) {
        if generation.is_some() && generation != Generation::JUST_CREATED && !self.history.contains(&generation) {
            self.history.insert(0, generation);
            self.history.truncate(HISTORY);
        }
    }

    /// The state of the disk that the flags stand for.
    pub fn disk(&self) -> DiskState {
        match (self.flags.consistent, self.flags.up_to_date) {
            (false, _) => DiskState::Inconsistent,
            (true, false) => DiskState::Outdated,
            (true, true) => DiskState::Consistent,
        }
    }

    /// The place of the copy that is written next.
    pub fn place(&self) -> u64 {
        self.layout.supers[(self.sequence % 2) as usize]
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let shape = &self.layout.shape;
        let mut raw = RawSuper::new_zeroed_box();
        raw.magic = MAGIC;
        raw.version = VERSION.into();
        raw.sequence = self.sequence.into();
        raw.incompat = self.incompat.into();
        raw.resource = self.resource;
        raw.device = self.device.into();
        raw.node = self.node.get();
        raw.peers = shape.peers;
        raw.flags = self.flags.bits();
        raw.data = shape.data.into();
        raw.size = self.size.into();
        raw.bit = (shape.bit as u32).into();
        raw.extent = (shape.extent as u32).into();
        raw.log_slots = shape.log_slots.into();
        raw.log_pages = shape.log_pages.into();
        raw.supers = self.layout.supers.map(U64::new);
        raw.log = self.layout.log.into();
        raw.bitmaps = self.layout.bitmaps.into();
        raw.current = self.current.0.into();
        raw.began = self.began.into();
        raw.life = self.life.0;
        raw.position = self.position.0.into();
        raw.promised_round = self.promised.round.into();
        raw.promised_node = u32::from(self.promised.node).into();
        raw.grant_round = self.grant.ballot.round.into();
        raw.grant_node = u32::from(self.grant.ballot.node).into();
        raw.grant_version = self.grant.version.into();
        raw.grant_generation = self.grant.generation.0.into();
        raw.grant_members = self.grant.members.0.into();
        for (to, peer) in raw.peer.iter_mut().zip(&self.peers) {
            let flags = u8::from(peer.connected) | u8::from(peer.outdated) << 1 | u8::from(peer.full_sync) << 2;
            let (bitmap, position) = (peer.bitmap.0.into(), peer.position.0.into());
            *to = RawPeer { node: peer.node.get(), flags, reserved: [0; 6], bitmap, position };
        }
        for (to, generation) in raw.history.iter_mut().zip(&self.history) {
            *to = generation.0.into();
        }
        let there = self.further.iter().map(|f| (f.volume, RawFurther::of(f)));
        let gone = self.gone.iter().map(|g| (g.volume, RawFurther::of_gone(g)));
        let mut rows: Vec<(Volume, RawFurther)> = there.chain(gone).collect();
        rows.sort_by_key(|(volume, _)| *volume);
        for (to, (_, row)) in raw.further.iter_mut().zip(rows) {
            *to = row;
        }
        let mut bytes = raw.as_bytes().to_vec();
        let crc = crc_of(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// A copy from the disk; the error says whether it is none, damaged, or of a newer program.
    pub fn decode(bytes: &[u8]) -> Result<Superblock, MetaError> {
        let raw = RawSuper::read_from_bytes(bytes).map_err(|_| MetaError::Damaged)?;
        if raw.magic != MAGIC {
            return Err(MetaError::NotThere);
        }
        if raw.crc.get() != crc_of(bytes) {
            return Err(MetaError::Damaged);
        }
        let (version, incompat) = (raw.version.get(), raw.incompat.get());
        if version > VERSION || incompat & !(SEVERAL_VOLUMES | SEVERAL_LIVES) != 0 {
            return Err(MetaError::Newer { version, incompat });
        }
        let shape = Shape {
            data: raw.data.get(),
            bit: raw.bit.get().into(),
            extent: raw.extent.get().into(),
            peers: raw.peers,
            log_slots: raw.log_slots.get(),
            log_pages: raw.log_pages.get(),
        };
        shape.check()?;
        let layout = Layout { shape, supers: raw.supers.map(U64::get), log: raw.log.get(), bitmaps: raw.bitmaps.get() };
        let (further, gone) = table(&raw)?;
        Ok(Superblock {
            sequence: raw.sequence.get(),
            incompat,
            resource: raw.resource,
            device: raw.device.get(),
            node: NodeId::new(raw.node).ok_or(MetaError::Damaged)?,
            layout: checked(layout)?,
            size: raw.size.get(),
            flags: Flags::from_bits(raw.flags),
            current: Generation(raw.current.get()),
            began: raw.began.get(),
            position: Seq(raw.position.get()),
            promised: ballot(raw.promised_round, raw.promised_node)?,
            grant: Grant {
                ballot: ballot(raw.grant_round, raw.grant_node)?,
                version: raw.grant_version.get(),
                generation: Generation(raw.grant_generation.get()),
                members: NodeSet(raw.grant_members.get()),
            },
            peers: raw.peer.iter().filter_map(RawPeer::read).collect(),
            history: raw.history.iter().map(|g| Generation(g.get())).filter(|g| g.is_some()).collect(),
            life: Life(raw.life),
            further,
            gone,
        })
    }
}

/// The table of further volumes, each there once.
fn table(raw: &RawSuper) -> Result<(Vec<Further>, Vec<Gone>), MetaError> {
    let (mut further, mut gone, mut order) = (Vec::new(), Vec::new(), Vec::new());
    for row in &raw.further {
        match row.read(raw.peers)? {
            Some(Row::There(row)) => {
                order.push(row.volume);
                further.push(row);
            }
            Some(Row::Gone(row)) => {
                order.push(row.volume);
                gone.push(row);
            }
            None => {}
        }
    }
    let named = |feature: u64| raw.incompat.get() & feature != 0;
    let lives = !gone.is_empty() || further.iter().any(|f| f.life > 1);
    let as_named = named(SEVERAL_VOLUMES) != further.is_empty() && named(SEVERAL_LIVES) == lives;
    if !as_named || !order.is_sorted_by(|a, b| a < b) {
        return Err(MetaError::Shape("the table of volumes is in no order, or not what the features say"));
    }
    Ok((further, gone))
}

/// Places that lie in one another's way, or so far out that sums wrap, are no layout.
fn checked(layout: Layout) -> Result<Layout, MetaError> {
    const FAR: u64 = 1 << 62;
    let far = layout.supers.iter().chain([&layout.log, &layout.bitmaps]).any(|at| *at > FAR || at % SECTOR != 0);
    let shape = layout.shape;
    if far || shape.data > FAR / SECTOR || shape.meta_len() > FAR {
        return Err(MetaError::Shape("a part of the metadata lies outside every device"));
    }
    Ok(layout)
}

fn ballot(round: U32, node: U32) -> Result<Ballot, MetaError> {
    let node = u8::try_from(node.get()).map_err(|_| MetaError::Damaged)?;
    Ok(Ballot { round: round.get(), node })
}

impl RawPeer {
    fn read(&self) -> Option<Peer> {
        Some(Peer {
            node: NodeId::new(self.node)?,
            bitmap: Generation(self.bitmap.get()),
            position: Seq(self.position.get()),
            connected: self.flags & 1 != 0,
            outdated: self.flags & 2 != 0,
            full_sync: self.flags & 4 != 0,
        })
    }
}

impl RawSuper {
    fn new_zeroed_box() -> Box<RawSuper> {
        Box::new(<RawSuper as zerocopy::FromZeros>::new_zeroed())
    }
}

impl Flags {
    fn bits(self) -> u8 {
        let all = [self.primary, self.consistent, self.up_to_date, self.lost_quorum, false, self.at_rest];
        all.iter().enumerate().fold(0, |bits, (n, flag)| bits | u8::from(*flag) << n)
    }

    fn from_bits(bits: u8) -> Flags {
        let is = |n: u8| bits >> n & 1 == 1;
        Flags { primary: is(0), consistent: is(1), up_to_date: is(2), lost_quorum: is(3), at_rest: is(5) }
    }
}

fn crc_of(bytes: &[u8]) -> u32 {
    let head = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &[0; 4]);
    crc32c::crc32c_append(head, &bytes[CRC_AT + 4..])
}

/// The newest good one of two copies; a copy of a newer program decides alone.
pub fn newest(copies: [Result<Superblock, MetaError>; 2]) -> Result<Superblock, MetaError> {
    match copies {
        [Err(e @ MetaError::Newer { .. }), _] | [_, Err(e @ MetaError::Newer { .. })] => Err(e),
        [Ok(a), Ok(b)] => Ok(if a.sequence >= b.sequence { a } else { b }),
        [Ok(one), Err(_)] | [Err(_), Ok(one)] => Ok(one),
        [Err(MetaError::NotThere), Err(MetaError::NotThere)] => Err(MetaError::NotThere),
        [Err(e @ MetaError::Io(_)), _] | [_, Err(e @ MetaError::Io(_))] => Err(e),
        [Err(_), Err(_)] => Err(MetaError::Damaged),
    }
}
