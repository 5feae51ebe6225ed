//! `target serve` as its users meet it, with our own initiator: what a cluster needs of a SAN, from one end to the other.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use block::buf::AlignedBuf;
use block::device::DeviceExt;
use block::error::IoErrorKind;
use block::shared::{
    CawOutcome, CompareAndWrite, HELD_TYPE, Incarnation, Keeps, NexusKey, NexusNumber, NodeId, Reservations, VolumeTag,
    exclude,
};
use block::units::ByteOffset;
use block::worker::Workers;
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::{Class, Config, FenceGen, Outcome};
use iscsi_initiator::unit::{attach, lacks};
use iscsi_initiator::{LunDevice, Ownership, Session};
use scsi::cdb::TestUnitReady;
use scsi::{AdditionalCode, LunAddress, Sense};

use crate::fixture::{PROGRAM, run, until};

const NAME: &str = "iqn.2026-01.test:cli";

/// A target that runs, ended with the test.
pub(crate) struct Serving {
    child: Child,
    line: String,
}

impl Serving {
    /// In this folder, with these disks, at 127.0.0.1.
    fn start(dir: &Path, more: &[&str]) -> Serving {
        let place = |name: &str| dir.join(name).display().to_string();
        let mut command = Command::new(PROGRAM);
        command.args(["--json", "target", "serve", "--name", NAME, "--state", &place("state")]);
        command.args(["--control", &place("control")]).args(more).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.contains("portals"), "not ready: {line:?}");
        Serving { child, line }
    }

    fn portal(&self, n: usize) -> SocketAddr {
        let value: serde_json::Value = serde_json::from_str(&self.line).expect("JSON");
        let portal = value["target"]["portals"][n].as_str().expect("a portal").to_owned();
        portal.split(',').next().and_then(|p| p.parse().ok()).expect("an address")
    }

    fn url(&self, lun: u64) -> String {
        format!("iscsi://{}/{NAME}/{lun}", self.portal(0))
    }

    /// SIGKILL, as when the power goes.
    fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it has ended");
    }

    /// Asks it to stop, and waits for that; its exit code.
    fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is our child");
        until("it has stopped", || self.child.try_wait().is_ok_and(|ended| ended.is_some()));
        self.child.wait().expect("it has ended").code()
    }

    /// A session of a host.
    fn session(&self, workers: &Workers, host: u16) -> Session {
        let at = self.portal(0);
        let kind = Kind::Normal { target: NAME.into() };
        let login = LoginConfig::new(format!("iqn.2026-01.test:host{host}"), Isid::from_number(9, 1), kind);
        let portal = iscsi::discovery::Portal { host: at.ip().to_string(), port: at.port() };
        Session::start(&workers.handle(), 0, Config::new(login, portal), Ownership::Alone)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn image(dir: &Path, name: &str, bytes: u64) -> String {
    let path = dir.join(name);
    fs::File::create(&path).and_then(|f| f.set_len(bytes)).expect("an image");
    path.display().to_string()
}

async fn device(session: &Session) -> LunDevice {
    let identity = attach(session, LunAddress::new(0).expect("in range")).await.expect("attaches");
    LunDevice::new(session.clone(), identity, FenceGen(0))
}

/// Runs a future on worker 0 and waits for it, not for ever.
fn on_worker<F, Fut>(workers: &Workers, f: F) -> Fut::Output
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let bounded = || async { tokio::time::timeout(std::time::Duration::from_secs(60), f()).await };
    workers.spawn(0, bounded).wait().expect("it does not panic").expect("it ends within a minute")
}

