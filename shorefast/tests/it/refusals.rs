//! What a volume refuses, and how.

use std::fs;
use std::process::Command;

use rustix::io::Errno;

use crate::shared::Folder;

/// `mmap` for reading, as a child asks for it: its errno, 0 if it was granted.
fn map(path: &std::path::Path, shared: bool) -> i32 {
    // perl is part of every Debian; SYS_mmap, and MAP_SHARED or MAP_PRIVATE, of this machine's kernel.
    let number = if cfg!(target_arch = "x86_64") { 9 } else { 222 };
    let flags = if shared { 1 } else { 2 };
    let script = format!(
        "open F, '<', $ARGV[0] or exit 255; exit(syscall({number}, 0, 4096, 1, {flags}, fileno(F), 0) == -1 ? $!+0 : 0)"
    );
    let ended = Command::new("perl").args(["-e", &script]).arg(path).status().expect("perl runs");
    ended.code().expect("it ends by itself")
}

#[test]
fn a_shared_mapping_is_refused_with_enodev_and_a_private_one_is_granted() {
    let Some(folder) = Folder::new("mapped") else { return };
    folder.through(2, |dir| {
        let path = dir.join("file");
        fs::write(&path, vec![1; 4096]).expect("writes");
        assert_eq!((map(&path, true), map(&path, false)), (Errno::NODEV.raw_os_error(), 0));
    });
}
