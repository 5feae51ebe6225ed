//! `shorefast demo`: three daemons of this very program on one machine and one shared disk image, hurt on purpose
//! while three writers count every failed call, and a report of how they took it.
//!
//! The demo talks to the daemons only as a user would: through the API socket and the mounts. It never touches a mount
//! itself; children with time limits do (`task`). Whatever happens, also Ctrl-C, it ends what it started, by process
//! identity, and takes its mounts and its folder away, unless `--keep`.
//!
//! - `cluster`, `place`, `process`, `mounts`: what is set up, and how it goes away again.
//! - `runner`: the phases. `load`, `tree_copy`, `verifying`: the children seen from outside.
//! - `writer`, `tree`, `verify`, `pattern`: the children themselves.
//! - `replica`: another demo, two sites with a replicated device. `san`: a third, three nodes on a disk array in networks of their own.
//! - `timeline`, `watch`, `outcome`, `report`: what was seen, and how it is told.

mod cluster;
mod interrupt;
mod live;
mod load;
mod mounts;
mod outcome;
mod paste;
mod pattern;
mod place;
mod process;
mod replica;
mod report;
mod runner;
mod san;
mod task;
mod timeline;
mod tree;
mod tree_copy;
mod verify;
mod verifying;
mod watch;
mod writer;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::api::SCHEMA;
use crate::cli::{DemoArgs, Global};
use crate::commands::print;
use crate::exit::{Exit, Failure};

use cluster::Cluster;
use interrupt::Interrupt;
use report::DemoReport;
use runner::Run;
use timeline::Timeline;

pub(crate) use san::outsider::{OutsiderArgs, run as outsider};
pub(crate) use san::want::{WantArgs, run as want};
pub(crate) use tree::{CopyArgs, TreeArgs, copy, follow, sums};
pub(crate) use verify::{VerifyArgs, run as verify_patterns};
pub(crate) use writer::{FillArgs, WriterArgs, fill, run as write};

/// `demo`
pub(crate) fn run(args: &DemoArgs, global: &Global) -> Result<Exit, Failure> {
    if let Some(dir) = &args.stop {
        place::stop(dir)?;
        if !global.quiet && !global.json {
            print(&format!("The demo in {} has ended.\n", dir.display()))?;
        }
        return Ok(Exit::Ok);
    }
    let live = !global.quiet && !global.json;
    let interrupt = Interrupt::listen(live)?;
    let timeline = Arc::new(Timeline::begin(live));
    let mut dir = None;
    let demo = match (args.replica, args.san) {
        (true, _) => replica::staged,
        (_, true) => san::staged,
        _ => staged,
    };
    let ended = demo(args, global, &interrupt, &timeline, &mut dir);
    timeline.end_live();
    // Whatever an interrupted demo stumbled over was the interruption.
    ended.map_err(|failure| if interrupt.check().is_err() { interrupted(dir.as_deref()) } else { failure })
}

/// The last word of an interrupted demo: what it has left.
fn interrupted(dir: Option<&Path>) -> Failure {
    let next = match dir.filter(|dir| dir.exists()) {
        None => "Its nodes have ended; no process, mount or folder of it is left.".to_owned(),
        Some(dir) => format!("{} is still there: the message above says why.", dir.display()),
    };
    Failure::failed("The demo was interrupted.", next)
}

/// The demo itself; when it returns, what was started has ended and what was made is gone, unless it was to be kept. `dir`
/// becomes its folder.
fn staged(
    args: &DemoArgs,
    global: &Global,
    interrupt: &Interrupt,
    timeline: &Arc<Timeline>,
    dir: &mut Option<PathBuf>,
) -> Result<Exit, Failure> {
    timeline.say("three daemons start, on 127.0.0.1, 127.0.0.2 and 127.0.0.3");
    let mut cluster = Cluster::start(args.dir.as_deref(), interrupt)?;
    *dir = Some(cluster.dir.clone());
    if args.keep {
        cluster.keep();
    }
    let mut run = Run::begin(cluster, Arc::clone(timeline), interrupt.clone())?;
    run.all()?;
    let Run { cluster, found, .. } = run;
    let report = found.report(&cluster, timeline);
    write_report(&args.report, &report)?;
    let told = timeline.end_live();
    tell(args, global, &cluster, &report, told)?;
    Ok(if report.ok() { Exit::Ok } else { Exit::Failed })
}

