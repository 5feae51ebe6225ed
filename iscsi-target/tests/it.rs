//! The target on 127.0.0.1, with initiators of other makes. Where one is not installed, each test of it says so and passes.

#[path = "it/conformance.rs"]
mod conformance;
#[path = "it/rig.rs"]
mod rig;
