//! Extended attributes and access control lists, through every node and as on ext4.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{XattrFlags, getxattr, lgetxattr, listxattr, lsetxattr, removexattr, setxattr};

use crate::ext4::{Said, answers_as_ext4};
use crate::shared::{Folder, PAIRS};

/// Names in order, since none is promised.
fn names(path: &Path) -> Result<Vec<String>, rustix::io::Errno> {
    let mut buf = [0_u8; 4096];
    let n = listxattr(path, &mut buf[..])?;
    let mut names: Vec<String> = buf[..n]
        .split(|b| *b == 0)
        .filter(|s| !s.is_empty())
        .map(|s| String::from_utf8_lossy(s).into_owned())
        .collect();
    names.sort();
    Ok(names)
}

fn value(path: &Path, name: &str) -> Result<Vec<u8>, rustix::io::Errno> {
    let mut buf = [0_u8; 4096];
    getxattr(path, name, &mut buf[..]).map(|n| buf[..n].to_vec())
}

/// Runs a tool in a folder; its code and what it said.
pub(crate) fn tool(dir: &Path, line: &str) -> (Option<i32>, String, String) {
    let out = Command::new("sh").args(["-c", line]).current_dir(dir).env("LC_ALL", "C").output().expect("sh runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

fn plain(here: &Path, there: &Path, said: &mut Said) {
    let (path, seen) = (here.join("file"), there.join("file"));
    fs::write(&path, "x").expect("writes");
    let (none, create, replace) = (XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE);
    let long = format!("user.{}", "n".repeat(250));
    let calls: [(&str, &[u8], XattrFlags); 16] = [
        ("user.colour", b"blue", none),
        ("user.colour", b"red", create),
        ("user.colour", b"red", replace),
        ("user.size", b"", create),
        ("user.other", b"", replace),
        ("user.colour", b"green and longer than before", none),
        ("trusted.mark", &[0, 1, 2, 0xff], none),
        ("security.label", b"secret", none),
        ("user.", b"x", none),
        ("colour", b"x", none),
        ("users.colour", b"x", none),
        ("system.colour", b"x", none),
        (&long, b"x", none),
        (&long[..254], b"x", none),
        ("user.colour", &[7; 65_537], none),
        ("user.both", b"x", create.union(replace)),
    ];
    for (name, bytes, flags) in calls {
        let what = format!("{} to {} bytes, {flags:?}", &name[..name.len().min(20)], bytes.len());
        said.note(what, (setxattr(&path, name, bytes, flags), value(&seen, name)));
    }
    said.note("names", names(&seen));
    for size in [0, 1, 4, 5, 27, 28, 29] {
        let mut buf = vec![0_u8; size];
        said.note(format!("value into {size}"), getxattr(&seen, "user.colour", &mut buf[..]));
        said.note(format!("names into {size}"), listxattr(&seen, &mut buf[..]));
    }
    said.note("none", value(&seen, "user.none"));
    said.note("removed", (removexattr(&seen, "user.size"), removexattr(&seen, "user.size"), names(&path)));
    said.note("not there", (setxattr(here.join("no"), "user.x", b"", none), value(&here.join("no"), "user.x")));
    symlink("file", here.join("link")).expect("links");
    said.note("of a link, user", lsetxattr(here.join("link"), "user.x", b"1", none));
    said.note("of a link, trusted", lsetxattr(here.join("link"), "trusted.x", b"1", none));
    said.note("read back", lgetxattr(there.join("link"), "trusted.x", &mut [0_u8; 9][..]));
    said.note("through it", value(&there.join("link"), "user.colour"));
    fs::rename(&path, here.join("moved")).expect("renames");
    said.note("moved", names(&there.join("moved")));
    fs::hard_link(here.join("moved"), here.join("twin")).expect("links");
    said.note("twin", names(&there.join("twin")));
    let folder = here.join("folder");
    fs::create_dir(&folder).expect("a folder");
    said.note("folder", (setxattr(&folder, "user.a", b"1", none), names(&there.join("folder"))));
    said.note(
        "others see no trusted names",
        tool(there, "setpriv --reuid 12345 --clear-groups getfattr -d -m - moved"),
    );
}

#[test]
fn extended_attributes_answer_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("xattrs", plain);
}

fn lists(here: &Path, there: &Path, said: &mut Said) {
    fs::set_permissions(here, fs::Permissions::from_mode(0o755)).expect("chmod");
    let steps = [
        "umask 022; echo secret > file; chmod 640 file; getfacl -nc file",
        "setfacl -m u:12345:r file; getfacl -nc file; stat -c %a file",
        "setpriv --reuid 12345 --clear-groups cat file",
        "setpriv --reuid 12346 --clear-groups cat file",
        "setpriv --reuid 12345 --clear-groups sh -c 'echo x >> file'",
        "setfacl -m g:777:rw file; getfacl -nc file; stat -c %a file",
        "setpriv --reuid 12346 --regid 777 --clear-groups sh -c 'echo y >> file'; cat file",
        "chmod 600 file; getfacl -nc file",
        "setpriv --reuid 12345 --clear-groups cat file",
        "chmod 644 file; getfacl -nc file",
        "setfacl -x u:12345,g:777 file; getfacl -nc file; getfattr -d -m - file",
        "setfacl -b file; getfacl -nc file; getfattr -d -m - file",
        "setfacl -d -m u:12345:rwx file",
        "mkdir dir; setfacl -d -m u:12345:rwx,g::rx,o::--- dir; getfacl -nc dir; stat -c %a dir",
        "umask 077; echo x > dir/file; getfacl -nc dir/file; stat -c %a dir/file",
        "umask 0; mkdir dir/sub; getfacl -nc dir/sub; stat -c %a dir/sub",
        "umask 077; mkfifo dir/fifo; getfacl -nc dir/fifo",
        "ln -s x dir/link; touch dir/sub/deep; getfacl -nc dir/sub/deep",
        "cp -p dir/file dir/copy; getfacl -nc dir/copy; cp -a dir/sub dir/subcopy; getfacl -Rnc dir/subcopy",
        "setfacl -k dir; getfacl -nc dir; umask 027; touch dir/after; stat -c %a dir/after; mkdir dir/d2; stat -c %a dir/d2",
        "umask 0123; touch masked; mkdir maskeddir; mkfifo maskedpipe; stat -c %a masked maskeddir maskedpipe",
        "touch s; chmod 2755 s; chown 0:888 s; chmod 2755 s; setfacl -m u:1:r s; stat -c %a s",
        "chown 5:5 own; touch own; chown 12345:5 own; setpriv --reuid 12345 --clear-groups setfacl -m u:1:rwx own; getfacl -nc own",
        "setpriv --reuid 12346 --clear-groups setfacl -m u:1:rwx own",
        "mkdir only; chmod 700 only; setfacl -m u:12345:x only; echo in > only/f; chmod 644 only/f; setpriv --reuid 12345 --clear-groups cat only/f; setpriv --reuid 12345 --clear-groups ls only",
    ];
    for (n, step) in steps.into_iter().enumerate() {
        said.note(step, tool(if n % 2 == 0 { here } else { there }, step));
    }
}

#[test]
fn access_control_lists_answer_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("lists", lists);
}

