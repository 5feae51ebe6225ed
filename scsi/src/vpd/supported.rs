//! Page 00h (SPC-4 7.8.17): which pages there are.

use super::{PageCode, body, page};
use crate::error::ParseError;

/// The pages that a unit has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SupportedPages {
    /// Their codes, ascending; at most 256.
    pub pages: Vec<PageCode>,
}

impl SupportedPages {
    /// Reads the page. Codes are put in order: some targets do not keep the standard's.
    pub fn parse(bytes: &[u8]) -> Result<SupportedPages, ParseError> {
        const WHAT: &str = "VPD page 00h";
        let body = body(WHAT, PageCode::SUPPORTED, bytes)?;
        if body.len() > 256 {
            return Err(ParseError::TooMany { what: WHAT, max: 256 });
        }
        let mut pages: Vec<PageCode> = body.iter().map(|code| PageCode(*code)).collect();
        pages.sort_unstable();
        pages.dedup();
        Ok(SupportedPages { pages })
    }

    /// Whether the unit has this page.
    pub fn has(&self, code: PageCode) -> bool {
        self.pages.contains(&code)
    }

    /// The page's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let codes: Vec<u8> = self.pages.iter().map(|code| code.0).collect();
        page(PageCode::SUPPORTED, &codes)
    }
}
