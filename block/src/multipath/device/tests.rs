//! The device over real devices: a path that loses writes in the fabric, and the fault device.

use std::time::Duration;

use parking_lot::Mutex;
use scsi::vpd::{Designator, DeviceIdentification, Identifier, Naa};

use super::*;
use crate::buf::AlignedBuf;
use crate::device::DeviceExt;
use crate::fault::FaultDevice;
use crate::mem::MemDevice;
use crate::multipath::config::Policy;
use crate::multipath::rules::{Rule, Rules};
use crate::shared::HELD_TYPE;
use crate::shared::reserve::model::{Disk, Nexus as Model};
use crate::units::{BlockSize, ByteLen, ByteOffset};
use crate::worker::Workers;

/// A write that has left this host: where, and what.
type Stuck = (ByteOffset, Vec<u8>);

/// A path to a disk in memory. While it loses, requests come back without an answer, and what they wanted to write stays
/// in the fabric until it is released, or killed.
struct FabricPath {
    disk: Arc<FaultDevice>,
    name: u8,
    loses: Mutex<bool>,
    stuck: Mutex<Vec<Stuck>>,
    /// Its nexus, and whether that was killed; then its own proof ends. Without a nexus it ends at once.
    nexus: Option<(Model, ReservationKey)>,
    killed: Notify,
}

impl FabricPath {
    fn new(disk: &Arc<MemDevice>, name: u8, nexus: Option<(Model, ReservationKey)>) -> Arc<FabricPath> {
        let disk = FaultDevice::new(Arc::clone(disk) as Arc<dyn BlockDevice>);
        let (loses, stuck, killed) = (Mutex::new(false), Mutex::default(), Notify::new());
        Arc::new(FabricPath { disk, name, loses, stuck, nexus, killed })
    }

    fn lose(&self) {
        *self.loses.lock() = true;
    }

    /// What is stuck arrives at the disk.
    async fn release(&self, disk: &MemDevice) {
        let stuck = std::mem::take(&mut *self.stuck.lock());
        for (at, bytes) in stuck {
            disk.write(at, AlignedBuf::from_slice(&bytes)).await.0.expect("a disk in memory");
        }
    }
}

impl BlockDevice for FabricPath {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn submit(&self, io: Io) {
        if !*self.loses.lock() {
            return self.disk.submit(io);
        }
        if let (Op::Write { .. }, Some(buf)) = (io.op, &io.buf) {
            self.stuck.lock().push((io.at, buf.to_vec()));
        }
        io.fail(IoErrorKind::NoPath);
    }

    fn describe(&self) -> String {
        format!("fabric path {}", self.name)
    }
}

impl AbortOwn for FabricPath {
    fn abort_outstanding(&self) -> BoxFuture<'_, Result<NothingInFlight, IoError>> {
        Box::pin(async move {
            if self.nexus.is_some() {
                self.killed.notified().await;
            }
            self.stuck.lock().clear();
            self.disk.abort_outstanding().await
        })
    }
}

impl Identify for FabricPath {
    fn identify(&self) -> BoxFuture<'_, Result<DiskIdentity, IoError>> {
        Box::pin(std::future::ready(Ok(identity(1))))
    }
}

impl Path for FabricPath {
    fn check(&self) -> BoxFuture<'_, Result<Access, Reason>> {
        let well = !*self.loses.lock();
        let answer = if well { Ok(Access::PLAIN) } else { Err(Reason::CheckFailed("it loses requests".into())) };
        Box::pin(std::future::ready(answer))
    }

    fn lost(&self) -> BoxFuture<'_, Reason> {
        Box::pin(std::future::pending())
    }

    fn nexus(&self) -> Option<Nexus<'_>> {
        self.nexus.as_ref().map(|(reservations, key)| Nexus { reservations, key: *key })
    }

    fn killed(&self) {
        self.killed.notify_one();
    }
}

fn identity(number: u8) -> DiskIdentity {
    let name = Designator::unit(Identifier::Naa(Naa::Long([0x60 + number; 16])));
    let identification = DeviceIdentification { designators: vec![name] };
    DiskIdentity { target: "iqn.2026-01.test:t".into(), identification, serial: None }
}

