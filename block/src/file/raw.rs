//! One open file description and what is known about it. Everything that reaches the file, data
//! and locks alike, goes through this one description: it stays open until the last request on it
//! has ended, and with it the locks it holds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::gauge::Gauge;

#[derive(Debug)]
pub(crate) struct RawFile {
    fd: OwnedFd,
    /// A short read or write is continued at a multiple of this.
    granule: u64,
    in_flight: Gauge,
    discard_refused: AtomicBool,
    zero_range_refused: AtomicBool,
}

/// One request on the file; ends with the value, after the request's completion has run.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<RawFile>);

impl RawFile {
    pub(crate) fn new(fd: OwnedFd, granule: u64) -> Arc<RawFile> {
        Arc::new(RawFile {
            fd,
            granule,
            in_flight: Gauge::default(),
            discard_refused: AtomicBool::new(false),
            zero_range_refused: AtomicBool::new(false),
        })
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.enter();
        InFlight(Arc::clone(self))
    }

    pub(crate) fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    pub(crate) fn granule(&self) -> u64 {
        self.granule
    }

    pub(crate) fn refuses_discard(&self) -> bool {
        self.discard_refused.load(Ordering::Relaxed)
    }

    pub(crate) fn note_discard_refused(&self) {
        self.discard_refused.store(true, Ordering::Relaxed);
    }

    pub(crate) fn refuses_zero_range(&self) -> bool {
        self.zero_range_refused.load(Ordering::Relaxed)
    }

    pub(crate) fn note_zero_range_refused(&self) {
        self.zero_range_refused.store(true, Ordering::Relaxed);
    }
}

impl AsFd for RawFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl InFlight {
    pub(crate) fn file(&self) -> &RawFile {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<RawFile> {
        Arc::clone(&self.0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.leave();
    }
}
