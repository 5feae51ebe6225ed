//! The loop: one thing happens, the session is told, its effects are carried out.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use iscsi::chap::{CHALLENGE_LEN, Entropy};
use iscsi::discovery::Portal;
use iscsi::session::{
    Cause, Class, Config, ConnId, Effect, Event, FenceGen, Now, Outcome, Report, Session as Core, TaskId,
};
use iscsi::text::Pair;
use scsi::{LunAddress, Status};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;

use super::gather::Gather;
use super::incoming::{Incoming, Turn};
use super::jobs::{After, Jobs};
use super::outgoing::{MAX_SLICES, Outgoing};
use super::{Ended, Inbox, Order, Ownership, Request, SessionState};

/// Reads in one turn before others are served: fairness, at a few microseconds each.
const TURNS: usize = 64;
/// Bytes after which those that were waiting for them are let run: what they ask for next goes out while the rest is still
/// coming in. Without it the target runs dry whenever large answers come in a row.
const TURN_BYTES: usize = 256 << 10;

/// Requests by name and number, and who waits until none is left.
type GivenUp = (Vec<(TaskId, u64)>, oneshot::Sender<()>);
type Connecting = Pin<Box<dyn Future<Output = (ConnId, io::Result<TcpStream>)>>>;

/// What the driver woke up for.
enum Woken {
    Order,
    Tick,
    Connected(ConnId, io::Result<TcpStream>),
    Socket(io::Result<()>),
}

/// A session's task.
pub(super) struct Driver {
    core: Core,
    ownership: Ownership,
    inbox: Arc<Inbox>,
    teller: watch::Sender<SessionState>,
    begun: Instant,
    /// The time, as of the last thing that happened: one look at the clock for all that it leads to.
    at: Instant,
    jobs: Jobs,
    /// Requests that need no proof, and the others; both wait for names.
    urgent: VecDeque<Request>,
    waiting: VecDeque<Request>,
    /// The proof of a nexus that nobody else makes.
    proof: Option<(u64, FenceGen)>,
    text: Option<oneshot::Sender<Result<Vec<Pair>, Cause>>>,
    /// Who waits for resets of units, in turn.
    resets: VecDeque<(LunAddress, oneshot::Sender<bool>)>,
    /// Who waits for the end of what it gave up: the tasks that are not dead.
    given_up: Vec<GivenUp>,
    connecting: Option<Connecting>,
    stream: Option<(ConnId, TcpStream)>,
    incoming: Incoming,
    outgoing: Outgoing,
    gather: Gather,
    /// Commands answered in this turn, and bytes read.
    answers: u32,
    bytes: usize,
    timer: Option<Pin<Box<Sleep>>>,
    /// When the timer rings; none if it has rung.
    armed: Option<Instant>,
    /// Used again, so that the steady state allocates nothing for them.
    taken: VecDeque<Order>,
    fx: Vec<Effect>,
}

impl Driver {
    pub(super) fn new(
        config: Config,
        ownership: Ownership,
        inbox: Arc<Inbox>,
        teller: watch::Sender<SessionState>,
    ) -> Driver {
        let begun = Instant::now();
        Driver {
            core: Core::new(config),
            ownership,
            inbox,
            teller,
            begun,
            at: begun,
            jobs: Jobs::new(),
            urgent: VecDeque::new(),
            waiting: VecDeque::new(),
            proof: None,
            text: None,
            resets: VecDeque::new(),
            given_up: Vec::new(),
            connecting: None,
            stream: None,
            incoming: Incoming::new(),
            outgoing: Outgoing::default(),
            gather: Gather::new(),
            answers: 0,
            bytes: 0,
            timer: None,
            armed: None,
            taken: VecDeque::new(),
            fx: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        self.tell(Event::Open);
        while !self.core.has_ended() {
            self.take_orders();
            self.write();
            if self.core.has_ended() {
                break;
            }
            self.gather_answers();
            let woken = self.wait().await;
            self.at = Instant::now();
            match woken {
                Woken::Order => {}
                Woken::Tick => self.tell(Event::Tick),
                Woken::Connected(conn, stream) => self.connected(conn, stream),
                Woken::Socket(Ok(())) => {
                    if self.read() || self.answers > 0 {
                        others_first().await;
                        self.at = Instant::now();
                    }
                }
                Woken::Socket(Err(e)) => self.broken(&e),
            }
        }
    }

    fn now(&self) -> Now {
        Now(u64::try_from((self.at - self.begun).as_millis()).unwrap_or(u64::MAX))
    }

    async fn wait(&mut self) -> Woken {
        std::future::poll_fn(|cx| self.poll_woken(cx)).await
    }

    /// One look at each thing that may have happened. Nothing is registered anew for a look: that is most of what waiting
    /// costs while answers come one by one.
    fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        if let Some((_, stream)) = &self.stream {
            let mut ready = stream.poll_read_ready(cx);
            if ready.is_pending() && !self.outgoing.is_empty() {
                ready = stream.poll_write_ready(cx);
            }
            if let Poll::Ready(ready) = ready {
                return Poll::Ready(Woken::Socket(ready));
            }
        }
        if self.proof.is_some() || self.inbox.poll(cx) {
            return Poll::Ready(Woken::Order);
        }
        if let Some(connecting) = &mut self.connecting
            && let Poll::Ready((conn, stream)) = connecting.as_mut().poll(cx)
        {
            return Poll::Ready(Woken::Connected(conn, stream));
        }
        self.poll_tick(cx)
    }

