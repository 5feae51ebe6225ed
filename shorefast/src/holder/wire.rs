//! What a holder and its daemon say to one another: one message, one packet of a socket pair (SOCK_SEQPACKET), with at most one
//! descriptor. The first byte says which, the rest is a name.
//!
//! Holder and daemon may be of different versions, since a daemon is replaced under its holder. So a message that is not
//! known is skipped, and none ever changes its meaning.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The longest message: names are a word, an identity and a number.
const LONGEST: usize = 256;

/// From the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FromDaemon<'a> {
    /// Keep the descriptor that comes with it.
    Keep(&'a str),
    /// Forget what that owner has.
    Release(&'a str),
    /// It ends next, so that another takes its place.
    Leaving,
}

/// To the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ToDaemon<'a> {
    /// A descriptor that was kept comes with it.
    Kept(&'a str),
    /// That was all that is kept.
    End,
    /// Make room for the next daemon.
    Leave,
}

impl<'a> FromDaemon<'a> {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            FromDaemon::Keep(name) => message(b'K', name),
            FromDaemon::Release(owner) => message(b'R', owner),
            FromDaemon::Leaving => message(b'L', ""),
        }
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, name) = parts(bytes)?;
        Some(match kind {
            b'K' => FromDaemon::Keep(name),
            b'R' => FromDaemon::Release(name),
            b'L' => FromDaemon::Leaving,
            _ => return None,
        })
    }
}

impl<'a> ToDaemon<'a> {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            ToDaemon::Kept(name) => message(b'k', name),
            ToDaemon::End => message(b'e', ""),
            ToDaemon::Leave => message(b'l', ""),
        }
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, name) = parts(bytes)?;
        Some(match kind {
            b'k' => ToDaemon::Kept(name),
            b'e' => ToDaemon::End,
            b'l' => ToDaemon::Leave,
            _ => return None,
        })
    }
}

fn message(kind: u8, name: &str) -> Vec<u8> {
    [&[kind], name.as_bytes()].concat()
}

fn parts(bytes: &[u8]) -> Option<(u8, &str)> {
    let (kind, name) = bytes.split_first()?;
    Some((*kind, std::str::from_utf8(name).ok()?))
}

/// The two ends.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message; waits while the other end is behind.
pub(super) fn send(to: &OwnedFd, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    if message.len() > LONGEST {
        return Err(Errno::MSGSIZE);
    }
    let fds = fd.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    let parts = [IoSlice::new(message)];
    rustix::io::retry_on_intr(|| sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL)).map(drop)
}

/// A message and the descriptor that came with it.
pub(super) type Packet = (Vec<u8>, Option<OwnedFd>);

/// The next message; `None` at the end. `wait`: for it to come, else EAGAIN if there is none.
pub(super) fn receive(from: &OwnedFd, wait: bool) -> Result<Option<Packet>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; LONGEST];
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT } | RecvFlags::CMSG_CLOEXEC;
    let got = loop {
        match recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            got => break got?,
        }
    };
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    // No message is empty.
    Ok((got.bytes > 0).then(|| (bytes[..got.bytes].to_vec(), fd)))
}
