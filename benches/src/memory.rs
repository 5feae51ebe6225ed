//! Resident memory of daemons, judged against what one may take.

use serde::Serialize;

use crate::cluster::Cluster;
use crate::{Failure, cpu};

/// What a daemon may take at most, in MiB.
pub const REACH_MIB: f64 = 200.0;

/// One daemon.
#[derive(Clone, Debug, Serialize)]
pub struct Resident {
    /// After which section.
    pub after: String,
    /// Which node.
    pub node: u8,
    /// Now, in MiB.
    pub mib: f64,
    /// At most so far, in MiB.
    pub peak_mib: f64,
}

/// Every running daemon of a cluster.
pub fn look(cluster: &Cluster, after: &str) -> Result<Vec<Resident>, Failure> {
    let running = cluster.members.iter().filter_map(|m| Some((m.node, m.pid()?)));
    running
        .map(|(node, pid)| {
            let (mib, peak_mib) = cpu::resident_mib(pid)?;
            Ok(Resident { after: after.to_owned(), node, mib, peak_mib })
        })
        .collect()
}

/// A table for people.
pub fn table(rows: &[Resident]) -> String {
    let mut text = format!("\nresident memory of a daemon, MiB (at most {REACH_MIB})\n");
    for r in rows {
        let judged = if r.peak_mib <= REACH_MIB { "ok" } else { "above" };
        text += &format!("{:<28} node {}  now {:>6.1}  peak {:>6.1}  {judged}\n", r.after, r.node, r.mib, r.peak_mib);
    }
    text
}
