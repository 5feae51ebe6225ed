use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::buf::AlignedBuf;
use crate::device::DeviceExt;
use crate::error::IoErrorKind;
use crate::file::OpenOptions;
use crate::units::ByteOffset;
use crate::worker::Workers;

const SIZE: u64 = 4 << 20;
const CELL: ByteOffset = ByteOffset(131_072);

struct Setup {
    image: tempfile::NamedTempFile,
    workers: Workers,
}

impl Setup {
    fn new() -> Setup {
        let image = tempfile::NamedTempFile::new().expect("a temporary file");
        image.as_file().set_len(SIZE).expect("sized");
        Setup { image, workers: Workers::start(1, "test").expect("workers start") }
    }

    fn disk(&self) -> Arc<FileDisk> {
        FileDisk::open(self.image.path(), self.workers.handle()).expect("opens")
    }

    fn shared(&self) -> SharedDisk {
        SharedDisk::open_file(self.image.path(), OpenOptions::default(), self.workers.handle(), true).expect("opens")
    }
}

fn node(id: u8) -> NodeId {
    NodeId::new(id).expect("a node number")
}

#[test]
fn node_numbers_are_1_to_64() {
    assert_eq!(NodeId::new(0), None);
    assert_eq!(NodeId::new(65), None);
    assert_eq!(NodeId::all().count(), 64);
    assert_eq!(node(64).index(), 63);
    assert_eq!(Epoch(u64::MAX).next(), None);
}

#[test]
fn live_lock_excludes_other_descriptions_and_this_one_until_dropped() {
    let setup = Setup::new();
    let (a, b) = (setup.disk(), setup.disk());
    let lock = a.try_lock_live(node(1)).expect("locks work").expect("free");
    assert!(b.try_lock_live(node(1)).expect("locks work").is_none());
    assert!(a.try_lock_live(node(1)).expect("locks work").is_none(), "not even by its holder");
    assert!(b.try_lock_live(node(2)).expect("locks work").is_some(), "another node's is free");
    drop(lock);
    assert!(b.try_lock_live(node(1)).expect("locks work").is_some());
}

#[test]
fn own_live_lock_is_held_as_long_as_the_description() {
    let setup = Setup::new();
    let (a, b) = (setup.disk(), setup.disk());
    assert!(a.hold_live(node(1)).expect("locks work"));
    assert!(!a.hold_live(node(1)).expect("locks work"));
    let device = a.device();
    drop(a);
    assert!(b.try_lock_live(node(1)).expect("locks work").is_none(), "the device keeps it open");
    drop(device);
    assert!(b.try_lock_live(node(1)).expect("locks work").is_some());
}

/// Two of a file's openers that do not know of one another would each believe in its own reservations or locks.
#[test]
fn who_serves_a_file_keeps_every_node_out_and_is_kept_out_by_any() {
    let setup = Setup::new();
    let (target, other, daemon) = (setup.disk(), setup.disk(), setup.disk());
    let live = daemon.try_lock_live(node(64)).expect("locks work").expect("free");
    assert_eq!(target.hold_all_live().expect("locks work"), Err(Opener::Node(node(64))));
    assert!(!daemon.is_served().expect("locks work"));
    assert!(daemon.try_lock_live(node(1)).expect("locks work").is_some(), "nothing was kept of what was taken");
    drop(live);
    assert_eq!(target.hold_all_live().expect("locks work"), Ok(()));
    assert!(daemon.is_served().expect("locks work"));
    for n in [1, 64] {
        assert!(!daemon.hold_live(node(n)).expect("locks work"), "node {n}");
    }
    assert_eq!(other.hold_all_live().expect("locks work"), Err(Opener::Target));
    let device = target.file();
    drop(target);
    assert!(daemon.is_served().expect("locks work"), "the device keeps it open");
    drop(device);
    assert!(!daemon.is_served().expect("locks work") && daemon.hold_live(node(1)).expect("locks work"));
}

