//! Starting a volume on a node, step by step; each step's failure says what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use block::device::BlockDevice;
use block::shared::{FenceGen, NodeId, SharedDisk, VolumeTag};
use fuse::{AllowOther, Channel, Ended, Inherited, Mount, MountError, MountOptions, Resent, ServeError};
use parking_lot::Mutex;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::watch;

use super::host::{Notice, VolumeHost};
use super::keep::{Left, VolumeKeeper};
use super::ledger::Book;
use super::office::OfficeConfig;
use super::over::Over;
use super::peers::{Finder, SlotProbe};
use super::place::{Place, Placed};
use super::source::DiskError;
use super::{Allow, Volume, VolumeSetup, one_host, rebirth, source};
use crate::client::data::{DataPath, first_handle};
use crate::client::fs::FileSystem;
use crate::client::link::{ClientEvent, Coordinators, Notebook};
use crate::client::session::{Session, SessionParts};
use crate::core::client::{Client, ClientConfig, Event, Ledger};
use crate::core::office::{NodeSet, Timing, TimingError};
use crate::format::{Chosen, Superblock};
use crate::meta::{MetaError, read_superblock};
use crate::proto::CoordinatorHint;
use crate::types::{ClientId, VolumeId};

/// The slot's registration is two requests to the disk; a disk that does not answer them is tried again later.
const REGISTER_WITHIN: Duration = Duration::from_secs(10);
/// A request that the kernel sends again to a process that goes on is read well within this.
const COMES_AGAIN_WITHIN: Duration = Duration::from_secs(8);
/// Redirected writes kept until they are flushed.
const KEPT_LIMIT: u64 = 64 << 20;

