//! The local disks: for each volume a device with data, its metadata behind them; made, opened, and read and written for the core.
//!
//! An address says which disk it is on. A flush is one of all disks, and is over when the last of them is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use block::sync::{Memory, ThreadRing, run_batch};
use block::{
    AlignedBuf, BlockDevice, ByteLen, ByteOffset, Completion, Geometry, Io, IoErrorKind, Op, Provisioning, Rescan,
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::UnboundedSender;

use super::Input;
use crate::core::event::{DiskError, IoId};
use crate::core::pieces::{Digest as Sum, UNIT, compare, digests};
use crate::ids::{Lives, NodeId, SECTOR, Sizes, Span, Volume};
use crate::meta::audit::Audit;
use crate::meta::further::{Further, Label};
use crate::meta::layout::{Devices, Layout, Shape};
use crate::meta::replica::{Recovered, Replica, Swap};
use crate::meta::store::{Disks, Store};
use crate::meta::superblock::{Life, Superblock};
use crate::meta::{MetaError, MetaWrite, PAGE};

/// What a new replica is to be.
#[derive(Clone, Debug)]
pub struct NewReplica {
    /// Which resource: see [`resource_id`].
    pub resource: [u8; 16],
    /// This node.
    pub node: NodeId,
    /// Its peers.
    pub peers: Vec<NodeId>,
    /// Bytes of data; none: all that the disk has room for.
    pub size: Option<u64>,
}

/// A volume besides the first that a new replica is to have.
#[derive(Clone)]
pub struct NewVolume {
    /// Which.
    pub volume: Volume,
    /// Its disk.
    pub device: Arc<dyn BlockDevice>,
    /// Bytes of data; none: all that the disk has room for.
    pub size: Option<u64>,
}

/// The identity of a resource: what its cluster and its name make, so that all of its nodes come to the same.
pub fn resource_id(cluster: &str, name: &str) -> [u8; 16] {
    let digest = Sha256::digest(format!("shorefast replica {cluster}/{name}"));
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// A life of a machine and of a disk in it, from what tells them apart: the machine's boot, and which disk it is since it was
/// plugged in. What completed in it is there while it lasts.
pub fn life(boot: &str, disk: &str) -> Life {
    let digest = Sha256::digest(format!("shorefast life {boot}/{disk}"));
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    Life(id)
}

/// Makes a replica of a disk, its metadata behind its data; the bytes of data it has. Nobody has judged them yet: the first
/// promotion is a forced one. Whoever calls has made sure that nothing of value lies there. Blocks its thread.
///
/// # Errors
/// A disk that is too small or too large; one that fails.
pub fn create(new: &NewReplica, device: Arc<dyn BlockDevice>) -> Result<u64, MetaError> {
    create_volumes(new, device, &[]).map(|sizes| sizes.of(Volume::FIRST) * SECTOR)
}

/// The same with more volumes than the first, which has the metadata of the whole; the sectors of all come back.
///
/// # Errors
/// As of [`create`].
pub fn create_volumes(new: &NewReplica, device: Arc<dyn BlockDevice>, more: &[NewVolume]) -> Result<Sizes, MetaError> {
    let peers = u8::try_from(new.peers.len()).map_err(|_| MetaError::Shape("a replica has one to seven peers"))?;
    let mut further = Vec::new();
    for volume in more {
        let len = volume.device.geometry().len.0;
        further.push(Further::new(volume.volume, random(), len, peers, volume.size.map(|s| s / SECTOR))?);
    }
    let more_sectors = further.iter().map(|f| f.data).sum();
    let layout = first_layout(new, &device, peers, more_sectors)?;
    let mut superblock = Superblock::new(new.resource, random(), new.node, layout, &new.peers);
    further.into_iter().for_each(|f| superblock.set_further(f));
    let disks = Disks::default();
    disks.add(Volume::FIRST, device);
    more.iter().for_each(|v| disks.add(v.volume, Arc::clone(&v.device)));
    let sizes = superblock.sizes();
    Store::on(disks).format(superblock)?;
    Ok(sizes)
}

/// Where the first volume has what; its log is for all volumes.
fn first_layout(
    new: &NewReplica,
    device: &Arc<dyn BlockDevice>,
    peers: u8,
    more_sectors: u64,
) -> Result<Layout, MetaError> {
    let len = device.geometry().len.0 / PAGE * PAGE;
    let shape = match new.size {
        None if more_sectors == 0 => return Layout::internal(len, peers),
        None => {
            let inside = Layout::internal(len, peers)?.shape;
            let log = inside.with_log_for(inside.data + more_sectors);
            // The log may be longer than what is left behind the data.
            let longer = u64::from(log.log_pages.saturating_sub(inside.log_pages)) * (PAGE / SECTOR);
            Shape { data: inside.data.saturating_sub(longer), ..log }
        }
        Some(size) => {
            let shape = Shape::for_data(size / SECTOR, peers)?;
            shape.with_log_for(shape.data + more_sectors)
        }
    };
    shape.check()?;
    let needed = (shape.data * SECTOR).saturating_add(shape.meta_len());
    if needed > len { Err(MetaError::TooSmall { needed, len }) } else { Ok(Layout::behind(len, shape)) }
}

/// A number that nobody else draws.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Short reads are impossible at this length; an error leaves a number that only has to differ from others'.
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        tracing::error!("the kernel gave no random numbers");
    }
    u64::from_le_bytes(bytes)
}

