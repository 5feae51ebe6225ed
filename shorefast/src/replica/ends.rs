//! By which ends of its disk a replica's metadata may be found: they lie behind the data, and the disk can grow before they move. A file
//! beside the record, one number of bytes a line: where they were when it was opened, and where they were about to be moved since, all
//! of them. Prevents: they were moved, and were about to be once more when the process ended; the place between the two is forgotten.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::exit::Failure;

/// Reads it. No file: nothing is known, the disk has not grown yet.
pub(super) fn load(path: &Path) -> Result<Vec<u64>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(Failure::failed(format!("{} cannot be read: {e}.", path.display()), "See who may read it."));
        }
    };
    let numbers: Result<Vec<u64>, _> = text.lines().map(str::parse).collect();
    numbers.map_err(|_| {
        Failure::failed(
            format!("{} holds no numbers of bytes.", path.display()),
            "Write into it how long the disk was when the replica was last made or resized.",
        )
    })
}

/// Writes it, whole or not at all.
pub(super) fn save(path: &Path, ends: &[u64]) -> io::Result<()> {
    let mut text = String::new();
    ends.iter().for_each(|end| text += &format!("{end}\n"));
    if fs::read_to_string(path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    let aside = path.with_extension("disk-ends-new");
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// What a running replica remembers.
pub(super) struct Ends {
    path: PathBuf,
    all: Mutex<Vec<u64>>,
}

impl Ends {
    /// Of one that was found by this end; what was known before counts no more.
    pub(super) fn found(path: PathBuf, end: Option<u64>) -> io::Result<Ends> {
        let all: Vec<u64> = end.into_iter().collect();
        save(&path, &all)?;
        Ok(Ends { path, all: Mutex::new(all) })
    }

    /// The metadata may be found by this one soon.
    pub(super) fn add(&self, end: u64) -> io::Result<()> {
        let mut all = self.all.lock();
        if !all.contains(&end) {
            all.push(end);
        }
        save(&self.path, &all)
    }
}

/// It cannot be written.
pub(super) fn not_written(path: &Path, e: &io::Error) -> Failure {
    Failure::failed(format!("{} cannot be written: {e}.", path.display()), "See who may write there.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replica grew, and was about to grow again when its process was killed: it was found by neither end that was written down.
    #[test]
    fn no_end_is_forgotten_while_a_replica_runs() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("r0.disk-ends");
        save(&path, &[1, 2, 3]).expect("written");
        let ends = Ends::found(path.clone(), Some(4096)).expect("written");
        assert_eq!(load(&path), Ok(vec![4096]));
        [8192, 8192, 12_288].into_iter().for_each(|end| ends.add(end).expect("written"));
        assert_eq!(load(&path), Ok(vec![4096, 8192, 12_288]));
    }

    #[test]
    fn ends_come_back_and_none_are_known_without_a_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("r0.disk-ends");
        assert_eq!(load(&path), Ok(Vec::new()));
        save(&path, &[4096, 8192]).expect("written");
        assert_eq!(load(&path), Ok(vec![4096, 8192]));
        save(&path, &[8192]).expect("written");
        assert_eq!(load(&path), Ok(vec![8192]));
        fs::write(&path, "many").expect("written");
        assert!(load(&path).is_err());
    }
}
