//! A connection from its first byte: the login, a place among the sessions, then the full feature phase to its end.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iscsi::framer::{End, FrameError, Framer, Item};
use iscsi::ids::Isid;
use iscsi::pdu::raw::LoginRequest;
use iscsi::pdu::{Bhs, Opcode, padding};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::conn::{Conn, Ended};
use super::limits::{DRAIN_TIME, LOGIN_TIME};
use super::sessions::{Place, Wanted};
use super::{Shared, told};
use crate::core::login::{Entering, Entropy, Login, Refusal, Response, Step};
use crate::core::name::NexusName;
use crate::core::session::{Begin, Session};

/// Bytes read at once during a login.
const READ: usize = 8192;

/// An initiator whose host is gone is found after this silence, and some tries of the kernel's.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("{0}")]
    Ended(#[from] Ended),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its login is no iSCSI: {0}")]
    Frame(#[from] FrameError),
    #[error("its login is refused: {}", .0.why())]
    Refused(Refusal),
    #[error("it began with a {0:?} and not with a login")]
    NoLogin(Option<Opcode>),
    #[error("its login took longer than {} s", LOGIN_TIME.as_secs())]
    Slow,
    #[error("it closed during its login")]
    Closed,
}

/// The reader of a login, and what came behind its last request.
struct Greeter {
    stream: TcpStream,
    framer: Framer,
    staged: Vec<u8>,
    at: usize,
}

/// Serves a connection to its end.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    portal: usize,
    stream: std::net::TcpStream,
    from: SocketAddr,
) -> Result<(), Failed> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true).map_err(io::Error::from)?;
    sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE).map_err(io::Error::from)?;
    let stream = TcpStream::from_std(stream)?;
    let local = stream.local_addr()?;
    let group = shared.portals.get(portal).map_or(1, |p| p.group);
    let mut greeter = Greeter { stream, framer: Framer::new(End::Target), staged: Vec::new(), at: 0 };
    let mut stop = shared.stop.subscribe();
    let entering = tokio::select! {
        done = timeout(LOGIN_TIME, greeter.login(shared, group)) => done.map_err(|_| Failed::Slow)??,
        () = told(&mut stop) => return Ok(()),
    };
    let initiator = entering.names.initiator.clone();
    let (place, begin) = enter(shared, &mut greeter, *entering, group, from).await?;
    let normal = !begin.discovery;
    let (digests, longest) = (begin.params.digests, begin.params.max_recv_segment);
    greeter.framer.open(digests, longest);
    let early = greeter.staged.split_off(greeter.at);
    let session = Session::new(begin);
    let mut conn =
        Conn::new(Arc::clone(shared), greeter.stream, greeter.framer, session, &place, (local, initiator), &early);
    let mut drain = None;
    let ended = poll_fn(|cx| {
        let polled = conn.poll(cx);
        if polled.is_pending() && conn.is_leaving() {
            let drain = drain.get_or_insert_with(|| Box::pin(tokio::time::sleep(DRAIN_TIME)));
            if drain.as_mut().poll(cx).is_ready() && conn.give_up() {
                cx.waker().wake_by_ref();
            }
        }
        polled
    })
    .await;
    if normal {
        shared.units.iter().for_each(|unit| unit.detach(place.id));
    }
    drop(place);
    Ok(ended?)
}

