//! Where the benchmark's images lie: a new folder on a file system that has a disk below it.
//!
//! Refused: tmpfs and ramfs, where nothing that is measured here exists, and a place without room.

use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, statfs, statvfs};
use tempfile::TempDir;

use crate::Failure;

/// `statfs(2)`, "f_type".
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// A folder of the run's own, removed at its end.
pub fn make(asked: Option<&Path>, needed: u64) -> Result<TempDir, Failure> {
    let candidates = match asked {
        Some(dir) => vec![dir.to_owned()],
        None => [Some(std::env::temp_dir()), beside_program()].into_iter().flatten().collect(),
    };
    let mut refused = Vec::new();
    for dir in candidates {
        match fits(&dir, needed) {
            Ok(()) => {
                return tempfile::Builder::new()
                    .prefix("shorefast-bench-")
                    .tempdir_in(&dir)
                    .map_err(|e| Failure::at(&dir, e));
            }
            Err(why) => refused.push(why.to_string()),
        }
    }
    Err(Failure::new(format!("no place to run: {}; name one with --dir", refused.join("; "))))
}

fn beside_program() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.to_owned())
}

fn fits(dir: &Path, needed: u64) -> Result<(), Failure> {
    let kind = statfs(dir).map_err(|e| Failure::at(dir, e))?.f_type;
    if IN_MEMORY.contains(&(kind.cast_unsigned())) {
        return Err(Failure::at(dir, "is in memory, not on a disk"));
    }
    let StatVfs { f_bavail, f_frsize, .. } = statvfs(dir).map_err(|e| Failure::at(dir, e))?;
    let free = f_bavail.saturating_mul(f_frsize);
    if free < needed {
        return Err(Failure::at(dir, format!("has {} GiB free, {} are needed", free >> 30, needed >> 30)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_memory_is_refused() {
        let shm = Path::new("/dev/shm");
        if !shm.is_dir() {
            println!("skipped: there is no /dev/shm");
            return;
        }
        assert!(make(Some(shm), 0).unwrap_err().to_string().contains("in memory"));
    }

    #[test]
    fn a_place_without_room_is_refused() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(make(Some(here), u64::MAX).unwrap_err().to_string().contains("are needed"));
    }
}
