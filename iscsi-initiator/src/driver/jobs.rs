//! The requests that a driver has taken: their memory and who waits for them, by task.

use block::buf::AlignedBuf;
use iscsi::session::{Class, Command, MAX_TASKS, Outcome, TaskId, Transfer};
use scsi::{Cdb, LunAddress};

use super::{Ended, Request};

/// Names kept for reads that settle a compare-and-write: one volume has one of those under way at a time, and its hedge.
const KEPT_FOR_SETTLING: usize = 2;
/// Names kept for what needs no proof of the nexus, since that is how the proof is made that all others wait for.
const KEPT_FOR_CONTROL: usize = 8;

/// What is done when a job ends.
enum Done {
    Call(Box<dyn FnOnce(Ended) + Send>),
    /// It reads the block of a compare-and-write.
    Settles(TaskId),
}

/// A taken request.
struct Job {
    lun: LunAddress,
    cdb: Cdb,
    memory: Option<AlignedBuf>,
    done: Option<Done>,
    /// Its end, while a PDU with its memory is half written.
    ended: Option<Outcome>,
    /// Which request it is: names are used again.
    number: u64,
}

impl Drop for Job {
    /// Whoever waits is told, whatever becomes of the driver.
    fn drop(&mut self) {
        if let Some(Done::Call(call)) = self.done.take() {
            let outcome = Outcome::Unknown(iscsi::session::Cause::ClosedHere);
            call(Ended { outcome, memory: self.memory.take() });
        }
    }
}

/// All of them.
pub(super) struct Jobs {
    jobs: Vec<Option<Job>>,
    free: Vec<TaskId>,
    taken: u64,
}

/// What the end of a job asks for.
pub(super) enum After {
    Nothing,
    /// The block of this task was read, or could not be.
    Settled(TaskId, Option<AlignedBuf>),
}

impl Jobs {
    pub(super) fn new() -> Jobs {
        Jobs {
            jobs: (0..MAX_TASKS).map(|_| None).collect(),
            free: (0..MAX_TASKS).rev().map(TaskId).collect(),
            taken: 0,
        }
    }

