//! `shorefast`: the one binary. Daemon, command line, API and demo; the only place where the libraries are composed.
//!
//! - `cli`: the command line, as types. `commands`: what each command does.
//! - [`api`]: what the command line and a daemon say to one another over a Unix socket, and [`api::NodeControl`],
//!   the one trait through which the API reaches a running node.
//! - [`config`], `places`, [`init`], `disk_url`: the configuration file, where things lie, how a cluster gets its
//!   certificates, and what can be a disk. `san`: units over iSCSI, and what they lack for being one.
//! - `daemon`: one node's life: start, serve, stop in stages. `compose` puts the libraries together for it.
//! - `holder`: the small process that starts a daemon, keeps what outlives it, and starts it again.
//! - `support`: the support bundle. `standing`: what lets a daemon go on without free memory.
//! - `pace`: how often the progress of a check is told.
//! - [`events`]: the stable list of what a node reports. `render`: tables for people.
//! - `metrics`: numbers over HTTP, as Prometheus asks for them.
//! - `demo`: three nodes on one machine, hurt on purpose, and the report of how they took it.
//! - `commands/nbd`: a disk served over NBD, in a process of its own. `replica`: a replicated device, likewise.
//!
//! Nothing here decides anything about data: it parses, shows, starts and stops.
#![forbid(unsafe_code)]

use std::process::ExitCode;

pub mod api;
mod cli;
pub mod clock;
mod commands;
mod compose;
pub mod config;
mod daemon;
mod demo;
mod disk_url;
pub mod events;
pub mod exit;
mod holder;
pub mod init;
mod metrics;
mod pace;
mod places;
mod render;
mod replica;
mod san;
mod standing;
mod support;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod docs_test;

/// Parses the command line, runs the command, says what went wrong, and returns the exit code of [`exit::Exit`].
pub fn run() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(e) => return commands::usage_error(&e, std::env::args_os().skip(1)).into(),
    };
    match commands::run(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            commands::complain(&cli.global, &failure);
            failure.kind.into()
        }
    }
}
