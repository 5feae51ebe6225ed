//! Numbers and headers of the protocol ("Values"; "Transmission"). Everything is big-endian.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `NBDMAGIC`, the first bytes of a server.
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, in the greeting and before every option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before every reply to an option.
pub const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before a request with an extended header.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Before a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Before a chunk of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Before a chunk with an extended header.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Handshake flags of both sides ("Handshake flags", "Client flags").
pub mod handshake_flags {
    /// Options other than EXPORT_NAME may be sent.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// No 124 zeroes behind the answer to EXPORT_NAME.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Transmission flags.
pub mod transmission_flags {
    /// Always there.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Changes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// FLUSH.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The flag FUA.
    pub const SEND_FUA: u16 = 1 << 3;
    /// TRIM.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// WRITE_ZEROES and the flag NO_HOLE.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The flag DF.
    pub const SEND_DF: u16 = 1 << 7;
    /// Flushes of one connection cover the others.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// CACHE.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// The flag FAST_ZERO.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
    /// BLOCK_STATUS with a payload.
    pub const BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;
}

/// Option types.
pub mod option {
    /// Choose an export; no errors can be answered.
    pub const EXPORT_NAME: u32 = 1;
    /// Give up.
    pub const ABORT: u32 = 2;
    /// Name the exports.
    pub const LIST: u32 = 3;
    /// Go on under TLS.
    pub const STARTTLS: u32 = 5;
    /// Tell about an export.
    pub const INFO: u32 = 6;
    /// Choose an export.
    pub const GO: u32 = 7;
    /// Replies in chunks.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Name the metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Choose metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Headers of 32 bytes with 64-bit lengths.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Option reply types.
pub mod reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// An export.
    pub const SERVER: u32 = 2;
    /// Something about an export.
    pub const INFO: u32 = 3;
    /// A metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// Not known here.
    pub const ERR_UNSUP: u32 = 0x8000_0001;
    /// Known, and not allowed.
    pub const ERR_POLICY: u32 = 0x8000_0002;
    /// Malformed, or at the wrong time.
    pub const ERR_INVALID: u32 = 0x8000_0003;
    /// TLS first.
    pub const ERR_TLS_REQD: u32 = 0x8000_0005;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = 0x8000_0006;
    /// Too large to be worked on.
    pub const ERR_TOO_BIG: u32 = 0x8000_0009;
    /// Extended headers were chosen already.
    pub const ERR_EXT_HEADER_REQD: u32 = 0x8000_000a;
}

/// Information types of INFO and GO.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The name as LIST tells it.
    pub const NAME: u16 = 1;
    /// For people.
    pub const DESCRIPTION: u16 = 2;
    /// Smallest block, preferred block, longest payload.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Request types.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write.
    pub const WRITE: u16 = 1;
    /// The client leaves.
    pub const DISC: u16 = 2;
    /// Make stable.
    pub const FLUSH: u16 = 3;
    /// Not needed any more.
    pub const TRIM: u16 = 4;
    /// Soon needed.
    pub const CACHE: u16 = 5;
    /// Zero.
    pub const WRITE_ZEROES: u16 = 6;
    /// Where data lie.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Command flags.
pub mod command_flags {
    /// Stable before the answer.
    pub const FUA: u16 = 1 << 0;
    /// Zeroed space stays allocated.
    pub const NO_HOLE: u16 = 1 << 1;
    /// One content chunk.
    pub const DF: u16 = 1 << 2;
    /// One extent.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Faster than writing, or not at all.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// The length is that of a payload.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Chunk flags and types of structured and extended replies.
pub mod chunk {
    /// The last chunk of a reply.
    pub const DONE: u16 = 1 << 0;
    /// Nothing but "done".
    pub const NONE: u16 = 0;
    /// An offset and data.
    pub const OFFSET_DATA: u16 = 1;
    /// Extents with 32-bit lengths.
    pub const BLOCK_STATUS: u16 = 5;
    /// Extents with 64-bit lengths.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// An error and a sentence.
    pub const ERROR: u16 = 0x8001;
}

/// Flags of an extent in `base:allocation`.
pub mod state {
    /// Not allocated.
    pub const HOLE: u32 = 1 << 0;
    /// Reads as zeroes.
    pub const ZERO: u32 = 1 << 1;
}

/// "Error values".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// The export takes no changes.
    Eperm = 1,
    /// The device failed.
    Eio = 5,
    /// A malformed request.
    Einval = 22,
    /// No space, or a change beyond the end.
    Enospc = 28,
    /// Too long.
    Eoverflow = 75,
    /// Not faster than writing.
    Enotsup = 95,
    /// The server is ending.
    Eshutdown = 108,
}

/// What the server says first.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct Greeting {
    /// [`NBD_MAGIC`].
    pub magic: U64,
    /// [`OPTION_MAGIC`].
    pub option_magic: U64,
    /// [`handshake_flags`].
    pub flags: U16,
}
const _: () = assert!(size_of::<Greeting>() == 18);

