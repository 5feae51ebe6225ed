//! How a mount ends.

use crate::harness::{Served, can_mount, wait_until};
use crate::memfs::Seen;
use fuse::{AbortError, Ended, MountState, Unmount, UnmountError, probe};
use std::sync::Arc;

#[test]
fn unmount_ends_every_channel() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&[], 3);
    assert_eq!(probe(served.dir.path()).unwrap(), MountState::Alive);
    let mount = Arc::clone(&served.mount);
    served.within(move || mount.unmount(Unmount::Idle)).unwrap();
    assert_eq!(served.ends(), [Ended::Unmounted; 3]);
    assert_eq!(probe(served.dir.path()).unwrap(), MountState::Free);
    let mount = Arc::clone(&served.mount);
    served.within(move || mount.unmount(Unmount::Idle)).expect("done already counts as done");
}

#[test]
fn mount_in_use_is_busy_and_can_be_unmounted_lazily() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&["file"], 1);
    let path = served.path("file");
    let file = served.within(move || std::fs::File::open(path).unwrap());
    let mount = Arc::clone(&served.mount);
    let error = served.within(move || mount.unmount(Unmount::Idle)).unwrap_err();
    assert!(matches!(&error, UnmountError::Busy(path) if path == served.mount.mountpoint()), "{error}");
    let mount = Arc::clone(&served.mount);
    served.within(move || mount.unmount(Unmount::Lazy)).unwrap();
    assert_eq!(probe(served.dir.path()).unwrap(), MountState::Free);
    served.within(move || assert_eq!(file.metadata().unwrap().len(), 0));
    assert_eq!(served.ends(), [Ended::Unmounted]);
}

#[test]
fn abort_lets_go_of_whoever_waits() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&["hang"], 2);
    let path = served.path("hang");
    let reader = std::thread::spawn(move || std::fs::read(path).unwrap_err().raw_os_error());
    served.until("the reader waits", |fs| fs.seen(|seen| matches!(seen, Seen::Read { .. })) == 1);
    served.mount.abort().unwrap();
    let errno = served.within(move || reader.join().unwrap());
    assert!(matches!(errno, Some(libc::ECONNABORTED | libc::ENOTCONN)), "{errno:?}");
    assert_eq!(served.ends(), [Ended::Aborted; 2]);
    assert_eq!(probe(served.dir.path()).unwrap(), MountState::Dead);
}

/// A connection's number is given out again once its mount is gone.
#[test]
fn abort_after_the_unmount_does_not_end_who_has_the_number_now() {
    if !can_mount() {
        return;
    }
    for _ in 0..50 {
        let old = Served::new(&[], 1);
        let number = old.mount.connection();
        let mount = Arc::clone(&old.mount);
        old.within(move || mount.unmount(Unmount::Idle)).unwrap();
        assert_eq!(old.ends(), [Ended::Unmounted]);
        // Other tests mount too: it may be theirs now, and then it is tried again.
        let new = Served::new(&["file"], 1);
        let again = new.mount.connection() == number;
        assert!(matches!(old.mount.abort(), Err(AbortError::Gone)));
        let path = new.path("file");
        new.within(move || std::fs::metadata(path)).expect("the new mount answers");
        if again {
            return;
        }
    }
    panic!("no mount got the number of the one before");
}

#[test]
fn dropping_a_mount_unmounts_it() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fs = crate::memfs::MemFs::new(&[]);
    let (mount, ended) = crate::harness::serve(&fs, &crate::harness::options(dir.path()));
    drop(mount);
    assert_eq!(ended.recv_timeout(crate::harness::DEADLINE), Ok(Ended::Unmounted));
    wait_until("the point is free", || probe(dir.path()).unwrap() == MountState::Free);
}
