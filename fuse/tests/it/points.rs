//! Mount points that are refused, each with its own error and its sentence.

use crate::harness::{Served, can_mount, options};
use fuse::{Mount, MountError, MountHow, MountOptions};
use std::path::Path;

fn refused(at: &Path) -> MountError {
    match Mount::open(&options(at)) {
        Err(error) => error,
        Ok(_) => panic!("mounted on {}", at.display()),
    }
}

#[test]
fn point_that_is_missing_no_directory_or_not_empty_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = refused(&missing);
    assert!(matches!(&error, MountError::Missing(path) if *path == missing), "{error}");
    assert!(error.to_string().ends_with("does not exist: create the directory"));
    assert!(matches!(refused(&missing.join("below")), MountError::Missing(_)));

    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(refused(&file), MountError::NotADirectory(_)));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(std::env::temp_dir(), &link).unwrap();
    assert!(matches!(refused(&link), MountError::NotADirectory(_)));

    let error = refused(dir.path());
    assert!(matches!(error, MountError::NotEmpty(_)), "{error}");
    assert!(error.to_string().contains("is not empty: move its files away"));
    assert!(matches!(refused(Path::new("/")), MountError::NotEmpty(_)));
}

#[test]
fn point_that_is_mounted_is_refused_and_named() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&[], 1);
    let path = served.dir.path().to_path_buf();
    let error = served.within(move || refused(&path));
    let MountError::AlreadyMounted { source_name, fs_type, .. } = &error else { panic!("{error}") };
    assert_eq!((source_name.as_str(), fs_type.as_str()), ("shorefast:test", "fuse.shorefast"));
    let proc = refused(Path::new("/proc"));
    assert!(matches!(&proc, MountError::AlreadyMounted { fs_type, .. } if fs_type == "proc"), "{proc}");
}

#[test]
fn mount_has_the_type_and_options_asked_for() {
    if !can_mount() {
        return;
    }
    for how in [MountHow::Auto, MountHow::Fusermount] {
        let served = Served::with(&["file"], 2, how);
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let at = served.mount.mountpoint().to_str().unwrap();
        let line = table.lines().find(|line| line.split(' ').nth(1) == Some(at)).unwrap();
        let fields: Vec<_> = line.split(' ').collect();
        assert_eq!((fields[0], fields[2]), ("shorefast:test", "fuse.shorefast"), "{how:?}");
        for option in ["nosuid", "nodev", "default_permissions"] {
            assert!(fields[3].split(',').any(|has| has == option), "{how:?}: {line}");
        }
        assert_eq!(fields[3].contains("allow_other"), served.mount.allow_other(), "{how:?}");
        let path = served.path("file");
        served.within(move || assert_eq!(std::fs::read(path).unwrap(), b""));
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = options(dir.path());
    for bad in [
        MountOptions { fs_name: "a,b".into(), ..good.clone() },
        MountOptions { fs_name: String::new(), ..good.clone() },
        MountOptions { subtype: "a b".into(), ..good.clone() },
        MountOptions { channels: 0, ..good.clone() },
        MountOptions { max_write: 4097, ..good.clone() },
        MountOptions { max_write: 1 << 21, ..good },
    ] {
        assert!(matches!(Mount::open(&bad), Err(MountError::Option(_))), "{bad:?}");
    }
}