/// Before an option's data.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct OptionHeader {
    /// [`OPTION_MAGIC`].
    pub magic: U64,
    /// [`option`].
    pub option: U32,
    /// Bytes that follow.
    pub length: U32,
}
const _: () = assert!(size_of::<OptionHeader>() == 16);

/// Before the data of a reply to an option.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct OptionReply {
    /// [`REPLY_MAGIC`].
    pub magic: U64,
    /// As the client sent it.
    pub option: U32,
    /// [`reply`].
    pub kind: U32,
    /// Bytes that follow.
    pub length: U32,
}
const _: () = assert!(size_of::<OptionReply>() == 20);

/// The answer to EXPORT_NAME; 124 zeroes may follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct ExportAnswer {
    /// Bytes of the export.
    pub size: U64,
    /// [`transmission_flags`].
    pub flags: U16,
}
const _: () = assert!(size_of::<ExportAnswer>() == 10);

/// A client's own name for a request, given back as it came.
pub type Cookie = [u8; 8];

/// A request.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct CompactRequest {
    /// [`REQUEST_MAGIC`].
    pub magic: U32,
    /// [`command_flags`].
    pub flags: U16,
    /// [`command`].
    pub kind: U16,
    /// Given back.
    pub cookie: Cookie,
    /// From which byte on.
    pub offset: U64,
    /// How many bytes.
    pub length: U32,
}
const _: () = assert!(size_of::<CompactRequest>() == 28);

/// A request with an extended header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct ExtendedRequest {
    /// [`EXTENDED_REQUEST_MAGIC`].
    pub magic: U32,
    /// [`command_flags`].
    pub flags: U16,
    /// [`command`].
    pub kind: U16,
    /// Given back.
    pub cookie: Cookie,
    /// From which byte on.
    pub offset: U64,
    /// Of the payload, or of the effect.
    pub length: U64,
}
const _: () = assert!(size_of::<ExtendedRequest>() == 32);

/// A simple reply.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct SimpleReply {
    /// [`SIMPLE_REPLY_MAGIC`].
    pub magic: U32,
    /// 0 or an [`Errno`].
    pub error: U32,
    /// The request's.
    pub cookie: Cookie,
}
const _: () = assert!(size_of::<SimpleReply>() == 16);

/// A chunk of a structured reply.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct StructuredReply {
    /// [`STRUCTURED_REPLY_MAGIC`].
    pub magic: U32,
    /// [`chunk::DONE`].
    pub flags: U16,
    /// [`chunk`].
    pub kind: U16,
    /// The request's.
    pub cookie: Cookie,
    /// Bytes that follow.
    pub length: U32,
}
const _: () = assert!(size_of::<StructuredReply>() == 20);

/// A chunk with an extended header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct ExtendedReply {
    /// [`EXTENDED_REPLY_MAGIC`].
    pub magic: U32,
    /// [`chunk::DONE`].
    pub flags: U16,
    /// [`chunk`].
    pub kind: U16,
    /// The request's.
    pub cookie: Cookie,
    /// The request's.
    pub offset: U64,
    /// Bytes that follow.
    pub length: U64,
}
const _: () = assert!(size_of::<ExtendedReply>() == 32);

/// An extent with 32-bit fields.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct CompactExtent {
    /// Its bytes; never 0.
    pub length: U32,
    /// [`state`].
    pub flags: U32,
}
const _: () = assert!(size_of::<CompactExtent>() == 8);

/// An extent with 64-bit fields.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct ExtendedExtent {
    /// Its bytes; never 0.
    pub length: U64,
    /// [`state`].
    pub flags: U64,
}
const _: () = assert!(size_of::<ExtendedExtent>() == 16);
