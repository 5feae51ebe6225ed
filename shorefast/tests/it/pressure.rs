//! A machine under pressure: memory, file descriptors and the state folder's disk run out, the clock is stepped, and much
//! happens at once. What must go on goes on; what cannot says so, and goes on once it can.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fixture::{
    Background, Cluster, Ended, PROGRAM, background, can_mount, mounts_below, path, run, until, within,
};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program below a shell that first says `what`.
fn after(what: &str) -> [String; 4] {
    ["sh".into(), "-c".into(), format!("{what}; exec {PROGRAM} \"$@\""), "sh".into()]
}

/// A memory cgroup of version 1 or 2; goes with this value, once its processes have left.
struct MemoryGroup {
    dir: PathBuf,
    limit: &'static str,
    kills: &'static str,
}

impl MemoryGroup {
    fn new(name: &str) -> Option<MemoryGroup> {
        for (root, limit, kills) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
        ] {
            let dir = Path::new(root).join(format!("shorefast-{name}-{}", std::process::id()));
            if fs::create_dir(&dir).is_ok() && dir.join(limit).exists() {
                return Some(MemoryGroup { dir, limit, kills });
            }
            let _ = fs::remove_dir(&dir);
        }
        None
    }

    fn limit(&self, bytes: u64) {
        fs::write(self.dir.join(self.limit), bytes.to_string()).expect("a limit");
    }

    fn add(&self, pid: u32) {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string()).expect("a member");
    }

    /// How often the kernel ended a process for want of memory.
    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.dir.join(self.kills)).expect("events");
        let line = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
        line.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("{text}"))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A loop device on a file; goes with this value.
struct Loop(String);

impl Loop {
    fn on(file: &Path) -> Option<Loop> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).stderr(Stdio::null()).output().ok()?;
        made.status.success().then(|| Loop(String::from_utf8_lossy(&made.stdout).trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// Flags of each thread of a process, as the kernel has them.
fn thread_flags(pid: u32) -> Vec<(String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let flags = |dir: PathBuf| {
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split('(').nth(1)?.to_owned();
        Some((name, rest.split_whitespace().nth(6)?.parse().ok()?))
    };
    tasks.filter_map(|t| flags(t.ok()?.path())).collect()
}

/// CAP_SYS_RESOURCE.
const SYS_RESOURCE: u32 = 24;

/// Whether root has this capability here; in a container it may not.
fn may(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("this process");
    let set = status.lines().find_map(|l| l.strip_prefix("CapEff:")).expect("a set").trim();
    u64::from_str_radix(set, 16).expect("digits") >> capability & 1 == 1
}

#[test]
fn memory_that_a_privileged_daemon_asks_for_is_never_freed_by_writing_to_itself() {
    /// PF_MEMALLOC_NOIO of the kernel.
    const NOIO: u64 = 0x0008_0000;
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(1);
    if !may(SYS_RESOURCE) {
        // Root of some containers and virtual machines: the operator is told what that means.
        assert!(cluster.log(1).contains("without CAP_SYS_RESOURCE"), "{}", cluster.log(1));
        return;
    }
    let pid = cluster.pid(1);
    let threads = thread_flags(pid);
    // The ring's own threads are the kernel's; it makes them as it needs them.
    let ours = threads.iter().filter(|(name, _)| !name.starts_with("iou-"));
    for (name, flags) in ours {
        assert!(flags & NOIO != 0, "thread {name} has flags {flags:#x}: {threads:?}");
    }
}

#[test]
fn a_privileged_daemon_holds_its_memory() {
    /// CAP_IPC_LOCK.
    const IPC_LOCK: u32 = 14;
    if !may(IPC_LOCK) || !can_mount() {
        println!("skipped: this needs CAP_IPC_LOCK");
        return;
    }
    let cluster = Cluster::with_volume(1);
    let pid = cluster.pid(1);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let locked = status.lines().find_map(|l| l.strip_prefix("VmLck:")).unwrap_or_default();
    let kib: u64 = locked.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib > 1024, "{status}");
}

const MIB: u64 = 1 << 20;

/// A file of random bytes, outside the volume.
fn pattern(cluster: &Cluster) -> PathBuf {
    let file = cluster.dir.join("pattern");
    let made = Command::new("sh").arg("-c").arg(format!("head -c 300M /dev/urandom > {}", path(&file))).status();
    assert!(made.expect("sh runs").success());
    file
}

/// Room in the group beside what the daemon uses, far less than is written. Where it is so little that the kernel ends the writer for want of memory,
/// which it may do long before the daemon stands still, nothing is shown, and there is more the next time.
const ROOM: [u64; 3] = [48 * MIB, 80 * MIB, 128 * MIB];

/// Puts the daemon of node 1 into a group that has room for what it uses and little besides.
fn narrow(cluster: &Cluster, group: &MemoryGroup, room: u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.pid(1))).expect("it runs");
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a size").trim().trim_end_matches(" kB");
    group.limit(rss.parse::<u64>().expect("a number") * 1024 + room);
    group.add(cluster.pid(1));
}

