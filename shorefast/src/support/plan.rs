//! What a bundle is made of. Pure: what is known and wished goes in, parts come out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// A daemon that lives answers at once, also while its disks hang.
const ASK: Duration = Duration::from_secs(10);
/// The system tells at once, unless a disk or a mount stands still. Longer than starting a process takes on a machine that is
/// overloaded, which may be why the bundle is made.
const LOOK: Duration = Duration::from_secs(15);
/// A check reads all metadata of a volume.
const CHECK: Duration = Duration::from_secs(300);

/// Most of what a part may print: 100 volumes on 64 nodes are some MiB of status.
const TEXT_MAX: u64 = 32 << 20;
/// The end of a log: a week of a quiet node, hours of a bad one.
const LOG_MAX: u64 = 16 << 20;

/// How a part is had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// This program, with these arguments.
    This(Vec<String>),
    /// Another program of the system.
    Other(String, Vec<String>),
}

/// One file of the bundle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// Its name there.
    pub(crate) name: String,
    /// What it is, for whoever opens the bundle.
    pub(crate) about: String,
    /// How it is had.
    pub(crate) how: How,
    /// After this it is given up.
    pub(crate) within: Duration,
    /// Bytes of it that are kept.
    pub(crate) at_most: u64,
}

/// Where things lie.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// The node's bundle.
    pub(crate) bundle: PathBuf,
    /// The API socket.
    pub(crate) socket: PathBuf,
    /// What the node remembers.
    pub(crate) state_dir: PathBuf,
    /// What the host knows of replicated devices.
    pub(crate) replicas: PathBuf,
}

/// What was asked for besides.
#[derive(Clone, Default, Debug)]
pub(crate) struct Wishes {
    /// Check every volume.
    pub(crate) check: bool,
    /// A log file of the daemon.
    pub(crate) log: Option<PathBuf>,
    /// The system keeps a journal.
    pub(crate) journal: bool,
}

/// A volume's record, as far as it is needed here.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct RecordOf {
    /// The volume's name.
    pub(crate) name: String,
    /// Its disks.
    pub(crate) disks: Vec<String>,
    /// Whether it is gone.
    #[serde(default)]
    pub(crate) deleted: bool,
}

/// The part that says which volumes there are; needed before the others are known.
pub(crate) fn first(known: &Known) -> Part {
    Part {
        name: "volumes.toml".into(),
        about: "what this node remembers of volumes, a record each".into(),
        how: this(&["support-part", "folder", &shown(&known.state_dir.join("volumes"))]),
        within: LOOK,
        at_most: TEXT_MAX,
    }
}

/// All other parts but the disks.
pub(crate) fn rest(known: &Known, wishes: &Wishes) -> Vec<Part> {
    let socket = shown(&known.socket);
    let ask = |name: &str, about: &str, words: &[&str]| {
        let line = [&["--socket", &socket], words].concat();
        Part { name: name.into(), about: about.into(), how: this(&line), within: ASK, at_most: TEXT_MAX }
    };
    let look = |name: &str, about: &str, words: &[&str]| {
        let line = [&["support-part"], words].concat();
        Part { name: name.into(), about: about.into(), how: this(&line), within: LOOK, at_most: TEXT_MAX }
    };
    let (config, bundle, replicas) = (shown(&known.config), shown(&known.bundle), shown(&known.replicas));
    let mut parts = vec![
        ask("status.txt", "`shorefast status`", &["status"]),
        ask("status.json", "the same with everything: volumes, routes, counters, problems", &["--json", "status"]),
        ask("nodes.json", "`shorefast node list`", &["--json", "node", "list"]),
        ask("events.jsonl", "what this node's daemon has reported, an object a line", &["--json", "events"]),
        look("config.toml", "the configuration, secrets masked", &["file", &config]),
        look("bundle.toml", "this node's certificate and list of nodes, without its key", &["file", &bundle]),
        look("system.txt", "versions, kernel, limits, memory, mounts, block devices", &["system"]),
        look("daemon.txt", "the daemon's process and what each of its threads waits for", &["daemon", &socket]),
        look("replicas.toml", "files of replicated devices of this host, if there are any", &["folder", &replicas]),
        other("kernel.log", "the kernel's messages", "dmesg", &["--ctime"]),
    ];
    if wishes.journal {
        let line = ["--no-pager", "--output=short-iso-precise", "--lines=50000", "_COMM=shorefast"];
        parts.push(other("journal.log", "what the system's journal has of shorefast", "journalctl", &line));
    }
    if let Some(log) = &wishes.log {
        let last = LOG_MAX.to_string();
        let line = ["file", &shown(log), "--last", &last];
        parts.push(look("daemon.log", "the end of the log file that was named", &line));
    }
    parts
}