/// Why a volume was not started. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The disk carries no volume that this version can use.
    #[error("{disk}: {source}")]
    Superblock {
        /// The disk.
        disk: String,
        /// Why.
        source: MetaError,
    },
    /// It is another volume.
    #[error("{disk} carries volume {name} ({found}), not {wanted}: the disk was formatted again or exchanged")]
    OtherVolume {
        /// The disk.
        disk: String,
        /// The name of what it carries.
        name: String,
        /// What it carries.
        found: String,
        /// What was expected.
        wanted: String,
    },
    /// A file that another host uses.
    #[error("the disk {disk} cannot be used here: {source}")]
    NotOneHost {
        /// The disk.
        disk: String,
        /// Why.
        source: one_host::NotOneHost,
    },
    /// Times that cannot work.
    #[error("the times stored in the volume cannot work: {0}")]
    Timing(TimingError),
    /// The office.
    #[error(transparent)]
    Office(#[from] super::office::StartError),
    /// Another process holds this node's lock.
    #[error("another daemon of {0} still has this volume open; it must end first")]
    AlreadyRuns(NodeId),
    /// A target of this host serves the file.
    #[error("an iSCSI target of this host has the disk {0} open")]
    Served(String),
    /// Locks are not to be had.
    #[error("the disk's lock cannot be taken: {0}")]
    Lock(std::io::Error),
    /// The slot could not be registered.
    #[error("the disk did not answer within {} s", REGISTER_WITHIN.as_secs())]
    DiskSilent,
    /// The mount point.
    #[error("the mount point {} cannot be made: {source}", path.display())]
    MountPoint {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Mounting.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Something of the host itself.
    #[error("{0}")]
    Host(String),
}

/// The times stored in a volume.
pub(super) fn timing(superblock: &Superblock) -> Timing {
    let t = &superblock.timing;
    let ms = |n: u32| Duration::from_millis(u64::from(n));
    let preset = if *t == crate::format::TimingMs::FAST { Timing::FAST } else { Timing::DEFAULT };
    Timing {
        renew: ms(t.renew),
        suspend_after: ms(t.suspend_after),
        challenge_after: ms(t.challenge_after),
        path_timeout: ms(t.path_timeout),
        recall: ms(t.recall),
        grace: ms(t.grace),
        ..preset
    }
}

/// A node that is not heard any more is noticed within this (`net`'s keep-alive: 3 to 3.5 s), whatever the volume's times.
const CUT_NOTICED: Duration = Duration::from_secs(5);

/// The times of a reign. Prevents: the network is cut, with the majority on the other side; before the coordinator has
/// noticed, whom it does not hear has not answered a recall in time, and is evicted although it is well.
pub(super) fn reign_timing(superblock: &Superblock) -> Timing {
    let timing = timing(superblock);
    Timing { recall: timing.recall.max(CUT_NOTICED), ..timing }
}

impl StartError {
    /// Whether waiting may be all that is needed; what else stands in the way somebody has to put right.
    pub fn passes_by_itself(&self) -> bool {
        matches!(
            self,
            StartError::AlreadyRuns(_)
                | StartError::DiskSilent
                | StartError::Mount(MountError::Silent(_) | MountError::InitTimeout(_))
        )
    }
}

/// Whether a volume of that name could be mounted there now; changes nothing. A directory that is not there will be made.
///
/// # Cancel safety
/// Safe: it only looks.
pub async fn mountable(point: &Path, name: &str, allow: Allow) -> Result<(), StartError> {
    let place = Place::new(mount_options(point, name, allow));
    let checked = tokio::task::spawn_blocking(move || place.look().map_err(StartError::Mount));
    checked.await.map_err(|e| StartError::Host(e.to_string()))?
}

impl Volume {
    /// Starts a volume here and mounts it.
    ///
    /// # Cancel safety
    /// If dropped, what was begun ends again with the disk's last reference.
    pub async fn start(setup: VolumeSetup) -> Result<Arc<Volume>, StartError> {
        let tag = VolumeTag::of(&setup.id.parse::<VolumeId>().map_err(StartError::Host)?.0.to_be_bytes());
        let disk = source::open(&setup.disk, setup.workers.clone(), setup.fault_device, (tag, setup.node)).await?;
        let started = Volume::start_on(setup, &disk).await;
        if started.is_err()
            && let Some(nexuses) = disk.nexuses()
        {
            // Registrations that nobody stands behind keep others from formatting or checking it.
            let _ended = nexuses.leave().await;
        }
        started
    }

    async fn start_on(setup: VolumeSetup, disk: &SharedDisk) -> Result<Arc<Volume>, StartError> {
        let superblock = superblock_of(&setup, disk).await?;
        // Before anything is registered: a mount point that is in the way must not cost an incarnation at each attempt.
        let keeper = setup.keeper.clone().map(|keeper| VolumeKeeper::new(keeper, setup.id.clone()));
        let options = served_options(&setup, keeper.clone());
        let inherited = inherit(&setup, keeper.as_ref(), &options)?;
        if inherited.is_none() {
            mountable(&setup.mount, &setup.name, setup.allow).await?;
        }
        let timing = timing(&superblock);
        timing.validate().map_err(StartError::Timing)?;
        kept_from_others(&setup, disk, &superblock, timing).await?;
        // Whoever formats a disk holds every node's lock meanwhile. Prevents: the disk is formatted again between the
        // look at it and the lock, and this node begins to write to what is another volume now.
        still_that_volume(&setup, disk).await?;
        let host = VolumeHost::new(
            setup.node,
            disk.clone(),
            superblock.clone(),
            random()?,
            setup.rules,
            Arc::clone(&setup.transport),
            Arc::clone(&setup.notices),
        );
        host.bar(setup.barred);
        super::unit_news::follow(&host, disk);
        // Void from here on, whether or not this life begins with it.
        let known = keeper.as_ref().and_then(VolumeKeeper::take_known).filter(|_| inherited.is_some());
        // That everything of the life before has ended is proved by its LIVE lock, or was by that life itself.
        let known = known.filter(|left| disk.file().is_some() || left.resumes().ended);
        let config = office_config(&setup, &superblock, timing);
        let resumes = known.as_ref().map(Left::resumes);
        host.attach_office(rebirth::start_office(&host, disk, OfficeConfig { resumes, ..config.clone() })?);
        let life = registered(&host).await?;
        let known = known.filter(|left| left.counts_for(life.0));
        let served = known.as_ref().map(|left| matches!(left, Left::Killed(_)));
        let (path, book) = start_client(&setup, &host, disk, (&superblock, timing), life, (known, keeper.as_ref()));
        host.attach_lives(rebirth::follow_lives(&host, path.session(), disk.clone(), config));
        let placed = self::mount(options, inherited, served, &host).await;
        let Placed { mount, channels, place, was_dead } = match placed {
            Ok(placed) => placed,
            Err(e) => {
                if let Some(keeper) = &keeper {
                    keeper.release();
                }
                // Nobody is to be coordinator of a volume that it cannot serve to its own node.
                host.no_more_lives().await;
                host.office().stop().await;
                return Err(e);
            }
        };
        if was_dead {
            host.notice(Notice::StaleMountCleaned);
        }
        Ok(Arc::new(Volume {
            intake: serve(&setup, channels, &path, &host),
            name: setup.name,
            source: setup.disk,
            node: setup.node,
            superblock,
            disk: disk.clone(),
            host,
            path,
            features: mount.negotiated().features,
            mount: Mutex::new(Some((mount, place))),
            keeper,
            book,
            space: Mutex::default(),
        }))
    }
}

/// Sees to it that no other process of this node writes to the disk, nor a node that the disk's kind of fence does not reach: of a
/// file by this node's LIVE lock and by looking for other hosts. Of a unit every node is reached, and what an earlier process of
/// this one has sent ends with the logins of this one, under the same names, or is fenced.
async fn kept_from_others(
    setup: &VolumeSetup,
    disk: &SharedDisk,
    superblock: &Superblock,
    timing: Timing,
) -> Result<(), StartError> {
    if let Some(nexuses) = disk.nexuses() {
        nexuses.set_path_timeout(timing.path_timeout);
    }
    let Some(file) = disk.file() else { return Ok(()) };
    let boot = super::office::boot_id()?;
    one_host::only_this_host(disk, superblock.volume, boot, timing.renew)
        .await
        .map_err(|source| StartError::NotOneHost { disk: setup.disk.to_string(), source })?;
    match file.hold_live(setup.node) {
        Ok(true) => Ok(()),
        Ok(false) if source::is_served(disk) => Err(StartError::Served(setup.disk.to_string())),
        Ok(false) => Err(StartError::AlreadyRuns(setup.node)),
        Err(e) => Err(StartError::Lock(e)),
    }
}

async fn superblock_of(setup: &VolumeSetup, disk: &SharedDisk) -> Result<Superblock, StartError> {
    let chosen = chosen(setup, disk).await?;
    for remark in chosen.remarks() {
        (setup.notices)(Notice::Superblock(remark));
    }
    is_wanted(setup, &chosen.superblock)?;
    Ok(chosen.superblock)
}

async fn still_that_volume(setup: &VolumeSetup, disk: &SharedDisk) -> Result<(), StartError> {
    is_wanted(setup, &chosen(setup, disk).await?.superblock)
}

async fn chosen(setup: &VolumeSetup, disk: &SharedDisk) -> Result<Chosen, StartError> {
    let (cells, disk): (Arc<dyn BlockDevice>, _) = (Arc::clone(&disk.cells), setup.disk.to_string());
    let read = tokio::task::spawn_blocking(move || read_superblock(&cells)).await;
    read.map_err(|e| StartError::Host(e.to_string()))?.map_err(|source| StartError::Superblock { disk, source })
}

fn is_wanted(setup: &VolumeSetup, found: &Superblock) -> Result<(), StartError> {
    if found.volume.to_string() == setup.id {
        return Ok(());
    }
    let (name, found) = (found.name.to_string(), found.volume.to_string());
    Err(StartError::OtherVolume { disk: setup.disk.to_string(), name, found, wanted: setup.id.clone() })
}

fn office_config(setup: &VolumeSetup, superblock: &Superblock, timing: Timing) -> OfficeConfig {
    OfficeConfig {
        volume: superblock.volume,
        node: setup.node,
        nodes: setup.peers.iter().copied().chain([setup.node]).collect::<NodeSet>(),
        address: String::new(),
        timing,
        rules: setup.rules,
        resumes: None,
    }
}

/// This life of this node, part of every stability verifier.
fn random() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|e| StartError::Host(format!("no random numbers: {e}")))?;
    Ok(u64::from_be_bytes(bytes))
}

