//! PREEMPT and PREEMPT AND ABORT (SPC-4 5.13.11.2.4, 5.13.11.2.5).

use scsi::reservations::ReservationType;
use scsi::{AdditionalCode, ReservationKey};

use super::{ACTION_KEY, Changed, Hold, Refused, Reservations, wrong};
use crate::core::name::NexusName;

impl Reservations {
    /// `abort`: the commands of whom it preempts are to be aborted, too.
    pub(super) fn preempt(
        &self,
        nexus: &NexusName,
        key: ReservationKey,
        (victim, kind): (ReservationKey, ReservationType),
        abort: bool,
    ) -> Result<Changed, Refused> {
        self.must_be(nexus, key)?;
        let all = self.hold.as_ref().is_some_and(|hold| hold.by.is_none());
        let holder = self.hold.as_ref().and_then(|hold| hold.by.as_ref());
        let holders_key = holder.and_then(|by| self.registered.get(by)).copied();
        // What all registrants hold is taken over by preempting key 0; what one holds, by its key.
        let takes_over = if all { victim.is_none() } else { !victim.is_none() && holders_key == Some(victim) };
        if victim.is_none() && !takes_over {
            return Err(wrong(ACTION_KEY));
        }
        let named = |(name, key): &(&NexusName, &ReservationKey)| match takes_over {
            true => *name != nexus && (victim.is_none() || **key == victim),
            false => **key == victim,
        };
        let gone: Vec<NexusName> = self.registered.iter().filter(named).map(|(name, _)| name.clone()).collect();
        if gone.is_empty() && !takes_over {
            return Err(Refused::Conflict);
        }
        let mut changed = self.changed();
        for name in &gone {
            changed.state.registered.remove(name);
            if name != nexus {
                changed.tell.push((name.clone(), AdditionalCode::REGISTRATIONS_PREEMPTED));
            }
        }
        if takes_over {
            let before = changed.state.hold.replace(Hold::of(kind, nexus));
            if before.is_some_and(|hold| hold.kind != kind && hold.kind.registrants_may()) {
                let left = changed.state.registered.keys().filter(|name| *name != nexus).cloned();
                changed.tell.extend(left.map(|name| (name, AdditionalCode::RESERVATIONS_RELEASED)));
            }
        } else if changed.state.hold.as_ref().is_some_and(|hold| hold.by.is_none())
            && changed.state.registered.is_empty()
        {
            // It has preempted its own key, and nobody is left to hold what all held.
            changed.state.hold = None;
        }
        if abort {
            changed.abort = gone;
        }
        Ok(changed)
    }
}
