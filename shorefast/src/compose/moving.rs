//! A planned move of a volume's office, on the node that holds it.
//!
//! Before office is given up the target is asked whether it may hold it now: a node that has just mounted gets
//! permission only after it was seen for two periods, and a volume whose office was resigned to a node that may not
//! take it is without a coordinator until it comes back. So the move waits for the target, within its patience; with a
//! target that may not, it is refused and nothing has happened. Safety does not rest on the answer: the target's own
//! office judges again, and [`Volume::move_to`] offers again what comes back.
//!
//! A move is done when the target itself says that it holds office: what any other node knows may be of an earlier reign.
//! Prevents: two moves follow one another, a node that has not heard of the first takes the second for done, or asks a
//! coordinator that is none any more, and the command tells of a node that nobody asked for.

use std::sync::Arc;
use std::time::Duration;

use block::shared::NodeId;
use csv_fs::volume::{OfficeStatus, Volume};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::node::{Keeping, NodeParts, node_id};
use super::talk::NodeTalk;
use crate::api::Node;
use crate::exit::{Exit, Failure};

/// A living node answers such a question at once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// A target that has not answered for so long is not there; the link may be just coming up.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);
/// Whoever was asked to hand over is not the coordinator, or does not answer: for so long another is looked for.
const SEARCH: Duration = Duration::from_secs(5);
/// How long this node may take to hear of a reign that the target tells of.
const HEARS_WITHIN: Duration = Duration::from_secs(5);
/// How often a target that may not yet is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Whether a node may hold the office of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Eligible {
    /// It may.
    Now,
    /// It may not at the moment; the reason may pass.
    NotYet(String),
    /// It may not, and nothing but a command on that node changes that.
    Never(String),
}

/// What follows from an answer of the target.
#[derive(PartialEq, Eq, Debug)]
enum Next {
    HandOver,
    AskAgain,
    Refuse(String),
}

/// The wait for a target: pure; the caller asks and sleeps.
struct Waiting {
    deadline: Instant,
    unreachable_since: Option<Instant>,
}

impl Waiting {
    fn answered(&mut self, now: Instant, answer: Option<Eligible>) -> Next {
        let silent_for = match answer {
            Some(_) => Duration::ZERO,
            None => now.duration_since(*self.unreachable_since.get_or_insert(now)),
        };
        match answer {
            Some(Eligible::Now) => Next::HandOver,
            Some(Eligible::Never(why)) => Next::Refuse(why),
            Some(Eligible::NotYet(why)) => {
                self.unreachable_since = None;
                if now >= self.deadline { Next::Refuse(why) } else { Next::AskAgain }
            }
            None if silent_for >= UNREACHABLE_AFTER || now >= self.deadline => {
                Next::Refuse("it does not answer".into())
            }
            None => Next::AskAgain,
        }
    }
}

/// What a node that runs the volume says of its permission.
fn judged(office: &OfficeStatus) -> Eligible {
    match office {
        OfficeStatus { may_hold: true, .. } => Eligible::Now,
        OfficeStatus { path_ok: false, .. } => Eligible::NotYet("it has no working path of its own to the disk".into()),
        _ => Eligible::NotYet(
            "it may not hold office: it has not yet been seen for long enough by nodes that all hear one another"
                .into(),
        ),
    }
}

impl NodeParts {
    /// Whether this node may hold the office of a volume now.
    pub(super) fn eligible(&self, name: &str) -> Eligible {
        let Ok(record) = self.record(name) else {
            return Eligible::Never("it does not know the volume".into());
        };
        if self.drain.is_on() {
            return Eligible::Never("it is drained".into());
        }
        match self.keeping.lock().get(&record.id) {
            Some(Keeping::Running(volume)) => judged(&volume.office()),
            Some(Keeping::Pending { why, tries, .. }) => {
                let why = format!("it has not mounted the volume: {why}");
                if tries.in_vain_since(0) { Eligible::Never(why) } else { Eligible::NotYet(why) }
            }
            Some(Keeping::Over { why, .. }) => Eligible::Never(format!("it has not mounted the volume: {why}")),
            Some(Keeping::HeldBack { .. } | Keeping::Unmounted { .. }) | None => {
                Eligible::Never("the volume is unmounted there, on request".into())
            }
        }
    }

