//! What a volume reports, as events for people: each notice has one code, and a sentence that says to whom what
//! happened, and what to do where the code's own advice is too general. Words only; `teller` decides what is told.

use csv_fs::client::link::ClientEvent;
use csv_fs::core::client::{Reason, Route};
use csv_fs::core::coord;
use csv_fs::core::office;
use csv_fs::types::ClientId;
use csv_fs::volume::{Notice, Over, UnitNews};

use super::shown;
use crate::events::{Code, Draft};

/// A notice as an event; `None` for what only the log of the program needs, and for what `teller` words itself.
pub(super) fn draft(volume: &str, notice: Notice) -> Option<Draft> {
    let advice = match &notice {
        Notice::Client(ClientEvent::Route { to, .. }) if to.route != Route::Direct => Some(route_advice(to.reason)),
        _ => None,
    };
    let (code, message) = told(notice)?;
    let draft = Draft::volume(code, volume, message);
    Some(match advice {
        Some(advice) => draft.advising(advice),
        None => draft,
    })
}

/// Why this node may not be coordinator, as far as it can know, and what fits that.
pub(super) fn withheld(volume: &str, path: bool, heard: &[(String, bool)]) -> Draft {
    let unheard: Vec<&str> = heard.iter().filter(|(_, up)| !up).map(|(node, _)| node.as_str()).collect();
    let (message, next) = match unheard.as_slice() {
        _ if !path => (
            "this node may not be coordinator: it has no working path of its own to the disk".to_owned(),
            "Look at the disk and cables of this node; another node coordinates meanwhile.",
        ),
        [] => (
            "this node may not be coordinator: it has a path and hears every other node, but another group of nodes that \
             all hear one another goes first, or its own was not seen for long enough yet"
                .to_owned(),
            "Nothing, unless it stays: then see with `shorefast node list` on every node who does not hear whom.",
        ),
        some => (
            format!("this node may not be coordinator: it does not hear enough of the others (not {})", some.join(", ")),
            "See that the nodes reach one another: `shorefast node list` on each.",
        ),
    };
    Draft::volume(Code::NoPermission, volume, message).advising(next)
}

/// A volume whose life here has ended without being asked to.
pub(super) fn over(volume: &str, how: &Over) -> Draft {
    let code = if matches!(how, Over::OtherVolume { .. }) { Code::DiskReplaced } else { Code::MountLost };
    Draft::volume(code, volume, how.to_string()).advising(after(volume, how))
}

/// What to do then.
pub(super) fn after(volume: &str, how: &Over) -> String {
    match how {
        Over::OtherVolume { .. } => {
            format!("Put the right disk in its place, then `shorefast volume mount {volume}` on every node.")
        }
        _ => format!("`shorefast volume mount {volume}` on that node mounts it again."),
    }
}

/// What fits the reason of a route that is not direct.
fn route_advice(reason: Reason) -> &'static str {
    match reason {
        Reason::IoTimedOut | Reason::IoFailed | Reason::Fenced => {
            "Look at the disk and cables of that node; it goes on through the coordinator meanwhile."
        }
        Reason::Administrator => "Somebody asked for it; `shorefast volume redirect NAME off` on that node ends it.",
        Reason::NoCoordinator => {
            "Nothing, unless it stays: `shorefast status` says which nodes are up, and which paths to the disk work."
        }
        Reason::DeviceOnCoordinator | Reason::Healthy => "Nothing.",
    }
}

