//! Daemons that are killed under their mounts, with whatever is under way: programs see a pause.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fixture::{Background, Cluster, background, can_mount, until, within};
use crate::lockers::{IO, Locker};
use crate::locks::has;
use crate::restarts::{Appends, Kills, Open, daemon, held, kill, restart};

const BLOCK: usize = 4096;
/// After so many deaths in a row, and two more, a daemon is not started again. Nor is a request answered that was in flight at three
/// of them: every program gets on in between.
const KILLS: u64 = 6;
/// How fio ends on SIGINT, without any error of its own.
const TOLD_TO_END: i32 = 128;
/// Blocks of the file that is written at random places.
const BLOCKS: u64 = 512;

/// SIGKILL to a daemon, and waits until the next one serves the volume. How long that took.
fn killed(cluster: &Cluster, n: usize) -> Duration {
    let before = daemon(cluster, n).expect("it answers");
    let began = Instant::now();
    kill(Signal::KILL, u32::try_from(before).expect("a pid"));
    until("the next daemon", || daemon(cluster, n).is_some_and(|pid| pid != before) && cluster.is_mounted(n));
    let took = began.elapsed();
    // Said by the next one if it is another incarnation.
    assert!(!cluster.events(n).iter().any(|(code, _)| code == "mount-taken-over"), "{}", cluster.log(n));
    took
}

fn nobody_was_evicted(cluster: &Cluster, nodes: usize) {
    for n in 1..=nodes {
        assert!(!cluster.events(n).iter().any(|(code, _)| code.contains("evict")), "{:#?}", cluster.events(n));
    }
}

/// A program that does something again and again, and says how often, until it is told to end.
struct Works {
    ends: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Background<()>,
}

impl Works {
    fn begin(mut work: impl FnMut(u64) + Send + 'static) -> Works {
        let (ends, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&ends), Arc::clone(&done));
        let thread = background(move || {
            for n in 0.. {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                work(n);
                count.store(n + 1, Ordering::SeqCst);
            }
        });
        Works { ends, done, thread }
    }

    fn goes_on(&self, what: &str) {
        let before = self.done.load(Ordering::SeqCst);
        until(what, || self.done.load(Ordering::SeqCst) > before + 2 || self.thread.is_done());
    }

    fn end(self, what: &str) {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.ended(what);
        println!("{what}: {}", self.done.load(Ordering::SeqCst));
        assert!(self.done.load(Ordering::SeqCst) > 0);
    }
}

/// Names: what is done twice fails. A file is made that is not there, renamed to and fro, and taken away.
fn names(dir: &Path) -> Works {
    let dir = dir.join("names");
    within("a folder", {
        let dir = dir.clone();
        move || fs::create_dir(dir).expect("creates")
    });
    Works::begin(move |n| {
        let (a, b) = (dir.join(format!("a-{n}")), dir.join(format!("b-{n}")));
        drop(File::create_new(&a).expect("it is new"));
        for _ in 0..4 {
            fs::rename(&a, &b).expect("renames");
            fs::rename(&b, &a).expect("renames back");
        }
        fs::hard_link(&a, &b).expect("links");
        fs::remove_file(&a).expect("it is there");
        fs::remove_file(&b).expect("it is there");
        fs::create_dir(&a).expect("it is not there");
        fs::remove_dir(&a).expect("it is there");
    })
}

