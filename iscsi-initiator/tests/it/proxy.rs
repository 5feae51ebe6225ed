//! A stretch of wire that can be cut without anybody being told: bytes go in and do not come out, as behind a switch that
//! has failed. What was swallowed is lost, and with it the connection that it was of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The proxy; its end is the end of what passes. Not to be dropped where tasks run.
pub(crate) struct Proxy {
    port: u16,
    wire: Arc<Wire>,
    _thread: tokio::runtime::Runtime,
}

/// What may be done to it, from anywhere.
#[derive(Default)]
pub(crate) struct Wire {
    swallows: AtomicBool,
    /// Cuts so far: a connection of before the last one passes nothing any more.
    cuts: AtomicU64,
}

impl Proxy {
    /// In front of a port of 127.0.0.1.
    pub(crate) fn start(to: u16) -> Proxy {
        let thread = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let thread = thread.expect("a runtime");
        let wire = Arc::new(Wire::default());
        let listener = thread.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::clone(&wire);
        thread.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let born = shared.cuts.load(Ordering::SeqCst);
                let ((cr, cw), (sr, sw)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(cr, sw, Arc::clone(&shared), born));
                tokio::spawn(pass(sr, cw, Arc::clone(&shared), born));
            }
        });
        Proxy { port, wire, _thread: thread }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.wire)
    }
}

impl Wire {
    /// From now on nothing comes through, and nobody is told.
    pub(crate) fn swallow(&self) {
        self.swallows.store(true, Ordering::SeqCst);
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// New connections pass again.
    pub(crate) fn pass(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        self.swallows.store(false, Ordering::SeqCst);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    wire: Arc<Wire>,
    born: u64,
) {
    let mut bytes = vec![0; 1 << 16];
    let mut swallowed = false;
    while let Ok(n) = from.read(&mut bytes).await {
        if n == 0 {
            break;
        }
        swallowed |= wire.swallows.load(Ordering::SeqCst) || wire.cuts.load(Ordering::SeqCst) != born;
        if !swallowed && to.write_all(&bytes[..n]).await.is_err() {
            break;
        }
    }
}
