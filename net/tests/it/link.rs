//! Links that come, go and come back, and what they say about why.

use std::net::SocketAddr;
use std::time::Duration;

use net::{CloseReason, DialTarget, DownReason, LinkState, Message, Net, NetConfig, NetError};
use tokio::net::{TcpListener, TcpSocket};

use crate::certs::Authority;
use crate::rig::{ECHO, Node, PATIENCE, any_port, down, pair, plain, subject, tls, up};

/// A port on which nobody listens.
async fn free_port() -> SocketAddr {
    TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap()
}

fn fast(config: NetConfig) -> NetConfig {
    NetConfig {
        keepalive: Duration::from_millis(50),
        dead_after: Duration::from_millis(200),
        connect_timeout: Duration::from_millis(200),
        handshake_timeout: Duration::from_millis(200),
        ..config
    }
}

#[tokio::test]
async fn a_peer_that_restarts_is_connected_to_again() {
    let ca = Authority::new();
    let (a, b, dialer, first) = pair(tls(&ca, 1), tls(&ca, 2)).await;
    let addr = b.net.local_addr();
    b.net.shutdown().await;
    let why = down(&dialer, |why| matches!(why, DownReason::ClosedByPeer(_) | DownReason::Refused)).await;
    assert_ne!(why, DownReason::Reset, "an orderly end says goodbye");
    down(&dialer, |why| *why == DownReason::Refused).await;
    let _b = Node::with(NetConfig::new(addr, tls(&ca, 2)), "").await;
    dialer.retry_now();
    let second = up(&dialer).await;
    assert_ne!(first.id(), second.id());
    assert_eq!(second.call(Message::new(ECHO, 0, "again")).await.unwrap().body, "again");
    drop(a);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused() {
    let a = Node::start(plain(1)).await;
    let dialer = a.net.dial(DialTarget::new(free_port().await, subject(2)));
    assert_eq!(down(&dialer, |_| true).await, DownReason::Refused);
    assert!(dialer.conn().is_none());
}

#[tokio::test]
async fn a_full_backlog_is_a_timeout_and_not_a_refusal() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(any_port()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    // Nobody accepts: soon the kernel answers no more SYNs.
    let mut filling = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(addr)).await
    {
        filling.push(stream.unwrap());
        assert!(filling.len() < 100, "the backlog never fills");
    }
    let a = Node::with(fast(NetConfig::new(any_port(), plain(1))), "").await;
    assert_eq!(down(&a.net.dial(DialTarget::new(addr, subject(2))), |_| true).await, DownReason::TimedOut);
}

#[tokio::test]
async fn a_listener_that_never_says_anything_is_a_timeout() {
    let silent = TcpListener::bind(any_port()).await.unwrap();
    let target = DialTarget::new(silent.local_addr().unwrap(), subject(2));
    for security in [plain(1), tls(&Authority::new(), 1)] {
        let a = Node::with(fast(NetConfig::new(any_port(), security)), "").await;
        assert_eq!(down(&a.net.dial(target.clone()), |_| true).await, DownReason::TimedOut);
    }
}

#[tokio::test]
async fn a_client_that_never_says_anything_is_cut_off() {
    for security in [plain(2), tls(&Authority::new(), 2)] {
        let mut b = Node::with(fast(NetConfig::new(any_port(), security)), "").await;
        let _silent = tokio::net::TcpStream::connect(b.net.local_addr()).await.unwrap();
        assert_eq!(b.refusal().await, DownReason::TimedOut);
    }
}

#[tokio::test]
async fn an_address_that_is_not_ours_to_bind_is_unreachable() {
    let (a, b) = (Node::start(plain(1)).await, Node::start(plain(2)).await);
    let dialer = a.net.dial(DialTarget { bind: Some([192, 0, 2, 1].into()), ..b.target() });
    assert!(matches!(down(&dialer, |_| true).await, DownReason::Unreachable(_)));
}

#[tokio::test]
async fn the_source_address_is_the_one_asked_for() {
    let (a, b) = (Node::start(plain(1)).await, Node::start(plain(2)).await);
    let dialer = a.net.dial(DialTarget { bind: Some([127, 0, 0, 9].into()), ..b.target() });
    up(&dialer).await;
    let mut b = b;
    let remote = b.wait(|s| if let crate::rig::Seen::Opened(c) = s { Some(c.remote()) } else { None }).await;
    assert_eq!(remote.ip(), std::net::IpAddr::from([127, 0, 0, 9]));
}

