//! What a mount is to be like.

use super::MountError;
use crate::features::Feature;
use crate::init::{MAX_WRITE_FLOOR, MAX_WRITE_LIMIT};
use crate::kept::Keeper;
use std::path::PathBuf;
use std::sync::Arc;

/// Channels of one mount: one per worker, and nobody has more workers than that.
const CHANNELS_MAX: usize = 256;

/// May users other than the one who mounts use the mount?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowOther {
    /// No.
    No,
    /// Yes, where that is permitted: always for root, for others if /etc/fuse.conf says
    /// `user_allow_other`. [`crate::Mount::allow_other`] tells.
    IfPermitted,
    /// Yes, or the mount is refused.
    Needed,
}

/// Who calls mount(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountHow {
    /// This process if it is root, else fusermount3.
    Auto,
    /// This process; needs CAP_SYS_ADMIN.
    Direct,
    /// fusermount3, the set-uid helper of the fuse3 package.
    Fusermount,
}

/// Options of [`crate::Mount::open`]. [`MountOptions::new`] gives the usual ones.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// An existing empty directory.
    pub mountpoint: PathBuf,
    /// What mount(8) shows as the source: `shorefast:NAME`.
    pub fs_name: String,
    /// The mount's type is `fuse.` and this. A mount of this type whose daemon is dead is ours to clean.
    pub subtype: String,
    /// Channels, each to be served by one worker.
    pub channels: usize,
    /// Largest payload of a request in bytes, 8 KiB to 1 MiB.
    pub max_write: u32,
    /// Background requests in flight: asynchronous direct I/O of all callers together, and read-ahead.
    /// What exceeds it waits in the kernel.
    pub max_background: u16,
    /// Idle request slabs (each twice `max_write`) kept for reuse by all channels together.
    pub idle_slabs: usize,
    /// The kernel checks permissions against mode, owner and group.
    pub default_permissions: bool,
    /// Other users.
    pub allow_other: AllowOther,
    /// Refuse writes in the kernel.
    pub read_only: bool,
    /// Set-user-id, set-group-id and capabilities of programs count. Without root never.
    pub suid: bool,
    /// Device nodes can be opened. Without root never.
    pub devices: bool,
    /// Features not to ask for, whether or not the kernel has them; those that are needed are asked for all the same.
    pub without: Vec<Feature>,
    /// Who mounts.
    pub how: MountHow,
    /// Unmount a dead mount of our type that is in the way.
    pub clean_stale: bool,
    /// Who keeps it when this process is gone; it is asked before the mount is in the tree.
    pub keeper: Option<Arc<dyn Keeper>>,
}

impl MountOptions {
    /// The usual options, with one channel.
    #[must_use]
    pub fn new(mountpoint: impl Into<PathBuf>, fs_name: impl Into<String>) -> Self {
        Self {
            mountpoint: mountpoint.into(),
            fs_name: fs_name.into(),
            subtype: "shorefast".into(),
            channels: 1,
            max_write: MAX_WRITE_LIMIT,
            // Four virtual machines of queue depth 128 before the kernel holds anything back.
            max_background: 512,
            // 48 MiB: forty-eight 1 MiB writes in flight before a slab is allocated for one.
            idle_slabs: 24,
            default_permissions: true,
            allow_other: AllowOther::IfPermitted,
            read_only: false,
            suid: false,
            devices: false,
            without: Vec::new(),
            how: MountHow::Auto,
            clean_stale: true,
            keeper: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), MountError> {
        let plain = |text: &str| !text.is_empty() && !text.bytes().any(|b| b < b' ' || b == b',' || b == b'\\');
        if !plain(&self.fs_name) {
            return Err(MountError::Option(
                "the source's name is empty or holds a comma, a backslash or a control character",
            ));
        }
        if !plain(&self.subtype) || self.subtype.contains([' ', '.', '/']) {
            return Err(MountError::Option("the type's name must be one plain word"));
        }
        if !(1..=CHANNELS_MAX).contains(&self.channels) {
            return Err(MountError::Option("there must be 1 to 256 channels"));
        }
        if !(MAX_WRITE_FLOOR..=MAX_WRITE_LIMIT).contains(&self.max_write) || !self.max_write.is_multiple_of(4096) {
            return Err(MountError::Option("max_write must be a multiple of 4096 from 8 KiB to 1 MiB"));
        }
        Ok(())
    }

    pub(super) fn fs_type(&self) -> String {
        format!("fuse.{}", self.subtype)
    }
}
