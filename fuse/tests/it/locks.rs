//! Locks and interrupts.

use crate::harness::{Child, Served, can_mount};
use crate::memfs::Seen;
use rustix::fs::FlockOperation;
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

fn terminated_while(served: &Served, command: &mut Command, waiting: impl Fn(&Seen) -> bool) {
    let mut child = Child(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    served.until("the request is there", |fs| fs.seen(&waiting) == 1);
    child.signal(Signal::TERM);
    assert_eq!(child.wait().signal(), Some(libc::SIGTERM));
    // The FLUSH of a dying process may be interrupted as well.
    assert!(served.fs.seen(|seen| *seen == Seen::Interrupt) > 0);
}

#[test]
fn reader_that_waits_is_let_go_by_a_signal() {
    if !can_mount() {
        return;
    }
    // Several channels: the interrupt mostly comes on another one than the request.
    for _ in 0..5 {
        let served = Served::new(&["hang"], 3);
        let path = served.path("hang");
        terminated_while(&served, Command::new("cat").arg(path), |seen| matches!(seen, Seen::Read { .. }));
    }
}

#[test]
fn waiter_for_a_lock_is_let_go_by_a_signal() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&["locked"], 2);
    let path = served.path("locked");
    let waiting = |seen: &Seen| *seen == Seen::Lock { flock: true, wait: true };
    // --no-fork: the process that waits is the one that is signalled.
    terminated_while(&served, Command::new("flock").arg("--no-fork").arg(path).arg("true"), waiting);
}

#[test]
fn flock_and_fcntl_arrive_as_what_they_are() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&["file"], 1);
    let path = served.path("file");
    served.within(move || {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    });
    let lock = |flock| move |seen: &Seen| *seen == Seen::Lock { flock, wait: false };
    assert_eq!(served.fs.seen(lock(false)), 1);
    assert_eq!(served.fs.seen(lock(true)), 1);
    served.until("the handle is released", |fs| fs.seen(|seen| *seen == Seen::Release { flock: true }) == 1);
    assert!(served.fs.seen(|seen| *seen == Seen::Flush) > 0);
}