#[test]
fn disks_are_served_found_written_read_and_listed_until_the_signal() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (image(dir.path(), "one.img", 32 << 20), image(dir.path(), "two.img", 8 << 20));
    let two_ro = format!("file:{two},ro");
    let portals = ["--portal", "127.0.0.1:0", "--portal", "127.0.0.1:0,2"];
    let serving = Serving::start(dir.path(), &[&["--lun", &one, "--lun", &two_ro], &portals[..]].concat());
    let found = run(&["iscsi", "discover", &serving.portal(1).to_string()]);
    found.expect(0, &[NAME]);
    for n in 0..2 {
        assert!(found.out.contains(&serving.portal(n).to_string()), "{}", found.out);
    }
    run(&["iscsi", "inquiry", &serving.url(0)]).expect(0, &["Shorefast LUN"]);
    run(&["iscsi", "capacity", &serving.url(1)]).expect(0, &["8.0 MiB", "512"]);
    let mut writer = Command::new(PROGRAM)
        .args(["iscsi", "write", &serving.url(0), "--at", "1m", "--destroy-data"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program runs");
    writer.stdin.take().expect("piped").write_all(&[0x5a; 3 << 20]).expect("it reads");
    assert!(writer.wait().expect("it ends").success());
    let read = Command::new(PROGRAM)
        .args(["iscsi", "read", &serving.url(0), "--at", "1m", "--len", "3m"])
        .output()
        .expect("the program runs");
    assert!(read.status.success() && read.stdout == [0x5a; 3 << 20]);
    let workers = Workers::start(1, "test").expect("workers start");
    let session = serving.session(&workers, 1);
    let control = dir.path().join("control").display().to_string();
    on_worker(&workers, {
        let session = session.clone();
        move || async move { session.up().await.map(|_| ()).expect("logs in") }
    });
    let listed = run(&["target", "sessions", "--control", &control]);
    listed.expect(0, &["iqn.2026-01.test:host1", "normal"]);
    run(&["--json", "target", "sessions", "--control", &control]).expect(0, &["\"sessions\":[", "\"schema\":1"]);
    // It grows while it is served.
    fs::File::options().write(true).open(&one).and_then(|f| f.set_len(48 << 20)).expect("the image");
    until("the size is told", || run(&["iscsi", "capacity", &serving.url(0)]).out.contains("48 MiB"));
    assert_eq!(serving.stop(), Some(0));
    run(&["target", "sessions", "--control", &control]).expect(3, &["No target runs"]);
    assert!(fs::read(&one).expect("the image")[1 << 20..4 << 20] == [0x5a; 3 << 20]);
}

#[test]
fn what_would_be_dangerous_or_cannot_be_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = image(dir.path(), "disk.img", 8 << 20);
    let place = |name: &str| dir.path().join(name).display().to_string();
    let (state, control) = (place("state"), place("control"));
    let serve =
        |more: &[&str]| run(&[&["target", "serve", "--state", &state, "--control", &control][..], more].concat());
    serve(&["--lun", &disk]).expect(2, &["--portal"]);
    serve(&["--lun", &disk, "--portal", "nowhere"]).expect(2, &["no portal"]);
    serve(&["--lun", &disk, "--portal", "0.0.0.0:0"]).expect(4, &["every host", "--initiator"]);
    serve(&["--lun", "/nonexistent", "--portal", "127.0.0.1:0"]).expect(3, &["/nonexistent"]);
    serve(&["--lun", "iscsi://h/t/1", "--portal", "127.0.0.1:0"]).expect(2, &["not a path"]);
    serve(&["--lun", &disk, "--portal", "127.0.0.1:0", "--name", "Disk"]).expect(2, &["no name of a target"]);
    serve(&["--lun", &disk, "--portal", "127.0.0.1:0", "--user", "u"]).expect(2, &["SHOREFAST_ISCSI_SECRET"]);
    let empty = image(dir.path(), "empty.img", 0);
    serve(&["--lun", &empty, "--portal", "127.0.0.1:0"]).expect(1, &["no blocks"]);
    // Going on from reservations that cannot be read would let in whom they kept out.
    fs::create_dir_all(&state).expect("a folder");
    let file = Path::new(&state).join(format!("{NAME}.lun-0.reservations").replace(':', "_"));
    fs::write(&file, "shorefast-reservations 1\ncrc32c 00000000\n").expect("written");
    serve(&["--lun", &disk, "--portal", "127.0.0.1:0", "--name", NAME]).expect(4, &["damaged", "kept out"]);
    fs::remove_file(&file).expect("there");
    let serving = Serving::start(dir.path(), &["--lun", &disk, "--portal", "127.0.0.1:0"]);
    serve(&["--lun", &disk, "--portal", "127.0.0.1:0"]).expect(4, &["another target runs"]);
    drop(serving);
}

/// What a session is told by TEST UNIT READY: nothing, or an additional sense code.
fn told(workers: &Workers, session: &Session) -> Option<AdditionalCode> {
    let session = session.clone();
    on_worker(workers, move || async move {
        let lun = LunAddress::new(0).expect("in range");
        let ended = session.carry_out(lun, TestUnitReady.cdb(), Class::Control, None).await;
        let Outcome::Answered(answer) = ended.outcome else { panic!("{:?}", ended.outcome) };
        Sense::parse(&answer.sense).ok().map(|sense| sense.code)
    })
}

