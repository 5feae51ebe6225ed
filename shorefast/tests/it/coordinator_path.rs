//! The coordinator's own disk hangs and comes back: another takes the office, and the node is direct again.

use std::fs;

use crate::fixture::{Cluster, background, can_mount, until, within};

fn exchange(cluster: &Cluster, from: usize, to: usize, text: &'static str) {
    let (here, there) = (cluster.mount(from, "v").join(text), cluster.mount(to, "v").join(text));
    within("a write", move || fs::write(here, text)).expect("writes");
    assert_eq!(within("a read", move || fs::read_to_string(there)).expect("reads"), text);
}

/// It stayed redirected for ever: challengers had raised its generation beyond what anybody granted; and after an unmount
/// its own process still held the disk.
#[test]
fn a_coordinator_whose_disk_hangs_is_direct_again_when_it_heals_and_can_be_unmounted_and_mounted() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(3);
    for (round, fault) in [("1", "hang"), ("2", "fail")] {
        cluster.ask(1, &["volume", "move", "v", "--to", "2"]).expect(0, &[]);
        until("the office is at node 2", || cluster.coordinator(2) == 2);
        exchange(&cluster, 2, 1, if round == "1" { "before-1" } else { "before-2" });
        cluster.ask(2, &["debug", "disk", fault]).expect(0, &[]);
        until("another node's office", || ![0, 2].contains(&cluster.coordinator(1)));
        cluster.until_route(2, "block-redirected");
        exchange(&cluster, 2, 1, if round == "1" { "meanwhile-1" } else { "meanwhile-2" });
        cluster.ask(2, &["debug", "disk", "heal"]).expect(0, &[]);
        cluster.until_route(2, "direct");
        exchange(&cluster, 2, 3, if round == "1" { "after-1" } else { "after-2" });
    }
    cluster.ask(2, &["volume", "unmount", "v"]).expect(0, &[]);
    cluster.ask(2, &["volume", "mount", "v"]).expect(0, &[]);
    exchange(&cluster, 2, 1, "mounted-again");
    until("everything in order", || cluster.ask(2, &["status", "--check"]).code == 0);
}

/// Nobody else could take the office. Whenever this node took it again, its own client was bound, said that it was redirected
/// and why, and that was taken for a path lost just then: the volume stayed away for good.
#[test]
fn the_only_node_of_a_volume_goes_on_when_its_disk_answers_again() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(1);
    for (fault, text) in [("hang", "hung"), ("fail", "failed")] {
        until("everything in order", || cluster.ask(1, &["status", "--check"]).code == 0);
        cluster.ask(1, &["debug", "disk", fault]).expect(0, &[]);
        let file = cluster.mount(1, "v").join(text);
        let write = background(move || fs::write(file, text));
        until("the office is given up", || cluster.route(1).0 == "paused");
        cluster.ask(1, &["debug", "disk", "heal"]).expect(0, &[]);
        write.ended("the write").expect("writes");
        cluster.until_route(1, "direct");
        exchange(&cluster, 1, 1, if fault == "hang" { "after-hang" } else { "after-fail" });
    }
}
