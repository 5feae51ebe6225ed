//! The same calls on the volume and on a local ext4: whatever they answer must be the same.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use crate::fixture::within;
use crate::shared::{Folder, PAIRS};

/// `EXT4_SUPER_MAGIC`.
const EXT4: u64 = 0xef53;

/// What calls answered, in order.
#[derive(Default)]
pub(crate) struct Said(Vec<String>);

impl Said {
    /// Writes down what something answered.
    pub(crate) fn note(&mut self, what: impl AsRef<str>, answer: impl Debug) {
        self.0.push(format!("{}: {answer:?}", what.as_ref()));
    }
}

/// Calls to be made: two views of one folder that is empty, and where to write the answers down.
pub(crate) type Calls = fn(&Path, &Path, &mut Said);

fn run(what: &str, here: PathBuf, there: PathBuf, calls: Calls) -> Vec<String> {
    within(what, move || {
        let mut said = Said::default();
        calls(&here, &there, &mut said);
        said.0
    })
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
