//! Which request an answer belongs to: the pure core of request and reply.
//!
//! A slab of slots. A request's id is `generation << 32 | slot + 1`, so it is never 0, and an id is not used
//! again before its slot has been reused 2^32 times.
//!
//! ```text
//!          open                answer
//!  Free ─────────► Waiting(W) ───────► Free     (W is handed out)
//!                     │ abandon
//!                     ▼          answer
//!                  Abandoned ────────► Free     (the late answer is discarded)
//! ```
//! Invariants: an abandoned slot is not free until its answer has come, so a late answer never meets a later
//! request (the interleaving prevented: call, drop, call again, first answer); every `W` that went in comes out
//! exactly once, by `answer`, `abandon` or `close`; after `close` nothing can be opened. Used by `Conn`, with a
//! oneshot sender as `W`.

/// An answer that no request waits for: a protocol violation of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer to request {0:#x}, which is not outstanding")]
pub struct UnknownRequest(pub u64);

/// Why no request can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// All slots are taken; the shell's admission should have prevented it.
    Full,
    /// Closed.
    Closed,
}

/// What an answer found.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered<W> {
    /// Somebody waits.
    Deliver(W),
    /// Nobody waits any more; the request's cost is given back here.
    Late {
        /// What the request cost.
        cost: u32,
    },
}

enum Slot<W> {
    Free { next: Option<u32> },
    Waiting(W),
    Abandoned { cost: u32 },
}

struct Entry<W> {
    generation: u32,
    slot: Slot<W>,
}

/// The outstanding requests of one direction of a connection.
pub struct Calls<W> {
    entries: Vec<Entry<W>>,
    free: Option<u32>,
    taken: usize,
    max: usize,
    closed: bool,
}

impl<W> Calls<W> {
    /// At most `max` requests at once.
    pub fn new(max: usize) -> Self {
        Self { entries: Vec::new(), free: None, taken: 0, max, closed: false }
    }

    /// Slots that are not free, abandoned ones included.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Opens a request; its id. `waiter` comes back by [`Calls::answer`], [`Calls::abandon`] or [`Calls::close`].
    pub fn open(&mut self, waiter: W) -> Result<u64, (NotOpened, W)> {
        if self.closed {
            return Err((NotOpened::Closed, waiter));
        }
        if self.taken == self.max {
            return Err((NotOpened::Full, waiter));
        }
        let index = match self.free {
            Some(index) => index,
            None => self.grow(),
        };
        let entry = &mut self.entries[index as usize];
        if let Slot::Free { next } = entry.slot {
            self.free = next;
        }
        entry.slot = Slot::Waiting(waiter);
        self.taken += 1;
        let id = id_of(index, entry.generation);
        self.check();
        Ok(id)
    }

    /// The answer to `id` has come.
    pub fn answer(&mut self, id: u64) -> Result<Answered<W>, UnknownRequest> {
        let index = self.find(id)?;
        let answered = match self.release(index) {
            Slot::Waiting(w) => Answered::Deliver(w),
            Slot::Abandoned { cost } => Answered::Late { cost },
            Slot::Free { .. } => return Err(UnknownRequest(id)),
        };
        self.check();
        Ok(answered)
    }

    /// Nobody waits for `id` any more. Its waiter, unless the answer has come before.
    /// `cost` stays with the slot and comes back with the late answer.
    pub fn abandon(&mut self, id: u64, cost: u32) -> Option<W> {
        let index = self.find(id).ok()?;
        let slot = &mut self.entries[index as usize].slot;
        match std::mem::replace(slot, Slot::Abandoned { cost }) {
            Slot::Waiting(w) => Some(w),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Ends everything: the waiters that will not be answered. Nothing can be opened afterwards.
    pub fn close(&mut self) -> Vec<W> {
        self.closed = true;
        self.free = None;
        self.taken = 0;
        let entries = std::mem::take(&mut self.entries);
        entries
            .into_iter()
            .filter_map(|e| match e.slot {
                Slot::Waiting(w) => Some(w),
                Slot::Free { .. } | Slot::Abandoned { .. } => None,
            })
            .collect()
    }

    /// Called with an empty free list and fewer than `max` slots taken, so the new index fits.
    fn grow(&mut self) -> u32 {
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Entry { generation: 0, slot: Slot::Free { next: None } });
        index
    }

    /// The slot of an outstanding request.
    fn find(&self, id: u64) -> Result<u32, UnknownRequest> {
        let (index, generation) = split(id).ok_or(UnknownRequest(id))?;
        match self.entries.get(index as usize) {
            Some(e) if e.generation == generation && !matches!(e.slot, Slot::Free { .. }) => Ok(index),
            _ => Err(UnknownRequest(id)),
        }
    }

    fn release(&mut self, index: u32) -> Slot<W> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let was = std::mem::replace(&mut entry.slot, Slot::Free { next: self.free });
        self.free = Some(index);
        self.taken -= 1;
        was
    }

    fn check(&self) {
        assert!(self.taken <= self.max, "more requests than slots");
        assert!(self.entries.len() <= self.max, "the slab outgrew its limit");
    }
}

fn id_of(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | (u64::from(index) + 1)
}

fn split(id: u64) -> Option<(u32, u32)> {
    let index = (id & 0xffff_ffff).checked_sub(1)?;
    Some((u32::try_from(index).ok()?, u32::try_from(id >> 32).ok()?))
}

#[cfg(test)]
mod tests;
