//! What is agreed with kernels of several kinds.

use super::*;
use zerocopy::IntoBytes;

/// What Linux 6.18 offers.
const NEW: InitIn =
    InitIn { major: 7, minor: 45, max_readahead: 131_072, flags: 0x73ff_fffb, flags2: 0x7fd, unused: [0; 11] };

const WANTED: Wanted<'_> = Wanted { max_write: 1 << 20, max_background: 512, without: &[] };

#[test]
fn answer_to_a_new_kernel_is_these_bytes() {
    let (agreed, answer) = negotiate(&NEW, WANTED).unwrap();
    let features = agreed.features;
    assert_eq!(features.missing().count(), 0, "{features}");
    let words: Vec<u32> = answer.as_bytes().chunks(4).map(|c| u32::from_ne_bytes(c.try_into().unwrap())).collect();
    let expected =
        [7, 45, 131_072, 0x7074_f47b, 512 | 384 << 16, 1 << 20, 1, 256, 1 << 3 | 1 << 7, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(words, expected);
}

#[test]
fn writeback_cache_and_shared_mappings_are_never_asked_for() {
    let everything = InitIn { flags: u32::MAX, flags2: u32::MAX, ..NEW };
    let (agreed, _) = negotiate(&everything, WANTED).unwrap();
    for bit in [16, 19, 36, 37, 41] {
        assert_eq!(agreed.features.bits() >> bit & 1, 0, "bit {bit}");
    }
}

#[test]
fn older_kernel_gets_its_own_version() {
    let (agreed, answer) = negotiate(&InitIn { minor: 37, ..NEW }, WANTED).unwrap();
    assert_eq!((agreed.minor, answer.minor), (37, 37));
    let (_, answer) = negotiate(&InitIn { minor: 99, ..NEW }, WANTED).unwrap();
    assert_eq!(answer.minor, 45);
}

#[test]
fn kernel_below_the_floor_is_refused() {
    for (major, minor) in [(7, 36), (6, 45), (8, 0)] {
        let refused = negotiate(&InitIn { major, minor, ..NEW }, WANTED).unwrap_err();
        assert_eq!(refused, InitRefused::TooOld { major, minor });
    }
}

#[test]
fn kernel_without_locks_is_refused_by_name() {
    for (bit, name) in [(1, "POSIX_LOCKS"), (10, "FLOCK_LOCKS")] {
        let refused = negotiate(&InitIn { flags: NEW.flags & !(1 << bit), ..NEW }, WANTED).unwrap_err();
        assert!(matches!(refused, InitRefused::Lacks { name: n, .. } if n == name), "{refused}");
    }
}

#[test]
fn features_of_the_second_word_count_only_with_init_ext() {
    let (agreed, answer) = negotiate(&InitIn { flags: NEW.flags & !(1 << 30), ..NEW }, WANTED).unwrap();
    assert!(!agreed.features.has(Feature::HasExpireOnly));
    assert_eq!(answer.flags2, 0);
    let missing: Vec<_> = agreed.features.missing().map(|row| row.name).collect();
    assert_eq!(missing, ["INIT_EXT", "HAS_EXPIRE_ONLY", "HAS_RESEND"]);
}

#[test]
fn sizes_follow_what_the_kernel_can_do() {
    let (agreed, answer) = negotiate(&InitIn { flags: NEW.flags & !(1 << 22), ..NEW }, WANTED).unwrap();
    assert_eq!((agreed.max_write, answer.max_pages), (128 << 10, 32));
    for (asked, given) in [(0, 8192), (10_000, 8192), (65_536, 65_536), (u32::MAX, 1 << 20)] {
        let (agreed, _) = negotiate(&NEW, Wanted { max_write: asked, ..WANTED }).unwrap();
        assert_eq!(agreed.max_write, given);
    }
    let (_, answer) = negotiate(&NEW, Wanted { max_background: 0, ..WANTED }).unwrap();
    assert_eq!((answer.max_background, answer.congestion_threshold), (1, 1));
}

#[test]
fn needed_features_cannot_be_left_out() {
    let without = [Feature::AtomicOTrunc, Feature::MaxPages, Feature::PosixLocks];
    let (agreed, _) = negotiate(&NEW, Wanted { without: &without, ..WANTED }).unwrap();
    assert!(!agreed.features.has(Feature::AtomicOTrunc) && !agreed.features.has(Feature::MaxPages));
    assert_eq!(agreed.max_write, 32 * 4096);
    assert!(agreed.features.has(Feature::PosixLocks));
}

/// docs/kernel.md tells users what their kernel costs them.
#[test]
fn the_table_of_the_documentation_is_this_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernel.md");
    let text = std::fs::read_to_string(path).unwrap();
    let told: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| feature")).collect();
    let needed = |row: &Row| if row.want == Want::Needed { "needed" } else { "" };
    let rows: Vec<String> = TABLE
        .iter()
        .map(|row| format!("| {} | {} | {} | {} |", row.name, needed(row), row.fallback, row.lost))
        .collect();
    assert_eq!(told, rows);
}
