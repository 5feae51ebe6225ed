//! Frozen bytes: each request as a kernel sends it, written field by field and not with the structs
//! that parse it, and what it means.

use super::*;
use crate::op::*;
use block::units::{ByteLen, ByteOffset};
use proptest::prelude::*;

/// Bytes of a message's fields, one after the other.
macro_rules! bytes {
    ($($value:expr),* $(,)?) => {{
        let mut out: Vec<u8> = Vec::new();
        $(out.extend_from_slice(Field::bytes(&$value).as_ref());)*
        out
    }};
}

trait Field {
    fn bytes(&self) -> Vec<u8>;
}
macro_rules! number_fields {
    ($($t:ty),*) => { $(impl Field for $t { fn bytes(&self) -> Vec<u8> { self.to_ne_bytes().to_vec() } })* };
}
number_fields!(u16, u32, u64);
impl<const N: usize> Field for &[u8; N] {
    fn bytes(&self) -> Vec<u8> {
        self.to_vec()
    }
}

fn message(opcode: u32, extlen: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(40 + body.len()).unwrap();
    let mut out = bytes!(len, opcode, 0x1234_u64, 7_u64, 1000_u32, 1001_u32, 4242_u32, extlen, 0_u16);
    assert_eq!(out.len(), 40);
    out.extend_from_slice(body);
    out
}

const EXT: Dialect = Dialect { setxattr_ext: true };

fn parsed(opcode: u32, body: &[u8]) -> Result<Operation, Malformed> {
    let message = message(opcode, 0, body);
    let header = header(&message)?;
    operation(&header, &message, EXT)
}

