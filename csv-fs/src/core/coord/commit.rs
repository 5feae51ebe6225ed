//! Commits and the return of layouts: the return table's main business. Never waits for anybody's recall, lock or
//! ordinary request; at most for redirected I/O that is on its way to the disk under the very layouts it gives back.

use rustix::io::Errno;

use super::Coord;
use super::calls::errno;
use super::event::OpId;
use super::files::Layout;
use super::work::Stage;
use crate::proto::{Answer, CommitBody, Reply};
use crate::types::*;

impl Coord {
    /// A commit arrives. Without a body it changes nothing durable and does not trouble the store.
    pub(super) fn commit(&mut self, op: OpId, client: ClientId, ino: InodeNo, body: &CommitBody, back: &[LayoutId]) {
        let changes = !body.extents.is_empty() || body.size.is_some() || body.mtime.is_some();
        if changes && !self.may_commit(client, ino, body) {
            return self.finish(op, errno(Errno::STALE));
        }
        match changes {
            true => self.store_request(op),
            false => self.committed(op, client, ino, body.sync, back, Answer::Ok(Reply::Done)),
        }
    }

    /// Mappings and lengths are made under exclusive layouts, and where one is held nobody else is. One that is not held
    /// any more (its return and the end of a reign crossed) still counts if nobody else has taken the place; the store
    /// compares with the grant.
    ///
    /// Prevents: a client writes blocks 4 and 5 under a layout each and joins them to one extent, which neither covers; it
    /// asks for a layout over both meanwhile; its own request is taken for somebody else's, and the commit is refused.
    fn may_commit(&self, client: ClientId, ino: InodeNo, body: &CommitBody) -> bool {
        let mapped = !body.extents.iter().any(|e| self.files.others_in(ino, client, e.range()));
        let own = self.files.layouts_on(ino, client);
        let rules = |l: &Layout| l.mode == LayoutMode::Exclusive && l.range.end == BlockRange::ALL.end;
        let sized = body.size.is_none() || own.iter().any(rules) || !self.files.others_in(ino, client, BlockRange::ALL);
        mapped && sized
    }

    /// It is in the store: syncs are answered, layouts go back.
    pub(super) fn committed(
        &mut self,
        op: OpId,
        client: ClientId,
        ino: InodeNo,
        sync: u64,
        give_back: &[LayoutId],
        answer: Answer,
    ) {
        self.progressed(ino, client);
        let own = self.files.layouts_on(ino, client);
        let layouts: Vec<LayoutId> = own.iter().map(|l| l.id).filter(|id| give_back.contains(id)).collect();
        let asked_before = self.syncs.get(&(ino, client)).is_some_and(|s| sync < s.number);
        self.synced(ino, client, sync);
        if asked_before {
            self.resend_sync(ino, client);
        }
        if let Some(session) = self.sessions.get_mut(&client)
            && session.has_guards_on(&layouts)
        {
            session.returning.push(op);
            return self.set_stage(op, Stage::Returning { answer, layouts });
        }
        self.drop_layouts(client, &layouts);
        self.finish(op, answer);
    }

    /// Takes layouts of one client away and lets others at their ranges.
    pub(super) fn drop_layouts(&mut self, client: ClientId, layouts: &[LayoutId]) {
        let mut files: Vec<InodeNo> = Vec::new();
        for id in layouts {
            self.recalls.remove(id);
            if let Some(session) = self.sessions.get_mut(&client) {
                session.layouts.remove(id);
            }
            let Some((ino, layout)) = self.files.drop_layout(*id) else { continue };
            if layout.mode == LayoutMode::Exclusive {
                self.ends.record(ino);
            }
            if !files.contains(&ino) {
                files.push(ino);
            }
        }
        for ino in files {
            self.synced_if_gone(ino, client);
            self.advance(ino);
        }
    }
}
