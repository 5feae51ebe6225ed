//! The resumable reader of PDUs. Pure: it is given bytes in pieces of any size and says what they are.
//!
//! For each PDU it hands out the header (whole, its digest checked), then its data in the pieces in which they came,
//! then the end. It keeps no data: whoever has asked for them says where they go. Data of which the place is known
//! may be received straight into it, past the framer's input: [`Framer::expects`] says how many bytes,
//! [`Framer::arrived`] tells the framer.
//!
//! ```text
//! Header -> Ahs -> HeaderDigest -> Data -> Trailer (padding, data digest) -> Header        any -> Broken
//! ```
//! A header that is damaged, foreign or announces more data than was declared makes the place of the next one
//! unknown: broken for ever, the connection ends. A wrong data digest breaks nothing: it is said at the end.
//! Memory: one header and at most 1020 bytes of additional segments.

use crate::digest::{Crc, DIGEST_LEN, Digests};
use crate::pdu::{BHS_LEN, Bhs, Opcode, padding};

/// The longest data segment of a PDU before the full feature phase (RFC 7143, 13.12): 8192, whatever was declared.
pub const LOGIN_SEGMENT: u32 = 8192;

/// Why a connection's bytes cannot be read any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// No target sends this. (A target is handed what it does not know, and rejects it: the lengths are where they always are.)
    #[error("a PDU of unknown opcode {0:#04x}")]
    Opcode(u8),
    /// It is of this end's own kind.
    #[error("a {0:?} from the wrong end")]
    WrongEnd(Opcode),
    /// More data than was declared.
    #[error("a {opcode:?} with {len} bytes of data; {max} is the most that was declared")]
    TooLong {
        /// The PDU.
        opcode: Opcode,
        /// What it announces.
        len: u32,
        /// What is allowed.
        max: u32,
    },
    /// The header is damaged.
    #[error("the header digest of a PDU is wrong: the place of the next one is unknown")]
    HeaderDigest,
    /// Bytes were given after one of the above.
    #[error("the connection was broken before")]
    Broken,
}

/// What the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// A whole header. Its data follow, if it announces any.
    Header(Bhs),
    /// The next piece of data.
    Data(&'a [u8]),
    /// The PDU is whole; `intact` is false if the data digest was wrong.
    End {
        /// Whether the data are as they were sent.
        intact: bool,
    },
}

/// Which end this is: what is read comes from the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Reads what targets send.
    Initiator,
    /// Reads what initiators send.
    Target,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Header,
    Ahs,
    HeaderDigest,
    Data { left: u32 },
    Trailer,
    Broken,
}

/// The reader of one connection. Begins without digests and with the segment length of a login.
#[derive(Debug)]
pub struct Framer {
    end: End,
    digests: Digests,
    longest: u32,
    stage: Stage,
    header: [u8; BHS_LEN],
    ahs: Vec<u8>,
    trailer: [u8; 3 + DIGEST_LEN],
    /// Bytes of the present part that have come.
    got: usize,
    crc: Crc,
}

impl Framer {
    /// A reader for one end.
    pub fn new(end: End) -> Framer {
        Framer {
            end,
            digests: Digests::default(),
            longest: LOGIN_SEGMENT,
            stage: Stage::Header,
            header: [0; BHS_LEN],
            ahs: Vec::new(),
            trailer: [0; 3 + DIGEST_LEN],
            got: 0,
            crc: Crc::default(),
        }
    }

    /// The full feature phase: from the next PDU on these digests, and data segments up to what was declared. To be
    /// called between two PDUs, when the last login response has been handed out.
    pub fn open(&mut self, digests: Digests, longest: u32) {
        self.digests = digests;
        self.longest = longest;
    }

    /// The additional header segments of the header that was handed out last.
    pub fn ahs(&self) -> &[u8] {
        &self.ahs
    }

    /// Bytes of data that are still to come for the header that was handed out last.
    pub fn expects(&self) -> usize {
        match self.stage {
            Stage::Data { left } => left as usize,
            _ => 0,
        }
    }

    /// Bytes besides the data that are still to come before the next PDU's data, if that has no additional segments. Never 0: a reader
    /// that takes no more of them than this leaves the next data to be received past the framer whole.
    pub fn before_data(&self) -> usize {
        let digest = |has: bool| if has { DIGEST_LEN } else { 0 };
        let header = BHS_LEN + digest(self.digests.header);
        match self.stage {
            Stage::Header | Stage::Broken => header - self.got,
            Stage::Ahs => self.ahs.len() - self.got + digest(self.digests.header),
            Stage::HeaderDigest => DIGEST_LEN - self.got,
            Stage::Data { .. } => self.trailer_len() + header,
            Stage::Trailer => self.trailer_len() - self.got + header,
        }
    }

