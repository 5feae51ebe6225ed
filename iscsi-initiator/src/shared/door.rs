//! Whether the nexus that stands may carry data: the state of one way to a shared unit, and nothing else. Pure.
//!
//! ```text
//!  Outside ── entered ─► Entered ── registered ─► Registered ── admit ─► Admitted
//!     ▲                     ▲                     ▲  └── refuse ─► Refused ─┐
//!     │                     │                     └──── registered ─────────┘
//!     └── the nexus is gone └── a new office
//! ```
//! Whatever is said of an entrance names its number; what is said of an older one changes nothing. Each admission is another
//! *standing*: a right that was given in one is no right in the next. Prevents: a request is given a way, its node is fenced, the
//! way is admitted anew, and the request goes out in a right that it never had.

use block::multipath::Standing;
use block::shared::NexusNumber;
use iscsi::session::FenceGen;

use crate::driver::Era;

/// How far the nexus is that stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Entered,
    Registered,
    Admitted(Right),
    Refused,
}

/// In what right requests are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Right {
    /// The session's era at the admission: once everything was taken back from it, nothing is sent in this right any more.
    pub(super) era: Era,
    /// The fence generation.
    pub(super) generation: FenceGen,
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// The session's number of the nexus, the entrance's number, and how far it is.
    inside: Option<(u64, NexusNumber, At)>,
    /// The last nexus that entered, and under which number.
    last: Option<(u64, NexusNumber)>,
    standing: Standing,
    /// It is to enter anew.
    again: bool,
}

impl Door {
    /// The nexus has entered. The number of the entrance before.
    pub(super) fn enters(&mut self, nexus: u64, number: NexusNumber) -> Option<NexusNumber> {
        self.inside = Some((nexus, number, At::Entered));
        self.again = false;
        self.last.replace((nexus, number)).map(|(_, number)| number)
    }

    /// No nexus stands.
    pub(super) fn leaves(&mut self) {
        self.inside = None;
    }

    /// Whether this nexus has entered before: then it was registered, and may have carried data.
    pub(super) fn knows(&self, nexus: u64) -> bool {
        self.last.is_some_and(|(last, _)| last == nexus)
    }

    /// Whether this nexus is to enter now.
    pub(super) fn is_to_enter(&self, nexus: u64) -> bool {
        self.again || self.inside.is_none_or(|(inside, ..)| inside != nexus)
    }

    /// Whether data may be under way on the nexus that stands.
    pub(super) fn carries(&self) -> bool {
        matches!(self.inside, Some((_, _, At::Admitted(_))))
    }

    /// A new office judges.
    pub(super) fn again(&mut self) {
        self.again = true;
    }

    /// The nexus of this entrance.
    pub(super) fn nexus_of(&self, number: NexusNumber) -> Option<u64> {
        self.inside.filter(|(_, n, _)| *n == number && !self.again).map(|(nexus, ..)| nexus)
    }

    /// The nexus that stands holds the unit alone, and no office judges it. False if it is not that one.
    pub(super) fn admitted_alone(&mut self, nexus: u64, right: Right) -> bool {
        let Some((_, _, at)) = self.inside.as_mut().filter(|(inside, ..)| *inside == nexus) else { return false };
        *at = At::Admitted(right);
        self.again = false;
        self.standing.0 += 1;
        true
    }

    /// The nexus of this entrance was registered under its key.
    pub(super) fn registered(&mut self, number: NexusNumber) {
        self.becomes(number, At::Registered);
    }

    /// It was refused.
    pub(super) fn refused(&mut self, number: NexusNumber) {
        self.becomes(number, At::Refused);
    }

    /// It may carry data, in this right. False if it was not registered under that number, or does not stand any more.
    pub(super) fn admitted(&mut self, number: NexusNumber, right: Right) -> bool {
        let may = matches!(self.inside, Some((_, n, At::Registered)) if n == number) && !self.again;
        if may {
            self.standing.0 += 1;
            self.becomes(number, At::Admitted(right));
        }
        may
    }

    /// Everything was taken back from the session. A nexus that has not gone with that goes on in a right of its own.
    pub(super) fn renews(&mut self, era: Era) {
        if let Some((_, _, At::Admitted(right))) = &mut self.inside
            && right.era != era
        {
            right.era = era;
            self.standing.0 += 1;
        }
    }

