//! Two resources in one process: disks that fail, and protocols that tell receipt from writing. Connections are real, disks
//! memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::device::DeviceExt;
use block::worker::Workers;
use block::{AlignedBuf, BlockDevice, BlockSize, ByteLen, ByteOffset, FaultDevice, MemDevice};
use net::Security;
use replicator::core::config::{DiskPolicy, OnIoError, Protocol};
use replicator::ids::NodeId;
use replicator::runtime::{Life, Local, NewReplica, PeerAddress, Resource, ResourceConfig, create};

use super::rig::DEADLINE;

const SIZE: u64 = 4 << 20;

fn node(n: u8) -> NodeId {
    NodeId::new(n).expect("a node")
}

struct Two {
    resources: [Resource; 2],
    faults: [Arc<FaultDevice>; 2],
    disks: [Arc<MemDevice>; 2],
    _workers: Workers,
}

/// Addresses of loopback that were free a moment ago.
fn addresses() -> [SocketAddr; 2] {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("an address");
    let (one, two) = (bind(), bind());
    [one.local_addr().expect("bound"), two.local_addr().expect("bound")]
}

impl Two {
    /// Two that are equal, the first one primary.
    async fn equal(protocol: Protocol) -> Two {
        let workers = Workers::start(2, "resource").expect("workers start");
        let disks = [1, 2].map(|_| Arc::new(MemDevice::new(ByteLen(SIZE), BlockSize::B512)));
        let faults = [0, 1].map(|n: usize| FaultDevice::new(disks[n].clone()));
        let at = addresses();
        let mut resources = Vec::new();
        for n in [1, 2_u8] {
            let (other, device) = (3 - n, faults[usize::from(n) - 1].clone());
            let peer = PeerAddress { subject: format!("node-{other}"), address: at[usize::from(other) - 1] };
            let config = ResourceConfig {
                name: "r0".to_owned(),
                protocol,
                disk: DiskPolicy { timeout: Some(2_000), on_io_error: OnIoError::Detach },
                quorum: None,
                peers: BTreeMap::from([(node(other), peer)]),
                listen: at[usize::from(n) - 1],
                security: Security::Plain { subject: format!("node-{n}") },
            };
            let new = NewReplica { resource: [7; 16], node: node(n), peers: vec![node(other)], size: None };
            let opened = tokio::task::spawn_blocking(move || {
                create(&new, device.clone()).expect("made");
                Local::open(device, Life::UNKNOWN).expect("opened")
            });
            let local = opened.await.expect("no panic");
            resources.push(Resource::start(config, local, &workers.handle()).await.expect("started"));
        }
        let resources = <[Resource; 2]>::try_from(resources).unwrap_or_else(|_| unreachable!("two"));
        let two = Two { resources, faults, disks, _workers: workers };
        two.resources[0].promote(true).await.expect("it runs").expect("promoted");
        two.until("they are equal", 0, |connection, marked| connection == "Established" && marked == 0).await;
        two
    }

    async fn until(&self, what: &str, of: usize, holds: impl Fn(&str, u64) -> bool) {
        let begun = Instant::now();
        loop {
            let status = self.resources[of].status().await.expect("it runs");
            let peer = &status.peers[0];
            if holds(&peer.connection, peer.out_of_sync_bytes) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "waited in vain: {what}: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn write(&self, block: u64, byte: u8) -> Result<(), block::IoError> {
        let mut buf = AlignedBuf::zeroed(4096);
        buf.fill(byte);
        let written = self.resources[0].device().write(ByteOffset(block * 4096), buf);
        tokio::time::timeout(DEADLINE, written).await.expect("it is answered").0
    }

    async fn read(&self, of: &Arc<dyn BlockDevice>, block: u64) -> u8 {
        let read = of.read(ByteOffset(block * 4096), 4096);
        tokio::time::timeout(DEADLINE, read).await.expect("it is answered").expect("read")[0]
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

#[test]
fn a_primary_whose_disk_fails_goes_on_through_its_peer() {
    run(async {
        let two = Two::equal(Protocol::C).await;
        two.write(3, 1).await.expect("written");
        two.faults[0].fail();
        two.write(3, 2).await.expect("written at the peer");
        two.write(4, 5).await.expect("written at the peer");
        assert_eq!(two.resources[0].status().await.expect("it runs").disk, "Diskless");
        let device = two.resources[0].device();
        assert_eq!((two.read(&device, 3).await, two.read(&device, 4).await), (2, 5), "read from the peer");
        let peer: Arc<dyn BlockDevice> = two.disks[1].clone();
        assert_eq!((two.read(&peer, 3).await, two.read(&peer, 4).await), (2, 5), "it is there");
    });
}

#[test]
fn a_peer_whose_disk_fails_is_left_and_the_primary_goes_on() {
    run(async {
        let two = Two::equal(Protocol::C).await;
        two.faults[1].fail();
        two.write(3, 2).await.expect("written here");
        two.until("its blocks are marked", 0, |connection, marked| connection != "Established" && marked > 0).await;
        assert_eq!(two.read(&two.resources[0].device(), 3).await, 2);
    });
}

/// A write that hangs in the primary's disk holds nobody up for longer than the limit, and lands later where it does no harm: the
/// replica is not opened again before.
#[test]
fn a_primary_whose_disk_hangs_goes_on_through_its_peer_and_can_be_stopped() {
    run(async {
        let two = Two::equal(Protocol::C).await;
        two.write(3, 1).await.expect("written");
        two.faults[0].hang();
        let begun = Instant::now();
        two.write(3, 2).await.expect("written at the peer");
        assert!(begun.elapsed() >= Duration::from_secs(2), "after {:?}", begun.elapsed());
        two.write(4, 5).await.expect("written at the peer");
        let status = two.resources[0].status().await.expect("it runs");
        assert_eq!((&*status.disk, two.resources[0].hangs(), two.resources[1].hangs()), ("Diskless", true, false));
        let device = two.resources[0].device();
        assert_eq!((two.read(&device, 3).await, two.read(&device, 4).await), (2, 5), "read from the peer");
        let stopped = tokio::time::timeout(Duration::from_secs(20), two.resources[0].stop()).await;
        stopped.expect("a disk that hangs is not waited for");
        assert!(two.faults[0].held() > 0);
        two.faults[0].heal();
    });
}

#[test]
fn a_peer_whose_disk_hangs_is_left_within_the_limit() {
    run(async {
        let two = Two::equal(Protocol::C).await;
        two.faults[1].hang();
        two.write(3, 2).await.expect("written here");
        two.until("its blocks are marked", 0, |connection, marked| connection != "Established" && marked > 0).await;
        assert_eq!(two.resources[1].status().await.expect("it runs").disk, "Diskless");
        two.faults[1].heal();
    });
}

/// At C an answer says that the peer has written it; at B that it has received it.
#[test]
fn at_c_a_write_waits_for_the_peers_disk_and_at_b_for_its_receipt_only() {
    run(async {
        for protocol in [Protocol::C, Protocol::B] {
            let two = Two::equal(protocol).await;
            // Hot already, so that only the write itself is waited for.
            two.write(3, 1).await.expect("written");
            two.faults[1].hang();
            let write = two.write(3, 2);
            tokio::pin!(write);
            if protocol == Protocol::C {
                let held = async {
                    while two.faults[1].held() == 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::select! {
                    _ = &mut write => panic!("answered before the peer has written it"),
                    () = held => {}
                }
                two.faults[1].heal();
            }
            write.await.expect("written");
            two.faults[1].heal();
        }
    });
}
