//! A compare-and-write over two ways: if the first does not answer in time, the same bytes go over the second.
//!
//! Sound only because a block that is compared and written **never returns to an earlier value** (each carries a counter
//! and a nonce): the second copy to arrive finds the first one's bytes, or newer ones, and changes nothing. So the first
//! answer that decides is the answer, and the copy that is left may land whenever it likes.
//!
//! | first copy | other copy | answer |
//! |---|---|---|
//! | done | whatever | done |
//! | differs, found newer bytes | whatever | differs: won and lost again is lost |
//! | differs, found what was expected | waits | in doubt: the other copy may still land |
//! | error: it did nothing | waits | the other's; an error if both failed |
//! | in doubt | waits | the other's if it decides, else in doubt |

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{BoxFuture, CawOutcome, CompareAndWrite};
use crate::error::IoError;
use crate::units::ByteOffset;

/// When the second copy goes out: far above a healthy answer, far below any timer that waits for the lease.
pub const HEDGE_AFTER: Duration = Duration::from_millis(300);

/// The device.
pub struct HedgedCaw {
    ways: Vec<Arc<dyn CompareAndWrite>>,
    after: Duration,
}

impl HedgedCaw {
    /// Over these ways, in this order; at least one.
    pub fn new(ways: Vec<Arc<dyn CompareAndWrite>>, after: Duration) -> HedgedCaw {
        HedgedCaw { ways, after }
    }
}

type Answer = Result<CawOutcome, IoError>;

/// What the copies have come to so far. Pure.
#[derive(Debug, Default)]
pub(super) struct Tally {
    doubt: bool,
    error: Option<IoError>,
}

impl Tally {
    /// Takes the answer of one copy; the answer of all, if this one decides.
    pub(super) fn take(&mut self, answer: Answer, expect: &[u8]) -> Option<Answer> {
        match answer {
            Ok(CawOutcome::Done) => return Some(Ok(CawOutcome::Done)),
            Ok(CawOutcome::Miscompare { found }) if !is(&found, expect) => {
                return Some(Ok(CawOutcome::Miscompare { found }));
            }
            Ok(CawOutcome::Miscompare { .. } | CawOutcome::Unknown) => self.doubt = true,
            Err(e) => {
                self.error.get_or_insert(e);
            }
        }
        None
    }

    /// The answer once every copy has told.
    pub(super) fn end(self) -> Answer {
        match (self.doubt, self.error) {
            (false, Some(error)) => Err(error),
            _ => Ok(CawOutcome::Unknown),
        }
    }
}

/// Whether a whole block is these bytes and zeroes behind.
fn is(found: &[u8], bytes: &[u8]) -> bool {
    found.len() >= bytes.len() && found.starts_with(bytes) && found[bytes.len()..].iter().all(|b| *b == 0)
}

impl CompareAndWrite for HedgedCaw {
    fn compare_and_write(&self, at: ByteOffset, expect: Vec<u8>, new: Vec<u8>) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let mut copies = JoinSet::new();
            let mut tally = Tally::default();
            let mut ways = self.ways.iter();
            loop {
                if let Some(way) = ways.next() {
                    let (way, expect, new) = (Arc::clone(way), expect.clone(), new.clone());
                    copies.spawn(async move { way.compare_and_write(at, expect, new).await });
                }
                let more = !ways.as_slice().is_empty();
                let answer = match tokio::time::timeout(self.after, copies.join_next()).await {
                    Err(_) if more => continue,
                    Err(_) => copies.join_next().await,
                    Ok(answer) => answer,
                };
                let decided = match answer {
                    Some(answer) => tally.take(answer.unwrap_or(Ok(CawOutcome::Unknown)), &expect),
                    None => None,
                };
                match decided {
                    Some(decided) => {
                        // The other copy goes on, and its answer does not matter.
                        copies.detach_all();
                        return decided;
                    }
                    None if copies.is_empty() && !more => return tally.end(),
                    None => {}
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Op;
    use crate::error::IoErrorKind;
    use crate::units::ByteLen;

    fn differs(byte: u8) -> Answer {
        Ok(CawOutcome::Miscompare { found: vec![byte; 512] })
    }

    fn failed() -> Answer {
        Err(IoError::new(IoErrorKind::NoPath, Op::Write { fua: true }, ByteOffset(0), ByteLen(512)))
    }

    fn of(answers: &[Answer]) -> Answer {
        let mut tally = Tally::default();
        for answer in answers {
            if let Some(decided) = tally.take(answer.clone(), &[1; 512]) {
                return decided;
            }
        }
        tally.end()
    }

    #[test]
    fn the_first_answer_that_decides_is_the_answer() {
        let unknown = || Ok(CawOutcome::Unknown);
        assert_eq!(of(&[Ok(CawOutcome::Done)]), Ok(CawOutcome::Done));
        assert_eq!(of(&[unknown(), Ok(CawOutcome::Done)]), Ok(CawOutcome::Done));
        assert_eq!(of(&[failed(), Ok(CawOutcome::Done)]), Ok(CawOutcome::Done));
        assert_eq!(of(&[unknown(), differs(9)]), differs(9));
    }

    #[test]
    fn the_old_value_settles_nothing_as_long_as_a_copy_may_land() {
        assert_eq!(of(&[differs(1), Ok(CawOutcome::Unknown)]), Ok(CawOutcome::Unknown));
        assert_eq!(of(&[differs(1), failed()]), Ok(CawOutcome::Unknown));
    }

    #[test]
    fn only_copies_that_all_did_nothing_are_an_error() {
        assert_eq!(of(&[failed(), failed()]), failed());
        assert_eq!(of(&[failed(), Ok(CawOutcome::Unknown)]), Ok(CawOutcome::Unknown));
        assert_eq!(of(&[Ok(CawOutcome::Unknown), failed()]), Ok(CawOutcome::Unknown));
    }
}
