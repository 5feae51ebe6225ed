//! Inputs into the core, and its effects out of it, one after the other under the core's lock.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use block::shared::Epoch;
use tokio::sync::oneshot;

use crate::client::link::{CallDone, ClientEvent, LinkLost, RedirectDone};
use crate::core::client::{Binding, CallFailure, Effect, Event, IoId, RedirectResult, Ticket};
use crate::core::rules::Rule;
use crate::core::time::Now;
use crate::proto::{BindRequest, Call, CallbackAsk, CoordinatorHint, Reassert, Redirect, RedirectAnswer};

use super::{Answered, Asker, CallResult, Ended, Files, Inner, Input, Io, Linked, Session, Waiter};

impl Session {
    pub(super) fn take(&self, inner: &mut Inner, input: Input) {
        let event = match input {
            Input::Event(event) => event,
            Input::Call { life: Some(life), asker, .. } if life != inner.core.client() => {
                return inner.tell(asker.waiter, Err(CallFailure::Evicted));
            }
            Input::Call { ticket, request, origin, asker, .. } => {
                inner.waiters.insert(ticket, asker);
                match origin {
                    Some(origin) => Event::SubmitFor { ticket, request, origin },
                    None => Event::Submit { ticket, request },
                }
            }
            Input::Lock { ticket, op, asker } => {
                inner.waiters.insert(ticket, asker);
                Event::Lock { ticket, op }
            }
            Input::Redirect { io, event, data, waiter, since } => {
                inner.io.insert(io, Io { data, read: None, waiter: Some(waiter), since });
                event
            }
            Input::Sweep => self.whose_time_is_over(inner),
            Input::Leave { waiter } => {
                inner.leaving = Some(waiter);
                Event::Leave
            }
            Input::IoAnswered { io, bind, answer, read } => {
                if let (Some(entry), RedirectAnswer::Done { .. }) = (inner.io.get_mut(&io), &answer) {
                    entry.read = read;
                }
                Event::RedirectAnswered { io, bind, answer }
            }
            Input::Asked { client, ask, waiter } => {
                inner.callbacks.push_back(waiter);
                let dirty = match &ask {
                    CallbackAsk::Sync { ino, .. } => self.files().is_some_and(|f| f.is_dirty(*ino)),
                    CallbackAsk::RecallGrant => self.files().is_some_and(|f| f.asks_for_space()),
                    _ => false,
                };
                Event::Asked { client, ask, dirty }
            }
        };
        let mut effects = std::mem::take(&mut inner.effects);
        inner.core.handle(Session::now(), event, &mut effects);
        let deadline = inner.core.next_deadline().unwrap_or(Now(u64::MAX));
        self.deadline.store(deadline.0, Ordering::Relaxed);
        for effect in effects.drain(..) {
            self.apply(inner, effect);
        }
        inner.effects = effects;
        let binding = inner.core.binding();
        let changed = self.binding.send_if_modified(|b| {
            let changed = b != binding;
            if changed {
                *b = binding.clone();
            }
            changed
        });
        if changed && !matches!(binding, Binding::Evicted { .. }) {
            self.lives.begins();
        }
    }

    pub(super) fn files(&self) -> Option<Arc<dyn Files>> {
        self.files.get()?.upgrade()
    }

