//! What a local file system answers, the volume answers, through every pair of nodes.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, copy_file_range,
    linkat, mkdirat, mknodat, open, openat, renameat_with, rmdir, unlink, utimensat,
};

use crate::ext4::{Said, answers_as_ext4};
use crate::shared::{Folder, PAIRS};
use crate::xattrs::tool;

/// The errno, if there is one.
fn e<T>(result: std::io::Result<T>) -> Result<(), Option<i32>> {
    result.map(drop).map_err(|e| e.raw_os_error())
}

fn shells(here: &Path, there: &Path, said: &mut Said, steps: &[&str]) {
    for (n, step) in steps.iter().enumerate() {
        said.note(step, tool(if n % 2 == 0 { here } else { there }, step));
    }
}

fn renames(there: &Path, said: &mut Said) {
    let rename = |a: &str, b: &str, f| renameat_with(CWD, there.join(a), CWD, there.join(b), f);
    let (no, noreplace, exchange) = (RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE);
    for (a, b, f) in [
        ("file", "file", no),
        ("file", "dir", no),
        ("dir", "file", no),
        ("dir", "dir/sub/x", no),
        ("dir/sub", "dir", no),
        ("none", "x", no),
        ("file", "dangling", noreplace),
        ("file", "none", exchange),
        ("file", "dir", exchange),
        ("file", "dir", exchange),
        ("dir", "dir/sub/x", exchange),
        ("file", "none/x", no),
        ("dir/.", "x", no),
        ("file", "x", noreplace),
    ] {
        said.note(format!("rename {a} {b} {f:?}"), rename(a, b, f));
    }
}

fn names(here: &Path, there: &Path, said: &mut Said) {
    fs::write(here.join("file"), "x").expect("writes");
    fs::create_dir_all(here.join("dir/sub")).expect("folders");
    let (long, longer) = ("n".repeat(255), "n".repeat(256));
    said.note("255", (e(fs::write(here.join(&long), "x")), e(fs::read(there.join(&long)))));
    said.note("256", (e(fs::write(here.join(&longer), "x")), e(fs::metadata(there.join(&longer)))));
    said.note(
        "256, others",
        (e(fs::create_dir(here.join(&longer))), e(fs::rename(here.join("file"), here.join(&longer)))),
    );
    said.note(
        "a long link",
        (e(symlink("t".repeat(4095), here.join("l4095"))), e(symlink("t".repeat(4096), here.join("l4096")))),
    );
    said.note("read", fs::read_link(there.join("l4095")).map(|t| t.as_os_str().len()).map_err(|e| e.raw_os_error()));
    said.note("a path of 5000", e(fs::metadata(there.join("x/".repeat(2500)))));
    symlink("loop", here.join("loop")).expect("links");
    symlink("dangling-target", here.join("dangling")).expect("links");
    said.note("a loop", (e(File::open(there.join("loop"))), e(fs::read_dir(there.join("loop/x")))));
    let flags = |name: &str, flags: OFlags| open(there.join(name), flags, Mode::from(0o644)).map(drop);
    said.note("nofollow", flags("loop", OFlags::RDONLY | OFlags::NOFOLLOW));
    said.note("excl on a link", flags("dangling", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY));
    said.note(
        "create through a link",
        (flags("dangling", OFlags::CREATE | OFlags::WRONLY), e(fs::metadata(here.join("dangling-target")))),
    );
    said.note(
        "a folder opened",
        (flags("dir", OFlags::WRONLY), flags("dir", OFlags::CREATE | OFlags::RDONLY), flags("file", OFlags::DIRECTORY)),
    );
    said.note("below a file", (e(fs::metadata(there.join("file/x"))), flags("file/", OFlags::RDONLY)));
    renames(there, said);
    said.note("unlink", (unlink(there.join("dir")), unlink(there.join("none")), unlink(there.join("x/"))));
    said.note(
        "rmdir",
        (rmdir(there.join("x")), rmdir(there.join("dir")), rmdir(there.join("dir/.")), rmdir(there.join("dir/sub/.."))),
    );
    said.note(
        "hard links",
        (
            e(fs::hard_link(there.join("dir"), there.join("d2"))),
            e(fs::hard_link(there.join("x"), there.join("dir"))),
            e(fs::hard_link(there.join("x"), "/proc/x")),
        ),
    );
    said.note("another file system", e(fs::rename(there.join("x"), "/proc/x")));
    let mut listed: Vec<_> = fs::read_dir(here).expect("lists").map(|n| n.expect("a name").file_name()).collect();
    listed.sort();
    said.note("left", listed);
}

