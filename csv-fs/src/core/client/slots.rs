//! Request slots, the client's side.
//!
//! A request takes a free slot of its table (or waits in that table's queue), goes out with the slot's next sequence
//! number, and holds slot and number until its answer has come, however many coordinators that takes. A resend
//! carries the same pair, so a request whose answer was stored is replayed, not executed again.
//!
//! Interleaving prevented: 64 ordinary requests of all nodes wait for recalls of one another; the commits that would
//! answer those recalls find no slot, and nothing moves again. Commits, returns and releases have a table of their own
//! (rule `ReturnsHaveOwnSlots`), and nothing in it waits for a recall.
//!
//! # What waits for what is unanswered (rule `LeftBehindFirst`)
//! Two requests that are on their way may reach the coordinator in either order. Whoever makes requests of which one must
//! come after the other waits for the answer to the first; but a caller that was interrupted while there was no coordinator
//! is gone, and what it asked for is still in its slot:
//! 1. A program writes 40 KiB and calls fsync. The commit (ten blocks, a length) is sent; its coordinator dies before it
//!    has executed it.
//! 2. The program is killed. Its call ends; its commit stays in its slot, and is sent again after the next BIND.
//! 3. Another program, of any node, cuts the file to nothing. This node commits what is uncommitted, the same ten blocks,
//!    gives the layout back, and the file is cut.
//! 4. The commit of 2 comes last. The file is 40 KiB long again; its blocks, which are free by now, are outside the grant,
//!    and the node is evicted for them, or they were granted to it again, and its next data is in two files.
//!
//! So a commit, and with it every return of a layout, waits for the commits of its file whose callers have gone. A layout is
//! therefore held until whatever was said under it was heard. A change of length or of mtime waits for every commit and
//! every message of times of its file. Prevents: two tasks tell the time of one write, one of them is heard, `utimensat`
//! sets an earlier time, and then the other is heard. Nothing in the table of returns waits for a recall, so neither does
//! what waits for it.
//!
//! The same holds for what changes names and attributes: nothing of that kind passes one whose caller has gone, and no layout
//! of a file is asked for behind a cut of it. Prevents: `unlink` is interrupted by a signal while there is no coordinator, its
//! program makes the file anew, both requests are on their way to the next coordinator, the removal comes second, and the new
//! file is gone. Returns do not wait for these, since such a request may wait for a layout that has to go back.

use std::collections::{BTreeMap, VecDeque};

use crate::core::rules::{Rule, Rules};
use crate::proto::Request;
use crate::types::{ORDINARY_SLOTS, RETURN_SLOTS, SlotRef, SlotTable};

use super::event::Ticket;
use super::ledger::Origin;

/// What is sent under the number of a request that was withdrawn. It changes nothing, and its reply is of a kind that
/// nothing that can be withdrawn is answered with.
const INSTEAD: Request = Request::Statfs;

/// A request that has its slot.
#[derive(Debug)]
pub(super) struct InSlot {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    /// It went out at least once: the coordinator may have executed it.
    pub(super) sent: bool,
    /// The caller has gone; the answer is only looked at for what it leaves behind.
    pub(super) abandoned: bool,
    /// The caller was interrupted, and is let go as soon as there is no coordinator.
    pub(super) interrupted: bool,
    /// From the next bind on something else is sent under its number, see `expiry`.
    pub(super) withdrawn: bool,
    /// Which request of the kernel led to it.
    pub(super) origin: Option<Origin>,
    /// Another process asked it.
    pub(super) inherited: bool,
}

impl InSlot {
    fn new(ticket: Ticket, request: Request) -> InSlot {
        InSlot {
            ticket,
            request,
            sent: false,
            abandoned: false,
            interrupted: false,
            withdrawn: false,
            origin: None,
            inherited: false,
        }
    }
}

#[derive(Debug)]
struct Slot {
    /// Sequence number of the last request.
    seq: u64,
    busy: Option<InSlot>,
}

