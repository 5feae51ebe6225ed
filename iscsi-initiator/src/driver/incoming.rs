//! What comes from the socket. One call reads the rest of a payload straight into its task's memory, and what follows
//! into a small buffer, from which the framer takes whole PDUs.

use std::io::{self, IoSliceMut};

use iscsi::framer::{End, FrameError, Framer, Item};
use iscsi::pdu::Bhs;
use iscsi::session::{Place, Session};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::jobs::Jobs;

/// Bytes read besides a payload whose place is known: many small PDUs come in one call.
const STAGING: usize = 64 << 10;
/// From here on a payload is large, and another is likely: no more is read besides it than goes before the next payload, so that this
/// one goes past the buffer whole, and from its beginning, where the kernel copies fastest.
const LARGE: u32 = 16 << 10;

/// The reader of one connection.
pub(super) struct Incoming {
    framer: Framer,
    staging: Vec<u8>,
    /// The PDU that is being read.
    bhs: Bhs,
    place: Place,
    /// Data of it that have their place already.
    placed: usize,
    inline: Vec<u8>,
    /// Bytes at which the kernel wakes.
    mark: usize,
}

/// What a turn of reading found.
pub(super) enum Turn {
    /// Nothing to read now.
    Nothing,
    /// So many bytes, of which some lie in the small buffer, to be taken apart; and whether there may be more.
    Read { staged: usize, bytes: usize, more: bool },
    /// The target has closed.
    Closed,
}

impl Incoming {
    pub(super) fn new() -> Incoming {
        Incoming {
            framer: Framer::new(End::Initiator),
            staging: vec![0; STAGING],
            bhs: Bhs::from_bytes([0; 48]),
            place: Place::Nowhere,
            placed: 0,
            inline: Vec::new(),
            mark: 1,
        }
    }

    /// See [`Framer::open`].
    pub(super) fn framer(&mut self) -> &mut Framer {
        &mut self.framer
    }

    /// Reads once.
    pub(super) fn read(&mut self, stream: &TcpStream, jobs: &mut Jobs) -> io::Result<Turn> {
        let direct = self.framer.expects();
        let memory = match self.place {
            Place::Task { task, offset } if direct > 0 => jobs.bytes_mut(task, offset as usize + self.placed, direct),
            _ => None,
        };
        // Data without a place go through the buffer, as many at once as there is room for.
        let placed = direct == 0 || memory.is_some();
        let size = if placed && self.bhs.data_segment() >= LARGE { self.framer.before_data() } else { STAGING };
        let (n, room, into) = match memory {
            Some(memory) => {
                let room = memory.len() + size;
                let n = once(stream, room, |s| {
                    s.try_read_vectored(&mut [IoSliceMut::new(memory), IoSliceMut::new(&mut self.staging[..size])])
                });
                let into = *n.as_ref().unwrap_or(&0).min(&direct);
                self.framer.arrived(&memory[..into]);
                self.placed += into;
                (n, room, into)
            }
            None => (once(stream, size, |s| s.try_read(&mut self.staging[..size])), size, 0),
        };
        match n {
            Ok(0) => Ok(Turn::Closed),
            Ok(n) => Ok(Turn::Read { staged: n - into, bytes: n, more: n == room }),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Turn::Nothing),
            Err(e) => Err(e),
        }
    }

    /// Whether the data of a PDU are coming.
    pub(super) fn is_amid(&self) -> bool {
        self.framer.expects() > 0
    }

    /// Has the kernel wake this task at so many bytes (`worth`); in the midst of a payload at the first. A mark that does as well is left
    /// as it is: each change is a call of the system. One beyond what surely comes never is: nobody would wake.
    pub(super) fn wake_at(&mut self, stream: &TcpStream, worth: usize) {
        let (mark, most) = match self.framer.expects() {
            0 if worth == 1 => (1, 1),
            0 => (worth, worth * 2),
            left => (1, left),
        };
        if (mark..=most).contains(&self.mark) {
            return;
        }
        match block::worker::set_low_water(stream, mark) {
            Ok(()) => self.mark = mark,
            // It wakes for less than it might, then.
            Err(e) => tracing::debug!("iSCSI: no low-water mark: {e}"),
        }
    }

    /// The next whole PDU in the first `staged` bytes from `at` on: its header, its data if they have no other place, and
    /// whether they are intact. None when the bytes are used up.
    pub(super) fn next(
        &mut self,
        at: &mut usize,
        staged: usize,
        session: &Session,
        jobs: &mut Jobs,
    ) -> Result<Option<(Bhs, bool)>, FrameError> {
        loop {
            let mut input = &self.staging[*at..staged];
            let before = input.len();
            let item = self.framer.next(&mut input)?;
            *at += before - input.len();
            match item {
                None => return Ok(None),
                Some(Item::Header(bhs)) => {
                    self.bhs = bhs;
                    self.place = session.place(&bhs);
                    self.placed = 0;
                    self.inline.clear();
                }
                Some(Item::Data(piece)) => {
                    match self.place {
                        Place::Task { task, offset } => {
                            if let Some(to) = jobs.bytes_mut(task, offset as usize + self.placed, piece.len()) {
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

    /// The data of the PDU that [`Incoming::next`] returned last.
    pub(super) fn inline(&self) -> &[u8] {
        &self.inline
    }
}

/// One call of the system. What came back with less than there was room for has emptied the socket (an edge follows with the
/// next byte), so that nobody has to ask once more only to hear that there is nothing.
fn once(stream: &TcpStream, room: usize, mut read: impl FnMut(&TcpStream) -> io::Result<usize>) -> io::Result<usize> {
    let mut short = None;
    let result = stream.try_io(Interest::READABLE, || match read(stream) {
        Ok(n) if n > 0 && n < room => {
            short = Some(n);
            // Only so is it told that the readiness from before this call is used up.
            Err(io::ErrorKind::WouldBlock.into())
        }
        other => other,
    });
    short.map_or(result, Ok)
}
