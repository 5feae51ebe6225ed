//! Requests: a header in, an order out.

use zerocopy::FromBytes;

use super::{Command, Order, Refusal, Request, STATUS_PAYLOAD, Tag, Transmission, Violation};
use crate::nbd::core::facts::Style;
use crate::nbd::core::handshake::options::ALLOCATION_ID;
use crate::nbd::core::wire::{
    CompactRequest, EXTENDED_REQUEST_MAGIC, Errno, ExtendedRequest, REQUEST_MAGIC, command, command_flags as flag,
};

/// A header of either form.
struct Header {
    flags: u16,
    kind: u16,
    tag: Tag,
    len: u64,
    /// Bytes that follow.
    payload: u64,
}

const MISALIGNED: Refusal = Refusal { errno: Errno::Einval, why: "offset and length must be of whole blocks" };
const BEYOND_READ: Refusal = Refusal { errno: Errno::Einval, why: "the range ends beyond the export" };
const BEYOND_WRITE: Refusal = Refusal { errno: Errno::Enospc, why: "the range ends beyond the export" };
const READ_ONLY: Refusal = Refusal { errno: Errno::Eperm, why: "the export is read-only" };
const FLAGS: Refusal = Refusal { errno: Errno::Einval, why: "a flag that this command does not have" };

fn invalid(why: &'static str) -> Refusal {
    Refusal { errno: Errno::Einval, why }
}

impl Transmission {
    /// Bytes of a request's header.
    pub fn header_len(&self) -> usize {
        match self.style {
            Style::Extended => size_of::<ExtendedRequest>(),
            Style::Simple | Style::Structured => size_of::<CompactRequest>(),
        }
    }

    /// What becomes of the request with this header; of `bytes` the first [`header_len`](Self::header_len) are looked at.
    ///
    /// # Errors
    /// What ends the connection; also if there are fewer bytes.
    pub fn request(&self, bytes: &[u8]) -> Result<Order, Violation> {
        let header = self.header(bytes)?;
        if header.payload > self.facts.max_payload().into() {
            return Err(Violation::Payload(header.payload));
        }
        if header.kind == command::DISC {
            return Ok(Order::Leave);
        }
        let tag = header.tag;
        Ok(match self.command(&header) {
            Ok(command) => Order::Do(Request { tag, command }),
            // Lossless: compared above.
            Err(refusal) => Order::Refuse { tag, refusal, skip: header.payload as u32 },
        })
    }

    fn header(&self, bytes: &[u8]) -> Result<Header, Violation> {
        if self.style == Style::Extended {
            let (request, _) = ExtendedRequest::ref_from_prefix(bytes).map_err(|_| Violation::Magic(0))?;
            if request.magic.get() != EXTENDED_REQUEST_MAGIC {
                return Err(Violation::Magic(request.magic.get()));
            }
            let (flags, len) = (request.flags.get(), request.length.get());
            let tag = Tag { cookie: request.cookie, offset: request.offset.get() };
            let kind = request.kind.get();
            let payload = if flags & flag::PAYLOAD_LEN != 0 || kind == command::WRITE { len } else { 0 };
            return Ok(Header { flags, kind, tag, len, payload });
        }
        let (request, _) = CompactRequest::ref_from_prefix(bytes).map_err(|_| Violation::Magic(0))?;
        if request.magic.get() != REQUEST_MAGIC {
            return Err(Violation::Magic(request.magic.get()));
        }
        let (kind, len) = (request.kind.get(), request.length.get().into());
        let tag = Tag { cookie: request.cookie, offset: request.offset.get() };
        let payload = if kind == command::WRITE { len } else { 0 };
        Ok(Header { flags: request.flags.get(), kind, tag, len, payload })
    }

