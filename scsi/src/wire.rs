//! How this crate lays bytes out: zerocopy structs of unaligned big-endian fields, each with its size asserted.

pub(crate) use zerocopy::byteorder::big_endian::{U32, U64};

/// Declares a structure of the wire: all fields unaligned, all values valid, the size as the standard's figure has it.
macro_rules! wire {
    ($(#[$doc:meta])* $name:ident [$size:literal] { $($field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
            zerocopy::KnownLayout, zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $ty),* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}
pub(crate) use wire;

/// One bit of a byte.
pub(crate) const fn bit(byte: u8, n: u8) -> bool {
    byte >> n & 1 == 1
}

/// A flag as bit `n` of a byte.
pub(crate) const fn flag(set: bool, n: u8) -> u8 {
    if set { 1 << n } else { 0 }
}
