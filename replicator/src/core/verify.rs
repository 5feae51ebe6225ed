//! Online verification: two equal replicas are compared block by block while they are used.
//!
//! ```text
//!   driver (a secondary)                                       server (its primary, or another secondary while there is none)
//!   reads a run, digests ── Check ──► waits until nothing is written there, reads, compares; writes to the run wait
//!   differs and was touched: again ◄─ Checked ─┘ and go on
//!   differs and was not: it differs
//! ```
//! All messages of a connection come in order: when an answer comes, every write that the server had executed before it compared
//! has come too. So if none came to the driver since it read, and none was under way then, both compared the same state.
//! Prevents: a write that is on its way is told as a difference. A run that is written all the time is compared again a few
//! times, and then told as skipped. What differed the second time is not written until the driver asks about it again, or
//! a second has passed. Prevents: it is written between any two comparisons, and is never compared.
//!
//! Nothing is marked and nothing is changed: which side is right is for people to say. See `repair`.

use std::collections::{BTreeMap, VecDeque};

use super::Node;
use super::connect::State;
use super::event::{ConnId, Effect, Message, Now, Report};
use super::ios::Purpose;
use super::pieces::{Compared, Digest, Kind, Piece, UNIT};
use super::rules::Rule;
use crate::ids::{NodeId, SECTOR, Sizes, Span, Volume};

/// How often a run that is written meanwhile is compared again.
const TRIES: u32 = 8;
/// Ranges that are remembered; with more, neighbours become one, and each further volume has one more.
const RANGES: usize = 4096;
/// Ranges in one message.
const PART: usize = 1024;
/// Runs under way at most, and runs that are held.
const RUNS: usize = 64;
/// Milliseconds that a run is held for the driver at most: if it differs for certain, nobody asks again.
const HOLD: u64 = 1000;

/// What a verification has found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Sectors of the device.
    pub total: u64,
    /// Sectors that were compared.
    pub done: u64,
    /// Where the two differ, ascending.
    pub differing: Vec<Span>,
    /// Sectors that differ.
    pub differs: u64,
    /// Sectors that could not be compared: they were written all the time.
    pub skipped: u64,
    /// It has ended.
    pub over: bool,
    /// It ended before its time: the connection was lost.
    pub broken: bool,
}

/// The first address of any volume from one on.
fn at_or_behind(sizes: &Sizes, at: u64) -> Option<u64> {
    sizes.iter().find(|(v, sectors)| at < v.base() + sectors).map(|(v, _)| at.max(v.base()))
}

impl Verified {
    fn add(&mut self, span: Span) {
        self.differs += span.len;
        let full = self.differing.len() >= RANGES;
        let beside = |last: &Span| Volume::of(last.at) == Volume::of(span.at);
        let joins = |last: &Span| last.end() == span.at || (full && span.at > last.at && beside(last));
        match self.differing.last_mut() {
            Some(last) if joins(last) => last.len = span.end() - last.at,
            // Of a volume that comes after there is a range at least.
            Some(last) if full && beside(last) => {}
            _ => self.differing.push(span),
        }
    }
}

/// A verification on a connection.
#[derive(Debug)]
pub(super) enum Verify {
    Driver(Driver),
    Server(Server),
}

/// The driver's end.
#[derive(Debug, Default)]
pub(super) struct Driver {
    next: u64,
    window: BTreeMap<u64, Check>,
    again: VecDeque<(Span, u32)>,
    room: Option<u64>,
}

/// A run that is being compared.
#[derive(Debug)]
struct Check {
    span: Span,
    /// It was written since it was read, or about then.
    touched: bool,
    tries: u32,
}

/// The server's end.
#[derive(Debug, Default)]
pub(super) struct Server {
    asked: VecDeque<Asked>,
    /// What was answered as different, when, and whether it was asked about again before: then it is not written.
    held: Vec<(Span, Now, bool)>,
}

/// A run that the driver asks about.
#[derive(Debug)]
struct Asked {
    /// It differed before.
    again: bool,
    run: Span,
    digests: Vec<Digest>,
    reading: bool,
}

