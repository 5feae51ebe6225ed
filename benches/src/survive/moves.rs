//! The office is moved on purpose, under load on every node.

use std::thread;
use std::time::Instant;

use super::{Bench, Round, Row, SETTLE, coordinator, ms};
use crate::Failure;
use crate::cluster::{Cluster, Kind, VOLUME};
use crate::takeover::load::Load;

const REACH: f64 = 100.0;

pub(super) fn run(bench: &Bench<'_>, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let what = "planned move under load, longest call of any node";
    if bench.wants(what) {
        let cluster = bench.cluster(Kind::timed("default"))?;
        rows.push(bench.row(what, REACH, bench.rounds, |n| round(&cluster, n))?);
    }
    Ok(())
}

fn round(cluster: &Cluster, n: usize) -> Result<Round, Failure> {
    let from = coordinator(cluster, None)?;
    let to = (from + 1) % cluster.members.len();
    let load = Load::start(cluster, n)?;
    thread::sleep(SETTLE);
    let begin = Instant::now();
    cluster.shorefast(from, &["volume", "move", VOLUME, "--to", &(to + 1).to_string()])?;
    thread::sleep(SETTLE);
    let end = Instant::now();
    let taken = load.stop()?;
    let longest = taken.iter().map(|t| ms(t.longest_of_all(begin, end))).fold(0.0, f64::max);
    Ok(Round { ms: longest, failures: taken.into_iter().flat_map(|t| t.failures).collect() })
}
