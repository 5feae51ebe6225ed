//! One node, beside its bare peer and the file system that both lie on: sections `inplace`, `peer`, `append`, `create`.
//!
//! All three keep their data in files of one folder whose every block was written before: what is compared is the way
//! to the blocks, not their allocation below.

use std::fs;
use std::path::{Path, PathBuf};

use crate::arms::{Arm, FioArm, Sequential, SmallFiles, Way};
use crate::cluster::Cluster;
use crate::fio::{self, Job, Pattern};
use crate::memory::{self, Resident};
use crate::minifuse::Minifuse;
use crate::pairs::{self, Reach, Row, Side, Table};
use crate::{Effort, Failure};

const GIB: u64 = 1 << 30;
/// fio's engines: files of FUSE are served by both in their own way.
const ENGINES: [&str; 2] = ["libaio", "io_uring"];

/// What every row beside the bare peer has to reach.
const BESIDE_PEER: Reach = Reach { ratio: Some(0.90), cpu: Some(1.15) };

/// The three systems. Dropped, they are gone.
pub struct Solo {
    effort: Effort,
    peer: Minifuse,
    cluster: Cluster,
    raw: PathBuf,
    local: PathBuf,
}

impl Solo {
    /// Bytes of disk that it needs.
    pub fn needs(effort: &Effort) -> u64 {
        Solo::image(effort) + 2 * effort.file_bytes
    }

    /// The volume: the test file, the growing files, small files, metadata.
    fn image(effort: &Effort) -> u64 {
        2 * GIB + 3 * effort.file_bytes
    }

    /// Starts them; `programs` is the folder of the binaries.
    pub fn start(programs: &Path, dir: &Path, effort: &Effort) -> Result<Solo, Failure> {
        let local = dir.join("local");
        fs::create_dir_all(&local).map_err(|e| Failure::at(&local, e))?;
        let (raw, image) = (local.join("raw"), local.join("peer.img"));
        fio::fill(&raw, effort.file_bytes, false)?;
        fio::fill(&image, effort.file_bytes, false)?;
        let peer = Minifuse::start(&programs.join("minifuse"), &image, &dir.join("mini"))?;
        let cluster = Cluster::start(&programs.join("shorefast"), &dir.join("solo"), 1, Solo::image(effort), true)?;
        let solo = Solo { effort: *effort, peer, cluster, raw, local };
        fio::fill(&solo.file(), effort.file_bytes, false)?;
        Ok(solo)
    }

    /// 4k random and 1 MiB sequential, in place, beside the bare peer: the rows whose name contains `only`.
    pub fn in_place(&self, only: &str) -> Result<Table, Failure> {
        let mut rows = Vec::new();
        for engine in ENGINES {
            for job in jobs(engine).into_iter().filter(|job| job.name().contains(only)) {
                let ours = self.shorefast(self.fio(&job, self.file()));
                let peer = self.minifuse(self.fio(&job, self.peer.file()?));
                rows.push(self.row(job.name(), ours, peer, BESIDE_PEER)?);
            }
        }
        Ok(Table { title: "in place, beside the bare peer (minifuse)".to_owned(), rows })
    }

    /// The bare peer beside the file system below it; Shorefast too, for comparison.
    pub fn peer(&self) -> Result<Vec<Table>, Failure> {
        let mut rows = (Vec::new(), Vec::new());
        for engine in ENGINES {
            for pattern in [Pattern::RandRead, Pattern::RandWrite] {
                let job = Job { pattern, block: 4096, depth: 32, jobs: 1, engine };
                let reach = if pattern == Pattern::RandRead { Reach::ratio(0.58) } else { Reach::default() };
                let raw = || local_side("ext4", self.fio(&job, self.raw.clone()));
                let peer = self.minifuse(self.fio(&job, self.peer.file()?));
                rows.0.push(self.row(job.name(), peer, raw(), reach)?);
                let ours = self.shorefast(self.fio(&job, self.file()));
                rows.1.push(self.row(job.name(), ours, raw(), Reach::default())?);
            }
        }
        Ok(vec![
            Table { title: "the bare peer beside raw ext4".to_owned(), rows: rows.0 },
            Table { title: "Shorefast beside raw ext4 (for comparison)".to_owned(), rows: rows.1 },
        ])
    }

