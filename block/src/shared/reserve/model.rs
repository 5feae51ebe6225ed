//! A model of a disk's registrations, for tests: several nexuses, and others that act in between.

use std::sync::Arc;

use parking_lot::Mutex;
use scsi::ReservationKey;
use scsi::reservations::{FullStatus, Held, Keys, Reservation, ReservationType};

use super::{Keeps, Reservations, ReserveError};
use crate::shared::BoxFuture;

/// What another nexus does in between.
pub(crate) type Act = Box<dyn FnOnce(&mut Disk) + Send>;

/// The disk's registrations.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) keys: Vec<ReservationKey>,
    pub(crate) held: Option<ReservationType>,
    /// One after each reading of the keys.
    pub(crate) between: Vec<Act>,
    pub(crate) aborted: Vec<ReservationKey>,
    pub(crate) resets: u32,
}

/// A nexus of the model.
pub(crate) struct Nexus(pub(crate) Arc<Mutex<Disk>>);

type Answer<'a, T> = BoxFuture<'a, Result<T, ReserveError>>;

impl Reservations for Nexus {
    fn register(&self, key: ReservationKey, _: Keeps) -> Answer<'_, ()> {
        self.0.lock().keys.push(key);
        Box::pin(std::future::ready(Ok(())))
    }

    fn unregister(&self, key: ReservationKey) -> Answer<'_, ()> {
        self.0.lock().keys.retain(|k| *k != key);
        Box::pin(std::future::ready(Ok(())))
    }

    fn reserve(&self, _: ReservationKey, kind: ReservationType) -> Answer<'_, ()> {
        self.0.lock().held = Some(kind);
        Box::pin(std::future::ready(Ok(())))
    }

    fn preempt(&self, own: ReservationKey, victim: ReservationKey, _: ReservationType, abort: bool) -> Answer<'_, ()> {
        let mut disk = self.0.lock();
        if !disk.keys.contains(&own) {
            return Box::pin(std::future::ready(Err(ReserveError::NotRegistered)));
        }
        if !disk.keys.contains(&victim) {
            return Box::pin(std::future::ready(Err(ReserveError::Gone)));
        }
        disk.keys.retain(|k| *k != victim);
        if abort {
            disk.aborted.push(victim);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn reset_unit(&self) -> Answer<'_, ()> {
        self.0.lock().resets += 1;
        Box::pin(std::future::ready(Ok(())))
    }

    fn keys(&self) -> Answer<'_, Keys> {
        let mut disk = self.0.lock();
        let keys = Keys { keys: disk.keys.clone(), ..Keys::default() };
        if let Some(act) = disk.between.pop() {
            act(&mut disk);
        }
        Box::pin(std::future::ready(Ok(keys)))
    }

    fn reservation(&self) -> Answer<'_, Held> {
        let reservation = self.0.lock().held.map(|kind| Reservation { key: ReservationKey::NONE, kind });
        Box::pin(std::future::ready(Ok(Held { reservation, ..Held::default() })))
    }

    fn registrants(&self) -> Answer<'_, FullStatus> {
        Box::pin(std::future::ready(Ok(FullStatus::default())))
    }
}
