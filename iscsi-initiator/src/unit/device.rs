//! A unit as a [`BlockDevice`].
//!
//! A request longer than the unit's longest transfer travels in pieces, one after another; they share its memory and
//! are joined at the end. A piece that fails ends the request; the rest is not sent.
//!
//! Verdicts of the target: a unit attention is followed up and the request sent again, a busy or unready unit is asked
//! again, both up to bounds; a RESERVATION CONFLICT is [`IoErrorKind::Fenced`] at once, never retried, and the nexus, if
//! it had registered, is given up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;
use block::device::{BlockDevice, Completion, Done, Geometry, Io, MAX_TRANSFER, Op, Resize};
use block::error::{IoError, IoErrorKind};
use block::shared::{AbortOwn, BoxFuture, DiskIdentity, NothingInFlight, Notices};
use block::units::{ByteLen, ByteOffset};
use iscsi::session::{Answer, Class, FenceGen, Outcome};
use parking_lot::Mutex;
use scsi::action::{self, Action, Failure, First, Pace};
use scsi::cdb::{Caching, Read, SynchronizeCache, Write, WriteSame};
use scsi::reservations::ReservationType;
use scsi::unmap::UnmapList;
use scsi::{AdditionalCode, BlockCount, BlockLen, BlockRange, Cdb, Lba, LunAddress, ReservationKey, Sense, Status};
use tokio::sync::watch;

use super::ask::{Asked, pause};
use super::cache::{Known, News};
use super::follow::follow;
use super::stability::{Covers, Member, Stability, Version};
use super::{Identity, WriteCache};
use crate::driver::{Ended, Era, Listener, Place, Request, Session};

/// The longest transfer where the unit names none: what one burst of the session carries several times over.
const OWN_MAX: u64 = 8 << 20;

/// How long a request waits where a unit is becoming ready or a port group changes its state, if nothing else is said: the
/// implicit transition time of a target that tells none (SPC-4 5.15.2.5).
const PATIENCE: Duration = Duration::from_secs(60);

/// The device.
pub struct LunDevice {
    pub(crate) inner: Arc<Inner>,
}

/// What this nexus has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) key: ReservationKey,
    /// As it was registered: an unregistration must not change it for the others.
    pub(super) persist: bool,
    /// What must be held, once this nexus has reserved.
    pub(super) holds: Option<ReservationType>,
}

pub(crate) struct Inner {
    session: Session,
    identity: Identity,
    block: BlockLen,
    /// Bytes of one command.
    longest: usize,
    generation: FenceGen,
    /// Its nexus is judged by an office: what the office itself sends waits for no judgement.
    judged: bool,
    patience: Duration,
    geometry: watch::Sender<Geometry>,
    registered: Mutex<Option<Registered>>,
    noted: Arc<Mutex<Vec<First>>>,
    /// Of the unit over all its nexuses, and which of them this is.
    stability: Arc<Stability>,
    member: Member,
    /// Another unit is at its address.
    another: AtomicBool,
}

/// A request under way.
struct Running {
    io: Io,
    /// Memory of the pieces that are done, and of those to come.
    done: Option<AlignedBuf>,
    rest: Option<AlignedBuf>,
    /// Bytes done, and in the piece under way.
    moved: u64,
    piece: u64,
    tries: u8,
    era: Era,
    class: Class,
    /// When it was sent, and what it covers if it is a flush.
    sent: Version,
    covers: Covers,
    /// What it writes may lie in a cache when it is answered.
    cached: bool,
    /// Since when the unit says that it is not ready yet.
    unready: Option<Instant>,
}

impl LunDevice {
    /// A device of a unit that was attached over this session. Its writes are of this fence generation.
    pub fn new(session: Session, identity: Identity, generation: FenceGen) -> LunDevice {
        LunDevice::of_many(session, identity, generation, (PATIENCE, Arc::default()), false)
    }