#[derive(Debug)]
struct Table {
    slots: Vec<Slot>,
    waiting: VecDeque<(Ticket, Request)>,
}

impl Table {
    fn new(n: u8) -> Table {
        Table { slots: (0..n).map(|_| Slot { seq: 0, busy: None }).collect(), waiting: VecDeque::new() }
    }

    /// Lowest free slot first: the coordinator's stored answers stay few.
    fn place(&mut self, table: SlotTable, ticket: Ticket, request: Request) -> Option<SlotRef> {
        let Some(index) = self.slots.iter().position(|s| s.busy.is_none()) else {
            self.waiting.push_back((ticket, request));
            return None;
        };
        let slot = &mut self.slots[index];
        slot.seq += 1;
        slot.busy = Some(InSlot::new(ticket, request));
        Some(SlotRef { table, index: index as u8 })
    }

    fn unanswered(&self) -> impl Iterator<Item = (&Request, bool)> {
        let busy = self.slots.iter().filter_map(|s| s.busy.as_ref()).map(|b| (&b.request, b.abandoned));
        busy.chain(self.waiting.iter().map(|(_, request)| (request, false)))
    }
}

/// Both tables of one session.
#[derive(Debug)]
pub(super) struct Slots {
    ordinary: Table,
    returns: Table,
    by_ticket: BTreeMap<Ticket, SlotRef>,
    rules: Rules,
}

impl Slots {
    pub(super) fn new(rules: Rules) -> Slots {
        Slots {
            ordinary: Table::new(ORDINARY_SLOTS),
            returns: Table::new(RETURN_SLOTS),
            by_ticket: BTreeMap::new(),
            rules,
        }
    }

    /// The last number used in each slot of both tables, ordinary and return.
    pub(super) fn numbers(&self) -> (Vec<u64>, Vec<u64>) {
        let of = |table: &Table| table.slots.iter().map(|slot| slot.seq).collect();
        (of(&self.ordinary), of(&self.returns))
    }

    /// Goes on with the numbers of another process. Slots that it had more were never used here.
    pub(super) fn resume(&mut self, ordinary: &[u64], returns: &[u64]) {
        for (table, numbers) in [(&mut self.ordinary, ordinary), (&mut self.returns, returns)] {
            table.slots.iter_mut().zip(numbers).for_each(|(slot, last)| slot.seq = *last);
        }
    }

    /// The last number of a slot that another process used.
    pub(super) fn inherit_number(&mut self, slot: SlotRef, seq: u64) {
        if let Some(place) = self.table(slot.table).slots.get_mut(usize::from(slot.index)) {
            place.seq = seq;
        }
    }

    /// What another process asked and got no answer to: all of its callers have gone. `None`: nothing that matters.
    pub(super) fn inherit(
        &mut self,
        (slot, seq): (SlotRef, u64),
        ticket: Ticket,
        request: Option<Request>,
        origin: Option<Origin>,
    ) {
        let Some(place) = self.table(slot.table).slots.get_mut(usize::from(slot.index)) else { return };
        // What it brings would only go back: if it was not executed, it is not.
        let withdrawn = matches!(request, Some(Request::LayoutGet { .. } | Request::Grant { .. }));
        let new = InSlot::new(ticket, request.unwrap_or(INSTEAD));
        place.seq = seq;
        place.busy = Some(InSlot { sent: true, abandoned: true, withdrawn, origin, inherited: true, ..new });
        self.by_ticket.insert(ticket, slot);
    }

    /// A caller has come back for what is in a slot.
    pub(super) fn reclaim(&mut self, slot: SlotRef, ticket: Ticket) {
        let place = self.table(slot.table).slots.get_mut(usize::from(slot.index));
        let Some(busy) = place.and_then(|p| p.busy.as_mut()) else { return };
        let before = std::mem::replace(&mut busy.ticket, ticket);
        busy.abandoned = false;
        self.by_ticket.remove(&before);
        self.by_ticket.insert(ticket, slot);
    }

