//! A shared unit of the embedded target, without daemons: nexuses that enter, are judged, and carry data only then. The part of the
//! office is played step by step, so that each order of events can be had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;
use block::device::DeviceExt;
use block::error::IoErrorKind;
use block::fault::FaultDevice;
use block::shared::{
    AloneError, CawOutcome, Entrance, FenceGen, Incarnation, NexusKey, NexusNumber, Nexuses, NodeId, ReservationKey,
    SharedDisk, VolumeTag,
};
use block::units::{BlockSize, ByteLen, ByteOffset};
use block::worker::Workers;
use block::{BlockDevice, MemDevice};
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::Config;
use iscsi_initiator::Url;
use iscsi_initiator::shared::{SharedPlan, open};
use iscsi_target::{Admission, Lun, Portal, Server, Target};
use scsi::LunAddress;
use tokio::sync::mpsc::UnboundedReceiver;

const TARGET: &str = "iqn.2026-01.test:units";
const VOLUME: [u8; 16] = [0x5f; 16];
const AT: ByteOffset = ByteOffset(1 << 16);
const SLOT: ByteOffset = ByteOffset(0);

/// A target with two portals on a device that can be hurt.
struct San {
    device: Arc<FaultDevice>,
    server: Option<Server>,
    workers: Workers,
    _state: tempfile::TempDir,
}

impl San {
    async fn start() -> San {
        let below: Arc<dyn BlockDevice> = Arc::new(MemDevice::new(ByteLen(1 << 20), BlockSize::B512));
        let device = FaultDevice::new(below);
        let workers = Workers::start(2, "units").expect("workers start");
        let state = tempfile::tempdir().expect("a folder");
        let address = "127.0.0.1:0".parse().expect("an address");
        let target = Target {
            name: TARGET.into(),
            luns: vec![Lun::new(0, Arc::clone(&device) as Arc<dyn BlockDevice>)],
            portals: vec![Portal { address, group: 1 }, Portal { address, group: 2 }],
            admission: Admission::default(),
            state: Some(state.path().to_owned()),
            redirect: None,
        };
        let server = Server::start(workers.handle(), target).await.expect("it listens");
        San { device, server: Some(server), workers, _state: state }
    }

    async fn node(&self, n: u8) -> Node {
        let addresses = self.server.as_ref().expect("it runs").addresses();
        let portals = addresses.iter().map(|address| {
            let url = Url::parse(&format!("iscsi://{address}/{TARGET}/0")).expect("a URL");
            let kind = Kind::Normal { target: TARGET.into() };
            let login = LoginConfig::new(format!("iqn.2026-01.test:node{n}"), Isid::from_number(0, 0), kind);
            Config::new(login, url.portal)
        });
        let plan = SharedPlan {
            portals: portals.collect(),
            lun: LunAddress::new(0).expect("in range"),
            per_portal: 1,
            first_slot: 1,
            host: u32::from(n),
            volume: VolumeTag::of(&VOLUME),
            node: node(n),
        };
        let disk = open(&self.workers.handle(), plan).await.expect("opens");
        let entered = nexuses(&disk).entered();
        Node { id: node(n), disk, entered, generation: 1 }
    }

    async fn stop(mut self) {
        self.device.heal();
        if let Some(server) = self.server.take() {
            within(server.stop()).await;
        }
        self.workers.shutdown().expect("workers end");
    }
}

fn node(n: u8) -> NodeId {
    NodeId::new(n).expect("a node")
}

fn nexuses(disk: &SharedDisk) -> &Arc<dyn Nexuses> {
    disk.nexuses().expect("a unit")
}

/// A node, and its office played by the test.
struct Node {
    id: NodeId,
    disk: SharedDisk,
    entered: UnboundedReceiver<Entrance>,
    generation: u64,
}

impl Node {
    fn nexuses(&self) -> &Arc<dyn Nexuses> {
        nexuses(&self.disk)
    }

    fn key(&self, nexus: NexusNumber) -> ReservationKey {
        NexusKey::new(VolumeTag::of(&VOLUME), self.id, Incarnation(1), nexus).key()
    }

