//! `shorefast-history FILE`: reads a raw history (`-` for standard input) and says whether one volume could have answered like
//! that. Exit codes: 0 it could, 5 it could not, 1 it is no history, 2 usage.
#![forbid(unsafe_code)]

use std::io::Read as _;
use std::process::ExitCode;

use history::{raw, verdict};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path] = args.as_slice() else {
        eprintln!(
            "usage: shorefast-history FILE (`-` for standard input; docs/evidence/README.md says what is in one)"
        );
        return ExitCode::from(2);
    };
    let mut text = String::new();
    let read = match path.as_str() {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        path => std::fs::read_to_string(path).map(|found| text = found),
    };
    let history = read.map_err(|e| e.to_string()).and_then(|()| raw::read(&text).map_err(|e| e.to_string()));
    match history.map(|history| verdict::judge(&history)) {
        Err(e) => {
            eprintln!("{path} cannot be read: {e}.");
            ExitCode::from(1)
        }
        Ok(found) => {
            print!("{found}");
            ExitCode::from(if found.is_right() { 0 } else { 5 })
        }
    }
}
