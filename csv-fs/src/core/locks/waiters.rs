//! Who waits for a lock.
//!
//! A waiter holds nothing and no request slot: its client was told "waits", and is told "ask again" when what was in the
//! way is gone. It keeps its place until it has the lock, gives up, or its client is gone. Prevents: waiting locks fill all
//! request slots, and the unlock that they wait for finds none.
//!
//! ```text
//!            nothing in the way       asks again, blocked
//!   queued ─────────────────► told ─────────────────────► queued
//!                              │  does not come within SLOW: others are told too
//!                              └─ asks again, gets it ──► gone
//! ```
//! Between "told" and its coming a lock is free, and whoever comes to wait for one that conflicts queues behind it.
//! Prevents: a program on the coordinator's own node that takes and drops a lock in a loop is always faster than the
//! message to a waiter on another node, which waits for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{ByteRange, Lock, LockTable, Owner, Space, WaitId, deadlock};
use crate::core::time::Now;
use crate::types::{ClientId, HandleId, InodeNo};

/// A waiter that was told and has not come for so long stands in nobody's way any more, and is told again: its node is
/// slow, or the message was lost.
const SLOW: Duration = Duration::from_millis(500);

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
    /// Another's lock, or the wish of one that was told, is in the way; whoever asked is queued.
    Blocked,
    /// Waiting would never end: the owners wait for one another (`EDEADLK`).
    Deadlock,
}

/// A waiter that was told that its lock is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    /// When, the last time.
    at: Now,
    /// It has not come in time once.
    slow: bool,
}

/// A waiter.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    client: ClientId,
    id: WaitId,
    wait: Wait,
    told: Option<Told>,
}

/// Where a waiter stands: its file, and its number in the order of arrival.
type Place = (InodeNo, u64);

/// The queue of a volume.
#[derive(Debug, Default)]
pub struct Waiters {
    queue: BTreeMap<Place, Waiter>,
    places: BTreeMap<(ClientId, WaitId), Place>,
    owners: BTreeMap<Owner, BTreeSet<Place>>,
    told: BTreeSet<Place>,
    arrived: u64,
}

