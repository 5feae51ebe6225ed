//! What travels: PDUs on connections, with the time at which they come.

use crate::pdu::Bhs;
use crate::session::ConnId;

/// A PDU with its data.
#[derive(Clone, Debug)]
pub(super) struct Pdu {
    pub(super) bhs: Bhs,
    pub(super) data: Vec<u8>,
}

/// What happens, sooner or later.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// A PDU reaches the target.
    AtTarget(ConnId, Pdu),
    /// A PDU reaches the host.
    AtHost(ConnId, Pdu),
    /// A connection stands, or does not.
    Connected(ConnId, bool),
    /// The host sees that a connection was closed by the target.
    Closed(ConnId),
    /// The answer to a task that was aborted: tag and length.
    Late(ConnId, u32, u32),
    /// The host tries again to prove a nexus.
    Prove(u64),
    /// The host aborts what older nexuses of it may still have in flight.
    Preempt(u64),
    /// The target executes a task.
    Execute(u64),
    /// The host's clock.
    Tick,
    /// The application does something.
    App,
    /// The host hears that it was fenced.
    HearFence(u64),
    /// The target sends something on its own.
    Whim,
    /// A fault.
    Fault,
}
