//! How nodes talk: frames, requests and replies in both directions over one TCP connection, mutual TLS.
//!
//! ```text
//!  application (Service)            Conn::call, post           Dialer: LinkState
//!        ▲                               │                          │
//!        │ request, oneway               ▼                          ▼
//!  driver: reader ◄─ Framer      Outbox ─► driver: writer      connect, back-off
//!        ▲                               │                          │
//!        └──────────── TLS or plain TCP ─┴──── handshake (HELLO) ───┘
//! ```
//! Pure modules (no clock, no tokio): `frame`, `framer`, `calls`, `budget`, `keepalive`, `backoff`, `hello`,
//! `outgoing`. The rest is the shell around them. Every bound is in [`limits`]. The bytes are drawn in
//! docs/formats/frames.md.
//!
//! What it promises: a call is answered, or fails with the reason for which the connection ended, exactly once;
//! what a peer sends can end its connection, with a logged reason, and nothing else. What it does not promise:
//! any order between messages in flight; that a failed call was not executed.
//!
//! Used by csv-fs and by whatever else needs to reach another node; knows nothing of volumes. Of `block` it
//! uses the aligned buffers only.
#![forbid(unsafe_code)]

// What unit and integration tests share names this crate as an outsider does.
#[cfg(test)]
extern crate self as net;

mod backoff;
pub mod budget;
pub mod calls;
mod conn;
mod dialer;
mod driver;
mod endpoint;
mod error;
pub mod frame;
pub mod framer;
mod handshake;
pub mod hello;
mod keepalive;
pub mod limits;
mod message;
mod outbox;
mod outgoing;
mod reply;
mod service;
pub mod tls;

pub use conn::{Conn, NotNow};
pub use dialer::{DialTarget, Dialer, LinkState};
pub use endpoint::{Net, NetConfig, Security};
pub use error::{CallError, CloseReason, DownReason, NetError, Refusal};
pub use hello::{Features, MAX_APP};
pub use message::{Message, Payload};
pub use reply::ReplyTo;
pub use service::{PeerHello, PeerIdentity, Role, Service};
pub use tls::{TlsError, TlsMaterial};
