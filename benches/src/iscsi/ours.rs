//! Our initiator in this process: a session, or a unit over several, and a load of a fixed depth on the same worker.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;
use block::device::{BlockDevice, DeviceExt, Op};
use block::multipath::{Config as Multi, PathState};
use block::units::{ByteLen, ByteOffset};
use block::worker::{Handle, Workers};
use iscsi::discovery::Portal;
use iscsi::ids::Isid;
use iscsi::keys::params::DigestWish;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::{Config, FenceGen};
use iscsi_initiator::lun::Plan;
use iscsi_initiator::unit::attach;
use iscsi_initiator::{LunDevice, Ownership, Session};
use rustix::time::{ClockId, clock_gettime};
use scsi::LunAddress;

use super::Job;
use super::tgt::{SIZE, TARGETS, Tgt};
use crate::Failure;
use crate::arms::{Arm, Measured};

/// How long paths may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(20);
/// This host's name.
const HOST: &str = "iqn.2026-01.test:bench-host";

/// A unit of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lun {
    /// A file in memory.
    Memory,
    /// Nothing at all.
    Null,
}

impl Lun {
    pub(super) fn number(self) -> u64 {
        match self {
            Lun::Memory => 1,
            Lun::Null => 2,
        }
    }
}

/// How the unit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paths {
    /// Over one session, without multipath.
    Alone,
    /// The same, with a data digest.
    Digest,
    /// Over so many portals.
    Many(usize),
    /// So many sessions without multipath, each with a load of its own.
    Sessions(u16),
}

pub(super) struct Ours<'a> {
    workers: &'a Workers,
    job: Job,
    lun: Lun,
    paths: Paths,
    portals: Vec<Portal>,
}

