//! Who waits for a lock.
//!
//! A waiter holds nothing and no request slot: its client was told "blocked", and is told "try again" when what was in the
//! way is gone. It keeps its place until it has the lock, gives up, or its client is gone. Prevents: waiting locks fill all
//! request slots, and the unlock that they wait for finds none.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Lock, LockTable, Owner, Space, deadlock};
use crate::types::{ClientId, HandleId, InodeNo};

/// A client's name for one of its waiters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WaitId(pub u64);

/// A wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait {
    /// Of which file.
    pub ino: InodeNo,
    /// Which kind.
    pub space: Space,
    /// What.
    pub lock: Lock,
}

/// Why a lock was not given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// This one is in the way; whoever asked is queued.
    Blocked(Lock),
    /// Waiting would never end: the owners wait for one another (`EDEADLK`).
    Deadlock,
}

/// A waiter.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    client: ClientId,
    id: WaitId,
    wait: Wait,
}

/// Where a waiter stands: its file, and its number in the order of arrival.
type Place = (InodeNo, u64);

/// The queue of a volume.
#[derive(Debug, Default)]
pub struct Waiters {
    queue: BTreeMap<Place, Waiter>,
    places: BTreeMap<(ClientId, WaitId), Place>,
    owners: BTreeMap<Owner, BTreeSet<Place>>,
    arrived: u64,
}

impl Waiters {
    /// Takes the lock, or queues for it; a second attempt of the same waiter keeps its place.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn acquire(&mut self, table: &mut LockTable, id: WaitId, wait: Wait) -> Result<(), Refused> {
        let client = wait.lock.owner.client;
        match table.set(wait.ino, wait.space, wait.lock) {
            Ok(()) => {
                self.leave(client, id);
                Ok(())
            }
            Err(_) if deadlock::closes_circle(table, self, &wait) => {
                self.leave(client, id);
                Err(Refused::Deadlock)
            }
            Err(other) => {
                if !self.places.contains_key(&(client, id)) {
                    self.arrived += 1;
                    let place = (wait.ino, self.arrived);
                    self.places.insert((client, id), place);
                    self.owners.entry(wait.lock.owner).or_default().insert(place);
                    self.queue.insert(place, Waiter { client, id, wait });
                }
                Err(Refused::Blocked(other))
            }
        }
    }

    /// Waits no more.
    pub fn leave(&mut self, client: ClientId, id: WaitId) {
        let Some(place) = self.places.remove(&(client, id)) else { return };
        let Some(waiter) = self.queue.remove(&place) else { return };
        let owner = waiter.wait.lock.owner;
        if let Some(places) = self.owners.get_mut(&owner) {
            places.remove(&place);
            if places.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }

    /// A client is gone.
    pub fn client_gone(&mut self, client: ClientId) {
        self.leave_where(|w| w.client == client);
    }

    /// An open file is gone; nobody waits through it any more.
    pub fn released(&mut self, ino: InodeNo, client: ClientId, handle: HandleId) {
        self.leave_where(|w| w.client == client && w.wait.ino == ino && w.wait.lock.handle == handle);
    }

    fn leave_where(&mut self, which: impl Fn(&Waiter) -> bool) {
        let gone: Vec<_> = self.queue.values().filter(|w| which(w)).map(|w| (w.client, w.id)).collect();
        gone.into_iter().for_each(|(client, id)| self.leave(client, id));
    }

    /// Who waits for a lock of this file that nothing held is in the way of any more, in the order of arrival; of those
    /// that are in each other's way the first.
    pub fn ready(&self, table: &LockTable, ino: InodeNo) -> Vec<(ClientId, WaitId)> {
        let mut chosen: Vec<(Space, Lock)> = Vec::new();
        let mut ready = Vec::new();
        for Waiter { client, id, wait } in self.queue.range((ino, 0)..=(ino, u64::MAX)).map(|(_, w)| w) {
            let free = table.test(wait.ino, wait.space, &wait.lock).is_none();
            let first = !chosen.iter().any(|(space, lock)| *space == wait.space && lock.conflicts(&wait.lock));
            if free && first {
                chosen.push((wait.space, wait.lock));
                ready.push((*client, *id));
            }
        }
        ready
    }

    /// What an owner waits for.
    pub(super) fn of_owner(&self, owner: Owner) -> impl Iterator<Item = &Wait> + '_ {
        let places = self.owners.get(&owner).into_iter().flatten();
        places.filter_map(|place| self.queue.get(place)).map(|w| &w.wait)
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.queue.len()
    }
}