    fn apply(&self, inner: &mut Inner, effect: Effect) {
        match effect {
            Effect::Note(notes) => {
                if let Some(notebook) = &self.notebook {
                    notebook.note(&notes);
                }
            }
            Effect::AskWho => self.ask_who(),
            Effect::SendBind { to, request } => self.send_bind(inner, to, *request),
            Effect::SendCall { call } => self.send_call(inner, *call),
            Effect::SendRedirect { io, redirect } => self.send_redirect(inner, io, redirect),
            Effect::Reply { ticket, result } => {
                let guard = inner.granted.remove(&ticket);
                if let Some(Asker { waiter, .. }) = inner.waiters.remove(&ticket) {
                    if result == Err(CallFailure::Expired) {
                        self.timed_out();
                    }
                    inner.tell(waiter, result.map(|reply| Answered { reply, guard }));
                }
            }
            Effect::AnswerCallback(answer) => {
                if let Some(waiter) = inner.callbacks.pop_front() {
                    // The connection it came over may be gone.
                    let _ = waiter.send(answer);
                }
            }
            Effect::RedirectDone { io, result } => {
                if let Some(entry) = inner.io.get_mut(&io) {
                    let read = entry.read.take();
                    let waiter = entry.waiter.take();
                    if result == RedirectResult::Expired {
                        self.timed_out();
                    }
                    // Without that rule it is still to be sent.
                    let stays = result == RedirectResult::Expired && !self.rules.has(Rule::ExpiredIsWithdrawn);
                    // A write's data stays until it is forgotten.
                    if (result != RedirectResult::Done && !stays) || entry.data.is_none() {
                        inner.io.remove(&io);
                    }
                    inner.redirected.extend(waiter.map(|w| (w, (result, read))));
                }
            }
            Effect::Forget { io } => drop(inner.io.remove(&io)),
            // Whoever asked waits.
            Effect::Left { known } => drop(inner.leaving.take().map(|waiter| waiter.send(known))),
            Effect::Abort { number } => self.abort(number),
            Effect::PathFenced => self.abort.ended_by_fence(),
            Effect::Probe => self.probe(),
            Effect::OwnPath { ok } => self.emit(ClientEvent::OwnPath { ok }),
            Effect::Route { from, to } => {
                self.route.send_replace(to);
                self.emit(ClientEvent::Route { from, to });
            }
            other => self.apply_to_files(inner, other),
        }
    }

    fn apply_to_files(&self, inner: &mut Inner, effect: Effect) {
        let Some(files) = self.files() else { return };
        match effect {
            Effect::Bound { epoch, first, grants } => {
                files.bound(first, grants);
                self.emit(ClientEvent::Bound { epoch });
            }
            Effect::Unbound => {
                inner.links.clear();
                self.emit(ClientEvent::Unbound);
            }
            Effect::Granted { ticket, grant } => {
                let guard = files.granted(&grant);
                if ticket < Ticket(Ticket::OWN) && inner.waiters.contains_key(&ticket) {
                    inner.granted.insert(ticket, guard);
                }
            }
            Effect::Withdraw { layout, ino } => files.withdraw(layout, ino),
            Effect::Settle { layout, ino } => files.settle(layout, ino),
            Effect::Dropped { layout, ino, lost } => files.dropped(layout, ino, lost),
            Effect::Sync { ino, number } => files.sync(ino, number),
            Effect::ReturnGrant => files.return_grant(inner.core.client()),
            Effect::CloseDirect => files.close_direct(),
            Effect::OpenDirect => files.open_direct(),
            Effect::ReissueReads => files.reissue_reads(),
            Effect::WritesLost { layout } => files.writes_lost(layout),
            Effect::HandleLost { handle, ino } => {
                files.handle_lost(handle, ino);
                self.emit(ClientEvent::Poisoned { handles: vec![handle] });
            }
            Effect::LocksLost { handles } => {
                files.locks_lost(&handles);
                self.emit(ClientEvent::LocksLost { handles });
            }
            Effect::Evicted { reason, locked } => {
                self.lives.ends(&reason);
                let poisoned = files.evicted(&locked);
                if !poisoned.is_empty() {
                    self.emit(ClientEvent::Poisoned { handles: poisoned.clone() });
                }
                self.emit(ClientEvent::Evicted { reason: reason.clone() });
                self.ended.send_replace(Some(Ended { client: inner.core.client(), reason, poisoned }));
            }
            _ => unreachable!("every other effect is applied above"),
        }
    }

    fn me(&self) -> Option<Arc<Session>> {
        self.me.upgrade()
    }

    fn ask_who(&self) {
        let Some(me) = self.me() else { return };
        self.spawner.control(async move {
            for hint in me.coordinators.ask_who().await {
                me.hint(hint);
            }
        });
    }

