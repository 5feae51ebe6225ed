//! A process whose writes the kernel holds back: a control group with a limit on what it writes to one disk. What it has
//! submitted waits inside the kernel, and goes on to the disk at that pace also after the process has died.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The group; gone with this value, once its processes have ended.
pub(crate) struct Slow(PathBuf);

impl Slow {
    /// So many bytes a second to the disk on which a file lies. None, said aloud, where that cannot be had.
    pub(crate) fn new(file: &Path, bytes_per_second: u64) -> Option<Slow> {
        let dev = fs::metadata(file).ok()?.dev();
        let disk = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
        let made =
            [("/sys/fs/cgroup", "io.max", "wbps="), ("/sys/fs/cgroup/blkio", "blkio.throttle.write_bps_device", "")];
        let slow = made.iter().find_map(|(root, file, key)| {
            let root = Path::new(root);
            // Version 2: the controller is switched on for the groups below. Version 1 has no such file.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+io");
            let group = Slow::group(root)?;
            let limited = fs::write(group.0.join(file), format!("{disk} {key}{bytes_per_second}")).is_ok();
            limited.then_some(group)
        });
        if slow.is_none() {
            println!("skipped: no control group limits what is written to the disk {disk} (root is needed)");
        }
        slow
    }

    fn group(root: &Path) -> Option<Slow> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let group = root.join(format!("shorefast-test-{}-{number}", std::process::id()));
        // Not where control groups are mounted: a folder there would be a folder.
        (root.join("cgroup.procs").exists() && fs::create_dir(&group).is_ok()).then_some(Slow(group))
    }

    /// Puts a process in, which has submitted nothing yet.
    pub(crate) fn holds_back(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("it joins the group");
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
