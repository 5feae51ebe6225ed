//! A hundred thousand locks on one file, through the kernel.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{Mounted, on_mount, wait_until, write};

/// Takes a writer's lock on every second byte, from one number to another, for each line.
const SCRIPT: &str = r#"
$| = 1;
open(my $f, '+<', $ARGV[0]) or exit 99;
while (my $line = <STDIN>) {
  my ($from, $to) = split ' ', $line;
  for my $n ($from .. $to - 1) { fcntl($f, 6, pack('ssx4qqix4', 1, 0, 2 * $n, 1, 0)) or die "lock $n: $!" }
  print "ok\n";
}
"#;

/// A process with the file open.
struct Locker(Child);

impl Locker {
    fn new(file: &Path) -> Locker {
        let mut command = Command::new("perl");
        command.args(["-e", SCRIPT]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        Locker(command.spawn().expect("perl runs"))
    }

    fn takes(&mut self, from: u64, to: u64) {
        writeln!(self.0.stdin.as_mut().expect("piped"), "{from} {to}").expect("it listens");
        let mut line = String::new();
        // One line is there for each that was asked for: nothing is read ahead and lost.
        BufReader::with_capacity(1, self.0.stdout.as_mut().expect("piped")).read_line(&mut line).expect("it answers");
        assert_eq!(line, "ok\n", "locks {from} to {to}");
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a lock costs the coordinator: calls, and looks at buckets and intervals. Counted, not timed.
async fn cost_of_locks(m: &Mounted, locker: &Arc<Mutex<Locker>>, from: u64, to: u64) -> (f64, f64) {
    let (looks, calls) = (m.cluster.lock_looks(), m.cluster.metrics().calls.get());
    takes(locker, from, to).await;
    let each = |n: u64| n as f64 / (to - from) as f64;
    (each(m.cluster.metrics().calls.get() - calls), each(m.cluster.lock_looks() - looks))
}

async fn takes(locker: &Arc<Mutex<Locker>>, from: u64, to: u64) {
    for start in (from..to).step_by(1000) {
        let (locker, end) = (Arc::clone(locker), to.min(start + 1000));
        on_mount(move || locker.lock().expect("no panic").takes(start, end)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d69_a_lock_beside_a_hundred_thousand_costs_what_one_beside_a_thousand_costs() {
    let Some(m) = Mounted::new().await else { return };
    write(m.path(0, "f"), vec![1; 100]).await;
    // On a node that is not the coordinator's first client, so that nothing is special about it.
    let path = m.path(1, "f");
    let locker = Arc::new(Mutex::new(on_mount(move || Locker::new(&path)).await));
    takes(&locker, 0, 1000).await;
    let few = cost_of_locks(&m, &locker, 1000, 2000).await;
    takes(&locker, 2000, 99_000).await;
    let many = cost_of_locks(&m, &locker, 99_000, 100_000).await;
    println!("calls and looks for each lock: {few:?} beside a thousand, {many:?} beside a hundred thousand");
    assert_eq!(m.cluster.locks().0, 100_000);
    assert!(few.1 >= 1.0, "looks are counted: {few:?}");
    assert!(many.0 < few.0 * 1.5 && many.1 < few.1 * 1.5, "{many:?} for each, beside a thousand it was {few:?}");
    on_mount(move || drop(locker)).await;
    wait_until("free", || m.cluster.locks() == (0, 0)).await;
}
