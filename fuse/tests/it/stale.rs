//! What a dead daemon leaves behind.

use crate::harness::{Child, Cleaned, DEADLINE, again, can_mount, options, role, serve, wait_until, within};
use crate::memfs::MemFs;
use fuse::{Mount, MountError, MountOptions, MountState, Unmount, probe};
use rustix::process::Signal;
use std::path::Path;

/// The child: mounts on `at` and serves until it is killed.
fn be_a_daemon(at: &str) {
    let fs = MemFs::new(&["file"]);
    let (_mount, ended) = serve(&fs, &options(Path::new(at)));
    let _ = ended.recv_timeout(2 * DEADLINE);
}

/// True if every thread of the process is stopped (T), as its stat file says behind the name.
fn all_stopped(pid: u32) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    })
}

fn start_daemon(test: &str, at: &Path) -> Child {
    let child = Child(again(test, at.to_str().unwrap()).spawn().unwrap());
    let file = at.join("file");
    wait_until("the child has mounted", || {
        let file = file.clone();
        within(move || file.exists(), || {})
    });
    child
}

#[test]
fn mount_of_a_killed_daemon_is_cleaned_and_mounted_anew() {
    if let Some(at) = role() {
        return be_a_daemon(&at);
    }
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _cleaned = Cleaned(dir.path().into());
    let mut child = start_daemon("stale::mount_of_a_killed_daemon_is_cleaned_and_mounted_anew", dir.path());
    assert_eq!(probe(dir.path()).unwrap(), MountState::Alive);
    child.signal(Signal::KILL);
    child.wait();
    wait_until("the mount is dead", || probe(dir.path()).unwrap() == MountState::Dead);

    let untouched = MountOptions { clean_stale: false, ..options(dir.path()) };
    let error = Mount::open(&untouched).unwrap_err();
    assert!(matches!(error, MountError::Stale { why: None, .. }), "{error}");
    let foreign = MountOptions { subtype: "other".into(), ..options(dir.path()) };
    assert!(matches!(Mount::open(&foreign), Err(MountError::Stale { .. })), "only our own type is cleaned");

    let fs = MemFs::new(&["again"]);
    let (mount, _ended) = serve(&fs, &options(dir.path()));
    assert_eq!(mount.cleaned_stale(), 1);
    let again = dir.path().join("again");
    assert!(within(move || again.exists(), || drop(mount.unmount(Unmount::Lazy))));
}

#[test]
fn mount_of_a_frozen_daemon_is_refused_and_not_waited_for() {
    if let Some(at) = role() {
        return be_a_daemon(&at);
    }
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _cleaned = Cleaned(dir.path().into());
    let child = start_daemon("stale::mount_of_a_frozen_daemon_is_refused_and_not_waited_for", dir.path());
    child.signal(Signal::STOP);
    wait_until("every thread of the child stands still", || all_stopped(child.0.id()));
    let error = Mount::open(&options(dir.path())).unwrap_err();
    assert!(matches!(error, MountError::Silent(_)), "{error}");
    // Killed: the probe's thread, which still waits in the kernel, is let go.
    child.signal(Signal::KILL);
}
