//! What comes from the socket. One call reads the rest of a payload straight into its command's memory, and what follows
//! into a small buffer, from which the framer takes whole PDUs.

use std::io::{self, IoSliceMut};
use std::task::{Context, Poll, ready};

use iscsi::framer::{FrameError, Framer, Item};
use iscsi::pdu::Bhs;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::memory::Memory;
use crate::core::session::{Place, Session};

/// Bytes read besides a payload whose place is known. Many small PDUs come in one call.
const STAGING: usize = 64 << 10;
/// From here on a payload is large, and another is likely: no more is read besides it than goes before the next payload, so that this
/// one goes past the buffer whole, and from its beginning, where the kernel copies fastest.
const LARGE: u32 = 16 << 10;

/// The reader of one connection.
pub(super) struct Incoming {
    framer: Framer,
    staging: Vec<u8>,
    /// What is in the buffer and not yet taken apart.
    from: usize,
    to: usize,
    bhs: Bhs,
    place: Place,
    /// Data of the present PDU that have their place already.
    placed: usize,
    inline: Vec<u8>,
}

impl Incoming {
    /// Goes on where the login ended; `early` came behind it.
    pub(super) fn new(framer: Framer, early: &[u8]) -> Incoming {
        let mut staging = vec![0; STAGING.max(early.len())];
        staging[..early.len()].copy_from_slice(early);
        Incoming {
            framer,
            staging,
            from: 0,
            to: early.len(),
            bhs: Bhs::from_bytes([0; 48]),
            place: Place::Nowhere,
            placed: 0,
            inline: Vec::new(),
        }
    }

    /// Reads once; what was there before has been taken apart. 0 is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &TcpStream,
        memory: &mut Memory,
    ) -> Poll<io::Result<usize>> {
        let direct = self.framer.expects();
        let target = match self.place {
            Place::Task { itt, offset, .. } if direct > 0 => memory.bytes(itt, offset as usize + self.placed, direct),
            _ => None,
        };
        // Data without a place go through the buffer, as many at once as there is room for.
        let placed = direct == 0 || target.is_some();
        let size = if placed && self.bhs.data_segment() >= LARGE { self.framer.before_data() } else { STAGING };
        let staging = &mut self.staging[..size];
        let (n, into) = match target {
            Some(target) => {
                let room = target.len() + staging.len();
                let mut slices = [IoSliceMut::new(target), IoSliceMut::new(staging)];
                let n = ready!(poll(cx, stream, room, || Ok(rustix::io::readv(stream, &mut slices)?)))?;
                let into = n.min(direct);
                self.framer.arrived(&target[..into]);
                self.placed += into;
                (n, into)
            }
            None => {
                let room = staging.len();
                let n = ready!(poll(cx, stream, room, || Ok(recv(stream, &mut *staging, RecvFlags::empty())?.0)))?;
                (n, 0)
            }
        };
        (self.from, self.to) = (0, n - into);
        Poll::Ready(Ok(n))
    }

    /// The next whole PDU: its header, and whether its data are intact. None when what was read is used up.
    pub(super) fn next(&mut self, session: &Session, memory: &mut Memory) -> Result<Option<(Bhs, bool)>, FrameError> {
        loop {
            let mut input = &self.staging[self.from..self.to];
            let before = input.len();
            let item = self.framer.next(&mut input)?;
            self.from += before - input.len();
            match item {
                None => return Ok(None),
                Some(Item::Header(bhs)) => {
                    self.bhs = bhs;
                    self.place = session.place(&bhs);
                    self.placed = 0;
                    self.inline.clear();
                    if let Place::Task { itt, offset, room } = self.place {
                        memory.make(itt, (offset + bhs.data_segment()) as usize, room as usize);
                    }
                }
                Some(Item::Data(piece)) => {
                    match self.place {
                        Place::Task { itt, offset, .. } => {
                            let to = memory.bytes(itt, offset as usize + self.placed, piece.len());
                            if let Some(to) = to {
                                to.copy_from_slice(piece);
                            }
                        }
                        // Bounded by the segment length that the framer lets through.
                        Place::Inline => self.inline.extend_from_slice(piece),
                        Place::Nowhere => {}
                    }
                    self.placed += piece.len();
                }
                Some(Item::End { intact }) => return Ok(Some((self.bhs, intact))),
            }
        }
    }

    /// The data of the PDU that [`Incoming::next`] returned last, and its additional header segments.
    pub(super) fn rest(&self) -> (&[u8], &[u8]) {
        (self.framer.ahs(), &self.inline)
    }
}

/// Calls until it succeeds or the socket has no more. A call that moves less than `whole` counts as having no more: what
/// comes later is told anew.
pub(super) fn poll(
    cx: &mut Context<'_>,
    stream: &TcpStream,
    whole: usize,
    mut call: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        if let Some(n) = attempt(stream, Interest::READABLE, whole, &mut call)? {
            return Poll::Ready(Ok(n));
        }
    }
}

pub(super) fn attempt(
    stream: &TcpStream,
    interest: Interest,
    whole: usize,
    call: &mut impl FnMut() -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    let mut moved = None;
    let result = stream.try_io(interest, || {
        let n = call()?;
        moved = Some(n);
        if n < whole && n > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (moved, result) {
        (Some(n), _) => Ok(Some(n)),
        (None, Err(e)) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        (None, Err(e)) => Err(e),
        (None, Ok(())) => Ok(None),
    }
}
