//! A node's disk stops answering, or fails; its data goes over the coordinator, and back when the disk is well.

use std::thread;
use std::time::Instant;

use super::{Bench, Round, Row, SETTLE, coordinator, ms, until_direct};
use crate::Failure;
use crate::cluster::{Cluster, Kind, route};
use crate::takeover::load::Load;

/// Of the timing `fast`, in milliseconds: so long a request is waited for before the path counts as lost.
const PATH_TIMEOUT: f64 = 500.0;
/// From the first failed request on, after the time-out of the path.
const AWAY: f64 = 200.0;
const BACK: f64 = 50.0;

pub(super) fn run(bench: &Bench<'_>, rows: &mut Vec<Row>) -> Result<(), Failure> {
    for (fault, before) in [("hang", PATH_TIMEOUT), ("fail", 0.0)] {
        let after = if before > 0.0 { ", after the path's time-out" } else { "" };
        let (away, back) =
            (format!("route, disk {fault}s, longest write{after}"), format!("route, back after {fault}"));
        if !bench.wants(&away) && !bench.wants(&back) {
            continue;
        }
        let cluster = bench.cluster(Kind { fault: true, ..Kind::timed("fast") })?;
        let mut backs = Vec::new();
        rows.push(bench.row(&away, AWAY, bench.rounds, |n| {
            let (away, back) = round(&cluster, fault, n)?;
            backs.push(back);
            Ok(Round { ms: away.ms - before, failures: away.failures })
        })?);
        let mut backs = backs.into_iter();
        rows.push(
            bench.row(&back, BACK, bench.rounds, |_| backs.next().ok_or_else(|| Failure::new("a round is missing")))?,
        );
    }
    Ok(())
}

/// Away and back.
fn round(cluster: &Cluster, fault: &str, n: usize) -> Result<(Round, Round), Failure> {
    let victim = (coordinator(cluster, None)? + 1) % cluster.members.len();
    let load = Load::start(cluster, n)?;
    thread::sleep(SETTLE);
    let begin = Instant::now();
    cluster.shorefast(victim, &["debug", "disk", fault])?;
    cluster.wait_until(victim, "its data to go over the coordinator", |status| {
        route(status, victim as u64 + 1).as_deref() == Some("block-redirected")
    })?;
    thread::sleep(SETTLE);
    let healed = Instant::now();
    cluster.shorefast(victim, &["debug", "disk", "heal"])?;
    until_direct(cluster, victim)?;
    thread::sleep(SETTLE);
    let end = Instant::now();
    let taken = load.stop()?;
    let failures = taken.iter().flat_map(|t| t.failures.clone()).collect();
    let of_it = taken.into_iter().find(|t| t.node == victim).ok_or_else(|| Failure::new("it had no load"))?;
    let longest = |from, to| ms(of_it.longest(from, to));
    Ok((Round { ms: longest(begin, healed), failures }, Round { ms: longest(healed, end), failures: Vec::new() }))
}