#[test]
fn names_answer_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("posix-names", names);
}

fn nodes_and_times(here: &Path, there: &Path, said: &mut Said) {
    let kinds = [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("char", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("block", FileType::BlockDevice, rustix::fs::makedev(259, 300_000)),
        ("plain", FileType::RegularFile, 0),
        ("dir", FileType::Directory, 0),
    ];
    for (name, kind, dev) in kinds {
        said.note(name, mknodat(CWD, here.join(name), kind, Mode::from(0o640), dev));
        let found = fs::symlink_metadata(there.join(name));
        let of = |m: fs::Metadata| (m.mode(), m.rdev(), m.nlink(), m.len(), m.file_type().is_fifo());
        said.note("found", found.map(of).map_err(|e| e.raw_os_error()));
    }
    let at = |secs, nanos| Timespec { tv_sec: secs, tv_nsec: nanos };
    let (now, omit) = (at(0, UTIME_NOW), at(0, UTIME_OMIT));
    let stat = |name: &str| {
        let m = fs::symlink_metadata(there.join(name)).expect("stat");
        let recent = |secs: i64| if secs > 1_600_000_000 { 0 } else { secs };
        let nanos = |secs: i64, nanos| if secs > 1_600_000_000 { 0 } else { nanos };
        (recent(m.atime()), nanos(m.atime(), m.atime_nsec()), recent(m.mtime()), nanos(m.mtime(), m.mtime_nsec()))
    };
    symlink("plain", here.join("link")).expect("links");
    for (name, flags) in [("plain", AtFlags::empty()), ("fifo", AtFlags::empty()), ("link", AtFlags::SYMLINK_NOFOLLOW)]
    {
        for (a, m) in [
            (at(1, 999_999_999), at(1_234_567_890, 1)),
            (omit, at(77, 5)),
            (at(88, 6), omit),
            (omit, omit),
            (at(-5, 500), at(-1, 0)),
            (now, at(9, 9)),
            (at(1, 1_000_000_000), at(0, 0)),
            (at(1, 0), at(1, 0)),
            (now, now),
        ] {
            let times = Timestamps { last_access: a, last_modification: m };
            let what = format!("{name} {:?} {:?}", (a.tv_sec, a.tv_nsec), (m.tv_sec, m.tv_nsec));
            said.note(what, (utimensat(CWD, here.join(name), &times, flags), stat(name)));
        }
    }
    said.note("the target of the link", stat("plain"));
}

#[test]
fn nodes_and_times_answer_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("posix-nodes", nodes_and_times);
}

