//! `iscsi bench`: a load of a fixed depth for a fixed time, and what it came to. CPU is this process's own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;
use block::device::{BlockDevice, DeviceExt};
use block::units::ByteOffset;
use iscsi_initiator::LunDevice;
use serde_json::json;

use crate::cli::{BenchKind, Global, IscsiBenchArgs};
use crate::commands::{print, print_json};
use crate::exit::Failure;

/// Latencies that are kept: beyond that every second one is dropped, again and again, so that memory is bounded.
const KEPT: usize = 1 << 20;

/// Whether it changes data.
pub(super) fn writes(kind: BenchKind) -> bool {
    matches!(kind, BenchKind::Write | BenchKind::Randwrite)
}

struct Load {
    next: u64,
    random: u64,
    done: u64,
    nanoseconds: Vec<u64>,
    failure: Option<String>,
}

impl Load {
    /// The number of the next request's place.
    fn place(&mut self, kind: BenchKind, places: u64) -> u64 {
        if matches!(kind, BenchKind::Read | BenchKind::Write) {
            self.next += 1;
            return (self.next - 1) % places;
        }
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 20) % places
    }

    fn took(&mut self, time: Duration) {
        self.done += 1;
        if self.nanoseconds.len() == KEPT {
            let mut keep = false;
            self.nanoseconds.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.nanoseconds.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Runs it and shows the result.
pub(super) async fn run(device: &LunDevice, args: &IscsiBenchArgs, global: &Global) -> Result<(), Failure> {
    let places = device.geometry().len.0.checked_div(args.bs.0).unwrap_or(0);
    let Some(len) = usize::try_from(args.bs.0).ok().filter(|l| *l > 0 && places > 0) else {
        return Err(Failure::usage("--bs does not fit the unit.", "Give a size between its block and its length."));
    };
    let load = Load { next: 0, random: 7, done: 0, nanoseconds: Vec::new(), failure: None };
    let load = Rc::new(RefCell::new(load));
    let (begun, cpu) = (Instant::now(), cpu_time());
    let until = begun + Duration::from_secs(u64::from(args.seconds));
    let lanes = (0..args.depth).map(|_| lane(device, Rc::clone(&load), args.rw, len, places, until));
    let lanes: Vec<_> = lanes.map(Box::pin).collect();
    all(lanes).await;
    let (elapsed, cpu) = (begun.elapsed(), cpu_time().saturating_sub(cpu));
    let mut load = load.borrow_mut();
    if let Some(e) = load.failure.take() {
        return Err(Failure::failed(format!("A request failed: {e}."), "The figures of a failing unit say nothing."));
    }
    show(&mut load, args, elapsed, cpu, global)
}

/// One request after another.
async fn lane(device: &LunDevice, load: Rc<RefCell<Load>>, kind: BenchKind, len: usize, places: u64, until: Instant) {
    let mut buf = Some(AlignedBuf::zeroed(len));
    while Instant::now() < until && load.borrow().failure.is_none() {
        let at = ByteOffset(load.borrow_mut().place(kind, places) * len as u64);
        let begun = Instant::now();
        let result = if writes(kind) {
            let (result, back) = device.write(at, buf.take().unwrap_or_else(|| AlignedBuf::zeroed(len))).await;
            buf = Some(back);
            result
        } else {
            device.read(at, len).await.map(drop)
        };
        match result {
            Ok(()) => load.borrow_mut().took(begun.elapsed()),
            Err(e) => load.borrow_mut().failure = Some(e.to_string()),
        }
    }
}

/// Polls all lanes; each wakes the whole, which is cheap beside a request.
async fn all<F: Future<Output = ()> + Unpin>(mut lanes: Vec<F>) {
    std::future::poll_fn(move |cx| {
        lanes.retain_mut(|lane| std::pin::Pin::new(lane).poll(cx).is_pending());
        if lanes.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn show(
    load: &mut Load,
    args: &IscsiBenchArgs,
    elapsed: Duration,
    cpu: Duration,
    global: &Global,
) -> Result<(), Failure> {
    load.nanoseconds.sort_unstable();
    let percentile = |p: usize| {
        let at = (load.nanoseconds.len() * p / 1000).min(load.nanoseconds.len().saturating_sub(1));
        load.nanoseconds.get(at).copied().unwrap_or(0) as f64 / 1000.0
    };
    let seconds = elapsed.as_secs_f64();
    let iops = load.done as f64 / seconds;
    let mib = iops * args.bs.0 as f64 / f64::from(1 << 20);
    let cpu_us = cpu.as_secs_f64() * 1e6 / load.done.max(1) as f64;
    let (p50, p99, p999) = (percentile(500), percentile(990), percentile(999));
    if global.json {
        let bench = json!({
            "requests": load.done, "seconds": seconds, "iops": iops, "mib_per_s": mib,
            "latency_us": {"p50": p50, "p99": p99, "p99.9": p999}, "cpu_us_per_request": cpu_us,
        });
        return print_json("bench", &bench);
    }
    print(&format!(
        "{iops:.0} IOPS, {mib:.1} MiB/s, latency {p50:.0} us (p99 {p99:.0}, p99.9 {p999:.0}), {cpu_us:.2} us CPU each\n"
    ))
}

/// This process's CPU time, user and system.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
