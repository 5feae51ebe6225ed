//! Exact effects of the coordinator, one guarantee at a time. Names with a `g` number are those of
//! docs/semantics/coordinator.md.

mod binding;
mod doubts;
mod drain;
mod eviction;
mod grace;
mod locks;
mod orphans;
mod paths;
mod random;
mod ranges;
mod slots;
mod space;
mod syncs;
mod util;
