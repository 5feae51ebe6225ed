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
    ReserveError, SharedDisk, VolumeTag,
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
        San::with(|lun| lun).await
    }

    async fn with(lun: impl FnOnce(Lun) -> Lun) -> San {
        let below: Arc<dyn BlockDevice> = Arc::new(MemDevice::new(ByteLen(1 << 20), BlockSize::B512));
        let device = FaultDevice::new(below);
        let workers = Workers::start(2, "units").expect("workers start");
        let state = tempfile::tempdir().expect("a folder");
        let address = "127.0.0.1:0".parse().expect("an address");
        let target = Target {
            name: TARGET.into(),
            luns: vec![lun(Lun::new(0, Arc::clone(&device) as Arc<dyn BlockDevice>))],
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

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// The next write of a node is stuck in the disk behind the target, whatever becomes of that node.
    fn sticks_next_write_of(&self, n: u8) {
        self.server().stick_next_write(&format!("iqn.2026-01.test:node{n}"));
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
            let taken = within(other.nexuses().preempt(*key)).await;
            // It may have killed that nexus itself meanwhile, which is told to nobody before it is over.
            assert!(matches!(taken, Ok(()) | Err(ReserveError::Gone)), "{taken:?}");
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
    two.both_admitted().await;
    assert_eq!(within(two.nexuses().keys()).await.expect("told").len(), 2, "nothing of the other is left");
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

/// Longer than an answer about reservations is waited for before another nexus is asked as well.
const LONG: Duration = Duration::from_millis(4500);

/// A write of node 1 is in the disk. Node 2 takes its keys away; the answer takes longer than it waits before it asks over its other nexus,
/// where the key is gone. Node 3 asks meanwhile. Neither is told that it is done before the write has landed.
async fn a_key_is_taken_away_while_a_write_is_in_the_disk(tells_early: bool) {
    let san = San::with(|lun| lun.tells_early(tells_early)).await;
    let (mut one, mut two, mut three) = (san.node(1).await, san.node(2).await, san.node(3).await);
    let victims = one.both_admitted().await;
    two.both_admitted().await;
    three.both_admitted().await;
    // Else it would see to its own nexus first.
    one.nexuses().set_path_timeout(Duration::from_secs(120));
    san.sticks_next_write_of(1);
    let stuck = one.disk.data.write(AT, block(9));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let keys = victims.map(|nexus| one.key(nexus));
    let take = |node: &Node| {
        let nexuses = Arc::clone(node.nexuses());
        tokio::spawn(async move { [nexuses.preempt(keys[0]).await, nexuses.preempt(keys[1]).await] })
    };
    let fence = take(&two);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = take(&three);
    tokio::time::sleep(LONG).await;
    assert!(!fence.is_finished(), "the write may land");
    let seen = tokio::time::timeout(Duration::from_millis(300), three.nexuses().keys()).await.ok();
    match tells_early {
        true => {
            let keys_left = seen.expect("told").expect("told");
            assert!(keys.iter().any(|key| !keys_left.contains(key)), "{keys_left:?}");
        }
        false => assert!(seen.is_none_or(|told| told.is_err()), "nothing is told meanwhile"),
    }
    let up = |node: &Node| node.nexuses().paths().iter().filter(|p| p.state == block::multipath::PathState::Up).count();
    assert_eq!((up(&two), up(&three)), (2, 2), "their paths are well: {:?}", two.nexuses().paths());
    within(two.disk.data.write(ByteOffset(AT.0 + 512), block(5))).await.0.expect("writes");
    san.server().let_go();
    let fenced = within(fence).await.expect("ends");
    let also = within(second).await.expect("ends");
    for (n, key) in keys.iter().enumerate() {
        let results = [&fenced[n], &also[n]];
        assert!(results.iter().any(|r| r.is_ok()), "{key:?}: {results:?}");
        assert!(results.iter().all(|r| matches!(r, Ok(()) | Err(ReserveError::Gone))), "{key:?}: {results:?}");
    }
    within(two.disk.data.write(AT, block(2))).await.0.expect("writes");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(within(two.disk.data.read(AT, 512)).await.expect("reads")[..], [2; 512]);
    one.disk.abort.ended_by_fence();
    drop(stuck);
    for node in [one, two, three] {
        node.leave().await;
    }
    san.stop().await;
}

#[tokio::test]
async fn a_preemption_is_told_to_nobody_before_the_commands_that_it_ends_have_ended() {
    a_key_is_taken_away_while_a_write_is_in_the_disk(false).await;
}

#[tokio::test]
async fn that_a_key_is_gone_is_not_taken_for_a_preemption_where_the_target_tells_it_early() {
    a_key_is_taken_away_while_a_write_is_in_the_disk(true).await;
}

/// A node kills its own nexus over its other one, because a write on it is not answered: that is in the disk. It goes over the other one
/// only after it has ended, although its key is gone long before.
async fn a_node_kills_its_own_nexus(tells_early: bool) {
    let san = San::with(|lun| lun.tells_early(tells_early)).await;
    let mut one = san.node(1).await;
    one.both_admitted().await;
    within(one.disk.data.write(AT, block(1))).await.0.expect("writes");
    san.sticks_next_write_of(1);
    let mut first = Box::pin(one.disk.data.write(AT, block(9)));
    let early = tokio::time::timeout(LONG * 2, first.as_mut()).await;
    assert!(early.is_err(), "it was sent again while the first one is in the disk");
    san.server().let_go();
    within(first).await.0.expect("writes");
    within(one.disk.data.write(AT, block(2))).await.0.expect("writes");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(within(san.device.read(AT, 512)).await.expect("reads")[..], [2; 512]);
    one.leave().await;
    san.stop().await;
}

#[tokio::test]
async fn a_write_goes_over_another_nexus_only_once_the_disk_has_nothing_of_it() {
    a_node_kills_its_own_nexus(false).await;
}

#[tokio::test]
async fn a_write_goes_over_another_nexus_only_once_the_disk_has_nothing_of_it_although_the_target_tells_early() {
    a_node_kills_its_own_nexus(true).await;
}

/// A write of node 1 is in the disk when it leaves. Given back, its keys would be missing to whoever fences it, who would take that for the
/// end of everything.
#[tokio::test]
async fn who_leaves_a_unit_gives_its_keys_back_only_once_nothing_of_it_can_land_any_more() {
    let san = San::with(|lun| lun.tells_early(true)).await;
    let (mut one, two) = (san.node(1).await, san.node(2).await);
    let keys = one.both_admitted().await.map(|nexus| one.key(nexus));
    san.sticks_next_write_of(1);
    let stuck = one.disk.data.write(AT, block(9));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!within(one.nexuses().leave()).await, "the write may land");
    let left = within(two.nexuses().keys()).await.expect("told");
    assert!(keys.iter().all(|key| left.contains(key)), "{left:?}");
    san.server().let_go();
    drop(stuck);
    // The next process of that node, which sends nothing.
    let mut one = san.node(1).await;
    one.both_admitted().await;
    assert!(within(one.nexuses().leave()).await, "nothing of it can land");
    let left = within(two.nexuses().keys()).await.expect("told");
    let of_node = |k: &ReservationKey| NexusKey::parse(*k).is_some_and(|k| k.node == node(1));
    assert!(!left.iter().any(of_node), "{left:?}");
    two.leave().await;
    san.stop().await;
}

/// Whoever has commands under way sends them again, and goes on.
#[tokio::test]
async fn a_reset_of_the_unit_ends_what_everybody_has_on_its_way_and_everybody_goes_on() {
    let san = San::start().await;
    let (mut one, mut two) = (san.node(1).await, san.node(2).await);
    one.both_admitted().await;
    two.both_admitted().await;
    san.server().hold_next_write("iqn.2026-01.test:node1");
    let held = one.disk.data.write(AT, block(7));
    tokio::time::sleep(Duration::from_millis(300)).await;
    within(two.nexuses().reset_unit()).await.expect("reset");
    // Nothing of it is left: what lands is what is sent again, and its nexuses are let in anew if they have to.
    let judged = async {
        loop {
            one.admitted().await;
        }
    };
    tokio::select! {
        done = within(held) => done.0.expect("writes"),
        () = judged => {}
    }
    assert_eq!(within(two.disk.data.read(AT, 512)).await.expect("reads")[..], [7; 512]);
    one.leave().await;
    two.leave().await;
    san.stop().await;
}