    /// The same for a unit that has other paths: a request waits here only so long for a port group that changes its state,
    /// then it is answered so; all of them know together whether a flush may be believed. `judged`: an office says which nexus may
    /// carry data ([`Nexuses`](block::shared::Nexuses)).
    pub(crate) fn of_many(
        session: Session,
        identity: Identity,
        generation: FenceGen,
        (patience, stability): (Duration, Arc<Stability>),
        judged: bool,
    ) -> LunDevice {
        let block = identity.capacity.block;
        let unit = identity.limits.max_transfer.map_or(OWN_MAX, |b| b.0.saturating_mul(u64::from(block.get())));
        let longest = unit.min(OWN_MAX).min(MAX_TRANSFER.0) / u64::from(block.get()) * u64::from(block.get());
        let longest = usize::try_from(longest).unwrap_or(usize::MAX).max(block.get() as usize);
        let geometry = watch::Sender::new(identity.geometry);
        let (registered, another) = (Mutex::new(None), AtomicBool::new(false));
        stability.known.learn(News::default(), identity.cache);
        let inner = Arc::new_cyclic(|this: &Weak<Inner>| Inner {
            member: stability.join(Weak::clone(this)),
            stability,
            session,
            identity,
            block,
            longest,
            generation,
            judged,
            patience,
            geometry,
            registered,
            noted: Arc::default(),
            another,
        });
        let listener = Arc::downgrade(&inner) as Weak<dyn Listener>;
        inner.session.listen(inner.identity.lun, listener);
        LunDevice { inner }
    }

    /// Takes a request in the right that was given in this era, for this generation: in a later era it is answered `Aborted`, on a
    /// nexus of another generation `Fenced`, unsent.
    pub(crate) fn submit_as(&self, io: Io, era: Era, generation: FenceGen) {
        Inner::submit(&self.inner, io, era, write_or_read(generation));
    }

    /// Takes a read that waits for no judgement of its nexus.
    pub(crate) fn submit_unjudged(&self, io: Io) {
        Inner::submit(&self.inner, io, self.inner.session.era(), |_| Class::Control);
    }

    /// What the unit reports besides answers, over all its nexuses.
    pub fn notices(&self) -> watch::Receiver<Notices> {
        self.inner.stability.notices.subscribe()
    }

    /// The session that it goes over.
    pub fn session(&self) -> &Session {
        &self.inner.session
    }

    /// What it is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }
}

impl BlockDevice for LunDevice {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&self, io: Io) {
        Inner::submit(&self.inner, io, self.inner.session.era(), write_or_read(self.inner.generation));
    }

    fn describe(&self) -> String {
        let (identity, place) = (&self.inner.identity, self.inner.session.place());
        let made = format!("({} {})", identity.inquiry.vendor, identity.inquiry.product);
        match place {
            Place::Portal(portal) => format!("iSCSI {} at {portal} {made}", identity.lun),
            Place::Disk(path) => format!("SCSI disk {} {made}", path.display()),
        }
    }

    fn losses(&self) -> u64 {
        self.inner.stability.losses()
    }
}

impl AbortOwn for LunDevice {
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>> {
        Box::pin(async move {
            if self.inner.session.give_up().await {
                return Ok(NothingInFlight::by_transport());
            }
            Err(IoError::new(IoErrorKind::TimedOut, Op::Flush, ByteOffset::ZERO, ByteLen::ZERO))
        })
    }
}

impl Resize for LunDevice {
    fn resized(&self) -> watch::Receiver<Geometry> {
        self.inner.geometry.subscribe()
    }
}

/// What the other parts of a unit see of it.
impl Inner {
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn asked(&self) -> Asked {
        Asked { session: self.session.clone(), lun: self.identity.lun, noted: Arc::clone(&self.noted) }
    }

    /// What is known of the unit's cache, over all its nexuses.
    pub(super) fn known(&self) -> &Known {
        &self.stability.known
    }

    /// A change is about to be sent that no [`BlockDevice`] request makes.
    pub(super) fn sending(&self) -> Version {
        self.stability.sending(self.member, self.session.nexus())
    }

