//! A mount whose server is killed and whose callers do not notice.

use crate::harness::{can_mount, role, wait_until, within};
use crate::lives::{Does, Lives, be_a_child, refused};
use fuse::InheritError;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const BLOCK: usize = 4096;

/// Begins a mount of several lives; `None` in the child, once that has ended, and where nothing can be mounted.
fn begin(test: &'static str, channels: usize, without_resend: bool) -> Option<Lives> {
    if let Some(role) = role() {
        be_a_child(&role);
        return None;
    }
    can_mount().then(|| Lives::begin(test, channels, without_resend))
}

/// A thread that must not hang; joined by `ended`.
struct Caller<T>(std::thread::JoinHandle<T>);

impl<T: Send + 'static> Caller<T> {
    fn start(f: impl FnOnce() -> T + Send + 'static) -> Caller<T> {
        Caller(std::thread::spawn(f))
    }

    fn ended(self) -> T {
        wait_until("the caller is answered", || self.0.is_finished());
        self.0.join().unwrap()
    }
}

/// Requests that the kernel has of a mount, queued or read.
fn waiting(lives: &Lives) -> usize {
    let file = control().join(connection(lives).to_string()).join("waiting");
    std::fs::read_to_string(file).map_or(0, |text| text.trim().parse().unwrap())
}

/// The control file system, in a mount of our own that ends with this process.
fn control() -> std::path::PathBuf {
    use rustix::fd::{AsRawFd, OwnedFd};
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
    static CONTROL: std::sync::OnceLock<OwnedFd> = std::sync::OnceLock::new();
    let control = CONTROL.get_or_init(|| {
        let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&context).unwrap();
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
    });
    format!("/proc/self/fd/{}", control.as_raw_fd()).into()
}

fn connection(lives: &Lives) -> u32 {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = lives.orders.mountpoint.to_str().unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(at)).expect("it is mounted");
    line.split(' ').nth(2).unwrap().split_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn what_was_in_flight_and_what_was_queued_is_answered_by_the_next_life() {
    let test = "inherit::what_was_in_flight_and_what_was_queued_is_answered_by_the_next_life";
    let Some(mut lives) = begin(test, 2, false) else { return };
    std::fs::write(&lives.orders.data, vec![7; 1 << 20]).unwrap();
    let (slow, data) = (lives.path("slow"), lives.path("data"));
    let file = Arc::new(within(move || std::fs::File::options().read(true).write(true).open(data).unwrap(), || {}));
    let in_flight = Caller::start(move || std::fs::read(slow).map(|bytes| bytes.iter().all(|b| *b == 7)));
    // Open, and a READ that is never answered: it has been read from the queue once nothing else is left.
    wait_until("the read is in flight", || waiting(&lives) >= 1);
    std::thread::sleep(std::time::Duration::from_millis(50));
    lives.freeze();
    let queued = {
        let file = Arc::clone(&file);
        Caller::start(move || file.write_at(&[9; BLOCK], 0).unwrap())
    };
    wait_until("the write is queued", || waiting(&lives) >= 2);
    lives.kill();
    let while_dead = {
        let file = Arc::clone(&file);
        Caller::start(move || file.write_at(&[9; BLOCK], BLOCK as u64).unwrap())
    };
    assert_eq!(lives.channels(), 2);
    lives.next();
    assert_eq!((queued.ended(), while_dead.ended()), (BLOCK, BLOCK));
    in_flight.ended().expect("it is answered as if nothing had happened");
    let stored = std::fs::read(&lives.orders.data).unwrap();
    assert!(stored[..2 * BLOCK].iter().all(|b| *b == 9) && stored[2 * BLOCK..].iter().all(|b| *b == 7));
}

