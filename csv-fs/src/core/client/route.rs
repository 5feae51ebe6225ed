//! The route machine: how this node's data reaches the disk.
//!
//! ```text
//!            ┌────────────────────────────────────── PATH_BACK answered ───────────────────────────────┐
//!            ▼                                                                                         │
//!   Open ── suspect, fenced, asked for ──► Aborting ── NothingInFlight ──► Asking ── fenced ──► Redirected ◄─┐ refused
//!                                                                                               │ probes good│
//!                                                                                               ▼            │
//!                                                                                           Returning ───────┘
//!   published: Direct                      Draining ─────────────────────────────► BlockRedirected
//!   and Paused instead of the last two whenever no coordinator is bound.
//! ```
//! - *Aborting* closes the gate of direct I/O and waits for the proof that nothing of this node's own can land any
//!   more (rule `AbortBeforeRedirect`); *Asking* has the coordinator fence the path; only then a redirected write is
//!   sent. Prevents **the stuck write**: a direct write that timed out sits in the fabric, its redirected twin is
//!   executed and acknowledged, a newer write follows, and then the stuck one lands on top.
//! - A proof is the answer to one question, by its number. Prevents: the first proof that this node asked for is there and
//!   its task has not told it yet; the node is evicted, begins its next life and writes directly; that path hangs too, the
//!   gate closes, another proof is asked for, and the first one, which says nothing of the new life's writes, is taken
//!   for it. Within one life a second one is asked for only after the first has failed.
//! - *Returning* sends nothing new, waits until each redirected request is answered and what was written is flushed
//!   (rule `DrainBeforePathBack`), and only then asks to be direct again. Prevents: a redirected write queued at the
//!   coordinator lands after a newer direct one.
//! - **What the office is told of the path** is not the route: the route stays redirected long after the path is good
//!   again, if there is nobody to take it back from. A request that failed makes the path bad, the next good read of the
//!   own slot makes it good, wherever the machine stands and whether or not a coordinator is bound. Prevents: the only
//!   node with permission takes office, its own client binds to it and publishes *redirected* with the reason of long
//!   ago, the office takes that for a lost path and is given up, again and again.
//! - *At home*, on the node that it is bound to as a client and that coordinates, a request that is overdue is waited for
//!   until the office gives up, or as long as an office would: redirected to its own coordinator it would take the same
//!   path to the same disk, and the proof that nothing is in flight would withdraw what the store has written. Prevents: the
//!   disk stalls for longer than a path may take and the office rides it out; the client of that very node has everything
//!   withdrawn, the store's commit among it, the store fails, and the office is lost over a stall.
//! - A path is good if the own slot was read twice in a row and carries the generation granted (rule
//!   `RegisterThenReadSlot`). Prevents: a victim of a fence takes itself back. If the slot carries a higher one, nobody
//!   granted that, and whoever raised it may have given up: PATH_BACK names it, and is answered with a new path fence.
//! - A fence outlasts the answers that are older than it (rule `FenceOutlastsAnswers`). Prevents: PATH_BACK is answered, and the
//!   answer is long on its way; the node is evicted, and asked to stop, which it has; the office says that nothing is in
//!   flight; then the answer comes, the gate opens, and a write lands on blocks that are another's.

use std::fmt;
use std::time::Duration;

use block::shared::FenceGen;

use crate::core::time::Now;

/// A proof or a fence that could not be had is asked for again after this.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// Two reports of an overdue request that are further apart are of two stalls. They come every few milliseconds while one is.
const SAME_STALL: Duration = Duration::from_secs(1);
/// Successful reads of the own slot, one after the other, before a path counts as good.
const PROBES: u8 = 2;

/// How data travels, as users see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// To the disk.
    Direct,
    /// Leaving the direct route: what is in flight is being ended.
    Draining,
    /// Over the coordinator, block by block.
    BlockRedirected,
    /// Over the coordinator, operation by operation. This version never enters it: what an administrator asks for
    /// is served by [`Route::BlockRedirected`].
    FileRedirected,
    /// Neither a path nor a coordinator.
    Paused,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Route::Direct => "direct",
            Route::Draining => "draining",
            Route::BlockRedirected => "block-redirected",
            Route::FileRedirected => "file-redirected",
            Route::Paused => "paused",
        })
    }
}

