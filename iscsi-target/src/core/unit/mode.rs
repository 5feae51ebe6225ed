//! Mode parameters: the caching page, the control page, and the three bits of them that can be changed. Nothing is saved;
//! a reset brings the beginning back.

use scsi::cdb::{ModeSelect, ModeSense, PageControl};
use scsi::mode::{BlockDescriptor, Caching, Control, ModeData, Page, PageId, QueueErrors, UnitAttentionInterlock};
use scsi::units::BlockCount;
use scsi::{AdditionalCode, ListError, SenseKey};

use super::{Outcome, Shape};

/// What can be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode {
    /// D_SENSE.
    pub(crate) descriptor_sense: bool,
    /// SWP.
    pub(crate) write_protect: bool,
    /// WCE. Off: each write is on stable storage before its status.
    pub(crate) write_cache: bool,
}

impl Mode {
    /// As a unit begins, and as a reset leaves it.
    pub(super) fn first(shape: &Shape) -> Mode {
        Mode { descriptor_sense: false, write_protect: false, write_cache: !shape.write_through }
    }

    /// Commands are reordered freely (queue algorithm 1), there is one task set for all, and TASK ABORTED is told.
    fn control(self) -> Control {
        Control {
            task_set_type: 0,
            descriptor_sense: self.descriptor_sense,
            log_saving_disabled: true,
            queue_algorithm: 1,
            queue_errors: QueueErrors::GoOn,
            interlock: UnitAttentionInterlock::ClearedWhenTold,
            write_protect: self.write_protect,
            task_aborted_status: true,
            application_tag_owned: false,
            busy_timeout: 0,
        }
    }

    fn caching(self) -> Caching {
        Caching { write_cache: self.write_cache, read_cache_disabled: false }
    }

    /// The bits that can be changed.
    fn changeable() -> [Page; 2] {
        let control = Control {
            task_set_type: 0,
            descriptor_sense: true,
            log_saving_disabled: false,
            queue_algorithm: 0,
            queue_errors: QueueErrors::GoOn,
            interlock: UnitAttentionInterlock::ClearedWhenTold,
            write_protect: true,
            task_aborted_status: false,
            application_tag_owned: false,
            busy_timeout: 0,
        };
        [Page::Caching(Caching { write_cache: true, read_cache_disabled: false }), Page::Control(control)]
    }

    /// MODE SENSE.
    pub(super) fn sense(self, c: &ModeSense, shape: &Shape) -> Result<Vec<u8>, Outcome> {
        let all = match c.control {
            PageControl::Current => [Page::Caching(self.caching()), Page::Control(self.control())],
            PageControl::Default => {
                let first = Mode::first(shape);
                [Page::Caching(first.caching()), Page::Control(first.control())]
            }
            PageControl::Changeable => Mode::changeable(),
            PageControl::Saved => {
                let code = AdditionalCode::SAVING_PARAMETERS_NOT_SUPPORTED;
                return Err(Outcome::check(SenseKey::IllegalRequest, code));
            }
        };
        let wanted = |page: &Page| c.page == PageId::ALL || c.page == PageId::ALL_SUBPAGES || page.id() == c.page;
        let pages: Vec<Page> = all.into_iter().filter(wanted).collect();
        if pages.is_empty() {
            return Err(Outcome::field(2, Some(5)));
        }
        let block = (!c.no_block_descriptors)
            .then(|| BlockDescriptor { blocks: BlockCount(shape.blocks), block_bytes: shape.block.get() });
        let data = ModeData { write_protected: shape.read_only || self.write_protect, dpo_fua: true, block, pages };
        Ok(data.to_bytes(c.form, false))
    }

    /// MODE SELECT. Whether something was changed.
    pub(super) fn select(&mut self, c: &ModeSelect, data: &ModeData) -> Result<bool, Outcome> {
        if !c.page_format {
            return Err(Outcome::field(1, Some(4)));
        }
        if c.save {
            return Err(Outcome::field(1, Some(0)));
        }
        let invalid = || Outcome::sense(ListError::byte(if c.list.0 == 0 { 0 } else { 4 }).sense());
        let mut new = *self;
        for page in &data.pages {
            match page {
                Page::Caching(caching) if !caching.read_cache_disabled => new.write_cache = caching.write_cache,
                Page::Control(control) => {
                    new.descriptor_sense = control.descriptor_sense;
                    new.write_protect = control.write_protect;
                    if *control != new.control() {
                        return Err(invalid());
                    }
                }
                _ => return Err(invalid()),
            }
        }
        let changed = new != *self;
        *self = new;
        Ok(changed)
    }
}
