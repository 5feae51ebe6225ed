//! Who holds which range of which file: a range-lock manager whose holders are clients' layouts *and* operations.
//!
//! An operation that needs a range queues on its file and is let in as soon as its range conflicts with nothing held
//! and with nobody who waits before it; so the order is first come, first served wherever two conflict, and ranges
//! that have nothing to do with each other do not wait for each other. While it runs it holds the range itself; a
//! `LayoutGet` ends by turning that hold into a client's layout.
//!
//! Two holds conflict if they share a block and one of them is exclusive, unless one is a layout of the very client
//! whose `LayoutGet` asks (a client never waits for itself to get more). Its other operations do conflict with its
//! own layouts: it gives them back before it asks, or is asked to.
//!
//! This table refuses nothing and decides nothing about time: `Coord` recalls what [`Files::advance`] names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::event::OpId;
use crate::types::*;

/// Layouts outside the exact range are given out in units of this many blocks (1 MiB).
const ROUND: u64 = 256;

/// A range that somebody wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    /// The operation.
    pub(super) op: OpId,
    /// On whose behalf; the coordinator's own work has none.
    pub(super) client: Option<ClientId>,
    /// Whether that client's own layouts are no obstacle.
    pub(super) beside_own: bool,
    /// Over which blocks.
    pub(super) range: BlockRange,
    /// Exclusive or shared.
    pub(super) mode: LayoutMode,
}

/// A client's layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Its name.
    pub(super) id: LayoutId,
    /// Whose.
    pub(super) client: ClientId,
    /// Over which blocks.
    pub(super) range: BlockRange,
    /// For what.
    pub(super) mode: LayoutMode,
    /// The slot whose answer gives it out: once the slot has moved on, the client is known to have it.
    pub(super) told_in: Option<(SlotRef, u64)>,
}

#[derive(Clone, Copy, Debug)]
enum Hold {
    Layout(Layout),
    Op(Claim),
}

impl Hold {
    fn range(&self) -> BlockRange {
        match self {
            Hold::Layout(l) => l.range,
            Hold::Op(c) => c.range,
        }
    }

    fn blocks(&self, claim: &Claim) -> bool {
        let (mode, own) = match self {
            Hold::Layout(l) => (l.mode, claim.beside_own && claim.client == Some(l.client)),
            Hold::Op(c) => (c.mode, c.op == claim.op),
        };
        !own && conflicts(self.range(), mode, claim.range, claim.mode)
    }
}

fn conflicts(a: BlockRange, a_mode: LayoutMode, b: BlockRange, b_mode: LayoutMode) -> bool {
    a.overlaps(b) && (a_mode == LayoutMode::Exclusive || b_mode == LayoutMode::Exclusive)
}

#[derive(Debug, Default)]
struct File {
    holds: Vec<Hold>,
    queue: VecDeque<Claim>,
}

impl File {
    fn admits(&self, claim: &Claim, before: usize) -> bool {
        let waits_before = |w: &Claim| conflicts(w.range, w.mode, claim.range, claim.mode);
        !self.holds.iter().any(|h| h.blocks(claim)) && !self.queue.iter().take(before).any(waits_before)
    }

    fn is_idle(&self) -> bool {
        self.holds.is_empty() && self.queue.is_empty()
    }
}

/// What a change of a file's holds brought about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Advance {
    /// Operations let in, in order; each holds its range now.
    pub(super) admitted: Vec<OpId>,
    /// Layouts that stand in somebody's way.
    pub(super) in_the_way: BTreeSet<LayoutId>,
}

/// Every file with a layout or an operation on it.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<InodeNo, File>,
    layouts: BTreeMap<LayoutId, InodeNo>,
}

impl Files {
    /// Puts an operation at the end of its file's queue; [`Self::advance`] says when it is let in.
    pub(super) fn queue(&mut self, ino: InodeNo, claim: Claim) {
        self.files.entry(ino).or_default().queue.push_back(claim);
    }

    /// Puts an operation that was let in once before ahead of those who came after it.
    pub(super) fn queue_first(&mut self, ino: InodeNo, claim: Claim) {
        self.files.entry(ino).or_default().queue.push_front(claim);
    }

