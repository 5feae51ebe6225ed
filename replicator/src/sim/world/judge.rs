//! What the world tells its oracles.

use super::*;
use crate::compare::Verdict as Met;
use crate::core::event::AppError;

impl World {
    pub(super) fn completed(&mut self, at: NodeId, req: ReqId, result: Result<Bytes, AppError>) {
        let Some(host) = self.hosts.get_mut(&at) else { return };
        let Some(job) = host.jobs.remove(&req) else {
            return self.oracle.object("I7 Heals", format!("{at} answers {req:?} twice"));
        };
        let took = (self.now - job.start) * 1000;
        match job.ask {
            Ask::Read(_) => host.load.reads.add(took),
            _ => host.load.writes.add(took),
        }
        let ballot = host.ballot;
        let present = host.node.as_ref().map_or(NodeSet::EMPTY, Node::present);
        let full = self.protocol == Protocol::C;
        let diskless = host.node.as_ref().is_some_and(|n| n.disk() == DiskState::Diskless);
        let own = if diskless { NodeSet::EMPTY } else { NodeSet::of(at) };
        let counted = if full { present } else { present.and(own) };
        if let (Ask::Read(span) | Ask::Write(span, ..) | Ask::Zero(span, _), Ok(_)) = (&job.ask, &result) {
            self.oracle.answered(at, *span);
        }
        match (job.ask, result) {
            (Ask::Read(span), Ok(bytes)) => {
                let values: Vec<u64> =
                    bytes.chunks(8).map(|b| b.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))).collect();
                self.oracle.read(at, ballot, span.at, &values, job.start);
            }
            (Ask::Write(..) | Ask::Zero(..), Ok(_)) => self.oracle.acked(job.value, present, counted, self.now),
            (Ask::Flush, Ok(_)) => {
                let disks: Vec<(NodeId, &Disk)> =
                    counted.iter().filter_map(|n| self.hosts.get(&n).map(|h| (n, &h.disk))).collect();
                self.oracle.flushed(at, ballot, job.start, self.now, &disks);
            }
            (_, Err(error)) => self.count(format!("error: {error:?}")),
        }
    }

    pub(super) fn reported(&mut self, at: NodeId, report: &Report) {
        let text = format!("{report:?}");
        let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
        self.count(format!("report: {}", &text[..end]));
        match report {
            Report::Decided(_, verdict, rules) => {
                let text = format!("{verdict:?}");
                let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
                self.count(format!("verdict: {}", &text[..end]));
                if matches!(verdict, Met::Target { .. }) {
                    self.oracle.half_done(at);
                    self.hosts.get_mut(&at).into_iter().for_each(|h| h.swapped = false);
                }
                for rule in rules {
                    self.count(format!("rule: {rule:?}"));
                }
                let told = matches!(verdict, Met::SplitBrain | Met::PrimaryWouldLose | Met::Unrelated);
                if told || rules.contains(&crate::compare::Rule::DiscardMyData) {
                    self.oracle.told = true;
                }
            }
            Report::Granted(grant) => {
                let ballot = self.hosts[&at].ballot;
                // A disk that was taken away since had accepted.
                let there = |h: &Host| {
                    let found = Replica::recover(&h.disk, h.disk.meta_len(), Life::UNKNOWN);
                    !h.swapped && found.is_ok_and(|r| r.replica.superblock().current != Generation::JUST_CREATED)
                };
                let disks: Vec<(NodeId, &Disk)> =
                    self.hosts.iter().filter(|(_, h)| there(h)).map(|(n, h)| (*n, &h.disk)).collect();
                self.oracle.granted(at, ballot, *grant, &disks);
            }
            Report::Promoted(ballot) => {
                self.look_at_contest(at);
                if let Some(host) = self.hosts.get_mut(&at) {
                    host.ballot = *ballot;
                }
                if self.oracle.highest.is_none_or(|(b, _)| *ballot > b) {
                    self.oracle.highest = Some((*ballot, at));
                }
            }
            Report::Grown(volume, _) if *volume == second() && self.adds_second() => {
                self.count("volumes: one was added".to_owned());
            }
            Report::TakenAway(volume) => {
                self.count("volumes: one was taken away".to_owned());
                self.oracle.gone(at, volume.span(MOST));
            }
            Report::Grown(volume, _) => self.oracle.there(at, volume.span(MOST)),
            // Whatever it is left for.
            Report::Detached => self.oracle.crashed(at, self.now),
            Report::AtRest(rests) => {
                let life = self.hosts[&at].life;
                self.later(1, Happening::Ends(at, life, Some(*rests)));
            }
            Report::Verified(peer, differs, _) if *differs > 0 => {
                self.oracle.object("I3 Equal", format!("{at} and {peer} were compared, and {differs} sectors differ"));
            }
            _ => {}
        }
    }

    /// I4, on what a crash of every node at this moment would leave.
    pub(super) fn look_at_coverage(&mut self) {
        let mut left = BTreeMap::new();
        for node in self.disks.iter() {
            let mut disk = self.hosts[&node].disk.clone();
            disk.crash(&mut self.rng);
            match Replica::recover(&disk, disk.meta_len(), Life::UNKNOWN) {
                Ok(recovered) => drop(left.insert(node, (disk, recovered.replica))),
                Err(e) => return self.oracle.object("I4 Covered", format!("{node} could not read its metadata: {e}")),
            }
        }
        for a in self.disks.iter() {
            for b in self.disks.iter().filter(|b| *b > a) {
                let ((disk_a, meta_a), (disk_b, meta_b)) = (&left[&a], &left[&b]);
                if is_new(meta_a, b) || is_new(meta_b, a) {
                    continue;
                }
                let both = meta_a.sizes().smaller(&meta_b.sizes());
                let sectors = both.iter().flat_map(|(v, sectors)| v.base()..v.base() + sectors);
                for sector in sectors {
                    let (va, vb) = (disk_a.values(sector).0, disk_b.values(sector).0);
                    if va == vb {
                        continue;
                    }
                    self.oracle.covered += 1;
                    let bit = |m: &Replica, n| {
                        m.bitmap(n).is_some_and(|map| map.is_set(map.bits_of(Span::new(sector, 1)).start))
                    };
                    if !bit(meta_a, b) && !bit(meta_b, a) {
                        let what = format!("sector {sector} is {va} on {a} and {vb} on {b}, and neither has a bit");
                        return self.oracle.object("I4 Covered", what);
                    }
                }
            }
        }
    }

    /// I3: of two that are equal and have nothing under way every sector is the same.
    pub(super) fn look_at_equals(&mut self) {
        let quiet = self.hosts.values().all(|h| h.work.is_empty() && h.jobs.is_empty() && h.pending.is_empty());
        if !quiet {
            return;
        }
        for (a, b) in self.pairs() {
            if self.are_equal(a, b) {
                self.look_at_pair(a, b);
            }
        }
    }

    /// I3, at the end: everybody is equal to the one primary, so everybody to everybody, and no bit is left with it.
    pub(super) fn look_at_all(&mut self) {
        for (a, b) in self.pairs() {
            self.look_at_pair(a, b);
        }
    }

    fn pairs(&self) -> Vec<(NodeId, NodeId)> {
        let all = self.disks;
        all.iter().flat_map(|a| all.iter().filter(move |b| *b > a).map(move |b| (a, b))).collect()
    }

    fn look_at_pair(&mut self, a: NodeId, b: NodeId) {
        let (da, db) = (&self.hosts[&a].disk, &self.hosts[&b].disk);
        let sizes = |n: &NodeId| self.hosts[n].node.as_ref().map_or(Sizes::one(self.shape.data), Node::sizes);
        let value = |d: &Disk, s| d.values(s).0;
        let both = sizes(&a).smaller(&sizes(&b));
        let mut sectors = both.iter().flat_map(|(v, sectors)| v.base()..v.base() + sectors);
        if let Some(s) = sectors.find(|s| value(da, *s) != value(db, *s)) {
            let what = format!("{a} and {b} are equal, and sector {s} is {} and {}", value(da, s), value(db, s));
            self.oracle.object("I3 Equal", what);
        }
    }

    /// Nothing is under way, on a disk or between two nodes.
    pub(super) fn is_quiet(&self) -> bool {
        let carries = |h: &Happening| match h {
            Happening::Deliver(_, _, _, m) => !matches!(m, Message::Ping | Message::Pong),
            _ => false,
        };
        let still = self.hosts.values().all(|h| h.work.is_empty() && h.jobs.is_empty() && h.pending.is_empty());
        still && !self.happenings.values().any(carries)
    }

    /// Both say so, on the same connection, with nothing on the wire between them, and one of them reigns.
    fn are_equal(&self, a: NodeId, b: NodeId) -> bool {
        let (Some(x), Some(y)) = (&self.hosts[&a].node, &self.hosts[&b].node) else { return false };
        let on_wire = self.happenings.values().any(|h| match h {
            Happening::Deliver(from, to, _, m) => {
                pair(*from, *to) == pair(a, b) && !matches!(m, Message::Ping | Message::Pong)
            }
            Happening::Hangup(from, to, _) => pair(*from, *to) == pair(a, b),
            _ => false,
        });
        let both = x.established().has(b) && y.established().has(a);
        let whole = [x, y].iter().all(|n| n.disk() >= DiskState::UpToDate);
        let heard = !self.cut.get(&pair(a, b)).copied().unwrap_or(false);
        // Until a peer has been met again it lacks what is new.
        let grow = x.grows() || y.grows();
        both && whole && !grow && !on_wire && heard && (x.is_primary() || y.is_primary())
    }

    /// A primary, everybody with it, nothing waits, no bits.
    pub(super) fn is_healed(&self) -> bool {
        let all = || self.hosts.values().filter_map(|h| h.node.as_ref());
        let one = all().filter(|n| n.is_primary()).count() == 1;
        let present = all().any(|n| n.is_primary() && n.present() == self.disks);
        let whole = all().count() == self.hosts.len() && all().all(|n| n.disk() == DiskState::UpToDate);
        let joined = all().all(|n| !n.is_primary() || n.established().len() + 1 == self.disks.len());
        let sizes: BTreeSet<Sizes> = all().map(Node::sizes).collect();
        let added = !self.waits_for_second() && !self.waits_for_the_end_of_second();
        one && present && whole && joined && added && sizes.len() == 1 && self.hosts.values().all(|h| h.jobs.is_empty())
    }

    pub(super) fn why_not_healed(&self) -> String {
        let mut text = format!("{HEAL} ms after the last fault:");
        for (node, host) in &self.hosts {
            let Some(n) = &host.node else {
                text += &format!(" {node} is down;");
                continue;
            };
            text += &format!(
                " {node}: {:?} sectors, primary {}, {:?}, present {:?}, equal {:?}, syncs {:?}, {} requests, alone {:?};",
                n.sizes().iter().map(|(_, s)| s).collect::<Vec<_>>(),
                n.is_primary(),
                n.disk(),
                n.present(),
                n.established(),
                n.synchronising(),
                host.jobs.len(),
                host.alone
            );
        }
        text
    }
}

/// A replica without data of a resource, which has not begun to get all from a peer: nobody says what it holds.
fn is_new(replica: &Replica, peer: NodeId) -> bool {
    let sb = replica.superblock();
    sb.current == Generation::JUST_CREATED && !sb.peer(peer).is_some_and(|p| p.full_sync)
}
