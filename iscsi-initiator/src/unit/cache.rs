//! How a unit keeps what it has acknowledged, and what that asks of flushes and of writes with FUA.
//!
//! | WCE | DPOFUA | a flush is | a write or compare-and-write with FUA is |
//! |---|---|---|---|
//! | 1 | 1 | SYNCHRONIZE CACHE | sent with FUA |
//! | 1 | 0 | SYNCHRONIZE CACHE | sent without, then SYNCHRONIZE CACHE |
//! | 0 | any | nothing, if nothing was written while there was a cache | sent without |
//!
//! WCE is in the caching mode page, DPOFUA in the header of mode parameters (SBC-3 6.5.5, 6.5.1). A unit that does not tell is
//! taken for one with a cache and without FUA. Both are the unit's, over all its nexuses. They can change, and after a reset
//! they may be those of an earlier time; a unit tells each nexus so before it carries out the nexus' next command (SAM-5 5.14).
//! From that news on, whichever nexus brings it, the unit counts as one that does not tell, until it was asked again; an
//! answer that is older than the news is not believed.
//!
//! Prevents: a unit that passes FUA over acknowledges a lease from its volatile cache; or the cache is switched on while this
//! host believes that there is none.

use parking_lot::Mutex;
use scsi::action::First;
use scsi::cdb::ModeSense;
use scsi::mode::ModeData;

/// How a unit keeps what it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteCache {
    /// WCE: acknowledged writes may be in a cache that a loss of power empties.
    pub write_back: bool,
    /// DPOFUA: it looks at FUA.
    pub fua: bool,
}

impl WriteCache {
    /// Of a unit that does not tell: what is safe with any.
    pub const UNKNOWN: WriteCache = WriteCache { write_back: true, fua: false };

    /// Whether FUA is set in a write that is to be on the medium when it is answered.
    pub(super) fn sends_fua(self) -> bool {
        self.write_back && self.fua
    }
}

/// What MODE SENSE told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    /// WP.
    pub(super) write_protected: bool,
    pub(super) cache: WriteCache,
}

impl Mode {
    /// Of a unit without MODE SENSE: it takes writes.
    pub(super) const UNTOLD: Mode = Mode { write_protected: false, cache: WriteCache::UNKNOWN };

    /// Reads the answer. What cannot be read is untold, but not the header's bits: they come first, whatever is behind them.
    pub(super) fn parse(command: &ModeSense, bytes: &[u8]) -> Mode {
        let Ok(data) = ModeData::parse(command, bytes) else {
            // Byte 3 of the long header: DEVICE-SPECIFIC PARAMETER.
            let device = bytes.get(3).copied().unwrap_or(0);
            let cache = WriteCache { fua: device & 0x10 != 0, ..WriteCache::UNKNOWN };
            return Mode { write_protected: device & 0x80 != 0, cache };
        };
        let write_back = data.caching().is_none_or(|page| page.write_cache);
        Mode { write_protected: data.write_protected, cache: WriteCache { write_back, fua: data.dpo_fua } }
    }
}

/// How often there was news: an answer belongs to what was known when the question was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct News(u64);

/// What is known of a unit's cache over all its nexuses.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<(Option<WriteCache>, News)>);

impl Known {
    /// What is to be reckoned with.
    pub(super) fn cache(&self) -> WriteCache {
        self.0.lock().0.unwrap_or(WriteCache::UNKNOWN)
    }

    /// Whether it has to be asked.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.0.lock().0.is_none()
    }

    /// What the answer to a question belongs to that is sent now.
    pub(super) fn news(&self) -> News {
        self.0.lock().1
    }

    /// What the question that belongs to this news found.
    pub(super) fn learn(&self, news: News, cache: WriteCache) {
        let mut known = self.0.lock();
        if known.1 == news {
            known.0 = Some(cache);
        }
    }

    /// There is news: what was known may not be so any more.
    pub(super) fn doubt(&self) {
        let mut known = self.0.lock();
        *known = (None, News(known.1.0 + 1));
    }

    /// Whether this news is about it: a reset, other mode parameters, another unit.
    pub(super) fn concerns(first: First) -> bool {
        matches!(first, First::VerifyReservation { .. } | First::ReadModePages | First::Identify)
    }
}

#[cfg(test)]
mod tests {
    use scsi::mode::{Caching, Page, PageId};

    use super::*;

    fn mode(data: &ModeData) -> Mode {
        let command = ModeSense::current(PageId::ALL);
        Mode::parse(&command, &data.to_bytes(command.form, false))
    }

    #[test]
    fn what_a_unit_does_not_tell_is_taken_for_the_worst() {
        let page = |write_cache| Page::Caching(Caching { write_cache, read_cache_disabled: false });
        let told = |pages: Vec<Page>, dpo_fua| mode(&ModeData { dpo_fua, pages, ..ModeData::default() }).cache;
        assert_eq!(told(vec![page(false)], true), WriteCache { write_back: false, fua: true });
        assert_eq!(told(vec![page(true)], false), WriteCache { write_back: true, fua: false });
        assert_eq!(told(vec![], true), WriteCache { write_back: true, fua: true }, "no caching page");
        let command = ModeSense::current(PageId::ALL);
        // The header states more than came.
        let cut = Mode::parse(&command, &[2, 0, 0, 0x90, 0, 0, 0, 0]);
        assert_eq!(cut, Mode { write_protected: true, cache: WriteCache { write_back: true, fua: true } });
        assert_eq!(Mode::parse(&command, &[]), Mode::UNTOLD);
    }

    #[test]
    fn an_answer_older_than_the_news_is_not_believed() {
        let none = WriteCache { write_back: false, fua: false };
        let known = Known::default();
        assert!(known.is_in_doubt());
        known.learn(known.news(), none);
        assert_eq!((known.cache(), known.is_in_doubt()), (none, false));
        known.doubt();
        assert_eq!(known.cache(), WriteCache::UNKNOWN);
        let asked = known.news();
        known.doubt();
        known.learn(asked, none);
        assert_eq!(known.cache(), WriteCache::UNKNOWN, "the cache was switched on between question and news");
        known.learn(known.news(), none);
        assert_eq!(known.cache(), none);
    }
}