    /// The next nexus that enters and stays for long enough to be registered.
    async fn registered(&mut self) -> NexusNumber {
        loop {
            let nexus = within(self.entered.recv()).await.expect("it enters").number;
            if within(self.nexuses().register(nexus, self.key(nexus))).await.is_ok() {
                return nexus;
            }
        }
    }

    /// The same, admitted.
    async fn admitted(&mut self) -> NexusNumber {
        loop {
            let nexus = self.registered().await;
            if within(self.nexuses().read_over(nexus, SLOT, 512)).await.is_ok() {
                self.nexuses().admit(nexus, FenceGen(self.generation));
                return nexus;
            }
        }
    }

    async fn both_admitted(&mut self) -> [NexusNumber; 2] {
        [self.admitted().await, self.admitted().await]
    }

    /// Every key of this life is taken away by another node.
    async fn fenced_by(&self, other: &Node) {
        let keys = within(other.nexuses().keys()).await.expect("told");
        let mine = |k: &&ReservationKey| {
            NexusKey::parse(**k).is_some_and(|k| k.is_of(VolumeTag::of(&VOLUME), self.id, Incarnation(1)))
        };
        for key in keys.iter().filter(mine) {
            within(other.nexuses().preempt(*key)).await.expect("taken");
        }
    }

