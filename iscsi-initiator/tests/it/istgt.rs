//! Against istgt, which has a COMPARE AND WRITE that works.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;
use block::device::DeviceExt;
use block::shared::{CawOutcome, CompareAndWrite, HELD_TYPE, HedgedCaw, Keeps, Reservations};
use block::units::ByteOffset;
use iscsi::discovery::Portal;
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::{Config, FenceGen};
use iscsi_initiator::discovery::discover;
use iscsi_initiator::unit::{Lack, attach, lacks};
use iscsi_initiator::{LunDevice, Ownership, Session};
use scsi::reservations::TransportId;
use scsi::{LunAddress, ReservationKey};

use crate::tgt::{HOST, run, workers};

const TARGET: &str = "iqn.2026-01.test.istgt:disk1";
const ISTGT: &str = "/usr/sbin/istgt";

/// The daemon; gone at the end.
struct Istgt {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Istgt {
    fn start() -> Option<Istgt> {
        if !Path::new(ISTGT).exists() {
            println!("skipped: istgt is not installed (./setup --for test installs it)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let ports: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let port = |n: usize| ports[n].local_addr().expect("bound").port();
        let (data, control) = (port(0), port(1));
        drop(ports);
        let config = configuration(dir.path(), data, control);
        let log = || std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = Command::new(ISTGT);
        command.arg("-D").arg("-c").arg(config).stdin(Stdio::null()).stdout(log()).stderr(log());
        let child = command.spawn().expect("istgt starts");
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", data)).is_err() {
            let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(30), "istgt listens: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Istgt { child, port: data, _dir: dir })
    }

    fn portal(&self) -> Portal {
        Portal { host: "127.0.0.1".into(), port: self.port }
    }

    fn session(&self, workers: &block::worker::Workers, slot: u16) -> Session {
        let kind = Kind::Normal { target: TARGET.into() };
        let login = LoginConfig::new(HOST, Isid::from_number(9, slot), kind);
        Session::start(&workers.handle(), 0, Config::new(login, self.portal()), Ownership::Alone)
    }
}

impl Drop for Istgt {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn configuration(dir: &Path, data: u16, control: u16) -> std::path::PathBuf {
    let path = |name: &str| dir.join(name).display().to_string();
    let image = std::fs::File::create(dir.join("disk.img")).expect("an image");
    image.set_len(32 << 20).expect("sized");
    std::fs::write(dir.join("auth.conf"), "").expect("writes");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(dir.join("auth.conf"), private).expect("is ours");
    let text = format!(
        "[Global]\n  NodeBase \"iqn.2026-01.test.istgt\"\n  PidFile {pid}\n  AuthFile {auth}\n  MediaDirectory {media}\n  \
         LogFacility \"local7\"\n  Timeout 30\n  NopInInterval 20\n  DiscoveryAuthMethod None\n  MaxSessions 16\n  \
         MaxConnections 4\n  MaxR2T 32\n  MaxOutstandingR2T 16\n  DefaultTime2Wait 2\n  DefaultTime2Retain 60\n  \
         FirstBurstLength 262144\n  MaxBurstLength 1048576\n  MaxRecvDataSegmentLength 262144\n\
         [UnitControl]\n  AuthMethod None\n  Portal UC1 127.0.0.1:{control}\n  Netmask 127.0.0.1\n\
         [PortalGroup1]\n  Portal DA1 127.0.0.1:{data}\n\
         [InitiatorGroup1]\n  InitiatorName \"ALL\"\n  Netmask 127.0.0.0/8\n\
         [LogicalUnit1]\n  TargetName disk1\n  TargetAlias \"disk\"\n  Mapping PortalGroup1 InitiatorGroup1\n  \
         AuthMethod None\n  UseDigest Auto\n  UnitType Disk\n  QueueDepth 64\n  LUN0 Storage {image} Auto\n",
        pid = path("pid"),
        auth = path("auth.conf"),
        media = path("media"),
        image = path("disk.img"),
    );
    let file = dir.join("istgt.conf");
    std::fs::write(&file, text).expect("writes");
    file
}

async fn device(session: &Session) -> LunDevice {
    let identity = attach(session, LunAddress::new(0).expect("in range")).await.expect("attaches");
    LunDevice::new(session.clone(), identity, FenceGen(0))
}

#[test]
fn a_compare_and_write_on_a_real_unit_writes_on_match_only() {
    let Some(istgt) = Istgt::start() else { return };
    let workers = workers();
    let session = istgt.session(&workers, 1);
    run(&workers, move || async move {
        let device = device(&session).await;
        let missing = lacks(&session, device.identity()).await.expect("is asked");
        assert!(!missing.contains(&Lack::CompareAndWrite), "{missing:?}");
        let at = ByteOffset(4096);
        let caw = |expect: u8, new: u8| device.compare_and_write(at, vec![expect; 100], vec![new; 100]);
        assert_eq!(caw(0, 1).await, Ok(CawOutcome::Done));
        let Ok(CawOutcome::Miscompare { found }) = caw(0, 2).await else { panic!("a miscompare") };
        assert!(found.len() == 512 && found[..100] == [1; 100] && found[100..] == [0; 412]);
        assert_eq!(caw(1, 3).await, Ok(CawOutcome::Done));
        // The same again, as a second copy of it would be: its own bytes are there, so it is done.
        assert_eq!(caw(1, 3).await, Ok(CawOutcome::Done));
        assert_eq!(device.read(at, 512).await.expect("reads")[..100], [3; 100]);
        let beyond = device.compare_and_write(ByteOffset(1 << 40), vec![0; 8], vec![1; 8]).await;
        assert_eq!(beyond.expect_err("refused").kind, block::error::IoErrorKind::OutOfRange);
        session.close().await;
    });
}

/// Counts the block at 8192 up, and gives back each count that it was told to have made.
async fn count(caw: Arc<dyn CompareAndWrite>, who: u64, steps: usize) -> Vec<u64> {
    let (mut seen, mut made) = (vec![0; 16], Vec::new());
    while made.len() < steps {
        // A counter and who counted: what makes each value its own.
        let next = u64::from_le_bytes(seen[..8].try_into().expect("8 bytes")) + 1;
        let new = [next.to_le_bytes(), who.to_le_bytes()].concat();
        match caw.compare_and_write(ByteOffset(8192), seen.clone(), new.clone()).await.expect("answered") {
            CawOutcome::Done => {
                made.push(next);
                seen = new;
            }
            CawOutcome::Miscompare { found } => seen = found[..16].to_vec(),
            CawOutcome::Unknown => panic!("nothing is lost here"),
        }
    }
    made
}

async fn counted(session: &Session) -> u64 {
    let block = device(session).await.read(ByteOffset(8192), 512).await.expect("reads");
    u64::from_le_bytes(block[..8].try_into().expect("8 bytes"))
}

/// Two nexuses count one block up; each success is one step, or the sum would show it.
#[test]
fn compare_and_writes_of_two_nexuses_lose_no_update() {
    const STEPS: usize = 40;
    let Some(istgt) = Istgt::start() else { return };
    let workers = workers();
    let sessions = [istgt.session(&workers, 1), istgt.session(&workers, 2)];
    run(&workers, move || async move {
        let (a, b) = (Arc::new(device(&sessions[0]).await), Arc::new(device(&sessions[1]).await));
        let (a, b) = tokio::join!(count(a, 1, STEPS), count(b, 2, STEPS));
        assert_eq!(counted(&sessions[0]).await, (a.len() + b.len()) as u64);
        for session in sessions {
            session.close().await;
        }
    });
}

/// One of the two sends each over both nexuses at once. A step that it made and that was overtaken before it heard may be
/// told as lost, so that there may be more steps than were told; but no step has two makers.
#[test]
fn a_hedged_compare_and_write_is_never_won_by_two() {
    const STEPS: usize = 40;
    let Some(istgt) = Istgt::start() else { return };
    let workers = workers();
    let sessions = [istgt.session(&workers, 1), istgt.session(&workers, 2)];
    run(&workers, move || async move {
        let a: Arc<dyn CompareAndWrite> = Arc::new(device(&sessions[0]).await);
        let b: Arc<dyn CompareAndWrite> = Arc::new(device(&sessions[1]).await);
        let hedged = Arc::new(HedgedCaw::new(vec![a, Arc::clone(&b)], Duration::ZERO));
        let (hedged, plain) = tokio::join!(count(hedged, 1, STEPS), count(b, 2, STEPS));
        let mut made = [hedged, plain].concat();
        made.sort_unstable();
        assert!(made.windows(2).all(|w| w[0] != w[1]), "a step has two makers: {made:?}");
        assert!(counted(&sessions[0]).await >= *made.last().expect("some were made"));
        for session in sessions {
            session.close().await;
        }
    });
}

#[test]
fn a_target_of_another_make_is_discovered_and_keeps_what_is_written() {
    let Some(istgt) = Istgt::start() else { return };
    let workers = workers();
    let (handle, portal) = (workers.handle(), istgt.portal());
    let session = istgt.session(&workers, 1);
    run(&workers, move || async move {
        let found = discover(&handle, HOST, &portal, None).await.expect("answers");
        assert!(found.iter().any(|f| f.name == TARGET), "{found:?}");
        let device = device(&session).await;
        let bytes: Vec<u8> = (0..1 << 20_u32).map(|n: u32| n.to_le_bytes()[1] ^ n.to_le_bytes()[0]).collect();
        device.write(ByteOffset(1 << 20), AlignedBuf::from_slice(&bytes)).await.0.expect("writes");
        device.flush().await.expect("flushes");
        assert!(*device.read(ByteOffset(1 << 20), 1 << 20).await.expect("reads") == bytes[..]);
        session.close().await;
    });
}

/// READ FULL STATUS: tgt does not have it, istgt does, though the names in it have no header.
#[test]
fn the_registrants_of_a_real_unit_are_told_with_their_keys_and_what_they_hold() {
    let Some(istgt) = Istgt::start() else { return };
    let workers = workers();
    let sessions = [istgt.session(&workers, 1), istgt.session(&workers, 2)];
    run(&workers, move || async move {
        let (a, b) = (device(&sessions[0]).await, device(&sessions[1]).await);
        let (one, two) = (ReservationKey(0x11), ReservationKey(0x22));
        a.register(one, Keeps::UntilPowerLoss).await.expect("registers");
        b.register(two, Keeps::UntilPowerLoss).await.expect("registers");
        a.reserve(one, HELD_TYPE).await.expect("reserves");
        let mut found = a.registrants().await.expect("is told").registrants;
        found.sort_by_key(|r| r.key);
        let keys: Vec<_> = found.iter().map(|r| (r.key, r.holds)).collect();
        // All registrants hold it; istgt tells it of the one that reserved, as it does in READ RESERVATION.
        assert_eq!(keys, [(one, Some(HELD_TYPE)), (two, None)]);
        for registrant in found {
            let TransportId::Other(name) = registrant.initiator else { continue };
            assert!(name.starts_with(HOST.as_bytes()), "{name:02x?} is this host's");
        }
        for session in sessions {
            session.close().await;
        }
    });
}
