//! The loop of a disk of the kernel: one thing happens, the core is told, its effects are carried out. It decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use block::buf::AlignedBuf;
use block::device::{BlockDevice, Completion, Done as BlockDone, Io, Op};
use block::kernel_disk::{KernelDisk, Passed};
use block::units::ByteLen;
use iscsi::keys::params::Params;
use iscsi::session::{Cause, Class, FenceGen, Outcome};
use scsi::cdb::TestUnitReady;
use scsi::{Cdb, LunAddress, Status};
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;

use super::core::{Core, Effect, Event, Number, Told};
use super::translate::{block_request, of_block_layer, of_sg};
use crate::driver::{Ended, Inbox, Order, Ownership, Request, SessionState};

/// How long the kernel waits for the answer to a command before it aborts it: as long as an iSCSI session here.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The same for a question whose only use is that it is answered.
const PROBE_WITHIN: Duration = Duration::from_secs(5);
/// Before a device that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Commands under way at most: as many as an iSCSI session takes. Beyond that they wait here, so that no queue behind this one fills.
const MAX_UNDER_WAY: usize = 1023;
/// As many questions more: they are how a nexus is proved, which all others may wait for.
const MORE_FOR_CONTROL: usize = 8;

/// What the kernel tells the driver.
pub(crate) enum Happened {
    Ended(u64, ToldOf, Option<AlignedBuf>),
    Probed(bool),
}

/// An end as it was told, kept from the rest of the crate.
pub(crate) struct ToldOf(Told);

/// A command under way.
struct Job {
    lun: LunAddress,
    cdb: Cdb,
    class: Class,
    memory: Option<AlignedBuf>,
    done: Option<Box<dyn FnOnce(Ended) + Send>>,
}

impl Drop for Job {
    /// Whoever waits is told, whatever becomes of the driver.
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Ended { outcome: Outcome::Unknown(Cause::ClosedHere), memory: self.memory.take() });
        }
    }
}

/// A session's task.
pub(crate) struct Driver {
    core: Core,
    disk: Arc<KernelDisk>,
    ownership: Ownership,
    inbox: Arc<Inbox>,
    teller: watch::Sender<SessionState>,
    jobs: BTreeMap<Number, Job>,
    /// What waits for room: questions and their like, and the others.
    urgent: VecDeque<Request>,
    waiting: VecDeque<Request>,
    last: u64,
    /// Who waits for the end of what was given up: the commands that have not ended.
    given_up: Vec<(Vec<Number>, oneshot::Sender<()>)>,
    timer: Option<Pin<Box<Sleep>>>,
    taken: VecDeque<Order>,
}

