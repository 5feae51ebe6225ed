//! Pure modules know no runtime, no clock, no chance, no network, no files: what they are told is all they know.

use tests::tree::{File, rust_files};

use crate::none;

/// Folders and files whose code is pure. A path that ends with `/` is all below it.
const PURE: &[&str] = &[
    "csv-fs/src/core/",
    "csv-fs/src/core.rs",
    "csv-fs/src/format/describe.rs",
    "csv-fs/src/meta/check.rs",
    "csv-fs/src/meta/check/areas.rs",
    "csv-fs/src/meta/check/blocks.rs",
    "csv-fs/src/meta/check/clients.rs",
    "csv-fs/src/meta/check/finding.rs",
    "csv-fs/src/meta/check/log.rs",
    "csv-fs/src/meta/check/names.rs",
    "csv-fs/src/meta/check/whole.rs",
    "csv-fs/src/proto.rs",
    "csv-fs/src/types.rs",
    "fuse/src/abi/",
    "fuse/src/abi.rs",
    "fuse/src/op/",
    "fuse/src/op.rs",
    "history/src/append.rs",
    "history/src/event.rs",
    "history/src/mutex.rs",
    "history/src/names.rs",
    "history/src/raw.rs",
    "history/src/register.rs",
    "history/src/search.rs",
    "history/src/verdict.rs",
    "iscsi-target/src/core.rs",
    "iscsi-target/src/core/",
    "iscsi/src/",
    "net/src/backoff.rs",
    "net/src/frame.rs",
    "net/src/framer.rs",
    "net/src/hello.rs",
    "net/src/keepalive.rs",
    "replicator/src/nbd/core.rs",
    "replicator/src/nbd/core/",
    "replicator/src/compare.rs",
    "replicator/src/compare/",
    "replicator/src/core.rs",
    "replicator/src/core/",
    "replicator/src/ids.rs",
    "replicator/src/meta/audit.rs",
    "replicator/src/meta/bitmap.rs",
    "replicator/src/meta/layout.rs",
    "replicator/src/meta/log.rs",
    "replicator/src/meta/replica.rs",
    "replicator/src/meta/superblock.rs",
    "replicator/src/meta/vote.rs",
    "replicator/src/runtime/front.rs",
    "replicator/src/runtime/wire.rs",
    "scsi/src/",
    "shorefast/src/cli.rs",
    "shorefast/src/compose/minors.rs",
    "shorefast/src/render.rs",
    "shorefast/src/render/",
    "shorefast/src/demo/report/",
    "shorefast/src/support/mask.rs",
    "shorefast/src/support/plan.rs",
];

/// What they must not name.
const IMPURE: [&str; 14] = [
    "tokio",
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "rand::",
    "getrandom",
    "io_uring",
    "libc::",
    "rustix::",
    "HashMap",
];

fn is_pure(file: &File) -> bool {
    let named = |p: &&str| if p.ends_with('/') { file.path.starts_with(*p) } else { file.path == **p };
    PURE.iter().any(named) && !file.is_test()
}

#[test]
fn pure_modules_name_no_runtime_clock_or_chance() {
    let mut offences = Vec::new();
    let files = rust_files();
    for file in files.iter().filter(|f| is_pure(f)) {
        let code = file.code();
        // The numbers of errors are names, not calls.
        let code = code.without_tests().replace("rustix::io::Errno", "");
        for (n, line) in code.lines().enumerate() {
            for word in IMPURE.iter().filter(|w| names(line, w)) {
                offences.push(format!("{}:{}: {word}", file.path, n + 1));
            }
        }
    }
    none("pure modules are told everything", &offences);
}

/// Whether a line names a word that does not continue to its left.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn every_pure_place_is_there() {
    let files = rust_files();
    let gone: Vec<String> = PURE
        .iter()
        .filter(|p| !files.iter().any(|f| if p.ends_with('/') { f.path.starts_with(**p) } else { f.path == **p }))
        .map(|p| (*p).to_owned())
        .collect();
    none("the list of pure places names what exists", &gone);
}
