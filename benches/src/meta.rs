//! Metadata: section `meta`.
//!
//! - `names`: create, stat, readdir, rename and unlink, one and eight threads, on the coordinator, on another node and on all
//!   three at once, beside the ext4 that the image lies on.
//! - `trips`: look-up and stat from a node that does not coordinate, beside a bare round trip of `net` over loopback with the
//!   same TLS.
//! - `locks`: lock and unlock, on the coordinator and on another node.
//! - `million`: a volume with a million files: the coordinator's memory, and what checking it takes.
//!
//! **What equal durability is.** A name that Shorefast has made, changed or taken away is on the disk when the call returns.
//! ext4 says that only after an fsync of the folder, so there each create, rename and unlink is followed by one. A look is
//! durable in neither, and there ext4 answers from the kernel's cache, which Shorefast does not have yet: those rows tell
//! what that costs, and are not to be read as anything else.
//!
//! CPU is the coordinator's, per operation, wherever the operation was begun.

mod bare;
mod locks;
pub(crate) mod million;
mod names;
mod switches;
mod trips;

use std::path::{Path, PathBuf};

use crate::arms::Arm;
use crate::cluster::Cluster;
use crate::pairs::{self, Reach, Row, Side, Table};
use crate::{Effort, Failure};

pub use million::{Scale, run as million, table as million_table};
use names::{Kind, Names};

const GIB: u64 = 1 << 30;
/// Bytes of the volume: names, and small files.
const IMAGE: u64 = 4 * GIB;

/// Bytes of disk that a run needs: the image, and what a million files take of a sparse one.
pub fn needs() -> u64 {
    IMAGE + million::needs()
}

/// Three nodes and a local folder. Dropped, they are gone.
pub struct Meta {
    effort: Effort,
    programs: PathBuf,
    cluster: Cluster,
    local: PathBuf,
    coordinator: usize,
    other: usize,
}

/// Where an operation is begun.
#[derive(Clone, Copy)]
enum Place {
    Coordinator,
    Other,
    AllThree,
}

impl Place {
    const ALL: [Place; 3] = [Place::Coordinator, Place::Other, Place::AllThree];

    fn name(self) -> &'static str {
        match self {
            Place::Coordinator => "coord.",
            Place::Other => "other",
            Place::AllThree => "all 3",
        }
    }
}

impl Meta {
    /// Starts them; `programs` is the folder of the binaries.
    pub fn start(programs: &Path, dir: &Path, effort: &Effort) -> Result<Meta, Failure> {
        let local = dir.join("meta-local");
        std::fs::create_dir_all(&local).map_err(|e| Failure::at(&local, e))?;
        let cluster = Cluster::start_patient(&programs.join("shorefast"), &dir.join("meta"), 3, IMAGE)?;
        let coordinator = cluster.coordinator(0).ok_or_else(|| Failure::new("nobody coordinates the volume"))?;
        let other = (0..3).find(|at| *at != coordinator).unwrap_or_default();
        let programs = programs.to_owned();
        Ok(Meta { effort: *effort, programs, cluster, local, coordinator, other })
    }

    /// All tables but the million files: rows whose name contains `only`.
    pub fn tables(&self, only: &str) -> Result<Vec<Table>, Failure> {
        let mut tables = vec![self.names(only)?];
        tables.push(self.trips(only)?);
        tables.push(self.locks(only)?);
        tables.retain(|t| !t.rows.is_empty());
        Ok(tables)
    }

    fn names(&self, only: &str) -> Result<Table, Failure> {
        let mut rows = Vec::new();
        for kind in Kind::ALL {
            for place in Place::ALL {
                for threads in [1, 8] {
                    let job = format!("{} {} x{threads}", kind.name(), place.name());
                    if !job.contains(only) {
                        continue;
                    }
                    let folders = self.folders(place, &job, threads);
                    let beside: Vec<PathBuf> =
                        (0..folders.len()).map(|n| self.local.join(format!("{job}-{n}"))).collect();
                    let ours = self.ours(Box::new(Names::new(kind, folders, false)));
                    let ext4 = local_side(Box::new(Names::new(kind, beside, true)));
                    rows.push(self.row(job, ours, ext4, Reach::default())?);
                }
            }
        }
        let title = "names, beside ext4 that makes each change durable; CPU of the coordinator; `x` threads a node";
        Ok(Table { title: title.to_owned(), rows })
    }

