//! What tgt and istgt do not have, tried on LIO, the target of the Linux kernel. Run by `benches/lab/lio.sh`, which makes the
//! targets that this program expects: two portal groups with one unit, a port group each, and a target that wants CHAP.
//!
//! One line for each thing tried: `ok` or `FAIL`, and what was found. Ends with 1 if anything failed.

use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use block::buf::AlignedBuf;
use block::device::DeviceExt;
use block::error::IoErrorKind;
use block::multipath::{Config as Paths, PathState, Policy};
use block::shared::{
    CawOutcome, CompareAndWrite, HELD_TYPE, Incarnation, Keeps, NexusKey, NexusNumber, NodeId, Reservations, VolumeTag,
    exclude,
};
use block::units::{ByteLen, ByteOffset};
use block::worker::{Handle, Workers};
use iscsi::chap::{Account, Algorithm, Chap, Secret};
use iscsi::discovery::Portal;
use iscsi::ids::Isid;
use iscsi::keys::params::DigestWish;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::{Config, FenceGen};
use iscsi_initiator::lun::Plan;
use iscsi_initiator::unit::{attach, lacks};
use iscsi_initiator::{Lun, LunDevice, Ownership, Session};
use scsi::LunAddress;
use scsi::alua::AccessState;

/// As in lio.sh.
const TARGET: &str = "iqn.2026-01.test:lio";
const CHAP_TARGET: &str = "iqn.2026-01.test:lio-chap";
const PORTS: [u16; 3] = [3260, 3261, 3262];
const GROUPS: &str = "/sys/kernel/config/target/core/fileio_0/shorefast/alua";
const VOLUME: [u8; 16] = [0x5f; 16];

