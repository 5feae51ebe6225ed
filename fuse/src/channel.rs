//! A channel: one description of /dev/fuse, read by one worker.
//!
//! What it is: the loop that reads requests, parses them and hands them to the handler inline. One
//! turn reads until there is nothing left, at most [`TURN`] requests, under one `block::worker::batch`:
//! what the handler submits for them goes to the device in one call. Answers may be given inside the
//! handler or by anyone, later.
//!
//! What it refuses: waiting inside a handler (it is called inline; what waits is spawned), and
//! messages that do not parse (answered EIO, logged).
//!
//! Interleavings prevented:
//! - a flood of requests starves completions: after a full turn the worker's other tasks run;
//! - a WRITE's payload is overwritten by the next request: its window of the slab was split off, the
//!   next message goes behind it;
//! - a mount that was unmounted lazily goes with the closing of its last file, just when that file's RELEASE was taken from
//!   the kernel's queue: that read says ECONNABORTED, although nobody aborted anything (fuse_dev_do_read, since Linux 5.14;
//!   seen in one of a hundred such ends). So the next read decides: it says ECONNABORTED again, or ENODEV.
//!
//! Invariant: a request that was read reaches exactly one [`Reply`] or is answered here.

mod reader;

use crate::abi::{self, InHeader, opcode};
use crate::device::{Device, Readiness};
use crate::kept::{Fate, Resends};
use crate::parse::{self, Dialect, Malformed};
use crate::reply::{Delivery, Reply};
use crate::request::Request;
use block::buf::BufPool;
use reader::Reader;
pub(crate) use reader::slab_size;
use rustix::io::Errno;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Requests read in one turn. The depth of a busy virtual machine's queue: enough for one submission
/// to carry it, and less than a millisecond before completions are looked at again.
const TURN: usize = 32;

/// How [`Channel::serve`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The file system was unmounted.
    Unmounted,
    /// The connection was aborted; callers got ECONNABORTED or ENOTCONN.
    Aborted,
}

/// Why [`Channel::serve`] stopped although the mount is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The runtime would not watch the descriptor.
    #[error("cannot watch /dev/fuse: {0}")]
    Watch(#[source] std::io::Error),
    /// Reading failed in a way that a healthy connection cannot.
    #[error("cannot read /dev/fuse: {0}")]
    Read(#[source] Errno),
}

/// What all channels of a mount share.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) pool: Arc<BufPool>,
    pub(crate) max_write: usize,
    pub(crate) dialect: Dialect,
    /// What becomes of requests that come again; `None` if nobody served this mount before.
    pub(crate) resends: Option<Arc<Resends>>,
}

/// One channel of a mount, to be served by one worker.
#[derive(Debug)]
pub struct Channel {
    device: Arc<Device>,
    session: Arc<Session>,
}

/// What a turn left behind.
enum Turn {
    /// Nothing is waiting to be read.
    Empty,
    /// There may be more.
    Full,
}

/// Why a turn was the last.
enum Stop {
    Ended(Ended),
    Failed(Errno),
}

impl Channel {
    pub(crate) fn new(device: Arc<Device>, session: Arc<Session>) -> Self {
        Self { device, session }
    }

    /// Serves requests until the mount is gone. `handler` is called on this thread for each of them
    /// and must not block.
    ///
    /// # Errors
    /// When the descriptor cannot be watched or read. Requests that were handed out can still be
    /// answered.
    ///
    /// # Cancel safety
    /// Safe: no request is in the loop's hands while it waits. If other channels of the mount go on, a request that this
    /// one was woken for may wait until the next one comes.
    pub async fn serve<H: Fn(Request)>(self, handler: H) -> Result<Ended, ServeError> {
        let readiness = Readiness::register(&self.device).map_err(ServeError::Watch)?;
        let mut reader = Reader::new(&self.session);
        loop {
            readiness.ready().await.map_err(ServeError::Watch)?;
            loop {
                match self.turn(&mut reader, &handler) {
                    Ok(Turn::Empty) => break,
                    Ok(Turn::Full) => tokio::task::yield_now().await,
                    Err(Stop::Ended(ended)) => return Ok(ended),
                    Err(Stop::Failed(error)) => return Err(ServeError::Read(error)),
                }
            }
        }
    }

