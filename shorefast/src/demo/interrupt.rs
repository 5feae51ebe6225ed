//! Ctrl-C and SIGTERM during a demo: remembered, and looked at by every wait, so that the demo cleans up by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Failure;

/// Whether the demo was told to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on, on a thread of its own, which says that it has heard.
    pub(crate) fn listen(say: bool) -> Result<Interrupt, Failure> {
        let failed = |e: std::io::Error| {
            Failure::failed(format!("Cannot listen for signals: {e}."), "See the limits of the system.")
        };
        let interrupt = Interrupt::default();
        let flag = interrupt.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (mut int, mut term) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
        };
        let listen = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = int.recv() => (),
                    _ = term.recv() => (),
                }
            });
            flag.0.store(true, Ordering::Relaxed);
            if say {
                // The nodes may take some seconds to give back what they hold.
                eprintln!("Interrupted: the nodes are stopped, and what was made is taken away.");
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(failed)?;
        Ok(interrupt)
    }

    /// Fails once a signal came.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Failure::failed("The demo was interrupted.", "Wait until what it started has ended."));
        }
        Ok(())
    }
}