impl Waiters {
    /// Takes the lock, or queues for it; a second attempt of the same waiter keeps its place.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn acquire(&mut self, table: &mut LockTable, id: WaitId, wait: Wait) -> Result<(), Refused> {
        let client = wait.lock.owner.client;
        table.lets_go_first(wait.ino, wait.space, &wait.lock);
        let place = self.places.get(&(client, id)).copied();
        let refused = if table.test(wait.ino, wait.space, &wait.lock).is_some() {
            deadlock::closes_circle(table, self, &wait).then_some(Refused::Deadlock).or(Some(Refused::Blocked))
        } else {
            self.is_promised(table, &wait, place).then_some(Refused::Blocked)
        };
        match refused {
            None => {
                self.leave(client, id);
                table.put(wait.ino, wait.space, wait.lock);
                return Ok(());
            }
            Some(Refused::Deadlock) => drop(self.leave(client, id)),
            Some(Refused::Blocked) => match place {
                Some(place) => self.untell(place),
                None => self.queue(client, id, wait),
            },
        }
        refused.map_or(Ok(()), Err)
    }

    fn queue(&mut self, client: ClientId, id: WaitId, wait: Wait) {
        self.arrived += 1;
        let place = (wait.ino, self.arrived);
        self.places.insert((client, id), place);
        self.owners.entry(wait.lock.owner).or_default().insert(place);
        self.queue.insert(place, Waiter { client, id, wait, told: None });
    }

    fn untell(&mut self, place: Place) {
        self.told.remove(&place);
        if let Some(waiter) = self.queue.get_mut(&place) {
            waiter.told = None;
        }
    }

    /// Whether somebody who came earlier was told that he may have what conflicts with this.
    fn is_promised(&self, table: &LockTable, wait: &Wait, place: Option<Place>) -> bool {
        let before = place.unwrap_or((wait.ino, u64::MAX));
        let promised = self.told.range((wait.ino, 0)..before).filter_map(|place| self.queue.get(place));
        promised.filter(|w| w.told.is_some_and(|t| !t.slow)).any(|w| {
            w.wait.space == wait.space
                && w.wait.lock.conflicts(&wait.lock)
                && table.test(w.wait.ino, w.wait.space, &w.wait.lock).is_none()
        })
    }

    /// Waits no more; what it waited for.
    pub fn leave(&mut self, client: ClientId, id: WaitId) -> Option<Wait> {
        let place = self.places.remove(&(client, id))?;
        self.told.remove(&place);
        let waiter = self.queue.remove(&place)?;
        let owner = waiter.wait.lock.owner;
        if let Some(places) = self.owners.get_mut(&owner) {
            places.remove(&place);
            if places.is_empty() {
                self.owners.remove(&owner);
            }
        }
        Some(waiter.wait)
    }

    /// A client waits no more, for anything; what it waited for.
    pub fn client_gone(&mut self, client: ClientId) -> Vec<Wait> {
        let of_client = (client, WaitId(0))..=(client, WaitId(u64::MAX));
        let gone: Vec<WaitId> = self.places.range(of_client).map(|((_, id), _)| *id).collect();
        gone.into_iter().filter_map(|id| self.leave(client, id)).collect()
    }

    /// An open file is gone; nobody waits through it any more. What was waited for.
    pub fn released(&mut self, ino: InodeNo, client: ClientId, handle: HandleId) -> Vec<Wait> {
        let through = |w: &&Waiter| w.client == client && w.wait.lock.handle == handle;
        let gone: Vec<WaitId> = self.of_file(ino).filter(through).map(|w| w.id).collect();
        gone.into_iter().filter_map(|id| self.leave(client, id)).collect()
    }

    fn of_file(&self, ino: InodeNo) -> impl Iterator<Item = &Waiter> + '_ {
        self.queue.range((ino, 0)..=(ino, u64::MAX)).map(|(_, w)| w)
    }

    /// Something about this range of a file has changed: who waits for a lock there that nothing is in the way of any more,
    /// in the order of arrival; of those that are in each other's way the first. They count as told from now on.
    pub fn ready(&mut self, table: &LockTable, ino: InodeNo, range: ByteRange, now: Now) -> Vec<(ClientId, WaitId)> {
        let mut chosen: Vec<(Space, Lock)> = Vec::new();
        let mut ready = Vec::new();
        for (place, waiter) in self.queue.range_mut((ino, 0)..=(ino, u64::MAX)) {
            let Wait { space, lock, .. } = waiter.wait;
            let concerned = lock.range.overlaps(range) && !waiter.told.is_some_and(|t| t.slow);
            let first = concerned && !chosen.iter().any(|(s, l)| *s == space && l.conflicts(&lock));
            if first && table.test(ino, space, &lock).is_none() {
                chosen.push((space, lock));
                if waiter.told.is_none() {
                    waiter.told = Some(Told { at: now, slow: false });
                    self.told.insert(*place);
                    ready.push((waiter.client, waiter.id));
                }
            }
        }
        ready
    }

    /// Those that were told and have not come: they are to be told again, and what they wait for is open to others.
    pub fn overdue(&mut self, now: Now) -> Vec<(ClientId, WaitId, Wait)> {
        let mut overdue = Vec::new();
        for place in &self.told {
            let Some(waiter) = self.queue.get_mut(place) else { continue };
            if let Some(told) = waiter.told.as_mut().filter(|t| now >= t.at + SLOW) {
                *told = Told { at: now, slow: true };
                overdue.push((waiter.client, waiter.id, waiter.wait));
            }
        }
        overdue
    }

    /// When [`Self::overdue`] is to be asked next.
    pub fn next(&self) -> Option<Now> {
        self.told.iter().filter_map(|place| Some(self.queue.get(place)?.told?.at + SLOW)).min()
    }

    /// What an owner waits for.
    pub(super) fn of_owner(&self, owner: Owner) -> impl Iterator<Item = &Wait> + '_ {
        let places = self.owners.get(&owner).into_iter().flatten();
        places.filter_map(|place| self.queue.get(place)).map(|w| &w.wait)
    }

    /// Whether anybody waits for a client: a lock of it is the first in his way.
    pub fn wait_for(&self, table: &LockTable, client: ClientId) -> bool {
        let first = |w: &Waiter| table.test(w.wait.ino, w.wait.space, &w.wait.lock);
        self.queue.values().any(|w| first(w).is_some_and(|lock| lock.owner.client == client))
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.queue.len()
    }

    /// How many of a client wait.
    pub fn count_of(&self, client: ClientId) -> usize {
        self.places.range((client, WaitId(0))..=(client, WaitId(u64::MAX))).count()
    }
}
