//! Mounting without root, through fusermount3.

use crate::harness::{Child, again, can_mount, options, role, serve, skip, within};
use crate::memfs::MemFs;
use fuse::{AllowOther, Mount, MountError, MountHow, MountOptions, Unmount};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn missing_fusermount_is_named_with_its_package() {
    if role().is_some() {
        let dir = tempfile::tempdir().unwrap();
        let error = Mount::open(&MountOptions { how: MountHow::Fusermount, ..options(dir.path()) }).unwrap_err();
        assert!(matches!(error, MountError::NoFusermount), "{error}");
        assert!(error.to_string().ends_with("install the package fuse3"));
        return;
    }
    let mut command = again("unprivileged::missing_fusermount_is_named_with_its_package", "child");
    let mut child = Child(command.env("PATH", "/nonexistent").stdout(Stdio::null()).spawn().unwrap());
    assert!(child.wait().success());
}

/// The child, an ordinary user: mounts, uses and unmounts.
fn as_a_user(at: &str) {
    assert!(!rustix::process::geteuid().is_root());
    let at = Path::new(at);
    let fs = MemFs::new(&[]);
    let needed = MountOptions { allow_other: AllowOther::Needed, ..options(at) };
    let permitted = std::fs::read_to_string("/etc/fuse.conf").is_ok_and(|c| c.lines().any(|l| l == "user_allow_other"));
    if !permitted {
        assert!(matches!(Mount::open(&needed), Err(MountError::AllowOther)));
    }
    let (mount, ended) = serve(&fs, &MountOptions { channels: 2, ..options(at) });
    assert_eq!(mount.allow_other(), permitted);
    let file = at.join("file");
    within(
        move || {
            std::fs::write(&file, b"by a user").unwrap();
            assert_eq!(std::fs::read(&file).unwrap(), b"by a user");
        },
        || {},
    );
    mount.unmount(Unmount::Idle).unwrap();
    for _ in 0..2 {
        ended.recv_timeout(crate::harness::DEADLINE).unwrap();
    }
}

#[test]
fn ordinary_user_mounts_through_fusermount() {
    if let Some(at) = role() {
        return as_a_user(&at);
    }
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("point");
    std::fs::create_dir(&point).unwrap();
    let test = "unprivileged::ordinary_user_mounts_through_fusermount";
    if !rustix::process::geteuid().is_root() {
        let mut child = Child(again(test, point.to_str().unwrap()).spawn().unwrap());
        assert!(child.wait().success());
        return;
    }
    // As root: a mount namespace in which /dev/fuse is everybody's, as udev would have it, and this
    // program is where user 65534 can reach it.
    if !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success()) {
        skip("no mount namespaces");
        return;
    }
    let script = r#"
        set -e
        mount -t tmpfs -o mode=755 none "$1"
        mkdir "$1/point"; chown 65534:65534 "$1/point"
        mknod "$1/fuse" c 10 229; chmod 666 "$1/fuse"; mount --bind "$1/fuse" /dev/fuse
        touch "$1/exe"; mount --bind "$2" "$1/exe"
        export FUSE_TEST_ROLE="$1/point" TMPDIR="$1"
        exec setpriv --reuid 65534 --regid 65534 --clear-groups "$1/exe" --exact "$3" --nocapture"#;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(dir.path()).arg(std::env::current_exe().unwrap()).arg(test);
    let mut child = Child(command.stdout(Stdio::null()).spawn().unwrap());
    assert!(child.wait().success());
}
