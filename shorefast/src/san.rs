//! Units of a SAN, reached over iSCSI from this process: a session of its own, what the unit is, and whether it could carry
//! a volume.
//!
//! Refuses as a shared disk every unit that lacks what fencing rests on, and names it; found by trying, since some
//! targets claim what they do not have. A unit at which somebody is registered, or which is reserved, is refused before anything
//! is tried: whoever that is relies on it.

pub(crate) mod local;
pub(crate) mod portal;
pub(crate) mod secrets;
pub(crate) mod unit;

use std::env;

use block::shared::{NexusKey, Reservations as _};
use block::worker::Handle;
use iscsi::chap::Chap;
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::{Cause, Config, FenceGen};
use iscsi_initiator::unit::{Lack, UnitError, WriteCache, attach, lacks};
use iscsi_initiator::{Identity, LunDevice, Ownership, Session, SessionState, Url};
use scsi::reservations::ReservationType;
use scsi::{LunAddress, ReservationKey};
use secrets::Secrets;

use crate::api::Node;
use crate::exit::{Exit, Failure};
use crate::places;

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

/// Whether a secret stands in it, for all who see it.
pub(crate) fn has_secret(url: &str) -> bool {
    is_unit(url) && Url::parse(url).is_ok_and(|url| url.secret().is_some())
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

/// Who logs in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Caller {
    /// The initiator's name.
    pub(crate) initiator: String,
    /// Where the secrets of its accounts are.
    pub(crate) secrets: Secrets,
}

impl Caller {
    /// A command of this host, which no daemon carries out.
    pub(crate) fn of_command() -> Caller {
        let (file, state) = (places::ISCSI_SECRETS.as_ref(), places::STATE.as_ref());
        Caller { initiator: initiator(), secrets: Secrets::new(file, state) }
    }
}

/// A unit over a session of its own.
pub(crate) struct Unit {
    pub(crate) session: Session,
    pub(crate) identity: Identity,
}

impl Unit {
    /// As a command of this host does it. The process's own number: two commands at once must not take each other's session.
    pub(crate) async fn attach(workers: &Handle, url: &str) -> Result<Unit, Failure> {
        Unit::attach_at(workers, url, Isid::from_number(std::process::id(), 1)).await
    }

    /// The same from an initiator port of the caller's.
    pub(crate) async fn attach_at(workers: &Handle, url: &str, isid: Isid) -> Result<Unit, Failure> {
        let url = parse(url)?;
        let chap = url
            .chap(lookup)
            .map_err(|e| Failure::usage(format!("{url}: {e}."), "Correct the URL or the environment."))?;
        Unit::attach_as(workers, &url, (initiator(), isid), chap).await
    }

