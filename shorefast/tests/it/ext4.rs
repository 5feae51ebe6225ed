//! The same calls on the volume and on a local ext4: whatever they answer must be the same.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fixture::{PATIENCE, background};
use crate::shared::{Folder, PAIRS};

/// `EXT4_SUPER_MAGIC`.
const EXT4: u64 = 0xef53;

/// What calls answered, in order. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    /// Writes down what something answered.
    pub(crate) fn note(&mut self, what: impl AsRef<str>, answer: impl Debug) {
        self.with(|said| said.push(format!("{}: {answer:?}", what.as_ref())));
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<String>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Calls to be made: two views of one folder that is empty, and where to write the answers down.
pub(crate) type Calls = fn(&Path, &Path, &mut Said);

/// Makes the calls. Some are of hundreds of processes: each may take its time, and one that hangs is named.
fn run(what: &str, here: PathBuf, there: PathBuf, calls: Calls) -> Vec<String> {
    let said = Said::default();
    let mut written = said.clone();
    let calling = background(move || calls(&here, &there, &mut written));
    let (mut answers, mut since) = (0, Instant::now());
    while !calling.is_done() {
        let now = said.with(|said| said.len());
        if now != answers {
            (answers, since) = (now, Instant::now());
        }
        let last = || said.with(|said| said.last().cloned());
        assert!(since.elapsed() < PATIENCE, "{what}: the call after {:?} hangs", last());
        std::thread::sleep(Duration::from_millis(20));
    }
    calling.ended(what);
    said.with(std::mem::take)
}

/// Makes the calls through each pair of nodes, and on an ext4. Where the tree lies on another file system, only the
/// pairs are compared with one another, and that is said.
pub(crate) fn answers_as_ext4(name: &str, calls: Calls) {
    let Some(folder) = Folder::new(name) else { return };
    let local = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let is_ext4 = rustix::fs::statfs(local.path()).is_ok_and(|s| u64::try_from(s.f_type) == Ok(EXT4));
    let mut expected = None;
    if is_ext4 {
        fs::create_dir(local.path().join("d")).expect("a folder");
        let dir = local.path().join("d");
        expected = Some(run("ext4", dir.clone(), dir, calls));
    } else {
        println!("not compared with ext4: the target folder lies on another file system");
    }
    for (here, there) in PAIRS {
        let sub = format!("{here}-{there}");
        folder.through(1, {
            let sub = sub.clone();
            move |dir| fs::create_dir(dir.join(sub)).expect("a folder")
        });
        let (at, seen) = (folder.path(here).join(&sub), folder.path(there).join(&sub));
        let got = run(&format!("nodes {sub}"), at, seen, calls);
        let expected = expected.get_or_insert_with(|| got.clone());
        for (expected, got) in expected.iter().zip(&got) {
            assert_eq!(got, expected, "through the nodes {sub} (left) and on ext4");
        }
        assert_eq!(got.len(), expected.len());
    }
}
