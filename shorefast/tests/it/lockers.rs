//! Processes that take locks: perl has `fcntl` as the kernel does, and is part of every Debian.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use crate::fixture::{PATIENCE, until};

/// Reads a command a line, answers with a line: `ok`, `errno N`, or what stands in the way.
const SCRIPT: &str = r#"
use strict; $| = 1;
my %op = (get => 5, set => 6, wait => 7, ofdget => 36, ofd => 37, ofdwait => 38);
my %kind = (r => 0, w => 1, u => 2);
use Fcntl qw(O_RDWR);
# The flags come as a number: O_DIRECT is not the same on all machines.
sysopen(my $f, $ARGV[0], O_RDWR | $ARGV[1]) or exit 99;
sub said { print(($_[0] ? "ok" : "errno " . ($! + 0)) . "\n") }
sub lock { my ($op, $kind, $start, $len) = @_;
  my $l = pack('ssx4qqix4', $kind{$kind}, 0, $start, $len, 0);
  return (fcntl($f, $op{$op}, $l), $l) }
# A number is raised under a lock: in its place, or by a record more at the end, which is where nothing more is read.
my ($at, $last) = (0, '');
sub raise { my ($at_end) = @_;
  (lock('wait', 'w', 0, 1))[0] or return 0;
  for (my $record = ''; ; $at += 512) {
    sysseek($f, $at, 0);
    my $n = sysread($f, $record, 512) // return 0;
    $n == 512 ? ($last = $record) : last;
    $at_end or last }
  sysseek($f, $at, 0); (syswrite($f, sprintf('%-512d', $last + 1)) // 0) == 512 or return 0;
  return (lock('set', 'u', 0, 1))[0] }
print "open $$\n";
while (my $line = <STDIN>) {
  my ($what, $kind, $start, $len) = split ' ', $line;
  if ($what eq 'flock') { said(flock($f, $kind)) }
  elsif ($what eq 'close') { said(close($f)) }
  elsif ($what eq 'write') { said(defined syswrite($f, "x")) }
  elsif ($what eq 'block') { sysseek($f, $kind * 4096, 0); said((syswrite($f, chr($start) x 4096) // 0) == 4096) }
  elsif ($what eq 'raise') {
    my ($done, $good, $told) = (0, 1, '');
    # Until it is told something else.
    until (!$good || do { vec($told, fileno(STDIN), 1) = 1; select($told, undef, undef, 0) > 0 }) {
      $good = raise($kind eq 'end');
      if ($good) { $done++; print "$done\n" } }
    said($good) }
  elsif ($what eq 'stop') { }
  elsif ($what eq 'many') {
    my $all = 1;
    for (my $n = 0; $n < $len && $all; $n++) { ($all) = lock('set', $kind, $start + 2 * $n, 1) }
    said($all) }
  else {
    my ($done, $l) = lock($what, $kind, $start, $len);
    if ($done && $what =~ /get/) { my ($t, $w, $s, $n, $p) = unpack('ssx4qqi', $l); print "$t $s $n $p\n" }
    else { said($done) } }
}
"#;

/// `EAGAIN`.
pub(crate) const AGAIN: &str = "errno 11";
/// `EDEADLK`.
pub(crate) const DEADLK: &str = "errno 35";
/// `EIO`.
pub(crate) const IO: &str = "errno 5";

/// A process with one file open for reading and writing.
pub(crate) struct Locker {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    pub(crate) pid: u32,
}

impl Locker {
    /// Opens a file that is there.
    pub(crate) fn new(path: &Path) -> Locker {
        Locker::with(path, 0)
    }

    /// The same with flags besides.
    pub(crate) fn with(path: &Path, flags: u32) -> Locker {
        let flags = flags.to_string();
        let mut command = Command::new("perl");
        command.args(["-e", SCRIPT]).arg(path).arg(flags).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("perl runs");
        let out = child.stdout.take().expect("it is piped");
        let (tx, lines) = mpsc::channel();
        std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| tx.send(l)));
        let (input, pid) = (child.stdin.take(), child.id());
        let mut locker = Locker { child, input, lines, pid };
        assert_eq!(locker.answer("opening"), format!("open {pid}"));
        locker
    }

    /// Asks, and does not wait for the answer.
    pub(crate) fn begin(&mut self, what: &str) {
        let input = self.input.as_mut().expect("it has its input");
        writeln!(input, "{what}").expect("it listens");
    }

    /// What was answered.
    pub(crate) fn answer(&mut self, what: &str) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("process {}: `{what}` hangs", self.pid))
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, what: &str) -> String {
        self.begin(what);
        self.answer(what)
    }

    /// Asks for what must succeed.
    pub(crate) fn does(&mut self, what: &str) {
        assert_eq!(self.ask(what), "ok", "process {}: `{what}`", self.pid);
    }

    /// Whether it has not answered yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.answered().is_none()
    }

    /// The answer, if it is there.
    pub(crate) fn answered(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// All that it says up to the end of what it can say; it has been ended.
    pub(crate) fn last_words(&self) -> Vec<String> {
        std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok()).collect()
    }

    /// A signal that ends it, and its end.
    pub(crate) fn killed(&mut self, signal: &str) -> ExitStatus {
        Command::new("kill").args([signal, &self.pid.to_string()]).status().expect("kill runs");
        let mut ended = None;
        until(&format!("the end of process {} by {signal}", self.pid), || {
            ended = self.child.try_wait().expect("it is our child");
            ended.is_some()
        });
        ended.expect("it has ended")
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        // At the end of its input it closes its file and ends. One that hangs must not hang the test.
        drop(self.input.take());
        if matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let _ = self.child.kill();
            let _ = self.child.try_wait();
        }
    }
}