#[test]
fn callers_of_a_server_that_is_killed_again_and_again_get_no_error_and_their_own_data() {
    let test = "inherit::callers_of_a_server_that_is_killed_again_and_again_get_no_error_and_their_own_data";
    let Some(mut lives) = begin(test, 2, false) else { return };
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..8_u64)
        .map(|n| {
            let (over, done, path) = (Arc::clone(&over), Arc::clone(&done), lives.path("data"));
            Caller::start(move || {
                let file = std::fs::File::options().read(true).write(true).open(path).expect("opens");
                let at = n * 16 * BLOCK as u64;
                for round in 0_u64.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let bytes = [(round * 8 + n).to_le_bytes(); 4 * BLOCK / 8].concat();
                    assert_eq!(file.write_at(&bytes, at).expect("writes"), bytes.len());
                    let mut back = vec![0; bytes.len()];
                    file.read_exact_at(&mut back, at).expect("reads");
                    assert!(back == bytes, "caller {n} reads something else than it wrote");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for life in 0..12 {
        // Not the same number of workers each time.
        lives.orders.channels = 1 + life % 4;
        let from = done.load(Ordering::Relaxed);
        wait_until("the callers get on", || done.load(Ordering::Relaxed) > from + 50);
        lives.kill();
        lives.next();
    }
    let from = done.load(Ordering::Relaxed);
    wait_until("the callers get on", || done.load(Ordering::Relaxed) > from + 50);
    over.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(Caller::ended);
}

#[test]
fn what_was_in_flight_gets_eio_where_nothing_is_known_of_it_and_the_rest_goes_on() {
    let test = "inherit::what_was_in_flight_gets_eio_where_nothing_is_known_of_it_and_the_rest_goes_on";
    let Some(mut lives) = begin(test, 1, false) else { return };
    let slow = lives.path("slow");
    let file = Arc::new(within(move || std::fs::File::open(slow).unwrap(), || {}));
    let read = |file: &Arc<std::fs::File>| {
        let file = Arc::clone(file);
        Caller::start(move || file.read_at(&mut [0; BLOCK], 0).map_err(|e| e.raw_os_error()))
    };
    let in_flight = read(&file);
    wait_until("the read is in flight", || waiting(&lives) == 1);
    std::thread::sleep(std::time::Duration::from_millis(50));
    lives.kill();
    lives.orders.does = Does::FailResent;
    lives.next();
    assert_eq!(in_flight.ended(), Err(Some(libc::EIO)));
    assert_eq!(read(&file).ended(), Ok(BLOCK));
}

#[test]
fn waiter_of_the_life_before_is_let_go_by_a_signal() {
    use rustix::process::Signal;
    use std::os::unix::process::ExitStatusExt;
    let test = "inherit::waiter_of_the_life_before_is_let_go_by_a_signal";
    let Some(mut lives) = begin(test, 2, false) else { return };
    let mut command = std::process::Command::new("flock");
    command.arg("--no-fork").arg(lives.path("data")).arg("true").stdin(std::process::Stdio::null());
    let mut waiter = crate::harness::Child(command.spawn().unwrap());
    wait_until("the lock is asked for", || waiting(&lives) == 1);
    std::thread::sleep(std::time::Duration::from_millis(50));
    lives.kill();
    lives.next();
    // Also if the signal comes before the next life has asked for anything.
    waiter.signal(Signal::TERM);
    assert_eq!(waiter.wait().signal(), Some(libc::SIGTERM));
}

#[test]
fn request_that_kills_its_server_every_time_gets_eio_after_three_deaths() {
    let test = "inherit::request_that_kills_its_server_every_time_gets_eio_after_three_deaths";
    let Some(mut lives) = begin(test, 2, false) else { return };
    let (deadly, data) = (lives.path("deadly"), lives.path("data"));
    let caller = Caller::start(move || std::fs::read(deadly).unwrap_err().raw_os_error());
    for _ in 0..3 {
        lives.ended();
        assert!(!caller.0.is_finished(), "it waits while nobody serves");
        lives.next();
    }
    assert_eq!(caller.ended(), Some(libc::EIO));
    assert_eq!(Caller::start(move || std::fs::read(data).unwrap().len()).ended(), 1 << 20);
}

#[test]
fn without_resend_a_mount_is_taken_over_only_from_who_left_owing_nothing() {
    let test = "inherit::without_resend_a_mount_is_taken_over_only_from_who_left_owing_nothing";
    let Some(mut lives) = begin(test, 2, true) else { return };
    lives.leave();
    let data = lives.path("data");
    let while_away = Caller::start(move || std::fs::read(data).unwrap().len());
    lives.next();
    assert_eq!(while_away.ended(), 1 << 20);
    lives.kill();
    lives.next();
    assert_eq!(lives.ended(), refused(&InheritError::CannotResend));
}

#[test]
fn mount_that_was_unmounted_meanwhile_is_not_taken_over() {
    let test = "inherit::mount_that_was_unmounted_meanwhile_is_not_taken_over";
    let Some(mut lives) = begin(test, 1, false) else { return };
    lives.kill();
    lives.orders.does = Does::Drop;
    lives.next();
    assert_eq!(lives.ended(), 0);
    assert!(connection(&lives) > 0, "who does not serve it leaves it");
    rustix::mount::unmount(&lives.orders.mountpoint, rustix::mount::UnmountFlags::DETACH).unwrap();
    lives.next();
    assert_eq!(lives.ended(), refused(&InheritError::Gone));
}
