//! For how much of a socket a worker is woken: its low-water mark (SO_RCVLOWAT, socket(7)).

#![allow(unsafe_code)]
// Reason: neither the standard library nor rustix sets this option.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Wakes whoever waits for this socket once so many bytes are there, or it has ended or failed. At 1, which a new socket has,
/// the first byte does. A mark that is lowered to what is there already wakes at once; the kernel makes room for what it
/// waits for.
pub fn set_low_water(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let mark = libc::c_int::try_from(bytes.max(1)).unwrap_or(libc::c_int::MAX);
    let len = libc::socklen_t::try_from(size_of_val(&mark)).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call, and the kernel reads `len` bytes of `mark`, which are there.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const mark).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(stream: &TcpStream) -> bool {
        let mut watched = [PollFd::new(stream, PollFlags::IN)];
        poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap() == 1
    }

    #[test]
    fn who_waits_is_woken_at_the_mark_at_a_lower_one_and_at_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut writer, _) = listener.accept().unwrap();
        set_low_water(&reader, 100).unwrap();
        writer.write_all(&[0; 99]).unwrap();
        assert!(!is_readable(&reader), "one is missing");
        writer.write_all(&[0]).unwrap();
        assert!(is_readable(&reader));
        set_low_water(&reader, 101).unwrap();
        assert!(!is_readable(&reader));
        set_low_water(&reader, 0).unwrap();
        assert!(is_readable(&reader), "the first byte");
        set_low_water(&reader, 1 << 20).unwrap();
        drop(writer);
        assert!(is_readable(&reader), "the end");
    }
}
