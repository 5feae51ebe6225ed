//! Who may import whom: scsi is a leaf; scsi <- block <- net, fuse; those <- csv-fs, replicator <- shorefast; tests and benches import all, nothing imports them.

use std::fs;

use tests::tree::{CRATES, root, rust_files};

use crate::none;

/// The crates of ours that a crate may depend on.
fn allowed(folder: &str) -> &'static [&'static str] {
    match folder {
        "scsi" | "history" => &[],
        "iscsi" | "block" => &["scsi"],
        "iscsi-initiator" | "iscsi-target" => &["scsi", "iscsi", "block"],
        "net" | "fuse" => &["block"],
        "csv-fs" => &["block", "net", "fuse"],
        "replicator" => &["block", "net"],
        "shorefast" => &[
            "scsi",
            "block",
            "net",
            "fuse",
            "iscsi",
            "iscsi-initiator",
            "iscsi-target",
            "csv-fs",
            "replicator",
            "history",
        ],
        _ => &[
            "scsi",
            "block",
            "net",
            "fuse",
            "iscsi",
            "iscsi-initiator",
            "iscsi-target",
            "csv-fs",
            "replicator",
            "history",
            "shorefast",
        ],
    }
}

/// What of `block` the crates beside it may use.
const OF_BLOCK: [&str; 3] = ["buf", "worker", "units"];

#[test]
fn crates_depend_only_along_the_arrows() {
    let mut offences = Vec::new();
    for folder in CRATES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("every crate has a manifest");
        let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
        let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = sections.iter().filter_map(|s| Some((*s, manifest.get(*s)?.as_table()?)));
        let names = tables.flat_map(|(s, table)| table.keys().map(move |n| (s, n.trim_start_matches("shorefast-"))));
        for (section, name) in names.filter(|(_, n)| CRATES.contains(n)) {
            // A leaf that judges what tests have seen.
            let in_tests = section == "dev-dependencies" && name == "history";
            if !in_tests && !allowed(folder).contains(&name) {
                offences.push(format!("{folder} depends on {name}"));
            }
        }
    }
    none("imports run one way only (ARCHITECTURE.md)", &offences);
}

#[test]
fn net_and_fuse_know_only_buffers_units_and_workers_of_block() {
    let mut offences = Vec::new();
    for file in rust_files().iter().filter(|f| ["net", "fuse"].contains(&f.crate_folder())) {
        let code = file.code();
        for (at, _) in code.code.match_indices("block::") {
            let inside_a_path =
                code.code[..at].ends_with([':', '_']) || code.code[..at].ends_with(char::is_alphanumeric);
            let rest = &code.code[at + "block::".len()..];
            let module: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !inside_a_path && !OF_BLOCK.contains(&module.as_str()) && !group_is_allowed(rest) {
                offences.push(format!("{} uses block::{module}", file.path));
            }
        }
    }
    none("net and fuse import block for buffers, units and workers only", &offences);
}

/// `block::{buf::X, worker}` is as good as two lines.
fn group_is_allowed(rest: &str) -> bool {
    let Some(group) = rest.strip_prefix('{').and_then(|r| r.split("};").next()) else { return false };
    group.split(',').all(|part| OF_BLOCK.iter().any(|m| part.trim().starts_with(m)) || part.trim().is_empty())
}
