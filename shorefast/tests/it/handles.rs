//! Handles of `open_by_handle_at`, set-user-id programs and device nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::ext4::{Said, answers_as_ext4};
use crate::fixture::{Cluster, can_mount, until, within};

/// Handles made in the first folder, opened below the second.
const HANDLES: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
here, there = sys.argv[1:]

class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("f", ctypes.c_ubyte * 128)]

def handle(path):
    h, mount = Handle(128), ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), ctypes.byref(h), ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), path)
    return h

def reopen(h, flags=os.O_RDONLY):
    at = os.open(there, os.O_RDONLY)
    fd = libc.open_by_handle_at(at, ctypes.byref(h), flags)
    said = os.strerror(ctypes.get_errno())
    os.close(at)
    return fd if fd >= 0 else said

def read(h):
    fd = reopen(h)
    return fd if isinstance(fd, str) else os.read(fd, 100)

os.makedirs(here + "/deep/er")
for name in ("file", "deep/er/file", "goes"):
    with open(here + "/" + name, "w") as f:
        f.write("this is " + name)
handles = {name: handle(here + "/" + name) for name in ("file", "deep/er/file", "deep/er", "goes")}
for name in ("file", "deep/er/file", "goes"):
    print(name, read(handles[name]))
fd = reopen(handles["deep/er"])
print("listed", sorted(os.listdir(fd)), os.readlink("/proc/self/fd/%d" % fd) == os.path.realpath(there) + "/deep/er")
print("from below", os.stat("../..", dir_fd=fd).st_ino == os.stat(there).st_ino)
os.close(fd)
os.rename(here + "/deep", here + "/deeper")
print("renamed", read(handles["deep/er/file"]))
fd = reopen(handles["file"], os.O_WRONLY | os.O_TRUNC)
os.write(fd, b"written by handle")
os.close(fd)
print("written", open(here + "/file").read())
with open(here + "/unseen", "w") as f:
    f.write("x")
gone = handle(here + "/unseen")
for name in ("unseen", "goes"):
    os.unlink(here + "/" + name)
print("unlinked", read(gone), read(handles["goes"]))
"#;

fn handles(here: &Path, there: &Path, said: &mut Said) {
    let ran = Command::new("python3").arg("-c").arg(HANDLES).arg(here).arg(there).output().expect("runs");
    said.note("said", String::from_utf8_lossy(&ran.stdout));
    said.note("complained", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn handles_are_opened_again_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("handles", handles);
}

/// Who a copy of `id` that belongs to nobody and has the bit says it is, and what a node of /dev/zero's number reads.
fn tried(dir: &Path) -> (String, String) {
    let sh = |line: &str| {
        let ran = Command::new("sh").arg("-c").arg(line).current_dir(dir).output().expect("runs");
        String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr)
    };
    // By a process of its own: what is open for writing in this one is also open in what another test just starts.
    let copied = Command::new("cp").arg("/usr/bin/id").arg(dir.join("id")).status().expect("cp runs");
    assert!(copied.success(), "{copied}");
    std::os::unix::fs::chown(dir.join("id"), Some(65534), None).expect("changes hands");
    fs::set_permissions(dir.join("id"), fs::Permissions::from_mode(0o4755)).expect("sets the bit");
    (sh("./id -u").trim().to_owned(), sh("mknod zero c 1 5 && head -c 4 zero | od -An -tx1"))
}

#[test]
fn set_user_id_programs_and_device_nodes_work_where_the_configuration_allows_them() {
    if !can_mount() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root's mounts can allow set-user-id programs and device nodes");
        return;
    }
    let mut cluster = Cluster::new(2);
    cluster.configure(1, "allow_suid = true\nallow_devices = true\n");
    for n in [1, 2] {
        cluster.start(n);
    }
    cluster.create_volume("v");
    until("the other mount", || cluster.is_mounted(2));
    let (allowed, not) = (cluster.mount(1, "v"), cluster.mount(2, "v"));
    let (uid, read) = within("trying", move || tried(&allowed));
    assert_eq!((uid.as_str(), read.trim()), ("65534", "00 00 00 00"));
    let (uid, read) = within("trying elsewhere", move || {
        for name in ["id", "zero"] {
            fs::remove_file(not.join(name)).expect("removed");
        }
        tried(&not)
    });
    assert!(uid == "0" && read.contains("Permission denied"), "{uid} {read}");
}
