//! Looks at the daemons of a demo through their APIs: throughput and routes several times a second, events as they
//! come. Works through a daemon's death and return.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::cluster::VOLUME;
use super::report::{RouteBytes, Sample};
use super::timeline::Timeline;
use crate::api::{Client, IoCounters, Node, Request, Route, RouteIo, Status};
use crate::clock::WallTime;
use crate::events::{Code, Event};
use crate::exit::Failure;

/// Five points a second: a change of half a second is seen.
const PERIOD: Duration = Duration::from_millis(200);

/// Events that a reader of the report wants to see; the rest is in `shorefast events`.
const SHOWN: [Code; 20] = [
    Code::PeerDown,
    Code::VolumeMounted,
    Code::MountFailed,
    Code::StaleMountCleaned,
    Code::RouteChanged,
    Code::RouteDirect,
    Code::PathLost,
    Code::PathBack,
    Code::PathFenced,
    Code::MetadataSuspended,
    Code::MetadataResumed,
    Code::TakeoverStarted,
    Code::OfficeTaken,
    Code::OfficeLost,
    Code::OfficeResigned,
    Code::GraceEnded,
    Code::MoveFailed,
    Code::ClientFenced,
    Code::ClientEvicted,
    Code::SelfEvicted,
];

type Bytes = Arc<Mutex<BTreeMap<(Node, Route), RouteIo>>>;

/// The watching threads; they end when it is dropped.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    bytes: Bytes,
    samplers: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Watches daemons.
    pub(crate) fn start(daemons: Vec<(Node, Client)>, timeline: &Arc<Timeline>) -> Result<Watch, Failure> {
        let mut watch = Watch { stop: Arc::default(), bytes: Arc::default(), samplers: Vec::new() };
        for (node, client) in daemons {
            let spawn = |name: &str, f: Box<dyn FnOnce() + Send>| {
                std::thread::Builder::new().name(format!("{name} {node}")).spawn(f).map_err(|e| {
                    Failure::failed(format!("No thread to watch {node}: {e}."), "See the limits of the system.")
                })
            };
            let (stop, bytes, line, to_ask) =
                (Arc::clone(&watch.stop), Arc::clone(&watch.bytes), Arc::clone(timeline), client.clone());
            watch.samplers.push(spawn("sample", Box::new(move || sample(node, &to_ask, &stop, &bytes, &line)))?);
            let (stop, line) = (Arc::clone(&watch.stop), Arc::clone(timeline));
            // Ends with its daemon at the latest; nobody waits for it.
            spawn("events", Box::new(move || follow(node, &client, &stop, &line)))?;
        }
        Ok(watch)
    }

    /// What each node has moved by each route, in all its lives.
    pub(crate) fn bytes_by_route(&self) -> Vec<RouteBytes> {
        let bytes = self.bytes.lock();
        let row = |((node, route), io): (&(Node, Route), &RouteIo)| RouteBytes {
            node: *node,
            route: *route,
            read_bytes: io.read_bytes,
            written_bytes: io.written_bytes,
        };
        bytes.iter().map(row).collect()
    }

    /// Ends the sampling and waits for it, so that nothing is counted any more.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for sampler in self.samplers.drain(..) {
            // A sampler that panicked has only lost samples.
            let _ = sampler.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn sample(node: Node, client: &Client, stop: &AtomicBool, bytes: &Bytes, timeline: &Timeline) {
    let mut before = IoCounters::default();
    let (mut since, mut known) = (None::<Instant>, false);
    loop {
        // Read first: the last look happens after the end was asked for, and sees everything.
        let ending = stop.load(Ordering::Relaxed);
        let status = client.call_within(Request::Status, Duration::from_secs(2), |_| ());
        let seen = match status {
            Ok(crate::api::Reply::Status(status)) => look(node, &status),
            _ => None,
        };
        let (route, io) = match seen {
            Some((route, io)) => (Some(route), io),
            // A daemon that died counts from zero when it is back.
            None => (None, IoCounters::default()),
        };
        let moved = add(node, bytes, &before, &io);
        known |= route.is_some();
        // The first look has nothing to compare with: it counts bytes, and says no rate. Before there is a volume there is
        // nothing to be shown.
        if let Some(since) = since.replace(Instant::now()).filter(|_| known) {
            let bytes_per_s = moved as f64 / since.elapsed().as_secs_f64().max(1e-3);
            timeline.sample(Sample { t_ms: timeline.now_ms(), node, route, bytes_per_s });
        }
        before = io;
        if ending {
            return;
        }
        std::thread::sleep(PERIOD);
    }
}

