//! The host: an application on a session, and the shell that a driver is. The shell moves bytes and makes the proof of
//! a nexus (register, then read the slot); it decides nothing. The application's answers go to the oracle.

use std::collections::BTreeMap;

use super::disk::{BLOCK, BLOCKS, CELL, Disk, cell, contents, nonce_of, version_of};
use super::rng::Rng;
use scsi::{LunAddress, Status};

use super::target::{CELL_AT, LUN, PREEMPT, READ, REGISTER, SLOT_AT, SWAP, WRITE, cdb};
use crate::session::{Class, Command, FenceGen, Found, Outcome, TaskId, Transfer};

/// Tasks of the application at once.
const BUSY: usize = 10;
/// Names of the shell's own tasks.
const SETTLE: TaskId = TaskId(150);
const REGISTERING: TaskId = TaskId(200);
const SLOT: TaskId = TaskId(201);
const PREEMPTING: TaskId = TaskId(202);

/// What a task is for.
#[derive(Clone, Copy, Debug)]
enum What {
    Read { block: u32, floor: u64 },
    Write { block: u32, version: u64 },
    Swap { expected: u64, new: u64 },
    Settle { task: TaskId },
    Register { nexus: u64 },
    Slot { nexus: u64 },
    Preempt { nexus: u64 },
}

#[derive(Debug)]
struct Job {
    what: What,
    memory: Vec<u8>,
}

/// What the end of a task asks the world to do.
#[derive(Debug)]
pub(super) enum Next {
    Nothing,
    Submit(Command),
    Proved(u64, u64),
    Preempted,
    PreemptLater(u64),
    Settled(TaskId, Found),
    /// A command met a conflict.
    Unregistered,
    ProveLater(u64),
}

/// The host.
#[derive(Debug)]
pub(super) struct Host {
    jobs: BTreeMap<TaskId, Job>,
    acked: Vec<u64>,
    issued: Vec<u64>,
    nonces: u64,
    /// The generation in which it believes to be.
    pub(super) generation: u64,
    /// How often each outcome was told.
    pub(super) outcomes: BTreeMap<&'static str, u64>,
}

impl Host {
    pub(super) fn new() -> Host {
        let zeroes = vec![0; BLOCKS as usize];
        Host {
            jobs: BTreeMap::new(),
            acked: zeroes.clone(),
            issued: zeroes,
            nonces: 0,
            generation: 1,
            outcomes: BTreeMap::new(),
        }
    }

    /// Tasks that are not ended.
    pub(super) fn outstanding(&self) -> usize {
        self.jobs.len()
    }

    fn job(&mut self, task: TaskId, what: What, memory: Vec<u8>, at: u64, op: u8, class: Class) -> Command {
        let len = u32::try_from(memory.len()).unwrap_or(0);
        let transfer = match op {
            _ if len == 0 => Transfer::None,
            WRITE | SWAP => Transfer::Out(len),
            _ => Transfer::In(len),
        };
        self.jobs.insert(task, Job { what, memory });
        let generation = class.generation().map_or(0, |g| g.0);
        Command { task, lun: LunAddress::from_bytes(LUN), cdb: cdb(op, at, generation), transfer, class }
    }

    /// The application does something.
    pub(super) fn act(&mut self, rng: &mut Rng, disk: &Disk) -> Option<Command> {
        let free = (0..u16::try_from(BUSY).unwrap_or(1)).map(TaskId).find(|t| !self.jobs.contains_key(t))?;
        let block = u32::try_from(rng.below(u64::from(BLOCKS))).unwrap_or(0);
        let generation = FenceGen(self.generation);
        match rng.below(10) {
            0..=4 => {
                let floor = self.acked[block as usize];
                let what = What::Read { block, floor };
                Some(self.job(free, what, vec![0xee; BLOCK as usize], u64::from(block), READ, Class::Read))
            }
            5..=8 => {
                let writing = |j: &Job| matches!(j.what, What::Write { block: b, .. } if b == block);
                if self.jobs.values().any(writing) {
                    return None;
                }
                self.issued[block as usize] += 1;
                let version = self.issued[block as usize];
                let memory = contents(block, version);
                let what = What::Write { block, version };
                Some(self.job(free, what, memory, u64::from(block), WRITE, Class::Write(generation)))
            }
            _ => {
                if self.jobs.values().any(|j| matches!(j.what, What::Swap { .. })) {
                    return None;
                }
                self.nonces += 1;
                let new = self.nonces;
                let expected = if rng.permille(800) { disk.nonce } else { new / 2 };
                let memory = [cell(expected), cell(new)].concat();
                let what = What::Swap { expected, new };
                Some(self.job(free, what, memory, CELL_AT, SWAP, Class::CompareAndWrite(generation)))
            }
        }
    }

    /// One of the application's tasks.
    pub(super) fn any(&self, rng: &mut Rng) -> Option<TaskId> {
        let own: Vec<TaskId> = self.jobs.keys().filter(|t| usize::from(t.0) < BUSY).copied().collect();
        if own.is_empty() { None } else { Some(rng.pick(&own)) }
    }

