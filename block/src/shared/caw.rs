//! Compare-and-write: the one atomic step on which slots, lease and fence rest.

use super::BoxFuture;
use crate::error::IoError;
use crate::units::ByteOffset;

/// How a compare-and-write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CawOutcome {
    /// The block held what was expected and now holds the new bytes, on stable storage.
    Done,
    /// The block holds something else: it was not changed, or (over several ways, [`HedgedCaw`](super::HedgedCaw)) it was and
    /// somebody has changed it since. What counts is `found`.
    Miscompare {
        /// The whole logical block as it was found.
        found: Vec<u8>,
    },
    /// The answer is lost: the new bytes are there, or not, or may still come.
    Unknown,
}

/// A disk's compare-and-write.
pub trait CompareAndWrite: Send + Sync {
    /// If the logical block at `at` holds `expect`, writes `new` there, in one step that no other
    /// node's compare-and-write can come between, and to stable storage.
    ///
    /// `expect` and `new` are equally long, at most one logical block; shorter ones stand for a block whose
    /// rest is zero. An error means that the block was **not** changed by this call and will not be;
    /// whatever is in doubt is [`CawOutcome::Unknown`].
    ///
    /// # Cancel safety
    /// A dropped future withdraws nothing: the outcome is then unknown.
    fn compare_and_write(
        &self,
        at: ByteOffset,
        expect: Vec<u8>,
        new: Vec<u8>,
    ) -> BoxFuture<'_, Result<CawOutcome, IoError>>;
}
