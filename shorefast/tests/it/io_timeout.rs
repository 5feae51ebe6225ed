//! `io_timeout`: a program that waits for too long gets EIO, but only once its request can no longer be executed. Whatever
//! happens afterwards, it is not. With that rule taken out the same steps show it executed, so the tests can see it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use crate::fixture::{Background, Cluster, background, can_mount, until, within};
use crate::stuck_write::{block, direct, read};

const WITHOUT: &str = "without_rule = \"ExpiredIsWithdrawn\"\n";

const BEFORE: u8 = 2;
const GIVEN_UP: u8 = 0x0d;
const AFTER: u8 = 0x9e;

/// Two nodes; programs on the second wait for two seconds.
fn impatient(more: &str) -> Option<Cluster> {
    if !can_mount() {
        return None;
    }
    let mut cluster = Cluster::new(2);
    cluster.configure(2, &format!("io_timeout = 2\n{more}"));
    cluster.begin("fast");
    let path = cluster.mount(1, "v").join("file");
    within("making the file", move || {
        let file = direct(&path);
        file.write_all_at(&block(BEFORE), 0).expect("writes");
        file.sync_all().expect("makes stable");
        file.set_permissions(Permissions::from_mode(0o644)).expect("sets");
    });
    Some(cluster)
}

fn fault(cluster: &Cluster, what: &[&str]) {
    cluster.ask(2, &[&["debug", "disk"], what].concat()).expect(0, &[]);
}

/// A write in place is with the disk of node 2, which hangs, and it cannot be proved that it was withdrawn.
fn with_the_disk(cluster: &Cluster) -> (Arc<File>, Background<std::io::Result<()>>) {
    let path = cluster.mount(2, "v").join("file");
    let file = within("writing in place", move || {
        let file = direct(&path);
        file.write_all_at(&block(BEFORE), 0).expect("writes");
        Arc::new(file)
    });
    fault(cluster, &["hold-aborts", "on"]);
    fault(cluster, &["hang"]);
    let handle = Arc::clone(&file);
    (file, background(move || handle.write_all_at(&block(GIVEN_UP), 0)))
}

fn overdue(cluster: &Cluster, what: &str) -> u64 {
    cluster.volume(2, "v").and_then(|v| v["io"]["overdue"][what].as_u64()).expect("it is shown")
}