fn rights(here: &Path, there: &Path, said: &mut Said) {
    fs::set_permissions(here, fs::Permissions::from_mode(0o755)).expect("chmod");
    shells(
        here,
        there,
        said,
        &[
            "umask 022; mkdir -m 1777 sticky; mkdir -m 777 open; echo a > sticky/a; chown 5:5 sticky/a; echo b > open/b; chown 5:5 open/b",
            "setpriv --reuid 6 --clear-groups rm -f sticky/a; setpriv --reuid 6 --clear-groups mv sticky/a sticky/c; ls sticky",
            "setpriv --reuid 6 --clear-groups rm -f open/b; ls open",
            "setpriv --reuid 5 --clear-groups mv sticky/a sticky/c; ls sticky",
            "setpriv --reuid 6 --clear-groups touch x; setpriv --reuid 6 --clear-groups mkdir y; ls",
            "echo f > f; chown 5:7 f; chmod 660 f; setpriv --reuid 6 --clear-groups cat f; setpriv --reuid 6 --groups 7 cat f",
            "setpriv --reuid 6 --groups 7 chmod 777 f; setpriv --reuid 6 --groups 7 chown 6 f; stat -c '%a %u' f",
            "setpriv --reuid 6 --groups 7 touch f && echo touched; setpriv --reuid 6 --groups 7 touch -d 2001-01-01 f",
            "setpriv --reuid 5 --regid 5 --groups 5,7 chgrp 7 f && setpriv --reuid 5 --clear-groups chgrp 8 f; stat -c %g f",
            "setpriv --reuid 5 --regid 5 --clear-groups chmod 2770 f; stat -c %a f; setpriv --reuid 5 --regid 5 --groups 7 chmod 2770 f; stat -c %a f",
            "chmod 6777 f; setpriv --reuid 6 --clear-groups sh -c 'echo x >> f'; stat -c %a f",
            "chmod 6777 f; setpriv --reuid 6 --clear-groups truncate -s 3 f; stat -c %a f",
            "chmod 6777 f; setpriv --reuid 6 --clear-groups fallocate -l 9999 f; stat -c %a f",
            "chmod 6777 f; setpriv --reuid 6 --clear-groups fallocate -p -l 4096 f; stat -c %a f",
            "chmod 6777 f; fallocate -l 99999 f; stat -c %a f",
            "mkdir sg; chown 0:9 sg; chmod 2775 sg; mkdir sg/d; touch sg/f; stat -c '%a %g' sg/d sg/f",
            "cp /bin/true t; chmod 700 t; ./t && echo ran; setpriv --reuid 6 --clear-groups ./t; chmod 711 t; setpriv --reuid 6 --clear-groups ./t && echo ran",
            "mkdir deep; cd deep; rmdir ../deep; touch x; cd ..; ls -d deep",
        ],
    );
}

#[test]
fn rights_answer_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("posix-rights", rights);
}

#[test]
fn a_program_that_runs_is_not_written_and_one_that_is_written_does_not_run() {
    let Some(folder) = Folder::new("busy") else { return };
    for n in [1, 2] {
        folder.through(n, move |dir| {
            let program = dir.join(format!("sleep-{n}"));
            // Its writer is a process of its own. Prevents: a descriptor of this one is open in what another test just starts, until
            // that is executed, and the program is still written.
            let script = "cp /bin/sleep \"$0\" && exec 3>>\"$0\" && \"$0\" 0; echo $?";
            let written = Command::new("sh").args(["-c", script]).arg(&program).output().expect("sh runs");
            let said = String::from_utf8_lossy(&written.stderr);
            assert!(written.stdout == b"126\n" && said.contains("Text file busy"), "it is written: {written:?}");
            let busy = Some(rustix::io::Errno::TXTBSY.raw_os_error());
            let mut running = Command::new(&program).arg("60").spawn().expect("runs");
            let refused = File::options().write(true).open(&program).map(drop);
            running.kill().expect("it is our child");
            running.wait().expect("it is our child");
            assert_eq!(refused.expect_err("it runs").raw_os_error(), busy);
        });
    }
}

