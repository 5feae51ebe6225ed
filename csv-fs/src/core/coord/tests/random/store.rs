//! The store as the clients of a random run see it: sizes of files, sessions, stored answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

#[derive(Default)]
pub(super) struct Store {
    pub(super) sessions: BTreeMap<ClientId, DurableSession>,
    pub(super) sizes: BTreeMap<InodeNo, u64>,
    pub(super) executed: BTreeSet<(ClientId, SlotRef, u64)>,
    pub(super) queue: VecDeque<(OpId, StoreAsk)>,
}

impl Run {
    pub(super) fn size(&self, ino: InodeNo) -> u64 {
        self.store.sizes.get(&ino).copied().unwrap_or(0)
    }

    pub(super) fn read(&self, ask: &ReadAsk) -> ReadDone {
        match ask {
            ReadAsk::Request(Request::Getattr { ino }) => {
                ReadDone::Answer(Answer::Ok(Reply::Attr(attr(*ino, self.size(*ino)))))
            }
            ReadAsk::Request(Request::Lookup { name, .. }) => {
                let ino = InodeNo(10 + u64::from(name[0]));
                ReadDone::Answer(Answer::Ok(Reply::Attr(attr(ino, self.size(ino)))))
            }
            ReadAsk::Request(_) => ReadDone::Answer(Answer::Errno(22)),
            ReadAsk::Layout { ino, range } => ReadDone::Layout(LayoutFacts {
                extents: vec![],
                told_to: range.end,
                size: self.size(*ino),
                kill_privilege: false,
            }),
        }
    }

    /// The oldest change of the store is committed.
    pub(super) fn commit_one(&mut self) {
        let Some((op, ask)) = self.store.queue.pop_front() else { return };
        let done = self.execute(ask);
        self.event(Event::StoreDone { op, done });
    }

    pub(super) fn execute(&mut self, ask: StoreAsk) -> StoreDone {
        match ask {
            StoreAsk::Request { client, slot, seq, request } => {
                if !self.store.executed.insert((client, slot, seq)) {
                    self.broken.push(format!("{client} {slot:?} {seq} was executed twice"));
                }
                if let Request::Commit { ino, commit, .. } = &request {
                    let size = self.store.sizes.entry(*ino).or_default();
                    *size = (*size).max(commit.size.unwrap_or(0));
                }
                let answer = Answer::Ok(Reply::Done);
                if let Some(session) = self.store.sessions.get_mut(&client) {
                    session.answers.retain(|(s, ..)| *s != slot);
                    session.answers.push((slot, seq, answer.clone()));
                }
                StoreDone::Request { answer, orphaned: vec![], truncated: None }
            }
            StoreAsk::Session { client, fence_gen, create, .. } => {
                if create {
                    self.store.sessions.retain(|c, _| c.node != client.node);
                    let slot = Some(SlotSeen { incarnation: client.incarnation, fence_gen });
                    let session = DurableSession {
                        client,
                        fence_gen,
                        state: DurableState::Live,
                        answers: vec![],
                        slot,
                        fate: Fate::Unknown,
                        reason: String::new(),
                    };
                    self.store.sessions.insert(client, session);
                }
                StoreDone::Session { grants: vec![], outside: None }
            }
            StoreAsk::Evicting { client, .. } => self.set_state(client, DurableState::Evicting),
            StoreAsk::Evicted { client, .. } => self.set_state(client, DurableState::Evicted),
            StoreAsk::PathFenced { .. } | StoreAsk::EndSession { .. } => StoreDone::Done,
            StoreAsk::Reap { .. } | StoreAsk::ReapTail { .. } => StoreDone::Reaped { more: false },
        }
    }

    pub(super) fn set_state(&mut self, client: ClientId, state: DurableState) -> StoreDone {
        if let Some(session) = self.store.sessions.get_mut(&client) {
            session.state = state;
        }
        StoreDone::Done
    }
}
