//! How long files and functions are. A long function is allowed where a `// long:` comment beside it says why.

use tests::tree::rust_files;

use crate::none;

/// Lines of a file: the end.
const FILE_MAX: usize = 800;
/// Lines of a file: a warning.
const FILE_WARN: usize = 500;
/// Lines of a function.
const FUNCTION_MAX: usize = 70;
/// The marker of a reason.
const REASON: &str = "// long: ";
/// Characters a reason has at least: a word is none.
const REASON_MIN: usize = 20;

#[test]
fn no_file_is_longer_than_800_lines() {
    let mut offences = Vec::new();
    for file in rust_files() {
        let lines = file.text.lines().count();
        if lines > FILE_MAX {
            offences.push(format!("{}: {lines} lines", file.path));
        } else if lines > FILE_WARN {
            println!("warning: {} has {lines} lines; from {FILE_WARN} on it wants to be two", file.path);
        }
    }
    none("a file ends at 800 lines", &offences);
}

#[test]
fn no_function_is_longer_than_70_lines_without_its_reason() {
    let mut offences = Vec::new();
    for file in rust_files() {
        let lines: Vec<&str> = file.text.lines().collect();
        for f in file.code().functions().into_iter().filter(|f| f.lines > FUNCTION_MAX) {
            let around = &lines[f.line.saturating_sub(4)..(f.line + 2).min(lines.len())];
            let reasoned = around.iter().any(|l| l.trim().strip_prefix(REASON).is_some_and(|r| r.len() >= REASON_MIN));
            if !reasoned {
                offences.push(format!("{}:{}: fn {} has {} lines", file.path, f.line, f.name, f.lines));
            }
        }
    }
    none("a function ends at 70 lines, or says why not beside its head (`// long: ...`)", &offences);
}
