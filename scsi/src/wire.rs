//! How this crate lays bytes out: zerocopy structs of unaligned big-endian fields, each with its size asserted.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::ParseError;

pub(crate) use zerocopy::byteorder::big_endian::{U16, U32, U64};

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

/// The structure at the start of `bytes`, and what follows it.
pub(crate) fn head<'a, T>(what: &'static str, bytes: &'a [u8]) -> Result<(&'a T, &'a [u8]), ParseError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    T::ref_from_prefix(bytes).map_err(|_| ParseError::Truncated { what, need: size_of::<T>(), have: bytes.len() })
}

/// The first `len` bytes, and what follows them.
pub(crate) fn split<'a>(what: &'static str, bytes: &'a [u8], len: usize) -> Result<(&'a [u8], &'a [u8]), ParseError> {
    bytes.split_at_checked(len).ok_or(ParseError::Truncated { what, need: len, have: bytes.len() })
}

/// The structure at the start of what is left of a list, and what follows it.
pub(crate) fn entry<'a, T>(what: &'static str, list: &'a [u8]) -> Result<(&'a T, &'a [u8]), ParseError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    T::ref_from_prefix(list).map_err(|_| ParseError::Overrun { what, need: size_of::<T>(), have: list.len() })
}

/// The first `len` bytes of what is left of a list, and what follows them.
pub(crate) fn take<'a>(what: &'static str, list: &'a [u8], len: usize) -> Result<(&'a [u8], &'a [u8]), ParseError> {
    list.split_at_checked(len).ok_or(ParseError::Overrun { what, need: len, have: list.len() })
}

/// One bit of a byte.
pub(crate) const fn bit(byte: u8, n: u8) -> bool {
    byte >> n & 1 == 1
}

/// A flag as bit `n` of a byte.
pub(crate) const fn flag(set: bool, n: u8) -> u8 {
    if set { 1 << n } else { 0 }
}

/// A 16-bit length as a memory size.
pub(crate) fn len16(len: U16) -> usize {
    usize::from(len.get())
}

/// A 32-bit length as a memory size; lossless on every platform Linux runs on.
pub(crate) fn len32(len: U32) -> usize {
    usize::try_from(len.get()).unwrap_or(usize::MAX)
}