/// Why the route is what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Nothing is wrong.
    Healthy,
    /// A request to the disk got no answer in time.
    IoTimedOut,
    /// The disk, or the way to it, failed a request.
    IoFailed,
    /// The disk refused a request because this node was fenced.
    Fenced,
    /// The administrator asked for it.
    Administrator,
    /// The disk is attached to the coordinator only.
    DeviceOnCoordinator,
    /// No coordinator can be reached.
    NoCoordinator,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Healthy => "healthy",
            Reason::IoTimedOut => "io-timed-out",
            Reason::IoFailed => "io-failed",
            Reason::Fenced => "fenced",
            Reason::Administrator => "administrator",
            Reason::DeviceOnCoordinator => "device-on-coordinator",
            Reason::NoCoordinator => "no-coordinator",
        })
    }
}

/// The published route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteInfo {
    /// Which.
    pub route: Route,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Now,
}

/// Where the machine stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Direct.
    Open,
    /// Gate closed; the proof of this number is awaited, or another is asked for at `retry`.
    Aborting { number: u64, retry: Option<Now> },
    /// PATH_LOST is in a slot, or asked again at `retry`.
    Asking { retry: Option<Now> },
    /// Redirected I/O flows. `good` probes in a row.
    Redirected { good: u8 },
    /// Redirected I/O drains. `asked`: PATH_BACK is in a slot.
    Returning { asked: bool },
}

/// The next read of the own slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    /// Due then, if one is wanted.
    Due(Now),
    /// Under way.
    Out,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) stage: Stage,
    /// Why it left `Open`.
    why: Reason,
    /// A request of the direct route failed, and the own slot was not read since.
    path_bad: bool,
    /// At home: when a request was first said to be overdue, and when last.
    stall: Option<(Now, Now)>,
    probe: Probe,
    /// The administrator wants it redirected.
    pub(super) forced: bool,
    /// The coordinator has not refused a read sent before the path fence.
    pub(super) early_reads: bool,
    /// Direct I/O is done under this generation only.
    pub(super) fence_gen: FenceGen,
    /// The highest that anybody fenced this node at: below it no grant opens the gate.
    fenced: FenceGen,
    /// What the last good probe read in the own slot.
    pub(super) seen: FenceGen,
    /// How often a proof was asked for, in all lives.
    pub(super) aborts: u64,
    pub(super) published: RouteInfo,
    pub(super) probe_every: Duration,
}

impl Router {
    pub(super) fn new(now: Now, fence_gen: FenceGen, probe_every: Duration) -> Router {
        let published = RouteInfo { route: Route::Direct, reason: Reason::Healthy, since: now };
        Router {
            stage: Stage::Open,
            why: Reason::Healthy,
            path_bad: false,
            stall: None,
            probe: Probe::Due(now),
            forced: false,
            early_reads: true,
            fence_gen,
            fenced: fence_gen,
            seen: fence_gen,
            aborts: 0,
            published,
            probe_every,
        }
    }

    /// Whether redirected requests may be sent: the path fence was answered. Reads may be before it: they change
    /// nothing, and a direct write that may still land was not acknowledged.
    pub(super) fn takes_redirected(&self, read: bool) -> bool {
        match self.stage {
            Stage::Open => false,
            Stage::Aborting { .. } | Stage::Asking { .. } => read && self.early_reads,
            Stage::Redirected { .. } | Stage::Returning { .. } => true,
        }
    }

    /// Whether new redirected requests may be sent: not on the way back.
    pub(super) fn takes_new(&self, read: bool) -> bool {
        self.takes_redirected(read) && !matches!(self.stage, Stage::Returning { .. })
    }

    /// Off the direct route, for this reason. `true`: the office is to be told that the path is bad.
    pub(super) fn leaves(&mut self, now: Now, why: Reason) -> bool {
        self.why = why;
        let fails = matches!(why, Reason::IoTimedOut | Reason::IoFailed);
        if fails {
            self.probe_later(now);
        }
        fails && !std::mem::replace(&mut self.path_bad, true)
    }

    /// At home a request is overdue: whether it is waited for, which it is for so long since it was said first.
    pub(super) fn rides_out(&mut self, now: Now, at_most: Duration) -> bool {
        let same = |(_, last): &(Now, Now)| now.since(*last) <= SAME_STALL;
        let (first, _) = self.stall.filter(same).unwrap_or((now, now));
        self.stall = Some((first, now));
        now.since(first) < at_most
    }

