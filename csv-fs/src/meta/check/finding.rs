//! What a check finds: a closed list of kinds, a sentence each, and what would repair it without loss.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::InodeNo;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $code:literal;)*) => {
        /// What is wrong, in one word. Codes are stable; docs/semantics/csv-fs.md lists them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[doc = $doc])+ #[serde(rename = $code)] $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),*];

            /// Its code.
            pub const fn code(self) -> &'static str {
                match self { $(Kind::$kind => $code,)* }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Kind::$kind => concat!($($doc),+),)* }
            }
        }
    };
}

kinds! {
    /// A copy of the superblock is damaged.
    SuperblockCopy = "superblock-copy";
    /// No copy of the superblock can be used.
    Superblock = "superblock";
    /// The lease block is damaged.
    Lease = "lease";
    /// A node's slot is damaged.
    Slot = "slot";
    /// A session is ahead of its node's slot.
    SessionSlot = "session-slot";
    /// The database below the metadata store is damaged.
    Database = "database";
    /// The metadata do not say which checkpoint they are.
    Checkpoint = "checkpoint";
    /// A record of the redo log is damaged although later ones are whole.
    RedoGap = "redo-gap";
    /// A record of the redo log holds what no table takes.
    RedoRow = "redo-row";
    /// The redo log and the metadata that are served say different things.
    RedoView = "redo-view";
    /// The metadata lack their tree, or name another.
    Tree = "tree";
    /// Superblock and metadata disagree on where the metadata lie.
    MetaRange = "metadata-range";
    /// A count of the volume is wrong.
    Counter = "counter";
    /// The next inode number is in use, or none that can be.
    NextInode = "next-inode";
    /// An inode cannot be read.
    InodeRow = "inode-row";
    /// An inode holds what none can.
    InodeFields = "inode-fields";
    /// An inode counts other blocks than it has.
    BlockCount = "block-count";
    /// An extent is none.
    Extent = "extent";
    /// Two extents of a file overlap in the file.
    ExtentOverlap = "extent-overlap";
    /// Something that is no regular file has extents.
    ExtentOwner = "extent-owner";
    /// An extended attribute is none.
    Xattr = "xattr";
    /// An extended attribute belongs to nothing.
    XattrOwner = "xattr-owner";
    /// An access control list is none, or says something else than the mode.
    Acl = "acl";
    /// The list of orphans names what is none.
    Orphan = "orphan";
    /// An inode is an orphan and has a name.
    OrphanNamed = "orphan-named";
    /// A directory without a name has entries.
    OrphanNotEmpty = "orphan-not-empty";
    /// An inode has no name and is no orphan.
    Unreachable = "unreachable";
    /// A link count is wrong.
    LinkCount = "link-count";
    /// A directory says that it lies elsewhere than it does.
    Parent = "parent";
    /// A directory has more than one name.
    DirectoryNames = "directory-names";
    /// Directories lie in one another, and not below the root.
    Ring = "ring";
    /// Names lie in something that is no directory.
    NotADirectory = "not-a-directory";
    /// A name leads to nothing.
    EntryDangling = "entry-dangling";
    /// A name says another type than its inode.
    EntryType = "entry-type";
    /// A name is none.
    EntryName = "entry-name";
    /// A directory's listing and its names say different things.
    Listing = "listing";
    /// A directory's next place is one that was given out.
    NextCookie = "next-cookie";
    /// Blocks belong to nobody.
    BlockLost = "block-lost";
    /// Blocks are free and in use.
    FreeInUse = "free-in-use";
    /// Blocks are granted and in use.
    GrantInUse = "grant-in-use";
    /// Blocks of two files are the same, and not counted so.
    MappedTwice = "mapped-twice";
    /// A file has blocks of the format or of the metadata.
    MappedReserved = "mapped-reserved";
    /// Something lies beyond the volume.
    OutsideVolume = "outside-volume";
    /// A reference count is wrong.
    Refcount = "reference-count";
    /// A run of free blocks is not as it must be.
    FreeRun = "free-run";
    /// A group counts other free blocks than it has.
    GroupCount = "group-count";
    /// A session cannot be read.
    Session = "session";
    /// Space is granted to nobody.
    GrantOwner = "grant-owner";
    /// A stored answer is none.
    Answer = "answer";
    /// A stored answer belongs to nobody.
    AnswerOwner = "answer-owner";
}

