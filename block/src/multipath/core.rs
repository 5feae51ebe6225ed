//! The core of a device with several paths, sans-IO: `handle(now, Event, &mut Vec<Effect>)`.
//!
//! ```text
//!            a path                 answer
//!  Waiting ─────────► Out ───────────────────────► complete
//!     ▲                │ its path failed, or it came back without an answer
//!     │ free: at once  │
//!     ├────────────────┤
//!     │ its path dead  ▼
//!     └─────────────  Doubt   (a change, which may still land)
//! ```
//! # Rules, and what each prevents
//! - **A change without an answer is sent again only when its path was proved dead.** Prevents: a write is stuck in the target
//!   on path A; it is sent again on B and acknowledged; newer data are written on B; A's copy lands.
//! - **A path whose changes are not proved dead takes no request**, and a proof covers only what was sent before it was asked
//!   for. Prevents: the path comes back on its own, takes a new write, and that one is called dead by the proof of the older.
//! - **A conflict of reservations is an answer.** Prevents: the fence has reached path A and not yet B, and the node
//!   writes on over B.
//! - **A path is used only after its disk was proved to be this one**, anew after each failure.
//! - **A request is sent only in the standing in which its path was checked.** Prevents: a write is given path A; before it is sent
//!   its node is fenced, A's nexus is let in anew under the next generation, and it goes out under a right that it never had.
//!
//! # Bounds
//! At most [`Config::max_waiting`] requests wait for a path, at most [`Config::no_path`] long. A change in doubt waits until
//! its path is proved dead, however long that takes: an earlier answer would say that it is over. It can be seen, and
//! [`Event::Withdraw`] and [`Event::Close`] bring it to an end.

use std::collections::VecDeque;

use super::config::{Config, MAX_PATHS, MAX_TRIES, Now};
use super::event::{Attempt, Effect, Event, IoId, Kind, Outcome, PathId, PathState, Reason};
use super::path::Path;
use super::policy::Choice;
use super::rules::Rule;
use crate::error::IoErrorKind;

/// Where a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// For a path.
    Waiting,
    /// With a path; `dead` if the path was proved dead meanwhile, and only its end is still to come.
    Out { path: PathId, attempt: Attempt, at: Now, dead: bool },
    /// It came back from this path without an answer, and may still land.
    Doubt { path: PathId, attempt: Attempt },
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    kind: Kind,
    len: u64,
    worker: Option<usize>,
    pub(super) state: State,
    tries: u8,
    /// It ended there with this fault, and is tried once over another path.
    avoid: Option<(PathId, IoErrorKind)>,
    /// Its owner wants it back.
    unwanted: bool,
    /// Its place among all requests, for what was submitted before a withdrawal.
    serial: u64,
}

/// The core.
#[derive(Debug)]
pub struct Core {
    pub(super) config: Config,
    pub(super) paths: Vec<Path>,
    pub(super) requests: Vec<Option<Request>>,
    /// Requests that wait for a path, in their order.
    pub(super) queue: VecDeque<IoId>,
    choice: Choice,
    attempts: Attempt,
    serial: u64,
    /// Since when no path can take anything.
    no_path: Option<Now>,
    /// A withdrawal waits for the end of everything up to this serial.
    withdrawing: Option<u64>,
    closing: bool,
}

impl Core {
    /// Without paths.
    pub fn new(config: Config) -> Core {
        Core {
            config,
            paths: Vec::new(),
            requests: Vec::new(),
            queue: VecDeque::new(),
            choice: Choice::default(),
            attempts: Attempt(0),
            serial: 0,
            no_path: None,
            withdrawing: None,
            closing: false,
        }
    }

    /// How long a request may be without an answer before its path has failed.
    pub(super) fn path_timeout(&self) -> std::time::Duration {
        self.config.path_timeout
    }

    /// The state of each path.
    pub fn states(&self) -> impl Iterator<Item = &PathState> {
        self.paths.iter().map(|p| &p.state)
    }

    /// Requests that wait for a path.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Changes that came back without an answer and may still land.
    pub fn in_doubt(&self) -> usize {
        self.requests.iter().flatten().filter(|r| matches!(r.state, State::Doubt { .. })).count()
    }

