//! Persistent reservations of one nexus: the session of a [`LunDevice`].
//!
//! A change is sent once. Where its answer is lost, or is RESERVATION CONFLICT, the keys and the reservation tell whether
//! it was made ([`scsi::reservations::settle`]); after a lost nexus they are read on the next one at the same portal
//! group, whose login has ended the older one's tasks. **PREEMPT AND ABORT is not settled like that**: its key is gone before the
//! commands of that nexus have ended, whoever has taken it away.

use std::sync::Arc;
use std::time::Duration;

use block::buf::AlignedBuf;
use block::shared::{BoxFuture, Keeps, Reservations, ReserveError};
use iscsi::ids::PortalGroup;
use iscsi::session::{Class, Outcome};
use scsi::action::{self, Action, Failure};
use scsi::reservations::{Change, FullStatus, Held, InAction, Keys, Registration, ReservationType, Settled, settle};
use scsi::{ReservationKey, Sense};

use super::UnitError;
use super::ask::pause;
use super::device::{Inner, LunDevice, Registered};
use crate::driver::SessionState;

/// How long the next nexus may take when the answer to a change was lost: a login with its pauses. A fence that cannot
/// find out in that time is begun anew by whoever wants it.
const NEXUS_WITHIN: Duration = Duration::from_secs(20);
/// How often a busy unit is asked.
const BUSY_TRIES: u8 = 25;

impl Reservations for LunDevice {
    fn register(&self, key: ReservationKey, keeps: Keeps) -> BoxFuture<'_, Result<(), ReserveError>> {
        Box::pin(async move {
            if self.inner.registered().is_some() {
                return Err(ReserveError::Reserved);
            }
            let persist = keeps == Keeps::ThroughPowerLoss;
            let to = Registration { persist, ..Registration::persistent(key) };
            change(&self.inner, &Change::Register { from: ReservationKey::NONE, to }).await?;
            self.inner.set_registered(Some(Registered { key, persist, holds: None }));
            Ok(())
        })
    }

    fn unregister(&self, key: ReservationKey) -> BoxFuture<'_, Result<(), ReserveError>> {
        Box::pin(async move {
            // Before: what is answered meanwhile is not to be taken for a fence.
            let before = self.inner.registered();
            self.inner.set_registered(None);
            let persist = before.is_some_and(|r| r.persist);
            let to = Registration { persist, ..Registration::default() };
            let changed = change(&self.inner, &Change::Register { from: key, to }).await;
            if changed.is_err() {
                self.inner.set_registered(before);
            }
            changed
        })
    }

    fn reserve(&self, key: ReservationKey, kind: ReservationType) -> BoxFuture<'_, Result<(), ReserveError>> {
        Box::pin(async move {
            change(&self.inner, &Change::Reserve { key, kind }).await?;
            self.inner.holds(kind);
            Ok(())
        })
    }

    fn preempt(
        &self,
        own: ReservationKey,
        victim: ReservationKey,
        kind: ReservationType,
        abort: bool,
    ) -> BoxFuture<'_, Result<(), ReserveError>> {
        Box::pin(async move { change(&self.inner, &Change::Preempt { key: own, victim, kind, abort }).await })
    }

    fn reset_unit(&self) -> BoxFuture<'_, Result<(), ReserveError>> {
        Box::pin(async move {
            match self.inner.session().reset_unit(self.inner.lun()).await {
                true => Ok(()),
                false => Err(ReserveError::Unknown("the unit was not reset".to_owned())),
            }
        })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Keys, ReserveError>> {
        Box::pin(async move { ask(&self.inner, InAction::ReadKeys, Keys::parse).await })
    }

    fn reservation(&self) -> BoxFuture<'_, Result<Held, ReserveError>> {
        Box::pin(async move { ask(&self.inner, InAction::ReadReservation, Held::parse).await })
    }

    fn registrants(&self) -> BoxFuture<'_, Result<FullStatus, ReserveError>> {
        Box::pin(async move { ask(&self.inner, InAction::ReadFullStatus, FullStatus::parse).await })
    }
}

impl LunDevice {
    /// Registers this nexus right after its login, whatever registration it has from before, and holds the unit against strangers.
    /// Only then: what was sent over an earlier nexus of this name has ended with that login, and nothing was sent over this one.
    pub(crate) async fn enter(&self, key: ReservationKey, kind: ReservationType) -> Result<(), ReserveError> {
        let to = Registration { persist: true, ..Registration::persistent(key) };
        change(&self.inner, &Change::RegisterAndIgnore { to }).await?;
        self.inner.set_registered(Some(Registered { key, persist: true, holds: None }));
        self.reserve(key, kind).await?;
        // Who is not registered is not told: until now the cache was reckoned with as one that loses what is in it.
        super::follow::read_mode(&self.inner).await.map_err(|kind| ReserveError::Unknown(kind.to_string()))
    }

    /// Registers this nexus, which has a registration, with another key. If that registration is gone this fails, and the nexus must
    /// be given up.
    pub(crate) async fn change_key(&self, key: ReservationKey, kind: ReservationType) -> Result<(), ReserveError> {
        let Some(before) = self.inner.registered() else { return Err(ReserveError::NotRegistered) };
        let to = Registration { persist: true, ..Registration::persistent(key) };
        change(&self.inner, &Change::Register { from: before.key, to }).await?;
        self.inner.set_registered(Some(Registered { key, persist: true, holds: None }));
        self.reserve(key, kind).await
    }
}

