//! Section `takeover`: the coordinator is killed with SIGKILL under load, again and again.
//!
//! Each round: load on all nodes; a window in which nothing happens; the kill, and a window as long. Of both windows
//! the longest write in place on the surviving nodes is taken; of the second one also the time until a surviving node
//! has a create acknowledged that began after the kill, and how long the killed node's lock on the disk lingered. Then
//! the killed node is started again, and whoever coordinates now is next.

pub(crate) mod load;
mod locks;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cluster::{self, Cluster};
use crate::memory::{self, Resident};
use crate::stats::{Spread, percentile};
use crate::{Effort, Failure, interrupt};

use load::{Load, Taken};

/// The volume: small files only.
const IMAGE: u64 = 3 << 30;
/// Both windows.
const WINDOW: Duration = Duration::from_secs(2);
/// Layouts are taken and connections warm after this.
const SETTLE: Duration = Duration::from_millis(500);

/// What is to be reached, in milliseconds.
const STALL_MORE: f64 = 50.0;
const CREATE_P50: f64 = 500.0;
const CREATE_MAX: f64 = 1500.0;

/// One kill; times in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// Longest write in place on a survivor in the window without a kill.
    pub quiet_stall: f64,
    /// And in the window that begins with the kill.
    pub kill_stall: f64,
    /// From the kill to the first acknowledged create on a survivor that began after it.
    pub first_create: f64,
    /// The same on the survivor that had to wait longest.
    pub last_create: f64,
    /// From the kill until the killed process had ended.
    pub process_gone: f64,
    /// From the kill until the killed node's lock was seen free; absent if it never was (the node that takes over holds
    /// the same lock for a moment).
    pub lock_free: Option<f64>,
    /// Calls that failed on the survivors.
    pub failed_calls: usize,
}

/// All kills.
#[derive(Clone, Debug, Serialize)]
pub struct Takeover {
    /// One by one.
    pub rounds: Vec<Round>,
    /// Longest write in place without a kill.
    pub quiet_stall: Spread,
    /// With one.
    pub kill_stall: Spread,
    /// Median of the difference, round by round.
    pub stall_more: Spread,
    /// First create.
    pub first_create: Spread,
    /// First create on the slower survivor.
    pub last_create: Spread,
    /// Whether everything was reached.
    pub ok: bool,
}

/// Bytes of disk that it needs.
pub fn needs() -> u64 {
    IMAGE
}

/// Runs the kills.
pub fn run(programs: &Path, dir: &Path, effort: &Effort) -> Result<(Takeover, Vec<Resident>), Failure> {
    let mut cluster = Cluster::start(&programs.join("shorefast"), &dir.join("takeover"), 3, IMAGE, true)?;
    load::prepare(&cluster)?;
    let mut rounds = Vec::new();
    for n in 0..effort.kills {
        interrupt::check()?;
        let round = round(&mut cluster, n)?;
        eprintln!("  kill {:>2}: {}", n + 1, line(&round));
        rounds.push(round);
    }
    let resident = memory::look(&cluster, "three nodes, after the kills")?;
    Ok((sum_up(rounds)?, resident))
}

