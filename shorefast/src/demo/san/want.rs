//! A program that wants what another node's writer has: it opens that node's growing files, asks for their lengths and reads their
//! beginnings, which only the coordinator can grant, once the other node has given them back, or was evicted. A child of the
//! demo (hidden subcommand `demo-want`), since it waits on a mount.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

/// So many bytes are a beginning.
const BEGINNING: u64 = 4096;

/// Arguments of `demo-want`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WantArgs {
    /// Where the volume is mounted for the one that wants
    #[arg(long)]
    pub(crate) mount: PathBuf,
    /// Whose files
    #[arg(long)]
    pub(crate) node: u8,
}

/// Wants, and ends when it has got everything.
pub(crate) fn run(args: &WantArgs) -> io::Result<()> {
    let its = format!("grow-{}-", args.node);
    for entry in fs::read_dir(args.mount.join("images"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&its) {
            let file = File::open(entry.path())?;
            file.metadata()?;
            file.take(BEGINNING).read_to_end(&mut Vec::new())?;
        }
    }
    Ok(())
}
