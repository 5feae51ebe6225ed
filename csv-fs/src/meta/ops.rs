//! The operations of one transaction. Each checks everything first and changes rows only after, so that one that fails
//! leaves the transaction as it was for the others.

mod attr;
mod clear;
mod grants;
mod init;
mod mapping;
mod names;
mod orphans;
mod rename;
mod sessions;
mod xattr;

use redb::ReadableTable;
use rustix::io::Errno;

use super::error::{Result, damaged};
use super::inode::Inode;
use super::reads::{Limits, Needs, Reads, Totals};
use super::tables::{Access, TREE, Tables, inode_key};
use crate::types::{InodeNo, Timestamp};

pub use init::Root;
pub use names::{Created, Gone, NewNode};
pub use orphans::Reaped;
pub use rename::Rename;

/// Inode numbers are taken from the store this many at a time; a crash skips the rest.
pub(super) const INO_BATCH: u64 = 1024;

/// The counter of what attributes and links hold.
pub(super) const VALUE_BYTES: &str = "value_bytes";

/// Inode numbers have 48 bits.
pub(super) const MAX_INO: u64 = (1 << 48) - 1;

/// The longest file: what `off_t` can say.
pub(super) const MAX_SIZE: u64 = i64::MAX as u64;

/// Counters of the volume; copied into each transaction and back when it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) free: u64,
    pub(super) granted: u64,
    pub(super) inodes: u64,
    /// Bytes of all names: an estimate of what the name tables need.
    pub(super) name_bytes: u64,
    /// Bytes of all extended attributes with their names, and of the targets of links.
    pub(super) value_bytes: u64,
    next_ino: u64,
    /// Numbers below this are the store's to hand out without writing.
    ino_limit: u64,
}

/// Operations inside a transaction; see the module.
pub struct Ops<'t> {
    pub(super) t: Tables<'t>,
    pub(super) s: &'t mut State,
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
}

impl State {
    pub(super) fn load(counters: &impl ReadableTable<&'static str, u64>) -> Result<State> {
        let get = |name| Ok::<u64, super::MetaError>(counters.get(name)?.map_or(0, |v| v.value()));
        let ino_limit = get("inodes_reserved")?;
        if ino_limit == 0 {
            return Err(damaged("the counters are missing"));
        }
        Ok(State {
            free: get("free")?,
            granted: get("granted")?,
            inodes: get("inodes")?,
            name_bytes: get("name_bytes")?,
            value_bytes: get(VALUE_BYTES)?,
            next_ino: ino_limit,
            ino_limit,
        })
    }

    pub(super) fn totals(&self, t: &impl Access, limits: &Limits) -> Result<Totals> {
        let (blocks, free, granted, inodes) = (limits.data_blocks, self.free, self.granted, self.inodes);
        let files_free = limits.files_free(self.needs(t)?, free + granted);
        Ok(Totals { blocks, free, granted, inodes, files_free })
    }

    fn needs(&self, t: &impl Access) -> Result<Needs> {
        Needs::of(t, self.name_bytes, self.value_bytes)
    }
}

impl Ops<'_> {
    /// The time of the operations.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Stores the counts that differ from `before`.
    pub(super) fn save_state(&mut self, before: &State) -> Result<()> {
        let s = &self.s;
        let rows = [
            ("free", before.free, s.free),
            ("granted", before.granted, s.granted),
            ("inodes", before.inodes, s.inodes),
            ("name_bytes", before.name_bytes, s.name_bytes),
            (VALUE_BYTES, before.value_bytes, s.value_bytes),
            ("inodes_reserved", before.ino_limit, s.ino_limit),
        ];
        for (name, _, value) in rows.into_iter().filter(|(_, before, value)| before != value) {
            self.t.counter.insert(name, value)?;
        }
        Ok(())
    }

    fn put_inode(&mut self, ino: InodeNo, inode: &Inode) -> Result<()> {
        self.t.inode.insert(inode_key(ino), inode.encode().as_slice())?;
        Ok(())
    }

    /// A number that was never used.
    fn new_ino(&mut self) -> Result<InodeNo> {
        if self.s.next_ino >= MAX_INO {
            return Err(Errno::NOSPC.into());
        }
        if self.s.next_ino == self.s.ino_limit {
            self.s.ino_limit += INO_BATCH;
        }
        let ino = InodeNo(self.s.next_ino);
        self.s.next_ino += 1;
        Ok(ino)
    }

    /// ENOSPC when the store itself could not grow and is nearly full: a failed growth would end the reign, and the next.
    fn check_room(&self) -> Result<()> {
        let full = !self.limits.can_grow() && self.s.needs(&self.t)?.fill(self.limits.file);
        if full { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    /// Counts what attributes and links hold. For a store that was made before this was counted.
    pub(super) fn count_values(&mut self) -> Result<()> {
        let mut bytes = 0;
        for row in self.t.xattr.iter()? {
            let (key, value) = row?;
            bytes += key.value().2.len() + value.value().len();
        }
        for row in self.t.inode.iter()? {
            bytes += Inode::decode(row?.1.value())?.target.len();
        }
        self.s.value_bytes = bytes as u64;
        self.t.counter.insert(VALUE_BYTES, self.s.value_bytes)?;
        Ok(())
    }

    fn has_orphan(&self, ino: InodeNo, kind: super::OrphanKind) -> Result<bool> {
        Ok(self.t.orphan.get((TREE, ino.0, kind.byte()))?.is_some())
    }
}

impl Reads for Ops<'_> {
    fn access(&self) -> &impl Access {
        &self.t
    }

    fn totals(&self) -> Result<Totals> {
        self.s.totals(&self.t, &self.limits)
    }
}
