//! A lock taken and given back, by some threads, each a file of its own (`flock`).

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::arms::{Arm, Measured, on_threads};

/// The arm; one operation is a lock and an unlock.
pub(super) struct Locks {
    file: PathBuf,
    threads: usize,
}

impl Locks {
    pub(super) fn new(file: PathBuf, threads: usize) -> Locks {
        Locks { file, threads }
    }
}

impl Arm for Locks {
    fn prepare(&mut self) -> Result<(), Failure> {
        for n in 0..self.threads {
            let path = self.file.with_extension(n.to_string());
            File::create(&path).map_err(|e| Failure::at(&path, e))?;
        }
        Ok(())
    }

    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let (begin, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
        let ops = on_threads((0..self.threads).map(|n| {
            let path = self.file.with_extension(n.to_string());
            move || {
                let failed = |e: std::io::Error| Failure::at(&path, e);
                let file = File::options().read(true).write(true).open(&path).map_err(failed)?;
                let mut pairs = 0;
                while begin.elapsed() < limit {
                    file.lock().and_then(|()| file.unlock()).map_err(failed)?;
                    pairs += 1;
                }
                Ok(pairs)
            }
        }))?;
        Ok(Measured::since(begin, ops))
    }
}