/// By the administrator of the target, while it runs: everybody who is logged in is told.
#[test]
fn a_portal_group_is_set_from_the_command_line_and_every_session_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = image(dir.path(), "disk.img", 8 << 20);
    let control = dir.path().join("control").display().to_string();
    let at = ["--lun", &disk, "--portal", "127.0.0.1:0", "--portal", "127.0.0.1:0,7"];
    let alua = |more: &[&str]| run(&[&["target", "alua", "--control", &control][..], more].concat());
    alua(&[]).expect(3, &["No target runs"]);
    let serving = Serving::start(dir.path(), &at);
    let through = |n: usize| run(&["iscsi", "capacity", &format!("iscsi://{}/{NAME}/0", serving.portal(n))]);
    let workers = Workers::start(1, "test").expect("workers start");
    let session = serving.session(&workers, 1);
    // A new session is told that it is one.
    until("it has nothing more to be told", || told(&workers, &session).is_none());
    let shown = alua(&[]);
    shown.expect(0, &["active-optimized", &serving.portal(0).to_string()]);
    assert!(!shown.out.contains("standby"), "{shown:?}");

    alua(&["--group", "1", "--state", "standby"]).expect(0, &["standby", "active-optimized"]);
    assert_eq!(told(&workers, &session), Some(AdditionalCode::ACCESS_STATE_CHANGED));
    assert_eq!(told(&workers, &session), Some(AdditionalCode::STANDBY));
    through(0).expect(1, &["not accessible through this port"]);
    through(1).expect(0, &["8.0 MiB"]);
    run(&["target", "sessions", "--control", &control]).expect(0, &["standby"]);
    let json = run(&["--json", "target", "sessions", "--control", &control]).json();
    assert_eq!(json["sessions"][0]["state"], "standby", "{json}");

    // What cannot be, and what nobody would want.
    alua(&["--group", "3", "--state", "standby"]).expect(3, &["no portal group 3", "1, 7"]);
    alua(&["--group", "1"]).expect(2, &["--state"]);
    alua(&["--group", "1", "--state", "offline"]).expect(2, &["offline", "standby"]);
    alua(&["--group", "7", "--state", "unavailable"]).expect(4, &["last", "LUN 0", "--yes"]);
    through(1).expect(0, &[]);
    let warned = alua(&["--group", "7", "--state", "unavailable", "--yes"]);
    warned.expect(0, &["unavailable", "Warning: no portal group is left"]);
    through(1).expect(1, &["not accessible"]);

    alua(&["--group", "1", "--state", "active-non-optimized"]).expect(0, &[]);
    through(0).expect(0, &["8.0 MiB"]);
    let groups = run(&["--json", "target", "alua", "--control", &control]).json()["groups"].clone();
    assert_eq!((&groups[0]["state"], &groups[1]["state"]), (&"active-non-optimized".into(), &"unavailable".into()));
    assert_eq!((&groups[0]["set_by"], &groups[0]["luns"][0]), (&"target".into(), &0.into()));
    // It is the state of a process: the next one begins well.
    assert_eq!(serving.stop(), Some(0));
    let _serving = Serving::start(dir.path(), &at);
    assert_eq!(alua(&[]).out.matches("active-optimized").count(), 2);
}

#[test]
fn a_unit_of_ours_lacks_nothing_that_a_shared_disk_needs() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = image(dir.path(), "disk.img", 32 << 20);
    let serving = Serving::start(dir.path(), &["--lun", &disk, "--portal", "127.0.0.1:0"]);
    let workers = Workers::start(1, "test").expect("workers start");
    let session = serving.session(&workers, 1);
    on_worker(&workers, move || async move {
        let device = device(&session).await;
        let missing = lacks(&session, device.identity()).await.expect("is asked");
        assert!(missing.is_empty(), "{missing:?}");
        session.close().await;
    });
    run(&["iscsi", "reservations", &serving.url(0)]).expect(0, &[]);
}

fn key(node: u8, nexus: u16) -> NexusKey {
    let node = NodeId::new(node).expect("a node");
    NexusKey::new(VolumeTag::of(&[7; 16]), node, Incarnation(1), NexusNumber(nexus))
}

fn block(byte: u8) -> AlignedBuf {
    AlignedBuf::from_slice(&[byte; 4096])
}

