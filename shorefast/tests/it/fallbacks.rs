//! What a daemon does where its kernel refuses or lacks something optional: the same, more slowly, and it says so.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::fixture::{Cluster, PROGRAM, can_mount, until, within};

/// Becomes a program under a seccomp filter that answers some calls with an errno: its own arguments are the errno, how many
/// calls, their numbers, the program. perl is part of every Debian. `sock_filter` is {code, jt, jf, k}; `sock_fprog` a
/// length and a pointer. prctl(PR_SET_NO_NEW_PRIVS) first, so that it needs no privilege; calls of another architecture are
/// let through, since nothing here makes any.
const UNDER_FILTER: &str = r#"
    my ($errno, $n) = splice @ARGV, 0, 2;
    my @calls = splice @ARGV, 0, $n;
    my $filter = pack 'SCCL', 0x20, 0, 0, 0;
    $filter .= pack 'SCCL', 0x15, @calls - $_, 0, $calls[$_] for 0 .. $#calls;
    $filter .= pack 'SCCL', 0x06, 0, 0, 0x7fff0000;
    $filter .= pack 'SCCL', 0x06, 0, 0, 0x00050000 | $errno;
    my $program = pack 'S x6 P', @calls + 3, $filter;
    my ($prctl) = `uname -m` =~ /aarch64/ ? 167 : 157;
    syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
    syscall($prctl, 22, 2, $program, 0, 0) == 0 or die "seccomp: $!";
    exec @ARGV or die "exec: $!";
"#;

/// io_uring_setup and io_uring_enter have one number on every architecture.
const SETUP: u32 = 425;
const ENTER: u32 = 426;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Starts a node whose daemon gets `errno` from these calls.
fn start_filtered(cluster: &mut Cluster, n: usize, errno: u32, calls: &[u32]) {
    let mut wrapper = vec!["perl".to_owned(), "-e".into(), UNDER_FILTER.into(), errno.to_string()];
    wrapper.push(calls.len().to_string());
    wrapper.extend(calls.iter().map(u32::to_string));
    wrapper.push(PROGRAM.to_owned());
    cluster.start_as(n, &wrapper);
}

/// Rings that a node's daemon has.
fn rings(cluster: &Cluster, n: usize) -> usize {
    let fds = fs::read_dir(format!("/proc/{}/fd", cluster.pid(n))).expect("it runs");
    fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).filter(|to| to.ends_with("anon_inode:[io_uring]")).count()
}

/// Whether a node's daemon runs under a filter.
fn is_filtered(cluster: &Cluster, n: usize) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.pid(n))).expect("it runs");
    status.lines().any(|l| l == "Seccomp:\t2")
}

fn kernel(cluster: &Cluster, n: usize) -> Value {
    cluster.volume(n, "v").expect("it knows the volume")["kernel"].clone()
}

/// What a node writes: bytes that tell its number and their place.
fn bytes_of(n: usize) -> Vec<u8> {
    (0..3_000_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ (n as u8).wrapping_mul(57)).collect()
}

/// Writes in pieces of several sizes, aligned and not, and makes them durable.
fn write_through(cluster: &Cluster, n: usize) {
    let path = cluster.mount(n, "v").join(format!("of-{n}"));
    within("writing", move || {
        let (file, bytes) = (File::create_new(path).expect("creates"), bytes_of(n));
        let (mut at, mut len) = (0, 1);
        while at < bytes.len() {
            let end = bytes.len().min(at + len);
            file.write_all_at(&bytes[at..end], at as u64).expect("writes");
            (at, len) = (end, len % 700_000 * 5 + 4096);
        }
        file.sync_all().expect("syncs");
    });
}

/// Reads through one node what some nodes wrote.
fn verify(cluster: &Cluster, through: usize, writers: &[usize]) {
    for n in writers.iter().copied() {
        let path = cluster.mount(through, "v").join(format!("of-{n}"));
        let found = within("reading", move || fs::read(path).expect("reads"));
        assert!(found == bytes_of(n), "node {through} reads something else than node {n} wrote");
    }
}

