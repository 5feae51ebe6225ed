//! What nodes tell one another of the volumes they know: how each node's data travels, or why it has not mounted a
//! volume, and what only a node that runs the volume knows (size, coordinator, epoch).
//!
//! A node that knows a volume and does not run it says so too: otherwise a volume whose every other node failed to mount
//! it would look healthy.

use block::shared::NodeId;
use csv_fs::volume::Volume;
use serde::{Deserialize, Serialize};

use super::node::{Keeping, NodeParts};
use super::records::Record;
use super::shown;
use crate::api::{Metadata, Node, Route, VolumeNode};
use crate::clock::WallTime;

/// Why a volume is not mounted whose keeper has not failed yet.
pub(super) const STARTING: &str = "starting";
/// Why a volume is not mounted that nobody wants mounted.
pub(super) const ON_REQUEST: &str = "on request";
/// Why a volume is not mounted that was made while the node was drained.
pub(super) const DRAINED: &str = "node is drained";
/// What is shown for a node that answers and has no word about a volume.
pub(super) const NOT_KNOWN: &str = "not known there";

/// One node's word about one volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Told {
    /// The volume's name.
    pub(super) name: String,
    /// How it is on that node.
    pub(super) here: VolumeNode,
    /// What that node knows of the volume, if it runs there.
    pub(super) known: Option<Known>,
}

/// What one node says of all volumes that it knows.
#[derive(Debug)]
pub(super) struct Words {
    /// Which.
    pub(super) node: Node,
    /// About each.
    pub(super) told: Vec<Told>,
    /// Whether it is drained.
    pub(super) drained: bool,
}

impl Words {
    /// How a volume is on that node.
    pub(super) fn here(&self, volume: &str) -> VolumeNode {
        let told = self.told.iter().find(|told| told.name == volume).map(|told| told.here.clone());
        told.unwrap_or_else(|| VolumeNode {
            next: Some("It is told again by itself; see the log of that node if it stays so.".into()),
            ..unmounted(self.node, NOT_KNOWN, WallTime::now(), true)
        })
    }
}

impl Told {
    /// Whether that node runs the volume, or knows why not.
    pub(super) fn has_begun(&self) -> bool {
        self.here.reason.as_deref() != Some(STARTING)
    }
}

/// What a node that runs a volume knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The highest epoch it has heard of.
    pub(super) epoch: u64,
    /// Who coordinates in it.
    pub(super) coordinator: Option<Node>,
    /// The metadata side, as it sees it.
    pub(super) metadata: Metadata,
    /// Size of the data.
    pub(super) size_bytes: u64,
    /// Of which in use, if it has asked lately.
    pub(super) used_bytes: Option<u64>,
    /// The volume's timers.
    pub(super) timing: String,
}

impl Known {
    /// What a running volume tells.
    pub(super) fn of(volume: &Volume) -> Known {
        let office = volume.office();
        Known {
            epoch: office.epoch,
            coordinator: office.coordinator.map(NodeId::get).and_then(Node::new),
            metadata: shown::metadata(office.metadata),
            size_bytes: volume.size_bytes(),
            used_bytes: shown::used(volume),
            timing: volume.timing_name().to_owned(),
        }
    }

    /// The best of what several nodes know: the latest epoch, and how full it is from whoever knows.
    pub(super) fn best<'a>(all: impl Iterator<Item = &'a Known>) -> Option<Known> {
        all.fold(None, |best: Option<Known>, known| {
            let used_bytes = best.as_ref().and_then(|b| b.used_bytes).or(known.used_bytes);
            let best = best.filter(|b| b.epoch >= known.epoch).unwrap_or_else(|| known.clone());
            Some(Known { used_bytes, ..best })
        })
    }
}

impl NodeParts {
    /// This node's word about every volume that it knows.
    pub(super) fn own_word(&self) -> Vec<Told> {
        let records = self.records.live();
        let keeping = self.keeping.lock();
        records.iter().map(|record| self.word_about(record, keeping.get(&record.id))).collect()
    }

    fn word_about(&self, record: &Record, keeping: Option<&Keeping>) -> Told {
        let node = self.bundle.node;
        let (here, known) = match keeping {
            Some(Keeping::Running(volume)) => (shown::route(node, volume), Some(Known::of(volume))),
            Some(Keeping::Pending { why, since, .. }) => (unmounted(node, why, *since, true), None),
            Some(Keeping::Over { why, next, since }) => {
                let here = unmounted(node, why, *since, true);
                (VolumeNode { next: Some(next.clone()), ..here }, None)
            }
            Some(Keeping::HeldBack { since }) => (unmounted(node, DRAINED, *since, false), None),
            Some(Keeping::Unmounted { since }) => (unmounted(node, ON_REQUEST, *since, false), None),
            None => (not_kept(node, record, self.started), None),
        };
        Told { name: record.name.clone(), here, known }
    }
}

/// Nothing keeps the volume. If it is wanted, that is only so between its record and its keeper. Prevents: a node that has just heard of
/// a new volume is taken for one that has unmounted it, and whoever makes the volume does not wait for it.
fn not_kept(node: Node, record: &Record, since: WallTime) -> VolumeNode {
    unmounted(node, if record.wanted { STARTING } else { ON_REQUEST }, since, record.wanted)
}

/// A node that knows a volume and does not run it.
fn unmounted(node: Node, why: &str, since: WallTime, wanted: bool) -> VolumeNode {
    VolumeNode {
        node,
        route: Route::Unmounted,
        reason: Some(why.to_owned()),
        since,
        paths: Vec::new(),
        wanted,
        next: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_answers_and_has_no_word_about_a_volume_does_not_know_it() {
        let node = Node::new(2).expect("a node");
        let here = unmounted(node, ON_REQUEST, WallTime(0), false);
        let words =
            Words { node, drained: false, told: vec![Told { name: "a".into(), here: here.clone(), known: None }] };
        assert_eq!(words.here("a"), here);
        let unknown = words.here("b");
        assert_eq!((unknown.reason.as_deref(), unknown.wanted, unknown.node), (Some(NOT_KNOWN), true, node));
    }

    /// Its record is there, and its keeper is not yet.
    #[test]
    fn a_node_that_has_just_heard_of_a_volume_has_not_unmounted_it_on_request() {
        let node = Node::new(2).expect("a node");
        let told = |wanted| {
            let (id, name) = ("0f".to_owned(), "a".to_owned());
            let record = Record { id, name: name.clone(), disks: Vec::new(), wanted, version: 1, deleted: false };
            Told { name, here: not_kept(node, &record, WallTime(0)), known: None }
        };
        assert!(!told(true).has_begun(), "whoever makes it waits");
        let gone = told(false);
        assert_eq!((gone.has_begun(), gone.here.unmounted_on_request()), (true, true));
    }

    fn known(epoch: u64, used_bytes: Option<u64>) -> Known {
        let coordinator = u8::try_from(epoch).ok().and_then(Node::new);
        Known { epoch, coordinator, metadata: Metadata::Ok, size_bytes: 9, used_bytes, timing: "fast".into() }
    }

    #[test]
    fn of_what_other_nodes_know_the_latest_epoch_counts() {
        let all = [known(2, Some(5)), known(3, None), known(1, None)];
        assert_eq!(Known::best(all.iter()), Some(known(3, Some(5))));
        assert_eq!(Known::best([].iter()), None);
    }
}
