//! The crate against the kernel: real mounts, a small file system in memory, real system calls.
//!
//! Whatever touches a mount runs on a thread of its own with a deadline ([`harness::within`]): a test
//! that has gone wrong ends with a message and an aborted connection, not with a hang. Mounts are taken
//! away by guards, also when a test fails.

#[path = "it/harness.rs"]
mod harness;
#[path = "it/lives.rs"]
mod lives;
#[path = "it/memfs.rs"]
mod memfs;

#[path = "it/data.rs"]
mod data;
#[path = "it/directories.rs"]
mod directories;
#[path = "it/ends.rs"]
mod ends;
#[path = "it/inherit.rs"]
mod inherit;
#[path = "it/locks.rs"]
mod locks;
#[path = "it/notifications.rs"]
mod notifications;
#[path = "it/points.rs"]
mod points;
#[path = "it/stale.rs"]
mod stale;
#[path = "it/unprivileged.rs"]
mod unprivileged;
