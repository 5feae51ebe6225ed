//! An iSCSI initiator in user space: sessions on tokio, a logical unit as a [`block::device::BlockDevice`].
//!
//! What a session may do and when is decided in [`iscsi::session`]; here are its socket, its clock, its memory:
//! - [`driver`]: one local task per session moves bytes and carries out effects. No task per command; payloads of
//!   reads go from the socket into the caller's memory, payloads of writes from it.
//! - [`mod@unit`]: what a logical unit is ([`Identity`]), and the device made of it.
//! - [`path`], [`lun`]: a session as a path, and one unit over many of them: over several portals, and for each worker its
//!   own.
//! - [`shared`]: such a unit as several nodes share it: nexuses that an office lets in.
//! - [`kernel`]: a SCSI disk of the kernel in place of a session, for units that this host's own initiators reach.
//! - [`discovery`]: which targets a portal has.
//! - [`url`][]: `iscsi://[user[%secret]@]host[:port]/target/lun`.
//!
//! Architecture invariant: every submitted request completes exactly once, also when the session ends or its worker
//! does.
#![forbid(unsafe_code)]

pub mod discovery;
pub mod driver;
pub mod kernel;
pub mod lun;
pub mod path;
pub mod shared;
pub mod unit;
pub mod url;

pub use driver::{Ended, Era, Ownership, Place, Request, Session, SessionState};
pub use lun::Lun;
pub use path::LunPath;
pub use unit::{Identity, LunDevice, UnitError};
pub use url::Url;
