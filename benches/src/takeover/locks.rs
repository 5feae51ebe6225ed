//! How long a killed node's lock on the disk lingers, seen from outside: in the kernel's table of locks.
//!
//! The node's lock is the byte `2^62 + node` of the image (docs/formats/volume.md). It is freed when the last reference
//! to the killed process's file is gone, which its I/O in flight holds. Who takes over locks the same byte for a moment:
//! a gap between the two that is shorter than the interval here is not seen.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Failure;

const LIVE: u64 = 1 << 62;
const INTERVAL: Duration = Duration::from_micros(500);

/// Watches from now until `limit` after `killed`; when the lock was seen free, counted from `killed`.
pub(super) fn watch(
    disk: &Path,
    node: u8,
    killed: Instant,
    limit: Duration,
) -> Result<JoinHandle<Option<Duration>>, Failure> {
    let ino = fs::metadata(disk).map_err(|e| Failure::at(disk, e))?.ino();
    let byte = LIVE + u64::from(node);
    let look = move || {
        while killed.elapsed() < limit {
            let table = fs::read_to_string("/proc/locks").ok()?;
            let seen = killed.elapsed();
            if !held(&table, ino, byte) {
                return Some(seen);
            }
            thread::sleep(INTERVAL);
        }
        None
    };
    thread::Builder::new().name("locks".to_owned()).spawn(look).map_err(|e| Failure::new(e.to_string()))
}

fn held(table: &str, ino: u64, byte: u64) -> bool {
    let tail = format!(":{ino} {byte} {byte}");
    table.lines().any(|l| l.contains("OFDLCK") && l.trim_end().ends_with(&tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_found_by_inode_and_byte() {
        let table = "1: OFDLCK ADVISORY  WRITE -1 fe:00:77 4611686018427387906 4611686018427387906\n\
                     2: POSIX  ADVISORY  WRITE 12 fe:00:77 4611686018427387907 4611686018427387907\n";
        assert!(held(table, 77, LIVE + 2));
        assert!(!held(table, 77, LIVE + 3));
        assert!(!held(table, 7, LIVE + 2));
    }
}
