//! Takeover of a coordinator that says nothing: its process stands still, or its network is cut and its disk is well.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Bench, Round, Row, SETTLE, coordinator, ms, succeeded, until_direct};
use crate::Failure;
use crate::cluster::{Cluster, Kind};
use crate::takeover::load::{Load, Taken};

const FAST: f64 = 4000.0;
const DEFAULT: f64 = 15_000.0;
/// Rounds take a quarter of a minute and more.
const ROUNDS: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    CutOff,
    Frozen,
}

pub(super) fn run(bench: &Bench<'_>, rows: &mut Vec<Row>) -> Result<(), Failure> {
    for (timing, reach) in [("fast", FAST), ("default", DEFAULT)] {
        for (how, name) in [(How::CutOff, "cut off"), (How::Frozen, "frozen")] {
            let what = format!("takeover, {name}, {timing}");
            if !bench.wants(&what) {
                continue;
            }
            let mut cluster = bench.cluster(Kind { apart: how == How::CutOff, ..Kind::timed(timing) })?;
            rows.push(bench.row(&what, reach, bench.rounds.min(ROUNDS), |n| round(&mut cluster, how, n))?);
        }
    }
    Ok(())
}

fn round(cluster: &mut Cluster, how: How, n: usize) -> Result<Round, Failure> {
    let victim = coordinator(cluster, None)?;
    let load = Load::start_without(cluster, n, Some(victim))?;
    thread::sleep(SETTLE);
    match (how, &cluster.apart) {
        (How::CutOff, Some(net)) => net.cut_off(cluster.members[victim].node)?,
        _ => cluster.signal(victim, Signal::STOP)?,
    }
    // A create that began before the last link was cut may still have been answered.
    let begin = Instant::now();
    succeeded(cluster, victim)?;
    // Grace, and whoever waits for it.
    thread::sleep(Duration::from_secs(1));
    match &cluster.apart {
        Some(net) => net.mend()?,
        // The fence has ended it.
        None => {
            cluster.kill(victim)?;
            cluster.start_daemon(victim)?;
        }
    }
    let survivors: Vec<Taken> = load.stop()?;
    until_direct(cluster, victim)?;
    let first = survivors.iter().filter_map(|t| t.waited_after(begin)).min();
    let ms = ms(first.ok_or_else(|| Failure::new("no survivor could create a file"))?);
    Ok(Round { ms, failures: survivors.into_iter().flat_map(|t| t.failures).collect() })
}