type Found = Result<String, String>;
type Trial = Pin<Box<dyn Future<Output = Found>>>;
/// A trial by name.
type Named = (&'static str, fn(Handle) -> Trial);

fn main() -> ExitCode {
    let workers = match Workers::start(1, "lab") {
        Ok(workers) => workers,
        Err(e) => {
            eprintln!("lab-lio: no worker: {e}");
            return ExitCode::FAILURE;
        }
    };
    let trials: [Named; 8] = [
        ("what the unit is, and lacks", |w| Box::pin(identity(w))),
        ("compare-and-write", |w| Box::pin(compare_and_write(w))),
        ("two hosts count one block up", |w| Box::pin(count(w))),
        ("reservations of two hosts", |w| Box::pin(reservations(w))),
        ("a fence with PREEMPT AND ABORT", |w| Box::pin(fence(w))),
        ("FUA, flush, unmap, write same", |w| Box::pin(caches(w))),
        ("port groups", |w| Box::pin(port_groups(w))),
        ("CHAP and digests", |w| Box::pin(chap(w))),
    ];
    let mut failed = 0;
    for (name, trial) in trials {
        let handle = workers.handle();
        let task = workers.spawn(0, move || async move {
            let bounded = tokio::time::timeout(Duration::from_secs(120), trial(handle)).await;
            bounded.unwrap_or_else(|_| Err("does not end within two minutes".to_owned()))
        });
        match task.wait() {
            Ok(Ok(found)) => println!("ok   {name}: {found}"),
            Ok(Err(why)) => {
                failed += 1;
                println!("FAIL {name}: {why}");
            }
            Err(_) => {
                failed += 1;
                println!("FAIL {name}: it panicked");
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn said(what: &str) -> impl Fn(&dyn std::fmt::Debug) -> String {
    let what = what.to_owned();
    move |e| format!("{what}: {e:?}")
}

/// An error with what was tried.
trait Tried<T> {
    fn tried(self, what: &str) -> Result<T, String>;
}

impl<T, E: std::fmt::Debug> Tried<T> for Result<T, E> {
    fn tried(self, what: &str) -> Result<T, String> {
        self.map_err(|e| said(what)(&e))
    }
}

fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn config(host: u32, port: u16, slot: u16, target: &str) -> Config {
    let kind = Kind::Normal { target: target.to_owned() };
    let login = LoginConfig::new(format!("iqn.2026-01.test:host{host}"), Isid::from_number(host, slot), kind);
    Config::new(login, Portal { host: "127.0.0.1".to_owned(), port })
}

async fn device(workers: &Handle, host: u32, slot: u16) -> Result<LunDevice, String> {
    let session = Session::start(workers, 0, config(host, PORTS[0], slot, TARGET), Ownership::Alone);
    let identity = attach(&session, LunAddress::ZERO).await.tried("attach")?;
    Ok(LunDevice::new(session, identity, FenceGen(0)))
}

fn block(byte: u8) -> AlignedBuf {
    AlignedBuf::from_slice(&[byte; 512])
}

const AT: ByteOffset = ByteOffset(1 << 20);

async fn identity(workers: Handle) -> Found {
    let device = device(&workers, 1, 1).await?;
    let lacks = lacks(device.session(), device.identity()).await.tried("lacks")?;
    must(lacks.is_empty(), || format!("lacks {lacks:?}"))?;
    let i = device.identity();
    let name = i.identification.as_ref().and_then(|page| page.unit_name()).map(ToString::to_string);
    let found = format!(
        "{} {} {}, {}; {:?}; it lacks nothing",
        i.inquiry.vendor,
        i.inquiry.product,
        i.inquiry.revision,
        name.unwrap_or_default(),
        i.cache
    );
    device.session().close().await;
    Ok(found)
}

async fn compare_and_write(workers: Handle) -> Found {
    let device = device(&workers, 1, 1).await?;
    device.write(AT, block(0)).await.0.tried("write")?;
    let caw = |expect: u8, new: u8| device.compare_and_write(AT, vec![expect; 512], vec![new; 512]);
    must(caw(0, 1).await == Ok(CawOutcome::Done), || "a match is not done".to_owned())?;
    let other = caw(0, 2).await;
    let right = matches!(&other, Ok(CawOutcome::Miscompare { found }) if found[..] == [1; 512]);
    must(right, || format!("a difference: {other:?}"))?;
    must(caw(1, 3).await == Ok(CawOutcome::Done), || "the next match is not done".to_owned())?;
    let now = device.read(AT, 512).await.tried("read")?;
    must(now[..] == [3; 512], || format!("the block holds {}", now[0]))?;
    device.session().close().await;
    Ok("writes on a match only, and tells what it found otherwise".to_owned())
}

/// Counts up, and gives back each count that it was told to have made.
async fn counts(caw: Arc<LunDevice>, who: u64, steps: usize) -> Result<Vec<u64>, String> {
    let (mut seen, mut made) = (vec![0; 512], Vec::new());
    while made.len() < steps {
        let next = u64::from_le_bytes(seen[..8].try_into().tried("8 bytes")?) + 1;
        let mut new = vec![0; 512];
        new[..8].copy_from_slice(&next.to_le_bytes());
        new[8..16].copy_from_slice(&who.to_le_bytes());
        match caw.compare_and_write(AT, seen.clone(), new.clone()).await.tried("compare-and-write")? {
            CawOutcome::Done => {
                made.push(next);
                seen = new;
            }
            CawOutcome::Miscompare { found } => seen = found,
            CawOutcome::Unknown => return Err("an answer was lost".to_owned()),
        }
    }
    Ok(made)
}

async fn count(workers: Handle) -> Found {
    const STEPS: usize = 100;
    let (a, b) = (Arc::new(device(&workers, 1, 1).await?), Arc::new(device(&workers, 2, 1).await?));
    a.write(AT, block(0)).await.0.tried("write")?;
    let (one, two) = tokio::join!(counts(Arc::clone(&a), 1, STEPS), counts(Arc::clone(&b), 2, STEPS));
    let mut made = [one?, two?].concat();
    made.sort_unstable();
    let whole = made.iter().copied().eq(1..=2 * STEPS as u64);
    must(whole, || format!("a step is missing or was made twice: {made:?}"))?;
    a.session().close().await;
    b.session().close().await;
    Ok(format!("{} steps, each made once", made.len()))
}

fn key(node: u8, nexus: u16) -> Result<NexusKey, String> {
    let node = NodeId::new(node).ok_or("no such node")?;
    Ok(NexusKey::new(VolumeTag::of(&VOLUME), node, Incarnation(7), NexusNumber(nexus)))
}

async fn reservations(workers: Handle) -> Found {
    let (a, b) = (device(&workers, 1, 1).await?, device(&workers, 2, 1).await?);
    let (own, other) = (key(1, 1)?.key(), key(2, 1)?.key());
    a.register(own, Keeps::ThroughPowerLoss).await.tried("register")?;
    b.register(other, Keeps::ThroughPowerLoss).await.tried("register")?;
    a.reserve(own, HELD_TYPE).await.tried("reserve")?;
    let held = a.reservation().await.tried("READ RESERVATION")?.reservation.map(|r| r.kind);
    must(held == Some(HELD_TYPE), || format!("held: {held:?}"))?;
    b.write(AT, block(2)).await.0.tried("a registrant's write")?;
    let full = a.registrants().await.tried("READ FULL STATUS")?;
    let names: Vec<String> = full.registrants.iter().map(|r| format!("{} {}", r.key, r.initiator)).collect();
    must(names.len() == 2, || format!("READ FULL STATUS: {names:?}"))?;
    b.unregister(other).await.tried("unregister")?;
    let stranger = b.write(AT, block(3)).await.0.err().map(|e| e.kind);
    must(stranger == Some(IoErrorKind::Fenced), || format!("a stranger's write: {stranger:?}"))?;
    let reads = b.read(AT, 512).await.err().map(|e| e.kind);
    must(reads == Some(IoErrorKind::Fenced), || format!("a stranger's read: {reads:?}"))?;
    a.unregister(own).await.tried("unregister")?;
    a.session().close().await;
    b.session().close().await;
    Ok(format!("READ FULL STATUS tells {}", names.join(", ")))
}

async fn fence(workers: Handle) -> Found {
    let (a, b, c) = (device(&workers, 1, 1).await?, device(&workers, 2, 1).await?, device(&workers, 2, 2).await?);
    let (own, one, two) = (key(1, 1)?, key(2, 1)?, key(2, 2)?);
    for (device, key) in [(&a, own), (&b, one), (&c, two)] {
        device.register(key.key(), Keeps::ThroughPowerLoss).await.tried("register")?;
    }
    a.reserve(own.key(), HELD_TYPE).await.tried("reserve")?;
    a.write(AT, block(1)).await.0.tried("write")?;
    // Under load: what is with the target when the fence comes is aborted or was before it.
    let load: Vec<_> = (0..64).map(|n| b.write(ByteOffset((n + 8) << 20), block(9))).collect();
    let proof = exclude(&a, own, (one.node, Incarnation(7))).await.tried("exclude")?;
    must(proof.node() == one.node, || "it is a proof of another node".to_owned())?;
    let keys = a.keys().await.tried("READ KEYS")?.keys;
    must(keys == [own.key()], || format!("keys left: {keys:?}"))?;
    let mut ends = [0; 2];
    for write in load {
        ends[usize::from(write.await.0.is_ok())] += 1;
    }
    for device in [&b, &c] {
        let fenced = device.write(AT, block(2)).await.0.err().map(|e| e.kind);
        must(fenced == Some(IoErrorKind::Fenced), || format!("the fenced node's write: {fenced:?}"))?;
    }
    let now = a.read(AT, 512).await.tried("read")?;
    must(now[..] == [1; 512], || format!("the block holds {}", now[0]))?;
    a.unregister(own.key()).await.tried("unregister")?;
    for device in [a, b, c] {
        device.session().close().await;
    }
    Ok(format!("both keys of the node are gone; of 64 writes under way {} were done and {} refused", ends[1], ends[0]))
}

async fn caches(workers: Handle) -> Found {
    let device = device(&workers, 1, 1).await?;
    let cache = device.identity().cache;
    device.write_fua(AT, block(5)).await.0.tried("write with FUA")?;
    device.write(AT, block(6)).await.0.tried("write")?;
    device.flush().await.tried("flush")?;
    device.write_zeroes(AT, ByteLen(1 << 20)).await.tried("WRITE SAME")?;
    let zero = device.read(AT, 1 << 20).await.tried("read")?;
    must(zero.iter().all(|b| *b == 0), || "WRITE SAME left something".to_owned())?;
    device.write(AT, block(7)).await.0.tried("write")?;
    let discard = device.identity().geometry.discard;
    if discard {
        device.discard(AT, ByteLen(1 << 20)).await.tried("UNMAP")?;
    }
    device.session().close().await;
    Ok(format!("{cache:?}, unmap: {discard}"))
}

/// Sets the state of a port group, as its administrator would.
fn set_group(group: u8, state: u8) -> Result<(), String> {
    let file = format!("{GROUPS}/g{group}/alua_access_state");
    fs::write(&file, format!("{state}\n")).tried(&file)
}

async fn until(lun: &Lun, what: &str, holds: impl Fn(&Lun) -> bool) -> Result<(), String> {
    for _ in 0..2000 {
        if holds(lun) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("{what}: {:?}", lun.status()))
}

async fn port_groups(workers: Handle) -> Found {
    let ms = Duration::from_millis;
    let paths = Paths { check_min: ms(200), check_failed: ms(100), policy: Policy::Failover, ..Paths::default() };
    let portals = PORTS[..2].iter().map(|port| config(1, *port, 1, TARGET)).collect();
    let (lun, generation) = (LunAddress::ZERO, FenceGen(0));
    let plan = Plan { portals, lun, per_portal: 1, first_slot: 11, host: 1, generation, paths };
    let lun = Lun::open(&workers, plan).await.tried("open")?;
    until(&lun, "both paths are up", |l| l.status().iter().all(|p| p.state == PathState::Up)).await?;
    lun.write(AT, block(1)).await.0.tried("write")?;
    set_group(1, 2)?;
    lun.write(AT, block(2)).await.0.tried("write while group 1 is in standby")?;
    until(&lun, "standby is seen", |l| l.status()[0].access.state == AccessState::Standby).await?;
    set_group(1, 1)?;
    until(&lun, "non-optimized is seen", |l| l.status()[0].access.state == AccessState::ActiveNonOptimized).await?;
    set_group(2, 3)?;
    lun.write(AT, block(3)).await.0.tried("write while group 2 is unavailable")?;
    until(&lun, "unavailable is seen", |l| l.status()[1].access.state == AccessState::Unavailable).await?;
    set_group(1, 0)?;
    set_group(2, 0)?;
    until(&lun, "both are optimized again", |l| {
        l.status().iter().all(|p| p.state == PathState::Up && p.access.state == AccessState::ActiveOptimized)
    })
    .await?;
    let now = lun.read(AT, 512).await.tried("read")?;
    must(now[..] == [3; 512], || format!("the block holds {}", now[0]))?;
    lun.close().await;
    Ok("requests followed standby, non-optimized and unavailable".to_owned())
}

fn account(name: &str, secret: &str) -> Result<Account, String> {
    Ok(Account { name: name.to_owned(), secret: Secret::new(secret).tried("secret")? })
}

async fn chap(workers: Handle) -> Found {
    let mut done = Vec::new();
    let mut slot = 30;
    for algorithm in [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha3_256] {
        for digests in [false, true] {
            slot += 1;
            let target = Some(account("outuser", "outsecret1234")?);
            let chap = Chap::new(account("inuser", "insecret12345")?, target, vec![algorithm]).tried("accounts")?;
            let mut config = config(1, PORTS[2], slot, CHAP_TARGET);
            config.login.chap = Some(chap);
            if digests {
                (config.login.offer.header_digest, config.login.offer.data_digest) =
                    (DigestWish::Always, DigestWish::Always);
            }
            let session = Session::start(&workers, 0, config, Ownership::Alone);
            session.up().await.tried(&format!("{algorithm:?}, digests {digests}"))?;
            let identity = attach(&session, LunAddress::ZERO).await.tried("attach")?;
            let device = LunDevice::new(session.clone(), identity, FenceGen(0));
            let bytes: Vec<u8> = (0..300_032_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
            device.write(AT, AlignedBuf::from_slice(&bytes)).await.0.tried("write")?;
            let read = device.read(AT, bytes.len()).await.tried("read")?;
            must(read[..] == bytes[..], || format!("{algorithm:?}, digests {digests}: other data came back"))?;
            session.close().await;
        }
        done.push(format!("{algorithm:?}"));
    }
    Ok(format!("mutual, with and without digests: {}", done.join(", ")))
}
