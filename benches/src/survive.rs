//! Section `survive`: what applications feel of what a cluster survives.
//!
//! - `files`: takeover of a killed coordinator of a volume with 0, 100 000 and a million files.
//! - `silent`: takeover of one that is cut off, or frozen, at the timers `fast` and `default`.
//! - `moves`: the office is moved under load.
//! - `restarts`: a node's daemon is restarted on purpose, under its mount.
//! - `routes`: a node's disk hangs or fails, and is well again.
//!
//! The load is that of the section `takeover`: on each node a thread that writes in place and one that creates files. A takeover
//! is counted from its cause to the first create that a surviving node has acknowledged after it; what is counted as a stall
//! is the longest call.

mod files;
mod moves;
mod restarts;
mod routes;
mod silent;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cluster::{Cluster, Kind};
use crate::stats::Spread;
use crate::takeover::load;
use crate::{Effort, Failure};

/// The volume: small files only, and of the metadata of a million files what is written.
const IMAGE: u64 = 12 << 30;
/// Layouts are taken and connections warm after this.
const SETTLE: Duration = Duration::from_millis(500);

/// One thing, measured again and again; milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What.
    pub what: String,
    /// One by one.
    pub figures: Vec<f64>,
    /// Of them.
    pub spread: Spread,
    /// What is to be reached by the median.
    pub reach: f64,
    /// Calls that failed where none may, and how.
    pub failures: Vec<String>,
}

/// All rows.
#[derive(Clone, Debug, Serialize)]
pub struct Survived {
    /// In order.
    pub rows: Vec<Row>,
}

/// What one round gave.
struct Round {
    ms: f64,
    /// Failed calls, and how.
    failures: Vec<String>,
}

/// Bytes of disk that it needs.
pub fn needs() -> u64 {
    4 << 30
}

/// Runs the rows whose name contains `only`.
pub fn run(programs: &Path, dir: &Path, effort: &Effort, only: &str) -> Result<Survived, Failure> {
    let bench = Bench { programs, dir: &dir.join("survive"), rounds: effort.kills.min(10), only };
    let mut rows = Vec::new();
    files::run(&bench, &mut rows)?;
    silent::run(&bench, &mut rows)?;
    moves::run(&bench, &mut rows)?;
    restarts::run(&bench, &mut rows)?;
    routes::run(&bench, &mut rows)?;
    Ok(Survived { rows })
}

/// Where and how much.
struct Bench<'a> {
    programs: &'a Path,
    dir: &'a Path,
    rounds: usize,
    only: &'a str,
}

impl Bench<'_> {
    fn wants(&self, what: &str) -> bool {
        what.contains(self.only)
    }

    /// Three nodes on an image of which nothing was written but each node's own file.
    fn cluster(&self, kind: Kind) -> Result<Cluster, Failure> {
        let cluster = Cluster::start_kind(&self.programs.join("shorefast"), self.dir, 3, IMAGE, kind)?;
        load::prepare(&cluster)?;
        Ok(cluster)
    }

    /// So many rounds of one thing.
    fn row(
        &self,
        what: &str,
        reach: f64,
        rounds: usize,
        mut round: impl FnMut(usize) -> Result<Round, Failure>,
    ) -> Result<Row, Failure> {
        let (mut figures, mut failures) = (Vec::new(), Vec::new());
        for n in 0..rounds {
            crate::interrupt::check()?;
            let one = round(n)?;
            eprintln!("  {what}: {:.0} ms, {} failed calls", one.ms, one.failures.len());
            one.failures.iter().for_each(|failure| eprintln!("    {failure}"));
            figures.push(one.ms);
            failures.extend(one.failures);
        }
        let spread =
            Spread::of(&figures).ok_or_else(|| Failure::new("the survive section needs at least one round"))?;
        Ok(Row { what: what.to_owned(), figures, spread, reach, failures })
    }
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

/// Who coordinates, as any node but `not` sees it.
fn coordinator(cluster: &Cluster, not: Option<usize>) -> Result<usize, Failure> {
    let seen = (0..cluster.members.len()).filter(|at| Some(*at) != not).find_map(|at| cluster.coordinator(at));
    seen.ok_or_else(|| Failure::new("nobody coordinates the volume"))
}

/// Waits until somebody else coordinates.
fn succeeded(cluster: &Cluster, victim: usize) -> Result<(), Failure> {
    let limit = Instant::now() + Duration::from_secs(60);
    while Instant::now() < limit {
        if coordinator(cluster, Some(victim)).is_ok_and(|c| c != victim) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Failure::new("nobody took over within a minute"))
}

/// Waits until a node's data goes straight to the disk.
fn until_direct(cluster: &Cluster, at: usize) -> Result<(), Failure> {
    cluster.wait_until(at, "its data to go straight to the disk", |status| {
        crate::cluster::route(status, at as u64 + 1).as_deref() == Some("direct")
    })
}

/// A table for people.
pub fn table(s: &Survived) -> String {
    let mut text = String::from("\nwhat is survived; milliseconds, median (range)\n");
    for r in &s.rows {
        let Spread { min, median, max } = r.spread;
        let judged = if median <= r.reach && r.failures.is_empty() { "ok" } else { "above" };
        let figure = format!("{median:.0} ({min:.0}-{max:.0})");
        let failed = if r.failures.is_empty() { String::new() } else { format!(", {} failed calls", r.failures.len()) };
        text += &format!("{:<68} {figure:>22}  {judged} {:.0} (of {}){failed}\n", r.what, r.reach, r.figures.len());
    }
    text
}
