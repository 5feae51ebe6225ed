//! The nexuses of a shared SCSI unit, as the office of a node uses them: each is registered under a key of its own, and carries data
//! only once it was judged.
//!
//! ```text
//!  Down ── a session stands ─► Entered ── register ─► Registered ── its slot, read over it, is good ─► Admitted
//!   ▲  entered under a key of      ▲                      ▲  └── it is not ─► Refused ─┐
//!   │  incarnation 0, announced    │                      └────────── register ────────┘
//!   │                              └──────── a new office (nexuses are announced anew)
//!   └── the session is lost, the registration is gone
//! ```
//! - *Entered* is registered with a key of **incarnation 0**: enough to read lease and slots and to compare and write them while
//!   the unit is held against strangers; no data go over it. Prevents: a node must read its slot to know its incarnation, and
//!   must be registered to read.
//! - **Each entrance has the next number**, and its key with it. Prevents: a nexus is being killed over another one by its
//!   key; it comes back by itself and is registered meanwhile; the late PREEMPT takes the new registration with it.
//! - **Registered, then judged**: the slot is read over the very nexus that was registered. Either a fence came first, and the slot
//!   shows it, or it comes later, and finds the key.
//! - A nexus whose registration is gone is given up: what was sent over it ends with the next login, and only then is it
//!   registered again. Prevents: a write that waits in the target lands behind the new registration.

use scsi::ReservationKey;
use tokio::sync::{mpsc, watch};

use super::key::NexusNumber;
use super::reserve::ReserveError;
use super::{BoxFuture, FenceGen, Notices};
use crate::error::IoError;
use crate::units::ByteOffset;

/// A nexus has entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entrance {
    /// Its number.
    pub number: NexusNumber,
    /// The number of the last entrance of the same way, which is over: nothing is to be asked of it any more.
    pub instead_of: Option<NexusNumber>,
}

/// Why a unit cannot be had alone.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AloneError {
    /// Others are registered, with these keys.
    #[error("others are registered")]
    Others(Vec<ReservationKey>),
    /// A question or a change failed.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

/// All nexuses of this node with one unit.
pub trait Nexuses: Send + Sync {
    /// From now on a new office judges: every nexus that stands enters anew, and so does each that comes up later; their numbers
    /// come here. Who called before hears nothing more.
    fn entered(&self) -> mpsc::UnboundedReceiver<Entrance>;

    /// Registers the nexus of this entrance under this key, and holds the unit against whoever is not registered.
    ///
    /// # Cancel safety
    /// Of this and every change here: a dropped future withdraws nothing.
    fn register(&self, nexus: NexusNumber, key: ReservationKey) -> BoxFuture<'_, Result<(), ReserveError>>;

    /// Reads over this very nexus; an error if it is not the one of that entrance any more.
    fn read_over(&self, nexus: NexusNumber, at: ByteOffset, len: usize) -> BoxFuture<'_, Result<Vec<u8>, IoError>>;

    /// It may carry data: of this generation.
    fn admit(&self, nexus: NexusNumber, generation: FenceGen);

    /// It may not, for now; it may be registered again under the same number.
    fn refuse(&self, nexus: NexusNumber);

    /// READ KEYS over any nexus that is registered, the whole list.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<ReservationKey>, ReserveError>>;

    /// PREEMPT AND ABORT of every registration with this key, over any nexus that is registered; over another as well if the answer takes
    /// long. Waits for as long as one of them may still be answered. **Only an answer counts**: [`Gone`](ReserveError::Gone) says that
    /// none of them was carried out, [`Unknown`](ReserveError::Unknown) that one may have been, and that nobody knows whether the
    /// commands of that nexus have ended.
    fn preempt(&self, victim: ReservationKey) -> BoxFuture<'_, Result<(), ReserveError>>;

    /// Ends every command of every nexus of every node before it is answered.
    fn reset_unit(&self) -> BoxFuture<'_, Result<(), ReserveError>>;

    /// Holds the unit against whoever is not registered.
    fn reserve(&self) -> BoxFuture<'_, Result<(), ReserveError>>;

    /// Whether it is held like that.
    fn is_reserved(&self) -> BoxFuture<'_, Result<bool, ReserveError>>;

    /// Takes the unit for this process alone: refuses if anybody else is registered, then holds it so that only one nexus of this
    /// process, which is admitted, reads and writes; who comes later is not let in. For whoever has no office: formatting, checks.
    fn alone(&self) -> BoxFuture<'_, Result<(), AloneError>>;

    /// A data request without an answer for so long means that its path has failed; well below what the layer above waits.
    fn set_path_timeout(&self, limit: std::time::Duration);

    /// What the unit reports, over all of this node's nexuses with it.
    fn notices(&self) -> watch::Receiver<Notices>;

    /// How the unit is reached: each path, its state, and why.
    fn paths(&self) -> Vec<crate::multipath::PathStatus>;

    /// The volume is left in order: nothing is sent any more, every registration of this node is taken away, and the sessions end. Bounded
    /// in time (8 s). Whether nothing that this process has sent can land any more: of data that is proved, of compare-and-writes, preemptions and
    /// resets under way it is their answer. Otherwise registrations stay, for whoever fences this node.
    fn leave(&self) -> BoxFuture<'_, bool>;
}
