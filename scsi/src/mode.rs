//! Mode parameters (SPC-4 7.5, SBC-3 6.5): header, block descriptor and the pages that matter for a shared disk.

mod block_descriptor;
mod caching;
mod control;
mod data;
#[cfg(test)]
mod tests;

use std::fmt;

pub use block_descriptor::BlockDescriptor;
pub use caching::Caching;
pub use control::{Control, QueueErrors, UnitAttentionInterlock};
pub use data::{ModeData, Page, RawPage};

/// Code and subpage of a mode page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId {
    /// PAGE CODE, 6 bits.
    pub page: u8,
    /// SUBPAGE CODE; 0 for pages without subpages.
    pub subpage: u8,
}

impl PageId {
    /// 08h: [`Caching`].
    pub const CACHING: PageId = PageId { page: 0x08, subpage: 0 };
    /// 0Ah: [`Control`].
    pub const CONTROL: PageId = PageId { page: 0x0a, subpage: 0 };
    /// 3Fh: all pages.
    pub const ALL: PageId = PageId { page: 0x3f, subpage: 0 };
    /// 3Fh/FFh: all pages and subpages.
    pub const ALL_SUBPAGES: PageId = PageId { page: 0x3f, subpage: 0xff };
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subpage {
            0 => write!(f, "mode page {:02x}h", self.page),
            subpage => write!(f, "mode page {:02x}h/{subpage:02x}h", self.page),
        }
    }
}

impl fmt::Debug for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageId({self})")
    }
}
