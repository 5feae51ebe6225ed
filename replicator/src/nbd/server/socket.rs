//! A client's stream, plain or encrypted, with reads and writes of many pieces of memory at once.
//!
//! On a plain socket a read or write that moves less than was asked for has met its end for now: the next one waits for
//! the kernel's word without asking first. That saves a system call per turn. (What comes between the call and the
//! forgetting of readiness is told anew, since every arrival is an event of its own.)

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::Security;

/// A client that was accepted, on its way to its worker.
pub(super) enum Arrived {
    Unix(std::os::unix::net::UnixStream),
    Tcp(std::net::TcpStream, SocketAddr, Security),
}

/// A client on its worker.
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arrived::Unix(_) => f.write_str("a Unix socket"),
            Arrived::Tcp(_, from, _) => from.fmt(f),
        }
    }
}

/// A plain socket of either family.
trait Plain: AsFd {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn attempt<T>(&self, interest: Interest, call: impl FnMut() -> io::Result<T>) -> io::Result<T>;
}

macro_rules! plain {
    ($stream:ty) => {
        impl Plain for $stream {
            fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_read_ready(cx)
            }

            fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_write_ready(cx)
            }

            fn attempt<T>(&self, interest: Interest, call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
                self.try_io(interest, call)
            }
        }
    };
}
plain!(UnixStream);
plain!(TcpStream);

/// Calls until it succeeds or the socket has no more. A call that moves less than `whole` counts as having no more.
fn attempt(
    stream: &impl Plain,
    interest: Interest,
    whole: usize,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    let mut moved = None;
    let result = stream.attempt(interest, || {
        let n = call()?;
        moved = Some(n);
        if n < whole && n > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (moved, result) {
        (Some(n), _) => Ok(Some(n)),
        (None, Err(e)) if matches!(e.kind(), io::ErrorKind::WouldBlock) => Ok(None),
        (None, Err(e)) if matches!(e.kind(), io::ErrorKind::Interrupted) => Ok(None),
        (None, Err(e)) => Err(e),
        (None, Ok(())) => Ok(None),
    }
}

fn poll_read_plain(
    stream: &impl Plain,
    cx: &mut Context<'_>,
    memory: &mut [IoSliceMut<'_>],
) -> Poll<io::Result<usize>> {
    let whole = memory.iter().map(|m| m.len()).sum();
    loop {
        ready!(stream.poll_readable(cx))?;
        let read = attempt(stream, Interest::READABLE, whole, || receive(stream, memory))?;
        if let Some(n) = read {
            return Poll::Ready(Ok(n));
        }
    }
}

/// One piece goes by the shorter way through the kernel.
fn receive(stream: &impl Plain, memory: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match memory {
        [piece] => Ok(recv(stream.as_fd(), &mut **piece, RecvFlags::empty())?.0),
        pieces => Ok(rustix::io::readv(stream.as_fd(), pieces)?),
    }
}

fn poll_write_plain(stream: &impl Plain, cx: &mut Context<'_>, memory: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    let whole = memory.iter().map(|m| m.len()).sum();
    loop {
        ready!(stream.poll_writable(cx))?;
        let written = attempt(stream, Interest::WRITABLE, whole, || {
            let mut nothing = SendAncillaryBuffer::default();
            Ok(sendmsg(stream.as_fd(), memory, &mut nothing, SendFlags::NOSIGNAL)?)
        })?;
        if let Some(n) = written {
            return Poll::Ready(Ok(n));
        }
    }
}

/// Fills the pieces in turn, as far as there are decrypted bytes.
fn poll_read_tls(
    mut stream: Pin<&mut TlsStream<TcpStream>>,
    cx: &mut Context<'_>,
    memory: &mut [IoSliceMut<'_>],
) -> Poll<io::Result<usize>> {
    let mut read = 0;
    for piece in memory.iter_mut().filter(|m| !m.is_empty()) {
        let mut buf = ReadBuf::new(piece);
        let polled = stream.as_mut().poll_read(cx, &mut buf);
        let filled = buf.filled().len();
        read += filled;
        match polled {
            Poll::Ready(Err(e)) if read == 0 => return Poll::Ready(Err(e)),
            Poll::Pending if read == 0 => return Poll::Pending,
            // What failed or ended after some bytes will do so again.
            Poll::Ready(Err(_)) | Poll::Pending => break,
            Poll::Ready(Ok(())) if filled < piece.len() => break,
            Poll::Ready(Ok(())) => {}
        }
    }
    Poll::Ready(Ok(read))
}

impl Socket {
    /// Reads into the pieces in turn; 0 at the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, memory: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Unix(stream) => poll_read_plain(stream, cx, memory),
            Socket::Tcp(stream) => poll_read_plain(stream, cx, memory),
            Socket::Tls(stream) => poll_read_tls(Pin::new(&mut **stream), cx, memory),
        }
    }

    /// Writes from the pieces in turn.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, memory: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Unix(stream) => poll_write_plain(stream, cx, memory),
            Socket::Tcp(stream) => poll_write_plain(stream, cx, memory),
            Socket::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, memory),
        }
    }

    /// Sets the kernel's buffer for what is sent; on a Unix socket, where [`super::pace`] knows what it does.
    pub(super) fn set_send_buffer(&self, bytes: usize) {
        if let Socket::Unix(stream) = self
            && let Err(error) = sockopt::set_socket_send_buffer_size(stream, bytes)
        {
            tracing::debug!("a send buffer of {bytes} bytes: {error}");
        }
    }

    /// Gives to the kernel what encryption still holds.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Unix(_) | Socket::Tcp(_) => Poll::Ready(Ok(())),
            Socket::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    /// Says that nothing more comes; under TLS first that the session ends.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