/// What would repair something without loss. [`fmt::Display`] says what it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Repair {
    /// Damaged copies of the superblock are written anew from the newest good one.
    WriteSuperblocks,
    /// The first row of the table of trees.
    PutTree,
    /// A range of the superblock is entered in the table of metadata ranges.
    PutMetaRange {
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
    },
    /// A counter.
    SetCounter {
        /// Its name.
        name: &'static str,
        /// What it is to be.
        value: u64,
    },
    /// The free blocks of a group.
    SetGroup {
        /// The group.
        group: u32,
        /// What it is to be.
        free: u32,
    },
    /// The blocks of an inode.
    SetBlocks {
        /// The inode.
        ino: u64,
        /// What it is to be.
        blocks: u64,
    },
    /// The links of an inode.
    SetLinks {
        /// The inode.
        ino: u64,
        /// What it is to be.
        links: u32,
    },
    /// Where a directory lies.
    SetParent {
        /// The directory.
        dir: u64,
        /// In which.
        parent: u64,
    },
    /// The next place of a directory.
    SetNextCookie {
        /// The directory.
        dir: u64,
        /// What it is to be.
        cookie: u64,
    },
    /// A directory that has lost its inode, and has names.
    MakeDirectory {
        /// Its number.
        dir: u64,
    },
    /// Something without a name gets one in `lost+found`.
    Reconnect {
        /// The inode.
        ino: u64,
    },
    /// A row of the list of orphans goes.
    RemoveOrphan {
        /// The inode.
        ino: u64,
        /// The kind as stored.
        kind: u8,
    },
    /// A name goes.
    RemoveEntry {
        /// The directory.
        dir: u64,
        /// The name.
        name: Vec<u8>,
    },
    /// A name and its place in the listing are written anew.
    PutEntry {
        /// The directory.
        dir: u64,
        /// The name.
        name: Vec<u8>,
        /// The type that it is to say.
        kind: u32,
    },
    /// A place in a listing goes.
    RemoveCookie {
        /// The directory.
        dir: u64,
        /// The place.
        cookie: u64,
    },
    /// Extended attributes of what is not there go.
    RemoveXattrs {
        /// The inode that is not there.
        ino: u64,
    },
    /// Blocks become free.
    AddFree {
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
    },
    /// Blocks are not free any more.
    TakeFree {
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
    },
    /// A row of the free space goes.
    RemoveFreeRow {
        /// The group that it is filed under.
        group: u32,
        /// First block.
        start: u64,
    },
    /// Blocks are not granted to that client any more.
    TakeGrant {
        /// The node.
        node: u8,
        /// Its incarnation.
        life: u64,
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
    },
    /// A reference count; one for blocks that one file or none has, which is not stored.
    SetRefcount {
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
        /// What it is to be.
        count: u32,
    },
    /// A row of the sessions goes.
    RemoveSession {
        /// The node.
        node: u8,
        /// The incarnation.
        life: u64,
    },
    /// A stored answer goes.
    RemoveAnswer {
        /// The node.
        node: u8,
        /// The incarnation.
        life: u64,
        /// The slot table as stored.
        table: u8,
        /// The slot.
        slot: u8,
    },
}

impl Repair {
    /// Whether it only corrects a count of other rows. Such repairs come last: others change what is counted.
    pub(in crate::meta) fn is_count(&self) -> bool {
        matches!(self, Repair::SetCounter { name, .. } if *name != super::whole::NEXT_INODE)
            || matches!(self, Repair::SetGroup { .. })
    }
}

