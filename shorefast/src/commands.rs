//! What each command does: asks the daemon, or works by itself, and shows the answer as a table or as JSON.

mod check;
mod daemon_asks;
mod events;
mod init;
mod iscsi;
mod nbd;
mod node;
mod redirect;
mod replica;
mod scsi;
mod status;
mod support;
mod target;
mod volume;
mod witness;

pub(crate) use iscsi::{reservations_of, reset as reset_unit};
pub(crate) use target::sessions_at;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::api::{Client, SCHEMA};
use crate::cli::{Cli, Command, DebugCommand, Global};
use crate::exit::{Exit, Failure};
use crate::{daemon, demo, places};

/// Runs a command.
pub(crate) fn run(cli: &Cli) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Demo(args) => demo::run(args, global),
        Command::Init(args) => init::run(args, global),
        Command::Daemon(args) => {
            daemon::run(&args.config, daemon::How { held: args.held, compat: args.compat }, global.verbose)
        }
        Command::Volume(command) => volume::run(command, global),
        Command::Node(command) => node::run(command, global),
        Command::Status(args) => status::run(args, global),
        Command::SupportBundle(args) => support::run(args, global),
        Command::SupportPart(part) => crate::support::run_part(part).map(|()| Exit::Ok),
        Command::Iscsi(command) => iscsi::run(command, global),
        Command::Scsi(command) => scsi::run(command, global),
        Command::Target(command) => target::run(command, global),
        Command::Nbd(command) => nbd::run(command, global),
        Command::Replica(command) => replica::run(command, global),
        Command::Witness(command) => witness::run(command, global),
        Command::Events(args) => events::run(args, global),
        Command::Debug(DebugCommand::Disk { fault }) => daemon_asks::debug_disk((*fault).into(), global),
        Command::Debug(DebugCommand::Evict { name, node }) => daemon_asks::debug_evict(name, *node, global),
        Command::DemoCopy(args) => demo::child(demo::copy(args)),
        Command::DemoFollow(args) => demo::child(demo::follow(args)),
        Command::DemoSums(args) => demo::child(demo::sums(args)),
        Command::DemoFill(args) => demo::child(demo::fill(args)),
        Command::DemoWriter(args) => demo::child(demo::write(args)),
        Command::DemoWant(args) => demo::child(demo::want(args)),
        Command::DemoOutsider(args) => demo::outsider(args),
        Command::DemoVerify(args) => demo::child(demo::verify_patterns(args)),
    }
}

/// Shows what clap has to say: help on standard output, errors on the other, as JSON if the arguments ask for that.
pub(crate) fn usage_error(e: &clap::Error, arguments: impl Iterator<Item = OsString>) -> Exit {
    let json = arguments.take_while(|a| a != "--").any(|a| a == "--json");
    // A closed pipe is no reason to complain.
    let _ = match (e.use_stderr(), json) {
        (true, true) => writeln!(io::stderr(), "{}", as_json(&usage_failure(e))),
        _ => e.print(),
    };
    if e.use_stderr() { Exit::Usage } else { Exit::Ok }
}

/// What clap says in paragraphs: the first is what is wrong, others may be advice.
fn usage_failure(e: &clap::Error) -> Failure {
    let text = e.to_string();
    let mut paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let message = paragraphs.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let tip = paragraphs.find_map(|p| p.strip_prefix("tip: ").map(|tip| format!("Hint: {tip}. ")));
    Failure::usage(message, tip.unwrap_or_default() + "See `shorefast --help`.")
}

fn as_json(failure: &Failure) -> serde_json::Value {
    serde_json::json!({ "schema": SCHEMA, "error": failure })
}

/// Says on standard error why a command failed and what to do next; as JSON if that was asked for.
pub(crate) fn complain(global: &Global, failure: &Failure) {
    let line = if global.json {
        as_json(failure).to_string()
    } else {
        format!("shorefast: {}\n           {}", failure.message, failure.next)
    };
    // There is nobody left to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

/// The daemon that a command talks to: the option, else the environment, else where it is by default.
pub(crate) fn client(global: &Global) -> Client {
    client_of(global, Path::new(places::SOCKET))
}

/// The same, with another default.
pub(crate) fn client_of(global: &Global, default: &Path) -> Client {
    let named = || std::env::var_os(places::SOCKET_ENV).filter(|path| !path.is_empty()).map(PathBuf::from);
    Client::new(global.socket.clone().or_else(named).unwrap_or_else(|| default.to_owned()))
}

/// Prints to standard output; a reader that has gone ends the command quietly, as with `| head`.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(drop)
}

/// The same for whoever prints again and again; false once nobody reads.
pub(crate) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Failure::failed(format!("Cannot write the answer: {e}."), "See where the output goes.")),
    }
}

/// Prints one JSON object on one line: the schema number, and a value under its name.
pub(crate) fn print_json<T: Serialize>(name: &str, value: &T) -> Result<(), Failure> {
    let mut object = serde_json::Map::new();
    object.insert("schema".to_owned(), SCHEMA.into());
    let value = serde_json::to_value(value)
        .map_err(|e| Failure::failed(format!("The answer is not JSON: {e}."), "That is a defect."))?;
    object.insert(name.to_owned(), value);
    print(&format!("{}\n", serde_json::Value::Object(object)))
}

/// Shows a line of progress, unless it is not wanted.
pub(crate) fn progress(global: &Global) -> impl FnMut(&str) + use<> {
    let silent = global.quiet || global.json;
    move |line: &str| {
        if !silent {
            // Progress is a courtesy.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// An answer of a kind that this request cannot have.
pub(crate) fn wrong_reply() -> Failure {
    Failure::failed(
        "The daemon answered something else than it was asked.",
        "Use a command and a daemon of the same version.",
    )
}
