//! The end of this process and the beginning of the next, for files that stay open: coming to rest, and what is to be known of them.
//!
//! Nothing new comes from the kernel any more. Layouts go back, which commits what was made under them; times are told; the disk is
//! flushed, so that a loss of its cache while nobody looks takes nothing away that this process wrote. Files that fail until they
//! are closed fail in the next process, too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::files::OpenFile;
use super::{DataPath, Inode};
use crate::client::session::{Caller, Errno};
use crate::types::{HandleId, InodeNo};

/// An open file, as this node's programs have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownFile {
    /// Its name.
    pub handle: HandleId,
    /// Which file.
    pub ino: InodeNo,
    /// As it was opened.
    pub flags: i32,
    /// It fails until it is closed.
    pub poisoned: bool,
    /// Acknowledged writes of the file were lost, and no fsync has said so yet.
    pub lost: bool,
}

/// Open files, and the numbers of handles.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownFiles {
    /// The first handle that the process gave out, or the one before that it went on for.
    pub first: u64,
    /// The next that it would have given out.
    pub next: u64,
    /// All that are open.
    pub open: Vec<KnownFile>,
}

impl DataPath {
    /// Gives everything back and makes it stable. Nothing may come from programs meanwhile.
    ///
    /// # Errors
    /// If the disk or the coordinator refuses.
    ///
    /// # Cancel safety
    /// Safe: what was given back stays so.
    pub(crate) async fn come_to_rest(&self) -> Result<(), Errno> {
        self.look_for_losses();
        self.let_everything_go().await;
        let patient = Caller::patient();
        let all: Vec<Arc<Inode>> = self.inodes.lock().values().cloned().collect();
        for inode in &all {
            self.settle_times(inode, &patient).await?;
        }
        self.flush(&patient).await?;
        self.look_for_losses();
        Ok(())
    }

    /// What the next process is to know of open files.
    pub(crate) fn known_files(&self) -> KnownFiles {
        let known = |file: &Arc<OpenFile>| KnownFile {
            handle: file.handle,
            ino: file.ino(),
            flags: file.flags(),
            poisoned: file.is_poisoned() || file.inode.forfeited.load(Ordering::SeqCst),
            lost: file.inode.lost.load(Ordering::SeqCst),
        };
        let (first, next) = self.files.numbers();
        KnownFiles { first, next, open: self.files.all().iter().map(known).collect() }
    }

    /// Goes on with the open files of another process, before any request.
    pub(crate) fn resume(&self, known: &KnownFiles) {
        self.files.goes_on(known.first, known.next);
        for file in &known.open {
            let open = self.opened(file.ino, file.handle, file.flags, None);
            if file.poisoned {
                open.poison();
            }
            open.inode.lost.fetch_or(file.lost, Ordering::SeqCst);
        }
    }
}
