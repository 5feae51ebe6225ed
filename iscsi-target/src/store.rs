//! Where reservations are kept that are to survive a loss of power (APTPL): a file for each unit.
//!
//! It is replaced as a whole: a new file is written and made stable, takes the old one's name, and the folder is made
//! stable. So there is the old state or the new one, whenever the power goes. A file that cannot be read, or is damaged,
//! stops the target from serving the unit: going on without what was fenced would let a fenced node write.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::core::reserve::Reservations;
use crate::core::reserve::file::{from_bytes, to_bytes};

/// Why reservations cannot be kept, or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused.
    #[error("the reservations in {path} cannot be {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Read or written.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("the reservations in {path} cannot be used: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The place of one unit's reservations.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    /// Of a unit of a target, in a folder, which is made if it is not there.
    pub(crate) fn new(folder: &Path, target: &str, lun: u64) -> Result<Store, StoreError> {
        // Names of targets have no slash (RFC 7143 4.2.7.2), but this one may be anybody's text.
        let name: String =
            target.chars().map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' }).collect();
        let path = folder.join(format!("{name}.lun-{lun}.reservations"));
        let failed = |source| StoreError::Io { path: path.clone(), what: "kept", source };
        fs::create_dir_all(folder).map_err(failed)?;
        Ok(Store { path })
    }

    /// What is stored; nothing registered if there is no file.
    pub(crate) fn load(&self) -> Result<Reservations, StoreError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Reservations::default()),
            Err(source) => return Err(StoreError::Io { path: self.path.clone(), what: "read", source }),
        };
        from_bytes(&bytes).map_err(|e| StoreError::Damaged { path: self.path.clone(), why: e.to_string() })
    }

    /// Stores a state, or, if it is not to survive, that there is none. Returns when it is stable.
    pub(crate) fn save(&self, state: &Reservations) -> Result<(), StoreError> {
        let kept = if state.persist { self.replace(&to_bytes(state)) } else { self.remove() };
        kept.map_err(|source| StoreError::Io { path: self.path.clone(), what: "written", source })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.sync_folder()
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::name::NexusName;
    use scsi::ReservationKey;
    use scsi::reservations::Isid;

    fn state(persist: bool) -> Reservations {
        let name = NexusName { initiator: "iqn.2026-01.test:a".into(), isid: Isid([0x80, 0, 0, 0, 0, 1]), port: 1 };
        Reservations { registered: [(name, ReservationKey(7))].into(), persist, ..Reservations::default() }
    }

    #[test]
    fn reservations_are_kept_replaced_and_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(&folder.path().join("deeper"), "iqn.2026-01.test:t/1", 3).expect("a place");
        assert_eq!(store.load().expect("nothing there"), Reservations::default());
        store.save(&state(true)).expect("written");
        assert_eq!(store.load().expect("read"), state(true));
        store.save(&state(false)).expect("removed");
        assert_eq!(store.load().expect("nothing there"), Reservations::default());
        let left = fs::read_dir(folder.path().join("deeper")).expect("there").count();
        assert_eq!(left, 0, "nothing is left behind");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_empty_state() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path(), "iqn.2026-01.test:t", 0).expect("a place");
        store.save(&state(true)).expect("written");
        let mut bytes = fs::read(&store.path).expect("there");
        bytes[40] ^= 1;
        fs::write(&store.path, bytes).expect("written");
        assert!(matches!(store.load(), Err(StoreError::Damaged { .. })));
    }

    /// A crash between any two steps leaves the old state or the new one.
    #[test]
    fn a_half_written_new_file_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path(), "iqn.2026-01.test:t", 0).expect("a place");
        store.save(&state(true)).expect("written");
        fs::write(store.path.with_extension("new"), b"shorefast-reserv").expect("written");
        assert_eq!(store.load().expect("the old one"), state(true));
        store.save(&state(true)).expect("written over it");
    }
}
