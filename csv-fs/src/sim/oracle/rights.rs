//! Who may touch which blocks: the ledger of layouts as clients were told, and what lands on the disk against it.

use std::collections::BTreeSet;

use super::{Invariant, Oracle, Right};
use crate::types::*;
use block::shared::FenceGen;

/// Under which right data goes to the disk.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Claim {
    pub(in crate::sim) client: ClientId,
    pub(in crate::sim) layout: LayoutId,
    /// The generation under which the client did it itself; `None`: the coordinator did it for the client.
    pub(in crate::sim) direct: Option<FenceGen>,
}

impl Oracle {
    /// A client was told that it holds a layout.
    pub(in crate::sim) fn holds(
        &mut self,
        client: ClientId,
        layout: LayoutId,
        ino: InodeNo,
        range: BlockRange,
        mode: LayoutMode,
    ) {
        if self.is_evicted(client) {
            return;
        }
        let right = Right { client, ino, range, mode, ended: None };
        let clash = |r: &&Right| {
            let exclusive = r.mode == LayoutMode::Exclusive || mode == LayoutMode::Exclusive;
            r.ended.is_none() && r.client != client && r.range.overlaps(range) && exclusive
        };
        let other = self.in_force_on(ino).find(clash).cloned();
        self.rights.insert((client, layout), right);
        self.in_force.entry(ino).or_default().insert((client, layout));
        if let Some(other) = other {
            let what = format!(
                "{client} is given {range:?} of {ino} {mode:?} while {} holds {:?} {:?}",
                other.client, other.range, other.mode
            );
            self.fail(Invariant::OwnLayout, what);
        }
    }

    /// A client gives it back, or dropped it.
    pub(in crate::sim) fn gave_back(&mut self, client: ClientId, layout: LayoutId) {
        if let Some(right) = self.rights.get_mut(&(client, layout)) {
            right.ended.get_or_insert("it was given back");
            if let Some(of_file) = self.in_force.get_mut(&right.ino) {
                of_file.remove(&(client, layout));
            }
        }
    }

    /// A client's next process goes on, and knows of these alone; what the one before had sent has ended.
    pub(in crate::sim) fn keeps_only(&mut self, client: ClientId, kept: &BTreeSet<LayoutId>) {
        let of_client = (client, LayoutId(0))..=(client, LayoutId(u64::MAX));
        let held: Vec<LayoutId> = self.rights.range(of_client).map(|((_, id), _)| *id).collect();
        held.into_iter().filter(|id| !kept.contains(id)).for_each(|id| self.gave_back(client, id));
    }

    fn in_force_on(&self, ino: InodeNo) -> impl Iterator<Item = &Right> {
        self.in_force.get(&ino).into_iter().flatten().filter_map(|key| self.rights.get(key))
    }

    /// Data lands on the disk.
    pub(in crate::sim) fn data_lands(&mut self, claim: Claim, block: u64) {
        let Claim { client, layout, direct } = claim;
        let ended = match self.rights.get(&(client, layout)) {
            Some(right) => right.ended,
            None => Some("it was never held"),
        };
        let by = if direct.is_some() { "directly" } else { "by redirection" };
        if let Some(why) = ended {
            let what = format!("a write of {client} lands {by} on block {block} under layout {:#x}: {why}", layout.0);
            return self.fail(Invariant::OwnLayout, what);
        }
        let fenced = self.path_fenced.get(&client).copied();
        if let (Some(generation), Some(fenced)) = (direct, fenced)
            && generation < fenced
        {
            let what = format!(
                "a direct write of {client} under generation {} lands after the path fence {}",
                generation.0, fenced.0
            );
            self.fail(Invariant::OwnLayout, what);
        }
    }

    /// Blocks of a file become free space.
    pub(in crate::sim) fn freed(&mut self, ino: InodeNo, range: BlockRange) {
        let holds = |r: &&Right| r.ended.is_none() && r.range.overlaps(range);
        let held = self.in_force_on(ino).find(holds).cloned();
        if let Some(right) = held {
            let what = format!(
                "blocks {range:?} of {ino} are freed while {} holds {:?} {:?}",
                right.client, right.range, right.mode
            );
            self.fail(Invariant::OwnLayout, what);
        }
    }

    /// An application has a file open.
    pub(in crate::sim) fn opened(&mut self, client: ClientId, handle: HandleId, ino: InodeNo) {
        if !self.is_evicted(client) {
            self.handles.insert((client, handle), ino);
        }
    }

    /// It is about to close it.
    pub(in crate::sim) fn closing(&mut self, client: ClientId, handle: HandleId) {
        self.handles.remove(&(client, handle));
    }

    /// An inode without a name is freed.
    pub(in crate::sim) fn reaped(&mut self, ino: InodeNo) {
        if let Some(((client, handle), _)) = self.handles.iter().find(|(_, i)| **i == ino) {
            let what = format!("{ino} is freed while {client} has it open as handle {}", handle.0);
            self.fail(Invariant::OwnLayout, what);
        }
    }
}
