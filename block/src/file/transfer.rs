//! One request on its way through system calls: which call is next, and what its result means.
//!
//! Pure: the ring and the thread pool both drive it, by turns of [`Transfer::step`] and
//! [`Transfer::on_result`]. Rules: a short read or write is continued; EINTR and EAGAIN are tried
//! again; write-zeroes falls back to writing zeroes; a discard that the file refuses is an error and
//! remembered; the end of the file inside the device is a medium error.

use std::sync::{Arc, LazyLock};

use rustix::fs::FallocateFlags;

use super::raw::{InFlight, RawFile};
use crate::buf::AlignedBuf;
use crate::device::{Io, Op};
use crate::error::{IoError, IoErrorKind};

/// EINTR and EAGAIN in a row before they count as an error: the kernel gives EAGAIN when it is short
/// of memory for the moment, never a thousand times over.
const MAX_RETRIES: u32 = 1000;

/// Zeroes are written in pieces of this size where the file system cannot zero a range.
const ZERO_CHUNK: usize = 1 << 20;

static ZEROES: LazyLock<AlignedBuf> = LazyLock::new(|| AlignedBuf::zeroed(ZERO_CHUNK));

#[derive(Debug)]
pub(crate) struct Transfer {
    io: Io,
    /// Bytes done so far; a multiple of the file's granule.
    moved: u64,
    retries: u32,
    /// Write-zeroes by writing.
    zero_fill: bool,
    /// Last field: counted as under way until the completion has run.
    in_flight: InFlight,
}

/// The next system call.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Read { at: u64, buf: &'a mut [u8] },
    Write { at: u64, buf: &'a [u8], fua: bool },
    SyncData,
    Fallocate { mode: FallocateFlags, at: u64, len: u64 },
}

/// What a system call's result means.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Take another step.
    Again,
    /// The request has ended.
    End(Result<(), IoError>),
}

impl Transfer {
    /// A request that passed the geometry check.
    pub(crate) fn new(file: &Arc<RawFile>, io: Io) -> Transfer {
        let zero_fill = io.op == Op::WriteZeroes && file.refuses_zero_range();
        Transfer { io, moved: 0, retries: 0, zero_fill, in_flight: file.begin() }
    }

    pub(crate) fn file(&self) -> &RawFile {
        self.in_flight.file()
    }

    /// The same as an owner, for a caller that holds a step while it uses the file.
    pub(crate) fn shared_file(&self) -> Arc<RawFile> {
        self.in_flight.shared()
    }

