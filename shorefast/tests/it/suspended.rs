//! The coordinator cannot renew its lease in time: it holds changes back and goes on by itself, and nobody takes over.

use std::fs;
use std::time::Duration;

use crate::fixture::{Background, Cluster, background, can_mount, path, until, within};

/// Longer than the suspend time of the default timing (8 s), shorter than its challenge (12 s after a renewal) by more
/// than a busy machine is late.
const STOPPED: Duration = Duration::from_millis(8500);

fn epoch(cluster: &Cluster, n: usize) -> u64 {
    cluster.volume(n, "v").and_then(|v| v["epoch"].as_u64()).expect("it runs")
}

fn metadata(cluster: &Cluster, n: usize) -> String {
    cluster.volume(n, "v").and_then(|v| v["metadata"].as_str().map(str::to_owned)).unwrap_or_default()
}

fn create(cluster: &Cluster, n: usize, name: &'static str) -> Background<()> {
    let file = cluster.mount(n, "v").join(name);
    background(move || fs::write(&file, name).unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// The disk stops answering the coordinator, whose process is stopped too, for longer than its lease may go without a
/// renewal: by itself a disk that hangs is noticed as a lost path long before that. When the process goes on with its disk
/// still hanging, changes wait; when the disk heals, they are made. Nobody took over: the epoch is the same.
#[test]
fn a_stopped_coordinator_suspends_resumes_and_nobody_sees_an_error() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(3);
    for n in 1..=3 {
        cluster.start(n);
    }
    let disk = cluster.disk("v.img", 2 << 30);
    cluster.ask(1, &["volume", "create", "v", "--disk", path(&disk)]).expect(0, &[]);
    for n in 2..=3 {
        until("the mount", || cluster.is_mounted(n));
    }
    for n in 1..=3 {
        until("everything in order", || cluster.ask(n, &["status", "--check"]).code == 0);
    }
    assert_eq!((cluster.coordinator(2), metadata(&cluster, 1).as_str()), (1, "ok"));
    let before = epoch(&cluster, 2);
    cluster.ask(1, &["debug", "disk", "hang"]).expect(0, &[]);
    cluster.signal(1, "STOP");
    let made = [create(&cluster, 2, "from-2"), create(&cluster, 3, "from-3")];
    std::thread::sleep(STOPPED);
    cluster.signal(1, "CONT");
    until("the suspension", || metadata(&cluster, 1) == "suspended");
    assert!(made.iter().all(|m| !m.is_done()), "made while changes are held back");
    cluster.ask(1, &["debug", "disk", "heal"]).expect(0, &[]);
    for m in made {
        m.ended("a creation");
    }
    until("the metadata is served", || metadata(&cluster, 1) == "ok");
    cluster.until_event(1, "metadata-suspended", "");
    cluster.until_event(1, "metadata-resumed", "");
    for n in 1..=3 {
        assert_eq!((cluster.coordinator(n), epoch(&cluster, n)), (1, before), "as node {n} sees it");
        let lost: Vec<_> = cluster.events(n).into_iter().filter(|(code, _)| code.starts_with("office-")).collect();
        assert_eq!(lost.len(), usize::from(n == 1), "an office was lost or taken: {lost:?}");
        for name in ["from-2", "from-3"] {
            let file = cluster.mount(n, "v").join(name);
            assert_eq!(within("a read", move || fs::read_to_string(file)).expect("reads"), name);
        }
    }
    cluster.checks_clean(2);
}
