//! What the store found or did, and what follows.

use rustix::io::Errno;

use super::Coord;
use super::calls::errno;
use super::event::{EvictReason, LayoutFacts, OpId, ReadAsk, ReadDone, StoreDone};
use super::files::Layout;
use super::session::{Life, Path};
use super::work::{Stage, Work};
use crate::proto::{Answer, LayoutGrant, Reply, Request, Want};
use crate::types::*;

/// Layouts of one client; at the limit its oldest is recalled for each new one. At about 100 bytes each this bounds
/// what one client can cost the coordinator to a few megabytes.
const LAYOUTS_PER_CLIENT: usize = 32_768;

impl Coord {
    pub(super) fn read_done(&mut self, op: OpId, done: ReadDone) {
        let Some(call) = self.call_work(op) else { return };
        let client = call.client;
        if self.sessions.get(&client).is_none_or(|s| s.life != Life::Live) {
            return self.finish(op, Answer::StaleBind);
        }
        let Some(call) = self.call_work(op) else { return };
        match (std::mem::replace(&mut call.stage, Stage::New), done) {
            (Stage::RefreshRead { answer }, ReadDone::Answer(fresh)) => self.finish(op, refreshed(answer, fresh)),
            (Stage::Reading { ends }, ReadDone::Answer(answer)) => self.read_answered(op, client, answer, ends),
            (Stage::Reading { ends }, ReadDone::Layout(facts)) => self.layout_read(op, client, facts, ends),
            _ => self.finish(op, errno(Errno::IO)),
        }
    }

    fn read_answered(&mut self, op: OpId, client: ClientId, answer: Answer, ends: u64) {
        let Some(call) = self.call_work(op) else { return };
        let request = call.request.clone();
        match (request, answer) {
            (Request::Lookup { .. }, Answer::Ok(Reply::Attr(attr))) if self.may_be_inexact(attr.ino, client, ends) => {
                self.refresh_after_sync(op, client, Answer::Ok(Reply::Attr(attr)), attr.ino);
            }
            (Request::Readdir { .. }, Answer::Ok(Reply::Entries { mut entries, end })) => {
                for entry in &mut entries {
                    if self.may_be_inexact(entry.ino, client, ends) {
                        entry.attr = None;
                    }
                }
                self.finish(op, Answer::Ok(Reply::Entries { entries, end }));
            }
            (Request::Open { .. }, Answer::Ok(_)) => self.finish(op, Answer::Ok(Reply::Done)),
            (Request::Open { open, .. }, answer) => {
                self.closed(client, open.handle);
                self.finish(op, answer);
            }
            (Request::LayoutGet { .. }, Answer::Ok(_)) => self.finish(op, errno(Errno::IO)),
            (_, answer) => self.finish(op, answer),
        }
    }