    /// Takes an event and says what is to be done, in this order.
    pub fn handle(&mut self, now: Now, event: Event, fx: &mut Vec<Effect>) {
        match event {
            Event::Add { worker } => self.add(now, worker, fx),
            Event::Submit { io, kind, len, worker } => self.submit(now, io, (kind, len, worker), fx),
            Event::Ended { io, attempt, outcome } => self.ended(now, io, attempt, outcome, fx),
            Event::Lost { path, reason } => self.fail(now, path, reason, fx),
            Event::Checked { path, result } => self.checked(now, path, result, fx),
            Event::Proved { path, dead } => self.proved(now, path, dead, fx),
            Event::Withdraw => self.withdraw(now, fx),
            Event::TakeBack => self.take_back_waiting(fx),
            Event::TasksEnded => self.tasks_ended(fx),
            Event::Look { path } => self.look_at(now, path, fx),
            Event::Patience(limit) => self.config.path_timeout = limit,
            Event::FailBack => self.choice.release(),
            Event::Close => self.close(fx),
            Event::Tick => self.tick(now, fx),
        }
        self.pump(now, fx);
        self.tell_withdrawn(fx);
        self.check();
    }

    fn add(&mut self, now: Now, worker: Option<usize>, fx: &mut Vec<Effect>) {
        if self.paths.len() < MAX_PATHS {
            self.paths.push(Path::new(now, worker, &self.config));
            self.look(now, fx);
        }
    }

    fn submit(&mut self, now: Now, io: IoId, (kind, len, worker): (Kind, u64, Option<usize>), fx: &mut Vec<Effect>) {
        let place = io.0 as usize;
        if self.closing {
            return fx.push(Effect::Complete(io, Err(IoErrorKind::ShuttingDown)));
        }
        if self.requests.len() <= place {
            self.requests.resize_with(place + 1, || None);
        }
        self.serial += 1;
        let serial = self.serial;
        self.requests[place] =
            Some(Request { kind, len, worker, state: State::Waiting, tries: 0, avoid: None, unwanted: false, serial });
        if self.queue.is_empty() && self.issue(now, io, fx) {
            return;
        }
        let full = self.queue.len() >= self.config.max_waiting && self.config.rules.has(Rule::QueueBounded);
        if full || self.given_up(now) {
            return self.complete(io, Err(IoErrorKind::NoPath), fx);
        }
        self.queue.push_back(io);
    }

    /// There has been no path for longer than requests wait.
    fn given_up(&self, now: Now) -> bool {
        self.no_path.is_some_and(|since| now.since(since) >= self.config.no_path)
    }

    /// Sends a request, if a path can take it.
    fn issue(&mut self, now: Now, io: IoId, fx: &mut Vec<Effect>) -> bool {
        let Some(Some(request)) = self.requests.get_mut(io.0 as usize) else { return true };
        let wants = (request.len, request.worker, request.avoid.map(|(path, _)| path));
        let Some(id) = self.choice.choose(&self.paths, &self.config, wants) else {
            // The other paths went while it waited for one of them: its fault is its answer.
            let fault = request.avoid.map(|(_, kind)| kind);
            return fault.is_some_and(|kind| {
                self.complete(io, Err(kind), fx);
                true
            });
        };
        let Some(path) = self.paths.get_mut(usize::from(id.0)) else { return false };
        self.attempts.0 += 1;
        let attempt = self.attempts;
        request.state = State::Out { path: id, attempt, at: now, dead: false };
        request.tries = request.tries.saturating_add(1);
        path.in_flight += 1;
        path.bytes += request.len;
        path.sent.push_back((io, attempt, now));
        fx.push(Effect::Issue { io, path: id, attempt, standing: path.standing });
        true
    }

    /// Sends what waits, as far as paths take it.
    fn pump(&mut self, now: Now, fx: &mut Vec<Effect>) {
        while let Some(io) = self.queue.front().copied() {
            if !self.issue(now, io, fx) {
                break;
            }
            self.queue.pop_front();
        }
        let can = self.paths.iter().any(|p| p.rank(self.config.rules).is_some());
        let waits = self.config.rules.has(Rule::TransitionWaits);
        if can || waits && self.paths.iter().any(|p| p.is_changing(now, &self.config)) {
            self.no_path = None;
        } else {
            self.no_path.get_or_insert(now);
        }
    }

