//! Opening a file as a device: direct I/O or not, and the geometry that follows.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, StatxFlags};
use rustix::io::Errno;

use crate::device::Geometry;
use crate::units::{BlockSize, ByteLen};

/// How to open a file as a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Refuse changes.
    pub read_only: bool,
    /// Of a block device: beside no other owner (O_EXCL). It is given free when the last request on it has ended.
    pub exclusive: bool,
    /// Whether to bypass the page cache.
    pub direct: Direct,
    /// A larger logical block than the file asks for, as a formatted volume remembers it.
    pub logical_block: Option<BlockSize>,
}

/// Whether to bypass the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// Where the file system can.
    #[default]
    Auto,
    /// Or not at all.
    Required,
    /// Never.
    Never,
}

/// Why a file cannot be a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel refused.
    #[error("{path}: cannot be opened as a disk: {source}")]
    Os {
        /// What was opened.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A directory, socket, terminal ...
    #[error("{path}: is neither a regular file nor a block device")]
    NotADisk {
        /// What was opened.
        path: PathBuf,
    },
    /// Direct I/O was required and there is none.
    #[error("{path}: its file system has no direct I/O")]
    NoDirectIo {
        /// What was opened.
        path: PathBuf,
    },
    /// Blocks above 4096 bytes, or an asked-for block smaller than the file's.
    #[error("{path}: needs blocks of {needed} bytes, which does not fit {limit}")]
    BlockSize {
        /// What was opened.
        path: PathBuf,
        /// What the file needs.
        needed: u32,
        /// What was possible.
        limit: BlockSize,
    },
}

pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) geometry: Geometry,
    pub(super) direct: bool,
}

/// Alignments that direct I/O on the file needs, in bytes.
struct DirectAlign {
    memory: u32,
    offset: u32,
}

pub(super) fn open(path: &Path, options: OpenOptions) -> Result<Opened, OpenError> {
    let os = |errno: Errno| OpenError::Os { path: path.to_path_buf(), source: errno.into() };
    let (mut fd, mut direct) = open_fd(path, options).map_err(os)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(os)?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
        return Err(OpenError::NotADisk { path: path.to_path_buf() });
    }
    let mut align = DirectAlign { memory: 1, offset: 512 };
    if direct {
        match direct_align(&fd).map_err(os)? {
            Some(needed) => align = needed,
            None => {
                fd = open_flags(path, options, OFlags::empty()).map_err(os)?;
                direct = false;
            }
        }
    }
    if !direct && options.direct == Direct::Required {
        return Err(OpenError::NoDirectIo { path: path.to_path_buf() });
    }
    let logical_block = logical_block(path, options, align.offset)?;
    let size = rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(os)?;
    let geometry = Geometry {
        logical_block,
        physical_block: BlockSize::B4096,
        len: ByteLen(size - size % logical_block.bytes()),
        memory_align: align.memory.max(1) as usize,
        read_only: options.read_only,
        discard: !options.read_only,
    };
    Ok(Opened { fd, geometry, direct })
}

/// The descriptor, and whether it has O_DIRECT.
fn open_fd(path: &Path, options: OpenOptions) -> Result<(OwnedFd, bool), Errno> {
    if options.direct == Direct::Never {
        return Ok((open_flags(path, options, OFlags::empty())?, false));
    }
    match open_flags(path, options, OFlags::DIRECT) {
        Ok(fd) => Ok((fd, true)),
        // What open(2) says where the file system has no O_DIRECT.
        Err(Errno::INVAL) => Ok((open_flags(path, options, OFlags::empty())?, false)),
        Err(errno) => Err(errno),
    }
}

fn open_flags(path: &Path, options: OpenOptions, more: OFlags) -> Result<OwnedFd, Errno> {
    let access = if options.read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let more = if options.exclusive { more | OFlags::EXCL } else { more };
    // NONBLOCK keeps an open of a FIFO from waiting; it means nothing for files and disks.
    rustix::fs::open(path, access | more | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK, Mode::empty())
}

/// What STATX_DIOALIGN says; `None` if direct I/O is not possible on this file. A file system that
/// took O_DIRECT and has no answer gets 4096, which every one accepts.
fn direct_align(fd: &OwnedFd) -> Result<Option<DirectAlign>, Errno> {
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Ok(Some(DirectAlign { memory: 4096, offset: 4096 }));
    }
    let align = DirectAlign { memory: stat.stx_dio_mem_align, offset: stat.stx_dio_offset_align };
    Ok((align.memory != 0 && align.offset != 0).then_some(align))
}

fn logical_block(path: &Path, options: OpenOptions, needed: u32) -> Result<BlockSize, OpenError> {
    let limit = options.logical_block.unwrap_or(BlockSize::B4096);
    let refused = || OpenError::BlockSize { path: path.to_path_buf(), needed, limit };
    let own = BlockSize::new(needed.max(512)).filter(|own| *own <= limit).ok_or_else(refused)?;
    Ok(options.logical_block.unwrap_or(own))
}
