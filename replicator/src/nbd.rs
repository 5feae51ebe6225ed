//! An NBD server: any [`BlockDevice`](block::BlockDevice) for QEMU, libnbd's tools, and the kernel's nbd-client.
//!
//! Written from the protocol's public specification, `doc/proto.md` of NetworkBlockDevice/nbd, and from the branch
//! `extension-ext-header` of the same page for extended headers. Sections of it are named where a rule is kept.
//!
//! ```text
//!   socket ──► server::incoming ──► core::handshake ─► core::transmission ──► core::plan ──► the device
//!     ▲                               (options)           (requests)           (its requests)    │
//!     └─────── server::outgoing ◄──────────────────────── replies ◄──────────────────────────────┘
//! ```
//! - [`core`](mod@core): the protocol without I/O: bytes in, decisions and bytes out.
//! - [`export`]: what is served, under which names, and how it is withdrawn.
//! - [`server`]: sockets. One task per connection, on one worker of `block`; payloads go between socket and the
//!   device's memory without a copy in between, except those of writes that come mixed with other requests.
//! - [`limits`]: every bound.
//!
//! What is promised (docs/semantics/nbd.md numbers it): each request is answered once, or its connection ends; what was
//! acknowledged before a flush was submitted, on whatever connection of that export, is on stable storage when the
//! flush is answered; nothing that a client sends makes the server panic, or hold more memory than [`limits`] say.
//!
//! Refused: the old handshake; TLS below 1.3 (the specification asks for 1.2 too; the cluster speaks 1.3 only);
//! requests that are not multiples of the device's logical block.

pub mod core;
pub mod export;
pub mod limits;
pub mod server;

pub use export::{Export, ExportError, Exports};
pub use server::{Listen, Security, Server, ServerError};