#[test]
fn values_of_64_kib_are_kept_whole_and_too_many_get_enospc() {
    let Some(folder) = Folder::new("large-xattrs") else { return };
    for (here, there) in PAIRS {
        folder.through(here, |dir| {
            let path = dir.join("file");
            fs::write(&path, "x").expect("writes");
            let set = |n: usize| setxattr(&path, format!("user.{n}"), &[n as u8; 65_536], XattrFlags::empty());
            (0..15).for_each(|n| set(n).expect("there is room"));
            assert_eq!(set(15), Err(rustix::io::Errno::NOSPC));
        });
        folder.through(there, |dir| {
            let mut buf = vec![0_u8; 65_536];
            assert_eq!(getxattr(dir.join("file"), "user.14", &mut buf[..]), Ok(65_536));
            assert!(buf.iter().all(|b| *b == 14));
            fs::remove_file(dir.join("file")).expect("removes");
        });
    }
}

/// A capability to be kept: version 2, CAP_NET_RAW.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn privileges(here: &Path, there: &Path, said: &mut Said) {
    let (path, seen) = (here.join("file"), there.join("file"));
    fs::write(&path, vec![1; 10_000]).expect("writes");
    let writer = File::options().read(true).write(true).open(&seen).expect("opens");
    // Rights that are held when the capability is set.
    writer.write_all_at(&[2; 4096], 0).expect("writes");
    let mut round = |what: &str, change: &dyn Fn()| {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).expect("chmod");
        said.note(format!("{what}: set"), setxattr(&path, "security.capability", CAPABILITY, XattrFlags::empty()));
        change();
        let there = value(&path, "security.capability").map(|v| v.len());
        said.note(what, (there, fs::metadata(&path).expect("stat").mode() & 0o7777));
    };
    round("nothing", &|| {});
    round("a write in place", &|| writer.write_all_at(&[3; 4096], 4096).expect("writes"));
    round("a second write", &|| writer.write_all_at(&[3; 4096], 4096).expect("writes"));
    round("a write of a part", &|| writer.write_all_at(&[3; 10], 5).expect("writes"));
    round("a cut", &|| writer.set_len(5000).expect("cuts"));
    round("chown to the same", &|| std::os::unix::fs::chown(&seen, Some(0), Some(0)).expect("chown"));
    round("chown", &|| std::os::unix::fs::chown(&seen, Some(7), None).expect("chown"));
    round("chgrp", &|| std::os::unix::fs::chown(&seen, None, Some(8)).expect("chown"));
    round("chmod", &|| fs::set_permissions(&seen, fs::Permissions::from_mode(0o4711)).expect("chmod"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2644)).expect("chmod");
    std::os::unix::fs::chown(&seen, Some(9), Some(9)).expect("chown");
    said.note("sgid without x", fs::metadata(&path).expect("stat").mode() & 0o7777);
    fs::create_dir(here.join("dir")).expect("a folder");
    fs::set_permissions(here.join("dir"), fs::Permissions::from_mode(0o6755)).expect("chmod");
    std::os::unix::fs::chown(there.join("dir"), Some(9), Some(9)).expect("chown");
    said.note("a folder", fs::metadata(here.join("dir")).expect("stat").mode() & 0o7777);
}

#[test]
fn capabilities_suid_and_sgid_go_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("privileges", privileges);
}
