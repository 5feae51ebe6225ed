//! The kernel's FUSE protocol: typed requests in, linear reply tokens out.
//!
//! - [`Mount::open`] mounts and negotiates; each [`Channel`] it gives is served by one worker.
//! - [`Channel::serve`] calls a handler inline with each [`Request`]: who asks, an [`Operation`], and
//!   a [`Reply`] that is answered once, from any thread, on the descriptor that read the request.
//! - A WRITE's payload is page-aligned where the kernel put it; nothing is copied on the way to a
//!   device.
//! - [`Notifier`] drops the kernel's caches, on a thread of its own. [`Interrupts`] brings INTERRUPT to
//!   whoever waits. [`probe`] tells a live mount from a dead and a silent one.
//! - [`Keeper`], [`Kept`] and [`Inherited`]: a mount that outlives the process that serves it. Its descriptors are kept
//!   by somebody else, and the next process takes it over without INIT and asks the kernel for what was in flight.
//! - [`features::TABLE`]: the optional features of kernels, and what is lost without each.
//!
//! The protocol is 7.45, the floor Linux 6.1 (7.37), the transport classic /dev/fuse with cloned
//! descriptors.
//!
//! Architecture invariants: this crate knows nothing of clusters, disks or metadata; of `block` it uses
//! buffers, workers and units. ENOSYS never leaves it, nothing the kernel sends makes it panic, and
//! WRITEBACK_CACHE is never negotiated.

mod abi;
mod attr;
mod channel;
mod device;
pub mod features;
mod init;
mod interrupt;
mod kept;
mod mount;
mod notify;
pub mod op;
mod parse;
mod reply;
mod request;

pub use attr::{Attr, Entry, FileKind, OpenFlags, Opened, Statfs};
pub use channel::{Channel, Ended, ServeError};
pub use features::{Feature, FeatureSet};
pub use init::{InitRefused, Negotiated};
pub use interrupt::{Interrupts, Watch, Watched};
pub use kept::{Before, Keeper, Keepsake, Kept, RecordError};
pub use mount::{
    AbortError, AllowOther, InheritError, Inherited, Mount, MountError, MountHow, MountOptions, MountState, Resent,
    Unmount, UnmountError, probe, replaces_dead,
};
pub use notify::{Notified, Notifier, NotifyError};
pub use op::{FileHandle, LockOwner, Operation, Time};
pub use reply::{Delivery, DirBuf, Reply};
pub use request::Request;
