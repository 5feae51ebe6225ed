//! A logical unit: what it does about a command, from its arrival on.
//!
//! ```text
//!   arrive ──► a plan, or an end      checks, in this order: room, reservation, unit attention, port group, fields
//!     │ data
//!   start  ──► it runs, now or when told     the reservation is looked at again, each time: it may be another one now
//!     │
//!   answer / change / (the program of its blocks)
//!   end    ──► the response, unless it was aborted
//! ```
//! RESERVATION CONFLICT comes before a unit attention (SAM-5 5.3.3). Unit attentions are queued for each nexus, told one
//! with each command, and taken out when told.

pub(crate) mod access;
mod answer;
mod inquiry;
pub(crate) mod media;
mod mode;
mod opcodes;
pub(crate) mod tasks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use scsi::alua::{AccessState, Group, PortGroup, PortGroups, RelativePort, SetStates, StatusCode, SupportedStates};
use scsi::cdb::{Command, ModeSelect, PersistentReserveOut};
use scsi::mode::ModeData;
use scsi::reservations::Change;
use scsi::{AdditionalCode, BlockLen, ListError, Sense, SenseKey, Status};

use super::name::{NexusId, NexusName};
use super::reserve::{Changed, Refused, Reservations};
pub(crate) use inquiry::standard as standard_inquiry;
use media::Media;
use tasks::{Abort, Effect, Order, Span, TaskId, Tasks, Wait};

/// Commands of all nexuses in one unit: eight sessions with full windows. More: TASK SET FULL.
pub(crate) const MAX_TASKS: usize = 1024;
/// Unit attentions that wait for one nexus. One more than there are different ones; at the bound the oldest goes, and the
/// rest says so (SPC-4 4.5.2.4.5).
const MAX_ATTENTIONS: usize = 16;
/// Nexuses whose loss is remembered, so that their next session is told.
const MAX_KNOWN: usize = 4096;

/// Bytes of a parameter list: registrations of 256 initiator ports with names as long as they may be. More: refused.
const MAX_LIST: u32 = 64 << 10;

fn too_long() -> Outcome {
    Outcome::sense(ListError::Length.sense())
}

/// What a unit is. Nothing of it changes but the number of blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) block: BlockLen,
    /// Blocks of the medium that are written at once, as a power of two of `block`.
    pub(crate) physical_exponent: u8,
    pub(crate) blocks: u64,
    pub(crate) read_only: bool,
    /// It begins without a write cache.
    pub(crate) write_through: bool,
    /// Blocks can be given back, and read as zeroes then.
    pub(crate) thin: bool,
    /// Its number within the target.
    pub(crate) lun: u64,
    /// The target's name, of which the unit's names are made.
    pub(crate) target: String,
    /// Numbers of the target ports.
    pub(crate) ports: Vec<u16>,
    /// Reservations can be kept over a loss of power.
    pub(crate) persists: bool,
}

/// How a command ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) sense: Option<Sense>,
    /// Data for the initiator.
    pub(crate) data: Vec<u8>,
}

impl Outcome {
    pub(crate) const GOOD: Outcome = Outcome { status: Status::Good, sense: None, data: Vec::new() };

    pub(crate) fn data(data: Vec<u8>) -> Outcome {
        Outcome { data, ..Outcome::GOOD }
    }

    pub(crate) fn status(status: Status) -> Outcome {
        Outcome { status, ..Outcome::GOOD }
    }

    pub(crate) fn check(key: SenseKey, code: AdditionalCode) -> Outcome {
        Outcome::sense(Sense::new(key, code))
    }

    pub(crate) fn sense(sense: Sense) -> Outcome {
        Outcome { status: Status::CheckCondition, sense: Some(sense), data: Vec::new() }
    }

    /// INVALID FIELD IN CDB, the byte, and where it is one the bit.
    pub(crate) fn field(byte: u16, bit: Option<u8>) -> Outcome {
        Outcome::sense(scsi::CdbError::InvalidField { byte, bit }.sense())
    }
}

