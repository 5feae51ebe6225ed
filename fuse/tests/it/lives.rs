//! A mount through several lives of its server: each life is a process of its own, the test keeps what outlives it.
//!
//! The file system has one directory and three files: `data` lies in a file beside the mount, `slow` is never read to the
//! end in the first life, and who reads `deadly` kills the server.

use crate::harness::{Child, again, options, serve_channels, wait_until};
use crate::memfs::attr;
use fuse::{
    Attr, Entry, FileHandle, InheritError, Interrupts, Keeper, Keepsake, Kept, Mount, MountOptions, OpenFlags, Opened,
    Operation, Reply, Request, Resent,
};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::collections::BTreeMap;
use std::io::{BufRead, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const DATA: u64 = 2;
pub(crate) const SLOW: u64 = 3;
pub(crate) const DEADLY: u64 = 4;
const NAMES: [(&str, u64); 3] = [("data", DATA), ("slow", SLOW), ("deadly", DEADLY)];

/// What one life is told.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) mountpoint: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) life: u32,
    pub(crate) channels: usize,
    pub(crate) without_resend: bool,
    pub(crate) does: Does,
}

/// What a life does with what was kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    Serve,
    FailResent,
    Drop,
}

impl Orders {
    fn to_role(&self) -> String {
        let Orders { mountpoint, data, life, channels, without_resend, does } = self;
        format!("{}|{}|{life}|{channels}|{without_resend}|{does:?}", mountpoint.display(), data.display())
    }

    fn from_role(role: &str) -> Orders {
        let parts: Vec<_> = role.split('|').collect();
        Orders {
            mountpoint: parts[0].into(),
            data: parts[1].into(),
            life: parts[2].parse().unwrap(),
            channels: parts[3].parse().unwrap(),
            without_resend: parts[4].parse().unwrap(),
            does: match parts[5] {
                "Serve" => Does::Serve,
                "FailResent" => Does::FailResent,
                _ => Does::Drop,
            },
        }
    }
}

/// Sends descriptors to the test, each with its number; `u32::MAX` is the record.
#[derive(Debug)]
struct ToTest(OwnedFd);

const RECORD: u32 = u32::MAX;
const END: u32 = u32::MAX - 1;

impl Keeper for ToTest {
    fn keep(&self, what: Keepsake, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        let number = match what {
            Keepsake::Record => RECORD,
            Keepsake::Channel(number) => number.into(),
        };
        Ok(send(&self.0, number, Some(fd))?)
    }
}

fn send(to: &impl AsFd, number: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), rustix::io::Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(to, &[IoSlice::new(&number.to_ne_bytes())], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// The next message; `None` at the end.
fn receive(from: &impl AsFd, flags: RecvFlags) -> Result<Option<(u32, Option<OwnedFd>)>, rustix::io::Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut number = [0; 4];
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut number)], &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((got.bytes == 4).then_some((u32::from_ne_bytes(number), fd)))
}

/// The lives of one mount, as a test sees them. What outlives them is kept by a process of its own.
///
/// Not by the test's process: that has files of the mount open, and if it is killed the kernel closes those first, waits for an
/// answer to that (FLUSH), and never comes to the kept descriptors, without which the mount would be dead and the wait over.
pub(crate) struct Lives {
    pub(crate) orders: Orders,
    keeper: Child,
    answers: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    _folder: tempfile::TempDir,
}

/// What precedes an answer of the keeper, among what the test harness prints.
const SAYS: &str = "KEEPER ";

