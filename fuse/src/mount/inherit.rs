//! A mount of a process that has ended, taken over by the next one.
//!
//! What it is: [`Mount::inherit`] makes a [`Mount`] again of the descriptors that were kept, without INIT;
//! [`Inherited::resend`] asks the kernel for what the process before had read and not answered, and only then gives the
//! channels. Between the two whoever inherits learns whether what is resent may be executed (it asks its coordinator, say).
//! Until then every caller waits in the kernel, and nothing is lost.
//!
//! What it refuses: a mount that is gone, one that was never complete, and one whose requests were in flight when the
//! process died on a kernel that cannot send them again: they would wait for ever. Refused, the descriptors are closed; once
//! their keeper has closed its own the mount is dead, and can be replaced as such.
//!
//! The process before must have ended, and have been waited for. Prevents: it still reads, and takes what is resent.

use super::{InheritError, Mount, MountOptions, channels};
use crate::channel::Channel;
use crate::device::Device;
use crate::features::Feature;
use crate::kept::{Before, Keepsake, Kept, Record, Resends};
use crate::notify::Notifier;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What becomes of what was in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resent {
    /// It is handed out, marked as resent.
    Served,
    /// It is answered EIO: nobody knows what the process before had done of it. What was never read is served.
    Failed,
}

/// A mount that was taken over and is not served yet.
#[derive(Debug)]
pub struct Inherited {
    mount: Mount,
    record: Arc<Record>,
    before: Before,
    idle_slabs: usize,
    channels: usize,
}

impl Mount {
    /// Takes over what was kept. Of `options` the number of channels, the idle slabs and the keeper count; the rest is
    /// as it was agreed when the mount was made.
    ///
    /// # Errors
    /// See [`InheritError`].
    pub fn inherit(kept: Kept, options: &MountOptions) -> Result<Inherited, InheritError> {
        let (record, described) = Record::open(kept.record.ok_or(InheritError::NotKept)?)?;
        let before = record.before().map_err(InheritError::System)?;
        let devices = devices(kept.channels, options)?;
        if !devices[0].is_connected().map_err(InheritError::System)? {
            return Err(InheritError::Gone);
        }
        let negotiated = described.negotiated;
        if before != Before::Drained && !negotiated.features.has(Feature::HasResend) {
            return Err(InheritError::CannotResend);
        }
        let expire = negotiated.features.has(Feature::HasExpireOnly);
        let notifier = Notifier::start(Arc::clone(&devices[0]), expire)
            .map_err(|error| InheritError::System(super::errno(&error)))?;
        let record = Arc::new(record);
        let mount = Mount {
            path: described.path,
            connection: described.connection,
            by_helper: described.by_helper,
            allow_other: described.allow_other,
            cleaned: 0,
            devices,
            record: Some(Arc::clone(&record)),
            negotiated,
            notifier,
            // Not ours to unmount while it is not served: whoever fails here may try again.
            mounted: AtomicBool::new(false),
        };
        Ok(Inherited { mount, record, before, idle_slabs: options.idle_slabs, channels: options.channels })
    }
}

impl Inherited {
    /// The mount.
    #[must_use]
    pub fn mount(&self) -> &Mount {
        &self.mount
    }

    /// How the process before ended.
    #[must_use]
    pub fn before(&self) -> Before {
        self.before
    }

    /// Has sent again what is owed, and gives the channels. Once, before anything is read.
    ///
    /// # Errors
    /// [`InheritError::Gone`] if it was unmounted meanwhile. Without an error nobody waits for ever.
    pub fn resend(self, resent: Resent) -> Result<(Mount, Vec<Channel>), InheritError> {
        let resends = Resends::begin(Arc::clone(&self.record), resent == Resent::Served, now_ms());
        let resends = resends.map_err(InheritError::System)?;
        if self.mount.negotiated.features.has(Feature::HasResend) {
            self.mount.devices[0].resend().map_err(|error| match error {
                Errno::NODEV | Errno::CONNABORTED | Errno::NOTCONN | Errno::PERM => InheritError::Gone,
                error => InheritError::System(error),
            })?;
        }
        self.mount.mounted.store(true, Ordering::Release);
        let served = self.mount.devices.iter().take(self.channels).cloned().collect();
        let channels = channels(served, &self.mount.negotiated, self.idle_slabs, Some(resends));
        Ok((self.mount, channels))
    }
}

/// All that were kept, in the order of their numbers, and as many more as are to be served.
fn devices(
    mut kept: Vec<(u16, rustix::fd::OwnedFd)>,
    options: &MountOptions,
) -> Result<Vec<Arc<Device>>, InheritError> {
    kept.sort_by_key(|(number, _)| *number);
    let next = kept.last().map_or(0, |(number, _)| number.saturating_add(1));
    let found: Result<Vec<_>, _> = kept.into_iter().map(|(_, fd)| Device::from_fd(fd).map(Arc::new)).collect();
    let mut devices = found.map_err(InheritError::System)?;
    let first = Arc::clone(devices.first().ok_or(InheritError::NotKept)?);
    let keeper = options.keeper.as_ref().ok_or(InheritError::NotKept)?;
    for number in next.. {
        if devices.len() >= options.channels {
            break;
        }
        let device = first.try_clone().map_err(|error| match error {
            // Its connection has ended, so it is a channel of none.
            Errno::INVAL => InheritError::Gone,
            error => InheritError::System(error),
        })?;
        // Kept before it reads anything. Prevents: what it has read when this process dies is never sent again.
        keeper
            .keep(Keepsake::Channel(number), device.as_fd())
            .map_err(|error| InheritError::System(super::errno(&error)))?;
        devices.push(Arc::new(device));
    }
    Ok(devices)
}

fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let ms = now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(ms).unwrap_or(0)
}
