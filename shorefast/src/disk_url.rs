//! What `--disk` may be: one absolute path, or `file:PATH`; or one or more `iscsi://...`, each another portal of the same unit; or
//! `scsi:NAME`, a unit that the kernels of the nodes have as SCSI disks (a path of such a disk becomes that, see `san::local`). The
//! command makes a relative path absolute, because the daemon stands in another folder; the daemon refuses what it cannot use before
//! it touches anything.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use iscsi_initiator::Url;

use crate::exit::{Exit, Failure};
use crate::san;

/// More portals of one unit are a mistake: each is a session from every node.
const MAX_PORTALS: usize = 16;

/// A volume's disk, as its URLs name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Disk {
    /// A file that every node of this host opens.
    File(PathBuf),
    /// A logical unit, at each of its portals.
    Unit(Vec<Url>),
    /// A logical unit that the kernel has, by its name.
    Scsi(String),
}

impl Disk {
    /// What is kept of the URLs in the volume's record: all but the secrets.
    pub(crate) fn references(&self, urls: &[String]) -> Vec<String> {
        match self {
            Disk::File(_) | Disk::Scsi(_) => urls.to_vec(),
            Disk::Unit(portals) => portals.iter().map(Url::reference).collect(),
        }
    }
}

/// As it may be shown: secrets masked.
impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disk::File(path) => path.display().fmt(f),
            Disk::Scsi(unit) => write!(f, "{SCSI}{unit}"),
            Disk::Unit(portals) => f.write_str(&portals.iter().map(Url::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// What a user wrote, with a relative path made absolute. Another kind of URL is left as it is, for the daemon to judge.
pub(crate) fn made_absolute(url: &str) -> io::Result<String> {
    let (kind, path) = split(url);
    if kind == Kind::Other {
        return Ok(url.to_owned());
    }
    let path = std::path::absolute(path)?;
    let path = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(if url.starts_with(FILE) { format!("{FILE}{path}") } else { path.to_owned() })
}

/// The disk that these URLs name together. Nothing is looked at yet.
pub(crate) fn disk(urls: &[String]) -> Result<Disk, Failure> {
    let units = urls.iter().filter(|url| san::is_unit(url)).count();
    match urls {
        [] => Err(Failure::usage("No disk is named.", "Give --disk.")),
        [one] if one.starts_with(SCSI) => Ok(Disk::Scsi(one[SCSI.len()..].to_owned())),
        [file] if units == 0 => named_file(file).map(Disk::File),
        _ if units == 0 => Err(Failure::usage(
            "A volume lies on one disk, and these are several files.",
            "Give --disk once; several times only for several portals of one iSCSI unit, or several paths of one SCSI disk.",
        )),
        _ if units < urls.len() => Err(Failure::usage(
            "A volume lies on one disk, and these are files and iSCSI units.",
            "Give one file, or each portal of one unit.",
        )),
        _ if urls.len() > MAX_PORTALS => Err(Failure::usage(
            format!("{} portals are too many.", urls.len()),
            format!("Give at most {MAX_PORTALS}; two on separate networks are the rule."),
        )),
        _ => portals(urls).map(Disk::Unit),
    }
}

/// Each is a unit, and no two are the same place.
fn portals(urls: &[String]) -> Result<Vec<Url>, Failure> {
    let mut portals: Vec<Url> = Vec::new();
    for url in urls {
        let url = san::parse(url)?;
        if url.unit.is_none() {
            return Err(Failure::usage(format!("{url} names no unit."), "Write it like iscsi://HOST/TARGET/LUN."));
        }
        if portals.iter().any(|other| (&other.portal, &other.unit) == (&url.portal, &url.unit)) {
            return Err(Failure::usage(
                format!("{url} is named twice."),
                "A second session over the same portal does not survive anything that the first does not: name another portal.",
            ));
        }
        portals.push(url);
    }
    Ok(portals)
}

/// The path of a file that this version can share: it is absolute, and something is there.
pub(crate) fn shareable(url: &str) -> Result<PathBuf, Failure> {
    let path = named_file(url)?;
    match path.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Failure::new(
            Exit::NotFound,
            format!("There is no disk {}.", path.display()),
            format!("See whether the path is right; `truncate -s 10G {}` makes a file for trying out.", path.display()),
        )),
        // What else may be wrong shows when it is opened.
        _ => Ok(path),
    }
}

