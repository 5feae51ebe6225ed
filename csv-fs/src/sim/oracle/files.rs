//! What files hold: half blocks as registers, lengths, and names.

use super::{Invariant, Oracle};
use crate::types::*;
use block::shared::{Incarnation, NodeId};

/// Names a write of one half block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::sim) struct WriteId(pub(in crate::sim) u32);

/// What a half block of the disk holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Value {
    /// Whatever was there before the volume was made.
    Raw,
    Zero,
    By(WriteId),
}

#[derive(Clone, Debug)]
pub(super) struct Write {
    place: (InodeNo, u64, u8),
    value: Value,
    client: Option<ClientId>,
    invoked: u64,
    acked: Option<u64>,
    /// Its program got EIO for its age.
    expired: Option<u64>,
    landed: bool,
    /// Where it was put, so that what a lost mapping undoes is known.
    disk: Option<u64>,
    synced: bool,
    /// A state that the place may have fallen back to; it undoes nothing that is newer.
    optional: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    writes: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Size {
    /// Lengths made by appends and truncations: (length, invoked, acknowledged, synced, appended block).
    made: Vec<Made>,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    size: u64,
    invoked: u64,
    acked: Option<u64>,
    client: ClientId,
    append: bool,
    optional: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    block: u64,
    invoked: u64,
    acked: Option<u64>,
    client: ClientId,
}

/// Names one truncation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) struct CutId(InodeNo, usize);

/// Names one change of a length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) struct SizeId(InodeNo, usize);

#[derive(Clone, Debug, Default)]
pub(super) struct Name {
    created: Option<u64>,
    unlink_begun: bool,
}

impl Oracle {
    // ---- half blocks

    pub(in crate::sim) fn write_begins(
        &mut self,
        client: ClientId,
        place: (InodeNo, u64, u8),
        invoked: u64,
    ) -> WriteId {
        let id = self.writes.len();
        let write = WriteId(u32::try_from(id).unwrap_or(u32::MAX));
        let value = Value::By(write);
        self.push(Write {
            place,
            value,
            client: Some(client),
            invoked,
            acked: None,
            expired: None,
            landed: false,
            disk: None,
            synced: false,
            optional: false,
        });
        write
    }

    fn push(&mut self, write: Write) {
        let id = self.writes.len();
        self.registers.entry(write.place).or_default().writes.push(id);
        self.writes.push(write);
    }

    pub(in crate::sim) fn write_acked(&mut self, id: WriteId, now: u64) {
        self.writes[id.0 as usize].acked = Some(now);
        self.writes_acknowledged += 1;
    }

    /// Its program got EIO for its age.
    pub(in crate::sim) fn write_expired(&mut self, id: WriteId, now: u64) {
        self.writes[id.0 as usize].expired = Some(now);
    }

    /// When its effect is over at the latest.
    fn over(&self, write: &Write) -> Option<u64> {
        let evicted = write.client.and_then(|c| self.evicted.get(&c).copied());
        write.acked.or(write.expired).or(evicted)
    }

    /// A write lands. `again`: the client repeats, in its order, what a changed history may have lost.
    pub(in crate::sim) fn write_lands(&mut self, id: WriteId, disk: u64, again: bool) {
        let write = self.writes[id.0 as usize].clone();
        if let Some(at) = write.expired {
            let what = format!(
                "{:?}: write {:?} lands, and its program was told at {at} that it failed",
                write.place, write.value
            );
            self.fail(Invariant::AsIfNothingHappened, what);
        }
        if let Some(acked) = write.acked.filter(|_| !again) {
            let newer = self.registers.get(&write.place).into_iter().flat_map(|r| &r.writes).map(|n| &self.writes[*n]);
            if let Some(newer) = newer.filter(|w| w.landed && !w.optional).find(|w| w.invoked > acked) {
                let what = format!(
                    "{:?}: write {:?}, acknowledged before {:?} began, lands on top of it",
                    write.place, write.value, newer.value
                );
                self.fail(Invariant::AsIfNothingHappened, what);
            }
        }
        let write = &mut self.writes[id.0 as usize];
        write.landed = true;
        write.disk = Some(disk);
    }

