//! What the lock-free parts are made of.

pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