    /// 1 MiB appends beside 1 MiB writes in place.
    pub fn append(&self) -> Result<Table, Failure> {
        let size = self.effort.file_bytes;
        let growing = self.cluster.members[0].mount().join("growing");
        let mut rows = Vec::new();
        for (job, way) in [("1m O_APPEND", Way::Append), ("1m at the end", Way::AtEnd)] {
            let mut ours = self.shorefast(Box::new(Sequential::new(growing.clone(), way, size)));
            ours.name = "appends";
            let mut place = self.shorefast(Box::new(Sequential::new(self.file(), Way::InPlace, size)));
            place.name = "in place";
            rows.push(self.row(job, ours, place, Reach::ratio(0.85))?);
        }
        let ours = local_side("appends", Box::new(Sequential::new(self.local.join("growing"), Way::Append, size)));
        let place = local_side("in place", Box::new(Sequential::new(self.raw.clone(), Way::InPlace, size)));
        rows.push(self.row("the same on ext4", ours, place, Reach::default())?);
        Ok(Table { title: "1 MiB appends to a growing file beside writes in place (O_DIRECT)".to_owned(), rows })
    }

    /// Create, 4 KiB, fsync, close.
    pub fn create(&self) -> Result<Vec<Table>, Failure> {
        let small = |threads| SmallFiles::new(self.cluster.members[0].mount().join("small"), threads);
        let ours = |threads| self.shorefast(Box::new(small(threads)));
        let apart = |threads| self.shorefast(Box::new(small(threads).apart()));
        let ext4 = |threads| local_side("ext4", Box::new(SmallFiles::new(self.local.join("small"), threads)));
        let beside = vec![
            self.row("1 thread", ours(1), ext4(1), Reach::ratio(0.4))?,
            self.row("8 threads", ours(8), ext4(8), Reach::default())?,
        ];
        let named = |name, mut side: Side<'static>| {
            side.name = name;
            side
        };
        let scaling = vec![
            self.row("shorefast", named("8 thr", ours(8)), named("1 thr", ours(1)), Reach::ratio(3.0))?,
            self.row("a folder each", named("8 thr", apart(8)), named("1 thr", apart(1)), Reach::ratio(3.0))?,
            self.row("ext4", named("8 thr", ext4(8)), named("1 thr", ext4(1)), Reach::default())?,
        ];
        let what = "create + 4k write + fsync + close";
        Ok(vec![
            Table { title: format!("{what}, beside ext4"), rows: beside },
            Table { title: format!("{what}, 8 threads beside 1"), rows: scaling },
        ])
    }

    /// What the daemon takes now.
    pub fn memory(&self) -> Result<Vec<Resident>, Failure> {
        memory::look(&self.cluster, "one node, the sections above")
    }

    fn file(&self) -> PathBuf {
        self.cluster.members[0].mount().join("file")
    }

    fn fio(&self, job: &Job, file: PathBuf) -> Box<dyn Arm> {
        Box::new(FioArm { job: *job, file, size: self.effort.file_bytes })
    }

    fn shorefast(&self, arm: Box<dyn Arm>) -> Side<'static> {
        Side { name: "shorefast", pids: self.cluster.members[0].pid().into_iter().collect(), arm }
    }

    fn minifuse(&self, arm: Box<dyn Arm>) -> Side<'static> {
        Side { name: "minifuse", pids: vec![self.peer.pid()], arm }
    }

    fn row(&self, job: impl Into<String>, ours: Side<'_>, peer: Side<'_>, reach: Reach) -> Result<Row, Failure> {
        pairs::run(job, ours, peer, reach, &self.effort)
    }
}

fn local_side(name: &'static str, arm: Box<dyn Arm>) -> Side<'static> {
    Side { name, pids: Vec::new(), arm }
}

/// The jobs of the first table.
fn jobs(engine: &'static str) -> Vec<Job> {
    let mut jobs = Vec::new();
    for pattern in [Pattern::RandRead, Pattern::RandWrite] {
        for (depth, jobs_at_once) in [(1, 1), (1, 4), (32, 1), (32, 4)] {
            jobs.push(Job { pattern, block: 4096, depth, jobs: jobs_at_once, engine });
        }
    }
    let sequential = [Pattern::Read, Pattern::Write];
    jobs.extend(sequential.map(|pattern| Job { pattern, block: 1 << 20, depth: 4, jobs: 1, engine }));
    jobs
}
