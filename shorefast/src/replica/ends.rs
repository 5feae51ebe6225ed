//! By which ends of its disk a replica's metadata may be found: they lie behind the data, and the disk can grow before they move. A file
//! beside the record, one number of bytes a line: where they were when it was opened, and where they were about to be moved since.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::exit::Failure;

/// Reads it. No file: nothing is known, the disk has not grown yet.
pub(super) fn load(path: &Path) -> Result<Vec<u64>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(Failure::failed(format!("{} cannot be read: {e}.", path.display()), "See who may read it."));
        }
    };
    let numbers: Result<Vec<u64>, _> = text.lines().map(str::parse).collect();
    numbers.map_err(|_| {
        Failure::failed(
            format!("{} holds no numbers of bytes.", path.display()),
            "Write into it how long the disk was when the replica was last made or resized.",
        )
    })
}

/// Writes it, whole or not at all.
pub(super) fn save(path: &Path, ends: &[u64]) -> io::Result<()> {
    let mut text = String::new();
    ends.iter().for_each(|end| text += &format!("{end}\n"));
    if fs::read_to_string(path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    let aside = path.with_extension("disk-ends-new");
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// It cannot be written.
pub(super) fn not_written(path: &Path, e: &io::Error) -> Failure {
    Failure::failed(format!("{} cannot be written: {e}.", path.display()), "See who may write there.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_come_back_and_none_are_known_without_a_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("r0.disk-ends");
        assert_eq!(load(&path), Ok(Vec::new()));
        save(&path, &[4096, 8192]).expect("written");
        assert_eq!(load(&path), Ok(vec![4096, 8192]));
        save(&path, &[8192]).expect("written");
        assert_eq!(load(&path), Ok(vec![8192]));
        fs::write(&path, "many").expect("written");
        assert!(load(&path).is_err());
    }
}
