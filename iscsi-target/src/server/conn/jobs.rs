//! From a command to its unit and its device, and back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use block::device::{Completion, Done, Io};
use block::{AlignedBuf, Extent, IoError};
use bytes::Bytes;
use iscsi::ids::Itt;
use scsi::cdb::{Command, SelectReport, op};
use scsi::luns::Luns;
use scsi::{AdditionalCode, LunAddress, SenseKey, Status};

use super::manage::Pending;
use super::{Conn, State};
use crate::core::program::{Ask, Program};
use crate::core::reserve::Changed;
use crate::core::unit::media::{Kind, Media};
use crate::core::unit::tasks::{Abort, Order, TaskId};
use crate::core::unit::{Outcome, Plan, standard_inquiry};
use crate::server::HeldIn;
use crate::server::mailbox::Note;

/// Where a job is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Waiting: for data, for memory, for other commands.
    Waiting,
    /// The device has a request of it.
    Device,
    /// A change of reservations is being stored.
    Storing(Option<Changed>),
    /// The commands that it has aborted have not all ended.
    Preempting,
}

/// A command that its unit has taken in.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) itt: Itt,
    /// Its unit's place in the target's list, and its number there.
    pub(super) unit: usize,
    pub(super) task: TaskId,
    plan: Plan,
    program: Option<Program>,
    pub(super) stage: Stage,
    data: Option<AlignedBuf>,
    /// Bytes that are counted for it.
    memory: usize,
    /// It makes no further step.
    stop: bool,
}

/// WRITE (6), (10), (12), (16).
const WRITES: [u8; 4] = [op::WRITE_6.0, op::WRITE_10.0, op::WRITE_12.0, op::WRITE_16.0];

/// Who waits for memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    /// Data are to be asked for.
    Solicit(Itt),
    /// A read is to begin.
    Start(Itt),
}

impl Conn {
    /// A command has come.
    pub(super) fn command(&mut self, itt: Itt, lun: LunAddress, cdb: &[u8], (order, announced): (Order, u32)) {
        self.counters.total.fetch_add(1, Ordering::Relaxed);
        let number = lun.number().filter(|_| !lun.is_well_known());
        let Some((index, unit)) = number.and_then(|n| self.shared.unit(n)) else {
            let outcome = no_unit(cdb, lun == LunAddress::REPORT_LUNS, &self.shared.luns);
            return self.refuse(itt, outcome, false);
        };
        let nexus = self.nexus;
        match unit.with(|u, _| (u.arrive(nexus, cdb, order, announced), u.descriptor_sense())) {
            (Err(outcome), descriptor) => {
                if outcome.status == Status::ReservationConflict {
                    self.count_refused(cdb);
                }
                self.refuse(itt, outcome, descriptor);
            }
            (Ok((task, plan)), _) => {
                if cdb.first().is_some_and(|code| WRITES.contains(code)) {
                    self.counters.refused.let_in.fetch_add(1, Ordering::Relaxed);
                }
                let data_out = plan.data_out();
                let job = Job {
                    itt,
                    unit: index,
                    task,
                    plan,
                    program: None,
                    stage: Stage::Waiting,
                    data: None,
                    memory: 0,
                    stop: false,
                };
                let key = self.jobs.insert(job);
                self.by_itt.insert(itt, key);
                self.by_task.insert((index, task), key);
                if self.session.expect(itt, data_out, &mut self.fx).is_err() {
                    self.failed(itt);
                }
            }
        }
    }

