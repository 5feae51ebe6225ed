//! Compare-and-write of a unit: COMPARE AND WRITE on one block, with FUA, or followed by a flush where the unit passes FUA over.
//!
//! An answer that is lost is settled by the session: once the task is dead, its block is read, and its own bytes mean done.
//! MISCOMPARE is looked at in the same way: if the block holds the new bytes, an earlier copy of the same command has
//! won (a hedge, or a target that carried it out twice). That is sound because a block that is compared and written never
//! returns to an earlier value.

use std::sync::Arc;

use block::buf::AlignedBuf;
use block::device::Op;
use block::error::{IoError, IoErrorKind};
use block::shared::{BoxFuture, CawOutcome, CompareAndWrite};
use block::units::{ByteLen, ByteOffset};
use iscsi::session::Outcome;
use scsi::action::{self, Action};
use scsi::cdb::Caching;
use scsi::{BlockCount, BlockRange, Cdb, Lba, Sense, Status};

use super::WriteCache;
use super::ask::pause;
use super::device::{Inner, LunDevice, kind};
use super::follow::follow;

/// How often a busy unit is asked; with the pauses of `pause` that is a fraction of what a lease waits.
const BUSY_TRIES: u8 = 25;

impl CompareAndWrite for LunDevice {
    fn compare_and_write(
        &self,
        at: ByteOffset,
        expect: Vec<u8>,
        new: Vec<u8>,
    ) -> BoxFuture<'_, Result<CawOutcome, IoError>> {
        let len = ByteLen::of(&new);
        let inner = Arc::clone(&self.inner);
        let fail = move |kind| IoError::new(kind, Op::Write { fua: true }, at, len);
        Box::pin(async move {
            let swap = Swap::new(&inner, at, &expect, &new).map_err(fail)?;
            swap.run(&inner).await.map_err(fail)
        })
    }
}

/// One compare-and-write: the block, and what goes to the target, the old half before the new.
struct Swap {
    lba: Lba,
    bytes: Vec<u8>,
}

/// What a look into the block says.
enum Look {
    New,
    Old,
    Other(Vec<u8>),
}

impl Swap {
    fn new(inner: &Inner, at: ByteOffset, expect: &[u8], new: &[u8]) -> Result<Swap, IoErrorKind> {
        let block = inner.block_bytes();
        let geometry = inner.geometry();
        let fits = expect.len() == new.len() && !new.is_empty() && new.len() <= block;
        if !fits || !at.is_aligned_to(geometry.logical_block.bytes()) {
            return Err(IoErrorKind::Misaligned);
        }
        if geometry.read_only {
            return Err(IoErrorKind::ReadOnly);
        }
        if !geometry.contains(at, ByteLen::from_usize(block)) {
            return Err(IoErrorKind::OutOfRange);
        }
        let mut bytes = vec![0; 2 * block];
        bytes[..expect.len()].copy_from_slice(expect);
        bytes[block..block + new.len()].copy_from_slice(new);
        Ok(Swap { lba: Lba(at.0 / geometry.logical_block.bytes()), bytes })
    }

    /// Done is told when it is on the medium.
    async fn run(&self, inner: &Arc<Inner>) -> Result<CawOutcome, IoErrorKind> {
        let (sent, mut cached) = (inner.sending(), false);
        let outcome = self.swap(inner, &mut cached).await?;
        if outcome == CawOutcome::Done && cached && Inner::make_stable(inner, sent).await.is_err() {
            // The block was changed, so that it is no error; and nobody knows whether it stays so.
            return Ok(CawOutcome::Unknown);
        }
        Ok(outcome)
    }