/// Compares by what is printed: `Operation` carries buffers and has no equality.
fn is(opcode: u32, body: &[u8], expected: &Operation) {
    assert_eq!(format!("{:?}", parsed(opcode, body).unwrap()), format!("{expected:?}"), "opcode {opcode}");
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn header_fields_are_where_the_kernel_puts_them() {
    let message = message(1, 0, b"a\0");
    let header = header(&message).unwrap();
    assert_eq!((header.len, header.opcode, header.unique, header.nodeid), (42, 1, 0x1234, 7));
    assert_eq!((header.uid, header.gid, header.pid), (1000, 1001, 4242));
}

#[test]
fn requests_on_names_and_inodes() {
    is(1, b"file\0", &Operation::Lookup { name: name("file") });
    is(2, &bytes!(3_u64), &Operation::Forget { nlookup: 3 });
    is(5, b"", &Operation::Readlink);
    is(6, b"link\0/some/where\0", &Operation::Symlink { name: name("link"), target: b"/some/where".to_vec() });
    let node = Mknod { name: name("n"), mode: 0o100_644, rdev: 259, umask: 0o22 };
    is(8, &bytes!(0o100_644_u32, 259_u32, 0o22_u32, 0_u32, b"n\0"), &Operation::Mknod(node));
    let dir = Mkdir { name: name("d"), mode: 0o755, umask: 0o22 };
    is(9, &bytes!(0o755_u32, 0o22_u32, b"d\0"), &Operation::Mkdir(dir));
    is(10, b"gone\0", &Operation::Unlink { name: name("gone") });
    is(11, b"dir\0", &Operation::Rmdir { name: name("dir") });
    let moved = |flags| Operation::Rename(Rename { name: name("a"), new_parent: 9, new_name: name("b"), flags });
    is(12, &bytes!(9_u64, b"a\0", b"b\0"), &moved(0));
    is(45, &bytes!(9_u64, 2_u32, 0_u32, b"a\0", b"b\0"), &moved(2));
    is(13, &bytes!(11_u64, b"hard\0"), &Operation::Link { inode: 11, name: name("hard") });
    is(17, b"", &Operation::Statfs);
    is(34, &bytes!(4_u32, 0_u32), &Operation::Access { mask: 4 });
    is(50, &bytes!(0_u64), &Operation::Syncfs);
    is(38, b"", &Operation::Destroy);
}

#[test]
fn batch_forget_counts_its_inodes() {
    let body = bytes!(2_u32, 0_u32, 5_u64, 1_u64, 6_u64, 40_u64);
    let forgets = vec![ForgetOne { nodeid: 5, nlookup: 1 }, ForgetOne { nodeid: 6, nlookup: 40 }];
    is(42, &body, &Operation::BatchForget { forgets });
    assert_eq!(parsed(42, &bytes!(3_u32, 0_u32, 5_u64, 1_u64, 6_u64, 40_u64)).unwrap_err(), Malformed::Count);
    assert_eq!(parsed(42, &bytes!(u32::MAX, 0_u32)).unwrap_err(), Malformed::Count);
}

#[test]
fn attributes_are_taken_only_where_their_bit_is_set() {
    is(3, &bytes!(0_u32, 0_u32, 77_u64), &Operation::Getattr { fh: None });
    is(3, &bytes!(1_u32, 0_u32, 77_u64), &Operation::Getattr { fh: Some(FileHandle(77)) });
    let statx = Statx { fh: Some(FileHandle(77)), flags: 0x2000, mask: 0xfff };
    is(52, &bytes!(1_u32, 0_u32, 77_u64, 0x2000_u32, 0xfff_u32), &Operation::Statx(statx));

    let body = |valid: u32| {
        bytes!(
            valid, 0_u32, 77_u64, 4096_u64, 5_u64, 100_u64, 200_u64, 300_u64, 1_u32, 2_u32, 3_u32, 0o640_u32, 0_u32,
            10_u32, 20_u32, 0_u32,
        )
    };
    is(4, &body(0), &Operation::Setattr(SetattrIn::default()));
    let at = |seconds, nanos| Time { seconds, nanos };
    let all = SetattrIn {
        fh: Some(FileHandle(77)),
        mode: Some(0o640),
        uid: Some(10),
        gid: Some(20),
        size: Some(ByteLen(4096)),
        atime: Some(SetTime::At(at(100, 1))),
        mtime: Some(SetTime::At(at(200, 2))),
        ctime: Some(at(300, 3)),
        lock_owner: Some(LockOwner(5)),
        kill_suidgid: true,
    };
    is(4, &body(0b1110_0111_1111), &Operation::Setattr(all));
    let now = SetattrIn { atime: Some(SetTime::Now), mtime: Some(SetTime::Now), ..SetattrIn::default() };
    is(4, &body(0b1_1011_0000), &Operation::Setattr(now));
}

#[test]
fn extended_attributes() {
    let set = |kill_sgid| {
        let value = b"val".to_vec();
        Operation::Setxattr(Setxattr { name: name("user.k"), value, flags: 1, kill_sgid })
    };
    is(21, &bytes!(3_u32, 1_u32, 1_u32, 0_u32, b"user.k\0", b"val"), &set(true));
    let short = message(21, 0, &bytes!(3_u32, 1_u32, b"user.k\0", b"val"));
    let op = operation(&header(&short).unwrap(), &short, Dialect::default()).unwrap();
    assert_eq!(format!("{op:?}"), format!("{:?}", set(false)));
    is(22, &bytes!(64_u32, 0_u32, b"user.k\0"), &Operation::Getxattr { name: name("user.k"), size: 64 });
    is(23, &bytes!(0_u32, 0_u32), &Operation::Listxattr { size: 0 });
    is(24, b"user.k\0", &Operation::Removexattr { name: name("user.k") });
    // A slash separates nothing in the name of an attribute.
    let slash = Name::of_attribute(b"user.a/b").expect("a name");
    is(22, &bytes!(64_u32, 0_u32, b"user.a/b\0"), &Operation::Getxattr { name: slash.clone(), size: 64 });
    is(24, b"user.a/b\0", &Operation::Removexattr { name: slash });
}

#[test]
fn opening_creating_and_closing() {
    is(14, &bytes!(2_u32, 1_u32), &Operation::Open { flags: 2, kill_suidgid: true });
    is(27, &bytes!(0o200_000_u32, 0_u32), &Operation::Opendir { flags: 0o200_000 });
    let create = Create { name: name("new"), flags: 0o102, mode: 0o100_600, umask: 0o77, kill_suidgid: false };
    let body = bytes!(0o102_u32, 0o100_600_u32, 0o77_u32, 0_u32, b"new\0");
    is(35, &body, &Operation::Create(create));
    let body = bytes!(0o2_u32, 0o100_600_u32, 0o77_u32, 0_u32, b"/\0");
    is(51, &body, &Operation::Tmpfile(Tmpfile { flags: 2, mode: 0o100_600, umask: 0o77 }));
    let release = |flock_owner, flush| Release { fh: FileHandle(77), flags: 2, flock_owner, flush };
    is(18, &bytes!(77_u64, 2_u32, 0_u32, 5_u64), &Operation::Release(release(None, false)));
    is(18, &bytes!(77_u64, 2_u32, 2_u32, 5_u64), &Operation::Release(release(Some(LockOwner(5)), false)));
    is(29, &bytes!(77_u64, 2_u32, 1_u32, 5_u64), &Operation::Releasedir(release(None, true)));
    let flush = Operation::Flush { fh: FileHandle(77), lock_owner: LockOwner(5) };
    is(25, &bytes!(77_u64, 0_u32, 0_u32, 5_u64), &flush);
}

#[test]
fn reading_and_directories() {
    let body = |read_flags: u32| bytes!(77_u64, 8192_u64, 4096_u32, read_flags, 5_u64, 0o40_002_u32, 0_u32);
    let read = |lock_owner| {
        let (fh, offset) = (FileHandle(77), ByteOffset(8192));
        Operation::Read(Read { fh, offset, size: 4096, flags: 0o40_002, lock_owner })
    };
    is(15, &body(0), &read(None));
    is(15, &body(2), &read(Some(LockOwner(5))));
    let dir = ReadDir { fh: FileHandle(77), cookie: 8192, size: 4096 };
    is(28, &body(0), &Operation::Readdir(dir.clone()));
    is(44, &body(0), &Operation::Readdirplus(dir));
}

#[test]
fn write_takes_its_payload_and_checks_its_size() {
    let fixed = |flags: u32| bytes!(77_u64, 8192_u64, 4_u32, flags, 5_u64, 2_u32, 0_u32);
    let Operation::Write(w) = write(&fixed(0b111), AlignedBuf::from_slice(b"data")).unwrap() else { panic!() };
    assert_eq!((w.fh, w.offset, &w.data[..], w.flags), (FileHandle(77), ByteOffset(8192), &b"data"[..], 2));
    assert_eq!(w.write_flags, WriteFlags { cache: true, kill_suidgid: true });
    assert_eq!(w.lock_owner, Some(LockOwner(5)));
    let Operation::Write(w) = write(&fixed(0), AlignedBuf::from_slice(b"data")).unwrap() else { panic!() };
    assert_eq!((w.write_flags, w.lock_owner), (WriteFlags::default(), None));
    assert_eq!(write(&fixed(0), AlignedBuf::from_slice(b"dat")).unwrap_err(), Malformed::Count);
    assert_eq!(write(b"short", AlignedBuf::from_slice(b"data")).unwrap_err(), Malformed::Body);
}

#[test]
fn making_durable_allocating_seeking_and_copying() {
    let (fh, datasync) = (FileHandle(77), true);
    is(20, &bytes!(77_u64, 1_u32, 0_u32), &Operation::Fsync { fh, datasync });
    is(30, &bytes!(77_u64, 0_u32, 0_u32), &Operation::Fsyncdir { fh, datasync: false });
    let allocate = Fallocate { fh, offset: ByteOffset(1), length: ByteLen(2), mode: 3 };
    is(43, &bytes!(77_u64, 1_u64, 2_u64, 3_u32, 0_u32), &Operation::Fallocate(allocate));
    let seek = |whence| Operation::Lseek(Lseek { fh, offset: ByteOffset(9), whence });
    is(46, &bytes!(77_u64, 9_u64, 3_u32, 0_u32), &seek(Whence::Data));
    is(46, &bytes!(77_u64, 9_u64, 4_u32, 0_u32), &seek(Whence::Hole));
    is(46, &bytes!(77_u64, 9_u64, 8_u32, 0_u32), &seek(Whence::Other(8)));
    let copy = CopyFileRange {
        fh_in: fh,
        offset_in: ByteOffset(1),
        nodeid_out: 8,
        fh_out: FileHandle(78),
        offset_out: ByteOffset(2),
        length: ByteLen(3),
        flags: 0,
    };
    for code in [47, 53] {
        let body = bytes!(77_u64, 1_u64, 8_u64, 78_u64, 2_u64, 3_u64, 0_u64);
        is(code, &body, &Operation::CopyFileRange(copy.clone()));
    }
    let ioctl = Ioctl { fh, flags: 16, cmd: 0x800c_581e, arg: 99, input: b"in".to_vec(), out_size: 12 };
    let body = bytes!(77_u64, 16_u32, 0x800c_581e_u32, 99_u64, 2_u32, 12_u32, b"in");
    is(39, &body, &Operation::Ioctl(ioctl));
}

#[test]
fn flock_is_told_from_fcntl() {
    let body = |kind: u32, flags: u32| bytes!(77_u64, 5_u64, 10_u64, 19_u64, kind, 4242_u32, flags, 0_u32);
    let lock = |kind, flock| LockRequest {
        fh: FileHandle(77),
        owner: LockOwner(5),
        lock: Lock { kind, start: 10, end: 19, pid: 4242 },
        flock,
    };
    is(31, &body(0, 0), &Operation::Getlk(lock(LockKind::Read, false)));
    is(32, &body(1, 0), &Operation::Setlk(lock(LockKind::Write, false)));
    is(32, &body(2, 1), &Operation::Setlk(lock(LockKind::Unlock, true)));
    is(33, &body(1, 1), &Operation::Setlkw(lock(LockKind::Write, true)));
    assert_eq!(parsed(32, &body(3, 0)).unwrap_err(), Malformed::Lock);
    is(36, &bytes!(0x1232_u64), &Operation::Interrupt { unique: 0x1232 });
    // Of a request that was sent again: it is the same request.
    is(36, &bytes!(0x8000_0000_0000_1232_u64), &Operation::Interrupt { unique: 0x1232 });
}

#[test]
fn unknown_codes_are_operations_and_appended_fields_are_ignored() {
    is(7, b"anything", &Operation::Unknown { opcode: 7 });
    is(4096, b"", &Operation::Unknown { opcode: 4096 });
    is(38, b"appended", &Operation::Destroy);
    is(2, &bytes!(3_u64, 0_u64), &Operation::Forget { nlookup: 3 });
}

#[test]
fn extensions_are_cut_off_and_checked() {
    let message = message(1, 1, b"file\0........");
    let header = header(&message).unwrap();
    let op = operation(&header, &message, EXT).unwrap();
    assert_eq!(format!("{op:?}"), format!("{:?}", Operation::Lookup { name: name("file") }));
    let longer = InHeader { total_extlen: 2, ..header };
    assert_eq!(operation(&longer, &message, EXT).unwrap_err(), Malformed::Extensions);
}

#[test]
fn bad_names_times_and_lengths_are_malformed() {
    for body in [&b"\0"[..], b"a/b\0", b"unterminated", b""] {
        assert_eq!(parsed(1, body).unwrap_err(), Malformed::Name);
    }
    assert_eq!(parsed(12, &bytes!(9_u64, b"only\0")).unwrap_err(), Malformed::Name);
    assert_eq!(parsed(21, &bytes!(9_u32, 0_u32, 0_u32, 0_u32, b"k\0", b"val")).unwrap_err(), Malformed::Count);
    let mut late = vec![0; 88];
    late[..4].copy_from_slice(&(1_u32 << 4).to_ne_bytes());
    late[56..60].copy_from_slice(&1_000_000_000_u32.to_ne_bytes());
    assert_eq!(parsed(4, &late).unwrap_err(), Malformed::Time);
    let whole = message(5, 0, b"");
    assert_eq!(header(&whole[..39]).unwrap_err(), Malformed::NoHeader);
    assert_eq!(header(&[&whole[..], b"x"].concat()).unwrap_err(), Malformed::Length);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_parser_panic(code in 0_u32..60, extlen in 0_u16..4, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let whole = message(code, extlen, &body);
        let header = header(&whole).unwrap();
        for setxattr_ext in [false, true] {
            let _ = operation(&header, &whole, Dialect { setxattr_ext });
        }
        let _ = write(&body, AlignedBuf::from_slice(&body));
        let _ = super::header(&body);
    }
}
