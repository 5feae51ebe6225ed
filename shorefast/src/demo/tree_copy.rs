//! The demo's real files, seen from outside: one child copies the tree in through one node while others list and read
//! it through theirs; then one child a node tells the sums of what it finds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::interrupt::Interrupt;
use super::task::{Spawner, Task};
use super::timeline::Timeline;
use super::tree::{MIN_FILES, Sum, TreeLine};
use crate::api::Node;
use crate::exit::Failure;

/// Where real files come from: every Debian machine has it.
const SOURCE: &str = "/usr/share";
/// The tree's folder in the volume.
const TREE: &str = "tree";
/// A slow machine copies 560 small files in a few seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Sums by path.
pub(crate) type Sums = BTreeMap<String, Sum>;

/// What the copy found.
pub(crate) struct Copied {
    /// What was copied.
    pub(crate) sums: Sums,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// Bytes that the others read meanwhile.
    pub(crate) read_meanwhile: u64,
    /// Calls that failed, in words, with their node.
    pub(crate) failed: Vec<(Node, String)>,
}

/// Copies through the first node; the others list and read meanwhile.
pub(crate) fn copy(
    spawner: &Spawner,
    mounts: &[(Node, PathBuf)],
    interrupt: &Interrupt,
    timeline: &Timeline,
) -> Result<Copied, Failure> {
    let Some(((writer, mount), readers)) = mounts.split_first() else {
        return Err(Failure::failed("The demo has no nodes.", "That is a defect."));
    };
    let mut found = Copied { sums: Sums::new(), bytes: 0, read_meanwhile: 0, failed: Vec::new() };
    let mut followers = Vec::new();
    for (node, mount) in readers {
        followers.push((*node, spawner.start("demo-follow", dir_arg("--dir", mount))?, 0));
    }
    let from = [OsString::from("--from"), SOURCE.into()];
    let mut copier = spawner.start("demo-copy", from.into_iter().chain(dir_arg("--to", mount)))?;
    copier.finish(LIMIT, interrupt, |line| match serde_json::from_str(line) {
        Ok(TreeLine::Sums { files, bytes }) => (found.sums, found.bytes) = (files, bytes),
        Ok(TreeLine::Failed { path, call, error }) => found.failed.push((*writer, format!("{call} {path}: {error}"))),
        Ok(TreeLine::Progress { .. }) | Err(_) => (),
    })?;
    for (node, task, read) in &mut followers {
        finish_follower(*node, task, read, &mut found.failed, interrupt)?;
        found.read_meanwhile += *read;
    }
    timeline.say(&format!(
        "{} files, {}, copied in; the others read {} of it meanwhile",
        found.sums.len(),
        crate::render::bytes(found.bytes),
        crate::render::bytes(found.read_meanwhile)
    ));
    Ok(found)
}

fn finish_follower(
    node: Node,
    task: &mut Task,
    read: &mut u64,
    failed: &mut Vec<(Node, String)>,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    task.finish(LIMIT, interrupt, |line| match serde_json::from_str(line) {
        Ok(TreeLine::Progress { bytes, .. }) => *read = bytes,
        Ok(TreeLine::Failed { path, call, error }) => failed.push((node, format!("{call} {path}: {error}"))),
        Ok(TreeLine::Sums { .. }) | Err(_) => (),
    })
}

/// What each node finds there now, compared with what was copied: the differences, in words, and the bytes read.
pub(crate) fn compare(
    spawner: &Spawner,
    mounts: &[(Node, PathBuf)],
    expected: &Sums,
    interrupt: &Interrupt,
) -> Result<(Vec<String>, u64), Failure> {
    let (mut wrong, mut read) = (Vec::new(), 0);
    if expected.len() < MIN_FILES {
        wrong.push(format!("only {} files were copied, {MIN_FILES} are needed", expected.len()));
    }
    let mut tasks = Vec::new();
    for (node, mount) in mounts {
        tasks.push((*node, spawner.start("demo-sums", dir_arg("--dir", mount))?));
    }
    for (node, task) in &mut tasks {
        let mut found = None;
        task.finish(LIMIT, interrupt, |line| match serde_json::from_str(line) {
            Ok(TreeLine::Sums { files, bytes }) => {
                found = Some(files);
                read += bytes;
            }
            Ok(TreeLine::Failed { path, call, error }) => wrong.push(format!("{node}: {call} {path}: {error}")),
            Ok(TreeLine::Progress { .. }) | Err(_) => (),
        })?;
        wrong.extend(found.map_or_else(|| Some(format!("{node} told no sums")), |f| difference(*node, &f, expected)));
    }
    Ok((wrong, read))
}

/// The first difference between what a node has and what it should have.
fn difference(node: Node, found: &Sums, expected: &Sums) -> Option<String> {
    let lost = expected.iter().find(|(path, sum)| found.get(*path) != Some(*sum));
    if let Some((path, sum)) = lost {
        return Some(format!("{node}: {path} should be {sum:?} and is {:?}", found.get(path)));
    }
    found.keys().find(|path| !expected.contains_key(*path)).map(|path| format!("{node}: {path} was never copied"))
}

fn dir_arg(name: &str, mount: &Path) -> [OsString; 2] {
    [name.into(), mount.join(TREE).into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_a_changed_and_an_invented_file_are_each_a_difference() {
        let sums = |list: &[(&str, u32)]| -> Sums {
            list.iter().map(|(p, c)| ((*p).to_owned(), Sum { len: 1, crc32c: *c })).collect()
        };
        let (node, expected) = (Node::new(2).expect("a node"), sums(&[("a", 1), ("b", 2)]));
        assert_eq!(difference(node, &expected, &expected), None);
        for (found, word) in
            [(sums(&[("a", 1)]), "b"), (sums(&[("a", 1), ("b", 9)]), "b"), (sums(&[("a", 1), ("b", 2), ("c", 3)]), "c")]
        {
            assert!(difference(node, &found, &expected).is_some_and(|said| said.contains(word)));
        }
    }
}