    /// Whether another may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.free.len() > KEPT_FOR_CONTROL + KEPT_FOR_SETTLING
    }

    /// Whether another may be taken that needs no proof.
    pub(super) fn has_room_for_control(&self) -> bool {
        self.free.len() > KEPT_FOR_SETTLING
    }

    /// Requests that are taken and not ended, each with its number.
    pub(super) fn under_way(&self) -> Vec<(TaskId, u64)> {
        let all = (0..MAX_TASKS).map(TaskId);
        all.filter_map(|task| {
            let job = self.get(task)?;
            matches!(job.done, Some(Done::Call(_))).then_some((task, job.number))
        })
        .collect()
    }

    /// Whether the request of this number, which had this name, has not ended.
    pub(super) fn is_under_way(&self, task: TaskId, number: u64) -> bool {
        self.get(task).is_some_and(|job| job.number == number)
    }

    /// Whether there is a request of this name.
    pub(super) fn has(&self, task: TaskId) -> bool {
        self.get(task).is_some()
    }

    /// The unit that a request is for.
    pub(super) fn lun(&self, task: TaskId) -> Option<LunAddress> {
        self.get(task).map(|job| job.lun)
    }

    /// Takes a request; the command for the session. None if there is no name left: it is answered.
    pub(super) fn take(&mut self, request: Request) -> Option<Command> {
        let Request { lun, cdb, class, memory, done, .. } = request;
        self.put(lun, cdb, class, memory, Done::Call(done))
    }

    /// A read of the block of a compare-and-write, as long as half its data.
    pub(super) fn settle(&mut self, task: TaskId) -> Option<Command> {
        let job = self.get(task)?;
        let half = job.memory.as_ref().map_or(0, |m| m.len() / 2);
        let lba = job.cdb.head()[2..10].try_into().map(u64::from_be_bytes).ok()?;
        let blocks = u64::from(job.cdb.head()[13]);
        let lun = job.lun;
        let block = u64::try_from(half).ok()?.checked_div(blocks)?;
        let block = scsi::BlockLen::new(u32::try_from(block).ok()?)?;
        let range = scsi::BlockRange::new(scsi::Lba(lba), scsi::BlockCount(blocks));
        let cdb = scsi::cdb::Read::new(range).cdb(block).ok()?;
        self.put(lun, cdb, Class::Read, Some(AlignedBuf::with_capacity(half)), Done::Settles(task))
    }

    /// Whether what was read is the new half of a compare-and-write, or the old.
    pub(super) fn found(&self, task: TaskId, read: &[u8]) -> Option<iscsi::session::Found> {
        let memory = self.get(task)?.memory.as_ref()?;
        let (old, new) = memory.split_at(memory.len() / 2);
        Some(match read {
            r if r == new => iscsi::session::Found::Own,
            r if r == old => iscsi::session::Found::Old,
            _ => iscsi::session::Found::Other,
        })
    }

    fn put(
        &mut self,
        lun: LunAddress,
        cdb: Cdb,
        class: Class,
        memory: Option<AlignedBuf>,
        done: Done,
    ) -> Option<Command> {
        self.taken += 1;
        let mut job = Job { lun, cdb, memory, done: Some(done), ended: None, number: self.taken };
        let have = job.memory.as_ref().map_or(0, |m| m.len());
        let fits = job.cdb.transfer().len().as_usize() == have && job.cdb.additional().is_empty();
        let task = if fits { self.free.pop() } else { None };
        let Some(task) = task else {
            if let Some(Done::Call(call)) = job.done.take() {
                let cause = if fits {
                    iscsi::session::Cause::Full
                } else {
                    iscsi::session::Cause::Protocol("a command whose length is not its memory's")
                };
                call(Ended { outcome: Outcome::Lost(cause), memory: job.memory.take() });
            }
            return None;
        };
        let transfer = match job.cdb.transfer() {
            scsi::Transfer::None => Transfer::None,
            scsi::Transfer::In(n) => Transfer::In(n.0),
            scsi::Transfer::Out(n) => Transfer::Out(n.0),
        };
        let command = Command { task, lun, cdb: *job.cdb.head(), transfer, class };
        self.jobs[usize::from(task.0)] = Some(job);
        Some(command)
    }

    fn get(&self, task: TaskId) -> Option<&Job> {
        self.jobs.get(usize::from(task.0))?.as_ref()
    }

    /// A piece of a task's memory.
    pub(super) fn bytes(&self, task: TaskId, offset: usize, len: usize) -> Option<&[u8]> {
        self.get(task)?.memory.as_deref()?.get(offset..offset.checked_add(len)?)
    }

    /// A piece of a task's memory, to be filled.
    pub(super) fn bytes_mut(&mut self, task: TaskId, offset: usize, len: usize) -> Option<&mut [u8]> {
        let job = self.jobs.get_mut(usize::from(task.0))?.as_mut()?;
        job.memory.as_deref_mut()?.get_mut(offset..offset.checked_add(len)?)
    }

    /// A task has ended; `busy` if a PDU with its memory is half written: then its owner is told by [`Jobs::written`].
    pub(super) fn end(&mut self, task: TaskId, outcome: Outcome, busy: bool) -> After {
        let Some(job) = self.jobs.get_mut(usize::from(task.0)).and_then(Option::as_mut) else { return After::Nothing };
        if busy {
            job.ended = Some(outcome);
            return After::Nothing;
        }
        self.finish(task, outcome)
    }

    /// The half written PDU of this task is whole, or its connection gone.
    pub(super) fn written(&mut self, task: TaskId) -> After {
        let ended = self.jobs.get_mut(usize::from(task.0)).and_then(Option::as_mut).and_then(|j| j.ended.take());
        ended.map_or(After::Nothing, |outcome| self.finish(task, outcome))
    }

    fn finish(&mut self, task: TaskId, outcome: Outcome) -> After {
        let Some(mut job) = self.jobs.get_mut(usize::from(task.0)).and_then(Option::take) else {
            return After::Nothing;
        };
        self.free.push(task);
        if job.cdb.head()[0] == scsi::cdb::op::COMPARE_AND_WRITE.0 {
            self.forget_settling(task);
        }
        let memory = job.memory.take();
        match job.done.take() {
            Some(Done::Call(call)) => {
                call(Ended { outcome, memory });
                After::Nothing
            }
            Some(Done::Settles(of)) => {
                let expected = memory.as_ref().map_or(0, |m| m.len());
                let good = matches!(&outcome, Outcome::Answered(a) if a.status == scsi::Status::Good && a.moved as usize == expected);
                After::Settled(of, memory.filter(|_| good))
            }
            None => After::Nothing,
        }
    }

    /// A read that is to settle this task settles nothing any more: its name may be another's by then.
    fn forget_settling(&mut self, of: TaskId) {
        for job in self.jobs.iter_mut().flatten() {
            if matches!(job.done, Some(Done::Settles(task)) if task == of) {
                job.done = None;
            }
        }
    }
}