/// A notice as code and sentence; `None` for what only the log of the program needs.
fn told(notice: Notice) -> Option<(Code, String)> {
    Some(match notice {
        Notice::Office(report) => return office(&report),
        Notice::Coordinator(report) => return coordinator(report),
        Notice::Client(event) => return client(event),
        Notice::Unit(UnitNews::Reset) => {
            (Code::UnitReset, "somebody has reset the volume's unit; what had no answer is sent again".to_owned())
        }
        Notice::Unit(UnitNews::Released) => (
            Code::ReservationReleased,
            "somebody has released the reservation of the volume's unit; it is held again".to_owned(),
        ),
        Notice::TookOffice { epoch, before } => (Code::OfficeTaken, format!("{epoch}; {}", how_ended(before))),
        Notice::LostOffice { epoch, why: office::LostWhy::Resigned } => (Code::OfficeResigned, epoch.to_string()),
        Notice::LostOffice { epoch, why } => (Code::OfficeLost, format!("{epoch}: {}", why_lost(why))),
        Notice::Suspended { epoch, suspended: true } => (Code::MetadataSuspended, epoch.to_string()),
        Notice::Suspended { epoch, suspended: false } => (Code::MetadataResumed, epoch.to_string()),
        Notice::Replaced => (Code::SelfEvicted, "another session of this node has registered".to_owned()),
        Notice::Reborn(client) => (Code::SelfReborn, format!("{} begins", session(client))),
        Notice::StoreFailed { why } => (Code::OfficeLost, format!("the metadata store cannot be opened: {why}")),
        Notice::ChangesLost { cut_off } => (
            Code::ChangesLost,
            format!("a record of the redo log was damaged although {cut_off} later ones are whole; it ends there"),
        ),
        Notice::Coordinates(hint) => (Code::CoordinatorChanged, format!("{} coordinates in {}", hint.node, hint.epoch)),
        Notice::Superblock(remark) => (Code::SuperblockDamaged, remark),
        Notice::MountTakenOver { resumed: true, died: true } => {
            (Code::MountResumed, "its daemon had died; what is open stays open".to_owned())
        }
        Notice::MountTakenOver { resumed: true, died: false } => {
            (Code::MountResumed, "its daemon made room for this one; what is open stays open".to_owned())
        }
        Notice::MountTakenOver { resumed: false, .. } => {
            (Code::MountTakenOver, "its daemon had died; files that were open then get EIO".to_owned())
        }
        Notice::StaleMountCleaned => (Code::StaleMountCleaned, "its daemon had died".to_owned()),
        _ => return None,
    })
}

/// A client for people: an incarnation is a node's session on the volume, from its start or eviction on.
fn session(client: ClientId) -> String {
    format!("session {} of {}", client.incarnation.0, client.node)
}

fn how_ended(before: office::Before) -> String {
    match before {
        office::Before::New => "the volume is new".to_owned(),
        office::Before::Resigned(who) => format!("{} handed it over", who.node),
        office::Before::Fenced(proof) => {
            format!("the coordinator before, {}, was cut off from the disk first", proof.client().node)
        }
    }
}

fn how_fenced(how: office::HowFenced) -> &'static str {
    use office::HowFenced;
    // One more exists in simulations only, where a rule is taken out.
    #[allow(unreachable_patterns, reason = "it is there with that feature")]
    match how {
        HowFenced::Dead => "its process is gone, and its last write has landed",
        HowFenced::Answered => "it said itself that nothing of it is in flight",
        HowFenced::Superseded => "a later session of that node has registered since",
        HowFenced::KeysGone => "its reservation keys are gone from the disk",
        _ => "nothing is known of how",
    }
}

fn why_lost(why: office::LostWhy) -> &'static str {
    match why {
        office::LostWhy::Superseded => "another node holds the lease",
        office::LostWhy::HigherEpoch => "a later coordinator was heard of",
        office::LostWhy::NoPath => "this node has no path to the disk",
        office::LostWhy::Fenced => "this node was fenced",
        office::LostWhy::Resigned => "it was handed over",
    }
}

fn office(report: &office::Report) -> Option<(Code, String)> {
    use office::Report;
    Some(match report {
        Report::TakingOver { holder, epoch, why } => (
            Code::TakeoverStarted,
            format!("the coordinator of {epoch}, {}, is cut off from the disk: {why}", holder.node),
        ),
        Report::Fenced { proof } => {
            (Code::ClientFenced, format!("{} can write no more: {}", session(proof.client()), how_fenced(proof.how())))
        }
        Report::OwnPathLost => (Code::PathLost, "this node's own slot cannot be renewed".to_owned()),
        Report::OwnPathBack => (Code::PathBack, "this node's own slot is renewed again".to_owned()),
        Report::NotPermitted
        | Report::Permitted { .. }
        | Report::Challenging { .. }
        | Report::ChallengeDeferred { .. }
        | Report::Fencing { .. }
        | Report::FenceStep { .. }
        | Report::FenceAbandoned { .. } => return None,
    })
}

