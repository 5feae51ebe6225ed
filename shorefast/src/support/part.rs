//! `support-part`: makes one part and prints it. A process of its own, so that what hangs here hangs nobody else.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use block::buf::AlignedBuf;
use block::units::ByteOffset;
use csv_fs::format::describe;
use rustix::fs::OFlags;

use crate::cli::SupportPart;
use crate::exit::Failure;

/// Stands before each file of a folder, then its name. A comment in TOML.
pub(crate) const FILE_HEAD: &str = "#### file ";

/// What the kernel says of the machine.
const SYSTEM_FILES: &[&str] = &[
    "/proc/version",
    "/proc/cmdline",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/meminfo",
    "/proc/vmstat",
    "/proc/sys/fs/file-nr",
    "/proc/sys/kernel/io_uring_disabled",
    "/proc/self/limits",
    "/proc/self/mountinfo",
    "/proc/partitions",
    "/proc/diskstats",
    "/proc/net/dev",
    "/proc/net/tcp",
    "/etc/os-release",
];

/// What the kernel says of a process; and of each of its threads.
const PROCESS_FILES: &[&str] = &["cmdline", "status", "limits", "io", "cgroup", "oom_score_adj"];
const THREAD_FILES: &[&str] = &["comm", "wchan", "syscall", "stack"];

/// Prints a part.
pub(crate) fn run(part: &SupportPart) -> Result<(), Failure> {
    // Nobody is left to take what is printed. Where that cannot be set, the broken pipe ends it once it prints.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    match part {
        SupportPart::Folder { path } => folder(path),
        SupportPart::File { path, last } => file(path, *last),
        SupportPart::System => system(),
        SupportPart::Daemon { socket } => daemon(socket),
        SupportPart::Disk { url } => disk(url),
    }
}

fn cannot(what: &Path, e: &io::Error) -> Failure {
    Failure::failed(format!("{} cannot be read: {e}.", what.display()), "See whether it is there.")
}

fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::failed(format!("Nobody takes what is printed: {e}."), "Nothing."))
}

/// All TOML files of a folder, each with its name; of others the name.
fn folder(path: &Path) -> Result<(), Failure> {
    let mut entries: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return say(&format!("# There is no {}.\n", path.display())),
        Err(e) => return Err(cannot(path, &e)),
    };
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.extension().is_none_or(|e| e != "toml") {
            say(&format!("# also there: {name}\n"))?;
            continue;
        }
        let text = fs::read_to_string(&entry).unwrap_or_else(|e| format!("# cannot be read: {e}\n"));
        say(&format!("{FILE_HEAD}{name}\n{text}\n"))?;
    }
    Ok(())
}

/// A file, or its end.
fn file(path: &Path, last: Option<u64>) -> Result<(), Failure> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        if let Some(last) = last.filter(|last| *last < len) {
            file.seek(SeekFrom::Start(len - last))?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    say(&String::from_utf8_lossy(&read().map_err(|e| cannot(path, &e))?))
}

fn system() -> Result<(), Failure> {
    say(&format!("shorefast {}\n", env!("CARGO_PKG_VERSION")))?;
    for path in SYSTEM_FILES {
        say(&of_kernel(Path::new(path)))?;
    }
    Ok(())
}

/// One of the kernel's own files. What it does not have it does not have.
fn of_kernel(path: &Path) -> String {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).replace('\0', " "),
        Err(e) => format!("cannot be read: {e}"),
    };
    format!("== {}\n{}\n", path.display(), text.trim_end())
}

/// The process behind a socket: the kernel knows it, also if it is stopped and answers nobody.
fn daemon(socket: &Path) -> Result<(), Failure> {
    let stream = UnixStream::connect(socket).map_err(|e| {
        Failure::failed(format!("Nobody is behind {}: {e}.", socket.display()), "See whether the daemon runs.")
    })?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|e| cannot(socket, &e.into()))?;
    let dir = PathBuf::from(format!("/proc/{}", peer.pid.as_raw_nonzero()));
    say(&format!("the daemon behind {} is process {}\n", socket.display(), peer.pid.as_raw_nonzero()))?;
    for name in PROCESS_FILES {
        say(&of_kernel(&dir.join(name)))?;
    }
    let open = fs::read_dir(dir.join("fd")).map_or_else(|e| e.to_string(), |all| all.count().to_string());
    say(&format!("== open files\n{open}\n"))?;
    let tasks = fs::read_dir(dir.join("task")).map_err(|e| cannot(&dir, &e))?;
    for task in tasks.flatten() {
        for name in THREAD_FILES {
            say(&of_kernel(&task.path().join(name)))?;
        }
    }
    Ok(())
}

/// What lies on a disk outside the metadata. Past the page cache, where that can be: other hosts write, too.
fn disk(url: &str) -> Result<(), Failure> {
    let path = Path::new(url.strip_prefix("file:").unwrap_or(url));
    let direct = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
    let disk = direct.or_else(|_| File::open(path)).map_err(|e| cannot(path, &e))?;
    let mut text = format!("disk {}\n", path.display());
    if let Ok(len) = (&disk).seek(SeekFrom::End(0)) {
        let _ = writeln!(text, "{len} bytes");
    }
    say(&text)?;
    say(&describe(&mut |at: ByteOffset, len| {
        let mut buf = AlignedBuf::zeroed(len);
        disk.read_exact_at(&mut buf, at.0).map_err(|e| e.to_string())?;
        Ok(buf.to_vec())
    }))
}
