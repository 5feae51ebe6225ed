//! The local disk: a device with data, its metadata behind them or elsewhere; made, opened, and read and written for the core.

use std::sync::{Arc, mpsc};

use block::sync::{Memory, ThreadRing, run_batch};
use block::{
    AlignedBuf, BlockDevice, ByteLen, ByteOffset, Completion, Geometry, Io, IoErrorKind, Op, Provisioning, Rescan,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::UnboundedSender;

use super::Input;
use crate::core::event::{DiskError, IoId};
use crate::core::pieces::{Digest as Sum, UNIT, compare, digests};
use crate::ids::{NodeId, SECTOR, Span};
use crate::meta::audit::Audit;
use crate::meta::layout::{Devices, Layout, Shape};
use crate::meta::replica::Recovered;
use crate::meta::store::Store;
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
    let len = device.geometry().len.0 / PAGE * PAGE;
    let peers = u8::try_from(new.peers.len()).map_err(|_| MetaError::Shape("a replica has one to seven peers"))?;
    let layout = match new.size {
        None => Layout::internal(len, peers)?,
        Some(size) => {
            let shape = Shape::for_data(size / SECTOR, peers)?;
            let needed = size.saturating_add(shape.meta_len());
            if needed > len {
                return Err(MetaError::TooSmall { needed, len });
            }
            Layout::behind(len, shape)
        }
    };
    let superblock = Superblock::new(new.resource, random(), new.node, layout, &new.peers);
    Store::new(device).format(superblock)?;
    Ok(layout.shape.data * SECTOR)
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

/// A replica's disk, opened; what its last life left is made durable.
pub struct Local {
    device: Arc<dyn BlockDevice>,
    provisioning: Option<Arc<dyn Provisioning>>,
    growable: Option<(Arc<dyn Rescan>, Remember)>,
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
        Local::open_grown(device, life, &[])
    }

    /// The same for a disk that may have grown: metadata lie at its end, or at an end that it had (`known`: what was to be remembered,
    /// and what [`Local::found_by`] said).
    ///
    /// # Errors
    /// As of [`Local::open`].
    pub fn open_grown(device: Arc<dyn BlockDevice>, life: Life, known: &[u64]) -> Result<Local, MetaError> {
        let store = Store::new(Arc::clone(&device));
        let recovered = store.open_grown(life, known)?;
        Ok(Local { device, provisioning: None, growable: None, store, recovered })
    }

    /// What can look at the disk's length again, and who remembers where the metadata are or are about to be: a disk can grow once more
    /// before they are looked for. Without it the replica does not grow while it runs.
    #[must_use]
    pub fn growable(self, rescan: Arc<dyn Rescan>, remember: Remember) -> Local {
        Local { growable: Some((rescan, remember)), ..self }
    }

    /// Bytes of the disk by whose end the metadata are found; to be remembered, since the disk can grow before they move.
    pub fn found_by(&self) -> Option<u64> {
        self.superblock().layout.found_by()
    }

    /// What the disk can tell of itself. Without it nothing is freed on it: zeroes are written.
    #[must_use]
    pub fn provisioned(self, provisioning: Arc<dyn Provisioning>) -> Local {
        Local { provisioning: Some(provisioning), ..self }
    }

    pub(super) fn provisioning(&self) -> Option<Arc<dyn Provisioning>> {
        self.provisioning.clone()
    }

    /// What was written down.
    pub fn superblock(&self) -> &Superblock {
        self.recovered.replica.superblock()
    }

    /// Whether what was found proves that nothing is missing of what was acknowledged here.
    pub fn has_kept(&self) -> bool {
        self.recovered.kept
    }

    /// Bytes of data.
    pub fn size(&self) -> u64 {
        self.superblock().size * SECTOR
    }

    /// Bytes of data that there is room for now.
    pub(super) fn measure(&self) -> Room {
        Room { rescan: self.growable.as_ref().map(|(r, _)| Arc::clone(r)), layout: self.superblock().layout }
    }

    /// As others see the device.
    pub(super) fn geometry(&self) -> Geometry {
        let len = ByteLen(self.size());
        Geometry { len, memory_align: 1, discard: true, read_only: false, ..self.device.geometry() }
    }

    /// Begins: the core gets what was found, the disk serves it.
    pub(super) fn begin(self, input: UnboundedSender<Input>) -> std::io::Result<(Recovered, Disk)> {
        let (meta, work) = mpsc::channel::<Work>();
        let (store, told, growable) = (self.store, input.clone(), self.growable);
        std::thread::Builder::new()
            .name("replica-meta".to_owned())
            .spawn(move || write_metadata(&store, growable.as_ref(), &work, &told))?;
        let (sums, work) = mpsc::channel::<Looked>();
        let told = input.clone();
        std::thread::Builder::new().name("replica-sums".to_owned()).spawn(move || sum_up(&work, &told))?;
        let sectors = self.recovered.replica.superblock().size;
        let frees = self.device.geometry().discard && self.provisioning.is_some_and(|p| p.discard_zeroes());
        Ok((self.recovered, Disk { device: self.device, sectors, frees, meta, sums, input }))
    }
}

