//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The machine and the tree.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The commit, with `+` if the tree differs from it; `none` outside a repository or before its first commit.
    pub commit: String,
    /// When, UTC.
    pub date: String,
    /// Kernel.
    pub kernel: String,
    /// Processor.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The file system below the images: type, device, options.
    pub file_system: String,
    /// fio's version.
    pub fio: String,
    /// Load average when the run began: what else was going on.
    pub load: String,
}

impl Machine {
    /// This one; `dir` is where the images lie.
    pub fn look(dir: &Path) -> Machine {
        Machine {
            commit: commit(),
            date: said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(0, Into::into),
            memory_mib: field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024,
            file_system: file_system(dir),
            fio: said("fio", &["--version"]),
            load: line("/proc/loadavg"),
        }
    }
}

fn commit() -> String {
    let head = said("git", &["rev-parse", "--verify", "--quiet", "--short=12", "HEAD"]);
    let dirty = !said("git", &["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]).is_empty();
    if head.is_empty() { "none".to_owned() } else { format!("{head}{}", if dirty { "+" } else { "" }) }
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().filter_map(|l| l.split_once(':')).find(|(k, _)| k.trim() == name);
    value.map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
}

/// The mount with the longest point above `dir`.
fn file_system(dir: &Path) -> String {
    let table = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let above = table.lines().filter_map(|l| {
        let mut words = l.split(' ');
        let (device, point, kind, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
        dir.starts_with(point).then(|| (point.len(), format!("{kind} on {device} ({options})")))
    });
    above.max_by_key(|(n, _)| *n).map(|(_, said)| said).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_system_below_a_folder_is_told() {
        assert!(super::file_system(std::path::Path::new("/proc/self")).starts_with("proc on"));
    }
}