impl Node {
    /// Somebody wants the replicas compared: the primary with each equal peer, a secondary with its primary. Two secondaries are compared
    /// where neither follows a primary: nothing is written then. Beside one each has the stream when it has it, and two that were found
    /// equal to the primary are equal.
    pub(super) fn verify(&mut self) {
        for node in self.verifiable() {
            // Of two secondaries the lower one drives: else both could, and neither would answer.
            if self.is_primary() || (self.follows().is_none() && node < self.me()) {
                self.verify_begins(node, Verify::Server(Server::default()));
                self.send(node, Message::Verify);
            } else {
                self.verify_begins(node, Verify::Driver(Driver::default()));
            }
        }
    }

    /// Whom this node can be compared with now.
    pub fn verifiable(&self) -> Vec<NodeId> {
        let equal = self.links.iter().filter(|(_, l)| matches!(l.state, State::Equal) && !l.ahead).map(|(n, _)| *n);
        let anybody = self.is_primary() || self.follows().is_none();
        equal.filter(|n| self.replica.is_some() && (anybody || self.follows() == Some(*n))).collect()
    }

    /// A peer wants this node compared with itself. What cannot be compared is said by the end of the connection.
    pub(super) fn verify_asked(&mut self, node: NodeId) {
        if !self.is_primary() && self.verifiable().contains(&node) {
            self.verify_begins(node, Verify::Driver(Driver::default()));
        } else if !self.is_primary() {
            self.link_close(node, true);
        }
    }

    /// This node follows a primary from now on: with others nothing is compared any more. Prevents: one of two secondaries has the primary's
    /// first write and the other has not, and that is told as a difference.
    pub(super) fn leave_other_checks(&mut self, primary: NodeId) {
        let others = self.links.iter().filter(|(n, l)| **n != primary && l.verify.is_some()).map(|(n, _)| *n);
        for node in others.collect::<Vec<_>>() {
            self.link_close(node, true);
        }
    }

    /// A secondary has something marked for the peer there: it is known that the two may differ, and they meet anew.
    fn is_marked(&self, node: NodeId, span: Span) -> bool {
        let map = self.replica.as_ref().and_then(|r| r.bitmap(node));
        !self.is_primary() && map.is_some_and(|m| m.bits_of(span).any(|b| m.is_set(b)))
    }

    /// One that is under way goes on: answers of an older one would be taken for those of a new one, and speak of what was there before.
    fn verify_begins(&mut self, node: NodeId, verify: Verify) {
        let total = self.replica.as_ref().map_or(0, |r| r.sizes().total());
        if let Some(link) = self.links.get_mut(&node).filter(|l| l.verify.is_none()) {
            link.verify = Some(verify);
            self.verified.insert(node, Verified { total, ..Verified::default() });
        }
    }

    fn driver(&mut self, node: NodeId) -> Option<&mut Driver> {
        match self.links.get_mut(&node).and_then(|l| l.verify.as_mut()) {
            Some(Verify::Driver(driver)) => Some(driver),
            _ => None,
        }
    }

    /// Asks about more runs, or says that there are no more.
    pub(super) fn pump_checks(&mut self) {
        let drivers = self.links.iter().filter(|(_, l)| matches!(l.verify, Some(Verify::Driver(_))));
        let drivers: Vec<(NodeId, ConnId)> = drivers.map(|(n, l)| (*n, l.conn)).collect();
        let Some(sizes) = self.replica.as_ref().map(|r| r.sizes()) else { return };
        for (node, conn) in drivers {
            while let Some((run, tries)) = self.next_check(node, &sizes) {
                let touched = self.writes.hits(run);
                let Some(driver) = self.driver(node) else { break };
                driver.window.insert(run.at, Check { span: run, touched, tries });
                let io = self.io(Purpose::CheckDigest(node, conn, run));
                self.fx.push(Effect::Digest(io, run));
            }
            let idle =
                |d: &mut Driver| d.window.is_empty() && d.again.is_empty() && at_or_behind(&sizes, d.next).is_none();
            if self.driver(node).is_some_and(idle) {
                self.verify_ends(node);
            }
        }
    }

