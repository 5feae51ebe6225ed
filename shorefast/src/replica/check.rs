//! `replica check`: the audit of a replica's metadata, and whether they are those that its file speaks of.

use block::worker::Workers;
use replicator::ids::{NodeSet, SECTOR, Volume};
use replicator::meta::audit::Audit;
use replicator::runtime;

use super::make::node_id;
use super::record::Record;
use super::{ends, open_alone};
use crate::cli::ReplicaName;
use crate::exit::Failure;
use crate::init::Bundle;

/// Looks at everything, changes nothing. The replica does not run meanwhile.
pub(crate) fn check(which: &ReplicaName) -> Result<Audit, Failure> {
    let record = Record::load(&which.dir, &which.name)?;
    let bundle = Bundle::load(&record.bundle)?;
    let workers = Workers::start(1, "replica")
        .map_err(|e| Failure::failed(format!("Cannot start the workers: {e}."), "See the limits of the system."))?;
    let mut disks = vec![(Volume::FIRST, open_alone(&record.disk, &workers.handle())?.device())];
    for (volume, path) in record.further()? {
        disks.push((volume, open_alone(&path, &workers.handle())?.device()));
    }
    let known = ends::load(&Record::ends(&which.dir, &which.name))?;
    let mut audit = runtime::audit(disks, &known).map_err(|e| {
        Failure::new(
            crate::exit::Exit::Problems,
            format!("{}: {e}.", record.disk.display()),
            "If it is the right disk, the replica is to be made anew, and synchronised in full.",
        )
    })?;
    let sb = &audit.superblock;
    let named: NodeSet = record.peers()?.into_iter().map(|(n, _)| node_id(n)).collect();
    let found: NodeSet = sb.peers.iter().map(|p| p.node).collect();
    let mut more = Vec::new();
    if sb.resource != runtime::resource_id(&bundle.cluster_id, &record.name) || sb.node != node_id(record.node) {
        more.push(format!("the disk carries a replica of {} that is not {} of this node", sb.node, record.name));
    }
    if named != found {
        more.push(format!("the metadata know the peers {found:?}, the replica's file names {named:?}"));
    }
    audit.findings.extend(more);
    Ok(audit)
}

/// As JSON.
pub(crate) fn as_json(audit: &Audit) -> serde_json::Value {
    let peer = |(node, bytes, damaged): &(replicator::ids::NodeId, u64, usize)| serde_json::json!({ "node": node.get(), "out_of_sync_bytes": bytes, "damaged_cells": damaged });
    let volume = |(volume, sectors): (Volume, u64)| serde_json::json!({ "volume": volume.get(), "size_bytes": sectors * SECTOR });
    serde_json::json!({
        "node": audit.superblock.node.get(),
        "disk": format!("{:?}", audit.disk),
        "generation": format!("{:?}", audit.superblock.current),
        "size_bytes": audit.superblock.size * SECTOR,
        "volumes": audit.superblock.sizes().iter().map(volume).collect::<Vec<_>>(),
        "hot_extents": audit.hot,
        "peers": audit.bitmaps.iter().map(peer).collect::<Vec<_>>(),
        "clean": audit.findings.is_empty(),
        "findings": audit.findings,
    })
}

/// For people.
pub(crate) fn shown(audit: &Audit) -> String {
    let mut text: String = audit.findings.iter().map(|f| format!("{f}\n")).collect();
    if audit.findings.is_empty() {
        text = format!(
            "Nothing is wrong: disk:{:?} generation:{:?} size:{}, {} hot extents.\n",
            audit.disk,
            audit.superblock.current,
            audit.superblock.sizes().iter().map(|(_, s)| (s * SECTOR).to_string()).collect::<Vec<_>>().join("+"),
            audit.hot.unwrap_or(0)
        );
    }
    text
}
