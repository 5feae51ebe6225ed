//! `shorefast demo --replica`: two sites in two processes of this very program keep one replicated device; a load writes it over
//! NBD and verifies what it reads; the site that is written is killed, and everything that was acknowledged is looked for
//! at the other.
//!
//! As a user would do it: `replica create`, `up`, `primary`, `secondary`, the control sockets and NBD. Whatever happens, also
//! Ctrl-C, the processes are ended by their identity and the folder is taken away.
//!
//! - `sites`: the two sites, and how they go away again. `nbd`: a client. `load`: what writes and verifies.
//! - `run`: the phases. `watch`: what is seen meanwhile. `report`, `chart`: how it is told.

mod chart;
mod load;
mod nbd;
mod report;
mod run;
mod sites;
mod watch;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::interrupt::Interrupt;
use super::timeline::Timeline;
use crate::api::SCHEMA;
use crate::cli::{DemoArgs, Global};
use crate::commands::print;
use crate::exit::{Exit, Failure};
use report::ReplicaReport;
use run::Run;
use sites::Sites;

/// The demo; when it returns, what was started has ended and what was made is gone. `dir` becomes its folder.
pub(super) fn staged(
    args: &DemoArgs,
    global: &Global,
    interrupt: &Interrupt,
    timeline: &Arc<Timeline>,
    dir: &mut Option<PathBuf>,
) -> Result<Exit, Failure> {
    timeline.say("two sites start, on 127.0.0.1 and 127.0.0.2, each with a disk of its own");
    let sites = Sites::start(args.dir.as_deref(), interrupt)?;
    *dir = Some(sites.dir.clone());
    let report = Run::begin(sites, Arc::clone(timeline), interrupt.clone())?.all()?;
    fs::write(&args.report, report::page(&report)).map_err(|e| {
        Failure::failed(
            format!("The report {} cannot be written: {e}.", args.report.display()),
            "Name another file with --report.",
        )
    })?;
    let told = timeline.end_live();
    tell(args, global, &report, told)?;
    Ok(if report.ok() { Exit::Ok } else { Exit::Failed })
}

fn tell(args: &DemoArgs, global: &Global, report: &ReplicaReport, told: bool) -> Result<(), Failure> {
    if global.json {
        let mut json = serde_json::json!({ "schema": SCHEMA, "ok": report.ok(), "report": args.report });
        if let (Some(all), Ok(serde_json::Value::Object(found))) = (json.as_object_mut(), serde_json::to_value(report))
        {
            all.extend(found);
        }
        return print(&format!("{json}\n"));
    }
    let mut text = if told { "\n".to_owned() } else { super::report::story(&report.marks) };
    text += &report::terminal(report);
    text += &format!("The report: {}\n", args.report.display());
    print(&text)
}
