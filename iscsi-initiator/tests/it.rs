//! Against tgt, a target of another make, on 127.0.0.1. Where tgtd is not installed or may not be started, each test
//! says so and passes.

#[path = "it/discovery.rs"]
mod discovery;
#[path = "it/io.rs"]
mod io;
#[path = "it/logins.rs"]
mod logins;
#[path = "it/tgt.rs"]
mod tgt;