    fn send_bind(&self, inner: &mut Inner, to: CoordinatorHint, mut request: BindRequest) {
        let bind = request.bind;
        let (Some(me), Some(link)) = (self.me(), self.coordinators.link(&to)) else {
            return self.inbox.lock().push_back(Input::Event(Event::BindFailed { bind }));
        };
        if let Some(files) = self.files() {
            request.reassert.iter_mut().for_each(|r| fill(&*files, r));
        }
        inner.links.clear();
        let (watched, mut given_up) = oneshot::channel();
        inner.links.insert(bind, Linked { epoch: to.epoch, link: Arc::clone(&link), _watched: watched });
        let watch = async move {
            let event = match link.bind(to.epoch, request).await {
                Ok(answer) => Event::BindAnswered { bind, answer },
                Err(LinkLost) => Event::BindFailed { bind },
            };
            me.post(event);
            let weak = Arc::downgrade(&me);
            drop(me);
            link.closed().await;
            if let Some(me) = weak.upgrade() {
                me.post(Event::LinkLost { bind });
            }
        };
        // Prevents: each bind over a connection that lives on leaves a task behind that waits for its end. What it would
        // say of a bind that was given up, nobody listens to.
        self.spawner.control(async move {
            tokio::select! {
                () = watch => {}
                _ = &mut given_up => {}
            }
        });
    }

    fn link(&self, inner: &Inner, bind: crate::types::Bind) -> Option<(Epoch, Arc<dyn super::CoordinatorLink>)> {
        inner.links.get(&bind).map(|linked| (linked.epoch.max(inner.core.epoch()), Arc::clone(&linked.link)))
    }

    fn send_call(&self, inner: &Inner, call: Call) {
        let (bind, slot, seq) = (call.bind, call.slot, call.seq);
        let Some((epoch, link)) = self.link(inner, bind) else {
            return self.inbox.lock().push_back(Input::Event(Event::LinkLost { bind }));
        };
        // The coordinator of this node keeps what is told as long as it has no answer: it must not keep the session.
        let me = Weak::clone(&self.me);
        let done = CallDone::new(move |outcome| {
            let Some(me) = me.upgrade() else { return };
            me.post(match outcome {
                Ok(answer) => Event::Answered { bind, slot, seq, answer },
                Err(LinkLost) => Event::LinkLost { bind },
            });
        });
        if let Some(waits) = link.call(epoch, call, done) {
            self.spawner.here(waits);
        }
    }

    fn send_redirect(&self, inner: &Inner, io: IoId, redirect: Redirect) {
        let bind = redirect.bind;
        let (Some(me), Some((epoch, link))) = (self.me(), self.link(inner, bind)) else {
            return self.inbox.lock().push_back(Input::Event(Event::LinkLost { bind }));
        };
        let data = inner.io.get(&io).and_then(|e| e.data.clone());
        let done = RedirectDone::new(move |outcome| match outcome {
            Ok((answer, read)) => me.put(Input::IoAnswered { io, bind, answer, read }),
            Err(LinkLost) => me.post(Event::LinkLost { bind }),
        });
        if let Some(waits) = link.redirect(epoch, redirect, data, done) {
            self.spawner.here(waits);
        }
    }

    /// Nothing is submitted any more (the gate is closed); who is between gate and device is waited for, then the
    /// proof is asked for.
    fn abort(&self, number: u64) {
        let (Some(me), Some(files)) = (self.me(), self.files()) else { return };
        self.spawner.control(async move {
            while files.direct_entered() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            let event = match me.abort.withdraw().await {
                Ok(()) => Event::NothingInFlight { number },
                Err(error) => {
                    tracing::warn!("it cannot be proved that nothing is in flight: {error}");
                    Event::AbortFailed { number }
                }
            };
            me.post(event);
        });
    }

    fn probe(&self) {
        let Some(me) = self.me() else { return };
        self.spawner.control(async move {
            let read = tokio::time::timeout(me.path_timeout, me.slot.fence_gen()).await;
            me.post(Event::Probed { fence_gen: read.ok().flatten() });
        });
    }
}

impl Inner {
    /// Whoever asked may have gone.
    fn tell(&mut self, waiter: Waiter, result: CallResult) {
        match waiter {
            Waiter::Task(waiter) => drop(waiter.send(result)),
            Waiter::Called(called) => self.called.push((called, result)),
        }
    }
}

fn fill(files: &dyn Files, reassert: &mut Reassert) {
    if let Reassert::Layout {
        ino, range, mode: crate::types::LayoutMode::Exclusive, uncommitted, size, mtime, ..
    } = reassert
    {
        (*uncommitted, *size, *mtime) = files.uncommitted(*ino, *range);
    }
}
