//! Section `replica`: replicated devices on two hosts of this machine, network namespaces with a veth pair between, beside the same disks and
//! the same front-end without replication, and beside what network and disk give alone. fio's nbd engine is the client of all.
//!
//! - `hosts`: the namespaces, the replicas' processes, the plain NBD server, the echo. `arms`: what is measured.
//!
//! A latency is a figure like any other here: its inverse, operations of one after the other in a second. Needs root, for the namespaces.

mod arms;
mod hosts;

use std::path::Path;

use crate::fio::Pattern;
use crate::pairs::{self, Reach, Row, Side, Table};
use crate::{Effort, Failure};

use arms::{Alone, Bulk, Load, Ours, Resync, Slowest, Trip};
use hosts::Hosts;

/// Beside the same device without replication: DRBD's users report 0.25 on their fast disks.
const UNCONNECTED: f64 = 0.90;
/// A write at depth 1 takes at most 1.3 times what the network's round trip and the remote disk's write take.
const TRIP: f64 = 1.0 / 1.3;
/// Depth 32 at C beside local alone.
const DEPTH: f64 = 0.5;
/// Bulk, beside the slower of disk and link.
const BULK: f64 = 0.85;
/// The slow requests of applications beside a synchronisation take at most 1.5 times as long as without.
const TAIL: f64 = 1.0 / 1.5;

/// Bytes that the disks take: that of the plain server, one without a peer, two each at C and A.
pub fn needs(effort: &Effort) -> u64 {
    6 * effort.file_bytes + (256 << 20)
}

/// Everything, or rows with `only` in their names.
pub fn run(programs: &Path, dir: &Path, effort: &Effort, only: &str) -> Result<Vec<Table>, Failure> {
    let hosts = Hosts::start(programs, dir, effort.file_bytes)?;
    let mut tables = Vec::new();
    for rows in [unconnected, small, bulk, resync] {
        let (title, rows) = rows(&hosts, effort, only)?;
        if !rows.is_empty() {
            tables.push(Table { title: title.to_owned(), rows });
        }
    }
    Ok(tables)
}

type Rows = (&'static str, Vec<Row>);

fn side<'a>(name: &'static str, pids: Vec<u32>, arm: impl crate::arms::Arm + 'a) -> Side<'a> {
    Side { name, pids, arm: Box::new(arm) }
}

fn unconnected(hosts: &Hosts, effort: &Effort, only: &str) -> Result<Rows, Failure> {
    let mut rows = Vec::new();
    for depth in [1, 32] {
        let name = format!("randwrite 4k qd{depth} alone");
        if !name.contains(only) {
            continue;
        }
        hosts.only_primary("alone")?;
        let load = Load { pattern: Pattern::RandWrite, block: 4096, depth };
        let ours = side("shorefast", vec![hosts.pid(1, "alone")], Ours::rate(hosts, "alone", load));
        let peer = side("plain", vec![hosts.plain_pid()], Ours::rate(hosts, "plain", load));
        rows.push(pairs::run(name, ours, peer, Reach::ratio(UNCONNECTED), effort)?);
    }
    Ok(("a replica without its peer, beside the same disk without replication", rows))
}

fn small(hosts: &Hosts, effort: &Effort, only: &str) -> Result<Rows, Failure> {
    let mut rows = Vec::new();
    let load = |depth| Load { pattern: Pattern::RandWrite, block: 4096, depth };
    let name = "randwrite 4k qd1 C, 1/p50";
    if name.contains(only) {
        hosts.both("c")?;
        let ours = side("shorefast", vec![hosts.pid(1, "c")], Ours::median(hosts, "c", load(1)));
        let peer = side("echo+write", Vec::new(), Trip::new(hosts)?);
        rows.push(pairs::run(name, ours, peer, Reach::ratio(TRIP), effort)?);
    }
    // The same twice: the CPU of either side is a column of its own.
    for (node, reach) in [(1, Reach::ratio(DEPTH)), (2, Reach::default())] {
        let name = format!("randwrite 4k qd32 C, CPU of {}", if node == 1 { "primary" } else { "secondary" });
        if !name.contains(only) {
            continue;
        }
        hosts.both("c")?;
        let ours = side("shorefast", vec![hosts.pid(node, "c")], Ours::rate(hosts, "c", load(32)));
        let peer = side("plain", vec![hosts.plain_pid()], Ours::rate(hosts, "plain", load(32)));
        rows.push(pairs::run(name, ours, peer, reach, effort)?);
    }
    Ok(("small writes over a veth pair", rows))
}

fn bulk(hosts: &Hosts, effort: &Effort, only: &str) -> Result<Rows, Failure> {
    let mut rows = Vec::new();
    for (resource, protocol) in [("c", "C"), ("a", "A")] {
        let name = format!("write 1m qd8 {protocol}");
        if !name.contains(only) {
            continue;
        }
        hosts.both(resource)?;
        let load = Load { pattern: Pattern::Write, block: 1 << 20, depth: 8 };
        let ours = side("shorefast", vec![hosts.pid(1, resource)], Ours::rate(hosts, resource, load));
        let peer = side("min", Vec::new(), Slowest::new(hosts));
        rows.push(pairs::run(name, ours, peer, Reach::ratio(BULK), effort)?);
    }
    Ok(("1 MiB writes in order, beside the slower of the disk (fio) and the link (iperf3)", rows))
}

fn resync(hosts: &Hosts, effort: &Effort, only: &str) -> Result<Rows, Failure> {
    let mut rows = Vec::new();
    let name = "full synchronisation, MiB";
    if name.contains(only) {
        hosts.both("c")?;
        let ours = side("shorefast", vec![hosts.pid(1, "c")], Resync::new(hosts));
        let peer = side("min", Vec::new(), Slowest::new(hosts));
        rows.push(pairs::run(name, ours, peer, Reach::ratio(BULK), effort)?);
    }
    let name = "randwrite 4k qd4 C, 1/p99 beside one";
    if name.contains(only) {
        hosts.both("c")?;
        let load = Load { pattern: Pattern::RandWrite, block: 4096, depth: 4 };
        let ours = side("beside", vec![hosts.pid(1, "c")], Bulk::new(hosts, load));
        let peer = side("without", vec![hosts.pid(1, "c")], Alone::new(hosts, load));
        rows.push(pairs::run(name, ours, peer, Reach::ratio(TAIL), effort)?);
    }
    Ok(("synchronisation", rows))
}
