//! What `primary --force` may lose, as far as this node can know; said before it is done.

use replicator::ids::{Generation, NodeId};
use replicator::runtime::status::Status;

/// A sentence for each thing that may be lost; none if it would become primary without force as well.
pub(crate) fn may_lose(status: &Status) -> Vec<String> {
    if status.role == "Primary" {
        return Vec::new();
    }
    if status.generation == format!("{:?}", Generation::JUST_CREATED) {
        return vec![
            "Nobody has said yet where the data are: those of this disk become the data of all replicas, and what the others \
             carry is overwritten."
                .to_owned(),
        ];
    }
    let mut said = Vec::new();
    let others: Vec<NodeId> = status.granted.iter().copied().filter(|n| *n != status.node).collect();
    if status.disk == "Inconsistent" {
        let most = status.peers.iter().map(|p| p.out_of_sync_bytes).max().unwrap_or(0);
        said.push(format!(
            "This disk is in the middle of a synchronisation: up to {most} bytes are older than the rest, in no order. A file \
             system on it may be damaged."
        ));
    }
    if status.quorum != "off" && !others.is_empty() && !status.granted.contains(&status.node) {
        let what = match &*status.protocol {
            "C" => "whatever was written there since this replica was left is lost",
            _ => "what it acknowledged and has not come here is lost, and if this replica was left, all since",
        };
        said.push(format!("The newest grant that is known here is that of {}: {what}.", list(&others)));
    }
    if status.lost_cache && !others.is_empty() && status.disk != "Inconsistent" {
        said.push(format!(
            "This node stopped since: what was acknowledged and not flushed before that may be missing here, and {} may have \
             it.",
            list(&others)
        ));
    }
    let unheard: Vec<NodeId> = status.peers.iter().filter(|p| p.role == "Unknown").map(|p| p.node).collect();
    if status.quorum == "off" && !unheard.is_empty() {
        said.push(format!(
            "{} cannot be heard: if a replica there is primary, or was since, what was written there is in a split brain with \
             this one.",
            list(&unheard)
        ));
    }
    said
}

fn list(nodes: &[NodeId]) -> String {
    let names: Vec<String> = nodes.iter().map(|n| format!("node-{}", n.get())).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use replicator::runtime::status::PeerStatus;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::new(n).expect("a node")
    }

    fn status() -> Status {
        let peer = PeerStatus {
            node: node(2),
            connection: "Connecting".to_owned(),
            role: "Unknown".to_owned(),
            disk: "Unknown".to_owned(),
            out_of_sync_bytes: 8192,
            reason: None,
            verified: None,
            resync: None,
            preview: None,
            synchronised: None,
        };
        Status {
            name: "r0".to_owned(),
            node: node(1),
            role: "Secondary".to_owned(),
            disk: "Outdated".to_owned(),
            protocol: "C".to_owned(),
            size_bytes: 1 << 20,
            volumes: Vec::new(),
            generation: "0000000000001234".to_owned(),
            waiting: 0,
            repair_left_bytes: 0,
            not_repaired_bytes: 0,
            quorum: "yes".to_owned(),
            suspended: false,
            on_no_quorum: None,
            granted: vec![node(2)],
            lost_cache: false,
            witness: None,
            peers: vec![peer],
        }
    }

    #[test]
    fn each_thing_that_may_be_lost_is_said_and_nothing_else() {
        let said = |s: Status| may_lose(&s).join("\n");
        assert!(said(status()).contains("grant that is known here is that of node-2"));
        assert_eq!(may_lose(&status()).len(), 1);
        let lost = Status { granted: vec![node(1), node(2)], lost_cache: true, ..status() };
        assert!(said(lost.clone()).contains("not flushed") && may_lose(&lost).len() == 1);
        let half = Status { disk: "Inconsistent".to_owned(), lost_cache: true, ..status() };
        assert!(said(half).contains("up to 8192 bytes"));
        let off = Status { quorum: "off".to_owned(), disk: "UpToDate".to_owned(), ..status() };
        assert!(said(off).contains("split brain"));
        let new = Status { generation: format!("{:?}", Generation::JUST_CREATED), ..status() };
        assert!(said(new).contains("data of all replicas"));
        assert!(may_lose(&Status { role: "Primary".to_owned(), ..status() }).is_empty());
        assert!(may_lose(&Status { granted: vec![node(1)], disk: "UpToDate".to_owned(), ..status() }).is_empty());
    }
}
