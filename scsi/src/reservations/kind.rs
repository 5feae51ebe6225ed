//! The types of a reservation and what each forbids (SPC-4 5.13.1, 5.13.7, 6.15.3.4).

use std::fmt;

/// Type of a persistent reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReservationType {
    /// 1: only the holder writes.
    WriteExclusive,
    /// 3: only the holder reads and writes.
    ExclusiveAccess,
    /// 5: only registrants write; one of them holds it.
    WriteExclusiveRegistrantsOnly,
    /// 6: only registrants read and write; one of them holds it.
    ExclusiveAccessRegistrantsOnly,
    /// 7: only registrants write; all of them hold it.
    WriteExclusiveAllRegistrants,
    /// 8: only registrants read and write; all of them hold it.
    ExclusiveAccessAllRegistrants,
}

/// What a command does to the medium, as far as reservations care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads the medium.
    Read,
    /// It writes, or changes the unit otherwise.
    Write,
}

/// Who sends a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An I_T nexus that holds the reservation.
    Holder,
    /// One that is registered and does not hold it.
    Registrant,
    /// One that is not registered.
    Stranger,
}

impl ReservationType {
    /// Every type, by its code.
    pub const ALL: [ReservationType; 6] = [
        ReservationType::WriteExclusive,
        ReservationType::ExclusiveAccess,
        ReservationType::WriteExclusiveRegistrantsOnly,
        ReservationType::ExclusiveAccessRegistrantsOnly,
        ReservationType::WriteExclusiveAllRegistrants,
        ReservationType::ExclusiveAccessAllRegistrants,
    ];

    /// The TYPE field.
    pub const fn code(self) -> u8 {
        match self {
            ReservationType::WriteExclusive => 1,
            ReservationType::ExclusiveAccess => 3,
            ReservationType::WriteExclusiveRegistrantsOnly => 5,
            ReservationType::ExclusiveAccessRegistrantsOnly => 6,
            ReservationType::WriteExclusiveAllRegistrants => 7,
            ReservationType::ExclusiveAccessAllRegistrants => 8,
        }
    }

    /// The type of a TYPE field; `None` for reserved and obsolete ones.
    pub const fn from_code(code: u8) -> Option<ReservationType> {
        match code {
            1 => Some(ReservationType::WriteExclusive),
            3 => Some(ReservationType::ExclusiveAccess),
            5 => Some(ReservationType::WriteExclusiveRegistrantsOnly),
            6 => Some(ReservationType::ExclusiveAccessRegistrantsOnly),
            7 => Some(ReservationType::WriteExclusiveAllRegistrants),
            8 => Some(ReservationType::ExclusiveAccessAllRegistrants),
            _ => None,
        }
    }

    /// True if every registrant holds it.
    pub const fn all_registrants(self) -> bool {
        matches!(self, ReservationType::WriteExclusiveAllRegistrants | ReservationType::ExclusiveAccessAllRegistrants)
    }

    /// True if registrants that do not hold it may do what the holder may.
    pub const fn registrants_may(self) -> bool {
        !matches!(self, ReservationType::WriteExclusive | ReservationType::ExclusiveAccess)
    }

    /// True if who is not a holder or (where they may) a registrant cannot even read.
    pub const fn forbids_reads(self) -> bool {
        matches!(
            self,
            ReservationType::ExclusiveAccess
                | ReservationType::ExclusiveAccessRegistrantsOnly
                | ReservationType::ExclusiveAccessAllRegistrants
        )
    }

    /// Whether a reservation of this type permits an access; otherwise the status is RESERVATION CONFLICT.
    pub const fn permits(self, access: Access, role: Role) -> bool {
        match role {
            Role::Holder => true,
            Role::Registrant if self.registrants_may() => true,
            Role::Registrant | Role::Stranger => matches!(access, Access::Read) && !self.forbids_reads(),
        }
    }
}

impl fmt::Display for ReservationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReservationType::WriteExclusive => "write exclusive",
            ReservationType::ExclusiveAccess => "exclusive access",
            ReservationType::WriteExclusiveRegistrantsOnly => "write exclusive, registrants only",
            ReservationType::ExclusiveAccessRegistrantsOnly => "exclusive access, registrants only",
            ReservationType::WriteExclusiveAllRegistrants => "write exclusive, all registrants",
            ReservationType::ExclusiveAccessAllRegistrants => "exclusive access, all registrants",
        })
    }
}