async fn registered(host: &VolumeHost) -> Result<(ClientId, FenceGen), StartError> {
    let mut state = host.office().state();
    let waited = tokio::time::timeout(REGISTER_WITHIN, state.wait_for(|s| s.client.is_some())).await;
    waited.ok().and_then(Result::ok).and_then(|s| s.client).ok_or(StartError::DiskSilent)
}

fn start_client(
    setup: &VolumeSetup,
    host: &Arc<VolumeHost>,
    disk: &SharedDisk,
    (superblock, timing): (&Superblock, Timing),
    (client, fence_gen): (ClientId, FenceGen),
    (known, keeper): (Option<Left>, Option<&VolumeKeeper>),
) -> (Arc<DataPath>, Option<Arc<Book>>) {
    let events = Arc::downgrade(host);
    let control = tokio::runtime::Handle::current();
    let finder = Arc::new(Finder::new(host, superblock.volume, setup.peers.clone(), control.clone()));
    let parts = SessionParts {
        config: ClientConfig {
            volume: superblock.volume,
            client,
            fence_gen,
            probe_every: timing.renew,
            kept_limit: KEPT_LIMIT,
            rides_out: timing.suspend_after.saturating_sub(timing.path_timeout),
        },
        coordinators: Arc::clone(&finder) as Arc<dyn Coordinators>,
        witnesses: finder,
        abort: Arc::clone(&disk.abort),
        slot: Arc::new(SlotProbe { disk: disk.clone(), volume: superblock.volume, node: setup.node }),
        events: Arc::new(move |event: ClientEvent| {
            if let Some(host) = events.upgrade() {
                host.client_event(event);
            }
        }),
        path_timeout: timing.path_timeout,
        io_timeout: setup.io_timeout,
        control,
    };
    let (rules, now) = (setup.rules, Session::now());
    let (core, ledger) = match &known {
        Some(Left::InOrder(record)) => {
            let core = Client::resume(parts.config, &record.client, rules, now);
            (core, record.ledger())
        }
        Some(Left::Killed(ledger)) => {
            let mut ledger = ledger.clone();
            (Client::recover(parts.config, &mut ledger, rules, now), *ledger)
        }
        None => {
            let first = first_handle(client.incarnation);
            (Client::new(parts.config, rules, now), Ledger::new(client, first, first))
        }
    };
    // Before anything that it does not know is done. Where nobody could prove that this process has ended, nobody goes on for it.
    let fenced = known.as_ref().filter(|left| left.resumes().fence_gen < fence_gen).map(|_| fence_gen);
    let keeper = keeper.filter(|_| disk.file().is_some());
    let book = keeper.map(|keeper| Arc::new(Book::begin(keeper.clone(), ledger)));
    let notebook = book.clone().map(|book| book as Arc<dyn Notebook>);
    let session = Session::noting(parts, if book.is_some() { core.noting() } else { core }, rules, notebook);
    let path = DataPath::new(session, Arc::clone(&disk.data), setup.workers.count());
    if let Some(left) = known {
        goes_on(&left, fenced, &path);
    }
    // Only now does it hear of a coordinator. Prevents: it binds and is told that it was evicted before the files are there that its
    // programs have open; none of them is poisoned, and one whose lock was given away goes on.
    host.attach_client(&path);
    path.start(&setup.workers);
    (path, book)
}