fn nameless(here: &Path, there: &Path, said: &mut Said) {
    let make = |flags: OFlags| open(here, OFlags::TMPFILE | OFlags::RDWR | flags, Mode::from(0o666)).map(File::from);
    let by_fd = |file: &File, to: &str| {
        use std::os::fd::AsRawFd;
        linkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), CWD, here.join(to), AtFlags::SYMLINK_FOLLOW)
    };
    let mut file = make(OFlags::empty()).expect("a file without a name");
    file.write_all(b"kept").expect("writes");
    let found = file.metadata().expect("stat");
    said.note("fresh", (found.nlink(), found.mode(), found.len(), fs::read_dir(there).expect("lists").count()));
    said.note("named", (by_fd(&file, "a"), fs::read(there.join("a")).ok(), file.metadata().expect("stat").nlink()));
    said.note("twice", (by_fd(&file, "a"), by_fd(&file, "b"), fs::metadata(there.join("b")).expect("stat").nlink()));
    drop(file);
    said.note("closed", fs::read(there.join("a")).ok());
    fs::remove_file(there.join("a")).expect("removes");
    said.note("one is left", fs::read(here.join("b")).ok());
    let never = make(OFlags::EXCL).expect("a file that never gets a name");
    said.note("never named", by_fd(&never, "c"));
    let gone = make(OFlags::empty()).expect("a file without a name");
    drop(gone);
    said.note("in a file", open(here.join("b"), OFlags::TMPFILE | OFlags::RDWR, Mode::from(0o666)).map(drop));
    said.note("to read only", open(here, OFlags::TMPFILE | OFlags::RDONLY, Mode::from(0o666)).map(drop));
}

#[test]
fn files_without_a_name_answer_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("posix-nameless", nameless);
}

fn copies(here: &Path, there: &Path, said: &mut Said) {
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|i| (i * 7 + (i >> 9)) as u8).collect();
    fs::write(here.join("from"), &bytes).expect("writes");
    fs::write(here.join("to"), "what was there before").expect("writes");
    let from = File::open(there.join("from")).expect("opens");
    let to = File::options().read(true).write(true).open(there.join("to")).expect("opens");
    let sum = |name: &str| {
        let found = fs::read(here.join(name)).expect("reads");
        (
            found.len(),
            found.iter().enumerate().fold(0_u64, |s, (i, b)| s.wrapping_mul(31).wrapping_add(i as u64 ^ u64::from(*b))),
        )
    };
    for (at, to_at, len) in [
        (0_u64, 0_u64, 10_usize),
        (100, 5, 5000),
        (4096, 8192, 1 << 20),
        (2_999_000, 100, 10_000),
        (3_000_001, 0, 10),
        (5_000_000, 0, 10),
        (0, 2_000_000, 3_000_001),
    ] {
        let (mut a, mut b, mut left, mut told) = (at, to_at, len, Vec::new());
        // As callers have to: until nothing more comes.
        loop {
            match copy_file_range(&from, Some(&mut a), &to, Some(&mut b), left) {
                Ok(0) => break,
                Ok(n) => left -= n,
                Err(errno) => {
                    told.push(errno);
                    break;
                }
            }
        }
        said.note(format!("{at} to {to_at}, {len}"), (told, a, b, left, sum("to")));
    }
    let mut end = &from;
    said.note(
        "at the file's own place",
        (
            end.seek(SeekFrom::Start(7)).ok(),
            copy_file_range(&from, None, &to, None, 20),
            end.stream_position().ok(),
            sum("to"),
        ),
    );
    let both = File::options().read(true).write(true).open(there.join("from")).expect("opens");
    said.note(
        "within one file",
        (copy_file_range(&both, Some(&mut 0), &both, Some(&mut 100_000), 50_000), sum("from")),
    );
    said.note("onto itself", copy_file_range(&both, Some(&mut 0), &both, Some(&mut 10), 50_000));
    let append = File::options().append(true).open(there.join("to")).expect("opens");
    said.note("append", copy_file_range(&from, Some(&mut 0), &append, None, 10));
    said.note("to read only", copy_file_range(&from, Some(&mut 0), &from, Some(&mut 4_000_000), 10));
}

#[test]
fn copies_within_the_volume_answer_as_on_ext4_through_every_pair_of_nodes() {
    answers_as_ext4("posix-copies", copies);
}

