//! Frozen bytes: each answer as the kernel reads it, written field by field. The device is a socket
//! that keeps messages apart, as /dev/fuse does.

use super::*;
use crate::attr::{FileKind, OpenFlags};
use crate::op::FileHandle;
use block::units::{ByteLen, ByteOffset};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Two ends: answers go into the device, their bytes come out of the other.
fn device() -> (Arc<Device>, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    (Arc::new(Device::from_fd(ours).unwrap()), theirs)
}

/// What is sent when `answer` uses the reply of a request with this code; `None` if nothing is.
fn sent<T>(opcode: u32, answer: impl FnOnce(Reply) -> T) -> Option<Vec<u8>> {
    let (device, other) = device();
    answer(Reply::new(Arc::clone(&device), 0x1234, opcode));
    let mut bytes = vec![0; 1 << 17];
    let outcome = rustix::io::read(&other, &mut bytes);
    let len = match outcome {
        Ok(len) => len,
        Err(Errno::AGAIN) => return None,
        Err(error) => panic!("{error}"),
    };
    bytes.truncate(len);
    assert_eq!(rustix::io::read(&other, &mut [0; 8]), Err(Errno::AGAIN), "more than one answer");
    Some(bytes)
}

/// The message in `u32` words, padded with zeroes: the form the expectations are written in.
fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|c| c.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))).collect()
}

/// Header words of a good answer of `len` bytes in all.
fn ok(len: u32, body: &[u32]) -> Vec<u32> {
    let mut out = vec![len, 0, 0x1234, 0];
    out.extend_from_slice(body);
    out
}

fn answers<T>(opcode: u32, expected: &[u32], answer: impl FnOnce(Reply) -> T) {
    let bytes = sent(opcode, answer).expect("an answer");
    assert_eq!(words(&bytes[..4])[0] as usize, bytes.len(), "the length field");
    assert_eq!(words(&bytes), expected, "opcode {opcode}");
}

fn errno<T>(opcode: u32, answer: impl FnOnce(Reply) -> T) -> i32 {
    let bytes = sent(opcode, answer).expect("an answer");
    assert_eq!(bytes.len(), 16);
    -i32::from_ne_bytes(bytes[4..8].try_into().unwrap())
}

fn attr() -> Attr {
    let time = |seconds, nanos| Time { seconds, nanos };
    Attr {
        ino: 7,
        size: ByteLen(0x1_0000_0002),
        blocks: 9,
        atime: time(100, 1),
        mtime: time(-1, 2),
        ctime: time(300, 3),
        kind: FileKind::Regular,
        perm: 0o4755,
        nlink: 2,
        uid: 1000,
        gid: 1001,
        rdev: 0x0810,
        blksize: 4096,
    }
}

const ATTR: [u32; 22] = [7, 0, 2, 1, 9, 0, 100, 0, !0, !0, 300, 0, 1, 2, 3, 0o104_755, 2, 1000, 1001, 0x0810, 4096, 0];

fn entry() -> Entry {
    let ttl = Duration::from_millis(1500);
    Entry { nodeid: 7, generation: 3, attr: attr(), entry_ttl: ttl, attr_ttl: Duration::from_secs(2) }
}

fn entry_words() -> Vec<u32> {
    [&[7, 0, 3, 0, 1, 0, 2, 0, 500_000_000, 0][..], &ATTR].concat()
}

#[test]
fn fixed_answers() {
    answers(10, &ok(16, &[]), |r| r.empty());
    answers(3, &ok(120, &[&[1, 0, 500_000_000, 0][..], &ATTR].concat()), |r| {
        r.attr(&attr(), Duration::from_millis(1500))
    });
    answers(1, &ok(144, &entry_words()), |r| r.entry(&entry()));
    let opened = Opened { fh: FileHandle(77), flags: OpenFlags::DIRECT_IO.and(OpenFlags::PARALLEL_DIRECT_WRITES) };
    answers(14, &ok(32, &[77, 0, 0b100_0001, 0]), |r| r.opened(opened));
    let created = [&entry_words()[..], &[77, 0, 0b100_0001, 0]].concat();
    answers(35, &ok(160, &created), |r| r.created(&entry(), opened));
    answers(16, &ok(24, &[4096, 0]), |r| r.written(4096));
    answers(46, &ok(24, &[5, 1]), |r| r.offset(ByteOffset(0x1_0000_0005)));
    answers(22, &ok(24, &[64, 0]), |r| r.xattr_size(64));
    answers(40, &ok(24, &[5, 0]), |r| r.polled(5));
    let lock = Lock { kind: LockKind::Write, start: 10, end: 19, pid: 42 };
    answers(31, &ok(40, &[10, 0, 19, 0, 1, 42]), |r| r.lock(&lock));
    let statfs = Statfs { blocks: 1, bfree: 2, bavail: 3, files: 4, ffree: 5, bsize: 6, namelen: 255, frsize: 7 };
    let expected = [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 255, 7, 0, 0, 0, 0, 0, 0, 0];
    answers(17, &ok(96, &expected), |r| r.statfs(&statfs));
}

#[test]
fn copied_has_the_form_the_request_asked_for() {
    answers(47, &ok(24, &[u32::MAX, 0]), |r| r.copied(0x1_0000_0005));
    answers(53, &ok(24, &[5, 1]), |r| r.copied(0x1_0000_0005));
}

