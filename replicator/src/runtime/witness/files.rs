//! The votes' files: made once, read at a start, written aside and put in place.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::WitnessError;
use crate::meta::vote::Ledger;

/// How a vote's file ends.
const ENDING: &str = "vote";

/// A vote on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteFile {
    /// What people call the resource: the file's name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub ledger: Ledger,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> WitnessError {
    let path = path.to_owned();
    move |e| WitnessError::File { path, why: e.to_string() }
}

/// Makes a vote that has granted nothing; the identity is drawn here.
///
/// # Errors
/// There is one of this name; a folder that cannot be written.
pub fn create(folder: &Path, name: &str, new: &Ledger) -> Result<Ledger, WitnessError> {
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let path = folder.join(format!("{name}.{ENDING}"));
    let ledger = Ledger { identity: crate::runtime::local::random(), ..*new };
    if path.exists() {
        return Err(WitnessError::File { path, why: "there is one already".to_owned() });
    }
    save(&path, &ledger).map_err(failed(&path))?;
    Ok(ledger)
}

/// Every vote of a folder, by name.
///
/// # Errors
/// A folder or file that cannot be read; a file that is no vote.
pub fn scan(folder: &Path) -> Result<Vec<VoteFile>, WitnessError> {
    scan_without(folder, &[])
}

/// Those that are not known yet.
pub(super) fn scan_without(folder: &Path, known: &[PathBuf]) -> Result<Vec<VoteFile>, WitnessError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let vote = path.extension().is_some_and(|e| e == ENDING) && !known.contains(&path);
        let Some(name) = path.file_stem().and_then(|s| s.to_str()).filter(|_| vote) else { continue };
        let bytes = fs::read(&path).map_err(failed(&path))?;
        let ledger =
            Ledger::decode(&bytes).map_err(|e| WitnessError::File { path: path.clone(), why: e.to_string() })?;
        found.push(VoteFile { name: name.to_owned(), path: path.clone(), ledger });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Writes a vote: it is there whole and stable when this returns, or the former one still is.
pub(super) fn save(path: &Path, ledger: &Ledger) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(&ledger.encode())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

/// Locks a folder for as long as the file is open.
pub(super) fn lock(folder: &Path) -> Result<File, WitnessError> {
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WitnessError::InUse(folder.to_owned())),
        Err(TryLockError::Error(e)) => Err(failed(&path)(e)),
    }
}