#[test]
fn live_lock_makes_an_exclusion_proof_that_keeps_it() {
    let setup = Setup::new();
    let (a, b) = (setup.disk(), setup.disk());
    let lock = a.try_lock_live(node(3)).expect("locks work").expect("free");
    let proof = Excluded::by_live_lock(lock, Incarnation(7));
    assert_eq!((proof.node(), proof.incarnation()), (node(3), Incarnation(7)));
    assert!(b.try_lock_live(node(3)).expect("locks work").is_none());
    drop(proof);
    assert!(b.try_lock_live(node(3)).expect("locks work").is_some());
}

#[tokio::test]
async fn compare_and_write_writes_on_match_and_tells_what_it_found_otherwise() {
    let setup = Setup::new();
    let disk = setup.disk();
    let caw = |expect: &[u8], new: &[u8]| disk.compare_and_write(CELL, expect.to_vec(), new.to_vec());
    assert_eq!(caw(&[0; 512], &[1; 512]).await, Ok(CawOutcome::Done));
    let Ok(CawOutcome::Miscompare { found }) = caw(&[0; 100], &[2; 100]).await else { panic!("a miscompare") };
    assert!(found.len() >= 512 && found[..512] == [1; 512]);
    assert_eq!(caw(&[1; 512], &[3; 512]).await, Ok(CawOutcome::Done));
    // A shorter one stands for a block whose rest is zero.
    assert_eq!(caw(&[3; 512], &[4; 512]).await, Ok(CawOutcome::Done));
    assert!(matches!(caw(&[4; 100], &[5; 100]).await, Ok(CawOutcome::Miscompare { .. })));
    let read = disk.device().read(CELL, 4096).await.expect("read");
    assert_eq!(read[..512], [4; 512]);
}

#[tokio::test]
async fn compare_and_write_refuses_what_is_no_block() {
    let setup = Setup::new();
    let disk = setup.disk();
    let kind = |at: u64, expect: usize, new: usize| {
        let future = disk.compare_and_write(ByteOffset(at), vec![0; expect], vec![0; new]);
        async move { future.await.map_err(|e| e.kind) }
    };
    assert_eq!(kind(1, 512, 512).await, Err(IoErrorKind::Misaligned));
    assert_eq!(kind(0, 512, 256).await, Err(IoErrorKind::Misaligned));
    assert_eq!(kind(0, 0, 0).await, Err(IoErrorKind::Misaligned));
    assert_eq!(kind(0, 8192, 8192).await, Err(IoErrorKind::Misaligned));
    assert_eq!(kind(SIZE, 512, 512).await, Err(IoErrorKind::OutOfRange));
}