#[test]
fn statx_has_a_birth_time_only_where_it_is_known() {
    let stat = |mask: u32, btime: [u32; 4]| {
        let head = [mask, 4096, 0, 0, 2, 1000, 1001, 0o104_755, 7, 0, 2, 1, 9, 0, 0, 0];
        let times = [&[100, 0, 1, 0][..], &btime, &[300, 0, 3, 0], &[!0, !0, 2, 0]].concat();
        [&[1, 0, 0, 0, 0, 0, 0, 0][..], &head, &times, &[8, 16, 0, 0], &[0; 28]].concat()
    };
    let second = Duration::from_secs(1);
    answers(52, &ok(304, &stat(0x7ff, [0; 4])), |r| r.statx(&attr(), None, second));
    let birth = Time { seconds: 50, nanos: 4 };
    answers(52, &ok(304, &stat(0xfff, [50, 0, 4, 0])), |r| r.statx(&attr(), Some(birth), second));
}

#[test]
fn data_in_one_piece_and_in_several() {
    answers(15, &ok(20, &words(b"data")), |r| r.data(b"data"));
    answers(15, &ok(16, &[]), |r| r.data(b""));
    answers(15, &ok(24, &words(b"datamore")), |r| r.data_vectored(&[b"da", b"tamo", b"", b"re"]));
    let parts = vec![&b"abcd"[..]; 1500];
    answers(15, &ok(6016, &words(&b"abcd".repeat(1500))), |r| r.data_vectored(&parts));
    answers(39, &ok(36, &[5, 0, 0, 0, u32::from_ne_bytes(*b"outp")]), |r| r.ioctl(5, b"outp"));
}

#[test]
fn directories_are_padded_and_bounded() {
    let mut plain = DirBuf::new(64);
    assert!(plain.push(7, 3, FileKind::Directory, b"d"));
    assert!(!plain.push(8, 4, FileKind::Regular, b"123456789"), "24 + 9 padded to 40 is one byte over 32 left");
    assert!(plain.push(8, 4, FileKind::Regular, b"12345678"));
    let name = [u32::from_ne_bytes(*b"1234"), u32::from_ne_bytes(*b"5678")];
    let expected = [&[7, 0, 3, 0, 1, 4, u32::from(b'd'), 0][..], &[8, 0, 4, 0, 8, 8], &name].concat();
    answers(28, &ok(80, &expected), |r| r.directory(&plain));

    let mut plus = DirBuf::new(4096);
    assert!(plus.is_empty());
    assert!(plus.push_plus_bare(1, 1, FileKind::Directory, b"."));
    assert!(plus.push_plus(&entry(), 3, b"f"));
    let bare = [&[0; 32][..], &[1, 0, 1, 0, 1, 4, u32::from(b'.'), 0]].concat();
    let full = [&entry_words()[..], &[7, 0, 3, 0, 1, 8, u32::from(b'f'), 0]].concat();
    answers(44, &ok(336, &[bare, full].concat()), |r| r.directory(&plus));
    answers(44, &ok(16, &[]), |r| r.directory(&DirBuf::new(100)));
}

#[test]
fn errors_are_ones_the_kernel_takes() {
    assert_eq!(errno(1, |r| r.error(libc::ENOENT)), libc::ENOENT);
    assert_eq!(errno(1, |r| r.negative(Duration::ZERO)), libc::ENOENT);
    for impossible in [0, -5, 512, i32::MIN, i32::MAX] {
        assert_eq!(errno(1, |r| r.error(impossible)), libc::EIO, "{impossible}");
    }
    let unknown = [&[0; 4][..], &[1, 0, 0, 0, 500_000_000, 0], &[0; 22]].concat();
    answers(1, &ok(144, &unknown), |r| r.negative(Duration::from_millis(1500)));
}

#[test]
fn enosys_never_leaves() {
    for opcode in (1..60).filter(|code| ![2, 36, 42].contains(code)) {
        let expected = if opcode == 39 { libc::ENOTTY } else { libc::EOPNOTSUPP };
        assert_eq!(errno(opcode, |r| r.error(libc::ENOSYS)), expected, "opcode {opcode}");
        assert_eq!(errno(opcode, |r| r.unsupported()), expected, "opcode {opcode}");
    }
}

#[test]
fn dropped_reply_answers_and_unknown_request_is_not_supported() {
    assert_eq!(errno(15, drop), libc::EIO);
    assert_eq!(errno(4095, drop), libc::EOPNOTSUPP);
    assert_eq!(errno(7, drop), libc::EOPNOTSUPP);
}

#[test]
fn forgets_and_interrupts_take_no_answer() {
    for opcode in [2, 36, 42] {
        assert_eq!(sent(opcode, drop), None);
        assert_eq!(sent(opcode, |r| r.empty()), None);
        assert_eq!(sent(opcode, |r| r.error(libc::ENOSYS)), None, "INTERRUPT would be switched off");
    }
}

#[test]
fn delivery_tells_a_taken_answer_from_a_refused_one() {
    let (device, other) = device();
    assert_eq!(Reply::new(Arc::clone(&device), 2, 1).empty(), Delivery::Delivered);
    drop(other);
    assert_eq!(Reply::new(device, 4, 1).empty(), Delivery::Refused);
}
