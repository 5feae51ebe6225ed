//! What the hand-over is made of.

pub(super) use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use crossbeam_queue::ArrayQueue;
pub(super) use parking_lot::{Condvar, Mutex};
pub(super) use tokio::sync::Notify;
