//! From a connected stream to two ends that have accepted each other: TLS, then HELLO, WELCOME, READY.
//!
//! ```text
//! dialer    connect ─ TLS ─ HELLO ─────────────► WELCOME? ─ service.hello ─ READY ─► open
//! acceptor  accept  ─ TLS ───────► HELLO? ─ service.hello ─ WELCOME ──────► READY? ─► open
//! ```
//! Each step may end it instead: a REFUSE with a sentence from either end, a TLS alert, silence. Nobody believes
//! the connection to be open before both have accepted. Until then a peer can make us hold one HELLO, and only
//! after its certificate was verified. The caller bounds the whole by a timeout.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::conn::sentence_body;
use crate::endpoint::Security;
use crate::error::{DownReason, Refusal};
use crate::frame::Kind;
use crate::framer::{Frame, Framer};
use crate::hello::{Agreed, Features, Hello, MAX_APP, agree};
use crate::limits::{READ_BUFFER, TLS_BUFFER};
use crate::outgoing::OutFrame;
use crate::service::{PeerHello, PeerIdentity, Role, Service};

/// A stream whose peer has proved who it is, or need not.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

/// Both ends have accepted.
pub(crate) struct Accepted {
    pub(crate) framer: Framer,
    pub(crate) hello: PeerHello,
    pub(crate) agreed: Agreed,
}

/// What an end needs to know to greet a peer.
pub(crate) struct Greeter<'a> {
    pub(crate) service: &'a dyn Service,
    pub(crate) security: &'a Security,
    pub(crate) features: Features,
    pub(crate) remote: SocketAddr,
}

/// Why it ends: with a sentence that the peer is told, or without.
enum Stop {
    Tell(String),
    Down(DownReason),
}

impl<E: Into<DownReason>> From<E> for Stop {
    fn from(e: E) -> Self {
        Self::Down(e.into())
    }
}

/// Acceptor's TLS, if any.
pub(crate) async fn accept_tls(tcp: TcpStream, security: &Security) -> Result<Stream, DownReason> {
    match security {
        Security::Plain { .. } => Ok(Stream::Plain(tcp)),
        Security::Tls(material) => {
            let io = BufReader::with_capacity(READ_BUFFER, tcp);
            let mut tls =
                TlsAcceptor::from(material.server.clone()).accept(io).await.map_err(|e| DownReason::from(&e))?;
            tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
            Ok(Stream::Tls(Box::new(tls.into())))
        }
    }
}

/// Dialer's TLS, if any: the peer must prove to be `subject`.
pub(crate) async fn dial_tls(tcp: TcpStream, security: &Security, subject: &str) -> Result<Stream, DownReason> {
    match security {
        Security::Plain { .. } => Ok(Stream::Plain(tcp)),
        Security::Tls(material) => {
            let name =
                ServerName::try_from(subject.to_owned()).map_err(|e| DownReason::Tls(format!("{subject}: {e}")))?;
            let io = BufReader::with_capacity(READ_BUFFER, tcp);
            let mut tls = TlsConnector::from(material.client.clone())
                .connect(name, io)
                .await
                .map_err(|e| DownReason::from(&e))?;
            tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
            Ok(Stream::Tls(Box::new(tls.into())))
        }
    }
}

