//! What a node remembers of volumes: one TOML file each, `STATE/volumes/UUID.toml`, the same on every node.
//!
//! Nodes tell each other their records when they connect and at each change; the higher version wins, so a node
//! that was down learns what it missed, and a deleted volume stays deleted (its record is kept, marked).
//! A file appears whole or not at all (written aside, flushed, renamed). One that cannot be read is left where it is
//! and named in the error: nothing is guessed.
//!
//! That a volume was unmounted on this node on request is this node's own business: an empty file beside the record,
//! `UUID.unmounted`, told to nobody. Prevents: a restart mounts what somebody had unmounted.
//!
//! A volume that is being made here is told to nobody until its maker says so. Prevents: the connection to another node
//! comes up meanwhile, the exchange that belongs to that tells the new volume, and the other node takes its first office.
//!
//! What changes them has its turn ([`Saving`](super::saving::Saving)) and may wait for the disk; what looks at them does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::saving::Turn;
use crate::exit::Failure;

/// Ends the name of the empty file that says that a volume was unmounted here.
const UNMOUNTED: &str = "unmounted";
/// No record is longer.
const PROBE: usize = 8192;

/// A volume as all nodes know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Its identity, as the superblock has it.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// Where its disk is: one path of a file or device, or a unit's URL for each of its portals, without secrets.
    pub(super) disks: Vec<String>,
    /// Whether it is to be mounted.
    pub(super) wanted: bool,
    /// Raised by each change.
    pub(super) version: u64,
    /// It exists no more.
    pub(super) deleted: bool,
}

/// All records of a node.
#[derive(Debug)]
pub(super) struct Records {
    dir: PathBuf,
    /// Locked for moments, never while the disk is written.
    known: Mutex<Known>,
}

/// What is in memory.
#[derive(Debug)]
struct Known {
    by_id: BTreeMap<String, Record>,
    /// Volumes that are being made here. Forgotten by a restart: whoever made them does not wait any more.
    untold: BTreeSet<String>,
    /// Volumes that were unmounted here on request.
    unmounted: BTreeSet<String>,
}

impl Records {
    /// Reads what the node remembers.
    pub(super) fn load(state_dir: &Path) -> Result<Records, Failure> {
        let dir = state_dir.join("volumes");
        let said = |e: io::Error| {
            Failure::failed(
                format!("{} cannot be used: {e}.", dir.display()),
                "Make it writable, or set another `state_dir`.",
            )
        };
        fs::create_dir_all(&dir).map_err(said)?;
        let (mut by_id, mut unmounted) = (BTreeMap::new(), BTreeSet::new());
        for entry in fs::read_dir(&dir).map_err(said)? {
            let path = entry.map_err(said)?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                let record = read(&path)?;
                by_id.insert(record.id.clone(), record);
            } else if path.extension().is_some_and(|e| e == UNMOUNTED)
                && let Some(id) = path.file_stem().and_then(OsStr::to_str)
            {
                unmounted.insert(id.to_owned());
            }
        }
        Ok(Records { dir, known: Mutex::new(Known { by_id, untold: BTreeSet::new(), unmounted }) })
    }

    /// Every volume that exists.
    pub(super) fn live(&self) -> Vec<Record> {
        self.known.lock().live().cloned().collect()
    }

    /// Whether there is a record of that volume, also of one that is deleted.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.known.lock().by_id.contains_key(id)
    }

    /// Every record that others may be told.
    pub(super) fn to_tell(&self) -> Vec<Record> {
        let known = self.known.lock();
        known.by_id.values().filter(|r| !known.untold.contains(&r.id)).cloned().collect()
    }

    /// A volume that exists, by name.
    pub(super) fn named(&self, name: &str) -> Option<Record> {
        self.known.lock().live().find(|r| r.name == name).cloned()
    }

    /// Fails unless a record could be written now: before something is done that is to be remembered.
    pub(super) fn writable(&self, _: &Turn) -> Result<(), Failure> {
        let probe = self.dir.join("probe.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&probe)?;
            file.write_all(&[b'#'; PROBE])?;
            file.sync_all()
        };
        let written = write();
        let removed = fs::remove_file(&probe);
        written.and(removed).map_err(|e| {
            Failure::failed(
                format!("Nothing can be remembered below {}: {e}.", self.dir.display()),
                "Nothing was done. Free space or mend the permissions there, then repeat the command.",
            )
        })
    }

    /// Whether a record is newer than what is known.
    pub(super) fn is_news(&self, record: &Record) -> bool {
        self.known.lock().by_id.get(&record.id).is_none_or(|known| known.version < record.version)
    }

    /// Takes a record if it is newer than what is known; tells whether it was.
    pub(super) fn take(&self, _: &Turn, record: Record) -> Result<bool, Failure> {
        if !self.is_news(&record) {
            return Ok(false);
        }
        write(&self.dir, &record).map_err(|e| {
            Failure::failed(
                format!("The record of volume {} cannot be written below {}: {e}.", record.name, self.dir.display()),
                "Free space or mend the permissions there, then repeat the command.",
            )
        })?;
        self.known.lock().by_id.insert(record.id.clone(), record);
        Ok(true)
    }

    /// Takes the record of a volume that is being made here; others are told after [`Records::may_be_told`].
    pub(super) fn take_untold(&self, turn: &Turn, record: Record) -> Result<(), Failure> {
        let id = record.id.clone();
        self.known.lock().untold.insert(id.clone());
        let taken = self.take(turn, record).map(drop);
        if taken.is_err() {
            self.may_be_told(&id);
        }
        taken
    }

    /// Whether a volume was unmounted on this node on request, in this life of its daemon or before.
    pub(super) fn is_unmounted(&self, id: &str) -> bool {
        self.known.lock().unmounted.contains(id)
    }

    /// Remembers that a volume was unmounted on this node on request, or mounted again.
    pub(super) fn unmounted(&self, _: &Turn, id: &str, unmounted: bool) -> Result<(), Failure> {
        if self.is_unmounted(id) == unmounted {
            return Ok(());
        }
        let mark = self.dir.join(format!("{id}.{UNMOUNTED}"));
        let marked = if unmounted { File::create(&mark).map(drop) } else { fs::remove_file(&mark) };
        marked.and_then(|()| File::open(&self.dir)?.sync_all()).map_err(|e| {
            let after = if unmounted { "mounted" } else { "unmounted" };
            Failure::failed(
                format!(
                    "{} cannot be changed, so the volume would be {after} again after a restart: {e}.",
                    mark.display()
                ),
                "Mend that folder, then repeat the command.",
            )
        })?;
        let mut known = self.known.lock();
        if unmounted {
            known.unmounted.insert(id.to_owned());
        } else {
            known.unmounted.remove(id);
        }
        Ok(())
    }

    /// From now on this volume is told.
    pub(super) fn may_be_told(&self, id: &str) {
        self.known.lock().untold.remove(id);
    }
}

