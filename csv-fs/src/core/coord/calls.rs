//! Session calls from their arrival until they reach the store, and their answers.

use rustix::io::Errno;

use super::event::{Effect, OpId, ReadAsk, StoreAsk, Tag};
use super::files::Claim;
use super::orphans::OpenVerdict;
use super::session::{Life, Path, SlotVerdict};
use super::work::{CallWork, Need, Stage, Work};
use super::{Coord, Phase};
use crate::core::rules::Rule;
use crate::proto::{Answer, Call, HintsCall, Reply, Request};
use crate::types::*;

impl Coord {
    /// A call arrives.
    pub(super) fn call(&mut self, tag: Tag, call: Call) {
        if let Err(answer) = self.admit(&call) {
            self.out.push(Effect::Answer { tag, answer });
            return;
        }
        let replay = self.rules.has(Rule::StoredAnswers);
        let Some(session) = self.sessions.get_mut(&call.client) else { return };
        let answer = match session.classify(call.slot, call.seq, replay) {
            SlotVerdict::New => return self.begin(tag, call),
            SlotVerdict::Again => {
                self.drop_untold(call.client, call.slot, call.seq);
                return self.begin(tag, call);
            }
            SlotVerdict::InProgress(op) => {
                if let Some(Work::Call(work)) = self.work.get_mut(&op) {
                    work.tags.push(tag);
                }
                return;
            }
            SlotVerdict::Replay(answer) => {
                self.replayed(&call, &answer);
                answer
            }
            SlotVerdict::BadSequence { expected } => Answer::BadSequence { expected },
        };
        self.out.push(Effect::Answer { tag, answer });
    }

    fn admit(&self, call: &Call) -> Result<(), Answer> {
        if self.phase != Phase::Serving {
            return Err(self.stale());
        }
        let session = self.sessions.get(&call.client).ok_or(Answer::StaleBind)?;
        let places = match call.slot.table {
            SlotTable::Ordinary => ORDINARY_SLOTS,
            SlotTable::Return => RETURN_SLOTS,
        };
        match session.life {
            Life::Evicted => Err(Answer::Evicted { reason: session.reason.clone() }),
            Life::Evicting(_) => Err(Answer::StaleBind),
            Life::Live if !session.bound || session.bind != call.bind => Err(Answer::StaleBind),
            Life::Live if call.slot.index >= places => Err(errno(Errno::INVAL)),
            Life::Live => Ok(()),
        }
    }

    fn begin(&mut self, tag: Tag, call: Call) {
        let Call { client, slot, seq, request, .. } = call;
        let waits = self.in_grace() && request.table() == SlotTable::Ordinary;
        let work = CallWork {
            client,
            slot,
            seq,
            request,
            tags: vec![tag],
            stage: if waits { Stage::Parked } else { Stage::New },
            file: None,
            layout: None,
            asked_for_space: false,
        };
        let op = self.new_op(Work::Call(Box::new(work)));
        if let Some(session) = self.sessions.get_mut(&client) {
            session.begin(slot, seq, op);
        }
        match waits {
            true => self.parked.push_back(op),
            false => self.enter(op),
        }
    }

    /// A `LayoutGet` that was let in after its client had bound anew was answered to nobody; its client asks again, so
    /// it never had that layout. Without this it would stay given out, and its recall could not be answered.
    fn drop_untold(&mut self, client: ClientId, slot: SlotRef, seq: u64) {
        let Some(session) = self.sessions.get(&client) else { return };
        let untold = |id: &&LayoutId| self.files.layout(**id).is_some_and(|(_, l)| l.told_in == Some((slot, seq)));
        let untold: Vec<LayoutId> = session.layouts.iter().filter(untold).copied().collect();
        self.drop_layouts(client, &untold);
    }