/// Blocks at random places, new and old ones, each read back; now and then made stable. Lengths change, too.
fn blocks(dir: &Path) -> Works {
    let path = dir.join("blocks");
    let open = move || File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("opens");
    let file = within("a file", open);
    let mut holds: Vec<u64> = Vec::new();
    let mut chance: u64 = 0x9e37_79b9_7f4a_7c15;
    Works::begin(move |n| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let at = chance % BLOCKS;
        let place = usize::try_from(at).expect("small");
        let content = |n: u64| -> Vec<u8> { n.to_le_bytes().repeat(BLOCK / 8) };
        file.write_all_at(&content(n + 1), at * BLOCK as u64).expect("writes");
        if holds.len() <= place {
            holds.resize(place + 1, 0);
        }
        holds[place] = n + 1;
        let other = usize::try_from((chance >> 32) % holds.len() as u64).expect("small");
        let mut read = vec![1; BLOCK];
        file.read_exact_at(&mut read, (other * BLOCK) as u64).expect("reads");
        assert!(read == content(holds[other]), "block {other} of {} after {n} writes", holds.len());
        if n % 64 == 0 {
            file.sync_all().expect("is stable");
        }
        if n % 700 == 699 {
            holds.truncate(holds.len() / 2);
            file.set_len((holds.len() * BLOCK) as u64).expect("cuts");
        }
    })
}

/// Two programs on two nodes raise a number in a file, each time under a lock, by a record at its end.
struct Raises(Vec<Locker>, PathBuf);

impl Raises {
    fn begin(mounts: &[PathBuf]) -> Raises {
        let path = mounts[0].join("number");
        within("a file", {
            let path = path.clone();
            move || fs::write(path, "").expect("creates")
        });
        let open = |mount: &PathBuf| {
            let path = mount.join("number");
            let mut locker = within("opening", move || Locker::new(&path));
            locker.begin("raise end");
            locker
        };
        Raises(mounts.iter().map(open).collect(), path)
    }

    fn end(mut self) {
        let done: Vec<u64> = self.0.iter_mut().map(raised).collect();
        println!("raised {done:?} times");
        let path = self.1.clone();
        let all = within("a read", move || fs::read(path).expect("reads"));
        assert_eq!(all.len() as u64, 512 * done.iter().sum::<u64>(), "each time one record");
        for (n, record) in (1..).zip(all.chunks(512)) {
            let text = String::from_utf8_lossy(record);
            assert_eq!(text.trim().parse(), Ok(n), "each one more than the one before");
        }
        assert!(done.iter().all(|n| *n > 0), "{done:?}");
    }
}

/// How often one raised the number, once it is told to stop.
fn raised(locker: &mut Locker) -> u64 {
    locker.begin("stop");
    let mut last = 0;
    loop {
        let said = locker.answer("the end of raising");
        match said.parse() {
            Ok(n) => last = n,
            Err(_) => {
                assert_eq!(said, "ok", "after {last} times");
                return last;
            }
        }
    }
}

#[test]
fn r13_what_is_open_survives_the_kill_of_a_nodes_daemon() {
    if !can_mount() {
        return;
    }
    let mut cluster = held(2);
    let (here, there) = (cluster.mount(2, "v"), cluster.mount(1, "v"));
    let mut open = Open::new(&here);
    let mapped = within("a program", {
        let program = here.join("program");
        move || {
            let copied = Command::new("cp").arg("/bin/sleep").arg(&program).status().expect("cp runs");
            assert!(copied.success(), "{copied}");
            Command::new(&program).arg("600").spawn().expect("runs from there")
        }
    });
    let mut mapped = Kills(mapped);
    for round in 0..4 {
        println!("kill {round}: the next one serves after {} ms", killed(&cluster, 2).as_millis());
        cluster.until_event(2, "mount-resumed", "stays open");
        open.is_locked(&there);
        open.is_usable(round);
        assert!(matches!(mapped.0.try_wait(), Ok(None)), "a program that was run from there runs on");
    }
    open.ends(&there);
    drop(mapped);
    nobody_was_evicted(&cluster, 2);
    cluster.checks_clean(1);
    assert_eq!(cluster.stop(2), 0);
}

