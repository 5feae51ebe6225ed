//! Where a replica's sockets are, for who is not its process.

use std::path::{Path, PathBuf};

use super::record::Record;

/// The socket that NBD's clients use.
pub(crate) fn nbd(dir: &Path, name: &str) -> PathBuf {
    Record::nbd(dir, name)
}
