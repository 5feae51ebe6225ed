//! The load of a kill: on every node one thread that writes in place and one that creates files.
//!
//! A thread ends at its first failed call; on the killed node that is the rule. No thread is joined: one that hangs in
//! a mount is waited for with a limit, and the cluster's end frees it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;

use crate::cluster::Cluster;
use crate::{Failure, fio};

/// Bytes of each node's own file.
const FILE: u64 = 64 << 20;
const BLOCK: u64 = 4096;
/// A call that takes longer than this is a hang.
const HANG: Duration = Duration::from_secs(30);
/// Between two creates, so that they are load and not a storm.
const BREATH: Duration = Duration::from_millis(2);

/// A call: begin and end.
type Call = (Instant, Instant);

#[derive(Default)]
struct Log {
    calls: Vec<Call>,
    failure: Option<String>,
}

impl Log {
    /// Does it once; `false` after a failure.
    fn time(&mut self, what: &str, call: impl FnOnce() -> std::io::Result<()>) -> bool {
        let begin = Instant::now();
        let result = call();
        match result {
            Ok(()) => self.calls.push((begin, Instant::now())),
            Err(e) => self.failed(what, begin, &e),
        }
        self.failure.is_none()
    }

    fn failed(&mut self, what: &str, begin: Instant, e: &std::io::Error) {
        self.failure = Some(format!("{what} failed after {} ms: {e}", begin.elapsed().as_millis()));
    }
}

/// What one node's threads saw.
pub(crate) struct Taken {
    /// Its place in the cluster.
    pub(crate) node: usize,
    writes: Vec<Call>,
    creates: Vec<Call>,
    /// Failed calls, and how.
    pub(crate) failures: Vec<String>,
}

impl Taken {
    /// The longest write in place within a window; what of it lies outside is not counted.
    pub(crate) fn longest(&self, from: Instant, to: Instant) -> Duration {
        let inside =
            self.writes.iter().map(|(begin, end)| (*end).min(to).saturating_duration_since((*begin).max(from)));
        inside.max().unwrap_or_default()
    }

    /// The longest call of either kind within a window.
    pub(crate) fn longest_of_all(&self, from: Instant, to: Instant) -> Duration {
        let inside = |(begin, end): &Call| (*end).min(to).saturating_duration_since((*begin).max(from));
        self.writes.iter().chain(&self.creates).map(inside).max().unwrap_or_default()
    }

    /// From `moment` to the end of the create that took longest of those that had not ended by then.
    pub(crate) fn waited_after(&self, moment: Instant) -> Option<Duration> {
        let later = self.creates.iter().filter(|(_, end)| *end > moment);
        later.max_by_key(|(begin, end)| *end - *begin).map(|(_, end)| *end - moment)
    }

    /// From `moment` to the first acknowledged create that began after it.
    pub(crate) fn first_after(&self, moment: Instant) -> Option<Duration> {
        self.creates.iter().find(|(begin, _)| *begin >= moment).map(|(_, end)| *end - moment)
    }
}

/// Running threads.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    nodes: Vec<(usize, Receiver<Log>, Receiver<Log>)>,
}

/// Each node's own file.
pub(crate) fn prepare(cluster: &Cluster) -> Result<(), Failure> {
    cluster.members.iter().try_for_each(|m| fio::fill(&own_file(&m.mount(), m.node), FILE, false))
}

fn own_file(mount: &Path, node: u8) -> PathBuf {
    mount.join(format!("own-{node}"))
}

impl Load {
    /// On all nodes.
    pub(crate) fn start(cluster: &Cluster, round: usize) -> Result<Load, Failure> {
        Load::start_without(cluster, round, None)
    }

    /// On all nodes but one. What that one has open hangs while it is cut off or frozen, and so would every program that this
    /// one starts, which inherits it and closes it.
    pub(crate) fn start_without(cluster: &Cluster, round: usize, not: Option<usize>) -> Result<Load, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut nodes = Vec::new();
        for (at, member) in cluster.members.iter().enumerate().filter(|(at, _)| Some(*at) != not) {
            let file = own_file(&member.mount(), member.node);
            let prefix = member.mount().join(format!("new-{}-{round}", member.node));
            let (a, b) = (Arc::clone(&stop), Arc::clone(&stop));
            nodes.push((at, spawn(move || write_in_place(&file, &a))?, spawn(move || create(&prefix, &b))?));
        }
        Ok(Load { stop, nodes })
    }

    /// Ends it. Every thread does one more call after it was told, so that a create that began after a kill is always
    /// among them.
    pub(crate) fn stop(self) -> Result<Vec<Taken>, Failure> {
        self.stop.store(true, Ordering::SeqCst);
        let log = |from: &Receiver<Log>, node: usize| {
            from.recv_timeout(HANG).map_err(|_| {
                Failure::new(format!("a call on node {} hangs for more than {} s", node + 1, HANG.as_secs()))
            })
        };
        self.nodes
            .iter()
            .map(|(node, writes, creates)| {
                let node = *node;
                let (writes, creates) = (log(writes, node)?, log(creates, node)?);
                let said = |what: String| format!("node {}: {what}", node + 1);
                let failures = writes.failure.into_iter().chain(creates.failure).map(said).collect();
                Ok(Taken { node, writes: writes.calls, creates: creates.calls, failures })
            })
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn spawn(work: impl FnOnce() -> Log + Send + 'static) -> Result<Receiver<Log>, Failure> {
    let (to, from) = channel();
    let run = move || {
        // Nobody waits any more only if the run has failed.
        let _ = to.send(work());
    };
    let spawned = thread::Builder::new().name("load".to_owned()).spawn(run);
    spawned.map(|_| from).map_err(|e| Failure::new(format!("no thread for the load: {e}")))
}

fn write_in_place(path: &Path, stop: &AtomicBool) -> Log {
    let mut log = Log::default();
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let mut opened = None;
    if !log.time("the open of its own file", || {
        OpenOptions::new().write(true).custom_flags(direct).open(path).map(|f| opened = Some(f))
    }) {
        return log;
    }
    log.calls.clear(); // the open is no write in place
    let Some(file) = opened else { return log };
    let data = AlignedBuf::zeroed(BLOCK as usize);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    loop {
        let last = stop.load(Ordering::SeqCst);
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let at = (seed >> 33) % (FILE / BLOCK) * BLOCK;
        if !log.time("a write in place", || write_at(&file, &data, at)) || last {
            return log;
        }
    }
}

fn write_at(file: &File, data: &[u8], at: u64) -> std::io::Result<()> {
    match rustix::io::pwrite(file, data, at)? {
        n if n == data.len() => Ok(()),
        _ => Err(std::io::ErrorKind::WriteZero.into()),
    }
}

fn create(prefix: &Path, stop: &AtomicBool) -> Log {
    let mut log = Log::default();
    for n in 0u64.. {
        let last = stop.load(Ordering::SeqCst);
        let path = PathBuf::from(format!("{}-{n}", prefix.display()));
        if !log.time("a create", || File::create_new(&path).map(drop)) {
            break;
        }
        let begin = Instant::now();
        if let Err(e) = fs::remove_file(&path) {
            log.failed("a removal", begin, &e);
            break;
        }
        if last {
            break;
        }
        thread::sleep(BREATH);
    }
    log
}
