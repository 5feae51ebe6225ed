//! Holds a page under docs/ to what the program says of itself. `UPDATE_DOCS=1` writes the page instead.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Tests run side by side; a page is read and written by one of them at a time.
static PAGES: Mutex<()> = Mutex::new(());

fn page_path(page: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(page)
}

/// A page as it is.
pub(crate) fn page(page: &str) -> String {
    let _alone = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    fs::read_to_string(page_path(page)).unwrap_or_else(|e| panic!("{page}: {e}"))
}

/// Fails unless the page is exactly `text` up to its first section.
pub(crate) fn head_holds(page: &str, text: &str) {
    let _alone = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let path = page_path(page);
    let whole = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"));
    let end = whole.find("\n## ").map_or(whole.len(), |end| end + 1);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{text}{}", &whole[end..])).expect("writing the page");
        return;
    }
    assert!(
        &whole[..end] == text,
        "the beginning of {page} is not what the program says; run `UPDATE_DOCS=1 cargo test -p shorefast` and look"
    );
}

/// Fails unless the fenced block named `name` (```` ```name ````) of the page is exactly `text`.
pub(crate) fn block_holds(page: &str, name: &str, text: &str) {
    let _alone = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let path = page_path(page);
    let whole = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"));
    let open = format!("```{name}\n");
    let start = whole.find(&open).unwrap_or_else(|| panic!("{page} has no block ```{name}")) + open.len();
    let end = start + whole[start..].find("```").unwrap_or_else(|| panic!("{page}: block ```{name} does not end"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{}{text}{}", &whole[..start], &whole[end..])).expect("writing the page");
        return;
    }
    assert!(&whole[start..end] == text, "{page}, block {name}, differs from the program:\n{text}");
}