fn coordinator(report: coord::Report) -> Option<(Code, String)> {
    use coord::Report;
    Some(match report {
        Report::StoreFailed => (Code::OfficeLost, "the metadata store failed; office is given up".to_owned()),
        Report::GraceEnded => (Code::GraceEnded, "everything is served from now on".to_owned()),
        Report::Evicted { client } => (Code::ClientEvicted, format!("{} has ended", session(client))),
        Report::PathFenced { client } => {
            (Code::PathFenced, format!("{} goes on without its lost path, which is shut off", session(client)))
        }
        Report::PathBack { client } => (Code::PathBack, format!("{} has a path again", session(client))),
        Report::FenceFailed { client, why } => {
            (Code::IoWaiting, format!("{} could not be fenced yet: {why}", session(client)))
        }
        Report::GraceBegan { .. } | Report::Evicting { .. } => return None,
    })
}

fn client(event: ClientEvent) -> Option<(Code, String)> {
    Some(match event {
        ClientEvent::Route { from, to } if to.route == Route::Direct => {
            (Code::RouteDirect, format!("{} → direct", from.route))
        }
        ClientEvent::Route { from, to } => {
            (Code::RouteChanged, format!("{} → {}: {}", from.route, to.route, to.reason))
        }
        // What an unmount's goodbye is answered with; the unmounting itself is an event already.
        ClientEvent::Evicted { reason } if reason == "unmounted" => return None,
        ClientEvent::Evicted { reason } => (Code::SelfEvicted, reason),
        ClientEvent::Poisoned { handles } => {
            (Code::SelfEvicted, format!("{} open files had unsaved data or locks", handles.len()))
        }
        ClientEvent::WritesLost { ino } => {
            (Code::SelfEvicted, format!("unflushed writes of {ino} are lost; its next fsync fails"))
        }
        ClientEvent::LocksLost { handles } => {
            (Code::LocksLost, format!("{} open files had locks that the new coordinator refused", handles.len()))
        }
        ClientEvent::IoOverdue { overdue } => (
            Code::IoWaiting,
            format!(
                "requests wait for longer than io_timeout, since they may still be executed: {}",
                shown::overdue(overdue)
            ),
        ),
        ClientEvent::IoTimeout { requests } => {
            (Code::IoTimeout, format!("{requests} requests had waited for io_timeout and will not be executed"))
        }
        ClientEvent::CommitFailed { ino, errno } => {
            (Code::IoWaiting, format!("a commit of {ino} failed with errno {errno} and is tried again"))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(up: &[bool]) -> Vec<(String, bool)> {
        (2..).zip(up).map(|(n, up)| (format!("node {n}"), *up)).collect()
    }

    #[test]
    fn a_node_without_permission_says_what_is_known_of_the_cause_and_advises_to_it() {
        let no_path = withheld("v", false, &heard(&[true, false]));
        assert!(no_path.message.contains("no working path") && !no_path.message.contains("hear"), "{no_path:?}");
        assert!(no_path.next.as_deref().is_some_and(|next| next.contains("disk")), "{no_path:?}");
        let deaf = withheld("v", true, &heard(&[true, false]));
        assert!(deaf.message.contains("does not hear enough") && deaf.message.contains("node 3"), "{deaf:?}");
        assert!(!deaf.message.contains("node 2"), "{deaf:?}");
        let outvoted = withheld("v", true, &heard(&[true, true]));
        assert!(outvoted.message.contains("another group") && !outvoted.message.contains("not hear"), "{outvoted:?}");
    }

    #[test]
    fn the_advice_of_route_changed_names_every_reason_and_none_that_does_not_exist() {
        let reasons = [
            Reason::IoTimedOut,
            Reason::IoFailed,
            Reason::Fenced,
            Reason::Administrator,
            Reason::NoCoordinator,
            Reason::DeviceOnCoordinator,
        ];
        let advice = Code::RouteChanged.next_step();
        let mut named: Vec<&str> = advice.split('`').skip(1).step_by(2).filter(|w| !w.contains(' ')).collect();
        let mut there: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        named.sort_unstable();
        there.sort_unstable();
        assert_eq!(named, there);
    }
}
