//! What documents promise is there: each guarantee of docs/semantics names tests that exist.

use std::collections::BTreeSet;

use tests::tree::{files_below, rust_files};

use crate::none;

/// Every test function of the workspace.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in rust_files() {
        let lines: Vec<&str> = file.text.lines().collect();
        for f in file.code().functions() {
            let above = &lines[f.line.saturating_sub(8)..f.line - 1];
            let attributes = above.iter().rev().take_while(|l| l.trim_start().starts_with(['#', '/']));
            if attributes.into_iter().any(|l| l.contains("test")) || in_proptest(&lines, f.line) {
                names.insert(f.name);
            }
        }
    }
    names
}

/// Tests inside `proptest! { ... }` carry their attribute too, but some have documents between.
fn in_proptest(lines: &[&str], line: usize) -> bool {
    lines[..line].iter().rev().take(12).any(|l| l.trim() == "#[test]")
}

/// The words in backticks on lines that begin with `Test:` or `Tests:` (a list mark may stand before).
fn promised(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut listing = false;
    for (n, line) in text.lines().enumerate() {
        let bare = line.trim_start_matches(['-', '*', ' ', '_', '>', '|']);
        if bare.is_empty() {
            listing = false;
        }
        let Some(from) =
            ["Test: ", "Tests: ", "Test:\u{a0}"].iter().find_map(|m| line.find(m)).or(listing.then_some(0))
        else {
            continue;
        };
        listing = true;
        for word in line[from..].split('`').skip(1).step_by(2) {
            let name = word.rsplit("::").next().unwrap_or(word);
            if name.contains('_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                found.push((n + 1, name.to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_test_that_a_guarantee_names_exists() {
    let names = test_names();
    let mut offences = Vec::new();
    for page in files_below("docs/semantics", &["md"]) {
        for (line, name) in promised(&page.text).into_iter().filter(|(_, n)| !names.contains(n)) {
            offences.push(format!("{}:{line}: there is no test {name}", page.path));
        }
    }
    none("a numbered guarantee is a test of that name", &offences);
}

/// Names of tests are sentences; a word with so many underscores is nothing else.
const SENTENCE: usize = 4;

/// Also in tables, and in the middle of a sentence.
#[test]
fn every_word_of_the_semantics_that_reads_as_a_test_is_one() {
    let names = test_names();
    let mut offences = Vec::new();
    for page in files_below("docs/semantics", &["md"]) {
        for (n, line) in page.text.lines().enumerate() {
            for word in line.split('`').skip(1).step_by(2) {
                let name = word.rsplit("::").next().unwrap_or(word);
                let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                if plain && name.matches('_').count() >= SENTENCE && !names.contains(name) {
                    offences.push(format!("{}:{}: there is no test {name}", page.path, n + 1));
                }
            }
        }
    }
    none("a test that a page names is there", &offences);
}

#[test]
fn every_numbered_guarantee_names_a_test() {
    let mut offences = Vec::new();
    for page in files_below("docs/semantics", &["md"]) {
        let sections: Vec<&str> = page.text.split("\n### ").skip(1).collect();
        for section in sections {
            let title = section.lines().next().unwrap_or_default();
            let numbered = title.split(['.', ' ']).next().is_some_and(|w| w.chars().any(|c| c.is_ascii_digit()));
            if numbered && promised(section).is_empty() {
                offences.push(format!("{}: {title}", page.path));
            }
        }
    }
    none("a numbered guarantee (`### N ...`) has a line `Tests: ...` with names in backticks", &offences);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut offences = Vec::new();
    let pages = files_below("docs", &["md"]);
    for page in pages {
        let folder = page.path.rsplit_once('/').map_or("", |(f, _)| f);
        for target in page.text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            let outside = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !outside && !tests::tree::root().join(folder).join(path).exists() {
                offences.push(format!("{}: {target}", page.path));
            }
        }
    }
    none("links lead to files that exist", &offences);
}