    async fn attach_as(
        workers: &Handle,
        url: &Url,
        (initiator, isid): (String, Isid),
        chap: Option<Chap>,
    ) -> Result<Unit, Failure> {
        let Some((target, lun)) = url.unit.clone() else {
            return Err(Failure::usage(format!("{url} names no unit."), "Write it like iscsi://HOST/TARGET/LUN."));
        };
        let lun = LunAddress::new(lun)
            .ok_or_else(|| Failure::usage("There is no such number of a unit.", "Give a smaller one."))?;
        let mut login = LoginConfig::new(initiator, isid, Kind::Normal { target });
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

/// What whoever makes a volume on a unit with a volatile write cache should know; docs/semantics/data.md, 10b.
pub(crate) const CACHES: &str = "The unit has a volatile write cache (WCE): what programs write is safe from a loss of power only once fsync has \
    returned, and if a node loses every path at once, files with unflushed writes get EIO there, since nobody can tell whether the array was \
    restarted; have it switched off, or protected so that the array reports none.";

/// Fails unless a unit could carry a new volume; tells whether it has a volatile write cache. Looked at over the first portal that answers;
/// writes nothing.
pub(crate) async fn examine(workers: &Handle, portals: &[Url], caller: &Caller) -> Result<WriteCache, Failure> {
    let mut first = None;
    for url in portals {
        let (secrets, of) = (caller.secrets.clone(), url.clone());
        let chap = tokio::task::spawn_blocking(move || secrets.chap(&of)).await.unwrap_or_else(|e| Err(e.to_string()));
        let chap = chap.map_err(|e| Failure::usage(format!("{url}: {e}."), "Then repeat the command."))?;
        let port = (caller.initiator.clone(), Isid::from_number(std::process::id(), 1));
        match Unit::attach_as(workers, url, port, chap).await {
            Ok(unit) => {
                let judged = judge(&url.to_string(), &unit).await;
                unit.session.close().await;
                return judged.map(|()| unit.identity.cache);
            }
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    Err(first.unwrap_or_else(|| Failure::usage("No portal is named.", "Give --disk iscsi://HOST/TARGET/LUN.")))
}

async fn judge(url: &str, unit: &Unit) -> Result<(), Failure> {
    // Before anything is tried.
    let device = unit.device();
    let keys = device.keys().await.map(|k| k.keys);
    let held = device.reservation().await.map(|h| h.reservation.map(|r| r.kind));
    // What has no reservations tells none; then it lacks them.
    used_by_others(url, &keys.unwrap_or_default(), held.unwrap_or_default())?;
    judged(url, lacks(&unit.session, &unit.identity).await)
}

fn used_by_others(url: &str, keys: &[ReservationKey], held: Option<ReservationType>) -> Result<(), Failure> {
    let mut names: Vec<String> = keys.iter().map(|key| described(*key)).collect();
    names.dedup();
    let registered = (!names.is_empty()).then(|| format!("registered there: {}", names.join(", ")));
    let reserved = held.map(|kind| format!("it is reserved ({kind})"));
    let who: Vec<String> = registered.into_iter().chain(reserved).collect();
    if who.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!("{url} is in use by others: {}.", who.join("; ")),
        "Unmount or stop whatever uses it. Registrations that nobody needs any more are cleared at the array.",
    ))
}

/// A key for people: whose it is, if it has the form of a volume's.
fn described(key: ReservationKey) -> String {
    match NexusKey::parse(key) {
        Some(nexus) => format!("{key} (of node-{} of a volume)", nexus.node.get()),
        None => key.to_string(),
    }
}

fn judged(url: &str, found: Result<Vec<Lack>, UnitError>) -> Result<(), Failure> {
    let lacks =
        found.map_err(|e| Failure::failed(format!("{url}: {e}."), "See what the target reports, and try again."))?;
    if lacks.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = lacks.iter().map(ToString::to_string).collect();
    Err(Failure::new(
        Exit::Refused,
        format!("{url} cannot be a shared disk: it lacks {}.", names.join(", and it lacks ")),
        "Without that a failed node cannot be kept from the disk. Use a unit of a target that has it, as disk arrays do.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_lacks_is_named_and_refused_with_4() {
        let failure = judged("iscsi://h/t/1", Ok(vec![Lack::CompareAndWrite, Lack::PersistThroughPowerLoss]));
        let failure = failure.expect_err("refused");
        assert_eq!(failure.kind, Exit::Refused);
        assert_eq!(
            failure.message,
            "iscsi://h/t/1 cannot be a shared disk: it lacks COMPARE AND WRITE, and it lacks reservations that survive a loss \
             of power."
        );
        assert_eq!(judged("iscsi://h/t/1", Ok(Vec::new())), Ok(()));
    }

    #[test]
    fn a_unit_that_others_use_is_refused_with_4_and_they_are_named() {
        let refused = |keys: &[u64], held| {
            let keys: Vec<ReservationKey> = keys.iter().map(|key| ReservationKey(*key)).collect();
            used_by_others("iscsi://h/t/1", &keys, held)
        };
        assert_eq!(refused(&[], None), Ok(()));
        let failure =
            refused(&[0xbad, 0xabcd_0034_5678_0102], Some(ReservationType::WriteExclusive)).expect_err("refused");
        assert_eq!(failure.kind, Exit::Refused);
        assert_eq!(
            failure.message,
            "iscsi://h/t/1 is in use by others: registered there: 0x0000000000000bad, 0xabcd003456780102 (of node-3 of a volume); \
             it is reserved (write exclusive)."
        );
        assert!(refused(&[], Some(ReservationType::ExclusiveAccess)).is_err());
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
        assert!(
            has_secret("iscsi://user%secret-of-12@h/t/1") && !has_secret("iscsi://user@h/t/1") && !has_secret("/a%b@c")
        );
    }
}
