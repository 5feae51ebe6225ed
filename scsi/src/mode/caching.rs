//! Caching mode page 08h (SBC-3 6.5.5).

use crate::wire::{bit, flag};

/// Whether the unit caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caching {
    /// WCE: writes may be acknowledged from a volatile cache, so they need FUA or SYNCHRONIZE CACHE.
    pub write_cache: bool,
    /// RCD: reads come from the medium.
    pub read_cache_disabled: bool,
}

/// Bytes behind the page's header.
pub(super) const LEN: usize = 0x12;

impl Caching {
    pub(super) fn parse(body: &[u8]) -> Option<Caching> {
        let flags = *body.first()?;
        Some(Caching { write_cache: bit(flags, 2), read_cache_disabled: bit(flags, 0) })
    }

    pub(super) fn to_bytes(self) -> [u8; LEN] {
        let mut body = [0; LEN];
        body[0] = flag(self.write_cache, 2) | flag(self.read_cache_disabled, 0);
        body
    }
}
