//! The row of an inode.

use rustix::fs::FileType;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Result, damaged};
use crate::types::{Attr, BlockCount, FS_BLOCK, InodeNo, Timestamp};

/// The first cookie of a directory; 1 and 2 are `.` and `..`.
pub(super) const FIRST_COOKIE: u64 = 3;

/// The mask of the file type in a mode.
pub(super) const S_IFMT: u32 = 0o170_000;
/// Set user id on execution.
pub(super) const S_ISUID: u32 = 0o4000;
/// Set group id on execution; on a directory: entries inherit its group.
pub(super) const S_ISGID: u32 = 0o2000;
/// Group may execute.
pub(super) const S_IXGRP: u32 = 0o010;

/// Flag of an inode: made without a name, it may be given one.
pub(super) const LINKABLE: u32 = 1;

/// The file type bits of a mode.
pub(super) fn type_bits(kind: FileType) -> u32 {
    kind.as_raw_mode()
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTime {
    secs: I64,
    nanos: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawInode {
    mode: U32,
    nlink: U32,
    uid: U32,
    gid: U32,
    rdev: U32,
    flags: U32,
    project: U32,
    extent_hint: U32,
    size: U64,
    blocks: U64,
    parent: U64,
    next_cookie: U64,
    atime: RawTime,
    mtime: RawTime,
    ctime: RawTime,
    btime: RawTime,
    reserved: [u8; 16],
}

const RAW_LEN: usize = 128;
const _: () = assert!(size_of::<RawInode>() == RAW_LEN);

/// An inode as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) mode: u32,
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) flags: u32,
    pub(super) project: u32,
    pub(super) extent_hint: u32,
    pub(super) size: u64,
    pub(super) blocks: u64,
    /// Of a directory: the one it lies in (the root: itself).
    pub(super) parent: InodeNo,
    /// Of a directory: the cookie of its next new entry.
    pub(super) next_cookie: u64,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) btime: Timestamp,
    /// Of a symbolic link.
    pub(super) target: Vec<u8>,
}

impl Inode {
    /// A new inode, all of whose times are `now`.
    pub(super) fn new(mode: u32, uid: u32, gid: u32, now: Timestamp) -> Inode {
        Inode {
            mode,
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            flags: 0,
            project: 0,
            extent_hint: 0,
            size: 0,
            blocks: 0,
            parent: InodeNo(0),
            next_cookie: FIRST_COOKIE,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            target: Vec::new(),
        }
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    pub(super) fn is_regular(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    /// What `stat` shows. A directory is shown as one block long: its entries lie in the store.
    pub(super) fn attr(&self, ino: InodeNo) -> Attr {
        Attr {
            ino,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: if self.is_dir() { FS_BLOCK } else { self.size },
            blocks: BlockCount(self.blocks),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let raw = RawInode {
            mode: U32::new(self.mode),
            nlink: U32::new(self.nlink),
            uid: U32::new(self.uid),
            gid: U32::new(self.gid),
            rdev: U32::new(self.rdev),
            flags: U32::new(self.flags),
            project: U32::new(self.project),
            extent_hint: U32::new(self.extent_hint),
            size: U64::new(self.size),
            blocks: U64::new(self.blocks),
            parent: U64::new(self.parent.0),
            next_cookie: U64::new(self.next_cookie),
            atime: raw_time(self.atime),
            mtime: raw_time(self.mtime),
            ctime: raw_time(self.ctime),
            btime: raw_time(self.btime),
            reserved: [0; 16],
        };
        let mut bytes = Vec::with_capacity(RAW_LEN + self.target.len());
        bytes.extend_from_slice(raw.as_bytes());
        bytes.extend_from_slice(&self.target);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Inode> {
        let (raw, target) =
            RawInode::ref_from_prefix(bytes).map_err(|_| damaged("a row of table inode is cut short"))?;
        Ok(Inode {
            mode: raw.mode.get(),
            nlink: raw.nlink.get(),
            uid: raw.uid.get(),
            gid: raw.gid.get(),
            rdev: raw.rdev.get(),
            flags: raw.flags.get(),
            project: raw.project.get(),
            extent_hint: raw.extent_hint.get(),
            size: raw.size.get(),
            blocks: raw.blocks.get(),
            parent: InodeNo(raw.parent.get()),
            next_cookie: raw.next_cookie.get(),
            atime: time(raw.atime),
            mtime: time(raw.mtime),
            ctime: time(raw.ctime),
            btime: time(raw.btime),
            target: target.to_vec(),
        })
    }
}

fn raw_time(t: Timestamp) -> RawTime {
    RawTime { secs: I64::new(t.secs), nanos: U32::new(t.nanos) }
}

fn time(t: RawTime) -> Timestamp {
    Timestamp { secs: t.secs.get(), nanos: t.nanos.get() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_bytes_are_frozen() {
        let now = Timestamp { secs: -2, nanos: 999_999_999 };
        let inode =
            Inode { target: b"a/b".to_vec(), size: 3, parent: InodeNo(9), ..Inode::new(0o120_777, 1000, 100, now) };
        let bytes = inode.encode();
        assert_eq!(bytes.len(), RAW_LEN + 3);
        assert_eq!(&bytes[..8], &[0xff, 0xa1, 0, 0, 1, 0, 0, 0]);
        assert_eq!(&bytes[64..76], &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x9a, 0x3b]);
        assert_eq!(Inode::decode(&bytes).expect("whole"), inode);
        assert!(Inode::decode(&bytes[..RAW_LEN - 1]).is_err());
    }
}