/// The office goes to a node, if it is elsewhere. Killed the last time, its data went over its successor for a moment; nobody goes on from one
/// that is killed then.
fn takes_office(cluster: &Cluster, n: usize) {
    if cluster.coordinator(n) != n as u64 {
        cluster.ask(n, &["volume", "move", "v", "--to", &n.to_string()]).expect(0, &[]);
    }
    until("its office", || cluster.coordinator(n) == n as u64 && cluster.coordinator(1) == n as u64);
    cluster.until_route(n, "direct");
}

/// A daemon's end, and how long until the next one serves.
pub(crate) type Ends = fn(&Cluster, usize) -> Duration;

/// The daemon of the last node ends again and again, `in_office` or not, under all kinds of work; every program goes on, and finds what
/// it did, once.
fn works_on(nodes: usize, in_office: bool, ends: Ends) {
    if !can_mount() {
        return;
    }
    let mut cluster = held(nodes);
    let here = cluster.mount(nodes, "v");
    let appends = [Appends::begin(&here, "appends"), Appends::begin(&here, "more-appends")];
    let (names, blocks) = (names(&here), blocks(&here));
    let raises = Raises::begin(&[cluster.mount(1, "v"), here]);
    let all_go_on = || {
        appends.iter().for_each(Appends::goes_on);
        names.goes_on("more names");
        blocks.goes_on("more blocks");
    };
    for round in 0..KILLS {
        if in_office {
            takes_office(&cluster, nodes);
        }
        all_go_on();
        // At another place of its work each time.
        std::thread::sleep(Duration::from_millis(37 * round % 100));
        println!("end {round}: the next one serves after {} ms", ends(&cluster, nodes).as_millis());
    }
    all_go_on();
    if in_office && nodes > 1 {
        let taken = |n: &usize| cluster.events(*n).iter().filter(|(code, _)| code == "office-taken").count();
        let by_others: usize = (1..nodes).map(|n| taken(&n)).sum();
        println!("others took the office {by_others} times");
        assert!(by_others > 1, "its next daemon was always there before them: this test shows nothing");
    }
    names.end("names");
    blocks.end("blocks");
    appends.into_iter().for_each(Appends::end);
    raises.end();
    nobody_was_evicted(&cluster, nodes);
    cluster.checks_clean(1);
    assert_eq!(cluster.stop(nodes), 0);
}

#[test]
fn r14_what_is_in_flight_at_a_kill_is_done_once_and_no_program_gets_an_error() {
    works_on(2, false, killed);
}

/// It coordinates, too: its store is opened after each kill, and its own client comes back to it.
#[test]
fn r17_the_only_daemon_goes_on_after_kills_as_coordinator_and_as_client() {
    works_on(1, true, killed);
}

/// Two others take the office at once, and wait in grace for the client of the one that was killed.
#[test]
fn r18_the_coordinators_daemon_is_killed_and_its_programs_go_on_under_another_coordinator() {
    works_on(3, true, killed);
}

/// Whatever is at the daemon when it takes nothing in any more is answered by it, and the rest by the next.
#[test]
fn r20_no_program_gets_an_error_when_the_coordinators_daemon_is_restarted_under_all_kinds_of_work() {
    works_on(3, true, restart);
}

#[test]
fn r15_fio_verifies_what_it_wrote_across_kills() {
    verifies(2, false, killed);
}

#[test]
fn r19_fio_verifies_what_it_wrote_across_kills_of_its_coordinator() {
    verifies(3, true, killed);
}

#[test]
fn r21_fio_verifies_what_it_wrote_across_planned_restarts_of_its_daemon() {
    verifies(2, false, restart);
}

#[test]
fn r22_fio_verifies_what_it_wrote_across_planned_restarts_of_its_coordinator() {
    verifies(3, true, restart);
}

/// fio on the last node, whose daemon ends again and again, `in_office` or not. It is told to end when that was often enough.
fn verifies(nodes: usize, in_office: bool, ends: Ends) {
    if can_mount() {
        verifies_on(&mut held(nodes), nodes, in_office, ends);
    }
}