fn round(cluster: &mut Cluster, n: usize) -> Result<Round, Failure> {
    let victim = cluster.coordinator(n % 3).ok_or_else(|| Failure::new("nobody coordinates the volume"))?;
    let load = Load::start(cluster, n)?;
    thread::sleep(SETTLE);
    let quiet = Instant::now();
    thread::sleep(WINDOW);
    let killed = Instant::now();
    let lock = locks::watch(&cluster.disk(), cluster.members[victim].node, killed, WINDOW)?;
    cluster.kill(victim)?;
    let process_gone = ms(killed.elapsed());
    thread::sleep(WINDOW.saturating_sub(killed.elapsed()));
    // The second window ends here: a write that still waits is counted whole.
    let survivors: Vec<Taken> = load.stop()?.into_iter().filter(|t| t.node != victim).collect();
    let end = Instant::now();
    let lock_free = lock.join().ok().flatten().map(ms);
    let creates: Vec<f64> = survivors.iter().filter_map(|t| t.first_after(killed)).map(ms).collect();
    if creates.len() != 2 {
        return Err(Failure::new(format!("kill {}: after it, not every survivor could create a file", n + 1)));
    }
    let longest = |from, to| survivors.iter().map(|t| ms(t.longest(from, to))).fold(0.0, f64::max);
    cluster.start_daemon(victim)?;
    cluster.wait_until(victim, "its volume to be mounted again", |status| {
        cluster::route(status, victim as u64 + 1).as_deref() == Some("direct")
    })?;
    Ok(Round {
        quiet_stall: longest(quiet, killed),
        kill_stall: longest(killed, end),
        first_create: creates.iter().copied().fold(f64::INFINITY, f64::min),
        last_create: creates.iter().copied().fold(0.0, f64::max),
        process_gone,
        lock_free,
        failed_calls: survivors.iter().map(|t| t.failures.len()).sum(),
    })
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

fn sum_up(rounds: Vec<Round>) -> Result<Takeover, Failure> {
    let all = |of: fn(&Round) -> f64| {
        let figures: Vec<f64> = rounds.iter().map(of).collect();
        Spread::of(&figures).ok_or_else(|| Failure::new("the takeover section needs at least one kill"))
    };
    let creates: Vec<f64> = rounds.iter().map(|r| r.first_create).collect();
    let (quiet_stall, kill_stall) = (all(|r| r.quiet_stall)?, all(|r| r.kill_stall)?);
    let stall_more = all(|r| r.kill_stall - r.quiet_stall)?;
    let (first_create, last_create) = (all(|r| r.first_create)?, all(|r| r.last_create)?);
    let ok = stall_more.median <= STALL_MORE
        && percentile(&creates, 50.0).is_some_and(|p| p <= CREATE_P50)
        && first_create.max <= CREATE_MAX
        && rounds.iter().all(|r| r.failed_calls == 0);
    Ok(Takeover { rounds, quiet_stall, kill_stall, stall_more, first_create, last_create, ok })
}

fn line(r: &Round) -> String {
    let lock = r.lock_free.map_or("not seen free".to_owned(), |l| format!("free after {l:.0}"));
    format!(
        "stall {:.0} (quiet {:.0}), create {:.0} (slower survivor {:.0}), process gone {:.0}, lock {lock}, {} failed calls",
        r.kill_stall, r.quiet_stall, r.first_create, r.last_create, r.process_gone, r.failed_calls
    )
}

/// A table for people.
pub fn table(t: &Takeover) -> String {
    let said = |s: Spread| format!("{:.0} ({:.0}-{:.0})", s.median, s.min, s.max);
    let judged = |ok| if ok { "ok" } else { "above" };
    let locks: Vec<f64> = t.rounds.iter().filter_map(|r| r.lock_free).collect();
    let gone: Vec<f64> = t.rounds.iter().map(|r| r.process_gone).collect();
    let failed: usize = t.rounds.iter().map(|r| r.failed_calls).sum();
    let mut text = format!("\n{} kills of the coordinator under load; milliseconds, median (range)\n", t.rounds.len());
    let mut row = |what: &str, figure: String, reach: String| {
        text += &format!("{what:<62} {figure:>20}  {reach}\n");
    };
    row("longest write in place on a survivor, no kill", said(t.quiet_stall), String::new());
    row("longest write in place on a survivor, kill", said(t.kill_stall), String::new());
    let more = format!("{} {STALL_MORE:.0}", judged(t.stall_more.median <= STALL_MORE));
    row("the second more than the first", said(t.stall_more), more);
    let p50 = judged(t.first_create.median <= CREATE_P50);
    let max = judged(t.first_create.max <= CREATE_MAX);
    let create = format!("{p50} {CREATE_P50:.0} (median), {max} {CREATE_MAX:.0} (longest)");
    row("kill to the next acknowledged create elsewhere", said(t.first_create), create);
    row("the same on the slower survivor", said(t.last_create), String::new());
    row("kill to the end of the process", Spread::of(&gone).map_or("-".to_owned(), said), String::new());
    let seen = format!("seen free in {} of {} rounds", locks.len(), t.rounds.len());
    row("kill to the killed node's lock free", Spread::of(&locks).map_or("-".to_owned(), said), seen);
    row("failed calls on survivors", failed.to_string(), judged(failed == 0).to_owned());
    text
}
