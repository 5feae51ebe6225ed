//! The command line as types. It decides nothing; a test holds docs/contract.md to this tree.
//!
//! `--socket` is taken by every command and shown by those that ask a daemon. Its environment variable is read when it is
//! used, not here: an option that comes from the environment would stand in every usage line as if it had been written.

use core::net::SocketAddr;
use std::path::PathBuf;

use clap::{Arg, Args, Command as ClapCommand, CommandFactory, Parser, Subcommand};

use crate::api::{DiskFault, Node, Timing};
use crate::events::Severity;
use crate::{demo, places};

mod replica;
mod support;
mod target;

pub(crate) use replica::{
    ReplicaCommand, ReplicaCreateArgs, ReplicaName, ReplicaOnIoError, ReplicaOnNoQuorum, ReplicaProtocol,
    ReplicaQuorum, WitnessCommand, WitnessPlace,
};
pub(crate) use support::{SupportArgs, SupportPart};
pub(crate) use target::{GroupState, TargetAluaArgs, TargetCommand, TargetControl, TargetServeArgs};

/// A shared volume for a group of Linux hosts.
#[derive(Parser, Debug)]
#[command(name = "shorefast", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// The daemon's API socket [env: SHOREFAST_SOCKET] [default: /run/shorefast/api.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Answer as JSON with a "schema" number
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// `--socket` of a command that asks no daemon: not shown, and taken all the same, since an alias or a script may give it
/// to every command.
fn unused_socket() -> Arg {
    let socket = Arg::new("socket").long("socket").value_name("PATH").value_parser(clap::value_parser!(PathBuf));
    socket.global(true).hide(true)
}

/// Reads a command line.
pub(crate) fn parse(line: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>) -> Result<Cli, clap::Error> {
    let line: Vec<std::ffi::OsString> = line.into_iter().map(Into::into).collect();
    let of_volumes = line.iter().any(|word| word == "volume");
    Cli::try_parse_from(line).map_err(|e| instead(without_hidden(e), of_volumes))
}

/// How a volume is got rid of, as long as no command does it.
const NO_DELETE: &str = "no command deletes a volume yet: `shorefast volume unmount NAME` on every node takes it out of use, for good; \
    `volume create OTHER --disk DISK` then tells which --wipe overwrites it";

/// What to use instead of a command that one would look for.
fn instead(mut e: clap::Error, of_volumes: bool) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let word = match e.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => word.as_str(),
        _ => return e,
    };
    if of_volumes && ["delete", "remove", "rm", "destroy"].contains(&word) {
        e.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![NO_DELETE.to_owned().into()]));
    }
    e
}

/// Where a command is missing clap lists them all, also those that the help does not show.
fn without_hidden(mut e: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    if let Some(ContextValue::Strings(names)) = e.get(ContextKind::ValidSubcommand) {
        let shown = names.iter().filter(|name| !is_hidden(&Cli::command(), name)).cloned().collect();
        e.insert(ContextKind::ValidSubcommand, ContextValue::Strings(shown));
    }
    e
}

fn is_hidden(tree: &ClapCommand, name: &str) -> bool {
    tree.get_subcommands().any(|c| (c.get_name() == name && c.is_hide_set()) || is_hidden(c, name))
}

/// A portal, as the iSCSI commands take it.
const PORTAL: &str = "The portal: [iscsi://[USER[%SECRET]@]]HOST[:PORT], such as iscsi://192.0.2.1 (port 3260)";
/// A disk, as the SCSI commands take it.
const SCSI_DISK: &str =
    "The disk: a path, such as /dev/sdX or one below /dev/disk/by-id; or scsi:NAME, as `inquiry` tells it";