/// How much room there is on the disk.
pub(super) struct Room {
    rescan: Option<Arc<dyn Rescan>>,
    layout: Layout,
}

impl Room {
    /// Bytes of data that it has room for; those it has if that cannot be told.
    pub(super) fn bytes(&self) -> u64 {
        let now = self.layout.shape.data;
        let len = self.rescan.as_ref().and_then(|r| r.rescan().ok());
        len.map_or(now, |len| self.layout.room(Devices { data: len.0, meta: len.0 })) * SECTOR
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
    growable: Option<&(Arc<dyn Rescan>, Remember)>,
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
            Work::Measure => Input::Measured(growable.and_then(measured)),
        };
        if told.send(said).is_err() {
            return;
        }
    }
}

/// How long the disk is, once it is remembered that the metadata may be at that end soon.
fn measured((rescan, remember): &(Arc<dyn Rescan>, Remember)) -> Option<Devices> {
    let len = rescan.rescan().inspect_err(|e| tracing::error!("the disk's length cannot be looked at: {e}")).ok()?.0;
    remember(len / PAGE * PAGE)
        .inspect_err(|e| tracing::error!("it cannot be written down where the metadata are to be: {e}"))
        .ok()?;
    Some(Devices { data: len, meta: len })
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

/// The disk at work.
pub(super) struct Disk {
    device: Arc<dyn BlockDevice>,
    sectors: u64,
    /// What is discarded reads as zeroes.
    frees: bool,
    meta: mpsc::Sender<Work>,
    sums: mpsc::Sender<Looked>,
    input: UnboundedSender<Input>,
}

impl Disk {
    /// Sectors of data.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// The replica has grown.
    pub(super) fn grown(&mut self, sectors: u64) {
        self.sectors = sectors;
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

    /// Reads what of a span lies on the device: the last one may be longer.
    pub(super) fn read(&self, io: IoId, span: Span) {
        let len = span.end().min(self.sectors).saturating_sub(span.at) * SECTOR;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.device.submit(Io::read(ByteOffset(span.at * SECTOR), len, self.completion(io)));
    }

    /// Reads, and digests what was read or compares it with digests, on a thread of its own.
    pub(super) fn look(&self, io: IoId, span: Span, theirs: Option<Vec<Sum>>) {
        let len = span.end().min(self.sectors).saturating_sub(span.at) * SECTOR;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
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
        self.device.submit(Io::read(ByteOffset(span.at * SECTOR), len, done));
    }

    /// Zeroes; if it may be free, by a discard where that reads as zeroes.
    pub(super) fn zero(&self, io: IoId, span: Span, free: bool) {
        let (at, len) = (ByteOffset(span.at * SECTOR), ByteLen(span.len * SECTOR));
        let written = self.completion(io);
        if !(free && self.frees) {
            return self.device.submit(Io::ranged(Op::WriteZeroes, at, len, written));
        }
        let device = Arc::clone(&self.device);
        let freed = Completion::new(move |done| match done.result {
            Err(e) if e.kind == IoErrorKind::NotSupported => {
                device.submit(Io::ranged(Op::WriteZeroes, at, len, written));
            }
            _ => written.complete(done),
        });
        self.device.submit(Io::ranged(Op::Discard, at, len, freed));
    }

    pub(super) fn write(&self, io: IoId, span: Span, data: &[u8], fua: bool) {
        let buf = AlignedBuf::from_slice(data);
        self.device.submit(Io::write(ByteOffset(span.at * SECTOR), buf, fua, self.completion(io)));
    }

    pub(super) fn flush(&self, io: IoId) {
        self.device.submit(Io::flush(self.completion(io)));
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
    let store = Store::new(device);
    match crate::meta::audit::audit(&store, store.len(), &[]) {
        Ok(audit) => Ok(Some(audit.superblock)),
        Err(MetaError::NotThere) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Looks at everything that a replica has written down, and changes nothing. The caller keeps every user away from the disk; `known`: see
/// [`Local::open_grown`]. Blocks its thread.
///
/// # Errors
/// No replica, one of a newer program, one whose superblocks are both damaged; a disk that fails.
pub fn audit(device: Arc<dyn BlockDevice>, known: &[u64]) -> Result<Audit, MetaError> {
    let store = Store::new(device);
    crate::meta::audit::audit(&store, store.len(), known)
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
