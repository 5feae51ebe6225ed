//! A unit as a [`BlockDevice`].
//!
//! A request longer than the unit's longest transfer travels in pieces, one after another; they share its memory and
//! are joined at the end. A piece that fails ends the request; the rest is not sent.
//!
//! Verdicts of the target: a unit attention or a busy unit is asked again, up to bounds; a RESERVATION CONFLICT is
//! [`IoErrorKind::Fenced`] at once, never retried.

use std::sync::Arc;

use block::buf::AlignedBuf;
use block::device::{BlockDevice, Done, Geometry, Io, MAX_TRANSFER, Op};
use block::error::{IoError, IoErrorKind};
use block::units::{ByteLen, ByteOffset};
use iscsi::session::{Answer, Class, FenceGen, Outcome};
use scsi::action::{self, Action, Failure};
use scsi::cdb::{Caching, Read, SynchronizeCache, Write, WriteSame};
use scsi::unmap::UnmapList;
use scsi::{BlockCount, BlockLen, BlockRange, Cdb, Lba, Sense, Status};

use super::Identity;
use crate::driver::{Ended, Request, Session};

/// The longest transfer where the unit names none: what one burst of the session carries several times over.
const OWN_MAX: u64 = 8 << 20;

/// The device.
pub struct LunDevice {
    inner: Arc<Inner>,
}

struct Inner {
    session: Session,
    identity: Identity,
    block: BlockLen,
    /// Bytes of one command.
    longest: usize,
    generation: FenceGen,
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
}

impl LunDevice {
    /// A device of a unit that was attached over this session. Its writes are of this fence generation.
    pub fn new(session: Session, identity: Identity, generation: FenceGen) -> LunDevice {
        let block = identity.capacity.block;
        let unit = identity.limits.max_transfer.map_or(OWN_MAX, |b| b.0.saturating_mul(u64::from(block.get())));
        let longest = unit.min(OWN_MAX).min(MAX_TRANSFER.0) / u64::from(block.get()) * u64::from(block.get());
        let longest = usize::try_from(longest).unwrap_or(usize::MAX).max(block.get() as usize);
        LunDevice { inner: Arc::new(Inner { session, identity, block, longest, generation }) }
    }

    /// What it is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }
}

impl BlockDevice for LunDevice {
    fn geometry(&self) -> Geometry {
        self.inner.identity.geometry
    }

    fn submit(&self, mut io: Io) {
        if let Err(e) = self.inner.identity.geometry.check(&io) {
            return io.complete(Err(e));
        }
        if io.op != Op::Flush && io.len == ByteLen::ZERO {
            return io.complete(Ok(()));
        }
        let rest = io.buf.take();
        Inner::go_on(&self.inner, Running { io, done: None, rest, moved: 0, piece: 0, tries: 0 });
    }

    fn describe(&self) -> String {
        let identity = &self.inner.identity;
        format!(
            "iSCSI {} at {} ({} {})",
            identity.lun,
            self.inner.session.portal(),
            identity.inquiry.vendor,
            identity.inquiry.product
        )
    }
}

impl Inner {
    /// Sends the next piece.
    fn go_on(this: &Arc<Inner>, mut r: Running) {
        let left = r.io.len.0 - r.moved;
        r.piece = left.min(this.longest as u64);
        let (cdb, memory) = match this.command(&mut r) {
            Ok(command) => command,
            Err(kind) => return r.end(Err(kind)),
        };
        let class = match r.io.op {
            Op::Read => Class::Read,
            _ => Class::Write(this.generation),
        };
        let (inner, lun) = (Arc::clone(this), this.identity.lun);
        let done = Box::new(move |ended| Inner::ended(&inner, r, ended));
        this.session.submit(Request { lun, cdb, class, memory, done });
    }

    /// The command for the piece, with its memory.
    fn command(&self, r: &mut Running) -> Result<(Cdb, Option<AlignedBuf>), IoErrorKind> {
        let size = u64::from(self.block.get());
        let range = BlockRange::new(Lba((r.io.at.0 + r.moved) / size), BlockCount(r.piece / size));
        let unfit = |_| IoErrorKind::OutOfRange;
        match r.io.op {
            Op::Read => Ok((Read::new(range).cdb(self.block).map_err(unfit)?, r.front())),
            Op::Write { fua } => {
                let caching = if fua { Caching::FUA } else { Caching::NONE };
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
            Outcome::Lost(_) => Verdict::Fail(IoErrorKind::NoPath),
            Outcome::Unknown(_) => Verdict::Fail(IoErrorKind::TimedOut),
            Outcome::Aborted => Verdict::Fail(IoErrorKind::Aborted),
            Outcome::Fenced => Verdict::Fail(IoErrorKind::Fenced),
        };
        let short =
            matches!(&ended.outcome, Outcome::Answered(a) if r.io.op == Op::Read && u64::from(a.moved) < r.piece);
        match verdict {
            Verdict::Good if short => r.end(Err(IoErrorKind::Medium)),
            Verdict::Good => {
                r.moved += r.piece;
                r.tries = 0;
                if r.io.op == Op::Flush || r.moved >= r.io.len.0 { r.end(Ok(())) } else { Inner::go_on(this, r) }
            }
            Verdict::Again if r.tries < action::ATTENTION_TRIES => {
                r.tries += 1;
                r.take_back();
                Inner::go_on(this, r);
            }
            Verdict::Again => r.end(Err(IoErrorKind::Medium)),
            Verdict::Fail(kind) => r.end(Err(kind)),
        }
    }
}

impl Running {
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

enum Verdict {
    Good,
    Again,
    Fail(IoErrorKind),
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
        Action::Retry { pace: action::Pace::AtOnce(_), .. } => Verdict::Again,
        Action::Retry { or, .. } | Action::Elsewhere { or, .. } | Action::Settle { or, .. } => Verdict::Fail(kind(or)),
        Action::Fail(failure) => Verdict::Fail(kind(failure)),
        Action::Differs => Verdict::Fail(IoErrorKind::Medium),
    }
}

fn kind(failure: Failure) -> IoErrorKind {
    match failure {
        f if f.is_fence() => IoErrorKind::Fenced,
        Failure::WriteProtected => IoErrorKind::ReadOnly,
        Failure::NoSpace => IoErrorKind::NoSpace,
        Failure::OutOfRange => IoErrorKind::OutOfRange,
        Failure::NotSupported | Failure::Invalid => IoErrorKind::NotSupported,
        Failure::NoSuchUnit | Failure::Path | Failure::NotAccessible => IoErrorKind::NoPath,
        Failure::Busy => IoErrorKind::TimedOut,
        Failure::Aborted => IoErrorKind::Aborted,
        _ => IoErrorKind::Medium,
    }
}