impl From<Refused> for Outcome {
    fn from(refused: Refused) -> Outcome {
        match refused {
            Refused::Conflict => Outcome::status(Status::ReservationConflict),
            Refused::Sense(sense) => Outcome::sense(sense),
        }
    }
}

/// What is to be done for a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// [`Unit::answer`].
    Answer(Command),
    /// A program of reads and writes.
    Media(Media),
    /// [`Unit::reserve_out`].
    ReserveOut(PersistentReserveOut),
    /// [`Unit::select`].
    Select(ModeSelect),
    /// [`Unit::set_groups`], with a list of so many bytes.
    SetGroups(u32),
}

impl Plan {
    /// Bytes that the initiator sends for it.
    pub(crate) fn data_out(&self) -> u64 {
        match self {
            Plan::Answer(_) => 0,
            Plan::Media(media) => media.data_out,
            Plan::ReserveOut(out) => u64::from(out.list.0),
            Plan::Select(select) => u64::from(select.list.0),
            Plan::SetGroups(len) => u64::from(*len),
        }
    }

    fn span(&self) -> Span {
        match self {
            Plan::Answer(Command::PersistentReserveIn(_)) => Span::TOLD,
            Plan::Answer(_) => Span::NOTHING,
            Plan::Media(media) => media.span(),
            Plan::ReserveOut(_) | Plan::Select(_) | Plan::SetGroups(_) => Span::STATE,
        }
    }
}

/// A nexus as the unit sees it.
#[derive(Debug)]
struct Seat {
    name: NexusName,
    attentions: VecDeque<AdditionalCode>,
    overflow: bool,
}

/// The unit.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) shape: Shape,
    mode: mode::Mode,
    reservations: Reservations,
    /// RESERVE(6).
    reserved6: Option<NexusId>,
    seats: BTreeMap<NexusId, Seat>,
    /// Attentions of registered nexuses that have no session now.
    absent: BTreeMap<NexusName, VecDeque<AdditionalCode>>,
    known: BTreeSet<NexusName>,
    groups: BTreeMap<u16, (AccessState, StatusCode)>,
    pub(crate) tasks: Tasks,
    /// PREEMPT AND ABORT is told to others before it is over; see [`Lun::tells_early`](crate::Lun::tells_early).
    pub(crate) tells_early: bool,
    /// Space left on a thin unit, in blocks, and where the threshold is.
    space: Option<(u64, u64)>,
}

impl Unit {
    /// A unit with the reservations that were stored.
    pub(crate) fn new(shape: Shape, reservations: Reservations) -> Unit {
        let groups = shape.ports.iter().map(|port| (*port, (AccessState::ActiveOptimized, StatusCode::None))).collect();
        Unit {
            mode: mode::Mode::first(&shape),
            reservations,
            reserved6: None,
            seats: BTreeMap::new(),
            absent: BTreeMap::new(),
            known: BTreeSet::new(),
            groups,
            tasks: Tasks::default(),
            tells_early: false,
            space: None,
            shape,
        }
    }

    /// A session begins.
    pub(crate) fn attach(&mut self, id: NexusId, name: NexusName) {
        let first =
            if self.known.contains(&name) { AdditionalCode::NEXUS_LOSS } else { AdditionalCode::POWER_ON_OR_RESET };
        if self.known.len() < MAX_KNOWN {
            self.known.insert(name.clone());
        }
        let mut attentions = self.absent.remove(&name).unwrap_or_default();
        attentions.push_front(first);
        self.seats.insert(id, Seat { name, attentions, overflow: false });
    }

    /// A session is over, and with it everything that is bound to a session rather than to a nexus' name. All its commands
    /// have ended.
    pub(crate) fn detach(&mut self, id: NexusId) {
        self.tasks.forget(id);
        if self.reserved6 == Some(id) {
            self.reserved6 = None;
        }
        let Some(mut seat) = self.seats.remove(&id) else { return };
        // Resets and losses are told anew; what became of its registration must not be forgotten.
        seat.attentions.retain(|code| code.asc == 0x2a);
        if !seat.attentions.is_empty() && self.absent.len() < MAX_KNOWN {
            self.absent.insert(seat.name, seat.attentions);
        }
    }

