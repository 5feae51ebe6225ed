//! Numbers of the protocol as types: sequence numbers with serial arithmetic, task tags, names of sessions.
//!
//! Sequence numbers wrap (RFC 7143, 4.2.2.1): which of two comes first is RFC 1982's question, and it has no answer
//! when they lie exactly 2^31 apart. There is therefore no `Ord`; [`CmdSn::before`] answers "no" both ways then.

use std::fmt;

macro_rules! serial {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
        pub struct $name(pub u32);

        impl $name {
            /// The next number.
            #[must_use]
            pub const fn next(self) -> $name {
                $name(self.0.wrapping_add(1))
            }

            /// `n` further on.
            #[must_use]
            pub const fn plus(self, n: u32) -> $name {
                $name(self.0.wrapping_add(n))
            }

            /// One before.
            #[must_use]
            pub const fn previous(self) -> $name {
                $name(self.0.wrapping_sub(1))
            }

            /// Whether `self` comes before `other` (RFC 1982, 3.2, SERIAL_BITS = 32).
            pub const fn before(self, other: $name) -> bool {
                let ahead = other.0.wrapping_sub(self.0);
                ahead != 0 && ahead < 1 << 31
            }

            /// Whether `self` comes before `other` or is it.
            pub const fn up_to(self, other: $name) -> bool {
                self.0 == other.0 || self.before(other)
            }

            /// How far `other` lies ahead; none if it lies behind.
            pub const fn distance_to(self, other: $name) -> Option<u32> {
                if self.up_to(other) { Some(other.0.wrapping_sub(self.0)) } else { None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

serial!(
    /// A command's place in its session.
    CmdSn
);
serial!(
    /// A status's place in its connection.
    StatSn
);
serial!(
    /// A data PDU's or R2T's place in its task or sequence.
    DataSn
);

/// Initiator task tag: names a task from its request to its response.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Itt(pub u32);

impl Itt {
    /// "No task".
    pub const NONE: Itt = Itt(u32::MAX);
}

/// Target transfer tag: the target's name for what it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ttt(pub u32);

impl Ttt {
    /// "Nothing is awaited".
    pub const NONE: Ttt = Ttt(u32::MAX);
}

impl fmt::Display for Itt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task tag {:#x}", self.0)
    }
}

/// The initiator's part of a session's name (RFC 7143, 11.12.5): six bytes, stable over restarts, because
/// persistent reservations are bound to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Isid(pub [u8; 6]);

impl Isid {
    /// An ISID of type "random" (10b) from a number that its owner keeps: the same number is the same I_T nexus.
    pub const fn from_number(host: u32, slot: u16) -> Isid {
        let [a, b, c, d] = host.to_be_bytes();
        let [e, f] = slot.to_be_bytes();
        // Type 2 in the two highest bits: of the host number the lowest 30 bits are kept.
        Isid([0x80 | (a & 0x3f), b, c, d, e, f])
    }
}

impl fmt::Display for Isid {
    /// As in an initiator port's name (RFC 7143, 4.2.7.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The target's part of a session's name; 0 asks for a new session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tsih(pub u16);

/// A connection's number within its session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Cid(pub u16);

/// A target portal group's number: the target port of the I_T nexus.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortalGroup(pub u16);

impl fmt::Display for PortalGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "portal group {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_compare_across_the_wrap() {
        let (old, new) = (CmdSn(u32::MAX - 1), CmdSn(1));
        assert!(old.before(new) && !new.before(old));
        assert_eq!(old.distance_to(new), Some(3));
        assert_eq!(new.distance_to(old), None);
        assert!(new.up_to(new) && !new.before(new));
        assert_eq!(CmdSn(0).previous(), CmdSn(u32::MAX));
    }

    #[test]
    fn numbers_half_the_circle_apart_have_no_order() {
        let (a, b) = (StatSn(7), StatSn(7).plus(1 << 31));
        assert!(!a.before(b) && !b.before(a));
        assert!(a.before(StatSn(6).plus(1 << 31)));
    }

    #[test]
    fn isids_of_hosts_and_slots_differ_and_are_of_type_random() {
        let isid = Isid::from_number(0xffff_0102, 3);
        assert_eq!(isid.0[0] & 0xc0, 0x80);
        assert_ne!(isid, Isid::from_number(0xffff_0102, 4));
        assert_ne!(isid, Isid::from_number(0xffff_0103, 3));
        assert_eq!(isid.to_string(), "0xbfff01020003");
    }
}
