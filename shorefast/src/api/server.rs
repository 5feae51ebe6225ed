//! The daemon's end of the API: accepts connections on the Unix socket and hands each request to [`NodeControl`].
//!
//! Refuses: a second daemon on the same socket, lines that are too long or too late, more connections than the bound.
//! A request whose asker has gone away is still carried out to its end.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::control::{NodeControl, Progress};
use super::request::{Answer, AnswerLine, Reply, Request, RequestLine};
use super::{MAX_CONNECTIONS, MAX_REQUEST, VERSION};
use crate::exit::{Exit, Failure};

/// A request line that takes longer than this does not come from a command.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer line that nobody reads for this long ends the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// That nobody is let in is said once, then at most so often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Read and write for owner and group, nobody else.
const SOCKET_MODE: u32 = 0o660;

/// Why the socket could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Somebody answers there.
    #[error("another daemon answers on {}", .0.display())]
    InUse(PathBuf),
    /// The folder or the socket could not be made.
    #[error("cannot open the API socket {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The open socket; removes it when dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Opens the socket with mode 0660. A socket that a dead daemon left is replaced; a living one is refused.
    /// It appears under its name only when it is complete (bound elsewhere, then renamed).
    pub fn bind(path: &Path) -> Result<Server, ServerError> {
        let io = |source| ServerError::Io { path: path.to_owned(), source };
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ServerError::InUse(path.to_owned()));
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io)?;
        }
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        // A file of that name can only be left by a dead process of our number.
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(io)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(SOCKET_MODE)).map_err(io)?;
        fs::rename(&fresh, path).map_err(io)?;
        Ok(Server { listener, path: path.to_owned() })
    }

    /// The next that connects, for whoever speaks a language of its own on this socket.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Serves until dropped.
    ///
    /// # Cancel safety
    /// Dropping it stops accepting; requests being carried out go on in tasks of their own.
    pub async fn serve(&self, node: Arc<dyn NodeControl>) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut said = None::<Instant>;
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        tracing::warn!(%error, "the API socket does not accept; tried again until it does");
                        said = Some(Instant::now());
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let node = Arc::clone(&node);
            let permit = Arc::clone(&room).try_acquire_owned();
            tokio::spawn(async move {
                let (reader, writer) = stream.into_split();
                let mut out = Out { writer };
                let mut reader = BufReader::new(reader);
                let ended = match permit {
                    Ok(_permit) => connection(&mut reader, &mut out, node).await,
                    Err(_) => refuse(&mut reader, &mut out, too_many()).await,
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "an API connection ended early");
                }
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// The writing half of one connection.
struct Out {
    writer: OwnedWriteHalf,
}

impl Out {
    async fn say(&mut self, answer: Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(&AnswerLine { version: VERSION, answer })?;
        line.push(b'\n');
        tokio::time::timeout(WRITE_TIMEOUT, self.writer.write_all(&line)).await?
    }
}

type Lines = BufReader<OwnedReadHalf>;

async fn connection(reader: &mut Lines, out: &mut Out, node: Arc<dyn NodeControl>) -> io::Result<()> {
    let request = match tokio::time::timeout(REQUEST_TIMEOUT, read_request(reader)).await {
        Ok(Ok(line)) => line.request,
        Ok(Err(said)) => return refuse(reader, out, not_understood(said)).await,
        Err(_) => return refuse(reader, out, not_understood("no request came".to_owned())).await,
    };
    if let Request::Events { follow, after } = request {
        return events(reader, out, &*node, follow, after).await;
    }
    let (progress, mut lines) = Progress::channel();
    let (done_tx, mut done) = mpsc::channel(1);
    tokio::spawn(async move {
        let answer = carry_out(&*node, request, progress).await;
        // Whoever asked may have gone away; the work is done all the same.
        let _ = done_tx.send(answer).await;
    });
    loop {
        tokio::select! {
            biased;
            Some(line) = lines.recv() => out.say(Answer::Progress(line)).await?,
            answer = done.recv() => return out.say(answer.unwrap_or_else(|| Answer::Error(died()))).await,
        }
    }
}

/// Says why not, then reads on for a moment: a socket closed on unread bytes is reset, and the answer would be lost.
async fn refuse(reader: &mut Lines, out: &mut Out, failure: Failure) -> io::Result<()> {
    out.say(Answer::Error(failure)).await?;
    out.writer.shutdown().await?;
    let mut sink = tokio::io::sink();
    let mut rest = reader.take(MAX_REQUEST as u64 * 16);
    // Whoever sends more, or for longer, may lose the answer.
    let _ = tokio::time::timeout(Duration::from_secs(1), tokio::io::copy(&mut rest, &mut sink)).await;
    Ok(())
}

/// One line, bounded.
async fn read_request(reader: &mut Lines) -> Result<RequestLine, String> {
    let mut line = Vec::new();
    let read = reader.take(MAX_REQUEST as u64).read_until(b'\n', &mut line).await;
    read.map_err(|e| format!("the request could not be read: {e}"))?;
    if line.pop() != Some(b'\n') {
        return Err(format!("a request is one line of at most {MAX_REQUEST} bytes"));
    }
    let text = String::from_utf8(line).map_err(|_| "a request is UTF-8".to_owned())?;
    text.parse()
}

async fn carry_out(node: &dyn NodeControl, request: Request, progress: Progress) -> Answer {
    let answer = match request {
        Request::Status => node.status().await.map(|s| Reply::Status(Box::new(s))),
        Request::Volumes => node.volumes().await.map(Reply::Volumes),
        Request::Nodes => node.nodes().await.map(Reply::Nodes),
        Request::VolumeCreate(ask) => node.volume_create(ask, progress).await.map(|v| Reply::Volume(Box::new(v))),
        Request::VolumeMount { name } => node.volume_mount(name).await.map(|v| Reply::Volume(Box::new(v))),
        Request::VolumeUnmount { name, force } => node.volume_unmount(name, force).await.map(|()| Reply::Done),
        Request::VolumeMove { name, to } => {
            node.volume_move(name, to, progress).await.map(|v| Reply::Volume(Box::new(v)))
        }
        Request::VolumeRedirect { name, on, node: whom } => {
            node.volume_redirect(name, on, whom).await.map(|()| Reply::Done)
        }
        Request::VolumeCheck { name, repair } => node.volume_check(name, repair, progress).await.map(Reply::Check),
        Request::NodeDrain { node: whom, on } => node.node_drain(whom, on, progress).await.map(|()| Reply::Done),
        Request::NodeRemove { node: whom } => node.node_remove(whom, progress).await.map(|()| Reply::Done),
        Request::DebugDisk { fault } => node.debug_disk(fault).await.map(|()| Reply::Done),
        Request::DebugEvict { name, node: whom } => node.debug_evict(name, whom).await.map(|()| Reply::Done),
        // Streams; taken care of before.
        Request::Events { .. } => Ok(Reply::Done),
    };
    match answer {
        Ok(reply) => Answer::Ok(reply),
        Err(failure) => Answer::Error(failure),
    }
}

async fn events(
    reader: &mut Lines,
    out: &mut Out,
    node: &dyn NodeControl,
    follow: bool,
    mut after: u64,
) -> io::Result<()> {
    let log = node.events();
    let mut bell = log.newest();
    loop {
        bell.mark_unchanged();
        for event in log.after(after) {
            after = event.seq;
            out.say(Answer::Event(event)).await?;
        }
        if !follow {
            return out.say(Answer::Ok(Reply::Done)).await;
        }
        tokio::select! {
            rung = bell.changed() => if rung.is_err() { return out.say(Answer::Ok(Reply::Done)).await },
            // Nothing more is sent to us: this ends only when the asker has gone.
            _ = reader.read_u8() => return Ok(()),
        }
    }
}

fn too_many() -> Failure {
    Failure::failed(
        format!("This daemon serves {MAX_CONNECTIONS} commands at once, and that many are running."),
        "Try again, or end some `events --follow`.",
    )
}

fn not_understood(said: String) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("The daemon did not understand: {said}."),
        "Use a command and a daemon of the same version.",
    )
}

fn died() -> Failure {
    Failure::failed("The daemon dropped this request half way.", "See its log; that is a defect.")
}

#[cfg(test)]
mod tests;
