//! A client of NBD, as small as it can be: one request at a time ("fixed newstyle", simple replies).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::fixture::PATIENCE;

/// Bytes of a block of the tests.
pub(crate) const BLOCK: u64 = 4096;

/// What a block holds after its write of this number.
pub(crate) fn pattern(block: u64, number: u64) -> Vec<u8> {
    let word = (block << 32 | number).to_le_bytes();
    word.repeat(BLOCK as usize / 8)
}

/// Fails unless blocks hold what was written to them last.
pub(crate) fn holds(client: &mut Client, written: &[(u64, u64)]) {
    for (block, number) in written {
        let found = client.read(*block).expect("a read");
        assert!(found == pattern(*block, *number), "block {block} does not hold write {number}: {:?}", &found[..8]);
    }
}

const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const OPTION: u64 = 0x4948_4156_454f_5054;
const EXPORT_NAME: u32 = 1;
const FUA: u16 = 1;
const NO_HOLE: u16 = 2;

pub(crate) struct Client {
    stream: UnixStream,
    handle: u64,
    size: u64,
}

impl Client {
    /// Connects to an export.
    pub(crate) fn connect(socket: &Path, export: &str) -> io::Result<Client> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        // Fixed newstyle, no zeroes.
        stream.write_all(&3_u32.to_be_bytes())?;
        let mut option = Vec::from(OPTION.to_be_bytes());
        option.extend(EXPORT_NAME.to_be_bytes());
        option.extend((export.len() as u32).to_be_bytes());
        option.extend(export.as_bytes());
        stream.write_all(&option)?;
        let mut size_and_flags = [0; 10];
        stream.read_exact(&mut size_and_flags)?;
        let size = size_and_flags.first_chunk().map_or(0, |s| u64::from_be_bytes(*s));
        Ok(Client { stream, handle: 0, size })
    }

    /// Bytes of the device, as it was told when it connected.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn request(&mut self, kind: u16, flags: u16, at: u64, len: u32, data: &[u8]) -> io::Result<()> {
        self.handle += 1;
        let mut bytes = Vec::from(REQUEST.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.handle.to_be_bytes());
        bytes.extend(at.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(data);
        self.stream.write_all(&bytes)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        let word = |n: usize| u32::from_be_bytes([reply[n], reply[n + 1], reply[n + 2], reply[n + 3]]);
        assert_eq!((word(0), &reply[8..]), (REPLY, &self.handle.to_be_bytes()[..]), "a foreign reply");
        if word(4) == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(word(4) as i32)) }
    }

    pub(crate) fn read(&mut self, block: u64) -> io::Result<Vec<u8>> {
        self.request(0, 0, block * BLOCK, BLOCK as u32, &[])?;
        let mut data = vec![0; BLOCK as usize];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    pub(crate) fn write(&mut self, block: u64, data: &[u8], fua: bool) -> io::Result<()> {
        self.request(1, if fua { FUA } else { 0 }, block * BLOCK, data.len() as u32, data)
    }

    /// Zeroes blocks; `free`: nothing need be allocated for them any more.
    pub(crate) fn zero(&mut self, block: u64, blocks: u32, free: bool) -> io::Result<()> {
        self.request(6, if free { 0 } else { NO_HOLE }, block * BLOCK, blocks * BLOCK as u32, &[])
    }

    pub(crate) fn trim(&mut self, block: u64, blocks: u32) -> io::Result<()> {
        self.request(4, 0, block * BLOCK, blocks * BLOCK as u32, &[])
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.request(3, 0, 0, 0, &[])
    }
}