/// Writes down, durably, that metadata may be found by this end of their disk, besides those it was opened with.
pub type Remember = Box<dyn Fn(u64) -> std::io::Result<()> + Send + Sync>;

/// The disk of a volume, and what can be asked about it.
#[derive(Clone)]
pub struct Part {
    device: Arc<dyn BlockDevice>,
    provisioning: Option<Arc<dyn Provisioning>>,
    rescan: Option<Arc<dyn Rescan>>,
}

impl Part {
    /// A disk of which nothing else is known.
    pub fn new(device: Arc<dyn BlockDevice>) -> Part {
        Part { device, provisioning: None, rescan: None }
    }

    /// What the disk can tell of itself. Without it nothing is freed on it: zeroes are written.
    #[must_use]
    pub fn provisioned(self, provisioning: Arc<dyn Provisioning>) -> Part {
        Part { provisioning: Some(provisioning), ..self }
    }

    /// What can look at the disk's length again. Without it the volume does not grow while the replica runs.
    #[must_use]
    pub fn growable(self, rescan: Arc<dyn Rescan>) -> Part {
        Part { rescan: Some(rescan), ..self }
    }

    /// What is discarded reads as zeroes.
    fn frees(&self) -> bool {
        self.device.geometry().discard && self.provisioning.as_ref().is_some_and(|p| p.discard_zeroes())
    }

    /// Bytes of it; what they were when it was opened if that cannot be looked at again.
    fn len(&self) -> u64 {
        let looked = self.rescan.as_ref().and_then(|r| {
            r.rescan().inspect_err(|e| tracing::error!("the disk's length cannot be looked at: {e}")).ok()
        });
        looked.unwrap_or_else(|| self.device.geometry().len).0
    }
}

/// The disks of all volumes; one can be added while they are used.
#[derive(Clone, Default)]
pub(super) struct Parts {
    all: Arc<RwLock<BTreeMap<Volume, Part>>>,
    disks: Disks,
}

impl Parts {
    pub(super) fn add(&self, volume: Volume, part: Part) {
        self.disks.add(volume, Arc::clone(&part.device));
        self.all.write().insert(volume, part);
    }

    /// A volume's disk is not used any more.
    pub(super) fn remove(&self, volume: Volume) {
        self.disks.remove(volume);
        self.all.write().remove(&volume);
    }

    pub(super) fn of(&self, volume: Volume) -> Option<Part> {
        self.all.read().get(&volume).cloned()
    }

    pub(super) fn provisioning(&self, volume: Volume) -> Option<Arc<dyn Provisioning>> {
        self.of(volume).and_then(|p| p.provisioning)
    }

    /// As others see a volume of so many sectors.
    pub(super) fn geometry(&self, volume: Volume, sectors: u64) -> Option<Geometry> {
        let own = self.of(volume)?.device.geometry();
        let len = ByteLen(sectors * SECTOR);
        Some(Geometry { len, memory_align: 1, discard: true, read_only: false, ..own })
    }

