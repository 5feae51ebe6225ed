//! One kind of operation on names, by some threads, each in a folder of its own.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fsync, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::Failure;
use crate::arms::{Arm, Measured, on_threads};

/// Names in a folder that is looked at.
const LOOKED_AT: usize = 1000;
/// Names made to be taken away, over all threads; when they are gone the measurement ends.
const TAKEN_AWAY: usize = 2000;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// An empty file made.
    Create,
    /// One of a thousand names looked up, and its attributes.
    Stat,
    /// A folder of a thousand names listed.
    Readdir,
    /// A file renamed to and fro.
    Rename,
    /// An empty file taken away.
    Unlink,
}

impl Kind {
    pub(super) const ALL: [Kind; 5] = [Kind::Create, Kind::Stat, Kind::Readdir, Kind::Rename, Kind::Unlink];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Create => "create",
            Kind::Stat => "stat",
            Kind::Readdir => "readdir 1000",
            Kind::Rename => "rename",
            Kind::Unlink => "unlink",
        }
    }
}

/// The arm.
pub(super) struct Names {
    kind: Kind,
    folders: Vec<PathBuf>,
    fsync: bool,
}

impl Names {
    /// One thread for each folder, which must not be there; with `fsync` each change is followed by one of the folder.
    pub(super) fn new(kind: Kind, folders: Vec<PathBuf>, fsync: bool) -> Names {
        Names { kind, folders, fsync }
    }

    /// How many names a folder has when it begins.
    fn stock(&self) -> usize {
        match self.kind {
            Kind::Create => 0,
            Kind::Stat | Kind::Readdir => LOOKED_AT,
            Kind::Rename => 1,
            Kind::Unlink => TAKEN_AWAY.div_ceil(self.folders.len()),
        }
    }
}

impl Arm for Names {
    fn prepare(&mut self) -> Result<(), Failure> {
        let stock = self.stock();
        on_threads(self.folders.iter().filter(|f| !f.is_dir()).map(|folder| {
            move || {
                fs::create_dir(folder).map_err(|e| Failure::at(folder, e))?;
                let dir = Folder::open(folder, false)?;
                (0..stock).try_for_each(|n| dir.create(&name(n)))?;
                Ok(0)
            }
        }))
        .map(drop)
    }

    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let (begin, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
        let (kind, stock, fsync) = (self.kind, self.stock(), self.fsync);
        let ops = on_threads(self.folders.iter().map(|folder| {
            move || {
                let dir = Folder::open(folder, fsync)?;
                if kind == Kind::Rename {
                    dir.named_as_at_first()?;
                }
                let mut n = 0;
                // At least one, however late this thread comes to run.
                loop {
                    dir.once(kind, n)?;
                    n += 1;
                    if begin.elapsed() >= limit || (kind == Kind::Unlink && n == stock) {
                        return Ok(n as u64);
                    }
                }
            }
        }))?;
        Ok(Measured::since(begin, ops))
    }

    fn tidy(&mut self) -> Result<(), Failure> {
        if matches!(self.kind, Kind::Stat | Kind::Readdir | Kind::Rename) {
            return Ok(());
        }
        self.folders.iter().try_for_each(|f| fs::remove_dir_all(f).map_err(|e| Failure::at(f, e)))
    }
}

/// What number 0 is renamed to, and back.
const ANOTHER: &str = "another name";

fn name(n: usize) -> String {
    format!("a file with number {n}")
}

/// An open folder: what is measured is the name in it, not the way to it.
struct Folder<'a> {
    path: &'a Path,
    fd: OwnedFd,
    fsync: bool,
}

impl<'a> Folder<'a> {
    fn open(path: &'a Path, fsync: bool) -> Result<Folder<'a>, Failure> {
        let fd = File::open(path).map_err(|e| Failure::at(path, e))?.into();
        Ok(Folder { path, fd, fsync })
    }

    fn create(&self, name: &str) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        self.said(openat(&self.fd, name, flags, Mode::from_raw_mode(0o644)).map(drop))
    }

    fn once(&self, kind: Kind, n: usize) -> Result<(), Failure> {
        match kind {
            Kind::Create => self.create(&name(n))?,
            Kind::Stat => {
                let looked = statat(&self.fd, name(n * 7 % LOOKED_AT), AtFlags::SYMLINK_NOFOLLOW);
                return self.said(looked.map(drop));
            }
            Kind::Readdir => return self.said(self.list()),
            Kind::Rename => {
                let (from, to) = if n.is_multiple_of(2) { (&name(0)[..], ANOTHER) } else { (ANOTHER, &name(0)[..]) };
                self.said(renameat(&self.fd, from, &self.fd, to))?;
            }
            Kind::Unlink => self.said(unlinkat(&self.fd, name(n), AtFlags::empty()))?,
        }
        if self.fsync { self.said(fsync(&self.fd)) } else { Ok(()) }
    }

    /// The last measurement may have ended between a renaming and the one back.
    fn named_as_at_first(&self) -> Result<(), Failure> {
        match renameat(&self.fd, ANOTHER, &self.fd, name(0)) {
            Err(Errno::NOENT) => Ok(()),
            done => self.said(done),
        }
    }

    fn list(&self) -> rustix::io::Result<()> {
        let listed = Dir::read_from(self.fd.as_fd())?.try_fold(0, |n, entry| entry.map(|_| n + 1))?;
        // "." and ".." are listed, too.
        if listed < LOOKED_AT { Err(Errno::NOENT) } else { Ok(()) }
    }

    fn said(&self, done: rustix::io::Result<()>) -> Result<(), Failure> {
        done.map_err(|e| Failure::at(self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_does_what_it_counts() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for kind in Kind::ALL {
            let folders: Vec<PathBuf> = (0..2).map(|n| dir.path().join(format!("{kind:?}-{n}"))).collect();
            let mut arm = Names::new(kind, folders.clone(), true);
            for _ in 0..2 {
                arm.prepare().unwrap();
                let counted = || folders.iter().map(|f| fs::read_dir(f).unwrap().count()).sum::<usize>();
                let before = counted();
                let ops = usize::try_from(arm.measure(0.02).unwrap().ops).unwrap();
                let after = match kind {
                    Kind::Create => before + ops,
                    Kind::Unlink => before - ops,
                    _ => before,
                };
                assert!(ops > 0 && counted() == after, "{kind:?}: {ops} of {before}, {}", counted());
                arm.tidy().unwrap();
            }
        }
    }
}
