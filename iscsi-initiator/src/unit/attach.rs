//! Finding out what a unit is.

use block::device::Geometry;
use block::units::ByteLen;
use scsi::LunAddress;
use scsi::action::Failure;
use scsi::capacity::{Capacity, Capacity10};
use scsi::cdb::{Inquiry, ReadCapacity10, ReadCapacity16};
use scsi::inquiry::StandardInquiry;
use scsi::vpd::{
    BlockLimits, DeviceIdentification, LogicalBlockProvisioning, PageCode, SupportedPages, UnitSerialNumber,
};

use super::ask::Asked;
use super::cache::Mode;
use super::{Identity, UnitError, block_size};
use crate::driver::Session;

/// Asks a unit what it is.
///
/// # Cancel safety
/// May be dropped; it changes nothing.
pub async fn attach(session: &Session, lun: LunAddress) -> Result<Identity, UnitError> {
    session.up().await?;
    let asked = Asked::new(session, lun);
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
    let mut serial = None;
    if has(PageCode::SERIAL)
        && let Some(page) = asked.page(PageCode::SERIAL).await?
    {
        serial = UnitSerialNumber::parse(&page).map_err(parse("INQUIRY page 80h"))?;
    }
    let mut provisioning = None;
    if has(PageCode::PROVISIONING) {
        let page = asked.page(PageCode::PROVISIONING).await?;
        provisioning =
            page.map(|b| LogicalBlockProvisioning::parse(&b)).transpose().map_err(parse("INQUIRY page B2h"))?;
    }
    let capacity = capacity(&asked).await?;
    let Mode { write_protected: read_only, cache } = asked.mode().await?;
    let geometry = geometry(&capacity, read_only, limits.max_unmap_blocks.is_some())?;
    let identification = identity;
    Ok(Identity { lun, inquiry, identification, serial, limits, provisioning, capacity, read_only, cache, geometry })
}

/// Its size. LIO (Linux 6.12) refuses READ CAPACITY (16) to a nexus that has not registered while the unit is held, and takes (10), as it ought to
/// take both (SBC-3, table 13): a node that joins a volume asks before it can register.
async fn capacity(asked: &Asked) -> Result<Capacity, UnitError> {
    let parse = |command| move |source| UnitError::Parse { command, source };
    match asked.ask("READ CAPACITY (16)", ReadCapacity16::FULL.cdb()).await {
        Ok(bytes) => Capacity::parse(&bytes).map_err(parse("READ CAPACITY (16)")),
        Err(UnitError::Failed { failure: Failure::ReservationConflict, .. }) => {
            let bytes = asked.ask("READ CAPACITY (10)", ReadCapacity10.cdb()).await?;
            match Capacity10::parse(&bytes).map_err(parse("READ CAPACITY (10)"))? {
                Capacity10::Size { last, block } => Ok(Capacity::new(last, block)),
                Capacity10::AskSixteen { .. } => Err(UnitError::Unusable(
                    "it has more than 2^32 blocks, and refuses READ CAPACITY (16) as long as others hold it",
                )),
            }
        }
        Err(e) => Err(e),
    }
}

pub(super) fn geometry(capacity: &Capacity, read_only: bool, discard: bool) -> Result<Geometry, UnitError> {
    let logical = block_size(capacity.block).ok_or(UnitError::Unusable("its blocks are not of 512 to 4096 bytes"))?;
    let physical = capacity.block.get().checked_shl(u32::from(capacity.physical_exponent));
    let physical = physical.and_then(block::units::BlockSize::new).unwrap_or(logical);
    let len = capacity.blocks().and_then(|b| b.0.checked_mul(logical.bytes()));
    let len = ByteLen(len.ok_or(UnitError::Unusable("it is larger than 2^64 bytes"))?);
    Ok(Geometry { logical_block: logical, physical_block: physical, len, memory_align: 1, read_only, discard })
}
