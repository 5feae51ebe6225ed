//! The iSCSI initiator on tgt, on a disk in memory and on tgt's null backing: our library in this process, beside libiscsi's
//! `iscsi-perf` and `qemu-img bench` (libiscsi too; the only one of the two that writes); two paths beside one; with a data
//! digest beside without.
//!
//! CPU is the initiator's own, its login included: that of this process, or of the peer's. tgt has the keys with which libiscsi
//! was fastest. A bare target in a thread of its own shows what a digest costs, which tgt pays more for than we do.

mod bare;
mod ours;
mod peers;
pub mod target;
mod tgt;

use block::worker::Workers;

use self::bare::Bare;
use self::ours::{Lun, Ours, Paths};
use self::peers::{IscsiPerf, QemuImg};
use self::tgt::Tgt;
use crate::arms::Arm;
use crate::pairs::{self, Reach, Row, Side, Table};
use crate::{Effort, Failure};

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    write: bool,
    random: bool,
    block: u32,
    depth: u32,
}

/// What the table of the initiator's aims asks for.
const CHEAP: Reach = Reach { ratio: Some(1.0), cpu: Some(0.80) };
/// See there.
const AS_FAST: Reach = Reach { ratio: Some(1.0), cpu: None };
/// Two paths beside one.
const TWO_PATHS: Reach = Reach { ratio: None, cpu: Some(1.05) };
/// A data digest beside none.
const DIGEST: Reach = Reach { ratio: Some(0.90), cpu: None };

const fn job(write: bool, random: bool, kib: u32, depth: u32) -> Job {
    Job { write, random, block: kib << 10, depth }
}

impl Job {
    fn name(self, lun: Lun) -> String {
        let way = match (self.random, self.write) {
            (true, false) => "randread",
            (true, true) => "randwrite",
            (false, false) => "read",
            (false, true) => "write",
        };
        let lun = match lun {
            Lun::Memory => "tmpfs",
            Lun::Null => "null",
        };
        format!("{way} {}k qd{} {lun}", self.block >> 10, self.depth)
    }
}

/// One section, run on one tgt of its own.
struct Section<'a> {
    workers: &'a Workers,
    tgt: &'a Tgt,
    row: &'a str,
    effort: &'a Effort,
}

/// Every table of the section; of its rows those whose name contains `row`.
pub fn run(effort: &Effort, row: &str) -> Result<Vec<Table>, Failure> {
    let workers = Workers::start(1, "bench").map_err(|e| Failure::new(format!("no worker: {e}")))?;
    let tgt = Tgt::start()?;
    let section = Section { workers: &workers, tgt: &tgt, row, effort };
    section.warm()?;
    let tables = [section.beside_iscsi_perf()?, section.beside_qemu()?, section.two_paths()?, section.digest()?];
    Ok(tables.into_iter().filter(|t| !t.rows.is_empty()).collect())
}

