//! `support-bundle`, and the hidden command by which its parts are made.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::places;

/// `support-bundle`
#[derive(Args, Clone, Debug)]
pub(crate) struct SupportArgs {
    /// Where it goes [default: shorefast-support-HOST-TIME.tar.gz in this folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The node's configuration file
    #[arg(long, value_name = "FILE", default_value = places::CONFIG)]
    pub(crate) config: PathBuf,
    /// Check every volume, too; reads all their metadata
    #[arg(long)]
    pub(crate) check: bool,
    /// A log file of the daemon, if it does not log to the system's journal
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// What has not begun after so many seconds is left out [default: 60, with --check 600]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) within: Option<u16>,
}

/// `support-part ...`: one part of a bundle, on standard output
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum SupportPart {
    /// The TOML files of a folder
    Folder { path: PathBuf },
    /// A file, or its end
    File {
        path: PathBuf,
        #[arg(long)]
        last: Option<u64>,
    },
    /// What the kernel says of the machine
    System,
    /// What the kernel says of the process behind a socket
    Daemon {
        /// Named apart from `--socket`
        #[arg(id = "behind")]
        socket: PathBuf,
    },
    /// What lies on a disk outside the metadata
    Disk { url: String },
}
