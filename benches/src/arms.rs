//! What is measured: each arm is one way to do one thing in one place, and one call of it gives one figure.
//!
//! - [`FioArm`]: a fio job on a file.
//! - [`Sequential`]: 1 MiB writes one after the other, in place or at the end of a growing file.
//! - [`SmallFiles`]: create, 4 KiB written, fsync, close; on some threads.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;

use crate::Failure;
use crate::fio::{self, Job};

/// One figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Measured {
    /// Operations per second.
    pub per_second: f64,
    /// Operations in all: what the daemons' CPU time is divided by.
    pub ops: u64,
    /// CPU time in seconds, where the arm itself has seen it; else the daemons' counts.
    pub cpu_s: Option<f64>,
}

impl Measured {
    pub(crate) fn since(begin: Instant, ops: u64) -> Measured {
        Measured { per_second: ops as f64 / begin.elapsed().as_secs_f64().max(1e-9), ops, cpu_s: None }
    }
}

/// Something to be measured.
pub trait Arm {
    /// Makes what the next measurement needs; not measured.
    fn prepare(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Measures for about so many seconds.
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure>;

    /// Takes away what the last measurement left; not measured.
    fn tidy(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// A fio job on an existing file.
pub struct FioArm {
    /// The job.
    pub job: Job,
    /// The file.
    pub file: PathBuf,
    /// Its bytes.
    pub size: u64,
}

impl Arm for FioArm {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        fio::run(&self.job, &self.file, self.size, seconds)
    }
}

/// Bytes of one sequential write.
const CHUNK: usize = 1 << 20;

/// How [`Sequential`] writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Over what a filled file holds, from its begin, again and again.
    InPlace,
    /// With `O_APPEND`.
    Append,
    /// At the end, as programs do that know where it is.
    AtEnd,
}

/// 1 MiB writes with `O_DIRECT`, one at a time.
pub struct Sequential {
    file: PathBuf,
    way: Way,
    size: u64,
    chunk: AlignedBuf,
}

impl Sequential {
    /// In place on a filled file of `size` bytes, or growing a new one to at most so many.
    pub fn new(file: PathBuf, way: Way, size: u64) -> Sequential {
        let mut chunk = AlignedBuf::zeroed(CHUNK);
        chunk.iter_mut().enumerate().for_each(|(n, b)| *b = (n * 31 + (n >> 12)) as u8);
        Sequential { file, way, size, chunk }
    }

    fn open(&self) -> std::io::Result<File> {
        let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create(self.way != Way::InPlace).append(self.way == Way::Append);
        options.custom_flags(direct).open(&self.file)
    }
}

impl Arm for Sequential {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let failed = |e: std::io::Error| Failure::at(&self.file, e);
        let file = self.open().map_err(failed)?;
        let (begin, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
        let (mut at, mut ops) = (0u64, 0);
        while begin.elapsed() < limit {
            if at + CHUNK as u64 > self.size {
                if self.way != Way::InPlace {
                    break;
                }
                at = 0;
            }
            let n = match self.way {
                Way::Append => (&file).write(&self.chunk).map_err(failed)?,
                Way::InPlace | Way::AtEnd => {
                    rustix::io::pwrite(&file, &self.chunk, at).map_err(|e| failed(e.into()))?
                }
            };
            if n != CHUNK {
                return Err(Failure::at(&self.file, format!("a write of {CHUNK} bytes wrote {n}")));
            }
            at += n as u64;
            ops += 1;
        }
        Ok(Measured::since(begin, ops))
    }

    fn tidy(&mut self) -> Result<(), Failure> {
        if self.way == Way::InPlace {
            return Ok(());
        }
        fs::remove_file(&self.file).map_err(|e| Failure::at(&self.file, e))
    }
}

/// Small files made durable one by one.
pub struct SmallFiles {
    folder: PathBuf,
    threads: usize,
    apart: bool,
}

impl SmallFiles {
    /// On so many threads; `folder` is made for each measurement and removed after it.
    pub fn new(folder: PathBuf, threads: usize) -> SmallFiles {
        SmallFiles { folder, threads, apart: false }
    }

    /// Each thread in a folder of its own: within one, the kernel lets one thread at a time make a name.
    pub fn apart(self) -> SmallFiles {
        SmallFiles { apart: true, ..self }
    }
}

impl Arm for SmallFiles {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let folder_of = |t: usize| if self.apart { self.folder.join(t.to_string()) } else { self.folder.clone() };
        let folders: Vec<PathBuf> = (0..self.threads).map(folder_of).collect();
        for folder in &folders {
            fs::create_dir_all(folder).map_err(|e| Failure::at(folder, e))?;
        }
        let (begin, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
        let work = |(t, folder): (usize, &'_ PathBuf)| {
            let folder = folder.clone();
            move || small_files(&folder, t, begin, limit)
        };
        let ops = on_threads(folders.iter().enumerate().map(work))?;
        Ok(Measured::since(begin, ops))
    }

    fn tidy(&mut self) -> Result<(), Failure> {
        fs::remove_dir_all(&self.folder).map_err(|e| Failure::at(&self.folder, e))
    }
}

/// Does all of it at once, a thread each; the sum of what they counted.
pub(crate) fn on_threads<W>(work: impl Iterator<Item = W>) -> Result<u64, Failure>
where
    W: FnOnce() -> Result<u64, Failure> + Send,
{
    thread::scope(|scope| {
        let workers: Vec<_> = work.map(|w| scope.spawn(w)).collect();
        let join = |w: thread::ScopedJoinHandle<'_, _>| {
            w.join().unwrap_or_else(|_| Err(Failure::new("a thread of a measurement has panicked")))
        };
        // All of them are waited for, whatever the first one says.
        let counts: Vec<Result<u64, Failure>> = workers.into_iter().map(join).collect();
        counts.into_iter().sum()
    })
}

fn small_files(folder: &Path, thread: usize, begin: Instant, limit: Duration) -> Result<u64, Failure> {
    let data = [0x5a; 4096];
    let mut made = 0;
    while begin.elapsed() < limit {
        let path = folder.join(format!("{thread}-{made}"));
        let one = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(&data)?;
            file.sync_all()
        };
        one().map_err(|e: std::io::Error| Failure::at(&path, e))?;
        made += 1;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_counted_and_taken_away() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let folder = dir.path().join("small");
        let mut arm = SmallFiles::new(folder.clone(), 2);
        let measured = arm.measure(0.05).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count() as u64, measured.ops);
        arm.tidy().unwrap();
        assert!(!folder.exists());
        let mut arm = SmallFiles::new(folder.clone(), 2).apart();
        let measured = arm.measure(0.05).unwrap();
        let made = ["0", "1"].map(|t| fs::read_dir(folder.join(t)).unwrap().count() as u64);
        assert_eq!(made[0] + made[1], measured.ops);
        arm.tidy().unwrap();
    }

    #[test]
    fn appends_stop_at_the_size_they_were_given() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for way in [Way::Append, Way::AtEnd] {
            let file = dir.path().join("grows");
            let mut arm = Sequential::new(file.clone(), way, 3 << 20);
            assert_eq!(arm.measure(30.0).unwrap().ops, 3, "{way:?}");
            assert_eq!(fs::metadata(&file).unwrap().len(), 3 << 20);
            arm.tidy().unwrap();
        }
    }
}