impl Lives {
    /// Begins the first life of a mount; `test` is the name of the test that asks, which [`be_a_child`] serves.
    pub(crate) fn begin(test: &'static str, channels: usize, without_resend: bool) -> Lives {
        let folder = tempfile::tempdir().unwrap();
        let (mountpoint, data) = (folder.path().join("mnt"), folder.path().join("data"));
        std::fs::create_dir(&mountpoint).unwrap();
        std::fs::write(&data, vec![0; 1 << 20]).unwrap();
        let orders = Orders { mountpoint, data, life: 0, channels, without_resend, does: Does::Serve };
        let mut keeper = again(test, &format!("keeper|{test}"));
        let mut keeper = Child(keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let answers = std::io::BufReader::new(keeper.0.stdout.take().unwrap()).lines();
        let mut lives = Lives { orders, keeper, answers, _folder: folder };
        lives.next();
        let there = lives.path("data");
        wait_until("the mount is there", || {
            let there = there.clone();
            crate::harness::within(move || there.exists(), || {})
        });
        lives
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.orders.mountpoint.join(name)
    }

    fn ask(&mut self, what: &str) -> i32 {
        writeln!(self.keeper.0.stdin.as_mut().unwrap(), "{what}").unwrap();
        let said = self.answers.by_ref().map(Result::unwrap).find_map(|line| {
            let at = line.find(SAYS)?;
            Some(line[at + SAYS.len()..].parse().unwrap())
        });
        said.expect("the keeper lives")
    }

    /// Begins the next life, which gets all that was kept.
    pub(crate) fn next(&mut self) {
        self.orders.life += 1;
        let role = self.orders.to_role();
        self.ask(&format!("next {role}"));
    }

    /// Ends this life with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.ask("kill");
    }

    /// Stops the server without ending it: what is asked now stays in the kernel's queue.
    pub(crate) fn freeze(&mut self) {
        self.ask("freeze");
    }

    /// Tells the life to leave in order.
    pub(crate) fn leave(&mut self) {
        assert_eq!(self.ask("leave"), 0);
    }

    /// Waits until this life has ended by itself; its exit code, -1 for a signal.
    pub(crate) fn ended(&mut self) -> i32 {
        self.ask("ended")
    }

