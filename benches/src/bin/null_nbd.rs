//! The NBD server over a device that does nothing, for the section `nbd`: what it costs is the server's own cost.
//!
//! ```text
//! null-nbd --unix SOCKET
//! ```
//! Reads give zeroes, as nbdkit's null plugin gives them; all else succeeds. Prints `ready`; ends at SIGTERM.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use block::device::{BlockDevice, Geometry, Io, Op};
use block::units::{BlockSize, ByteLen};
use block::worker::Workers;
use clap::Parser;
use replicator::nbd::{Export, Exports, Listen, Server};
use tokio::signal::unix::{SignalKind, signal};

/// Our NBD server over a null device.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen
    #[arg(long)]
    unix: PathBuf,
    /// Workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

/// Its size.
const SIZE: ByteLen = ByteLen(1 << 30);

struct Null;

impl BlockDevice for Null {
    fn geometry(&self) -> Geometry {
        Geometry {
            logical_block: BlockSize::B512,
            physical_block: BlockSize::B4096,
            len: SIZE,
            memory_align: 1,
            read_only: false,
            discard: true,
        }
    }

    fn submit(&self, mut io: Io) {
        if io.op == Op::Read
            && let Some(buf) = io.buf.as_mut()
        {
            buf.fill(0);
        }
        io.complete(Ok(()));
    }

    fn describe(&self) -> String {
        "nothing".to_owned()
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("null-nbd: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let workers = Workers::start(args.workers, "nbd")?;
    let exports = Exports::default();
    exports.add(Export::new("null", Arc::new(Null)))?;
    let (handle, exports, listen) = (workers.handle(), Arc::new(exports), [Listen::Unix(args.unix.clone())]);
    let served = workers.spawn(0, move || async move {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        let server = Server::start(handle, exports, &listen).await.map_err(|e| e.to_string())?;
        println!("ready");
        terminate.recv().await;
        server.stop().await;
        Ok::<(), String>(())
    });
    Ok(served.wait()??)
}
