//! Units of a SAN, reached over iSCSI from this process: a session of its own, what the unit is, and whether it could carry
//! a volume.
//!
//! Refuses as a shared disk every unit that lacks what fencing rests on, and names it; found by trying, since some
//! targets claim what they do not have.

pub(crate) mod portal;
pub(crate) mod secrets;

use std::env;

use block::worker::Handle;
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::{Cause, Config, FenceGen};
use iscsi_initiator::unit::{Lack, UnitError, attach, lacks};
use iscsi_initiator::{Identity, LunDevice, Ownership, Session, SessionState, Url};
use scsi::LunAddress;

use crate::api::Node;
use crate::exit::{Exit, Failure};

/// Where the initiator's name is looked for.
const INITIATOR_ENV: &str = "SHOREFAST_ISCSI_INITIATOR";

/// Whether this is the URL of a unit.
pub(crate) fn is_unit(url: &str) -> bool {
    url.starts_with("iscsi://")
}

/// The URL as it may be shown: without its secret.
pub(crate) fn masked(url: &str) -> String {
    if !is_unit(url) {
        return url.to_owned();
    }
    // What cannot be read is not shown either: nobody knows where in it a secret is.
    Url::parse(url).map_or_else(|_| "iscsi://...".to_owned(), |url| url.to_string())
}

pub(crate) fn parse(url: &str) -> Result<Url, Failure> {
    Url::parse(url).map_err(|e| Failure::usage(format!("{e}."), "Write it like iscsi://HOST/TARGET/LUN."))
}

pub(crate) fn lookup(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// This host's name as an initiator.
pub(crate) fn initiator() -> String {
    lookup(INITIATOR_ENV).unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.').collect();
        format!("iqn.2026-01.invalid.shorefast:{host}")
    })
}

/// A node's name as an initiator: the same after every restart, so that a new login ends what a dead daemon left.
pub(crate) fn node_initiator(set: Option<&str>, cluster_id: &str, node: Node) -> String {
    set.map_or_else(|| format!("iqn.2026-01.invalid.shorefast:{}.{node}", cluster_id.to_lowercase()), str::to_owned)
}

/// A unit over a session of its own.
pub(crate) struct Unit {
    pub(crate) session: Session,
    pub(crate) identity: Identity,
}

impl Unit {
    pub(crate) async fn attach(workers: &Handle, url: &str) -> Result<Unit, Failure> {
        let url = parse(url)?;
        let Some((target, lun)) = url.unit.clone() else {
            return Err(Failure::usage(format!("{url} names no unit."), "Write it like iscsi://HOST/TARGET/LUN."));
        };
        let chap = url
            .chap(lookup)
            .map_err(|e| Failure::usage(format!("{url}: {e}."), "Correct the URL or the environment."))?;
        let lun = LunAddress::new(lun)
            .ok_or_else(|| Failure::usage("There is no such number of a unit.", "Give a smaller one."))?;
        // The process's own number: two commands at once must not take each other's session.
        let mut login =
            LoginConfig::new(initiator(), Isid::from_number(std::process::id(), 1), Kind::Normal { target });
        login.chap = chap;
        let session = Session::start(workers, 0, Config::new(login, url.portal.clone()), Ownership::Alone);
        if let Err(cause) = first_word(&session).await {
            session.close().await;
            let message = format!("{url}: {}.", portal::because(&url.portal, &cause));
            return Err(Failure::failed(message, "See whether portal, target and secret are right."));
        }
        match attach(&session, lun).await {
            Ok(identity) => Ok(Unit { session, identity }),
            Err(e) => {
                session.close().await;
                let next = "`iscsi discover` tells the targets; the unit's number is the SAN's.";
                Err(Failure::failed(format!("{url}: {e}."), next))
            }
        }
    }

    pub(crate) fn device(&self) -> LunDevice {
        LunDevice::new(self.session.clone(), self.identity.clone(), FenceGen(0))
    }
}

/// The nexus, or the first failure: a person waits.
async fn first_word(session: &Session) -> Result<(), Cause> {
    let mut state = session.state();
    loop {
        match &*state.borrow_and_update() {
            SessionState::Up { .. } => return Ok(()),
            SessionState::Ended(cause) | SessionState::Down(Some(cause)) => return Err(cause.clone()),
            SessionState::Down(None) => {}
        }
        if state.changed().await.is_err() {
            return Err(Cause::ClosedHere);
        }
    }
}

/// Why a unit cannot carry a volume. One that lacks nothing is refused as well: that comes later.
pub(crate) async fn refusal(workers: &Handle, url: &str) -> Failure {
    let unit = match Unit::attach(workers, url).await {
        Ok(unit) => unit,
        Err(failure) => return failure,
    };
    let found = lacks(&unit.session, &unit.identity).await;
    unit.session.close().await;
    judged(&masked(url), found)
}

fn judged(url: &str, found: Result<Vec<Lack>, UnitError>) -> Failure {
    match found {
        Err(e) => Failure::failed(format!("{url}: {e}."), "See what the target reports, and try again."),
        Ok(lacks) if lacks.is_empty() => Failure::new(
            Exit::Refused,
            format!("{url} has what a shared disk needs, but this version lays volumes only on files."),
            "Name a file (`truncate -s 10G FILE` makes one); LUNs over iSCSI come later.",
        ),
        Ok(lacks) => {
            let names: Vec<String> = lacks.iter().map(ToString::to_string).collect();
            Failure::new(
                Exit::Refused,
                format!("{url} cannot be a shared disk: it lacks {}.", names.join(", and it lacks ")),
                "Without that a failed node cannot be kept from the disk. Use a unit of a target that has it, as disk arrays do.",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_lacks_is_named_and_refused_with_4() {
        let failure = judged("iscsi://h/t/1", Ok(vec![Lack::CompareAndWrite, Lack::PersistThroughPowerLoss]));
        assert_eq!(failure.kind, Exit::Refused);
        assert_eq!(
            failure.message,
            "iscsi://h/t/1 cannot be a shared disk: it lacks COMPARE AND WRITE, and it lacks reservations that survive a loss \
             of power."
        );
        let later = judged("iscsi://h/t/1", Ok(Vec::new()));
        assert!(later.kind == Exit::Refused && later.next.contains("later"), "{later}");
    }

    #[test]
    fn a_node_has_one_name_as_an_initiator_and_it_is_one() {
        let node = Node::new(64).expect("a node");
        let name = node_initiator(None, "0F3a-77", node);
        assert_eq!(name, "iqn.2026-01.invalid.shorefast:0f3a-77.node-64");
        assert!(iscsi::keys::is_name(&name));
        assert_eq!(node_initiator(Some("iqn.2026-01.test:x"), "0f", node), "iqn.2026-01.test:x");
    }

    #[test]
    fn a_secret_in_a_disk_is_never_shown() {
        assert_eq!(masked("/dev/x"), "/dev/x");
        assert_eq!(masked("iscsi://user%secret-of-12@h/t/1"), "iscsi://user%***@h:3260/t/1");
        assert_eq!(masked("iscsi://user%secret-of-12@h/t/x"), "iscsi://...");
    }
}
