use csv_fs::core::client::RouteInfo;
use csv_fs::core::office::{NodeSet, Report};
use csv_fs::core::time::Now;

use super::*;
use crate::api::Node;

/// A volume's teller and the log it tells to; there are no other nodes.
fn teller(earlier: &[Code]) -> (Arc<Teller>, Arc<EventLog>) {
    let log = Arc::new(EventLog::new(Node::new(1).expect("a node")));
    (Teller::of(Arc::clone(&log), Box::new(Vec::new), "v".into(), earlier.iter().copied().collect()), log)
}

fn codes(log: &EventLog) -> Vec<Code> {
    log.after(0).into_iter().map(|e| e.code).collect()
}

fn unbound() -> Notice {
    Notice::Client(ClientEvent::Unbound)
}

fn bound() -> Notice {
    Notice::Client(ClientEvent::Bound { epoch: block::shared::Epoch(2) })
}

fn begins(teller: &Teller, notice: &Notice) -> (Held, u64) {
    let Some((held, Some(time))) = teller.followed(notice) else { panic!("{notice:?} did not begin anything") };
    (held, time)
}

#[tokio::test]
async fn a_pause_without_coordinator_is_told_only_if_it_lasts() {
    let (teller, log) = teller(&[]);
    let (held, first) = begins(&teller, &unbound());
    assert!(matches!(teller.followed(&unbound()), Some((_, None))), "it goes on already");
    teller.notice(bound());
    teller.it_has_lasted(held, first);
    assert_eq!(codes(&log), [], "it was over");
    let (held, second) = begins(&teller, &unbound());
    teller.it_has_lasted(held, first);
    assert_eq!(codes(&log), [], "that was another one");
    teller.it_has_lasted(held, second);
    assert_eq!(codes(&log), [Code::MetadataWaiting]);
}

#[tokio::test]
async fn a_pause_that_lasts_is_told_by_itself() {
    let (teller, log) = teller(&[]);
    let mut newest = log.newest();
    teller.notice(unbound());
    tokio::time::timeout(LASTING * 20, newest.changed()).await.expect("in time").expect("the log lives");
    assert_eq!(codes(&log), [Code::MetadataWaiting]);
}

#[tokio::test]
async fn permission_that_comes_back_is_no_news_and_a_lost_path_is_named_as_its_cause() {
    let (teller, log) = teller(&[]);
    let lost = Notice::Office(Report::NotPermitted);
    let (held, time) = begins(&teller, &lost);
    teller.notice(Notice::Office(Report::Permitted { clique: NodeSet::EMPTY }));
    teller.it_has_lasted(held, time);
    assert_eq!(codes(&log), []);
    let at = |route, reason| RouteInfo { route, reason, since: Now(0) };
    let (from, to) = (at(Route::Direct, Reason::Healthy), at(Route::BlockRedirected, Reason::IoTimedOut));
    teller.notice(Notice::Client(ClientEvent::Route { from, to }));
    let (held, time) = begins(&teller, &lost);
    teller.it_has_lasted(held, time);
    let told = log.after(0);
    assert_eq!(codes(&log), [Code::RouteChanged, Code::NoPermission]);
    assert!(told[1].message.contains("no working path") && told[1].next.contains("disk"), "{told:?}");
}

#[tokio::test]
async fn what_an_earlier_try_has_told_is_told_again_only_once_the_volume_runs() {
    let (teller, log) = teller(&[Code::SuperblockDamaged]);
    let damaged = || Notice::Superblock("the first".into());
    teller.notice(damaged());
    assert_eq!(codes(&log), []);
    teller.notice(Notice::StaleMountCleaned);
    assert_eq!(teller.told(), BTreeSet::from([Code::StaleMountCleaned]));
    teller.runs();
    teller.notice(damaged());
    assert_eq!(codes(&log), [Code::StaleMountCleaned, Code::SuperblockDamaged]);
}
