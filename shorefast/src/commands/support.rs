//! `support-bundle`: plans, has the parts made, writes the archive, says what is in it. Needs no daemon; what a daemon that
//! is not there, or does not answer, cannot tell is left out and named.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::cli::{Global, SupportArgs};
use crate::clock::WallTime;
use crate::commands::{client_of, print, print_json, progress};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::places;
use crate::support::{self, Known, Outcome, Wishes};

/// Everything but checks, unless `--within` says otherwise: somebody waits.
const WITHIN: Duration = Duration::from_secs(60);
/// With checks.
const WITHIN_CHECKS: Duration = Duration::from_secs(600);
/// Where systemd runs, there is a journal.
const SYSTEMD: &str = "/run/systemd/system";

/// `support-bundle`
pub(super) fn run(args: &SupportArgs, global: &Global) -> Result<Exit, Failure> {
    let at = WallTime::now();
    let (config, known) = known(args, global);
    let out = out(args, at, config.as_ref())?;
    let program = std::env::current_exe()
        .map_err(|e| Failure::failed(format!("This program does not find itself: {e}."), "See /proc."))?;
    let wishes = Wishes { check: args.check, log: args.log.clone(), journal: Path::new(SYSTEMD).exists() };
    let all = args.within.map_or(if args.check { WITHIN_CHECKS } else { WITHIN }, |s| Duration::from_secs(s.into()));
    let mut say = progress(global);
    say("Looking which volumes there are.");
    let first = support::run_one(&program, support::first(&known), all);
    let records = support::records_of(&String::from_utf8_lossy(&first.text));
    let mut parts = support::rest(&known, &wishes);
    parts.extend(support::disks(&known, &wishes, &records));
    say(&format!("Collecting {} parts.", parts.len()));
    let mut outcomes = vec![first];
    outcomes.extend(support::gather(&program, parts, all));
    support::write(&out, at, &outcomes).map_err(|e| cannot_write(&out, &e))?;
    tell(&out, at, &outcomes, global)?;
    Ok(if outcomes.iter().all(|o| o.lacks.is_none()) { Exit::Ok } else { Exit::Problems })
}

/// Where things lie: by the configuration, or where they are by default if it cannot be read; a part says why it cannot.
fn known(args: &SupportArgs, global: &Global) -> (Option<Config>, Known) {
    let config = Config::load(&args.config).ok();
    let of = |path: Option<&PathBuf>, default: &str| path.cloned().unwrap_or_else(|| default.into());
    let socket = of(config.as_ref().map(|c| &c.socket), places::SOCKET);
    let known = Known {
        config: absolute(&args.config),
        bundle: of(config.as_ref().map(|c| &c.bundle), places::BUNDLE),
        socket: client_of(global, &socket).socket().to_owned(),
        state_dir: of(config.as_ref().map(|c| &c.state_dir), places::STATE),
        replicas: places::REPLICAS.into(),
    };
    (config, known)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn out(args: &SupportArgs, at: WallTime, config: Option<&Config>) -> Result<PathBuf, Failure> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let (year, month, day) = at.date();
    let time = at.time_of_day().replace(':', "");
    let name = || format!("shorefast-support-{host}-{year:04}{month:02}{day:02}-{time}.tar.gz").into();
    let out = absolute(&args.out.clone().unwrap_or_else(name));
    let mounts = config.map_or_else(|| PathBuf::from(places::MOUNTS), |c| c.mount_root.clone());
    if out.starts_with(&mounts) {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} lies on a volume, which may be just what does not answer.", out.display()),
            "Name a file on a local disk with --out.",
        ));
    }
    Ok(out)
}

fn cannot_write(path: &Path, e: &std::io::Error) -> Failure {
    let kind = if e.kind() == std::io::ErrorKind::AlreadyExists { Exit::Refused } else { Exit::Failed };
    Failure::new(
        kind,
        format!("The bundle {} cannot be written: {e}.", path.display()),
        "Name another with --out FILE.",
    )
}

fn tell(path: &Path, at: WallTime, outcomes: &[Outcome], global: &Global) -> Result<(), Failure> {
    if global.json {
        let part = |o: &Outcome| json!({ "name": o.part.name, "bytes": o.text.len(), "lacks": o.lacks.as_deref().map(support::masked) });
        let parts: Vec<_> = outcomes.iter().map(part).collect();
        return print_json("support_bundle", &json!({ "file": path, "parts": parts }));
    }
    if global.quiet {
        return Ok(());
    }
    print(&format!(
        "{}\nWrote {}. Look through it before you give it away.\n",
        support::contents(at, outcomes),
        path.display()
    ))
}