#[test]
fn daemons_that_are_refused_io_uring_serve_their_mounts_with_threads_and_say_so() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(4);
    start_filtered(&mut cluster, 1, EPERM, &[SETUP]);
    start_filtered(&mut cluster, 2, ENOSYS, &[SETUP]);
    // A filter that allows to make a ring and not to use it.
    start_filtered(&mut cluster, 3, EPERM, &[ENTER]);
    cluster.start(4);
    cluster.create_volume("v");
    (2..=4).for_each(|n| until("the mount", || cluster.is_mounted(n)));
    for (n, why) in [(1, "os error 1)"), (2, "os error 38)"), (3, "os error 1)")] {
        assert!(is_filtered(&cluster, n) && rings(&cluster, n) == 0, "node {n}");
        let told = kernel(&cluster, n);
        assert_eq!(told["engine"], "threads", "node {n}");
        assert!(told["engine_why"].as_str().is_some_and(|told| told.contains(why)), "node {n}: {told}");
        let line = format!("- v: node-{n} does its I/O with threads, since io_uring is refused (");
        cluster.ask(n, &["status"]).expect(0, &[&line, "lost: about half of the speed"]);
    }
    assert!(!is_filtered(&cluster, 4) && rings(&cluster, 4) > 0);
    assert_eq!(
        (kernel(&cluster, 4)["engine"].as_str(), kernel(&cluster, 4)["engine_why"].as_str()),
        (Some("io_uring"), None)
    );
    (1..=4).for_each(|n| write_through(&cluster, n));
    (1..=4).for_each(|n| verify(&cluster, n, &[1, 2, 3, 4]));
    // The metadata thread of a coordinator has no ring either, and the next coordinator's may not.
    assert_eq!(cluster.coordinator(1), 1);
    cluster.kill(1);
    until("another coordinator", || (2..=4).contains(&cluster.coordinator(2)));
    (2..=4).for_each(|n| verify(&cluster, n, &[1, 2, 3, 4]));
    cluster.checks_clean(2);
}

#[test]
fn status_says_which_kernel_features_a_mount_is_without_and_what_is_lost() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(2);
    cluster.configure(1, "kernel_without = [\"MAX_PAGES\", \"POSIX_ACL\"]\n");
    (1..=2).for_each(|n| cluster.start(n));
    cluster.create_volume("v");
    until("the mount", || cluster.is_mounted(2));
    let lacks = |n| kernel(&cluster, n)["lacks"].as_array().cloned().expect("a list");
    let has = |n, name: &str| lacks(n).iter().any(|l| l["feature"] == name);
    assert!(has(1, "MAX_PAGES") && has(1, "POSIX_ACL") && !has(1, "ASYNC_DIO"), "{:?}", lacks(1));
    assert_eq!(
        lacks(1)[1],
        serde_json::json!({
            "feature": "MAX_PAGES", "instead": "requests of 128 KiB", "lost": "throughput of large reads and writes"
        })
    );
    let line =
        "- v: the kernel of node-1 lacks MAX_PAGES: requests of 128 KiB; lost: throughput of large reads and writes";
    cluster.ask(1, &["status"]).expect(0, &[line]);
    cluster.ask(1, &["volume", "info", "v"]).expect(0, &["the kernel lacks POSIX_ACL, MAX_PAGES"]);
    // The kernel here may lack others; it is not this node's mount that was made to.
    let other = cluster.ask(2, &["status"]);
    assert!(!has(2, "MAX_PAGES") && !other.out.contains("lacks MAX_PAGES"), "{}", other.out);
    (1..=2).for_each(|n| write_through(&cluster, n));
    (1..=2).for_each(|n| verify(&cluster, n, &[1, 2]));
}
