//! The data path over a real coordinator and a real store, on a device in memory; under each client a fault device.

mod clear;
mod doubt;
mod expiry;
mod failover;
mod lives;
mod loss;
mod model;
mod prefixes;
pub(crate) mod rig;
mod routes;
mod sharing;
mod single;
mod space;
mod whole;