/// A unit, as the iSCSI commands take it.
const UNIT: &str = "The unit: iscsi://[USER[%SECRET]@]HOST[:PORT]/TARGET/LUN, such as \
     iscsi://192.0.2.1/iqn.2026-01.example:disk/1; the secret comes rather from SHOREFAST_ISCSI_SECRET";

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Three nodes on this machine, hurt on purpose, with a report
    #[command(arg = unused_socket())]
    Demo(DemoArgs),
    /// Make a cluster's certificates, or install one node's
    #[command(arg = unused_socket())]
    Init(InitArgs),
    /// Run a node
    #[command(arg = unused_socket())]
    Daemon(DaemonArgs),
    /// Volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// How everything is
    Status(StatusArgs),
    /// What happened
    Events(EventsArgs),
    /// Collect everything about this node into one archive, secrets masked
    SupportBundle(SupportArgs),
    /// A SAN's targets and units, tried without a kernel module
    #[command(subcommand, arg = unused_socket())]
    Iscsi(IscsiCommand),
    /// Units that this host's kernel has as SCSI disks
    #[command(subcommand, arg = unused_socket())]
    Scsi(ScsiCommand),
    /// Disks of this host as a SAN: an iSCSI target
    #[command(subcommand, arg = unused_socket())]
    Target(TargetCommand),
    /// A disk for QEMU, nbdcopy and the kernel's nbd-client
    #[command(subcommand)]
    Nbd(NbdCommand),
    /// A device kept equal on several hosts
    #[command(subcommand, arg = unused_socket())]
    Replica(ReplicaCommand),
    /// A vote without data, so that two replicas never both become primary
    #[command(subcommand, arg = unused_socket())]
    Witness(WitnessCommand),
    /// Things that only a configuration with `debug = true` allows
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Child of a support bundle: makes one part
    #[command(hide = true, subcommand)]
    SupportPart(SupportPart),
    /// Child of the demo: copies a tree in
    #[command(hide = true)]
    DemoCopy(demo::CopyArgs),
    /// Child of the demo: reads a tree as it grows
    #[command(hide = true)]
    DemoFollow(demo::TreeArgs),
    /// Child of the demo: tells a tree's sums
    #[command(hide = true)]
    DemoSums(demo::TreeArgs),
    /// Child of the demo: makes the shared image
    #[command(hide = true)]
    DemoFill(demo::FillArgs),
    /// Child of the demo: writes and checks patterns
    #[command(hide = true)]
    DemoWriter(demo::WriterArgs),
    /// Child of the demo: verifies all patterns
    #[command(hide = true)]
    DemoVerify(demo::VerifyArgs),
    /// Child of the demo: wants another node's files
    #[command(hide = true)]
    DemoWant(demo::WantArgs),
    /// Child of the demo: changes a unit's reservations, as who is no node
    #[command(hide = true)]
    DemoOutsider(demo::OutsiderArgs),
}

/// `demo`
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Leave the nodes running at the end
    #[arg(long, conflicts_with = "stop")]
    pub(crate) keep: bool,
    /// End a demo that was kept, and clean up after it
    #[arg(long, value_name = "DIR")]
    pub(crate) stop: Option<PathBuf>,
    /// Where the demo lives [default: a new folder below the temporary one]
    #[arg(long, value_name = "DIR", conflicts_with = "stop")]
    pub(crate) dir: Option<PathBuf>,
    /// Two sites with a replicated device, in place of three nodes with a shared disk
    #[arg(long, conflicts_with_all = ["stop", "keep"])]
    pub(crate) replica: bool,
    /// Three nodes and a disk array in networks of their own, which are cut: a volume on an iSCSI unit at two portals
    #[arg(long, conflicts_with_all = ["stop", "keep", "replica"])]
    pub(crate) san: bool,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "demo-report.html", conflicts_with = "stop")]
    pub(crate) report: PathBuf,
}

/// `init`
#[derive(Args, Clone, Debug)]
pub(crate) struct InitArgs {
    /// Make the certificates of a new cluster of this name
    #[arg(long, value_name = "NAME", requires = "node", requires = "out")]
    pub(crate) cluster: Option<String>,
    /// A node: its number (1-64) and address; once for each
    #[arg(long, value_name = "ID=HOST:PORT", requires = "cluster")]
    pub(crate) node: Vec<String>,
    /// The folder for ca.key and the bundles
    #[arg(long, value_name = "DIR", requires = "cluster")]
    pub(crate) out: Option<PathBuf>,
    /// Install this node's bundle
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    pub(crate) bundle: Option<PathBuf>,
    /// The configuration folder to install into
    #[arg(long, value_name = "DIR", default_value = places::ETC, requires = "bundle")]
    pub(crate) etc: PathBuf,
}

/// `daemon`
#[derive(Args, Clone, Debug)]
pub(crate) struct DaemonArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = places::CONFIG)]
    pub(crate) config: PathBuf,
    /// Speak with other nodes as the release before does: for trying an upgrade, and the way back from one
    #[arg(long)]
    pub(crate) compat: bool,
    /// Started by a holder, which is on the standard input
    #[arg(long, hide = true)]
    pub(crate) held: bool,
}