    /// A stored answer says that a file was opened, too: opens are not durable, so it is noted again.
    fn replayed(&mut self, call: &Call, answer: &Answer) {
        if let (Request::Create { open: Some(open), .. }, Answer::Ok(Reply::Created { attr, opened: true })) =
            (&call.request, answer)
        {
            self.opened(call.client, open.handle, attr.ino);
        }
    }

    pub(super) fn call_work(&mut self, op: OpId) -> Option<&mut CallWork> {
        match self.work.get_mut(&op) {
            Some(Work::Call(call)) => Some(call),
            _ => None,
        }
    }

    pub(super) fn set_stage(&mut self, op: OpId, stage: Stage) {
        if let Some(call) = self.call_work(op) {
            call.stage = stage;
        }
    }

    /// Gets a call what it needs, or lets it wait for that.
    pub(super) fn enter(&mut self, op: OpId) {
        let rules = self.rules;
        let Some(call) = self.call_work(op) else { return };
        let (client, need) = (call.client, Need::of(&call.request, rules));
        match need {
            Need::Nothing => self.run(op),
            Need::Sync(ino) => {
                let left = self.want_sync(op, ino, client);
                match left.is_empty() {
                    true => self.run(op),
                    false => self.set_stage(op, Stage::Syncing { left }),
                }
            }
            Need::Exclusive(ino, range) => {
                let claim = Claim { op, client: Some(client), beside_own: false, range, mode: LayoutMode::Exclusive };
                self.queue(ino, claim, false);
            }
            Need::Layout(ino, range, mode) if range.is_empty() => {
                let _ = (ino, mode);
                self.finish(op, errno(Errno::INVAL));
            }
            Need::Layout(ino, range, mode) => self.queue_layout(op, ino, range, mode, false),
        }
    }

    /// Queues a `LayoutGet` for this range; `first` if it was let in before and found that it needs more.
    pub(super) fn queue_layout(&mut self, op: OpId, ino: InodeNo, range: BlockRange, mode: LayoutMode, first: bool) {
        let Some(call) = self.call_work(op) else { return };
        call.layout = Some((range, mode));
        let claim = Claim { op, client: Some(call.client), beside_own: true, range, mode };
        self.queue(ino, claim, first);
    }

    fn queue(&mut self, ino: InodeNo, claim: Claim, first: bool) {
        if let Some(call) = self.call_work(claim.op) {
            call.file = Some(ino);
            call.stage = Stage::Queued;
        }
        match first {
            true => self.files.queue_first(ino, claim),
            false => self.files.queue(ino, claim),
        }
        self.advance(ino);
    }

    /// A file's holds changed: lets in whoever can be, recalls what is in the way.
    pub(super) fn advance(&mut self, ino: InodeNo) {
        let change = self.files.advance(ino);
        for layout in change.in_the_way {
            self.recall(layout);
        }
        for op in change.admitted {
            match self.work.get(&op) {
                Some(Work::Reap(_)) => self.reap_step(op, ino),
                _ => self.run(op),
            }
        }
    }

    /// Every other holder has committed.
    pub(super) fn all_synced(&mut self, op: OpId) {
        let Some(call) = self.call_work(op) else { return };
        match std::mem::replace(&mut call.stage, Stage::New) {
            Stage::RefreshSync { answer, ino, .. } => self.refresh(op, answer, ino),
            _ => self.run(op),
        }
    }

    /// Reads attributes again that another client has committed meanwhile.
    pub(super) fn refresh(&mut self, op: OpId, answer: Answer, ino: InodeNo) {
        self.set_stage(op, Stage::RefreshRead { answer });
        self.out.push(Effect::Read { op, ask: ReadAsk::Request(Request::Getattr { ino }) });
    }

    /// Has other holders of `ino` commit, then reads its attributes into `answer`.
    pub(super) fn refresh_after_sync(&mut self, op: OpId, client: ClientId, answer: Answer, ino: InodeNo) {
        let left = self.want_sync(op, ino, client);
        match left.is_empty() {
            true => self.refresh(op, answer, ino),
            false => self.set_stage(op, Stage::RefreshSync { answer, ino, left }),
        }
    }

