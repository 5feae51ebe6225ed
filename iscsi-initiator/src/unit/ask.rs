//! Questions to a unit: commands that change nothing, each asked again where a unit attention or a moment's unreadiness
//! came between, up to bounds.

use std::sync::Arc;
use std::time::Duration;

use block::buf::AlignedBuf;
use iscsi::session::{Class, Outcome};
use parking_lot::Mutex;
use scsi::action::{self, Action, First, Pace};
use scsi::cdb::{Inquiry, ModeSense, PersistentReserveIn};
use scsi::mode::PageId;
use scsi::reservations::InAction;
use scsi::vpd::PageCode;
use scsi::{ByteCount, Cdb, LunAddress, ParseError, Sense, ShortByteCount, Status};

use super::UnitError;
use super::cache::Mode;
use crate::driver::Session;

/// Bytes asked for of a page: every page here fits; what is longer is cut and read as far as it came.
const PAGE: ShortByteCount = ShortByteCount(1024);
/// Bytes asked for of a list of registrations: a thousand keys; a longer list is asked for again, whole.
const LIST: u16 = 8192;
/// Bytes asked for of all mode pages: several times what any unit has.
const MODE: ByteCount = ByteCount(4096);
/// Before a busy unit is asked again.
const BUSY: Duration = Duration::from_millis(20);
/// Before a unit is asked again that is becoming ready or changing its state.
const READY: Duration = Duration::from_secs(1);

/// A unit that is being asked.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) session: Session,
    pub(super) lun: LunAddress,
    /// What unit attentions asked for that a question took: a unit tells each nexus once, whatever the command.
    pub(super) noted: Arc<Mutex<Vec<First>>>,
}

impl Asked {
    /// For a unit of which nothing is known.
    pub(super) fn new(session: &Session, lun: LunAddress) -> Asked {
        Asked { session: session.clone(), lun, noted: Arc::default() }
    }

    /// A page; none if the unit does not have it.
    pub(super) async fn page(&self, code: PageCode) -> Result<Option<Vec<u8>>, UnitError> {
        match self.ask("INQUIRY (page)", Inquiry::page(code, PAGE).cdb()).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(UnitError::Failed { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Write protection and write cache; what a unit without MODE SENSE does not tell is taken for the worst.
    pub(super) async fn mode(&self) -> Result<Mode, UnitError> {
        let sense = ModeSense { alloc: MODE, ..ModeSense::current(PageId::ALL) };
        let Ok(cdb) = sense.cdb() else { return Ok(Mode::UNTOLD) };
        match self.ask("MODE SENSE", cdb).await {
            Ok(bytes) => Ok(Mode::parse(&sense, &bytes)),
            Err(UnitError::Failed { .. }) => Ok(Mode::UNTOLD),
            Err(e) => Err(e),
        }
    }

    /// Something is to be looked into, once.
    pub(super) fn note(&self, first: First) {
        let mut noted = self.noted.lock();
        if first != First::Nothing && !noted.contains(&first) {
            noted.push(first);
        }
    }

    /// A list of registrations, whole.
    pub(super) async fn reservations<T>(
        &self,
        action: InAction,
        parse: impl Fn(&[u8]) -> Result<T, ParseError>,
    ) -> Result<T, UnitError> {
        const COMMAND: &str = "PERSISTENT RESERVE IN";
        let mut alloc = ShortByteCount(LIST);
        loop {
            let bytes = self.ask(COMMAND, PersistentReserveIn { action, alloc }.cdb()).await?;
            let source = match parse(&bytes) {
                Ok(list) => return Ok(list),
                Err(e) => e,
            };
            match source.wanted(usize::from(u16::MAX)).and_then(|n| u16::try_from(n).ok()) {
                Some(more) if more > alloc.0 => alloc = ShortByteCount(more),
                _ => return Err(UnitError::Parse { command: COMMAND, source }),
            }
        }
    }

    /// Asks, again where a unit attention or a moment's unreadiness came between.
    pub(super) async fn ask(&self, command: &'static str, cdb: Cdb) -> Result<Vec<u8>, UnitError> {
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
                Action::Retry { pace, first, .. } if left > 0 => {
                    left -= 1;
                    self.note(first);
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

/// Waits as long as a row of the table says.
pub(super) async fn pause(pace: Pace) {
    match pace {
        Pace::AtOnce(_) => {}
        Pace::Later | Pace::FewerAtOnce => tokio::time::sleep(BUSY).await,
        Pace::WhileTransitioning | Pace::UntilReady => tokio::time::sleep(READY).await,
    }
}
