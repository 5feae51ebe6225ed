//! What lets a daemon go on while the machine has no memory left.
//!
//! The daemon is what the kernel writes dirty pages to (those of a loop device whose file is on its mount). Without these two, memory runs out like this: the daemon needs a page, the kernel frees one by writing a
//! dirty page, that write goes to the daemon's mount, and waits for the daemon.
//!
//! - PR_SET_IO_FLUSHER: memory that its threads ask for is never freed by starting I/O, and their own writes are not held
//!   back for the dirty pages of others. Every thread inherits it from the first.
//! - mlockall with MCL_ONFAULT: a page that is in memory stays there. Nothing is loaded ahead, so it costs only what it
//!   uses.
//!
//! Both need privileges (CAP_SYS_RESOURCE, CAP_IPC_LOCK). A daemon without them runs all the same, and says in its log
//! what it lacks.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::configure_io_flusher_behavior;

/// To be called before any thread is started.
pub(crate) fn prepare() {
    block::buf::lock_memory();
    if let Err(e) = configure_io_flusher_behavior(true) {
        tracing::warn!(
            "without CAP_SYS_RESOURCE ({e}) dirty pages of a loop device on a mount of this daemon may stop it"
        );
    }
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(e) = mlockall(all) {
        tracing::info!("without CAP_IPC_LOCK ({e}) this daemon's memory may be swapped out");
    }
}
