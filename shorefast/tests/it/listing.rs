//! Listing a big folder while it changes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fixture::background;
use crate::shared::Folder;

/// Threads that make names: a commit of the store serves many.
const MAKERS: usize = 16;
/// Names made between two looks at the clock.
const PART: usize = 1000;

#[test]
fn a_listing_of_2000_names_under_change_shows_each_that_stayed_exactly_once() {
    list_under_change(2000);
}

#[test]
#[ignore = "long: makes 20 000 names through three nodes"]
fn a_listing_of_20_000_names_under_change_shows_each_that_stayed_exactly_once() {
    list_under_change(20_000);
}

/// Makes names through every node, a part at a time, so that no wait is longer than the others of these tests.
fn make(folder: &Folder, stay: usize) {
    for first in (0..stay).step_by(PART) {
        let makers: Vec<_> = (0..MAKERS)
            .map(|k| {
                let dir = folder.path(1 + k % 3);
                background(move || {
                    for i in (first + k..stay.min(first + PART)).step_by(MAKERS) {
                        fs::create_dir(dir.join(format!("stays-{i}"))).expect("makes");
                    }
                })
            })
            .collect();
        for maker in makers {
            maker.ended("making the names");
        }
    }
}

fn list_under_change(stay: usize) {
    let Some(folder) = Folder::new(&format!("listing-{stay}")) else { return };
    make(&folder, stay);
    let stop = Arc::new(AtomicBool::new(false));
    let (dir, told) = (folder.path(3), Arc::clone(&stop));
    let changes = background(move || {
        let mut changed = 0;
        while !told.load(Ordering::Relaxed) {
            let (a, b) = (dir.join(format!("comes-{changed}")), dir.join(format!("goes-{changed}")));
            File::create(&a).expect("creates");
            fs::rename(&a, &b).expect("renames");
            fs::remove_file(&b).expect("removes");
            changed += 1;
        }
        changed
    });
    let mut listed = 0;
    for n in [2, 1, 2] {
        let seen: BTreeMap<String, usize> = folder.through(n, |dir| {
            let mut seen = BTreeMap::new();
            for entry in fs::read_dir(dir).expect("lists") {
                let name = entry.expect("an entry").file_name().into_string().expect("plain");
                *seen.entry(name).or_default() += 1;
            }
            seen
        });
        let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "listed twice through node {n}: {twice:?}");
        listed += seen.keys().filter(|name| name.starts_with("stays-")).count();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(changes.ended("the changes") > 0, "nothing changed meanwhile");
    assert_eq!(listed, 3 * stay);
}