/// Runs a script in one group with the daemon, with little room.
fn run_in(group: &MemoryGroup, script: &str, cluster: &mut Cluster) {
    let enough = ROOM.into_iter().find(|room| {
        narrow(cluster, group, *room);
        ends_well(group, script, cluster)
    });
    let Some(room) = enough else { panic!("the kernel ended the writer for want of memory each time") };
    println!("written with room for {} MiB", room / MIB);
}

/// Runs a script in a group; it takes its time, and a deadlock takes for ever. No if the kernel ended it for want of memory: it, and not the
/// daemon, which is what is looked at here.
fn ends_well(group: &MemoryGroup, script: &str, cluster: &mut Cluster) -> bool {
    let before = group.kills();
    let script =
        format!("echo 1000 > /proc/self/oom_score_adj; echo $$ > {}/cgroup.procs && {script}", group.dir.display());
    let writer = background(move || Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status());
    for _ in 0..60 {
        if writer.is_done() {
            break;
        }
        std::thread::sleep(Duration::from_secs(5));
    }
    assert!(writer.is_done(), "the writer hangs: {}", cluster.log(1));
    let ended = writer.ended("the writer").expect("sh runs");
    assert!(!cluster.is_dead(1), "the daemon was ended: {}", cluster.log(1));
    let killed = group.kills() > before;
    assert!(killed || ended.success(), "it failed: {}", cluster.log(1));
    !killed
}

fn all_is_there(cluster: &Cluster, pattern: PathBuf, file: PathBuf) {
    let same =
        within("comparing", move || Command::new("cmp").args(["-n", "314572800"]).arg(pattern).arg(file).status());
    assert!(same.expect("cmp runs").success());
    until("all is well", || cluster.ask(1, &["status", "--check"]).code == 0);
    cluster.checks_clean(1);
}

/// Ends a mount's connection if the test fails: what is written to it fails then, and whoever waits for that goes on.
/// Prevents: a daemon that waits for a write to its own mount can be ended by nothing else.
struct AbortIfPanicking(PathBuf);

impl AbortIfPanicking {
    fn of(mount: &Path) -> AbortIfPanicking {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("a table");
        let line = table.lines().find(|l| l.split(' ').nth(4) == Some(path(mount))).expect("it is mounted");
        let minor = line.split(' ').nth(2).and_then(|dev| dev.split_once(':')).expect("a device").1;
        AbortIfPanicking(format!("/sys/fs/fuse/connections/{minor}/abort").into())
    }
}

impl Drop for AbortIfPanicking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = fs::write(&self.0, "1");
        }
    }
}

#[test]
#[ignore = "long: 300 MiB with little memory"]
fn a_volume_is_written_while_the_page_cache_has_taken_what_memory_there_is() {
    if !is_root() || !can_mount() {
        println!("skipped: only root makes cgroups");
        return;
    }
    let Some(group) = MemoryGroup::new("cache") else {
        println!("skipped: no memory cgroup can be made here");
        return;
    };
    let mut cluster = Cluster::with_volume(1);
    let (file, from) = (cluster.mount(1, "v").join("file"), pattern(&cluster));
    // Read through the page cache, written to the volume and beside it: all in the daemon's group.
    let beside = cluster.dir.join("beside");
    let script = format!(
        "cp {from} {beside} & dd if={from} of={to} bs=1M conv=fsync && wait",
        from = path(&from),
        beside = path(&beside),
        to = path(&file)
    );
    run_in(&group, &script, &mut cluster);
    all_is_there(&cluster, from, file);
}