impl<'a> Section<'a> {
    fn ours(&self, job: Job, lun: Lun, paths: Paths, name: &'static str) -> Side<'a> {
        Side { name, pids: Vec::new(), arm: Box::new(Ours::new(self.workers, self.tgt, job, lun, paths)) }
    }

    /// tgt answers reads of 128 KiB half as fast until it has had a larger one: what is measured must not depend on the order of the rows.
    fn warm(&self) -> Result<(), Failure> {
        [Lun::Null, Lun::Memory].into_iter().try_for_each(|lun| {
            let large = job(false, false, 1024, 8);
            self.ours(large, lun, Paths::Alone, "shorefast").arm.measure(0.2).map(drop)
        })
    }

    fn pair(
        &self,
        rows: &mut Vec<Row>,
        name: String,
        (ours, peer): (Side<'_>, Side<'_>),
        reach: Reach,
    ) -> Result<(), Failure> {
        if name.contains(self.row) {
            rows.push(pairs::run(name, ours, peer, reach, self.effort)?);
        }
        Ok(())
    }

    /// Reads only: it does nothing else.
    fn beside_iscsi_perf(&self) -> Result<Table, Failure> {
        let mut rows = Vec::new();
        for (job, lun, reach) in [
            (job(false, true, 4, 32), Lun::Null, CHEAP),
            (job(false, true, 4, 32), Lun::Memory, CHEAP),
            (job(false, true, 4, 1), Lun::Memory, AS_FAST),
            (job(false, false, 128, 8), Lun::Null, AS_FAST),
            (job(false, false, 128, 8), Lun::Memory, AS_FAST),
            (job(false, false, 1024, 8), Lun::Memory, AS_FAST),
        ] {
            let arm = Box::new(IscsiPerf { job, url: self.tgt.url(lun) });
            let peer = Side { name: "iscsi-perf", pids: Vec::new(), arm };
            self.pair(&mut rows, job.name(lun), (self.ours(job, lun, Paths::Alone, "shorefast"), peer), reach)?;
        }
        Ok(Table { title: "the initiator on tgt, beside iscsi-perf".to_owned(), rows })
    }

    /// It goes from one block to the next, and so do we.
    fn beside_qemu(&self) -> Result<Table, Failure> {
        let mut rows = Vec::new();
        for (job, lun, reach) in [
            (job(true, false, 4, 32), Lun::Null, CHEAP),
            (job(true, false, 4, 32), Lun::Memory, CHEAP),
            (job(true, false, 4, 1), Lun::Memory, AS_FAST),
            (job(true, false, 128, 8), Lun::Memory, AS_FAST),
            (job(true, false, 1024, 8), Lun::Memory, AS_FAST),
            (job(false, false, 4, 1), Lun::Memory, AS_FAST),
            (job(false, false, 128, 8), Lun::Memory, AS_FAST),
            (job(false, false, 1024, 8), Lun::Memory, AS_FAST),
        ] {
            let arm = Box::new(QemuImg::new(job, self.tgt.url(lun)));
            let peer = Side { name: "qemu-img", pids: Vec::new(), arm };
            self.pair(&mut rows, job.name(lun), (self.ours(job, lun, Paths::Alone, "shorefast"), peer), reach)?;
        }
        Ok(Table { title: "the initiator on tgt, beside qemu-img bench (libiscsi)".to_owned(), rows })
    }

    fn two_paths(&self) -> Result<Table, Failure> {
        let mut rows = Vec::new();
        for (job, lun, reach) in [
            (job(false, true, 4, 32), Lun::Null, TWO_PATHS),
            (job(true, true, 4, 32), Lun::Null, TWO_PATHS),
            (job(false, false, 128, 8), Lun::Memory, TWO_PATHS),
        ] {
            let sides = (self.ours(job, lun, Paths::Many(2), "two"), self.ours(job, lun, Paths::Many(1), "one"));
            self.pair(&mut rows, format!("{}, 2/1 paths", job.name(lun)), sides, reach)?;
            let sides =
                (self.ours(job, lun, Paths::Many(1), "multipath"), self.ours(job, lun, Paths::Alone, "session"));
            self.pair(&mut rows, format!("{}, 1/0 paths", job.name(lun)), sides, Reach::default())?;
        }
        Ok(Table { title: "two paths beside one, and one beside a session without multipath".to_owned(), rows })
    }

    /// On tgt, and on a target for which a digest costs nothing: beside that one the price is the initiator's own.
    fn digest(&self) -> Result<Table, Failure> {
        let mut rows = Vec::new();
        let bare = Bare::start()?;
        for job in [job(false, false, 128, 8), job(true, false, 128, 8), job(false, true, 4, 32)] {
            let name = format!("{}, digest", job.name(Lun::Null));
            let sides =
                (self.ours(job, Lun::Null, Paths::Digest, "digest"), self.ours(job, Lun::Null, Paths::Alone, "none"));
            self.pair(&mut rows, name.clone(), sides, DIGEST)?;
            let side = |paths, name| {
                let arm = Box::new(Ours::at(self.workers, bare.portal(), job, Lun::Null, paths));
                Side { name, pids: Vec::new(), arm: arm as Box<dyn Arm> }
            };
            let sides = (side(Paths::Digest, "digest"), side(Paths::Alone, "none"));
            self.pair(&mut rows, format!("{name}, bare target"), sides, DIGEST)?;
        }
        Ok(Table { title: "with a data digest beside without".to_owned(), rows })
    }
}