    /// A sending has ended.
    fn ended(&mut self, now: Now, io: IoId, attempt: Attempt, outcome: Outcome, fx: &mut Vec<Effect>) {
        let Some(Some(request)) = self.requests.get(io.0 as usize) else { return };
        let (kind, len, tries) = (request.kind, request.len, request.tries);
        let (path, at, dead) = match request.state {
            State::Out { path, attempt: a, at, dead } if a == attempt => (path, at, dead),
            _ if !self.config.rules.has(Rule::LateAnswersPass) && outcome == Outcome::Good => {
                self.abandon(io);
                self.queue.retain(|q| *q != io);
                return self.complete(io, Ok(()), fx);
            }
            // It was sent again elsewhere, or its name is another request's by now.
            _ => return,
        };
        self.left(path, io, attempt, len);
        if let Some(Some(request)) = self.requests.get_mut(io.0 as usize) {
            request.state = State::Waiting;
        }
        if outcome == Outcome::Good
            && let Some(p) = self.paths.get_mut(usize::from(path.0))
        {
            p.measured(len, now.since(at));
        }
        match outcome {
            Outcome::Good => self.complete(io, Ok(()), fx),
            Outcome::Failed(kind) => self.complete(io, Err(kind), fx),
            Outcome::Elsewhere(kind) => self.elsewhere(io, path, kind, fx),
            Outcome::Fenced => {
                self.fail(now, path, Reason::Fenced, fx);
                if self.config.rules.has(Rule::ConflictIsFinal) {
                    self.complete(io, Err(IoErrorKind::Fenced), fx);
                } else {
                    self.again(io, fx);
                }
            }
            Outcome::NotAccessible => {
                self.not_accessible(now, path, fx);
                self.again(io, fx);
            }
            Outcome::Refused => {
                self.fail(now, path, Reason::Closed, fx);
                self.again(io, fx);
            }
            Outcome::Dead if tries >= MAX_TRIES => self.complete(io, Err(IoErrorKind::Aborted), fx),
            Outcome::Dead => self.again(io, fx),
            Outcome::Doubt(_) if dead || kind == Kind::Free => {
                self.fail(now, path, Reason::Lost("a request came back without an answer".into()), fx);
                self.again(io, fx);
            }
            Outcome::Doubt(_) => {
                if let Some(Some(r)) = self.requests.get_mut(io.0 as usize) {
                    r.state = State::Doubt { path, attempt };
                }
                if !self.config.rules.has(Rule::DeadBeforeReissue) {
                    self.again(io, fx);
                }
                self.fail(now, path, Reason::Lost("a request came back without an answer".into()), fx);
            }
        }
    }

    /// A request has ended with a fault that another path may not have: once it is tried there, and the path keeps its others.
    fn elsewhere(&mut self, io: IoId, path: PathId, kind: IoErrorKind, fx: &mut Vec<Effect>) {
        let Some(Some(request)) = self.requests.get_mut(io.0 as usize) else { return };
        if request.avoid.is_some() {
            return self.complete(io, Err(kind), fx);
        }
        request.avoid = Some((path, kind));
        self.again(io, fx);
    }

    /// A request is not with its path any more.
    fn left(&mut self, path: PathId, io: IoId, attempt: Attempt, len: u64) {
        let Some(path) = self.paths.get_mut(usize::from(path.0)) else { return };
        path.in_flight -= 1;
        path.bytes -= len;
        // What was answered out of its order goes when it comes to the front.
        let requests = &self.requests;
        let under_way = |i: IoId, a: Attempt| {
            (i, a) != (io, attempt)
                && requests
                    .get(i.0 as usize)
                    .and_then(Option::as_ref)
                    .is_some_and(|r| matches!(r.state, State::Out { attempt, .. } if attempt == a))
        };
        while path.sent.front().is_some_and(|(i, a, _)| !under_way(*i, *a)) {
            path.sent.pop_front();
        }
    }

    /// A request that cannot land any more waits for a path again; one that is not wanted is over.
    pub(super) fn again(&mut self, io: IoId, fx: &mut Vec<Effect>) {
        let Some(Some(request)) = self.requests.get_mut(io.0 as usize) else { return };
        if request.unwanted {
            return self.complete(io, Err(IoErrorKind::Aborted), fx);
        }
        if self.closing {
            return self.complete(io, Err(IoErrorKind::ShuttingDown), fx);
        }
        request.state = State::Waiting;
        self.queue.push_back(io);
    }

    pub(super) fn complete(&mut self, io: IoId, result: Result<(), IoErrorKind>, fx: &mut Vec<Effect>) {
        if self.requests.get_mut(io.0 as usize).and_then(Option::take).is_some() {
            fx.push(Effect::Complete(io, result));
        }
    }

    /// Takes a request from a path without waiting for its end there.
    pub(super) fn abandon(&mut self, io: IoId) {
        let Some(Some(request)) = self.requests.get_mut(io.0 as usize) else { return };
        if let State::Out { path, attempt, .. } = request.state {
            let len = request.len;
            request.state = State::Waiting;
            self.left(path, io, attempt, len);
        }
    }

    fn withdraw(&mut self, now: Now, fx: &mut Vec<Effect>) {
        self.withdrawing = Some(self.serial);
        let waits = self.config.rules.has(Rule::WithdrawnWhenDead);
        self.queue.clear();
        for io in self.ids() {
            let Some(Some(request)) = self.requests.get_mut(io.0 as usize) else { continue };
            request.unwanted = true;
            let landing = request.kind == Kind::Change && request.state != State::Waiting;
            if !landing || !waits {
                self.abandon(io);
                self.complete(io, Err(IoErrorKind::Aborted), fx);
            }
        }
        for path in self.path_ids() {
            if self.may_land(path) {
                self.fail(now, path, Reason::Withdrawn, fx);
            }
        }
    }

