//! A connection from its first byte: handshake, TLS if asked for, then the transmission phase to its end.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::conn::{Conn, Ended};
use super::socket::{Arrived, Socket};
use super::{Security, Shared, told};
use crate::nbd::core::handshake::{Agreed, Closing, Handshake, Step, Tls};
use crate::nbd::core::transmission::Transmission;
use crate::nbd::limits::{DRAIN_TIME, HANDSHAKE_TIME};

/// Bytes read at once during the handshake.
const READ: usize = 4096;

/// A client whose host is gone is found after this silence, and some tries of the kernel's.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("{0}")]
    Closing(Closing),
    #[error("{0}")]
    Ended(#[from] Ended),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("no export was chosen in {} s", HANDSHAKE_TIME.as_secs())]
    Slow,
    #[error("the export is not there any more")]
    Withdrawn,
    #[error("the server is ending")]
    Stopped,
}

/// Runs a connection to its end.
pub(super) async fn serve(shared: &Shared, arrived: Arrived) -> Result<(), Failed> {
    let mut stop = shared.stop.subscribe();
    let greeted = tokio::select! {
        greeted = timeout(HANDSHAKE_TIME, greet(shared, arrived)) => greeted.map_err(|_| Failed::Slow)??,
        () = told(&mut stop) => return Err(Failed::Stopped),
    };
    let Some((socket, agreed, early)) = greeted else { return Ok(()) };
    let export = shared.exports.get(&agreed.facts.name).ok_or(Failed::Withdrawn)?;
    let mut withdrawn = export.withdrawn();
    let mut conn = Conn::new(socket, Transmission::new(agreed), export, &early);
    let ended = tokio::select! {
        biased;
        ended = poll_fn(|cx| conn.poll(cx)) => Some(ended),
        () = told(&mut withdrawn) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => drain(&mut conn).await,
    };
    Ok(ended?)
}

/// The orderly end, and after its time the other.
async fn drain(conn: &mut Conn) -> Result<(), Ended> {
    conn.leave();
    if let Ok(ended) = timeout(DRAIN_TIME, poll_fn(|cx| conn.poll(cx))).await {
        return ended;
    }
    conn.give_up();
    poll_fn(|cx| conn.poll(cx)).await
}

/// A client that has chosen an export: its socket, what was agreed upon, and what it has sent since. None if it left.
type Greeted = Option<(Socket, Agreed, Vec<u8>)>;

async fn greet(shared: &Shared, arrived: Arrived) -> Result<Greeted, Failed> {
    let (mut socket, material) = match arrived {
        Arrived::Unix(stream) => (Socket::Unix(UnixStream::from_std(stream)?), None),
        Arrived::Tcp(stream, _, security) => {
            let stream = prepare(TcpStream::from_std(stream)?)?;
            match security {
                Security::Plain => (Socket::Tcp(stream), None),
                Security::Tls(material) => (Socket::Tcp(stream), Some(material)),
            }
        }
    };
    let mut out = Vec::new();
    let mut handshake = Handshake::new(if material.is_some() { Tls::Required } else { Tls::Never }, &mut out);
    let mut input = Vec::new();
    loop {
        let mut left = &input[..];
        let step = handshake.handle(&mut left, &*shared.exports, &mut out);
        let used = input.len() - left.len();
        input.drain(..used);
        send(&mut socket, &mut out).await?;
        match (step, &material) {
            (Step::More, _) => {
                if receive(&mut socket, &mut input).await? == 0 {
                    return Ok(None);
                }
            }
            (Step::Enter(agreed), _) => return Ok(Some((socket, *agreed, input))),
            (Step::Close(Closing::Aborted), _) => {
                // The client closes; whether it still hears us does not matter.
                let _ = poll_fn(|cx| socket.poll_shutdown(cx)).await;
                return Ok(None);
            }
            (Step::StartTls, Some(material)) => {
                socket = encrypt(socket, material).await?;
                handshake = handshake.after_tls();
            }
            // Without certificates the handshake refuses TLS.
            (Step::StartTls, None) => return Err(Failed::Tls("there are no certificates".to_owned())),
            (Step::Close(why), _) => return Err(Failed::Closing(why)),
        }
    }
}

/// Small answers at once, and an end to connections whose other side is gone.
fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE)?;
    Ok(stream)
}

async fn encrypt(socket: Socket, material: &net::TlsMaterial) -> Result<Socket, Failed> {
    let Socket::Tcp(stream) = socket else { return Err(Failed::Tls("only over TCP".to_owned())) };
    let acceptor = TlsAcceptor::from(material.foreign_server());
    let stream = acceptor.accept(stream).await.map_err(|e| Failed::Tls(e.to_string()))?;
    let peer = material.identify(stream.get_ref().1.peer_certificates()).map_err(Failed::Tls)?;
    tracing::debug!(peer = %peer.subject, "a client has proved its name");
    Ok(Socket::Tls(Box::new(stream)))
}

async fn send(socket: &mut Socket, out: &mut Vec<u8>) -> io::Result<()> {
    let mut sent = 0;
    while sent < out.len() {
        sent += poll_fn(|cx| socket.poll_write(cx, &[IoSlice::new(&out[sent..])])).await?;
    }
    out.clear();
    poll_fn(|cx| socket.poll_flush(cx)).await
}

/// Adds what comes; 0 at the end of the stream. The handshake has taken all but less than one option.
async fn receive(socket: &mut Socket, input: &mut Vec<u8>) -> io::Result<usize> {
    let before = input.len();
    input.resize(before + READ, 0);
    let read = poll_fn(|cx| socket.poll_read(cx, &mut [IoSliceMut::new(&mut input[before..])])).await;
    input.truncate(before + read.as_ref().copied().unwrap_or(0));
    read
}