    /// The timer is set only if it has rung or something is due sooner: what was due and is not any more (every request
    /// is, and every answer) makes it ring for nothing once.
    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        let tick = self.core.next_tick().map(|at| self.begun + Duration::from_millis(at.0));
        let Some(at) = tick.into_iter().chain(self.gather.due()).min() else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if self.armed.is_none_or(|armed| at < armed) {
            timer.as_mut().reset(at.into());
            self.armed = Some(at);
        }
        ready!(timer.as_mut().poll(cx));
        self.armed = None;
        // For how many answers to wait is thought of in each turn.
        Poll::Ready(if tick.is_some_and(|at| at <= Instant::now()) { Woken::Tick } else { Woken::Order })
    }

    /// Before the driver waits: from how many bytes on it is worth waking up. If it has lain too long for that, from the first.
    fn gather_answers(&mut self) {
        if self.answers > 0 {
            self.gather.answered(self.at, self.answers, self.bytes as u64);
            (self.answers, self.bytes) = (0, 0);
        }
        // Answers that come are not waited for.
        let in_flight = if self.incoming.is_amid() { 0 } else { self.core.in_flight() };
        let worth = self.gather.worth(self.at, in_flight);
        if let Some((_, stream)) = &self.stream {
            self.incoming.wake_at(stream, worth);
        }
    }

    /// Takes what callers want, as far as there are names for it. What the owner orders passes requests that wait: the proof
    /// of a nexus, for one, is what they wait for.
    fn take_orders(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.inbox.take(&mut taken);
        if let Some((nexus, generation)) = self.proof.take() {
            self.tell(Event::Proved { nexus, generation });
        }
        for order in taken.drain(..) {
            match order {
                Order::Carry(request) if request.class == Class::Control => self.urgent.push_back(request),
                Order::Carry(request) => self.waiting.push_back(request),
                order => self.ordered(order),
            }
        }
        self.taken = taken;
        while self.jobs.has_room_for_control()
            && let Some(request) = self.urgent.pop_front()
        {
            self.carry(request);
        }
        while self.jobs.has_room()
            && let Some(request) = self.waiting.pop_front()
        {
            self.carry(request);
        }
    }

    fn carry(&mut self, request: Request) {
        if let Some(command) = self.jobs.take(request) {
            self.tell(Event::Submit(command));
        }
    }

    fn ordered(&mut self, order: Order) {
        match order {
            Order::Carry(request) => self.waiting.push_back(request),
            Order::Text(body, answer) if self.text.is_none() => {
                self.text = Some(answer);
                self.tell(Event::Text(body));
            }
            Order::Text(_, answer) => drop(answer.send(Err(Cause::Full))),
            Order::Proved(nexus, generation) => self.tell(Event::Proved { nexus, generation }),
            Order::Fenced(generation) => self.tell(Event::Fenced(generation)),
            Order::Unregistered(nexus) => self.tell(Event::Unregistered { nexus }),
            Order::Preempted => self.tell(Event::Preempted),
            Order::ResetUnit(lun, done) => {
                self.resets.push_back((lun, done));
                self.tell(Event::ResetUnit(lun));
            }
            Order::GiveUp(done) => self.give_up(done),
            Order::Close => self.tell(Event::Close),
            // A session of its own connections has none.
            Order::Kernel(_) => {}
        }
    }

    /// What came before this order is taken back: what the session has, and with it what waits for a name.
    fn give_up(&mut self, done: oneshot::Sender<()>) {
        for request in self.urgent.drain(..).chain(self.waiting.drain(..)) {
            (request.done)(Ended { outcome: Outcome::Aborted, memory: request.memory });
        }
        self.tell(Event::GiveUp);
        let left = self.jobs.under_way();
        if left.is_empty() {
            // Who does not wait any more does not need to be told.
            let _ = done.send(());
        } else {
            self.given_up.push((left, done));
        }
    }

    fn connected(&mut self, conn: ConnId, stream: io::Result<TcpStream>) {
        self.connecting = None;
        match stream {
            Ok(stream) => {
                // Small PDUs must not wait for others: the driver gathers them itself.
                drop(stream.set_nodelay(true));
                self.incoming = Incoming::new();
                self.stream = Some((conn, stream));
                match entropy() {
                    Ok(entropy) => self.tell(Event::Connected { conn, entropy }),
                    Err(_) => self.tell(Event::Lost { conn, cause: Cause::Connect }),
                }
            }
            Err(e) => {
                tracing::debug!("iSCSI: cannot connect: {e}");
                self.tell(Event::Lost { conn, cause: Cause::Connect });
            }
        }
    }

    /// Reads what there is, up to a bound, and hands whole PDUs to the session. Whether there may be more.
    fn read(&mut self) -> bool {
        let mut total = 0;
        for _ in 0..TURNS {
            let Some((conn, stream)) = &self.stream else { return false };
            let conn = *conn;
            match self.incoming.read(stream, &mut self.jobs) {
                Ok(Turn::Nothing) => return false,
                Ok(Turn::Read { staged, bytes, more }) => {
                    total += bytes;
                    self.bytes += bytes;
                    if !self.take_apart(conn, staged) || !more {
                        return false;
                    }
                }
                Ok(Turn::Closed) => {
                    self.tell(Event::Lost { conn, cause: Cause::Closed });
                    return false;
                }
                Err(e) => {
                    self.broken(&e);
                    return false;
                }
            }
            if total >= TURN_BYTES {
                return true;
            }
        }
        true
    }

    /// Hands the PDUs of the small buffer to the session; false if the connection ended over them.
    fn take_apart(&mut self, conn: ConnId, staged: usize) -> bool {
        let mut at = 0;
        loop {
            match self.incoming.next(&mut at, staged, &self.core, &mut self.jobs) {
                Ok(None) => return true,
                Ok(Some((bhs, intact))) => {
                    let mut fx = std::mem::take(&mut self.fx);
                    let (now, data) = (self.now(), self.incoming.inline());
                    self.core.handle(now, Event::Pdu { conn, bhs, data, intact }, &mut fx);
                    self.apply_all(fx);
                }
                Err(e) => self.tell(Event::Lost { conn, cause: Cause::Frame(e) }),
            }
            if self.stream.as_ref().is_none_or(|(c, _)| *c != conn) {
                return false;
            }
        }
    }

    /// Writes what waits, until the socket takes no more.
    fn write(&mut self) {
        while !self.outgoing.is_empty() {
            let Some((_, stream)) = &self.stream else { return };
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let filled = self.outgoing.slices(&self.jobs, &mut slices);
            match stream.try_write_vectored(&slices[..filled]) {
                Ok(n) => {
                    let mut whole = Vec::new();
                    self.outgoing.advance(n, |task| whole.push(task));
                    for task in whole {
                        let after = self.jobs.written(task);
                        self.after(after);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => return self.broken(&e),
            }
        }
    }

    fn broken(&mut self, e: &io::Error) {
        if let Some((conn, _)) = &self.stream {
            tracing::debug!("iSCSI: {e}");
            let event = Event::Lost { conn: *conn, cause: Cause::Closed };
            self.tell(event);
        }
    }

    fn tell(&mut self, event: Event<'_>) {
        let mut fx = std::mem::take(&mut self.fx);
        let now = self.now();
        self.core.handle(now, event, &mut fx);
        self.apply_all(fx);
    }

    fn apply_all(&mut self, mut fx: Vec<Effect>) {
        fx.drain(..).for_each(|effect| self.apply(effect));
        self.fx = fx;
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { conn, portal } => self.connecting = Some(Box::pin(connect(conn, portal))),
            Effect::Send { bhs, body, .. } => self.outgoing.push(&bhs, body, &self.jobs),
            Effect::Opened { digests, longest, .. } => {
                self.incoming.framer().open(digests, longest);
                self.outgoing.open(digests);
            }
            Effect::Disconnect(_) => self.disconnect(),
            Effect::Done(task, outcome) => self.done(task, outcome),
            Effect::Settle(task) => self.settle(task),
            Effect::Up { nexus, group, params } => {
                self.teller.send_replace(SessionState::Up { nexus, group, params });
                if self.ownership == Ownership::Alone {
                    self.proof = Some((nexus, FenceGen(0)));
                }
            }
            Effect::Down(cause) => {
                tracing::info!("iSCSI session down: {cause}");
                self.teller.send_replace(SessionState::Down(Some(cause)));
            }
            Effect::Text(answer) => {
                if let Some(to) = self.text.take() {
                    drop(to.send(answer));
                }
            }
            Effect::UnitReset(lun, complete) => {
                let waiting = self.resets.iter().position(|(of, _)| *of == lun).and_then(|n| self.resets.remove(n));
                if let Some((_, done)) = waiting {
                    // Who does not wait any more does not need to be told.
                    let _ = done.send(complete);
                }
            }
            Effect::Report(report) => {
                tracing::info!("iSCSI session: {report:?}");
                if let Report::Sense(lun, sense) = report {
                    self.inbox.heard(lun, &sense, false);
                }
            }
            Effect::Ended(cause) => {
                self.disconnect();
                self.teller.send_replace(SessionState::Ended(cause));
            }
        }
    }

    fn disconnect(&mut self) {
        self.connecting = None;
        self.stream = None;
        if let Some(task) = self.outgoing.clear() {
            let after = self.jobs.written(task);
            self.after(after);
        }
    }

    fn done(&mut self, task: TaskId, outcome: Outcome) {
        if matches!(outcome, Outcome::Unknown(_)) {
            // It may land: whoever waits for its end is not told that it cannot.
            self.given_up.retain(|(left, _)| left.iter().all(|(t, _)| *t != task));
        }
        if let (Outcome::Answered(answer), Some(lun)) = (&outcome, self.jobs.lun(task))
            && answer.status == Status::CheckCondition
        {
            self.inbox.heard(lun, &answer.sense, true);
        }
        self.answers += u32::from(matches!(outcome, Outcome::Answered(_)));
        let busy = self.outgoing.withdraw(task);
        let after = self.jobs.end(task, outcome, busy);
        self.after(after);
        self.tell_given_up();
    }

    /// Whoever waits for tasks of which none is left is told.
    fn tell_given_up(&mut self) {
        for (mut left, done) in std::mem::take(&mut self.given_up) {
            left.retain(|(task, since)| self.jobs.is_under_way(*task, *since));
            if left.is_empty() {
                let _ = done.send(());
            } else {
                self.given_up.push((left, done));
            }
        }
    }

    fn settle(&mut self, task: TaskId) {
        if self.core.has_ended() {
            return;
        }
        match self.jobs.settle(task) {
            Some(command) => self.tell(Event::Submit(command)),
            None => tracing::error!("iSCSI: the block of a compare-and-write cannot be read: no room"),
        }
    }

    fn after(&mut self, after: After) {
        match after {
            After::Nothing => {}
            After::Settled(task, None) if self.jobs.has(task) => self.settle(task),
            After::Settled(_, None) => {}
            After::Settled(task, Some(memory)) => {
                if let Some(found) = self.jobs.found(task, &memory) {
                    self.tell(Event::Settled { task, found });
                }
            }
        }
    }
}