    /// Such a change was acknowledged, and may lie in a cache: puts it on the medium.
    pub(super) async fn make_stable(this: &Arc<Inner>, sent: Version) -> Result<(), IoError> {
        this.stability.written(sent, this.member, this.session.nexus());
        let (done, flushed) = Completion::channel();
        Inner::submit(this, Io::flush(done), this.session.era(), |op| this.class(op));
        flushed.await.map_err(|_| IoError::dropped())?.result
    }

    pub(super) fn lun(&self) -> LunAddress {
        self.identity.lun
    }

    pub(super) fn names(&self) -> DiskIdentity {
        self.identity.names(self.session.target())
    }

    pub(super) fn block(&self) -> BlockLen {
        self.block
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.block.get() as usize
    }

    /// Of a request of the owner's own, not of data.
    fn class(&self, op: Op) -> Class {
        if self.judged { Class::Control } else { write_or_read(self.generation)(op) }
    }

    /// Whether an office judges its nexus: the unit is shared.
    pub(super) fn is_judged(&self) -> bool {
        self.judged
    }

    /// Of a compare-and-write. One that an office sends over a nexus that nobody has judged is settled by that office.
    pub(super) fn swap_class(&self) -> Class {
        if self.judged { Class::Control } else { Class::CompareAndWrite(self.generation) }
    }

    /// Of the look into its block.
    pub(super) fn look_class(&self) -> Class {
        if self.judged { Class::Control } else { Class::Read }
    }

    pub(super) fn geometry(&self) -> Geometry {
        *self.geometry.borrow()
    }

    /// The shape has changed; who watches it is told if it is another one.
    pub(crate) fn learn(&self, change: impl FnOnce(&mut Geometry)) {
        self.geometry.send_if_modified(|geometry| {
            let before = *geometry;
            change(geometry);
            *geometry != before
        });
    }

    pub(super) fn notice(&self, change: impl FnOnce(&mut Notices)) {
        self.stability.notices.send_modify(change);
    }

    pub(super) fn is_another(&self) {
        self.another.store(true, Ordering::Release);
        self.notice(|n| n.another_unit += 1);
    }

    pub(crate) fn registered(&self) -> Option<Registered> {
        *self.registered.lock()
    }

    pub(crate) fn set_registered(&self, registered: Option<Registered>) {
        *self.registered.lock() = registered;
    }

    /// This nexus has reserved the unit so.
    pub(super) fn holds(&self, kind: ReservationType) {
        if let Some(registered) = self.registered.lock().as_mut() {
            registered.holds = Some(kind);
        }
    }

    /// This nexus' registration is gone: what is with the target must not land behind another one.
    pub(super) fn lost_registration(&self) {
        if self.registered().is_some()
            && let Some(nexus) = self.session.nexus()
        {
            self.session.unregistered(nexus);
        }
    }

    /// The kind of a failure; a fence ends the nexus that met it.
    pub(super) fn failed(&self, failure: Failure) -> IoErrorKind {
        if failure.is_fence() {
            self.lost_registration();
        }
        kind(failure)
    }
}

impl Listener for Inner {
    /// What concerns stability counts at once; what nobody follows up is left for the next check.
    fn attention(&self, sense: &Sense, asked: bool) {
        let reply = action::Reply::Status(Status::CheckCondition, Some(sense));
        let first = match action::verdict(action::Class::Ask, reply).action {
            Action::Retry { first, .. } => first,
            Action::Fail(Failure::LostWrite) => return self.stability.lost(),
            _ => return,
        };
        // The one of these that no nexus is told because it is new or the unit was started.
        if sense.code == AdditionalCode::BUS_DEVICE_RESET {
            tracing::info!("somebody has reset {} of {}", self.identity.lun, self.session.place());
            self.notice(|n| n.reset += 1);
        }
        if first == (First::VerifyReservation { cache_lost: true }) {
            self.stability.reset(self.member);
        }
        if Known::concerns(first) {
            self.stability.known.doubt();
        }
        if !asked {
            self.asked().note(first);
        }
    }
}