    pub(super) fn register(&mut self, nexus: u64) -> Option<Command> {
        if self.jobs.contains_key(&REGISTERING) || self.jobs.contains_key(&SLOT) {
            return None;
        }
        Some(self.job(REGISTERING, What::Register { nexus }, Vec::new(), 0, REGISTER, Class::Control))
    }

    /// Aborts what older nexuses of this host may still have in flight.
    pub(super) fn preempt(&mut self, nexus: u64) -> Option<Command> {
        if self.jobs.contains_key(&PREEMPTING) {
            return None;
        }
        Some(self.job(PREEMPTING, What::Preempt { nexus }, Vec::new(), 0, PREEMPT, Class::Control))
    }

    pub(super) fn settle(&mut self, task: TaskId) -> Command {
        self.job(SETTLE, What::Settle { task }, vec![0xee; CELL as usize], CELL_AT, READ, Class::Read)
    }

    /// Bytes to be sent; none if they lie outside the task's memory.
    pub(super) fn bytes(&self, task: TaskId, offset: u32, len: u32) -> Option<Vec<u8>> {
        let end = offset.checked_add(len)?;
        self.jobs.get(&task)?.memory.get(offset as usize..end as usize).map(<[u8]>::to_vec)
    }

    /// Bytes that came.
    pub(super) fn put(&mut self, task: TaskId, offset: u32, bytes: &[u8]) -> bool {
        let Some(job) = self.jobs.get_mut(&task) else { return false };
        let Some(to) = job.memory.get_mut(offset as usize..offset as usize + bytes.len()) else { return false };
        to.copy_from_slice(bytes);
        true
    }

    /// A task has ended.
    pub(super) fn ended(&mut self, task: TaskId, outcome: &Outcome, nexus: u64, disk: &mut Disk) -> Vec<Next> {
        let Some(job) = self.jobs.remove(&task) else {
            disk.object("EachEndsOnce", format!("{task:?} ends again"));
            return Vec::new();
        };
        *self.outcomes.entry(name(outcome)).or_default() += 1;
        let (good, conflict) = match outcome {
            Outcome::Answered(a) => (
                a.status == Status::Good && a.moved as usize == job.memory.len(),
                a.status == Status::ReservationConflict,
            ),
            _ => (false, false),
        };
        let next = match job.what {
            What::Read { block, floor } if good => {
                self.judge(block, floor, &job.memory, disk);
                Next::Nothing
            }
            What::Write { block, version } => {
                disk.told(block, version);
                if matches!(outcome, Outcome::Answered(a) if a.status == Status::Good) {
                    if disk.version(block) < version {
                        disk.object("AckIsWritten", format!("block {block} version {version} is told and not there"));
                    }
                    self.acked[block as usize] = version;
                }
                Next::Nothing
            }
            What::Swap { new, .. } => {
                match outcome {
                    Outcome::Answered(a) => disk.swap_told(new, a.status == Status::Good),
                    _ => disk.told(u32::MAX, new),
                }
                Next::Nothing
            }
            What::Settle { task } => self.settled(task, good, &job.memory),
            What::Register { nexus: n } if n == nexus && good => {
                Next::Submit(self.job(SLOT, What::Slot { nexus }, vec![0; 8], SLOT_AT, READ, Class::Control))
            }
            What::Slot { nexus: n } if n == nexus && good => {
                let generation = nonce_of(&job.memory);
                self.generation = self.generation.max(generation);
                Next::Proved(nexus, generation)
            }
            What::Register { nexus: n } | What::Slot { nexus: n } if n == nexus => Next::ProveLater(n),
            What::Preempt { nexus: n } if n == nexus && good => Next::Preempted,
            What::Preempt { nexus: n } if n == nexus => Next::PreemptLater(n),
            _ => Next::Nothing,
        };
        if conflict { vec![next, Next::Unregistered] } else { vec![next] }
    }

    fn settled(&mut self, task: TaskId, good: bool, memory: &[u8]) -> Next {
        let Some(Job { what: What::Swap { expected, new }, .. }) = self.jobs.get(&task) else { return Next::Nothing };
        if !good {
            // The block could not be read: once more.
            return Next::Submit(self.settle(task));
        }
        let found = match nonce_of(memory) {
            n if n == *new => Found::Own,
            n if n == *expected => Found::Old,
            _ => Found::Other,
        };
        Next::Settled(task, found)
    }

    fn judge(&self, block: u32, floor: u64, memory: &[u8], disk: &mut Disk) {
        match version_of(memory) {
            Some((b, v)) if b == block && v >= floor && v <= self.issued[block as usize] => {}
            found => {
                disk.object("ReadTruth", format!("block {block} reads as {found:?}, at least {floor} was acknowledged"))
            }
        }
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered(a) if a.status == Status::Good => "good",
        Outcome::Answered(a) if a.status == Status::ReservationConflict => "conflict",
        Outcome::Answered(_) => "other status",
        Outcome::Lost(_) => "lost",
        Outcome::Unknown(_) => "unknown",
        Outcome::Aborted => "aborted",
        Outcome::Fenced => "fenced",
    }
}
