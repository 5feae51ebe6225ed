//! The clients of a random run: they ask, write under what they hold, and do what they are asked.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Held {
    pub(super) ino: InodeNo,
    pub(super) range: BlockRange,
    pub(super) mode: LayoutMode,
}

pub(super) struct Pending {
    pub(super) request: Request,
    pub(super) seq: u64,
    /// What every write had acknowledged when this was asked.
    pub(super) floor: u64,
    /// How many commits of the client itself had been answered then. An answer that crossed one of them says nothing
    /// about what that one carried: a client asks again, or keeps what it knows better.
    pub(super) own_commits: u64,
}

pub(super) struct Node {
    pub(super) id: ClientId,
    pub(super) bind: Bind,
    pub(super) bound: bool,
    pub(super) silent: bool,
    pub(super) held: BTreeMap<LayoutId, Held>,
    pub(super) returning: BTreeMap<LayoutId, (Held, SlotRef, u64)>,
    pub(super) recalled: BTreeSet<LayoutId>,
    pub(super) sizes: BTreeMap<InodeNo, u64>,
    pub(super) synced: BTreeMap<InodeNo, u64>,
    pub(super) seqs: BTreeMap<SlotRef, u64>,
    pub(super) pending: BTreeMap<SlotRef, Pending>,
    pub(super) commits: u64,
}

impl Node {
    pub(super) fn new(node: u8, incarnation: u64) -> Node {
        let id = ClientId { node: NodeId::new(node).unwrap(), incarnation: Incarnation(incarnation) };
        Node {
            id,
            bind: Bind(0),
            bound: false,
            silent: false,
            held: BTreeMap::new(),
            returning: BTreeMap::new(),
            recalled: BTreeSet::new(),
            sizes: BTreeMap::new(),
            synced: BTreeMap::new(),
            seqs: BTreeMap::new(),
            pending: BTreeMap::new(),
            commits: 0,
        }
    }

    pub(super) fn asks_layout_of(&self, ino: InodeNo) -> bool {
        self.pending.values().any(|p| matches!(p.request, Request::LayoutGet { ino: i, .. } if i == ino))
    }

    pub(super) fn may_grow(&self, ino: InodeNo) -> bool {
        let all = |(id, h): (&LayoutId, &Held)| {
            h.ino == ino
                && h.mode == LayoutMode::Exclusive
                && h.range.end == BlockRange::ALL.end
                && !self.recalled.contains(id)
        };
        self.held.iter().any(all)
    }
}