fn blocks(start: u64, len: u64) -> String {
    format!("blocks {start} to {}", start.saturating_add(len).saturating_sub(1))
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match self {
            Repair::WriteSuperblocks => {
                f.write_str("write the damaged copies of the superblock anew from the newest good one")
            }
            Repair::PutTree => f.write_str("enter tree 0 in the table of trees"),
            Repair::PutMetaRange { start, len } => write!(f, "enter {} as metadata range", blocks(*start, *len)),
            Repair::SetCounter { name, value } => write!(f, "set the count `{name}` to {value}"),
            Repair::SetGroup { group, free } => write!(f, "set the free blocks of group {group} to {free}"),
            Repair::SetBlocks { ino, blocks } => write!(f, "set the blocks of ino {ino} to {blocks}"),
            Repair::SetLinks { ino, links } => write!(f, "set the link count of ino {ino} to {links}"),
            Repair::SetParent { dir, parent } => write!(f, "set the parent of directory {dir} to {parent}"),
            Repair::SetNextCookie { dir, cookie } => write!(f, "set the next place of directory {dir} to {cookie}"),
            Repair::MakeDirectory { dir } => {
                write!(f, "make directory {dir} anew around its names, for the owner of the root alone")
            }
            Repair::Reconnect { ino } => write!(f, "give ino {ino} the name `#{ino}` in /lost+found"),
            Repair::RemoveOrphan { ino, .. } => write!(f, "take ino {ino} off the list of orphans"),
            Repair::RemoveEntry { dir, name: n } => {
                write!(f, "remove the name \"{}\", which leads to nothing, from directory {dir}", name(n))
            }
            Repair::PutEntry { dir, name: n, .. } => {
                write!(f, "write the name \"{}\" of directory {dir} and its place in the listing anew", name(n))
            }
            Repair::RemoveCookie { dir, cookie } => {
                write!(f, "remove place {cookie} from the listing of directory {dir}, which shows what is no name")
            }
            Repair::RemoveXattrs { ino } => {
                write!(f, "remove the extended attributes of ino {ino}, which is not there")
            }
            Repair::AddFree { start, len } => write!(f, "make {} free", blocks(*start, *len)),
            Repair::TakeFree { start, len } => write!(f, "take {} out of the free space", blocks(*start, *len)),
            Repair::RemoveFreeRow { start, .. } => {
                write!(f, "remove the run of free blocks at {start}; its blocks are filed anew by the next repair")
            }
            Repair::TakeGrant { node, life, start, len } => {
                write!(f, "take {} back that are granted to node {node} incarnation {life}", blocks(*start, *len))
            }
            Repair::SetRefcount { start, len, count: count @ 2.. } => write!(
                f,
                "set the reference count of {} to {count}: each file keeps them, and none can write there",
                blocks(*start, *len)
            ),
            Repair::SetRefcount { start, len, count } => {
                write!(f, "set the reference count of {} to {count}", blocks(*start, *len))
            }
            Repair::RemoveSession { node, life } => {
                write!(f, "end the session of node {node} incarnation {life}, which has it mounted no more")
            }
            Repair::RemoveAnswer { node, life, .. } => {
                write!(f, "remove an answer stored for node {node} incarnation {life}, which asks no more")
            }
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// In one word.
    pub kind: Kind,
    /// In a sentence without its full stop.
    pub what: String,
    /// What repairs it without loss, if anything does.
    pub repair: Option<Repair>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.kind.code(), self.what)
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong; the first [`Limits::findings`](super::Limits::findings).
    pub findings: Vec<Finding>,
    /// How many findings there are.
    pub count: u64,
    /// What is as a crash may leave it, and mended by the next opening.
    pub notes: Vec<String>,
    /// Inodes looked at.
    pub inodes: u64,
    /// Directory entries looked at.
    pub entries: u64,
    /// Extents looked at.
    pub extents: u64,
    /// Free blocks.
    pub free: u64,
    /// Blocks granted and not mapped.
    pub granted: u64,
    /// Mapped blocks, as often as files map them.
    pub mapped: u64,
    pub(super) limit: usize,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.count == 0
    }

    pub(in crate::meta) fn add(&mut self, kind: Kind, what: impl Into<String>, repair: impl Into<Option<Repair>>) {
        self.count += 1;
        // Whoever adds before the store is looked at has the default limit.
        let limit = if self.limit == 0 { super::Limits::DEFAULT.findings } else { self.limit };
        if self.findings.len() < limit {
            self.findings.push(Finding { kind, what: what.into(), repair: repair.into() });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} inodes, {} entries, {} extents; blocks: {} free, {} granted, {} mapped",
            self.inodes, self.entries, self.extents, self.free, self.granted, self.mapped
        )?;
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        match self.count {
            0 => f.write_str("nothing is wrong"),
            1 => f.write_str("1 thing is wrong"),
            n => write!(f, "{n} things are wrong"),
        }
    }
}

/// How an inode is named in sentences.
pub(super) fn ino(n: u64) -> String {
    if n == InodeNo::ROOT.0 { "ino 1 (the root)".to_owned() } else { format!("ino {n}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_sentences_whole() {
        let mut codes: Vec<&str> = Kind::ALL.iter().map(|k| k.code()).collect();
        codes.sort_unstable();
        assert!(codes.windows(2).all(|w| w[0] != w[1]), "{codes:?}");
        assert!(Kind::ALL.iter().all(|k| k.meaning().trim().ends_with('.')));
    }
}