    /// Lets in whoever can be, and names the layouts that keep others out.
    pub(super) fn advance(&mut self, ino: InodeNo) -> Advance {
        let mut out = Advance::default();
        let Some(file) = self.files.get_mut(&ino) else { return out };
        let mut place = 0;
        while let Some(claim) = file.queue.get(place).copied() {
            if file.admits(&claim, place) {
                file.queue.remove(place);
                file.holds.push(Hold::Op(claim));
                out.admitted.push(claim.op);
            } else {
                place += 1;
            }
        }
        for claim in &file.queue {
            out.in_the_way.extend(file.holds.iter().filter_map(|h| match h {
                Hold::Layout(l) if h.blocks(claim) => Some(l.id),
                _ => None,
            }));
        }
        if file.is_idle() {
            self.files.remove(&ino);
        }
        out
    }

    /// Takes an operation's hold, or its place in the queue, away.
    pub(super) fn leave(&mut self, ino: InodeNo, op: OpId) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        file.holds.retain(|h| !matches!(h, Hold::Op(c) if c.op == op));
        file.queue.retain(|c| c.op != op);
        if file.is_idle() {
            self.files.remove(&ino);
        }
    }

    /// Widens an operation's hold: the whole file if nobody else is there, else to whole [`ROUND`] units if that is in
    /// nobody's way. Tells the range it has now.
    pub(super) fn widen(&mut self, ino: InodeNo, op: OpId) -> Option<BlockRange> {
        let file = self.files.get(&ino)?;
        let claim = file.holds.iter().find_map(|h| match h {
            Hold::Op(c) if c.op == op => Some(*c),
            _ => None,
        })?;
        let stranger = |h: &Hold| match h {
            Hold::Layout(l) => claim.client != Some(l.client),
            Hold::Op(c) => c.op != op,
        };
        let alone = file.queue.is_empty() && !file.holds.iter().any(stranger);
        let round = BlockRange::new(
            claim.range.start.0 / ROUND * ROUND,
            claim.range.end.0.checked_next_multiple_of(ROUND).unwrap_or(u64::MAX),
        );
        let fits = |range| file.admits(&Claim { range, ..claim }, file.queue.len());
        let range = match alone {
            true => BlockRange::ALL,
            false if fits(round) => round,
            false => claim.range,
        };
        self.set_claim(ino, op, |c| c.range = range);
        Some(range)
    }

    /// The range an operation holds.
    pub(super) fn held_by(&self, ino: InodeNo, op: OpId) -> Option<BlockRange> {
        self.files.get(&ino)?.holds.iter().find_map(|h| match h {
            Hold::Op(c) if c.op == op => Some(c.range),
            _ => None,
        })
    }

    /// Turns an operation's hold into a layout. False if the operation holds nothing.
    pub(super) fn give_out(&mut self, ino: InodeNo, op: OpId, layout: Layout) -> bool {
        let Some(file) = self.files.get_mut(&ino) else { return false };
        let Some(hold) = file.holds.iter_mut().find(|h| matches!(h, Hold::Op(c) if c.op == op)) else { return false };
        debug_assert!(hold.range().contains(layout.range), "a layout never exceeds the hold it comes from");
        *hold = Hold::Layout(layout);
        self.layouts.insert(layout.id, ino);
        true
    }

    /// Whether this client holds this layout; it is known to have been told of it from now on.
    pub(super) fn told(&mut self, id: LayoutId, client: ClientId) -> bool {
        let file = self.layouts.get(&id).and_then(|ino| self.files.get_mut(ino));
        let held = file.into_iter().flat_map(|f| f.holds.iter_mut()).find_map(|h| match h {
            Hold::Layout(l) if l.id == id && l.client == client => Some(l),
            _ => None,
        });
        held.map(|l| l.told_in = None).is_some()
    }

    /// Takes a re-asserted layout in, unless it conflicts with another client's.
    pub(super) fn reassert(&mut self, ino: InodeNo, layout: Layout) -> bool {
        let claim = Claim {
            op: OpId(u64::MAX),
            client: Some(layout.client),
            beside_own: true,
            range: layout.range,
            mode: layout.mode,
        };
        let file = self.files.entry(ino).or_default();
        let fits = !layout.range.is_empty()
            && !self.layouts.contains_key(&layout.id)
            && !file.holds.iter().any(|h| h.blocks(&claim));
        if fits {
            file.holds.push(Hold::Layout(layout));
            self.layouts.insert(layout.id, ino);
        } else if file.is_idle() {
            self.files.remove(&ino);
        }
        fits
    }

    /// A layout and its file.
    pub(super) fn layout(&self, id: LayoutId) -> Option<(InodeNo, Layout)> {
        let ino = *self.layouts.get(&id)?;
        let found = self.files.get(&ino)?.holds.iter().find_map(|h| match h {
            Hold::Layout(l) if l.id == id => Some(*l),
            _ => None,
        });
        found.map(|l| (ino, l))
    }

    /// Takes a layout away; the file it was on.
    pub(super) fn drop_layout(&mut self, id: LayoutId) -> Option<(InodeNo, Layout)> {
        let (ino, layout) = self.layout(id)?;
        self.layouts.remove(&id);
        if let Some(file) = self.files.get_mut(&ino) {
            file.holds.retain(|h| !matches!(h, Hold::Layout(l) if l.id == id));
        }
        Some((ino, layout))
    }

    /// A client's layouts on one file.
    pub(super) fn layouts_on(&self, ino: InodeNo, client: ClientId) -> Vec<Layout> {
        self.files.get(&ino).map(|f| f.layouts().filter(|l| l.client == client).copied().collect()).unwrap_or_default()
    }

    /// Whether another client's layout, or an operation, would be hurt by `client` changing `range`. Its own requests for
    /// layouts are not: the answer names what it holds beside, and there it keeps to what it knows.
    pub(super) fn others_in(&self, ino: InodeNo, client: ClientId, range: BlockRange) -> bool {
        self.files.get(&ino).is_some_and(|f| {
            f.holds.iter().any(|h| match h {
                Hold::Layout(l) => l.client != client && l.range.overlaps(range),
                Hold::Op(c) => c.range.overlaps(range) && !(c.beside_own && c.client == Some(client)),
            })
        })
    }

    /// Clients other than `except` that hold something of a file exclusively.
    pub(super) fn exclusive_holders(&self, ino: InodeNo, except: Option<ClientId>) -> BTreeSet<ClientId> {
        let exclusive = |l: &&Layout| l.mode == LayoutMode::Exclusive && Some(l.client) != except;
        self.files.get(&ino).map(|f| f.layouts().filter(exclusive).map(|l| l.client).collect()).unwrap_or_default()
    }

    /// How many layouts there are.
    pub(super) fn count(&self) -> usize {
        self.layouts.len()
    }

    /// Changes the claim of an operation that holds its range already.
    pub(super) fn set_claim(&mut self, ino: InodeNo, op: OpId, change: impl FnOnce(&mut Claim)) {
        let holds = self.files.get_mut(&ino).map(|f| f.holds.iter_mut());
        let claim = holds.into_iter().flatten().find_map(|h| match h {
            Hold::Op(c) if c.op == op => Some(c),
            _ => None,
        });
        if let Some(claim) = claim {
            change(claim);
        }
    }

    /// Panics if two holds of one file conflict that must not: invariant 3 of the coordinator.
    pub(super) fn check(&self, ino: InodeNo) {
        let Some(file) = self.files.get(&ino) else { return };
        for (n, a) in file.holds.iter().enumerate() {
            let Hold::Layout(a) = a else { continue };
            for b in file.layouts_from(n + 1) {
                let apart = a.client == b.client || !conflicts(a.range, a.mode, b.range, b.mode);
                assert!(apart, "{ino}: layouts {} and {} of two clients conflict", a.id.0, b.id.0);
            }
        }
    }
}

impl File {
    fn layouts(&self) -> impl Iterator<Item = &Layout> {
        self.layouts_from(0)
    }

    fn layouts_from(&self, n: usize) -> impl Iterator<Item = &Layout> {
        self.holds.iter().skip(n).filter_map(|h| match h {
            Hold::Layout(l) => Some(l),
            Hold::Op(_) => None,
        })
    }
}
