//! Look-ups and attributes asked for through a node that does not coordinate, counted in requests to the coordinator.
//!
//! The kernel turns one system call into several requests: with nothing cached a name is looked up in a folder whose
//! attributes were asked for first, since they say who may. So what is counted is what the daemon asked its coordinator, not
//! the calls that were made; each request waits for the one before it.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, statat};

use crate::Failure;
use crate::arms::{Arm, Measured, on_threads};
use crate::cluster::Cluster;

const NAME: &str = "a file that is looked at";

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The attributes of an open file: one request.
    Attributes,
    /// A name in an open folder, opened for nothing (O_PATH).
    LookUp,
    /// A name in an open folder and its attributes.
    Stat,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Attributes, Kind::LookUp, Kind::Stat];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Attributes => "fstat",
            Kind::LookUp => "look-up",
            Kind::Stat => "stat of a name",
        }
    }
}

/// The arm.
pub(super) struct Trips<'a> {
    kind: Kind,
    cluster: &'a Cluster,
    at: usize,
    threads: usize,
    folder: OwnedFd,
    file: OwnedFd,
}

impl<'a> Trips<'a> {
    /// Through the node at this place.
    pub(super) fn new(kind: Kind, cluster: &'a Cluster, at: usize, threads: usize) -> Result<Trips<'a>, Failure> {
        let path = cluster.members[at].mount().join("trips");
        let failed = |e: std::io::Error| Failure::at(&path, e);
        fs::create_dir_all(&path).map_err(failed)?;
        fs::write(path.join(NAME), b"there").map_err(failed)?;
        let folder = File::open(&path).map_err(failed)?.into();
        let file = File::open(path.join(NAME)).map_err(failed)?.into();
        Ok(Trips { kind, cluster, at, threads, folder, file })
    }

    /// Requests that this node's daemon has made so far.
    fn asked(&self) -> Result<u64, Failure> {
        let status = self.cluster.status(self.at)?;
        let calls = status["volumes"][0]["io"]["coordinator_calls"].as_u64();
        calls.ok_or_else(|| Failure::new("status does not tell how many calls were made"))
    }

    fn once(&self) -> rustix::io::Result<()> {
        match self.kind {
            Kind::Attributes => fstat(&self.file).map(drop),
            Kind::LookUp => openat(&self.folder, NAME, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map(drop),
            Kind::Stat => statat(&self.folder, NAME, AtFlags::SYMLINK_NOFOLLOW).map(drop),
        }
    }
}

impl Arm for Trips<'_> {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let before = self.asked()?;
        let (begin, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
        let this = &*self;
        on_threads((0..this.threads).map(|_| {
            || {
                while begin.elapsed() < limit {
                    this.once().map_err(|e| Failure::new(format!("{}: {e}", this.kind.name())))?;
                }
                Ok(0)
            }
        }))?;
        let measured = Measured::since(begin, 1);
        let ops = self.asked()? - before;
        Ok(Measured { per_second: measured.per_second * ops as f64, ops, cpu_s: None })
    }
}
