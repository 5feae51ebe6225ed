//! Looks at the load and at both sites several times a second: how fast it goes, what the other site lacks, how far a
//! synchronisation is.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use replicator::runtime::status::Status;
use serde::Serialize;

use super::super::timeline::Timeline;
use super::load::Load;
use super::sites::NAME;
use crate::api::Node;
use crate::exit::Failure;
use crate::replica::talk::{self, Ask};

/// Five points a second: a change of half a second is seen.
const PERIOD: Duration = Duration::from_millis(200);

/// One look.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) t_ms: u64,
    /// Where the device is written.
    pub(super) primary: Option<Node>,
    /// Bytes written or read and verified, in a second.
    pub(super) bytes_per_s: f64,
    /// Of the writes acknowledged since the last look, that of a hundred which took longest, in milliseconds.
    pub(super) p99_ms: Option<f64>,
    /// Bytes that the other site may lack, as the primary has marked them.
    pub(super) behind_bytes: Option<u64>,
    /// How far a synchronisation is, in percent.
    pub(super) resync_percent: Option<f64>,
    /// Bytes that it does in a second.
    pub(super) resync_bytes_per_s: Option<u64>,
}

/// The watching thread; it ends when this is dropped.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Sample>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(
        load: &Arc<Load>,
        sites: [(Node, PathBuf); 2],
        timeline: &Arc<Timeline>,
    ) -> Result<Watch, Failure> {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Sample>>>::default());
        let (load, timeline, ended, samples) =
            (Arc::clone(load), Arc::clone(timeline), Arc::clone(&stop), Arc::clone(&seen));
        let watch = move || {
            let (mut before, mut since) = (load.tally().bytes, Instant::now());
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(PERIOD);
                let mut tally = load.tally();
                let took = since.elapsed().as_secs_f64().max(1e-3);
                since = Instant::now();
                let bytes_per_s = (tally.bytes - before) as f64 / took;
                before = tally.bytes;
                let p99_ms = p99(&mut tally.latencies_us);
                let base = Sample { t_ms: timeline.now_ms(), bytes_per_s, p99_ms, ..nothing() };
                samples.lock().push(look(base, &sites));
            }
        };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(watch).map_err(|e| {
            Failure::failed(format!("No thread to watch the sites: {e}."), "See the limits of the system.")
        })?;
        Ok(Watch { stop, seen, thread: Some(thread) })
    }

    /// Ends, and what was seen.
    pub(super) fn end(&mut self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has only lost samples.
            let _ = thread.join();
        }
        self.seen.lock().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn nothing() -> Sample {
    Sample {
        t_ms: 0,
        primary: None,
        bytes_per_s: 0.0,
        p99_ms: None,
        behind_bytes: None,
        resync_percent: None,
        resync_bytes_per_s: None,
    }
}

/// Adds what the primary says.
fn look(mut sample: Sample, sites: &[(Node, PathBuf); 2]) -> Sample {
    let said = |(node, dir): &(Node, PathBuf)| Some((*node, talk::ask(dir, NAME, Ask::Status).ok()?));
    let all: Vec<(Node, Status)> = sites.iter().filter_map(said).collect();
    let Some((node, status)) = all.iter().find(|(_, status)| status.role == "Primary") else { return sample };
    sample.primary = Some(*node);
    if let Some(peer) = status.peers.first() {
        sample.behind_bytes = Some(peer.out_of_sync_bytes);
        sample.resync_percent = peer.resync.map(|r| r.done() as f64 / 100.0);
        sample.resync_bytes_per_s = peer.resync.map(|r| r.bytes_per_s);
    }
    sample
}

fn p99(us: &mut [u64]) -> Option<f64> {
    us.sort_unstable();
    us.get(us.len().saturating_sub(1) * 99 / 100).map(|us| *us as f64 / 1e3)
}
