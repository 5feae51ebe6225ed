//! `target ...` as types.

use core::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Size;
use crate::places;

/// `target ...`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum TargetCommand {
    /// Serve disks over iSCSI until told to stop
    Serve(Box<TargetServeArgs>),
    /// Who is logged in at a target that runs
    Sessions(TargetControl),
    /// How the units of a target that runs are reached through its portal groups (ALUA), or, with --group and --state, shall be
    Alua(TargetAluaArgs),
}

/// `target alua`
#[derive(Args, Clone, Debug)]
pub(crate) struct TargetAluaArgs {
    /// The portal group whose state is to change, for every unit
    #[arg(long, value_name = "N", requires = "state")]
    pub(crate) group: Option<u16>,
    /// Its state from now on
    #[arg(long, value_name = "STATE", requires = "group")]
    pub(crate) state: Option<GroupState>,
    /// Also if no group is left through which a unit can be read and written
    #[arg(long, requires = "state")]
    pub(crate) yes: bool,
    /// Where the target is asked
    #[command(flatten)]
    pub(crate) control: TargetControl,
}

/// What a portal group can be told to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GroupState {
    /// Well
    ActiveOptimized,
    /// All commands, but slower: used while no other is better
    ActiveNonOptimized,
    /// No reads and writes; reservations can be changed
    Standby,
    /// Hardly any command
    Unavailable,
}

/// By which socket the process of a target is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct TargetControl {
    /// The socket of the target's process
    #[arg(long, value_name = "PATH", default_value = places::TARGET_SOCKET)]
    pub(crate) control: PathBuf,
}

/// `target serve`
#[derive(Args, Clone, Debug)]
pub(crate) struct TargetServeArgs {
    /// A disk: file:PATH, with `,ro` behind it if it must not be changed; logical units 0, 1, ... in this order
    #[arg(long, value_name = "DISK", required = true)]
    pub(crate) lun: Vec<String>,
    /// Where it listens: an address, its port, and its portal group if not 1; each group is a target port
    #[arg(long, value_name = "ADDR:PORT[,GROUP]", required = true)]
    pub(crate) portal: Vec<PortalAt>,
    /// The target's name [default: made of the host's]
    #[arg(long, value_name = "IQN")]
    pub(crate) name: Option<String>,
    /// Let only initiators of these names in
    #[arg(long, value_name = "IQN")]
    pub(crate) initiator: Vec<String>,
    /// Let only initiators in that prove themselves as this user (CHAP); the secret is SHOREFAST_ISCSI_SECRET
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Prove itself as this user to initiators that want that; the secret is SHOREFAST_ISCSI_TARGET_SECRET
    #[arg(long, value_name = "USER", requires = "user")]
    pub(crate) target_user: Option<String>,
    /// Send initiators to this portal
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) redirect: Option<String>,
    /// Have no write cache: what is answered is on stable storage, and nobody has to ask whether the target was restarted
    #[arg(long)]
    pub(crate) write_through: bool,
    /// Tell initiators when the file system of a disk has less than this left
    #[arg(long, value_name = "SIZE", default_value = "1g")]
    pub(crate) low_space: Size,
    /// Where reservations are kept that survive a loss of power
    #[arg(long, value_name = "DIR", default_value = places::TARGET)]
    pub(crate) state: PathBuf,
    /// For the demo: at SIGUSR1 the next write of this initiator is held up, at SIGUSR2 it is let go
    #[arg(long, value_name = "IQN", hide = true)]
    pub(crate) hold_write_of: Option<String>,
    /// For tests: the same, but stuck in the disk, where nothing can abort it
    #[arg(long, value_name = "IQN", hide = true, conflicts_with = "hold_write_of")]
    pub(crate) stick_write_of: Option<String>,
    /// For tests: from SIGUSR1 on every read and compare-and-write of this initiator is held up, until SIGUSR2
    #[arg(long, value_name = "IQN", hide = true, conflicts_with_all = ["hold_write_of", "stick_write_of"])]
    pub(crate) hold_looks_of: Option<String>,
    /// For tests: tell that a key is gone while PREEMPT AND ABORT still waits for its nexus, as some other targets do
    #[arg(long, hide = true)]
    pub(crate) tells_early: bool,
    /// Where it is asked
    #[command(flatten)]
    pub(crate) control: TargetControl,
}

/// A portal and its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PortalAt {
    pub(crate) address: SocketAddr,
    pub(crate) group: u16,
}

impl std::str::FromStr for PortalAt {
    type Err = String;

    fn from_str(text: &str) -> Result<PortalAt, String> {
        let (address, group) = text.split_once(',').unwrap_or((text, "1"));
        let wrong = || format!("{text} is no portal: 192.0.2.1:3260 is, and 192.0.2.1:3260,2 in portal group 2");
        let address = address.parse().map_err(|_| wrong())?;
        let group = group.parse().ok().filter(|group| *group != 0).ok_or_else(wrong)?;
        Ok(PortalAt { address, group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portals_are_addresses_with_or_without_a_group() {
        let at = |t: &str| t.parse::<PortalAt>().ok().map(|p| (p.address.to_string(), p.group));
        assert_eq!(at("127.0.0.1:3260"), Some(("127.0.0.1:3260".into(), 1)));
        assert_eq!(at("[::1]:0,7"), Some(("[::1]:0".into(), 7)));
        for junk in ["", "127.0.0.1", "127.0.0.1:1,0", "127.0.0.1:1,x", "h:1"] {
            assert_eq!(at(junk), None, "{junk}");
        }
    }
}