impl Run {
    pub(super) fn node(&mut self, id: ClientId) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|n| n.id == id && !n.silent)
    }

    pub(super) fn called_back(&mut self, to: ClientId, bind: Bind, id: CallbackId, ask: &CallbackAsk) {
        let Some(node) = self.node(to).filter(|n| n.bind == bind) else {
            return self.mail.push(Mail::CallbackAnswer { id, answer: None });
        };
        let answer = match ask {
            CallbackAsk::LockReady { .. } | CallbackAsk::LockHeld { .. } => CallbackAnswer::NotHeld,
            CallbackAsk::Recall { layout, ino } => {
                let known = node.held.contains_key(layout) || node.returning.contains_key(layout);
                if known || node.asks_layout_of(*ino) {
                    node.recalled.insert(*layout);
                    CallbackAnswer::Accepted
                } else {
                    CallbackAnswer::NotHeld
                }
            }
            CallbackAsk::Sync { ino, number } => {
                let dirty = node.sizes.contains_key(ino) || node.returning.values().any(|(h, ..)| h.ino == *ino);
                node.synced.insert(*ino, *number);
                if dirty { CallbackAnswer::Accepted } else { CallbackAnswer::NotHeld }
            }
            CallbackAsk::RecallGrant | CallbackAsk::Progress => CallbackAnswer::NotHeld,
        };
        self.mail.push(Mail::CallbackAnswer { id, answer: Some(answer) });
    }

    pub(super) fn bind_answered(&mut self, to: ClientId, bind: Bind, answer: BindAnswer) {
        let Some(index) = self.nodes.iter().position(|n| n.id == to && n.bind == bind && !n.bound && !n.silent) else {
            return;
        };
        match answer {
            BindAnswer::Bound { refused, .. } => {
                if !refused.is_empty() {
                    self.broken.push(format!("{to} was refused {refused:?}"));
                }
                self.nodes[index].bound = true;
                self.resend(index);
            }
            BindAnswer::Evicted { .. } => {
                // Only what a silent one leaves behind is evicted here; that one never hears of it.
                self.broken.push(format!("{to} was evicted though it does what it is asked"));
            }
            BindAnswer::Busy | BindAnswer::NotCoordinator { .. } => self.start_bind(index),
        }
    }

    pub(super) fn start_bind(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.bind.0 += 1;
        node.bound = false;
        let held = node.held.iter().map(|(id, h)| Reassert::Layout {
            id: *id,
            ino: h.ino,
            range: h.range,
            mode: h.mode,
            uncommitted: vec![],
            size: None,
            mtime: None,
        });
        let returning = node.returning.iter().map(|(id, (h, slot, seq))| Reassert::Releasing {
            id: *id,
            ino: h.ino,
            range: h.range,
            mode: h.mode,
            slot: *slot,
            seq: *seq,
        });
        let request = BindRequest {
            volume: VOLUME,
            client: node.id,
            bind: node.bind,
            fence_gen: FenceGen(3),
            has_path: true,
            reassert: held.chain(returning).collect(),
        };
        self.mail.push(Mail::Bind(request));
    }

    pub(super) fn resend(&mut self, index: usize) {
        let node = &self.nodes[index];
        let calls = node.pending.iter().map(|(slot, p)| {
            let request = p.request.clone();
            Mail::Call(Call { volume: VOLUME, client: node.id, bind: node.bind, slot: *slot, seq: p.seq, request })
        });
        let calls: Vec<Mail> = calls.collect();
        self.mail.extend(calls);
    }

    pub(super) fn send(&mut self, index: usize, slot: SlotRef, request: Request) {
        let floor = match &request {
            Request::Getattr { ino } => self.acknowledged.get(ino).copied().unwrap_or(0),
            Request::Lookup { name, .. } => {
                self.acknowledged.get(&InodeNo(10 + u64::from(name[0]))).copied().unwrap_or(0)
            }
            _ => 0,
        };
        let node = &mut self.nodes[index];
        let seq = node.seqs.entry(slot).or_default();
        *seq += 1;
        let seq = *seq;
        if let Request::Commit { give_back, .. } = &request {
            for id in give_back {
                if let Some(held) = node.held.remove(id) {
                    node.returning.insert(*id, (held, slot, seq));
                }
            }
        }
        let own_commits = node.commits;
        node.pending.insert(slot, Pending { request: request.clone(), seq, floor, own_commits });
        if node.bound {
            let call = Call { volume: VOLUME, client: node.id, bind: node.bind, slot, seq, request };
            self.mail.push(Mail::Call(call));
        }
    }

    pub(super) fn call_answered(&mut self, to: ClientId, bind: Bind, slot: SlotRef, seq: u64, answer: Answer) {
        let Some(index) = self.nodes.iter().position(|n| n.id == to && n.bind == bind && n.bound && !n.silent) else {
            return;
        };
        let node = &mut self.nodes[index];
        if node.pending.get(&slot).is_none_or(|p| p.seq != seq) {
            return;
        }
        if matches!(answer, Answer::StaleBind | Answer::StaleEpoch { .. }) {
            return self.start_bind(index);
        }
        let Some(Pending { request, floor, own_commits, .. }) = node.pending.remove(&slot) else { return };
        self.answered += 1;
        match (request, answer) {
            (Request::LayoutGet { .. }, Answer::Ok(Reply::Layout(grant))) => {
                let held = Held { ino: grant.ino, range: grant.range, mode: grant.mode };
                node.held.insert(grant.id, held);
            }
            (Request::Commit { ino, give_back, commit, .. }, Answer::Ok(_)) => {
                node.commits += 1;
                for id in &give_back {
                    node.returning.remove(id);
                    node.recalled.remove(id);
                }
                if node.sizes.get(&ino).is_some_and(|s| Some(*s) == commit.size) {
                    node.sizes.remove(&ino);
                }
            }
            (Request::Getattr { .. } | Request::Lookup { .. }, Answer::Ok(Reply::Attr(attr))) => {
                self.told += 1;
                let own = node.sizes.get(&attr.ino).copied().unwrap_or(0);
                let own_commit = node.pending.values().filter_map(|p| match &p.request {
                    Request::Commit { ino, commit, .. } if *ino == attr.ino => commit.size,
                    _ => None,
                });
                let seen = attr.size.max(own).max(own_commit.max().unwrap_or(0));
                if seen < floor && own_commits == node.commits {
                    self.broken.push(format!("{to} was told {} of {}, {floor} was acknowledged", seen, attr.ino));
                }
            }
            (request, Answer::Ok(_)) => drop(request),
            (request, answer) => self.broken.push(format!("{to}: {request:?} was answered {answer:?}")),
        }
    }

    /// One client does something.
    pub(super) fn act(&mut self, index: usize) {
        let ino = InodeNo(10 + self.rng.below(FILES));
        let slot = ordinary(self.rng.below(u64::from(SLOTS)) as u8);
        let back = returns(self.rng.below(u64::from(SLOTS)) as u8);
        let what = self.rng.below(8);
        let node = &mut self.nodes[index];
        let (slot_free, back_free) = (!node.pending.contains_key(&slot), !node.pending.contains_key(&back));
        match what {
            0 | 1 if slot_free && self.faults => {
                let start = self.rng.below(4) * 100;
                let end = if self.rng.one_in(2) { u64::MAX } else { start + 1 + self.rng.below(300) };
                let want = if self.rng.one_in(2) { Want::Exclusive } else { Want::Read };
                self.send(index, slot, Request::LayoutGet { ino, range: BlockRange::new(start, end), want });
            }
            2 | 3 if node.may_grow(ino) && self.faults => {
                let size = self.acknowledged.entry(ino).or_default();
                *size += 1;
                node.sizes.insert(ino, *size);
            }
            4 if slot_free && self.faults => self.send(index, slot, Request::Getattr { ino }),
            5 if slot_free && self.faults => {
                let name = vec![(ino.0 - 10) as u8];
                self.send(index, slot, Request::Lookup { parent: InodeNo::ROOT, name });
            }
            6 if slot_free && self.faults => {
                self.send(index, slot, Request::Unlink { parent: InodeNo::ROOT, name: vec![1] });
            }
            _ if back_free => self.commit(index, back, ino),
            _ => {}
        }
    }

    /// Commits a file, and gives back what of it was recalled.
    pub(super) fn commit(&mut self, index: usize, slot: SlotRef, ino: InodeNo) {
        let node = &self.nodes[index];
        let busy = node.pending.values().any(|p| matches!(p.request, Request::Commit { ino: i, .. } if i == ino));
        let give_back: Vec<LayoutId> =
            node.held.iter().filter(|(id, h)| h.ino == ino && node.recalled.contains(id)).map(|(id, _)| *id).collect();
        let size = node.sizes.get(&ino).copied();
        let asked = node.synced.contains_key(&ino);
        if busy || (give_back.is_empty() && size.is_none() && !asked) {
            return;
        }
        // What was made under a layout stays committable until the commit that gives it back.
        let sync = node.synced.get(&ino).copied().unwrap_or(0);
        let mtime = Some(Timestamp::default());
        let commit = CommitBody { size, sync, mtime, ..CommitBody::default() };
        self.nodes[index].synced.remove(&ino);
        self.send(index, slot, Request::Commit { ino, commit, give_back });
    }
}