    /// What no path has was not sent, and is not any more.
    fn take_back_waiting(&mut self, fx: &mut Vec<Effect>) {
        for io in std::mem::take(&mut self.queue) {
            self.complete(io, Err(IoErrorKind::Aborted), fx);
        }
    }

    /// What was withdrawn cannot land any more, whatever its path says later. What a path still has comes back from there first.
    /// Prevents: a write is answered without its data, and its owner, who would send them another way, can only fail it.
    fn tasks_ended(&mut self, fx: &mut Vec<Effect>) {
        let mut holders = Vec::new();
        for io in self.ids() {
            let Some(Some(request)) = self.requests.get_mut(io.0 as usize) else { continue };
            match &mut request.state {
                _ if !request.unwanted => {}
                State::Out { path, dead, .. } => {
                    *dead = true;
                    holders.push(*path);
                }
                State::Waiting | State::Doubt { .. } => {
                    self.queue.retain(|q| *q != io);
                    self.complete(io, Err(IoErrorKind::Aborted), fx);
                }
            }
        }
        holders.sort_unstable();
        holders.dedup();
        fx.extend(holders.into_iter().map(Effect::GiveBack));
    }

    fn tell_withdrawn(&mut self, fx: &mut Vec<Effect>) {
        let Some(serial) = self.withdrawing else { return };
        if self.requests.iter().flatten().all(|r| r.serial > serial) {
            self.withdrawing = None;
            fx.push(Effect::Withdrawn);
        }
    }

    /// What waits is told; what is with a path is answered by it; what is in doubt stays unknown.
    fn close(&mut self, fx: &mut Vec<Effect>) {
        self.closing = true;
        self.queue.clear();
        for io in self.ids() {
            match self.requests.get(io.0 as usize).and_then(Option::as_ref).map(|r| r.state) {
                Some(State::Waiting) => self.complete(io, Err(IoErrorKind::ShuttingDown), fx),
                Some(State::Doubt { .. }) => self.complete(io, Err(IoErrorKind::TimedOut), fx),
                _ => {}
            }
        }
    }

    fn tick(&mut self, now: Now, fx: &mut Vec<Effect>) {
        self.look(now, fx);
        if self.given_up(now) {
            for io in std::mem::take(&mut self.queue) {
                self.complete(io, Err(IoErrorKind::NoPath), fx);
            }
        }
    }

    /// Not later than this, [`Event::Tick`] has something to do.
    pub fn next_tick(&self) -> Option<Now> {
        let paths = self.paths.iter().filter_map(|p| self.path_due(p));
        let waiting = self.no_path.filter(|_| !self.queue.is_empty()).map(|since| since + self.config.no_path);
        paths.chain(waiting).min()
    }

    pub(super) fn ids(&self) -> Vec<IoId> {
        let all = self.requests.iter().enumerate().filter(|(_, r)| r.is_some());
        all.filter_map(|(n, _)| u32::try_from(n).ok().map(IoId)).collect()
    }

    pub(super) fn path_ids(&self) -> impl Iterator<Item = PathId> + use<> {
        (0..u16::try_from(self.paths.len()).unwrap_or(u16::MAX)).map(PathId)
    }

    /// Whether something sent over this path may still land.
    pub(super) fn may_land(&self, id: PathId) -> bool {
        self.requests.iter().flatten().any(|r| match r.state {
            State::Out { path, dead, .. } => path == id && !dead && r.kind == Kind::Change,
            State::Doubt { path, .. } => path == id,
            State::Waiting => false,
        })
    }

    pub(super) fn is_free(&self, io: IoId) -> bool {
        self.requests.get(io.0 as usize).and_then(Option::as_ref).is_some_and(|r| r.kind == Kind::Free)
    }

    pub(super) fn sent_so_far(&self) -> Attempt {
        self.attempts
    }

    /// What always holds between two events.
    fn check(&self) {
        if cfg!(debug_assertions) && self.requests.len() <= 64 {
            for (n, path) in self.paths.iter().enumerate() {
                let on = |r: &&Request| matches!(r.state, State::Out { path, .. } if usize::from(path.0) == n);
                let count = self.requests.iter().flatten().filter(on).count();
                debug_assert_eq!(count, path.in_flight as usize, "the count of requests on path {n} is right");
            }
            let waiting = self.requests.iter().flatten().filter(|r| r.state == State::Waiting).count();
            debug_assert_eq!(waiting, self.queue.len(), "what waits is in the queue, once");
        }
    }
}
