//! What a dead daemon leaves behind.

use crate::harness::{
    Child, Cleaned, DEADLINE, again, all_stopped, can_mount, options, role, serve, wait_until, within,
};
use crate::memfs::MemFs;
use fuse::MountHow;
use fuse::{Mount, MountError, MountOptions, MountState, Unmount, probe};
use rustix::process::Signal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The child: mounts on `at` and serves until it is killed.
fn be_a_daemon(at: &str) {
    let fs = MemFs::new(&["file"]);
    let (_mount, ended) = serve(&fs, &options(Path::new(at)));
    let _ = ended.recv_timeout(2 * DEADLINE);
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

/// Creates files below a directory for as long as it is told, whatever becomes of them.
fn keep_creating(below: &Path, go_on: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (below, go_on) = (below.to_path_buf(), Arc::clone(go_on));
    std::thread::spawn(move || {
        for n in 0.. {
            if !go_on.load(Ordering::Relaxed) {
                return;
            }
            // The memory file system refuses it, a dead mount too; only the bare directory would take it.
            let _ = std::fs::File::create(below.join(format!("stray-{n}")));
        }
    })
}

fn names(bare: &rustix::fd::OwnedFd) -> Vec<String> {
    let all = rustix::fs::Dir::read_from(bare).unwrap().map(|e| e.unwrap().file_name().to_str().unwrap().to_owned());
    all.filter(|name| name != "." && name != "..").collect()
}

/// A daemon was killed and started again under a program that creates files all the time. Between the unmounting of the
/// dead mount and the new one the files were made in the bare directory: acknowledged, fsynced, and not on the volume.
#[test]
fn nothing_reaches_the_bare_directory_while_a_dead_mount_is_replaced() {
    if let Some(at) = role() {
        return be_a_daemon(&at);
    }
    if !can_mount() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can put a mount beneath a dead one");
        return;
    }
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let _cleaned = Cleaned(dir.path().into());
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let bare = rustix::fs::open(dir.path(), flags, rustix::fs::Mode::empty()).unwrap();
        let mut child =
            start_daemon("stale::nothing_reaches_the_bare_directory_while_a_dead_mount_is_replaced", dir.path());
        let go_on = Arc::new(AtomicBool::new(true));
        let creating = keep_creating(dir.path(), &go_on);
        child.signal(Signal::KILL);
        child.wait();
        wait_until("the mount is dead", || probe(dir.path()).unwrap() == MountState::Dead);
        let fs = MemFs::new(&["again"]);
        let (mount, _ended) = serve(&fs, &options(dir.path()));
        go_on.store(false, Ordering::Relaxed);
        assert!(within(move || creating.join().is_ok(), || drop(mount.unmount(Unmount::Lazy))));
        assert_eq!(names(&bare), Vec::<String>::new());
    }
}

/// Where it cannot be prevented it is noticed, and the mount does not hide what was made.
#[test]
fn what_came_into_the_bare_directory_during_a_mount_by_the_helper_is_not_hidden() {
    if !can_mount() {
        return;
    }
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let _cleaned = Cleaned(dir.path().into());
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let bare = rustix::fs::open(dir.path(), flags, rustix::fs::Mode::empty()).unwrap();
        let go_on = Arc::new(AtomicBool::new(true));
        let creating = keep_creating(dir.path(), &go_on);
        let opened = Mount::open(&MountOptions { how: MountHow::Fusermount, ..options(dir.path()) });
        // Nobody serves it: whoever waits for an answer is let go by the abort.
        if let Ok((mount, _)) = &opened {
            mount.abort().unwrap();
        }
        go_on.store(false, Ordering::Relaxed);
        creating.join().unwrap();
        match opened {
            Ok((mount, _channels)) => {
                mount.unmount(Unmount::Lazy).unwrap();
                assert_eq!(names(&bare), Vec::<String>::new(), "hidden by the mount");
            }
            Err(error) => assert!(matches!(error, MountError::NotEmpty(_)), "{error}"),
        }
    }
}