fn named_file(url: &str) -> Result<PathBuf, Failure> {
    let (kind, path) = split(url);
    if kind == Kind::Other {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "{url} cannot be a shared disk: this version knows files that all nodes on one host open, SCSI disks, and units over iSCSI."
            ),
            "Name a file (`truncate -s 10G FILE` makes one), a SCSI disk (/dev/sdX), or a unit (iscsi://HOST/TARGET/LUN).",
        ));
    }
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(Failure::usage(format!("{url} is not an absolute path."), "Write the whole path, from `/` on."));
    }
    Ok(path.to_owned())
}

const FILE: &str = "file:";
/// Before the name of a unit that the kernel has.
pub(crate) const SCSI: &str = "scsi:";

#[derive(PartialEq, Eq)]
enum Kind {
    File,
    Other,
}

fn split(url: &str) -> (Kind, &str) {
    let path = url.strip_prefix(FILE).unwrap_or(url);
    (if path.contains("://") || url.starts_with(SCSI) { Kind::Other } else { Kind::File }, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_made_absolute_where_the_command_runs() {
        let here = std::env::current_dir().expect("a folder").display().to_string();
        let absolute = |url| made_absolute(url).expect("a path");
        assert_eq!(absolute("lab/disk.img"), format!("{here}/lab/disk.img"));
        assert_eq!(absolute("file:disk.img"), format!("file:{here}/disk.img"));
        assert_eq!(absolute("/dev/x"), "/dev/x");
        assert_eq!(absolute("iscsi://host/iqn"), "iscsi://host/iqn");
        assert_eq!(absolute("scsi:naa.6001"), "scsi:naa.6001");
    }

    #[test]
    fn what_cannot_be_shared_is_refused_with_the_code_that_fits() {
        let refused = |url| shareable(url).expect_err("must be refused");
        let nvme = refused("nvme://192.0.2.1/nqn.2026-01.example:lun0");
        assert_eq!(nvme.kind, Exit::Refused);
        assert!(nvme.message.contains("files") && !nvme.message.contains("COMPARE"), "{nvme}");
        assert_eq!(refused("/nonexistent/disk.img").kind, Exit::NotFound);
        assert_eq!(refused("disk.img").kind, Exit::Usage);
        assert_eq!(shareable("file:/dev/null").expect("it is there"), Path::new("/dev/null"));
    }

    fn named(urls: &[&str]) -> Result<Disk, Failure> {
        disk(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_disk_is_one_file_or_one_unit_at_several_portals() {
        assert_eq!(named(&["file:/x"]).expect("a file"), Disk::File("/x".into()));
        let scsi = named(&["scsi:naa.6001"]).expect("a SCSI disk");
        assert_eq!((&scsi, scsi.to_string().as_str()), (&Disk::Scsi("naa.6001".into()), "scsi:naa.6001"));
        let unit = named(&["iscsi://a/iqn.t/0", "iscsi://b/iqn.t/0"]).expect("a unit");
        let Disk::Unit(portals) = unit else { panic!("{unit:?}") };
        assert_eq!(portals.iter().map(|p| p.portal.host.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let urls = ["iscsi://u%secret-of-12@a/iqn.t/0".to_owned()];
        let secret = disk(&urls).expect("a unit");
        assert_eq!(secret.to_string(), "iscsi://u%***@a:3260/iqn.t/0");
        assert_eq!(secret.references(&urls), ["iscsi://u@a:3260/iqn.t/0"]);
        let many: Vec<String> = (0..=MAX_PORTALS).map(|n| format!("iscsi://h{n}/iqn.t/0")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (urls, word) in [
            (&[][..], "No disk"),
            (&["/x", "/y"], "several files"),
            (&["/x", "iscsi://a/iqn.t/0"], "files and iSCSI units"),
            (&["iscsi://a/iqn.t/0", "iscsi://a:3260/iqn.t/0"], "named twice"),
            (&["iscsi://a"], "names no unit"),
            (&many, "too many"),
        ] {
            let refused = named(urls).expect_err("refused");
            assert!(refused.kind == Exit::Usage && refused.message.contains(word), "{urls:?}: {refused}");
        }
    }
}
