//! The tables of the store. Every key of the namespace begins with a tree id (0 in version 1), so that a snapshot can
//! later share what it does not change.
//!
//! | table | key | value |
//! |---|---|---|
//! | inode | tree, ino | fixed part, then the target of a symbolic link |
//! | dirent | tree, directory, name | ino, type, cookie |
//! | cookie | tree, directory, cookie | ino, type, name |
//! | extent | tree, ino, first file block | first disk block, length, flags |
//! | refcount | first disk block | length, count (only counts > 1) |
//! | free | group, first disk block | length |
//! | group | group | free blocks in it |
//! | grant | node, incarnation, first disk block | length |
//! | session | node, incarnation | state |
//! | answer | node, incarnation, slot table, slot | sequence number, answer |
//! | orphan | tree, ino, kind | first file block that goes |
//! | xattr | tree, ino, name | value |
//! | metarange | first disk block | length: every range of the metadata store |
//! | tree | tree | parent, sealed |
//! | counter | name | value |

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::error::Result;
use crate::types::InodeNo;

pub(super) type InodeKey = (u16, u64);
pub(super) type NameKey = (u16, u64, &'static [u8]);
pub(super) type CookieKey = (u16, u64, u64);
pub(super) type ExtentKey = (u16, u64, u64);
pub(super) type ExtentValue = (u64, u32, u8);
pub(super) type GrantKey = (u8, u64, u64);
pub(super) type SessionKey = (u8, u64);
pub(super) type AnswerKey = (u8, u64, u8, u8);
pub(super) type OrphanKey = (u16, u64, u8);

/// The only tree of version 1.
pub(super) const TREE: u16 = 0;

/// Flag of an extent: reserved space that reads as zeroes.
pub(super) const EXTENT_UNWRITTEN: u8 = 1;

/// The key of an inode.
pub(super) fn inode_key(ino: InodeNo) -> InodeKey {
    (TREE, ino.0)
}

macro_rules! tables {
    ($($field:ident, $constant:ident: $key:ty => $value:ty;)*) => {
        $(const $constant: TableDefinition<'static, $key, $value> = TableDefinition::new(stringify!($field));)*

        /// Every table, open for writing.
        pub(super) struct Tables<'t> {
            $(pub(super) $field: Table<'t, $key, $value>,)*
        }

        impl<'t> Tables<'t> {
            /// Opens all; makes those that are not there yet.
            pub(super) fn open(txn: &'t WriteTransaction) -> Result<Tables<'t>> {
                Ok(Tables { $($field: txn.open_table($constant)?,)* })
            }
        }

        /// Every table, open for reading one committed state.
        pub(super) struct ReadTables {
            $(pub(super) $field: ReadOnlyTable<$key, $value>,)*
        }

        impl ReadTables {
            /// Opens all.
            pub(super) fn open(txn: &ReadTransaction) -> Result<ReadTables> {
                Ok(ReadTables { $($field: txn.open_table($constant)?,)* })
            }
        }

        /// Uniform access for what only reads.
        pub trait Access {
            $(#[doc(hidden)] fn $field(&self) -> &impl ReadableTable<$key, $value>;)*
        }

        impl Access for Tables<'_> {
            $(fn $field(&self) -> &impl ReadableTable<$key, $value> { &self.$field })*
        }

        impl Access for ReadTables {
            $(fn $field(&self) -> &impl ReadableTable<$key, $value> { &self.$field })*
        }
    };
}

tables! {
    inode, INODE: InodeKey => &'static [u8];
    dirent, DIRENT: NameKey => (u64, u32, u64);
    cookie, COOKIE: CookieKey => (u64, u32, &'static [u8]);
    extent, EXTENT: ExtentKey => ExtentValue;
    refcount, REFCOUNT: u64 => (u32, u32);
    free, FREE: (u32, u64) => u32;
    group, GROUP: u32 => u32;
    grant, GRANT: GrantKey => u64;
    session, SESSION: SessionKey => &'static [u8];
    answer, ANSWER: AnswerKey => &'static [u8];
    orphan, ORPHAN: OrphanKey => u64;
    xattr, XATTR: NameKey => &'static [u8];
    metarange, METARANGE: u64 => u64;
    tree, TREES: u16 => (u16, u8);
    counter, COUNTER: &'static str => u64;
}