    fn next_check(&mut self, node: NodeId, sizes: &Sizes) -> Option<(Span, u32)> {
        let limits = self.config.resync;
        let driver = self.driver(node)?;
        let (room, under_way) =
            (driver.room.unwrap_or(limits.room.0), driver.window.values().map(|c| c.span.len).sum::<u64>());
        if !driver.window.is_empty() && (under_way * SECTOR >= room || driver.window.len() >= RUNS) {
            return None;
        }
        if let Some(found) = driver.again.pop_front() {
            return Some(found);
        }
        let most = (room / 4 / SECTOR).min(limits.run_sectors) / UNIT * UNIT;
        let run = sizes.within(Span::new(at_or_behind(sizes, driver.next)?, most.max(UNIT)));
        driver.next = run.end();
        Some((run, 0))
    }

    /// A write of the stream came: what is compared there is compared again, if it differs.
    pub(super) fn touch_checks(&mut self, span: Span) {
        if !self.has(Rule::CompareAgain) {
            return;
        }
        for link in self.links.values_mut() {
            if let Some(Verify::Driver(driver)) = &mut link.verify {
                let hit = driver.window.values_mut().filter(|c| c.span.overlaps(span));
                hit.for_each(|c| c.touched = true);
            }
        }
    }

    pub(super) fn check_digested(&mut self, node: NodeId, conn: ConnId, run: Span, digests: Vec<Digest>) {
        if self.conn(node) == Some(conn) && self.driver(node).is_some() {
            self.send(node, Message::Check(run, digests));
        }
    }

    /// Sectors of all volumes up to an address.
    fn sectors_before(&self, end: u64) -> u64 {
        let sizes = self.sizes();
        sizes.iter().map(|(v, sectors)| end.saturating_sub(v.base()).min(sectors)).sum()
    }

    /// The server's answer about a run.
    pub(super) fn checked(&mut self, node: NodeId, run: Span, pieces: &[Piece], room: u64) {
        if pieces.iter().any(|p| p.kind != Kind::Same) && self.follows().is_none() && self.is_marked(node, run) {
            return self.link_close(node, true);
        }
        let again = self.has(Rule::CompareAgain);
        let Some(driver) = self.driver(node) else { return };
        let Some(check) = driver.window.remove(&run.at).filter(|c| c.span == run) else {
            return self.link_close(node, true);
        };
        driver.room = Some(room);
        let (mut at, mut found) = (run.at, Vec::new());
        for piece in pieces {
            let span = Span::new(at, (u64::from(piece.units) * UNIT).min(run.end().saturating_sub(at)));
            at = span.end();
            match piece.kind {
                Kind::Same => {}
                _ if check.touched && again && check.tries < TRIES => driver.again.push_back((span, check.tries + 1)),
                _ => found.push(span),
            }
        }
        let moving = check.touched && again;
        let done = self.sectors_before(run.end());
        let Some(verified) = self.verified.get_mut(&node) else { return };
        verified.done = verified.done.max(done);
        for span in found {
            if moving {
                verified.skipped += span.len;
            } else {
                verified.add(span);
            }
        }
    }

    /// Everything was compared: the server is told.
    fn verify_ends(&mut self, node: NodeId) {
        if let Some(link) = self.links.get_mut(&node) {
            link.verify = None;
        }
        let Some(verified) = self.verified.get_mut(&node) else { return };
        verified.differing.sort_unstable();
        (verified.over, verified.done) = (true, verified.total);
        let found = verified.clone();
        let mut parts: Vec<Vec<Span>> = found.differing.chunks(PART).map(<[Span]>::to_vec).collect();
        let last = parts.pop().unwrap_or_default();
        let (differs, skipped) = (found.differs, found.skipped);
        for part in parts {
            self.send(node, Message::Differs(part, 0, 0, false));
        }
        self.send(node, Message::Differs(last, differs, skipped, true));
        self.tell(Report::Verified(node, differs, skipped));
    }

    /// What the driver found.
    pub(super) fn differs(&mut self, node: NodeId, spans: Vec<Span>, differs: u64, skipped: u64, last: bool) {
        let Some(verified) = self.verified.get_mut(&node).filter(|v| !v.over) else { return };
        let room = (RANGES + Volume::MOST).saturating_sub(verified.differing.len());
        verified.differing.extend(spans.into_iter().take(room));
        if last {
            (verified.differs, verified.skipped, verified.done, verified.over) =
                (differs, skipped, verified.total, true);
            if let Some(link) = self.links.get_mut(&node) {
                link.verify = None;
            }
            self.tell(Report::Verified(node, differs, skipped));
        }
    }

