//! The target on 127.0.0.1, with initiators of other makes and one that speaks PDU by PDU. Where a program is not installed,
//! each test that needs it says so and passes.

#[path = "it/aborts.rs"]
mod aborts;
#[path = "it/clients.rs"]
mod clients;
#[path = "it/conformance.rs"]
mod conformance;
#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/protocol.rs"]
mod protocol;
#[path = "it/rig.rs"]
mod rig;
#[path = "it/tgt.rs"]
mod tgt;
#[path = "it/wire.rs"]
mod wire;