/// `volume ...`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum VolumeCommand {
    /// Format a disk and mount it on all nodes
    Create {
        /// The volume's name
        name: String,
        /// The disk: a path or file:PATH; iscsi://HOST/TARGET/LUN, once for each portal of that one unit; or a SCSI disk (/dev/sdX)
        #[arg(long, value_name = "URL", required = true)]
        disk: Vec<String>,
        /// Destroy what the disk carries; ID is the identity that the refusal printed
        #[arg(long, value_name = "ID")]
        wipe: Option<String>,
        /// The volume's timers
        #[arg(long, value_name = "NAME", default_value = "default")]
        timing: Timing,
    },
    /// The volumes
    List,
    /// One volume
    Info {
        /// The volume
        name: String,
    },
    /// Mount on this node
    Mount {
        /// The volume
        name: String,
    },
    /// Unmount on this node
    Unmount {
        /// The volume
        name: String,
        /// Also with open files: they get errors
        #[arg(long)]
        force: bool,
    },
    /// Move the coordinator to another node
    Move {
        /// The volume
        name: String,
        /// The node
        #[arg(long, value_name = "NODE")]
        to: Node,
    },
    /// Send a node's data through the coordinator, or stop that
    Redirect {
        /// The volume
        name: String,
        /// Through the coordinator (on), or straight to the disk again (off)
        #[arg(value_name = "on|off", hide_possible_values = true)]
        state: OnOff,
        /// The node [default: this one]
        #[arg(long, value_name = "NODE")]
        node: Option<Node>,
    },
    /// Prove every structure of a volume sound; exit code 5 with a list of what is wrong
    Check(CheckArgs),
}

/// `volume check`
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    /// The volume, mounted or not
    #[arg(required_unless_present = "disk", conflicts_with = "disk")]
    pub(crate) name: Option<String>,
    /// The disk of a volume that no node has mounted; needs no daemon
    #[arg(long, value_name = "URL")]
    pub(crate) disk: Option<String>,
    /// Repair what can be repaired without loss; refused while it is mounted
    #[arg(long)]
    pub(crate) repair: bool,
    /// Say what would be repaired, and change nothing
    #[arg(long, requires = "repair")]
    pub(crate) dry_run: bool,
}

/// `node ...`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum NodeCommand {
    /// The nodes of the cluster
    List,
    /// Move every office away from a node, and let it take none and mount nothing new until it is resumed
    Drain {
        /// The node [default: this one]
        node: Option<Node>,
    },
    /// Put a drained node back into service
    Resume {
        /// The node [default: this one]
        node: Option<Node>,
    },
    /// Take a node from the list of nodes, on all that stay
    Remove {
        /// The node; it is to be drained and stopped first
        node: Node,
        /// Change these bundle files, of daemons that do not run, in place of asking a daemon
        #[arg(long, value_name = "FILE")]
        bundle: Vec<PathBuf>,
    },
}

/// `status`
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// One line; exit code 5 if something is wrong
    #[arg(long, conflicts_with = "watch")]
    pub(crate) check: bool,
    /// Again every second
    #[arg(long)]
    pub(crate) watch: bool,
}

/// `events`
#[derive(Args, Clone, Debug)]
pub(crate) struct EventsArgs {
    /// Go on as they come, over restarts of the daemon
    #[arg(long)]
    pub(crate) follow: bool,
    /// Only those that are at least so grave: info, warning, error
    #[arg(long, value_name = "SEVERITY", hide_possible_values = true)]
    pub(crate) severity: Option<Severity>,
    /// Only those about this volume
    #[arg(long, value_name = "NAME")]
    pub(crate) volume: Option<String>,
}

/// `iscsi ...`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum IscsiCommand {
    /// The targets of a portal
    Discover {
        #[arg(value_name = "URL", help = PORTAL)]
        url: String,
    },
    /// What a unit is
    Inquiry {
        #[arg(value_name = "URL", help = UNIT)]
        url: String,
    },
    /// How large a unit is
    Capacity {
        #[arg(value_name = "URL", help = UNIT)]
        url: String,
    },
    /// Read from a unit to standard output
    Read {
        #[arg(value_name = "URL", help = UNIT)]
        url: String,
        /// From which byte on
        #[arg(long, value_name = "SIZE", default_value = "0")]
        at: Size,
        /// How much
        #[arg(long, value_name = "SIZE")]
        len: Size,
    },
    /// Write standard input to a unit
    Write {
        #[arg(value_name = "URL", help = UNIT)]
        url: String,
        /// From which byte on
        #[arg(long, value_name = "SIZE", default_value = "0")]
        at: Size,
        /// Yes, destroy what is there
        #[arg(long)]
        destroy_data: bool,
    },
    /// Who has registered at a unit, and what is reserved
    Reservations {
        #[arg(value_name = "URL", help = UNIT)]
        url: String,
    },
    /// Reset a unit: every command that any initiator has there ends; data and reservations stay
    Reset {
        #[arg(value_name = "URL", help = UNIT)]
        url: String,
        /// Yes, end what everybody has there
        #[arg(long)]
        yes: bool,
    },
    /// Measure a unit
    Bench(IscsiBenchArgs),
}