    /// A folder a thread, on each node of the place.
    fn folders(&self, place: Place, job: &str, threads: usize) -> Vec<PathBuf> {
        let nodes = match place {
            Place::Coordinator => vec![self.coordinator],
            Place::Other => vec![self.other],
            Place::AllThree => vec![0, 1, 2],
        };
        let of_node = |at: usize| (0..threads).map(move |t| (at, t));
        let folder = |(at, t): (usize, usize)| self.mount(at).join(format!("{job}-{at}-{t}"));
        nodes.into_iter().flat_map(of_node).map(folder).collect()
    }

    /// Requests to the coordinator per second, beside bare ones.
    fn trips(&self, only: &str) -> Result<Table, Failure> {
        let mut rows = Vec::new();
        let wanted = trips::Kind::ALL.into_iter().flat_map(|kind| [1, 8].map(|threads| (kind, threads)));
        for (kind, threads) in wanted {
            let job = format!("{} x{threads}", kind.name());
            if !job.contains(only) {
                continue;
            }
            let bare = bare::Bare::start(&self.programs, &self.cluster.bundle(self.coordinator))?;
            let calls = bare::Calls::connect(&bare, &self.cluster.bundle(self.other), threads)?;
            let mut peer = Side { name: "bare net", pids: vec![bare.pid()], arm: Box::new(calls) };
            let mut ours = self.ours(Box::new(trips::Trips::new(kind, &self.cluster, self.other, threads)?));
            let daemon = |at: usize| self.cluster.members[at].pid().unwrap_or_default();
            let daemons = [("node", daemon(self.other)), ("coordinator", daemon(self.coordinator))];
            switches::count(&job, &mut *ours.arm, &daemons)?;
            switches::count(&job, &mut *peer.arm, &[("bare: asking", std::process::id()), ("answering", bare.pid())])?;
            // A request in 1.5 times a bare round trip, where one waits for the next.
            let reach = if threads == 1 { Reach::ratio(1.0 / 1.5) } else { Reach::default() };
            rows.push(self.row(job, ours, peer, reach)?);
        }
        let title =
            "requests from a node that does not coordinate, beside bare round trips of net; CPU of the answering side";
        Ok(Table { title: title.to_owned(), rows })
    }

    fn locks(&self, only: &str) -> Result<Table, Failure> {
        let mut rows = Vec::new();
        for (place, at) in [(Place::Coordinator, self.coordinator), (Place::Other, self.other)] {
            for threads in [1, 8] {
                let job = format!("lock+unlock {} x{threads}", place.name());
                if !job.contains(only) {
                    continue;
                }
                let ours = self.ours(Box::new(locks::Locks::new(self.mount(at).join("locked"), threads)));
                let ext4 = local_side(Box::new(locks::Locks::new(self.local.join("locked"), threads)));
                rows.push(self.row(job, ours, ext4, Reach::default())?);
            }
        }
        let title = "a file of its own locked and unlocked (flock) by each thread, beside ext4; CPU of the coordinator";
        Ok(Table { title: title.to_owned(), rows })
    }

    fn mount(&self, at: usize) -> PathBuf {
        self.cluster.members[at].mount()
    }

    fn ours<'a>(&self, arm: Box<dyn Arm + 'a>) -> Side<'a> {
        Side { name: "shorefast", pids: self.cluster.members[self.coordinator].pid().into_iter().collect(), arm }
    }

    fn row(&self, job: String, ours: Side<'_>, peer: Side<'_>, reach: Reach) -> Result<Row, Failure> {
        pairs::run(job, ours, peer, reach, &self.effort)
    }
}

fn local_side(arm: Box<dyn Arm>) -> Side<'static> {
    Side { name: "ext4", pids: Vec::new(), arm }
}
