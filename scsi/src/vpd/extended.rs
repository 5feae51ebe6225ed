//! Page 86h (SPC-4 7.8.7): what a unit supports, beyond standard inquiry data.

use super::{PageCode, body, fixed, page};
use crate::error::ParseError;
use crate::wire::{bit, flag};

/// Extended inquiry data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedInquiry {
    /// GRD_CHK, APP_CHK, REF_CHK: which fields of protection information are checked, as the low three bits.
    pub protection_checks: u8,
    /// SPT: supported protection types, 3 bits.
    pub protection_types: u8,
    /// GROUP_SUP: GROUP NUMBER is looked at.
    pub groups: bool,
    /// PRIOR_SUP: task priorities are looked at.
    pub priorities: bool,
    /// HEADSUP: head of queue tasks.
    pub head_of_queue: bool,
    /// ORDSUP: ordered tasks.
    pub ordered: bool,
    /// SIMPSUP: simple tasks.
    pub simple: bool,
    /// NV_SUP: there is a non-volatile cache.
    pub non_volatile_cache: bool,
    /// V_SUP: there is a volatile cache. Without either, nothing needs to be synchronized.
    pub volatile_cache: bool,
    /// LUICLR: a reset of one I_T nexus' unit clears only that nexus' unit attentions.
    pub nexus_unit_attention_clear: bool,
    /// R_SUP: referrals are supported.
    pub referrals: bool,
    /// MAXIMUM SUPPORTED SENSE DATA LENGTH in bytes; 0 is not told, and means at most 252.
    pub max_sense: u8,
}

/// Bytes behind the page's header.
const BODY: usize = 60;

impl ExtendedInquiry {
    /// Reads the page.
    pub fn parse(bytes: &[u8]) -> Result<ExtendedInquiry, ParseError> {
        let b: [u8; BODY] = fixed(body("VPD page 86h", PageCode::EXTENDED, bytes)?);
        Ok(ExtendedInquiry {
            protection_checks: b[0] & 7,
            protection_types: b[0] >> 3 & 7,
            groups: bit(b[1], 4),
            priorities: bit(b[1], 3),
            head_of_queue: bit(b[1], 2),
            ordered: bit(b[1], 1),
            simple: bit(b[1], 0),
            non_volatile_cache: bit(b[2], 1),
            volatile_cache: bit(b[2], 0),
            nexus_unit_attention_clear: bit(b[3], 0),
            referrals: bit(b[4], 4),
            max_sense: b[9],
        })
    }

    /// The page's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut b = [0; BODY];
        b[0] = (self.protection_types & 7) << 3 | self.protection_checks & 7;
        b[1] = flag(self.groups, 4)
            | flag(self.priorities, 3)
            | flag(self.head_of_queue, 2)
            | flag(self.ordered, 1)
            | flag(self.simple, 0);
        b[2] = flag(self.non_volatile_cache, 1) | flag(self.volatile_cache, 0);
        b[3] = flag(self.nexus_unit_attention_clear, 0);
        b[4] = flag(self.referrals, 4);
        b[9] = self.max_sense;
        page(PageCode::EXTENDED, &b)
    }
}