/// `scsi ...`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum ScsiCommand {
    /// What the unit of a SCSI disk is
    Inquiry {
        #[arg(value_name = "DISK", help = SCSI_DISK)]
        disk: String,
    },
    /// How large it is
    Capacity {
        #[arg(value_name = "DISK", help = SCSI_DISK)]
        disk: String,
    },
    /// Who has registered at it, and what is reserved
    Reservations {
        #[arg(value_name = "DISK", help = SCSI_DISK)]
        disk: String,
    },
    /// Reset it: every command that any initiator has there ends; data and reservations stay
    Reset {
        #[arg(value_name = "DISK", help = SCSI_DISK)]
        disk: String,
        /// Yes, end what everybody has there
        #[arg(long)]
        yes: bool,
    },
}

/// `iscsi bench`
#[derive(Args, Clone, Debug)]
pub(crate) struct IscsiBenchArgs {
    #[arg(value_name = "URL", help = UNIT)]
    pub(crate) url: String,
    /// read, write, randread or randwrite
    #[arg(long, value_name = "KIND", default_value = "randread")]
    pub(crate) rw: BenchKind,
    /// Bytes of one request
    #[arg(long, value_name = "SIZE", default_value = "4k")]
    pub(crate) bs: Size,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) depth: u16,
    /// For how long
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) seconds: u16,
    /// Yes, destroy what is there
    #[arg(long)]
    pub(crate) destroy_data: bool,
}

/// `nbd ...`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum NbdCommand {
    /// Serve a disk over NBD until told to stop
    Serve(NbdServeArgs),
}

/// `nbd serve`
#[derive(Args, Clone, Debug)]
pub(crate) struct NbdServeArgs {
    /// The disk: a path, or file:PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) disk: String,
    /// Listen at this Unix socket, for this user only
    #[arg(long, value_name = "PATH", required_unless_present = "listen")]
    pub(crate) unix: Option<PathBuf>,
    /// Listen at this address; one that other hosts reach needs --tls-bundle
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// At that address speak TLS, and only with nodes of the cluster whose bundle this is
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub(crate) tls_bundle: Option<PathBuf>,
    /// What clients call it
    #[arg(long, value_name = "NAME", default_value = "disk")]
    pub(crate) export: String,
    /// Refuse changes
    #[arg(long)]
    pub(crate) read_only: bool,
}

/// What a bench does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub(crate) enum BenchKind {
    Read,
    Write,
    Randread,
    Randwrite,
}

/// A count of bytes: a number, or one with k, m or g behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size(pub(crate) u64);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
        let shift = match text.get(digits.len()..) {
            Some("") => 0,
            Some("k" | "K") => 10,
            Some("m" | "M") => 20,
            Some("g" | "G") => 30,
            _ => return Err(format!("{text} is no size: 4096, 4k and 1m are")),
        };
        let n: u64 = digits.parse().map_err(|_| format!("{text} is no size: 4096, 4k and 1m are"))?;
        n.checked_mul(1 << shift).map(Size).ok_or_else(|| format!("{text} is too much"))
    }
}

/// `debug ...`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum DebugCommand {
    /// Make this node's disks misbehave
    Disk {
        /// What they do
        #[command(subcommand)]
        fault: FaultCommand,
    },
    /// End a node's session on a volume, as if it had not answered; on the coordinator
    Evict {
        /// The volume
        name: String,
        /// Whose
        #[arg(long, value_name = "N")]
        node: Node,
    },
}

/// `debug disk ...`
#[derive(Subcommand, Clone, Copy, Debug)]
pub(crate) enum FaultCommand {
    /// Every request fails
    Fail,
    /// No request comes back
    Hang,
    /// Every request takes longer
    Delay {
        /// By how much
        #[arg(value_name = "MS")]
        ms: u64,
    },
    /// All is well again
    Heal,
    /// A mutation for tests: requests are said to be withdrawn, and are not
    #[command(hide = true)]
    IgnoreAborts,
    /// For tests: it cannot be proved that a request was withdrawn, as if it were stuck in the kernel
    #[command(hide = true)]
    HoldAborts {
        /// From now on, or not any more
        hold: OnOff,
    },
}

impl From<FaultCommand> for DiskFault {
    fn from(c: FaultCommand) -> DiskFault {
        match c {
            FaultCommand::Fail => DiskFault::Fail,
            FaultCommand::Hang => DiskFault::Hang,
            FaultCommand::Delay { ms } => DiskFault::Delay { ms },
            FaultCommand::Heal => DiskFault::Heal,
            FaultCommand::IgnoreAborts => DiskFault::IgnoreAborts,
            FaultCommand::HoldAborts { hold } => DiskFault::HoldAborts { hold: hold == OnOff::On },
        }
    }
}

