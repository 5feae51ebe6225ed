//! The peer of the benchmarks: a bare FUSE pass-through.
//!
//! One file in one directory, each block of it the block of the image at the same offset, on the same
//! `fuse` crate and the same `block::FileDevice` as the real file system. What the real one is slower
//! by is its own cost.
//!
//! ```text
//! minifuse --image disk.img --mount /mnt/mini --workers 2
//! ```
//!
//! Prints `ready` when mounted. Ends, unmounting, at SIGINT, SIGTERM or umount.

#![forbid(unsafe_code)]

mod passthrough;

use clap::Parser;
use fuse::{Channel, Mount, MountOptions, Unmount};
use passthrough::PassThrough;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// A bare FUSE pass-through to an image file.
#[derive(Debug, Parser)]
struct Args {
    /// The image: a preallocated file or a block device.
    #[arg(long)]
    image: PathBuf,
    /// Where to mount: an empty directory.
    #[arg(long)]
    mount: PathBuf,
    /// The name of the one file.
    #[arg(long, default_value = "disk")]
    name: String,
    /// Workers, each with a channel and an io_uring of its own; one per processor if not given.
    #[arg(long)]
    workers: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("starting workers: {0}")]
    Workers(#[source] std::io::Error),
    #[error("{0}")]
    Image(#[from] block::file::OpenError),
    #[error("{0}")]
    Mount(#[from] fuse::MountError),
    #[error("waiting for signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error("{0}")]
    Unmount(#[from] fuse::UnmountError),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("minifuse: {failed}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failed> {
    let count = args.workers.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let workers = block::Workers::start(count, "minifuse").map_err(Failed::Workers)?;
    let device = block::FileDevice::open(&args.image, block::OpenOptions::default(), workers.handle())?;
    let fs = Arc::new(PassThrough::new(device, &args.name));
    // It has no access control lists.
    let without = vec![fuse::Feature::PosixAcl, fuse::Feature::DontMask];
    let options = MountOptions { channels: workers.count(), without, ..MountOptions::new(&args.mount, "minifuse") };
    let (mount, channels) = Mount::open(&options)?;
    let served: Vec<_> =
        channels.into_iter().enumerate().map(|(n, channel)| serve(&workers, n, channel, &fs)).collect();
    println!("ready");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::Signals)?;
    runtime.block_on(async {
        let mut stop = signal(SignalKind::terminate()).map_err(Failed::Signals)?;
        let unmounted = async {
            for channel in served {
                // A worker that ended has nothing more to say.
                let _ = channel.await;
            }
        };
        tokio::select! {
            _ = stop.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
            () = unmounted => {}
        }
        Ok::<_, Failed>(())
    })?;
    // The workers serve on meanwhile: an idle mount may still have something to ask.
    mount.unmount(Unmount::Lazy)?;
    Ok(())
}

fn serve(workers: &block::Workers, n: usize, channel: Channel, fs: &Arc<PassThrough>) -> block::worker::Task<()> {
    let fs = Arc::clone(fs);
    workers.spawn(n, move || async move {
        if let Err(error) = channel.serve(move |request| fs.handle(request)).await {
            eprintln!("minifuse: channel {n}: {error}");
        }
    })
}
