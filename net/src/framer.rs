//! The resumable reader of frames. Pure: the shell reads from its socket into [`Framer::space`] and tells with
//! [`Framer::filled`] how much came; when a frame is whole, it is handed out.
//!
//! The space never reaches beyond the part (header, body or payload) that is being read, so no byte of a next
//! frame is ever swallowed, and a payload's bytes go from the socket's or TLS's buffer straight into the
//! aligned memory that a device will use.
//!
//! States: `Header -> Body -> Payload -> Header`, any of them `-> Broken` on a refused frame, for ever.
//! Memory: at most one body and one payload of the sizes the phase allows. Called by the handshake and by the
//! connection's reader.

use block::buf::AlignedBuf;
use bytes::{Bytes, BytesMut};

use crate::frame::{FrameError, HEADER_LEN, Header, Version, data_crc};
use crate::message::{Message, Payload};

/// Small bodies are cut from blocks of this size, so that one costs no allocation. A body that lives long keeps
/// its block alive; with [`crate::limits::MAX_CALLS`] of them that is 8 MiB at worst.
const BODY_BLOCK: usize = 16 << 10;

/// Bodies up to this length are cut from a block.
const SMALL_BODY: usize = 4 << 10;

/// A whole, checked frame.
#[derive(Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: Bytes,
    /// Its payload: `None` or `Aligned`.
    pub payload: Payload,
}

impl Frame {
    /// The application's view.
    pub fn into_message(self) -> Message {
        Message::new(self.header.opcode, self.header.epoch, self.body).with_payload(self.payload)
    }

    /// The body as a sentence for the log: one line, whatever the peer wrote.
    pub fn sentence(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

enum Stage {
    Header { bytes: [u8; HEADER_LEN], got: usize },
    Body { header: Header, bytes: BytesMut, got: usize },
    Payload { header: Header, body: Bytes, buf: AlignedBuf, got: usize },
    Broken,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER_LEN], got: 0 }
    }
}

/// The reader of one connection's frames. Starts in the HELLO phase, in which it lets only handshake frames
/// through.
#[derive(Default)]
pub struct Framer {
    block: BytesMut,
    stage: Stage,
    /// `None` while the ends have not accepted each other.
    agreed: Option<Version>,
}

impl Framer {
    /// Both ends have accepted: from the next frame on, everything but handshake frames, in this version.
    pub fn open(&mut self, version: Version) {
        self.agreed = Some(version);
    }

    /// Where the next bytes belong. Empty only after a frame was refused.
    pub fn space(&mut self) -> &mut [u8] {
        match &mut self.stage {
            Stage::Header { bytes, got } => &mut bytes[*got..],
            Stage::Body { bytes, got, .. } => &mut bytes[*got..],
            Stage::Payload { buf, got, .. } => &mut buf[*got..],
            Stage::Broken => &mut [],
        }
    }

    /// `n` bytes were put at the front of [`Framer::space`]. A frame, if that made one whole.
    pub fn filled(&mut self, n: usize) -> Result<Option<Frame>, FrameError> {
        match self.step(n) {
            Ok(frame) => Ok(frame),
            Err(e) => {
                self.stage = Stage::Broken;
                Err(e)
            }
        }
    }

    fn step(&mut self, n: usize) -> Result<Option<Frame>, FrameError> {
        let whole = match &mut self.stage {
            Stage::Header { bytes, got } => advance(got, n, bytes.len()),
            Stage::Body { bytes, got, .. } => advance(got, n, bytes.len()),
            Stage::Payload { buf, got, .. } => advance(got, n, buf.len()),
            Stage::Broken => return Err(FrameError::Broken),
        };
        if !whole {
            return Ok(None);
        }
        match std::mem::take(&mut self.stage) {
            Stage::Header { bytes, .. } => self.header_read(&bytes),
            Stage::Body { header, bytes, .. } => self.body_read(header, bytes.freeze()),
            Stage::Payload { header, body, buf, .. } => finish(header, body, Payload::Aligned(buf)).map(Some),
            Stage::Broken => Err(FrameError::Broken),
        }
    }

    fn header_read(&mut self, bytes: &[u8; HEADER_LEN]) -> Result<Option<Frame>, FrameError> {
        let header = Header::decode(bytes)?;
        if header.kind.is_handshake() != self.agreed.is_none() {
            return Err(FrameError::Unexpected(header.kind));
        }
        if header.version != self.agreed.unwrap_or(Version::V1) {
            return Err(FrameError::Version(header.version as u8));
        }
        if header.body_len == 0 {
            return self.body_read(header, Bytes::new());
        }
        let bytes = self.body_space(header.body_len as usize);
        self.stage = Stage::Body { header, bytes, got: 0 };
        Ok(None)
    }

    fn body_read(&mut self, header: Header, body: Bytes) -> Result<Option<Frame>, FrameError> {
        if header.payload_len == 0 {
            return finish(header, body, Payload::None).map(Some);
        }
        let buf = AlignedBuf::with_capacity(header.payload_len as usize);
        self.stage = Stage::Payload { header, body, buf, got: 0 };
        Ok(None)
    }

    fn body_space(&mut self, len: usize) -> BytesMut {
        if len > SMALL_BODY {
            return BytesMut::zeroed(len);
        }
        if self.block.capacity() < len {
            // Takes the old block again when nobody holds a piece of it any more.
            self.block.reserve(BODY_BLOCK);
        }
        self.block.resize(len, 0);
        self.block.split_to(len)
    }
}

/// Counts `n` more bytes of a part; true when it is whole. More than asked for is the shell's mistake and is
/// counted as whole.
fn advance(got: &mut usize, n: usize, of: usize) -> bool {
    *got = (*got + n).min(of);
    *got == of
}

fn finish(header: Header, body: Bytes, payload: Payload) -> Result<Frame, FrameError> {
    if data_crc(&body, payload.as_slice()) != header.data_crc {
        return Err(FrameError::DataCrc(header.kind));
    }
    Ok(Frame { header, body, payload })
}

#[cfg(test)]
mod tests;
