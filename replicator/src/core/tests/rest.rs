//! Coming to rest.

use super::*;

impl Bench {
    fn at(&mut self, ms: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.node.handle(Now(ms), event, &mut out);
        out
    }

    fn superblock(&self) -> &Superblock {
        self.node.replica().expect("a disk").superblock()
    }

    /// Primary with the tie-breaker alone; a write is done and settled.
    fn wrote(&mut self) {
        let fx = self.tell(Event::Promote { force: true });
        self.metadata(fx);
        assert!(self.node.is_primary());
        let fx = self.tell(Event::Submit(ReqId(1), Ask::Write(BLOCK, Bytes::from(vec![1; 64]), false)));
        let fx = self.metadata(fx);
        self.carried_out(fx);
        let fx = self.at(200, Event::Tick);
        self.carried_out(fx);
        assert_eq!(self.node.busy(), 0);
    }

    /// Everything that the disk is asked for is done.
    fn carried_out(&mut self, mut fx: Vec<Effect>) -> Vec<Effect> {
        let mut told = Vec::new();
        while let Some(effect) = fx.pop() {
            match effect {
                Effect::Write(io, ..) | Effect::Flush(io) | Effect::Meta(io, _) => {
                    fx.extend(self.tell(Event::Done(io, Ok(Bytes::new()))));
                }
                other => told.push(other),
            }
        }
        told
    }
}

#[test]
fn an_idle_node_comes_to_rest_and_takes_it_back_before_it_writes() {
    let mut bench = Bench::new(&[id(2)]);
    bench.wrote();
    assert!(bench.node.replica().is_some_and(|r| r.log().hot().count() == 1 && !r.superblock().flags.at_rest));
    let fx = bench.at(400, Event::Tick);
    assert_eq!(bench.carried_out(fx), [], "it was busy not long ago");
    let fx = bench.at(2000, Event::Tick);
    assert!(matches!(&fx[..], [Effect::Meta(_, write)] if write.then.len() == 2), "{fx:?}");
    bench.carried_out(fx);
    assert!(bench.superblock().flags.at_rest && bench.node.replica().is_some_and(|r| r.log().hot().count() == 0));
    let fx = bench.at(2500, Event::Tick);
    assert_eq!(bench.carried_out(fx), [], "once is enough");
    let fx = bench.at(2600, Event::Submit(ReqId(2), Ask::Write(BLOCK, Bytes::from(vec![2; 64]), false)));
    assert!(matches!(&fx[..], [Effect::Meta(_, write)] if write.then.len() == 2), "the log and the superblock: {fx:?}");
    assert!(!bench.superblock().flags.at_rest);
    let Effect::Meta(io, _) = fx[0] else { panic!("metadata") };
    let fx = bench.at(2601, Event::Done(io, Ok(Bytes::new())));
    assert!(fx.iter().any(|f| matches!(f, Effect::Write(..))), "only now: {fx:?}");
}

#[test]
fn who_is_told_to_end_takes_nothing_any_more_and_says_when_it_is_at_rest() {
    let mut bench = Bench::new(&[id(2)]);
    bench.wrote();
    assert!(bench.tell(Event::Rest).contains(&Effect::Told(Report::AtRest(false))), "a primary has to demote first");
    let fx = bench.tell(Event::Demote);
    bench.carried_out(fx);
    assert!(!bench.node.is_primary());
    let fx = bench.tell(Event::Rest);
    assert!(!fx.contains(&Effect::Told(Report::AtRest(true))), "not before that is durable");
    let told = bench.carried_out(fx);
    assert_eq!(told, [Effect::Told(Report::AtRest(true))]);
    assert!(bench.superblock().flags.at_rest);
    assert_eq!(bench.tell(Event::Connected(id(2), ConnId(9))), [Effect::Close(id(2), ConnId(9), false)]);
    let fx = bench.tell(Event::Promote { force: true });
    assert!(matches!(fx[..], [Effect::Told(Report::NotPromoted(_))]), "{fx:?}");
}

/// What it acknowledged may be missing: it says so when it starts again, however long it was idle.
#[test]
fn who_may_have_lost_something_empties_its_log_and_claims_nothing() {
    let mut bench = Bench::with(&[id(2)], Some(id(9)));
    let fx = bench.at(1, Event::Tick);
    bench.carried_out(fx);
    let fx = bench.at(5000, Event::Tick);
    bench.carried_out(fx);
    assert!(!bench.superblock().flags.at_rest);
    let fx = bench.tell(Event::Rest);
    let told = bench.carried_out(fx);
    assert_eq!(told, [Effect::Told(Report::AtRest(true))]);
    assert!(!bench.superblock().flags.at_rest);
}

/// A disk that failed may work again after a restart: what it acknowledged is not vouched for.
#[test]
fn a_disk_that_failed_is_disowned() {
    let mut bench = Bench::new(&[id(2)]);
    bench.wrote();
    let fx = bench.tell(Event::Submit(ReqId(2), Ask::Write(BLOCK, Bytes::from(vec![2; 64]), false)));
    let Some(Effect::Write(io, ..)) = fx.first() else { panic!("{fx:?}") };
    let fx = bench.tell(Event::Done(*io, Err(event::DiskError)));
    let put = fx.iter().find_map(|f| match f {
        Effect::Meta(_, write) => write.then.first(),
        _ => None,
    });
    let sb = Superblock::decode(&put.expect("a superblock").bytes).expect("one");
    assert_eq!((sb.life, sb.flags.at_rest), (Life::UNKNOWN, false));
}
