//! Whether a change of reservations was made, found out by reading: for one whose answer was lost, or was RESERVATION
//! CONFLICT, which says that an earlier try had succeeded as well as that another nexus was faster.
//!
//! Sound only where each nexus has a key of its own, and once the change can no longer be carried out later.

use super::{Change, Held, Keys};

/// What the reads say of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The state is what the change wanted.
    Made,
    /// It was not made, and this nexus is still registered as it was.
    NotMade,
    /// The nexus that wanted it is not registered: its node must take itself for fenced.
    NotRegistered,
    /// The key that was to be preempted and aborted is gone. Whether its nexus' commands have ended keys do not tell: a target takes a
    /// registration away first.
    Gone,
    /// Reads cannot tell.
    Unclear,
}

/// Compares what a change wanted with what is.
pub fn settle(change: &Change, keys: &Keys, held: &Held) -> Settled {
    let has = |key| keys.keys.contains(&key);
    let made = |is: bool| if is { Settled::Made } else { Settled::NotMade };
    match change {
        Change::Register { from, to } if to.key.is_none() => made(!has(*from)),
        Change::Register { to, .. } | Change::RegisterAndIgnore { to } if !to.key.is_none() => made(has(to.key)),
        Change::Reserve { key, .. } | Change::Release { key, .. } | Change::Preempt { key, .. } if !has(*key) => {
            Settled::NotRegistered
        }
        Change::Reserve { key, kind } => {
            made(held.reservation.is_some_and(|r| r.kind == *kind && (kind.all_registrants() || r.key == *key)))
        }
        Change::Release { kind, .. } => made(held.reservation.is_none_or(|r| r.kind != *kind)),
        Change::Preempt { victim, abort: true, .. } if !victim.is_none() => {
            if has(*victim) {
                Settled::NotMade
            } else {
                Settled::Gone
            }
        }
        Change::Preempt { victim, .. } if !victim.is_none() => made(!has(*victim)),
        Change::Clear { .. } => made(keys.keys.is_empty()),
        Change::Register { .. }
        | Change::RegisterAndIgnore { .. }
        | Change::Preempt { .. }
        | Change::RegisterAndMove { .. }
        | Change::ReplaceLost { .. } => Settled::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reservations::{Registration, Reservation, ReservationType};
    use crate::units::ReservationKey;

    const OWN: ReservationKey = ReservationKey(1);
    const OTHER: ReservationKey = ReservationKey(2);
    const KIND: ReservationType = ReservationType::ExclusiveAccessAllRegistrants;

    fn of(change: &Change, keys: &[ReservationKey], reserved: bool) -> Settled {
        let keys = Keys { keys: keys.to_vec(), ..Keys::default() };
        let reservation = reserved.then_some(Reservation { key: ReservationKey::NONE, kind: KIND });
        settle(change, &keys, &Held { reservation, ..Held::default() })
    }

    #[test]
    fn a_registration_is_there_or_not() {
        let to = Registration::persistent(OWN);
        let register = Change::Register { from: ReservationKey::NONE, to };
        assert_eq!(of(&register, &[OTHER, OWN], false), Settled::Made);
        assert_eq!(of(&register, &[OTHER], false), Settled::NotMade);
        let unregister = Change::Register { from: OWN, to: Registration::default() };
        assert_eq!(of(&unregister, &[OTHER], false), Settled::Made);
        assert_eq!(of(&unregister, &[OWN], false), Settled::NotMade);
    }

    #[test]
    fn a_reservation_is_held_as_it_was_asked_for() {
        let reserve = Change::Reserve { key: OWN, kind: KIND };
        assert_eq!(of(&reserve, &[OWN], true), Settled::Made);
        assert_eq!(of(&reserve, &[OWN], false), Settled::NotMade);
        let other = Change::Reserve { key: OWN, kind: ReservationType::WriteExclusiveRegistrantsOnly };
        assert_eq!(of(&other, &[OWN], true), Settled::NotMade);
        assert_eq!(of(&Change::Release { key: OWN, kind: KIND }, &[OWN], false), Settled::Made);
    }

    #[test]
    fn a_preempted_key_is_gone_whoever_did_it() {
        let preempt = Change::Preempt { key: OWN, victim: OTHER, kind: KIND, abort: false };
        assert_eq!(of(&preempt, &[OWN], true), Settled::Made);
        assert_eq!(of(&preempt, &[OWN, OTHER], true), Settled::NotMade);
    }

    /// The write of a fenced node was stuck in the disk, its key was gone already, and that was taken for the abort.
    #[test]
    fn that_a_key_is_gone_does_not_say_that_its_commands_have_ended() {
        let preempt = Change::Preempt { key: OWN, victim: OTHER, kind: KIND, abort: true };
        assert_eq!(of(&preempt, &[OWN], true), Settled::Gone);
        assert_eq!(of(&preempt, &[OWN, OTHER], true), Settled::NotMade);
    }

    #[test]
    fn who_lost_its_own_registration_is_told_so() {
        let preempt = Change::Preempt { key: OWN, victim: OTHER, kind: KIND, abort: true };
        assert_eq!(of(&preempt, &[OTHER], true), Settled::NotRegistered);
        assert_eq!(of(&Change::Reserve { key: OWN, kind: KIND }, &[OTHER], true), Settled::NotRegistered);
    }

    #[test]
    fn what_reads_cannot_tell_is_unclear() {
        assert_eq!(of(&Change::ReplaceLost { key: OWN }, &[OWN], true), Settled::Unclear);
        let all = Change::Preempt { key: OWN, victim: ReservationKey::NONE, kind: KIND, abort: true };
        assert_eq!(of(&all, &[OWN], true), Settled::Unclear);
    }
}
