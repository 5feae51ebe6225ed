//! One node's life: configuration, bundle, log, node, API; until a signal; then the way back, in stages.
//!
//! The first SIGTERM or SIGINT stops in an orderly way, within [`STOP_TIMEOUT`]; a second one ends the process at
//! once, which is as safe as a crash: what was acknowledged is kept, and the others take over. What comes within
//! [`SAME_WISH`] of the first is the same wish: `timeout` signals the process and then its group.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use crate::api::{Pending, Server, ServerError};
use crate::compose;
use crate::config::Config;
use crate::events::{Code, Draft, EventLog};
use crate::exit::{Exit, Failure};
use crate::holder::{
    self,
    held::{Held, Wish},
};
use crate::init::Bundle;
use crate::standing;

/// An orderly stop moves the office and drains I/O; a disk that hangs must not make it last for ever.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Nobody who has seen the first signal do something sends another so soon.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Threads of the control plane: API, network connections, timers. Data I/O has its own workers.
const CONTROL_THREADS: usize = 2;

/// How a daemon is started.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// By a holder, which is on the standard input.
    pub(crate) held: bool,
    /// To speak with other nodes as the release before does.
    pub(crate) compat: bool,
}

/// Runs a node until it is told to stop.
pub(crate) fn run(config_path: &Path, how: How, verbose: u8) -> Result<Exit, Failure> {
    let config = Arc::new(Config::load(config_path)?);
    let bundle = Bundle::load(&config.bundle)?;
    start_log(&config, verbose)?;
    if config.holder && !how.held {
        return holder::run(config_path, how.compat, verbose);
    }
    let held = if how.held { Some(Held::attach()?) } else { None };
    standing::prepare();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|e| {
            Failure::failed(format!("Cannot start the control threads: {e}."), "See the limits of the system.")
        })?;
    let ended = runtime.block_on(live(config, bundle, how.compat, held));
    // Threads stuck on a disk that hangs must not keep a stopped daemon alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn live(config: Arc<Config>, bundle: Bundle, compat: bool, held: Option<Arc<Held>>) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let server = Server::bind(&config.socket).map_err(server_failure)?;
    let events = Arc::new(EventLog::new(bundle.node));
    let started = format!("{} of cluster {}, version {}", bundle.node, bundle.cluster, env!("CARGO_PKG_VERSION"));
    let node = tokio::select! {
        node = compose::start(Arc::clone(&config), bundle, Arc::clone(&events), compat, held.clone()) => node?,
        () = signals.next() => return Ok(Exit::Ok),
    };
    events.record(Draft::node(Code::DaemonStarted, started));
    let leaves = tokio::select! {
        () = server.serve(Arc::clone(&node)) => false,
        () = signals.next() => false,
        () = asked_to_leave(held.as_deref(), &events) => true,
    };
    drop(server);
    let asked = Instant::now();
    let why = if leaves { "asked to make room for the next daemon" } else { "asked to stop" };
    events.record(Draft::node(Code::DaemonStopping, why));
    let ended = stop(if leaves { node.leave() } else { node.stop() }, &mut signals, asked).await;
    if let Some(held) = held.filter(|_| leaves)
        && let Err(e) = held.leaving()
    {
        tracing::error!("the holder does not hear that this daemon leaves: {e}");
    }
    ended
}

/// Resolves when the holder wants another daemon in this one's place. That the holder is gone is said and survived.
async fn asked_to_leave(held: Option<&Held>, events: &EventLog) {
    let Some(held) = held else { return std::future::pending().await };
    match held.wish().await {
        Wish::Leave => {}
        Wish::Gone | Wish::Stay => {
            events.record(Draft::node(Code::HolderGone, "this daemon goes on, and is not started again if it dies"));
            std::future::pending().await
        }
    }
}

/// The orderly way down, with its bound.
async fn stop(stops: Pending<'_, ()>, signals: &mut Signals, asked: Instant) -> Result<Exit, Failure> {
    tokio::select! {
        stopped = tokio::time::timeout(STOP_TIMEOUT, stops) => match stopped {
            Ok(done) => done.map(|()| Exit::Ok),
            Err(_) => Err(Failure::failed(
                format!("The node did not come to rest within {} s, and was ended.", STOP_TIMEOUT.as_secs()),
                "The other nodes take over; see its log for what it waited for.",
            )),
        },
        () = signals.again(asked) => Err(Failure::failed("Ended by a second signal.", "The other nodes take over.")),
    }
}

fn server_failure(e: ServerError) -> Failure {
    let kind = if matches!(e, ServerError::InUse(_)) { Exit::Refused } else { Exit::Failed };
    Failure::new(kind, format!("{e}."), "Stop that daemon, or set another `socket` in the configuration.")
}

fn start_log(config: &Config, verbose: u8) -> Result<(), Failure> {
    let wanted = match verbose {
        0 => config.log.as_str(),
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_new(wanted).map_err(|e| {
        Failure::usage(format!("`log = \"{wanted}\"` is no filter: {e}."), "Use error, warn, info, debug or trace.")
    })?;
    log_to_stderr(filter);
    Ok(())
}

/// From now on what is logged goes to standard error.
pub(crate) fn log_to_stderr(filter: EnvFilter) {
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, Failure> {
        let open = |kind| {
            signal(kind).map_err(|e| {
                Failure::failed(format!("Cannot listen for signals: {e}."), "See the limits of the system.")
            })
        };
        Ok(Signals { terminate: open(SignalKind::terminate())?, interrupt: open(SignalKind::interrupt())? })
    }

    /// The next one that is another wish than the first, which came at `asked`.
    async fn again(&mut self, asked: Instant) {
        loop {
            self.next().await;
            if is_another_wish(asked, Instant::now()) {
                return;
            }
        }
    }

    /// The next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}

/// Whether a signal means more than the first one did.
fn is_another_wish(first: Instant, now: Instant) -> bool {
    now.saturating_duration_since(first) >= SAME_WISH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_right_behind_the_first_is_the_same_wish() {
        let first = Instant::now();
        assert!(!is_another_wish(first, first));
        assert!(!is_another_wish(first, first + SAME_WISH / 2));
        assert!(is_another_wish(first, first + SAME_WISH));
    }
}