    pub(crate) fn step(&mut self) -> Step<'_> {
        let at = self.io.at.0 + self.moved;
        let left = self.io.len.0 - self.moved;
        // Lossless: buffers are at most MAX_TRANSFER long.
        let from = self.moved as usize;
        match self.io.op {
            Op::Read => Step::Read { at, buf: self.io.buf.as_mut().map_or(&mut [], |b| &mut b[from..]) },
            Op::Write { fua } => Step::Write { at, buf: self.io.buf.as_ref().map_or(&[], |b| &b[from..]), fua },
            Op::Flush => Step::SyncData,
            Op::Discard => {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Step::Fallocate { mode, at, len: left }
            }
            Op::WriteZeroes if self.zero_fill => {
                let chunk = left.min(ZERO_CHUNK as u64) as usize;
                Step::Write { at, buf: &ZEROES[..chunk], fua: false }
            }
            Op::WriteZeroes => {
                let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
                Step::Fallocate { mode, at, len: left }
            }
        }
    }

    /// Takes the result of the last step: bytes moved (0 for calls that move none), or an errno.
    pub(crate) fn on_result(&mut self, result: Result<u32, i32>) -> Verdict {
        match result {
            Err(libc::EINTR | libc::EAGAIN) if self.retries < MAX_RETRIES => {
                self.retries += 1;
                Verdict::Again
            }
            Err(libc::EOPNOTSUPP) if self.io.op == Op::WriteZeroes && !self.zero_fill => {
                self.file().note_zero_range_refused();
                self.zero_fill = true;
                Verdict::Again
            }
            Err(errno) => {
                if errno == libc::EOPNOTSUPP && self.io.op == Op::Discard {
                    self.file().note_discard_refused();
                }
                Verdict::End(Err(IoError::from_os(errno, self.io.op, self.io.at, self.io.len)))
            }
            Ok(_) if !self.io.op.moves_data() && !self.zero_fill => Verdict::End(Ok(())),
            Ok(moved) => self.on_moved(u64::from(moved)),
        }
    }

    fn on_moved(&mut self, moved: u64) -> Verdict {
        let total = self.moved + moved;
        if total >= self.io.len.0 {
            return Verdict::End(Ok(()));
        }
        let kept = total - total % self.file().granule();
        if kept == self.moved {
            // Nothing usable moved: the file is shorter than the device was when it was opened, or a
            // write stopped inside its first block.
            self.retries += 1;
            if moved == 0 || self.retries > MAX_RETRIES {
                return Verdict::End(Err(self.error(IoErrorKind::Medium)));
            }
        }
        self.moved = kept;
        Verdict::Again
    }

    fn error(&self, kind: IoErrorKind) -> IoError {
        IoError::new(kind, self.io.op, self.io.at, self.io.len)
    }

    /// Completes the request.
    pub(crate) fn finish(self, result: Result<(), IoError>) {
        let Transfer { io, in_flight, .. } = self;
        io.complete(result);
        drop(in_flight);
    }

    /// Completes the request with an error of this kind.
    pub(crate) fn fail(self, kind: IoErrorKind) {
        let error = self.error(kind);
        self.finish(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Completion;
    use crate::units::{ByteLen, ByteOffset};

    fn file() -> Arc<RawFile> {
        let fd = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty());
        RawFile::new(fd.expect("/dev/null opens"), 512)
    }

    fn transfer(file: &Arc<RawFile>, op: Op, len: usize) -> Transfer {
        let buf = op.moves_data().then(|| AlignedBuf::zeroed(len));
        let (at, len) = (ByteOffset(8192), ByteLen::from_usize(len));
        Transfer::new(file, Io { op, at, len, buf, done: Completion::ignore() })
    }

    #[test]
    fn short_read_is_continued_at_a_whole_block() {
        let file = file();
        let mut t = transfer(&file, Op::Read, 4096);
        assert!(matches!(t.on_result(Ok(1500)), Verdict::Again));
        assert!(matches!(t.step(), Step::Read { at: 9216, buf } if buf.len() == 3072));
        assert!(matches!(t.on_result(Ok(3072)), Verdict::End(Ok(()))));
        t.finish(Ok(()));
        assert_eq!(file.in_flight().count(), 0);
    }

    #[test]
    fn end_of_file_inside_the_device_is_a_medium_error() {
        let mut t = transfer(&file(), Op::Read, 4096);
        assert!(matches!(t.on_result(Ok(512)), Verdict::Again));
        assert!(matches!(t.on_result(Ok(0)), Verdict::End(Err(e)) if e.kind == IoErrorKind::Medium));
        t.fail(IoErrorKind::Medium);
    }

    #[test]
    fn interruptions_are_tried_again_but_not_for_ever() {
        let mut t = transfer(&file(), Op::Write { fua: false }, 512);
        for _ in 0..MAX_RETRIES {
            assert!(matches!(t.on_result(Err(libc::EAGAIN)), Verdict::Again));
        }
        assert!(matches!(t.on_result(Err(libc::EINTR)), Verdict::End(Err(_))));
        t.fail(IoErrorKind::Medium);
    }

    #[test]
    fn refused_zero_range_becomes_writes_and_is_remembered() {
        let file = file();
        let len = ZERO_CHUNK + 512;
        let mut t = transfer(&file, Op::WriteZeroes, len);
        assert!(matches!(t.step(), Step::Fallocate { at: 8192, .. }));
        assert!(matches!(t.on_result(Err(libc::EOPNOTSUPP)), Verdict::Again));
        assert!(matches!(t.step(), Step::Write { at: 8192, buf, .. } if buf.len() == ZERO_CHUNK));
        assert!(matches!(t.on_result(Ok(ZERO_CHUNK as u32)), Verdict::Again));
        assert!(matches!(t.step(), Step::Write { buf, .. } if buf.len() == 512));
        assert!(matches!(t.on_result(Ok(512)), Verdict::End(Ok(()))));
        t.finish(Ok(()));
        let mut next = transfer(&file, Op::WriteZeroes, 512);
        assert!(matches!(next.step(), Step::Write { .. }));
        next.finish(Ok(()));
    }

    #[test]
    fn refused_discard_is_an_error_and_remembered() {
        let file = file();
        let mut t = transfer(&file, Op::Discard, 4096);
        assert!(matches!(t.step(), Step::Fallocate { at: 8192, len: 4096, .. }));
        let verdict = t.on_result(Err(libc::EOPNOTSUPP));
        assert!(matches!(verdict, Verdict::End(Err(e)) if e.kind == IoErrorKind::NotSupported));
        t.fail(IoErrorKind::NotSupported);
        assert!(file.refuses_discard());
    }
}