/// Dirty pages that only this daemon can take, and a daemon that needs memory to take them: a loop device on its mount,
/// written through the page cache, in one cgroup with the daemon. Without PR_SET_IO_FLUSHER it stands still within seconds:
/// the daemon's own write waits for a page, the page for the loop device, and that for the daemon.
#[test]
#[ignore = "long: 300 MiB through a loop device with little memory"]
fn dirty_pages_of_a_loop_device_on_the_mount_are_written_while_memory_is_nearly_full() {
    if !may(SYS_RESOURCE) || !can_mount() {
        println!("skipped: this needs CAP_SYS_RESOURCE");
        return;
    }
    let Some(group) = MemoryGroup::new("dirty") else {
        println!("skipped: no memory cgroup can be made here");
        return;
    };
    let mut cluster = Cluster::with_volume(1);
    let (disk, from) = (cluster.mount(1, "v").join("disk"), pattern(&cluster));
    let file = disk.clone();
    within("making the file", move || File::create(file).and_then(|f| f.set_len(320 * MIB))).expect("a sparse file");
    let Some(device) = Loop::on(&disk) else {
        println!("skipped: no loop device can be made here");
        return;
    };
    let stands = AbortIfPanicking::of(&cluster.mount(1, "v"));
    let script = format!("exec dd if={} of={} bs=1M conv=fsync,notrunc", path(&from), device.0);
    run_in(&group, &script, &mut cluster);
    drop(stands);
    drop(device);
    all_is_there(&cluster, from, disk);
}

#[test]
fn a_daemon_without_file_descriptors_serves_its_mount_says_what_it_lacks_and_goes_on() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(1);
    cluster.start(1);
    cluster.create_volume("v");
    let open = |cluster: &Cluster| fs::read_dir(format!("/proc/{}/fd", cluster.pid(1))).expect("it runs").count();
    // A few more than it needs with one volume mounted.
    let limit = open(&cluster) + 12;
    assert_eq!(cluster.stop(1), 0);
    cluster.start_as(1, &after(&format!("ulimit -n {limit}")));
    until("the mount", || cluster.is_mounted(1));
    let take_all =
        || -> Vec<UnixStream> { (0..40).filter_map(|_| UnixStream::connect(cluster.socket(1)).ok()).collect() };
    let taken = take_all();
    until("the daemon's word", || cluster.log(1).contains("the API socket does not accept"));
    // Programs do not notice.
    let dir = cluster.mount(1, "v");
    let works = move || -> std::io::Result<()> {
        for n in 0..50 {
            let file = dir.join(format!("file-{n}"));
            fs::write(&file, "x")?;
            assert_eq!(fs::read_to_string(&file)?, "x");
        }
        fs::remove_file(dir.join("file-0"))
    };
    within("working on the mount", works).expect("without an error");
    drop(taken);
    until("the daemon answers", || cluster.ask(1, &["status", "--check"]).code == 0);
    assert_eq!(cluster.log(1).matches("does not accept").count(), 1, "it is said once");
    // A volume needs more of them than are left: refused with the reason, and tried again with success once there are.
    const LEFT: usize = 3;
    let idle: Vec<UnixStream> = (open(&cluster)..limit - LEFT)
        .map(|_| UnixStream::connect(cluster.socket(1)).expect("there is room"))
        .collect();
    until("they are taken", || open(&cluster) >= limit - LEFT);
    let disk = cluster.disk("w.img", 2 << 30);
    let made = cluster.ask(1, &["volume", "create", "w", "--disk", path(&disk), "--timing", "fast"]);
    assert_ne!(made.code, 0, "{made:?}");
    assert!(made.err.contains("Too many open files") || made.err.contains("os error 24"), "{made:?}");
    drop(idle);
    until("the mount still works", || cluster.ask(1, &["status"]).code == 0);
    assert!(cluster.is_mounted(1), "{}", cluster.log(1));
    cluster.checks_clean(1);
}