/// `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_numbers_with_or_without_a_unit() {
        let size = |t: &str| t.parse::<Size>().ok();
        assert_eq!([size("512"), size("4k"), size("1m")], [Some(Size(512)), Some(Size(4096)), Some(Size(1 << 20))]);
        for junk in ["", "k", "4kk", "-1", "4x", "99999999999g"] {
            assert_eq!(size(junk), None, "{junk}");
        }
    }

    #[test]
    fn socket_may_stand_before_or_after_the_command() {
        for line in [["shorefast", "--socket", "/x", "status"], ["shorefast", "status", "--socket", "/x"]] {
            let cli = parse(line).expect("both spellings are in the contract");
            assert_eq!(cli.global.socket, Some(PathBuf::from("/x")));
        }
    }

    #[test]
    fn socket_is_shown_by_commands_that_ask_a_daemon_and_taken_by_all() {
        let help = |line: &[&str]| {
            let line = ["shorefast"].iter().chain(line).chain(&["--help"]).copied();
            parse(line.map(str::to_owned)).expect_err("help").to_string()
        };
        for asks in [&["status"][..], &["volume", "check"], &["debug", "disk", "hang"], &[]] {
            assert!(help(asks).contains("--socket"), "{asks:?}");
        }
        for alone in [&["init"][..], &["daemon"], &["demo"], &["iscsi"], &["iscsi", "read"]] {
            assert!(!help(alone).contains("--socket"), "{alone:?}");
        }
        for line in [
            &["shorefast", "daemon", "--socket", "/x"][..],
            &["shorefast", "--socket", "/x", "daemon"],
            &["shorefast", "iscsi", "discover", "h", "--socket", "/x"],
        ] {
            parse(line.iter().copied()).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        }
    }

    #[test]
    fn help_is_a_command_and_hidden_commands_are_nowhere() {
        for line in [&["shorefast", "help"][..], &["shorefast", "help", "volume", "create"], &["shorefast", "-q"]] {
            let said = parse(line.iter().copied()).expect_err("help or a list").to_string();
            assert!(said.contains("volume") && !said.contains("demo-"), "{said}");
        }
    }

    #[test]
    fn who_looks_for_a_command_that_deletes_a_volume_is_told_what_there_is() {
        for line in [&["volume", "delete", "v"][..], &["-v", "volume", "rm"]] {
            let said = parse([&["shorefast"], line].concat()).expect_err("there is none").to_string();
            assert!(said.contains("volume unmount NAME") && said.contains("--wipe"), "{said}");
        }
        for line in [["shorefast", "volume", "nonsense"], ["shorefast", "node", "delete"]] {
            assert!(!parse(line).expect_err("there is none").to_string().contains("unmount"), "{line:?}");
        }
    }

    #[test]
    fn help_of_an_iscsi_command_says_what_a_url_looks_like() {
        let help = parse(["shorefast", "iscsi", "write", "--help"]).expect_err("help").to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains("[USER[%SECRET]@]HOST[:PORT]/TARGET/LUN") && help.contains(":disk/1"), "{help}");
    }

    #[test]
    fn debug_disk_takes_the_words_of_the_contract() {
        let cli = parse(["shorefast", "debug", "disk", "--socket", "/x", "delay", "40"]).expect("parses");
        let Command::Debug(DebugCommand::Disk { fault }) = cli.command else { panic!("not debug disk") };
        assert_eq!(DiskFault::from(fault), DiskFault::Delay { ms: 40 });
    }

    #[test]
    fn init_takes_a_cluster_or_a_bundle_but_not_both() {
        let both = parse(["shorefast", "init", "--cluster", "c", "--node", "1=h:1", "--out", "o", "--bundle", "b"]);
        let cluster = parse(["shorefast", "init", "--cluster", "c", "--node", "1=h:1", "--out", "o"]);
        let bundle = parse(["shorefast", "init", "--bundle", "b"]);
        assert!(both.is_err() && cluster.is_ok() && bundle.is_ok());
    }

    #[test]
    fn the_help_of_redirect_says_what_on_and_off_do() {
        let help = parse(["shorefast", "volume", "redirect", "--help"]).expect_err("help").to_string();
        assert!(help.contains("Through the coordinator (on)"), "{help}");
        assert!(!help.contains("- on:") && !help.contains("on: on"), "{help}");
    }
}
