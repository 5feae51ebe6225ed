//! A peer that speaks TCP, gets through HELLO or not, and then sends what it should not.

use bytes::Bytes;
use net::frame::{HEADER_LEN, Header, Kind};
use net::hello::Hello;
use net::{CloseReason, DownReason, Features};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Node, Seen, plain, subject};

fn frame(header: Header, body: &[u8]) -> Vec<u8> {
    [&header.encode()[..], body].concat()
}

fn hello(versions: (u8, u8)) -> Vec<u8> {
    let hello = Hello { versions, features: Features::default(), subject: subject(1), app: Bytes::new() };
    let body = hello.encode();
    frame(Header::new(Kind::Hello, &body, &[]), &body)
}

async fn read_frame(io: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_LEN];
    io.read_exact(&mut header).await.ok()?;
    let header = Header::decode(&header).unwrap();
    let mut data = vec![0; (header.body_len + header.payload_len) as usize];
    io.read_exact(&mut data).await.ok()?;
    Some((header, data))
}

/// An acceptor, and a raw stream on which the HELLO is done.
async fn open() -> (Node, TcpStream) {
    let mut b = Node::start(plain(2)).await;
    let mut io = TcpStream::connect(b.net.local_addr()).await.unwrap();
    io.write_all(&hello(Hello::VERSIONS)).await.unwrap();
    assert_eq!(read_frame(&mut io).await.unwrap().0.kind, Kind::Welcome);
    io.write_all(&frame(Header::new(Kind::Ready, &[], &[]), &[])).await.unwrap();
    b.wait(|s| matches!(s, Seen::Opened(_)).then_some(())).await;
    (b, io)
}

/// Sends these bytes on an open connection: it must close as a protocol violation whose reason has `words`, and
/// the sender must be told.
async fn closes(bytes: &[u8], words: &str) {
    let (mut b, mut io) = open().await;
    io.write_all(bytes).await.unwrap();
    match b.close().await {
        CloseReason::Protocol(why) => assert!(why.contains(words), "{why}"),
        other => panic!("{other}"),
    }
    let (header, sentence) = read_frame(&mut io).await.unwrap();
    assert_eq!(header.kind, Kind::Bye);
    assert!(String::from_utf8_lossy(&sentence).contains(words));
    assert!(read_frame(&mut io).await.is_none());
}

fn request(body_len: u32, payload_len: u32) -> Header {
    Header { request_id: 1, body_len, payload_len, ..Header::new(Kind::Request, &[], &[]) }
}

#[tokio::test]
async fn an_oversized_header_closes() {
    closes(&frame(request((1 << 20) + 1, 0), &[]), "body of 1048577 bytes").await;
    closes(&frame(request(0, u32::MAX), &[]), "payload of 4294967295 bytes").await;
}

#[tokio::test]
async fn a_corrupted_header_checksum_closes() {
    let mut bytes = frame(request(0, 0), &[]);
    bytes[20] ^= 1;
    closes(&bytes, "the header's checksum is wrong").await;
}

#[tokio::test]
async fn a_corrupted_body_closes() {
    let mut bytes = frame(Header { request_id: 1, ..Header::new(Kind::Request, b"body", &[]) }, b"body");
    bytes[65] ^= 1;
    closes(&bytes, "the checksum of body and payload is wrong").await;
}

#[tokio::test]
async fn noise_closes() {
    closes(&[0xa5; 64], "bad magic").await;
}

#[tokio::test]
async fn a_second_hello_closes() {
    closes(&hello(Hello::VERSIONS), "unexpected frame of kind Hello").await;
}

#[tokio::test]
async fn an_answer_to_nothing_closes() {
    closes(&frame(Header { request_id: 9, ..Header::new(Kind::Reply, &[], &[]) }, &[]), "not outstanding").await;
}

/// What an acceptor says of bytes that come instead of a HELLO.
async fn refused(bytes: &[u8]) -> (DownReason, Option<String>) {
    let mut b = Node::start(plain(2)).await;
    let mut io = TcpStream::connect(b.net.local_addr()).await.unwrap();
    io.write_all(bytes).await.unwrap();
    let told = read_frame(&mut io).await.map(|(header, body)| {
        assert_eq!(header.kind, Kind::Refuse);
        String::from_utf8(body).unwrap()
    });
    (b.refusal().await, told)
}

#[tokio::test]
async fn a_request_before_hello_is_refused() {
    let (why, told) = refused(&frame(request(4, 0), b"evil")).await;
    assert_eq!(why, DownReason::Protocol("unexpected frame of kind Request".into()));
    assert_eq!(told, None);
}

#[tokio::test]
async fn ready_before_hello_is_refused() {
    let (why, _) = refused(&frame(Header::new(Kind::Ready, &[], &[]), &[])).await;
    assert_eq!(why, DownReason::Protocol("Hello expected, Ready found".into()));
}

#[tokio::test]
async fn an_oversized_hello_is_refused_by_its_header() {
    let header = Header { body_len: (64 << 10) + 1, ..Header::new(Kind::Hello, &[], &[]) };
    assert!(matches!(refused(&frame(header, &[])).await.0, DownReason::Protocol(_)));
}

#[tokio::test]
async fn a_malformed_hello_is_refused_with_a_sentence() {
    let (why, told) = refused(&frame(Header::new(Kind::Hello, b"short", &[]), b"short")).await;
    assert_eq!(told.as_deref(), Some("malformed HELLO: shorter than its fixed part"));
    assert_eq!(why, DownReason::HelloRefused(told.unwrap()));
}

#[tokio::test]
async fn a_version_from_the_future_is_refused_with_both_ranges() {
    let (_, told) = refused(&hello((7, 9))).await;
    assert_eq!(told.as_deref(), Some("no common version: one end speaks 1..1, the other 7..9"));
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_of_a_frame_is_a_reset() {
    let whole = frame(Header { request_id: 1, ..Header::new(Kind::Request, b"body", &[]) }, b"body");
    for cut in [0, 1, 63, 64, 67] {
        let (mut b, mut io) = open().await;
        io.write_all(&whole[..cut]).await.unwrap();
        drop(io);
        assert_eq!(b.close().await, CloseReason::Reset, "cut at {cut}");
    }
}