    /// How long the disks are.
    fn measured(&self) -> Devices {
        let all = self.all.read().clone();
        let len = |v: Volume| all.get(&v).map_or(0, Part::len);
        let first = len(Volume::FIRST);
        let further = Volume::all().skip(1).fold(Sizes::default(), |sizes, v| sizes.with(v, len(v)));
        Devices { data: first, meta: first, further }
    }
}

/// A replica's disks, opened; what their last life left is made durable.
pub struct Local {
    parts: Parts,
    remember: Option<Remember>,
    store: Store,
    recovered: Recovered,
}

impl Local {
    /// Opens the replica on a disk, in this life of the machine and the disk ([`life`]). The caller keeps every other user away
    /// from it. Blocks its thread.
    ///
    /// # Errors
    /// No replica, one of a newer program, a damaged one, a disk that is smaller than its metadata says.
    pub fn open(device: Arc<dyn BlockDevice>, life: Life) -> Result<Local, MetaError> {
        Local::open_parts([(Volume::FIRST, Part::new(device))], life, &[])
    }

    /// The same for the disks of several volumes, which may have grown: the metadata of the first lie at its end, or at an end that it had
    /// (`known`: what was to be remembered, and what [`Local::found_by`] said).
    ///
    /// # Errors
    /// As of [`Local::open`]; a volume without a disk, or with another one's.
    pub fn open_parts(
        parts: impl IntoIterator<Item = (Volume, Part)>,
        life: Life,
        known: &[u64],
    ) -> Result<Local, MetaError> {
        let all = Parts::default();
        parts.into_iter().for_each(|(volume, part)| all.add(volume, part));
        let store = Store::on(all.disks.clone());
        let recovered = store.open_grown(life, known)?;
        Ok(Local { parts: all, remember: None, store, recovered })
    }

    /// Who remembers where the metadata are or are about to be: a disk can grow once more before they are looked for. Without it the
    /// replica does not grow while it runs.
    #[must_use]
    pub fn remembered(self, remember: Remember) -> Local {
        Local { remember: Some(remember), ..self }
    }

    /// Bytes of the disk by whose end the metadata are found; to be remembered, since the disk can grow before they move.
    pub fn found_by(&self) -> Option<u64> {
        self.superblock().layout.found_by()
    }

    /// What was written down.
    pub fn superblock(&self) -> &Superblock {
        self.recovered.replica.superblock()
    }

    /// Whether what was found proves that nothing is missing of what was acknowledged here.
    pub fn has_kept(&self) -> bool {
        self.recovered.kept
    }

    /// Sectors of all volumes.
    pub fn sizes(&self) -> Sizes {
        self.superblock().sizes()
    }

    /// A disk that is none of a volume's any more is let go.
    pub fn leave_out(&self, volume: Volume) {
        self.parts.remove(volume);
    }

    pub(super) fn parts(&self) -> Parts {
        self.parts.clone()
    }

    /// Bytes of data that there is room for now.
    pub(super) fn measure(&self) -> Room {
        let grows = self.remember.is_some();
        Room { parts: self.parts.clone(), found: Mutex::new(self.superblock().clone()), grows }
    }

    /// Begins: the core gets what was found, the disks serve it.
    pub(super) fn begin(self, input: UnboundedSender<Input>) -> std::io::Result<(Recovered, Disk)> {
        let sizes = self.sizes();
        let (meta, work) = mpsc::channel::<Work>();
        let (store, told, parts, remember) = (self.store, input.clone(), self.parts.clone(), self.remember);
        std::thread::Builder::new()
            .name("replica-meta".to_owned())
            .spawn(move || write_metadata(&store, &parts, remember.as_ref(), &work, &told))?;
        let (sums, work) = mpsc::channel::<Looked>();
        let told = input.clone();
        std::thread::Builder::new().name("replica-sums".to_owned()).spawn(move || sum_up(&work, &told))?;
        Ok((self.recovered, Disk { parts: self.parts, sizes, meta, sums, input }))
    }
}