/// A node is excluded as a cluster does it: PREEMPT AND ABORT of its keys, the reservation read. It stays out when the target
/// was killed and comes back.
#[test]
fn a_node_that_was_excluded_stays_out_also_when_the_target_was_killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = image(dir.path(), "disk.img", 32 << 20);
    let at = ["--lun", &disk, "--portal", "127.0.0.1:0"];
    let serving = Serving::start(dir.path(), &at);
    let workers = Workers::start(1, "test").expect("workers start");
    let sessions = [serving.session(&workers, 1), serving.session(&workers, 2)];
    on_worker(&workers, move || async move {
        let (a, b) = (device(&sessions[0]).await, device(&sessions[1]).await);
        let (own, victim) = (key(1, 1), key(2, 1));
        a.register(own.key(), Keeps::ThroughPowerLoss).await.expect("registers");
        b.register(victim.key(), Keeps::ThroughPowerLoss).await.expect("registers");
        a.reserve(own.key(), HELD_TYPE).await.expect("reserves");
        b.write_fua(ByteOffset(0), block(2)).await.0.expect("a registrant writes");
        let _excluded = exclude(&a, own, (victim.node, Incarnation(1))).await.expect("is excluded");
        assert_eq!(a.keys().await.expect("reads").keys, [own.key()]);
        assert_eq!(a.registrants().await.expect("reads").registrants.len(), 1);
        let refused = b.write(ByteOffset(0), block(3)).await.0.expect_err("fenced");
        assert_eq!(refused.kind, IoErrorKind::Fenced);
        let refused = b.read(ByteOffset(0), 4096).await.expect_err("reads are kept out, too");
        assert_eq!(refused.kind, IoErrorKind::Fenced);
        a.write_fua(ByteOffset(0), block(1)).await.0.expect("goes on");
    });
    serving.kill();
    let serving = Serving::start(dir.path(), &at);
    let sessions = [serving.session(&workers, 1), serving.session(&workers, 2)];
    on_worker(&workers, move || async move {
        let a = device(&sessions[0]).await;
        assert_eq!(a.keys().await.expect("reads").keys, [key(1, 1).key()]);
        assert_eq!(a.reservation().await.expect("reads").reservation.map(|r| r.kind), Some(HELD_TYPE));
        assert_eq!(a.read(ByteOffset(0), 4096).await.expect("it is a registrant still")[..], [1; 4096]);
        // The stranger may ask what the unit is, and no more.
        let b = device(&sessions[1]).await;
        let refused = b.write(ByteOffset(0), block(3)).await.0.expect_err("fenced");
        assert_eq!(refused.kind, IoErrorKind::Fenced);
        for session in sessions {
            session.close().await;
        }
    });
}

/// Counts the block at 8192 up, and gives back each count that it was told to have made.
async fn count(caw: Arc<LunDevice>, who: u64, steps: usize) -> Vec<u64> {
    let (mut seen, mut made) = (vec![0; 16], Vec::new());
    while made.len() < steps {
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

/// Three nexuses on three of the target's connections count one block up; each success is one step, or the sum would show it.
#[test]
fn compare_and_writes_of_several_nexuses_lose_no_update() {
    const STEPS: usize = 60;
    let dir = tempfile::tempdir().expect("a folder");
    let disk = image(dir.path(), "disk.img", 32 << 20);
    let serving = Serving::start(dir.path(), &["--lun", &disk, "--portal", "127.0.0.1:0"]);
    let workers = Workers::start(1, "test").expect("workers start");
    let sessions = [1, 2, 3].map(|host| serving.session(&workers, host));
    on_worker(&workers, move || async move {
        let (a, b, c) = (
            Arc::new(device(&sessions[0]).await),
            Arc::new(device(&sessions[1]).await),
            Arc::new(device(&sessions[2]).await),
        );
        let reader = Arc::clone(&a);
        let (a, b, c) = tokio::join!(count(a, 1, STEPS), count(b, 2, STEPS), count(c, 3, STEPS));
        let mut made = [a, b, c].concat();
        made.sort_unstable();
        assert_eq!(made, (1..=3 * STEPS as u64).collect::<Vec<_>>());
        let block = reader.read(ByteOffset(8192), 4096).await.expect("reads");
        assert_eq!(u64::from_le_bytes(block[..8].try_into().expect("8 bytes")), 3 * STEPS as u64);
        for session in sessions {
            session.close().await;
        }
    });
}