    /// Reads and hands over up to [`TURN`] requests.
    fn turn(&self, reader: &mut Reader, handler: &impl Fn(Request)) -> Result<Turn, Stop> {
        let _batch = block::worker::batch();
        let mut said_aborted = false;
        for _ in 0..TURN {
            let len = match self.device.read(reader.room()) {
                Ok(len) => len,
                Err(Errno::AGAIN) => return Ok(Turn::Empty),
                // ENOENT: the caller was killed before we read its request.
                Err(Errno::INTR | Errno::NOENT) => continue,
                Err(Errno::NODEV) => return Err(Stop::Ended(Ended::Unmounted)),
                Err(Errno::CONNABORTED) if said_aborted => return Err(Stop::Ended(Ended::Aborted)),
                Err(Errno::CONNABORTED) => {
                    said_aborted = true;
                    continue;
                }
                Err(error) => return Err(Stop::Failed(error)),
            };
            if let Some(request) = self.accept(reader, len) {
                handler(request);
            }
        }
        Ok(Turn::Full)
    }

    /// The message that was read, as a request; `None` if it was answered here.
    fn accept(&self, reader: &mut Reader, len: usize) -> Option<Request> {
        let header = match parse::header(reader.message(len)) {
            Ok(header) => header,
            Err(why) => {
                self.refuse(None, why);
                return None;
            }
        };
        let reply = self.again(&header, Reply::new(Arc::clone(&self.device), header.unique, header.opcode))?;
        if header.opcode == opcode::POLL {
            always_ready(reply, reader.message(len));
            return None;
        }
        let op = if parse::is_write(&header, len) {
            let fixed = reader.write_body();
            parse::write(&fixed, reader.take_payload(len - abi::WRITE_PREFIX))
        } else {
            parse::operation(&header, reader.message(len), self.session.dialect)
        };
        match op {
            Ok(op) => Some(request(&header, op, reply)),
            Err(why) => {
                self.refuse(Some((&header, reply)), why);
                None
            }
        }
    }

    /// The reply of a request that may have come again; `None` if it is not handed out once more. An INTERRUPT has the bit
    /// of what it interrupts.
    fn again(&self, header: &InHeader, reply: Reply) -> Option<Reply> {
        if header.unique & abi::RESENT == 0 || header.opcode == opcode::INTERRUPT {
            return Some(reply);
        }
        let (unique, opcode) = (reply.unique(), header.opcode);
        let fate = self.session.resends.as_ref().map_or(Fate::Forgotten, |resends| resends.delivered(unique));
        let reply = match &self.session.resends {
            Some(resends) => reply.counted_by(resends),
            None => reply,
        };
        match fate {
            Fate::Served => return Some(reply),
            Fate::Forgotten => tracing::warn!(unique, opcode, "a request from before the restart gets EIO"),
            Fate::Deadly => {
                tracing::error!(unique, opcode, "a request that was in flight at three deaths in a row gets EIO");
            }
        }
        reply.error(libc::EIO);
        None
    }

    /// A message that is no request. Without a header there is nobody to answer.
    fn refuse(&self, from: Option<(&InHeader, Reply)>, why: Malformed) {
        match from {
            Some((header, reply)) => {
                tracing::warn!(unique = header.unique, opcode = header.opcode, %why, "malformed request");
                reply.error(libc::EIO);
            }
            None => tracing::warn!(%why, "malformed message"),
        }
    }
}

fn request(header: &InHeader, op: crate::op::Operation, reply: Reply) -> Request {
    let InHeader { unique, nodeid, uid, gid, pid, .. } = *header;
    let resent = unique & abi::RESENT != 0;
    Request { unique: unique & !abi::RESENT, resent, nodeid, uid, gid, pid, op, reply }
}

/// POLL: a file is always ready, as poll(2) says of every regular file. Answered here because
/// EOPNOTSUPP would come out of poll(2) as an error on the descriptor, and ENOSYS is never said.
fn always_ready(reply: Reply, message: &[u8]) -> Delivery {
    const READY: u32 = (libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM) as u32;
    match abi::PollIn::read_from_prefix(&message[size_of::<InHeader>()..]) {
        Ok((poll, _)) => reply.polled(READY & poll.events),
        Err(_) => reply.error(libc::EIO),
    }
}