struct Setup {
    disk: Arc<MemDevice>,
    paths: [Arc<FabricPath>; 2],
    device: Multipath,
    // Dropped last: the device's tasks run there.
    _workers: Workers,
}

const SIZE: ByteLen = ByteLen(1 << 20);

async fn setup(config: Config, identity_of: u8) -> Setup {
    setup_with(config, identity_of, [None, None]).await
}

async fn setup_with(config: Config, identity_of: u8, nexuses: [Option<(Model, ReservationKey)>; 2]) -> Setup {
    let workers = Workers::start_without_rings(1, "test").expect("workers start");
    let disk = Arc::new(MemDevice::new(SIZE, BlockSize::B512));
    let [a, b] = nexuses;
    let paths = [FabricPath::new(&disk, 0, a), FabricPath::new(&disk, 1, b)];
    let device = Multipath::new(identity(identity_of), disk.geometry(), config, workers.handle());
    for path in &paths {
        assert!(device.add(Arc::clone(path) as Arc<dyn Path>, None));
    }
    if identity_of == 1 {
        until(|| device.paths().iter().all(|p| p.state == PathState::Up)).await;
    }
    Setup { disk, paths, device, _workers: workers }
}

/// Waits for something, not for ever.
async fn until(mut holds: impl FnMut() -> bool) {
    let waits = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waits).await.expect("it comes to that");
}

fn quick(rules: Rules) -> Config {
    let ms = Duration::from_millis;
    Config { policy: Policy::Failover, path_timeout: ms(100), check_failed: ms(5), rules, ..Config::default() }
}

fn block(byte: u8) -> AlignedBuf {
    AlignedBuf::from_slice(&[byte; 512])
}

const AT: ByteOffset = ByteOffset(4096);

/// A write is delayed on path A and sent again on B; newer data are written; A's copy is released. What is there then?
async fn the_stuck_write(rules: Rules) -> u8 {
    let setup = setup(quick(rules), 1).await;
    setup.paths[0].lose();
    setup.device.write(AT, block(1)).await.0.expect("is sent again over B");
    setup.device.write(AT, block(2)).await.0.expect("is newer");
    setup.paths[0].release(&setup.disk).await;
    setup.device.read(AT, 512).await.expect("reads")[0]
}

#[tokio::test]
async fn a_write_stuck_on_a_failed_path_never_lands_after_newer_data() {
    assert_eq!(the_stuck_write(Rules::all()).await, 2);
}

/// The same without the rule, so that the test above is known to see it.
#[tokio::test]
async fn without_the_proof_the_stuck_write_lands() {
    assert_eq!(the_stuck_write(Rules::without(Rule::DeadBeforeReissue)).await, 1);
}

/// Two registered nexuses of one disk, which is held or not.
async fn registered(held: bool) -> (Setup, Arc<Mutex<Disk>>) {
    let keys = vec![ReservationKey(1), ReservationKey(2)];
    let model = Arc::new(Mutex::new(Disk { keys, held: held.then_some(HELD_TYPE), ..Disk::default() }));
    let nexus = |key| Some((Model(Arc::clone(&model)), ReservationKey(key)));
    (setup_with(quick(Rules::all()), 1, [nexus(1), nexus(2)]).await, model)
}

/// The path cannot prove anything by itself: another nexus takes its key away, with its tasks.
#[tokio::test]
async fn a_dead_nexus_is_killed_from_another_and_only_its_own_key_goes() {
    let (setup, model) = registered(true).await;
    setup.paths[0].lose();
    setup.device.write(AT, block(1)).await.0.expect("is sent again over B");
    setup.device.write(AT, block(2)).await.0.expect("is newer");
    setup.paths[0].release(&setup.disk).await;
    assert_eq!(setup.device.read(AT, 512).await.expect("reads")[..], [2; 512]);
    let model = model.lock();
    assert_eq!((&model.keys[..], &model.aborted[..]), (&[ReservationKey(2)][..], &[ReservationKey(1)][..]));
}