    /// A call has what it needs.
    fn run(&mut self, op: OpId) {
        let Some(call) = self.call_work(op) else { return };
        let (client, request) = (call.client, call.request.clone());
        match request {
            Request::Lookup { .. }
            | Request::Getattr { .. }
            | Request::Readlink { .. }
            | Request::Readdir { .. }
            | Request::Statfs => self.read(op, ReadAsk::Request(request)),
            Request::Hints(HintsCall::Get { .. }) => self.read(op, ReadAsk::Request(request)),
            Request::Xattr(ref call) if !call.is_durable() => self.read(op, ReadAsk::Request(request)),
            Request::LayoutGet { ino, .. } => match self.files.widen(ino, op) {
                Some(range) => self.read(op, ReadAsk::Layout { ino, range }),
                None => self.finish(op, errno(Errno::INVAL)),
            },
            Request::Open { ino, open } => match self.try_open(client, open.handle, ino) {
                OpenVerdict::Noted => self.read(op, ReadAsk::Request(Request::Getattr { ino })),
                OpenVerdict::BeingFreed => self.finish(op, errno(Errno::NOENT)),
            },
            Request::Locks(ask) => self.lock_request(op, client, ask),
            Request::Release { handle, .. } => {
                self.locks_released(client, handle);
                self.closed(client, handle);
                self.finish(op, Answer::Ok(Reply::Done));
            }
            Request::Commit { ino, commit, give_back } => self.commit(op, client, ino, &commit, &give_back),
            Request::PathLost { nothing_in_flight } => self.path_lost(op, client, nothing_in_flight),
            Request::PathBack { fence_gen } => self.path_back(op, client, fence_gen),
            Request::Goodbye => self.goodbye(op, client),
            Request::Grant { .. } if self.is_calling_space_back() => self.wait_behind_recalls(op),
            _ => self.store_request(op),
        }
    }

    pub(super) fn read(&mut self, op: OpId, ask: ReadAsk) {
        let ends = self.ends.count();
        self.set_stage(op, Stage::Reading { ends });
        self.out.push(Effect::Read { op, ask });
    }

    /// Gives a call to the store.
    pub(super) fn store_request(&mut self, op: OpId) {
        let Some(call) = self.call_work(op) else { return };
        call.stage = Stage::Storing;
        let (client, slot, seq) = (call.client, call.slot, call.seq);
        let request = call.request.clone();
        self.store(op, StoreAsk::Request { client, slot, seq, request });
    }

    pub(super) fn store(&mut self, op: OpId, ask: StoreAsk) {
        self.give_to_store(op);
        self.out.push(Effect::Store { op, ask });
    }

    /// A session ends in order: what it holds goes once none of its redirected requests is in progress.
    fn goodbye(&mut self, op: OpId, client: ClientId) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if !session.guards.is_empty() {
            session.path = Path::ComingBack(op);
            return self.set_stage(op, Stage::Draining);
        }
        self.set_stage(op, Stage::Storing);
        self.store(op, StoreAsk::EndSession { client });
    }

    /// Answers a call, frees its slot, and lets others at what it held.
    pub(super) fn finish(&mut self, op: OpId, answer: Answer) {
        let Some(Work::Call(call)) = self.work.remove(&op) else { return };
        self.locks.doubts.forget(op);
        let keep = (call.request.is_durable() && matches!(answer, Answer::Ok(_))).then(|| answer.clone());
        if let Some(session) = self.sessions.get_mut(&call.client) {
            session.end(call.slot, call.seq, keep);
        }
        for tag in call.tags {
            self.out.push(Effect::Answer { tag, answer: answer.clone() });
        }
        if let Some(ino) = call.file {
            self.files.leave(ino, op);
            self.files.check(ino);
            self.advance(ino);
        }
    }
}

/// An answer with an errno.
pub(super) fn errno(e: Errno) -> Answer {
    Answer::Errno(e.raw_os_error())
}
