//! Requests of a block device as requests of the core: cut to pieces that a message carries, put together again.
//!
//! A request is answered when its last piece is; a long zeroing has few pieces under way at a time. A discard is a zeroing that
//! may free: what a discarded range reads as is not left to each replica's disk. What the core has no
//! room for waits here, in order; what waits is not submitted, so no flush has to cover it. A request's volume is in the addresses of its
//! pieces; a flush is one of all volumes.

use std::collections::{BTreeMap, VecDeque};

use block::{AlignedBuf, Io, IoErrorKind, Op};
use bytes::Bytes;

use super::metrics::Requests;
use super::wire::{MAX_DATA, MAX_ZERO};
use crate::core::event::{AppError, Ask, ReqId};
use crate::core::pace::Load;
use crate::ids::{SECTOR, Span, Volume};

/// Pieces of one request under way at a time.
const PIECES: usize = 8;
/// Pieces under way in all; half of what the core takes.
const MAX_PIECES: usize = 2048;

struct Whole {
    volume: Volume,
    io: Io,
    /// What a write writes: its pieces share it, with the disk and with every peer's connection.
    data: Bytes,
    since_us: u64,
    issued: u64,
    open: usize,
    error: Option<IoErrorKind>,
}

/// A piece: of which request, where in it, and since when.
struct Piece {
    of: u64,
    at: u64,
    since_us: u64,
}

/// What is under way and what waits.
#[derive(Default)]
pub(super) struct Front {
    wholes: BTreeMap<u64, Whole>,
    pieces: BTreeMap<ReqId, Piece>,
    /// What ended since it was last asked for.
    load: Load,
    /// What ended since the start.
    measured: Requests,
    now_us: u64,
    /// With when they came, and of which volume they are.
    held: VecDeque<(u64, Volume, Io)>,
    next: u64,
}

