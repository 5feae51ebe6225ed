//! Mounts below a folder: found without touching them, and taken away also when their daemon is dead or frozen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

/// `fusermount3` only asks the kernel; longer means that it hangs.
const HELPER_LIMIT: Duration = Duration::from_secs(5);

/// The mount points below a folder, deepest first. Reads the kernel's table only.
pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = in_table(&table, folder);
    found.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    found
}

fn in_table(table: &str, folder: &Path) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(folder))
        .collect()
}

/// The table writes space, tab, line feed and backslash in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Detaches every mount below a folder; returns those that are still there.
pub(crate) fn detach_below(folder: &Path) -> Vec<PathBuf> {
    for point in below(folder) {
        if unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            by_helper(&point);
        }
    }
    below(folder)
}

/// For users other than root.
fn by_helper(point: &Path) {
    let mut helper = Command::new("fusermount3");
    helper.arg("-u").arg("-z").arg(point).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = helper.spawn() else { return };
    let deadline = Instant::now() + HELPER_LIMIT;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // The caller looks whether the mount has gone.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_folder_are_found_by_whole_names_and_with_spaces() {
        let table = "36 35 98:0 / /tmp/demo/n1/mnt/a\\040b rw - fuse.shorefast shorefast:v rw\n\
                     37 35 98:0 / /tmp/demolition rw - ext4 /dev/a rw\n";
        assert_eq!(in_table(table, Path::new("/tmp/demo")), [PathBuf::from("/tmp/demo/n1/mnt/a b")]);
    }
}