impl Known {
    fn live(&self) -> impl Iterator<Item = &Record> {
        self.by_id.values().filter(|r| !r.deleted)
    }
}

fn read(path: &Path) -> Result<Record, Failure> {
    let refuse = |said: String| {
        Failure::failed(
            format!("{}: {said}.", path.display()),
            "Mend the file, or move it away: another node that knows the volume tells it again.",
        )
    };
    let text = fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
    toml::from_str(&text).map_err(|e| refuse(e.message().to_owned()))
}

fn write(dir: &Path, record: &Record) -> io::Result<()> {
    let text = toml::to_string(record).map_err(io::Error::other)?;
    let aside = dir.join(format!("{}.new", record.id));
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, dir.join(format!("{}.toml", record.id)))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(version: u64) -> Record {
        Record { id: "0123".into(), name: "vm".into(), disks: vec!["/x".into()], wanted: true, version, deleted: false }
    }

    #[test]
    fn the_higher_version_wins_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        assert!(records.take(&Turn::alone(), record(2)).unwrap());
        assert!(!records.take(&Turn::alone(), Record { name: "old".into(), ..record(1) }).unwrap());
        assert!(!records.take(&Turn::alone(), record(2)).unwrap());
        let again = Records::load(dir.path()).unwrap();
        assert_eq!(again.named("vm"), Some(record(2)));
    }

    #[test]
    fn a_deleted_volume_stays_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        records.take(&Turn::alone(), Record { deleted: true, ..record(3) }).unwrap();
        assert!(!records.take(&Turn::alone(), record(2)).unwrap());
        assert_eq!(records.named("vm"), None);
    }

    /// The link to another node came up while a volume was being made: the exchange that belongs to that told it too early,
    /// the other node mounted it as well and took its first office, and the maker was not its coordinator.
    #[test]
    fn a_volume_that_is_being_made_is_told_to_nobody_before_it_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        let other = Record { id: "4567".into(), name: "other".into(), ..record(1) };
        records.take(&Turn::alone(), other.clone()).unwrap();
        records.take_untold(&Turn::alone(), record(1)).unwrap();
        assert_eq!(records.named("vm"), Some(record(1)), "known here");
        assert_eq!(records.to_tell(), std::slice::from_ref(&other));
        records.may_be_told("0123");
        assert_eq!(records.to_tell(), [record(1), other]);
    }

    #[test]
    fn what_was_unmounted_stays_so_over_a_restart_until_it_is_mounted_again() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::load(dir.path()).unwrap();
        records.take(&Turn::alone(), record(1)).unwrap();
        records.unmounted(&Turn::alone(), "0123", true).unwrap();
        let again = Records::load(dir.path()).unwrap();
        assert!(again.is_unmounted("0123"));
        assert_eq!(again.to_tell(), [record(1)], "others are told as ever");
        again.unmounted(&Turn::alone(), "0123", false).unwrap();
        assert!(!Records::load(dir.path()).unwrap().is_unmounted("0123"));
    }

    #[test]
    fn a_damaged_record_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volumes/x.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "id = 3").unwrap();
        let said = Records::load(dir.path()).unwrap_err().message;
        assert!(said.contains("x.toml"), "{said}");
        assert!(path.exists());
    }
}