/// A file system in memory on a folder; goes with this value.
struct Small(PathBuf);

impl Small {
    fn on(dir: &Path, size: &str) -> Option<Small> {
        fs::create_dir_all(dir).expect("a folder");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir).status();
        mount.is_ok_and(|s| s.success()).then(|| Small(dir.to_owned()))
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("a file");
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_state_folder_refuses_what_must_be_remembered_and_volumes_go_on() {
    if !is_root() || !can_mount() {
        println!("skipped: only root may mount a tmpfs");
        return;
    }
    let mut cluster = Cluster::new(2);
    let Some(small) = Small::on(&cluster.node_dir(1).join("state"), "64k") else {
        println!("skipped: no tmpfs can be mounted here");
        return;
    };
    cluster.start(1);
    cluster.start(2);
    cluster.create_volume("v");
    until("the other mount", || cluster.is_mounted(2));
    small.fill();
    let (first, second) = (cluster.disk("w.img", 2 << 30), cluster.disk("x.img", 2 << 30));
    let full = cluster.ask(1, &["volume", "create", "w", "--disk", path(&first)]);
    full.expect(1, &["Nothing can be remembered below", "No space left", "Nothing was done"]);
    assert_eq!(fs::metadata(&first).map(|m| std::os::unix::fs::MetadataExt::blocks(&m)).ok(), Some(0), "not formatted");
    cluster.ask(1, &["node", "drain"]).expect(1, &["drained.toml cannot be changed", "No space left"]);
    // The office was not moved for nothing, and programs do not notice.
    assert_eq!(cluster.coordinator(2), 1);
    let dir = cluster.mount(1, "v");
    within("a write", move || fs::write(dir.join("file"), "x")).expect("volumes do not need the state folder");
    // A volume that another node makes is learnt once there is room.
    cluster.ask(2, &["volume", "create", "x", "--disk", path(&second), "--timing", "fast"]).expect(0, &[]);
    assert!(cluster.volume(1, "x").is_none());
    small.free();
    until("word of the other volume", || cluster.volume(1, "x").is_some_and(|v| v["mount"].is_string()));
    cluster.ask(1, &["volume", "create", "w", "--disk", path(&first), "--timing", "fast"]).expect(0, &[]);
    cluster.checks_clean(1);
    // A daemon that starts with a full folder says so and takes nothing for lost.
    small.fill();
    assert_eq!(cluster.stop(1), 0);
    cluster.start(1);
    until("all mounts", || {
        ["v", "w", "x"].iter().all(|n| cluster.volume(1, n).is_some_and(|v| v["mount"].is_string()))
    });
    assert_eq!(cluster.stop(1), 0);
}

/// Runs a command against a node meanwhile.
fn asking(cluster: &Cluster, args: &[&str]) -> Background<Ended> {
    let args: Vec<String> = ["--socket", &cluster.socket(1)].iter().chain(args).map(|&a| a.to_owned()).collect();
    background(move || run(&args.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// The disk of the state folder is another cluster's volume, whose daemon stands still. More commands wait for it than there are
/// control threads.
#[test]
fn a_state_folder_on_a_disk_that_hangs_holds_up_what_must_be_remembered_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let below = Cluster::with_volume(1);
    let mut cluster = Cluster::new(2);
    let folder = below.mount(1, "v").join("state");
    symlink(&folder, cluster.node_dir(1).join("state")).expect("a link");
    within("making the folder", move || fs::create_dir(folder)).expect("a folder");
    cluster.begin("default");
    let hung = Stopped::new(&below);
    let disks = ["w", "x", "y"].map(|name| cluster.disk(&format!("{name}.img"), 2 << 30));
    let create = |n: usize| asking(&cluster, &["volume", "create", ["w", "x", "y"][n], "--disk", path(&disks[n])]);
    let waiting = [create(0), create(1)];
    for _ in 0..20 {
        cluster.ask(1, &["status", "--check"]).expect(0, &[]);
        cluster.ask(2, &["status", "--check"]).expect(0, &[]);
        assert!(!cluster.events(1).is_empty());
    }
    let file = cluster.mount(1, "v").join("file");
    within("a write", move || fs::write(file, "x")).expect("volumes do not need the state folder");
    assert!(waiting.iter().all(|w| !w.is_done()), "nothing was remembered");
    drop(hung);
    for made in waiting {
        made.ended("the command that waited").expect(0, &[]);
    }
    // A daemon whose disk hangs is told to end: it gives its mounts back, and waits for nothing else.
    let hung = Stopped::new(&below);
    let waiting = create(2);
    cluster.ask(1, &["status"]).expect(0, &[]);
    cluster.signal(1, "TERM");
    until("the end of its mounts", || mounts_below(&cluster.node_dir(1)).is_empty());
    // The kernel may keep the thread until its write is answered.
    drop(hung);
    until("its end", || cluster.has_died(1));
    waiting.ended("the command");
    cluster.start(1);
    until("all mounts", || {
        ["v", "w", "x"].iter().all(|n| cluster.volume(1, n).is_some_and(|v| v["mount"].is_string()))
    });
}

/// A daemon that stands still for as long as this value is there.
struct Stopped(u32);

impl Stopped {
    fn new(cluster: &Cluster) -> Stopped {
        cluster.signal(1, "STOP");
        Stopped(cluster.pid(1))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-CONT", &self.0.to_string()]).status();
    }
}

/// Debian's libfaketime: what a process asks of the wall clock, and nothing else, is moved by what a file says.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

fn faketime() -> bool {
    if !Path::new(FAKETIME).exists() {
        let _ = Command::new("apt-get").args(["install", "-y", "-q", "libfaketime"]).output();
    }
    let there = Path::new(FAKETIME).exists();
    if !there {
        println!("skipped: libfaketime cannot be installed");
    }
    there
}

/// Only the daemons' clocks are stepped, not the machine's. Leases, timeouts and takeovers go by time that cannot be set.
#[test]
fn a_wall_clock_that_is_stepped_by_an_hour_moves_times_that_people_read_and_nothing_else() {
    if !can_mount() || !faketime() {
        return;
    }
    let mut cluster = Cluster::new(3);
    let step = cluster.dir.join("step");
    fs::write(&step, "+0\n").expect("writes");
    let wrapper = after(&format!(
        "export LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
         DONT_FAKE_MONOTONIC=1",
        step.display()
    ));
    // Node 3 keeps the machine's time: nodes need not agree.
    cluster.start_as(1, &wrapper);
    cluster.start_as(2, &wrapper);
    cluster.start(3);
    // A machine that stalls for a moment must not look like a clock.
    cluster.create_timed("v", "default");
    for n in 1..=3 {
        until("the mount", || cluster.is_mounted(n));
    }
    let before: Vec<usize> = (1..=3).map(|n| cluster.events(n).len()).collect();
    let stop = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (1..=3)
        .map(|n| {
            let (file, stop) = (cluster.mount(n, "v").join(format!("by-{n}")), Arc::clone(&stop));
            background(move || {
                let mut rounds = 0_u64;
                while stop.load(Ordering::Relaxed) == 0 {
                    fs::write(&file, rounds.to_string()).unwrap_or_else(|e| panic!("round {rounds}: {e}"));
                    let found = fs::read_to_string(&file).unwrap_or_else(|e| panic!("round {rounds}: {e}"));
                    assert_eq!(found, rounds.to_string());
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    let now = || {
        let at = cluster.ask(1, &["--json", "status"]).json()["at"].as_i64().expect("a time");
        let real = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
        (at - i64::try_from(real).expect("fits")) / 60_000
    };
    for (offset, minutes) in [("+3600", 59..=60), ("-3600", -60..=-59), ("+0", 0..=0)] {
        fs::write(&step, format!("{offset}\n")).expect("writes");
        until("the step", || minutes.contains(&now()));
        // Whatever went by that clock would have been due for an hour.
        std::thread::sleep(Duration::from_secs(5));
    }
    stop.store(1, Ordering::Relaxed);
    for worker in workers {
        assert!(worker.ended("a program") > 0);
    }
    for n in 1..=3 {
        let new = &cluster.events(n)[before[n - 1]..];
        assert!(new.is_empty(), "node {n}: {new:?}");
        assert_eq!(cluster.volume(n, "v").map(|v| v["epoch"].clone()), Some(1.into()), "nobody took over");
    }
    cluster.checks_clean(2);
}

/// Waits longer than the fixture does: much is done here on a machine that may be busy.
fn patiently<T: Send + 'static>(what: &'static str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let started = background(f);
    for _ in 0..60 {
        if started.is_done() {
            break;
        }
        std::thread::sleep(Duration::from_secs(5));
    }
    started.ended(what)
}

const FILES: usize = 10_000;
const WAITERS: usize = 1_000;
const WRITERS: usize = 256;

/// Of threads by the hundred.
type Threads = Vec<std::thread::JoinHandle<std::io::Result<()>>>;

fn thread(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> std::thread::JoinHandle<std::io::Result<()>> {
    std::thread::Builder::new().stack_size(128 << 10).spawn(work).expect("a thread")
}

fn all_end(what: &'static str, threads: Threads) {
    patiently(what, move || {
        for thread in threads {
            thread.join().expect("no panic").unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    });
}

fn open_many(dir: PathBuf) -> Vec<File> {
    let open = move |n: usize| -> std::io::Result<File> {
        let file = File::options().read(true).write(true).create_new(true).open(dir.join(format!("open-{n}")))?;
        file.write_all_at(&[b'o'; 16], 0)?;
        Ok(file)
    };
    patiently("opening", move || (0..FILES).map(open).collect::<Result<_, _>>()).expect("all are opened")
}

fn locked(file: std::io::Result<File>) -> std::io::Result<File> {
    let file = file?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Each has an open file of its own, and lets go at once.
fn wait_for_lock(lock: &Path, got: &Arc<AtomicUsize>) -> Threads {
    let wait = |_| {
        let (lock, got) = (lock.to_owned(), Arc::clone(got));
        thread(move || {
            locked(File::open(lock))?;
            got.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    };
    (0..WAITERS).map(wait).collect()
}

fn write_many(dir: &Path, n: usize) -> Threads {
    let write = |w: usize| {
        let file = dir.join(format!("writer-{n}-{w}"));
        thread(move || {
            let file = File::options().read(true).write(true).create_new(true).open(file)?;
            for round in 0..20_u64 {
                file.write_all_at(&[w as u8; 4096], round * 4096)?;
            }
            file.sync_all()?;
            let mut found = Vec::new();
            (&file).read_to_end(&mut found)?;
            assert!(found.len() == 20 * 4096 && found.iter().all(|b| *b == w as u8), "writer {w} on node {n}");
            Ok(())
        })
    };
    (0..WRITERS).map(write).collect()
}

#[test]
#[ignore = "long: 10 000 open files, 1 000 waiters for a lock, 256 writers on each of two nodes"]
fn ten_thousand_open_files_a_thousand_waiters_and_256_writers_a_node_outlive_the_coordinator() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(3);
    let files = open_many(cluster.mount(2, "v"));
    // The holder on node 3; all who wait on node 2.
    let lock = cluster.mount(3, "v").join("lock");
    let held = within("the lock", move || locked(File::create(lock))).expect("free");
    let got = Arc::new(AtomicUsize::new(0));
    let waiters = wait_for_lock(&cluster.mount(2, "v").join("lock"), &got);
    let writing: Threads = [2, 3].into_iter().flat_map(|n| write_many(&cluster.mount(n, "v"), n)).collect();
    cluster.kill(1);
    until("another coordinator", || [2, 3].contains(&cluster.coordinator(2)));
    all_end("the writers, over the takeover", writing);
    assert_eq!(got.load(Ordering::Relaxed), 0, "the lock was held all the time");
    within("letting go", move || drop(held));
    all_end("the waiters, each in its turn", waiters);
    assert_eq!(got.load(Ordering::Relaxed), WAITERS);
    patiently("the open files", move || {
        for (n, file) in files.iter().enumerate() {
            let mut found = [0; 16];
            file.read_exact_at(&mut found, 0).unwrap_or_else(|e| panic!("file {n} after the takeover: {e}"));
            assert_eq!(found, [b'o'; 16], "file {n}");
        }
    });
    let status = cluster.volume(2, "v").expect("it runs");
    assert_eq!(status["locks"], 0, "{status}");
    cluster.checks_clean(2);
}