impl Stream {
    /// The identity that TLS has proved, `None` without TLS.
    pub(crate) fn proved(&self, security: &Security) -> Result<Option<PeerIdentity>, String> {
        match (self, security) {
            (Self::Tls(tls), Security::Tls(material)) => {
                material.identify(tls.get_ref().1.peer_certificates()).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// What TLS proved, or why it is not enough.
pub(crate) type Proved = Result<Option<PeerIdentity>, String>;

/// Acceptor: HELLO in, WELCOME out, READY in.
pub(crate) async fn accept_hello<S>(io: &mut S, proved: Proved, greeter: &Greeter<'_>) -> Result<Accepted, DownReason>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let outcome = async {
        let mut framer = Framer::default();
        let hello = read_hello(io, &mut framer, Kind::Hello).await?;
        let (peer, agreed) = greeter.meet(Role::Acceptor, proved, &hello)?;
        let app = greeter.ask(&peer)?;
        let mut welcome = greeter.hello(app);
        welcome.versions = (agreed.version as u8, agreed.version as u8);
        write_frame(io, &OutFrame::control(Kind::Welcome, 0, welcome.encode())).await?;
        expect(read_frame(io, &mut framer).await?, Kind::Ready)?;
        framer.open(agreed.version);
        Ok(Accepted { framer, hello: peer, agreed })
    }
    .await;
    finish(io, outcome).await
}

/// Dialer: HELLO out, WELCOME in, READY out.
pub(crate) async fn dial_hello<S>(
    io: &mut S,
    proved: Proved,
    greeter: &Greeter<'_>,
    expected: &str,
) -> Result<Accepted, DownReason>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let outcome = async {
        let mut framer = Framer::default();
        let hello = greeter.hello(greeter.service.greeting(expected));
        let wrote = write_frame(io, &OutFrame::control(Kind::Hello, 0, hello.encode())).await;
        // A peer that refuses our certificate closes while we write; its alert is still there to be read.
        let welcome = read_hello(io, &mut framer, Kind::Welcome).await?;
        wrote?;
        let (peer, agreed) = greeter.meet(Role::Dialer, proved, &welcome)?;
        if peer.identity.subject != expected {
            let found = &peer.identity;
            return Err(Stop::Tell(format!("wrong node: {expected} expected, {found} found")));
        }
        greeter.ask(&peer)?;
        write_frame(io, &OutFrame::control(Kind::Ready, 0, Bytes::new())).await?;
        framer.open(agreed.version);
        Ok(Accepted { framer, hello: peer, agreed })
    }
    .await;
    finish(io, outcome).await
}

impl Greeter<'_> {
    /// What we say. Application bytes that do not fit are a mistake of the service: logged, and left out.
    fn hello(&self, mut app: Bytes) -> Hello {
        if app.len() > MAX_APP {
            tracing::error!("application bytes of {} at HELLO, {MAX_APP} allowed; left out", app.len());
            app = Bytes::new();
        }
        let subject = self.security.subject().to_owned();
        Hello { versions: Hello::VERSIONS, features: self.features, subject, app }
    }

    /// Who the peer is and what we agree on.
    fn meet(&self, role: Role, proved: Proved, hello: &Hello) -> Result<(PeerHello, Agreed), Stop> {
        let identity = match proved.map_err(Stop::Tell)? {
            None => PeerIdentity { subject: hello.subject.clone(), proved: false },
            Some(identity) if identity.subject == hello.subject => identity,
            Some(identity) => {
                let said = &hello.subject;
                return Err(Stop::Tell(format!("says that it is {said:?}, proves that it is {identity}")));
            }
        };
        let agreed = agree(self.features, hello).map_err(|e| Stop::Tell(e.to_string()))?;
        let peer = PeerHello { role, identity, remote: self.remote, features: agreed.features, app: hello.app.clone() };
        Ok((peer, agreed))
    }

    fn ask(&self, peer: &PeerHello) -> Result<Bytes, Stop> {
        self.service.hello(peer).map_err(|refusal: Refusal| Stop::Tell(refusal.why().to_owned()))
    }
}

/// Tells the peer a refusal, so that both logs have the sentence.
async fn finish<S: AsyncWrite + Unpin>(io: &mut S, outcome: Result<Accepted, Stop>) -> Result<Accepted, DownReason> {
    match outcome {
        Ok(accepted) => Ok(accepted),
        Err(Stop::Down(why)) => Err(why),
        Err(Stop::Tell(sentence)) => {
            let refuse = OutFrame::control(Kind::Refuse, 0, sentence_body(&sentence));
            // A peer that is gone already needs no sentence.
            if write_frame(io, &refuse).await.is_ok() {
                drop(io.shutdown().await);
            }
            Err(DownReason::HelloRefused(sentence))
        }
    }
}

async fn write_frame<S: AsyncWrite + Unpin>(io: &mut S, frame: &OutFrame) -> Result<(), DownReason> {
    let mut bytes = BytesMut::with_capacity(frame.len());
    frame.copy_to(&mut bytes);
    io.write_all(&bytes).await.map_err(|e| DownReason::from(&e))?;
    io.flush().await.map_err(|e| DownReason::from(&e))
}

async fn read_frame<S: AsyncRead + Unpin>(io: &mut S, framer: &mut Framer) -> Result<Frame, DownReason> {
    loop {
        match io.read(framer.space()).await {
            Ok(0) => return Err(DownReason::Reset),
            Ok(n) => {
                if let Some(frame) = framer.filled(n)? {
                    return Ok(frame);
                }
            }
            Err(e) => return Err(DownReason::from(&e)),
        }
    }
}

async fn read_hello<S: AsyncRead + Unpin>(io: &mut S, framer: &mut Framer, kind: Kind) -> Result<Hello, Stop> {
    let frame = expect(read_frame(io, framer).await?, kind)?;
    Hello::decode(&frame.body).map_err(|e| Stop::Tell(e.to_string()))
}

/// This kind, or the peer's refusal.
fn expect(frame: Frame, kind: Kind) -> Result<Frame, DownReason> {
    match frame.header.kind {
        Kind::Refuse => Err(DownReason::HelloRefused(frame.sentence())),
        found if found == kind => Ok(frame),
        found => Err(DownReason::Protocol(format!("{kind:?} expected, {found:?} found"))),
    }
}