    fn becomes(&mut self, number: NexusNumber, at: At) {
        if let Some((_, n, now)) = &mut self.inside
            && *n == number
        {
            *now = at;
        }
    }

    /// The standing of the last admission.
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// The right of that standing, if it is the present one.
    pub(super) fn right(&self, standing: Standing) -> Option<Right> {
        match self.inside {
            Some((_, _, At::Admitted(right))) if standing == self.standing && !self.again => Some(right),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NexusNumber = NexusNumber(1);
    const TWO: NexusNumber = NexusNumber(2);

    fn right(generation: u64) -> Right {
        Right { era: Era::default(), generation: FenceGen(generation) }
    }

    fn admitted() -> Door {
        let mut door = Door::default();
        assert!(door.is_to_enter(7) && !door.knows(7));
        assert_eq!(door.enters(7, ONE), None);
        door.registered(ONE);
        assert!(door.admitted(ONE, right(3)));
        door
    }

    #[test]
    fn a_nexus_carries_data_only_after_it_was_registered_and_admitted() {
        let mut door = Door::default();
        assert!(!door.admitted(ONE, right(1)), "it has not entered");
        door.enters(7, ONE);
        assert!(!door.admitted(ONE, right(1)), "it is registered under incarnation 0 only");
        assert_eq!(door.right(Standing(0)), None);
        let door = admitted();
        assert_eq!(door.right(Standing(1)), Some(right(3)));
    }

    #[test]
    fn what_is_said_of_an_older_entrance_changes_nothing() {
        let mut door = admitted();
        door.leaves();
        assert_eq!(door.enters(8, TWO), Some(ONE));
        door.registered(ONE);
        assert!(!door.admitted(ONE, right(4)) && door.nexus_of(ONE).is_none());
        door.registered(TWO);
        door.refused(ONE);
        assert!(door.nexus_of(TWO) == Some(8) && door.admitted(TWO, right(4)));
    }

    /// A request that was given the way before a fence finds another standing.
    #[test]
    fn a_right_ends_with_its_standing() {
        let mut door = admitted();
        let before = door.standing();
        door.leaves();
        assert_eq!(door.right(before), None);
        door.enters(8, TWO);
        door.registered(TWO);
        assert!(door.admitted(TWO, right(4)));
        assert_eq!((door.right(before), door.right(door.standing())), (None, Some(right(4))));
    }

    /// Nothing had been sent yet when all was taken back: the nexus stands, and is good for what comes now and for nothing older.
    #[test]
    fn a_nexus_that_stands_when_all_was_taken_back_goes_on_in_another_standing() {
        let mut door = admitted();
        let before = door.standing();
        let later = Era::default().next();
        door.renews(later);
        assert_eq!((door.right(before), door.right(door.standing())), (None, Some(Right { era: later, ..right(3) })));
        let now = door.standing();
        door.renews(later);
        assert_eq!(door.standing(), now, "it is renewed once");
    }

    /// An office had asked for new entrances when the unit was taken alone: nobody enters any more, and data waited for ever.
    #[test]
    fn a_nexus_that_holds_its_unit_alone_carries_data_whatever_an_office_has_asked_for() {
        let mut door = Door::default();
        assert!(!door.admitted_alone(7, right(0)), "nothing stands");
        door.enters(7, ONE);
        door.again();
        assert!(door.admitted_alone(7, right(0)) && !door.is_to_enter(7));
        assert_eq!(door.right(door.standing()), Some(right(0)));
    }

    #[test]
    fn a_new_office_ends_every_right_and_whoever_was_refused_is_registered_once_more() {
        let mut door = admitted();
        door.again();
        assert!(door.is_to_enter(7) && door.knows(7) && door.carries());
        assert_eq!((door.right(door.standing()), door.nexus_of(ONE)), (None, None));
        door.enters(7, TWO);
        assert!(!door.is_to_enter(7));
        door.refused(TWO);
        assert!(!door.admitted(TWO, right(4)), "it has to be registered and looked at anew");
        door.registered(TWO);
        assert!(door.admitted(TWO, right(4)));
    }
}
