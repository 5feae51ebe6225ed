//! What a unit reports besides answers.

/// Each count only grows, over all nexuses of this node. For whoever watches: a later look misses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// It lost power or restarted, or says only that it may have: writes that were neither flushed nor FUA may be gone.
    pub cache_lost: u64,
    /// Its target port groups changed.
    pub port_groups: u64,
    /// A thin unit's space is running out.
    pub space_low: u64,
    /// Another unit is at its address.
    pub another_unit: u64,
    /// Somebody has reset it: every nexus is told of each reset.
    pub reset: u64,
    /// Somebody has released its reservation; it was held again.
    pub released: u64,
}