    /// A command on blocks met a reservation when it came; what came before the reservation is aborted by it instead.
    fn count_refused(&self, cdb: &[u8]) {
        let refused = &self.counters.refused;
        match Command::parse(cdb) {
            Ok(Command::Read(_)) => refused.reads.fetch_add(1, Ordering::Relaxed),
            Ok(Command::Write(_) | Command::CompareAndWrite(_)) => refused.writes.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// A command ends before any unit has taken it in.
    fn refuse(&mut self, itt: Itt, outcome: Outcome, descriptor: bool) {
        self.memory.drop_buffer(itt);
        self.session.finish(itt, outcome, None, descriptor, &mut self.fx);
    }

    /// A command failed by its data. The session answers it; the unit is to forget it.
    pub(super) fn failed(&mut self, itt: Itt) {
        if let Some(key) = self.by_itt.get(&itt).copied() {
            self.forget(key);
        }
    }

    /// Takes a job out, and tells its unit.
    fn forget(&mut self, key: usize) -> Option<Abort> {
        let job = self.jobs.try_remove(key)?;
        if let Some(n) = self.held.iter().position(|(held, _)| *held == key) {
            let (_, what) = self.held.swap_remove(n);
            tracing::warn!("the {what} of {} that was held up was aborted", self.initiator);
        }
        self.by_itt.remove(&job.itt);
        self.by_task.remove(&(job.unit, job.task));
        self.memory.drop_buffer(job.itt);
        self.memory.free(job.memory);
        let unit = &self.shared.units[job.unit];
        unit.with(|u, fx| u.tasks.end(job.task, fx))
    }

    /// The data of a command are there.
    pub(super) fn ready(&mut self, itt: Itt, len: u32) {
        let Some(key) = self.by_itt.get(&itt).copied() else { return };
        let buffer = self.memory.take(itt);
        let Some(job) = self.jobs.get_mut(key) else { return };
        if let Some(mut buffer) = buffer {
            job.memory += buffer.len();
            buffer.truncate(len as usize);
            job.data = Some(buffer);
        }
        let held = held_in(&job.plan).filter(|(place, _)| self.shared.hold.takes(&self.initiator, *place));
        match held {
            Some((_, what)) => {
                tracing::warn!("a {what} of {} is held up", self.initiator);
                self.held.push((key, what));
            }
            None => self.begin(key),
        }
    }

    /// A command whose data are there begins, or waits for memory.
    fn begin(&mut self, key: usize) {
        let Some(job) = self.jobs.get(key) else { return };
        let reads = match &job.plan {
            Plan::Media(Media { kind: Kind::Read, blocks, block, .. }) => *blocks * u64::from(*block),
            _ => 0,
        };
        if reads > 0 {
            self.wants.push_back(Want::Start(job.itt));
            self.grant();
        } else {
            self.start(key);
        }
    }

    /// What was held up begins, and what was stuck goes on.
    pub(super) fn let_go(&mut self) {
        for (unit, io) in std::mem::take(&mut self.stuck) {
            tracing::warn!("the write of {} that was stuck in the disk goes on", self.initiator);
            self.shared.units[unit].device.submit(io);
        }
        for (key, what) in std::mem::take(&mut self.held) {
            tracing::warn!("the {what} of {} that was held up begins", self.initiator);
            self.begin(key);
        }
    }

    /// Gives memory to those who wait for it, in turn, as far as there is some.
    pub(super) fn grant(&mut self) {
        while let Some(want) = self.wants.front().copied() {
            let (Want::Solicit(itt) | Want::Start(itt)) = want;
            let Some(key) = self.by_itt.get(&itt).copied() else {
                self.wants.pop_front();
                continue;
            };
            let bytes = match (&self.jobs[key].plan, want) {
                (Plan::Media(Media { kind: Kind::Read, blocks, block, .. }), Want::Start(_)) => {
                    *blocks * u64::from(*block)
                }
                (plan, _) => plan.data_out(),
            };
            // Lossless: bounded by MAX_TRANSFER and MAX_LIST.
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            if !self.memory.fits(bytes) {
                return;
            }
            self.wants.pop_front();
            match want {
                Want::Solicit(itt) => {
                    self.memory.make(itt, bytes, bytes);
                    self.session.solicit(itt, &mut self.fx);
                    self.apply();
                }
                Want::Start(_) => {
                    self.memory.count(bytes);
                    self.jobs[key].memory += bytes;
                    self.start(key);
                }
            }
        }
    }

    fn start(&mut self, key: usize) {
        let Some(job) = self.jobs.get(key) else { return };
        let (nexus, task, plan) = (self.nexus, job.task, &job.plan);
        let unit = &self.shared.units[job.unit];
        match unit.with(|u, fx| (u.start(nexus, task, plan, fx), u.descriptor_sense())) {
            (Ok(true), _) => self.run(key),
            (Ok(false), _) => {}
            (Err(outcome), descriptor) => {
                let itt = job.itt;
                self.forget(key);
                self.session.finish(itt, outcome, None, descriptor, &mut self.fx);
                self.apply();
            }
        }
    }

    /// A command that has waited for others may run.
    pub(super) fn woken(&mut self, unit: usize, task: TaskId) {
        let Some(key) = self.by_task.get(&(unit, task)).copied() else { return };
        let (nexus, plan) = (self.nexus, &self.jobs[key].plan);
        match self.shared.units[unit].with(|u, _| u.woken(nexus, plan)) {
            Ok(()) => self.run(key),
            Err(outcome) => self.conclude(key, outcome, None),
        }
    }

    /// A command runs.
    fn run(&mut self, key: usize) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let unit = &self.shared.units[job.unit];
        let nexus = self.nexus;
        let data = job.data.take();
        let list = data.as_deref().unwrap_or_default();
        match &job.plan {
            Plan::Answer(command) => {
                let luns = &self.shared.luns;
                let outcome = unit.with(|u, _| u.answer(nexus, command, luns));
                self.conclude(key, outcome, None);
            }
            Plan::Media(media) => {
                let (program, ask) = Program::begin(*media, data);
                job.program = Some(program);
                self.ask(key, ask);
            }
            Plan::Select(select) => {
                let outcome = unit.with(|u, _| u.select(nexus, select, list));
                self.conclude(key, outcome, None);
            }
            Plan::SetGroups(_) => {
                let outcome = unit.with(|u, _| u.set_groups(nexus, list));
                self.conclude(key, outcome, None);
            }
            Plan::ReserveOut(out) => {
                let asked = unit.with(|u, _| u.reserve_out(nexus, out, list).map(|c| (u.must_store(&c), c)));
                match asked {
                    Ok((true, changed)) => self.store(key, changed),
                    Ok((false, changed)) => self.reserved(key, changed),
                    Err(outcome) => self.conclude(key, outcome, None),
                }
            }
        }
    }

    /// Makes the next request of a command, or ends it.
    fn ask(&mut self, key: usize, ask: Ask) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let unit = &self.shared.units[job.unit];
        let mailbox = Arc::clone(&self.mailbox);
        match ask {
            Ask::Io { op, at, len, buf } => {
                job.stage = Stage::Device;
                let done = Completion::new(move |done| mailbox.put(Note::Done(key, done)));
                let io = Io { op, at, len, buf, done };
                if matches!(&job.plan, Plan::Media(m) if m.kind == Kind::Write)
                    && self.shared.hold.takes(&self.initiator, HeldIn::Disk)
                {
                    tracing::warn!("a write of {} is stuck in the disk", self.initiator);
                    return self.stuck.push((job.unit, io));
                }
                unit.device.submit(io);
            }
            Ask::Extents { at, len, most } => match &unit.provisioning {
                Some(provisioning) => {
                    job.stage = Stage::Device;
                    let done = Box::new(move |found| mailbox.put(Note::Extents(key, found)));
                    provisioning.extents(at, len, most, done);
                }
                None => self.go_on(key, |program| program.extents(None)),
            },
            Ask::End(outcome, data) => self.conclude(key, outcome, data.map(AlignedBuf::freeze)),
        }
    }