    /// Whether SENSE goes out in descriptor format.
    pub(crate) fn descriptor_sense(&self) -> bool {
        self.mode.descriptor_sense
    }

    /// A command arrives; its initiator announces so many bytes of data. Its plan and its place in the task set, or its end.
    pub(crate) fn arrive(
        &mut self,
        nexus: NexusId,
        cdb: &[u8],
        order: Order,
        announced: u32,
    ) -> Result<(TaskId, Plan), Outcome> {
        if self.tasks.len() >= MAX_TASKS {
            return Err(Outcome::status(Status::TaskSetFull));
        }
        if !cdb.first().copied().is_some_and(opcodes::has) {
            return Err(Outcome::check(SenseKey::IllegalRequest, AdditionalCode::INVALID_OPERATION_CODE));
        }
        let command = Command::parse(cdb).map_err(|e| Outcome::sense(e.sense()))?;
        self.may(nexus, &command)?;
        self.told(nexus, &command)?;
        self.reached(nexus, &command)?;
        let plan = self.plan(command, cdb)?;
        if let Plan::Media(media) = &plan
            && media.kind.is_exact()
            && media.data_out != u64::from(announced)
        {
            return Err(Outcome::field(1, None));
        }
        let span = if self.tells_early && plan.span() == Span::TOLD { Span::NOTHING } else { plan.span() };
        Ok((self.tasks.arrive(nexus, span, order), plan))
    }

    fn plan(&self, command: Command, cdb: &[u8]) -> Result<Plan, Outcome> {
        Ok(match command {
            Command::PersistentReserveOut(out) if out.list.0 > MAX_LIST => return Err(too_long()),
            Command::SetTargetPortGroups(set) if set.list.0 > MAX_LIST => return Err(too_long()),
            Command::PersistentReserveOut(out) => Plan::ReserveOut(out),
            Command::ModeSelect(select) => Plan::Select(select),
            Command::SetTargetPortGroups(set) => Plan::SetGroups(set.list.0),
            _ => match Media::of(&command, cdb, &self.shape, &self.mode)? {
                Some(media) => Plan::Media(media),
                None => Plan::Answer(command),
            },
        })
    }

    /// The command's data are there. True: it runs. False: [`Effect::Run`] follows.
    ///
    /// # Errors
    /// How it ends without running; it is not in the task set any more then.
    pub(crate) fn start(
        &mut self,
        nexus: NexusId,
        id: TaskId,
        plan: &Plan,
        fx: &mut Vec<Effect>,
    ) -> Result<bool, Outcome> {
        if let Err(conflict) = self.still_may(nexus, plan) {
            // An abort that came before has the last word.
            return match self.tasks.aborted(id) {
                None => {
                    self.tasks.end(id, fx);
                    Err(conflict)
                }
                Some(_) => Ok(false),
            };
        }
        Ok(self.tasks.start(id))
    }

    /// The command has waited and runs now: the reservation may be another one.
    ///
    /// # Errors
    /// How it ends without running. It is in the task set until it is said to have ended.
    pub(crate) fn woken(&self, nexus: NexusId, plan: &Plan) -> Result<(), Outcome> {
        self.still_may(nexus, plan)
    }

    /// A change of persistent reservations: what it leads to. Nothing is changed yet.
    pub(crate) fn reserve_out(
        &self,
        nexus: NexusId,
        out: &PersistentReserveOut,
        list: &[u8],
    ) -> Result<Changed, Outcome> {
        let change = Change::parse(out, list).map_err(|e| Outcome::sense(e.sense()))?;
        let seat = self.seats.get(&nexus).ok_or(Outcome::status(Status::Busy))?;
        if self.reserved6.is_some() {
            return Err(Outcome::status(Status::ReservationConflict));
        }
        let changed = self.reservations.apply(&seat.name, &change, &self.shape.ports)?;
        if changed.state.persist && !self.shape.persists {
            // APTPL, where PTPL_C of REPORT CAPABILITIES is 0.
            return Err(Outcome::sense(ListError::InvalidField { byte: 20, bit: Some(0) }.sense()));
        }
        Ok(changed)
    }

