//! Re-asserted mappings against what the store has on record: each must lie in the client's grant, or name blocks that
//! the file has at that place already (an unwritten extent that the client has written).

use crate::meta::{MetaError, Reads};
use crate::types::*;

/// The first mapping that is neither, in a sentence.
pub(super) fn outside(
    store: &impl Reads,
    grants: &[DiskRange],
    claims: &[(InodeNo, Vec<Extent>)],
) -> Result<Option<String>, MetaError> {
    for (ino, extents) in claims {
        for claim in extents {
            let mapped = match store.extents(*ino, claim.range()) {
                Ok(mapped) => mapped,
                // The file is gone: what was made in it is nobody's, and the commit will say so.
                Err(MetaError::Errno(_)) => continue,
                Err(e) => return Err(e),
            };
            if let Some(block) = first_outside(claim, &mapped, grants) {
                return Ok(Some(format!("block {} of {ino} was mapped to a block that was not granted", block.0)));
            }
        }
    }
    Ok(None)
}

fn first_outside(claim: &Extent, mapped: &[Extent], grants: &[DiskRange]) -> Option<FileBlock> {
    let disk_at = |extent: &Extent, file: u64| extent.disk.0 + (file - extent.file.0);
    let mut at = claim.file.0;
    let end = claim.file.0.checked_add(claim.len.0).filter(|_| claim.disk.0.checked_add(claim.len.0).is_some());
    let Some(end) = end else { return Some(claim.file) };
    while at < end {
        let here = mapped.iter().find(|m| m.range().start.0 <= at && at < m.range().end.0);
        if let Some(extent) = here {
            if disk_at(extent, at) != disk_at(claim, at) {
                return Some(FileBlock(at));
            }
            at = extent.range().end.0;
            continue;
        }
        let disk = disk_at(claim, at);
        let run = grants.iter().find(|g| g.start.0 <= disk && disk < g.start.0 + g.len.0);
        let Some(run) = run else { return Some(FileBlock(at)) };
        let next_mapped = mapped.iter().map(|m| m.file.0).filter(|f| *f > at).min().unwrap_or(end);
        at = next_mapped.min(at + (run.start.0 + run.len.0 - disk));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(file: u64, disk: u64, len: u64) -> Extent {
        Extent {
            file: FileBlock(file),
            disk: DiskBlock(disk),
            len: BlockCount(len),
            state: ExtentState::Written,
            shared: false,
        }
    }

    fn grant(start: u64, len: u64) -> DiskRange {
        DiskRange { start: DiskBlock(start), len: BlockCount(len) }
    }

    #[test]
    fn a_claim_may_span_mapped_blocks_and_several_grants() {
        let claim = extent(10, 100, 10);
        let mapped = [extent(12, 102, 2)];
        assert_eq!(first_outside(&claim, &mapped, &[grant(90, 12), grant(104, 6)]), None);
    }

    #[test]
    fn the_first_block_outside_is_named() {
        let claim = extent(10, 100, 10);
        assert_eq!(first_outside(&claim, &[], &[grant(100, 5)]), Some(FileBlock(15)));
        assert_eq!(first_outside(&claim, &[extent(10, 7, 1)], &[grant(100, 10)]), Some(FileBlock(10)));
        assert_eq!(first_outside(&extent(u64::MAX - 1, 0, 9), &[], &[]), Some(FileBlock(u64::MAX - 1)));
        let grants = [grant(u64::MAX - 9, 9)];
        assert_eq!(first_outside(&extent(7, u64::MAX - 1, 9), &[], &grants), Some(FileBlock(7)));
    }
}
