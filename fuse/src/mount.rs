//! A mount, from the first look at the mount point to the end.
//!
//! What it is: [`Mount::open`] checks the point, mounts, answers INIT and gives one [`Channel`] per
//! worker; [`Mount`] unmounts and aborts. All of it blocks, for at most some seconds, and belongs on a
//! thread that serves no channel: unmounting talks to the mount's own daemon.
//!
//! What it refuses, each with its own error and a sentence that says what to do: a point that is
//! missing, no directory, not empty, already mounted, or mounted by a daemon that does not answer; no
//! FUSE, no permission, no fusermount3; a kernel that lacks what is needed. What a *dead* daemon of our
//! type left on the point is unmounted first.
//!
//! States: mounted → unmounted. A [`Mount`] that is dropped mounted is unmounted lazily, so that no
//! error path leaves a mount behind whose daemon is about to end.
//!
//! Invariant: only the mount made here is ever taken away. Before each unmount the table of mounts is
//! asked whether what is on top of the point is still the connection that was made.

mod attach;
mod control;
mod error;
mod handshake;
mod inherit;
mod options;
mod point;
mod table;

pub use attach::replaces_dead;
pub use error::{AbortError, InheritError, MountError, UnmountError};
pub use inherit::{Inherited, Resent};
pub use options::{AllowOther, MountHow, MountOptions};
pub use point::{MountState, probe};

use crate::channel::{Channel, Session, slab_size};
use crate::device::Device;
use crate::features::Feature;
use crate::init::{Negotiated, Wanted};
use crate::kept::{Described, Keepsake, Record, Resends};
use crate::notify::Notifier;
use crate::parse::Dialect;
use block::buf::BufPool;
use error::{errno, system};
use rustix::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Who has it open for so long uses it.
const IN_USE_FOR: Duration = Duration::from_millis(200);

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// Refuse if it is in use.
    Idle,
    /// Out of the tree at once; what is open stays usable until it is closed.
    Lazy,
}

/// A mount of ours.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    connection: u32,
    by_helper: bool,
    allow_other: bool,
    cleaned: usize,
    /// Of its channels. The first tells whether the connection is alive.
    devices: Vec<Arc<Device>>,
    /// What outlives this process, if somebody keeps it.
    record: Option<Arc<Record>>,
    negotiated: Negotiated,
    notifier: Notifier,
    mounted: AtomicBool,
}

impl Mount {
    /// Mounts. Blocks: two seconds at most for a mount that stands in the way, ten for the kernel.
    ///
    /// # Errors
    /// See [`MountError`]; nothing stays mounted then.
    pub fn open(options: &MountOptions) -> Result<(Self, Vec<Channel>), MountError> {
        options.check()?;
        let mut claimed = point::claim(options)?;
        let attached = attach::attach(options, &mut claimed)?;
        let mut placed = attached.by_helper();
        let by_helper = placed;
        let begun = begin(options, &mut claimed, attached, &mut placed);
        if begun.is_err() && placed {
            // The first error is the one to tell; what could not be unmounted is dead and will be
            // cleaned by the next mount.
            let _ = attach::detach(&claimed.path, by_helper, true);
        }
        begun
    }

    /// Whether these options could be mounted with now; changes nothing. Takes two seconds at most.
    ///
    /// # Errors
    /// Those of [`Mount::open`] that are about the mount point.
    pub fn check(options: &MountOptions) -> Result<(), MountError> {
        options.check()?;
        point::look(options)
    }

    /// Takes away what dead daemons left at the point, and mounts nothing there; how many mounts. Takes two seconds at most
    /// for one that does not answer.
    ///
    /// # Errors
    /// Those of [`Mount::open`] that are about the mount point: what is alive, not empty or of another type stays.
    pub fn clear(options: &MountOptions) -> Result<usize, MountError> {
        options.check()?;
        let mut claimed = point::claim(options)?;
        point::uncover(&mut claimed)?;
        Ok(claimed.cleaned)
    }