    /// How many channels are kept.
    pub(crate) fn channels(&mut self) -> i32 {
        self.ask("channels")
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        // Without its input it ends, with its life; without all of them the connection ends, and whoever waits is let go.
        drop(self.keeper.0.stdin.take());
        let _ = self.keeper.0.wait();
        let _ = rustix::mount::unmount(&self.orders.mountpoint, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A child of a test: the keeper or a life.
pub(crate) fn be_a_child(role: &str) {
    match role.split_once('|') {
        Some(("keeper", test)) => Keeping { test: test.to_owned(), kept: BTreeMap::new(), life: None }.run(),
        _ => be_a_life(role),
    }
}

/// The keeper's process. It touches no path of the mount.
struct Keeping {
    test: String,
    kept: BTreeMap<u32, OwnedFd>,
    life: Option<(Child, OwnedFd)>,
}

impl Keeping {
    fn run(mut self) {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            let answer = match line.split_once(' ') {
                Some((_, role)) => self.next(role),
                None => self.does(&line),
            };
            println!("{SAYS}{answer}");
        }
        // A life that is dropped is killed.
        let _ = self.does("kill");
    }

    fn does(&mut self, what: &str) -> i32 {
        let life = self.life.as_ref();
        match what {
            "channels" => return i32::try_from(self.kept.len()).unwrap() - 1,
            "kill" => drop(life.map(|(child, _)| child.signal(rustix::process::Signal::KILL))),
            "leave" => drop(life.map(|(_, ours)| send(ours, END, None).unwrap())),
            "freeze" => {
                let (child, _) = life.unwrap();
                child.signal(rustix::process::Signal::STOP);
                wait_until("it stands still", || crate::harness::all_stopped(child.0.id()));
                return 0;
            }
            _ => {}
        }
        self.ended()
    }

    fn next(&mut self, role: &str) -> i32 {
        assert!(self.life.is_none(), "one at a time: a living one takes what is resent");
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        for (number, fd) in &self.kept {
            send(&ours, *number, Some(fd.as_fd())).unwrap();
        }
        send(&ours, END, None).unwrap();
        let child = again(&self.test, role).stdin(Stdio::from(theirs)).stdout(Stdio::null()).spawn().unwrap();
        self.life = Some((Child(child), ours));
        0
    }

    fn ended(&mut self) -> i32 {
        let Some((mut child, ours)) = self.life.take() else { return 0 };
        let code = child.wait().code().unwrap_or(-1);
        while let Ok(Some((number, fd))) = receive(&ours, RecvFlags::DONTWAIT) {
            drop(fd.map(|fd| self.kept.insert(number, fd)));
        }
        code
    }
}

/// What a life ends with if it does not take the mount over.
pub(crate) fn refused(error: &InheritError) -> i32 {
    match error {
        InheritError::CannotResend => 40,
        InheritError::Gone => 41,
        _ => 42,
    }
}

fn be_a_life(role: &str) {
    let orders = Orders::from_role(role);
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut kept = Kept::default();
    while let Some((number, Some(fd))) = receive(&socket, RecvFlags::empty()).unwrap() {
        match number {
            RECORD => kept.record = Some(fd),
            number => kept.channels.push((u16::try_from(number).unwrap(), fd)),
        }
    }
    let keeper = Arc::new(ToTest(socket.try_clone().unwrap()));
    let without = if orders.without_resend { vec![fuse::Feature::HasResend] } else { vec![] };
    let at = options(Path::new(&orders.mountpoint));
    let options = MountOptions { channels: orders.channels, without, keeper: Some(keeper), ..at };
    let (mount, channels) = if kept.record.is_none() {
        Mount::open(&options).expect("mount")
    } else {
        let inherited = Mount::inherit(kept, &options).unwrap_or_else(|e| std::process::exit(refused(&e)));
        let resent = match orders.does {
            Does::Serve => Resent::Served,
            Does::FailResent => Resent::Failed,
            Does::Drop => {
                drop(inherited);
                std::process::exit(0);
            }
        };
        inherited.resend(resent).expect("resend")
    };
    let fs = Arc::new(BackedFs::new(&orders));
    let (stop, _ended) = serve_channels(channels, move |request| fs.handle(request));
    // Until the test says so, or kills.
    let _ = receive(&socket, RecvFlags::empty());
    drop(stop);
    wait_until("everything is answered", || mount.unanswered() == 0);
    assert!(mount.leave().expect("left"));
    std::process::exit(0);
}

struct BackedFs {
    file: std::fs::File,
    life: u32,
    interrupts: Interrupts,
    never: parking_lot::Mutex<Vec<Reply>>,
}

impl BackedFs {
    fn new(orders: &Orders) -> BackedFs {
        let file = std::fs::File::options().read(true).write(true).open(&orders.data).unwrap();
        BackedFs { file, life: orders.life, interrupts: Interrupts::new(), never: parking_lot::Mutex::default() }
    }

    fn handle(&self, request: Request) {
        let Request { nodeid, op, reply, .. } = request;
        let _ = match op {
            Operation::Lookup { name } => match NAMES.iter().find(|(n, _)| *n == name.to_string()) {
                Some((_, ino)) => reply.entry(&self.entry(*ino)),
                None => reply.negative(Duration::ZERO),
            },
            Operation::Getattr { .. } | Operation::Setattr(_) => reply.attr(&self.attr(nodeid), Duration::ZERO),
            Operation::Statx(_) => reply.statx(&self.attr(nodeid), None, Duration::ZERO),
            Operation::Open { .. } => {
                let flags = OpenFlags::DIRECT_IO.and(OpenFlags::PARALLEL_DIRECT_WRITES);
                reply.opened(Opened { fh: FileHandle(nodeid), flags })
            }
            Operation::Read(_) if nodeid == DEADLY => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                unreachable!("this process is killed");
            }
            Operation::Read(_) if nodeid == SLOW && self.life == 1 => return self.never.lock().push(reply),
            Operation::Read(read) => {
                let mut bytes = vec![0; read.size as usize];
                let n = self.file.read_at(&mut bytes, read.offset.0).unwrap();
                reply.data(&bytes[..n])
            }
            Operation::Write(write) => {
                self.file.write_all_at(&write.data, write.offset.0).unwrap();
                reply.written(u32::try_from(write.data.len()).unwrap())
            }
            Operation::Setlkw(_) => {
                let mut watch = self.interrupts.watch(reply.unique());
                tokio::task::spawn_local(async move {
                    watch.interrupted().await;
                    let _ = reply.error(libc::EINTR);
                });
                return;
            }
            Operation::Interrupt { unique } => {
                self.interrupts.interrupt(unique);
                return;
            }
            Operation::Getxattr { .. } => reply.error(libc::ENODATA),
            Operation::Flush { .. } | Operation::Release(_) | Operation::Fsync { .. } | Operation::Setlk(_) => {
                reply.empty()
            }
            _ => reply.unsupported(),
        };
    }

    fn entry(&self, ino: u64) -> Entry {
        Entry { nodeid: ino, generation: 0, attr: self.attr(ino), entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO }
    }

    fn attr(&self, ino: u64) -> Attr {
        let directory = ino == 1;
        attr(ino, directory, if directory { 0 } else { 1 << 20 })
    }
}