    fn go_on(&mut self, key: usize, step: impl FnOnce(&mut Program) -> Ask) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.stage = Stage::Waiting;
        let next = job.program.as_mut().filter(|_| !job.stop).map(step);
        match next {
            Some(ask) => self.ask(key, ask),
            None => self.conclude(key, Outcome::GOOD, None),
        }
    }

    /// The device has answered.
    pub(super) fn done(&mut self, key: usize, done: Done) {
        if let Err(error) = &done.result {
            tracing::warn!("{error}");
        }
        let result = done.result.map_err(|error| error.kind);
        self.go_on(key, |program| program.next(result, done.buf));
    }

    pub(super) fn found(&mut self, key: usize, found: Result<Vec<Extent>, IoError>) {
        if let Err(error) = &found {
            tracing::warn!("where data lie: {error}");
        }
        self.go_on(key, |program| program.extents(found.ok()));
    }

    /// A command has ended: its response, unless it was aborted or nobody is there to hear it.
    pub(super) fn conclude(&mut self, key: usize, outcome: Outcome, data: Option<Bytes>) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let (itt, stop) = (job.itt, job.stop);
        let held = if data.is_some() { std::mem::take(&mut job.memory) } else { 0 };
        let descriptor = outcome.sense.is_some() && self.shared.units[job.unit].with(|u, _| u.descriptor_sense());
        match self.forget(key) {
            None if stop => self.session.withdraw(itt),
            None => self.session.finish(itt, outcome, data, descriptor, &mut self.fx),
            Some(Abort::Silent) => self.session.withdraw(itt),
            Some(Abort::Told) => self.session.abort_told(itt, &mut self.fx),
        }
        let sends = !self.fx.is_empty();
        self.apply();
        if held > 0 && !(sends && self.outgoing.last_frees(held)) {
            self.memory.free(held);
        }
    }

    /// A command was aborted. What the device has of it is waited for.
    pub(super) fn aborted(&mut self, unit: usize, task: TaskId) {
        let Some(key) = self.by_task.get(&(unit, task)).copied() else { return };
        let job = &mut self.jobs[key];
        match job.stage {
            Stage::Waiting => self.conclude(key, Outcome::GOOD, None),
            Stage::Device | Stage::Storing(_) | Stage::Preempting => job.stop = true,
        }
    }

    /// The session ends: so do its commands, those in the device as soon as it has completed them, and a PREEMPT AND ABORT when whom it
    /// has preempted has nothing under way any more. Prevents: its initiator logs in anew, finds the key gone, and takes that login for
    /// the end of what it had begun.
    pub(super) fn drop_jobs(&mut self) {
        self.wants.clear();
        let keys: Vec<usize> = self.jobs.iter().map(|(key, _)| key).collect();
        for key in keys {
            let job = &mut self.jobs[key];
            match job.stage {
                Stage::Device | Stage::Storing(_) | Stage::Preempting => job.stop = true,
                Stage::Waiting => {
                    self.forget(key);
                }
            }
        }
        if !matches!(self.state, State::Open) {
            self.waits.retain(|_, pending| matches!(pending, Pending::Preempt(_)));
        }
    }
}