    /// Whether a change must be stable before it comes into force: what survives a loss of power becomes another.
    pub(crate) fn must_store(&self, changed: &Changed) -> bool {
        let (now, then) = (&self.reservations, &changed.state);
        (now.persist || then.persist)
            && (now.persist, &now.registered, &now.hold) != (then.persist, &then.registered, &then.hold)
    }

    /// The change is stored and comes into force. Commands of those it preempts are aborted; true if there is none to wait
    /// for. Until they have ended the command that asked for it stands in the way of every other change and question about reservations
    /// (SPC-4 5.13.11.2.4: an uninterrupted series of actions). Prevents: somebody reads that a key is gone, takes that for the proof that
    /// its nexus writes nothing any more, and what the disk has of it lands. Nobody waits for ever for that: who waits can be aborted,
    /// and what is waited for is with the disk only.
    pub(crate) fn reserved(
        &mut self,
        own: (NexusId, TaskId),
        changed: Changed,
        wait: Wait,
        fx: &mut Vec<Effect>,
    ) -> bool {
        self.reservations = changed.state;
        for (name, code) in changed.tell {
            self.attention(&name, code);
        }
        let victims: BTreeSet<NexusId> =
            self.seats.iter().filter(|(_, s)| changed.abort.contains(&s.name)).map(|(id, _)| *id).collect();
        match self.tells_early {
            true => self.tasks.yield_span(own.1, fx),
            false => self.tasks.keep_untold(own.1, fx),
        }
        if victims.is_empty() {
            return true;
        }
        self.tasks.abort(wait, fx, |id, nexus| {
            let how = if nexus == own.0 { Abort::Silent } else { Abort::Told };
            (victims.contains(&nexus) && id != own.1).then_some(how)
        })
    }

    /// MODE SELECT.
    pub(crate) fn select(&mut self, nexus: NexusId, select: &ModeSelect, list: &[u8]) -> Outcome {
        let data = match ModeData::parse_select(select, list) {
            Ok(data) => data,
            Err(e) => return Outcome::sense(e.sense()),
        };
        match self.mode.select(select, &data) {
            Ok(false) => Outcome::GOOD,
            Ok(true) => {
                self.attention_for_others(nexus, AdditionalCode::MODE_PARAMETERS_CHANGED);
                Outcome::GOOD
            }
            Err(outcome) => outcome,
        }
    }

    /// SET TARGET PORT GROUPS.
    pub(crate) fn set_groups(&mut self, nexus: NexusId, list: &[u8]) -> Outcome {
        if list.is_empty() {
            return Outcome::GOOD;
        }
        let sets = match SetStates::parse(list) {
            Ok(sets) => sets.groups,
            Err(e) => return Outcome::sense(e.sense()),
        };
        for (n, (group, state)) in sets.iter().enumerate() {
            let settable = *state != AccessState::LogicalBlockDependent && *state != AccessState::Offline;
            if !settable || !self.groups.contains_key(&group.0) {
                return Outcome::sense(ListError::byte(4 + n * 4).sense());
            }
        }
        for (group, state) in sets {
            self.groups.insert(group.0, (state, StatusCode::Explicit));
        }
        self.attention_for_others(nexus, AdditionalCode::ACCESS_STATE_CHANGED);
        Outcome::GOOD
    }

    /// The administrator sets a group's state. False if there is no such group.
    pub(crate) fn set_group(&mut self, group: u16, state: AccessState) -> bool {
        let Some(found) = self.groups.get_mut(&group) else { return false };
        if found.0 != state {
            *found = (state, StatusCode::Implicit);
            self.attention_for_all(AdditionalCode::ACCESS_STATE_CHANGED);
        }
        true
    }

    /// Each group, its state, and whether an initiator has set it.
    pub(crate) fn group_states(&self) -> Vec<(u16, AccessState, bool)> {
        let groups = self.groups.iter();
        groups.map(|(number, (state, status))| (*number, *state, *status == StatusCode::Explicit)).collect()
    }

