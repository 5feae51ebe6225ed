//! The folder a demo lives in, and its record `demo.json`: what runs there, so that it can be ended by anybody later.
//!
//! The folder is only removed when no mount is left below it: removing through a mount would remove a volume's files.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::mounts;
use super::paste;
use super::process::Identity;
use crate::api::Node;
use crate::exit::{Exit, Failure};

/// A daemon may take this long to give back what it holds.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// A killed process ends when its last request in the kernel does.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// A path of a Unix socket has at most 107 bytes; the longest below the folder is `/node-3/api.sock.new`.
const DIR_MAX: usize = 80;

const RECORD: &str = "demo.json";

/// What runs in a demo's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The daemons.
    pub(crate) nodes: Vec<RecordedNode>,
    /// The disk array that they need: ended after them.
    #[serde(default)]
    pub(crate) array: Option<Identity>,
    /// Network namespaces that were made for them.
    #[serde(default)]
    pub(crate) spaces: Vec<String>,
}

/// A daemon of a demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedNode {
    /// Its node.
    pub(crate) node: Node,
    /// Its process.
    pub(crate) process: Identity,
    /// Where it mounts the volume.
    pub(crate) mount: PathBuf,
    /// Its API socket.
    pub(crate) socket: PathBuf,
}

/// Makes the demo's folder: new, empty, its owner's only.
pub(crate) fn make(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let dir = match wanted {
        Some(dir) => std::path::absolute(dir).map_err(|e| cannot(dir, &e))?,
        None => std::env::temp_dir().join(format!("shorefast-demo-{}", std::process::id())),
    };
    if dir.as_os_str().len() > DIR_MAX {
        return Err(Failure::usage(
            format!("{} is too long a path: sockets below it could not be opened.", dir.display()),
            format!("Name a folder of at most {DIR_MAX} bytes with --dir, or set TMPDIR."),
        ));
    }
    let empty = fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_none());
    if !empty {
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|e| cannot(&dir, &e))?;
    }
    Ok(dir)
}

fn cannot(dir: &Path, e: &io::Error) -> Failure {
    let next = match e.kind() {
        io::ErrorKind::AlreadyExists => {
            let stop = paste::command(&["demo", "--stop", &dir.display().to_string()]);
            format!("It is not empty: name another with --dir; an old demo there ends with `{stop}`.")
        }
        _ => "Name another folder with --dir.".to_owned(),
    };
    Failure::new(Exit::Refused, format!("The demo cannot have the folder {}: {e}.", dir.display()), next)
}

/// Writes the record; it is complete or the one before.
pub(crate) fn write(dir: &Path, record: &Record) -> io::Result<()> {
    let fresh = dir.join(format!("{RECORD}.new"));
    fs::write(&fresh, serde_json::to_vec_pretty(record)?)?;
    fs::rename(fresh, dir.join(RECORD))
}

/// `demo --stop DIR`.
pub(crate) fn stop(dir: &Path) -> Result<(), Failure> {
    let dir = std::path::absolute(dir).map_err(|e| cannot(dir, &e))?;
    let shown = dir.display();
    let text = fs::read(dir.join(RECORD)).map_err(|e| {
        Failure::new(
            Exit::NotFound,
            format!("There is no demo in {shown}: {e}."),
            "Name the folder that `shorefast demo --keep` printed.",
        )
    })?;
    let record: Record = serde_json::from_slice(&text).map_err(|e| {
        Failure::failed(
            format!("{shown}/{RECORD} is not a demo's record: {e}."),
            "End its daemons by hand, then remove the folder.",
        )
    })?;
    end(record.nodes.iter().map(|n| n.process));
    end(record.array.into_iter());
    record.spaces.iter().for_each(|space| super::san::networks::remove(space));
    clean(&dir)
}

/// Ends processes: asks all, waits, then kills; returns when all have ended or the last bound is over.
pub(crate) fn end(processes: impl Iterator<Item = Identity>) {
    let processes: Vec<Identity> = processes.collect();
    for (signal, limit) in [(Signal::TERM, STOP_LIMIT), (Signal::KILL, KILL_LIMIT)] {
        for process in &processes {
            // One that cannot be signalled is waited for and then seen in `clean`.
            let _ = process.signal(signal);
        }
        let deadline = std::time::Instant::now() + limit;
        let all_ended =
            processes.iter().all(|p| p.ended_within(deadline.saturating_duration_since(std::time::Instant::now())));
        if all_ended {
            return;
        }
    }
}

/// Takes away mounts and folder.
pub(crate) fn clean(dir: &Path) -> Result<(), Failure> {
    let left = mounts::detach_below(dir);
    if let Some(first) = left.first() {
        return Err(Failure::failed(
            format!("{} is still mounted, so {} stays.", first.display(), dir.display()),
            format!("Run `fusermount3 -u -z {}`, then remove the folder.", first.display()),
        ));
    }
    fs::remove_dir_all(dir).map_err(|e| {
        let left = first_file(dir).map_or_else(String::new, |file| format!(" There is {}.", file.display()));
        Failure::failed(
            format!("{} cannot be removed: {e}.{left}", dir.display()),
            "Remove it by hand; nothing runs there any more.",
        )
    })
}

/// The first that is found below a folder and is none itself.
fn first_file(dir: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).ok()?.map_while(Result::ok);
    entries.find_map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { first_file(&e.path()) } else { Some(e.path()) })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn stopping_ends_the_recorded_processes_and_removes_the_folder() {
        let outer = tempfile::tempdir().expect("a folder");
        let dir = make(Some(&outer.path().join("demo"))).expect("makes");
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep runs");
        let process = Identity::of(child.id()).expect("lives");
        let node =
            RecordedNode { node: Node::new(1).expect("a node"), process, mount: dir.join("m"), socket: dir.join("s") };
        write(&dir, &Record { nodes: vec![node], array: None, spaces: Vec::new() }).expect("writes");
        stop(&dir).expect("stops");
        assert!(!process.lives() && !dir.exists());
        child.wait().expect("was ours");
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let outer = tempfile::tempdir().expect("a folder");
        fs::write(outer.path().join("precious"), "x").expect("writes");
        assert_eq!(make(Some(outer.path())).expect_err("refused").kind, Exit::Refused);
        assert_eq!(stop(outer.path()).expect_err("no demo").kind, Exit::NotFound);
        assert!(outer.path().join("precious").exists());
    }

    #[test]
    fn a_folder_too_deep_for_sockets_is_refused() {
        let deep = Path::new("/tmp").join("x".repeat(90));
        assert_eq!(make(Some(&deep)).expect_err("refused").kind, Exit::Usage);
    }
}