/// A node's own route and counters.
fn look(node: Node, status: &Status) -> Option<(Route, IoCounters)> {
    let volume = status.volume(VOLUME)?;
    let route = volume.nodes.iter().find(|n| n.node == node)?.route;
    Some((route, volume.io))
}

/// Adds what was moved between two looks; returns the bytes.
fn add(node: Node, bytes: &Bytes, before: &IoCounters, now: &IoCounters) -> u64 {
    let pairs = [
        (Route::Direct, before.direct, now.direct),
        (Route::BlockRedirected, before.block_redirected, now.block_redirected),
        (Route::FileRedirected, before.file_redirected, now.file_redirected),
    ];
    let mut all = bytes.lock();
    let mut moved = 0;
    for (route, before, now) in pairs {
        let sum = all.entry((node, route)).or_default();
        let read = now.read_bytes.saturating_sub(before.read_bytes);
        let written = now.written_bytes.saturating_sub(before.written_bytes);
        sum.read_bytes += read;
        sum.written_bytes += written;
        moved += read + written;
    }
    moved
}

/// Follows a daemon's events; a daemon that died is tried again, from its first event on: it counts anew.
fn follow(node: Node, client: &Client, stop: &AtomicBool, timeline: &Timeline) {
    let mut last = (WallTime(0), 0);
    while !stop.load(Ordering::Relaxed) {
        // The daemon is down or ended: nothing to do but to try again.
        let _ = client.events(true, 0, |event| {
            let fresh = (event.at, event.seq) > last;
            last = last.max((event.at, event.seq));
            if fresh && SHOWN.contains(&event.code) {
                timeline.reported(event.at, node, shown(&event));
            }
            !stop.load(Ordering::Relaxed)
        });
        std::thread::sleep(PERIOD);
    }
}

/// An event for people, who may never have heard of its code.
fn shown(event: &Event) -> String {
    let what = match event.code {
        Code::PeerDown => "another node cannot be reached: ",
        Code::VolumeMounted => "has mounted the volume ",
        Code::OfficeTaken => "is coordinator now: ",
        Code::OfficeResigned => "handed the coordinator's office over: ",
        Code::TakeoverStarted => "takes over: ",
        Code::PathLost => "has lost its path to the disk: ",
        Code::PathBack => "path is back: ",
        Code::PathFenced => "shut off for good what was stuck in a lost path: ",
        Code::ClientFenced => "cut off from the disk: ",
        Code::ClientEvicted => "ended for good: ",
        Code::StaleMountCleaned => "has removed a dead mount: ",
        Code::RouteChanged | Code::RouteDirect => "route: ",
        _ => "",
    };
    format!("{what}{} [{}]", event.message, event.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_begin_anew_after_a_restart_add_to_what_was() {
        let (bytes, node) = (Bytes::default(), Node::new(3).expect("a node"));
        let at =
            |read_bytes| IoCounters { direct: RouteIo { read_bytes, ..RouteIo::default() }, ..IoCounters::default() };
        let looks = [at(0), at(100), IoCounters::default(), at(30), at(50)];
        let moved: Vec<u64> = looks.windows(2).map(|w| add(node, &bytes, &w[0], &w[1])).collect();
        assert_eq!(moved, [100, 0, 30, 20]);
        assert_eq!(bytes.lock()[&(node, Route::Direct)].read_bytes, 150);
    }
}
