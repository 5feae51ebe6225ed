//! What is on the LUN, and what executing a request does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use block::shared::NodeId;

use super::{Block, Req, Res, Write};
use crate::core::office::{CawResult, FenceStep, Key, LeaseView, ScsiResult, Sight, SlotView};
use crate::sim::oracle::{Invariant, Value};
use crate::sim::restarts::Leaving;
use crate::sim::store::{Note, State};
use crate::sim::world::World;
use crate::types::*;

/// The LUN.
pub(in crate::sim) struct Lun {
    pub(in crate::sim) lease: LeaseView,
    pub(in crate::sim) slots: BTreeMap<NodeId, SlotView>,
    data: BTreeMap<u64, Block>,
    /// What a block held when it was flushed last, where it was written since.
    unflushed: BTreeMap<u64, Block>,
    /// The metadata store as it is on the disk.
    pub(in crate::sim) store: Rc<State>,
    /// Registered keys, by nexus.
    pub(in crate::sim) keys: BTreeMap<(NodeId, u16), Key>,
    pub(in crate::sim) reserved: bool,
}

const RAW: Block = [Value::Raw, Value::Raw];

impl Lun {
    pub(super) fn new(all: &[NodeId], state: State) -> Lun {
        let written = state.inodes.values().flat_map(|i| i.blocks.values());
        let zeroed = written.filter(|(_, s)| *s == ExtentState::Written).map(|(d, _)| (*d, [Value::Zero, Value::Zero]));
        Lun {
            lease: LeaseView::new_volume(),
            slots: all.iter().map(|n| (*n, SlotView::default())).collect(),
            data: zeroed.collect(),
            unflushed: BTreeMap::new(),
            store: Rc::new(state),
            keys: BTreeMap::new(),
            reserved: false,
        }
    }

    pub(in crate::sim) fn block(&self, block: u64) -> Block {
        self.data.get(&block).copied().unwrap_or(RAW)
    }
}

impl World {
    pub(super) fn lun_execute(&mut self, n: NodeId, req: Req) -> Res {
        let lun = &mut self.disk.lun;
        match req {
            Req::Cells => Res::Cells(Box::new(Sight { lease: lun.lease.clone(), slots: lun.slots.clone() })),
            Req::OwnSlot { .. } => Res::OwnSlot(lun.slots[&n]),
            Req::CawSlot { node, expect, new } => {
                let found = lun.slots[&node];
                let equal = found == expect;
                if equal {
                    lun.slots.insert(node, new);
                }
                Res::Slot(if equal { CawResult::Done } else { CawResult::Miscompare(found) })
            }
            Req::CawLease { expect, new } => {
                if lun.lease != expect {
                    return Res::Lease(CawResult::Miscompare(lun.lease.clone()));
                }
                if new.epoch != lun.lease.epoch {
                    self.coverage.count("disk", "lease taken");
                }
                self.disk.lun.lease = new;
                Res::Lease(CawResult::Done)
            }
            Req::Read { block } => Res::Data(lun.block(block)),
            Req::Write(write) => self.write_lands(&write),
            Req::Flush => {
                lun.unflushed.clear();
                Res::Done
            }
            Req::MetaOpen { epoch } => {
                self.oracle.store_opened(epoch, n);
                let store = Rc::clone(&self.disk.lun.store);
                self.oracle.names_are(|name| store.names.contains_key(name));
                Res::Store(store)
            }
            Req::MetaCommit { epoch, state, notes } => {
                self.oracle.pages_land(epoch, n);
                self.disk.lun.store = state;
                self.notes(&notes);
                Res::Done
            }
            Req::Scsi(step) => Res::Scsi(self.scsi_step(n, step)),
        }
    }

    fn write_lands(&mut self, write: &Write) -> Res {
        self.oracle.data_lands(write.claim, write.block);
        let before = self.disk.lun.block(write.block);
        self.disk.lun.unflushed.entry(write.block).or_insert(before);
        self.disk.lun.data.insert(write.block, write.data);
        for id in &write.new {
            self.oracle.write_lands(*id, write.block, write.again);
        }
        Res::Done
    }