/// The parts about each volume's disk: what lies there outside the metadata, and a check if that was wished.
pub(crate) fn disks(known: &Known, wishes: &Wishes, records: &[RecordOf]) -> Vec<Part> {
    let mut parts = Vec::new();
    for record in records.iter().filter(|r| !r.deleted) {
        if let Some(disk) = record.disks.first().filter(|disk| crate::san::is_unit(disk)) {
            // The array tells the rest; each portal tells the same.
            for (what, about) in [("inquiry", "what the unit is"), ("reservations", "who is registered at the unit")] {
                parts.push(Part {
                    name: format!("{what}-{}.json", record.name),
                    about: format!("{about} of volume {}", record.name),
                    how: this(&["--json", "iscsi", what, disk]),
                    within: LOOK,
                    at_most: TEXT_MAX,
                });
            }
        }
        if let Some(disk) = record.disks.first().filter(|disk| crate::san::local::is_named(disk)) {
            for (what, about) in [("inquiry", "what the unit is"), ("reservations", "who is registered at the unit")] {
                parts.push(Part {
                    name: format!("{what}-{}.json", record.name),
                    about: format!("{about} of volume {}", record.name),
                    how: this(&["--json", "scsi", what, disk]),
                    within: LOOK,
                    at_most: TEXT_MAX,
                });
            }
        }
        let is_file = |disk: &&String| !crate::san::is_unit(disk) && !crate::san::local::is_named(disk);
        for disk in record.disks.iter().filter(is_file) {
            parts.push(Part {
                name: format!("disk-{}.txt", record.name),
                about: format!("superblocks, lease and slots of volume {}, as they lie on the disk", record.name),
                how: this(&["support-part", "disk", disk]),
                within: LOOK,
                at_most: TEXT_MAX,
            });
        }
        if wishes.check {
            let line = ["--socket", &shown(&known.socket), "--json", "volume", "check", &record.name];
            parts.push(Part {
                name: format!("check-{}.json", record.name),
                about: format!("the check of volume {}", record.name),
                how: this(&line),
                within: CHECK,
                at_most: TEXT_MAX,
            });
        }
    }
    parts
}

/// The records in what [`first`] printed; what cannot be read is left out, and is in the bundle as it is.
pub(crate) fn records_of(text: &str) -> Vec<RecordOf> {
    // Each file begins with its name in a comment (`part`).
    text.split(super::part::FILE_HEAD).filter_map(|file| toml::from_str(file.split_once('\n')?.1).ok()).collect()
}

fn this(words: &[&str]) -> How {
    How::This(words.iter().map(|w| (*w).to_owned()).collect())
}

fn other(name: &str, about: &str, program: &str, words: &[&str]) -> Part {
    let words = words.iter().map(|w| (*w).to_owned()).collect();
    let how = How::Other(program.into(), words);
    Part { name: name.into(), about: about.into(), how, within: LOOK, at_most: LOG_MAX }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known {
            config: "/etc/shorefast/shorefast.toml".into(),
            bundle: "/etc/shorefast/node.bundle".into(),
            socket: "/run/api.sock".into(),
            state_dir: "/var/lib/shorefast".into(),
            replicas: "/var/lib/shorefast/replicas".into(),
        }
    }

    #[test]
    fn every_volume_that_exists_has_its_disk_in_the_bundle_and_its_check_if_wished() {
        let text = format!(
            "{head}a.toml\nname = \"vm\"\ndisks = [\"/x\"]\n{head}b.toml\nname = \"gone\"\ndisks = [\"/y\"]\ndeleted = true\n\
             {head}c.toml\nthis is no record\n",
            head = super::super::part::FILE_HEAD
        );
        let records = records_of(&text);
        assert_eq!(records.len(), 2);
        let names = |wishes: &Wishes| -> Vec<String> {
            disks(&known(), wishes, &records).into_iter().map(|p| p.name).collect()
        };
        assert_eq!(names(&Wishes::default()), ["disk-vm.txt"]);
        assert_eq!(names(&Wishes { check: true, ..Wishes::default() }), ["disk-vm.txt", "check-vm.json"]);
        let disks_of_unit = vec!["iscsi://a/iqn.t/0".to_owned(), "iscsi://b/iqn.t/0".to_owned()];
        let unit = RecordOf { name: "lun".to_owned(), disks: disks_of_unit, deleted: false };
        let parts = disks(&known(), &Wishes::default(), &[unit]);
        let names: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["inquiry-lun.json", "reservations-lun.json"], "once, not for each portal");
    }

    #[test]
    fn no_two_parts_have_one_name_and_each_has_a_bound() {
        let wishes = Wishes { check: true, log: Some("/var/log/x".into()), journal: true };
        let mut parts = rest(&known(), &wishes);
        parts.push(first(&known()));
        let mut names: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), parts.len());
        assert!(parts.iter().all(|p| p.within <= CHECK && p.at_most <= TEXT_MAX && !p.about.is_empty()));
    }
}
