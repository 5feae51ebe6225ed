//! Three nodes: section `redirect`. One node that does not coordinate is sent through the coordinator, another one goes
//! straight to the disk; both are measured in turn, each on a file of its own.

use std::path::Path;

use crate::arms::FioArm;
use crate::cluster::{self, Cluster, VOLUME};
use crate::fio::{self, Job, Pattern};
use crate::memory::{self, Resident};
use crate::pairs::{self, Reach, Side, Table};
use crate::{Effort, Failure};

const GIB: u64 = 1 << 30;

/// Bytes of disk that a run needs.
pub fn needs(effort: &Effort) -> u64 {
    2 * GIB + 2 * effort.file_bytes
}

/// Block-redirected over loopback beside direct; with mutual TLS it is judged, without shown for comparison.
pub fn redirect(programs: &Path, dir: &Path, effort: &Effort, tls: bool) -> Result<(Table, Vec<Resident>), Failure> {
    let cluster = Cluster::start(&programs.join("shorefast"), &dir.join("trio"), 3, needs(effort), tls)?;
    let coordinator = cluster.coordinator(0).ok_or_else(|| Failure::new("nobody coordinates the volume"))?;
    let others: Vec<usize> = (0..3).filter(|at| *at != coordinator).collect();
    let (redirected, direct) = (others[0], others[1]);
    let file = |at: usize| cluster.members[at].mount().join(format!("file-{}", at + 1));
    for at in [redirected, direct] {
        fio::fill(&file(at), effort.file_bytes, false)?;
    }
    let number = cluster.members[redirected].node;
    cluster.shorefast(coordinator, &["volume", "redirect", VOLUME, "on", "--node", &number.to_string()])?;
    cluster.wait_until(redirected, "its route to be redirected", |status| {
        cluster::route(status, u64::from(number)).as_deref() == Some("block-redirected")
    })?;
    let side = |name, at: usize, pids: &[usize], job: &Job| Side {
        name,
        pids: pids.iter().filter_map(|at| cluster.members[*at].pid()).collect(),
        arm: Box::new(FioArm { job: *job, file: file(at), size: effort.file_bytes }),
    };
    let reach = if tls { Reach::ratio(0.5) } else { Reach::default() };
    let mut rows = Vec::new();
    for pattern in [Pattern::RandRead, Pattern::RandWrite] {
        let job = Job { pattern, block: 4096, depth: 32, jobs: 1, engine: "libaio" };
        let ours = side("redirect", redirected, &[redirected, coordinator], &job);
        rows.push(pairs::run(job.name(), ours, side("direct", direct, &[direct], &job), reach, effort)?);
    }
    let what = if tls { "mutual TLS" } else { "TLS off (for comparison)" };
    let title = format!("block-redirected over loopback beside direct, {what}; CPU of both daemons");
    let resident = memory::look(&cluster, &format!("redirect, {what}"))?;
    Ok((Table { title, rows }, resident))
}
