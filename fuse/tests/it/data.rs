//! Reading and writing.

use crate::harness::{Served, can_mount};
use crate::memfs::Seen;
use block::buf::AlignedBuf;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const MIB: usize = 1 << 20;

#[test]
fn direct_write_of_a_megabyte_is_one_aligned_request() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&["file"], 2);
    let path = served.path("file");
    let (written, read) = served.within(move || {
        let flags = OFlags::RDWR | OFlags::DIRECT;
        let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty()).unwrap());
        let mut data = AlignedBuf::zeroed(MIB);
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = (at * 7 % 251) as u8;
        }
        for n in 0..8 {
            file.write_all_at(&data, n * MIB as u64).unwrap();
        }
        let mut read = AlignedBuf::zeroed(MIB);
        file.read_exact_at(&mut read, 5 * MIB as u64).unwrap();
        (data, read)
    });
    assert!(written[..] == read[..]);
    let whole = |seen: &Seen| *seen == Seen::Write { len: MIB, aligned: true };
    assert_eq!(served.fs.seen(whole), 8);
    assert_eq!(served.fs.seen(|seen| matches!(seen, Seen::Write { .. })), 8);
    assert_eq!(served.fs.seen(|seen| *seen == Seen::Read { offset: 5 * MIB as u64, size: MIB as u32 }), 1);
}

#[test]
fn unaligned_and_buffered_data_is_read_back() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&[], 1);
    for name in ["new", "cached"] {
        let path = served.path(name);
        served.within(move || {
            let data: Vec<u8> = (0..300_001_u32).map(|n| (n % 253) as u8).collect();
            let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            file.write_all_at(&data, 3).unwrap();
            let mut read = vec![0; data.len()];
            file.read_exact_at(&mut read, 3).unwrap();
            assert!(read == data);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 300_004);
            file.set_len(5).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), [0, 0, 0, 0, 1]);
        });
    }
    assert_eq!(served.fs.seen(|seen| matches!(seen, Seen::Write { aligned: false, .. })), 0);
}

#[test]
fn dropped_reply_is_eio_for_the_caller() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&["forgotten"], 1);
    let path = served.path("forgotten");
    let error = served.within(move || std::fs::read(path).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn what_is_not_supported_is_asked_again_every_time() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&["file"], 1);
    let path = served.path("file");
    served.within(move || {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        for _ in 0..2 {
            let outcome = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 4096);
            assert_eq!(outcome, Err(Errno::OPNOTSUPP));
        }
        assert_eq!(rustix::fs::fgetxattr(&file, "user.x", &mut [0u8; 8][..]), Err(Errno::OPNOTSUPP));
        assert_eq!(rustix::fs::ioctl_getflags(&file), Err(Errno::NOTTY));
        // An operation this file system has never heard of: O_TMPFILE.
        let parent = path.parent().unwrap();
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        assert_eq!(rustix::fs::open(parent, flags, Mode::RUSR).unwrap_err(), Errno::OPNOTSUPP);
    });
    assert_eq!(served.fs.seen(|seen| *seen == Seen::Fallocate), 2, "ENOSYS would have been remembered");
}

#[test]
fn poll_says_that_a_file_is_ready() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&["file"], 1);
    let path = served.path("file");
    served.within(move || {
        use rustix::event::{PollFd, PollFlags, poll};
        let file = std::fs::File::open(path).unwrap();
        let mut fds = [PollFd::new(&file, PollFlags::IN | PollFlags::OUT)];
        assert_eq!(poll(&mut fds, None), Ok(1));
        assert_eq!(fds[0].revents(), PollFlags::IN | PollFlags::OUT);
    });
}

#[test]
fn statx_shows_the_birth_time() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&["file"], 1);
    let path = served.path("file");
    let born = served.within(move || std::fs::metadata(path).unwrap().created());
    if served.mount.negotiated().minor < 39 {
        // STATX came with Linux 6.6.
        assert_eq!(born.unwrap_err().kind(), ErrorKind::Unsupported);
        return;
    }
    assert_eq!(born.unwrap(), SystemTime::UNIX_EPOCH + Duration::new(86_400, 5));
    assert!(served.fs.seen(|seen| *seen == Seen::Statx) > 0);
}

#[test]
fn two_channels_serve_at_once_and_each_answers_its_own() {
    if !can_mount() {
        return;
    }
    // The file system answers a read of "pair" only while another one is being served too.
    let served = Served::new(&["pair"], 2);
    let path = served.path("pair");
    served.fs.set(103, &[7; 4096]);
    served.within(move || {
        let readers: Vec<_> =
            (0..2).map(|_| path.clone()).map(|path| std::thread::spawn(move || read(&path))).collect();
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert_eq!(served.fs.seen(|seen| matches!(seen, Seen::Read { .. })), 400);
}

/// Reads half a kilobyte two hundred times.
fn read(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    for _ in 0..200 {
        let mut data = [0; 512];
        file.read_exact_at(&mut data, 1024).unwrap();
        assert_eq!(data, [7; 512]);
    }
}