    /// The connection is gone.
    pub(super) fn verify_lost(&mut self, node: NodeId) {
        if let Some(verified) = self.verified.get_mut(&node).filter(|v| !v.over) {
            (verified.over, verified.broken) = (true, true);
        }
    }

    /// The driver asks about a run. More at once than it may ends the connection.
    pub(super) fn check_asked(&mut self, node: NodeId, run: Span, digests: Vec<Digest>) {
        let serves = self.is_primary() || self.follows().is_none();
        if !serves || !self.verifiable().contains(&node) || self.is_marked(node, run) {
            return self.link_close(node, true);
        }
        let Some(link) = self.links.get_mut(&node) else { return };
        if !matches!(link.verify, Some(Verify::Server(_))) {
            self.verify_begins(node, Verify::Server(Server::default()));
        }
        let done = self.sectors_before(run.end());
        if let Some(verified) = self.verified.get_mut(&node) {
            verified.done = verified.done.max(done.min(verified.total));
        }
        if !self.may_reach(run) {
            // New on a device that has grown: nothing is the same there before the two have met again, and that is no difference.
            let room = self.pace.room();
            return self.send(node, Message::Checked(run, Vec::new(), room));
        }
        let Some(Verify::Server(server)) = self.links.get_mut(&node).and_then(|l| l.verify.as_mut()) else { return };
        if server.asked.len() >= RUNS {
            return self.link_close(node, true);
        }
        let again = server.held.iter().any(|(span, ..)| span.overlaps(run));
        server.held.retain(|(span, ..)| !span.overlaps(run));
        server.asked.push_back(Asked { run, digests, reading: false, again });
    }

    /// Reads what was asked about and is not being written.
    pub(super) fn pump_asked(&mut self) {
        let mut ready = Vec::new();
        for (node, link) in &self.links {
            let Some(Verify::Server(server)) = &link.verify else { continue };
            let waiting = server.asked.iter().enumerate().filter(|(_, a)| !a.reading && !self.is_writing(a.run));
            ready.extend(waiting.map(|(n, _)| (*node, link.conn, n)));
        }
        for (node, conn, n) in ready {
            let verify = self.links.get_mut(&node).and_then(|l| l.verify.as_mut());
            let Some(Verify::Server(server)) = verify else { continue };
            let Some(asked) = server.asked.get_mut(n) else { continue };
            asked.reading = true;
            let (run, digests) = (asked.run, std::mem::take(&mut asked.digests));
            let io = self.io(Purpose::CheckCompare(node, conn, run));
            self.fx.push(Effect::Compare(io, run, digests));
        }
    }

    pub(super) fn check_compared(&mut self, node: NodeId, conn: ConnId, run: Span, found: Compared) {
        let (room, now) = (self.pace.room(), self.now);
        let Some(link) = self.links.get_mut(&node).filter(|l| l.conn == conn) else { return };
        let Some(Verify::Server(server)) = &mut link.verify else { return };
        let Some(at) = server.asked.iter().position(|a| a.run == run && a.reading) else { return };
        let again = server.asked.remove(at).is_some_and(|a| a.again);
        server.held.retain(|(_, since, _)| now.0.saturating_sub(since.0) < HOLD);
        let mut at = run.at;
        for piece in &found.pieces {
            let span = Span::new(at, (u64::from(piece.units) * UNIT).min(run.end().saturating_sub(at)));
            at = span.end();
            if piece.kind != Kind::Same && span.len > 0 && server.held.len() < RUNS {
                server.held.push((span, now, again));
            }
        }
        self.send(node, Message::Checked(run, found.pieces, room));
    }

    /// A verification reads there, or is about to.
    pub(super) fn is_compared(&self, span: Span) -> bool {
        let holds = |since: Now| self.now.0.saturating_sub(since.0) < HOLD;
        self.links.values().any(|l| match &l.verify {
            Some(Verify::Server(server)) => {
                server.asked.iter().any(|a| a.run.overlaps(span))
                    || server.held.iter().any(|(s, since, held)| *held && s.overlaps(span) && holds(*since))
            }
            _ => false,
        })
    }
}