impl Front {
    /// Takes a request; what the core is asked is put into `asks`. `full`: nothing more can be taken now.
    pub(super) fn begin(&mut self, volume: Volume, io: Io, full: bool, asks: &mut Vec<(ReqId, Ask)>) {
        match io.op {
            Op::Read | Op::Write { .. } | Op::WriteZeroes | Op::Discard if io.len.0 == 0 => io.complete(Ok(())),
            _ if full || self.pieces.len() >= MAX_PIECES || !self.held.is_empty() => {
                self.held.push_back((self.now_us, volume, io));
            }
            _ => self.start(self.now_us, volume, io, asks),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn start(&mut self, since_us: u64, volume: Volume, mut io: Io, asks: &mut Vec<(ReqId, Ask)>) {
        let id = self.number();
        let writes = matches!(io.op, Op::Write { .. });
        let data = io.buf.take_if(|_| writes).map(AlignedBuf::freeze).unwrap_or_default();
        self.wholes.insert(id, Whole { volume, io, data, since_us, issued: 0, open: 0, error: None });
        self.issue(id, asks);
    }

    /// Asks for as many pieces as may be under way.
    fn issue(&mut self, id: u64, asks: &mut Vec<(ReqId, Ask)>) {
        loop {
            let req = ReqId(self.number());
            let Some(whole) = self.wholes.get_mut(&id) else { return };
            let Some((at, ask)) = whole.next_piece() else { return };
            self.pieces.insert(req, Piece { of: id, at, since_us: self.now_us });
            asks.push((req, ask));
        }
    }

    /// A piece ended.
    pub(super) fn completed(
        &mut self,
        req: ReqId,
        result: Result<Bytes, AppError>,
        full: bool,
        asks: &mut Vec<(ReqId, Ask)>,
    ) {
        let Some(Piece { of: id, at, since_us }) = self.pieces.remove(&req) else { return };
        let Some(whole) = self.wholes.get_mut(&id) else { return };
        let times = if whole.io.op == Op::Read { &mut self.load.reads } else { &mut self.load.writes };
        times.add(self.now_us.saturating_sub(since_us));
        whole.open -= 1;
        match result {
            Ok(bytes) => whole.put(at, &bytes),
            Err(error) => whole.error = whole.error.or(Some(kind_of(error))),
        }
        if !whole.is_over() {
            self.issue(id, asks);
        } else if let Some(whole) = self.wholes.remove(&id) {
            self.measure(&whole);
            whole.finish();
        }
        self.release(full, asks);
    }

    fn measure(&mut self, whole: &Whole) {
        let (took, len) = (self.now_us.saturating_sub(whole.since_us), whole.io.len.0);
        let done = &mut self.measured;
        match whole.io.op {
            _ if whole.error.is_some() => {}
            Op::Read => {
                done.reads.add(took);
                done.read_bytes += len;
            }
            Op::Write { .. } | Op::WriteZeroes | Op::Discard => {
                done.writes.add(took);
                done.written_bytes += len;
            }
            Op::Flush => done.flushes.add(took),
        }
    }

    /// What ended since the start, and not with an error.
    pub(super) fn measured(&self) -> &Requests {
        &self.measured
    }

    /// The time of what is told from now on, in microseconds from anywhere.
    pub(super) fn at(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// What ended since this was last asked for.
    pub(super) fn load(&mut self) -> Load {
        std::mem::take(&mut self.load)
    }

    /// Lets in what waits, if there is room.
    pub(super) fn release(&mut self, full: bool, asks: &mut Vec<(ReqId, Ask)>) {
        while !full
            && self.pieces.len() < MAX_PIECES
            && let Some((since_us, volume, io)) = self.held.pop_front()
        {
            self.start(since_us, volume, io, asks);
        }
    }

    /// Ends everything: the resource stops. What was under way may be there, and cannot land any more.
    pub(super) fn fail_all(&mut self) {
        self.held.drain(..).for_each(|(.., io)| io.fail(IoErrorKind::ShuttingDown));
        self.pieces.clear();
        for mut whole in std::mem::take(&mut self.wholes).into_values() {
            whole.error = Some(IoErrorKind::Aborted);
            whole.finish();
        }
    }
}

impl Whole {
    fn next_piece(&mut self) -> Option<(u64, Ask)> {
        if self.open >= PIECES || self.error.is_some() {
            return None;
        }
        let (at, op) = (self.issued, self.io.op);
        if op == Op::Flush {
            if self.issued > 0 {
                return None;
            }
            (self.issued, self.open) = (1, 1);
            return Some((0, Ask::Flush));
        }
        let zeroes = matches!(op, Op::WriteZeroes | Op::Discard);
        let len = (self.io.len.0 - at).min(if zeroes { MAX_ZERO } else { MAX_DATA as u64 });
        if len == 0 {
            return None;
        }
        let span = Span::new(self.volume.base() + (self.io.at.0 + at) / SECTOR, len / SECTOR);
        let ask = match op {
            Op::Write { fua } => {
                let (from, end) = (at as usize, (at + len) as usize);
                Ask::Write(span, self.data.slice(from.min(self.data.len())..end.min(self.data.len())), fua)
            }
            Op::WriteZeroes => Ask::Zero(span, false),
            Op::Discard => Ask::Zero(span, true),
            _ => Ask::Read(span),
        };
        self.issued += len;
        self.open += 1;
        Some((at, ask))
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        if self.io.op != Op::Read {
            return;
        }
        let range = at as usize..at as usize + bytes.len();
        match self.io.buf.as_deref_mut().and_then(|b| b.get_mut(range)) {
            Some(to) => to.copy_from_slice(bytes),
            None => self.error = Some(IoErrorKind::Medium),
        }
    }

    fn is_over(&self) -> bool {
        let all = self.error.is_some() || self.io.op == Op::Flush || self.issued >= self.io.len.0;
        self.open == 0 && all
    }

    fn finish(mut self) {
        if matches!(self.io.op, Op::Write { .. }) {
            self.io.buf = Some(AlignedBuf::of_bytes(self.data));
        }
        match self.error {
            None => self.io.complete(Ok(())),
            Some(kind) => self.io.fail(kind),
        }
    }
}

fn kind_of(error: AppError) -> IoErrorKind {
    match error {
        AppError::NotPrimary | AppError::NoQuorum | AppError::TooMany | AppError::NoVolume => IoErrorKind::NotReady,
        AppError::Deposed => IoErrorKind::Fenced,
        AppError::NoData => IoErrorKind::Medium,
    }
}

#[cfg(test)]
mod tests {
    use block::{ByteLen, ByteOffset, Completion, Done};
    use tokio::sync::oneshot::Receiver;

    use super::*;

    const M: u64 = MAX_ZERO;

    fn spans(asks: &[(ReqId, Ask)]) -> Vec<Span> {
        let span = |a: &Ask| match a {
            Ask::Read(s) | Ask::Write(s, ..) | Ask::Zero(s, _) => *s,
            Ask::Flush => Span::default(),
        };
        asks.iter().map(|(_, a)| span(a)).collect()
    }

    fn zeroing(len: u64) -> (Io, Receiver<Done>) {
        let (done, answer) = Completion::channel();
        (Io::ranged(Op::WriteZeroes, ByteOffset(4096), ByteLen(len), done), answer)
    }

    #[test]
    fn a_long_request_has_few_pieces_under_way_and_ends_with_the_last() {
        let (mut front, mut asks) = (Front::default(), Vec::new());
        let (io, mut answer) = zeroing(20 * M + 512);
        front.begin(Volume::FIRST, io, false, &mut asks);
        assert_eq!(asks.len(), PIECES);
        let mut at = 0;
        let mut sectors = 0;
        while at < asks.len() {
            assert!(answer.try_recv().is_err(), "not before its last piece");
            sectors += spans(&asks[at..=at])[0].len;
            front.completed(asks[at].0, Ok(Bytes::new()), false, &mut asks);
            at += 1;
        }
        assert_eq!(sectors * SECTOR, 20 * M + 512);
        assert_eq!(spans(&asks).first().map(|s| s.at), Some(8));
        assert!(answer.try_recv().is_ok_and(|d| d.result.is_ok()));
    }

    #[test]
    fn the_first_error_ends_a_request_once_its_pieces_are_back() {
        let (mut front, mut asks) = (Front::default(), Vec::new());
        let (io, mut answer) = zeroing(20 * M);
        front.begin(Volume::FIRST, io, false, &mut asks);
        front.completed(asks[0].0, Err(AppError::Deposed), false, &mut asks);
        assert_eq!(asks.len(), PIECES, "no more pieces");
        for n in 1..PIECES {
            assert!(answer.try_recv().is_err());
            front.completed(asks[n].0, Ok(Bytes::new()), false, &mut asks);
        }
        let error = answer.try_recv().expect("answered").result.expect_err("failed");
        assert_eq!(error.kind, IoErrorKind::Fenced);
    }

    #[test]
    fn a_read_of_several_pieces_is_put_together_whatever_their_order() {
        let (mut front, mut asks) = (Front::default(), Vec::new());
        let (done, mut answer) = Completion::channel();
        let buf = AlignedBuf::zeroed(2 * MAX_DATA + 512);
        front.begin(Volume::FIRST, Io::read_into(ByteOffset(0), buf, done), false, &mut asks);
        for (n, (req, ask)) in asks.clone().into_iter().enumerate().rev() {
            let Ask::Read(span) = ask else { panic!("a read") };
            let data = vec![n as u8 + 1; (span.len * SECTOR) as usize];
            front.completed(req, Ok(data.into()), false, &mut asks);
        }
        let buf = answer.try_recv().expect("answered").buf.expect("its memory");
        assert_eq!((buf[0], buf[MAX_DATA], buf[2 * MAX_DATA]), (1, 2, 3));
    }

    #[test]
    fn a_write_goes_on_in_its_own_memory_and_comes_back_with_it() {
        let (mut front, mut asks) = (Front::default(), Vec::new());
        let (done, mut answer) = Completion::channel();
        let mut buf = AlignedBuf::zeroed(MAX_DATA + 4096);
        (buf[0], buf[MAX_DATA]) = (1, 2);
        let at = buf.as_ptr();
        front.begin(Volume::FIRST, Io::write(ByteOffset(0), buf, true, done), false, &mut asks);
        let data = |ask: &Ask| match ask {
            Ask::Write(_, data, true) => data.clone(),
            other => panic!("{other:?}"),
        };
        let parts: Vec<Bytes> = asks.iter().map(|(_, ask)| data(ask)).collect();
        assert_eq!(parts.iter().map(|p| (p.len(), p[0])).collect::<Vec<_>>(), [(MAX_DATA, 1), (4096, 2)]);
        assert_eq!(parts[0].as_ptr(), at);
        for (req, _) in asks.clone() {
            front.completed(req, Ok(Bytes::new()), false, &mut asks);
        }
        let buf = answer.try_recv().expect("answered").buf.expect("its memory");
        assert_eq!((buf.as_ptr(), buf.len()), (at, MAX_DATA + 4096));
    }

    #[test]
    fn what_requests_took_is_summed_up_by_their_pieces() {
        let (mut front, mut asks) = (Front::default(), Vec::new());
        front.at(1_000);
        front.begin(Volume::FIRST, zeroing(512).0, false, &mut asks);
        front.at(1_300);
        front.begin(Volume::FIRST, zeroing(512).0, false, &mut asks);
        front.at(1_500);
        for (req, _) in asks.clone() {
            front.completed(req, Ok(Bytes::new()), false, &mut asks);
        }
        assert_eq!((front.measured().writes.count(), front.measured().writes.sum_us), (2, 700));
        assert_eq!(front.measured().written_bytes, 1024);
        let load = front.load();
        assert_eq!((load.writes.count, load.writes.sum_us, load.reads.count), (2, 700, 0));
        assert_eq!(front.load(), Load::default());
    }

    #[test]
    fn what_finds_no_room_waits_its_turn() {
        let (mut front, mut asks) = (Front::default(), Vec::new());
        let (io, mut answer) = zeroing(512);
        front.begin(Volume::FIRST, io, true, &mut asks);
        assert!(asks.is_empty());
        front.release(false, &mut asks);
        assert_eq!(asks.len(), 1);
        front.fail_all();
        let error = answer.try_recv().expect("answered").result.expect_err("failed");
        assert_eq!(error.kind, IoErrorKind::Aborted);
    }
}