#[test]
fn deep_paths_and_a_file_of_16_tib_are_the_same_through_every_node() {
    let Some(folder) = Folder::new("deep") else { return };
    for (here, there) in PAIRS {
        const DEPTH: usize = 300;
        const LEN: u64 = 16 << 40;
        folder.through(here, |dir| {
            let mut at = rustix::fs::open(dir, OFlags::DIRECTORY, Mode::empty()).expect("opens");
            for _ in 0..DEPTH {
                mkdirat(&at, "a-name-of-some-length", Mode::from(0o755)).expect("makes");
                at = openat(&at, "a-name-of-some-length", OFlags::DIRECTORY, Mode::empty()).expect("opens");
            }
            let file =
                File::from(openat(&at, "file", OFlags::CREATE | OFlags::RDWR, Mode::from(0o644)).expect("creates"));
            file.set_len(LEN).expect("grows");
            file.write_all_at(b"end", LEN - 3).expect("writes");
        });
        folder.through(there, |dir| {
            let mut at = rustix::fs::open(dir, OFlags::DIRECTORY, Mode::empty()).expect("opens");
            for _ in 0..DEPTH {
                at = openat(&at, "a-name-of-some-length", OFlags::DIRECTORY, Mode::empty()).expect("opens");
            }
            let mut file = File::from(openat(&at, "file", OFlags::RDONLY, Mode::empty()).expect("opens"));
            let found = file.metadata().expect("stat");
            assert_eq!((found.len(), found.blocks()), (LEN, 8));
            file.seek(SeekFrom::Start(LEN - 5)).expect("seeks");
            let mut end = Vec::new();
            file.read_to_end(&mut end).expect("reads");
            assert_eq!(end, b"\0\0end");
        });
        folder.through(here, |dir| fs::remove_dir_all(dir.join("a-name-of-some-length")).expect("removes"));
    }
}

#[test]
fn ioctls_tell_alignment_flags_and_hints_and_refuse_the_others() {
    // perl is part of every Debian. XFS_IOC_DIOINFO, FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, BLKSSZGET.
    let script = r#"
        open F, '+<', $ARGV[0] or die; $b = "\0" x 64;
        print ioctl(F, 0x800c581e, $b) ? join(' ', unpack 'L3', $b) : $!+0, "\n";
        $b = "\0" x 64; print ioctl(F, 0x80086601, $b) ? unpack('L', $b) : $!+0, "\n";
        $b = "\0" x 64; print ioctl(F, 0x801c581f, $b) ? join(' ', unpack 'L4', $b) : $!+0, "\n";
        $b = pack('L4 x12', 0x800, 1 << 20, 0, 0); print ioctl(F, 0x401c5820, $b) ? 'set' : $!+0, "\n";
        $b = "\0" x 64; print ioctl(F, 0x801c581f, $b) ? join(' ', unpack 'L4', $b) : $!+0, "\n";
        $b = pack('L4 x12', 0x800, 1000, 0, 0); print ioctl(F, 0x401c5820, $b) ? 'set' : $!+0, "\n";
        $b = "\0" x 64; print ioctl(F, 0x1268, $b) ? 'known' : $!+0, "\n";
    "#;
    let Some(folder) = Folder::new("ioctls") else { return };
    for (here, there) in PAIRS {
        folder.through(here, |dir| fs::write(dir.join("file"), vec![1; 5000]).expect("writes"));
        let said = folder.through(there, move |dir| {
            let out = Command::new("perl").args(["-e", script]).arg(dir.join("file")).output().expect("perl runs");
            String::from_utf8_lossy(&out.stdout).into_owned()
        });
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines, ["512 512 2147483136", "0", "0 0 1 0", "set", "2048 1048576 1 0", "22", "25"]);
        folder.through(here, |dir| fs::remove_file(dir.join("file")).expect("removes"));
    }
}

#[test]
fn a_folder_is_shown_as_one_block_long() {
    let Some(folder) = Folder::new("sizes") else { return };
    folder.through(2, |dir| {
        assert_eq!(fs::metadata(dir).expect("stat").len(), 4096);
    });
}
