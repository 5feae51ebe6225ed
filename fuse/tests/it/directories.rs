//! Listing directories.

use crate::harness::{Served, can_mount};
use rustix::fs::{Dir, Mode, OFlags};
use std::collections::HashSet;

#[test]
fn ten_thousand_entries_are_listed_once_each() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&[], 2);
    for n in 0..10_000 {
        served.fs.add(&format!("file-{n:05}-{}", "x".repeat(n % 60)), b"");
    }
    let root = served.mount.mountpoint().to_path_buf();
    served.within(move || {
        let names: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 10_000);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 10_000);
        // With attributes: the kernel takes them from READDIRPLUS or looks each name up.
        let files =
            std::fs::read_dir(&root).unwrap().filter(|entry| entry.as_ref().unwrap().metadata().unwrap().is_file());
        assert_eq!(files.count(), 10_000);
    });
}

#[test]
fn a_listing_goes_on_at_its_cookie_when_entries_come_and_go() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&[], 1);
    for n in 0..2000 {
        served.fs.add(&format!("{n:04}"), b"");
    }
    let root = served.mount.mountpoint().to_path_buf();
    served.within(move || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut dir = Dir::new(rustix::fs::open(&root, flags, Mode::empty()).unwrap()).unwrap();
        let mut seen = Vec::new();
        while let Some(entry) = dir.read() {
            let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
            if name.starts_with('.') {
                continue;
            }
            // Everything behind us goes away, and something new comes at the end.
            std::fs::remove_file(root.join(&name)).unwrap();
            if seen.len() == 1000 {
                std::fs::write(root.join("late"), b"").unwrap();
            }
            seen.push(name);
        }
        let expected: Vec<_> = (0..2000).map(|n| format!("{n:04}")).chain(["late".to_owned()]).collect();
        assert_eq!(seen, expected);
    });
}
