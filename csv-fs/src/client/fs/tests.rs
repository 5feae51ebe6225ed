//! The kernel's view: real mounts of two clients of one volume in this process, over a device in memory.
//!
//! Every access to a mount runs on a thread of its own and is waited for with a bound, so that a file system that does
//! not answer fails the test instead of hanging it.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use block::worker::Workers;
use fuse::features::{TABLE, Want};
use fuse::{Feature, Mount, MountOptions, Unmount};

mod many_locks;

use super::FileSystem;
use crate::client::data::tests::rig::{Cluster, Node, SOON, pattern};
use crate::client::session::EIO;

/// Two mounts and what is under them.
struct Mounted {
    cluster: Cluster,
    nodes: Vec<Node>,
    mounts: Vec<Mount>,
    dirs: Vec<tempfile::TempDir>,
    _workers: Workers,
}

impl Mounted {
    /// `None`, with the reason printed, where FUSE cannot be used.
    async fn new() -> Option<Mounted> {
        Mounted::without(&[]).await
    }

    /// The same on a kernel that lacks some features.
    async fn without(lacking: &[Feature]) -> Option<Mounted> {
        if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            assert!(std::env::var_os("REQUIRE_ALL").is_none(), "may not be skipped: /dev/fuse: {error}");
            println!("skipped: /dev/fuse: {error}");
            return None;
        }
        let cluster = Cluster::new().await;
        let workers = Workers::start(2, "m").unwrap();
        let (mut nodes, mut mounts, mut dirs) = (Vec::new(), Vec::new(), Vec::new());
        for n in 1..=2u8 {
            let node = cluster.node_on(n, &workers);
            let dir = tempfile::tempdir().unwrap();
            let without = lacking.to_vec();
            let options = MountOptions { channels: 2, without, ..MountOptions::new(dir.path(), "shorefast:test") };
            let (mount, channels) =
                tokio::task::spawn_blocking(move || Mount::open(&options).expect("mounts")).await.unwrap();
            let system = FileSystem::new(Arc::clone(&node.path));
            for (i, channel) in channels.into_iter().enumerate() {
                let system = Arc::clone(&system);
                drop(workers.spawn(i, move || async move {
                    let handler = system.handler();
                    let _ = channel.serve(move |request| handler.handle(request)).await;
                }));
            }
            nodes.push(node);
            mounts.push(mount);
            dirs.push(dir);
        }
        Some(Mounted { cluster, nodes, mounts, dirs, _workers: workers })
    }

    fn path(&self, node: usize, name: &str) -> PathBuf {
        self.dirs[node].path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for mount in &self.mounts {
            let _ = mount.unmount(Unmount::Lazy);
        }
    }
}

/// Runs what touches a mount on a thread of its own.
async fn on_mount<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(done.send(work())));
    tokio::time::timeout(SOON, result).await.expect("the mount answers").expect("succeeds")
}

async fn read(path: PathBuf) -> Vec<u8> {
    on_mount(move || fs::read(path).unwrap()).await
}

