//! Control mode page 0Ah (SPC-4 7.5.8).

use crate::wire::{bit, flag};

/// What happens to the other commands of a nexus when one ends with CHECK CONDITION (QERR).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueErrors {
    /// 00b: they go on.
    #[default]
    GoOn,
    /// 01b: those of every nexus are aborted.
    AbortAll,
    /// 11b: those of that nexus are aborted.
    AbortNexus,
    /// 10b: reserved.
    Reserved,
}

/// When unit attentions are cleared (UA_INTLCK_CTRL).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnitAttentionInterlock {
    /// 00b: when they are told in a CHECK CONDITION.
    #[default]
    ClearedWhenTold,
    /// 10b: they stay until REQUEST SENSE.
    Kept,
    /// 11b: they stay, and BUSY, TASK SET FULL and RESERVATION CONFLICT establish one.
    KeptAndEstablished,
    /// 01b: reserved.
    Reserved,
}

/// How the unit treats commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// TST, 3 bits: 0 one task set for all nexuses, 1 one for each.
    pub task_set_type: u8,
    /// D_SENSE: sense data comes in descriptor format.
    pub descriptor_sense: bool,
    /// GLTSD: log parameters are not saved by themselves.
    pub log_saving_disabled: bool,
    /// QUEUE ALGORITHM MODIFIER, 4 bits: 1 lets the unit reorder commands.
    pub queue_algorithm: u8,
    /// QERR.
    pub queue_errors: QueueErrors,
    /// UA_INTLCK_CTRL.
    pub interlock: UnitAttentionInterlock,
    /// SWP: writes are refused.
    pub write_protect: bool,
    /// TAS: tasks that another nexus aborts end with TASK ABORTED; else they have no status at all.
    pub task_aborted_status: bool,
    /// ATO: the application tag of protection information is not the unit's to change.
    pub application_tag_owned: bool,
    /// BUSY TIMEOUT PERIOD in 100 ms; FFFFh is without limit.
    pub busy_timeout: u16,
}

/// Bytes behind the page's header.
pub(super) const LEN: usize = 0x0a;

impl Control {
    pub(super) fn parse(body: &[u8]) -> Option<Control> {
        let b: &[u8; LEN] = body.first_chunk()?;
        Some(Control {
            task_set_type: b[0] >> 5,
            descriptor_sense: bit(b[0], 2),
            log_saving_disabled: bit(b[0], 1),
            queue_algorithm: b[1] >> 4,
            queue_errors: match b[1] >> 1 & 3 {
                0 => QueueErrors::GoOn,
                1 => QueueErrors::AbortAll,
                3 => QueueErrors::AbortNexus,
                _ => QueueErrors::Reserved,
            },
            interlock: match b[2] >> 4 & 3 {
                0 => UnitAttentionInterlock::ClearedWhenTold,
                2 => UnitAttentionInterlock::Kept,
                3 => UnitAttentionInterlock::KeptAndEstablished,
                _ => UnitAttentionInterlock::Reserved,
            },
            write_protect: bit(b[2], 3),
            application_tag_owned: bit(b[3], 7),
            task_aborted_status: bit(b[3], 6),
            busy_timeout: u16::from_be_bytes([b[6], b[7]]),
        })
    }

    pub(super) fn to_bytes(self) -> [u8; LEN] {
        let mut b = [0; LEN];
        b[0] = self.task_set_type << 5 | flag(self.descriptor_sense, 2) | flag(self.log_saving_disabled, 1);
        let errors = match self.queue_errors {
            QueueErrors::GoOn => 0,
            QueueErrors::AbortAll => 1,
            QueueErrors::Reserved => 2,
            QueueErrors::AbortNexus => 3,
        };
        b[1] = self.queue_algorithm << 4 | errors << 1;
        let interlock = match self.interlock {
            UnitAttentionInterlock::ClearedWhenTold => 0,
            UnitAttentionInterlock::Reserved => 1,
            UnitAttentionInterlock::Kept => 2,
            UnitAttentionInterlock::KeptAndEstablished => 3,
        };
        b[2] = interlock << 4 | flag(self.write_protect, 3);
        b[3] = flag(self.application_tag_owned, 7) | flag(self.task_aborted_status, 6);
        [b[6], b[7]] = self.busy_timeout.to_be_bytes();
        b
    }
}
