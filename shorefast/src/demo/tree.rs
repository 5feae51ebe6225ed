//! The demo's real files: a tree of at least [`MIN_FILES`] files from /usr/share, copied in through one node while
//! the others list and read it, then compared through all.
//!
//! Each part runs in a process of its own (hidden subcommands `demo-copy`, `demo-follow`, `demo-sums`), so that a
//! mount that hangs never holds the demo itself. A file appears under its final name only when it is whole
//! (written, closed, renamed), so a reader that sees a name must be able to read all of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The demo copies at least this many files.
pub(crate) const MIN_FILES: usize = 500;
/// And at most this many: enough to be real, few enough for a minute.
const MAX_FILES: usize = 560;
/// Larger files are left out.
const MAX_FILE_BYTES: u64 = 512 * 1024;
/// Prefix of names that are still being written.
const PARTIAL: &str = ".part-";

/// Arguments of `demo-copy`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// Where the files come from.
    #[arg(long)]
    pub(crate) from: PathBuf,
    /// Directory in the volume; made anew.
    #[arg(long)]
    pub(crate) to: PathBuf,
}

/// Arguments of `demo-follow` and `demo-sums`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TreeArgs {
    /// Directory in the volume.
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

/// A line on the standard output of any of the three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TreeLine {
    /// Files done so far.
    Progress { files: usize, bytes: u64 },
    /// The end: relative path → length and CRC-32C.
    Sums { files: BTreeMap<String, Sum>, bytes: u64 },
    /// A call failed.
    Failed { path: String, call: String, error: String },
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum {
    /// Length in bytes.
    pub(crate) len: u64,
    /// CRC-32C of the content.
    pub(crate) crc32c: u32,
}

/// Copies the tree and prints the sums of what was *read from the source*.
pub(crate) fn copy(args: &CopyArgs) -> io::Result<()> {
    let sources = choose(&args.from)?;
    fs::create_dir_all(&args.to)?;
    let (mut files, mut bytes) = (BTreeMap::new(), 0);
    for source in sources {
        let relative = source.strip_prefix(&args.from).unwrap_or(&source);
        let data = fs::read(&source)?;
        let target = args.to.join(relative);
        if let Err(e) = copy_one(&data, &target) {
            say(&TreeLine::Failed { path: target.display().to_string(), call: "copy".into(), error: e.to_string() })?;
            continue;
        }
        bytes += data.len() as u64;
        files.insert(relative.display().to_string(), Sum { len: data.len() as u64, crc32c: crc32c::crc32c(&data) });
        if files.len() % 20 == 0 {
            say(&TreeLine::Progress { files: files.len(), bytes })?;
        }
    }
    say(&TreeLine::Sums { files, bytes })
}

fn copy_one(data: &[u8], target: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::Error::other("a file without a name"));
    };
    fs::create_dir_all(dir)?;
    let partial = dir.join(format!("{PARTIAL}{}", name.to_string_lossy()));
    File::create_new(&partial)?.write_all(data)?;
    fs::rename(&partial, target)
}

/// Readable regular files below `from`, in name order, enough for the demo.
fn choose(from: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![from.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
        entries.sort_by_key(|e| std::cmp::Reverse(e.file_name()));
        for entry in entries {
            match entry.metadata() {
                Ok(m) if m.is_dir() => dirs.push(entry.path()),
                Ok(m) if m.is_file() && m.len() <= MAX_FILE_BYTES && File::open(entry.path()).is_ok() => {
                    found.push(entry.path())
                }
                _ => {}
            }
            if found.len() >= MAX_FILES {
                return Ok(found);
            }
        }
    }
    if found.len() < MIN_FILES {
        return Err(io::Error::other(format!(
            "{} has only {} readable files of at most {MAX_FILE_BYTES} bytes; {MIN_FILES} are needed",
            from.display(),
            found.len()
        )));
    }
    Ok(found)
}

/// Lists and reads the growing tree again and again until its standard input ends; says how much it read.
pub(crate) fn follow(args: &TreeArgs) -> io::Result<()> {
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = ended.clone();
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        for _ in io::stdin().lock().lines() {}
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
    })?;
    let (mut files, mut bytes) = (0, 0);
    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
        let read = read_tree(&args.dir)?;
        files += read.len();
        bytes += read.values().map(|s| s.len).sum::<u64>();
        say(&TreeLine::Progress { files, bytes })?;
    }
    Ok(())
}

/// Reads the whole tree once and prints its sums.
pub(crate) fn sums(args: &TreeArgs) -> io::Result<()> {
    let files = read_tree(&args.dir)?;
    let bytes = files.values().map(|s| s.len).sum();
    say(&TreeLine::Sums { files, bytes })
}

fn read_tree(root: &Path) -> io::Result<BTreeMap<String, Sum>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // not made yet
            other => failed(&dir, "readdir", other)?,
        };
        for entry in entries {
            let entry = failed(&dir, "readdir", entry)?;
            let path = entry.path();
            if failed(&path, "file_type", entry.file_type())?.is_dir() {
                dirs.push(path);
            } else if !entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                let sum = failed(&path, "read", read_one(&path))?;
                files.insert(path.strip_prefix(root).unwrap_or(&path).display().to_string(), sum);
            }
        }
    }
    Ok(files)
}

fn read_one(path: &Path) -> io::Result<Sum> {
    let mut data = Vec::new();
    File::open(path)?.read_to_end(&mut data)?;
    Ok(Sum { len: data.len() as u64, crc32c: crc32c::crc32c(&data) })
}

/// Says a failure before passing it on: the demo counts it even if this process then ends.
fn failed<T>(path: &Path, call: &str, result: io::Result<T>) -> io::Result<T> {
    if let Err(e) = &result {
        say(&TreeLine::Failed { path: path.display().to_string(), call: call.into(), error: e.to_string() })?;
    }
    result
}

fn say(line: &TreeLine) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}