/// The same on nodes that are there.
pub(crate) fn verifies_on(cluster: &mut Cluster, nodes: usize, in_office: bool, ends: Ends) {
    if !has("fio") {
        return;
    }
    let dir = cluster.mount(nodes, "v");
    let mut fio = Command::new("fio");
    fio.args([
        "--name=kills",
        "--rw=randwrite",
        "--bs=4k",
        "--size=24m",
        "--time_based",
        "--runtime=600",
        "--rate_iops=1500",
    ]);
    fio.args(["--ioengine=libaio", "--iodepth=8", "--direct=1", "--verify=crc32c", "--verify_backlog=64"]);
    fio.args(["--verify_fatal=1", "--verify_state_save=0"]);
    fio.arg(format!("--directory={}", dir.display()));
    let fio = fio.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("fio runs");
    let pid = fio.id();
    let works = background(move || fio.wait_with_output());
    for round in 0..KILLS {
        if in_office {
            takes_office(cluster, nodes);
        }
        std::thread::sleep(Duration::from_millis(1200));
        assert!(!works.is_done(), "it gave up before end {round}: {}", said(&works.ended("fio").expect("it ran")));
        println!("end {round}: the next one serves after {} ms", ends(cluster, nodes).as_millis());
    }
    std::thread::sleep(Duration::from_millis(1200));
    kill(Signal::INT, pid);
    let fio = works.ended("fio").expect("it ran");
    let said = said(&fio);
    assert!(fio.status.code() == Some(TOLD_TO_END) && said.contains("err= 0"), "{}: {said}", fio.status);
    nobody_was_evicted(cluster, nodes);
    cluster.checks_clean(1);
    assert_eq!(cluster.stop(nodes), 0);
}

fn said(fio: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&fio.stdout), String::from_utf8_lossy(&fio.stderr))
}

/// The holder is stopped while its daemon is killed, so no next one is started; meanwhile the node is evicted.
#[test]
fn r16_node_that_is_evicted_after_a_kill_does_nothing_that_was_in_flight() {
    if !can_mount() {
        return;
    }
    let mut cluster = held(2);
    let (here, there) = (cluster.mount(2, "v"), cluster.mount(1, "v"));
    let open = |dir: &Path, name: &str| {
        let path = dir.join(name);
        within("a file", move || {
            fs::write(&path, "x").expect("writes");
            Locker::new(&path)
        })
    };
    let (mut locked, mut waits) = (open(&here, "locked"), open(&here, "waits"));
    let mut holds = within("opening", {
        let path = there.join("waits");
        move || Locker::new(&path)
    });
    locked.does("set w 0 1");
    holds.does("set w 0 1");
    waits.begin("wait w 0 1");
    std::thread::sleep(Duration::from_millis(300));
    let before = u32::try_from(daemon(&cluster, 2).expect("it answers")).expect("a pid");
    kill(Signal::STOP, cluster.pid(2));
    kill(Signal::KILL, before);
    let ended = || fs::read_to_string(format!("/proc/{before}/stat")).is_ok_and(|s| s.contains(") Z "));
    until("the daemon's end", ended);
    cluster.ask(1, &["debug", "evict", "v", "--node", "2"]).expect(0, &[]);
    cluster.until_event(1, "client-evicted", "node 2");
    let other = there.join("locked");
    within("opening", move || Locker::new(&other)).does("set w 0 1");
    kill(Signal::CONT, cluster.pid(2));
    until("the next daemon", || {
        daemon(&cluster, 2).is_some_and(|pid| pid != u64::from(before)) && cluster.is_mounted(2)
    });
    assert_eq!(waits.answer("the wait"), IO, "it was in flight, and its incarnation is over");
    assert_eq!(locked.ask("set w 0 1"), IO, "its lock was given away");
    holds.does("set u 0 0");
    holds.does("set w 0 1");
    cluster.checks_clean(1);
    drop((locked, waits));
    assert_eq!(cluster.stop(2), 0);
}