    /// A `LayoutGet` has its range and knows the mapping: gives it out, or asks for more than it thought it needs. What
    /// was read while an exclusive layout of the file ended may lack its last commit, and is read again.
    fn layout_read(&mut self, op: OpId, client: ClientId, mut facts: LayoutFacts, ends: u64) {
        let Some(call) = self.call_work(op) else { return };
        let Request::LayoutGet { ino, range: asked, want } = call.request else { return };
        let Some((claimed, mode)) = call.layout else { return };
        let (slot, seq) = (call.slot, call.seq);
        if want == Want::Write && mode == LayoutMode::Shared && !in_place(asked, &facts) {
            self.files.leave(ino, op);
            return self.queue_layout(op, ino, asked, LayoutMode::Exclusive, true);
        }
        let last = FileBlock(facts.size / FS_BLOCK);
        if mode == LayoutMode::Exclusive && claimed.end == BlockRange::ALL.end && claimed.start > last {
            let all_beyond = BlockRange { start: last, end: claimed.end };
            self.files.leave(ino, op);
            return self.queue_layout(op, ino, all_beyond, mode, true);
        }
        let Some(held) = self.files.held_by(ino, op) else { return self.finish(op, errno(Errno::IO)) };
        if self.ends.since(ino, ends) {
            return self.read(op, ReadAsk::Layout { ino, range: held });
        }
        let exclusive = |l: &Layout| (l.mode == LayoutMode::Exclusive).then_some(l.id);
        let beside = self.files.layouts_on(ino, client).iter().filter_map(exclusive).collect();
        let range = BlockRange { start: held.start, end: held.end.min(facts.told_to.max(asked.end)) };
        facts.extents.retain(|e| e.range().overlaps(range));
        self.last_layout += 1;
        let id = LayoutId(self.last_layout);
        let layout = Layout { id, client, range, mode, told_in: Some((slot, seq)) };
        self.files.give_out(ino, op, layout);
        self.files.check(ino);
        self.note_layout(client, id);
        let LayoutFacts { extents, size, kill_privilege, .. } = facts;
        let grant = LayoutGrant { id, ino, range, mode, extents, size, kill_privilege, beside };
        self.finish(op, Answer::Ok(Reply::Layout(grant)));
    }

    fn note_layout(&mut self, client: ClientId, id: LayoutId) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        session.layouts.insert(id);
        if session.layouts.len() > LAYOUTS_PER_CLIENT
            && let Some(oldest) = session.layouts.iter().find(|l| !self.recalls.contains_key(l)).copied()
        {
            self.recall(oldest);
        }
    }

    pub(super) fn store_done(&mut self, op: OpId, done: StoreDone) {
        if !self.store_answered(op) {
            return;
        }
        match (self.work.get(&op), done) {
            (Some(Work::Call(_)), StoreDone::Request { answer, orphaned, truncated }) => {
                self.request_done(op, answer, orphaned, truncated);
            }
            (Some(Work::Call(call)), StoreDone::Contradiction { .. }) => {
                let client = call.client;
                self.finish(op, errno(Errno::INVAL));
                self.evict(client, EvictReason::OutsideGrant);
            }
            (Some(Work::Call(_)), StoreDone::Done) => self.session_change_done(op),
            (Some(Work::Bind(_)), StoreDone::Session { grants, outside }) => self.bind_stored(op, grants, outside),
            (Some(Work::Evict(client)), StoreDone::Done) => {
                let client = *client;
                self.work.remove(&op);
                self.evict_stored(client);
            }
            (Some(Work::Inherit), StoreDone::Done) => drop(self.work.remove(&op)),
            (Some(Work::Reap(ino)), StoreDone::Reaped { more }) => {
                let ino = *ino;
                self.reaped(op, ino, more);
            }
            (Some(Work::ReapTail(ino)), StoreDone::Reaped { more }) => {
                let ino = *ino;
                self.tail_reaped(op, ino, more);
            }
            _ => {}
        }
    }

    fn request_done(&mut self, op: OpId, answer: Answer, orphaned: Vec<InodeNo>, truncated: Option<InodeNo>) {
        let Some(call) = self.call_work(op) else { return };
        let (client, request) = (call.client, call.request.clone());
        if let (Request::Create { open: Some(open), .. }, Answer::Ok(Reply::Created { attr, opened: true })) =
            (&request, &answer)
        {
            self.opened(client, open.handle, attr.ino);
        }
        if let (Request::Link { ino, .. }, Answer::Ok(_)) = (&request, &answer) {
            self.named(*ino);
        }
        for ino in orphaned {
            self.orphaned(ino);
        }
        if let Some(ino) = truncated {
            self.tail_left(ino);
        }
        if answer == errno(Errno::NOSPC) {
            // Prevents: its client is evicted meanwhile, and what it asked for is done when there is space again.
            if self.sessions.get(&client).is_none_or(|s| s.life != Life::Live) {
                return self.finish(op, Answer::StaleBind);
            }
            if !self.is_serving() {
                // Whether there is none only the next reign can say: this one calls nothing back any more.
                let stale = self.stale();
                return self.finish(op, stale);
            }
            if self.call_back_grants(op, client) {
                return;
            }
        }
        if matches!(answer, Answer::Ok(Reply::Granted(_)))
            && let Some(session) = self.sessions.get_mut(&client)
        {
            session.may_keep_space = true;
        }
        match (request, &answer) {
            (Request::Commit { ino, commit, give_back }, Answer::Ok(_)) => {
                self.committed(op, client, ino, commit.sync, &give_back, answer);
            }
            (Request::GrantReturn { .. }, Answer::Ok(_)) => {
                self.finish(op, answer);
                self.grant_returned(client);
            }
            (_, Answer::Ok(Reply::Created { attr, .. } | Reply::Attr(attr)))
                if self.is_held_by_other(attr.ino, client) =>
            {
                let ino = attr.ino;
                self.refresh_after_sync(op, client, answer, ino);
            }
            _ => self.finish(op, answer),
        }
    }

    fn is_held_by_other(&self, ino: InodeNo, client: ClientId) -> bool {
        !self.files.exclusive_holders(ino, Some(client)).is_empty()
    }

    /// A change of the session itself, asked for by a call, is committed.
    fn session_change_done(&mut self, op: OpId) {
        let Some(call) = self.call_work(op) else { return };
        let client = call.client;
        match call.request {
            Request::Goodbye => self.session_ended(op, client),
            Request::PathLost { .. } | Request::PathBack { .. } => self.path_fence_stored(op, client),
            _ => self.finish(op, errno(Errno::IO)),
        }
    }

    fn session_ended(&mut self, op: OpId, client: ClientId) {
        self.finish(op, Answer::Ok(Reply::Done));
        if let Some(session) = self.sessions.get_mut(&client) {
            // Nothing is asked of it any more.
            session.life = Life::Evicted;
        }
        self.release_everything(client);
        self.sessions.remove(&client);
        self.came_back(client);
    }

    /// Gives away every layout, lock and open of a client that is gone.
    pub(super) fn release_everything(&mut self, client: ClientId) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        session.path = Path::Direct;
        session.bound = false;
        let handles: Vec<HandleId> = session.opens.keys().copied().collect();
        let layouts: Vec<LayoutId> = session.layouts.iter().copied().collect();
        self.drop_layouts(client, &layouts);
        self.drop_locks(client);
        for handle in handles {
            self.closed(client, handle);
        }
        self.space_answered(client);
    }
}