/// A place for a login that is done, or its refusal.
async fn enter(
    shared: &Arc<Shared>,
    greeter: &mut Greeter,
    entering: Entering,
    group: u16,
    from: SocketAddr,
) -> Result<(Place, Begin), Failed> {
    let names = entering.names.clone();
    let name = NexusName { initiator: names.initiator.clone(), isid: entering.isid, port: group };
    if entering.tsih != 0 {
        // A second connection of a session, or one of a session that is gone.
        let there = shared.sessions.has(entering.tsih, &name);
        return greeter.refused(entering, if there { Refusal::TOO_MANY } else { Refusal::NO_SESSION }).await;
    }
    let wanted = Wanted {
        name: (!names.discovery).then(|| name.clone()),
        initiator: names.initiator.clone(),
        isid: Isid(entering.isid.0).to_string(),
        group,
        from,
    };
    let place = tokio::select! {
        place = shared.sessions.enter(wanted) => place,
        () = greeter.hung_up() => return Err(Failed::Closed),
    };
    let place = match place {
        Ok(place) => place,
        Err(refusal) => return greeter.refused(entering, refusal).await,
    };
    if !names.discovery {
        shared.units.iter().for_each(|unit| unit.attach(place.id, name.clone(), &place.mailbox));
    }
    let (response, begin) = entering.accept(place.id.tsih());
    tracing::info!(%from, initiator = names.initiator, discovery = names.discovery, "session begins");
    if let Err(error) = greeter.send(response).await {
        if !names.discovery {
            shared.units.iter().for_each(|unit| unit.detach(place.id));
        }
        return Err(error);
    }
    Ok((place, begin))
}

impl Greeter {
    /// To where the initiator wants in.
    async fn login(&mut self, shared: &Shared, group: u16) -> Result<Box<Entering>, Failed> {
        let mut login = Box::new(Login::new(group, entropy()?));
        loop {
            let (bhs, text) = self.pdu().await?;
            if bhs.kind() != Some(Opcode::LoginRequest) {
                return Err(Failed::NoLogin(bhs.kind()));
            }
            match login.answer(&LoginRequest::of(&bhs), &text, &shared.policy) {
                Step::Reply(next, response) => {
                    login = next;
                    self.send(response).await?;
                }
                Step::Refuse(response, refusal) => {
                    self.send(response).await?;
                    return Err(Failed::Refused(refusal));
                }
                Step::Enter(entering) => return Ok(entering),
            }
        }
    }

    /// Completes when the initiator has closed. What it sends without being asked is left for later.
    async fn hung_up(&self) {
        let mut one = [0; 1];
        if self.stream.peek(&mut one).await.is_ok_and(|n| n > 0) {
            std::future::pending::<()>().await;
        }
    }

    async fn refused<T>(&mut self, entering: Entering, refusal: Refusal) -> Result<T, Failed> {
        self.send(entering.refuse(refusal)).await?;
        Err(Failed::Refused(refusal))
    }

    async fn send(&mut self, response: Response) -> Result<(), Failed> {
        let mut bytes = response.bhs.bhs().bytes().to_vec();
        bytes.extend_from_slice(&response.text);
        bytes.resize(bytes.len() + padding(response.text.len()), 0);
        Ok(self.stream.write_all(&bytes).await?)
    }

    /// The next PDU, whole.
    async fn pdu(&mut self) -> Result<(Bhs, Vec<u8>), Failed> {
        let (mut header, mut data) = (None, Vec::new());
        loop {
            let mut input = &self.staged[self.at..];
            let before = input.len();
            let item = self.framer.next(&mut input)?;
            let used = before - input.len();
            match item {
                Some(Item::Header(bhs)) => header = Some(bhs),
                // Bounded by the segment length of a login.
                Some(Item::Data(piece)) => data.extend_from_slice(piece),
                Some(Item::End { .. }) => {
                    self.at += used;
                    if let Some(bhs) = header {
                        return Ok((bhs, data));
                    }
                    continue;
                }
                None => {
                    self.staged.clear();
                    self.at = 0;
                    self.staged.resize(READ, 0);
                    let n = self.stream.read(&mut self.staged).await?;
                    self.staged.truncate(n);
                    if n == 0 {
                        return Err(Failed::Closed);
                    }
                    continue;
                }
            }
            self.at += used;
        }
    }
}

fn entropy() -> Result<Entropy, Failed> {
    let mut bytes = [0; 17];
    let n = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(io::Error::from)?;
    if n < bytes.len() {
        return Err(io::Error::other("the kernel has no random bytes").into());
    }
    let mut challenge = [0; 16];
    challenge.copy_from_slice(&bytes[..16]);
    Ok(Entropy { identifier: bytes[16], challenge })
}
