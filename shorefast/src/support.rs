//! The support bundle: one archive with everything that somebody who was not there needs to understand what happened.
//!
//! ```text
//! plan  ──► parts: a name, a command, a deadline, a size ──► gather ──► outcomes ──► mask ──► archive
//! ```
//! **Nothing that may hang is done in this process.** Each part is a process of its own (mostly this program again, as
//! `support-part`), which is killed at its deadline and, if the kernel does not let it die because its disk hangs, left
//! behind: the bundle is written without it, and says so. What came until then is kept. No part looks into a mount.
//!
//! Secrets are taken out of whatever the parts print ([`mask`]), not by the parts: a new part cannot forget it.
//!
//! Refused: an archive that exists already, and one below the mounts, which may be just what hangs.

mod archive;
mod gather;
mod mask;
mod part;
mod plan;

pub(crate) use archive::{contents, write};
pub(crate) use gather::{Outcome, gather, run_one};
pub(crate) use mask::masked;
pub(crate) use part::run as run_part;
pub(crate) use plan::{Known, Wishes, disks, first, records_of, rest};