    /// "Request types", each with the flags it has. FUA is allowed on all ("Command flags").
    fn command(&self, header: &Header) -> Result<Command, Refusal> {
        let extended = self.style == Style::Extended;
        let payload_flag = if extended { flag::PAYLOAD_LEN } else { 0 };
        let allowed = match header.kind {
            command::READ if self.style == Style::Simple => 0,
            command::READ => flag::DF,
            command::WRITE => payload_flag,
            command::FLUSH | command::TRIM | command::CACHE => 0,
            command::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
            command::BLOCK_STATUS => flag::REQ_ONE | payload_flag,
            _ => return Err(invalid("the command is not known here")),
        };
        if header.flags & !(allowed | flag::FUA) != 0 {
            return Err(FLAGS);
        }
        let fua = header.flags & flag::FUA != 0;
        match header.kind {
            command::READ => self.read(header),
            command::WRITE => self.write(header, fua),
            command::FLUSH if header.tag.offset == 0 && header.len == 0 => Ok(Command::Flush),
            command::FLUSH => Err(invalid("a flush has neither offset nor length")),
            command::TRIM => {
                self.changes(header, BEYOND_READ)?;
                Ok(if header.len == 0 { Command::Nothing } else { Command::Trim { len: header.len, fua } })
            }
            command::WRITE_ZEROES => self.zeroes(header, fua),
            command::CACHE => self.range(header, BEYOND_READ).map(|()| Command::Nothing),
            _ => self.block_status(header),
        }
    }

    fn read(&self, header: &Header) -> Result<Command, Refusal> {
        self.range(header, BEYOND_READ)?;
        match u32::try_from(header.len) {
            Ok(0) => Ok(Command::Nothing),
            Ok(len) if len <= self.facts.max_payload() => Ok(Command::Read { len }),
            _ if self.style == Style::Simple => Err(invalid("longer than the longest payload")),
            _ => Err(Refusal { errno: Errno::Eoverflow, why: "longer than the longest payload" }),
        }
    }

    fn write(&self, header: &Header, fua: bool) -> Result<Command, Refusal> {
        self.changes(header, BEYOND_WRITE)?;
        // Lossless: the payload was compared.
        Ok(if header.len == 0 { Command::Nothing } else { Command::Write { len: header.len as u32, fua } })
    }

    fn zeroes(&self, header: &Header, fua: bool) -> Result<Command, Refusal> {
        self.changes(header, BEYOND_WRITE)?;
        if header.len == 0 {
            return Ok(Command::Nothing);
        }
        let has = |flag| header.flags & flag != 0;
        Ok(Command::Zeroes { len: header.len, fua, may_free: !has(flag::NO_HOLE), fast: has(flag::FAST_ZERO) })
    }

    fn block_status(&self, header: &Header) -> Result<Command, Refusal> {
        if !self.status {
            return Err(invalid("no metadata context was chosen"));
        }
        let one = header.flags & flag::REQ_ONE != 0;
        if header.flags & flag::PAYLOAD_LEN == 0 {
            return self.status_of(header.tag.offset, header.len, one);
        }
        if header.payload == STATUS_PAYLOAD.into() {
            Ok(Command::StatusOf { one })
        } else {
            Err(invalid("a payload names one context, of those that were chosen"))
        }
    }

    /// The command behind [`Command::StatusOf`], now that its payload is there.
    ///
    /// # Errors
    /// Another context than the chosen one, or a range that BLOCK_STATUS cannot have.
    pub fn status_payload(&self, tag: Tag, one: bool, payload: &[u8]) -> Result<Command, Refusal> {
        let malformed = invalid("a payload names one context, of those that were chosen");
        let (len, rest) = payload.split_first_chunk::<8>().ok_or(malformed)?;
        if rest != ALLOCATION_ID.to_be_bytes() {
            return Err(malformed);
        }
        self.status_of(tag.offset, u64::from_be_bytes(*len), one)
    }

    fn status_of(&self, offset: u64, len: u64, one: bool) -> Result<Command, Refusal> {
        if len == 0 {
            return Err(invalid("the status of nothing"));
        }
        self.within(offset, len, BEYOND_READ)?;
        Ok(Command::Status { len, one })
    }

    /// A change, within the export.
    fn changes(&self, header: &Header, beyond: Refusal) -> Result<(), Refusal> {
        if self.facts.read_only {
            return Err(READ_ONLY);
        }
        self.range(header, beyond)
    }

    fn range(&self, header: &Header, beyond: Refusal) -> Result<(), Refusal> {
        self.within(header.tag.offset, header.len, beyond)
    }

    /// "Size constraints".
    fn within(&self, offset: u64, len: u64, beyond: Refusal) -> Result<(), Refusal> {
        if !self.facts.contains(offset, len) {
            return Err(beyond);
        }
        if self.facts.is_aligned(offset, len) { Ok(()) } else { Err(MISALIGNED) }
    }
}