    fn notes(&mut self, notes: &[Note]) {
        for note in notes {
            match note {
                Note::Executed(client, slot, seq, request) => self.oracle.executed(*client, *slot, *seq, request),
                Note::Evicted(client) => self.client_evicted(*client),
                Note::PathFenced(client, fence_gen) => self.oracle.path_fenced(*client, *fence_gen),
                Note::Freed(ino, range) => self.oracle.freed(*ino, *range),
                Note::Reaped(ino) => self.oracle.reaped(*ino),
                Note::Unnamed(client, ino) => {
                    self.trace(|| format!("committed for {client}: {ino} has no name any more"))
                }
                Note::Sized(client, ino, size) => {
                    self.trace(|| format!("committed for {client}: {ino} has {size} bytes"));
                }
            }
        }
    }

    fn client_evicted(&mut self, client: ClientId) {
        self.trace(|| format!("{client}: evicted, committed"));
        self.coverage.count("oracle", "evicted");
        let now = self.now;
        if self.faults == 0 {
            let what = format!("{client} is evicted although nothing went wrong");
            self.oracle.fail(Invariant::AsIfNothingHappened, what);
        }
        self.oracle.evicted(client, now);
        let store = Rc::clone(&self.disk.lun.store);
        let size = |ino: InodeNo| store.inodes.get(&ino).map(|i| i.size);
        let mapped = |ino: InodeNo, block: u64| store.mapped(ino, block);
        self.oracle.uncommitted_is_undone(client, now, mapped, size);
    }

    fn scsi_step(&mut self, n: NodeId, step: FenceStep) -> ScsiResult {
        let lun = &mut self.disk.lun;
        match step {
            FenceStep::Register { nexus, key } => {
                lun.keys.insert((n, nexus), key);
                ScsiResult::Done
            }
            FenceStep::ReadKeys => ScsiResult::Keys(lun.keys.values().copied().collect()),
            // Those that it meets take their time: `tasks`.
            FenceStep::PreemptAndAbort { .. } => ScsiResult::Conflict,
            FenceStep::ResetUnit => ScsiResult::Done,
            FenceStep::Reserve => {
                lun.reserved = true;
                ScsiResult::Done
            }
            FenceStep::ReadReservation => ScsiResult::Reservation { right_type: lun.reserved },
        }
    }

    /// The disk is reset: of what was written since the last flush, some is lost.
    pub(in crate::sim) fn reset_disk(&mut self) {
        self.disk.resets += 1;
        let lost: Vec<(u64, Block)> = std::mem::take(&mut self.disk.lun.unflushed).into_iter().collect();
        self.leaving.values_mut().for_each(Leaving::loses);
        let mut gone = BTreeSet::new();
        for (block, before) in lost {
            if self.rng.permille(500) {
                self.disk.lun.data.insert(block, before);
                gone.insert(block);
            }
        }
        self.trace(|| format!("the disk was reset; {} blocks fell back", gone.len()));
        let store = Rc::clone(&self.disk.lun.store);
        let now = self.now;
        for (ino, inode) in &store.inodes {
            for (file, (disk, state)) in &inode.blocks {
                if *state == ExtentState::Written && gone.contains(disk) {
                    let data = self.disk.lun.block(*disk);
                    self.oracle.fell_back((*ino, *file, 0), data[0], now);
                    self.oracle.fell_back((*ino, *file, 1), data[1], now);
                }
            }
        }
        self.unmapped_is_zeroed(&gone);
        self.unflushed_is_poisoned();
    }

    /// Blocks that fell back and that no commit has mapped as written yet (they are granted, or reserved for a file) hold what
    /// their last owner left. Whoever wrote them hears of the reset by a unit attention before its commit, and fills them with
    /// zeroes first; here that is done at once. A place fell back with its block only if it was written there last: the block
    /// may have been another's before, and be reserved and not written since.
    fn unmapped_is_zeroed(&mut self, gone: &BTreeSet<u64>) {
        let store = Rc::clone(&self.disk.lun.store);
        let blocks = store.inodes.values().flat_map(|i| i.blocks.values());
        let mapped: BTreeSet<u64> = blocks.filter(|(_, s)| *s == ExtentState::Written).map(|(d, _)| *d).collect();
        let now = self.now;
        for block in gone.iter().filter(|b| !mapped.contains(b)) {
            self.disk.lun.data.insert(*block, [Value::Zero, Value::Zero]);
            for place in self.oracle.put_on(*block) {
                if store.inodes.contains_key(&place.0) && store.mapped(place.0, place.1).is_none() {
                    self.oracle.fell_back(place, Value::Zero, now);
                }
            }
        }
    }
}