    /// Puts a request into a slot; `None` if it has to wait for one.
    pub(super) fn submit(&mut self, ticket: Ticket, request: Request) -> Option<SlotRef> {
        let table = match request.table() {
            SlotTable::Return if self.rules.has(Rule::ReturnsHaveOwnSlots) => SlotTable::Return,
            _ => SlotTable::Ordinary,
        };
        let slot = self.table(table).place(table, ticket, request)?;
        self.by_ticket.insert(ticket, slot);
        Some(slot)
    }

    /// The request in a slot if `seq` is its number.
    pub(super) fn get(&self, slot: SlotRef, seq: u64) -> Option<&InSlot> {
        let place = self.table_ref(slot.table).slots.get(usize::from(slot.index))?;
        (place.seq == seq).then_some(place.busy.as_ref()).flatten()
    }

    /// Marks a slot's request as sent and returns what to send.
    pub(super) fn send(&mut self, slot: SlotRef) -> Option<(u64, Request)> {
        let place = self.table(slot.table).slots.get_mut(usize::from(slot.index))?;
        let busy = place.busy.as_mut()?;
        busy.sent = true;
        Some((place.seq, if busy.withdrawn { INSTEAD } else { busy.request.clone() }))
    }

    /// A slot's request, if it was never sent.
    pub(super) fn unsent(&mut self, slot: SlotRef) -> Option<(u64, &mut InSlot)> {
        let place = self.table(slot.table).slots.get_mut(usize::from(slot.index))?;
        let seq = place.seq;
        Some((seq, place.busy.as_mut().filter(|busy| !busy.sent)?))
    }

    /// Ends a slot's request. The second value is the slot of a request that waited for one.
    pub(super) fn finish(&mut self, slot: SlotRef, seq: u64) -> Option<(InSlot, Option<SlotRef>)> {
        self.get(slot, seq)?;
        let table = self.table(slot.table);
        let done = table.slots[usize::from(slot.index)].busy.take()?;
        let next = table.waiting.pop_front().and_then(|(ticket, request)| {
            let placed = table.place(slot.table, ticket, request);
            placed.map(|s| (ticket, s))
        });
        self.by_ticket.remove(&done.ticket);
        if let Some((ticket, placed)) = next {
            self.by_ticket.insert(ticket, placed);
        }
        Some((done, next.map(|(_, s)| s)))
    }

    /// Every occupied slot, return table first.
    pub(super) fn occupied(&self) -> Vec<(SlotRef, u64)> {
        let of = |table: SlotTable, t: &Table| -> Vec<(SlotRef, u64)> {
            let slots = t.slots.iter().enumerate().filter(|(_, s)| s.busy.is_some());
            slots.map(|(i, s)| (SlotRef { table, index: i as u8 }, s.seq)).collect()
        };
        let mut all = of(SlotTable::Return, &self.returns);
        all.extend(of(SlotTable::Ordinary, &self.ordinary));
        all
    }

    /// Requests in slots, with their place.
    pub(super) fn requests(&self) -> impl Iterator<Item = (SlotRef, u64, &InSlot)> {
        self.occupied().into_iter().filter_map(|(slot, seq)| Some((slot, seq, self.get(slot, seq)?)))
    }

    /// The caller was interrupted. `true` if it is let go now: it never got a slot, its request was never sent, or no
    /// coordinator is bound. Else it is let go when the binding is lost.
    pub(super) fn cancel(&mut self, ticket: Ticket, bound: bool) -> bool {
        if self.leaves_queue(ticket) {
            return true;
        }
        let Some(slot) = self.by_ticket.get(&ticket).copied() else { return false };
        let Some(busy) = &mut self.table(slot.table).slots[usize::from(slot.index)].busy else { return false };
        if !busy.sent {
            self.withdraw(slot);
            return true;
        }
        busy.interrupted = true;
        let go = !busy.abandoned && !bound;
        busy.abandoned |= go;
        go
    }

