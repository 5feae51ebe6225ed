//! In the steady state nobody is asked: data goes straight to the disk under rights that are held.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;

use crate::fixture::{Cluster, can_mount, within};

const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();
const BLOCKS: u64 = 256;
const OPERATIONS: u64 = 10_000;
/// Set for the process that reads and writes: the file.
const ROLE: &str = "SHOREFAST_TEST_WRITER";
const TEST: &str = "silence::ten_thousand_reads_and_writes_in_place_send_the_coordinator_nothing_but_a_time_a_second";

fn direct(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(O_DIRECT)
        .open(path)
        .expect("opens")
}

/// Calls that a node made to the coordinator, and bytes that it moved straight to and from the disk.
fn counted(cluster: &Cluster, n: usize) -> (u64, u64) {
    let io = cluster.volume(n, "v").expect("it runs")["io"].clone();
    let number = |v: &serde_json::Value| v.as_u64().expect("a number");
    (number(&io["coordinator_calls"]), number(&io["direct"]["read_bytes"]) + number(&io["direct"]["written_bytes"]))
}

/// Does so many operations; how many seconds began meanwhile.
fn steady(file: &File, operation: impl Fn(&File, &mut AlignedBuf, u64)) -> u64 {
    let began = Instant::now();
    let mut buf = AlignedBuf::zeroed(4096);
    for i in 0..OPERATIONS {
        operation(file, &mut buf, i * 37 % BLOCKS * 4096);
    }
    began.elapsed().div_duration_f64(Duration::from_secs(1)).ceil() as u64
}

/// The process that has the file open: it does as it is told, line by line.
fn be_the_writer(path: &Path) {
    let file = direct(path);
    file.write_all_at(&AlignedBuf::zeroed((BLOCKS * 4096) as usize), 0).expect("writes");
    file.sync_all().expect("makes stable");
    file.write_all_at(&AlignedBuf::zeroed(4096), 0).expect("writes in place");
    println!("\ndone 0");
    for line in std::io::stdin().lines() {
        let seconds = match line.expect("a line").as_str() {
            "read" => steady(&file, |file, buf, at| file.read_exact_at(buf, at).expect("reads")),
            _ => steady(&file, |file, buf, at| file.write_all_at(buf, at).expect("writes")),
        };
        println!("\ndone {seconds}");
    }
}

/// That process. It starts no other: a program that is started by one of several threads inherits the open files of
/// all, and closes them, and each close tells the time of the last write.
struct Writer {
    child: Child,
    said: Arc<Mutex<Lines<BufReader<ChildStdout>>>>,
}

impl Writer {
    fn start(path: &Path) -> Writer {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", TEST, "--nocapture"])
            .env(ROLE, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts again");
        let said = Arc::new(Mutex::new(BufReader::new(child.stdout.take().expect("a pipe")).lines()));
        Writer { child, said }
    }

    /// How many seconds it took.
    fn done(&self) -> u64 {
        let said = Arc::clone(&self.said);
        within("the operations", move || {
            let mut lines = said.lock().expect("no other reader panicked");
            let done = lines.find_map(|line| line.expect("a line").strip_prefix("done ")?.parse().ok());
            done.expect("it did not end before")
        })
    }

    fn does(&mut self, what: &str) -> u64 {
        writeln!(self.child.stdin.as_mut().expect("a pipe"), "{what}").expect("it listens");
        self.done()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ten_thousand_reads_and_writes_in_place_send_the_coordinator_nothing_but_a_time_a_second() {
    if let Some(path) = std::env::var_os(ROLE) {
        return be_the_writer(Path::new(&path));
    }
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    let mut writer = Writer::start(&cluster.mount(2, "v").join("file"));
    writer.done();
    // After a second of rest the time of that write is told.
    std::thread::sleep(Duration::from_millis(2200));
    counted(&cluster, 2);
    // Asking for the status costs calls of its own (how full the volume is).
    let (first, second) = (counted(&cluster, 2), counted(&cluster, 2));
    let own = second.0 - first.0;
    assert!(own <= 1, "a status costs {own} calls");
    writer.does("read");
    let read = counted(&cluster, 2);
    assert_eq!(read.0 - second.0, own, "10 000 reads in place made calls");
    assert_eq!(read.1 - second.1, OPERATIONS * 4096, "not all went straight to the disk");
    let seconds = writer.does("write");
    let written = counted(&cluster, 2);
    let times = written.0 - read.0 - own;
    assert!(times <= seconds + 1, "10 000 writes in place made {times} calls within {seconds} s");
    assert_eq!(written.1 - read.1, OPERATIONS * 4096, "not all went straight to the disk");
}
