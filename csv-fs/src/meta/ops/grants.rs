//! Grants: space that a client may map from without asking. Recorded durably, so that a crash of either side leaks
//! nothing: what was granted and not mapped comes back when the session ends.

use redb::ReadableTable;
use rustix::io::Errno;

use super::Ops;
use crate::format::SLOT_COUNT;
use crate::meta::error::{MetaError, Result, damaged};
use crate::meta::space::{self, Wanted};
use crate::types::*;

/// Runs that one grant may consist of: bounds the answer, and what the client must keep.
const MAX_RUNS: usize = 64;

/// The smallest grant that is given as long as there is space: 1 MiB. Keeps a nearly full volume usable by all.
const MIN_GRANT: u64 = (1 << 20) / FS_BLOCK;

impl Ops<'_> {
    /// Grants up to `blocks` more. What a client holds in all is bounded to 1/(8 x nodes) of what is free, but at least
    /// `MIN_GRANT` is given while there is any. ENOSPC if nothing is free: then the caller recalls the others' grants
    /// and asks again before it says so.
    pub fn grant(&mut self, client: ClientId, blocks: BlockCount) -> Result<Vec<DiskRange>> {
        if blocks.0 == 0 {
            return Err(Errno::INVAL.into());
        }
        self.check_room()?;
        let held: u64 = self.grants(client)?.iter().map(|r| r.len.0).sum();
        let bound = (self.s.free + held) / (8 * self.limits.nodes);
        let allowed = bound.saturating_sub(held).max(MIN_GRANT);
        let groups = self.limits.data_blocks.div_ceil(space::GROUP_BLOCKS);
        let goal = (u64::from(client.node.get()) - 1) * groups / u64::from(SLOT_COUNT);
        let wanted = Wanted { blocks: blocks.0.min(allowed).min(self.s.free), runs: MAX_RUNS, goal };
        if wanted.blocks == 0 {
            return Err(Errno::NOSPC.into());
        }
        let ranges = space::allocate(&mut self.t, self.s, wanted)?;
        for range in &ranges {
            self.add_to_grant(client, *range)?;
        }
        Ok(ranges)
    }

    /// Takes granted space back. A range that is not granted to the client changes nothing.
    pub fn return_grant(&mut self, client: ClientId, ranges: &[DiskRange]) -> Result<()> {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable_by_key(|r| r.start);
        let overlap = sorted.windows(2).any(|w| w[0].start.0.saturating_add(w[0].len.0) > w[1].start.0);
        for range in ranges {
            if overlap || range.len.0 == 0 || !self.is_granted(client, *range)? {
                return Err(MetaError::Contradiction("space was returned that was not granted"));
            }
        }
        for range in ranges {
            self.take_from_grant(client, *range)?;
            space::free(&mut self.t, self.s, *range)?;
        }
        Ok(())
    }

    /// What is granted to a client, in disk order.
    pub fn grants(&self, client: ClientId) -> Result<Vec<DiskRange>> {
        super::sessions::grants(&self.t, client)
    }

    /// Gives everything back that a client was granted.
    pub(super) fn drop_grants(&mut self, client: ClientId) -> Result<()> {
        for range in self.grants(client)? {
            self.take_from_grant(client, range)?;
            space::free(&mut self.t, self.s, range)?;
        }
        Ok(())
    }

    fn add_to_grant(&mut self, client: ClientId, range: DiskRange) -> Result<()> {
        let (node, life) = (client.node.get(), client.incarnation.0);
        self.s.granted += range.len.0;
        let mut merged = range;
        let before = self.t.grant.range((node, life, 0)..(node, life, range.start.0))?.next_back().transpose()?;
        if let Some((key, len)) = before.map(|(k, v)| (k.value(), v.value()))
            && key.2 + len == range.start.0
        {
            self.t.grant.remove(key)?;
            merged = DiskRange { start: DiskBlock(key.2), len: BlockCount(len + range.len.0) };
        }
        let end = merged.start.0 + merged.len.0;
        let after = self.t.grant.remove((node, life, end))?.map(|v| v.value());
        merged.len.0 += after.unwrap_or(0);
        self.t.grant.insert((node, life, merged.start.0), merged.len.0)?;
        Ok(())
    }

    /// The granted run that holds all of a range.
    fn granted_run(&self, client: ClientId, range: DiskRange) -> Result<Option<DiskRange>> {
        let (node, life) = (client.node.get(), client.incarnation.0);
        let row = self.t.grant.range((node, life, 0)..=(node, life, range.start.0))?.next_back().transpose()?;
        let run = row.map(|(k, v)| DiskRange { start: DiskBlock(k.value().2), len: BlockCount(v.value()) });
        let end = range.start.0.checked_add(range.len.0);
        Ok(run.filter(|run| end.is_some_and(|end| end <= run.start.0 + run.len.0)))
    }

    /// Whether all of a range is granted to a client.
    pub(super) fn is_granted(&self, client: ClientId, range: DiskRange) -> Result<bool> {
        Ok(self.granted_run(client, range)?.is_some())
    }

    /// Takes a range out of a grant: it is mapped now, or about to be freed.
    pub(super) fn take_from_grant(&mut self, client: ClientId, range: DiskRange) -> Result<()> {
        let (node, life) = (client.node.get(), client.incarnation.0);
        let run = self.granted_run(client, range)?.ok_or_else(|| damaged("a grant vanished"))?;
        self.t.grant.remove((node, life, run.start.0))?;
        if run.start < range.start {
            self.t.grant.insert((node, life, run.start.0), range.start.0 - run.start.0)?;
        }
        let (end, run_end) = (range.start.0 + range.len.0, run.start.0 + run.len.0);
        if end < run_end {
            self.t.grant.insert((node, life, end), run_end - end)?;
        }
        self.s.granted =
            self.s.granted.checked_sub(range.len.0).ok_or_else(|| damaged("the count of granted blocks is wrong"))?;
        Ok(())
    }
}