/// What the process before had open is open here, in its incarnation. If that was `fenced`, it drains first.
fn goes_on(left: &Left, fenced: Option<FenceGen>, path: &Arc<DataPath>) {
    let session = path.session();
    match left {
        Left::InOrder(record) => path.resume(&record.files),
        Left::Killed(ledger) => path.recover(ledger),
    }
    if let Some(fence_gen) = fenced {
        // Before it asks for anything: as for a life that was there when it was fenced.
        session.post(Event::FenceAsked { fence_gen });
    }
    if let Left::Killed(ledger) = left {
        path.gives_back(ledger);
    }
    match left {
        Left::InOrder(record) if record.client.forced => session.force_redirect(true),
        Left::InOrder(_) => {}
        Left::Killed(_) => none_comes_again_soon(session),
    }
}

/// What the kernel has sent again is read at once; what did not come has no caller any more.
fn none_comes_again_soon(session: &Arc<Session>) {
    let session = Arc::downgrade(session);
    tokio::spawn(async move {
        tokio::time::sleep(COMES_AGAIN_WITHIN).await;
        if let Some(session) = session.upgrade() {
            session.post(Event::NoneComesAgain);
        }
    });
}

/// Tells the client and people who coordinates, as the office learns it; ends with that office.
pub(super) fn follow_office(host: &Arc<VolumeHost>) {
    let mut state = host.office().state();
    let host = Arc::downgrade(host);
    tokio::spawn(async move {
        let mut said: Option<CoordinatorHint> = None;
        loop {
            let hint = state.borrow_and_update().hint.clone();
            let Some(host) = host.upgrade() else { return };
            if let Some(hint) = hint.filter(|h| said.as_ref() != Some(h)) {
                if let Some(session) = host.session() {
                    session.hint(hint.clone());
                }
                host.notice(Notice::Coordinates(hint.clone()));
                said = Some(hint);
            }
            drop(host);
            if state.changed().await.is_err() {
                return;
            }
        }
    });
}

