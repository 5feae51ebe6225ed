//! Names: made through one node, they are there, or gone, through the others at once.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, RenameFlags, fallocate, mknodat, renameat_with, statvfs};
use rustix::io::Errno;

use crate::fixture::{Cluster, background, can_mount, until, within};
use crate::shared::{Folder, PAIRS};

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).expect("lists");
    entries.map(|e| e.expect("an entry").file_name().into_string().expect("plain names")).collect()
}

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or_else(|| panic!("no errno: {e}"))
}

/// A file that replaces another by rename is the usual way to change one as a whole: who looks at its name finds one or the other.
/// The kernel looks the name up and then asks about the file it found, which is gone by then: that was told as ENOENT. With ESTALE
/// it looks the name up again, once; one that was replaced once more meanwhile is ESTALE for the program too.
#[test]
fn a_name_that_is_replaced_all_the_time_on_another_node_is_never_said_to_be_gone() {
    let Some(folder) = Folder::new("replaced") else { return };
    folder.through(1, |dir| fs::write(dir.join("name"), "0").expect("writes"));
    let dir = folder.path(1);
    let replaced = background(move || {
        for n in 1..400 {
            fs::write(dir.join("fresh"), n.to_string()).expect("writes");
            fs::rename(dir.join("fresh"), dir.join("name")).expect("replaces");
        }
    });
    let there = |what: &str, looked: Result<(), Errno>| {
        assert!([Ok(()), Err(Errno::STALE)].contains(&looked), "{what}: {looked:?}");
        u32::from(looked.is_ok())
    };
    let mut found = 0;
    while !replaced.is_done() {
        found += folder.through(2, move |dir| {
            let name = dir.join("name");
            let io = |done: std::io::Result<()>| done.map_err(|e| errno(&e));
            there("a look", io(fs::metadata(&name).map(drop)))
                + there("opening", io(File::open(&name).map(drop)))
                + there("a change of mode", rustix::fs::chmod(&name, Mode::from_raw_mode(0o600)))
        });
    }
    replaced.ended("replacing");
    assert!(found > 0, "it was never found");
}

