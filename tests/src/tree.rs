//! The files of the workspace, as tests look at them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::code::Code;

/// The folders that are crates.
pub const CRATES: [&str; 13] = [
    "scsi",
    "block",
    "net",
    "fuse",
    "iscsi",
    "iscsi-initiator",
    "iscsi-target",
    "csv-fs",
    "replicator",
    "history",
    "shorefast",
    "benches",
    "tests",
];

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A file of the tree.
pub struct File {
    /// Its path below the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl File {
    /// The crate folder it lies in.
    pub fn crate_folder(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Whether all of it is test code by its place.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/") || self.path.starts_with("tests/")
    }

    /// Its text as Rust, comments and literals told apart from code.
    pub fn code(&self) -> Code {
        Code::read(&self.text)
    }
}

/// Every Rust file of every crate, in path order.
pub fn rust_files() -> Vec<File> {
    CRATES.iter().flat_map(|c| files_below(c, &["rs"])).collect()
}

/// Every text file that belongs to the project, in path order.
pub fn text_files() -> Vec<File> {
    let kinds = ["rs", "toml", "md", "sh", "yml", "html", "service"];
    let mut files: Vec<File> = CRATES.iter().chain(&["docs"]).flat_map(|c| files_below(c, &kinds)).collect();
    let Ok(entries) = fs::read_dir(root()) else { return files };
    for entry in entries.filter_map(Result::ok).filter(|e| e.path().is_file()) {
        let path = entry.file_name().to_string_lossy().into_owned();
        // In a git worktree `.git` is a file, and git's, not the project's.
        if path != "Cargo.lock" && path != ".git" && !path.starts_with("LICENSE") {
            files.extend(read(path));
        }
    }
    files.extend(read(".ci/run".to_owned()));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The files below a folder with one of these endings, in path order.
pub fn files_below(folder: &str, endings: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root().join(&folder)) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{folder}/{name}");
            if entry.path().is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.rsplit_once('.').is_some_and(|(_, ending)| endings.contains(&ending)) {
                found.extend(read(path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// One file; none if it is not there or not text.
pub fn read(path: String) -> Option<File> {
    let text = fs::read_to_string(root().join(&path)).ok()?;
    Some(File { path, text })
}