/// How much room there is on the disks.
pub(super) struct Room {
    parts: Parts,
    /// As it was when the volumes last changed.
    found: Mutex<Superblock>,
    grows: bool,
}

impl Room {
    /// Bytes of a volume's data that its disk has room for; those it has if that cannot be told.
    pub(super) fn bytes(&self, volume: Volume) -> u64 {
        let found = self.found.lock();
        let now = found.sizes().of(volume);
        if self.parts.of(volume).is_none() {
            return now * SECTOR;
        }
        let room = if self.grows { found.room(volume, &self.parts.measured()) } else { now };
        room.max(now) * SECTOR
    }

    /// The volumes have changed.
    pub(super) fn changed(&self, found: &Superblock) {
        *self.found.lock() = found.clone();
    }

    /// The lives of the volumes.
    pub(super) fn lives(&self) -> Lives {
        self.found.lock().lives()
    }
}

/// What the metadata's thread is asked for.
enum Work {
    Write(IoId, MetaWrite),
    Measure,
}

/// The metadata's thread: one change after the other, in the order in which they come.
fn write_metadata(
    store: &Store,
    parts: &Parts,
    remember: Option<&Remember>,
    work: &mpsc::Receiver<Work>,
    told: &UnboundedSender<Input>,
) {
    // Without a ring of its own its batches go through the workers.
    let _ring = ThreadRing::attach();
    while let Ok(work) = work.recv() {
        let said = match work {
            Work::Write(io, write) => {
                let result = store.write(&write).map(|()| Bytes::new()).map_err(|e| {
                    tracing::error!("{e}");
                    DiskError
                });
                Input::Done(io, result)
            }
            Work::Measure => Input::Measured(remember.and_then(|r| measured(parts, r))),
        };
        if told.send(said).is_err() {
            return;
        }
    }
}

/// How long the disks are, once it is remembered that the metadata may be at that end of the first soon.
fn measured(parts: &Parts, remember: &Remember) -> Option<Devices> {
    let devices = parts.measured();
    remember(devices.meta / PAGE * PAGE)
        .inspect_err(|e| tracing::error!("it cannot be written down where the metadata are to be: {e}"))
        .ok()?;
    Some(devices)
}

/// Bytes that were read to be compared, and with what; without it their digests are wanted.
struct Looked {
    io: IoId,
    bytes: Bytes,
    theirs: Option<Vec<Sum>>,
}

/// The digests' thread: hashing holds up neither the core nor the disk.
fn sum_up(work: &mpsc::Receiver<Looked>, told: &UnboundedSender<Input>) {
    let unit = usize::try_from(UNIT * SECTOR).unwrap_or(4096);
    while let Ok(Looked { io, bytes, theirs }) = work.recv() {
        let said = match theirs {
            None => Input::Digested(io, digests(&bytes, unit)),
            Some(theirs) => Input::Compared(io, compare(&bytes, unit, &theirs)),
        };
        if told.send(said).is_err() {
            return;
        }
    }
}

/// A flush of several disks: how many are not done, and whether any failed.
struct Flush {
    left: AtomicUsize,
    failed: AtomicBool,
}

/// The disks at work.
pub(super) struct Disk {
    parts: Parts,
    sizes: Sizes,
    meta: mpsc::Sender<Work>,
    sums: mpsc::Sender<Looked>,
    input: UnboundedSender<Input>,
}

impl Disk {
    /// Sectors of data.
    pub(super) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// A volume has grown.
    pub(super) fn grown(&mut self, volume: Volume, sectors: u64) {
        self.sizes = self.sizes.with(volume, sectors);
    }

    /// A volume was taken away: its disk is let go.
    pub(super) fn gone(&mut self, volume: Volume) {
        self.grown(volume, 0);
        self.parts.remove(volume);
    }

    /// The disk of an address, and where on it that is. None: it fails as a request of a disk that is not there.
    fn place(&self, io: IoId, at: u64) -> Option<(Part, ByteOffset)> {
        let part = Volume::of(at).and_then(|v| self.parts.of(v));
        if part.is_none() {
            tracing::error!("there is no disk for address {at}");
            let _ = self.input.send(Input::Done(io, Err(DiskError)));
        }
        part.map(|part| (part, ByteOffset(Volume::local(at) * SECTOR)))
    }

