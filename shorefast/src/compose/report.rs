//! What a volume reports, as events for people: each notice has one code, and a sentence that says to whom what
//! happened.

use std::sync::Arc;

use csv_fs::client::link::ClientEvent;
use csv_fs::core::client::Route;
use csv_fs::core::coord;
use csv_fs::core::office;
use csv_fs::volume::Notice;

use crate::events::{Code, Draft, EventLog};

/// Where a volume's notices go.
pub(super) fn sink(events: Arc<EventLog>, volume: String) -> Arc<dyn Fn(Notice) + Send + Sync> {
    Arc::new(move |notice| {
        if let Some((code, message)) = told(notice) {
            events.record(Draft::volume(code, &volume, message));
        }
    })
}

/// A notice as code and sentence; `None` for what only the log of the program needs.
fn told(notice: Notice) -> Option<(Code, String)> {
    Some(match notice {
        Notice::Office(report) => return office(&report),
        Notice::Coordinator(report) => return coordinator(report),
        Notice::Client(event) => return client(event),
        Notice::TookOffice { epoch, before } => {
            (Code::OfficeTaken, format!("{epoch}; the reign before: {}", how_ended(before)))
        }
        Notice::LostOffice { epoch, why: office::LostWhy::Resigned } => (Code::OfficeResigned, epoch.to_string()),
        Notice::LostOffice { epoch, why } => (Code::OfficeLost, format!("{epoch}: {}", why_lost(why))),
        Notice::Suspended { epoch, suspended: true } => (Code::MetadataSuspended, epoch.to_string()),
        Notice::Suspended { epoch, suspended: false } => (Code::MetadataResumed, epoch.to_string()),
        Notice::Replaced => (Code::SelfEvicted, "another life of this node has registered".to_owned()),
        Notice::Reborn(client) => (Code::SelfReborn, format!("{client} begins")),
        Notice::StoreFailed { why } => (Code::OfficeLost, format!("the metadata store cannot be opened: {why}")),
        Notice::Coordinates(hint) => (Code::CoordinatorChanged, format!("{} coordinates in {}", hint.node, hint.epoch)),
        Notice::Superblock(remark) => (Code::SuperblockDamaged, remark),
        Notice::StaleMountCleaned => (Code::StaleMountCleaned, "its daemon had died".to_owned()),
        _ => return None,
    })
}

fn how_ended(before: office::Before) -> String {
    match before {
        office::Before::New => "none, the volume is new".to_owned(),
        office::Before::Resigned(who) => format!("resigned by {who}"),
        office::Before::Fenced(proof) => format!("{} was fenced", proof.client()),
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
        Report::NotPermitted => (Code::NoPermission, "it does not hear enough of the other nodes".to_owned()),
        Report::Challenging { holder, epoch } => {
            (Code::TakeoverStarted, format!("the coordinator of {epoch}, {holder}, does not renew its lease"))
        }
        Report::Fenced { proof } => (Code::ClientFenced, proof.client().to_string()),
        Report::OwnPathLost => (Code::PathLost, "this node's own slot cannot be renewed".to_owned()),
        Report::OwnPathBack => (Code::PathBack, "this node's own slot is renewed again".to_owned()),
        Report::Permitted { .. }
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
        Report::GraceEnded => (Code::GraceEnded, "everything is served".to_owned()),
        Report::Evicted { client } => (Code::ClientEvicted, client.to_string()),
        Report::PathFenced { client } => (Code::PathFenced, client.to_string()),
        Report::PathBack { client } => (Code::PathBack, client.to_string()),
        Report::FenceFailed { client, why } => (Code::IoWaiting, format!("{client} could not be fenced yet: {why}")),
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
        ClientEvent::Unbound => (Code::MetadataWaiting, "no coordinator".to_owned()),
        // What an unmount's goodbye is answered with; the unmounting itself is an event already.
        ClientEvent::Evicted { reason } if reason == "unmounted" => return None,
        ClientEvent::Evicted { reason } => (Code::SelfEvicted, reason),
        ClientEvent::Poisoned { handles } => {
            (Code::SelfEvicted, format!("{} open files had unsaved data", handles.len()))
        }
        ClientEvent::WritesLost { ino } => {
            (Code::SelfEvicted, format!("unflushed writes of {ino} are lost; its next fsync fails"))
        }
        ClientEvent::LocksRefused => (Code::LocksUnavailable, "ENOLCK".to_owned()),
        ClientEvent::CommitFailed { ino, errno } => {
            (Code::IoWaiting, format!("a commit of {ino} failed with errno {errno} and is tried again"))
        }
        _ => return None,
    })
}
