//! Whether a flush may be believed.
//!
//! A unit keeps acknowledged writes in a cache that may be volatile. If it loses power or restarts, SYNCHRONIZE CACHE succeeds
//! afterwards all the same: it puts what is in the cache then on the medium, and the lost writes are not in it. Whoever is told
//! of success then believes in data that are gone.
//!
//! A unit that restarts ends every nexus, or tells each that stands by a unit attention (SAM-5 5.14). So a flush is believed
//! only if a **witness** is found: a nexus that stood when the oldest write that no flush covers was sent, stands when the
//! flush has been answered, has itself answered since, and was told of no reset in between.
//!
//! ```text
//!  clean ── write acknowledged ──► dirty(version) ── flush, its own nexus is a witness ─────────► clean, success
//!    ▲                                  │
//!    │                                  └── flush, it is none ──► another nexus of the unit is asked ── witness ──► clean, success
//!    └──────────────── failure, told to every flush that covers these writes ◄──────────────── none ──┘
//! ```
//! Versions count every change of a nexus, so that "stood when it was sent" is one comparison. A change that is noticed late
//! has a later version than it ought to: it makes a nexus less of a witness, never more.
//!
//! A nexus that is lost and begun anew is no witness, even though the unit may have lost nothing: some targets tell a new
//! nexus that it was reset in any case, others tell nothing in any case. With a second path that stood all the time nothing is
//! in doubt.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use block::shared::Notices;
use parking_lot::Mutex;
use scsi::cdb::TestUnitReady;
use tokio::sync::watch;

use super::cache::Known;
use super::device::Inner;

/// How long a witness may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Flushes whose writes are told apart: more of them at once, or failed ones in a row, count as one that began with the first.
const MAX_SEALED: usize = 64;

/// A count of changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Version(u64);

/// A nexus of the unit, by its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member(usize);

/// What a flush covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Covers {
    serial: u64,
    oldest: Option<Version>,
}

impl Covers {
    /// Whether it covers no write that may lie in a cache.
    pub(super) fn is_nothing(self) -> bool {
        self.oldest.is_none()
    }
}

#[derive(Debug, Default)]
struct Nexus {
    number: Option<u64>,
    /// When this nexus was begun.
    begun: Version,
    /// Since when it has stood and was told of no reset.
    since: Version,
}

/// The core: no session, no clock.
#[derive(Debug, Default)]
struct Core {
    version: Version,
    nexuses: Vec<Nexus>,
    /// The oldest write since the last flush was sent.
    open: Option<Version>,
    /// The oldest before each flush that has not succeeded, by the flush's number.
    sealed: VecDeque<(u64, Version)>,
    flushes: u64,
}

impl Core {
    fn join(&mut self) -> Member {
        self.nexuses.push(Nexus::default());
        Member(self.nexuses.len() - 1)
    }

    fn next(&mut self) -> Version {
        self.version.0 += 1;
        self.version
    }

    /// What stands in this place now.
    fn stands(&mut self, member: Member, number: Option<u64>) {
        let next = Version(self.version.0 + 1);
        let Some(nexus) = self.nexuses.get_mut(member.0).filter(|n| n.number != number) else { return };
        *nexus = Nexus { number, begun: next, since: next };
        self.version = next;
    }

    fn reset(&mut self, member: Member) {
        let next = self.next();
        if let Some(nexus) = self.nexuses.get_mut(member.0) {
            nexus.since = next;
        }
    }

    /// Nobody is a witness of what was written before.
    fn lost(&mut self) {
        let next = self.next();
        self.nexuses.iter_mut().for_each(|n| n.since = next);
    }

    /// A write that was sent at this version was acknowledged over this nexus.
    fn written(&mut self, sent: Version, member: Member) {
        // An answer over a nexus is of what was sent over it.
        let sent = sent.max(self.nexuses.get(member.0).map_or(Version(0), |n| n.begun));
        self.open = Some(self.open.map_or(sent, |o| o.min(sent)));
    }

    fn flush(&mut self) -> Covers {
        self.flushes += 1;
        if let Some(open) = self.open.take() {
            let full = self.sealed.len() >= MAX_SEALED;
            let joined = if full { self.sealed.pop_back().map_or(open, |last| last.1.min(open)) } else { open };
            self.sealed.push_back((self.flushes, joined));
        }
        Covers { serial: self.flushes, oldest: self.sealed.iter().map(|s| s.1).min() }
    }

