//! Against tgt and istgt, targets of other makes, on 127.0.0.1. Where one is not installed or may not be started, each
//! test of it says so and passes.

#[path = "it/discovery.rs"]
mod discovery;
#[path = "it/io.rs"]
mod io;
#[path = "it/istgt.rs"]
mod istgt;
#[path = "it/logins.rs"]
mod logins;
#[path = "it/shared.rs"]
mod shared;
#[path = "it/tgt.rs"]
mod tgt;