impl Inner {
    /// Takes a request.
    fn submit(this: &Arc<Inner>, mut io: Io, era: Era, class: impl Fn(Op) -> Class) {
        if let Err(e) = this.geometry().check(&io) {
            return io.complete(Err(e));
        }
        if this.another.load(Ordering::Acquire) {
            return io.fail(IoErrorKind::NoPath);
        }
        if io.op != Op::Flush && io.len == ByteLen::ZERO {
            return io.complete(Ok(()));
        }
        let mut covers = Covers::default();
        if io.op == Op::Flush {
            covers = this.stability.flush();
            if covers.is_nothing() && !this.stability.known.cache().write_back {
                return io.complete(Ok(()));
            }
        }
        let (rest, class) = (io.buf.take(), class(io.op));
        let (sent, cached) = (Version::default(), false);
        let (moved, piece, tries, unready) = (0, 0, 0, None);
        let running = Running { io, done: None, rest, moved, piece, tries, era, class, sent, covers, cached, unready };
        Inner::go_on(this, running);
    }

    /// Sends the next piece.
    fn go_on(this: &Arc<Inner>, mut r: Running) {
        let left = r.io.len.0 - r.moved;
        r.piece = left.min(this.longest as u64);
        let cache = this.stability.known.cache();
        let (cdb, memory) = match this.command(&mut r, cache) {
            Ok(command) => command,
            Err(kind) => return r.end(Err(kind)),
        };
        if r.io.op.changes() {
            if r.moved == 0 {
                r.sent = this.stability.sending(this.member, this.session.nexus());
            }
            let forced = r.io.op == Op::Write { fua: true } && cache.sends_fua();
            let through = r.io.op.moves_data() && this.session.writes_through();
            r.cached |= cache.write_back && !forced && !through;
        }
        let (inner, lun, era, class) = (Arc::clone(this), this.identity.lun, r.era, r.class);
        let done = Box::new(move |ended| Inner::ended(&inner, r, ended));
        this.session.submit(Request { lun, cdb, class, memory, era: Some(era), done });
    }

    /// The command for the piece, with its memory.
    fn command(&self, r: &mut Running, cache: WriteCache) -> Result<(Cdb, Option<AlignedBuf>), IoErrorKind> {
        let size = u64::from(self.block.get());
        let range = BlockRange::new(Lba((r.io.at.0 + r.moved) / size), BlockCount(r.piece / size));
        let unfit = |_| IoErrorKind::OutOfRange;
        match r.io.op {
            Op::Read => Ok((Read::new(range).cdb(self.block).map_err(unfit)?, r.front())),
            Op::Write { fua } => {
                let caching = if fua && cache.sends_fua() { Caching::FUA } else { Caching::NONE };
                let cdb = Write { caching, ..Write::new(range) }.cdb(self.block).map_err(unfit)?;
                Ok((cdb, r.front()))
            }
            Op::Flush => {
                let all = BlockRange::new(Lba(0), BlockCount::ZERO);
                Ok((SynchronizeCache::new(all).cdb().map_err(unfit)?, None))
            }
            Op::Discard => {
                let most = self.identity.limits.max_unmap_blocks.ok_or(IoErrorKind::NotSupported)?;
                let blocks = BlockCount(range.blocks.0.min(most.0).max(1));
                r.piece = blocks.0 * size;
                let list = UnmapList { ranges: vec![BlockRange::new(range.lba, blocks)] };
                let (cdb, bytes) = list.command().map_err(unfit)?;
                Ok((cdb, Some(AlignedBuf::from_slice(&bytes))))
            }
            Op::WriteZeroes => {
                let most = self.identity.limits.max_write_same.map_or(1 << 16, |b| b.0);
                let blocks = BlockCount(range.blocks.0.min(most).max(1));
                r.piece = blocks.0 * size;
                let cdb = WriteSame::new(BlockRange::new(range.lba, blocks)).cdb(self.block).map_err(unfit)?;
                Ok((cdb, Some(AlignedBuf::zeroed(self.block.get() as usize))))
            }
        }
    }