    /// Whether a request is being waited for like that.
    pub(super) fn is_stalled(&self, now: Now) -> bool {
        self.stage == Stage::Open && self.stall.is_some_and(|(_, last)| now.since(last) <= SAME_STALL)
    }

    /// The number under which a proof is asked for now.
    pub(super) fn asks_for_proof(&mut self) -> u64 {
        self.aborts += 1;
        self.stage = Stage::Aborting { number: self.aborts, retry: None };
        self.aborts
    }

    /// Whether a proof is the one that is awaited.
    pub(super) fn awaits_proof(&self, of: u64) -> bool {
        matches!(self.stage, Stage::Aborting { number, .. } if number == of)
    }

    /// A proof could not be had.
    pub(super) fn abort_failed(&mut self, now: Now, number: u64) {
        if self.awaits_proof(number) {
            self.stage = Stage::Aborting { number, retry: Some(now + RETRY) };
        }
    }

    /// This node was fenced at that generation. `true`: what it does directly now is under a lower one.
    pub(super) fn fence_asked(&mut self, fence_gen: FenceGen) -> bool {
        self.fenced = self.fenced.max(fence_gen);
        fence_gen > self.fence_gen
    }

    /// Whether what was granted is of before a fence.
    pub(super) fn is_fenced(&self) -> bool {
        self.fenced > self.fence_gen
    }

    /// Direct again.
    pub(super) fn opens(&mut self) {
        self.stage = Stage::Open;
        self.why = Reason::Healthy;
    }

    /// The own slot was read, or could not be. `true`: the office is to be told that the path is good again.
    pub(super) fn slot_read(&mut self, now: Now, ok: bool) -> bool {
        self.probe = Probe::Due(now + self.probe_every);
        ok && std::mem::take(&mut self.path_bad)
    }

    /// A probe came back that shows a slot of the right generation, or does not. `true`: the way back is open.
    pub(super) fn probed(&mut self, ok: bool) -> bool {
        let Stage::Redirected { good } = self.stage else { return false };
        let good = if ok { good + 1 } else { 0 };
        self.stage = Stage::Redirected { good };
        good >= PROBES && !self.forced
    }

    /// Redirected I/O may flow.
    pub(super) fn redirect(&mut self, now: Now) {
        self.stage = Stage::Redirected { good: 0 };
        self.probe_later(now);
    }

    /// A probe that is due now. At most one is under way.
    pub(super) fn probe_due(&mut self, now: Now) -> bool {
        let due = self.probe_at().is_some_and(|at| now >= at);
        if due {
            self.probe = Probe::Out;
        }
        due
    }

    fn probe_later(&mut self, now: Now) {
        if self.probe != Probe::Out {
            self.probe = Probe::Due(now + self.probe_every);
        }
    }

    /// When the next probe is due, if one is wanted: the path is bad, or good and to be taken back.
    fn probe_at(&self) -> Option<Now> {
        let back = matches!(self.stage, Stage::Redirected { .. }) && !self.forced;
        match self.probe {
            Probe::Due(at) if self.path_bad || back => Some(at),
            _ => None,
        }
    }

    /// Whether the office was told that the path is bad.
    pub(super) fn path_bad(&self) -> bool {
        self.path_bad
    }

    /// What users see, given whether a coordinator is bound.
    pub(super) fn now_published(&self, now: Now, bound: bool) -> RouteInfo {
        let why = if self.forced { Reason::Administrator } else { self.why };
        let (route, reason) = match self.stage {
            Stage::Open => (Route::Direct, Reason::Healthy),
            Stage::Aborting { .. } => (Route::Draining, why),
            _ if !bound => (Route::Paused, Reason::NoCoordinator),
            Stage::Asking { .. } => (Route::Draining, why),
            Stage::Redirected { .. } | Stage::Returning { .. } => (Route::BlockRedirected, why),
        };
        if (route, reason) == (self.published.route, self.published.reason) {
            return self.published;
        }
        RouteInfo { route, reason, since: now }
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        let retry = match self.stage {
            Stage::Aborting { retry, .. } | Stage::Asking { retry } => retry,
            _ => None,
        };
        retry.into_iter().chain(self.probe_at()).min()
    }
}