/// Two descriptions (as of two nodes) and, on each, several tasks count one block up. Each success
/// must be one step: lost updates would show in the sum.
#[tokio::test]
async fn concurrent_compare_and_writes_lose_no_update() {
    const STEPS: u64 = 20;
    let setup = Setup::new();
    let disks = [setup.disk(), setup.disk()];
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..4 {
        let disk = Arc::clone(&disks[n % 2]);
        tasks.spawn(async move {
            let (mut seen, mut done) = (0u64, 0);
            while done < STEPS {
                let bytes = |n: u64| n.to_le_bytes().to_vec();
                match disk.compare_and_write(CELL, bytes(seen), bytes(seen + 1)).await.expect("answered") {
                    CawOutcome::Done => {
                        done += 1;
                        seen += 1;
                    }
                    CawOutcome::Miscompare { found } => {
                        seen = u64::from_le_bytes(found[..8].try_into().expect("8 bytes"));
                    }
                    CawOutcome::Unknown => panic!("nothing is lost here"),
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("counted");
    }
    let block = disks[0].device().read(CELL, 4096).await.expect("read");
    assert_eq!(u64::from_le_bytes(block[..8].try_into().expect("8 bytes")), 4 * STEPS);
}

#[tokio::test]
async fn a_hanging_compare_and_write_has_no_lock_and_is_aborted_unexecuted() {
    let setup = Setup::new();
    let (victim, other) = (setup.shared(), setup.shared());
    let fault = Arc::clone(victim.fault.as_ref().expect("a fault device"));
    fault.hang();
    let caw = Arc::clone(&victim.caw);
    let hanging = tokio::spawn(async move { caw.compare_and_write(CELL, vec![0; 8], vec![1; 8]).await });
    while fault.held() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let others = other.caw.compare_and_write(CELL, vec![0; 8], vec![2; 8]).await;
    assert_eq!(others, Ok(CawOutcome::Done), "the held one keeps nobody out");
    victim.abort.abort_outstanding().await.expect("proved");
    let error = hanging.await.expect("ran").expect_err("aborted");
    assert_eq!(error.kind, IoErrorKind::Aborted);
    fault.heal();
    let block = victim.data.read(CELL, 4096).await.expect("read");
    assert_eq!(block[..8], [2; 8]);
}

#[tokio::test]
async fn abort_covers_data_and_the_path_works_again_after_heal() {
    let setup = Setup::new();
    let disk = setup.shared();
    let fault = Arc::clone(disk.fault.as_ref().expect("a fault device"));
    fault.hang();
    let old = disk.data.write(ByteOffset(0), AlignedBuf::from_slice(&[1; 4096]));
    disk.abort.abort_outstanding().await.expect("proved");
    assert_eq!(old.await.0.expect_err("aborted").kind, IoErrorKind::Aborted);
    fault.heal();
    disk.data.write(ByteOffset(0), AlignedBuf::from_slice(&[2; 4096])).await.0.expect("written");
    assert_eq!(disk.data.read(ByteOffset(0), 4096).await.expect("read")[0], 2);
    disk.abort.abort_outstanding().await.expect("proved");
    assert_eq!(disk.file().expect("a file").in_flight(), 0);
}

#[tokio::test]
async fn plain_file_proves_nothing_in_flight_only_when_all_completed() {
    let setup = Setup::new();
    let disk = setup.disk();
    let device = disk.device();
    let writes: Vec<_> =
        (0..64u64).map(|n| device.write(ByteOffset(n % 4 * (1 << 20)), AlignedBuf::zeroed(1 << 20))).collect();
    disk.abort_outstanding().await.expect("proved");
    assert_eq!(disk.in_flight(), 0);
    for write in writes {
        // Already answered: the proof comes after every completion.
        let mut write = std::pin::pin!(write);
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(write.as_mut().poll(cx))).await;
        assert!(matches!(polled, std::task::Poll::Ready((Ok(()), _))));
    }
}

/// A second nexus takes over from one that hangs; what hung lands later and changes nothing.
#[tokio::test]
async fn a_hedged_compare_and_write_goes_around_a_way_that_hangs() {
    let setup = Setup::new();
    let (slow, other) = (setup.shared(), setup.shared());
    let fault = Arc::clone(slow.fault.as_ref().expect("a fault device"));
    fault.hang();
    let ways = vec![Arc::clone(&slow.caw), Arc::clone(&other.caw)];
    let hedged = HedgedCaw::new(ways, Duration::from_millis(10));
    assert_eq!(hedged.compare_and_write(CELL, vec![0; 8], vec![1; 8]).await, Ok(CawOutcome::Done));
    // Somebody else takes it from there.
    let next = other.caw.compare_and_write(CELL, vec![1; 8], vec![2; 8]).await;
    assert_eq!(next, Ok(CawOutcome::Done));
    assert_eq!(fault.held(), 1, "the first copy still waits");
    fault.heal();
    while fault.held() + fault.below() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    slow.abort.abort_outstanding().await.expect("proved");
    let block = other.data.read(CELL, 4096).await.expect("read");
    assert_eq!(block[..8], [2; 8]);
}

/// Both ways are well: one copy wins, and no second one is sent.
#[tokio::test]
async fn a_hedged_compare_and_write_needs_one_way_only() {
    let setup = Setup::new();
    let (one, dead) = (setup.shared(), setup.shared());
    dead.fault.as_ref().expect("a fault device").fail();
    let ways = || vec![Arc::clone(&dead.caw), Arc::clone(&one.caw)];
    let hedged = HedgedCaw::new(ways(), Duration::from_secs(60));
    assert_eq!(hedged.compare_and_write(CELL, vec![0; 8], vec![1; 8]).await, Ok(CawOutcome::Done), "the other way");
    one.fault.as_ref().expect("a fault device").fail();
    let failed = hedged.compare_and_write(CELL, vec![1; 8], vec![2; 8]).await.expect_err("none is left");
    assert_eq!(failed.kind, IoErrorKind::NoPath);
}