    async fn leave(self) {
        within(self.nexuses().leave()).await;
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("not for ever")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn block(byte: u8) -> AlignedBuf {
    AlignedBuf::from_slice(&[byte; 512])
}

#[tokio::test]
async fn a_unit_is_read_and_compared_by_whoever_is_registered_and_written_only_over_nexuses_that_were_admitted() {
    let san = San::start().await;
    let mut one = san.node(1).await;
    assert_eq!(within(one.disk.cells.read(SLOT, 512)).await.expect("reads")[..], [0; 512]);
    let done = within(one.disk.caw.compare_and_write(SLOT, vec![0; 512], vec![7; 512])).await;
    assert_eq!(done, Ok(CawOutcome::Done));
    let write = one.disk.data.write(AT, block(1));
    let nexus = one.registered().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let below = within(san.device.read(AT, 512)).await.expect("reads");
    assert_eq!(below[..], [0; 512], "registered is not admitted");
    assert_eq!(within(one.nexuses().read_over(nexus, SLOT, 512)).await.expect("reads")[..], [7; 512]);
    one.nexuses().admit(nexus, FenceGen(1));
    within(write).await.0.expect("writes");
    assert!(within(one.nexuses().is_reserved()).await.expect("told"), "held against strangers");
    one.leave().await;
    san.stop().await;
}

#[tokio::test]
async fn what_waits_for_an_admission_comes_back_unsent_when_it_is_taken_back() {
    let san = San::start().await;
    let mut one = san.node(1).await;
    one.registered().await;
    let write = one.disk.data.write(AT, block(1));
    one.disk.abort.take_back();
    assert_eq!(within(write).await.0.expect_err("taken back").kind, IoErrorKind::Aborted);
    let nexus = one.registered().await;
    one.nexuses().admit(nexus, FenceGen(1));
    within(one.disk.data.write(AT, block(2))).await.0.expect("writes");
    assert_eq!(within(san.device.read(AT, 512)).await.expect("reads")[..], [2; 512]);
    one.leave().await;
    san.stop().await;
}

/// The whole way of a fence: what the victim has on its way has ended when the fence is answered, its nexuses meet the fence, enter
/// anew under other keys, and carry data again only when they are admitted.
#[tokio::test]
async fn what_a_fenced_node_had_on_its_way_does_not_land_after_the_fence_and_it_writes_again_only_once_it_is_admitted_anew()
 {
    let san = San::start().await;
    let (mut one, mut two) = (san.node(1).await, san.node(2).await);
    let before = one.both_admitted().await;
    two.both_admitted().await;
    within(one.disk.data.write(AT, block(1))).await.0.expect("writes");
    san.device.delay(Duration::from_millis(700));
    let stuck: Vec<_> = (0..8).map(|_| one.disk.data.write(AT, block(9))).collect();
    until("they are in the disk", || san.device.below() + san.device.held() > 0).await;
    within(one.disk.abort.withdraw()).await.expect("nothing more is sent");
    one.fenced_by(&two).await;
    one.disk.abort.ended_by_fence();
    for write in stuck {
        let kind = within(write).await.0.err().map(|e| e.kind);
        assert!(matches!(kind, None | Some(IoErrorKind::Aborted | IoErrorKind::Fenced)), "{kind:?}");
    }
    san.device.heal();
    within(two.disk.data.write(AT, block(2))).await.0.expect("writes");
    let late = one.disk.data.write(AT, block(9));
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(within(two.disk.data.read(AT, 512)).await.expect("reads")[..], [2; 512], "nothing of the victim lands");
    one.generation = 2;
    let after = one.both_admitted().await;
    assert!(after.iter().all(|n| !before.contains(n)), "{before:?} {after:?}: each entrance has a number of its own");
    // It was submitted before the fence was known here, over nexuses of the older generation: it has ended as fenced, or went out now.
    let kind = within(late).await.0.err().map(|e| e.kind);
    assert!(matches!(kind, None | Some(IoErrorKind::Fenced)), "{kind:?}");
    within(one.disk.data.write(AT, block(3))).await.0.expect("writes");
    assert_eq!(within(two.disk.data.read(AT, 512)).await.expect("reads")[..], [3; 512]);
    one.leave().await;
    two.leave().await;
    san.stop().await;
}

#[tokio::test]
async fn a_new_office_ends_every_admission_of_the_one_before() {
    let san = San::start().await;
    let mut one = san.node(1).await;
    let before = one.both_admitted().await;
    within(one.disk.data.write(AT, block(1))).await.0.expect("writes");
    one.entered = one.nexuses().entered();
    for nexus in before {
        one.nexuses().admit(nexus, FenceGen(1));
    }
    let write = one.disk.data.write(AT, block(2));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(within(san.device.read(AT, 512)).await.expect("reads")[..], [1; 512], "nobody has admitted it yet");
    one.both_admitted().await;
    within(write).await.0.expect("writes");
    one.leave().await;
    san.stop().await;
}

#[tokio::test]
async fn a_unit_is_had_alone_only_while_nobody_else_is_registered_and_nobody_comes_in_meanwhile() {
    let san = San::start().await;
    let (one, two) = (san.node(1).await, san.node(2).await);
    let refused = within(one.nexuses().alone()).await.expect_err("node 2 is there");
    let AloneError::Others(keys) = refused else { panic!("{refused:?}") };
    assert!(keys.iter().all(|k| NexusKey::parse(*k).is_some_and(|k| k.node == node(2))), "{keys:?}");
    one.leave().await;
    two.leave().await;
    let one = san.node(1).await;
    within(one.nexuses().alone()).await.expect("nobody else is there");
    within(one.disk.data.write(AT, block(1))).await.0.expect("writes");
    within(one.disk.data.flush()).await.expect("flushes");
    one.leave().await;
    let mut two = san.node(2).await;
    assert_eq!(within(two.nexuses().keys()).await.expect("told").len(), 2, "nothing of the other is left");
    two.both_admitted().await;
    assert_eq!(within(two.disk.data.read(AT, 512)).await.expect("reads")[..], [1; 512]);
    two.leave().await;
    san.stop().await;
}

/// One portal's connections end again and again while data are written: every write is acknowledged, and is there.
#[tokio::test]
async fn a_way_that_comes_and_goes_enters_each_time_and_data_go_over_the_other_one() {
    let san = San::start().await;
    let mut one = san.node(1).await;
    one.both_admitted().await;
    for round in 1..=8_u8 {
        san.server.as_ref().expect("it runs").ask_logout(1);
        let writes: Vec<_> = (0..8).map(|n| one.disk.data.write(ByteOffset(AT.0 + n * 512), block(round))).collect();
        // Whoever comes in is let in by the office.
        let judged = async {
            loop {
                one.admitted().await;
            }
        };
        let all = async {
            for write in writes {
                write.await.0.expect("writes");
            }
        };
        tokio::select! {
            () = within(all) => {}
            () = judged => {}
        }
        for n in 0..8 {
            let there = within(san.device.read(ByteOffset(AT.0 + n * 512), 512)).await.expect("reads");
            assert_eq!(there[..], [round; 512], "round {round}");
        }
    }
    one.leave().await;
    san.stop().await;
}