/// Where a command may be held up before it begins, and what the log calls it.
fn held_in(plan: &Plan) -> Option<(HeldIn, &'static str)> {
    match plan {
        Plan::Media(Media { kind: Kind::Write, .. }) => Some((HeldIn::TaskSet, "write")),
        Plan::Media(Media { kind: Kind::Read | Kind::Swap, .. }) => Some((HeldIn::Looks, "look")),
        _ => None,
    }
}

/// What a number without a unit answers (SPC-4 6.6.2 for INQUIRY; 5.2), and the well-known unit that reports the others.
fn no_unit(cdb: &[u8], well_known: bool, luns: &[u64]) -> Outcome {
    let missing = Outcome::check(SenseKey::IllegalRequest, AdditionalCode::LOGICAL_UNIT_NOT_SUPPORTED);
    let cut = |mut data: Vec<u8>, alloc: usize| {
        data.truncate(alloc);
        Outcome::data(data)
    };
    match Command::parse(cdb) {
        Ok(Command::Inquiry(c)) if c.page.is_none() => cut(standard_inquiry(false).to_bytes(), usize::from(c.alloc.0)),
        Ok(Command::ReportLuns(c)) => {
            let luns = match c.select {
                SelectReport::WellKnown => Vec::new(),
                _ => luns.iter().filter_map(|lun| LunAddress::new(*lun)).collect(),
            };
            cut(Luns { luns }.to_bytes(), c.alloc.as_usize())
        }
        Ok(Command::RequestSense(c)) => {
            let sense = missing
                .sense
                .map_or(Vec::new(), |s| if c.descriptor { s.to_descriptor() } else { s.to_fixed().to_vec() });
            cut(sense, c.alloc.as_usize())
        }
        Ok(Command::TestUnitReady(_)) if well_known => Outcome::GOOD,
        _ => missing,
    }
}