    /// `cached` if what it wrote may lie in a cache.
    async fn swap(&self, inner: &Arc<Inner>, cached: &mut bool) -> Result<CawOutcome, IoErrorKind> {
        let class = inner.swap_class();
        let era = inner.session().era();
        let (mut attentions, mut busy) = (action::ATTENTION_TRIES, BUSY_TRIES);
        loop {
            let cache = inner.known().cache();
            *cached |= cache.write_back && !cache.sends_fua();
            let cdb = self.command(inner, cache).ok_or(IoErrorKind::OutOfRange)?;
            let memory = Some(AlignedBuf::from_slice(&self.bytes));
            let ended = inner.session().carry_out_in(era, inner.lun(), cdb, class, memory).await;
            let answer = match ended.outcome {
                Outcome::Answered(answer) => answer,
                // Taken back, fenced, or given up for lost: it may have been executed.
                Outcome::Lost(_) | Outcome::Unknown(_) | Outcome::Aborted | Outcome::Fenced => {
                    return Ok(CawOutcome::Unknown);
                }
            };
            let sense = Sense::parse(&answer.sense).ok();
            let reply = action::Reply::Status(answer.status, sense.as_ref());
            let (first, pace, or) = match action::verdict(action::Class::Once, reply).action {
                Action::Done => return Ok(CawOutcome::Done),
                Action::Differs => return Ok(self.differs(inner).await),
                Action::Settle { or, .. } => return self.settle(inner, kind(or)).await,
                Action::Fail(or) => return Err(inner.failed(or)),
                Action::Elsewhere { or, .. } => return Err(kind(or)),
                Action::Retry { first, pace, or } => (first, pace, or),
            };
            let left = if matches!(pace, action::Pace::AtOnce(_)) { &mut attentions } else { &mut busy };
            if *left == 0 {
                return Err(kind(or));
            }
            *left -= 1;
            follow(inner, first).await?;
            pause(pace).await;
        }
    }

    fn command(&self, inner: &Inner, cache: WriteCache) -> Option<Cdb> {
        let caching = if cache.sends_fua() { Caching::FUA } else { Caching::NONE };
        let command = scsi::cdb::CompareAndWrite { caching, ..scsi::cdb::CompareAndWrite::new(self.lba, 1) };
        command.cdb(inner.block()).ok()
    }

    /// The target compared and found something else.
    async fn differs(&self, inner: &Inner) -> CawOutcome {
        match self.look(inner).await {
            Some(Look::New) => CawOutcome::Done,
            Some(Look::Other(found)) => CawOutcome::Miscompare { found },
            // Not what the target compared with; or nobody knows.
            Some(Look::Old) | None => CawOutcome::Unknown,
        }
    }

    /// The task has ended in failure: whether it was carried out shows in the block.
    async fn settle(&self, inner: &Inner, failure: IoErrorKind) -> Result<CawOutcome, IoErrorKind> {
        match self.look(inner).await {
            Some(Look::New) => Ok(CawOutcome::Done),
            Some(Look::Other(found)) => Ok(CawOutcome::Miscompare { found }),
            Some(Look::Old) => Err(failure),
            None => Ok(CawOutcome::Unknown),
        }
    }

    async fn look(&self, inner: &Inner) -> Option<Look> {
        let len = inner.block_bytes();
        let range = BlockRange::new(self.lba, BlockCount(1));
        let cdb = scsi::cdb::Read::new(range).cdb(inner.block()).ok()?;
        for _ in 0..action::ATTENTION_TRIES {
            let memory = Some(AlignedBuf::with_capacity(len));
            let ended = inner.session().carry_out(inner.lun(), cdb.clone(), inner.look_class(), memory).await;
            let Outcome::Answered(answer) = ended.outcome else { return None };
            match ended.memory {
                Some(found) if answer.status == Status::Good && answer.moved as usize == len => {
                    let (old, new) = self.bytes.split_at(len);
                    return Some(match &found[..] {
                        found if found == new => Look::New,
                        found if found == old => Look::Old,
                        found => Look::Other(found.to_vec()),
                    });
                }
                _ => {}
            }
        }
        None
    }
}
