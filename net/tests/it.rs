//! Endpoints that talk over 127.0.0.1, with real sockets and real certificates. Each test has its own
//! authority, ports and runtime; waits are for a condition, never for a time to pass.

#[path = "it/calls.rs"]
mod calls;
#[path = "it/certs.rs"]
mod certs;
#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/link.rs"]
mod link;
#[path = "it/rig.rs"]
mod rig;
#[path = "it/trust.rs"]
mod trust;