    /// These bytes of data, at most [`Framer::expects`], were received past the framer.
    pub fn arrived(&mut self, bytes: &[u8]) {
        if let Stage::Data { left } = &mut self.stage {
            *left = left.saturating_sub(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            if self.digests.data {
                self.crc.update(bytes);
            }
            if *left == 0 {
                self.stage = Stage::Trailer;
            }
        }
    }

    /// The next item in `input`, which is moved on past what was used; none if it takes more bytes.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>, FrameError> {
        let item = self.step(input);
        if item.is_err() {
            self.stage = Stage::Broken;
        }
        item
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>, FrameError> {
        loop {
            match self.stage {
                Stage::Broken => return Err(FrameError::Broken),
                Stage::Header => {
                    if !fill(&mut self.header, &mut self.got, input) {
                        return Ok(None);
                    }
                    let bhs = self.admit()?;
                    self.ahs.resize(bhs.ahs_bytes(), 0);
                    self.stage = Stage::Ahs;
                }
                Stage::Ahs => {
                    if !fill(&mut self.ahs, &mut self.got, input) {
                        return Ok(None);
                    }
                    if !self.digests.header {
                        return Ok(Some(self.header_read()));
                    }
                    self.stage = Stage::HeaderDigest;
                }
                Stage::HeaderDigest => {
                    if !fill(&mut self.trailer[..DIGEST_LEN], &mut self.got, input) {
                        return Ok(None);
                    }
                    if self.trailer[..DIGEST_LEN] != crate::digest::of_header(&self.header, &self.ahs) {
                        return Err(FrameError::HeaderDigest);
                    }
                    return Ok(Some(self.header_read()));
                }
                Stage::Data { left } => {
                    let n = input.len().min(left as usize);
                    if n == 0 {
                        return Ok(None);
                    }
                    let (piece, rest) = input.split_at(n);
                    *input = rest;
                    self.arrived(piece);
                    return Ok(Some(Item::Data(piece)));
                }
                Stage::Trailer => return Ok(self.trailer_read(input)),
            }
        }
    }

    /// Checks what decides where the next header is.
    fn admit(&self) -> Result<Bhs, FrameError> {
        let bhs = Bhs::from_bytes(self.header);
        let of_an_initiator = bhs.opcode & 0x20 == 0;
        let Some(opcode) = bhs.kind() else {
            let known_length = bhs.data_segment() <= self.longest;
            let rejected = self.end == End::Target && of_an_initiator && known_length;
            return if rejected { Ok(bhs) } else { Err(FrameError::Opcode(bhs.opcode)) };
        };
        if opcode.is_from_target() != (self.end == End::Initiator) {
            return Err(FrameError::WrongEnd(opcode));
        }
        if bhs.data_segment() > self.longest {
            return Err(FrameError::TooLong { opcode, len: bhs.data_segment(), max: self.longest });
        }
        Ok(bhs)
    }

    fn header_read<'a>(&mut self) -> Item<'a> {
        let bhs = Bhs::from_bytes(self.header);
        self.crc = Crc::default();
        self.stage = match bhs.data_segment() {
            0 => Stage::Trailer,
            left => Stage::Data { left },
        };
        Item::Header(bhs)
    }

    /// Padding and data digest of the present PDU.
    fn trailer(&self) -> (usize, usize) {
        let data = Bhs::from_bytes(self.header).data_segment() as usize;
        (padding(data), if self.digests.data && data > 0 { DIGEST_LEN } else { 0 })
    }

    fn trailer_len(&self) -> usize {
        let (pad, digest) = self.trailer();
        pad + digest
    }

    fn trailer_read<'a>(&mut self, input: &mut &'a [u8]) -> Option<Item<'a>> {
        let (pad, digest) = self.trailer();
        if !fill(&mut self.trailer[..pad + digest], &mut self.got, input) {
            return None;
        }
        self.crc.update(&self.trailer[..pad]);
        let intact = digest == 0 || self.trailer[pad..pad + digest] == self.crc.wire();
        self.stage = Stage::Header;
        Some(Item::End { intact })
    }
}

/// Moves bytes from `input` behind the first `got` of `part`; true (and `got` is 0 again) when it is whole.
fn fill(part: &mut [u8], got: &mut usize, input: &mut &[u8]) -> bool {
    let n = input.len().min(part.len() - *got);
    part[*got..*got + n].copy_from_slice(&input[..n]);
    *input = &input[n..];
    *got += n;
    let whole = *got == part.len();
    if whole {
        *got = 0;
    }
    whole
}

#[cfg(test)]
mod tests;