impl<'a> Ours<'a> {
    pub(super) fn new(workers: &'a Workers, tgt: &Tgt, job: Job, lun: Lun, paths: Paths) -> Ours<'a> {
        let count = if let Paths::Many(n) = paths { n } else { 1 };
        Ours { workers, job, lun, paths, portals: tgt.portals(count) }
    }

    /// The same at another target.
    pub(super) fn at(workers: &'a Workers, portal: Portal, job: Job, lun: Lun, paths: Paths) -> Ours<'a> {
        Ours { workers, job, lun, paths, portals: vec![portal] }
    }
}

impl Arm for Ours<'_> {
    fn measure(&mut self, seconds: f64) -> Result<Measured, Failure> {
        let (handle, portals) = (self.workers.handle(), self.portals.clone());
        let (job, lun, paths) = (self.job, self.lun, self.paths);
        let task = self.workers.spawn(0, move || async move {
            let before = cpu_time();
            let load = Load::new(job, Duration::from_secs_f64(seconds));
            let (took, ops) = over(&handle, portals, (lun, paths), load).await?;
            let cpu_s = Some((cpu_time() - before).as_secs_f64());
            Ok(Measured { per_second: ops as f64 / took.as_secs_f64().max(1e-9), ops, cpu_s })
        });
        task.wait().map_err(|_| Failure::new("the load was lost with its worker"))?
    }
}

/// Opens the unit, loads it, closes it; how long the load took, and its requests.
async fn over(
    workers: &Handle,
    portals: Vec<Portal>,
    (lun, paths): (Lun, Paths),
    load: Load,
) -> Result<(Duration, u64), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the unit of tgt cannot be used: {e}"));
    let lun = LunAddress::new(lun.number()).ok_or_else(|| failed(&"no such number"))?;
    if let Paths::Sessions(count) = paths {
        return several(workers, &portals, (lun, count), load).await;
    }
    let configs: Vec<Config> = portals.into_iter().map(|portal| config(portal, paths, 1)).collect();
    if let Paths::Many(count) = paths {
        let multi =
            Multi { check_min: Duration::from_secs(60), check_failed: Duration::from_millis(20), ..Multi::default() };
        let plan = Plan {
            portals: configs,
            lun,
            per_portal: 1,
            first_slot: 1,
            host: 1,
            generation: FenceGen(0),
            paths: multi,
        };
        let unit = Arc::new(iscsi_initiator::Lun::open(workers, plan).await.map_err(|e| failed(&e))?);
        let begun = Instant::now();
        while unit.status().iter().filter(|p| p.state == PathState::Up).count() < count {
            if begun.elapsed() > UP_WITHIN {
                return Err(failed(&format!("{count} paths do not come up: {:?}", unit.status())));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let result = load.run(std::slice::from_ref(&unit)).await;
        if let Some(unit) = Arc::into_inner(unit) {
            unit.close().await;
        }
        return result;
    }
    let Some(config) = configs.into_iter().next() else { return Err(failed(&"it has no portal")) };
    let session = Session::start(workers, 0, config, Ownership::Alone);
    let identity = attach(&session, lun).await.map_err(|e| failed(&e))?;
    let device = Arc::new(LunDevice::new(session.clone(), identity, FenceGen(0)));
    let result = load.run(&[device]).await;
    session.close().await;
    result
}

/// The same load over each of several sessions at one portal.
async fn several(
    workers: &Handle,
    portals: &[Portal],
    (lun, count): (LunAddress, u16),
    load: Load,
) -> Result<(Duration, u64), Failure> {
    let Some(portal) = portals.first() else { return Err(Failure::new("the target has no portal")) };
    let (mut sessions, mut devices) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let session = Session::start(workers, 0, config(portal.clone(), Paths::Alone, number), Ownership::Alone);
        let identity = attach(&session, lun).await;
        let identity = identity.map_err(|e| Failure::new(format!("the unit cannot be used: {e}")))?;
        devices.push(Arc::new(LunDevice::new(session.clone(), identity, FenceGen(0))));
        sessions.push(session);
    }
    let result = load.run(&devices).await;
    for session in sessions {
        session.close().await;
    }
    result
}

/// Logs so many sessions in, lets them be, and asks `look` meanwhile.
pub(super) async fn idle<T>(
    workers: Handle,
    portal: Portal,
    count: u16,
    look: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let start = |n| Session::start(&workers, 0, config(portal.clone(), Paths::Alone, n), Ownership::Alone);
    let sessions: Vec<Session> = (1..=count).map(start).collect();
    for session in &sessions {
        session.up().await.map_err(|e| Failure::new(format!("one of {count} sessions did not come up: {e}")))?;
    }
    let seen = look();
    for session in sessions {
        session.close().await;
    }
    seen
}

fn config(portal: Portal, paths: Paths, number: u16) -> Config {
    let target = TARGETS[usize::from(paths == Paths::Digest)].to_owned();
    let mut login = LoginConfig::new(HOST, Isid::from_number(1, number), Kind::Normal { target });
    if paths == Paths::Digest {
        login.offer.data_digest = DigestWish::Always;
    }
    Config::new(login, portal)
}

/// A load of a fixed depth for a fixed time.
struct Load {
    job: Job,
    time: Duration,
    next: AtomicU64,
    done: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Load {
    fn new(job: Job, time: Duration) -> Load {
        Load { job, time, next: AtomicU64::new(7), done: AtomicU64::new(0), failure: Mutex::new(None) }
    }

    /// Where the next request goes: all within the unit in memory, so that both units see the same.
    fn place(&self) -> ByteOffset {
        let (block, next) = (u64::from(self.job.block), self.next.load(Relaxed));
        let places = SIZE / block;
        if self.job.random {
            let after = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.next.store(after, Relaxed);
            return ByteOffset((next >> 20) % places * block);
        }
        self.next.store(next + 1, Relaxed);
        ByteOffset(next % places * block)
    }

    /// One task for each request in flight on each of these, all on this worker.
    async fn run<D: BlockDevice>(self, devices: &[Arc<D>]) -> Result<(Duration, u64), Failure> {
        let (begun, this) = (Instant::now(), Arc::new(self));
        let until = begun + this.time;
        let each = |_| devices.iter().map(|device| tokio::spawn(lane(Arc::clone(device), Arc::clone(&this), until)));
        for lane in (0..this.job.depth).flat_map(each).collect::<Vec<_>>() {
            lane.await.map_err(|e| Failure::new(format!("a request was lost: {e}")))?;
        }
        match this.failure.lock().ok().and_then(|mut why| why.take()) {
            Some(why) => Err(Failure::new(format!("a request failed: {why}"))),
            None => Ok((begun.elapsed(), this.done.load(Relaxed))),
        }
    }
}

/// One request after another, until the time is over or one fails. Each lane has its own memory, as a program with a fixed depth
/// has: what the free lists of `block` keep is not what is measured.
async fn lane<D: BlockDevice>(device: Arc<D>, load: Arc<Load>, until: Instant) {
    let len = load.job.block as usize;
    let op = if load.job.write { Op::Write { fua: false } } else { Op::Read };
    let mut buf = Some(AlignedBuf::zeroed(len));
    while Instant::now() < until {
        let done = device.start(op, load.place(), ByteLen::from_usize(len), buf.take()).await;
        buf = done.buf;
        if let Err(e) = done.result {
            if let Ok(mut failure) = load.failure.lock() {
                *failure = Some(e.to_string());
            }
            return;
        }
        load.done.fetch_add(1, Relaxed);
    }
}

/// This worker's CPU time, user and system: the initiator and its load run there, and nothing else.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