    /// A piece has ended.
    fn ended(this: &Arc<Inner>, mut r: Running, ended: Ended) {
        if r.io.op.moves_data() {
            r.give_back(ended.memory);
        }
        let verdict = match &ended.outcome {
            Outcome::Answered(answer) => judge(r.io.op, answer),
            Outcome::Lost(_) => Verdict::Fail(Failure::Path, IoErrorKind::NoPath),
            Outcome::Unknown(_) => Verdict::Fail(Failure::Path, IoErrorKind::TimedOut),
            Outcome::Aborted => Verdict::Fail(Failure::Aborted, IoErrorKind::Aborted),
            // The session has given the nexus up itself.
            Outcome::Fenced => Verdict::Fail(Failure::Path, IoErrorKind::Fenced),
        };
        let short =
            matches!(&ended.outcome, Outcome::Answered(a) if r.io.op == Op::Read && u64::from(a.moved) < r.piece);
        match verdict {
            Verdict::Good if short => r.end(Err(IoErrorKind::Medium)),
            Verdict::Good => {
                r.moved += r.piece;
                (r.tries, r.unready) = (0, None);
                if r.io.op == Op::Flush || r.moved >= r.io.len.0 {
                    Inner::succeeded(this, r);
                } else {
                    Inner::go_on(this, r);
                }
            }
            Verdict::Again { first, pace, or } => Inner::again(this, r, first, pace, or),
            Verdict::Fail(failure, kind) => {
                this.failed(failure);
                r.end(Err(kind));
            }
        }
    }

    /// The whole request has succeeded; a flush only if somebody can tell that nothing was lost before it.
    fn succeeded(this: &Arc<Inner>, r: Running) {
        let nexus = this.session.nexus();
        match r.io.op {
            Op::Flush if !this.stability.flushed(r.covers, this.member, nexus) => {
                let lost = Err(IoErrorKind::CacheLost);
                let inner = Arc::clone(this);
                let Ok(runtime) = tokio::runtime::Handle::try_current() else {
                    inner.stability.told_lost(r.covers);
                    return r.end(lost);
                };
                drop(runtime.spawn(async move {
                    if inner.stability.ask(r.covers).await {
                        return r.end(Ok(()));
                    }
                    tracing::error!("iSCSI: {} may have lost writes that it had acknowledged", inner.identity.lun);
                    r.end(lost);
                }));
            }
            Op::Write { .. } | Op::Discard | Op::WriteZeroes if r.cached => {
                this.stability.written(r.sent, this.member, nexus);
                if r.io.op != (Op::Write { fua: true }) && !this.session.writes_through() {
                    return r.end(Ok(()));
                }
                // The unit passes FUA over; or what is no write of the kernel's is to be on the medium, as its writes are.
                let (era, class) = (r.era, r.class);
                let done = Completion::new(move |flushed: Done| r.end(flushed.result.map_err(|e| e.kind)));
                Inner::submit(this, Io::flush(done), era, |_| class);
            }
            _ => r.end(Ok(())),
        }
    }

    /// The piece goes out once more, if it may, after what comes first.
    fn again(this: &Arc<Inner>, mut r: Running, first: First, pace: Pace, or: Failure) {
        let may = match pace {
            Pace::AtOnce(tries) => r.tries < tries,
            Pace::WhileTransitioning => r.unready_for() < this.patience,
            Pace::Later | Pace::FewerAtOnce | Pace::UntilReady => r.unready_for() < PATIENCE,
        };
        if !may {
            return r.end(Err(kind(or)));
        }
        if let Pace::AtOnce(_) = pace {
            r.tries += 1;
        }
        r.take_back();
        if first == First::Nothing && matches!(pace, Pace::AtOnce(_)) {
            return Inner::go_on(this, r);
        }
        // An answer comes on the driver's worker, where tasks can be started.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return r.end(Err(kind(or))) };
        let inner = Arc::clone(this);
        drop(runtime.spawn(async move {
            match follow(&inner, first).await {
                Ok(()) => {
                    pause(pace).await;
                    Inner::go_on(&inner, r);
                }
                Err(kind) => r.end(Err(kind)),
            }
        }));
    }
}

