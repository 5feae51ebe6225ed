//! What `--disk` may be: an absolute path, or `file:PATH`; `iscsi://...` is judged by `san`. The command makes a relative path absolute, because the daemon
//! stands in another folder; the daemon refuses what it cannot use before it touches anything.

use std::io;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

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

/// The path of a disk that this version can share: it is absolute, and something is there.
pub(crate) fn shareable(url: &str) -> Result<PathBuf, Failure> {
    let (kind, path) = split(url);
    if kind == Kind::Other {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "{url} cannot be a shared disk yet: this version knows only files that all nodes on one host open."
            ),
            "Name a file (`truncate -s 10G FILE` makes one); LUNs over iSCSI and local SCSI disks come later.",
        ));
    }
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(Failure::usage(format!("{url} is not an absolute path."), "Write the whole path, from `/` on."));
    }
    match path.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Failure::new(
            Exit::NotFound,
            format!("There is no disk {}.", path.display()),
            format!("See whether the path is right; `truncate -s 10G {}` makes a file for trying out.", path.display()),
        )),
        // What else may be wrong shows when it is opened.
        _ => Ok(path.to_owned()),
    }
}

const FILE: &str = "file:";

#[derive(PartialEq, Eq)]
enum Kind {
    File,
    Other,
}

fn split(url: &str) -> (Kind, &str) {
    let path = url.strip_prefix(FILE).unwrap_or(url);
    (if path.contains("://") { Kind::Other } else { Kind::File }, path)
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
    }

    #[test]
    fn what_cannot_be_shared_is_refused_with_the_code_that_fits() {
        let refused = |url| shareable(url).expect_err("must be refused");
        let lun = refused("nvme://192.0.2.1/nqn.2026-01.example:lun0");
        assert_eq!(lun.kind, Exit::Refused);
        assert!(
            lun.message.contains("files") && lun.next.contains("later") && !lun.message.contains("COMPARE"),
            "{lun}"
        );
        assert_eq!(refused("/nonexistent/disk.img").kind, Exit::NotFound);
        assert_eq!(refused("disk.img").kind, Exit::Usage);
        assert_eq!(shareable("file:/dev/null").expect("it is there"), Path::new("/dev/null"));
    }
}
