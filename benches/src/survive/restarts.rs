//! A daemon is restarted under its mount, as an upgrade does it: SIGHUP to its holder.

use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use super::{Bench, Round, Row, SETTLE, coordinator, ms, until_direct};
use crate::Failure;
use crate::cluster::{Cluster, Kind};
use crate::takeover::load::Load;

const REACH: f64 = 500.0;

pub(super) fn run(bench: &Bench<'_>, rows: &mut Vec<Row>) -> Result<(), Failure> {
    for (what, of_the_coordinator) in
        [("planned restart of another daemon", false), ("planned restart of the coordinator's daemon", true)]
    {
        let what = format!("{what}, longest call of any node");
        if bench.wants(&what) {
            let cluster = bench.cluster(Kind { holder: true, ..Kind::timed("default") })?;
            rows.push(bench.row(&what, REACH, bench.rounds, |n| round(&cluster, of_the_coordinator, n))?);
        }
    }
    Ok(())
}

fn round(cluster: &Cluster, of_the_coordinator: bool, n: usize) -> Result<Round, Failure> {
    let coordinator = coordinator(cluster, None)?;
    let at = if of_the_coordinator { coordinator } else { (coordinator + 1) % cluster.members.len() };
    let before = pid(cluster, at)?;
    let load = Load::start(cluster, n)?;
    thread::sleep(SETTLE);
    let begin = Instant::now();
    cluster.signal(at, Signal::HUP)?;
    cluster.wait_until(at, "the next daemon", |status| status["pid"] != before)?;
    until_direct(cluster, at)?;
    thread::sleep(SETTLE);
    let end = Instant::now();
    let taken = load.stop()?;
    let longest = taken.iter().map(|t| ms(t.longest_of_all(begin, end))).fold(0.0, f64::max);
    Ok(Round { ms: longest, failures: taken.into_iter().flat_map(|t| t.failures).collect() })
}

fn pid(cluster: &Cluster, at: usize) -> Result<serde_json::Value, Failure> {
    Ok(cluster.status(at)?["pid"].clone())
}
