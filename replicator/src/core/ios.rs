//! What the local disk was asked for and has not answered, and since when.
//!
//! Time is counted by looks, and no look counts for more than a quarter of the limit. Prevents: a process that stood still, or whose
//! machine was paused, wakes up, sees that an hour has passed, and leaves a disk whose answers it has only not read yet.

use std::collections::BTreeMap;

use super::event::{ConnId, IoId, Now, ReqId};
use crate::ids::{NodeId, Seq, Span};

/// What a request to the disk was for.
#[derive(Debug)]
pub(super) enum Purpose {
    Write(u64),
    Meta,
    AppRead(ReqId, Span),
    RemoteRead(NodeId, ConnId, ReqId, Span),
    Settle(Seq),
    Barrier(ConnId, Seq),
    PullDigest(NodeId, ConnId, Span),
    CheckDigest(NodeId, ConnId, Span),
    CheckCompare(NodeId, ConnId, Span),
    Repair,
    Serve(NodeId, ConnId, Span),
    SyncFlush(NodeId, ConnId),
}

/// When a request was asked for: by what was counted at the look before, and by the clock.
#[derive(Clone, Copy, Debug)]
struct Since {
    counted: u64,
    at: Now,
}

/// The requests. Their numbers grow with time: the first is the oldest.
#[derive(Debug, Default)]
pub(super) struct Ios {
    all: BTreeMap<IoId, (Purpose, Since)>,
    /// Milliseconds that were counted, and when that was last.
    counted: u64,
    looked: Option<Now>,
}

impl Ios {
    pub(super) fn begin(&mut self, io: IoId, purpose: Purpose, now: Now) {
        self.all.insert(io, (purpose, Since { counted: self.counted, at: now }));
    }

    /// Whether anything under a span is asked for, but writes, which have a queue of their own.
    pub(super) fn touches(&self, span: Span) -> bool {
        let under = |purpose: &Purpose| match purpose {
            Purpose::AppRead(_, s)
            | Purpose::RemoteRead(_, _, _, s)
            | Purpose::PullDigest(_, _, s)
            | Purpose::CheckDigest(_, _, s)
            | Purpose::CheckCompare(_, _, s)
            | Purpose::Serve(_, _, s) => s.overlaps(span),
            Purpose::Write(_)
            | Purpose::Meta
            | Purpose::Settle(_)
            | Purpose::Barrier(..)
            | Purpose::Repair
            | Purpose::SyncFlush(..) => false,
        };
        self.all.values().any(|(purpose, _)| under(purpose))
    }

    /// Whether an application's read is with the disk.
    pub(super) fn has_read(&self, req: ReqId) -> bool {
        self.all.values().any(|(purpose, _)| matches!(purpose, Purpose::AppRead(r, _) if *r == req))
    }

    /// It was answered. None: nobody asked, or nobody waits for it any more.
    pub(super) fn end(&mut self, io: IoId) -> Option<Purpose> {
        self.all.remove(&io).map(|(purpose, _)| purpose)
    }

    /// Looks whether the oldest was asked for longer ago than the limit.
    pub(super) fn hangs(&mut self, now: Now, limit: Option<u64>) -> bool {
        let passed = now.0.saturating_sub(self.looked.replace(now).unwrap_or(now).0);
        let Some(limit) = limit else { return false };
        self.counted += passed.min(limit / 4);
        let long = |since: &Since| self.counted - since.counted > limit && now.0.saturating_sub(since.at.0) >= limit;
        self.all.first_key_value().is_some_and(|(_, (_, since))| long(since))
    }

    /// Waits for none of them any more; reads of applications that were among them.
    pub(super) fn give_up(&mut self) -> Vec<(ReqId, Span)> {
        let read = |(purpose, _): (Purpose, Since)| match purpose {
            Purpose::AppRead(req, span) => Some((req, span)),
            _ => None,
        };
        std::mem::take(&mut self.all).into_values().filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(ios: &mut Ios, at: &[u64]) -> Vec<bool> {
        at.iter().map(|ms| ios.hangs(Now(*ms), Some(1_000))).collect()
    }

    #[test]
    fn a_request_hangs_when_so_much_time_was_seen_to_pass() {
        let mut ios = Ios::default();
        looks(&mut ios, &[0, 200]);
        ios.begin(IoId(1), Purpose::Meta, Now(200));
        assert_eq!(looks(&mut ios, &[400, 600, 800, 1_000, 1_200, 1_400]), [false, false, false, false, false, true]);
        ios.begin(IoId(2), Purpose::Meta, Now(1_400));
        assert!(ios.end(IoId(1)).is_some());
        assert_eq!(looks(&mut ios, &[1_600, 2_399]), [false, false], "the other one is younger");
        assert!(!ios.hangs(Now(9_000_000), None), "it is waited for");
    }

    /// It was asked for just before a look, and was taken for one of the look before.
    #[test]
    fn no_request_hangs_before_its_time() {
        let mut ios = Ios::default();
        looks(&mut ios, &[0, 200]);
        ios.begin(IoId(1), Purpose::Meta, Now(390));
        assert_eq!(
            looks(&mut ios, &[400, 600, 800, 1_000, 1_200, 1_380, 1_400]),
            [[false; 6].as_slice(), &[true]].concat()
        );
    }

    /// A virtual machine that was paused for an hour left its disk at the first look.
    #[test]
    fn who_stood_still_for_an_hour_looks_a_few_times_more() {
        let mut ios = Ios::default();
        looks(&mut ios, &[0]);
        ios.begin(IoId(1), Purpose::AppRead(ReqId(7), Span::new(8, 8)), Now(0));
        let hour = 3_600_000;
        assert_eq!(looks(&mut ios, &[hour, hour + 100, hour + 200]), [false, false, false]);
        assert_eq!(looks(&mut ios, &[hour + 400, hour + 700, hour + 1_000]), [false, false, true]);
        assert_eq!(ios.give_up(), [(ReqId(7), Span::new(8, 8))]);
        assert!(ios.end(IoId(1)).is_none());
    }
}