/// The key is gone, but strangers may write, and a stranger is what the dead nexus is by now.
#[tokio::test]
async fn without_the_reservation_the_kill_proves_nothing() {
    let (setup, model) = registered(false).await;
    setup.paths[0].lose();
    let write = setup.device.write(AT, block(1));
    until(|| model.lock().aborted.contains(&ReservationKey(1))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(setup.device.waiting(), (0, 1));
    drop(setup.device);
    assert_eq!(write.await.0.expect_err("nobody knows").kind, IoErrorKind::TimedOut);
}

/// The path does not answer at all: its request is withdrawn, comes back with its memory, and goes over the other one.
#[tokio::test]
async fn a_write_that_hangs_is_withdrawn_and_sent_over_the_other_path() {
    let setup = setup(quick(Rules::all()), 1).await;
    setup.paths[0].disk.hang();
    setup.device.write(AT, block(1)).await.0.expect("goes over B");
    setup.device.write(AT, block(2)).await.0.expect("is newer");
    setup.paths[0].disk.heal();
    assert_eq!(setup.device.read(AT, 512).await.expect("reads")[..], [2; 512]);
    assert_eq!(setup.paths[0].disk.held(), 0);
}

#[tokio::test]
async fn a_read_that_hangs_is_read_into_other_memory_over_the_other_path() {
    let setup = setup(quick(Rules::all()), 1).await;
    setup.device.write(AT, block(7)).await.0.expect("writes");
    setup.paths[0].disk.hang();
    assert_eq!(setup.device.read(AT, 512).await.expect("goes over B")[..], [7; 512]);
    setup.paths[0].disk.heal();
}

#[tokio::test]
async fn a_path_to_another_disk_is_never_used() {
    let setup = setup(quick(Rules::all()), 2).await;
    until(|| setup.device.paths().iter().all(|p| p.state == PathState::Failed(Reason::OtherDisk))).await;
    let write = setup.device.write(AT, block(1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(setup.device.waiting(), (1, 0));
    drop(setup.device);
    assert_eq!(write.await.0.expect_err("closed").kind, IoErrorKind::ShuttingDown);
    assert_eq!(setup.disk.read(AT, 512).await.expect("reads")[..], [0; 512]);
}

#[tokio::test]
async fn abort_own_takes_back_what_hangs_on_every_path() {
    let setup = setup(Config { policy: Policy::RoundRobin, ..quick(Rules::all()) }, 1).await;
    setup.paths.iter().for_each(|p| p.disk.hang());
    let writes: Vec<_> = (0..4).map(|n| setup.device.write(ByteOffset(n * 512), block(9))).collect();
    setup.device.abort_outstanding().await.expect("proved");
    for write in writes {
        assert_eq!(write.await.0.expect_err("withdrawn").kind, IoErrorKind::Aborted);
    }
    setup.paths.iter().for_each(|p| p.disk.heal());
    assert_eq!(setup.disk.read(ByteOffset(0), 2048).await.expect("reads")[..], [0; 2048]);
}

/// Paths hang, fail and heal while a disk is written and read: what was acknowledged is there.
#[tokio::test]
async fn data_survive_paths_that_come_and_go() {
    let setup = setup(Config { policy: Policy::ServiceTime, ..quick(Rules::all()) }, 1).await;
    for round in 1..=30_u8 {
        let hurt = &setup.paths[usize::from(round % 2)].disk;
        match round % 3 {
            0 => hurt.hang(),
            1 => hurt.fail(),
            _ => {}
        }
        let writes: Vec<_> = (0..16).map(|n| setup.device.write(ByteOffset(n * 4096), block(round))).collect();
        for write in writes {
            write.await.0.expect("one path is well");
        }
        for n in 0..16 {
            let read = setup.device.read(ByteOffset(n * 4096), 512).await.expect("one path is well");
            assert_eq!(read[..], [round; 512], "round {round}, block {n}");
        }
        setup.device.flush().await.expect("flushes");
        hurt.heal();
        until(|| setup.device.paths().iter().all(|p| p.state == PathState::Up)).await;
    }
}