    /// Looks how long the device is now, on the metadata's thread: it has to wait for another disk.
    pub(super) fn measure(&self) {
        if self.meta.send(Work::Measure).is_err() {
            // A resource that has stopped needs to know nothing more.
            let _ = self.input.send(Input::Measured(None));
        }
    }

    fn completion(&self, io: IoId) -> Completion {
        let input = self.input.clone();
        Completion::new(move |done| {
            let result = match done.result {
                Ok(()) => Ok(done.buf.map(AlignedBuf::freeze).unwrap_or_default()),
                Err(e) => {
                    tracing::error!("the local disk failed: {e}");
                    Err(DiskError)
                }
            };
            // A resource that has stopped waits for nothing.
            let _ = input.send(Input::Done(io, result));
        })
    }

    /// Bytes of what of a span lies on its device: the last one may be longer.
    fn len(&self, span: Span) -> usize {
        usize::try_from(self.sizes.within(span).len * SECTOR).unwrap_or(usize::MAX)
    }

    /// Reads what of a span lies on the device.
    pub(super) fn read(&self, io: IoId, span: Span) {
        let Some((part, at)) = self.place(io, span.at) else { return };
        part.device.submit(Io::read(at, self.len(span), self.completion(io)));
    }

    /// Reads, and digests what was read or compares it with digests, on a thread of its own.
    pub(super) fn look(&self, io: IoId, span: Span, theirs: Option<Vec<Sum>>) {
        let Some((part, at)) = self.place(io, span.at) else { return };
        let (input, sums) = (self.input.clone(), self.sums.clone());
        let done = Completion::new(move |done| {
            let failed = match done.result {
                Ok(()) => {
                    let bytes = done.buf.map(AlignedBuf::freeze).unwrap_or_default();
                    sums.send(Looked { io, bytes, theirs }).is_err()
                }
                Err(e) => {
                    tracing::error!("the local disk failed: {e}");
                    true
                }
            };
            if failed {
                let _ = input.send(Input::Done(io, Err(DiskError)));
            }
        });
        part.device.submit(Io::read(at, self.len(span), done));
    }

    /// Zeroes; if it may be free, by a discard where that reads as zeroes.
    pub(super) fn zero(&self, io: IoId, span: Span, free: bool) {
        let Some((part, at)) = self.place(io, span.at) else { return };
        let (len, written) = (ByteLen(span.len * SECTOR), self.completion(io));
        if !(free && part.frees()) {
            return part.device.submit(Io::ranged(Op::WriteZeroes, at, len, written));
        }
        let device = Arc::clone(&part.device);
        let freed = Completion::new(move |done| match done.result {
            Err(e) if e.kind == IoErrorKind::NotSupported => {
                device.submit(Io::ranged(Op::WriteZeroes, at, len, written));
            }
            _ => written.complete(done),
        });
        part.device.submit(Io::ranged(Op::Discard, at, len, freed));
    }

    pub(super) fn write(&self, io: IoId, span: Span, data: Bytes, fua: bool) {
        let Some((part, at)) = self.place(io, span.at) else { return };
        let written = self.completion(io);
        part.device.submit(Io::write(at, AlignedBuf::of_bytes(data), fua, written));
    }

    /// Flushes the disks of all volumes. Prevents: a settlement says that everything is stable, and what one of the disks held in its
    /// cache is lost with its power.
    pub(super) fn flush(&self, io: IoId) {
        let disks: Vec<Part> = self.sizes.iter().filter_map(|(v, _)| self.parts.of(v)).collect();
        if let [one] = disks.as_slice() {
            return one.device.submit(Io::flush(self.completion(io)));
        }
        let all = Arc::new(Flush { left: AtomicUsize::new(disks.len()), failed: AtomicBool::new(false) });
        for part in disks {
            let (input, all) = (self.input.clone(), Arc::clone(&all));
            let done = Completion::new(move |done| {
                if let Err(e) = done.result {
                    tracing::error!("the local disk failed: {e}");
                    all.failed.store(true, Ordering::SeqCst);
                }
                if all.left.fetch_sub(1, Ordering::SeqCst) == 1 {
                    let failed = all.failed.load(Ordering::SeqCst);
                    let _ = input.send(Input::Done(io, if failed { Err(DiskError) } else { Ok(Bytes::new()) }));
                }
            });
            part.device.submit(Io::flush(done));
        }
    }

