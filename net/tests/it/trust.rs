//! Who is let in, and what both ends are told when somebody is not.

use net::{DialTarget, DownReason, Features, NetConfig, Role, Security};

use crate::certs::Authority;
use crate::rig::{Node, Seen, any_port, down, plain, subject, tls, up};

fn is_tls(why: &DownReason) -> bool {
    matches!(why, DownReason::Tls(_))
}

fn is_refused_hello(why: &DownReason) -> bool {
    matches!(why, DownReason::HelloRefused(_))
}

#[tokio::test]
async fn a_certificate_of_a_foreign_authority_is_refused_at_both_ends() {
    let mut b = Node::start(tls(&Authority::new(), 2)).await;
    let a = Node::start(tls(&Authority::new(), 1)).await;
    let why = down(&a.net.dial(b.target()), is_tls).await.to_string();
    assert!(why.contains("not signed by this cluster's authority"), "{why}");
    assert!(is_tls(&b.refusal().await));
}

/// A client that trusts the server, whose own certificate the server does not know.
#[tokio::test]
async fn a_client_of_a_foreign_authority_is_refused_and_told_so() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let mut b = Node::start(tls(&ours, 2)).await;
    // Both authorities as CA: its own certificate is good to itself, and the server's too.
    let (cert, key) = foreign.certificate(&[&subject(1)], |_| {});
    let both = ours.ca_pem() + &foreign.ca_pem();
    let material = net::TlsMaterial::from_pem(both, cert, key).unwrap();
    let a = Node::start(Security::Tls(material)).await;
    let dialer = a.net.dial(b.target());
    let why = down(&dialer, is_tls).await.to_string();
    assert!(why.contains("refused"), "{why}");
    let why = b.refusal().await.to_string();
    assert!(why.contains("not signed by this cluster's authority"), "{why}");
}

#[tokio::test]
async fn a_node_other_than_the_one_expected_is_refused() {
    let ca = Authority::new();
    let (a, b) = (Node::start(tls(&ca, 1)).await, Node::start(tls(&ca, 2)).await);
    let dialer = a.net.dial(DialTarget { subject: subject(3), ..b.target() });
    let why = down(&dialer, is_tls).await.to_string();
    assert!(why.contains("wrong node") && why.contains(&subject(3)), "{why}");
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_even_under_the_same_authority() {
    let ca = Authority::new();
    let mut b = Node::start(tls(&ca, 2)).await;
    let foreign = "node-1.0bad.shorefast.internal";
    let a = Node::start(Security::Tls(ca.node(foreign))).await;
    let dialer = a.net.dial(b.target());
    let why = down(&dialer, is_refused_hello).await.to_string();
    assert!(why.contains("is not of this cluster"), "{why}");
    assert!(b.refusal().await.to_string().contains(foreign));
}

#[tokio::test]
async fn without_tls_the_claimed_name_must_still_be_the_expected_one() {
    let (a, b) = (Node::start(plain(1)).await, Node::start(plain(2)).await);
    let dialer = a.net.dial(DialTarget { subject: subject(3), ..b.target() });
    let why = down(&dialer, is_refused_hello).await.to_string();
    assert!(why.contains("wrong node"), "{why}");
}

#[tokio::test]
async fn a_plain_client_at_a_tls_port_is_refused() {
    let mut b = Node::start(tls(&Authority::new(), 2)).await;
    let a = Node::start(plain(1)).await;
    let dialer = a.net.dial(b.target());
    assert_eq!(b.refusal().await, DownReason::Tls("the peer does not speak TLS".into()));
    down(&dialer, |why| !matches!(why, DownReason::Refused)).await;
}

#[tokio::test]
async fn a_tls_client_at_a_plain_port_is_refused() {
    let mut b = Node::start(plain(2)).await;
    let a = Node::start(tls(&Authority::new(), 1)).await;
    let _dialer = a.net.dial(b.target());
    let why = b.refusal().await;
    assert!(matches!(&why, DownReason::Protocol(s) if s.contains("bad magic")), "{why}");
}

#[tokio::test]
async fn a_refused_hello_carries_its_sentence_to_the_dialer() {
    let ca = Authority::new();
    let mut b = Node::start(tls(&ca, 2)).await;
    let a = Node::with(NetConfig::new(any_port(), tls(&ca, 1)), "refuse").await;
    let dialer = a.net.dial(b.target());
    let sentence = "node list 3 is older than 4, held by node-1";
    assert_eq!(down(&dialer, is_refused_hello).await, DownReason::HelloRefused(sentence.into()));
    assert_eq!(b.refusal().await, DownReason::HelloRefused(sentence.into()));
    assert!(b.net.conns().is_empty());
}

#[tokio::test]
async fn a_dialer_that_refuses_the_welcome_tells_the_acceptor() {
    let ca = Authority::new();
    let mut b = Node::with(NetConfig::new(any_port(), tls(&ca, 2)), "refuse").await;
    let a = Node::start(tls(&ca, 1)).await;
    let dialer = a.net.dial(b.target());
    down(&dialer, is_refused_hello).await;
    assert!(is_refused_hello(&b.refusal().await));
}

#[tokio::test]
async fn application_bytes_and_features_are_exchanged_at_hello() {
    let ca = Authority::new();
    let config = |n, offered| NetConfig {
        features: Features { offered, required: 1 },
        ..NetConfig::new(any_port(), tls(&ca, n))
    };
    let (mut a, mut b) = (Node::with(config(1, 0b0111), "I am a").await, Node::with(config(2, 0b1101), "I am b").await);
    let conn = up(&a.net.dial(b.target())).await;
    assert_eq!(conn.features(), 0b0101);
    let hello = |s| if let Seen::Hello(h) = s { Some(h) } else { None };
    let (at_a, at_b) = (a.wait(hello).await, b.wait(hello).await);
    assert_eq!((&at_a.app[..], at_a.role, at_a.features), (&b"I am b"[..], Role::Dialer, 0b0101));
    assert_eq!((&at_b.app[..], at_b.role, at_b.features), (&b"I am a"[..], Role::Acceptor, 0b0101));
}

#[tokio::test]
async fn a_peer_without_a_required_feature_is_refused() {
    let config = NetConfig { features: Features { offered: 8, required: 8 }, ..NetConfig::new(any_port(), plain(2)) };
    let b = Node::with(config, "").await;
    let a = Node::start(plain(1)).await;
    let why = down(&a.net.dial(b.target()), is_refused_hello).await.to_string();
    assert!(why.contains("missing features 0x8"), "{why}");
}