    /// Where it is mounted, resolved.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.path
    }

    /// The connection's number in /sys/fs/fuse/connections.
    #[must_use]
    pub fn connection(&self) -> u32 {
        self.connection
    }

    /// What was agreed with the kernel.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// May other users use it?
    #[must_use]
    pub fn allow_other(&self) -> bool {
        self.allow_other
    }

    /// Mounts of dead daemons that were cleaned away for this one.
    #[must_use]
    pub fn cleaned_stale(&self) -> usize {
        self.cleaned
    }

    /// Sends notifications to the kernel, on their own thread.
    #[must_use]
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Takes the mount away; [`Channel::serve`] then ends. Done already counts as done. Blocks, for 200 ms if it is in
    /// use: not for a thread that serves a channel of it.
    ///
    /// # Errors
    /// See [`UnmountError`]; the mount is still there and served.
    pub fn unmount(&self, how: Unmount) -> Result<(), UnmountError> {
        match table::at(&self.path).map_err(|error| UnmountError::System(errno(&error)))? {
            Some(top) if top.minor == self.connection => self.detach(how)?,
            _ if self.in_table()? => return Err(UnmountError::Covered(self.path.clone())),
            _ => {}
        }
        self.mounted.store(false, Ordering::Release);
        Ok(())
    }

    /// Ends the connection at once: every caller, waiting or to come, gets an error, and
    /// [`Channel::serve`] ends. The mount stays in the tree until it is unmounted. Does not block.
    ///
    /// # Errors
    /// See [`AbortError`]; [`AbortError::Gone`] if the connection has ended already, aborted or unmounted.
    pub fn abort(&self) -> Result<(), AbortError> {
        control::abort(self.connection, &self.devices[0])
    }

    /// Requests that were read and not answered yet, while no channel is served any more.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        // Each is held by this mount, and the first by the notifier's thread; the rest are replies.
        let held = self.devices.len() + usize::from(self.notifier.is_running());
        self.devices.iter().map(Arc::strong_count).sum::<usize>().saturating_sub(held)
    }

    /// Leaves the mount to the next process: it stays in the tree, and whoever uses it waits. No channel may be served any
    /// more. Tells whether everything that was read is answered; what is not is not answered by this process any more, and will
    /// be sent again.
    ///
    /// # Errors
    /// If nobody keeps it, or the record cannot be written. It is unmounted lazily then.
    pub fn leave(self) -> Result<bool, InheritError> {
        let record = self.record.clone().ok_or(InheritError::NotKept)?;
        self.devices.iter().for_each(|device| device.leave());
        let drained = self.unanswered() == 0;
        record.leaves(drained).map_err(InheritError::System)?;
        self.mounted.store(false, Ordering::Release);
        Ok(drained)
    }

    /// In use may mean for a moment: whoever looks at every mount has it open for that long, and a child that this process
    /// is just starting holds copies of all its descriptors until its exec.
    fn detach(&self, how: Unmount) -> Result<(), UnmountError> {
        let since = Instant::now();
        loop {
            match attach::detach(&self.path, self.by_helper, how == Unmount::Lazy) {
                Err(UnmountError::Busy(_)) if since.elapsed() < IN_USE_FOR => std::thread::sleep(IN_USE_FOR / 10),
                done => return done,
            }
        }
    }

    /// Is it in the table of mounts, on top or below something?
    fn in_table(&self) -> Result<bool, UnmountError> {
        let all = table::all().map_err(|error| UnmountError::System(errno(&error)))?;
        Ok(all.iter().any(|entry| entry.minor == self.connection && entry.mountpoint == self.path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted.load(Ordering::Acquire)
            && let Err(error) = self.unmount(Unmount::Lazy)
        {
            tracing::warn!(path = %self.path.display(), %error, "the mount stays");
        }
    }
}

/// INIT, the place in the tree, the other channels, and what they share.
fn begin(
    options: &MountOptions,
    claimed: &mut point::Claimed,
    attached: attach::Attached,
    placed: &mut bool,
) -> Result<(Mount, Vec<Channel>), MountError> {
    let wanted =
        Wanted { max_write: options.max_write, max_background: options.max_background, without: &options.without };
    let negotiated = handshake::run(&attached.device, wanted)?;
    let (allow_other, by_helper) = (attached.allow_other, attached.by_helper());
    let devices = clones(attached.device, options.channels)?;
    let mut described = Described::new(&claimed.path, by_helper, allow_other, negotiated);
    let record = kept(options, &devices, &described)?;
    if let Some(mount) = &attached.detached {
        attach::place(mount, claimed)?;
        *placed = true;
    }
    let path = &claimed.path;
    if !claimed.below.is_still_empty().map_err(system("listing the mount point behind the mount"))? {
        return Err(MountError::NotEmpty(path.clone()));
    }
    let connection = table::at(path)
        .map_err(|error| system("reading /proc/self/mountinfo")(errno(&error)))?
        .ok_or_else(|| system("finding the new mount")(rustix::io::Errno::NOENT))?
        .minor;
    described.connection = connection;
    if let Some(record) = &record {
        record.describe(&described).map_err(system("describing the mount for who comes after"))?;
    }
    let expire = negotiated.features.has(Feature::HasExpireOnly);
    let notifier = Notifier::start(Arc::clone(&devices[0]), expire)
        .map_err(|error| system("starting the notification thread")(errno(&error)))?;
    let mount = Mount {
        path: path.clone(),
        connection,
        by_helper,
        allow_other,
        cleaned: claimed.cleaned,
        devices: devices.clone(),
        record,
        negotiated,
        notifier,
        mounted: AtomicBool::new(true),
    };
    Ok((mount, channels(devices, &negotiated, options.idle_slabs, None)))
}

/// Before anybody can use the mount its keeper has all that it takes to serve it.
fn kept(
    options: &MountOptions,
    devices: &[Arc<Device>],
    described: &Described,
) -> Result<Option<Arc<Record>>, MountError> {
    let Some(keeper) = &options.keeper else { return Ok(None) };
    let failed = |error: std::io::Error| system("giving the mount to its keeper")(errno(&error));
    let record = Record::create().map_err(system("making the record of the mount"))?;
    record.describe(described).map_err(system("describing the mount for who comes after"))?;
    keeper.keep(Keepsake::Record, record.as_fd()).map_err(failed)?;
    for (number, device) in (0..).zip(devices) {
        keeper.keep(Keepsake::Channel(number), device.as_fd()).map_err(failed)?;
    }
    Ok(Some(Arc::new(record)))
}

fn clones(first: Device, count: usize) -> Result<Vec<Arc<Device>>, MountError> {
    let mut devices = vec![Arc::new(first)];
    while devices.len() < count {
        let clone = devices[0].try_clone().map_err(system("opening another channel of /dev/fuse"))?;
        devices.push(Arc::new(clone));
    }
    Ok(devices)
}

fn channels(
    devices: Vec<Arc<Device>>,
    negotiated: &Negotiated,
    idle_slabs: usize,
    resends: Option<Arc<Resends>>,
) -> Vec<Channel> {
    // At most 1 MiB.
    let max_write = negotiated.max_write as usize;
    let session = Arc::new(Session {
        pool: BufPool::new(slab_size(max_write), idle_slabs),
        max_write,
        dialect: Dialect { setxattr_ext: negotiated.features.has(Feature::SetxattrExt) },
        resends,
    });
    devices.into_iter().map(|device| Channel::new(device, Arc::clone(&session))).collect()
}
