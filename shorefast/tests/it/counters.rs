//! A number in a file that is raised under a lock by programs on three nodes, each of which looks at nothing but what it reads
//! there: none of them misses what the last one wrote, whatever becomes of office and routes meanwhile.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::fixture::{Cluster, PATIENCE, can_mount, until, within};
use crate::lockers::Locker;

/// Raises of each program between two things that happen.
const MORE: u64 = 10;
/// Length of a record.
const RECORD: usize = 512;

/// What is done to the cluster while they are at it.
type Meanwhile<'a> = &'a [&'a dyn Fn(&mut Cluster)];

/// A program on a node, and how often it has raised the number.
struct Raising {
    node: usize,
    locker: Locker,
    done: u64,
    said: Option<String>,
}

impl Raising {
    fn new(cluster: &Cluster, node: usize, flags: u32) -> Raising {
        let path = file(cluster, node);
        let locker = within("opening", move || Locker::with(&path, flags));
        Raising { node, locker, done: 0, said: None }
    }

    /// Takes what it said; whether it said anything.
    fn hear(&mut self) -> bool {
        let mut heard = false;
        while let Some(line) = self.locker.answered() {
            heard = true;
            self.take(line);
        }
        heard
    }

    fn take(&mut self, line: String) {
        match line.parse() {
            Ok(done) => self.done = done,
            Err(_) => self.said = Some(line),
        }
    }
}

fn file(cluster: &Cluster, n: usize) -> PathBuf {
    cluster.mount(n, "v").join("number")
}

/// The file anew, with the number 0.
fn begin(cluster: &Cluster, n: usize) {
    let path = file(cluster, n);
    within("a write", move || fs::write(path, format!("{:<RECORD$}", 0))).expect("writes");
}

/// The numbers in the file.
fn numbers(cluster: &Cluster, n: usize) -> Vec<u64> {
    let path = file(cluster, n);
    let found = within("a read", move || fs::read(path)).expect("reads");
    let number = |record| std::str::from_utf8(record).expect("text").trim().parse().expect("a number");
    found.chunks(RECORD).map(number).collect()
}

/// Every program has raised the number some times more.
fn all_get_on(all: &mut [Raising]) {
    let before: Vec<u64> = all.iter().map(|r| r.done).collect();
    let (mut on, mut heard) = (before.clone(), Instant::now());
    while on.iter().zip(&before).any(|(on, before)| *on < before + MORE) {
        let news = all.iter_mut().filter_map(|r| r.hear().then_some(())).count();
        if news > 0 {
            heard = Instant::now();
        }
        on = all.iter().map(|r| r.done).collect();
        let said: Vec<_> = all.iter().map(|r| (r.node, r.done, &r.said)).collect();
        assert!(heard.elapsed() < PATIENCE && all.iter().all(|r| r.said.is_none()), "they get on no more: {said:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The number is raised on these nodes, in place or at the end, while things happen one after the other.
fn race(cluster: &mut Cluster, nodes: &[usize], kind: &'static str, flags: u32, meanwhile: Meanwhile<'_>) {
    begin(cluster, nodes[0]);
    let mut all: Vec<Raising> = nodes.iter().map(|n| Raising::new(cluster, *n, flags)).collect();
    all.iter_mut().for_each(|r| r.locker.begin(&format!("raise {kind}")));
    all_get_on(&mut all);
    for what in meanwhile {
        what(cluster);
        all_get_on(&mut all);
    }
    all.iter_mut().for_each(|r| r.locker.begin("stop"));
    for r in &mut all {
        until("the program has stopped", || {
            r.hear();
            r.said.is_some()
        });
        assert_eq!(r.said.as_deref(), Some("ok"), "on node {}", r.node);
    }
    let whole = all.iter().map(|r| r.done).sum();
    for n in nodes {
        let expected: Vec<u64> = if kind == "end" { (0..=whole).collect() } else { vec![whole] };
        assert_eq!(numbers(cluster, *n), expected, "{kind}, flags {flags:#o}, through node {n}");
    }
}

const FLAGS: [u32; 2] = [0, rustix::fs::OFlags::DIRECT.bits()];

#[test]
fn a_number_that_is_raised_under_a_lock_on_three_nodes_misses_no_raise() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(3);
    let moves = |to: &'static str| move |c: &mut Cluster| c.ask(1, &["volume", "move", "v", "--to", to]).expect(0, &[]);
    let (there, back) = (moves("3"), moves("1"));
    let redirected = |c: &mut Cluster| {
        c.ask(1, &["volume", "redirect", "v", "on", "--node", "2"]).expect(0, &[]);
        c.until_route(2, "block-redirected");
    };
    let direct = |c: &mut Cluster| {
        c.ask(1, &["volume", "redirect", "v", "off", "--node", "2"]).expect(0, &[]);
        c.until_route(2, "direct");
    };
    for flags in FLAGS {
        for kind in ["place", "end"] {
            race(&mut cluster, &[1, 2, 3], kind, flags, &[&there, &redirected, &back, &direct]);
        }
    }
    cluster.checks_clean(2);
}

#[test]
fn a_number_that_is_raised_under_a_lock_misses_no_raise_when_the_coordinator_is_killed() {
    if !can_mount() {
        return;
    }
    for flags in FLAGS {
        let mut cluster = Cluster::with_volume(3);
        race(&mut cluster, &[2, 3], "end", flags, &[&|c: &mut Cluster| c.kill(1)]);
        cluster.checks_clean(2);
    }
}

/// Programs that are killed at any moment: each has raised the number as often as it said, or once more.
#[test]
fn who_is_killed_with_a_lock_leaves_what_it_wrote_to_the_next() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(3);
    for flags in FLAGS {
        begin(&cluster, 1);
        let (mut said, mut kills) = (0, 0);
        for round in 0..4 {
            let mut all: Vec<Raising> = (1..=3).map(|n| Raising::new(&cluster, n, flags)).collect();
            all.iter_mut().for_each(|r| r.locker.begin("raise place"));
            for at in 0..3 {
                let mut one = all.remove((round + at) % all.len());
                until("it has raised the number", || {
                    one.hear();
                    one.done > 3
                });
                one.locker.killed("-KILL");
                one.locker.last_words().into_iter().for_each(|line| one.take(line));
                assert_eq!(one.said, None, "on node {}", one.node);
                (said, kills) = (said + one.done, kills + 1);
            }
        }
        for n in 1..=3 {
            let found = numbers(&cluster, n);
            let right = found.len() == 1 && (said..=said + kills).contains(&found[0]);
            assert!(right, "{found:?}, said were {said}, by {kills} that were killed, flags {flags:#o}, node {n}");
        }
    }
    cluster.checks_clean(2);
}
