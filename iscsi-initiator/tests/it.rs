//! Against tgt and istgt, targets of other makes, on 127.0.0.1. Where one is not installed or may not be started, each
//! test of it says so and passes.

#[path = "it/array.rs"]
mod array;
#[path = "it/caches.rs"]
mod caches;
#[path = "it/commands.rs"]
mod commands;
#[path = "it/cut.rs"]
mod cut;
#[path = "it/discovery.rs"]
mod discovery;
#[path = "it/faults.rs"]
mod faults;
#[path = "it/io.rs"]
mod io;
#[path = "it/istgt.rs"]
mod istgt;
#[path = "it/logins.rs"]
mod logins;
#[path = "it/opcodes.rs"]
mod opcodes;
#[path = "it/paths.rs"]
mod paths;
#[path = "it/proxy.rs"]
mod proxy;
#[path = "it/rogue.rs"]
mod rogue;
#[path = "it/shared.rs"]
mod shared;
#[path = "it/tgt.rs"]
mod tgt;
