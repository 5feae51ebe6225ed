//! The table of optional kernel features.
//!
//! One row per feature: how it is probed (a bit of INIT's flags), whether a mount asks for it, what
//! happens without it, and what is lost then. `status` prints the rows a kernel does not have, and a
//! feature marked as needed refuses the mount: going on without it would be silently wrong.
//!
//! Deliberately absent, because asking would be wrong here:
//! - WRITEBACK_CACHE: the kernel would ignore the server's sizes and times;
//! - DIRECT_IO_ALLOW_MMAP: shared mappings of one file on two nodes would not be coherent;
//! - SPLICE_*: a message is one copy into an aligned buffer, a pipe would cost two calls more;
//! - CACHE_SYMLINKS, NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT: caches that no recall reaches, and opens
//!   the coordinator must hear of;
//! - OVER_IO_URING, PASSTHROUGH, SECURITY_CTX, CREATE_SUPP_GROUP, ALLOW_IDMAP, REQUEST_TIMEOUT: no code.

use std::fmt;

/// Whether a mount asks for a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Without it the mount is refused.
    Needed,
    /// Asked for, done without where the kernel has it not; [`crate::MountOptions::without`] makes a kernel that has it one
    /// that has not.
    Asked,
    /// The same, and there are servers that are better off without it.
    Optional,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The feature.
    pub feature: Feature,
    /// The kernel's name of it, without FUSE_.
    pub name: &'static str,
    /// Whether it is asked for.
    pub want: Want,
    /// What happens without it.
    pub fallback: &'static str,
    /// What is lost without it.
    pub lost: &'static str,
}

macro_rules! features {
    ($($feature:ident = $bit:literal, $name:literal, $want:ident, $why:literal, $fallback:literal, $lost:literal;)*) => {
        /// An optional feature of the kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Feature { $(#[doc = $why] $feature),* }

        impl Feature {
            pub(crate) const fn bit(self) -> u64 {
                match self { $(Self::$feature => 1 << $bit),* }
            }
        }

        /// Every feature this crate knows how to use.
        pub const TABLE: &[Row] = &[$(Row {
            feature: Feature::$feature, name: $name, want: Want::$want, fallback: $fallback, lost: $lost,
        }),*];
    };
}

features! {
    AsyncRead = 0, "ASYNC_READ", Asked,
        "Reads of one file may be in flight together.",
        "the kernel sends cached reads of a file one after the other", "read-ahead in parallel";
    PosixLocks = 1, "POSIX_LOCKS", Needed,
        "fcntl locks come to the server. Needed: without it the kernel grants them on this host alone, and two hosts start the same virtual machine.",
        "none", "exclusion between nodes";
    AtomicOTrunc = 3, "ATOMIC_O_TRUNC", Optional,
        "OPEN carries O_TRUNC. Asked for because one request then opens and truncates: an open that fails has truncated nothing, and it costs one round trip to the coordinator, not two.",
        "the kernel sends OPEN, then SETATTR with size 0", "a round trip per open with O_TRUNC";
    ExportSupport = 4, "EXPORT_SUPPORT", Asked,
        "Handles of open_by_handle_at outlive the kernel's memory of an inode: it looks up \".\" and \"..\" by node id, which the server must answer for every inode, folder or not.",
        "a handle whose inode the kernel forgot is ESTALE", "exporting over NFS, and handles that last";
    BigWrites = 5, "BIG_WRITES", Asked,
        "Writes larger than a page. Every kernel above the floor has them whether asked or not; the bit is part of the protocol.",
        "writes of one page", "throughput of large writes";
    DontMask = 6, "DONT_MASK", Optional,
        "The server applies the umask, since a directory's default access list takes its place.",
        "the kernel applies the umask before", "permissions that a default access list gives and the umask takes";
    FlockLocks = 10, "FLOCK_LOCKS", Needed,
        "flock(2) comes to the server. Needed for the reason of POSIX_LOCKS.",
        "none", "exclusion between nodes";
    AutoInvalData = 12, "AUTO_INVAL_DATA", Asked,
        "Cached pages go when size or mtime changed. Counts only for handles opened without DIRECT_IO.",
        "cached pages stay until a notification", "freshness of cached reads between recalls";
    Readdirplus = 13, "DO_READDIRPLUS", Asked,
        "Entries come with their attributes.",
        "READDIR, then one LOOKUP per name", "a request per listed name";
    ReaddirplusAuto = 14, "READDIRPLUS_AUTO", Asked,
        "The kernel uses READDIRPLUS only where look-ups follow.",
        "READDIRPLUS always", "cheap listing of names alone";
    AsyncDio = 15, "ASYNC_DIO", Asked,
        "Asynchronous direct I/O (libaio, io_uring) keeps its depth.",
        "one direct request at a time per caller", "queue depth of virtual machines";
    ParallelDirops = 18, "PARALLEL_DIROPS", Asked,
        "Look-ups and listings of one directory run side by side.",
        "one at a time per directory", "parallel look-ups";
    PosixAcl = 20, "POSIX_ACL", Optional,
        "The kernel checks access control lists, and forgets those it has read whenever it asks for attributes again. A server without lists must answer ENODATA when asked for one (anything else fails the caller's permission check), or be mounted without this.",
        "access control lists are stored and not checked", "the permissions that they give and take";
    AbortError = 21, "ABORT_ERROR", Asked,
        "An aborted connection reads ECONNABORTED, an unmounted one ENODEV.",
        "both read ENODEV", "the reason in the log";
    MaxPages = 22, "MAX_PAGES", Asked,
        "Requests up to max_write, not 128 KiB.",
        "requests of 128 KiB", "throughput of large reads and writes";
    HandleKillprivV2 = 28, "HANDLE_KILLPRIV_V2", Optional,
        "The server clears suid, sgid and capabilities when a request says so (kill_suidgid). Asked for because without it the kernel asks for security.capability before every write, one request per write.",
        "the kernel clears them with SETATTR, after asking GETXATTR before each write", "half of the write rate";
    SetxattrExt = 29, "SETXATTR_EXT", Asked,
        "SETXATTR says whether sgid is to be cleared.",
        "sgid stays when an ACL is set by someone outside the group", "that rule";
    InitExt = 30, "INIT_EXT", Asked,
        "INIT has 64 bits of features.",
        "features above bit 31 are off", "every feature newer than Linux 5.17";
    HasExpireOnly = 35, "HAS_EXPIRE_ONLY", Asked,
        "A name can be expired without dropping what is below it.",
        "expiring a name invalidates it", "mounts and open directories below an expired name keep their path";
    HasResend = 39, "HAS_RESEND", Asked,
        "The kernel sends what a process had read and not answered to the one that takes its mount over.",
        "a mount is taken over only from a process that left in order and owed nothing", "mounts that outlive the death of their daemon";
}

/// Which features a mount has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureSet(u64);

impl FeatureSet {
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Is it in?
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// The rows of the table that are not in, each with what is lost.
    pub fn missing(self) -> impl Iterator<Item = &'static Row> {
        TABLE.iter().filter(move |row| !self.has(row.feature))
    }
}

impl fmt::Display for FeatureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for row in TABLE.iter().filter(|row| self.has(row.feature)) {
            write!(f, "{between}{}", row.name)?;
            between = " ";
        }
        Ok(())
    }
}