    /// The caller has waited long enough. `true` if it is let go now: what it asked for is not executed any more, or it
    /// makes no difference, as `changes` says. Else it is withdrawn.
    pub(super) fn expire(&mut self, ticket: Ticket, changes: impl Fn(&Request) -> bool) -> bool {
        if self.leaves_queue(ticket) {
            return true;
        }
        let withdraws = self.rules.has(Rule::ExpiredIsWithdrawn);
        let Some(slot) = self.by_ticket.get(&ticket).copied() else { return false };
        let Some(busy) = &mut self.table(slot.table).slots[usize::from(slot.index)].busy else { return false };
        if !busy.sent {
            self.withdraw(slot);
            return true;
        }
        if withdraws && changes(&busy.request) {
            busy.withdrawn = true;
            return false;
        }
        !std::mem::replace(&mut busy.abandoned, true)
    }

    /// Requests that were withdrawn, whose callers still wait.
    pub(super) fn withdrawn(&self) -> u64 {
        self.requests().filter(|(_, _, r)| r.withdrawn && !r.abandoned).count() as u64
    }

    /// Takes a request out that waits for a slot.
    fn leaves_queue(&mut self, ticket: Ticket) -> bool {
        for table in [&mut self.ordinary, &mut self.returns] {
            if let Some(at) = table.waiting.iter().position(|(t, _)| *t == ticket) {
                table.waiting.remove(at);
                return true;
            }
        }
        false
    }

    /// Empties a slot whose request was never sent: its number was not used.
    fn withdraw(&mut self, slot: SlotRef) {
        let table = self.table(slot.table);
        let place = &mut table.slots[usize::from(slot.index)];
        place.seq -= 1;
        let gone = place.busy.take();
        let next = table.waiting.pop_front().and_then(|(t, r)| Some((t, table.place(slot.table, t, r)?)));
        if let Some(gone) = gone {
            self.by_ticket.remove(&gone.ticket);
        }
        self.by_ticket.extend(next);
    }

    /// The binding was lost: interrupted callers do not wait for the next one.
    pub(super) fn abandon_interrupted(&mut self) -> Vec<Ticket> {
        let mut gone = Vec::new();
        for table in [&mut self.ordinary, &mut self.returns] {
            let waiting =
                table.slots.iter_mut().filter_map(|s| s.busy.as_mut()).filter(|b| b.interrupted && !b.abandoned);
            gone.extend(waiting.map(|b| {
                b.abandoned = true;
                b.ticket
            }));
        }
        gone
    }

    /// Ends everything: an eviction. The callers that are still there.
    pub(super) fn clear(&mut self) -> Vec<Ticket> {
        let mut callers = Vec::new();
        for table in [&mut self.ordinary, &mut self.returns] {
            let in_slots = table.slots.iter_mut().filter_map(|s| s.busy.take());
            callers.extend(in_slots.filter(|b| !b.abandoned).map(|b| b.ticket));
            callers.extend(table.waiting.drain(..).map(|(t, _)| t));
        }
        *self = Slots::new(self.rules);
        callers
    }

    fn table(&mut self, table: SlotTable) -> &mut Table {
        match table {
            SlotTable::Ordinary => &mut self.ordinary,
            SlotTable::Return => &mut self.returns,
        }
    }

    fn table_ref(&self, table: SlotTable) -> &Table {
        match table {
            SlotTable::Ordinary => &self.ordinary,
            SlotTable::Return => &self.returns,
        }
    }

    /// Everything that is unanswered, with whether its caller has gone: in slots, and waiting for one.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = (&Request, bool)> {
        self.returns.unanswered().chain(self.ordinary.unanswered())
    }

    /// Requests that wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.ordinary.waiting.len() + self.returns.waiting.len()
    }
}