/// What a child ended with.
pub(crate) fn child(ended: io::Result<()>) -> Result<Exit, Failure> {
    ended
        .map(|()| Exit::Ok)
        .map_err(|e| Failure::failed(format!("{e}."), "The demo that started this process counts it."))
}

fn write_report(path: &Path, report: &DemoReport) -> Result<(), Failure> {
    fs::write(path, report::page(report)).map_err(|e| {
        Failure::failed(
            format!("The report {} cannot be written: {e}.", path.display()),
            "Name another file with --report.",
        )
    })
}

/// What happened is told unless it was `told` live.
fn tell(args: &DemoArgs, global: &Global, cluster: &Cluster, report: &DemoReport, told: bool) -> Result<(), Failure> {
    if global.json {
        return print(&format!("{}\n", as_json(args, cluster, report)));
    }
    let mut text = if told { "\n".to_owned() } else { report::story(&report.marks) };
    text += &report::terminal(report);
    text += &format!("The report: {}\n", args.report.display());
    if args.keep {
        text += &kept(cluster);
    }
    print(&text)
}

fn as_json(args: &DemoArgs, cluster: &Cluster, report: &DemoReport) -> serde_json::Value {
    let nodes: Vec<_> = cluster
        .members
        .iter()
        .map(|m| {
            let pid = m.process().map(|p| p.pid);
            json!({ "name": m.node.to_string(), "node": m.node, "pid": pid, "mount": m.mount(), "socket": m.socket() })
        })
        .collect();
    json!({
        "schema": SCHEMA,
        "ok": report.ok(),
        "dir": if args.keep { Some(&cluster.dir) } else { None },
        "nodes": nodes,
        "events": report.marks,
        "phases": report.phases,
        "faults": report.faults,
        "checks": report.checks,
        "stalls": report.stalls,
        "bytes_by_route": report.bytes_by_route,
        "bytes_verified": report.bytes_verified,
        "failed_calls": report.unexpected_failures(),
        "failed_calls_by_kind": report.failed_calls,
        "took_ms": report.took_ms,
        "report": args.report,
    })
}

/// What to do with a demo that was kept.
fn kept(cluster: &Cluster) -> String {
    let mut text = String::from("\nThe nodes go on. Their mounts:\n");
    for member in &cluster.members {
        text += &format!("  {}  {}\n", member.node, member.mount().display());
    }
    let sockets: Vec<String> = cluster.members.iter().map(|m| m.socket().display().to_string()).collect();
    let [one, two, ..] = sockets.as_slice() else { return text };
    text + &to_try(one, two, &cluster.dir.display().to_string())
}

/// Commands to be pasted, with the sockets of the first two nodes. The second one's disk is hurt, so the office is moved
/// to the third.
fn to_try(one: &str, two: &str, dir: &str) -> String {
    let commands: [&[&str]; 4] = [
        &["status", "--watch", "--socket", one],
        &["debug", "disk", "hang", "--socket", two],
        &["debug", "disk", "heal", "--socket", two],
        &["volume", "move", cluster::VOLUME, "--to", "node-3", "--socket", one],
    ];
    let lines: String = commands.iter().map(|args| format!("  {}\n", paste::command(args))).collect();
    format!("Try:\n{lines}End it:\n  {}\n", paste::command(&["demo", "--stop", dir]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    #[test]
    fn what_a_kept_demo_prints_to_try_can_be_pasted() {
        let text = to_try("/tmp/a demo's/node-1/api.sock", "/tmp/x/node-2/api.sock", "/tmp/a demo's");
        let commands: Vec<Vec<String>> =
            text.lines().filter(|l| l.starts_with("  ")).map(paste::tests::words).collect();
        assert_eq!(commands.len(), 5, "{text}");
        for words in &commands {
            assert!(Path::new(&words[0]).is_absolute() && Path::new(&words[0]).exists(), "{words:?}");
            cli::parse(words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
        }
        assert_eq!(commands[4][1..], ["demo", "--stop", "/tmp/a demo's"]);
    }
}
