//! The bare peer as a process.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Failure;

/// A running `minifuse`; dropped, it is ended and its mount taken away.
pub struct Minifuse {
    child: Child,
    mount: PathBuf,
}

impl Minifuse {
    /// Mounts `image` at `mount`.
    pub fn start(program: &Path, image: &Path, mount: &Path) -> Result<Minifuse, Failure> {
        std::fs::create_dir_all(mount).map_err(|e| Failure::new(format!("{}: {e}", mount.display())))?;
        let mut child = Command::new(program)
            .arg("--image")
            .arg(image)
            .arg("--mount")
            .arg(mount)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0) // a terminal's Ctrl-C is for the benchmark, which ends its peer itself
            .spawn()
            .map_err(|e| Failure::new(format!("{}: {e}", program.display())))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(|e| Failure::new(e.to_string()))?;
        }
        let peer = Minifuse { child, mount: mount.to_owned() };
        if line.trim_start().starts_with("ready") { Ok(peer) } else { Err(Failure::new("minifuse did not mount")) }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its one file.
    pub fn file(&self) -> Result<PathBuf, Failure> {
        let mut entries = std::fs::read_dir(&self.mount).map_err(|e| Failure::new(e.to_string()))?;
        entries.next().and_then(Result::ok).map(|e| e.path()).ok_or_else(|| Failure::new("minifuse shows no file"))
    }
}

impl Drop for Minifuse {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mount).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