    /// A read of a half block ended.
    pub(in crate::sim) fn read_shows(
        &mut self,
        client: ClientId,
        place: (InodeNo, u64, u8),
        value: Value,
        began: u64,
        now: u64,
    ) {
        if self.is_evicted(client) {
            return;
        }
        self.reads_checked += 1;
        let (ino, block, half) = place;
        if value == Value::Raw {
            return self.fail(
                Invariant::NeverWritten,
                format!("{client} reads what lay on the disk before, at block {block} half {half} of {ino}"),
            );
        }
        if let Value::By(id) = value
            && self.writes[id.0 as usize].place != place
        {
            let whose = self.writes[id.0 as usize].place;
            return self
                .fail(Invariant::NeverWritten, format!("{client} reads at {place:?} what was written to {whose:?}"));
        }
        let all = self.history(place);
        let surely = |w: &&Write| !w.optional && w.acked.is_some_and(|a| a < began);
        let explains = |invoked: u64, over: Option<u64>| {
            invoked <= now && !all.iter().filter(surely).any(|w| over.is_some_and(|o| o < w.invoked))
        };
        let initial = value == Value::Zero && explains(0, Some(0));
        if initial || all.iter().filter(|w| w.value == value).any(|w| explains(w.invoked, self.over(w))) {
            return;
        }
        let newest = all.iter().filter(surely).max_by_key(|w| w.acked);
        let what = format!(
            "{client} reads {value:?} at {place:?}, where {:?} was acknowledged before",
            newest.map(|w| (w.value, w.invoked, w.acked))
        );
        let other_half_newer = matches!(value, Value::By(_)) && newest.is_some_and(|n| n.client != Some(client));
        let invariant = if other_half_newer && self.halves_in_play(ino, block) {
            Invariant::HalfBlocks
        } else {
            Invariant::AsIfNothingHappened
        };
        self.fail(invariant, what);
    }

    fn halves_in_play(&self, ino: InodeNo, block: u64) -> bool {
        let count = |half| self.registers.get(&(ino, block, half)).map_or(0, |r| r.writes.len());
        count(0) != count(1)
    }

    /// An fsync of a client was acknowledged that began at `began`.
    pub(in crate::sim) fn synced(&mut self, client: ClientId, ino: InodeNo, began: u64) {
        for write in self.writes.iter_mut().filter(|w| w.place.0 == ino && w.client == Some(client)) {
            write.synced |= write.acked.is_some_and(|a| a < began);
        }
    }

    /// A place fell back to an earlier value, at `now`: a cache was lost, or the mapping of a client that is gone.
    pub(in crate::sim) fn fell_back(&mut self, place: (InodeNo, u64, u8), value: Value, now: u64) {
        let of = self.history(place);
        let synced = of.iter().filter(|w| w.synced).max_by_key(|w| w.acked).cloned();
        if let Some(synced) = synced {
            let mut candidates = of.iter().filter(|w| w.value == value);
            if candidates.all(|w| self.over(w).is_some_and(|o| o < synced.invoked)) {
                let what = format!("{:?} was fsynced at {place:?}, and fell back to {value:?}", synced.value);
                self.fail(Invariant::Fsynced, what);
            }
        }
        self.push(Write {
            place,
            value,
            client: None,
            invoked: now,
            acked: Some(now),
            expired: None,
            landed: true,
            disk: None,
            synced: false,
            optional: true,
        });
    }

    /// The places whose writes were the last to land on a block of the disk, and that were not written elsewhere since.
    pub(in crate::sim) fn put_on(&self, disk: u64) -> Vec<(InodeNo, u64, u8)> {
        let on = |half: u8| self.writes.iter().rev().find(|w| w.place.2 == half && w.disk == Some(disk));
        let last = |place: (InodeNo, u64, u8)| {
            let of_place = self.registers.get(&place).into_iter().flat_map(|r| &r.writes);
            of_place.filter_map(|n| self.writes[*n].disk).next_back()
        };
        [0, 1].into_iter().filter_map(on).map(|w| w.place).filter(|place| last(*place) == Some(disk)).collect()
    }

    /// `client` is gone; `mapped` tells where the store has a block of a file. What it had not committed is undone.
    pub(in crate::sim) fn uncommitted_is_undone(
        &mut self,
        client: ClientId,
        now: u64,
        mapped: impl Fn(InodeNo, u64) -> Option<u64>,
        size: impl Fn(InodeNo) -> Option<u64>,
    ) {
        let lost =
            |w: &Write| w.client == Some(client) && w.disk.is_some_and(|d| mapped(w.place.0, w.place.1) != Some(d));
        let mut places: Vec<_> = self.writes.iter().filter(|w| lost(w)).map(|w| w.place).collect();
        places.sort_unstable();
        places.dedup();
        // A file that is gone has nothing to undo; a block that lies elsewhere was written anew.
        places.retain(|(ino, block, _)| size(*ino).is_some() && mapped(*ino, *block).is_none());
        for place in places {
            self.fell_back(place, Value::Zero, now);
        }
        for (ino, sizes) in &mut self.sizes {
            if sizes.made.iter().any(|m| m.client == client)
                && let Some(size) = size(*ino)
            {
                sizes.made.push(Made { size, invoked: now, acked: Some(now), client, append: false, optional: true });
            }
        }
    }

    // ---- lengths

    pub(in crate::sim) fn starts_with(&mut self, ino: InodeNo, size: u64) {
        let Some(node) = NodeId::new(NodeId::MAX) else { return };
        let nobody = ClientId { node, incarnation: Incarnation(0) };
        self.sizes.entry(ino).or_default().made.push(Made {
            size,
            invoked: 0,
            acked: Some(0),
            client: nobody,
            append: false,
            optional: false,
        });
    }

