//! libiscsi's public suite for targets (`iscsi-test-cu` of Debian's libiscsi-bin) against ours, every test of it that may
//! destroy data included.
//!
//! What may fail is listed here, each with the clause that makes the test wrong; a failure that is not in the list fails, and
//! so does one in the list that does not happen any more.

use std::collections::BTreeMap;

use iscsi_target::{Lun, Portal, Target};

use crate::rig::{Rig, TARGET, run};
use crate::tgt::Tgt;

/// Tests that fail on a target that keeps to the standard.
const WRONG: [(&str, &str); 2] = [
    (
        "GetLBAStatus.UnmapSingle",
        "asks about block i+1 and wants the first descriptor to begin at i plus the blocks of a physical one. SBC-3 5.4.2.2: \
         the first descriptor begins at STARTING LOGICAL BLOCK ADDRESS",
    ),
    (
        "WriteSame10.UnmapUntilEnd",
        "writes 0xFF with WRITE SAME and UNMAP and wants to read zeroes. SBC-3 4.7.3.4.4: with LBPRZ set, data that are not \
         zero are written, not unmapped",
    ),
];

/// What became of each test: SUITE.TEST, and whether it passed; tests that found nothing to test passed.
fn results(text: &str) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    let (mut suite, mut open): (String, Option<String>) = (String::new(), None);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("Suite: ") {
            suite = name.trim().to_owned();
        }
        if let Some((name, _)) = line.trim_start().strip_prefix("Test: ").and_then(|l| l.split_once(" ...")) {
            open = Some(format!("{suite}.{name}"));
        }
        // The verdict stands alone, or behind what the test said last.
        let verdict = if line.starts_with("FAILED") || line.ends_with("...FAILED") {
            Some(false)
        } else if line.starts_with("passed") || line.ends_with("...passed") {
            Some(true)
        } else {
            None
        };
        if let (Some(passed), Some(name)) = (verdict, &open) {
            found.insert(name.clone(), passed);
            open = None;
        }
    }
    found
}

fn suite(which: &str, urls: &[&str]) -> Option<BTreeMap<String, bool>> {
    let args = [&["--dataloss", "-v", "-t", which][..], urls].concat();
    let (_, text) = run("iscsi-test-cu", 600, &args)?;
    assert!(text.contains("Run Summary"), "the suite did not come to its end:\n{text}");
    let results = results(&text);
    println!("{text}");
    Some(results)
}

fn failed(results: &BTreeMap<String, bool>) -> Vec<&str> {
    results.iter().filter(|(_, passed)| !**passed).map(|(name, _)| name.as_str()).collect()
}

/// Two ports in two groups, so that the tests of several paths have some.
fn two_portals(rig: &Rig) -> Target {
    let device = rig.device("disk.img", 256 << 20);
    let at = |group| Portal { address: "127.0.0.1:0".parse().expect("an address"), group };
    Target { portals: vec![at(1), at(2)], ..rig.target(vec![Lun::new(0, device.clone()).thin(device)]) }
}

#[test]
#[ignore = "long: the whole public suite, twice"]
fn the_public_suite_passes_but_for_what_the_standard_makes_wrong() {
    let rig = Rig::with(two_portals);
    let second = format!("iscsi://{}/{TARGET}/0", rig.server().addresses()[1]);
    let Some(ours) = suite("ALL", &[&rig.url(0), &second]) else { return };
    let wrong: Vec<&str> = WRONG.iter().map(|(name, _)| *name).collect();
    println!("ours: {} tests, failed: {:?}", ours.len(), failed(&ours));
    assert_eq!(failed(&ours), wrong, "see WRONG: {WRONG:?}");
    let Some(theirs) = Tgt::start(256 << 20).and_then(|tgt| suite("ALL", &[&tgt.url()])) else { return };
    println!("tgt: {} tests, failed: {:?}", theirs.len(), failed(&theirs));
    // What another target passes, ours passes.
    let behind = theirs.iter().filter(|(name, passed)| **passed && ours.get(*name) == Some(&false));
    let behind: Vec<&str> = behind.map(|(name, _)| name.as_str()).filter(|name| !wrong.contains(name)).collect();
    assert_eq!(behind, Vec::<&str>::new());
    assert!(failed(&theirs).len() > wrong.len(), "and more");
}

#[test]
fn the_public_tests_of_read_only_units_pass() {
    let rig = Rig::with(|rig| {
        let device = rig.device("disk.img", 64 << 20);
        rig.target(vec![Lun::new(0, device.clone()).thin(device).read_only(true)])
    });
    let Some(results) = suite("SCSI.ReadOnly", &[&rig.url(0)]) else { return };
    assert_eq!((results.len(), failed(&results)), (1, vec![]));
}