    fn is_witness(&self, member: Member, covers: Covers) -> bool {
        let Some(oldest) = covers.oldest else { return true };
        self.nexuses.get(member.0).is_some_and(|n| n.number.is_some() && n.since <= oldest)
    }

    fn witnesses(&self, covers: Covers) -> Vec<Member> {
        (0..self.nexuses.len()).map(Member).filter(|m| self.is_witness(*m, covers)).collect()
    }

    /// What this flush covers is on the medium, or its owner has been told that it may not be.
    fn over(&mut self, covers: Covers) {
        self.sealed.retain(|(serial, _)| *serial > covers.serial);
    }
}

/// What is known of a unit over all its nexuses.
#[derive(Default)]
pub(crate) struct Stability {
    /// Whether there is a cache at all.
    pub(super) known: Known,
    core: Mutex<Core>,
    /// How often a flush was told that there is no witness.
    losses: AtomicU64,
    /// What the unit has reported over any of them.
    pub(super) notices: watch::Sender<Notices>,
    members: Mutex<Vec<Weak<Inner>>>,
}

impl Stability {
    /// One more nexus, of a device that is being made.
    pub(super) fn join(&self, device: Weak<Inner>) -> Member {
        let mut members = self.members.lock();
        members.push(device);
        self.core.lock().join()
    }

    /// A write goes out over this nexus. The first since a flush looks who else stands: they are the witnesses.
    pub(super) fn sending(&self, member: Member, nexus: Option<u64>) -> Version {
        let mut core = self.core.lock();
        core.stands(member, nexus);
        if core.open.is_some() {
            return core.version;
        }
        drop(core);
        let members = self.members.lock().clone();
        let standing = members.iter().map(|m| m.upgrade().and_then(|d| d.session().nexus()));
        let standing: Vec<Option<u64>> = standing.collect();
        let mut core = self.core.lock();
        standing.into_iter().enumerate().for_each(|(n, number)| core.stands(Member(n), number));
        core.version
    }

    /// It was acknowledged, and is not on the medium for that.
    pub(super) fn written(&self, sent: Version, member: Member, nexus: Option<u64>) {
        let mut core = self.core.lock();
        core.stands(member, nexus);
        core.written(sent, member);
    }

    /// The unit has told this nexus that it lost power or restarted.
    pub(super) fn reset(&self, member: Member) {
        self.core.lock().reset(member);
    }

    /// The unit has told of a write that it had acknowledged and could not put on the medium (a deferred error).
    pub(super) fn lost(&self) {
        self.core.lock().lost();
    }

    /// A flush goes out.
    pub(super) fn flush(&self) -> Covers {
        self.core.lock().flush()
    }

    /// A flush was answered over this nexus. True: what it covers is on the medium. False: somebody else has to be asked.
    pub(super) fn flushed(&self, covers: Covers, member: Member, nexus: Option<u64>) -> bool {
        let mut core = self.core.lock();
        core.stands(member, nexus);
        let stable = core.is_witness(member, covers);
        if stable {
            core.over(covers);
        }
        stable
    }

    /// Asks the others. True if one of them is a witness; whoever is told otherwise has lost what the flush covers.
    pub(super) async fn ask(self: &Arc<Self>, covers: Covers) -> bool {
        let candidates = self.core.lock().witnesses(covers);
        for member in candidates {
            let device = self.members.lock().get(member.0).and_then(Weak::upgrade);
            let Some(device) = device else { continue };
            let asked = device.asked();
            let answer = asked.ask("TEST UNIT READY", TestUnitReady.cdb());
            let answered = tokio::time::timeout(ANSWER_WITHIN, answer).await.is_ok_and(|a| a.is_ok());
            if answered && self.flushed(covers, member, device.session().nexus()) {
                return true;
            }
        }
        self.told_lost(covers);
        false
    }

    /// What this flush covers may be lost, and its owner is told so now.
    pub(super) fn told_lost(&self, covers: Covers) {
        // Before anybody is told: who shares the unit and sees the next flush succeed has to find this.
        self.losses.fetch_add(1, Ordering::SeqCst);
        self.core.lock().over(covers);
    }

    /// How many losses were told, over whichever nexus.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests;
