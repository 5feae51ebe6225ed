//! The codes, one line each: name, severity, meaning, what to do next.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad an event is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As intended.
    Info,
    /// Works, but somebody should look.
    Warning,
    /// Something was lost or stands still.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// Builds [`Code`] from its table, so that a code cannot lack a severity, a meaning or advice.
macro_rules! codes {
    ($($code:ident = $name:literal, $severity:ident, $meaning:literal, $next:literal;)+) => {
        /// What kind of thing happened.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $meaning] #[serde(rename = $name)] $code,)+
        }

        impl Code {
            /// Every code, in the order of docs/events.md.
            pub const ALL: &'static [Code] = &[$(Code::$code),+];

            /// Its stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$code => $name,)+ }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Code::$code => Severity::$severity,)+ }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$code => $meaning,)+ }
            }

            /// What to do next.
            pub const fn next_step(self) -> &'static str {
                match self { $(Code::$code => $next,)+ }
            }
        }
    };
}

codes! {
    DaemonStarted = "daemon-started", Info, "A node's daemon started.", "Nothing.";
    DaemonStopping = "daemon-stopping", Info, "A node's daemon was asked to stop and gives back what it holds.", "Nothing.";
    PeerUp = "peer-up", Info, "Another node can be reached.", "Nothing.";
    PeerDown = "peer-down", Warning, "Another node cannot be reached any more.", "See whether that node and the network between both are up: `shorefast node list` on both.";
    PeerRefused = "peer-refused", Error, "Another node was refused, or refused this one: certificate, version or list of nodes.", "The message names what differs; install a bundle of this cluster on that node with `shorefast init --bundle FILE`.";
    ListDiffers = "list-differs", Error, "Two nodes have different versions of the list of nodes.", "Install the newer bundle on the node that the message names, and restart its daemon.";
    VolumeCreated = "volume-created", Info, "A volume was formatted.", "Nothing.";
    VolumePending = "volume-pending", Warning, "A volume is known here and cannot be mounted yet.", "The message says what is missing; it is tried again by itself.";
    VolumeMounted = "volume-mounted", Info, "A volume was mounted on this node.", "Nothing.";
    VolumeUnmounted = "volume-unmounted", Info, "A volume was unmounted on this node.", "Nothing.";
    MountFailed = "mount-failed", Error, "A volume could not be mounted on this node.", "Put right what the message names, then `shorefast volume mount NAME`.";
    MountLost = "mount-lost", Error, "A volume's mount on this node was taken away from outside (`umount`), or its connection was aborted; this node gave back what it held.", "`shorefast volume mount NAME` mounts it again. `shorefast volume unmount NAME` is the way to unmount it.";
    MountTakenOver = "mount-taken-over", Warning, "A mount that outlived its daemon is served by the next one.", "Restart programs that get EIO: they have files open from before.";
    MountResumed = "mount-resumed", Info, "A node's daemon was replaced under a mount, or died, and the next goes on with what is open there.", "After a death, look in the log for why; else nothing.";
    HolderGone = "holder-gone", Error, "The process that starts a node's daemon again is gone.", "Stop the daemon and start it again with its holder, when it suits.";
    StaleMountCleaned = "stale-mount-cleaned", Warning, "A mount that its dead daemon had left was removed.", "Restart programs that still stand in the old mount.";
    SuperblockDamaged = "superblock-damaged", Error, "A superblock of a volume cannot be read or is damaged; another copy was used.", "Look at the disk's own error log before it loses more.";
    DiskReplaced = "disk-replaced", Error, "The disk of a mounted volume carries another volume; this node stopped using it, and whoever waited got EIO.", "See who formatted the disk again or exchanged it. What the volume held is not there any more; `shorefast volume mount NAME` helps only with the right disk in its place.";
    ReservationReleased = "reservation-released", Error, "Somebody outside the cluster has released the reservation of a volume's unit; it is held again. In between, hosts that are not registered could write there.", "Find out who it was and keep them from the unit; then `shorefast volume check NAME`.";
    UnitReset = "unit-reset", Warning, "A volume's unit was reset, by somebody or by a node that finished another's fence: what every node had there ended, and is sent again.", "If no node was fenced then, find out who it was: an administrator, or a host whose commands did not end.";
    RouteChanged = "route-changed", Warning, "A node's data takes another route to a volume's disk; the message has the reason.", "With reason `io-timed-out`, `io-failed` or `fenced`: look at the disk and cables of that node; it goes on through the coordinator meanwhile. `administrator`: somebody asked for it, `shorefast volume redirect NAME off` ends it. `no-coordinator`: see `shorefast status` if it stays. `device-on-coordinator`: nothing.";
    RouteDirect = "route-direct", Info, "A node's data goes straight to a volume's disk again.", "Nothing.";
    PathLost = "path-lost", Warning, "A node has no working path to a volume's disk.", "Look at the disk and cables of that node.";
    PathBack = "path-back", Info, "A node's path to a volume's disk works again.", "Nothing.";
    PathFenced = "path-fenced", Info, "A node's lost path was shut off for good, so that nothing stuck in it can land later.", "Nothing; it registers anew when its path is back.";
    MetadataWaiting = "metadata-waiting", Warning, "There has been no coordinator for a second; data under held rights goes on, the rest waits.", "Nothing, unless it stays: `shorefast status` says which nodes could take over.";
    MetadataSuspended = "metadata-suspended", Warning, "The coordinator could not renew its lease and holds back changes.", "Look at the disk of the coordinator.";
    MetadataResumed = "metadata-resumed", Info, "The coordinator renewed its lease and goes on.", "Nothing.";
    TakeoverStarted = "takeover-started", Warning, "This node takes a volume over; the message says why.", "Nothing; find out later what happened to the coordinator before.";
    OfficeTaken = "office-taken", Info, "This node is coordinator of a volume now.", "Nothing.";
    OfficeLost = "office-lost", Warning, "This node is not coordinator of a volume any more, and did not resign.", "Look at this node's disk and network.";
    ChangesLost = "changes-lost", Error, "The metadata of a volume had a gap when a coordinator opened them: changes that were acknowledged are lost.", "`shorefast volume check NAME`; compare files that were written lately with what their programs know, and report it: this must not happen.";
    OfficeResigned = "office-resigned", Info, "This node handed the office over.", "Nothing.";
    CoordinatorChanged = "coordinator-changed", Info, "A volume has another coordinator.", "Nothing.";
    GraceEnded = "grace-ended", Info, "The new coordinator has taken back what its clients hold.", "Nothing.";
    MoveFailed = "move-failed", Warning, "A planned move of the coordinator did not come about.", "The message says why; the volume is served meanwhile. Try again.";
    ClientFenced = "client-fenced", Warning, "A node's session was made unable to reach the disk.", "Nothing; see why it was fenced.";
    ClientEvicted = "client-evicted", Error, "A node's session ended by eviction; what it had not made stable is lost there.", "See on that node which files report errors; restart the programs that held them.";
    SelfReborn = "self-reborn", Info, "After an eviction this node began a new session; files that had lost nothing go on.", "Nothing.";
    SelfEvicted = "self-evicted", Error, "This node was evicted: handles with unsaved data or file locks report errors until they are closed.", "Restart the programs that use them; find out why this node did not answer.";
    IoWaiting = "io-waiting", Warning, "A request waits unusually long; the message says for what.", "Look at what the message names.";
    IoTimeout = "io-timeout", Error, "Requests of programs got EIO: they had waited for `io_timeout`. None of them will be executed.", "Restart the programs that were told of it, once their disk is there again; find out why for so long it, or a coordinator, was not.";
    NoPermission = "no-permission", Warning, "This node may not be coordinator, for a second already; the message says what is known of why.", "The advice beside the message fits its cause: the node's path to the disk, or how the nodes reach one another.";
    LocksLost = "locks-lost", Error, "File locks held through this node were not taken in by a new coordinator; the handles report errors until they are closed.", "Restart the programs that use them, and report it: this must not happen.";
    NodeDrained = "node-drained", Info, "This node was drained: it coordinates nothing, takes no office and mounts nothing new.", "`shorefast node resume` ends it.";
    NodeResumed = "node-resumed", Info, "This node is back in service after it was drained.", "Nothing.";
    NodeRemoved = "node-removed", Info, "A node was taken from the list of nodes.", "Take its access to the disks away, too, and destroy its bundle.";
    DiskFaultSet = "disk-fault-set", Warning, "An operator made this node's disks misbehave (`debug disk`).", "`shorefast debug disk heal` ends it.";
    DiskFaultHealed = "disk-fault-healed", Info, "An operator ended the misbehaviour of this node's disks.", "Nothing.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// docs/events.md as this list has it.
    fn document() -> String {
        let mut text = String::from(
            "# Events\n\n\
             What a node reports, by code. Codes are stable: a script may rely on their names. `shorefast events` shows\n\
             them, `shorefast events --json` prints one JSON object a line.\n\n\
             The table is made from the program's own list, and each code has a section below; tests keep them together.\n\n\
             | code | severity | meaning | what to do next |\n|---|---|---|---|\n",
        );
        for code in Code::ALL {
            let (severity, meaning, next) = (code.severity(), code.meaning(), code.next_step());
            writeln!(text, "| [`{code}`](#{code}) | {severity} | {meaning} | {next} |").expect("writing to a string");
        }
        text.push('\n');
        text
    }

    #[test]
    fn the_table_of_the_events_page_is_the_programs_own_list() {
        crate::docs_test::head_holds("docs/events.md", &document());
    }

    /// Somebody who is woken by a code looks it up there.
    #[test]
    fn each_code_and_no_other_has_a_section_that_says_what_it_means_and_what_to_do() {
        let page = crate::docs_test::page("docs/events.md");
        let sections: Vec<(&str, &str)> = page.split("\n## ").skip(1).filter_map(|s| s.split_once('\n')).collect();
        let named: Vec<&str> = sections.iter().map(|(title, _)| title.trim_matches('`')).collect();
        let codes: Vec<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(named, codes, "a section for each code, in the order of the table");
        for (title, body) in sections {
            let (means, to_do) = body.split_once("**What to do.**").unwrap_or_else(|| panic!("{title}: what to do?"));
            let means =
                means.trim().strip_prefix("**What it means.**").unwrap_or_else(|| panic!("{title}: what is it?"));
            assert!(means.len() > 60 && to_do.trim().len() >= "Nothing.".len(), "{title} says too little");
        }
    }

    #[test]
    fn codes_are_distinct_and_travel_by_their_name() {
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        assert_eq!(serde_json::to_string(&Code::RouteChanged).expect("plain enum"), "\"route-changed\"");
    }
}