    pub(in crate::sim) fn size_begins(
        &mut self,
        client: ClientId,
        ino: InodeNo,
        size: u64,
        append: bool,
        invoked: u64,
    ) -> SizeId {
        let made = &mut self.sizes.entry(ino).or_default().made;
        made.push(Made { size, invoked, acked: None, client, append, optional: false });
        SizeId(ino, made.len() - 1)
    }

    /// A change of length was acknowledged; a truncation makes what lies beyond it zeroes.
    pub(in crate::sim) fn size_acked(&mut self, id: SizeId, now: u64) {
        let SizeId(ino, n) = id;
        let Some(sizes) = self.sizes.get_mut(&ino) else { return };
        sizes.made[n].acked = Some(now);
        let made = sizes.made[n];
        if !made.append {
            return;
        }
        let before = |m: &&Made| m.append && m.size == made.size && m.acked.is_some_and(|a| a < now);
        let cut = |since: u64| {
            sizes.made.iter().any(|m| !m.append && m.size < made.size && m.acked.is_none_or(|a| a >= since))
        };
        if let Some(first) = sizes.made[..n].iter().find(before).copied()
            && !cut(first.invoked)
        {
            let what = format!("{ino}: {} and {} both appended up to {}", first.client, made.client, made.size);
            self.fail(Invariant::AsIfNothingHappened, what);
        }
    }

    /// A truncation that began at `invoked`: blocks from `block` on read as zeroes once it takes effect.
    pub(in crate::sim) fn cut_begins(&mut self, client: ClientId, ino: InodeNo, block: u64, invoked: u64) -> CutId {
        let cuts = self.cuts.entry(ino).or_default();
        cuts.push(Cut { block, invoked, acked: None, client });
        CutId(ino, cuts.len() - 1)
    }

    pub(in crate::sim) fn cut_acked(&mut self, id: CutId, now: u64) {
        if let Some(cut) = self.cuts.get_mut(&id.0).and_then(|c| c.get_mut(id.1)) {
            cut.acked = Some(now);
        }
    }

    /// Everything that was done to a place: writes, fall-backs, truncations.
    fn history(&self, place: (InodeNo, u64, u8)) -> Vec<Write> {
        let writes = self.registers.get(&place).into_iter().flat_map(|r| &r.writes).map(|n| self.writes[*n].clone());
        let cuts = self.cuts.get(&place.0).into_iter().flatten().filter(|c| c.block <= place.1);
        let cut = |c: &Cut| Write {
            place,
            value: Value::Zero,
            client: Some(c.client),
            invoked: c.invoked,
            acked: c.acked,
            expired: None,
            landed: true,
            disk: None,
            synced: false,
            optional: false,
        };
        writes.chain(cuts.map(cut)).collect()
    }

    /// A stat ended.
    pub(in crate::sim) fn size_shows(&mut self, client: ClientId, ino: InodeNo, size: u64, began: u64, now: u64) {
        if self.is_evicted(client) {
            return;
        }
        self.reads_checked += 1;
        let Some(sizes) = self.sizes.get(&ino) else { return };
        let over = |m: &Made| match m.acked {
            Some(a) => Some(a),
            None => self.evicted.get(&m.client).copied(),
        };
        let surely = |m: &&Made| !m.optional && m.acked.is_some_and(|a| a < began);
        let explains = |invoked: u64, o: Option<u64>| {
            invoked <= now && !sizes.made.iter().filter(surely).any(|m| o.is_some_and(|o| o < m.invoked))
        };
        if !sizes.made.iter().filter(|m| m.size == size).any(|m| explains(m.invoked, over(m))) {
            let newest = sizes.made.iter().filter(surely).max_by_key(|m| m.acked);
            let what = format!("{client} sees {ino} {size} bytes long after {newest:?}");
            self.fail(Invariant::AsIfNothingHappened, what);
        }
    }

    // ---- names

    pub(in crate::sim) fn created(&mut self, name: &[u8], now: u64) {
        self.names.entry(name.to_vec()).or_default().created = Some(now);
    }

    pub(in crate::sim) fn unlink_begins(&mut self, name: &[u8]) {
        self.names.entry(name.to_vec()).or_default().unlink_begun = true;
    }

    /// The store has these names.
    pub(in crate::sim) fn names_are(&mut self, there: impl Fn(&[u8]) -> bool) {
        let lost = self.names.iter().find(|(name, n)| n.created.is_some() && !n.unlink_begun && !there(name));
        if let Some((name, _)) = lost {
            let what =
                format!("{} was created, which was acknowledged, and is not there", String::from_utf8_lossy(name));
            self.fail(Invariant::Acknowledged, what);
        }
    }
}
