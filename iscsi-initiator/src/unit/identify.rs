//! Which unit is at the end of a session, asked anew.

use block::device::Op;
use block::error::{IoError, IoErrorKind};
use block::shared::{BoxFuture, DiskIdentity, Identify};
use block::units::{ByteLen, ByteOffset};
use scsi::vpd::{DeviceIdentification, PageCode, UnitSerialNumber};

use super::ask::Asked;
use super::device::LunDevice;
use super::{Identity, UnitError};

impl Identify for LunDevice {
    fn identify(&self) -> BoxFuture<'_, Result<DiskIdentity, IoError>> {
        let failed = |_| IoError::new(IoErrorKind::NoPath, Op::Read, ByteOffset::ZERO, ByteLen::ZERO);
        let asked = self.inner.asked();
        Box::pin(async move { names(&asked).await.map_err(failed) })
    }
}

impl Identity {
    /// The unit's names, as they were when it was attached over a session with `target`.
    pub fn names(&self, target: &str) -> DiskIdentity {
        DiskIdentity {
            target: target.to_owned(),
            identification: self.identification.clone().unwrap_or_default(),
            serial: self.serial.clone(),
        }
    }
}

/// Asks for the names. A unit without them has none.
pub(super) async fn names(asked: &Asked) -> Result<DiskIdentity, UnitError> {
    let parse = |command| move |source| UnitError::Parse { command, source };
    let page = asked.page(PageCode::IDENTIFICATION).await?;
    let identification = page.map(|b| DeviceIdentification::parse(&b)).transpose();
    let identification = identification.map_err(parse("INQUIRY page 83h"))?.unwrap_or_default();
    let page = asked.page(PageCode::SERIAL).await?;
    let serial = page.map(|b| UnitSerialNumber::parse(&b)).transpose().map_err(parse("INQUIRY page 80h"))?.flatten();
    Ok(DiskIdentity { target: asked.session.target().to_owned(), identification, serial })
}