impl Running {
    /// How long the unit has been unready.
    fn unready_for(&mut self) -> Duration {
        self.unready.get_or_insert_with(Instant::now).elapsed()
    }

    /// The memory of the next piece.
    fn front(&mut self) -> Option<AlignedBuf> {
        let n = usize::try_from(self.piece).ok()?;
        let rest = self.rest.as_mut()?;
        if rest.len() == n { self.rest.take() } else { Some(rest.split_to(n)) }
    }

    /// Joins a piece's memory to what is done.
    fn give_back(&mut self, memory: Option<AlignedBuf>) {
        let Some(memory) = memory else { return };
        match &mut self.done {
            None => self.done = Some(memory),
            // Pieces come back in order, so that they lie behind one another.
            Some(done) => drop(done.try_unsplit(memory)),
        }
    }

    /// The last piece is to be sent again: its memory goes to the front of the rest.
    fn take_back(&mut self) {
        let Some(mut done) = self.done.take() else { return };
        let keep = usize::try_from(self.moved).unwrap_or(0);
        let front = if keep > 0 { Some(done.split_to(keep)) } else { None };
        if let Some(rest) = self.rest.take() {
            drop(done.try_unsplit(rest));
        }
        self.rest = Some(done);
        self.done = front;
    }

    fn end(mut self, result: Result<(), IoErrorKind>) {
        if let Some(rest) = self.rest.take() {
            self.give_back(Some(rest));
        }
        let Io { op, at, len, done, .. } = self.io;
        let result = result.map_err(|kind| IoError::new(kind, op, ByteOffset(at.0), len));
        done.complete(Done { result, buf: self.done });
    }
}

/// The class of data requests of this generation.
fn write_or_read(generation: FenceGen) -> impl Fn(Op) -> Class {
    move |op| if op == Op::Read { Class::Read } else { Class::Write(generation) }
}

enum Verdict {
    Good,
    Again { first: First, pace: Pace, or: Failure },
    Fail(Failure, IoErrorKind),
}

/// What a status means for the request.
fn judge(op: Op, answer: &Answer) -> Verdict {
    if answer.status == Status::Good {
        return Verdict::Good;
    }
    let class = if op == Op::Read { action::Class::Ask } else { action::Class::Write };
    let sense = Sense::parse(&answer.sense).ok();
    match action::verdict(class, action::Reply::Status(answer.status, sense.as_ref())).action {
        Action::Done => Verdict::Good,
        Action::Retry { first, pace, or } => Verdict::Again { first, pace, or },
        Action::Elsewhere { or, .. } | Action::Settle { or, .. } | Action::Fail(or) => Verdict::Fail(or, kind(or)),
        Action::Differs => Verdict::Fail(Failure::Unexpected, IoErrorKind::Medium),
    }
}

pub(super) fn kind(failure: Failure) -> IoErrorKind {
    match failure {
        f if f.is_fence() => IoErrorKind::Fenced,
        Failure::WriteProtected => IoErrorKind::ReadOnly,
        Failure::NoSpace => IoErrorKind::NoSpace,
        Failure::OutOfRange => IoErrorKind::OutOfRange,
        Failure::NotSupported | Failure::Invalid => IoErrorKind::NotSupported,
        Failure::NotReady | Failure::NoMedium => IoErrorKind::NotReady,
        Failure::MediumCorrupt => IoErrorKind::Corrupt,
        Failure::NotAccessible => IoErrorKind::NotAccessible,
        Failure::NoSuchUnit | Failure::Path => IoErrorKind::NoPath,
        Failure::Busy => IoErrorKind::TimedOut,
        Failure::Hardware => IoErrorKind::Hardware,
        Failure::Aborted => IoErrorKind::Aborted,
        _ => IoErrorKind::Medium,
    }
}

#[cfg(test)]
mod tests;
