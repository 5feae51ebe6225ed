//! The primary's writes that are not settled everywhere, by their position in the stream.
//!
//! For each event only what may have changed is looked at: a write is looked at for its answer when something became of it, all
//! of them when what an answer has to wait for has changed.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Now, ReqId};
use crate::ids::{NodeId, NodeSet, Seq, Span};

/// A write that is not settled everywhere.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) span: Span,
    /// None once it was answered.
    pub(super) app: Option<ReqId>,
    /// Written here.
    pub(super) local: bool,
    pub(super) sent: NodeSet,
    pub(super) received: NodeSet,
    pub(super) acked: NodeSet,
    pub(super) since: Now,
    /// Bytes of it that a peer may hold: none once all have written it, or it is settled.
    bytes: u64,
    /// Nothing has to be remembered any more; it is kept until it is answered.
    pub(super) settled: bool,
}

/// What an answer waits for besides the write itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) counted: NodeSet,
    pub(super) waits: bool,
    pub(super) here: bool,
}

impl Request {
    /// Bytes that no peer holds any more, told once.
    fn let_go(&mut self) -> u64 {
        if self.sent.minus(self.acked).is_empty() { std::mem::take(&mut self.bytes) } else { 0 }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Requests {
    all: BTreeMap<Seq, Request>,
    /// Sectors of an extent of the log.
    extent: u64,
    /// Of those that are not settled: how many there are, how many lie in each extent, the bytes of them that a peer may hold.
    open: usize,
    extents: BTreeMap<u64, u32>,
    bytes: u64,
    unanswered: usize,
    /// Not written here and not settled.
    unwritten: BTreeSet<Seq>,
    /// Something became of them since they were last looked at; and on which terms that was.
    touched: BTreeSet<Seq>,
    terms: Option<Terms>,
}

impl Requests {
    /// None yet.
    pub(super) fn new(extent: u64) -> Requests {
        Requests {
            all: BTreeMap::new(),
            extent,
            open: 0,
            extents: BTreeMap::new(),
            bytes: 0,
            unanswered: 0,
            unwritten: BTreeSet::new(),
            touched: BTreeSet::new(),
            terms: None,
        }
    }

    /// A new write, of an application that waits for it.
    pub(super) fn insert(&mut self, seq: Seq, span: Span, bytes: u64, app: ReqId, sent: NodeSet, since: Now) {
        let none = NodeSet::EMPTY;
        let bytes = if sent.is_empty() { 0 } else { bytes };
        let request = Request {
            span,
            app: Some(app),
            local: false,
            sent,
            received: none,
            acked: none,
            since,
            bytes,
            settled: false,
        };
        self.open += 1;
        enter(&mut self.extents, span.units(self.extent));
        self.bytes += bytes;
        self.unanswered += 1;
        self.unwritten.insert(seq);
        self.touched.insert(seq);
        self.all.insert(seq, request);
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether it is to be settled or answered yet.
    pub(super) fn is_known(&self, seq: Seq) -> bool {
        self.all.contains_key(&seq)
    }

    /// Bytes of what is not settled and not written at every peer that it was sent to.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those that are not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Whether anything is not settled.
    pub(super) fn has_open(&self) -> bool {
        self.open > 0
    }

    /// Whether anything under a span is not settled. All are looked at: this is asked for by who synchronises beside others, not for each
    /// write.
    pub(super) fn is_open(&self, span: Span) -> bool {
        self.all.values().any(|r| !r.settled && r.span.overlaps(span))
    }

    /// Extents in which something is not settled, were this one more of them.
    pub(super) fn extents_with(&self, span: Span) -> usize {
        self.extents.len() + span.units(self.extent).filter(|e| !self.extents.contains_key(e)).count()
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.all.values()
    }

    /// Spans of what is not settled.
    pub(super) fn open_spans(&self) -> Vec<Span> {
        self.all.values().filter(|r| !r.settled).map(|r| r.span).collect()
    }

    /// It is written here; false if it is known no more.
    pub(super) fn written(&mut self, seq: Seq) -> bool {
        let Some(request) = self.all.get_mut(&seq) else { return false };
        request.local = true;
        self.unwritten.remove(&seq);
        self.touched.insert(seq);
        true
    }

    /// Whether everything up to a position is written here.
    pub(super) fn is_written(&self, upto: Seq) -> bool {
        self.unwritten.first().is_none_or(|s| *s > upto)
    }

    /// A peer has received it, or written it.
    pub(super) fn acked(&mut self, node: NodeId, seq: Seq, receipt: bool) {
        if let Some(request) = self.all.get_mut(&seq).filter(|r| r.sent.has(node)) {
            request.received = request.received.with(node);
            if !receipt {
                request.acked = request.acked.with(node);
            }
            self.bytes -= request.let_go();
            self.touched.insert(seq);
        }
    }

    /// Whether a peer that it was sent to has not written it.
    pub(super) fn is_owed(&self, seq: Seq) -> bool {
        self.all.get(&seq).is_some_and(|r| !r.sent.minus(r.acked).is_empty())
    }

    /// No answer comes from a peer any more.
    pub(super) fn left(&mut self, node: NodeId) {
        for (seq, request) in self.all.iter_mut().filter(|(_, r)| r.sent.has(node)) {
            request.sent = request.sent.without(node);
            self.bytes -= request.let_go();
            self.touched.insert(*seq);
        }
    }

    /// The disk here is left: nothing is written there.
    pub(super) fn detached(&mut self) {
        for (seq, request) in &mut self.all {
            request.local = false;
            self.touched.insert(*seq);
        }
    }

    /// Those that are done, on these terms, in order.
    pub(super) fn done(&mut self, terms: Terms, is_done: impl Fn(&Request) -> bool) -> Vec<Seq> {
        let touched = std::mem::take(&mut self.touched);
        let waits = |r: &Request| r.app.is_some() && is_done(r);
        if self.terms.replace(terms) == Some(terms) {
            return touched.into_iter().filter(|s| self.all.get(s).is_some_and(waits)).collect();
        }
        self.all.iter().filter(|(_, r)| waits(r)).map(|(s, _)| *s).collect()
    }

    /// It is answered: who asked for it.
    pub(super) fn answer(&mut self, seq: Seq) -> Option<ReqId> {
        let request = self.all.get_mut(&seq)?;
        let (app, settled) = (request.app.take(), request.settled);
        self.unanswered -= usize::from(app.is_some());
        if settled {
            self.all.remove(&seq);
        }
        app
    }

    /// Those under a span are answered: who asked for them.
    pub(super) fn answer_within(&mut self, span: Span) -> Vec<ReqId> {
        let waits = |r: &Request| r.app.is_some() && r.span.overlaps(span);
        let seqs: Vec<Seq> = self.all.iter().filter(|(_, r)| waits(r)).map(|(s, _)| *s).collect();
        seqs.into_iter().filter_map(|seq| self.answer(seq)).collect()
    }

    /// All are answered: who asked for them.
    pub(super) fn answer_all(&mut self) -> Vec<ReqId> {
        let apps = self.all.values_mut().filter_map(|r| r.app.take()).collect();
        self.unanswered = 0;
        self.all.retain(|_, r| !r.settled);
        apps
    }

    /// Everything up to a position is settled: of what was not yet, its span, whether it is written here, and whom it was sent to.
    ///
    /// That is thousands at a time, and few are left: what is kept of those is made anew.
    pub(super) fn settle(&mut self, upto: Seq) -> Vec<(Span, bool, NodeSet)> {
        let later = self.all.split_off(&upto.next());
        let former = std::mem::replace(&mut self.all, later);
        self.unwritten = self.unwritten.split_off(&upto.next());
        self.extents.clear();
        (self.open, self.bytes) = (0, 0);
        for request in self.all.values().filter(|r| !r.settled) {
            self.open += 1;
            enter(&mut self.extents, request.span.units(self.extent));
            self.bytes += request.bytes;
        }
        let mut settled = Vec::with_capacity(former.len());
        for (seq, mut request) in former {
            if !request.settled {
                (request.settled, request.bytes) = (true, 0);
                settled.push((request.span, request.local, request.sent));
            }
            if request.app.is_some() {
                self.all.insert(seq, request);
            }
        }
        settled
    }

    /// Forgets all of them.
    pub(super) fn take(&mut self) -> Vec<Request> {
        let forgotten = std::mem::replace(self, Requests::new(self.extent));
        forgotten.all.into_values().collect()
    }
}

fn enter(extents: &mut BTreeMap<u64, u32>, units: std::ops::Range<u64>) {
    for extent in units {
        *extents.entry(extent).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::new(n).expect("a node")
    }

    fn some(count: u64) -> Requests {
        let mut requests = Requests::new(32);
        for n in 1..=count {
            requests.insert(Seq(n), Span::new(n * 16, 8), 4096, ReqId(n), NodeSet::of(id(2)), Now(0));
        }
        requests
    }

    #[test]
    fn an_answer_is_looked_for_where_something_happened_and_everywhere_when_the_terms_change() {
        let mut requests = some(3);
        let alone = Terms { counted: NodeSet::EMPTY, waits: false, here: true };
        let done = |requests: &mut Requests, terms| requests.done(terms, |r| r.local);
        assert_eq!(done(&mut requests, alone), []);
        requests.written(Seq(2));
        assert_eq!(done(&mut requests, Terms { waits: true, ..alone }), [Seq(2)]);
        assert_eq!(done(&mut requests, Terms { waits: true, ..alone }), []);
        requests.written(Seq(3));
        assert_eq!(done(&mut requests, alone), [Seq(2), Seq(3)]);
        assert_eq!(requests.answer(Seq(2)), Some(ReqId(2)));
        assert_eq!((requests.answer(Seq(2)), requests.unanswered()), (None, 2));
    }

    #[test]
    fn what_every_peer_has_written_or_that_was_sent_to_none_is_held_by_nobody() {
        let mut requests = some(4);
        requests.insert(Seq(5), Span::new(80, 8), 4096, ReqId(5), NodeSet::EMPTY, Now(0));
        requests.insert(Seq(6), Span::new(96, 8), 4096, ReqId(6), NodeSet::of(id(2)).with(id(3)), Now(0));
        assert_eq!(requests.bytes(), 5 * 4096);
        requests.acked(id(2), Seq(1), true);
        requests.acked(id(2), Seq(6), false);
        assert_eq!(requests.bytes(), 5 * 4096, "a receipt, and one of two");
        requests.acked(id(2), Seq(1), false);
        requests.acked(id(2), Seq(1), false);
        requests.acked(id(3), Seq(6), false);
        assert_eq!(requests.bytes(), 3 * 4096);
        requests.settle(Seq(2));
        requests.acked(id(2), Seq(2), false);
        assert_eq!(requests.bytes(), 2 * 4096, "settled, and then written");
        requests.left(id(2));
        assert_eq!((requests.bytes(), requests.len()), (0, 6));
    }

    /// What is not settled is found and counted as before, and what is settled and written is not waited for.
    #[test]
    fn of_what_comes_behind_a_settlement_nothing_is_lost() {
        let mut requests = some(6);
        assert!([1, 2, 5].into_iter().all(|n| requests.written(Seq(n))));
        assert_eq!([1, 2].map(|n| requests.answer(Seq(n))), [1, 2].map(|n| Some(ReqId(n))));
        assert_eq!(
            requests.settle(Seq(4)).iter().map(|(s, local, _)| (s.at, *local)).collect::<Vec<_>>(),
            [(16, true), (32, true), (48, false), (64, false)]
        );
        assert_eq!((requests.len(), requests.bytes()), (4, 2 * 4096));
        assert!(requests.is_open(Span::new(80, 1)) && requests.is_open(Span::new(96, 1)));
        assert!(!requests.is_open(Span::new(0, 80)));
        assert!(requests.is_written(Seq(5)) && !requests.is_written(Seq(6)));
        assert_eq!(requests.extents_with(Span::new(0, 8)), 3);
        assert_eq!(requests.open_spans(), [Span::new(80, 8), Span::new(96, 8)]);
    }

    #[test]
    fn what_is_settled_counts_no_more_and_is_kept_until_it_is_answered() {
        let mut requests = some(4);
        assert_eq!((requests.bytes(), requests.extents_with(Span::new(16, 8))), (4 * 4096, 3));
        requests.written(Seq(1));
        assert!(requests.is_written(Seq(1)) && !requests.is_written(Seq(2)));
        requests.answer(Seq(1));
        assert_eq!(requests.settle(Seq(2)).len(), 2);
        assert_eq!((requests.len(), requests.bytes(), requests.extents_with(Span::new(48, 8))), (3, 2 * 4096, 2));
        assert!(!requests.is_open(Span::new(16, 20)) && requests.is_open(Span::new(48, 1)));
        assert_eq!(requests.answer(Seq(2)), Some(ReqId(2)));
        assert_eq!((requests.len(), requests.settle(Seq(9)).len()), (2, 2));
        assert_eq!(requests.answer_all(), [ReqId(3), ReqId(4)]);
        assert!(requests.is_empty() && !requests.has_open() && requests.is_written(Seq(9)));
    }
}