    pub(super) fn metadata(&self, io: IoId, write: MetaWrite) {
        if self.meta.send(Work::Write(io, write)).is_err() {
            tracing::error!("the thread of the metadata has ended");
            let _ = self.input.send(Input::Done(io, Err(DiskError)));
        }
    }
}

/// Whether a disk carries a replica already: its superblock, if it can be read. Blocks its thread.
///
/// # Errors
/// Metadata that are there and cannot be read: damaged, newer; a disk that fails.
pub fn find(device: Arc<dyn BlockDevice>) -> Result<Option<Superblock>, MetaError> {
    find_known(device, &[])
}

/// The same for a disk that may have grown; `known`: see [`Local::open_parts`].
///
/// # Errors
/// As of [`find`].
pub fn find_known(device: Arc<dyn BlockDevice>, known: &[u64]) -> Result<Option<Superblock>, MetaError> {
    let store = Store::new(device);
    match crate::meta::replica::find(&store, store.len(), known) {
        Ok((superblock, _)) => Ok(Some(superblock)),
        Err(MetaError::NotThere) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Looks at everything that a replica has written down, and changes nothing. The caller keeps every user away from the disks; `known`: see
/// [`Local::open_parts`]. Blocks its thread.
///
/// # Errors
/// No replica, one of a newer program, one whose superblocks are both damaged; a disk that fails.
pub fn audit(
    disks: impl IntoIterator<Item = (Volume, Arc<dyn BlockDevice>)>,
    known: &[u64],
) -> Result<Audit, MetaError> {
    let all = Disks::default();
    disks.into_iter().for_each(|(volume, device)| all.add(volume, device));
    let store = Store::on(all);
    crate::meta::audit::audit(&store, store.len(), known)
}

/// Whether a disk carries a further volume of a replica, by what its end says. Blocks its thread.
///
/// # Errors
/// A label of a newer program; a disk that fails.
pub fn find_volume(device: Arc<dyn BlockDevice>) -> Result<Option<Label>, MetaError> {
    let len = device.geometry().len.0 / PAGE * PAGE;
    let Some(at) = len.checked_sub(PAGE) else { return Ok(None) };
    Label::decode(&crate::meta::Reader::read(&Store::new(device), at, PAGE)?)
}

/// Gives one volume of a replica that does not run another disk, on which nothing is: what is there is synchronised in full when the replica has met
/// a peer, and until then it is whole no more. `disks`: those of the other volumes; of the old one nothing is read. Blocks its thread.
///
/// # Errors
/// As of [`Local::open`]; no such volume besides the first; a disk that is too short.
pub fn swap_disk(
    disks: impl IntoIterator<Item = (Volume, Arc<dyn BlockDevice>)>,
    known: &[u64],
    volume: Volume,
    device: Arc<dyn BlockDevice>,
) -> Result<(), MetaError> {
    let swap = Swap { volume, number: random(), len: device.geometry().len.0, marks: true };
    let all = Disks::default();
    disks.into_iter().chain([(volume, device)]).for_each(|(volume, device)| all.add(volume, device));
    let store = Store::on(all);
    let write = Replica::swap(&store, store.len(), known, swap)?;
    store.write(&write)
}

/// Takes the metadata away, so that the disk carries no replica any more. Blocks its thread.
///
/// # Errors
/// A disk that fails.
pub fn erase(device: &Arc<dyn BlockDevice>) -> Result<(), MetaError> {
    let places = Layout::places(device.geometry().len.0);
    let zero = |at: u64| {
        (
            Op::Write { fua: true },
            ByteOffset(at),
            Memory::Buf(AlignedBuf::zeroed(usize::try_from(PAGE).unwrap_or(4096))),
        )
    };
    for done in run_batch(&**device, places.into_iter().flatten().map(zero).collect()) {
        done.result?;
    }
    Ok(())
}
