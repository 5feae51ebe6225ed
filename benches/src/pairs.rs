//! Two targets in turn, many times: what is reported is the ratio pair by pair.

use serde::Serialize;

use crate::arms::Arm;
use crate::stats::Spread;
use crate::{Effort, Failure, cpu, interrupt};

/// One target of a pair.
pub struct Side<'a> {
    /// As tables name it.
    pub name: &'static str,
    /// The processes whose CPU time counts as the daemons'; none for a local file system, and where the arm itself sees it.
    pub pids: Vec<u32>,
    /// What is done there.
    pub arm: Box<dyn Arm + 'a>,
}

/// What a row has to reach; a row without is shown for comparison only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Reach {
    /// Throughput, ours / peer, at least.
    pub ratio: Option<f64>,
    /// Daemon CPU per operation, ours / peer, at most.
    pub cpu: Option<f64>,
}

impl Reach {
    /// Throughput only.
    pub fn ratio(at_least: f64) -> Reach {
        Reach { ratio: Some(at_least), cpu: None }
    }
}

/// One target's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Its name.
    pub name: &'static str,
    /// Operations per second.
    pub per_second: Spread,
    /// Daemon CPU per operation in microseconds; absent where there is no daemon.
    pub cpu_us: Option<Spread>,
}

/// One thing on two targets.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub job: String,
    /// What is judged.
    pub ours: Figures,
    /// Beside what.
    pub peer: Figures,
    /// `ours / peer` of the throughput, pair by pair.
    pub ratio: Spread,
    /// `ours / peer` of the daemon CPU per operation.
    pub cpu_ratio: Option<Spread>,
    /// What is to be reached.
    pub reach: Reach,
    /// Whether it was; absent without a reach.
    pub ok: Option<bool>,
}

/// Rows that belong together.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// In the order they were measured.
    pub rows: Vec<Row>,
}

