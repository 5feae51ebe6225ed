//! A small strict iSCSI target: block devices as logical units, with what a cluster needs of a SAN done right together:
//! COMPARE AND WRITE, persistent reservations, unit attentions, port groups, and aborts that mean something.
//!
//! ```text
//!   initiator ── TCP ──► connection (one task on one worker) ──► logical unit (a lock, held for moments) ──► BlockDevice
//!                           core::login, core::session              core::unit, core::reserve
//! ```
//! - [`Target`] says what is served to whom; [`Server`] serves it.
//! - `core` decides, without I/O. `server` moves bytes: data go straight between a socket and the memory that the device
//!   reads and writes, on the worker that has the connection.
//! - [`store`] keeps reservations over a loss of power.
//!
//! What it refuses: several connections in a session, recovery levels above 0, ACA, protection information,
//! bidirectional commands, third-party copy.
#![forbid(unsafe_code)]

mod core;
mod server;
pub mod store;
mod target;

pub use server::{GroupInfo, Server, ServerError, SessionInfo};
pub use target::{Admission, Lun, LunError, Portal, Target};
