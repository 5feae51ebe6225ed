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
//! - *Returning* sends nothing new, waits until each redirected request is answered and what was written is flushed
//!   (rule `DrainBeforePathBack`), and only then asks to be direct again. Prevents: a redirected write queued at the
//!   coordinator lands after a newer direct one.
//! - A path is good if the own slot was read twice in a row and carries the generation granted (rule
//!   `RegisterThenReadSlot`). Prevents: a victim of a fence takes itself back. If the slot carries a higher one, nobody
//!   granted that, and whoever raised it may have given up: PATH_BACK names it, and is answered with a new path fence.

use std::fmt;
use std::time::Duration;

use block::shared::FenceGen;

use crate::core::time::Now;

/// A proof or a fence that could not be had is asked for again after this.
pub(super) const RETRY: Duration = Duration::from_millis(500);
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

impl RouteInfo {
    /// What a change of the route from `before` to this says about this node's path, for its office; `None`: nothing new. A
    /// redirection that was asked for is no lost path.
    ///
    /// `serving`: this node coordinates, and serves its own client. That one leaves the direct route once; whatever else
    /// it shows until it is direct again is the same old loss, seen by a reign that began after it with a good path.
    /// Prevents: a lone coordinator's path hangs for a moment. It gives office up, finds its path good, takes office again;
    /// its own client binds, shows why it left the direct route, and office is given up again, for ever: only a
    /// coordinator can lead the client back.
    pub fn says_of_path(&self, before: &RouteInfo, serving: bool) -> Option<bool> {
        let ok = self.route == Route::Direct || !matches!(self.reason, Reason::IoTimedOut | Reason::IoFailed);
        (ok || !serving || before.route == Route::Direct).then_some(ok)
    }
}

/// Where the machine stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Direct.
    Open,
    /// Gate closed; the proof is awaited, or asked for again at `retry`.
    Aborting { retry: Option<Now> },
    /// PATH_LOST is in a slot, or asked again at `retry`.
    Asking { retry: Option<Now> },
    /// Redirected I/O flows. `good` probes in a row; the next at `probe`, `None` while one is out.
    Redirected { good: u8, probe: Option<Now> },
    /// Redirected I/O drains. `asked`: PATH_BACK is in a slot.
    Returning { asked: bool },
}

/// The machine.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) stage: Stage,
    /// Why it left `Open`.
    pub(super) why: Reason,
    /// The administrator wants it redirected.
    pub(super) forced: bool,
    /// The coordinator has not refused a read sent before the path fence.
    pub(super) early_reads: bool,
    /// Direct I/O is done under this generation only.
    pub(super) fence_gen: FenceGen,
    /// What the last good probe read in the own slot.
    pub(super) seen: FenceGen,
    pub(super) published: RouteInfo,
    pub(super) probe_every: Duration,
}

impl Router {
    pub(super) fn new(now: Now, fence_gen: FenceGen, probe_every: Duration) -> Router {
        let published = RouteInfo { route: Route::Direct, reason: Reason::Healthy, since: now };
        Router {
            stage: Stage::Open,
            why: Reason::Healthy,
            forced: false,
            early_reads: true,
            fence_gen,
            seen: fence_gen,
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

    /// A probe came back. `true`: the path is good.
    pub(super) fn probed(&mut self, now: Now, ok: bool) -> bool {
        let Stage::Redirected { good, .. } = self.stage else { return false };
        let good = if ok { good + 1 } else { 0 };
        self.stage = Stage::Redirected { good, probe: Some(now + self.probe_every) };
        good >= PROBES && !self.forced
    }

    /// Redirected I/O may flow.
    pub(super) fn redirect(&mut self, now: Now) {
        self.stage = Stage::Redirected { good: 0, probe: Some(now + self.probe_every) };
    }

    /// What users see, given whether a coordinator is bound.
    pub(super) fn now_published(&self, now: Now, bound: bool) -> RouteInfo {
        let (route, reason) = match self.stage {
            Stage::Open => (Route::Direct, Reason::Healthy),
            Stage::Aborting { .. } => (Route::Draining, self.why),
            _ if !bound => (Route::Paused, Reason::NoCoordinator),
            Stage::Asking { .. } => (Route::Draining, self.why),
            Stage::Redirected { .. } | Stage::Returning { .. } => (Route::BlockRedirected, self.why),
        };
        if (route, reason) == (self.published.route, self.published.reason) {
            return self.published;
        }
        RouteInfo { route, reason, since: now }
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        match self.stage {
            Stage::Aborting { retry } | Stage::Asking { retry } => retry,
            Stage::Redirected { probe, .. } if !self.forced => probe,
            _ => None,
        }
    }
}
