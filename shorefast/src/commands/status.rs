//! `status`: the whole picture, one line of it, or the picture again and again.

use std::time::Duration;

use crate::api::Status;
use crate::cli::{Global, StatusArgs};
use crate::commands::{client, print};
use crate::exit::{Exit, Failure};
use crate::render;

/// People read no faster.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Moves the cursor home and clears what follows; the screen does not flicker.
const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";

/// `status`
pub(super) fn run(args: &StatusArgs, global: &Global) -> Result<Exit, Failure> {
    if args.watch {
        return watch(global);
    }
    let status = client(global).status()?;
    if global.json {
        print_status_json(&status)?;
    } else if args.check {
        print(&render::check(&status))?;
    } else {
        print(&render::status(&status))?;
    }
    Ok(if args.check && !status.problems.is_empty() { Exit::Problems } else { Exit::Ok })
}

/// Goes on also while the daemon is away: that is when people watch.
fn watch(global: &Global) -> Result<Exit, Failure> {
    let client = client(global);
    loop {
        match client.status() {
            Ok(status) if global.json => print_status_json(&status)?,
            Ok(status) => print(&format!("{HOME_AND_CLEAR}{}", render::status(&status)))?,
            Err(failure) if global.json => return Err(failure),
            Err(failure) => print(&format!("{HOME_AND_CLEAR}{failure}\n"))?,
        }
        std::thread::sleep(WATCH_PERIOD);
    }
}

/// The contract's shape: the fields of the status itself, not below a name.
fn print_status_json(status: &Status) -> Result<(), Failure> {
    let text = serde_json::to_string(status)
        .map_err(|e| Failure::failed(format!("The answer is not JSON: {e}."), "That is a defect."))?;
    print(&format!("{text}\n"))
}
