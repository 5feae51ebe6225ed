//! The look of an outsider at a replica's metadata: reads all of it, changes nothing, says what is wrong.

use super::replica::{find, load};
use super::superblock::{DiskState, Superblock};
use super::{MetaError, PAGE, Reader, log};
use crate::ids::{Generation, NodeId, SECTOR, Volume};

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The superblock in force.
    pub superblock: Superblock,
    /// The state of the data that it stands for.
    pub disk: DiskState,
    /// Hot extents; none if the log is damaged.
    pub hot: Option<usize>,
    /// For each peer: bytes that are marked, damaged cells.
    pub bitmaps: Vec<(NodeId, u64, usize)>,
    /// What is wrong, a sentence each. Empty: all is well.
    pub findings: Vec<String>,
}

/// Audits the metadata on a device of `len` bytes; `known`: see [`Replica::recover_grown`](super::replica::Replica::recover_grown).
pub fn audit(reader: &dyn Reader, len: u64, known: &[u64]) -> Result<Audit, MetaError> {
    let (superblock, left) = find(reader, len, known)?;
    let layout = superblock.layout;
    let mut findings = Vec::new();
    if layout.end() > len {
        return Err(MetaError::TooSmall { needed: layout.end(), len });
    }
    for (name, at) in ["A", "B"].iter().zip(layout.supers) {
        match Superblock::decode(&reader.read(at, PAGE)?) {
            Ok(copy) if copy.sequence + 1 < superblock.sequence => {
                findings.push(format!("superblock {name} is {} changes old", superblock.sequence - copy.sequence))
            }
            Ok(_) => {}
            Err(e) => findings.push(format!("superblock {name}: {e}")),
        }
    }
    let ring = reader.read(layout.log, u64::from(layout.shape.log_pages) * PAGE)?;
    let hot = log::replay(&ring, layout.shape.log_slots, superblock.device).map(|r| r.hot);
    match &hot {
        None => findings.push("the activity log is damaged: the next start sets every bit".to_owned()),
        Some(hot) if superblock.flags.at_rest && !hot.is_empty() => {
            findings.push(format!("{} extents are hot beside a superblock that says that none is", hot.len()));
        }
        Some(hot) => {
            let there = |at: u64| Volume::of(at).is_some_and(|v| at - v.base() < superblock.data(v));
            let behind = |e: &&u32| layout.shape.span_of(**e).is_none_or(|span| !there(span.at));
            findings.extend(hot.iter().filter(behind).map(|e| format!("extent {e} lies behind the data")));
        }
    }
    for further in &superblock.further {
        further.find(reader, &superblock)?;
    }
    let bitmaps = bitmaps(reader, &superblock, &mut findings)?;
    identities(&superblock, &mut findings);
    if !left.is_empty() {
        findings.push(
            "superblocks lie where the device ended before it has grown: the next start takes them away".to_owned(),
        );
    }
    Ok(Audit { disk: superblock.disk(), hot: hot.map(|h| h.len()), bitmaps, superblock, findings })
}

fn bitmaps(
    reader: &dyn Reader,
    superblock: &Superblock,
    findings: &mut Vec<String>,
) -> Result<Vec<(NodeId, u64, usize)>, MetaError> {
    let mut found = Vec::new();
    for (slot, peer) in superblock.peers.iter().enumerate() {
        let (map, damaged) = load(reader, superblock, slot, None)?;
        if damaged > 0 {
            findings
                .push(format!("{damaged} cells of the bitmap for {} are damaged: they count as all set", peer.node));
        }
        found.push((peer.node, map.set_sectors() * SECTOR, damaged));
    }
    Ok(found)
}

/// What no replica says of itself.
fn identities(superblock: &Superblock, findings: &mut Vec<String>) {
    let Superblock { node, current, peers, history, layout, .. } = superblock;
    if !current.is_some() {
        findings.push("the data have no generation".to_owned());
    }
    if peers.iter().any(|p| p.node == *node) {
        findings.push("the replica is its own peer".to_owned());
    }
    if peers.len() > usize::from(layout.shape.peers) {
        findings.push("there are more peers than bitmaps".to_owned());
    }
    if *current != Generation::JUST_CREATED && history.contains(current) {
        findings.push("the current generation is also a former one".to_owned());
    }
    if superblock.size > layout.shape.data {
        findings.push(format!(
            "the agreed size of {} sectors is more than the {} there are",
            superblock.size, layout.shape.data
        ));
    }
}