#[tokio::test]
async fn addresses_are_tried_in_order_and_refused_only_if_all_refuse() {
    let (a, b) = (Node::start(plain(1)).await, Node::start(plain(2)).await);
    let dead = free_port().await;
    let both = DialTarget { addrs: vec![dead, b.net.local_addr()], ..b.target() };
    up(&a.net.dial(both)).await;
    let silent = TcpListener::bind(any_port()).await.unwrap();
    let a = Node::with(fast(NetConfig::new(any_port(), plain(1))), "").await;
    for addrs in [[dead, silent.local_addr().unwrap()], [silent.local_addr().unwrap(), dead]] {
        let dialer = a.net.dial(DialTarget { addrs: addrs.into(), ..b.target() });
        assert_eq!(down(&dialer, |_| true).await, DownReason::TimedOut);
    }
    let nowhere = a.net.dial(DialTarget { addrs: vec![], ..b.target() });
    assert!(matches!(down(&nowhere, |_| true).await, DownReason::Unreachable(_)));
}

/// The peer speaks until the connection is open and then freezes, as a stopped process does.
#[tokio::test]
async fn the_keep_alive_ends_a_connection_to_a_frozen_peer() {
    let (frozen, release) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let (addr_tx, addr_rx) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let node = runtime.block_on(Node::start(plain(2)));
        addr_tx.send(node.net.local_addr()).unwrap();
        let mut node = node;
        runtime.block_on(node.wait(|s| matches!(s, crate::rig::Seen::Opened(_)).then_some(())));
        frozen.0.send(()).unwrap();
        // The runtime's only thread stands still here: sockets open, nothing read, nothing said.
        release.1.recv().unwrap_err();
    });
    // The peer freezes as soon as it has accepted: this HELLO must not time out.
    let config = NetConfig { handshake_timeout: PATIENCE, ..fast(NetConfig::new(any_port(), plain(1))) };
    let a = Node::with(config, "").await;
    let dialer = a.net.dial(DialTarget::new(addr_rx.await.unwrap(), subject(2)));
    let conn = up(&dialer).await;
    let call = conn.call(Message::new(ECHO, 0, ""));
    let conn_ends = tokio::time::timeout(PATIENCE, conn.closed());
    let (_, ended) = tokio::join!(call, conn_ends);
    assert_eq!(ended.unwrap(), CloseReason::TimedOut);
    down(&dialer, |why| *why == DownReason::TimedOut).await;
    drop(release.0);
    drop(frozen.1);
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_process_that_dies_without_goodbye_is_a_reset_and_then_refused() {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let a = Node::start(plain(1)).await;
    let dialer = a.net.dial(DialTarget::new(addr, subject(2)));
    let (stream, _) = listener.accept().await.unwrap();
    drop((stream, listener));
    let mut state = dialer.state();
    let first = tokio::time::timeout(PATIENCE, state.wait_for(|s| matches!(s, LinkState::Down { .. })));
    assert!(matches!(&*first.await.unwrap().unwrap(), LinkState::Down { why: DownReason::Reset, .. }));
    down(&dialer, |why| *why == DownReason::Refused).await;
}

#[tokio::test]
async fn a_dropped_dialer_closes_its_connection() {
    let (mut a, mut b, dialer, conn) = pair(plain(1), plain(2)).await;
    drop(dialer);
    let why = "the dialer was dropped";
    assert_eq!(a.close().await, CloseReason::Local(why.into()));
    assert_eq!(b.close().await, CloseReason::Peer(why.into()));
    assert!(!conn.is_open());
}

#[tokio::test]
async fn a_shut_down_endpoint_no_longer_listens_nor_dials() {
    let (a, b, dialer, _conn) = pair(plain(1), plain(2)).await;
    let addr = b.net.local_addr();
    b.net.shutdown().await;
    a.net.shutdown().await;
    assert!(tokio::time::timeout(PATIENCE, dialer.up()).await.unwrap().is_none());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let b = Node::start(plain(2)).await;
    let config = NetConfig::new(b.net.local_addr(), plain(1));
    struct Nobody;
    impl net::Service for Nobody {
        fn hello(&self, _: &net::PeerHello) -> Result<bytes::Bytes, net::Refusal> {
            Err(net::Refusal::new("nobody"))
        }
        fn opened(&self, _: &std::sync::Arc<net::Conn>) {}
        fn request(&self, _: &std::sync::Arc<net::Conn>, _: Message, _: net::ReplyTo) {}
        fn oneway(&self, _: &std::sync::Arc<net::Conn>, _: Message) {}
        fn closed(&self, _: &std::sync::Arc<net::Conn>, _: &CloseReason) {}
    }
    let service = std::sync::Arc::new(Nobody);
    let why = Net::start(config.clone(), service.clone()).await.err().unwrap();
    assert!(matches!(&why, NetError::Bind { addr, .. } if *addr == b.net.local_addr()), "{why}");
    let wrong = NetConfig { dead_after: config.keepalive, listen: any_port(), ..config };
    assert!(matches!(Net::start(wrong, service).await, Err(NetError::Config(_))));
}