#[derive(Default)]
struct Taken {
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// Runs the pairs, the order turned each time, and says the row as soon as it is there.
pub fn run(
    job: impl Into<String>,
    mut ours: Side<'_>,
    mut peer: Side<'_>,
    reach: Reach,
    effort: &Effort,
) -> Result<Row, Failure> {
    let (mut a, mut b) = (Taken::default(), Taken::default());
    for pair in 0..effort.pairs {
        if pair.is_multiple_of(2) {
            once(&mut ours, effort.seconds, &mut a)?;
            once(&mut peer, effort.seconds, &mut b)?;
        } else {
            once(&mut peer, effort.seconds, &mut b)?;
            once(&mut ours, effort.seconds, &mut a)?;
        }
    }
    let none = || Failure::new("a benchmark needs at least one pair");
    let ratio = Spread::of_ratios(&a.per_second, &b.per_second).ok_or_else(none)?;
    let cpu_ratio = Spread::of_ratios(&a.cpu_us, &b.cpu_us);
    let (ours, peer) = (figures(&ours, &a).ok_or_else(none)?, figures(&peer, &b).ok_or_else(none)?);
    let row = Row { job: job.into(), ours, peer, ok: judge(reach, ratio, cpu_ratio), ratio, cpu_ratio, reach };
    eprintln!("  {}", line(&row));
    Ok(row)
}

fn judge(reach: Reach, ratio: Spread, cpu: Option<Spread>) -> Option<bool> {
    let fast = reach.ratio.map(|r| ratio.median >= r);
    let cheap = reach.cpu.zip(cpu).map(|(r, c)| c.median <= r);
    fast.into_iter().chain(cheap).reduce(|a, b| a && b)
}

fn figures(side: &Side<'_>, taken: &Taken) -> Option<Figures> {
    Some(Figures { name: side.name, per_second: Spread::of(&taken.per_second)?, cpu_us: Spread::of(&taken.cpu_us) })
}

fn once(side: &mut Side<'_>, seconds: f64, taken: &mut Taken) -> Result<(), Failure> {
    interrupt::check()?;
    side.arm.prepare()?;
    let before = cpu_of(side)?;
    // fio that shares a terminal's Ctrl-C with this program fails of it; the reason is the signal then.
    let measured = side.arm.measure(seconds).or_else(|e| interrupt::check().and(Err(e)))?;
    let used = cpu_of(side)? - before;
    side.arm.tidy()?;
    taken.per_second.push(measured.per_second);
    let used = measured.cpu_s.or_else(|| (!side.pids.is_empty()).then_some(used));
    if let Some(used) = used.filter(|_| measured.ops > 0) {
        taken.cpu_us.push(used * 1e6 / measured.ops as f64);
    }
    Ok(())
}

fn cpu_of(side: &Side<'_>) -> Result<f64, Failure> {
    side.pids.iter().map(|pid| cpu::seconds(*pid)).sum()
}

/// A table for people.
pub fn table(table: &Table) -> String {
    let Some(first) = table.rows.first() else { return String::new() };
    let mut text = format!(
        "\n{}\n{:<30} {:>9} {:>9} {:>18} {:>11} {:>16} {:>17}\n",
        table.title,
        "job",
        format!("{}/s", first.ours.name),
        format!("{}/s", first.peer.name),
        "ratio (range)",
        "reach",
        "CPU us/op",
        "CPU ratio (reach)"
    );
    for row in &table.rows {
        text += &line(row);
        text.push('\n');
    }
    text
}

fn line(r: &Row) -> String {
    let cpu = |f: &Figures| f.cpu_us.map_or("-".to_owned(), |c| format!("{:.1}", c.median));
    let verdict = |ok: bool, word: &'static str| if ok { "ok" } else { word };
    let reach = r.reach.ratio.map(|at| format!("{} {at:.2}", verdict(r.ratio.median >= at, "below")));
    let cpu_ratio = r.cpu_ratio.map(|c| match r.reach.cpu {
        Some(at) => format!("{:.2} ({} {at:.2})", c.median, verdict(c.median <= at, "above")),
        None => format!("{:.2}", c.median),
    });
    format!(
        "{:<30} {:>9.0} {:>9.0} {:>18} {:>11} {:>16} {:>17}",
        r.job,
        r.ours.per_second.median,
        r.peer.per_second.median,
        format!("{:.2} ({:.2}-{:.2})", r.ratio.median, r.ratio.min, r.ratio.max),
        reach.unwrap_or_else(|| "-".to_owned()),
        format!("{} / {}", cpu(&r.ours), cpu(&r.peer)),
        cpu_ratio.unwrap_or_else(|| "-".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arms::Measured;
    use std::cell::RefCell;

    struct Logged<'a>(&'static str, f64, &'a RefCell<Vec<&'static str>>);

    impl Arm for Logged<'_> {
        fn measure(&mut self, _: f64) -> Result<Measured, Failure> {
            self.2.borrow_mut().push(self.0);
            Ok(Measured { per_second: self.1, ops: 1, cpu_s: None })
        }
    }

    fn spread(median: f64) -> Spread {
        Spread { min: median, median, max: median }
    }

    #[test]
    fn the_order_of_a_pair_turns_each_time() {
        let log = RefCell::default();
        let side =
            |name, figure| Side { name, pids: vec![std::process::id()], arm: Box::new(Logged(name, figure, &log)) };
        let effort = Effort { pairs: 3, seconds: 0.0, kills: 0, file_bytes: 0 };
        let row = run("j", side("a", 9.0), side("b", 10.0), Reach::ratio(0.9), &effort).unwrap();
        assert_eq!(*log.borrow(), ["a", "b", "b", "a", "a", "b"]);
        assert_eq!((row.ratio.median, row.ok), (0.9, Some(true)));
    }

    #[test]
    fn a_row_is_ok_only_if_it_is_fast_and_cheap_enough() {
        let reach = Reach { ratio: Some(0.9), cpu: Some(1.15) };
        assert_eq!(judge(reach, spread(0.95), Some(spread(1.1))), Some(true));
        assert_eq!(judge(reach, spread(0.95), Some(spread(1.2))), Some(false));
        assert_eq!(judge(reach, spread(0.8), Some(spread(1.1))), Some(false));
        assert_eq!(judge(Reach::default(), spread(0.1), None), None);
    }
}
