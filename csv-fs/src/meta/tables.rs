//! The tables of the store. Every key of the namespace begins with a tree id (0 in version 1), so that a snapshot can
//! later share what it does not change.
//!
//! A table open for writing notes every changed row for the redo log ([`Logged`]); there is no way around it, since the
//! table itself is only reachable for reading.
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

mod shape;

use std::borrow::Borrow;
use std::cell::RefCell;
use std::ops::Deref;

use redb::{
    AccessGuard, Key, ReadOnlyTable, ReadTransaction, ReadableTable, StorageError, Table, TableDefinition, Value,
    WriteTransaction,
};

use super::check::Exact;
use super::error::{Result, damaged};
use super::redo::{Row, Rows};
use crate::types::InodeNo;
use shape::Shape;

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

/// A row that look-ups read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Changed<'r> {
    /// Of an inode.
    Inode(InodeNo),
    /// Of a name in a directory.
    Name(InodeNo, &'r [u8]),
}

/// Which one a changed row is, if it is one of those.
pub(super) fn changed<'r>(row: &Row<'r>) -> Option<Changed<'r>> {
    match row.table {
        INODES => Some(Changed::Inode(InodeNo(InodeKey::from_bytes(row.key).1))),
        NAMES => {
            let (_, parent, name) = NameKey::from_bytes(row.key);
            Some(Changed::Name(InodeNo(parent), name))
        }
        _ => None,
    }
}

/// Numbers of tables below.
const INODES: u8 = 1;
const NAMES: u8 = 2;

/// The key of an inode.
pub(super) fn inode_key(ino: InodeNo) -> InodeKey {
    (TREE, ino.0)
}

/// A table open for writing, whose changes are noted.
pub(super) struct Logged<'t, K: Key + 'static, V: Value + 'static> {
    number: u8,
    table: Table<'t, K, V>,
    rows: &'t RefCell<Rows>,
}

impl<K: Key + Shape + 'static, V: Shape + 'static> Logged<'_, K, V> {
    /// As the database's own.
    pub(super) fn insert<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> std::result::Result<Option<AccessGuard<'_, V>>, StorageError> {
        let (k, v) = (K::as_bytes(key.borrow()), V::as_bytes(value.borrow()));
        self.rows.borrow_mut().push(Row { table: self.number, key: k.as_ref(), value: Some(v.as_ref()) });
        drop((k, v));
        self.table.insert(key, value)
    }

    /// As the database's own.
    pub(super) fn remove<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> std::result::Result<Option<AccessGuard<'_, V>>, StorageError> {
        let k = K::as_bytes(key.borrow());
        self.rows.borrow_mut().push(Row { table: self.number, key: k.as_ref(), value: None });
        drop(k);
        self.table.remove(key)
    }

    /// Changes a row as it was changed before.
    fn redo(&mut self, row: Row<'_>) -> Result<()> {
        if !K::fits(row.key) || !row.value.is_none_or(V::fits) {
            return Err(damaged("a row of the redo log is not as its table's rows are"));
        }
        match row.value {
            Some(value) => drop(self.insert(K::from_bytes(row.key), V::from_bytes(value))?),
            None => drop(self.remove(K::from_bytes(row.key))?),
        }
        Ok(())
    }
}

/// For reading only.
impl<'t, K: Key + 'static, V: Value + 'static> Deref for Logged<'t, K, V> {
    type Target = Table<'t, K, V>;

    fn deref(&self) -> &Table<'t, K, V> {
        &self.table
    }
}

/// A row's value as stored.
fn exact<K: Key + Shape + 'static, V: Value + 'static>(
    table: &impl ReadableTable<K, V>,
    key: &[u8],
) -> Result<Option<Vec<u8>>> {
    if !K::fits(key) {
        return Err(damaged("a row of the redo log is not as its table's rows are"));
    }
    let row = table.get(K::from_bytes(key))?;
    Ok(row.map(|value| V::as_bytes(&value.value()).as_ref().to_vec()))
}

macro_rules! tables {
    ($($number:literal $field:ident, $constant:ident: $key:ty => $value:ty;)*) => {
        $(const $constant: TableDefinition<'static, $key, $value> = TableDefinition::new(stringify!($field));)*

        /// Every table, open for writing.
        pub(super) struct Tables<'t> {
            $(pub(super) $field: Logged<'t, $key, $value>,)*
        }

        impl<'t> Tables<'t> {
            /// Opens all; makes those that are not there yet. Changes are noted in `rows`.
            pub(super) fn open(txn: &'t WriteTransaction, rows: &'t RefCell<Rows>) -> Result<Tables<'t>> {
                Ok(Tables { $($field: Logged { number: $number, table: txn.open_table($constant)?, rows },)* })
            }

            /// Changes a row as it was changed before.
            pub(super) fn redo(&mut self, row: Row<'_>) -> Result<()> {
                match row.table {
                    $($number => self.$field.redo(row),)*
                    _ => Err(damaged("the redo log names a table that is not known")),
                }
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

        impl Exact for ReadTables {
            fn exact(&self, table: u8, key: &[u8]) -> Result<Option<Vec<u8>>> {
                match table {
                    $($number => exact(&self.$field, key),)*
                    _ => Err(damaged("the redo log names a table that is not known")),
                }
            }
        }

        /// Uniform access for what only reads.
        pub trait Access {
            $(#[doc(hidden)] fn $field(&self) -> &impl ReadableTable<$key, $value>;)*
        }

        impl Access for Tables<'_> {
            $(fn $field(&self) -> &impl ReadableTable<$key, $value> { &*self.$field })*
        }

        impl Access for ReadTables {
            $(fn $field(&self) -> &impl ReadableTable<$key, $value> { &self.$field })*
        }
    };
}

// The numbers are the redo log's, see docs/formats/volume.md: never given to another table.
tables! {
    1 inode, INODE: InodeKey => &'static [u8];
    2 dirent, DIRENT: NameKey => (u64, u32, u64);
    3 cookie, COOKIE: CookieKey => (u64, u32, &'static [u8]);
    4 extent, EXTENT: ExtentKey => ExtentValue;
    5 refcount, REFCOUNT: u64 => (u32, u32);
    6 free, FREE: (u32, u64) => u32;
    7 group, GROUP: u32 => u32;
    8 grant, GRANT: GrantKey => u64;
    9 session, SESSION: SessionKey => &'static [u8];
    10 answer, ANSWER: AnswerKey => &'static [u8];
    11 orphan, ORPHAN: OrphanKey => u64;
    12 xattr, XATTR: NameKey => &'static [u8];
    13 metarange, METARANGE: u64 => u64;
    14 tree, TREES: u16 => (u16, u8);
    15 counter, COUNTER: &'static str => u64;
}
