//! Persistent reservations, as a fence uses them: register a nexus, hold the disk, take a dead node's right away.
//!
//! Each [`Reservations`] is **one nexus**: what it registers is that nexus alone. A change whose outcome is in doubt is
//! settled by READ KEYS and READ RESERVATION before it is answered; what cannot be settled is [`ReserveError::Unknown`].
//!
//! [`exclude`] is the fence of this kind of disk. It refuses to call a node excluded before a reservation that keeps strangers
//! out is held: without one, an unregistered nexus may write. Prevents: the victim's keys are gone, nothing is
//! reserved, and its next write lands.

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;

use scsi::ReservationKey;
use scsi::action::Failure;
use scsi::reservations::{FullStatus, Held, Keys, ReservationType};

use super::key::{NexusKey, VolumeTag};
use super::{BoxFuture, Excluded, Incarnation, NodeId};

/// The type that is held: only registrants read and write, and each of them holds it, so that it outlives every one but
/// the last.
pub const HELD_TYPE: ReservationType = ReservationType::ExclusiveAccessAllRegistrants;

/// Rounds of reading keys and preempting before a fence gives up: a node registers no new nexus once its slot's fence
/// generation was raised, so that one round is the rule and a second one a race with another fencer.
const ROUNDS: usize = 8;

/// Why a change of reservations, or a question about them, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// This nexus has no registration (any more): this node must take itself for fenced.
    #[error("this nexus is not registered")]
    NotRegistered,
    /// No nexus has the key that was to be preempted: nothing was done. Who has taken it away, and whether the commands of its nexus
    /// have ended, is not known.
    #[error("no nexus has that key")]
    Gone,
    /// Somebody else holds the disk in another way.
    #[error("the disk is reserved by others")]
    Reserved,
    /// The disk refuses, for this reason.
    #[error("{0}")]
    Refused(Failure),
    /// No answer, and no way to find out in time: the change may have been made, or may still be.
    #[error("nobody knows whether it was done: {0}")]
    Unknown(String),
    /// The answer makes no sense.
    #[error(transparent)]
    Unreadable(#[from] scsi::ParseError),
}

/// Why a node could not be excluded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExcludeError {
    /// A question or a change failed.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// Keys of the victim come again and again.
    #[error("the node registers again and again")]
    KeysComeBack,
    /// The disk is not held so that strangers are kept out.
    #[error("the disk is not reserved for registrants only")]
    NotHeld,
}

/// What a registration is to survive. The last registration of any nexus decides for the whole disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// A loss of the target's power too: what a shared volume needs. Otherwise a node that was fenced before writes again
    /// after it.
    ThroughPowerLoss,
    /// All but that; for disks that cannot do more.
    UntilPowerLoss,
}

/// One nexus' persistent reservations.
pub trait Reservations: Send + Sync {
    /// Registers this nexus, which has no registration. There is no way to register
    /// anew after a conflict: a nexus that lost its registration is given up.
    ///
    /// # Cancel safety
    /// Of this and every change: a dropped future withdraws nothing.
    fn register(&self, key: ReservationKey, keeps: Keeps) -> BoxFuture<'_, Result<(), ReserveError>>;

    /// Takes this nexus' own registration away.
    fn unregister(&self, key: ReservationKey) -> BoxFuture<'_, Result<(), ReserveError>>;

    /// Reserves the disk. Well if it is held so already.
    fn reserve(&self, key: ReservationKey, kind: ReservationType) -> BoxFuture<'_, Result<(), ReserveError>>;

    /// Removes every registration with the key `victim`; with `abort`, what its nexuses have outstanding is aborted before
    /// the answer: **only that answer is a proof**. [`Gone`](ReserveError::Gone) if no nexus has that key.
    fn preempt(
        &self,
        own: ReservationKey,
        victim: ReservationKey,
        kind: ReservationType,
        abort: bool,
    ) -> BoxFuture<'_, Result<(), ReserveError>>;

    /// Ends every command of every nexus before it is answered (LOGICAL UNIT RESET). Registrations and the reservation stay. Whoever had
    /// something under way has to send it again, and is told that the unit was reset.
    fn reset_unit(&self) -> BoxFuture<'_, Result<(), ReserveError>>;

    /// The whole list of registered keys, or an error; never a part of it.
    fn keys(&self) -> BoxFuture<'_, Result<Keys, ReserveError>>;

    /// What is held.
    fn reservation(&self) -> BoxFuture<'_, Result<Held, ReserveError>>;

    /// Every registration with its nexus. Not every target tells.
    fn registrants(&self) -> BoxFuture<'_, Result<FullStatus, ReserveError>>;
}

/// Excludes one incarnation of a node: PREEMPT AND ABORT of each of its keys that the disk shows, until none is left;
/// then the reservation must be of the right type. The caller has raised the fence generation in the victim's slot before, and sees to
/// it that nobody else is just fencing the same node: keys that another takes away meanwhile are gone before their nexuses' commands
/// have ended, which is not seen here.
///
/// # Cancel safety
/// A dropped future proves nothing; keys that are gone stay gone.
pub async fn exclude(
    nexus: &dyn Reservations,
    own: NexusKey,
    victim: (NodeId, Incarnation),
) -> Result<Excluded, ExcludeError> {
    let (node, incarnation) = victim;
    for _ in 0..ROUNDS {
        let keys = nexus.keys().await?.keys;
        if !keys.contains(&own.key()) {
            return Err(ReserveError::NotRegistered.into());
        }
        let victims = of_victim(&keys, own.volume, node, incarnation);
        if victims.is_empty() {
            return match nexus.reservation().await?.reservation {
                Some(held) if held.kind == HELD_TYPE => Ok(Excluded::by_preemption(node, incarnation)),
                _ => Err(ExcludeError::NotHeld),
            };
        }
        for key in victims {
            nexus.preempt(own.key(), key, HELD_TYPE, true).await?;
        }
    }
    Err(ExcludeError::KeysComeBack)
}

fn of_victim(
    keys: &[ReservationKey],
    volume: VolumeTag,
    node: NodeId,
    incarnation: Incarnation,
) -> Vec<ReservationKey> {
    let mut victims: Vec<ReservationKey> = keys.to_vec();
    victims.retain(|key| NexusKey::parse(*key).is_some_and(|k| k.is_of(volume, node, incarnation)));
    victims.sort_unstable();
    victims.dedup();
    victims
}
