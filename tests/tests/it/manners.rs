//! Small rules of the house: module documents, no leftovers, no paths of anybody's own machine, honest skips.

use std::fs;

use tests::tree::{CRATES, root, rust_files, text_files};

use crate::none;

#[test]
fn every_file_says_at_its_top_what_it_is() {
    let silent: Vec<String> = rust_files()
        .into_iter()
        .filter(|f| (!f.is_test() || f.path.starts_with("tests/")) && !f.text.trim_start().starts_with("//!"))
        .map(|f| f.path)
        .collect();
    none("a file begins with its module document", &silent);
}

#[test]
fn modules_are_files_beside_their_folder() {
    let old: Vec<String> = rust_files().into_iter().map(|f| f.path).filter(|p| p.ends_with("/mod.rs")).collect();
    none("`foo.rs` and `foo/`, no mod.rs", &old);
}

#[test]
fn what_is_missing_is_said_in_a_sentence() {
    let mut offences = Vec::new();
    for file in rust_files() {
        for (n, line) in file.code().comments.lines().enumerate() {
            for marker in ["TODO", "FIXME", "XXX", "HACK"] {
                let Some((_, rest)) = line.split_once(marker) else { continue };
                let sentence = rest.trim_start_matches(':').trim();
                if marker != "TODO" || sentence.len() < 30 || !sentence.contains(' ') {
                    offences.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
                }
            }
        }
    }
    none("a TODO is a sentence: what is missing, and what happens meanwhile", &offences);
}

#[test]
fn nothing_dead_is_kept_alive() {
    let mut offences = Vec::new();
    for file in rust_files() {
        let code = file.code();
        for (n, line) in code.code.lines().enumerate() {
            if line.contains("allow(dead_code)") || line.contains("allow(unused") || line.contains("expect(dead_code") {
                offences.push(format!("{}:{}", file.path, n + 1));
            }
        }
    }
    none("dead code is removed, not allowed", &offences);
}

#[test]
fn unsafe_code_is_only_where_the_system_is_touched() {
    let mut offences = Vec::new();
    for folder in CRATES.iter().filter(|c| !["block", "fuse"].contains(c)) {
        let lib = fs::read_to_string(root().join(folder).join("src/lib.rs")).unwrap_or_default();
        if !lib.contains("#![forbid(unsafe_code)]") {
            offences.push(format!("{folder} does not forbid it"));
        }
    }
    for file in rust_files().iter().filter(|f| !f.is_test()) {
        let code = file.code();
        let used = code.code.contains("unsafe {") || code.code.contains("unsafe impl");
        if used && !file.text.contains("#![allow(unsafe_code)]") {
            offences.push(format!("{} uses it without allowing it at its top", file.path));
        }
    }
    none("unsafe code lives in block's and fuse's glue, in files that say so", &offences);
}

#[test]
fn ignored_tests_are_long_ones_and_say_so() {
    let mut offences = Vec::new();
    for file in rust_files() {
        for (n, line) in file.text.lines().enumerate().filter(|(_, l)| l.trim_start().starts_with("#[ignore")) {
            let reasoned = line.contains("= \"long: ") || line.contains("= \"bench: ");
            if !reasoned {
                offences.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
            }
        }
    }
    none("`#[ignore = \"long: REASON\"]`; what cannot run somewhere prints `skipped: REASON` instead", &offences);
}

#[test]
fn no_file_knows_anybodys_own_machine() {
    // Put together here, so that this file does not break its own rule.
    let homes = ["home", "root", "Users", "work"].map(|h| format!("/{h}/"));
    let talk =
        [["chat", "gpt"], ["language ", "model"], ["AI ", "assistant"], ["pair ", "session"], ["this ", "prompt"]];
    let talk = talk.map(|w| w.concat());
    let mut offences = Vec::new();
    for file in text_files() {
        for (n, line) in file.text.lines().enumerate() {
            let home = homes.iter().find(|h| starts_a_path(line, h));
            let said = talk.iter().find(|w| line.to_lowercase().contains(&w.to_lowercase()));
            if let Some(what) = home.or(said) {
                offences.push(format!("{}:{}: {what}", file.path, n + 1));
            }
        }
    }
    none("the tree speaks of itself alone", &offences);
}

/// A path may begin after a space or a quote; in the middle of another path the same letters are a name.
fn starts_a_path(line: &str, head: &str) -> bool {
    line.match_indices(head).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}/".contains(c)))
}
