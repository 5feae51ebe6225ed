//! What bytes can be a key or a value. The database takes for granted that it wrote what it reads, and panics at others; rows
//! of the redo log come from the disk.

use redb::Value;

/// Whether bytes can be one of these.
pub(in crate::meta) trait Shape: Value {
    /// Without a fixed width each type says itself.
    fn fits(bytes: &[u8]) -> bool {
        Self::fixed_width() == Some(bytes.len())
    }
}

macro_rules! of_fixed_width {
    ($($kind:ty),*) => { $(impl Shape for $kind {})* };
}

of_fixed_width!(u16, u32, u64, (u8, u64), (u16, u8), (u16, u64), (u32, u32), (u32, u64));
of_fixed_width!((u8, u64, u64), (u16, u64, u8), (u16, u64, u64), (u64, u32, u8), (u64, u32, u64), (u8, u64, u8, u8));

impl Shape for &'static [u8] {
    fn fits(_: &[u8]) -> bool {
        true
    }
}

impl Shape for &'static str {
    fn fits(bytes: &[u8]) -> bool {
        std::str::from_utf8(bytes).is_ok()
    }
}

/// The numbers, then what is left.
impl Shape for (u16, u64, &'static [u8]) {
    fn fits(bytes: &[u8]) -> bool {
        bytes.len() >= 2 + 8
    }
}

/// The numbers, then what is left.
impl Shape for (u64, u32, &'static [u8]) {
    fn fits(bytes: &[u8]) -> bool {
        bytes.len() >= 8 + 4
    }
}
