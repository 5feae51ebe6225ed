//! Records of a READDIR or READDIRPLUS answer.

use super::{EntryOut, body};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

body!(
    /// Followed by the name and padded to 8 bytes. `off` is the cookie of the *next* entry.
    Dirent [24] { ino: u64, off: u64, namelen: u32, kind: u32 }
);
body!(Direntplus [152] { entry: EntryOut, dirent: Dirent });
