//! Ctrl-C and SIGTERM: remembered, and looked at between runs, so that the program ends by its ordinary way, on which
//! every daemon and mount is taken away.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Listens from now on, on a thread of its own.
pub fn listen() -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot listen for signals: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut int, mut term) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = int.recv() => (),
                _ = term.recv() => (),
            }
        });
        ASKED.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
    Ok(())
}

/// Fails once a signal came.
pub fn check() -> Result<(), Failure> {
    if ASKED.load(Ordering::Relaxed) {
        return Err(Failure::new("interrupted; daemons, mounts and files are taken away"));
    }
    Ok(())
}