async fn write(path: PathBuf, data: Vec<u8>) {
    on_mount(move || fs::write(path, data).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d50_files_names_and_attributes_are_one_on_both_mounts() {
    let Some(m) = Mounted::new().await else { return };
    let data = pattern(300_000, 1);
    write(m.path(0, "a"), data.clone()).await;
    assert_eq!(read(m.path(1, "a")).await, data);
    let (a, b) = (m.dirs[0].path().to_owned(), m.dirs[1].path().to_owned());
    on_mount(move || {
        fs::create_dir(a.join("d")).unwrap();
        fs::rename(a.join("a"), a.join("d/b")).unwrap();
        assert_eq!(fs::metadata(b.join("d/b")).unwrap().len(), 300_000);
        symlink("d/b", b.join("link")).unwrap();
        assert_eq!(fs::read_link(a.join("link")).unwrap(), Path::new("d/b"));
        assert_eq!(fs::read(a.join("link")).unwrap().len(), 300_000);
        fs::hard_link(a.join("d/b"), a.join("d/c")).unwrap();
        assert_eq!(fs::metadata(b.join("d/b")).unwrap().nlink(), 2);
        fs::set_permissions(b.join("d/b"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::metadata(a.join("d/c")).unwrap().mode() & 0o7777, 0o600);
        let mut names: Vec<_> = fs::read_dir(b.join("d")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(
            fs::remove_dir(a.join("d")).unwrap_err().raw_os_error(),
            Some(rustix::io::Errno::NOTEMPTY.raw_os_error())
        );
        fs::remove_file(a.join("d/b")).unwrap();
        fs::remove_file(a.join("d/c")).unwrap();
        fs::remove_dir(b.join("d")).unwrap();
        assert!(!a.join("d").exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d51_open_flags_mean_what_they_say() {
    let Some(m) = Mounted::new().await else { return };
    let (a, b) = (m.path(0, "f"), m.path(1, "f"));
    on_mount(move || {
        fs::write(&a, b"0123456789").unwrap();
        let taken = fs::OpenOptions::new().write(true).create_new(true).open(&b).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
        let mut append = fs::OpenOptions::new().append(true).open(&b).unwrap();
        append.write_all(b"ab").unwrap();
        fs::OpenOptions::new().append(true).open(&a).unwrap().write_all(b"cd").unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"0123456789abcd");
        let mut cut = fs::OpenOptions::new().write(true).truncate(true).open(&b).unwrap();
        assert_eq!(fs::metadata(&a).unwrap().len(), 0);
        cut.write_all(b"new").unwrap();
        assert_eq!(fs::read(&a).unwrap(), b"new");
        cut.set_len(100).unwrap();
        assert_eq!(fs::metadata(&a).unwrap().len(), 100);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d52_a_file_that_is_removed_while_open_lives_until_it_is_closed() {
    let Some(m) = Mounted::new().await else { return };
    let (a, b) = (m.path(0, "f"), m.path(1, "f"));
    on_mount(move || {
        let mut open = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&a).unwrap();
        open.write_all(b"still here").unwrap();
        fs::remove_file(&b).unwrap();
        assert!(!a.exists());
        open.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d53_o_direct_and_ordinary_writers_side_by_side_see_one_file() {
    let Some(m) = Mounted::new().await else { return };
    let (a, b) = (m.path(0, "f"), m.path(1, "f"));
    on_mount(move || {
        let plain = fs::File::create(&a).unwrap();
        plain.write_all_at(&vec![0; 1 << 20], 0).unwrap();
        let direct = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32)
            .open(&b)
            .unwrap();
        let aligned = block::AlignedBuf::from_slice(&pattern(65_536, 4));
        for i in 0..8 {
            assert_eq!(direct.write_at(&aligned, i * 131_072).unwrap(), aligned.len());
            plain.write_all_at(&pattern(65_536, 5), i * 131_072 + 65_536).unwrap();
        }
        let got = fs::read(&a).unwrap();
        let expected: Vec<u8> = (0..8).flat_map(|_| [pattern(65_536, 4), pattern(65_536, 5)].concat()).collect();
        assert!(got == expected);
        plain.sync_all().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d54_a_lock_taken_through_one_mount_keeps_others_out_through_the_other() {
    use rustix::fs::{FlockOperation::*, fcntl_lock, flock};
    let Some(m) = Mounted::new().await else { return };
    let (a, b) = (m.path(0, "f"), m.path(1, "f"));
    let again = Err(rustix::io::Errno::AGAIN);
    let (a, b) = on_mount(move || {
        let (a, b) = (fs::File::create(&a).unwrap(), fs::OpenOptions::new().read(true).write(true).open(&b).unwrap());
        flock(&a, NonBlockingLockExclusive).unwrap();
        assert_eq!(flock(&b, NonBlockingLockShared), again);
        // Records are another kind. Both descriptors are of this process, whose number differs by mount.
        fcntl_lock(&b, NonBlockingLockExclusive).unwrap();
        assert_eq!(fcntl_lock(&a, NonBlockingLockExclusive), Err(rustix::io::Errno::AGAIN));
        (a, b)
    })
    .await;
    assert_eq!((m.nodes[0].session.locks(), m.nodes[1].session.locks()), ((1, 0), (1, 0)));
    let waiter = std::thread::spawn(move || flock(&b, LockExclusive).map(|()| b));
    wait_until("waiting", || m.nodes[1].session.locks() == (1, 1)).await;
    on_mount(move || drop(a)).await;
    let b = on_mount(move || waiter.join().unwrap().unwrap()).await;
    on_mount(move || drop(b)).await;
    wait_until("free", || m.cluster.locks() == (0, 0)).await;
    assert_eq!((m.nodes[0].session.locks(), m.nodes[1].session.locks()), ((0, 0), (0, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d55_a_listing_that_goes_on_while_names_come_and_go_shows_each_lasting_name_once() {
    let Some(m) = Mounted::new().await else { return };
    let (a, b) = (m.dirs[0].path().to_owned(), m.dirs[1].path().to_owned());
    // In pieces, so that the bound of a call is not that of thousands.
    for i in 0..300 {
        let a = a.clone();
        on_mount(move || {
            fs::write(a.join(format!("stays-{i:03}")), b"x").unwrap();
            fs::write(a.join(format!("goes-{i:03}")), b"x").unwrap();
        })
        .await;
    }
    let mut listing = on_mount(move || fs::read_dir(&b).unwrap()).await;
    let mut seen = Vec::new();
    for i in 0..=601 {
        let a = a.clone();
        let (entry, rest) = on_mount(move || {
            let entry = listing.next().map(|e| e.unwrap().file_name().into_string().unwrap());
            if entry.is_some() && i % 2 == 0 {
                let _ = fs::remove_file(a.join(format!("goes-{:03}", 299 - (i / 2).min(299))));
                fs::write(a.join(format!("new-{i:03}")), b"x").unwrap();
            }
            (entry, listing)
        })
        .await;
        listing = rest;
        let Some(entry) = entry else { break };
        seen.push(entry);
    }
    let mut lasting: Vec<_> = seen.into_iter().filter(|n| n.starts_with("stays-")).collect();
    lasting.sort();
    assert_eq!(lasting, (0..300).map(|i| format!("stays-{i:03}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d56_a_hung_path_and_a_dead_coordinator_fail_no_system_call() {
    let Some(mut m) = Mounted::new().await else { return };
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|n| {
            let (path, stop) = (m.path(n, &format!("w{n}")), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut file =
                    fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap();
                let mut rounds = 0u64;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let data = pattern(10_000, rounds as u8);
                    file.write_all_at(&data, (rounds % 20) * 10_000).unwrap();
                    let mut back = vec![0; data.len()];
                    file.read_exact_at(&mut back, (rounds % 20) * 10_000).unwrap();
                    assert!(back == data, "round {rounds}");
                    if rounds.is_multiple_of(16) {
                        file.sync_data().unwrap();
                    }
                    rounds += 1;
                }
                file.flush().unwrap();
                rounds
            })
        })
        .collect();
    let pause = || tokio::time::sleep(Duration::from_millis(300));
    pause().await;
    m.nodes[1].fault.hang();
    m.nodes[1].routed(crate::core::client::Route::BlockRedirected).await;
    pause().await;
    m.cluster.take_office(4).await;
    pause().await;
    m.nodes[1].fault.heal();
    m.nodes[1].routed(crate::core::client::Route::Direct).await;
    m.cluster.take_office(3).await;
    pause().await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        let rounds = on_mount(move || writer.join().expect("no call failed")).await;
        assert!(rounds > 20, "{rounds} rounds");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d57_holes_and_data_are_found_by_lseek() {
    let Some(m) = Mounted::new().await else { return };
    let (a, b) = (m.path(0, "f"), m.path(1, "f"));
    on_mount(move || {
        use rustix::fs::{FallocateFlags, SeekFrom::*};
        let file = fs::File::create(&a).unwrap();
        file.write_all_at(&[1; 5000], 1 << 20).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 8 << 20, 1 << 20).unwrap();
        file.write_all_at(&[1], 20 << 20).unwrap();
        let other = fs::File::open(&b).unwrap();
        for file in [&file, &other] {
            let seek = |to| rustix::fs::seek(file, to);
            assert_eq!(seek(Data(0)), Ok(1 << 20));
            assert_eq!(seek(Data((1 << 20) + 77)), Ok((1 << 20) + 77));
            assert_eq!(seek(Hole(1 << 20)), Ok((1 << 20) + 8192));
            assert_eq!(seek(Data(2 << 20)), Ok(20 << 20), "unwritten space is a hole");
            assert_eq!(seek(Hole(20 << 20)), Ok((20 << 20) + 1), "the end is one");
            assert_eq!(seek(Data((20 << 20) + 1)), Err(rustix::io::Errno::NXIO));
            assert_eq!(seek(Hole((20 << 20) + 1)), Err(rustix::io::Errno::NXIO));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d58_statx_tells_when_a_file_was_made() {
    let Some(m) = Mounted::new().await else { return };
    let (a, b) = (m.path(0, "f"), m.path(1, "f"));
    on_mount(move || {
        fs::write(&a, b"x").unwrap();
        let born = fs::metadata(&a).unwrap().created().unwrap();
        assert_eq!(fs::metadata(&b).unwrap().created().unwrap(), born);
        fs::set_permissions(&b, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::metadata(&a).unwrap().created().unwrap(), born);
    })
    .await;
}

/// The kernel leaves it to the file system to clear suid and sgid, and says when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d60_a_write_or_cut_without_privilege_clears_suid_and_sgid() {
    let Some(m) = Mounted::new().await else { return };
    let (a, b) = (m.path(0, "f"), m.path(1, "f"));
    on_mount(move || {
        // Of this thread only; without it the kernel asks for the bits to be cleared.
        let mut own = rustix::thread::capabilities(None).unwrap();
        own.effective.remove(rustix::thread::CapabilitySet::FSETID);
        rustix::thread::set_capabilities(None, own).unwrap();
        let set = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o6755)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let made = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o4755).open(&a).unwrap();
        assert_eq!(mode(&b), 0o4755, "a new file keeps the bits it was made with");
        drop(made);
        set(&a);
        drop(fs::File::create(&a).unwrap());
        assert_eq!(mode(&b), 0o755, "cut, though it was empty");
        set(&b);
        fs::OpenOptions::new().write(true).open(&a).unwrap().write_all(b"12345678").unwrap();
        assert_eq!(mode(&b), 0o755, "written");
        set(&b);
        fs::OpenOptions::new().write(true).open(&a).unwrap().set_len(3).unwrap();
        assert_eq!(mode(&b), 0o755, "cut by its descriptor");
    })
    .await;
}

/// The kernel takes no answer any more: nobody will ever release the handle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d59_an_open_whose_answer_nobody_takes_is_undone() {
    let Some(m) = Mounted::new().await else { return };
    let (a, b) = (m.path(0, "f"), m.path(1, "f"));
    // By the same node, so that looking it up needs no commit of another one.
    write(a.clone(), b"x".to_vec()).await;
    wait_until("closed", || m.cluster.opens() == 0).await;
    m.cluster.suspend(true);
    let cutting = std::thread::spawn(move || fs::File::create(a).map(drop));
    // OPEN with O_TRUNC: open at the coordinator, and the cut waits.
    wait_until("opened again", || m.cluster.opens() == 1).await;
    m.mounts[0].abort().unwrap();
    let failed = on_mount(move || cutting.join().unwrap()).await;
    assert!(failed.is_err());
    assert_eq!(m.cluster.opens(), 1);
    m.cluster.suspend(false);
    wait_until("released", || m.cluster.opens() == 0 && m.nodes[0].path.open_files() == 0).await;
    assert_eq!(read(b).await, b"");
}

/// A look-up is no task that could be interrupted: its call is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d33_a_process_that_looks_while_there_is_no_coordinator_can_be_killed() {
    let Some(mut m) = Mounted::new().await else { return };
    write(m.path(0, "f"), b"x".to_vec()).await;
    m.cluster.kill_coordinator().await;
    let mut stat = std::process::Command::new("stat").arg(m.path(0, "f")).spawn().unwrap();
    wait_until("waiting", || m.nodes[0].session.load().0 > 0).await;
    stat.kill().unwrap();
    let ended = on_mount(move || stat.wait().unwrap()).await;
    assert!(!ended.success());
    m.cluster.take_office(4).await;
    assert_eq!(read(m.path(1, "f")).await, b"x");
}

/// Between two lives of its node a program sees time pass. What it looked at when the life before ended is looked at again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d37_calls_between_two_lives_wait_for_the_next() {
    let Some(mut m) = Mounted::new().await else { return };
    write(m.path(0, "f"), b"x".to_vec()).await;
    let (open, here) = (m.path(0, "f"), m.dirs[0].path().to_owned());
    let (open, list) = on_mount(move || (fs::File::open(open).unwrap(), fs::read_dir(here).unwrap())).await;
    m.nodes[0].path.let_everything_go().await;
    m.cluster.kill_coordinator().await;
    // A look-up that fails is asked again by the kernel; this is not.
    let look = tokio::spawn(on_mount(move || open.metadata().unwrap().len()));
    let list = tokio::spawn(on_mount(move || list.map(Result::unwrap).count()));
    wait_until("asked", || m.nodes[0].session.load().0 > 1).await;
    m.nodes[0].session.over("a test");
    wait_until("evicted", || m.nodes[0].session.is_between_lives()).await;
    let here = m.dirs[0].path().to_owned();
    let calls = tokio::spawn(on_mount(move || {
        fs::write(here.join("g"), b"new").unwrap();
        fs::rename(here.join("g"), here.join("h")).unwrap();
        let names = fs::read_dir(&here).unwrap().map(Result::unwrap).count();
        (fs::read(here.join("f")).unwrap(), names)
    }));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!look.is_finished() && !list.is_finished() && !calls.is_finished());
    m.cluster.take_office(4).await;
    m.cluster.next_life(&m.nodes[0]).await;
    assert_eq!(look.await.unwrap(), 1);
    assert!(matches!(list.await.unwrap(), 1 | 2), "one is made at the same time");
    assert_eq!(calls.await.unwrap(), (b"x".to_vec(), 2));
    assert_eq!(read(m.path(1, "h")).await, b"new");
}

/// It was killed while a coordinator had its question, which did not answer; then its node was evicted, and the question asked again for
/// one who is gone: nothing could end that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d38_a_process_that_was_killed_before_the_eviction_does_not_wait_for_the_next_life() {
    let Some(m) = Mounted::new().await else { return };
    write(m.path(0, "f"), b"x".to_vec()).await;
    // The other node is asked how long the file is, and has to flush first.
    let dirty = m.path(1, "f");
    let _dirty = on_mount(move || {
        let file = fs::OpenOptions::new().append(true).open(dirty).unwrap();
        (&file).write_all(b"more").unwrap();
        file
    });
    let _dirty = _dirty.await;
    m.nodes[1].fault.hold_aborts(true);
    m.nodes[1].fault.hang();
    let mut stat = std::process::Command::new("stat").arg(m.path(0, "f")).spawn().unwrap();
    wait_until("asked", || m.nodes[0].session.load().0 > 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    stat.kill().unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(stat.try_wait().unwrap().is_none(), "the coordinator has its question");
    m.nodes[0].session.over("a test");
    assert!(!on_mount(move || stat.wait().unwrap()).await.success());
    m.nodes[1].fault.hold_aborts(false);
    m.nodes[1].fault.heal();
}

/// Its node may never begin another life: the disk is gone, and with it the proof that the one before has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d38_a_process_that_waits_for_the_next_life_can_be_killed() {
    let Some(mut m) = Mounted::new().await else { return };
    write(m.path(0, "f"), b"x".to_vec()).await;
    let dirty = m.path(0, "dirty");
    let dirty = on_mount(move || {
        let mut file = fs::File::create(dirty).unwrap();
        file.write_all(b"not fsynced").unwrap();
        file
    });
    let dirty = dirty.await;
    // The kernel closes its files when it is killed, and no signal ends that.
    let open = m.path(0, "f");
    let mut holds = std::process::Command::new("sleep");
    let holds = on_mount(move || holds.arg("1000").stdin(fs::File::open(open).unwrap()).spawn().unwrap());
    let mut holds = holds.await;
    m.cluster.end_life(&m.nodes[0]).await;
    holds.kill().unwrap();
    assert!(!on_mount(move || holds.wait().unwrap()).await.success());
    let mut stat = std::process::Command::new("stat").arg(m.path(0, "f")).spawn().unwrap();
    let mut list = std::process::Command::new("ls").arg(m.dirs[0].path()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(stat.try_wait().unwrap().is_none() && list.try_wait().unwrap().is_none(), "they wait");
    stat.kill().unwrap();
    list.kill().unwrap();
    let ended = on_mount(move || (stat.wait().unwrap(), list.wait().unwrap())).await;
    assert!(!ended.0.success() && !ended.1.success());
    m.cluster.next_life(&m.nodes[0]).await;
    assert_eq!(read(m.path(0, "f")).await, b"x");
    // In whatever life: what it was open for is lost.
    let cut = on_mount(move || dirty.set_len(1)).await;
    assert_eq!(cut.unwrap_err().raw_os_error(), Some(EIO));
}

async fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !so() {
        assert!(begin.elapsed() < SOON, "it was not {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What every program does, through two mounts.
fn everyday_calls(a: &Path, b: &Path) {
    let data = pattern(400_000, 6);
    fs::create_dir(a.join("d")).unwrap();
    fs::write(a.join("d/f"), &data).unwrap();
    assert!(fs::read(b.join("d/f")).unwrap() == data);
    let mut appender = fs::OpenOptions::new().append(true).open(b.join("d/f")).unwrap();
    appender.write_all(b"more").unwrap();
    appender.sync_all().unwrap();
    assert_eq!(fs::metadata(a.join("d/f")).unwrap().len(), 400_004);
    drop(fs::OpenOptions::new().write(true).truncate(true).open(a.join("d/f")).unwrap());
    assert_eq!(fs::read(b.join("d/f")).unwrap(), b"");
    let file = fs::OpenOptions::new().read(true).write(true).open(a.join("d/f")).unwrap();
    file.write_all_at(&data[..5000], 100).unwrap();
    file.set_len(3000).unwrap();
    assert_eq!(fs::read(b.join("d/f")).unwrap(), [vec![0; 100], data[..2900].to_vec()].concat());
    fs::set_permissions(a.join("d/f"), fs::Permissions::from_mode(0o640)).unwrap();
    rustix::fs::setxattr(a.join("d/f"), "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(b.join("d/f"), "user.a", &mut value).unwrap(), 1);
    (0..40).for_each(|i| fs::write(b.join(format!("d/n{i}")), b"x").unwrap());
    assert_eq!(fs::read_dir(a.join("d")).unwrap().count(), 41);
    fs::rename(a.join("d/n1"), a.join("d/n2")).unwrap();
    assert_eq!(fs::read_dir(b.join("d")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum::<u64>(), 3039);
    let lock = fs::File::open(b.join("d/f")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let taken = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert_eq!(taken, Err(rustix::io::Errno::AGAIN));
    fs::remove_dir_all(b.join("d")).unwrap();
    assert!(!a.join("d").exists());
    let mut kept = Vec::new();
    (&file).read_to_end(&mut kept).unwrap();
    assert_eq!(kept.len(), 3000, "removed while open");
}

/// Each row of the table of kernel features, taken out by itself: everything works as it did, more slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d67_every_optional_kernel_feature_may_be_missing() {
    for row in TABLE.iter().filter(|row| row.want != Want::Needed) {
        let Some(m) = Mounted::without(&[row.feature]).await else { return };
        println!("without {}: {}", row.name, row.fallback);
        assert!(m.mounts.iter().all(|mount| !mount.negotiated().features.has(row.feature)), "{}", row.name);
        let (a, b) = (m.dirs[0].path().to_owned(), m.dirs[1].path().to_owned());
        on_mount(move || everyday_calls(&a, &b)).await;
    }
}

/// The least that a kernel may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d68_all_optional_kernel_features_may_be_missing_together() {
    let all: Vec<Feature> = TABLE.iter().filter(|row| row.want != Want::Needed).map(|row| row.feature).collect();
    let Some(m) = Mounted::without(&all).await else { return };
    let (a, b) = (m.dirs[0].path().to_owned(), m.dirs[1].path().to_owned());
    on_mount(move || everyday_calls(&a, &b)).await;
}