#[test]
fn a_name_made_through_one_node_is_there_through_another_and_gone_when_that_removes_it() {
    let Some(folder) = Folder::new("made") else { return };
    for (made, seen) in PAIRS {
        folder.through(made, |dir| {
            fs::create_dir(dir.join("dir")).expect("makes a folder");
            mknodat(CWD, dir.join("plain"), FileType::RegularFile, Mode::from(0o640), 0).expect("makes a file");
            mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::from(0o600), 0).expect("makes a fifo");
            symlink("../some/where", dir.join("symlink")).expect("makes a symbolic link");
            fs::hard_link(dir.join("plain"), dir.join("dir/second")).expect("makes a hard link");
        });
        folder.through(seen, |dir| {
            let of = |name: &str| fs::symlink_metadata(dir.join(name)).expect("is there");
            assert!(of("dir").is_dir() && of("fifo").file_type().is_fifo() && of("symlink").is_symlink());
            assert_eq!((of("plain").nlink(), of("plain").mode() & 0o7777, of("plain").len()), (2, 0o640, 0));
            assert_eq!(of("plain").ino(), of("dir/second").ino());
            assert_eq!(fs::read_link(dir.join("symlink")).expect("reads"), Path::new("../some/where"));
            assert_eq!(names(dir), ["dir", "fifo", "plain", "symlink"].map(str::to_owned).into());
            fs::remove_file(dir.join("dir/second")).expect("removes");
            fs::remove_dir(dir.join("dir")).expect("removes");
        });
        folder.through(made, |dir| {
            assert_eq!(fs::metadata(dir.join("plain")).expect("is there").nlink(), 1);
            for name in ["plain", "fifo", "symlink"] {
                fs::remove_file(dir.join(name)).expect("removes");
            }
            assert_eq!(names(dir), BTreeSet::new());
        });
        let gone = folder.through(seen, |dir| fs::metadata(dir.join("plain")).expect_err("is gone"));
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn what_cannot_be_done_to_a_name_has_the_errno_of_posix() {
    let Some(folder) = Folder::new("errnos") else { return };
    for n in [1, 2] {
        folder.through(n, |dir| {
            fs::create_dir_all(dir.join("full/inner")).expect("makes");
            fs::create_dir(dir.join("empty")).expect("makes");
            File::create(dir.join("file")).expect("makes");
            let is = |what: std::io::Result<()>, wanted| assert_eq!(errno(&what.expect_err("refused")), wanted);
            is(fs::remove_dir(dir.join("full")), Errno::NOTEMPTY);
            is(fs::rename(dir.join("empty"), dir.join("full")), Errno::NOTEMPTY);
            is(fs::create_dir(dir.join("file")), Errno::EXIST);
            is(fs::hard_link(dir.join("file"), dir.join("empty")), Errno::EXIST);
            is(fs::remove_dir(dir.join("file")), Errno::NOTDIR);
            is(fs::remove_file(dir.join("empty")), Errno::ISDIR);
            is(fs::rename(dir.join("file"), dir.join("empty")), Errno::ISDIR);
            is(fs::rename(dir.join("empty"), dir.join("file")), Errno::NOTDIR);
            is(fs::rename(dir.join("full"), dir.join("full/inner/below")), Errno::INVAL);
            is(File::open(dir.join("file/below")).map(drop), Errno::NOTDIR);
            is(fs::rename(dir.join("none"), dir.join("other")), Errno::NOENT);
            fs::remove_dir_all(dir.join("full")).expect("removes");
            fs::rename(dir.join("file"), dir.join("empty/file")).expect("renames into another folder");
            fs::remove_dir_all(dir.join("empty")).expect("removes");
        });
    }
}

#[test]
fn rename_replaces_or_refuses_or_exchanges_as_it_is_told() {
    let Some(folder) = Folder::new("rename") else { return };
    for (here, there) in PAIRS {
        folder.through(here, |dir| {
            let (a, b) = (dir.join("a"), dir.join("b"));
            fs::create_dir(&b).expect("makes");
            fs::write(&a, "a").expect("writes");
            let with = |flags| renameat_with(CWD, &a, CWD, &b, flags);
            assert_eq!(with(RenameFlags::NOREPLACE), Err(Errno::EXIST));
            assert_eq!(with(RenameFlags::EXCHANGE), Ok(()));
        });
        folder.through(there, |dir| {
            assert!(dir.join("a").is_dir() && dir.join("b").is_file());
            fs::write(dir.join("c"), "c").expect("writes");
            assert_eq!(renameat_with(CWD, dir.join("b"), CWD, dir.join("a/b"), RenameFlags::NOREPLACE), Ok(()));
            fs::rename(dir.join("c"), dir.join("a/b")).expect("replaces");
        });
        folder.through(here, |dir| {
            assert_eq!(names(dir), ["a".to_owned()].into());
            assert_eq!(fs::read(dir.join("a/b")).expect("reads"), b"c");
            fs::remove_dir_all(dir.join("a")).expect("removes");
        });
    }
}

#[test]
fn names_have_up_to_255_bytes_of_any_value_but_slash_and_zero() {
    let Some(folder) = Folder::new("long") else { return };
    folder.through(2, |dir| {
        let any: Vec<u8> = (1..=255).filter(|b| *b != b'/').chain([b'x']).collect();
        for name in [any, vec![b'n'; 255]] {
            assert_eq!(name.len(), 255);
            let name = OsString::from_vec(name);
            fs::write(dir.join(&name), "there").expect("writes");
            let listed: Vec<OsString> =
                fs::read_dir(dir).expect("lists").map(|e| e.expect("entry").file_name()).collect();
            assert_eq!(listed, std::slice::from_ref(&name));
            fs::remove_file(dir.join(name)).expect("removes");
        }
        let long = PathBuf::from("n".repeat(256));
        assert_eq!(errno(&File::create(dir.join(&long)).expect_err("too long")), Errno::NAMETOOLONG);
        assert_eq!(errno(&fs::create_dir(dir.join(&long)).expect_err("too long")), Errno::NAMETOOLONG);
        assert_eq!(errno(&fs::metadata(dir.join(&long)).expect_err("too long")), Errno::NAMETOOLONG);
    });
}

#[test]
fn of_exclusive_creations_through_three_nodes_at_once_exactly_one_succeeds() {
    const ROUNDS: usize = 60;
    let Some(folder) = Folder::new("exclusive") else { return };
    let start = Arc::new(Barrier::new(3));
    let contenders: Vec<_> = (1..=3)
        .map(|n| {
            let (dir, start) = (folder.path(n), Arc::clone(&start));
            background(move || -> Vec<bool> {
                let contend = |round: usize| {
                    start.wait();
                    match File::create_new(dir.join(format!("round-{round}"))) {
                        Ok(_) => true,
                        Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
                        Err(e) => panic!("neither won nor lost: {e}"),
                    }
                };
                (0..ROUNDS).map(contend).collect()
            })
        })
        .collect();
    let won: Vec<Vec<bool>> = contenders.into_iter().map(|c| c.ended("a contender")).collect();
    for round in 0..ROUNDS {
        assert_eq!(won.iter().filter(|w| w[round]).count(), 1, "round {round}");
    }
    assert_eq!(folder.through(2, |dir| fs::read_dir(dir).expect("lists").count()), ROUNDS);
}

#[test]
fn a_file_removed_while_open_on_another_node_stays_readable_and_writable_until_it_is_closed() {
    let Some(folder) = Folder::new("removed") else { return };
    for (opened, removed) in [(1, 2), (2, 1), (2, 3)] {
        let file = folder.through(opened, |dir| {
            fs::write(dir.join("file"), vec![7; 300_000]).expect("writes");
            File::options().read(true).write(true).open(dir.join("file")).expect("opens")
        });
        folder.through(removed, |dir| fs::remove_file(dir.join("file")).expect("removes"));
        folder.through(opened, move |dir| {
            use std::os::unix::fs::FileExt;
            assert!(!dir.join("file").exists());
            let mut read = vec![0; 300_000];
            file.read_exact_at(&mut read, 0).expect("reads");
            assert!(read.iter().all(|b| *b == 7));
            file.write_all_at(&[8; 5000], 299_000).expect("writes");
            let found = file.metadata().expect("is there");
            assert_eq!((found.nlink(), found.len()), (0, 304_000));
        });
    }
}

#[test]
fn the_space_of_a_file_is_taken_and_comes_back_when_it_is_removed() {
    const BYTES: u64 = 64 << 20;
    if !can_mount() {
        return;
    }
    // Of its own: on one that others fill and empty meanwhile nothing can be said.
    let cluster = Cluster::with_volume(3);
    let space = |n: usize| {
        let mount = cluster.mount(n, "v");
        within("looking at the space", move || statvfs(&mount)).expect("statfs")
    };
    let before = space(3);
    assert_eq!((before.f_bsize, before.f_frsize, before.f_namemax), (4096, 4096, 255));
    let (blocks, free) = (before.f_blocks, before.f_bfree);
    assert!(blocks * 4096 <= 2 << 30 && blocks * 4096 > 1 << 30, "{blocks} blocks on a disk of 2 GiB");
    assert!(free <= blocks && before.f_bavail <= free, "{free} of {blocks} free");
    let path = cluster.mount(2, "v").join("file");
    let taken = within("allocating", move || {
        let file = File::create(path).expect("creates");
        fallocate(&file, FallocateFlags::empty(), 0, BYTES).expect("allocates");
        file.sync_all().expect("makes stable");
        file.metadata().expect("is there").blocks()
    });
    assert_eq!(taken, BYTES / 512);
    assert_eq!((free - space(3).f_bfree) * 4096, BYTES, "less is free by what the file has");
    let path = cluster.mount(1, "v").join("file");
    within("removing", move || fs::remove_file(path)).expect("removes");
    until("the space back", || space(3).f_bfree == free);
}