/// Whether a write of these blocks changes nothing but data: all written, nothing shared, inside the file, and
/// nothing to clear.
fn in_place(asked: BlockRange, facts: &LayoutFacts) -> bool {
    let mut at = asked.start;
    for extent in &facts.extents {
        let plain = extent.state == ExtentState::Written && !extent.shared;
        if plain && extent.file <= at && at < extent.range().end {
            at = extent.range().end;
        }
    }
    !facts.kill_privilege && at >= asked.end && asked.end.0 <= facts.size.div_ceil(FS_BLOCK)
}

/// `answer` with the attributes that `fresh` found.
fn refreshed(answer: Answer, fresh: Answer) -> Answer {
    match (answer, fresh) {
        // Prevents: a name is looked up, and while its file's holder commits another file takes its place: told is that nothing
        // has that name. It led there when it was looked up; who asks about that file next is told that it is gone.
        (Answer::Ok(Reply::Attr(attr)), gone) if gone == errno(Errno::NOENT) => Answer::Ok(Reply::Attr(attr)),
        (Answer::Ok(Reply::Attr(_)), fresh) => fresh,
        (Answer::Ok(Reply::Created { opened, .. }), Answer::Ok(Reply::Attr(attr))) => {
            Answer::Ok(Reply::Created { attr, opened })
        }
        (answer, _) => answer,
    }
}