fn is_eio(result: std::io::Result<()>) {
    assert_eq!(result.expect_err("it was not executed").raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
}

#[test]
fn a_write_that_hangs_gets_eio_only_once_it_was_withdrawn_and_does_not_land_when_it_is_released() {
    let Some(mut cluster) = impatient("") else { return };
    let (file, write) = with_the_disk(&cluster);
    cluster.until_event(2, "io-waiting", "1 with the disk");
    assert_eq!(overdue(&cluster, "at_disk"), 1);
    let status = cluster.ask(2, &["status"]);
    assert!(status.out.contains("wait for longer than io_timeout"), "{status:?}");
    // Nobody is left to redirect it to: node 2 has no path, and takes no office.
    cluster.kill(1);
    cluster.until_event(2, "metadata-waiting", "");
    assert!(!write.is_done(), "it may still land");
    fault(&cluster, &["hold-aborts", "off"]);
    is_eio(write.ended("the write"));
    cluster.until_event(2, "io-timeout", "1 requests");
    until("nothing is overdue", || overdue(&cluster, "at_disk") == 0);
    fault(&cluster, &["heal"]);
    cluster.start(1);
    cluster.until_route(2, "direct");
    cluster.until_route(1, "direct");
    for _ in 0..10 {
        assert_eq!((read(&cluster, 1), read(&cluster, 2)), (BEFORE, BEFORE), "what failed has landed");
        std::thread::sleep(Duration::from_millis(50));
    }
    within("a write that follows", move || file.write_all_at(&block(AFTER), 0))
        .expect("the handle is as good as before");
    assert_eq!(read(&cluster, 1), AFTER);
    cluster.checks_clean(2);
}

#[test]
fn without_the_rule_a_write_gets_eio_while_the_disk_has_it_and_lands() {
    let Some(cluster) = impatient(WITHOUT) else { return };
    let (_file, write) = with_the_disk(&cluster);
    is_eio(write.ended("the write"));
    assert_eq!(read(&cluster, 1), BEFORE);
    fault(&cluster, &["heal"]);
    fault(&cluster, &["hold-aborts", "off"]);
    until("the landing of a write that had failed", || read(&cluster, 1) == GIVEN_UP);
}

fn mode(cluster: &Cluster, n: usize) -> u32 {
    let path = cluster.mount(n, "v").join("file");
    within("looking at the file", move || fs::metadata(path)).expect("it is there").mode() & 0o777
}

/// A change of the mode is with a coordinator that was stopped, node 1. Nobody else can take office: the disk of node 2 hangs.
fn with_a_frozen_coordinator(cluster: &Cluster) -> Background<std::io::Result<()>> {
    let path = cluster.mount(2, "v").join("file");
    let file = within("opening", move || File::open(path)).expect("opens");
    fault(cluster, &["hang"]);
    cluster.signal(1, "STOP");
    background(move || file.set_permissions(Permissions::from_mode(0o600)))
}

#[test]
fn a_change_that_a_coordinator_was_sent_gets_eio_once_the_next_one_will_not_make_it() {
    let Some(mut cluster) = impatient("") else { return };
    let change = with_a_frozen_coordinator(&cluster);
    cluster.until_event(2, "io-waiting", "1 changes that a coordinator was sent");
    assert_eq!(overdue(&cluster, "calls"), 1);
    assert!(!change.is_done(), "the coordinator may go on, and make it");
    cluster.kill(1);
    fault(&cluster, &["heal"]);
    is_eio(change.ended("the change"));
    cluster.start(1);
    cluster.until_route(1, "direct");
    cluster.until_route(2, "direct");
    assert_eq!((mode(&cluster, 1), mode(&cluster, 2)), (0o644, 0o644));
    cluster.checks_clean(2);
}

#[test]
fn a_change_whose_coordinator_goes_on_is_made_whatever_its_age() {
    let Some(cluster) = impatient("") else { return };
    let change = with_a_frozen_coordinator(&cluster);
    cluster.until_event(2, "io-waiting", "1 changes that a coordinator was sent");
    cluster.signal(1, "CONT");
    change.ended("the change").expect("it was made");
    assert_eq!(mode(&cluster, 1), 0o600);
    fault(&cluster, &["heal"]);
    cluster.until_route(2, "direct");
    assert_eq!(mode(&cluster, 2), 0o600);
}

#[test]
fn without_the_rule_a_change_gets_eio_and_the_next_coordinator_makes_it() {
    let Some(mut cluster) = impatient(WITHOUT) else { return };
    let change = with_a_frozen_coordinator(&cluster);
    is_eio(change.ended("the change"));
    cluster.kill(1);
    fault(&cluster, &["heal"]);
    until("a change that had failed", || mode(&cluster, 2) == 0o600);
}

/// Nothing of these was ever sent, or makes a difference: each ends after its time, and what was not sent is not made later.
#[test]
fn without_a_coordinator_what_was_not_sent_gets_eio_and_is_not_made_by_the_next() {
    let Some(mut cluster) = impatient("") else { return };
    let path = cluster.mount(2, "v").join("file");
    let file = within("opening", move || File::open(path)).expect("opens");
    fault(&cluster, &["hang"]);
    cluster.kill(1);
    cluster.until_event(2, "metadata-waiting", "");
    let made = cluster.mount(2, "v").join("folder");
    let all = [
        background(move || file.set_permissions(Permissions::from_mode(0o600))),
        background(move || fs::create_dir(made)),
    ];
    all.into_iter().map(|one| one.ended("a call without a coordinator")).for_each(is_eio);
    fault(&cluster, &["heal"]);
    cluster.start(1);
    cluster.until_route(1, "direct");
    cluster.until_route(2, "direct");
    assert_eq!((mode(&cluster, 1), mode(&cluster, 2)), (0o644, 0o644));
    let made = cluster.mount(1, "v").join("folder");
    assert!(!within("looking for it", move || made.exists()), "it was made later");
    cluster.checks_clean(2);
}