/// Holds the unit against whoever is not registered; well if it is held so already.
pub(super) async fn hold(inner: &Arc<Inner>, key: ReservationKey, kind: ReservationType) -> Result<(), ReserveError> {
    change(inner, &Change::Reserve { key, kind }).await
}

/// What only the one nexus that reserved may use.
const ALONE: ReservationType = ReservationType::ExclusiveAccess;

impl LunDevice {
    /// Takes the unit for this nexus, which is registered and shares it with nobody: nobody else reads or writes then.
    pub(crate) async fn hold_alone(&self, key: ReservationKey, shared: ReservationType) -> Result<(), ReserveError> {
        change(&self.inner, &Change::Release { key, kind: shared }).await?;
        self.reserve(key, ALONE).await
    }
}

async fn ask<T>(
    inner: &Arc<Inner>,
    action: InAction,
    parse: impl Fn(&[u8]) -> Result<T, scsi::ParseError>,
) -> Result<T, ReserveError> {
    inner.asked().reservations(action, parse).await.map_err(|e| match e {
        UnitError::Failed { failure, .. } => refused(failure),
        UnitError::Parse { source, .. } => ReserveError::Unreadable(source),
        other => ReserveError::Unknown(other.to_string()),
    })
}

fn refused(failure: Failure) -> ReserveError {
    match failure {
        Failure::ReservationConflict => ReserveError::Reserved,
        Failure::Preempted => ReserveError::NotRegistered,
        other => ReserveError::Refused(other),
    }
}

/// Sends a change, once; settles what is in doubt.
async fn change(inner: &Arc<Inner>, change: &Change) -> Result<(), ReserveError> {
    let (mut attentions, mut busy) = (action::ATTENTION_TRIES, BUSY_TRIES);
    loop {
        let (cdb, list) = change.command();
        let began_on = standing(inner);
        let memory = Some(AlignedBuf::from_slice(&list));
        let ended = inner.session().carry_out(inner.lun(), cdb, Class::Control, memory).await;
        let answer = match ended.outcome {
            Outcome::Answered(answer) => answer,
            outcome => {
                next_nexus(inner, began_on).await.ok_or_else(|| ReserveError::Unknown(format!("{outcome:?}")))?;
                return settled(inner, change, Doubt::AnswerLost).await;
            }
        };
        let sense = Sense::parse(&answer.sense).ok();
        let reply = action::Reply::Status(answer.status, sense.as_ref());
        let (first, pace, or) = match action::verdict(action::Class::Reserve, reply).action {
            Action::Done => return Ok(()),
            Action::Settle { or, .. } => return settled(inner, change, Doubt::Refused(or)).await,
            // Not executed: a unit attention, or a busy unit. What it says of reservations, the change itself finds out; the
            // rest is looked into with the next check or request.
            Action::Retry { first, pace, or } => (first, pace, or),
            Action::Elsewhere { or, .. } | Action::Fail(or) => return Err(refused(or)),
            Action::Differs => return Err(ReserveError::Refused(Failure::Unexpected)),
        };
        let left = if matches!(pace, action::Pace::AtOnce(_)) { &mut attentions } else { &mut busy };
        if *left == 0 {
            return Err(ReserveError::Refused(or));
        }
        *left -= 1;
        inner.asked().note(first);
        pause(pace).await;
    }
}

/// Why it is not known whether a change was made.
#[derive(Clone, Copy)]
enum Doubt {
    /// Its answer was lost.
    AnswerLost,
    /// It was refused: what it wanted may have been done before.
    Refused(Failure),
}

/// Whether a change was made that can no longer be carried out later.
async fn settled(inner: &Arc<Inner>, change: &Change, doubt: Doubt) -> Result<(), ReserveError> {
    let keys = ask(inner, InAction::ReadKeys, Keys::parse).await?;
    let held = ask(inner, InAction::ReadReservation, Held::parse).await?;
    match settle(change, &keys, &held) {
        Settled::Made => Ok(()),
        Settled::NotMade => Err(refused(match doubt {
            Doubt::AnswerLost => Failure::Path,
            Doubt::Refused(or) => or,
        })),
        Settled::Gone => Err(match doubt {
            Doubt::AnswerLost => {
                ReserveError::Unknown("the key is gone, and its commands may not have ended".to_owned())
            }
            Doubt::Refused(_) => ReserveError::Gone,
        }),
        Settled::NotRegistered => Err(ReserveError::NotRegistered),
        Settled::Unclear => Err(ReserveError::Unknown("the reservations do not tell".to_owned())),
    }
}

type Standing = Option<(u64, Option<PortalGroup>)>;

fn standing(inner: &Inner) -> Standing {
    match &*inner.session().state().borrow() {
        SessionState::Up { nexus, group, .. } => Some((*nexus, *group)),
        _ => None,
    }
}

/// Waits for a nexus after `before`, at the same portal group: its login has ended what was on that one.
async fn next_nexus(inner: &Inner, before: Standing) -> Option<()> {
    let mut state = inner.session().state();
    let next = async {
        loop {
            match &*state.borrow_and_update() {
                SessionState::Up { nexus, group, .. } if before.is_none_or(|(b, g)| *nexus > b && *group == g) => {
                    return Some(());
                }
                SessionState::Ended(_) => return None,
                SessionState::Up { .. } | SessionState::Down(_) => {}
            }
            state.changed().await.ok()?;
        }
    };
    tokio::time::timeout(NEXUS_WITHIN, next).await.ok().flatten()
}