    /// Moves the office of a volume to a node, wherever it is now. Returns the epoch of that node's reign, once that node
    /// tells of it.
    pub(super) async fn move_office(
        self: &Arc<Self>,
        volume: &Volume,
        to: Node,
        within: Duration,
    ) -> Result<u64, Failure> {
        let deadline = Instant::now() + within;
        let mut searched_since = None;
        loop {
            if let Some(epoch) = self.reign_of(volume, to).await {
                self.hear_of(volume, to, epoch).await;
                return Ok(epoch);
            }
            let coordinator = volume.office().coordinator;
            let handed = match coordinator {
                Some(other) if other != self.me() => self.hand_over_there(volume.name(), to, other, deadline).await,
                Some(_) => self.hand_over(volume, to, deadline.saturating_duration_since(Instant::now())).await,
                None => Err(not_moved(volume.name(), to, "no coordinator is known")),
            };
            match handed {
                // Done, if the target says so, too.
                Ok(()) => searched_since = None,
                Err(e) => {
                    let since = *searched_since.get_or_insert_with(Instant::now);
                    if e.kind == Exit::Refused || since.elapsed() >= SEARCH {
                        return Err(e);
                    }
                }
            }
            if Instant::now() >= deadline {
                let now =
                    volume.office().coordinator.map_or_else(|| "nobody".to_owned(), |c| format!("node-{}", c.get()));
                return Err(not_moved(
                    volume.name(),
                    to,
                    &format!("its coordinator is {now}, as far as is known here"),
                ));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// The epoch in which a node coordinates a volume, if it says so itself.
    async fn reign_of(&self, volume: &Volume, node: Node) -> Option<u64> {
        let told = if node == self.bundle.node {
            self.own_word()
        } else {
            match self.talk(node_id(node), &NodeTalk::AskRoutes, ANSWERS_WITHIN).await {
                Some(NodeTalk::Routes(told)) => told,
                _ => return None,
            }
        };
        let known = told.into_iter().find(|told| told.name == volume.name())?.known?;
        (known.coordinator == Some(node)).then_some(known.epoch)
    }

    /// Waits until this node has heard of a reign, so that who asks next sees what was just told.
    async fn hear_of(&self, volume: &Volume, to: Node, epoch: u64) {
        let heard = |office: OfficeStatus| {
            office.epoch > epoch || (office.epoch == epoch && office.coordinator == Some(node_id(to)))
        };
        let deadline = Instant::now() + HEARS_WITHIN;
        while !heard(volume.office()) && Instant::now() < deadline {
            tokio::time::sleep(ASK_EVERY / 5).await;
        }
    }

    /// Passes a move on to the coordinator, which alone can hand over.
    async fn hand_over_there(&self, name: &str, to: Node, coordinator: NodeId, by: Instant) -> Result<(), Failure> {
        let talk = NodeTalk::Move { name: name.to_owned(), to };
        match self.talk(coordinator, &talk, by.saturating_duration_since(Instant::now())).await {
            Some(NodeTalk::Done(done)) => done,
            _ => Err(not_moved(name, to, &format!("the coordinator, {coordinator}, did not answer"))),
        }
    }

    /// Hands the office of a volume to a node, once that node may hold it.
    pub(super) async fn hand_over(
        self: &Arc<Self>,
        volume: &Volume,
        to: Node,
        within: Duration,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + within;
        let name = volume.name();
        let (holder, target) = (volume.office().coordinator, node_id(to));
        if holder == Some(self.me()) && target != self.me() {
            self.until_eligible(name, to, deadline).await.map_err(|why| {
                Failure::new(
                    Exit::Refused,
                    format!("The coordinator of {name} was not moved to {to}: {why}."),
                    format!("It stays where it is; see `shorefast status` on {to}, and try again."),
                )
            })?;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        volume.move_to(target, left).await.map_err(|why| not_moved(name, to, &why))
    }

    /// Asks the target until it may hold office, or a reason why it does not is final.
    async fn until_eligible(self: &Arc<Self>, name: &str, to: Node, deadline: Instant) -> Result<(), String> {
        // It knows all volumes then that it can be told of.
        self.exchange(node_id(to)).await;
        let mut waiting = Waiting { deadline, unreachable_since: None };
        let ask = NodeTalk::MayHold { name: name.to_owned() };
        loop {
            let answer = match self.talk(node_id(to), &ask, ANSWERS_WITHIN).await {
                Some(NodeTalk::Office(eligible)) => Some(eligible),
                _ => None,
            };
            match waiting.answered(Instant::now(), answer) {
                Next::HandOver => return Ok(()),
                Next::Refuse(why) => return Err(why),
                Next::AskAgain => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }
}

fn not_moved(name: &str, to: Node, why: &str) -> Failure {
    Failure::failed(
        format!("The coordinator of {name} was not moved to {to}: {why}."),
        "It is served meanwhile; see `shorefast status`, and try again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn waiting() -> (Waiting, Instant) {
        let now = Instant::now();
        (Waiting { deadline: now + PATIENCE, unreachable_since: None }, now)
    }

    fn not_yet() -> Option<Eligible> {
        Some(Eligible::NotYet("soon".into()))
    }

    #[test]
    fn a_target_that_may_not_yet_is_waited_for_within_the_patience_and_then_refused() {
        let (mut w, now) = waiting();
        assert_eq!(w.answered(now, not_yet()), Next::AskAgain);
        assert_eq!(w.answered(now + PATIENCE / 2, not_yet()), Next::AskAgain);
        assert_eq!(w.answered(now + PATIENCE, not_yet()), Next::Refuse("soon".into()));
        assert_eq!(w.answered(now, Some(Eligible::Now)), Next::HandOver);
    }

    #[test]
    fn a_target_that_never_may_is_refused_at_once() {
        let (mut w, now) = waiting();
        assert_eq!(w.answered(now, Some(Eligible::Never("gone".into()))), Next::Refuse("gone".into()));
    }

    #[test]
    fn a_target_that_does_not_answer_is_refused_before_the_patience_ends_unless_it_answers_in_between() {
        let (mut w, now) = waiting();
        assert_eq!(w.answered(now, None), Next::AskAgain);
        assert_eq!(w.answered(now + UNREACHABLE_AFTER / 2, not_yet()), Next::AskAgain);
        assert_eq!(w.answered(now + UNREACHABLE_AFTER, None), Next::AskAgain);
        assert_eq!(w.answered(now + UNREACHABLE_AFTER * 2, None), Next::Refuse("it does not answer".into()));
    }

    #[test]
    fn a_node_without_permission_says_whether_it_is_for_its_path() {
        let office = |may_hold, path_ok| OfficeStatus {
            coordinator: None,
            epoch: 0,
            incarnation: 1,
            metadata: csv_fs::volume::MetadataState::Waiting,
            given: None,
            may_hold,
            path_ok,
        };
        assert_eq!(judged(&office(true, true)), Eligible::Now);
        let said = |office: OfficeStatus| match judged(&office) {
            Eligible::NotYet(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(said(office(false, false)).contains("path"));
        assert!(!said(office(false, true)).contains("path"));
    }
}
