//! Bare round trips of `net`: a process that only answers, and threads that only ask.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use net::{
    CloseReason, Conn, DialTarget, Dialer, Message, Net, NetConfig, PeerHello, Refusal, ReplyTo, Security, Service,
};
use tokio::runtime::Runtime;

use crate::arms::{Arm, Measured, on_threads};
use crate::{Failure, bundle};

/// Until the connection is there.
const CONNECT: Duration = Duration::from_secs(10);
/// About what a call for a look-up is long.
const QUESTION: [u8; 56] = [3; 56];

/// The process that answers; dropped, it is ended.
pub(super) struct Bare {
    child: Child,
    address: SocketAddr,
    bundle: PathBuf,
}

impl Bare {
    pub(super) fn start(programs: &Path, bundle: &Path) -> Result<Bare, Failure> {
        let program = programs.join("bare-net");
        let failed = |e: &dyn std::fmt::Display| Failure::at(&program, e);
        let started = Command::new(&program).arg(bundle).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.map_err(|e| failed(&e))?;
        let mut said = String::new();
        let heard = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut said));
        let address = said.trim().parse();
        let bare =
            Bare { child, address: address.clone().unwrap_or(([0, 0, 0, 0], 0).into()), bundle: bundle.to_owned() };
        match (heard, address) {
            (Some(Ok(_)), Ok(_)) => Ok(bare),
            _ => Err(failed(&"it did not say where it listens")),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nobody asks this end anything.
struct Silent;

impl Service for Silent {
    fn hello(&self, _: &PeerHello) -> Result<Bytes, Refusal> {
        Ok(Bytes::new())
    }

    fn opened(&self, _: &Arc<Conn>) {}

    fn request(&self, _: &Arc<Conn>, _: Message, reply: ReplyTo) {
        reply.fail("this end answers nothing");
    }

    fn oneway(&self, _: &Arc<Conn>, _: Message) {}

    fn closed(&self, _: &Arc<Conn>, _: &CloseReason) {}
}

/// The arm: each thread asks, waits for the answer, and asks again, all over one connection.
pub(super) struct Calls {
    runtime: Runtime,
    net: Net,
    /// Dropped, the connection ends.
    _dialer: Dialer,
    threads: usize,
}

impl Calls {
    pub(super) fn connect(to: &Bare, bundle: &Path, threads: usize) -> Result<Calls, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the bare connection: {e}"));
        let (_, subject) = bundle::read(&to.bundle)?;
        let (material, _) = bundle::read(bundle)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| failed(&e))?;
        let config = NetConfig::new((std::net::Ipv4Addr::LOCALHOST, 0).into(), Security::Tls(material));
        let net = runtime.block_on(Net::start(config, Arc::new(Silent))).map_err(|e| failed(&e))?;
        let dialer = net.dial(DialTarget::new(to.address, subject));
        let calls = Calls { runtime, net, _dialer: dialer, threads };
        let begin = Instant::now();
        while calls.net.conns().is_empty() {
            if begin.elapsed() > CONNECT {
                return Err(failed(&"it does not come about"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(calls)
    }
}

impl Arm for Calls {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let conn = self.net.conns().pop().ok_or_else(|| Failure::new("the bare connection has ended"))?;
        let (begin, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
        let ops = on_threads((0..self.threads).map(|_| {
            || {
                let mut calls = 0;
                while begin.elapsed() < limit {
                    let answer = self.runtime.block_on(conn.call(Message::new(1, 1, &QUESTION[..])));
                    answer.map_err(|e| Failure::new(format!("a bare call: {e}")))?;
                    calls += 1;
                }
                Ok(calls)
            }
        }))?;
        Ok(Measured::since(begin, ops))
    }
}
