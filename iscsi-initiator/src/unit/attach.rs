//! Finding out what a unit is.

use block::buf::AlignedBuf;
use block::device::Geometry;
use block::units::ByteLen;
use iscsi::session::{Class, Outcome};
use scsi::action::{self, Action, Pace};
use scsi::capacity::Capacity;
use scsi::cdb::{Inquiry, ReadCapacity16};
use scsi::inquiry::StandardInquiry;
use scsi::vpd::{BlockLimits, DeviceIdentification, LogicalBlockProvisioning, PageCode, SupportedPages};
use scsi::{Cdb, LunAddress, Sense, ShortByteCount, Status};

use super::{Identity, UnitError, block_size};
use crate::driver::Session;

/// Bytes asked for of a page: every page here fits; what is longer is cut and read as far as it came.
const PAGE: ShortByteCount = ShortByteCount(1024);

/// Asks a unit what it is.
///
/// # Cancel safety
/// May be dropped; it changes nothing.
pub async fn attach(session: &Session, lun: LunAddress) -> Result<Identity, UnitError> {
    session.up().await?;
    let asked = Asked { session, lun };
    let parse = |command| move |source| UnitError::Parse { command, source };
    let inquiry = asked.ask("INQUIRY", Inquiry::STANDARD.cdb()).await?;
    let inquiry = StandardInquiry::parse(&inquiry).map_err(parse("INQUIRY"))?;
    if !inquiry.is_disk() {
        return Err(UnitError::Unusable("there is no disk at this address"));
    }
    let pages = asked.page(PageCode::SUPPORTED).await?.map(|b| SupportedPages::parse(&b)).transpose();
    let pages = pages.map_err(parse("INQUIRY page 00h"))?;
    let has = |code| pages.as_ref().is_some_and(|p| p.has(code));
    let mut identity = None;
    if has(PageCode::IDENTIFICATION) {
        let page = asked.page(PageCode::IDENTIFICATION).await?;
        identity = page.map(|b| DeviceIdentification::parse(&b)).transpose().map_err(parse("INQUIRY page 83h"))?;
    }
    let mut limits = BlockLimits::default();
    if has(PageCode::BLOCK_LIMITS)
        && let Some(page) = asked.page(PageCode::BLOCK_LIMITS).await?
    {
        limits = BlockLimits::parse(&page).map_err(parse("INQUIRY page B0h"))?;
    }
    let mut provisioning = None;
    if has(PageCode::PROVISIONING) {
        let page = asked.page(PageCode::PROVISIONING).await?;
        provisioning =
            page.map(|b| LogicalBlockProvisioning::parse(&b)).transpose().map_err(parse("INQUIRY page B2h"))?;
    }
    let capacity = asked.ask("READ CAPACITY (16)", ReadCapacity16::FULL.cdb()).await?;
    let capacity = Capacity::parse(&capacity).map_err(parse("READ CAPACITY (16)"))?;
    let read_only = asked.write_protected().await?;
    let geometry = geometry(&capacity, read_only, limits.max_unmap_blocks.is_some())?;
    Ok(Identity { lun, inquiry, identification: identity, limits, provisioning, capacity, read_only, geometry })
}

fn geometry(capacity: &Capacity, read_only: bool, discard: bool) -> Result<Geometry, UnitError> {
    let logical = block_size(capacity.block).ok_or(UnitError::Unusable("its blocks are not of 512 to 4096 bytes"))?;
    let physical = capacity.block.get().checked_shl(u32::from(capacity.physical_exponent));
    let physical = physical.and_then(block::units::BlockSize::new).unwrap_or(logical);
    let len = capacity.blocks().and_then(|b| b.0.checked_mul(logical.bytes()));
    let len = ByteLen(len.ok_or(UnitError::Unusable("it is larger than 2^64 bytes"))?);
    Ok(Geometry { logical_block: logical, physical_block: physical, len, memory_align: 1, read_only, discard })
}

/// A unit that is being asked.
struct Asked<'a> {
    session: &'a Session,
    lun: LunAddress,
}

impl Asked<'_> {
    /// A page; none if the unit does not have it.
    async fn page(&self, code: PageCode) -> Result<Option<Vec<u8>>, UnitError> {
        match self.ask("INQUIRY (page)", Inquiry::page(code, PAGE).cdb()).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(UnitError::Failed { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The WP bit of the mode parameter header; a unit without MODE SENSE takes writes.
    async fn write_protected(&self) -> Result<bool, UnitError> {
        let sense = scsi::cdb::ModeSense::current(scsi::mode::PageId::ALL);
        let Ok(cdb) = sense.cdb() else { return Ok(false) };
        let at = if cdb.len() == 6 { 2 } else { 3 };
        match self.ask("MODE SENSE", cdb).await {
            Ok(bytes) => Ok(bytes.get(at).is_some_and(|b| b & 0x80 != 0)),
            Err(UnitError::Failed { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Asks, again where a unit attention or a moment's unreadiness came between.
    async fn ask(&self, command: &'static str, cdb: Cdb) -> Result<Vec<u8>, UnitError> {
        let mut left = action::ATTENTION_TRIES;
        loop {
            let len = cdb.transfer().len().as_usize();
            let memory = (len > 0).then(|| AlignedBuf::zeroed(len));
            let ended = self.session.carry_out(self.lun, cdb.clone(), Class::Control, memory).await;
            let answer = match ended.outcome {
                Outcome::Answered(answer) => answer,
                outcome => return Err(UnitError::Unanswered { command, outcome }),
            };
            if answer.status == Status::Good {
                let mut bytes = ended.memory.map_or_else(Vec::new, |m| m.to_vec());
                bytes.truncate(answer.moved as usize);
                return Ok(bytes);
            }
            let sense = Sense::parse(&answer.sense).ok();
            let reply = action::Reply::Status(answer.status, sense.as_ref());
            let failure = match action::verdict(action::Class::Ask, reply).action {
                Action::Retry { pace, .. } if left > 0 => {
                    left -= 1;
                    pause(pace).await;
                    continue;
                }
                Action::Retry { or, .. } | Action::Elsewhere { or, .. } | Action::Settle { or, .. } => or,
                Action::Fail(failure) => failure,
                Action::Done | Action::Differs => action::Failure::Unexpected,
            };
            return Err(UnitError::Failed { command, failure });
        }
    }
}

async fn pause(pace: Pace) {
    let ms = match pace {
        Pace::AtOnce(_) => return,
        Pace::Later | Pace::FewerAtOnce => 20,
        Pace::WhileTransitioning | Pace::UntilReady => 1000,
    };
    tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
}