impl Drop for Driver {
    /// Nobody takes orders any more: those that wait are answered, whether the session has ended or its worker.
    fn drop(&mut self) {
        let late = self.inbox.close();
        let waiting = self.urgent.drain(..).chain(self.waiting.drain(..)).map(Order::Carry);
        waiting.chain(late).for_each(Order::refuse);
        if !self.core.has_ended() {
            self.teller.send_replace(SessionState::Ended(Cause::ClosedHere));
        }
    }
}

/// Lets the tasks run that are ready by now, then goes on. Those that were answered ask for their next, which so goes out in one write and
/// finds the driver awake. The runtime's own way to yield looks for what has happened outside first, by a call of the system.
async fn others_first() {
    let mut again = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut again, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn connect(conn: ConnId, portal: Portal) -> (ConnId, io::Result<TcpStream>) {
    (conn, TcpStream::connect((portal.host.as_str(), portal.port)).await)
}

/// What a login needs of chance, from the kernel.
fn entropy() -> io::Result<Entropy> {
    let mut bytes = [0_u8; CHALLENGE_LEN + 1];
    let n = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    let (identifier, challenge) = bytes.split_first_chunk::<1>().ok_or(io::ErrorKind::UnexpectedEof)?;
    if n < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let challenge = challenge.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok(Entropy { identifier: identifier[0], challenge })
}
