//! A client of NBD, as small as it can be: one request at a time ("fixed newstyle", simple replies).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A request that takes longer has failed: a site that was killed answers nothing.
const PATIENCE: Duration = Duration::from_secs(20);
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const OPTION: u64 = 0x4948_4156_454f_5054;
const EXPORT_NAME: u32 = 1;

/// A connection to an export.
pub(super) struct Client {
    stream: UnixStream,
    handle: u64,
    /// Bytes of the device.
    pub(super) size: u64,
}

impl Client {
    pub(super) fn connect(socket: &Path, export: &str) -> io::Result<Client> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        let mut hello = Vec::new();
        // Fixed newstyle, no zeroes.
        hello.extend(3_u32.to_be_bytes());
        hello.extend(OPTION.to_be_bytes());
        hello.extend(EXPORT_NAME.to_be_bytes());
        hello.extend(u32::try_from(export.len()).unwrap_or(0).to_be_bytes());
        hello.extend(export.as_bytes());
        stream.write_all(&hello)?;
        let mut size_and_flags = [0; 10];
        stream.read_exact(&mut size_and_flags)?;
        let size = size_and_flags.first_chunk().map_or(0, |b| u64::from_be_bytes(*b));
        Ok(Client { stream, handle: 0, size })
    }

    fn request(&mut self, kind: u16, at: u64, len: usize, data: &[u8]) -> io::Result<()> {
        self.handle += 1;
        let mut bytes = Vec::with_capacity(28 + data.len());
        bytes.extend(REQUEST.to_be_bytes());
        bytes.extend(0_u16.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.handle.to_be_bytes());
        bytes.extend(at.to_be_bytes());
        bytes.extend(u32::try_from(len).map_err(io::Error::other)?.to_be_bytes());
        bytes.extend(data);
        self.stream.write_all(&bytes)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        let word = |n: usize| u32::from_be_bytes([reply[n], reply[n + 1], reply[n + 2], reply[n + 3]]);
        if word(0) != REPLY || reply[8..] != self.handle.to_be_bytes() {
            return Err(io::Error::other("a reply to something else"));
        }
        match word(4) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(5))),
        }
    }

    pub(super) fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.request(0, at, buf.len(), &[])?;
        self.stream.read_exact(buf)
    }

    pub(super) fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        self.request(1, at, data.len(), data)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.request(3, 0, 0, &[])
    }
}
