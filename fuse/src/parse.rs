//! Bytes of the kernel to a typed [`Operation`]. Pure.
//!
//! What it refuses: a message whose length field, fixed body, names or counts do not add up. Such a
//! message is a [`Malformed`], never a panic and never a guess; the channel answers it with EIO. Bytes
//! *behind* a complete body are ignored, because a newer kernel may append fields.
//!
//! Called by `channel` with the message where it was read; names and values are copied out, a WRITE's
//! payload is not: it comes separately, as the window of the buffer it was read into.

mod body;
mod file;
mod inode;
#[cfg(test)]
mod tests;

use crate::abi::{self, InHeader, opcode};
use crate::op::Operation;
use block::buf::AlignedBuf;
use body::Body;
use zerocopy::FromBytes;

/// Why a message of the kernel is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("shorter than a request header")]
    NoHeader,
    #[error("its length field does not match what was read")]
    Length,
    #[error("its extensions are longer than itself")]
    Extensions,
    #[error("its body is too short")]
    Body,
    #[error("a name is empty, unterminated or contains a slash")]
    Name,
    #[error("a count exceeds the bytes there are")]
    Count,
    #[error("an unknown kind of lock")]
    Lock,
    #[error("a time has a billion nanoseconds or more")]
    Time,
}

/// What INIT settled that changes how bodies are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dialect {
    /// SETXATTR has the long body (FUSE_SETXATTR_EXT).
    pub(crate) setxattr_ext: bool,
}

/// The header of a message that was read whole.
pub(crate) fn header(message: &[u8]) -> Result<InHeader, Malformed> {
    let (header, _) = InHeader::read_from_prefix(message).map_err(|_| Malformed::NoHeader)?;
    match usize::try_from(header.len) {
        Ok(len) if len == message.len() => Ok(header),
        _ => Err(Malformed::Length),
    }
}

/// The operation of a message other than WRITE. `message` starts with its header.
pub(crate) fn operation(header: &InHeader, message: &[u8], dialect: Dialect) -> Result<Operation, Malformed> {
    let extensions = usize::from(header.total_extlen) * 8;
    let body = message.get(size_of::<InHeader>()..).ok_or(Malformed::NoHeader)?;
    let end = body.len().checked_sub(extensions).ok_or(Malformed::Extensions)?;
    let mut body = Body::new(&body[..end]);
    match header.opcode {
        opcode::READ => file::read(&mut body),
        opcode::WRITE => Err(Malformed::Body),
        code => match inode::parse(code, &mut body, dialect)? {
            Some(op) => Ok(op),
            None => Ok(file::parse(code, &mut body)?.unwrap_or(Operation::Unknown { opcode: code })),
        },
    }
}

/// A WRITE: its fixed body, and its payload as a buffer of its own.
pub(crate) fn write(fixed: &[u8], data: AlignedBuf) -> Result<Operation, Malformed> {
    file::write(&mut Body::new(fixed), data)
}

/// True if the message is a WRITE whose payload can be split off.
pub(crate) fn is_write(header: &InHeader, len: usize) -> bool {
    header.opcode == opcode::WRITE && header.total_extlen == 0 && len >= abi::WRITE_PREFIX
}