impl Driver {
    pub(crate) fn new(
        disk: Arc<KernelDisk>,
        ownership: Ownership,
        inbox: Arc<Inbox>,
        teller: watch::Sender<SessionState>,
    ) -> Driver {
        Driver {
            core: Core::new(),
            disk,
            ownership,
            inbox,
            teller,
            jobs: BTreeMap::new(),
            urgent: VecDeque::new(),
            waiting: VecDeque::new(),
            last: 0,
            given_up: Vec::new(),
            timer: None,
            taken: VecDeque::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        self.tell(Event::Open);
        loop {
            self.take_orders();
            if self.core.has_ended() {
                return;
            }
            if self.rings().await {
                self.timer = None;
                self.tell(Event::Tick);
            }
        }
    }

    /// Waits for an order or the timer; whether it was that.
    async fn rings(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            if self.inbox.poll(cx) {
                return Poll::Ready(false);
            }
            match &mut self.timer {
                Some(timer) => timer.as_mut().poll(cx).map(|()| true),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn take_orders(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.inbox.take(&mut taken);
        for order in taken.drain(..) {
            self.ordered(order);
        }
        self.taken = taken;
        while self.jobs.len() < MAX_UNDER_WAY + MORE_FOR_CONTROL
            && let Some(request) = self.urgent.pop_front()
        {
            self.carry(request);
        }
        while self.jobs.len() < MAX_UNDER_WAY
            && let Some(request) = self.waiting.pop_front()
        {
            self.carry(request);
        }
    }

    fn ordered(&mut self, order: Order) {
        match order {
            Order::Carry(request) if request.class == Class::Control => self.urgent.push_back(request),
            Order::Carry(request) => self.waiting.push_back(request),
            Order::Text(_, answer) => drop(answer.send(Err(Cause::Disk("a disk of this host is asked no texts")))),
            Order::ResetUnit(_, answer) => self.reset(answer),
            Order::Proved(nexus, generation) => self.tell(Event::Proved(nexus, generation)),
            Order::Fenced(generation) => self.tell(Event::Fenced(generation)),
            Order::Unregistered(nexus) => self.tell(Event::Unregistered(nexus)),
            Order::Preempted => self.tell(Event::Preempted),
            Order::GiveUp(done) => self.give_up(done),
            Order::Close => self.tell(Event::Close),
            Order::Kernel(Happened::Ended(number, ToldOf(told), memory)) => self.ended(Number(number), told, memory),
            Order::Kernel(Happened::Probed(answered)) => self.tell(Event::Probed(answered)),
        }
    }

    fn carry(&mut self, request: Request) {
        let Request { lun, cdb, class, memory, done, .. } = request;
        self.last += 1;
        let number = Number(self.last);
        self.jobs.insert(number, Job { lun, cdb, class, memory, done: Some(done) });
        self.tell(Event::Submit(number, class));
    }

    fn reset(&self, answer: oneshot::Sender<bool>) {
        self.disk.reset_unit(move |reset| {
            if let Err(e) = &reset {
                tracing::info!("the kernel does not reset the unit: {e}");
            }
            // Who does not wait any more does not need to be told.
            let _ = answer.send(reset.is_ok());
        });
    }

    fn give_up(&mut self, done: oneshot::Sender<()>) {
        for request in self.urgent.drain(..).chain(self.waiting.drain(..)) {
            (request.done)(Ended { outcome: Outcome::Aborted, memory: request.memory });
        }
        self.tell(Event::GiveUp);
        self.given_up.push((self.core.under_way(), done));
        self.tell_given_up();
    }

    /// Whoever waits for commands of which none is left is told.
    fn tell_given_up(&mut self) {
        for (mut left, done) in std::mem::take(&mut self.given_up) {
            left.retain(|number| self.jobs.contains_key(number));
            if left.is_empty() {
                let _ = done.send(());
            } else {
                self.given_up.push((left, done));
            }
        }
    }

    fn ended(&mut self, number: Number, told: Told, memory: Option<AlignedBuf>) {
        if let Some(job) = self.jobs.get_mut(&number) {
            job.memory = memory;
            if let Told::Answered(answer) = &told
                && answer.status == Status::CheckCondition
            {
                let lun = job.lun;
                self.inbox.heard(lun, &answer.sense, true);
            }
        }
        self.tell(Event::Ended(number, told));
    }

    fn tell(&mut self, event: Event) {
        let mut fx = Vec::new();
        self.core.handle(event, &mut fx);
        fx.into_iter().for_each(|effect| self.apply(effect));
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Issue(number) => self.issue(number),
            Effect::Done(number, outcome) => {
                if let Some(mut job) = self.jobs.remove(&number) {
                    let memory = job.memory.take();
                    if let Some(done) = job.done.take() {
                        done(Ended { outcome, memory });
                    }
                }
                self.tell_given_up();
            }
            Effect::Probe => self.probe(),
            Effect::ProbeLater => self.timer = Some(Box::pin(tokio::time::sleep(ASK_AGAIN))),
            Effect::Up(nexus) => {
                self.teller.send_replace(SessionState::Up { nexus, group: None, params: Params::default() });
                if self.ownership == Ownership::Alone {
                    self.tell(Event::Proved(nexus, FenceGen(0)));
                }
            }
            Effect::Down(cause) => {
                tracing::info!("{} is down: {cause}", self.disk.path().display());
                self.teller.send_replace(SessionState::Down(Some(cause)));
            }
            Effect::Ended(cause) => {
                self.teller.send_replace(SessionState::Ended(cause));
            }
        }
    }

    fn issue(&mut self, number: Number) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let memory = job.memory.take();
        let len = memory.as_ref().map_or(0, |m| m.len());
        let device = self.disk.device();
        let fits = |memory: &AlignedBuf| memory.is_aligned_to(device.geometry().memory_align);
        let inbox = Arc::clone(&self.inbox);
        let told = move |told, memory| inbox.happened(Happened::Ended(number.0, ToldOf(told), memory));
        match (block_request(&job.cdb, job.class, len), memory) {
            (Some((op, at)), Some(buf)) if fits(&buf) => {
                let bytes = u32::try_from(len).unwrap_or(u32::MAX);
                let done = Completion::new(move |done: BlockDone| told(of_block_layer(done.result, bytes), done.buf));
                device.submit(Io { op, at, len: ByteLen::from_usize(len), buf: Some(buf), done });
            }
            // The geometry of the unit asks for aligned memory. By SG_IO it would not be on the medium when it is answered.
            (Some((Op::Write { .. }, _)), memory) => {
                told(Told::NotSent(Cause::Disk("the memory of a write is not aligned")), memory);
            }
            (_, memory) => {
                let done = move |passed, memory| told(of_sg(passed), memory);
                self.disk.pass(job.cdb.clone(), memory, ANSWER_WITHIN, done);
            }
        }
    }

    /// Any answer of the device will do.
    fn probe(&self) {
        let inbox = Arc::clone(&self.inbox);
        self.disk.pass(TestUnitReady.cdb(), None, PROBE_WITHIN, move |passed, _| {
            if let Passed::Answered { status: Status::CheckCondition, sense, .. } = &passed {
                inbox.heard(super::unit(), sense, false);
            }
            inbox.happened(Happened::Probed(matches!(passed, Passed::Answered { .. })));
        });
    }
}

impl Drop for Driver {
    /// Nobody takes orders any more: those that wait are answered.
    fn drop(&mut self) {
        let late = self.inbox.close();
        let waiting = self.urgent.drain(..).chain(self.waiting.drain(..)).map(Order::Carry);
        waiting.chain(late).for_each(Order::refuse);
        if !self.core.has_ended() {
            self.teller.send_replace(SessionState::Ended(Cause::ClosedHere));
        }
    }
}