    /// REPORT TARGET PORT GROUPS.
    fn port_groups(&self) -> PortGroups {
        let supported = SupportedStates {
            active_optimized: true,
            active_non_optimized: true,
            standby: true,
            unavailable: true,
            logical_block_dependent: false,
            offline: false,
            transitioning: true,
        };
        let groups = self.groups.iter().map(|(number, (state, status))| Group {
            group: PortGroup(*number),
            preferred: false,
            state: *state,
            supported,
            status: *status,
            ports: vec![RelativePort(*number)],
        });
        PortGroups { transition_seconds: None, groups: groups.collect() }
    }

    /// The device has another size now.
    pub(crate) fn resized(&mut self, blocks: u64) {
        if std::mem::replace(&mut self.shape.blocks, blocks) != blocks {
            self.attention_for_all(AdditionalCode::CAPACITY_CHANGED);
        }
    }

    /// So many blocks are left for a thin unit. Whoever writes on is told once when they fall below the threshold.
    pub(crate) fn space(&mut self, left: u64, threshold: u64) {
        let before = self.space.replace((left, threshold));
        if left < threshold && before.is_none_or(|(before, _)| before >= threshold) {
            self.attention_for_all(AdditionalCode::THIN_PROVISIONING_THRESHOLD);
        }
    }

    /// Commands are aborted for a task management function, or because their session ends; `wait` is told when they have
    /// ended. True if there are none.
    pub(crate) fn abort(&mut self, nexus: NexusId, which: Which, wait: Wait, fx: &mut Vec<Effect>) -> bool {
        match which {
            Which::One(task) => self.tasks.abort(wait, fx, |id, _| (id == task).then_some(Abort::Silent)),
            Which::Own => self.tasks.abort(wait, fx, |_, of| (of == nexus).then_some(Abort::Silent)),
            Which::Cleared => {
                self.tasks.abort(wait, fx, |_, of| Some(if of == nexus { Abort::Silent } else { Abort::Told }))
            }
            Which::Reset => {
                self.reserved6 = None;
                self.mode = mode::Mode::first(&self.shape);
                self.attention_for_all(AdditionalCode::BUS_DEVICE_RESET);
                self.tasks.abort(wait, fx, |_, _| Some(Abort::Silent))
            }
        }
    }

    /// Establishes a unit attention for a nexus, also one that has no session.
    fn attention(&mut self, name: &NexusName, code: AdditionalCode) {
        if let Some(seat) = self.seats.values_mut().find(|seat| seat.name == *name) {
            return seat.attention(code);
        }
        if self.absent.len() < MAX_KNOWN || self.absent.contains_key(name) {
            let queue = self.absent.entry(name.clone()).or_default();
            if !queue.contains(&code) {
                queue.push_back(code);
            }
        }
    }

    fn attention_for_others(&mut self, nexus: NexusId, code: AdditionalCode) {
        self.seats.iter_mut().filter(|(id, _)| **id != nexus).for_each(|(_, seat)| seat.attention(code));
    }

    pub(crate) fn attention_for_all(&mut self, code: AdditionalCode) {
        self.seats.values_mut().for_each(|seat| seat.attention(code));
    }

    /// The next unit attention of a nexus is told.
    fn take_attention(&mut self, nexus: NexusId) -> Option<Sense> {
        let seat = self.seats.get_mut(&nexus)?;
        let code = seat.attentions.pop_front()?;
        let sense = Sense::new(SenseKey::UnitAttention, code);
        let lost = std::mem::take(&mut seat.overflow);
        let specific = lost.then_some(scsi::sense::KeySpecific::AttentionOverflow(true));
        Some(Sense { specific, ..sense })
    }
}

/// Which commands are aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// ABORT TASK.
    One(TaskId),
    /// ABORT TASK SET, or the session's end.
    Own,
    /// CLEAR TASK SET.
    Cleared,
    /// LOGICAL UNIT RESET and resets of the target.
    Reset,
}

impl Seat {
    fn attention(&mut self, code: AdditionalCode) {
        if self.attentions.contains(&code) {
            return;
        }
        if self.attentions.len() >= MAX_ATTENTIONS {
            self.attentions.pop_front();
            self.overflow = true;
        }
        self.attentions.push_back(code);
    }
}