fn mount_options(point: &Path, name: &str, allow: Allow) -> MountOptions {
    MountOptions {
        subtype: "shorefast".into(),
        default_permissions: true,
        allow_other: if allow.other { AllowOther::IfPermitted } else { AllowOther::No },
        suid: allow.suid,
        devices: allow.devices,
        clean_stale: true,
        ..MountOptions::new(point, format!("shorefast:{name}"))
    }
}

fn served_options(setup: &VolumeSetup, keeper: Option<VolumeKeeper>) -> MountOptions {
    MountOptions {
        channels: setup.workers.count(),
        without: setup.without.clone(),
        keeper: keeper.map(|keeper| Arc::new(keeper) as Arc<dyn fuse::Keeper>),
        ..mount_options(&setup.mount, &setup.name, setup.allow)
    }
}

/// The mount that was kept, if it can be taken over.
fn inherit(
    setup: &VolumeSetup,
    keeper: Option<&VolumeKeeper>,
    options: &MountOptions,
) -> Result<Option<Inherited>, StartError> {
    let Some(keeper) = keeper else { return Ok(None) };
    let Some(kept) = keeper.kept().map_err(|e| StartError::Host(e.to_string()))? else { return Ok(None) };
    // Released it is dead, and replaced as such; at once, or at the next try.
    let refused = |e: &fuse::InheritError| {
        tracing::warn!(volume = %setup.name, "the mount of the daemon before is not taken over: {e}");
        keeper.release();
    };
    Ok(Mount::inherit(kept, options).inspect_err(refused).ok())
}

/// The mount that was kept, or a new one. What was in flight there is served if it is `known` what the process before did, and
/// whether it was killed.
async fn mount(
    options: MountOptions,
    inherited: Option<Inherited>,
    known: Option<bool>,
    host: &Arc<VolumeHost>,
) -> Result<Placed, StartError> {
    if let Some(inherited) = inherited {
        let resent = if known.is_some() { Resent::Served } else { Resent::Failed };
        let (mount, channels) = inherited.resend(resent).map_err(|e| StartError::Host(e.to_string()))?;
        host.notice(Notice::MountTakenOver { resumed: known.is_some(), died: known != Some(false) });
        let place = Place::of(&mount, options);
        return Ok(Placed { mount, channels, place, was_dead: false });
    }
    let place = Place::new(options);
    let mounted = tokio::task::spawn_blocking(move || place.mount()).await;
    mounted.map_err(|e| StartError::Host(e.to_string()))?
}

/// Whether anything is taken in from the kernel, and who answers it.
pub(super) struct Intake {
    pub(super) open: watch::Sender<bool>,
    /// Here, and not only with the channels: what is asked of it may be answered when no channel is served any more.
    ///
    /// Prevents: a daemon makes room for the next, its channels end, and a look-up that is on its way to the coordinator has nobody left
    /// who could answer it: EIO.
    _fs: Arc<FileSystem>,
}

/// Serves until the mount ends, or what this returns says false: nothing more is taken in once all who listen to it have gone.
fn serve(setup: &VolumeSetup, channels: Vec<Channel>, path: &Arc<DataPath>, host: &Arc<VolumeHost>) -> Intake {
    let open = watch::Sender::new(true);
    let fs = FileSystem::new(Arc::clone(path));
    for (worker, channel) in channels.into_iter().enumerate() {
        let (fs, host, mut intake) = (Arc::clone(&fs), Arc::downgrade(host), open.subscribe());
        // The handler lives on its worker; it ends with the mount.
        drop(setup.workers.spawn(worker, move || async move {
            let handler = fs.handler();
            // A task of its own: whoever wakes it for a request looks at nothing else.
            let mut serving = tokio::task::spawn_local(channel.serve(move |request| handler.handle(request)));
            let served = tokio::select! {
                served = &mut serving => served.unwrap_or_else(|e| Err(ServeError::Watch(e.into()))),
                Ok(_) = intake.wait_for(|open| !open) => {
                    serving.abort();
                    // It may be at a request just now. Gone it is only when it has ended, and so is `intake`.
                    let _ = serving.await;
                    return;
                }
            };
            let how = match served {
                Ok(Ended::Unmounted) => Over::Unmounted,
                Ok(Ended::Aborted) => Over::Aborted,
                Err(e) => {
                    tracing::error!("a channel of the mount has ended: {e}");
                    Over::Aborted
                }
            };
            if let Some(host) = host.upgrade() {
                host.life().channel_ended(how);
            }
        }));
    }
    Intake { open, _fs: fs }
}
